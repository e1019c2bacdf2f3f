"""Archives of a state directory: what comes out goes in again to the bit, and nothing else goes in at all."""

import asyncio
import gzip
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import InvalidInput, StorageError
from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.intervals.records import IntervalRecords
from gateway.domain.journal.changes import ControlTaken, DeviceRegistered
from gateway.domain.journal.stored import JournalState
from gateway.storage import archive as module
from gateway.storage.archive import (
    FORMAT,
    KNOWN,
    MANIFEST,
    ImportedState,
    Manifest,
    export_archive,
    import_archive,
)
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.interval_log.positions import START, Parked, Position
from gateway.storage.journal.journal import SqliteJournal
from tests.builders.energy_batches import T0, at
from tests.scenes.recorder_histories import State, content, restarted, session, settle, state_of, step
from tests.storage.journal.test_journal import device, event

ROOT = Path(__file__).parents[2]
CEILING_S = 60.0
KILL_CHILD = """
import sys
from pathlib import Path
from gateway.domain.types import Now
from gateway.storage.archive import import_archive
import_archive(Path(sys.argv[1]), Path(sys.argv[2]), now=Now(utc_ms=0, mono_ms=0), replace=True)
"""

PARKED = Parked(identity=(T0, "bat-1", 1), reason="refused", at_ms=T0)

Memory = tuple[JournalState, State, list[Any], list[IntervalRecord], Position, int]


async def made(directory: Path, seed: int = 1) -> list[str]:
    """A state directory with a bit of everything, written by the real classes; returns the devices."""
    rng = np.random.default_rng(seed)
    ids = [f"bat-{i}" for i in range(4)]
    journal = SqliteJournal(directory / "journal.sqlite", clock=ManualClock())
    journal.load()
    await journal.commit([DeviceRegistered(device=device(name)) for name in ids])
    await journal.commit(
        [event(ManualClock()), ControlTaken(devices=(device("bat-1").id,), event=event(ManualClock()).request.id)]
    )
    journal.close()
    clock, made = ManualClock(utc_ms=T0), list[IntervalRecords]()
    async with (
        IntervalLog(directory / "intervals", clock=clock) as log,
        session(directory, ids, segment_bytes=4_000) as (recorder, checkpoints),
    ):
        for index in range(60):
            step(recorder, rng, ids, 300 + 10 * index, made)
            if index % 20 == 10:
                await settle(recorder)
                await asyncio.sleep(0)
                ready = recorder.unlogged(10**9)
                await log.append(ready)
                recorder.logged(ready[-1].record)
                await recorder.checkpoint(checkpoints, at(index), {})
                clock.advance(s=86_400)
        await settle(recorder)
        await log.save_position("platform", Position(live=(await log.read(START, 7))[1]), [PARKED])
    return ids


async def remembered(directory: Path, ids: list[str]) -> Memory:
    """What the real classes find in a directory."""
    journal = SqliteJournal(directory / "journal.sqlite", clock=ManualClock())
    state = journal.load()
    journal.close()
    async with IntervalLog(directory / "intervals", clock=ManualClock(utc_ms=T0)) as log:
        rows, _ = await log.read(START, 10_000)
        found = restarted(directory, ids, logged=log.position)
        unlogged = [content(f) for f in found.unlogged]
        assert (found.stats.mismatches, log.stats.corrupt_files) == (0, 0)
        return state, state_of(found.engine), unlogged, rows, await log.position_of("platform"), found.next_record


def empty(directory: Path) -> Path:
    """A directory for a state, with a lock as every one has."""
    directory.mkdir()
    (directory / "lock").touch()
    return directory


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def exported(state_dir: Path, out: Path, *, damaged: bool = False) -> Manifest:
    return export_archive(state_dir, out, version="0.1.0", now=at(0), damaged=damaged)


def imported(source: Path, state_dir: Path, *, replace: bool = False) -> ImportedState:
    state_dir.mkdir(exist_ok=True)
    return import_archive(source, state_dir, now=at(0), replace=replace)


def test_archive_tells_how_far_it_is_in_bytes_and_ends_with_all_of_them(tmp_path: Path) -> None:
    state, told, out = empty(tmp_path / "state"), list[tuple[int, int]](), tmp_path / "a.tar.gz"
    (state / "large").write_bytes(b"x" * 3_000_000)
    (state / "small").write_bytes(b"y")

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    export_archive(state, out, version="0.1.0", now=at(0), damaged=False, progress=progress)
    assert told[-1] == (6_000_002, 6_000_002)
    told.clear()
    import_archive(out, empty(tmp_path / "other"), now=at(0), replace=False, progress=progress)
    assert (told, len(told)) == (sorted(told), 4)
    assert told[-1] == (3_000_001, 3_000_001)


def tree(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def refused(source: Path, state_dir: Path) -> str:
    """Why an import is refused; nothing may have changed by it."""
    state_dir.mkdir(exist_ok=True)
    before = sorted(state_dir.parent.rglob("*"))
    with pytest.raises(InvalidInput) as caught:
        import_archive(source, state_dir, now=at(0), replace=False)
    assert sorted(state_dir.parent.rglob("*")) == before
    (problem,) = caught.value.problems
    assert problem.startswith(f"{source}: ")
    return problem.removeprefix(f"{source}: ")


def small(tmp_path: Path) -> Path:
    """An archive of two small files."""
    state = tmp_path / "small"
    (state / "spool").mkdir(parents=True)
    (state / "a.checkpoint").write_bytes(b"one")
    (state / "spool" / "1.spool").write_bytes(b"two" * 1000)
    exported(state, tmp_path / "small.tgz")
    shutil.rmtree(state)
    return tmp_path / "small.tgz"


def forged(source: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]) -> Path:
    """The archive made anew, with other members."""
    with tarfile.open(source) as tar:
        members = [(m, file.read()) for m in tar.getmembers() if (file := tar.extractfile(m)) is not None]
    change(members)
    target = source.with_name("forged.tgz")
    with tarfile.open(target, "w:gz", format=tarfile.GNU_FORMAT) as tar:
        for member, data in members:
            member.size = len(data) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(data))
    return target


def told(members: list[tuple[tarfile.TarInfo, bytes]], change: Callable[[Manifest], Manifest]) -> None:
    """Another manifest."""
    member, text = members[0]
    members[0] = member, msgspec.json.encode(change(msgspec.json.decode(text, type=Manifest)))


def renamed(name: str) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]:
    """The first file under another name, in the manifest too."""

    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        told(
            members,
            lambda m: msgspec.structs.replace(m, files=[msgspec.structs.replace(m.files[0], path=name), *m.files[1:]]),
        )
        members[1][0].name = f"state/{name}"

    return change


async def test_archive_of_a_real_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state, out = empty(tmp_path / "state"), tmp_path / "out.tgz"
    ids = await made(state)
    manifest = exported(state, out)
    assert (manifest.format, manifest.gateway, manifest.created) == (FORMAT, "0.1.0", "2027-01-15T08:00:00Z")
    assert manifest.schemas == KNOWN
    paths = [entry.path for entry in manifest.files]
    assert len([name for name in paths if name.startswith("intervals/0")]) >= 2
    assert {"journal.sqlite", "intervals/cursors.sqlite"} < set(paths)
    assert any(name.endswith(".checkpoint") for name in paths)
    assert any(name.startswith("spool/") for name in paths)
    done = imported(out, tmp_path / "other")
    assert (done.before, done.manifest) == (None, manifest)
    files = tree(tmp_path / "other")
    assert files == {name: data for name, data in tree(state).items() if name != "lock"}
    there, here = await remembered(tmp_path / "other", ids), await remembered(state, ids)
    assert there == here
    assert there[3]
    assert there[4].live != START
    assert names(tmp_path) == ["other", "out.tgz", "state"]


async def test_archive_of_a_state_that_was_killed_holds_what_the_wal_held(tmp_path: Path) -> None:
    state = empty(tmp_path / "state")
    journal = SqliteJournal(state / "journal.sqlite", clock=ManualClock())
    journal.load()
    await journal.commit([DeviceRegistered(device=device("a"))])
    copy = tmp_path / "copy"
    shutil.copytree(state, copy)
    journal.close()
    assert (copy / "journal.sqlite-wal").stat().st_size > 0
    assert [entry.path for entry in exported(copy, tmp_path / "out.tgz").files] == ["journal.sqlite"]
    imported(tmp_path / "out.tgz", tmp_path / "other")
    again = SqliteJournal(tmp_path / "other" / "journal.sqlite", clock=ManualClock())
    assert [found.id for found in again.load().devices] == ["a"]
    again.close()


def test_archive_is_private_the_same_again_and_replaces_the_one_before(tmp_path: Path) -> None:
    state, out = tmp_path / "state", tmp_path / "out.tgz"
    state.mkdir()
    (state / "x.checkpoint").write_bytes(b"x")
    out.write_bytes(b"older")
    out.chmod(0o644)
    exported(state, out)
    first = out.read_bytes()
    exported(state, out)
    assert (stat.S_IMODE(out.stat().st_mode), out.read_bytes()) == (0o600, first)
    imported(out, tmp_path / "other")
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "other", tmp_path / "other" / "x.checkpoint")}
    assert modes == {"other": 0o700, "x.checkpoint": 0o600}
    listed = subprocess.run(["tar", "tzf", str(out)], capture_output=True, text=True, check=True).stdout
    assert listed.split() == [MANIFEST, "state/x.checkpoint"]


def test_archive_holds_damaged_files_only_on_demand_and_passing_ones_never(tmp_path: Path) -> None:
    state, out = tmp_path / "state", tmp_path / "out.tgz"
    (state / "spool").mkdir(parents=True)
    for name in ("lock", "1.checkpoint", ".2.checkpoint.part", "2.new", "3.corrupt", "spool/4.corrupt"):
        (state / name).write_bytes(b"x")
    assert [entry.path for entry in exported(state, out).files] == ["1.checkpoint"]
    assert [entry.path for entry in exported(state, out, damaged=True).files] == [
        "1.checkpoint", "3.corrupt", "spool/4.corrupt",
    ]  # fmt: skip


def test_archive_export_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with pytest.raises(InvalidInput) as caught:
        exported(state, state / "out.tgz")
    assert caught.value.problems == [f"{state}/out.tgz: within the state directory"]
    (state / "link").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput) as caught:
        exported(state, tmp_path / "out.tgz")
    assert caught.value.problems == [f"{state}/link: neither a file nor a directory"]
    (state / "link").unlink()
    (state / "ä").touch()
    with pytest.raises(InvalidInput) as caught:
        exported(state, tmp_path / "out.tgz")
    assert caught.value.problems == [f"{state}/ä: an archive cannot store this name"]
    (state / "ä").unlink()
    (state / "journal.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError) as failed:
        exported(state, tmp_path / "out.tgz")
    assert str(failed.value) == f"{state}/journal.sqlite: file is not a database"
    with pytest.raises(StorageError) as failed:
        exported(tmp_path / "small", tmp_path / "none" / "out.tgz")
    assert str(failed.value) == f"{tmp_path}/none/.out.tgz.part: No such file or directory"
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_archive_of_a_file_that_changes_meanwhile_is_not_made(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "a.checkpoint").write_bytes(b"one")

    def changed(_done: int, _total: int) -> None:
        (state / "a.checkpoint").write_bytes(b"two")

    with pytest.raises(StorageError) as failed:
        export_archive(state, tmp_path / "out.tgz", version="0.1.0", now=at(0), damaged=False, progress=changed)
    assert str(failed.value) == f"{state}/a.checkpoint: changed while it was exported"
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_import_into_a_state_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    source, state = small(tmp_path), tmp_path / "state"
    state.mkdir()
    (state / "old.checkpoint").write_bytes(b"old")
    with pytest.raises(InvalidInput) as caught:
        imported(source, state)
    assert caught.value.problems == [f"state_dir {state}: not empty; --replace keeps what is there aside"]
    assert tree(state) == {"old.checkpoint": b"old"}


@pytest.mark.parametrize("exchange", [True, False])
def test_import_replace_keeps_the_state_of_before_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(module, "_exchange", lambda _one, _other: False)
    source, state = small(tmp_path), tmp_path / "state"
    state.mkdir()
    (state / "old.checkpoint").write_bytes(b"old")
    done = imported(source, state, replace=True)
    assert done.before == tmp_path / "state.before-20270115T080000Z"
    assert tree(done.before) == {"old.checkpoint": b"old"}
    assert tree(state) == {"a.checkpoint": b"one", "spool/1.spool": b"two" * 1000}
    with pytest.raises(InvalidInput) as caught:
        imported(source, state, replace=True)
    assert caught.value.problems == [f"{done.before}: is there already"]


@pytest.mark.parametrize("where", ["exchange", "rename"])
def test_import_whose_swap_fails_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    source, state = small(tmp_path), tmp_path / "state"
    state.mkdir()
    (state / "old.checkpoint").write_bytes(b"old")
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == "state.importing" and target.name == "state":
            raise OSError(16, "Device or resource busy", str(target))
        return real(self, target)

    def exchange(_one: Path, other: Path) -> bool:
        if where == "exchange":
            raise OSError(16, "Device or resource busy", str(other))
        return False

    monkeypatch.setattr(module, "_exchange", exchange)
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(StorageError) as failed:
        imported(source, state, replace=True)
    assert str(failed.value) == f"{state}: Device or resource busy"
    assert tree(state) == {"old.checkpoint": b"old"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.tgz", "state"]


def test_import_tampered_byte_is_refused_wherever_it_is(tmp_path: Path) -> None:
    source = small(tmp_path)
    whole = source.read_bytes()
    plain = gzip.decompress(whole)
    for place, why in (
        (plain.rindex(b"two"), "spool/1.spool: its hash does not match the manifest: damaged or tampered with"),
        (plain.index(b'"size":3') + 7, "a.checkpoint: its size does not match the manifest"),
        (plain.index(b"state/a"), "not an archive of a state directory"),
    ):
        data = bytearray(plain)
        data[place] ^= 1
        source.write_bytes(gzip.compress(bytes(data)))
        assert refused(source, tmp_path / "state") == why
    for place in range(10, len(whole), 7):
        data = bytearray(whole)
        data[place] ^= 0x10
        source.write_bytes(data)
        with suppress(InvalidInput):
            imported(source, tmp_path / f"taken-{place}")
            # bits that fill up the last byte of the compressed data mean nothing
            assert gzip.decompress(data) == plain


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_import_cut_archive_is_refused(tmp_path: Path, part: float) -> None:
    source = small(tmp_path)
    os.truncate(source, round(source.stat().st_size * part))
    assert refused(source, tmp_path / "state") == "cut short"


def test_import_of_no_archive_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "x.tgz"
    for content_, why in (
        (b"no archive at all", "not gzip, or damaged"),
        (gzip.compress(b"x" * 1000), "not an archive of a state directory"),
        (gzip.compress(bytes(1000)), "not an archive of a state directory"),
        (gzip.compress(b""), "cut short"),
    ):
        source.write_bytes(content_)
        assert refused(source, tmp_path / "state") == why
    with pytest.raises(StorageError, match="No such file"):
        imported(tmp_path / "none.tgz", tmp_path / "state")


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/../../evil", "a//b", ".", "", "x\0y", "lock", ".x", "é", "x" * 99]
)
def test_import_path_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    source = forged(small(tmp_path), renamed(name))
    assert refused(source, tmp_path / "state") == f"{name!r}: not a file of a state directory"
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.XHDTYPE,
    ],
)
def test_import_member_that_is_no_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members[1][0].type, members[1][0].linkname = kind, "/etc/passwd"

    why = refused(forged(small(tmp_path), change), tmp_path / "state")
    assert why == "state/a.checkpoint: not a plain file"


def test_import_members_other_than_the_manifests_are_refused(tmp_path: Path) -> None:
    source, state = small(tmp_path), tmp_path / "state"

    def twice(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        told(members, lambda m: msgspec.structs.replace(m, files=[m.files[0], *m.files]))
        members.insert(1, members[1])

    def below(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        renamed("spool")(members)

    def more(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members.append((tarfile.TarInfo("state/z"), b"z"))

    def other(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members[1][0].name = "state/../../evil"

    def longer(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members[1] = members[1][0], b"one" + bytes(10_000)

    for change, why in (
        (twice, "'a.checkpoint': named twice"),
        (below, "'spool': named twice"),
        (more, "contains more than its manifest names"),
        (other, "'state/../../evil' where 'state/a.checkpoint' was expected"),
        (longer, "a.checkpoint: its size does not match the manifest"),
        (lambda members: members.pop(), "not an archive of a state directory"),
        (lambda members: members.reverse(), "'state/spool/1.spool' where 'manifest.json' was expected"),
    ):
        assert refused(forged(source, change), state) == why


def test_import_unpacks_no_more_than_the_manifest_says(tmp_path: Path) -> None:
    """A few kilobytes that would become a gigabyte."""
    source = small(tmp_path)
    bomb = gzip.compress(bytes(16 << 20)) * 64
    source.write_bytes(gzip.compress(gzip.decompress(source.read_bytes())[:-1024]) + bomb)
    assert refused(source, tmp_path / "state") == "contains more than its manifest names"
    header = tarfile.TarInfo(MANIFEST)
    header.size = 1 << 40
    source.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT)) + bomb)
    assert refused(source, tmp_path / "state") == "its manifest is too large"
    header.size = -1
    source.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT)) + bomb)
    assert refused(source, tmp_path / "state") == "manifest.json: not a plain file"


def test_import_of_a_newer_format_or_schema_is_refused(tmp_path: Path) -> None:
    source, state = small(tmp_path), tmp_path / "state"

    def versions(**change: Any) -> Path:
        return forged(source, lambda members: told(members, lambda m: msgspec.structs.replace(m, **change)))

    assert (
        refused(versions(format=FORMAT + 1), state) == f"format {FORMAT + 1} is newer than {FORMAT}, the newest known"
    )
    for kind, known in KNOWN.items():
        why = refused(versions(gateway="9.9", schemas=KNOWN | {kind: known + 1}), state)
        assert why == f"{kind}: schema {known + 1} is newer than {known}, the newest known (written by gateway 9.9)"
    why = refused(versions(gateway="9.9", schemas=KNOWN | {"ledger": 1}), state)
    assert why == "ledger: schema 1 is newer than this gateway (written by gateway 9.9)"


def test_import_killed_half_way_leaves_the_old_state_and_the_next_one_goes_through(tmp_path: Path) -> None:
    """The archive comes through a pipe that stops half way, so that the process is killed while it unpacks."""
    big, state, pipe = tmp_path / "big", tmp_path / "state", tmp_path / "pipe"
    (big / "spool").mkdir(parents=True)
    for i in range(4):
        (big / "spool" / f"{i}.spool").write_bytes(np.random.default_rng(i).bytes(300_000))
    exported(big, tmp_path / "big.tgz")
    state.mkdir()
    (state / "old.checkpoint").write_bytes(b"old")
    os.mkfifo(pipe)
    child = subprocess.Popen(
        [sys.executable, "-c", KILL_CHILD, str(pipe), str(state)], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    data = (tmp_path / "big.tgz").read_bytes()
    with pipe.open("wb") as into:
        into.write(data[: len(data) * 6 // 10])
        into.flush()
        # a pipe holds less than what was written: it has been read, and unpacked, beyond the first file
        assert (tmp_path / "state.importing" / "spool" / "1.spool").exists()
        assert child.poll() is None
        child.send_signal(signal.SIGKILL)
        assert child.wait(CEILING_S) == -signal.SIGKILL
    assert tree(state) == {"old.checkpoint": b"old"}
    done = imported(tmp_path / "big.tgz", state, replace=True)
    assert tree(state) == tree(big)
    assert done.before is not None
    assert names(tmp_path) == ["big", "big.tgz", "pipe", "state", done.before.name]

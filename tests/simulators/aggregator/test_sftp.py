"""The SFTP folder: files that come whole are processed, files that do not are told of."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from simulators.aggregator import AT_ONCE, NEVER, Aggregator, FaultKind, SftpFolder, Status
from tests.simulators.aggregator.asking import METER, aggregator, asking, line, quarters, start_ms, table

CEILING_S = 60
BAD = table(line(0), line(1, meter_id="device-7"))


@asynccontextmanager
async def folder(
    root: Path, served: Aggregator | None = None, *, at_first_sight: bool = False
) -> AsyncIterator[tuple[Aggregator, SftpFolder]]:
    served = served or aggregator()
    async with SftpFolder(served.intervals, root, at_first_sight=at_first_sight) as watched:
        yield served, watched


def put(watched: SftpFolder, name: str, content: bytes) -> None:
    """As a careful client does: another name first, then a rename."""
    (watched.inbox / f"{name}.part").write_bytes(content)
    (watched.inbox / f"{name}.part").rename(watched.inbox / name)


def looks(watched: SftpFolder, count: int = 3) -> None:
    for _ in range(count):
        watched.look()


def kinds(watched: SftpFolder) -> list[FaultKind]:
    return [fault.kind for fault in watched.faults]


async def test_sftp_good_file_is_taken_and_moves_to_accepted(tmp_path: Path) -> None:
    async with folder(tmp_path) as (served, watched):
        put(watched, "a.csv", quarters([0]))
        looks(watched)
        (version,) = served.intervals.accepted[METER, start_ms(0)]
        assert sorted(path.name for path in watched.inbox.iterdir()) == ["accepted", "failed"]
        assert sorted(path.name for path in (watched.inbox / "accepted" / "a.csv").iterdir()) == sorted(
            ["a.csv", f"{version.job_id}.feedback"]
        )
        assert watched.faults == []


async def test_sftp_bad_file_moves_to_failed_with_its_errors(tmp_path: Path) -> None:
    async with folder(tmp_path) as (served, watched):
        put(watched, "a.csv", BAD)
        looks(watched)
        job_id = served.intervals.uploads[0].last_job.job_id
        where = watched.inbox / "failed" / "a.csv"
        assert (where / "a.csv").read_bytes() == BAD
        assert (where / f"{job_id}.errors.csv").read_text().splitlines() == [
            "line,column,code,message", "3,meter_id,MTR_0002,meter 'device-7' is no UUID",
        ]  # fmt: skip
        assert served.intervals.accepted == {}


async def test_sftp_file_is_in_the_list_by_its_path(tmp_path: Path) -> None:
    async with asking() as (served, client), folder(tmp_path, served) as (_, watched):
        put(watched, "a.csv", BAD)
        looks(watched)
        (entry,) = (await client.uploads(file_path="/interval-data/a.csv"))["uploads"]
        assert (entry["status"], entry["current_file_path"]) == ("FAILED", "/interval-data/failed/a.csv/a.csv")
        assert [error["line"] for error in (await client.job(entry["last_job_id"]))["errors"]] == [3]
        preview = await client.ask("GET", f"/v1.1/jobs/interval-data-uploads/file-preview/{entry['last_job_id']}")
        assert preview.json()["file_data"] == BAD.decode().splitlines()


async def test_sftp_file_ended_by_a_look_at_the_list_is_no_fault(tmp_path: Path) -> None:
    async with asking(aggregator(pace=AT_ONCE)) as (served, client), folder(tmp_path, served) as (_, watched):
        put(watched, "a.csv", quarters([0]))
        await client.uploads()
        put(watched, "a.csv", quarters([1]))
        looks(watched)
        assert len(served.intervals.uploads) == len(served.intervals.accepted) == 2
        assert watched.faults == []


async def test_sftp_watching_by_itself_needs_no_look(tmp_path: Path) -> None:
    async with folder(tmp_path) as (served, watched):
        ended = asyncio.Event()
        served.intervals.on_change = ended.set
        put(watched, "a.csv", quarters([0]))
        async with asyncio.timeout(CEILING_S):
            await ended.wait()
        assert list(served.intervals.accepted) == [(METER, start_ms(0))]


@pytest.mark.parametrize("name", ["a.csv.part", "a.csv.tmp", ".a.csv"])
async def test_sftp_name_of_an_unfinished_file_is_left_alone(tmp_path: Path, name: str) -> None:
    async with folder(tmp_path) as (served, watched):
        with (watched.inbox / name).open("wb") as file:
            file.write(quarters([0])[:50])
            file.flush()
            looks(watched)
            file.write(quarters([0])[50:])
        looks(watched)
        assert (served.intervals.uploads, watched.faults) == ([], [])
        (watched.inbox / name).unlink()
        looks(watched)
        assert watched.faults == []


async def test_sftp_file_appended_to_under_its_final_name_is_a_fault(tmp_path: Path) -> None:
    content = quarters([0, 1])
    async with folder(tmp_path, aggregator(pace=NEVER)) as (_, watched):
        with (watched.inbox / "a.csv").open("wb", buffering=0) as file:
            file.write(content[:100])
            watched.look()
            file.write(content[100:])
            watched.look()
        (fault,) = watched.faults
        assert (fault.kind, fault.name, fault.size) == (FaultKind.GREW, "a.csv", 100)


async def test_sftp_file_written_under_its_final_name_between_two_looks_is_a_fault_all_the_same(tmp_path: Path) -> None:
    async with folder(tmp_path) as (served, watched):
        (watched.inbox / "a.csv").write_bytes(quarters([0]))
        looks(watched, 4)
        assert kinds(watched) == [FaultKind.GREW]
        assert len(served.intervals.accepted) == 1


async def test_sftp_file_is_judged_once_nobody_writes_to_it(tmp_path: Path) -> None:
    content = quarters(range(8))
    async with folder(tmp_path, aggregator(pace=AT_ONCE)) as (served, watched):
        with (watched.inbox / "a.csv").open("wb", buffering=0) as file:
            for at in range(0, len(content), 100):
                file.write(content[at : at + 100])
                watched.look()
                assert served.intervals.uploads[0].status is Status.QUEUED
        looks(watched)
        assert (len(served.intervals.accepted), kinds(watched)) == (8, [FaultKind.GREW])


async def test_sftp_reader_that_takes_what_is_there_takes_half_a_file(tmp_path: Path) -> None:
    content = quarters(range(8))
    async with folder(tmp_path, at_first_sight=True) as (served, watched):
        with (watched.inbox / "a.csv").open("wb", buffering=0) as file:
            file.write(content[:250])
            looks(watched)
            file.write(content[250:])
        looks(watched)
        assert served.intervals.uploads[0].status is Status.FAILED
        assert served.intervals.accepted == {}
        assert set(kinds(watched)) == {FaultKind.GREW}


async def test_sftp_rename_by_link_and_unlink_is_no_fault(tmp_path: Path) -> None:
    async with folder(tmp_path) as (served, watched):
        part = watched.inbox / "a.csv.part"
        part.write_bytes(quarters([0]))
        (watched.inbox / "a.csv").hardlink_to(part)
        part.unlink()
        looks(watched)
        assert (len(served.intervals.accepted), watched.faults) == (1, [])


async def test_sftp_file_written_to_under_the_other_name_of_a_link_is_a_fault(tmp_path: Path) -> None:
    async with folder(tmp_path, aggregator(pace=NEVER)) as (_, watched):
        with (watched.inbox / "a.csv.part").open("wb", buffering=0) as file:
            file.write(quarters([0]))
            (watched.inbox / "a.csv").hardlink_to(watched.inbox / "a.csv.part")
            watched.look()
            file.write(b"more")
        looks(watched)
        assert kinds(watched) == [FaultKind.GREW]


async def test_sftp_file_written_to_after_its_rename_is_a_fault(tmp_path: Path) -> None:
    async with folder(tmp_path, aggregator(pace=NEVER)) as (_, watched):
        with (watched.inbox / "a.csv.part").open("wb", buffering=0) as file:
            file.write(quarters([0]))
            (watched.inbox / "a.csv.part").rename(watched.inbox / "a.csv")
            watched.look()
            file.write(b"more")
        watched.look()
        assert kinds(watched) == [FaultKind.GREW]


async def test_sftp_file_written_to_after_the_service_moved_it_is_a_fault(tmp_path: Path) -> None:
    async with folder(tmp_path) as (_, watched):
        with (watched.inbox / "a.csv.part").open("wb", buffering=0) as file:
            file.write(quarters([0]))
            (watched.inbox / "a.csv.part").rename(watched.inbox / "a.csv")
            looks(watched)
            assert watched.faults == []
            file.write(b"more")
        watched.look()
        assert kinds(watched) == [FaultKind.GREW]


async def test_sftp_delete_or_rename_by_the_client_is_a_fault(tmp_path: Path) -> None:
    async with folder(tmp_path, aggregator(pace=NEVER)) as (served, watched):
        put(watched, "a.csv", quarters([0]))
        put(watched, "b.csv", quarters([1]))
        watched.look()
        (watched.inbox / "a.csv").unlink()
        (watched.inbox / "b.csv").rename(watched.inbox / "b.csv.part")
        watched.look()
        assert [(fault.kind, fault.name) for fault in watched.faults] == [
            (FaultKind.VANISHED, "a.csv"), (FaultKind.VANISHED, "b.csv"),
        ]  # fmt: skip
        served.intervals.finish_all()
        assert {upload.status for upload in served.intervals.uploads} == {Status.FAILED}


async def test_sftp_delete_of_a_file_that_was_put_away_is_a_fault(tmp_path: Path) -> None:
    async with folder(tmp_path) as (_, watched):
        put(watched, "a.csv", quarters([0]))
        looks(watched)
        (watched.inbox / "accepted" / "a.csv" / "a.csv").unlink()
        looks(watched)
        assert kinds(watched) == [FaultKind.VANISHED]


async def test_sftp_second_file_in_the_place_of_one_that_waits_is_a_fault(tmp_path: Path) -> None:
    async with folder(tmp_path, aggregator(pace=NEVER)) as (_, watched):
        put(watched, "a.csv", quarters([0]))
        put(watched, "a.csv", quarters([1]))
        watched.look()
        assert kinds(watched) == [FaultKind.REPLACED]


async def test_sftp_name_outside_the_pattern_is_a_fault_and_left(tmp_path: Path) -> None:
    async with folder(tmp_path) as (served, watched):
        put(watched, "a b.csv", quarters([0]))
        looks(watched)
        assert (kinds(watched), served.intervals.uploads) == ([FaultKind.BAD_NAME], [])


async def test_sftp_file_that_was_there_before_is_taken_once(tmp_path: Path) -> None:
    (tmp_path / "interval-data").mkdir()
    (tmp_path / "interval-data" / "a.csv").write_bytes(quarters([0]))
    async with folder(tmp_path) as (served, watched):
        looks(watched)
        assert (len(served.intervals.uploads), len(served.intervals.accepted), watched.faults) == (1, 1, [])


async def by_openssh(root: Path, *commands: str) -> None:
    """Have OpenSSH's own client tell its own server; skipped where there is none, except in CI."""
    server = shutil.which("sftp-server", path="/usr/lib/openssh:/usr/libexec:/usr/lib/ssh")
    client = shutil.which("sftp")
    if server is None or client is None:
        if os.environ.get("CI") == "true":
            pytest.fail("OpenSSH is missing")
        pytest.skip("no OpenSSH here")
    process = await asyncio.create_subprocess_exec(
        client,
        "-q",
        "-b",
        "-",
        "-D",
        server,
        cwd=root,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(CEILING_S):
        await process.communicate("\n".join((f"cd {root}/interval-data", *commands, "")).encode())
    assert process.returncode == 0


async def test_sftp_openssh_put_and_rename_is_whole(tmp_path: Path) -> None:
    async with folder(tmp_path) as (served, watched):
        (tmp_path / "local.csv").write_bytes(quarters(range(40)))
        await by_openssh(tmp_path, "put local.csv a.csv.part", "rename a.csv.part a.csv")
        await by_openssh(tmp_path, "put local.csv .b.csv", "rename -l .b.csv b.csv")
        looks(watched)
        assert (len(served.intervals.uploads), len(served.intervals.accepted), watched.faults) == (2, 40, [])


async def test_sftp_openssh_put_under_the_final_name_is_a_fault(tmp_path: Path) -> None:
    async with folder(tmp_path) as (_, watched):
        (tmp_path / "local.csv").write_bytes(quarters(range(40)))
        await by_openssh(tmp_path, "put local.csv a.csv")
        looks(watched)
        assert FaultKind.GREW in kinds(watched)


async def test_sftp_openssh_remove_is_a_fault(tmp_path: Path) -> None:
    async with folder(tmp_path, aggregator(pace=NEVER)) as (_, watched):
        put(watched, "a.csv", quarters([0]))
        await by_openssh(tmp_path, "rm a.csv")
        looks(watched)
        assert kinds(watched) == [FaultKind.VANISHED]

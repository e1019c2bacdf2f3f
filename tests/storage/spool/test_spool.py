"""The spool: nothing is reported durable that is not, order is kept, damage is met without falling over."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.domain.errors import StorageError
from gateway.storage.spool.records import Kind
from gateway.storage.spool.spool import CORRUPT_SUFFIX, Scan, Spool, segments
from tests.scenes.recorder_histories import CEILING_S

NOTING: set[asyncio.Future[None]] = set()


def spool_at(
    directory: Path,
    *,
    first: int = 1,
    segment_bytes: int = 1 << 20,
    max_bytes: int = 1 << 30,
    queue_bytes: int = 1 << 20,
    corrupt: Sequence[Path] = (),
) -> tuple[Spool, list[int]]:
    durable: list[int] = []
    spool = Spool(
        directory,
        first_record=first,
        preface=lambda: (Kind.FLEET, [b"[0,[]]"]),
        segment_bytes=segment_bytes,
        max_bytes=max_bytes,
        queue_bytes=queue_bytes,
        corrupt=corrupt,
    )
    noting = asyncio.ensure_future(noted(spool, durable))
    NOTING.add(noting)
    noting.add_done_callback(NOTING.discard)
    return spool, durable


async def noted(spool: Spool, durable: list[int]) -> None:
    """Note what becomes durable, until the spool is closed."""
    while True:
        await spool.wait_durable(spool.durable_record + 1)
        durable.append(spool.durable_record)


async def until_durable(spool: Spool) -> None:
    async with asyncio.timeout(CEILING_S):
        await spool.wait_durable(spool.last_record)
    # who noted it waits for the same
    await asyncio.sleep(0)


async def until_failing(spool: Spool, reason: str) -> None:
    async with asyncio.timeout(CEILING_S):
        while spool.stats.failing != reason:
            await asyncio.sleep(0.001)


def read(directory: Path) -> tuple[list[bytes], Scan]:
    scan = Scan(directory)
    return [bytes(record.payload) for record in scan if record.kind is Kind.NAMES], scan


async def test_spool_records_come_back_in_order_over_segments(tmp_path: Path) -> None:
    spool, durable = spool_at(tmp_path, segment_bytes=200)
    payloads = [b"%d" % i * 20 for i in range(50)]
    async with spool:
        for payload in payloads:
            spool.append(Kind.NAMES, [payload])
        await until_durable(spool)
        assert durable[-1] == spool.last_record
    assert len(segments(tmp_path)) > 5
    found, scan = read(tmp_path)
    assert found == payloads
    assert (scan.torn_bytes, scan.damaged_bytes, scan.corrupt) == (0, 0, [])


async def test_spool_commits_held_back_reports_nothing_and_then_all_at_once(tmp_path: Path) -> None:
    spool, durable = spool_at(tmp_path)
    async with spool:
        spool.gate.clear()
        numbers = [spool.append(Kind.NAMES, [b"x" * 100]) for _ in range(10)]
        waiting = asyncio.ensure_future(spool.wait_durable(numbers[0]))
        await asyncio.sleep(0.1)
        assert (durable, waiting.done()) == ([], False)
        spool.gate.set()
        async with asyncio.timeout(CEILING_S):
            await waiting
        await until_durable(spool)
        assert durable == [numbers[-1]]


async def test_spool_queue_at_its_bound_says_no_room_and_refuses_beyond(tmp_path: Path) -> None:
    spool, _ = spool_at(tmp_path, queue_bytes=1000)
    async with spool:
        spool.gate.clear()
        while spool.room:
            spool.append(Kind.NAMES, [b"x" * 100])
        with pytest.raises(StorageError):
            for _ in range(20):
                spool.append(Kind.NAMES, [b"x" * 100])
        spool.gate.set()
        await until_durable(spool)
        assert spool.room


async def test_spool_size_limit_holds_everything_until_segments_are_dropped(tmp_path: Path) -> None:
    spool, durable = spool_at(tmp_path, segment_bytes=300, max_bytes=1500)
    async with spool:
        for i in range(20):
            spool.append(Kind.NAMES, [b"%03d" % i * 30])
        await until_failing(spool, "EDQUOT")
        async with asyncio.timeout(CEILING_S):
            while spool.durable_record < spool.last_record:
                await spool.drop_before(spool.durable_record)
                await asyncio.sleep(0.01)
        assert spool.stats.failing is None
        assert durable == sorted(durable)
    found, _ = read(tmp_path)
    assert found == [b"%03d" % i * 30 for i in range(20)][-len(found) :]


async def test_spool_record_larger_than_the_limit_is_written_and_what_follows_too(tmp_path: Path) -> None:
    spool, _ = spool_at(tmp_path, segment_bytes=64 << 20, max_bytes=100_000, queue_bytes=50_000)
    async with spool:
        spool.append(Kind.NAMES, [b"before"])
        spool.append(Kind.NAMES, [b"x" * 200_000])
        await until_durable(spool)
        assert spool.room
        spool.append(Kind.NAMES, [b"after"])
        await until_durable(spool)
        assert (spool.room, spool.stats.failing) == (True, None)
        await spool.drop_before(spool.last_record)
        assert spool.stats.segment_bytes < 1_000
    again, _ = spool_at(tmp_path, first=spool.last_record + 1)
    async with again:
        assert again.room


async def test_spool_full_of_an_earlier_process_takes_the_first_records_of_the_next(tmp_path: Path) -> None:
    """Those are what its first checkpoint waits for, which frees the rest."""
    spool, _ = spool_at(tmp_path, segment_bytes=1_000)
    async with spool:
        for _ in range(200):
            spool.append(Kind.NAMES, [b"x" * 100])
        await until_durable(spool)
    again, _ = spool_at(tmp_path, first=spool.last_record + 1, segment_bytes=1_000, max_bytes=10_000)
    async with again:
        assert (again.stats.segment_bytes > 20_000, again.room) == (True, True)
        again.append(Kind.NAMES, [b"now"])
        await until_durable(again)
        for _ in range(60):
            again.append(Kind.NAMES, [b"x" * 100])
        await until_failing(again, "EDQUOT")
        assert not again.room


async def test_spool_goes_on_after_an_earlier_process_with_growing_numbers(tmp_path: Path) -> None:
    spool, _ = spool_at(tmp_path)
    async with spool:
        spool.append(Kind.NAMES, [b"one"])
    again, _ = spool_at(tmp_path, first=spool.last_record + 1)
    async with again:
        again.append(Kind.NAMES, [b"two"])
    assert read(tmp_path)[0] == [b"one", b"two"]


async def test_scan_torn_end_is_cut_off_and_counted(tmp_path: Path) -> None:
    spool, _ = spool_at(tmp_path)
    async with spool:
        for payload in (b"one", b"two"):
            spool.append(Kind.NAMES, [payload])
    (path,) = segments(tmp_path)
    os.truncate(path, path.stat().st_size - 1)
    found, scan = read(tmp_path)
    assert (found, scan.torn_bytes, scan.corrupt) == ([b"one"], 34, [])
    assert read(tmp_path)[1].torn_bytes == 0


async def test_scan_segment_of_garbage_is_set_aside_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / f"{1:016d}.spool").write_bytes(os.urandom(1000))
    found, scan = read(tmp_path)
    assert (found, scan.torn_bytes > 0) == ([], True)
    spool, _ = spool_at(tmp_path)
    async with spool:
        spool.append(Kind.NAMES, [b"x"])
    assert read(tmp_path)[0] == [b"x"]


async def test_spool_damaged_segment_is_kept_aside_when_dropped(tmp_path: Path) -> None:
    spool, _ = spool_at(tmp_path, segment_bytes=100)
    async with spool:
        for i in range(6):
            spool.append(Kind.NAMES, [b"%d" % i * 90])
    path = segments(tmp_path)[1]
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    found, scan = read(tmp_path)
    assert (len(found), scan.corrupt) == (6, [path]) or (len(found), scan.corrupt) == (5, [path])
    again, _ = spool_at(tmp_path, first=scan.last_record + 1, corrupt=scan.corrupt)
    async with again:
        again.append(Kind.NAMES, [b"x"])
        await until_durable(again)
        assert await again.drop_before(again.last_record) > 3
    assert path.with_suffix(CORRUPT_SUFFIX).exists()
    assert path not in segments(tmp_path)


FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from gateway.storage.spool.records import Kind
from gateway.storage.spool.spool import Spool, Scan

async def main(directory):
    durable = []
    spool = Spool(directory, first_record=1, preface=lambda: (Kind.FLEET, [b"[0,[]]"]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))

    async def note():
        while True:
            await spool.wait_durable(spool.durable_record + 1)
            durable.append(spool.durable_record)

    noting = asyncio.ensure_future(note())
    async with spool:
        for i in range(10):
            spool.append(Kind.NAMES, [b"%04d" % i * 250])
            async with asyncio.timeout(30):
                while spool.durable_record < spool.last_record and spool.stats.failing is None:
                    await asyncio.sleep(0.001)
        assert spool.stats.failing == "EFBIG", spool.stats
        assert 0 < spool.durable_record < spool.last_record
        before = [bytes(r.payload) for r in Scan(directory)]
        assert len(before) == spool.durable_record, (len(before), spool.durable_record)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        async with asyncio.timeout(30):
            await spool.wait_durable(spool.last_record)
        assert spool.stats.failing is None and spool.stats.failures > 0
        await asyncio.sleep(0)
        assert durable == sorted(durable) and durable[-1] == spool.last_record
    scan = Scan(directory)
    payloads = [bytes(r.payload) for r in scan if r.kind is Kind.NAMES]
    assert payloads == [b"%04d" % i * 250 for i in range(10)]
    assert not scan.torn_bytes and not scan.corrupt
    print("held")

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.fault("F36")
def test_spool_file_that_cannot_grow_reports_nothing_durable_and_recovers_in_order(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "spool")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("held", 0), done.stderr

"""The replay window: an identified message counts once, whatever the clock, a flood, a kill or the disk does."""

import asyncio
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.errors import StorageError
from gateway.domain.replay import Admission, ReplayBounds
from gateway.domain.types import Now
from gateway.storage.replay import NAME, ReplayStore

T0 = 1_800_000_000_000
BOUNDS = ReplayBounds(age_ms_max=300_000, ahead_ms_max=60_000, kept_ms=600_000, ids_max=5)
FIRST, AGAIN, OLD, EARLY = Admission


def at(ms: int) -> Now:
    return Now(utc_ms=T0 + ms, mono_ms=0)


async def test_message_counts_once_and_is_answered_as_the_first_time(tmp_path: Path) -> None:
    async with ReplayStore(tmp_path) as store:
        window = store.window("door", BOUNDS)
        assert await window.seen("feed", "m1", T0, at(0)) is FIRST
        assert await window.admit("feed", "m1", T0, at(0), answer=b"yes") is FIRST
        assert await window.admit("feed", "m1", T0, at(1), answer=b"no") is AGAIN
        assert await window.seen("feed", "m1", T0, at(1)) is AGAIN
        assert (await window.answer("feed", "m1"), await window.answer("feed", "m2")) == (b"yes", None)
        # others may use the same id
        assert await window.admit("other", "m1", T0, at(1)) is FIRST
        assert await store.window("gate", BOUNDS).admit("feed", "m1", T0, at(1)) is FIRST
        counts = {(s.labels[0][1], s.labels[1][1]): s.value for s in store.samples()}
        assert (counts["door", "first"], counts["door", "again"], counts["gate", "first"]) == (2, 1, 1)


async def test_message_from_outside_its_time_is_refused_and_one_inside_is_not(tmp_path: Path) -> None:
    async with ReplayStore(tmp_path) as store:
        window = store.window("door", BOUNDS)
        assert await window.admit("feed", "a", T0 - 300_001, at(0)) is OLD
        assert await window.admit("feed", "b", T0 - 300_000, at(0)) is FIRST
        assert await window.admit("feed", "c", T0 + 60_001, at(0)) is EARLY
        assert await window.admit("feed", "d", T0 + 60_000, at(0)) is FIRST
        # refused ones are not noted: the clock may have been wrong
        assert await window.admit("feed", "c", T0 + 60_001, at(60_000)) is FIRST


@pytest.mark.parametrize("step_ms", [-3_600_000, -299_000, 172_800_000])
async def test_clock_that_is_set_and_set_right_opens_nothing(tmp_path: Path, step_ms: int) -> None:
    async with ReplayStore(tmp_path) as store:
        window = store.window("door", BOUNDS)
        assert await window.admit("feed", "old", T0, at(0)) is FIRST
        assert await window.admit("feed", "other", T0 + step_ms, at(step_ms)) in (FIRST, OLD)
        for ms in (step_ms, 0, 1_000):
            assert await window.seen("feed", "old", T0, at(ms)) is not FIRST
        assert await window.admit("feed", "new", T0 + 2_000, at(2_000)) is FIRST or step_ms > 0


async def test_flood_is_bounded_and_pushes_no_message_out_of_memory_that_could_come_again(tmp_path: Path) -> None:
    async with ReplayStore(tmp_path) as store:
        window = store.window("door", BOUNDS)
        for i in range(50):
            assert await window.admit("feed", f"m{i}", T0 + i, at(0)) is FIRST
        assert [await window.seen("feed", f"m{i}", T0 + i, at(0)) for i in (0, 44, 45, 49)] == [OLD, OLD, AGAIN, AGAIN]
        # nobody else's
        assert await window.admit("other", "m0", T0, at(0)) is FIRST
    with closing(sqlite3.connect(tmp_path / NAME)) as db:
        assert db.execute("SELECT count(*) FROM seen WHERE source = 'feed'").fetchone() == (5,)


async def test_messages_without_a_time_are_forgotten_by_their_number_alone(tmp_path: Path) -> None:
    async with ReplayStore(tmp_path) as store:
        window = store.window("door", BOUNDS)
        for i in range(5):
            assert await window.admit("feed", f"m{i}", None, at(0)) is FIRST
        assert await window.admit("feed", "m0", None, at(10**10)) is AGAIN
        assert await window.admit("feed", "m5", None, at(10**10)) is FIRST
        assert [await window.seen("feed", f"m{i}", None, at(0)) for i in (0, 1, 5)] == [FIRST, AGAIN, AGAIN]


async def test_message_that_is_forgotten_on_purpose_is_new(tmp_path: Path) -> None:
    async with ReplayStore(tmp_path) as store:
        window = store.window("door", BOUNDS)
        await window.admit("feed", "m", None, at(0))
        await window.forget("feed", "m")
        assert await window.admit("feed", "m", None, at(0)) is FIRST


@given(
    st.lists(
        st.tuples(
            st.integers(0, 6), st.sampled_from([0, 0, 0, 0, 1, -90_000, 50_000, -700_000, 900_000]), st.booleans()
        ),
        max_size=40,
    )
)
@settings(deadline=None)
def test_no_message_counts_twice_whatever_the_clock_and_restarts_do(story: list[tuple[int, int, bool]]) -> None:
    bounds = ReplayBounds(age_ms_max=300_000, ahead_ms_max=60_000, kept_ms=600_000, ids_max=2)

    async def run(directory: Path) -> None:
        ms, taken = 0, set()
        store = ReplayStore(directory)
        try:
            for number, step_ms, restart in story:
                ms += step_ms
                if restart:
                    store.close()
                    store = ReplayStore(directory)
                found = await store.window("door", bounds).admit("feed", str(number), T0 + number * 10_000, at(ms))
                assert not (found is FIRST and number in taken)
                if found is FIRST:
                    taken.add(number)
        finally:
            store.close()

    with TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory)))


async def test_damaged_file_is_set_aside_and_what_was_issued_until_then_is_too_old(tmp_path: Path) -> None:
    async with ReplayStore(tmp_path) as store:
        await store.window("door", BOUNDS).admit("feed", "m", T0, at(0))
    (tmp_path / NAME).write_bytes(b"no database at all, " * 400)
    async with ReplayStore(tmp_path) as store:
        window = store.window("door", BOUNDS)
        with pytest.raises(StorageError, match="begun anew"):
            await window.admit("feed", "m", T0, at(1_000))
        assert await window.admit("feed", "m", T0, at(1_000)) is OLD
        assert await window.admit("feed", "n", T0 + 2_000, at(2_000)) is FIRST
        assert store.warnings() == [
            "access: the replay window could not be read; the file is kept as replay.sqlite.1.corrupt"
        ]


CHILD = """
import asyncio, sys
from pathlib import Path
from gateway.domain.types import Now
from gateway.storage.replay import ReplayStore

async def main():
    async with ReplayStore(Path(sys.argv[1])) as store:
        window = store.window("door")
        now = Now(utc_ms=int(sys.argv[2]), mono_ms=0)
        for number in range(10**6):
            found = await window.admit("feed", str(number), now.utc_ms + number, now)
            print(number, found.value, flush=True)

asyncio.run(main())
"""


async def test_message_that_was_answered_before_a_kill_is_known_after_it(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(tmp_path), str(T0), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    answered = [await process.stdout.readline() for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = await process.communicate()
    answered += [line for line in rest.splitlines(keepends=True) if line.endswith(b"\n")]
    assert all(line.endswith(b" first\n") for line in answered)
    async with ReplayStore(tmp_path) as store:
        window = store.window("door")
        found = {await window.admit("feed", str(n), T0 + n, at(0)) for n in range(len(answered))}
        assert found == {AGAIN}
        assert await window.admit("feed", "new", T0 + 10**6, Now(utc_ms=T0 + 10**6, mono_ms=0)) is FIRST

"""The interval log: a total order that survives restarts, days, repetition and damage."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.intervals import Closes
from gateway.domain.model import EnergySource, IntervalRecord
from gateway.storage import intervals as module
from gateway.storage.interval_rows import COLUMNS, insertions
from gateway.storage.intervals import START, Cursor, IntervalLog
from gateway.storage.recovery import Unlogged
from tests.energy_batches import T0

DAY_S = 86_400


def closes(numbers: Sequence[int], *, revision: int = 1, charge_wh: float = 1.5, slot: int = 0) -> Closes:
    n = len(numbers)
    unknown = np.full(n, np.nan)
    return Closes(
        slots=np.full(n, slot, dtype=np.int32),
        start_ms=T0 + np.array(numbers, dtype=np.int64) * 300_000,
        length_s=np.full(n, 300),
        revision=np.full(n, revision, dtype=np.int32),
        charge_wh=np.full(n, charge_wh),
        discharge_wh=unknown,
        coverage_pct=np.full(n, 100.0),
        samples=np.full(n, 7, dtype=np.int32),
        soc_end_pct=np.full(n, 55.5),
        source=np.full(n, EnergySource.ENERGY, dtype=np.int8),
        battery_w_mean=unknown,
        battery_w_min=unknown,
        battery_w_max=unknown,
    )


def entry(record: int, *numbers: int, ids: Sequence[str] = ("bat-0",), **more: float) -> Unlogged:
    return Unlogged(record=record, closes=closes(numbers, **more), ids=ids)  # type: ignore[arg-type]


def numbers(rows: Sequence[IntervalRecord]) -> list[int]:
    return [(row.start_ms - T0) // 300_000 for row in rows]


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("0*.sqlite"))


async def test_log_record_reads_back_as_written(tmp_path: Path) -> None:
    async with IntervalLog(tmp_path, clock=ManualClock(utc_ms=T0)) as log:
        assert await log.append([entry(1, 3)]) == 1
        rows, after = await log.read(START, 10)
    assert after == Cursor(1, 1)
    assert rows == [
        IntervalRecord(
            device=rows[0].device,
            start_ms=T0 + 900_000,
            length_s=300,
            revision=1,
            charge_wh=1.5,
            discharge_wh=None,
            coverage_pct=100.0,
            samples=7,
            soc_end_pct=55.5,
            source=EnergySource.ENERGY,
        )
    ]
    assert rows[0].device == "bat-0"


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    steps=st.lists(st.tuples(st.integers(0, 300), st.integers(-2, 3), st.booleans()), min_size=1, max_size=8),
    limit=st.integers(1, 200),
)
async def test_log_any_history_is_one_list_for_every_reader(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, bool]], limit: int
) -> None:
    """Rows, days forward and back, and restarts between commits: a reader in small steps sees one list."""
    directory = tmp_path_factory.mktemp("log")
    clock = ManualClock(utc_ms=T0)
    written: list[int] = []
    log = IntervalLog(directory, clock=clock)
    await log.__aenter__()
    try:
        for record, (rows, days, restart) in enumerate(steps, start=1):
            fresh = list(range(len(written), len(written) + rows))
            assert await log.append([entry(record, *fresh)]) == rows
            written += fresh
            clock.advance(s=days * DAY_S)
            if restart:
                await log.__aexit__(None, None, None)
                log = IntervalLog(directory, clock=clock)
                await log.__aenter__()
            assert await log.append([entry(record, *fresh)]) == 0
            assert log.position == record
        seen: list[int] = []
        cursor = START
        for _ in range(len(written) + 2):
            backlog, oldest = await log.backlog(cursor)
            assert backlog == len(written) - len(seen)
            assert oldest == (T0 + len(seen) * 300_000 if backlog else None)
            rows_read, after = await log.read(cursor, limit)
            assert after >= cursor
            seen, cursor = seen + numbers(rows_read), after
        assert seen == written
    finally:
        await log.__aexit__(None, None, None)


async def test_log_large_commit_is_whole_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with IntervalLog(tmp_path, clock=ManualClock(utc_ms=T0)) as log:
        assert await log.append([entry(1, *range(9_000)), entry(2, *range(9_000, 20_001))]) == 20_001
        monkeypatch.setattr(module, "READ_MAX", 10_000)
        rows, after = await log.read(START, 10**9)
        assert len(rows) == 10_000
        more, after = await log.read(after, 10_000)
        last, _ = await log.read(after, 10_000)
    assert numbers([*rows, *more, *last]) == list(range(20_001))


@pytest.mark.parametrize("variables_max", [999, 32_766, 250_000])
@pytest.mark.parametrize("rows", [0, 1, 16, 17, 1024, 1025, 8192, 20_001])
def test_insertions_are_few_and_hold_every_row_once(rows: int, variables_max: int) -> None:
    columns: list[list[object]] = [list(range(rows)) for _ in COLUMNS]
    at, width = 0, len(COLUMNS)
    found = list(insertions(columns, variables_max))
    for part, statement, values in found:
        assert part.start == at
        at = part.stop
        assert statement.count("?") == len(values) <= variables_max
        given = (at - part.start) * width
        assert values[:given] == [n for n in range(part.start, at) for _ in COLUMNS]
        assert values[given:] == [None] * (len(values) - given)
    assert at == rows
    assert variables_max < 250_000 or len(found) <= 10


async def test_log_same_identity_again_is_ignored_and_different_content_counted(tmp_path: Path) -> None:
    async with IntervalLog(tmp_path, clock=ManualClock(utc_ms=T0)) as log:
        await log.append([entry(1, 1, 2)])
        assert await log.append([entry(2, 2, 3)]) == 1
        assert (log.stats.repeated, log.stats.conflicting) == (1, 0)
        assert await log.append([entry(3, 3, charge_wh=9.0)]) == 0
        assert (log.stats.repeated, log.stats.conflicting) == (1, 1)
        assert await log.append([entry(4, 3, revision=2, charge_wh=9.0)]) == 1
        rows, _ = await log.read(START, 10)
    assert [(n, row.revision) for n, row in zip(numbers(rows), rows, strict=True)] == [(1, 1), (2, 1), (3, 1), (3, 2)]


async def test_log_device_without_a_name_is_left_out_and_counted(tmp_path: Path) -> None:
    async with IntervalLog(tmp_path, clock=ManualClock(utc_ms=T0)) as log:
        assert await log.append([entry(1, 1, ids=("",)), entry(2, 2, ids=()), entry(3, 3)]) == 1
        assert (log.stats.nameless, log.position) == (2, 3)


async def test_log_new_day_opens_a_file_and_a_clock_going_back_does_not(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        await log.append([entry(1, 1)])
        clock.advance(s=DAY_S)
        await log.append([entry(2, 2)])
        clock.advance(s=-3 * DAY_S)
        await log.append([entry(3, 3)])
    assert len(files(tmp_path)) == 2


async def test_log_cursors_survive_a_restart_and_damage_starts_over(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        assert await log.load_cursor("mqtt") == START
        await log.save_cursor("mqtt", Cursor(3, 9))
        await log.save_cursor("mqtt", Cursor(4, 1))
    async with IntervalLog(tmp_path, clock=clock) as log:
        assert await log.load_cursor("mqtt") == Cursor(4, 1)
    (tmp_path / "cursors.sqlite").write_bytes(b"not a database at all" * 100)
    async with IntervalLog(tmp_path, clock=clock) as log:
        assert await log.load_cursor("mqtt") == START
        assert log.stats.corrupt_files == 1


async def test_log_retention_drops_only_old_files_that_every_reader_has_passed(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        for day in range(5):
            await log.append([entry(day + 1, day)])
            clock.advance(s=DAY_S)
        await log.save_cursor("fast", Cursor(5, 1))
        await log.save_cursor("slow", Cursor(2, 1))
        assert await log.retain(10, ["fast", "slow"]) == 0
        assert await log.retain(2, ["fast", "slow"]) == 2
        assert await log.retain(1, ["fast", "slow", "new"]) == 0
        assert log.stats.held_files == 2
        rows, _ = await log.read(await log.load_cursor("slow"), 10)
        assert numbers(rows) == [2, 3, 4]
        assert await log.retain(0, ["fast"]) == 2
        rows, _ = await log.read(START, 10)
        assert numbers(rows) == [4]


async def test_log_damaged_newest_file_is_set_aside_and_numbers_go_on(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        await log.append([entry(1, 1)])
        clock.advance(s=DAY_S)
        await log.append([entry(2, 2)])
    newest = files(tmp_path)[-1]
    newest.write_bytes(b"\x00garbage" * 1000)
    async with IntervalLog(tmp_path, clock=clock) as log:
        assert (log.position, log.stats.corrupt_files) == (1, 1)
        assert await log.append([entry(2, 2)]) == 1
        rows, _ = await log.read(START, 10)
        assert numbers(rows) == [1, 2]


async def test_log_damaged_older_file_is_passed_over(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        await log.append([entry(1, 1)])
        clock.advance(s=DAY_S)
        await log.append([entry(2, 2)])
    oldest = files(tmp_path)[0]
    oldest.write_bytes(b"\x00garbage" * 1000)
    async with IntervalLog(tmp_path, clock=clock) as log:
        rows, _ = await log.read(START, 10)
        assert numbers(rows) == [2]
        assert log.stats.corrupt_files == 1


async def test_log_file_whose_creation_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        await log.append([entry(1, 1)])
    (tmp_path / "00000002-2027-02-01.sqlite").write_bytes(b"")
    async with IntervalLog(tmp_path, clock=clock) as log:
        assert log.position == 1
        await log.append([entry(2, 2)])
        rows, _ = await log.read(START, 10)
    assert numbers(rows) == [1, 2]


async def test_log_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        await log.append([entry(1, 1)])
        await log._run(lambda: log._newest and log._newest.execute("pragma user_version = 99"))
    with pytest.raises(CorruptState, match="newer version"):
        await IntervalLog(tmp_path, clock=clock).__aenter__()


async def test_log_that_cannot_be_written_says_so_and_keeps_its_position(tmp_path: Path) -> None:
    async with IntervalLog(tmp_path, clock=ManualClock(utc_ms=T0)) as log:
        await log.append([entry(1, 1)])
        await log._run(lambda: log._newest and log._newest.execute("pragma max_page_count = 1"))
        with pytest.raises(StorageError):
            await log.append([entry(2, *range(10, 3000))])
        assert log.position == 1
        assert log.stats.failing is not None
        await log._run(lambda: log._newest and log._newest.execute("pragma max_page_count = 1000000"))
        assert await log.append([entry(2, *range(10, 3000))]) == 2990
        assert log.stats.failing is None

"""The interval log: a total order that survives restarts, days, repetition and damage."""

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.domain.errors import NewerState, StorageError
from gateway.domain.intervals.record import EnergySource, IntervalRecord, Quality
from gateway.domain.intervals.records import IntervalRecords, sealed
from gateway.storage import disk_budget as room_module
from gateway.storage.disk_budget import log_budget_bytes
from gateway.storage.interval_log import log as module
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.interval_log.positions import START, Cursor, Parked, Position, Range
from gateway.storage.interval_log.query import IntervalQueries
from gateway.storage.interval_log.rows import COLUMNS, insertions
from gateway.storage.recovery import Unlogged
from tests.builders.energy_batches import T0

DAY_S = 86_400


def closes(numbers: Sequence[int], *, revision: int = 1, charge_wh: float = 1.5, slot: int = 0) -> IntervalRecords:
    n = len(numbers)
    unknown = np.full(n, np.nan)
    return sealed(
        IntervalRecords(
            slots=np.full(n, slot, dtype=np.int32),
            start_ms=T0 + np.array(numbers, dtype=np.int64) * 300_000,
            length_s=np.full(n, 300),
            revision=np.full(n, revision, dtype=np.int32),
            charge_wh=np.full(n, charge_wh),
            discharge_wh=unknown,
            coverage_pct=np.full(n, 100.0),
            samples=np.full(n, 7, dtype=np.int32),
            soc_end_pct=np.full(n, 55.5),
            source=np.full(n, EnergySource.INTEGRATED, dtype=np.int8),
            battery_w_mean=unknown,
            battery_w_min=unknown,
            battery_w_max=unknown,
            soc_start_pct=unknown,
            grid_w_mean=unknown,
            pv_w_mean=unknown,
            load_w_mean=unknown,
            quality=np.zeros(n, dtype=np.int16),
            hash=np.zeros(n, dtype=np.int64),
        )
    )


def entry(record: int, *numbers: int, ids: Sequence[str] = ("bat-0",), **more: float) -> Unlogged:
    return Unlogged(record=record, records=closes(numbers, **more), ids=ids)  # type: ignore[arg-type]


def numbers(rows: Sequence[IntervalRecord]) -> list[int]:
    return [(row.start_ms - T0) // 300_000 for row in rows]


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("0*.sqlite"))


PARKED = Parked(identity=(T0, "bat-0", 2), reason="refused", at_ms=T0 + 5)
LEFT_BEHIND = Position(live=Cursor(4, 1), backfill=(Range(Cursor(1, 2), Cursor(3, 9)),))


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
            source=EnergySource.INTEGRATED,
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
            assert await log.backlog(Position(live=cursor)) == len(written) - len(seen)
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
        assert await log.position_of("mqtt") == Position()
        await log.save_position("mqtt", Position(live=Cursor(3, 9)), [PARKED])
        await log.save_position("mqtt", LEFT_BEHIND, unparked=[(1, "other", 1)])
    async with IntervalLog(tmp_path, clock=clock) as log:
        assert await log.position_of("mqtt") == LEFT_BEHIND
        assert await log.ask(lambda readers: readers.parked("mqtt", 10)) == [PARKED]
        assert await log.ask(lambda readers: readers.parked_counts("mqtt")) == {"refused": 1}
        await log.save_position("mqtt", LEFT_BEHIND, unparked=[PARKED.identity])
        assert await log.ask(lambda readers: readers.parked("mqtt", 10)) == []
    (tmp_path / "cursors.sqlite").write_bytes(b"not a database at all" * 100)
    async with IntervalLog(tmp_path, clock=clock) as log:
        assert await log.position_of("mqtt") == Position()
        assert log.stats.corrupt_files == 1


async def test_log_retention_drops_only_old_files_that_every_reader_has_passed(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        for day in range(5):
            await log.append([entry(day + 1, day)])
            clock.advance(s=DAY_S)
        await log.save_position("fast", Position(live=Cursor(5, 1)))
        await log.save_position("slow", Position(live=Cursor(2, 1)))
        assert await log.retain(10, ["fast", "slow"]) == 0
        assert await log.retain(2, ["fast", "slow"]) == 2
        assert await log.retain(1, ["fast", "slow", "new"]) == 0
        assert log.stats.kept_files == 2
        rows, _ = await log.read((await log.position_of("slow")).live, 10)
        assert numbers(rows) == [2, 3, 4]
        assert await log.retain(0, ["fast"]) == 2
        rows, _ = await log.read(START, 10)
        assert numbers(rows) == [4]


@pytest.mark.fault("F38")
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


@pytest.mark.fault("F38")
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
        await log._run(lambda: log.folder.writer and log.folder.writer.execute("pragma user_version = 99"))
    with pytest.raises(NewerState, match="newer version"):
        await IntervalLog(tmp_path, clock=clock).__aenter__()


@pytest.mark.fault("F36")
async def test_log_that_cannot_be_written_says_so_and_keeps_its_position(tmp_path: Path) -> None:
    async with IntervalLog(tmp_path, clock=ManualClock(utc_ms=T0)) as log:
        await log.append([entry(1, 1)])
        await log._run(lambda: log.folder.writer and log.folder.writer.execute("pragma max_page_count = 1"))
        with pytest.raises(StorageError):
            await log.append([entry(2, *range(10, 3000))])
        assert log.position == 1
        assert log.stats.failing is not None
        await log._run(lambda: log.folder.writer and log.folder.writer.execute("pragma max_page_count = 1000000"))
        assert await log.append([entry(2, *range(10, 3000))]) == 2990
        assert log.stats.failing is None


def corrupt(directory: Path) -> list[Path]:
    return list(directory.glob("*.corrupt"))


async def days(log: IntervalLog, clock: ManualClock, count: int, rows: int) -> None:
    """A file a day."""
    for day in range(count):
        await log.append([entry(day + 1, *range(day * rows, (day + 1) * rows))])
        clock.advance(s=DAY_S)


@pytest.mark.fault("F7")
async def test_log_without_room_drops_what_every_reader_has_first_and_counts_what_was_not_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        (tmp_path / "00000000-2026-01-01.sqlite.corrupt").write_bytes(bytes(100_000))
        await days(log, clock, 5, 100)
        await log.save_position("late", Position(live=Cursor(4, 100), backfill=(Range(Cursor(1, 30), Cursor(1, 50)),)))
        await log.retain(1000, ["late"], lambda _: 1 << 40)
        whole = log.stats.bytes - 100_000
        assert await log.retain(1000, ["late"], lambda _: whole) == 0
        assert not corrupt(tmp_path)
        assert await log.retain(1000, ["late"], lambda _: whole - 1) == 1
        assert [path.name[:8] for path in files(tmp_path)] == ["00000001", "00000003", "00000004", "00000005"]
        assert log.stats.dropped_unsent == 0
        assert await log.retain(1000, ["late"], lambda _: 1) == 3
        assert log.stats.dropped_unsent == 20
        assert [record.message for record in caplog.records] == [
            "interval records were dropped before every receiver had them: the disk budget is used up"
        ]
        rows, _ = await log.read(START, 1000)
        assert numbers(rows) == list(range(400, 500))
        assert (log.stats.bytes > 0, log.stats.bytes_max) == (True, 1)


async def test_log_reads_no_further_than_asked_and_counts_what_is_left_behind(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        await days(log, clock, 3, 10)
        end = await log.end()
        assert end == Cursor(3, 10)
        behind = Position(live=Cursor(1, 4)).left_behind(end)
        assert await log.backlog(behind) == 26
        place, seen = Cursor(1, 4), []
        while behind.backfill:
            rows, place = await log.read(behind.backfill[0].after, 7, behind.backfill[0].until)
            seen += numbers(rows)
            behind = behind.caught_up(place)
            assert await log.backlog(behind) == 26 - len(seen)
        assert seen == list(range(4, 30))
        rows, place = await log.read(Cursor(1, 8), 100, Cursor(2, 3))
        assert (numbers(rows), place) == ([8, 9, 10, 11, 12], Cursor(2, 3))


ranges = st.lists(st.integers(0, 40), min_size=2, max_size=8, unique=True).map(sorted)


@given(marks=ranges, per_file=st.integers(1, 9), files_=st.integers(1, 5))
def test_standing_lacks_what_lies_after_live_or_in_a_stretch(marks: list[int], per_file: int, files_: int) -> None:
    """Against plain sets of positions in one sequence."""

    def cursor(position: int) -> Cursor:
        return START if not position else Cursor((position - 1) // per_file + 1, (position - 1) % per_file + 1)

    *pairs, live = marks if len(marks) % 2 else [*marks, marks[-1] + 1]
    stretches = tuple(Range(cursor(a), cursor(b)) for a, b in zip(pairs[::2], pairs[1::2], strict=True))
    where = Position(live=cursor(live), backfill=stretches)
    lacking = {p for p in range(1, per_file * files_ + 1) if p > live}
    lacking |= {p for a, b in zip(pairs[::2], pairs[1::2], strict=True) for p in range(a + 1, b + 1)}
    for position in range(1, per_file * files_ + 1):
        assert where.lacks(cursor(position)) == (position in lacking)
        if cursor(position) <= where.oldest:
            assert position not in lacking


SCHEMA_1 = """
create table interval (
  id integer primary key, device text not null, start_ms integer not null, length_s integer not null,
  revision integer not null, charge_wh real, discharge_wh real, coverage_pct real not null, samples integer not null,
  soc_end_pct real, source integer not null, battery_w_mean real, battery_w_min real, battery_w_max real);
create unique index identity on interval (start_ms, device, revision);
create table position (one integer primary key check (one = 1), record integer not null);
insert into position values (1, 7);
insert into interval values (1, 'bat-0', 1800000000000, 300, 1, 1.5, null, 100.0, 7, 55.5, 1, null, null, null);
pragma user_version = 1;
"""


async def test_log_files_of_the_first_schema_are_brought_up_and_read_on(tmp_path: Path) -> None:
    """Forward only: the newest file and older ones, and what is new goes on after them."""
    for name in ("00000001-2027-01-14.sqlite", "00000002-2027-01-15.sqlite"):
        with closing(sqlite3.connect(tmp_path / name)) as old:
            old.executescript(SCHEMA_1)
    async with (
        IntervalLog(tmp_path, clock=ManualClock(utc_ms=T0)) as log,
        IntervalQueries(log.files_from, log.check) as queries,
    ):
        assert log.position == 7
        await log.append([entry(8, 1)])
        rows, _ = await log.read(START, 10)
        assert numbers(rows) == [0, 0, 1]
        assert (rows[0].quality, rows[0].soc_start_pct, rows[0].grid_w_mean) == (Quality(0), None, None)
        assert numbers((await queries.find([(T0, "bat-0"), (T0 + 300_000, "bat-0"), (T0, "bat-9")]))[0]) == [0, 1]


@pytest.mark.fault("F38")
async def test_log_record_that_was_altered_is_left_out_and_counted(tmp_path: Path) -> None:
    """SQLite does not notice; the record's own hash does."""
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        await log.append([entry(1, *range(20))])
    with closing(sqlite3.connect(files(tmp_path)[0])) as db:
        db.execute("update interval set charge_wh = 1.75 where id = 7")
        db.execute("update interval set quality = 1 where id = 9")
        db.execute("update interval set device = 'bat-1' where id = 11")
        db.execute("update interval set discharge_wh = 0 where id = 13")
        # the type of a value lies in the file too
        db.execute("update interval set device = cast(device as blob) where id = 15")
        db.commit()
    async with IntervalLog(tmp_path, clock=clock) as log:
        rows, place = await log.read(START, 100)
        assert numbers(rows) == [n for n in range(20) if n not in (6, 8, 10, 12, 14)]
        assert (place, log.stats.corrupt_rows) == (Cursor(1, 20), 5)


@pytest.mark.fault("F38")
@pytest.mark.parametrize("record", ["null", "'x'", "1.5", None])
async def test_log_newest_file_whose_position_is_damaged_is_set_aside(tmp_path: Path, record: str | None) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        await days(log, clock, 2, 5)
    with closing(sqlite3.connect(files(tmp_path)[1])) as db:
        db.execute("create table other (record)")
        if record is not None:
            db.execute(f"insert into other values ({record})")  # noqa: S608
        db.execute("drop table position")
        db.execute("alter table other rename to position")
        db.commit()
    async with IntervalLog(tmp_path, clock=clock) as log:
        rows, _ = await log.read(START, 100)
        assert (numbers(rows), log.stats.corrupt_files) == ([0, 1, 2, 3, 4], 1)
        assert await log.append([entry(log.position + 1, 500)]) == 1


@pytest.mark.fault("F38")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(-1, 7), which=st.integers(0, 2))
async def test_log_flipped_or_torn_anywhere_gives_nothing_that_was_not_written_and_never_keeps_it_down(
    tmp_path_factory: pytest.TempPathFactory, where: float, bit: int, which: int
) -> None:
    """A bit flipped, or (-1) the end torn off, in the newest file or an older one; what is read is what was written,
    and the log goes on."""
    directory, clock = tmp_path_factory.mktemp("log"), ManualClock(utc_ms=T0)
    async with IntervalLog(directory, clock=clock) as log:
        await days(log, clock, 3, 40)
        written, _ = await log.read(START, 1_000)
    path = files(directory)[which]
    data = bytearray(path.read_bytes())
    place = int(where * len(data))
    if bit < 0:
        del data[place:]
    else:
        data[place] ^= 1 << bit
    path.write_bytes(data)
    log = IntervalLog(directory, clock=clock)
    try:
        await log.__aenter__()
    except NewerState:
        # a version that is not known is refused, whatever made it so
        assert path.read_bytes() == data
        return
    try:
        rows, _ = await log.read(START, 1_000)
        known = {row.hash: row for row in written}
        assert all(known.get(row.hash) == row for row in rows)
        others = {n for n in range(120) if n // 40 != which}
        assert others <= set(numbers(rows))
        assert await log.append([entry(log.position + 1, 500)]) == 1
    finally:
        await log.__aexit__(None, None, None)


@pytest.mark.fault("F38")
async def test_log_older_file_that_is_empty_is_set_aside(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        await days(log, clock, 2, 5)
    files(tmp_path)[0].write_bytes(b"")
    async with IntervalLog(tmp_path, clock=clock) as log:
        rows, _ = await log.read(START, 100)
        assert (numbers(rows), log.stats.corrupt_files) == ([5, 6, 7, 8, 9], 1)


@pytest.mark.fault("F7")
async def test_log_that_fills_most_of_a_disk_is_kept_over_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the log takes itself is room it has, from the first look on."""
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        await days(log, clock, 4, 100)
    taken = sum(path.stat().st_size for path in files(tmp_path))
    usage = SimpleNamespace(total=10 * taken, free=4 * taken)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(room_module, "KEPT_FREE_BYTES", 4 * taken)
    async with IntervalLog(tmp_path, clock=clock) as log:
        assert await log.retain(1000, ["late"], partial(log_budget_bytes, tmp_path, None)) == 0
        assert log.stats.bytes == log.stats.bytes_max
        usage.free = 3.5 * taken
        assert await log.retain(1000, [], partial(log_budget_bytes, tmp_path, None)) == 2
    assert len(files(tmp_path)) == 2


@pytest.mark.fault("F38")
async def test_log_damage_that_a_question_meets_is_set_aside_and_the_next_one_is_answered(tmp_path: Path) -> None:
    """A page that no reader of the log comes to any more must not keep late data waiting for ever."""
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        await days(log, clock, 2, 400)
    path = files(tmp_path)[0]
    place = (T0 + 399 * 300_000, "bat-0")
    async with IntervalLog(tmp_path, clock=clock) as log, IntervalQueries(log.files_from, log.check) as queries:
        data = path.read_bytes()
        path.write_bytes(data[:8192] + bytes([77]) * (len(data) - 8192))
        with pytest.raises(StorageError):
            await queries.find([place])
        assert (log.stats.corrupt_files, len(files(tmp_path))) == (1, 1)
        assert await queries.find([place]) == ([], [])
        assert numbers((await queries.find([(T0 + 500 * 300_000, "bat-0")]))[0]) == [500]

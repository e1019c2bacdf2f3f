"""Columns of any log, damaged or not, against SQLite's rows as pyarrow holds them, and against the records."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.domain.intervals.columns import IntervalColumns, columns_of_objects, joined, newest
from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.intervals.records import RECORD_COLUMNS, IntervalRecords, sealed
from gateway.domain.types import DeviceId
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.interval_log.merge import IntervalSelection
from gateway.storage.interval_log.positions import START, Cursor
from gateway.storage.interval_log.query import IntervalQueries
from gateway.storage.interval_log.rows import COLUMNS
from gateway.storage.recovery import Unlogged
from tests.builders.energy_batches import T0
from tests.depth import deep

DAY_S = 86_400
LENGTH_MS = 300_000
IDS = ("bat-0", 'b"\u00e9\\t', "\u7535\u6c60" * 20, "home." + "x" * 59, "bat-10")
Rows = Sequence[tuple[int, int, int]]
"""Device (the last has no name), number of the interval, revision."""

NUMBERS = np.array([np.nan, 0.0, -0.0, 1.0, -18.25, 1 / 3, 1e-300, 1e300, np.inf, 281474976710656.0])
WRONG = {
    "charge_wh": (7.25, "text", b"\x00"),
    "soc_end_pct": (-1.0, "50 %"),
    "samples": (-1, 1 << 40, 1.5, "text"),
    "source": (9, "text"),
    "revision": (77, b"\x01"),
    "device": ("stranger", b"bat-0", "x" * 20_000),
    "hash": (0, 1, "text"),
}


def unlogged(record: int, rows: Rows, rng: np.random.Generator) -> Unlogged:
    n = len(rows)
    slots, number, revision = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    columns: dict[str, Any] = {}
    for name, dtype in RECORD_COLUMNS.items():
        if dtype == "<f8":
            columns[name] = rng.choice(NUMBERS if name != "coverage_pct" else NUMBERS[1:], n)
        else:
            columns[name] = rng.integers(0, 3, n).astype(dtype)
    columns |= {
        "slots": slots.astype(np.int32),
        "start_ms": T0 + number * LENGTH_MS,
        "length_s": rng.choice([1, 300, 3600], n),
        "revision": revision.astype(np.int32),
        "samples": rng.choice([0, 1, 200, 40_000, 9_000_000], n).astype(np.int32),
        "quality": rng.integers(0, 512, n).astype(np.int16),
    }
    return Unlogged(record=record, records=sealed(IntervalRecords(**columns)), ids=IDS)


def rows_in(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"select id, {', '.join(COLUMNS)} from interval order by id").fetchall()  # noqa: S608


def damage(path: Path, wrong: tuple[int, str, Any]) -> None:
    row, column, value = wrong
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"update or ignore interval set {column} = ? where id = ?", (value, row))  # noqa: S608
        db.commit()


def table(columns: IntervalColumns) -> pa.Table:
    """Our columns as pyarrow holds them."""
    records = columns.records
    arrays = [
        pa.array(columns.device_of_each(), pa.string())
        if name == "device"
        else pa.array(getattr(records, name), from_pandas=True).cast(kind_of(name))
        for name in COLUMNS
    ]
    return pa.table(arrays, names=COLUMNS)


def table_of_rows(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    columns = [[row[place] for row in rows] for place in range(1, len(COLUMNS) + 1)]
    return pa.table(
        [pa.array(column, kind_of(name)) for name, column in zip(COLUMNS, columns, strict=True)], names=COLUMNS
    )


def kind_of(name: str) -> pa.DataType:
    if name == "device":
        return pa.string()
    return pa.float64() if RECORD_COLUMNS[name] == "<f8" else pa.int64()


def content(records: Sequence[IntervalRecord]) -> list[tuple[Any, ...]]:
    """Everything, the hash too."""
    return [astuple(record) for record in records]


async def pages(log: IntervalLog, limit: int) -> list[IntervalColumns]:
    found: list[IntervalColumns] = []
    cursor = START
    while True:
        columns, _, after = await log.read_columns(cursor, limit)
        if after == cursor:
            return found
        found.append(columns)
        cursor = after


ROWS = st.lists(
    st.tuples(st.integers(0, len(IDS)), st.integers(0, 12), st.integers(1, 4)), min_size=1, max_size=40, unique=True
)
WRONGS = st.sampled_from([(column, value) for column, values in WRONG.items() for value in values])


@pytest.mark.fault("F38")
@settings(
    max_examples=deep(2_000, else_=60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    commits=st.lists(st.tuples(ROWS, st.integers(0, 2)), min_size=1, max_size=4),
    damages=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30), WRONGS), max_size=3),
    seed=st.integers(0, 1 << 32),
    limit=st.integers(1, 60),
)
async def test_columns_of_any_log_are_its_intact_rows_and_its_records(
    tmp_path_factory: pytest.TempPathFactory,
    commits: list[tuple[Rows, int]],
    damages: list[tuple[int, int, tuple[str, Any]]],
    seed: int,
    limit: int,
) -> None:
    rng = np.random.default_rng(seed)
    directory = tmp_path_factory.mktemp("log")
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(directory, clock=clock) as log:
        for record, (rows, days) in enumerate(commits, start=1):
            await log.append([unlogged(record, rows, rng)])
            clock.advance(s=days * DAY_S)
        files = log.files_from(T0)
    before = [rows_in(path) for path in files]
    for file, row, wrong in damages:
        damage(files[file % len(files)], (row, *wrong))
    after = [rows_in(path) for path in files]
    intact = [
        [old for old, new in zip(*both, strict=True) if repr(old) == repr(new)]
        for both in zip(before, after, strict=True)
    ]
    lost = sum(map(len, before)) - sum(map(len, intact))
    async with IntervalLog(directory, clock=clock) as log:
        found = await pages(log, limit)
        assert log.stats.corrupt_rows == lost
        assert table(joined(found)).equals(table_of_rows([row for rows in intact for row in rows]))
        assert all(len(page) <= limit for page in found)
        records = (await log.read(START, 50_000))[0]
        assert content([record for page in found for record in page.objects()]) == content(records)
        async with IntervalQueries(log.files_from, log.check) as queries:
            wanted = IntervalSelection(from_ms=T0, to_ms=T0 + DAY_S * 1000)
            merged = [page async for page in queries.columns(wanted, rows=limit)]
            asked, _ = await queries.page(wanted, None, 10_000)
            some = tuple(sorted(IDS[:3]))
            few = [page async for page in queries.columns(replace(wanted, devices=some), rows=limit)]
    assert content([record for page in merged for record in page.objects()]) == content(asked)
    assert [record for page in few for record in page.objects()] == [one for one in asked if one.device in some]
    if not lost:
        newest_of: dict[tuple[int, str], IntervalRecord] = {}
        for one in records:
            known = newest_of.setdefault((one.start_ms, one.device), one)
            if known.revision < one.revision:
                newest_of[one.start_ms, one.device] = one
        assert content(asked) == content([newest_of[place] for place in sorted(newest_of)])


@pytest.mark.fault("F38")
async def test_columns_more_damaged_records_than_a_page_holds_hide_nothing_behind_them(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        for day in range(2):
            rows = [(0, day * 288 + number, 1) for number in range(20)]
            await log.append([unlogged(day + 1, rows, np.random.default_rng(day))])
            clock.advance(s=DAY_S)
        path = log.files_from(T0)[0]
    for row in range(1, 11):
        damage(path, (row, "charge_wh", 7.25))
    async with IntervalLog(tmp_path, clock=clock) as log:
        columns, _, after = await log.read_columns(START, 4)
        assert (len(columns), after) == (4, Cursor(1, 14))
        records, after = await log.read(after, 50)
        assert (len(records), after) == (26, Cursor(2, 20))
        assert log.stats.corrupt_rows == 10


@pytest.mark.fault("F38")
async def test_columns_name_that_is_no_text_any_more_is_one_damaged_record_and_no_damaged_file(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        rows = [(0, number, 1) for number in range(5)]
        await log.append([unlogged(1, rows, np.random.default_rng(1))])
        path = log.files_from(T0)[0]
    with closing(sqlite3.connect(path)) as db:
        db.execute("update interval set device = cast(x'ff62' as text) where id = 2")
        db.commit()
    async with IntervalLog(tmp_path, clock=clock) as log:
        columns, _, after = await log.read_columns(START, 50)
        assert (len(columns), after) == (4, Cursor(1, 5))
        assert (log.stats.corrupt_rows, log.stats.corrupt_files) == (1, 0)


async def test_columns_of_months_hold_only_the_files_that_overlap(tmp_path: Path) -> None:
    """A page never has more rows than its size for each file that has intervals there."""
    clock = ManualClock(utc_ms=T0)
    rng = np.random.default_rng(1)
    async with IntervalLog(tmp_path, clock=clock) as log:
        for day in range(60):
            some = [(device, day * 288 + number, 1) for number in range(20) for device in range(5)]
            late = [(0, (day - 3) * 288, 2)] if day > 3 else []
            await log.append([unlogged(day + 1, some + late, rng)])
            clock.advance(s=DAY_S)
        wanted = IntervalSelection(from_ms=T0, to_ms=T0 + 60 * DAY_S * 1000)
        async with IntervalQueries(log.files_from, log.check) as queries:
            found = [page async for page in queries.columns(wanted, rows=50)]
    assert max(map(len, found)) <= 100
    together = joined(found)
    assert len(together) == 60 * 100
    assert np.all(np.diff(together.records.start_ms) >= 0)
    assert np.count_nonzero(together.records.revision == 2) == 56


async def test_columns_left_half_way_end_their_thread(tmp_path: Path) -> None:
    async with IntervalLog(tmp_path, clock=ManualClock(utc_ms=T0)) as log:
        await log.append([unlogged(1, [(0, number, 1) for number in range(50)], np.random.default_rng(1))])
        async with IntervalQueries(log.files_from, log.check) as queries:
            reading = queries.columns(IntervalSelection(from_ms=T0, to_ms=T0 + DAY_S * 1000), rows=10)
            assert len(await anext(reading)) == 10
            await reading.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(reading)


def test_columns_of_objects_are_the_inverse_of_objects() -> None:
    one = unlogged(1, [(0, 0, 1), (1, 0, 1), (0, 1, 3)], np.random.default_rng(3))
    columns = IntervalColumns(devices=[DeviceId(name) for name in IDS], records=one.records)
    again = columns_of_objects(columns.objects())
    assert content(again.objects()) == content(columns.objects())
    assert columns_of_objects([]).objects() == []


def test_newest_of_no_parts_has_no_rows() -> None:
    assert (len(newest([])), len(joined([]))) == (0, 0)

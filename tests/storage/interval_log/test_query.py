"""Questions to the log against a dictionary: any devices, any stretch, any page size, files of several days."""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.domain.errors import StorageError
from gateway.domain.intervals.record import EnergySource, IntervalRecord
from gateway.domain.intervals.records import IntervalRecords, sealed
from gateway.storage.interval_log import merge
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.interval_log.merge import IntervalSelection, Place
from gateway.storage.interval_log.pages import fetch
from gateway.storage.interval_log.query import IntervalQueries
from gateway.storage.interval_log.rows import create_sql
from gateway.storage.recovery import Unlogged
from tests.builders.energy_batches import T0
from tests.builders.fakes import nothing_damaged
from tests.depth import deep

LENGTH_MS = 300_000
DAY_S = 86_400
IDS = tuple(f"bat-{i}" for i in range(6))
Rows = Sequence[tuple[int, int, int]]
"""Device, number of the interval, revision."""


def unlogged(record: int, rows: Rows) -> Unlogged:
    """Closes whose energy tells which they are."""
    n = len(rows)
    slot, number, revision = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    unknown = np.full(n, np.nan)
    closes = sealed(IntervalRecords(
        slots=slot.astype(np.int32), start_ms=T0 + number * LENGTH_MS, length_s=np.full(n, 300),
        revision=revision.astype(np.int32), charge_wh=(10 * number + revision).astype(np.float64), discharge_wh=unknown,
        coverage_pct=np.full(n, 100.0), samples=np.full(n, 7, dtype=np.int32), soc_end_pct=unknown,
        source=np.full(n, EnergySource.COUNTER, dtype=np.int8), battery_w_mean=unknown, battery_w_min=unknown,
        battery_w_max=unknown,
        soc_start_pct=unknown, grid_w_mean=unknown, pv_w_mean=unknown, load_w_mean=unknown,
        quality=np.zeros(n, dtype=np.int16),
        hash=np.zeros(n, dtype=np.int64),
    ))  # fmt: skip
    return Unlogged(record=record, records=closes, ids=IDS)


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def told(queries: IntervalQueries, wanted: IntervalSelection, limit: int) -> list[IntervalRecord]:
    """All pages; each but the last is full, and none repeats or goes back."""
    found: list[IntervalRecord] = []
    after: Place | None = None
    while True:
        rows, after = await queries.page(wanted, after, limit)
        found += rows
        if after is None:
            assert len(rows) <= limit
            return found
        assert len(rows) == limit
        assert after == (rows[-1].start_ms, rows[-1].device)


ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12), st.integers(1, 4)), min_size=1, max_size=40)


@settings(
    max_examples=deep(2_000, else_=60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    commits=st.lists(st.tuples(ROWS, st.integers(0, 2)), min_size=1, max_size=4),
    stretch=st.tuples(st.integers(-1, 13), st.integers(1, 14)),
    devices=st.none()
    | st.sets(st.sampled_from((*IDS, "stranger")), min_size=1).map(lambda names: tuple(sorted(names))),
    limit=st.integers(1, 20),
    named_max=st.sampled_from([0, 64]),
)
async def test_query_any_log_tells_the_newest_revision_of_each_interval_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    commits: list[tuple[Rows, int]],
    stretch: tuple[int, int],
    devices: tuple[str, ...] | None,
    limit: int,
    named_max: int,
) -> None:
    clock = ManualClock(utc_ms=T0)
    model: dict[tuple[int, str], int] = {}
    wanted = IntervalSelection(
        from_ms=T0 + stretch[0] * LENGTH_MS, to_ms=T0 + (stretch[0] + stretch[1]) * LENGTH_MS, devices=devices
    )
    async with IntervalLog(tmp_path_factory.mktemp("log"), clock=clock) as log:
        for record, (rows, days) in enumerate(commits, start=1):
            await log.append([unlogged(record, sorted(set(rows)))])
            clock.advance(s=days * DAY_S)
            for device, number, revision in rows:
                key = (T0 + number * LENGTH_MS, IDS[device])
                model[key] = max(model.get(key, 0), revision)
        with patch.object(merge, "NAMED_MAX", named_max):
            async with IntervalQueries(log.files_from, log.check) as queries:
                found = await told(queries, wanted, limit)
    due = {
        (start, device): revision
        for (start, device), revision in sorted(model.items())
        if wanted.from_ms <= start < wanted.to_ms and (devices is None or device in devices)
    }
    assert [(row.start_ms, row.device, row.revision) for row in found] == [(*key, due[key]) for key in due]
    assert all(row.charge_wh == 10 * ((row.start_ms - T0) // LENGTH_MS) + row.revision for row in found)


async def test_query_late_record_of_an_older_day_is_found_in_the_file_of_its_commit(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log, IntervalQueries(log.files_from, log.check) as queries:
        await log.append([unlogged(1, [(0, 0, 1)])])
        clock.advance(s=20 * DAY_S)
        await log.append([unlogged(2, [(0, 0, 2), (1, 0, 1)])])
        found, _ = await queries.page(IntervalSelection(from_ms=T0, to_ms=T0 + 1), None, 10)
    assert [(row.device, row.revision) for row in found] == [("bat-0", 2), ("bat-1", 1)]


async def test_query_goes_on_while_old_files_are_dropped(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log, IntervalQueries(log.files_from, log.check) as queries:
        for day in range(3):
            await log.append([unlogged(day + 1, [(0, day * 288, 1)])])
            clock.advance(s=DAY_S)
        wanted = IntervalSelection(from_ms=T0, to_ms=T0 + 3 * DAY_S * 1000)
        first, after = await queries.page(wanted, None, 1)
        assert await log.retain(2, []) == 1
        rest, end = await queries.page(wanted, after, 10)
    assert [(row.start_ms - T0) // LENGTH_MS for row in (*first, *rest)] == [0, 288, 576]
    assert end is None


async def test_query_file_that_is_gone_is_an_error_and_does_not_come_back_empty(tmp_path: Path) -> None:
    gone = tmp_path / "00000001-2027-01-15.sqlite"
    async with IntervalQueries(lambda _: [gone], nothing_damaged) as queries:
        with pytest.raises(StorageError, match="interval log: unable to open"):
            await queries.page(IntervalSelection(from_ms=T0, to_ms=T0 + 1), None, 10)
    assert names(tmp_path) == []


async def test_query_damaged_file_is_an_error_and_not_a_part_of_the_answer(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log, IntervalQueries(log.files_from, log.check) as queries:
        await log.append([unlogged(1, [(0, 0, 1)])])
        clock.advance(s=DAY_S)
        await log.append([unlogged(2, [(0, 1, 1)])])
        log.files_from(T0)[0].write_bytes(b"not a database" * 1000)
        with pytest.raises(StorageError, match="interval log: "):
            await queries.page(IntervalSelection(from_ms=T0, to_ms=T0 + DAY_S * 1000), None, 10)


@pytest.mark.fault("F38")
async def test_query_altered_records_are_left_out_however_many_there_are_together(tmp_path: Path) -> None:
    async with IntervalLog(tmp_path, clock=ManualClock(utc_ms=T0)) as log:
        await log.append([unlogged(1, [(d, k, 1) for k in range(12) for d in range(6)])])
        path = log.files_from(T0)[0]
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("update interval set charge_wh = 1.75 where id > 6 and id <= 60")
        db.execute("update interval set soc_end_pct = x'00' where id = 62")
        db.commit()
    for limit in (1, 5, 100):
        async with IntervalQueries(lambda _: [path], nothing_damaged) as queries:
            found, after, wanted = [], None, IntervalSelection(from_ms=T0, to_ms=T0 + DAY_S * 1000)
            while True:
                rows, after = await queries.page(wanted, after, limit)
                found += [(round((row.charge_wh or 0) // 10), row.device) for row in rows]
                if after is None:
                    break
            assert found == [(k, IDS[d]) for k in (0, 10, 11) for d in range(6) if (k, d) != (10, 1)]


@pytest.mark.fault("F38")
async def test_query_interval_whose_newest_record_is_damaged_has_no_older_one_instead(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(tmp_path, clock=clock) as log:
        await log.append([unlogged(1, [(0, 0, 1), (1, 0, 1), (2, 0, 1)])])
        clock.advance(s=DAY_S)
        await log.append([unlogged(2, [(0, 0, 2), (1, 0, 2)])])
        paths = log.files_from(T0)
    with contextlib.closing(sqlite3.connect(paths[1])) as db:
        db.execute("update interval set charge_wh = 1.75 where device = 'bat-0'")
        db.commit()
    async with IntervalQueries(lambda _: paths, nothing_damaged) as queries:
        records, damaged = await queries.find([(T0, name) for name in IDS])
    assert [(record.device, record.revision) for record in records] == [("bat-1", 2), ("bat-2", 1)]
    assert damaged == [(T0, "bat-0")]
    (line,) = [r.__dict__ for r in caplog.records if r.message == "interval query skipped damaged records"]
    assert (line["rows"], line["device"], line["start_ms"]) == (1, "bat-0", T0)
    # what the line says, without the times and numbers that logging adds
    said = {name: value for name, value in line.items() if name not in logging.makeLogRecord({}).__dict__}
    assert "1.75" not in f"{line['message']} {said}"


@given(st.lists(st.none() | st.floats(allow_nan=False), min_size=1, max_size=20))
def test_query_numbers_come_back_to_the_last_bit(numbers: list[float | None]) -> None:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.executescript(create_sql(0))
        db.executemany(
            "insert into interval values (null, 'bat-\u00e9\"', ?, 300, 1, ?, ?, 100.0, 3, null, 0, null, null, ?, "
            "null, 0, null, null, null, null)",
            [(n, number, number, number) for n, number in enumerate(numbers)],
        )
        page = fetch(db, "select {columns} from interval i order by id", ())
    assert (page.ids.tolist(), page.damaged) == ([*range(1, len(numbers) + 1)], ())
    for name in ("charge_wh", "discharge_wh", "battery_w_max"):
        assert [getattr(row, name) for row in page.columns.objects()] == numbers
    assert page.columns.devices == ['bat-\u00e9"']


async def test_query_named_devices_are_looked_up_and_not_searched_for(tmp_path: Path) -> None:
    async with IntervalLog(tmp_path, clock=ManualClock(utc_ms=T0)) as log:
        await log.append([unlogged(1, [(d, k, 1) for d in range(6) for k in range(12)])])
        with closing(sqlite3.connect(log.files_from(T0)[0])) as connection, connection:
            values = {"after_ms": T0, "after_device": "", "to_ms": T0 + 10**9, "most": 10, "devices": '["bat-1"]'}
            statement = f"explain query plan {merge.NAMED.format(columns='i.*')}"
            plan = [row[3] for row in connection.execute(statement, values)]
        connection.close()
    assert any("SEARCH i USING INDEX identity (start_ms=? AND device=?" in step for step in plan), plan
    assert not any(step.startswith("SCAN i") for step in plan), plan


async def test_late_repairs_do_not_wait_for_a_question_that_scans_the_log(tmp_path: Path) -> None:
    asked, answer = threading.Event(), threading.Event()
    async with IntervalLog(tmp_path, clock=ManualClock(utc_ms=T0)) as log:
        await log.append([unlogged(1, [(0, 0, 1), (1, 0, 1)])])

        def files(from_ms: int) -> Sequence[Path]:
            # a question takes its time; a repair asks from later on
            if from_ms < T0:
                asked.set()
                answer.wait(10)
            return log.files_from(from_ms)

        async with IntervalQueries(files, log.check) as queries, asyncio.TaskGroup() as group:
            many = IntervalSelection(from_ms=T0 - 1, to_ms=T0 + DAY_S * 1000, devices=tuple(f"d{i}" for i in range(65)))
            question = group.create_task(queries.page(many, None, 100), name="question")
            await asyncio.to_thread(asked.wait, 10)
            try:
                found, lost = await queries.find([(T0, IDS[0])])
                assert [record.device for record in found] == [IDS[0]]
                assert (lost, question.done()) == ([], False)
            finally:
                answer.set()

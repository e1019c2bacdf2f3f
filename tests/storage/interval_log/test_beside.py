"""The interval log as another process reads it: a file that the writer is only making is none yet."""

import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import StorageError
from gateway.domain.programs.site_day import DayFrame
from gateway.storage.interval_log.beside import IntervalLogBeside
from gateway.storage.interval_log.merge import IntervalSelection
from tests.builders.site_days import logged, placed, whole_day

FRAME = DayFrame(zone="UTC", length_s=900)
DAY = date(2027, 1, 20)
FROM_MS, UNTIL_MS = FRAME.span(DAY)
ALL = IntervalSelection(from_ms=FROM_MS, to_ms=UNTIL_MS)


async def log_of_a_day(state_dir: Path) -> IntervalLogBeside:
    clock = ManualClock(utc_ms=FROM_MS - 1)
    await placed(state_dir, [("a", "home")], clock)
    clock.utc = UNTIL_MS
    await logged(state_dir, whole_day("a", DAY, frame=FRAME, discharge_wh=10.0), clock)
    return IntervalLogBeside(state_dir / "intervals")


@pytest.mark.parametrize("tables", [(), ("create table meta (x)",)])
async def test_a_file_that_is_being_made_is_none_yet(tmp_path: Path, tables: tuple[str, ...]) -> None:
    beside = await log_of_a_day(tmp_path)
    known, end, rows = beside.files(), beside.end(), sum(len(page) for page in beside.pages(ALL))
    assert rows
    new = known[-1].path.with_name("00000099-2027-01-21.sqlite")
    with closing(sqlite3.connect(new)) as db:
        for table in tables:
            db.execute(table)
    new.touch()
    assert beside.files() == known
    assert beside.end() == end
    assert sum(len(page) for page in beside.pages(ALL)) == rows
    assert beside.new_rows(end, UNTIL_MS, 10).until == end


async def test_an_older_file_without_its_table_is_a_fault(tmp_path: Path) -> None:
    beside = await log_of_a_day(tmp_path)
    broken = beside.files()[0].path.with_name("00000000-2027-01-20.sqlite")
    sqlite3.connect(broken).close()
    broken.touch()
    with pytest.raises(StorageError, match="no such table"):
        list(beside.pages(ALL))

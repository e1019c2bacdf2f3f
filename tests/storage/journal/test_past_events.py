"""What is kept of events that are over takes as much work to keep within its bounds, however many there are."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.storage.journal.journal import SqliteJournal
from gateway.storage.journal.past_events import Bounds, archive, remove, trim

FEW, MANY = 300, 12_000


@contextmanager
def journal_with(path: Path, events: int, *, state: str, withdrawn: bool = False) -> Iterator[sqlite3.Connection]:
    """A journal's file with that many events that are over, as its thread sees it."""
    journal = SqliteJournal(path, clock=ManualClock())
    journal.load()
    journal.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(
            "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO past_events "
            "SELECT 'e' || i, 'e' || i, 'platform', 1, i, i, ?, '{}' FROM n",
            (events - 1, state),
        )
        if withdrawn:
            db.execute("INSERT INTO withdrawn SELECT id, 'operator' FROM past_events")
        yield db


def steps(db: sqlite3.Connection, bounds: Bounds) -> int:
    """Instructions of SQLite's machine, by the hundred, that one commit takes to keep the bounds."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    db.set_progress_handler(step, 100)
    trim(db, bounds, 0, added=1)
    db.set_progress_handler(None, 0)
    return count


@pytest.mark.parametrize(
    ("state", "withdrawn"), [("completed", False), ("cancelled", False), ("cancelled", True)], ids=str
)
def test_past_events_bounds_take_no_more_work_the_more_events_there_are(
    tmp_path: Path, state: str, withdrawn: bool
) -> None:
    with journal_with(tmp_path / "few", FEW, state=state, withdrawn=withdrawn) as db:
        few = steps(db, Bounds())
    with journal_with(tmp_path / "many", MANY, state=state, withdrawn=withdrawn) as db:
        assert steps(db, Bounds()) <= few + 2


@pytest.mark.parametrize("state", ["completed", "cancelled"])
def test_past_events_bounds_that_are_reached_take_no_more_work_the_more_events_there_are(
    tmp_path: Path, state: str
) -> None:
    with journal_with(tmp_path / "few", FEW, state=state) as db:
        few = steps(db, Bounds(events_max=FEW - 4, cancelled_max=FEW - 4))
    with journal_with(tmp_path / "many", MANY, state=state) as db:
        assert steps(db, Bounds(events_max=MANY - 4, cancelled_max=MANY - 4)) <= few + 2
        assert db.execute("SELECT count(*) FROM past_events").fetchone() == (MANY - 4,)


def test_past_events_are_counted_right_whatever_becomes_of_them(tmp_path: Path) -> None:
    """As many go as are too many: after an event went and came again, was cancelled late, and a restart."""
    with journal_with(tmp_path / "journal", 8, state="completed") as db:
        for again in range(3):
            db.execute(
                "INSERT INTO events (id, revision, end_ms, body, source, state) "
                """VALUES ('e7', 2, 7, '{"request": {"start_ms": 7}}', 'platform', 'completed')"""
            )
            archive(db, ["e7"], again)
        db.execute("UPDATE past_events SET state = 'cancelled' WHERE id IN ('e5', 'e6')")
        remove(db, ["e4"])
        assert trim(db, Bounds(events_max=4, cancelled_max=1), 0, added=1) == 2
    journal = SqliteJournal(tmp_path / "journal", clock=ManualClock())
    journal.load()
    journal.close()
    with closing(sqlite3.connect(tmp_path / "journal")) as db:
        assert {name for (name,) in db.execute("SELECT id FROM past_events")} == {"e1", "e2", "e3", "e6", "e7"}
        assert trim(db, Bounds(events_max=4, cancelled_max=1), 0, added=1) == 0
        assert trim(db, Bounds(events_max=3, cancelled_max=0), 0, added=1) == 2


def test_past_events_cancellation_by_an_operator_goes_with_its_event(tmp_path: Path) -> None:
    with journal_with(tmp_path / "journal", 4, state="cancelled", withdrawn=True) as db:
        trim(db, Bounds(cancelled_max=2), 0, added=1)
        assert len(db.execute("SELECT event FROM withdrawn").fetchall()) == 4
        trim(db, Bounds(retention_ms=0), 2, added=1)
        assert db.execute("SELECT event FROM withdrawn").fetchall() == [("e2",), ("e3",)]
        # decided anew: it lives again, and is still held
        db.execute("INSERT INTO events (id, revision, end_ms, body) VALUES ('e3', 2, 9, '{}')")
        remove(db, ["e3"])
        assert db.execute("SELECT event FROM withdrawn").fetchall() == [("e2",), ("e3",)]

"""What was dispatched of a program is read from the journal beside the daemon, events that are over and others."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import CorruptState
from gateway.domain.events.lifecycle import EventState
from gateway.domain.journal.changes import EventMoved, EventsArchived
from gateway.storage.journal.dispatched import dispatched_events
from gateway.storage.journal.journal import SqliteJournal
from tests.storage.journal.test_journal import event


def test_events_that_are_over_and_those_to_come_are_read_while_the_journal_is_open(tmp_path: Path) -> None:
    path, clock = tmp_path / "journal.sqlite", ManualClock()
    journal = SqliteJournal(path, clock=clock)
    journal.load()
    done, ahead, other = event(clock, name="done"), event(clock, name="ahead"), event(clock, name="other")
    other = replace(other, request=replace(other.request, program="another"))
    asyncio.run(journal.commit([done, ahead, other]))
    asyncio.run(
        journal.commit([EventMoved(event=done.request.id, revision=0, state=EventState.COMPLETED),
                        EventMoved(event=ahead.request.id, revision=0, state=EventState.SCHEDULED)])
    )  # fmt: skip
    asyncio.run(journal.commit([EventsArchived(events=(done.request.id,))]))
    found = dispatched_events(path, "evening", 0)
    assert {one.request.id: one.state for one in found} == {
        "done": EventState.COMPLETED, "ahead": EventState.SCHEDULED,
    }  # fmt: skip
    assert {one.decided_ms for one in found} == {clock.utc}
    assert [one.request.id for one in dispatched_events(path, "another", 0)] == ["other"]
    assert dispatched_events(path, "evening", done.request.end_ms) == []
    journal.close()


def test_a_journal_that_is_not_there_has_none_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    assert dispatched_events(path, "evening", 0) == []
    assert not path.exists()
    path.write_bytes(b"no database at all " * 100)
    with pytest.raises(CorruptState, match="not readable events"):
        dispatched_events(path, "evening", 0)

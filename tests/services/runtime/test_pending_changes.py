"""What has taken effect is kept until the journal has it, within a bound."""

from gateway.domain.events.lifecycle import EventState
from gateway.domain.journal.changes import ControlEnded, EventMoved, Trusted
from gateway.domain.types import DeviceId, EventId
from gateway.services.runtime.pending_changes import PendingChanges
from tests.builders.fakes import MemoryJournal


def moved(name: str) -> EventMoved:
    return EventMoved(event=EventId(name), revision=0, state=EventState.ACTIVE)


ENDED = ControlEnded(devices=(DeviceId("a"),), reason="released")


async def test_pending_changes_that_is_full_forgets_first_what_the_next_start_finds_out_by_itself() -> None:
    journal = MemoryJournal()
    journal.failing = True
    pending = PendingChanges(journal, deadline_s=5.0, owed_max=3)
    assert not await pending.keep([moved("x0"), ENDED, moved("x1"), moved("x2"), moved("x3")])
    assert (pending.owed(ControlEnded), pending.owed(EventMoved)) == ([ENDED], [moved("x2"), moved("x3")])
    assert pending.stats.forgotten == 2
    cancelled = EventMoved(event=EventId("y"), revision=0, state=EventState.CANCELLED)
    assert not await pending.keep([cancelled])
    assert pending.owed(EventMoved) == [moved("x3"), cancelled], "nor is a cancellation"
    assert not await pending.keep([ENDED, ENDED, ENDED])
    assert len(pending.owed(ControlEnded)) == 4, "an end of control is never forgotten"


async def test_pending_changes_commit_that_fails_owes_nothing_more_and_one_that_does_not_clears_what_was_owed() -> None:
    journal = MemoryJournal()
    journal.failing = True
    pending = PendingChanges(journal, deadline_s=5.0)
    assert not await pending.keep([ENDED])
    trusted = Trusted(names=("a",))
    assert not await pending.flush([trusted])
    assert (pending.owed(ControlEnded), pending.owed(Trusted)) == ([ENDED], [])
    assert pending.warnings() == ["journal: 1 change is in force and not durable yet: no space left on device"]
    journal.failing = False
    await pending.commit([trusted])
    assert (journal.kept, pending.owed(ControlEnded), pending.warnings()) == ([ENDED, trusted], [], [])


async def test_pending_changes_that_are_owed_when_the_gateway_stops_have_a_last_chance() -> None:
    journal = MemoryJournal()
    journal.failing = True
    pending = PendingChanges(journal, deadline_s=5.0)
    assert not await pending.keep([ENDED])
    await pending.close()
    assert pending.owed(ControlEnded) == [ENDED]
    journal.failing = False
    await pending.close()
    assert (journal.kept, pending.owed(ControlEnded)) == ([ENDED], [])

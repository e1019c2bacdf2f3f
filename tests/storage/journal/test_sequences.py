"""Of two changes of one thing the journal keeps the one that was decided later, in whatever order they are committed.
One contract for the real journal and the fake."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import StorageError
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.request import TargetGroup
from gateway.domain.journal.changes import (
    Change,
    ControlEnded,
    ControlTaken,
    DeviceRegistered,
    ExclusionLifted,
    ExclusionSet,
    PriorRestored,
    PriorSaved,
    Quarantined,
    ReserveChanged,
    StopAll,
    Trusted,
)
from gateway.domain.journal.stored import JournalState
from gateway.domain.types import DeviceId, EventId
from gateway.ports.journal import Journal
from gateway.storage.journal.journal import PENDING_MAX, SqliteJournal
from tests.builders.fakes import MemoryJournal
from tests.storage.journal.test_journal import device

A, B = DeviceId("a"), DeviceId("b")
ALL = Exclusion(id="h", reason="opt_out", group=TargetGroup(all=True), from_ms=0, until_ms=None)

Reopen = Callable[[], tuple[Journal, JournalState]]


@pytest.fixture(params=["sqlite", "memory"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    if request.param == "memory":
        memory = MemoryJournal()
        yield lambda: (memory, memory.load())
        return
    opened: list[SqliteJournal] = []

    def again() -> tuple[Journal, JournalState]:
        for journal in opened:
            journal.close()
        opened.append(SqliteJournal(tmp_path / "journal.sqlite", clock=ManualClock()))
        return opened[-1], opened[-1].load()

    yield again
    for journal in opened:
        journal.close()


def numbered(journal: Journal, *changes: Change) -> list[Change]:
    """Changes as they were decided one after the other."""
    return [replace(change, seq=journal.sequence()) for change in changes]


def kept(state: JournalState) -> tuple[object, ...]:
    return (
        state.exclusions, state.controlled, state.quarantined, state.prior, state.stopped,
        {one.id: one.reserve_pct for one in state.devices},
    )  # fmt: skip


STORIES: dict[str, Sequence[Change]] = {
    "exclusion": [ExclusionSet(exclusion=ALL), ExclusionLifted(id="h"), ExclusionSet(exclusion=replace(ALL, by="x"))],
    "exclusion lifted": [ExclusionSet(exclusion=ALL), ExclusionSet(exclusion=ALL), ExclusionLifted(id="h")],
    "control": [
        ControlTaken(devices=(A, B), event=EventId("e")), ControlEnded(devices=(A,), reason="released"),
        ControlTaken(devices=(A,), event=EventId("f")),
    ],
    "control ended": [ControlTaken(devices=(A, B), event=EventId("e")), ControlEnded(devices=(B, A), reason="owner")],
    "quarantine": [
        Quarantined(names=("a", "b"), reason="x"), Trusted(names=("a",)), Quarantined(names=("a",), reason="y")
    ],
    "trust": [Quarantined(names=("a", "b"), reason="x"), Trusted(names=("b", "a"))],
    "settings": [
        PriorSaved(device=A, settings={"x": 1.0}), PriorRestored(device=A), PriorSaved(device=A, settings={"x": 2.0})
    ],
    "settings restored": [PriorSaved(device=A, settings={"x": 1.0}), PriorRestored(device=A)],
    "stop": [StopAll(active=True, by="a"), StopAll(active=False, by="b"), StopAll(active=True, by="c")],
    "stop cleared": [StopAll(active=True, by="a"), StopAll(active=False, by="b")],
    "reserve": [
        ReserveChanged(devices=(A, B), reserve_pct=(40.0, 50.0), source="device"),
        ReserveChanged(devices=(A,), reserve_pct=(30.0,), source="device"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("story", STORIES)
async def test_journal_in_any_order_of_commits_keeps_what_was_decided_last(reopen: Reopen, story: str) -> None:
    told = STORIES[story]
    registered = [DeviceRegistered(device=device(name)) for name in (A, B)]
    for order in permutations(range(len(told))):
        journal, _ = reopen()
        # from one state, and never the same change twice
        await journal.commit([*registered, ExclusionLifted(id="h"), ControlEnded(devices=(A, B), reason="released")])
        await journal.commit([Trusted(names=("a", "b")), PriorRestored(device=A), StopAll(active=False, by="")])
        await journal.commit([ReserveChanged(devices=(A, B), reserve_pct=(20.0, 20.0), source="device")])
        changes = numbered(journal, *told)
        for at in order:
            await journal.commit([changes[at]])
        found = kept(reopen()[1])
        if order == tuple(range(len(told))):
            wanted = found
        assert found == wanted, order


async def test_journal_change_that_comes_twice_does_not_undo_what_came_between(reopen: Reopen) -> None:
    journal, _ = reopen()
    first, lifted = numbered(journal, ExclusionSet(exclusion=ALL), ExclusionLifted(id="h"))
    await journal.commit([first])
    await journal.commit([lifted])
    await journal.commit([first])
    assert reopen()[1].exclusions == ()


async def test_journal_change_of_this_run_is_newer_than_every_one_of_the_run_before(reopen: Reopen) -> None:
    journal, _ = reopen()
    for _ in range(50):
        await journal.commit([ExclusionSet(exclusion=ALL)])
    before = journal.sequence()
    journal, _ = reopen()
    assert journal.sequence() > before
    await journal.commit([ExclusionLifted(id="h")])
    assert reopen()[1].exclusions == ()


async def test_journal_choice_of_before_a_registration_that_raised_it_does_not_lower_it(reopen: Reopen) -> None:
    journal, _ = reopen()
    choice, raised = numbered(
        journal, ReserveChanged(devices=(A,), reserve_pct=(25.0,), source="device"),
        DeviceRegistered(device=device("a", reserve_pct=30.0)),
    )  # fmt: skip
    await journal.commit([raised])
    await journal.commit([choice])
    assert [one.reserve_pct for one in reopen()[1].devices] == [30.0]


async def test_journal_whose_disk_hangs_keeps_to_its_bound_also_where_nobody_waits_any_more(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = SqliteJournal(path, clock=ManualClock())
    journal.load()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    refused = 0
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(journal.commit([StopAll(active=True, by="me")]), name="first")
        await asyncio.sleep(0)
        for _ in range(PENDING_MAX + 100):
            try:
                async with asyncio.timeout(0):
                    await journal.commit([ControlEnded(devices=(A,), reason="released")])
            except TimeoutError:
                continue
            except StorageError:
                refused += 1
        assert (refused, journal.pending) == (101, PENDING_MAX)
        other.execute("ROLLBACK")
        await first
    other.close()
    journal.close()
    db = sqlite3.connect(path)
    assert db.execute("SELECT kind FROM audit").fetchall() == [("stop_all",)], "what nobody waits for is not written"
    db.close()

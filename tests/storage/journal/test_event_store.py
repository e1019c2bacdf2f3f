"""Events that are over: archived, paged and bounded in the store, read beside the journal. One contract for the real
store and the fake."""

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import StorageError
from gateway.domain.events.calendar import Daily
from gateway.domain.events.lifecycle import EventState
from gateway.domain.events.request import OPEN_MS, Leg, power
from gateway.domain.journal.changes import (
    AuditDoor,
    Change,
    ControlEnded,
    EventDecided,
    EventDelivered,
    EventMoved,
    EventsArchived,
    EventWithdrawn,
    WithdrawalLifted,
)
from gateway.domain.journal.stored import JournalState
from gateway.domain.types import DeviceId, EventId
from gateway.ports.journal import EventStore, Journal
from gateway.storage.journal import delivery_rows, past_events, writes
from gateway.storage.journal.event_store import SqliteEventStore
from gateway.storage.journal.journal import SqliteJournal
from gateway.storage.journal.past_events import Bounds
from tests.builders.fakes import MemoryJournal
from tests.storage.journal.test_journal import event

HOUR_MS = 3_600_000
T0 = ManualClock().utc


@dataclass(slots=True)
class Desk:
    """A journal and the store beside it. `path`: their file, if they have one."""

    journal: Journal
    store: EventStore
    clock: ManualClock
    state: JournalState
    path: Path | None = None

    async def commit(self, *changes: Change) -> None:
        await self.journal.commit(changes)

    async def over(self, *names: str, state: EventState = EventState.COMPLETED, start_ms: int | None = None) -> None:
        """Events that ran, or did not, and are archived."""
        for name in names:
            decided = at(self.clock, name, start_ms)
            if state is EventState.CANCELLED:
                decided = replace(decided, request=replace(decided.request, cancelled=True))
            await self.commit(decided, EventMoved(event=decided.request.id, revision=0, state=state))
        await self.commit(EventsArchived(events=tuple(EventId(name) for name in names)))

    async def names(self, limit: int = 100) -> list[str]:
        """Every archived event, page by page."""
        found: list[str] = []
        after: tuple[int, str] | None = None
        more = True
        while more:
            page, more = await self.store.events(after, limit)
            assert len(page) <= limit
            assert page or not more
            found += [one.request.id for one in page]
            after = (page[-1].request.start_ms, page[-1].request.id) if page else None
        return found


def at(clock: ManualClock, name: str, start_ms: int | None = None) -> EventDecided:
    decided = event(clock, name=name)
    source = name.partition("~")[0] if "~" in name else "rest"
    start_ms = clock.utc if start_ms is None else start_ms
    request = replace(decided.request, source=source, start_ms=start_ms, end_ms=start_ms + HOUR_MS)
    return replace(decided, request=request)


def delivered(name: str, n: int, devices: int = 2) -> EventDelivered:
    return EventDelivered(
        event=EventId(name), occurrence_ms=T0 + n, ended_ms=T0 + n + 1,
        devices=tuple(DeviceId(f"home-{i:06d}") for i in range(devices)),
        columns={"watt": np.arange(devices) * float(n), "status": np.zeros(devices, dtype=np.int8)},
    )  # fmt: skip


def opened(path: Path, clock: ManualClock, bounds: Bounds | None = None) -> Desk:
    journal = SqliteJournal(path, clock=clock, bounds=bounds)
    return Desk(journal=journal, store=SqliteEventStore(path), clock=clock, state=journal.load(), path=path)


def close(desk: Desk) -> None:
    assert isinstance(desk.journal, SqliteJournal)
    assert isinstance(desk.store, SqliteEventStore)
    desk.store.close()
    desk.journal.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Desk]:
    desk = opened(tmp_path / "journal.sqlite", ManualClock())
    yield desk
    close(desk)


@pytest.fixture(params=["sqlite", "memory"])
def desk(request: pytest.FixtureRequest) -> Desk:
    if request.param == "sqlite":
        found: Desk = request.getfixturevalue("file")
        return found
    journal = MemoryJournal()
    return Desk(journal=journal, store=journal, clock=ManualClock(), state=journal.load())


async def test_store_archived_events_are_paged_newest_start_first_and_not_loaded_at_start(desk: Desk) -> None:
    for i in range(10):
        await desk.over(f"e{i}", start_ms=desk.clock.utc + i // 2 * HOUR_MS)
    await desk.commit(at(desk.clock, "live"))
    pages = ["e8", "e9", "e6", "e7", "e4", "e5", "e2", "e3", "e0", "e1"]
    assert await desk.names(limit=3) == await desk.names() == pages
    assert [one.request.id for one in desk.journal.load().events] == ["live"]
    (first,), more = await desk.store.events(None, 1)
    assert more
    assert (first.state, first.request.source, first.decided_ms) == (EventState.COMPLETED, "rest", desk.clock.utc)


async def test_store_event_is_known_by_the_id_of_its_source_whatever_the_source(desk: Desk) -> None:
    await desk.over("e1", "mqtt~e1", "e10")
    await desk.over("gone", state=EventState.CANCELLED)
    for reader in (desk.store, desk.journal):
        assert [(one.request.id, one.request.source) for one in await reader.known("e1")] == [
            ("e1", "rest"), ("mqtt~e1", "mqtt"),
        ]  # fmt: skip
        assert [one.request.id for one in await reader.known("mqtt~e1")] == ["mqtt~e1"]
        assert [one.state for one in await reader.known("gone")] == [EventState.CANCELLED]
        assert await reader.known("e") == []


async def test_store_event_that_is_decided_anew_is_live_again(desk: Desk) -> None:
    await desk.over("e1", state=EventState.CANCELLED)
    again = at(desk.clock, "e1")
    again = replace(again, request=replace(again.request, revision=1))
    # the archive's turn may come after the revision's
    await desk.commit(again, EventsArchived(events=(EventId("e1"),)))
    assert await desk.names() == []
    assert [one.request.revision for one in desk.journal.load().events] == [1]


async def test_store_cancellation_by_an_operator_stands_beside_the_revision_until_it_is_lifted(desk: Desk) -> None:
    withdrawn = EventWithdrawn(event=EventId("e1"), by="me")
    await desk.commit(at(desk.clock, "e1"), withdrawn)
    # what a tick before it still owed
    await desk.commit(EventMoved(event=EventId("e1"), revision=0, state=EventState.ACTIVE))
    loaded = desk.journal.load()
    assert loaded.states == {EventId("e1"): (0, EventState.CANCELLED)}
    assert loaded.withdrawn == {EventId("e1"): "me"}
    await desk.commit(EventsArchived(events=(EventId("e1"),)))
    await desk.over("e2")
    await desk.commit(replace(withdrawn, event=EventId("e2")))
    for name in ("e1", "e2"):
        for reader in (desk.store, desk.journal):
            assert [(one.state, one.held_by) for one in await reader.known(name)] == [(EventState.CANCELLED, "me")]
    assert {one.held_by for one in (await desk.store.events(None, 9))[0]} == {"me"}
    await desk.commit(WithdrawalLifted(event=EventId("e1")))
    assert [(one.state, one.held_by) for one in await desk.store.known("e1")] == [(EventState.CANCELLED, None)]
    assert desk.journal.load().withdrawn == {EventId("e2"): "me"}


async def test_store_records_are_those_of_one_occurrence_and_of_a_page(desk: Desk) -> None:
    await desk.commit(*(delivered("e", n, devices=5) for n in (3, 1, 2)), delivered("other", 9))
    two = await desk.store.occurrences(EventId("e"), None, 2)
    assert [(o.occurrence_ms - T0, o.ended_ms - T0, o.devices) for o in two] == [(2, 3, 5), (3, 4, 5)]
    assert [o.occurrence_ms - T0 for o in await desk.store.occurrences(EventId("e"), T0 + 2, 2)] == [1]
    newest = await desk.store.records(EventId("e"), None, slice(1, 3))
    assert (newest.total, newest.devices) == (5, ("home-000001", "home-000002"))
    assert newest.columns["watt"].tolist() == [3.0, 6.0]
    assert newest.columns["status"].dtype == np.int8
    assert (await desk.store.records(EventId("e"), T0 + 1, slice(4, 9))).columns["watt"].tolist() == [4.0]
    for event_id, occurrence_ms in (("e", 7), ("none", None)):
        assert (await desk.store.records(EventId(event_id), occurrence_ms, slice(9))).total == 0


# -- the file ----------------------------------------------------------------------------------------------------


async def test_store_page_of_an_event_unpacks_one_occurrence(file: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await file.commit(*(delivered("rt", n, devices=50) for n in range(500)))
    unpacked: list[int] = []

    def counting(body: bytes) -> Any:
        unpacked.append(len(body))
        return delivery_rows.unpack(body)

    monkeypatch.setattr(past_events, "unpack", counting)
    assert len(await file.store.occurrences(EventId("rt"), None, 100)) == 100
    assert len((await file.store.records(EventId("rt"), None, slice(0, 10))).devices) == 10
    assert len(unpacked) == 1


async def test_store_cancelled_event_of_the_release_before_is_known_and_archived(file: Desk) -> None:
    asked = at(file.clock, "old")
    await file.commit(replace(asked, request=replace(asked.request, cancelled=True)), at(file.clock, "live"))
    assert file.path is not None
    with closing(sqlite3.connect(file.path)) as db, db:
        db.execute("UPDATE events SET state = NULL, source = NULL")
    db.close()
    assert [(one.state, one.request.source) for one in await file.store.known("old")] == [(EventState.CANCELLED, "")]
    await file.commit(EventsArchived(events=(EventId("old"), EventId("live"))))
    assert await file.names() == ["old"]
    assert [one.request.id for one in file.journal.load().events] == ["live"]


async def test_store_page_of_large_events_is_shorter_and_none_is_left_out(
    file: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past_events, "PAGE_BYTES", 2_000)
    await file.over(*(f"e{i}" for i in range(9)))
    page, more = await file.store.events(None, 9)
    assert (0 < len(page) < 9, more) == (True, True)
    assert await file.names(limit=9) == [f"e{i}" for i in range(9)]


async def test_store_question_keeps_no_commit_waiting(file: Desk) -> None:
    await file.commit(delivered("e", 1))
    assert isinstance(file.store, SqliteEventStore)
    asked, go_on = Event(), Event()

    def slow(_db: sqlite3.Connection) -> bool:
        asked.set()
        return go_on.wait(60)

    reading = asyncio.ensure_future(file.store._ask(slow))
    await asyncio.get_running_loop().run_in_executor(None, asked.wait, 60)
    await file.commit(delivered("e", 2))
    assert await file.journal.known("e") == []
    assert not reading.done()
    go_on.set()
    assert await reading


async def test_store_records_that_are_put_away_keep_no_commit_waiting(
    file: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    packing, go_on = Event(), Event()

    def slow(devices: Sequence[str], columns: Mapping[str, Any]) -> bytes:
        packing.set()
        go_on.wait(60)
        return delivery_rows.pack(devices, columns)

    monkeypatch.setattr(writes, "pack", slow)
    async with asyncio.TaskGroup() as tasks:
        putting = tasks.create_task(file.journal.put_away([delivered("e", 1)]), name="put-away")
        await asyncio.get_running_loop().run_in_executor(None, packing.wait, 60)
        await file.commit(ControlEnded(devices=(DeviceId("a"),), reason="released"))
        assert not putting.done()
        go_on.set()
    assert len(await file.store.occurrences(EventId("e"), None, 9)) == 1


async def test_store_records_that_a_long_question_reads_keep_neither_commits_nor_new_ones_waiting(file: Desk) -> None:
    await file.journal.put_away([delivered("e", 1)])
    assert file.path is not None
    reader = sqlite3.connect(file.path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM deliveries").fetchone() == (1,)
    await file.commit(ControlEnded(devices=(DeviceId("a"),), reason="released"))
    await file.journal.put_away([delivered("e", 2)])
    assert reader.execute("SELECT count(*) FROM deliveries").fetchone() == (1,), "it still reads what it began with"
    reader.close()
    assert len(await file.store.occurrences(EventId("e"), None, 9)) == 2


async def test_store_that_is_closed_or_has_no_file_is_told(tmp_path: Path) -> None:
    store = SqliteEventStore(tmp_path / "none.sqlite")
    with pytest.raises(StorageError, match="unable to open"):
        await store.events(None, 1)
    store.close()
    with pytest.raises(StorageError, match="closed"):
        await store.events(None, 1)


@pytest.mark.parametrize(
    ("bounds", "left"),
    [
        (Bounds(events_max=3), ["e7", "e6", "e5"]),
        (Bounds(retention_ms=2 * HOUR_MS), ["e7", "e6", "e5", "e4"]),
        (Bounds(), [f"e{i}" for i in reversed(range(8))]),
    ],
)
async def test_store_events_beyond_a_bound_are_removed_oldest_first(
    tmp_path: Path, bounds: Bounds, left: list[str]
) -> None:
    desk = opened(tmp_path / "journal.sqlite", ManualClock(), bounds)
    for i in range(8):
        await desk.over(f"e{i}")
        desk.clock.advance(s=3600)
    assert await desk.names() == left
    close(desk)


async def test_store_cancellations_of_one_source_push_out_neither_those_of_another_nor_events(tmp_path: Path) -> None:
    desk = opened(tmp_path / "journal.sqlite", ManualClock(), Bounds(cancelled_max=2))
    await desk.over("mqtt~theirs", state=EventState.CANCELLED)
    await desk.over("ran")
    for i in range(5):
        desk.clock.advance(s=60)
        await desk.over(f"flood{i}", state=EventState.CANCELLED)
    assert sorted(await desk.names()) == ["flood3", "flood4", "mqtt~theirs", "ran"]
    assert isinstance(desk.journal, SqliteJournal)
    assert desk.journal.dropped == 3
    close(desk)


async def test_store_events_of_one_source_push_out_none_of_another(tmp_path: Path) -> None:
    desk = opened(tmp_path / "journal.sqlite", ManualClock(), Bounds(events_max=2))
    await desk.over("mqtt~theirs")
    for i in range(5):
        desk.clock.advance(s=60)
        await desk.over(f"flood{i}")
    assert sorted(await desk.names()) == ["flood3", "flood4", "mqtt~theirs"]
    close(desk)


@pytest.mark.parametrize("state", [EventState.CANCELLED, EventState.COMPLETED])
@pytest.mark.parametrize("bounds", [Bounds(cancelled_max=2, events_max=2), Bounds(bytes_max=1)])
async def test_store_source_cannot_push_out_what_an_operator_cancelled(
    tmp_path: Path, bounds: Bounds, state: EventState
) -> None:
    clock = ManualClock()
    desk = opened(tmp_path / "journal.sqlite", clock)
    await desk.over("stopped", state=state)
    await desk.commit(EventWithdrawn(event=EventId("stopped"), by="me"))
    close(desk)
    desk = opened(tmp_path / "journal.sqlite", clock, bounds)
    for i in range(30):
        desk.clock.advance(s=60)
        await desk.over(f"flood{i}", state=state)
    assert [one.held_by for one in await desk.store.known("stopped")] == ["me"]
    close(desk)


async def test_store_oldest_delivery_records_go_when_the_file_is_too_large(tmp_path: Path) -> None:
    desk = opened(tmp_path / "journal.sqlite", ManualClock(), Bounds(bytes_max=1 << 20))
    await desk.over("rt")
    for n in range(120):
        await desk.commit(replace(delivered("rt", n, 900), columns={"noise": np.random.default_rng(n).random(900)}))
    kept = [o.occurrence_ms - T0 for o in await desk.store.occurrences(EventId("rt"), None, 1_000)]
    assert kept == list(range(kept[0], 120))
    assert 20 < len(kept) < 119
    assert await desk.names() == ["rt"]
    assert desk.path is not None
    assert desk.path.stat().st_size < 2 << 20
    close(desk)


@pytest.mark.parametrize("how", ["withdrawn", "stopped", "by its source"])
async def test_store_event_without_an_end_that_was_called_off_is_kept_as_long_as_any_other(
    tmp_path: Path, how: str
) -> None:
    desk = opened(tmp_path / "journal.sqlite", ManualClock(), Bounds(retention_ms=24 * HOUR_MS))
    endless = at(desk.clock, "e")
    endless = replace(endless, request=replace(endless.request, end_ms=OPEN_MS))
    await desk.commit(endless)
    name = endless.request.id
    if how == "withdrawn":
        await desk.commit(EventWithdrawn(event=name, by="me", door=AuditDoor.REST))
    elif how == "stopped":
        await desk.commit(EventMoved(event=name, revision=0, state=EventState.CANCELLED))
    else:
        await desk.commit(replace(endless, request=replace(endless.request, revision=1, cancelled=True)))
    await desk.commit(EventsArchived(events=(name,)))
    desk.clock.advance(s=23 * 3600)
    await desk.over("next")
    assert await desk.names() == ["next", "e"]
    desk.clock.advance(s=3601)
    await desk.over("last")
    assert await desk.names() == ["last", "next"]
    close(desk)


@pytest.mark.parametrize(
    "changes",
    [
        {"end_ms": OPEN_MS},
        {"end_ms": OPEN_MS, "legs": (Leg(after_ms=0, until_ms=OPEN_MS, target=power(1.0)),)},
        {"end_ms": OPEN_MS, "legs": (Leg(after_ms=0, until_ms=1, target=power(1.0)),), "every_ms": HOUR_MS},
        {
            "end_ms": OPEN_MS, "legs": (Leg(after_ms=0, until_ms=1, target=power(1.0)),),
            "daily": Daily(zone="Australia/Lord_Howe", first_ms=T0, length_ms=1, weekdays=(0, 6)),
        },
    ],
)  # fmt: skip
async def test_store_event_without_an_end_is_read_as_it_was_decided(desk: Desk, changes: dict[str, Any]) -> None:
    decided = at(desk.clock, "e")
    decided = replace(decided, request=replace(decided.request, **changes))
    await desk.commit(decided)
    (loaded,) = desk.journal.load().events
    assert loaded.request == decided.request


async def test_store_finds_what_was_delivered_within_a_stretch_and_the_rows_of_some_devices(desk: Desk) -> None:
    await desk.commit(delivered("a", 1), delivered("b", 5), delivered("c", 9, devices=3))
    history = desk.journal
    if isinstance(desk.store, SqliteEventStore):
        found = await desk.store.delivered_between(T0 + 2, T0 + 9, 10)
        assert await desk.store.delivered_between(T0, T0 + 100, 2) == await desk.store.delivered_between(
            T0 + 2, T0 + 100, 10
        )
        one = await desk.store.records_of(EventId("c"), T0 + 9, ["home-000002", "nobody"])
        none = await desk.store.records_of(EventId("c"), T0, ["home-000002"])
    else:
        assert isinstance(history, MemoryJournal)
        found = await history.delivered_between(T0 + 2, T0 + 9, 10)
        one = await history.records_of(EventId("c"), T0 + 9, ["home-000002", "nobody"])
        none = await history.records_of(EventId("c"), T0, ["home-000002"])
    assert [(each.event, each.occurrence_ms, each.ended_ms) for each in found] == [("b", T0 + 5, T0 + 6)]
    assert (one.total, one.devices, one.columns["watt"].tolist()) == (1, ("home-000002",), [18.0])
    assert none.total == 0

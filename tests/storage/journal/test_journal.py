"""The journal: what was committed is there after a restart, all of it or nothing, and nothing else."""

import asyncio
import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Protocol, get_args

import numpy as np
import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import CorruptState, InvariantBroken, StorageError
from gateway.domain.events.book import Answer, Outcome
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.lifecycle import EventState
from gateway.domain.events.request import EventKind, EventRequest, Leg, TargetGroup, power, power_of_each
from gateway.domain.fleet.device import Device, DeviceConnection
from gateway.domain.journal.changes import (
    EPOCH_MAX,
    Change,
    ControlEnded,
    ControlTaken,
    DeviceRegistered,
    EpochRaised,
    EventDecided,
    EventDelivered,
    EventMoved,
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
from gateway.storage.journal import journal as module
from gateway.storage.journal.audit_rows import AUDITED
from gateway.storage.journal.bodies import event_body
from gateway.storage.journal.event_store import SqliteEventStore
from gateway.storage.journal.journal import SqliteJournal, first_epoch
from gateway.storage.journal.past_events import Bounds
from gateway.storage.journal.writes import WRITE
from tests.builders.fakes import MemoryJournal

FIRST = first_epoch(ManualClock().utc) + 1
DAY_MS = 24 * 3600 * 1000


class Shelf:
    """A journal that can be closed and opened again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self.opened: list[SqliteJournal] = []
        self.store = SqliteEventStore(path)

    def open(self, *, audit_rows_max: int = 1000, bounds: Bounds | None = None) -> tuple[SqliteJournal, JournalState]:
        for earlier in self.opened:
            earlier.close()
        journal = SqliteJournal(self.path, clock=self.clock, audit_rows_max=audit_rows_max, bounds=bounds)
        self.opened.append(journal)
        return journal, journal.load()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "journal.sqlite")
    yield shelf
    shelf.store.close()
    for journal in shelf.opened:
        journal.close()


class Drawer:
    """The fake, where everything is kept in memory, opened as often as one likes."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.journal = MemoryJournal()

    def open(self) -> tuple[MemoryJournal, JournalState]:
        return self.journal, self.journal.load()


class Reopened(Protocol):
    """What the contract needs of a journal: a way to come back to it."""

    clock: ManualClock

    def open(self) -> tuple[Journal, JournalState]: ...


@pytest.fixture(params=["sqlite", "memory"])
def place(request: pytest.FixtureRequest) -> Reopened:
    """The real journal and the fake: one contract."""
    if request.param == "memory":
        return Drawer()
    shelf: Shelf = request.getfixturevalue("shelf")
    return shelf


def device(name: str, *, reserve_pct: float = 20.0, **other: object) -> Device:
    known: dict[str, object] = {
        "id": DeviceId(name), "profile": "reference-mqtt", "site": f"site-{name}", "feeder": "f1",
        "tags": ("north", "pilot"), "capacity_wh": 10_000.0, "discharge_w_max": 5000.0, "charge_w_max": 4000.0,
        "inverter_w_max": None, "reserve_pct": reserve_pct, "export_allowed": True, "grid_charge_allowed": False,
        "site_import_w_max": None, "site_export_w_max": math.inf,
    }  # fmt: skip
    return Device(**(known | other))  # type: ignore[arg-type]


POLLED = DeviceConnection(
    url="modbus://10.0.0.5:502",
    units=(("meter", 30), ("battery", 225)),
    parameters=(("portal", "c0619ab4"),),
    username="installer",
    secret="env:BATTERY_SECRET",
)


def event(clock: ManualClock, *, revision: int = 0, name: str = "e1", cancelled: bool = False) -> EventDecided:
    request = EventRequest(
        id=EventId(name),
        revision=revision,
        kind=EventKind.REAL,
        program="evening",
        group=TargetGroup(ids=(DeviceId("a"), DeviceId("b")), tags=("north",)),
        start_ms=clock.utc + 1000,
        end_ms=clock.utc + 3_600_000,
        target=power(None if revision else 12_500.5, charge=revision > 0),
        priority=7,
        cancelled=cancelled,
        source="rest",
    )
    answer = Answer(id=request.id, revision=revision, outcome=Outcome.ACCEPTED, decided_ms=clock.utc)
    return EventDecided(request=request, answer=answer)


SETTINGS: dict[str, float | str | bool] = {
    "work_mode": 0.0, "min_soc": 10.5, "operating_mode": "2", "third_party": False, "note": 'a "quote" \0 é',
}  # fmt: skip


def names(count: int) -> tuple[DeviceId, ...]:
    return tuple(DeviceId(f"dev-{i * 7919 % count:06d}") for i in range(count))


def audit(path: Path) -> list[tuple[int, str, str]]:
    with closing(sqlite3.connect(path)) as db, db:
        rows = db.execute("SELECT utc_ms, kind, body FROM audit ORDER BY id").fetchall()
    db.close()
    return [(int(at), str(kind), str(body)) for at, kind, body in rows]


def test_journal_new_file_is_empty_private_and_starts_an_epoch_after_every_earlier_file(shelf: Shelf) -> None:
    _, state = shelf.open()
    assert state == JournalState(epoch=FIRST, devices=(), events=(), controlled={}, stopped=False, prior={})
    assert shelf.path.stat().st_mode & 0o077 == 0


def test_journal_each_load_begins_a_larger_epoch(place: Reopened) -> None:
    epochs = [place.open()[1].epoch for _ in range(4)]
    assert epochs == [epochs[0] + i for i in range(4)]


def test_journal_epoch_of_a_new_file_leaves_room_whatever_the_clock_says() -> None:
    assert [first_epoch(ms) for ms in (0, 1_577_836_800_000, 1_577_836_800_000 + 600_000)] == [0, 0, 1]
    assert first_epoch(2**62) == EPOCH_MAX // 2


async def test_journal_epoch_that_was_raised_is_the_least_of_the_next_start(place: Reopened) -> None:
    journal, state = place.open()
    await journal.commit([EpochRaised(epoch=state.epoch + 7)])
    await journal.commit([EpochRaised(epoch=state.epoch + 1)])
    assert place.open()[1].epoch == state.epoch + 8


async def test_journal_every_kind_of_change_survives_a_restart(place: Reopened) -> None:
    journal, _ = place.open()
    decided = event(place.clock)
    changes: list[Change] = [
        DeviceRegistered(device=device("a")),
        DeviceRegistered(device=device("b")),
        DeviceRegistered(device=device("c", connection=POLLED, experimental=True)),
        DeviceRegistered(device=device("d", connection=DeviceConnection(url=""))),
        PriorSaved(device=DeviceId("b"), settings={"mode": 1.0}),
        PriorSaved(device=DeviceId("c"), settings=SETTINGS),
        PriorRestored(device=DeviceId("b")),
        decided,
        ControlTaken(devices=(DeviceId("a"), DeviceId("b")), event=EventId("e1")),
        ControlEnded(devices=(DeviceId("b"),), reason="released"),
        ReserveChanged(devices=(DeviceId("b"),), reserve_pct=(55.0,), source="owner"),
        StopAll(active=True, by="operator"),
    ]
    await journal.commit(changes)
    _, state = place.open()
    assert state.devices == (
        device("a"),
        device("b", reserve_pct=55.0),
        device("c", connection=POLLED, experimental=True),
        device("d", connection=DeviceConnection(url="")),
    )
    assert state.prior == {DeviceId("c"): SETTINGS}
    assert {name: type(value) for name, value in state.prior[DeviceId("c")].items()} == {
        name: type(value) for name, value in SETTINGS.items()
    }
    assert state.events == (decided,)
    assert state.controlled == {DeviceId("a"): EventId("e1")}
    assert state.stopped


async def test_journal_enrolled_again_states_the_reserve_anew_and_lowers_none(place: Reopened) -> None:
    journal, _ = place.open()
    await journal.commit([DeviceRegistered(device=device("a")), DeviceRegistered(device=device("b"))])
    await journal.commit(
        [ReserveChanged(devices=(DeviceId("a"), DeviceId("b")), reserve_pct=(50.0, 60.0), source="owner")]
    )
    # Made up before its owner raised the reserve on the device, and durable after that.
    await journal.commit([DeviceRegistered(device=device("a", reserve_pct=30.0))])
    await journal.commit([DeviceRegistered(device=device("b", reserve_pct=70.0))])
    assert [d.reserve_pct for d in place.open()[1].devices] == [50.0, 70.0]
    await place.open()[0].commit([ReserveChanged(devices=(DeviceId("b"),), reserve_pct=(10.0,), source="owner")])
    assert [d.reserve_pct for d in place.open()[1].devices] == [50.0, 10.0]


async def test_journal_device_enrolled_anew_keeps_its_prior_settings(place: Reopened) -> None:
    journal, _ = place.open()
    await journal.commit([DeviceRegistered(device=device("a", connection=POLLED))])
    await journal.commit([PriorSaved(device=DeviceId("a"), settings=SETTINGS)])
    await journal.commit([DeviceRegistered(device=device("a"))])
    _, state = place.open()
    assert (state.devices, state.prior) == ((device("a"),), {DeviceId("a"): SETTINGS})


async def test_journal_prior_saved_anew_replaces_and_restored_forgets(place: Reopened) -> None:
    journal, _ = place.open()
    a, b = DeviceId("a"), DeviceId("b")
    await journal.commit([PriorSaved(device=a, settings={"x": 1.0, "y": 2.0}), PriorSaved(device=b, settings={})])
    await journal.commit([PriorSaved(device=a, settings={"x": 3.0}), PriorRestored(device=b)])
    assert place.open()[1].prior == {a: {"x": 3.0}}
    journal, _ = place.open()
    again = PriorSaved(device=a, settings={"z": True})
    await journal.commit([PriorRestored(device=a), again, PriorRestored(device=a), PriorRestored(device=b), again])
    assert place.open()[1].prior == {a: {"z": True}}


async def test_journal_setting_that_is_no_number_is_a_bug_and_not_kept(shelf: Shelf) -> None:
    journal, _ = shelf.open()
    with pytest.raises(InvariantBroken):
        await journal.commit([StopAll(active=True, by="x"), PriorSaved(device=DeviceId("a"), settings={"x": math.nan})])
    _, state = shelf.open()
    assert (state.prior, state.stopped) == ({}, False)


async def test_journal_older_revision_or_rejection_leaves_the_event_as_it_is(shelf: Shelf) -> None:
    journal, _ = shelf.open()
    newest = event(shelf.clock, revision=3, cancelled=True)
    rejected = Answer(id=EventId("e2"), revision=0, outcome=Outcome.REJECTED, reason="expired")
    await journal.commit([event(shelf.clock, revision=2), newest])
    await journal.commit([event(shelf.clock, revision=1)])
    await journal.commit([EventDecided(request=event(shelf.clock, name="e2").request, answer=rejected)])
    assert shelf.open()[1].events == (newest,)
    assert len(audit(shelf.path)) == 4


async def test_journal_cancellation_of_the_same_revision_counts_and_nothing_at_it_revives_the_event(
    place: Reopened,
) -> None:
    journal, _ = place.open()
    asked = event(place.clock, revision=3)
    gone = replace(asked, request=replace(asked.request, cancelled=True))
    await journal.commit([asked])
    await journal.commit([gone])
    await journal.commit([asked, EventMoved(event=EventId("e1"), revision=3, state=EventState.ACTIVE)])
    state = place.open()[1]
    assert state.events == (gone,)


async def test_journal_failed_transaction_leaves_nothing_behind(shelf: Shelf) -> None:
    journal, _ = shelf.open()
    other = sqlite3.connect(shelf.path)
    other.execute("CREATE TRIGGER refuse BEFORE UPDATE ON meta BEGIN SELECT RAISE(ABORT, 'no'); END")
    other.close()
    with pytest.raises(StorageError):
        await journal.commit([DeviceRegistered(device=device("a")), StopAll(active=True, by="x")])
    await journal.commit([DeviceRegistered(device=device("b"))])
    assert (journal.commits, journal.failures, journal.pending) == (1, 1, 0)
    other = sqlite3.connect(shelf.path)
    other.execute("DROP TRIGGER refuse")
    other.close()
    assert [d.id for d in shelf.open()[1].devices] == ["b"]


async def test_journal_concurrent_commits_land_in_the_order_given(shelf: Shelf) -> None:
    journal, _ = shelf.open()
    async with asyncio.TaskGroup() as group:
        for i in range(40):
            group.create_task(journal.commit([StopAll(active=i % 2 == 0, by=str(i))]), name=f"commit-{i}")
    bodies = [json.loads(body) for _, _, body in audit(shelf.path)]
    assert bodies == [{"active": i % 2 == 0, "by": str(i), "before": i % 2 == 1} for i in range(40)]


async def test_journal_behind_its_bound_refuses_instead_of_queueing(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PENDING_MAX", 2)
    journal, _ = shelf.open()
    results = await asyncio.gather(
        *(journal.commit([StopAll(active=True, by="x")]) for _ in range(5)), return_exceptions=True
    )
    assert [isinstance(result, StorageError) for result in results] == [False, False, True, True, True]


async def test_journal_audit_stays_within_its_bound(shelf: Shelf) -> None:
    journal, _ = shelf.open(audit_rows_max=10)
    for i in range(25):
        await journal.commit([StopAll(active=False, by=str(i))])
    rows = audit(shelf.path)
    assert len(rows) == 10
    assert rows[-1] == (shelf.clock.utc, "stop_all", '{"active":false,"by":"24","before":false}')


async def test_journal_audit_names_few_of_many_devices(shelf: Shelf) -> None:
    journal, _ = shelf.open()
    await journal.commit([ControlTaken(devices=names(5000), event=EventId("e1"))])
    ((_, kind, body),) = audit(shelf.path)
    assert kind == "control_taken"
    assert '"count":5000' in body
    assert len(body) < 1000


async def test_journal_whole_fleet_goes_in_and_out_in_a_few_statements(shelf: Shelf) -> None:
    journal, _ = shelf.open()
    fleet = names(100_000)
    await journal.commit([DeviceRegistered(device=device(name)) for name in fleet[:10_000]])
    await journal.commit([ControlTaken(devices=fleet, event=EventId("e1"))])
    journal, state = shelf.open()
    assert len(state.devices) == 10_000
    assert set(state.controlled) == set(fleet)
    await journal.commit([ControlEnded(devices=fleet[1:], reason="released")])
    assert shelf.open()[1].controlled == {fleet[0]: EventId("e1")}


async def test_journal_after_close_refuses_and_closes_again_quietly(shelf: Shelf) -> None:
    journal, _ = shelf.open()
    journal.close()
    journal.close()
    with pytest.raises(StorageError):
        await journal.commit([StopAll(active=True, by="x")])


async def test_journal_not_loaded_refuses_to_commit(shelf: Shelf) -> None:
    journal = SqliteJournal(shelf.path, clock=shelf.clock)
    shelf.opened.append(journal)
    with pytest.raises(StorageError):
        await journal.commit([StopAll(active=True, by="x")])


@pytest.mark.fault("F42")
@pytest.mark.parametrize("version", [4, 99])
def test_journal_of_a_newer_version_is_refused_untouched(shelf: Shelf, version: int) -> None:
    shelf.open()[0].close()
    db = sqlite3.connect(shelf.path)
    db.execute(f"PRAGMA user_version = {version}")
    db.close()
    with pytest.raises(CorruptState, match="newer"):
        shelf.open()
    db = sqlite3.connect(shelf.path)
    assert db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone() == (FIRST,)
    db.close()


VERSION_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE devices (id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE reserves (device TEXT PRIMARY KEY, reserve_pct REAL NOT NULL, source TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (id TEXT PRIMARY KEY, revision INTEGER NOT NULL, end_ms INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE controlled (device TEXT PRIMARY KEY, event TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE audit (id INTEGER PRIMARY KEY, utc_ms INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL);
INSERT INTO meta VALUES ('epoch', 7), ('stopped', 1);
INSERT INTO devices VALUES ('a', '{"id":"a","profile":"reference-mqtt","site":"site-a","feeder":"f1",
"tags":["north","pilot"],"capacity_wh":10000.0,"discharge_w_max":5000.0,"charge_w_max":4000.0,"inverter_w_max":null,
"reserve_pct":20.0,"export_allowed":true,"grid_charge_allowed":false,"site_import_w_max":null,
"site_export_w_max":"unlimited"}');
INSERT INTO reserves VALUES ('a', 35.0, 'owner');
INSERT INTO controlled VALUES ('a', 'e1');
PRAGMA application_id = 1650878257;
PRAGMA user_version = 1;
"""


async def test_journal_of_version_1_is_brought_forward_with_all_it_holds(shelf: Shelf) -> None:
    db = sqlite3.connect(shelf.path)
    db.executescript(VERSION_1)
    db.close()
    journal, state = shelf.open()
    assert state == JournalState(
        epoch=8, devices=(device("a", reserve_pct=35.0),), events=(), controlled={DeviceId("a"): EventId("e1")},
        stopped=True, prior={},
    )  # fmt: skip
    await journal.commit([PriorSaved(device=DeviceId("a"), settings=SETTINGS)])
    await journal.commit([DeviceRegistered(device=device("a", connection=POLLED))])
    _, state = shelf.open()
    assert (state.epoch, state.prior) == (9, {DeviceId("a"): SETTINGS})
    assert state.devices == (device("a", connection=POLLED, reserve_pct=35.0),)
    db = sqlite3.connect(shelf.path)
    assert db.execute("PRAGMA user_version").fetchone() == (3,)
    db.close()


VERSION_2 = (
    VERSION_1.replace("user_version = 1", "user_version = 2")
    + """
CREATE TABLE prior (device TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO events VALUES ('e1', 3, 1900000000000, '{"request":{"id":"e1","revision":3,"kind":"real",
"program":"p","group":{"all":true,"ids":[],"tags":[]},"start_ms":1899999000000,"end_ms":1900000000000,
"target_w":null,"priority":5,"cancelled":false,"charge_when_max":true,"source":"rest"},
"answer":{"id":"e1","revision":3,"outcome":"accepted","reason":null,"decided_ms":1899998000000}}');
"""
)


def test_journal_of_version_2_is_brought_forward_with_its_events(shelf: Shelf) -> None:
    db = sqlite3.connect(shelf.path)
    db.executescript(VERSION_2)
    db.close()
    _, state = shelf.open()
    (event,) = state.events
    assert event.request.target == power(None, charge=True)
    assert (event.request.legs, event.request.voluntary, event.request.reserve_pct) == ((), True, 0.0)
    assert (state.states, state.exclusions, state.quarantined) == ({}, (), {})
    assert not state.devices[0].fuse_protected


STORM = Exclusion(
    id="h1", reason="opt_out", group=TargetGroup(ids=(DeviceId("a"),)), from_ms=5, until_ms=None, event=EventId("e1"),
    by="owner",
)  # fmt: skip


def delivered(clock: ManualClock, name: str, occurrence_ms: int) -> EventDelivered:
    watt = np.array([1.0, 2.0], dtype=np.float32) * occurrence_ms
    return EventDelivered(
        event=EventId(name), occurrence_ms=occurrence_ms, ended_ms=clock.utc, devices=(DeviceId("a"), DeviceId("b")),
        columns={"watt": watt, "status": np.zeros(2, dtype=np.int8)},
    )  # fmt: skip


async def test_journal_damaged_delivery_records_are_refused_not_guessed_at(shelf: Shelf) -> None:
    journal, _ = shelf.open()
    await journal.commit([delivered(shelf.clock, "e1", 1)])
    journal.close()
    db = sqlite3.connect(shelf.path)
    db.execute("UPDATE deliveries SET body = x'0011'")
    db.commit()
    db.close()
    shelf.open()
    with pytest.raises(CorruptState, match="delivery records"):
        await shelf.store.records(EventId("e1"), None, slice(None))
    with pytest.raises(CorruptState, match="delivery records"):
        await shelf.store.occurrences(EventId("e1"), None, 10)


async def test_journal_remembers_states_holds_quarantine_and_deliveries(place: Reopened) -> None:
    journal, _ = place.open()
    await journal.commit([
        event(place.clock, revision=1), EventMoved(event=EventId("e1"), revision=1, state=EventState.ACTIVE),
        ExclusionSet(exclusion=STORM), ExclusionSet(exclusion=replace(STORM, id="h2")), ExclusionLifted(id="h2"),
        Quarantined(names=("a", "b", "product:p"), reason="wrong_sign", since_ms=5),
        Quarantined(names=("a",), reason="again", since_ms=7), Quarantined(names=("b",), reason="again"),
        Trusted(names=("product:p",)),
        delivered(place.clock, "e1", 2), delivered(place.clock, "e1", 1), delivered(place.clock, "e2", 1),
    ])  # fmt: skip
    _, state = place.open()
    assert state.states == {EventId("e1"): (1, EventState.ACTIVE)}
    assert state.exclusions == (STORM,)
    assert state.quarantined == {"a": "again", "b": "again"}
    assert state.quarantined_since_ms == {"a": 7}
    assert state.delivered == {(EventId("e1"), 1), (EventId("e1"), 2), (EventId("e2"), 1)}


async def test_journal_events_of_two_sources_under_one_id_stay_two(shelf: Shelf) -> None:
    journal, _ = shelf.open()
    ours, theirs = event(shelf.clock, revision=1), event(shelf.clock, name="mqtt~e1")
    theirs = replace(theirs, request=replace(theirs.request, source="mqtt"))
    await journal.commit([ours, theirs, EventMoved(event=EventId("mqtt~e1"), revision=0, state=EventState.ACTIVE)])
    _, state = shelf.open()
    assert state.events == (ours, theirs)
    assert state.states == {EventId("mqtt~e1"): (0, EventState.ACTIVE)}


async def test_journal_ends_of_occurrences_are_read_back_and_none_where_none_were_stored(place: Reopened) -> None:
    journal, _ = place.open()
    known, other = event(place.clock), event(place.clock, name="e2")
    starts_ms, ends_ms = (known.request.start_ms, known.request.start_ms + 10_000), (5, 7)
    await journal.commit([replace(known, request=replace(known.request, starts_ms=starts_ms, ends_ms=ends_ms)), other])
    _, state = place.open()
    assert [(e.request.starts_ms, e.request.ends_ms) for e in state.events] == [(starts_ms, ends_ms), ((), ())]


async def test_journal_event_that_takes_batteries_from_a_backup_mode_is_one_that_the_last_release_can_read(
    place: Reopened,
) -> None:
    journal, _ = place.open()
    taking, other = event(place.clock), event(place.clock, name="e2")
    taking = replace(taking, request=replace(taking.request, takes_backup=True))
    await journal.commit([taking, other])
    _, state = place.open()
    assert [e.request.takes_backup for e in state.events] == [True, False]
    assert "takes_backup" not in event_body(taking)["request"]


async def test_journal_event_with_a_power_of_each_device_and_labels_is_the_same_after_a_restart(shelf: Shelf) -> None:
    journal, _ = shelf.open()
    one, other = power_of_each([1_000.5, 2_000.0]), power_of_each([3_000.0, 4_000.0])
    legs = tuple(
        Leg(after_ms=at, until_ms=at + 1000, target=t) for at, t in ((0, one), (1000, power(5.0)), (2000, other))
    )
    decided = event(shelf.clock)
    named = TargetGroup(ids=(DeviceId("a"), DeviceId("b")))
    first = replace(
        decided, request=replace(decided.request, target=one, legs=legs, group=named, labels=("day-ahead",))
    )
    flat = event(shelf.clock, name="flat")
    second = replace(flat, request=replace(flat.request, target=other, group=named))
    await journal.commit([first, second])
    _, state = shelf.open()
    assert [one.request for one in state.events] == [first.request, second.request]
    # the last release passes over what it does not know, and takes the mean for each
    stored = event_body(first)
    assert "each_w" not in json.dumps(stored["request"])
    assert stored["request"]["target"]["power_w"] == 1_500.25


async def test_journal_cancellation_of_a_release_that_did_not_scope_events_has_no_source(shelf: Shelf) -> None:
    journal, _ = shelf.open()
    await journal.commit([event(shelf.clock), event(shelf.clock, name="e2", cancelled=True)])
    known = event(shelf.clock, name="e3")
    await journal.commit([replace(known, request=replace(known.request, source="mqtt"))])
    journal.close()
    db = sqlite3.connect(shelf.path)
    # the release before wrote no such column, and an operator's cancellation of any event as its own
    db.execute("UPDATE events SET source = NULL WHERE id IN ('e1', 'e2')")
    db.execute("UPDATE events SET revision = 1, body = json_set(body, '$.request.cancelled', json('true'), "
               "'$.request.source', 'rest', '$.request.revision', 1) WHERE id = 'e3'")  # fmt: skip
    db.commit()
    db.close()
    _, state = shelf.open()
    assert [(e.request.id, e.request.source, e.request.cancelled) for e in state.events] == [
        ("e1", "rest", False), ("e2", "", True), ("e3", "mqtt", True),
    ]  # fmt: skip


async def test_journal_state_of_an_older_revision_is_not_that_of_the_newest(shelf: Shelf) -> None:
    journal, _ = shelf.open()
    moved = EventMoved(event=EventId("e1"), revision=1, state=EventState.ACTIVE)
    await journal.commit([event(shelf.clock, revision=1), moved])
    await journal.commit([event(shelf.clock, revision=2)])
    await journal.commit([replace(moved, state=EventState.COMPLETED)])
    _, state = shelf.open()
    assert state.states == {}


def test_journal_knows_what_to_write_and_to_audit_for_every_change() -> None:
    assert set(get_args(Change)) == set(WRITE) == AUDITED


def test_journal_of_version_1_that_cannot_be_brought_forward_stays_as_it_was(shelf: Shelf) -> None:
    db = sqlite3.connect(shelf.path)
    db.executescript(VERSION_1 + "CREATE TABLE prior (of_another_kind);")
    db.close()
    with pytest.raises(StorageError):
        shelf.open()
    db = sqlite3.connect(shelf.path)
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    db.close()


@pytest.mark.parametrize(
    ("table", "body"),
    [("devices", '{"id":"a"}'), ("devices", "[]"), ("prior", "7"), ("prior", "{"), ("prior", '["x"]')],
)
async def test_journal_body_that_is_none_is_refused_not_guessed_at(shelf: Shelf, table: str, body: str) -> None:
    shelf.open()[0].close()
    db = sqlite3.connect(shelf.path)
    db.execute(f"INSERT INTO {table} VALUES ('a', ?)", (body,))  # noqa: S608 names of this test
    db.commit()
    db.close()
    with pytest.raises(CorruptState):
        shelf.open()


@pytest.mark.parametrize("content", [b"not a database at all" * 400, b"\x00" * 8192])
def test_journal_damaged_file_is_refused_not_guessed_at(shelf: Shelf, content: bytes) -> None:
    shelf.path.write_bytes(content)
    with pytest.raises(CorruptState):
        shelf.open()


def test_journal_where_it_cannot_be_made_says_storage_error(shelf: Shelf) -> None:
    shelf.path = shelf.path.parent / "absent" / "journal.sqlite"
    with pytest.raises(StorageError):
        shelf.open()

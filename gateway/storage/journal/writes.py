"""Writes each kind of change to the journal's tables.

Changes of one kind in a row are one statement however many devices they name: rows go in as one JSON array.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.domain.events.book import Outcome
from gateway.domain.events.lifecycle import EventState
from gateway.domain.fleet.device import Device
from gateway.domain.journal.changes import (
    CaseChanged,
    Change,
    ControlEnded,
    ControlTaken,
    DepartureAsked,
    DepartureOver,
    DeviceRegistered,
    DeviceRemoved,
    EpochRaised,
    EventDecided,
    EventDelivered,
    EventMoved,
    EventsArchived,
    EventWithdrawn,
    ExclusionLifted,
    ExclusionSet,
    FactsChanged,
    OutboxChanged,
    PriorRestored,
    PriorSaved,
    Quarantined,
    RawDiscarded,
    ReserveChanged,
    StopAll,
    TakeBackOver,
    TakenBack,
    Trusted,
    WithdrawalLifted,
)
from gateway.domain.registry.connection import ConnectionEnd
from gateway.storage.journal import past_events
from gateway.storage.journal.bodies import device_body, event_body, exclusion_body, placed_body, settings_body
from gateway.storage.journal.delivery_rows import pack
from gateway.storage.registry import connections, placements

TOMBSTONE_MS = 15 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """When a commit is written, and its delivery records as they are stored, by the number of their change."""

    now_ms: int
    packed: Mapping[int, bytes]


def packed(changes: Iterable[Change]) -> dict[int, bytes]:
    """Delivery records as they are stored, which takes long for many: call it before the transaction."""
    return {c.seq: pack(c.devices, c.columns) for c in changes if isinstance(c, EventDelivered)}


def json_text(value: object) -> str:
    return orjson.dumps(value).decode()


def _registered(db: sqlite3.Connection, changes: list[DeviceRegistered], at: At) -> None:
    rows = json_text([[c.device.id, device_body(c.device), c.seq, placed_body(c.device)] for c in changes])
    db.execute(
        "INSERT INTO devices SELECT value ->> '$[0]', value -> '$[1]' FROM json_each(?) WHERE true "
        "ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        (rows,),
    )
    # A registration states the reserve anew. It never lowers one: a higher one was chosen after that import was made.
    db.execute(
        "INSERT INTO sequences SELECT 'reserve', value ->> '$[0]', value ->> '$[2]' FROM json_each(?) "
        "LEFT JOIN reserves AS chosen ON chosen.device = value ->> '$[0]' "
        "WHERE value ->> '$[1].reserve_pct' >= coalesce(chosen.reserve_pct, 0) "
        "ON CONFLICT (space, name) DO UPDATE SET seq = excluded.seq WHERE excluded.seq > sequences.seq",
        (rows,),
    )
    db.execute(
        "DELETE FROM reserves WHERE device IN (SELECT name FROM json_each(?) CROSS JOIN sequences "
        "ON space = 'reserve' AND name = value ->> '$[0]' AND seq = value ->> '$[2]')",
        (rows,),
    )
    connections.registered(db, rows, at.now_ms)
    placements.registered(db, rows, at.now_ms)


def _removed(db: sqlite3.Connection, changes: list[DeviceRemoved], at: At) -> None:
    rows = json_text([change.device for change in changes])
    db.execute("DELETE FROM devices WHERE id IN (SELECT value FROM json_each(?))", (rows,))
    db.execute("DELETE FROM reserves WHERE device IN (SELECT value FROM json_each(?))", (rows,))
    connections.closed(db, rows, at.now_ms, ConnectionEnd.REMOVED)
    placements.closed(db, rows, at.now_ms)


def _whole(device: Device) -> dict[str, Any]:
    return device_body(device) | placed_body(device)


def _departure_asked(db: sqlite3.Connection, changes: list[DepartureAsked], at: At) -> None:
    rows = [[c.device, at.now_ms, c.by, c.door.value, None if c.wanted is None else _whole(c.wanted)] for c in changes]
    db.execute(
        "INSERT OR REPLACE INTO departures SELECT value ->> '$[0]', value ->> '$[1]', value ->> '$[2]', "
        "value ->> '$[3]', value ->> '$[4]' FROM json_each(?)",
        (json_text(rows),),
    )


def _departure_over(db: sqlite3.Connection, changes: list[DepartureOver], at: At) -> None:
    for change in changes:
        rows = json_text(change.devices)
        db.execute("DELETE FROM departures WHERE device IN (SELECT value FROM json_each(?))", (rows,))
        if change.reason == ConnectionEnd.ABANDONED:
            connections.closed(db, rows, at.now_ms, ConnectionEnd.ABANDONED)
            for table in ("controlled", "prior"):
                db.execute(f"DELETE FROM {table} WHERE device IN (SELECT value FROM json_each(?))", (rows,))  # noqa: S608


def _decided(db: sqlite3.Connection, changes: list[EventDecided], at: At) -> None:
    newest = {c.request.id: c for c in changes if c.answer.outcome is Outcome.ACCEPTED}
    # Nobody checks the times of a cancellation: its tombstone stays for a while from now.
    rows = [
        [
            c.request.id,
            c.request.revision,
            min(max(c.request.end_ms, at.now_ms), at.now_ms + TOMBSTONE_MS)
            if c.request.cancelled
            else c.request.end_ms,
            event_body(c),
            c.request.source,
            EventState.CANCELLED.value if c.request.cancelled else None,
        ]
        for c in newest.values()
    ]
    db.execute(
        "INSERT INTO events (id, revision, end_ms, body, source, state) SELECT value ->> '$[0]', value ->> '$[1]', "
        "value ->> '$[2]', value -> '$[3]', value ->> '$[4]', value ->> '$[5]' FROM json_each(?) WHERE true "
        "ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, end_ms = excluded.end_ms, body = excluded.body, "
        "state = excluded.state, source = excluded.source WHERE excluded.revision > events.revision "
        "OR excluded.revision = events.revision "
        "AND excluded.body ->> '$.request.cancelled' > events.body ->> '$.request.cancelled'",
        (json_text(rows),),
    )
    past_events.remove(db, [c.request.id for c in newest.values()])


def _taken(db: sqlite3.Connection, changes: list[ControlTaken], _at: At) -> None:
    for change in changes:
        db.execute(
            "INSERT INTO controlled SELECT value, ? FROM json_each(?) WHERE true "
            "ON CONFLICT (device) DO UPDATE SET event = excluded.event",
            (change.event, json_text(change.devices)),
        )


def _ended(db: sqlite3.Connection, changes: list[ControlEnded], _at: At) -> None:
    for change in changes:
        db.execute(
            "DELETE FROM controlled WHERE device IN (SELECT value FROM json_each(?))", (json_text(change.devices),)
        )


def _reserves(db: sqlite3.Connection, changes: list[ReserveChanged], _at: At) -> None:
    for change in changes:
        db.execute(
            "INSERT INTO reserves SELECT value ->> '$[0]', value ->> '$[1]', ? FROM json_each(?) WHERE true "
            "ON CONFLICT (device) DO UPDATE SET reserve_pct = excluded.reserve_pct, source = excluded.source",
            (change.source, json_text(list(zip(change.devices, change.reserve_pct, strict=True)))),
        )


def _prior_saved(db: sqlite3.Connection, changes: list[PriorSaved], _at: At) -> None:
    db.execute(
        "INSERT INTO prior SELECT value ->> '$[0]', value -> '$[1]' FROM json_each(?) WHERE true "
        "ON CONFLICT (device) DO UPDATE SET body = excluded.body",
        (json_text([[change.device, settings_body(change.settings)] for change in changes]),),
    )


def _prior_restored(db: sqlite3.Connection, changes: list[PriorRestored], _at: At) -> None:
    rows = json_text([change.device for change in changes])
    db.execute("DELETE FROM prior WHERE device IN (SELECT value FROM json_each(?))", (rows,))


def _stopped(db: sqlite3.Connection, changes: list[StopAll], _at: At) -> None:
    db.execute("UPDATE meta SET value = ? WHERE key = 'stopped'", (int(changes[-1].active),))


def _epoch_raised(db: sqlite3.Connection, changes: list[EpochRaised], _at: At) -> None:
    db.execute("UPDATE meta SET value = max(value, ?) WHERE key = 'epoch'", (changes[-1].epoch,))


def _moved(db: sqlite3.Connection, changes: list[EventMoved], _at: At) -> None:
    # a revision that was cancelled stays so, whatever a tick before that still owes the journal
    rows = json_text([[c.state.value, c.event, c.revision] for c in changes])
    db.execute(
        "UPDATE events SET state = value ->> '$[0]' FROM json_each(?) "
        "WHERE events.id = value ->> '$[1]' AND events.revision = value ->> '$[2]' AND events.state IS NOT 'cancelled'",
        (rows,),
    )


def _withdrawn(db: sqlite3.Connection, changes: list[EventWithdrawn], _at: At) -> None:
    rows = json_text([[c.event, c.by] for c in changes])
    db.execute("INSERT OR REPLACE INTO withdrawn SELECT value ->> '$[0]', value ->> '$[1]' FROM json_each(?)", (rows,))
    # what release 0.1 knows of it
    db.execute("UPDATE events SET state = 'cancelled' WHERE id IN (SELECT value ->> '$[0]' FROM json_each(?))", (rows,))
    db.execute(
        "UPDATE past_events SET state = 'cancelled' WHERE id IN (SELECT value ->> '$[0]' FROM json_each(?))", (rows,)
    )


def _withdrawal_lifted(db: sqlite3.Connection, changes: list[WithdrawalLifted], _at: At) -> None:
    rows = json_text([change.event for change in changes])
    db.execute("DELETE FROM withdrawn WHERE event IN (SELECT value FROM json_each(?))", (rows,))


def _archived(db: sqlite3.Connection, changes: list[EventsArchived], at: At) -> None:
    past_events.archive(db, [event for change in changes for event in change.events], at.now_ms)


def _delivered(db: sqlite3.Connection, changes: list[EventDelivered], at: At) -> None:
    for change in changes:
        db.execute(
            "INSERT INTO deliveries VALUES (?, ?, ?, ?) ON CONFLICT (event, occurrence_ms) "
            "DO UPDATE SET ended_ms = excluded.ended_ms, body = excluded.body",
            (change.event, change.occurrence_ms, change.ended_ms, at.packed[change.seq]),
        )


def _exclusion_set(db: sqlite3.Connection, changes: list[ExclusionSet], _at: At) -> None:
    newest = {change.exclusion.id: change.exclusion for change in changes}
    for table, other, of_areas in (("holds", "areas", False), ("areas", "holds", True)):
        mine = [one for one in newest.values() if (one.area is not None) is of_areas]
        if not mine:
            continue
        rows = json_text([[one.id, exclusion_body(one)] for one in mine])
        db.execute(
            f"INSERT INTO {table} SELECT value ->> '$[0]', value -> '$[1]' FROM json_each(?) WHERE true "  # noqa: S608
            "ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            (rows,),
        )
        db.execute(f"DELETE FROM {other} WHERE id IN (SELECT value ->> '$[0]' FROM json_each(?))", (rows,))  # noqa: S608


def _exclusion_lifted(db: sqlite3.Connection, changes: list[ExclusionLifted], _at: At) -> None:
    rows = json_text([change.id for change in changes])
    for table in ("holds", "areas"):
        db.execute(f"DELETE FROM {table} WHERE id IN (SELECT value FROM json_each(?))", (rows,))  # noqa: S608


def _quarantined(db: sqlite3.Connection, changes: list[Quarantined], _at: At) -> None:
    for change in changes:
        names = json_text(change.names)
        if change.since_ms is None:
            db.execute("DELETE FROM quarantined_since WHERE name IN (SELECT value FROM json_each(?))", (names,))
        else:
            db.execute(
                "INSERT OR REPLACE INTO quarantined_since SELECT value, ? FROM json_each(?)", (change.since_ms, names)
            )
        db.execute(
            "INSERT INTO quarantined SELECT value, ? FROM json_each(?) WHERE true "
            "ON CONFLICT (name) DO UPDATE SET reason = excluded.reason",
            (change.reason, names),
        )


def _trusted(db: sqlite3.Connection, changes: list[Trusted], _at: At) -> None:
    for change in changes:
        rows = json_text(change.names)
        db.execute("DELETE FROM quarantined WHERE name IN (SELECT value FROM json_each(?))", (rows,))


def _taken_back(db: sqlite3.Connection, changes: list[TakenBack], _at: At) -> None:
    for change in changes:
        db.execute(
            "INSERT OR REPLACE INTO taken_back SELECT value, ?, ? FROM json_each(?)",
            (change.event, change.at_ms, json_text(change.devices)),
        )


def _take_back_over(db: sqlite3.Connection, changes: list[TakeBackOver], _at: At) -> None:
    for change in changes:
        db.execute(
            "DELETE FROM taken_back WHERE event = ? AND device IN (SELECT value FROM json_each(?))",
            (change.event, json_text(change.devices)),
        )


def _only_audited(_db: sqlite3.Connection, _changes: list[Any], _at: At) -> None:
    """Nothing but the audit trail says it."""


WRITE: dict[type, Any] = {
    TakenBack: _taken_back,
    TakeBackOver: _take_back_over,
    DeviceRegistered: _registered,
    DeviceRemoved: _removed,
    DepartureAsked: _departure_asked,
    DepartureOver: _departure_over,
    EventDecided: _decided,
    ControlTaken: _taken,
    ControlEnded: _ended,
    ReserveChanged: _reserves,
    StopAll: _stopped,
    EpochRaised: _epoch_raised,
    EventMoved: _moved,
    EventWithdrawn: _withdrawn,
    WithdrawalLifted: _withdrawal_lifted,
    EventsArchived: _archived,
    EventDelivered: _delivered,
    ExclusionSet: _exclusion_set,
    ExclusionLifted: _exclusion_lifted,
    Quarantined: _quarantined,
    Trusted: _trusted,
    FactsChanged: _only_audited,
    RawDiscarded: _only_audited,
    OutboxChanged: _only_audited,
    CaseChanged: _only_audited,
    PriorSaved: _prior_saved,
    PriorRestored: _prior_restored,
}

"""The number of the newest stored change of each thing, which tells what comes too late.

`sequences` (space, name, seq): one row per thing that was changed in this run, also where the change removed it. A
change that is not newer than that is not written. The next start begins with none: nobody owes the journal a change of
an earlier run any more.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

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

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS sequences (space TEXT NOT NULL, name TEXT NOT NULL, seq INTEGER NOT NULL, "
    "PRIMARY KEY (space, name)) WITHOUT ROWID",
)

THINGS: Mapping[type, tuple[str, Callable[[Any], Sequence[str]]]] = {
    DeviceRegistered: ("device", lambda c: (c.device.id,)),
    DeviceRemoved: ("device", lambda c: (c.device,)),
    DepartureAsked: ("departure", lambda c: (c.device,)),
    DepartureOver: ("departure", lambda c: c.devices),
    EventDecided: ("event", lambda c: (c.request.id,)),
    EventMoved: ("state", lambda c: (c.event,)),
    EventWithdrawn: ("withdrawn", lambda c: (c.event,)),
    WithdrawalLifted: ("withdrawn", lambda c: (c.event,)),
    EventsArchived: ("event", lambda c: c.events),
    EventDelivered: ("delivered", lambda c: (f"{c.occurrence_ms} {c.event}",)),
    ExclusionSet: ("exclusion", lambda c: (c.exclusion.id,)),
    ExclusionLifted: ("exclusion", lambda c: (c.id,)),
    Quarantined: ("quarantine", lambda c: c.names),
    Trusted: ("quarantine", lambda c: c.names),
    FactsChanged: ("facts", lambda c: (c.batch,)),
    RawDiscarded: ("raw", lambda c: c.names),
    OutboxChanged: ("outbox", lambda c: c.names),
    CaseChanged: ("cases", lambda c: c.names),
    TakenBack: ("taken back", lambda c: [f"{device} {c.event}" for device in c.devices]),
    TakeBackOver: ("taken back", lambda c: [f"{device} {c.event}" for device in c.devices]),
    ControlTaken: ("controlled", lambda c: c.devices),
    ControlEnded: ("controlled", lambda c: c.devices),
    ReserveChanged: ("reserve", lambda c: c.devices),
    StopAll: ("stop", lambda c: ("all",)),
    EpochRaised: ("epoch", lambda c: ("all",)),
    PriorSaved: ("prior", lambda c: (c.device,)),
    PriorRestored: ("prior", lambda c: (c.device,)),
}
"""What each kind of change is about: the space of its names, and the names. A registration states a reserve too, see
`writes`."""


def begin(db: sqlite3.Connection) -> None:
    """Call at a start: nobody has a change of an earlier run."""
    db.execute("DELETE FROM sequences")


def newest(db: sqlite3.Connection, changes: Sequence[Change]) -> list[Change]:
    """What of `changes`, all of one kind, is newer than what is stored of the same things; that is newest from now
    on. Of a change of several things those remain that it is the newest of."""
    space, names_of = THINGS[type(changes[0])]
    count = sum(len(names_of(change)) for change in changes)
    claimed = _claim_one(db, changes[0]) if len(changes) == 1 else _claim(db, space, _rows(changes))
    if claimed in (0, count):
        return list(changes) if claimed else []
    mine = set(
        db.execute(
            "SELECT name, seq FROM json_each(?) CROSS JOIN sequences ON space = ? AND name = value ->> '$[0]' "
            "AND seq = value ->> '$[1]'",
            (_rows(changes), space),
        )
    )
    left = (_only(change, [(name, change.seq) in mine for name in names_of(change)]) for change in changes)
    return [change for change in left if change is not None]


def _claim(db: sqlite3.Connection, space: str, rows: str) -> int:
    """Note the numbers that are newer than those that are stored; returns how many are."""
    return db.execute(
        "INSERT INTO sequences SELECT ?, value ->> '$[0]', value ->> '$[1]' FROM json_each(?) WHERE true "
        "ON CONFLICT (space, name) DO UPDATE SET seq = excluded.seq WHERE excluded.seq > sequences.seq",
        (space, rows),
    ).rowcount


def _claim_one(db: sqlite3.Connection, change: Change) -> int:
    """The same for one change, which may be of a whole fleet: half the work."""
    space, names_of = THINGS[type(change)]
    names = orjson.dumps(names_of(change)).decode()
    return db.execute(
        "INSERT INTO sequences SELECT ?, value, ? FROM json_each(?) WHERE true "
        "ON CONFLICT (space, name) DO UPDATE SET seq = excluded.seq WHERE excluded.seq > sequences.seq",
        (space, change.seq, names),
    ).rowcount


def _rows(changes: Sequence[Change]) -> str:
    """The name and the number of each thing, as JSON."""
    names_of = THINGS[type(changes[0])][1]
    return orjson.dumps([[name, change.seq] for change in changes for name in names_of(change)]).decode()


def _only(change: Any, keep: list[bool]) -> Any:
    """The change of those of its things that are kept; None if it has none left."""
    if all(keep):
        return change
    if not any(keep):
        return None

    def kept(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(value for value, stays in zip(values, keep, strict=True) if stays)

    columns = ("devices", "reserve_pct", "names", "events")
    return replace(change, **{name: kept(getattr(change, name)) for name in columns if hasattr(change, name)})

"""What stood in the journal before a change, for the audit trail: of exclusions, reserves, stops, quarantine and, where
few change at once, devices."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from gateway.domain.journal.changes import (
    Change,
    DeviceRegistered,
    DeviceRemoved,
    ExclusionLifted,
    ExclusionSet,
    Quarantined,
    ReserveChanged,
    StopAll,
    Trusted,
)

FEW = 20
"""Changes of devices together of which the former columns are noted."""


def before(db: sqlite3.Connection, changes: Sequence[Change]) -> dict[str, Any]:
    """By the name of what changes what it was, within the transaction and before it; of changes of one kind."""
    ask = _ASKED.get(type(changes[0]))
    if ask is None:
        return {}
    names, query, read = ask
    wanted = [name for change in changes for name in names(change)]
    if query is _DEVICES and len(wanted) > FEW:
        return {}
    found = db.execute(query, (orjson.dumps(wanted[: FEW * len(changes)]).decode(),))
    return {name: read(value) for name, value in found}


def changed(former: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What is different now, by column: what it was and what it is."""
    return {name: [former.get(name), value] for name, value in body.items() if former.get(name) != value}


_DEVICES = "SELECT id, body FROM devices WHERE id IN (SELECT value FROM json_each(?))"
_EXCLUSIONS = (
    "SELECT id, body FROM (SELECT id, body FROM holds UNION ALL SELECT id, body FROM areas) "
    "WHERE id IN (SELECT value FROM json_each(?))"
)
_RESERVES = (
    "SELECT id, coalesce((SELECT reserve_pct FROM reserves WHERE device = id), body ->> '$.reserve_pct') FROM devices "
    "WHERE id IN (SELECT value FROM json_each(?))"
)
_QUARANTINED = "SELECT name, reason FROM quarantined WHERE name IN (SELECT value FROM json_each(?))"
_STOPPED = "SELECT key, value FROM meta WHERE key IN (SELECT value FROM json_each(?))"


def _plain(value: Any) -> Any:
    return value


_Asked = tuple[Callable[[Any], Sequence[str]], str, Callable[[Any], Any]]
_ASKED: dict[type, _Asked] = {
    DeviceRegistered: (lambda change: (change.device.id,), _DEVICES, orjson.loads),
    DeviceRemoved: (lambda change: (change.device,), _DEVICES, orjson.loads),
    ExclusionSet: (lambda change: (change.exclusion.id,), _EXCLUSIONS, orjson.loads),
    ExclusionLifted: (lambda change: (change.id,), _EXCLUSIONS, orjson.loads),
    ReserveChanged: (lambda change: change.devices[:FEW], _RESERVES, _plain),
    Quarantined: (lambda change: change.names[:FEW], _QUARANTINED, _plain),
    Trusted: (lambda change: change.names[:FEW], _QUARANTINED, _plain),
    StopAll: (lambda _: ("stopped",), _STOPPED, bool),
}

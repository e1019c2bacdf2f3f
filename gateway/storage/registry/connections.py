"""The connections of devices over time.

`connections` (device, from_ms, until_ms, profile, place, ended): `place` is a JSON array of address, unit ids and
parameters; `from_ms` NULL: since before connections were noted. A device has one row without `until_ms` at most.
"""

import sqlite3
from typing import Any

import orjson

from gateway.domain.registry.connection import Connection, ConnectionEnd
from gateway.domain.registry.validity import Validity
from gateway.domain.types import DeviceId

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS connections (id INTEGER PRIMARY KEY, device TEXT NOT NULL, from_ms INTEGER, "
    "until_ms INTEGER, profile TEXT NOT NULL, place TEXT NOT NULL, ended TEXT)",
    "CREATE INDEX IF NOT EXISTS connections_device ON connections (device, until_ms)",
)
KEPT_MS = 35 * 24 * 3600 * 1000
"""For so long a device that was removed keeps what it had of open intervals and sequence numbers."""

_PROFILE = "{0} ->> '$.profile'"
_PLACE = (
    "json_array(coalesce({0} ->> '$.connection.url', ''), json(coalesce({0} -> '$.connection.units', '{{}}')), "
    "json(coalesce({0} -> '$.connection.parameters', '{{}}')))"
)


def begin(db: sqlite3.Connection) -> None:
    """Call at a start: a device that was registered before connections were noted has one since nobody knows when."""
    db.execute(
        f"INSERT INTO connections (device, profile, place) SELECT id, {_PROFILE.format('body')}, "  # noqa: S608
        f"{_PLACE.format('body')} FROM devices WHERE NOT EXISTS (SELECT 1 FROM connections WHERE device = devices.id)"
    )


def registered(db: sqlite3.Connection, rows: str, now_ms: int) -> None:
    """Devices are registered like that from now on: `rows` is a JSON array of [id, body, ...]. Closes connections that
    are different now, and opens those that there are not yet."""
    body = "value -> '$[1]'"
    profile, place = _PROFILE.format(f"({body})"), _PLACE.format(f"({body})")
    db.execute(
        "UPDATE connections SET until_ms = max(?, coalesce(from_ms, ?)), ended = ? FROM json_each(?) "  # noqa: S608
        "WHERE device = value ->> '$[0]' AND until_ms IS NULL "
        f"AND (profile IS NOT {profile} OR place IS NOT {place})",
        (now_ms, now_ms, ConnectionEnd.MOVED.value, rows),
    )
    # the newest row of a device counts
    db.execute(
        # nothing begins before the last has ended, also where the clock was set back in between
        "INSERT INTO connections (device, from_ms, profile, place) SELECT device, max(?, "  # noqa: S608
        "coalesce((SELECT max(until_ms) FROM connections WHERE device = wanted.device), 0)), profile, place FROM "
        f"(SELECT value ->> '$[0]' AS device, {profile} AS profile, {place} AS place, max(key) FROM json_each(?) "
        "GROUP BY 1) AS wanted WHERE NOT EXISTS "
        "(SELECT 1 FROM connections WHERE device = wanted.device AND until_ms IS NULL)",
        (now_ms, rows),
    )


def closed(db: sqlite3.Connection, devices: str, now_ms: int, how: ConnectionEnd) -> None:
    """The open connections of these devices (a JSON array) end now."""
    db.execute(
        "UPDATE connections SET until_ms = max(?, coalesce(from_ms, ?)), ended = ? "
        "WHERE until_ms IS NULL AND device IN (SELECT value FROM json_each(?))",
        (now_ms, now_ms, how.value, devices),
    )


def removed_since(db: sqlite3.Connection, from_ms: int) -> list[DeviceId]:
    """Devices that were removed since then and are not back."""
    found = db.execute(
        "SELECT DISTINCT device FROM connections WHERE until_ms >= ? AND device NOT IN (SELECT id FROM devices) "
        "ORDER BY device",
        (from_ms,),
    )
    return [DeviceId(device) for (device,) in found]


def of_device(db: sqlite3.Connection, device: str) -> list[Connection]:
    """The connections of a device, oldest first."""
    found = db.execute(f"SELECT {_COLUMNS} FROM connections WHERE device = ? ORDER BY id", (device,))  # noqa: S608
    return [_read(row) for row in found]


def replaced(db: sqlite3.Connection) -> dict[DeviceId, int]:
    """Since when (UTC ms) another battery answers as the devices that moved to where they are."""
    found = db.execute(
        f"SELECT {_COLUMNS} FROM connections AS now WHERE from_ms IS NOT NULL AND until_ms IS NULL AND EXISTS "  # noqa: S608
        "(SELECT 1 FROM connections WHERE device = now.device AND until_ms = now.from_ms AND ended = ?)",
        (ConnectionEnd.MOVED.value,),
    )
    out = {}
    for row in found.fetchall():
        now = _read(row)
        before = of_device(db, now.device)[-2:][0]
        if before.another_battery(now) and now.valid.from_ms is not None:
            out[now.device] = now.valid.from_ms
    return out


_COLUMNS = "device, from_ms, until_ms, profile, place, ended"


def _read(row: Any) -> Connection:
    device, from_ms, until_ms, profile, place, ended = row
    url, units, parameters = orjson.loads(place)
    return Connection(
        device=DeviceId(device), profile=profile, valid=Validity(from_ms=from_ms, until_ms=until_ms),
        url=url, units=units, parameters=parameters, ended=None if ended is None else ConnectionEnd(ended),
    )  # fmt: skip

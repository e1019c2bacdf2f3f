"""The placements of devices over time: the meters that devices are behind, and where their homes are.

`placements` (device, from_ms, until_ms, site, meter, postcode, county, utility): `from_ms` NULL: since before
placements were noted. A device has one row without `until_ms` at most. All but its site stands here alone: release 0.1
would not start with it in `devices`.
"""

import sqlite3

from gateway.domain.registry.placement import Placement
from gateway.domain.registry.validity import Validity
from gateway.domain.types import DeviceId

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS placements (id INTEGER PRIMARY KEY, device TEXT NOT NULL, from_ms INTEGER, "
    "until_ms INTEGER, site TEXT NOT NULL, meter TEXT NOT NULL, postcode TEXT NOT NULL DEFAULT '', "
    "county TEXT NOT NULL DEFAULT '', utility TEXT NOT NULL DEFAULT '')",
    "CREATE INDEX IF NOT EXISTS placements_device ON placements (device, until_ms)",
)
_NEW = ("postcode", "county", "utility")
ADDED = {
    ("placements", name): f"ALTER TABLE placements ADD COLUMN {name} TEXT NOT NULL DEFAULT ''"  # of files before
    for name in _NEW
}

_WHERE = ("meter", *_NEW)
_PLACED = {"site": "value ->> '$[1].site'"} | {name: f"value ->> '$[3].{name}'" for name in _WHERE}
_COLUMNS = ", ".join(_PLACED)


def begin(db: sqlite3.Connection) -> None:
    """Call at a start: a device that was registered before placements were noted, or by a release that does not note
    them, has one since nobody knows when, or since its last one ended."""
    db.execute(
        "INSERT INTO placements (device, from_ms, site, meter) SELECT id, "
        "(SELECT max(until_ms) FROM placements WHERE device = devices.id), body ->> '$.site', '' FROM devices "
        "WHERE NOT EXISTS (SELECT 1 FROM placements WHERE device = devices.id AND until_ms IS NULL)"
    )


def registered(db: sqlite3.Connection, rows: str, now_ms: int) -> None:
    """Devices are registered like that from now on: `rows` is a JSON array of [id, body, number, where], an object with
    the other columns. Closes placements that are different now, and opens those that there are not yet."""
    different = " OR ".join(f"{name} IS NOT {value}" for name, value in _PLACED.items())
    wanted = ", ".join(f"{value} AS {name}" for name, value in _PLACED.items())
    db.execute(
        "UPDATE placements SET until_ms = max(?, coalesce(from_ms, ?)) FROM json_each(?) "  # noqa: S608
        f"WHERE device = value ->> '$[0]' AND until_ms IS NULL AND ({different})",
        (now_ms, now_ms, rows),
    )
    # the newest row of a device counts
    db.execute(
        # nothing begins before the last has ended, also where the clock was set back in between
        f"INSERT INTO placements (device, from_ms, {_COLUMNS}) SELECT device, "  # noqa: S608
        f"max(?, coalesce((SELECT max(until_ms) FROM placements WHERE device = wanted.device), 0)), {_COLUMNS} FROM "
        f"(SELECT value ->> '$[0]' AS device, {wanted}, max(key) FROM json_each(?) "
        "GROUP BY 1) AS wanted WHERE NOT EXISTS "
        "(SELECT 1 FROM placements WHERE device = wanted.device AND until_ms IS NULL)",
        (now_ms, rows),
    )


def closed(db: sqlite3.Connection, devices: str, now_ms: int) -> None:
    """The open placements of these devices (a JSON array) end now."""
    db.execute(
        "UPDATE placements SET until_ms = max(?, coalesce(from_ms, ?)) "
        "WHERE until_ms IS NULL AND device IN (SELECT value FROM json_each(?))",
        (now_ms, now_ms, devices),
    )


def of_device(db: sqlite3.Connection, device: str) -> list[Placement]:
    """The placements of a device, oldest first."""
    found = db.execute(
        f"SELECT from_ms, until_ms, {_COLUMNS} FROM placements WHERE device = ? ORDER BY id",  # noqa: S608
        (device,),
    )
    return [
        Placement(
            device=DeviceId(device), valid=Validity(from_ms=from_ms, until_ms=until_ms),
            **dict(zip(_PLACED, where, strict=True)),
        )
        for from_ms, until_ms, *where in found
    ]  # fmt: skip


def within(db: sqlite3.Connection, from_ms: int, until_ms: int) -> list[Placement]:
    """The placements of all devices that are valid at some time from an instant until another one."""
    found = db.execute(
        f"SELECT device, from_ms, until_ms, {_COLUMNS} FROM placements "  # noqa: S608
        "WHERE (from_ms IS NULL OR from_ms < ?) AND (until_ms IS NULL OR until_ms > ?) ORDER BY id",
        (until_ms, from_ms),
    )
    return [
        Placement(
            device=DeviceId(device), valid=Validity(from_ms=begin, until_ms=end),
            **dict(zip(_PLACED, where, strict=True)),
        )
        for device, begin, end, *where in found
    ]  # fmt: skip

"""Queries intervals by device and time: the newest revision of each, from several log files at once.

Log files are in the order of commits; here the order is (start, device), and of several revisions the newest counts. A
late revision is in a later file than the record it corrects, so a query reads every file that may contain one and
merges the answers. A page ends where the next one goes on: at a `Place`, which stays valid while the log grows.
"""

import asyncio
import contextlib
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

from gateway.domain.errors import StorageError
from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.types import DeviceId
from gateway.storage.interval_log.files import is_damage
from gateway.storage.interval_log.pages import fetch
from gateway.storage.interval_log.positions import Cursor
from gateway.storage.interval_log.rows import COLUMNS, Row, record_of

log = logging.getLogger(__name__)

T = TypeVar("T")

NAMED_MAX = 64
"""Up to this many devices are looked up one by one; for more the query scans every row of the stretch."""

Place = tuple[int, str]
"""Start (UTC ms) and device of the last interval returned."""

_NAMES = ", ".join(f"i.{name} as {name}" for name in COLUMNS)
_AFTER = "(i.start_ms, i.device) > (:after_ms, :after_device)"
# Beside max() SQLite reads the other columns from the row that has the maximum.
_ALL = f"select i.id as id, {_NAMES}, max(i.revision) from interval i where {_AFTER} and i.start_ms < :to_ms"  # noqa: S608
_ONCE = "group by i.start_ms, i.device order by i.start_ms, i.device limit :most"
# The starts that occur, each found by one step in the index, and each device at each of them.
_NAMED = f"""
with recursive start(ms) as (
  select min(start_ms) from interval where start_ms >= :after_ms
  union all
  select (select min(start_ms) from interval where start_ms > ms) from start where ms < :to_ms)
select i.id as id, {_NAMES} from start cross join json_each(:devices) named cross join interval i
where ms < :to_ms and i.start_ms = ms and i.device = named.value and {_AFTER}
  and i.revision = (select max(revision) from interval where start_ms = ms and device = named.value) limit :most
"""  # noqa: S608 own constants

_FIND = f"""
select i.id as id, {_NAMES} from json_each(:keys) wanted cross join interval i
where i.start_ms = json_extract(wanted.value, '$[0]') and i.device = json_extract(wanted.value, '$[1]')
  and i.revision = (select max(revision) from interval where start_ms = i.start_ms and device = i.device)
"""  # noqa: S608 own constants


_STARTS = """
with recursive start(ms) as (
  select min(start_ms) from interval where start_ms >= :from_ms
  union all
  select (select min(start_ms) from interval where start_ms > ms) from start where ms < :to_ms)
select ms from start where ms < :to_ms
"""
_OF_SOME = f"""
select i.id as id, {_NAMES} from interval i where i.start_ms >= :from_ms and i.start_ms < :to_ms
  and i.device in (select value from json_each(:devices))
"""  # noqa: S608 own constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A record and where it is in the log."""

    record: IntervalRecord
    place: Cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """Some devices and a stretch of time: the `newest` records by device and start, and the starts (`heard`) at which
    the log has a record of any device."""

    newest: dict[DeviceId, dict[int, Found]]
    heard: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalSelection:
    """Intervals that begin within `[from_ms, to_ms)`, of `devices` (sorted) or of all."""

    from_ms: int
    to_ms: int
    devices: tuple[str, ...] | None = None


def page(
    connections: Iterable[sqlite3.Connection], wanted: IntervalSelection, after: Place | None, limit: int
) -> tuple[list[IntervalRecord], Place | None]:
    """The next `limit` intervals after a place (None = from the beginning), each at its newest revision, and the place
    to go on from (None = there are no more). Damaged records are left out."""
    newest: dict[Place, Row] = {}
    horizon: Place | None = None
    for connection in connections:
        select, values = _question(wanted, after, limit + 1)
        rows, bad = _fetch(connection, select, values)
        for row in rows:
            _keep_newest(newest, row)
        if len(rows) + len(bad) > limit:
            # this file may have more intervals after the last one read
            last = _last_place(rows or bad)
            horizon = last if horizon is None else min(horizon, last)
    places = sorted(place for place in newest if horizon is None or place <= horizon)
    if len(places) > limit:
        horizon = places[limit - 1]
    return [record_of(newest[place]) for place in places[:limit]], horizon


def _question(wanted: IntervalSelection, after: Place | None, most: int) -> tuple[str, dict[str, Any]]:
    """A statement for the newest revision that one file has of each interval."""
    after_ms, after_device = after or (wanted.from_ms, "")
    values = {"after_ms": after_ms, "after_device": after_device, "to_ms": wanted.to_ms, "most": most}
    if wanted.devices is None:
        return f"{_ALL} {_ONCE}", values
    values["devices"] = json.dumps(wanted.devices)
    if len(wanted.devices) <= NAMED_MAX:
        return _NAMED, values
    some = "and i.device in (select value from json_each(:devices))"
    return f"{_ALL} {some} {_ONCE}", values


def _fetch(connection: sqlite3.Connection, select: str, values: dict[str, Any]) -> tuple[list[Row], list[Row]]:
    rows, bad = fetch(connection, select, values)
    if bad:
        # an id and a time: what else a record says is a customer's
        found = {"rows": len(bad), "device": str(bad[0][1])[:64], "start_ms": bad[0][2]}
        log.error("interval query skipped damaged records", extra=found)
    return rows, bad


def _place(row: Row) -> Place:
    return row[2], row[1]


def _last_place(rows: Iterable[Row]) -> Place:
    keyed = _keyed(rows)
    if not keyed:
        raise StorageError("interval log: a page of records is damaged")
    return max(map(_place, keyed))


def _keyed(rows: Iterable[Row]) -> list[Row]:
    """Rows whose identity can still be read."""
    kinds = (str, int, int, int)
    return [row for row in rows if all(isinstance(value, kind) for value, kind in zip(row[1:5], kinds, strict=True))]


def _keep_newest(newest: dict[Place, Row], row: Row) -> None:
    known = newest.get(_place(row))
    if known is None or known[4] < row[4]:
        newest[_place(row)] = row


class _Lane:
    """A thread and connections of its own."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._open: dict[Path, sqlite3.Connection] = {}

    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def end(self) -> None:
        await self.run(lambda: self._close(()))
        self._pool.shutdown(wait=False)

    def connections(self, paths: Sequence[Path]) -> list[sqlite3.Connection]:
        self._close(keep=paths)
        return [self.connection(path) for path in paths]

    def connection(self, path: Path) -> sqlite3.Connection:
        found = self._open.get(path)
        if found is None:
            # `rw` never creates: a file that retention has just dropped must not come back empty
            address = f"file:{quote(str(path.absolute()))}?mode=rw"
            found = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
            self._open[path] = found
            found.execute("pragma query_only = on")
        return found

    def _close(self, keep: Sequence[Path]) -> None:
        for path in [path for path in self._open if path not in keep]:
            with contextlib.suppress(sqlite3.Error):
                self._open.pop(path).close()


class IntervalQueries:
    """Queries a log from threads and connections of its own, so that queries neither wait for commits nor delay them,
    and what late repairs look up does not wait for what somebody asks. `files`: those that may contain intervals from a
    time (UTC ms) on; `on_damage` is called when one is damaged. Use as an async context manager."""

    def __init__(self, files: Callable[[int], Sequence[Path]], on_damage: Callable[[], Awaitable[None]]) -> None:
        self._files = files
        self._on_damage = on_damage
        self._asked = _Lane("interval-query")
        self._repairs = _Lane("interval-find")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._asked.end()
        await self._repairs.end()

    async def page(
        self, wanted: IntervalSelection, after: Place | None, limit: int
    ) -> tuple[list[IntervalRecord], Place | None]:
        """See `page`. Raises StorageError if a file cannot be read: it never returns some intervals as if all."""

        lane = self._asked
        return await self._run(lane, lambda: page(lane.connections(self._files(wanted.from_ms)), wanted, after, limit))

    async def find(self, places: Sequence[Place]) -> tuple[list[IntervalRecord], list[Place]]:
        """The newest records of these intervals, by start and device, and the intervals whose newest record is damaged.
        Skips intervals without a record. Raises StorageError."""
        if not places:
            return [], []

        def work() -> tuple[list[IntervalRecord], list[Place]]:
            newest: dict[Place, Row] = {}
            damaged: dict[Place, Row] = {}
            for connection in self._repairs.connections(self._files(min(places)[0])):
                rows, bad = _fetch(connection, _FIND, {"keys": json.dumps(places)})
                for found, into in ((rows, newest), (_keyed(bad), damaged)):
                    for row in found:
                        _keep_newest(into, row)
            lost = {place for place, row in damaged.items() if place not in newest or newest[place][4] < row[4]}
            return [record_of(newest[place]) for place in sorted(newest.keys() - lost)], sorted(lost)

        return await self._run(self._repairs, work)

    async def day(self, from_ms: int, to_ms: int, devices: Sequence[DeviceId]) -> Day:
        """The intervals that begin within `[from_ms, to_ms)`, without damaged records. Raises StorageError."""

        def work() -> Day:
            newest: dict[DeviceId, dict[int, Found]] = {device: {} for device in devices}
            heard: set[int] = set()
            values = {"from_ms": from_ms, "to_ms": to_ms, "devices": json.dumps(devices)}
            for path in self._files(from_ms):
                connection = self._asked.connection(path)
                heard.update(ms for (ms,) in connection.execute(_STARTS, values) if ms is not None)
                for row in _fetch(connection, _OF_SOME, values)[0]:
                    record = record_of(row)
                    known = newest[record.device].get(record.start_ms)
                    if known is None or known.record.revision < record.revision:
                        place = Cursor(int(path.name[:8]), row[0])
                        newest[record.device][record.start_ms] = Found(record=record, place=place)
            return Day(newest=newest, heard=frozenset(heard))

        return await self._run(self._asked, work)

    async def _run(self, lane: _Lane, work: Callable[[], T]) -> T:
        try:
            return await lane.run(work)
        except sqlite3.Error as error:
            if is_damage(error):
                await self._on_damage()
            raise StorageError(f"interval log: {error}") from error

"""Intervals by device and time: what stands about each now, read from several log files at once.

Log files are in the order of commits; here the order is (start, device), and of several revisions the newest counts. A
late revision stands in a later file than what it corrects, so every file that may hold any is asked and the answers are
merged. A page ends where the next one goes on: at a `Place`, which stays valid while the log grows.
"""

import asyncio
import contextlib
import heapq
import itertools
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

from gateway.domain.errors import StorageError
from gateway.domain.model import DeviceId, IntervalRecord
from gateway.storage.interval_rows import COLUMNS, record_of, sound
from gateway.storage.log_files import is_damage
from gateway.storage.standings import Cursor

T = TypeVar("T")

NAMED_MAX = 64
"""So many devices are looked up one by one; for more every row of the stretch is gone through."""

Place = tuple[int, str]
"""Start (UTC ms) and device of the last interval that was given."""

_NAMES = ", ".join(f"i.{name}" for name in COLUMNS)
_AFTER = "(i.start_ms, i.device) > (:after_ms, :after_device)"
# Beside max() SQLite takes the other columns from the row that has it.
_ALL = f"select i.id, {_NAMES}, max(i.revision) from interval i where {_AFTER} and i.start_ms < :to_ms"  # noqa: S608
_ONCE = "group by i.start_ms, i.device order by i.start_ms, i.device limit :most"
# The starts that occur, each found by one step in the index, and each device at each of them.
_NAMED = f"""
with recursive start(ms) as (
  select min(start_ms) from interval where start_ms >= :after_ms
  union all
  select (select min(start_ms) from interval where start_ms > ms) from start where ms < :to_ms)
select i.id, {_NAMES} from start cross join json_each(:devices) named cross join interval i
where ms < :to_ms and i.start_ms = ms and i.device = named.value and {_AFTER}
  and i.revision = (select max(revision) from interval where start_ms = ms and device = named.value) limit :most
"""  # noqa: S608 own constants

_FIND = f"""
select i.id, {_NAMES} from json_each(:keys) wanted cross join interval i
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
select i.id, {_NAMES} from interval i where i.start_ms >= :from_ms and i.start_ms < :to_ms
  and i.device in (select value from json_each(:devices))
"""  # noqa: S608 own constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A record and where it is in the log."""

    record: IntervalRecord
    place: Cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What the log has of some devices and a stretch: the `newest` records by device and start, and the starts of which
    it has a record of anybody."""

    newest: dict[DeviceId, dict[int, Found]]
    heard: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Intervals that begin within `[from_ms, to_ms)`, of `devices` (sorted) or of all."""

    from_ms: int
    to_ms: int
    devices: tuple[str, ...] | None = None


def page(
    connections: Iterable[sqlite3.Connection], wanted: Wanted, after: Place | None, limit: int
) -> tuple[list[IntervalRecord], Place | None]:
    """The next `limit` intervals after a place (None = from the beginning), each at its newest revision, and the place
    to go on from (None = there are no more)."""
    answers = [_rows(connection, wanted, after, limit + 1) for connection in connections]
    merged = heapq.merge(*answers, key=lambda row: (row[2], row[1], row[4]))
    found: list[IntervalRecord] = []
    for _, revisions in itertools.groupby(merged, key=lambda row: (row[2], row[1])):
        if len(found) == limit:
            return found, (found[-1].start_ms, found[-1].device)
        *_, newest = revisions
        found.append(record_of(newest))
    return found, None


def _rows(connection: sqlite3.Connection, wanted: Wanted, after: Place | None, most: int) -> list[Any]:
    """The newest revision that one file has of each interval, in order."""
    after_ms, after_device = after or (wanted.from_ms, "")
    values = {"after_ms": after_ms, "after_device": after_device, "to_ms": wanted.to_ms, "most": most}
    if wanted.devices is None:
        return connection.execute(f"{_ALL} {_ONCE}", values).fetchall()
    values["devices"] = json.dumps(wanted.devices)
    if len(wanted.devices) <= NAMED_MAX:
        return connection.execute(_NAMED, values).fetchall()
    some = "and i.device in (select value from json_each(:devices))"
    return connection.execute(f"{_ALL} {some} {_ONCE}", values).fetchall()


class IntervalQueries:
    """Answers questions about a log from a thread and connections of its own: what is asked neither waits for commits
    nor delays them. `files`: those that may hold intervals from a time (UTC ms) on; `on_damage` is called when one of
    them is found damaged. Use as an async context manager."""

    def __init__(self, files: Callable[[int], Sequence[Path]], on_damage: Callable[[], Awaitable[None]]) -> None:
        self._files = files
        self._on_damage = on_damage
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="interval-query")
        self._open: dict[Path, sqlite3.Connection] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.get_running_loop().run_in_executor(self._pool, self._close, ())
        self._pool.shutdown(wait=False)

    async def page(self, wanted: Wanted, after: Place | None, limit: int) -> tuple[list[IntervalRecord], Place | None]:
        """See `page`. Raises StorageError if a file cannot be read: a part is never given for the whole."""

        return await self._run(lambda: page(self._connections(wanted.from_ms), wanted, after, limit))

    async def find(self, places: Sequence[Place]) -> list[IntervalRecord]:
        """The newest records of these intervals, by start and device; those that have none, or a damaged one, are left
        out. Raises StorageError."""
        if not places:
            return []

        def work() -> list[IntervalRecord]:
            found: dict[Place, IntervalRecord] = {}
            for connection in self._connections(min(places)[0]):
                rows, _ = sound(connection.execute(_FIND, {"keys": json.dumps(places)}).fetchall())
                for record in map(record_of, rows):
                    known = found.get((record.start_ms, record.device))
                    if known is None or known.revision < record.revision:
                        found[(record.start_ms, record.device)] = record
            return [found[place] for place in sorted(found)]

        return await self._run(work)

    async def day(self, from_ms: int, to_ms: int, devices: Sequence[DeviceId]) -> Day:
        """What there is of intervals that begin within `[from_ms, to_ms)`, without what is damaged. Raises
        StorageError."""

        def work() -> Day:
            newest: dict[DeviceId, dict[int, Found]] = {device: {} for device in devices}
            heard: set[int] = set()
            values = {"from_ms": from_ms, "to_ms": to_ms, "devices": json.dumps(devices)}
            for path in self._files(from_ms):
                connection = self._connection(path)
                heard.update(ms for (ms,) in connection.execute(_STARTS, values) if ms is not None)
                rows, _ = sound(connection.execute(_OF_SOME, values).fetchall())
                for row in rows:
                    record = record_of(row)
                    known = newest[record.device].get(record.start_ms)
                    if known is None or known.record.revision < record.revision:
                        place = Cursor(int(path.name[:8]), row[0])
                        newest[record.device][record.start_ms] = Found(record=record, place=place)
            return Day(newest=newest, heard=frozenset(heard))

        return await self._run(work)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except sqlite3.Error as error:
            if is_damage(error):
                await self._on_damage()
            raise StorageError(f"interval log: {error}") from error

    def _connections(self, from_ms: int) -> list[sqlite3.Connection]:
        paths = self._files(from_ms)
        self._close(keep=paths)
        return [self._connection(path) for path in paths]

    def _connection(self, path: Path) -> sqlite3.Connection:
        found = self._open.get(path)
        if found is None:
            # never made anew: a file that retention has just dropped must not come back empty
            address = f"file:{quote(str(path.absolute()))}?mode=rw"
            found = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
            self._open[path] = found
            found.execute("pragma query_only = on")
        return found

    def _close(self, keep: Sequence[Path]) -> None:
        for path in [path for path in self._open if path not in keep]:
            with contextlib.suppress(sqlite3.Error):
                self._open.pop(path).close()

"""Queries intervals by device and time: the newest revision of each, from several log files at once.

A page ends where the next one goes on: at a `Place`, which stays valid while the log grows.
"""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import numpy as np

from gateway.domain.errors import StorageError
from gateway.domain.intervals.columns import IntervalColumns, newest
from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.types import Bools, DeviceId
from gateway.observability.parts import Part
from gateway.storage.interval_log.files import is_damage
from gateway.storage.interval_log.merge import IntervalSelection, Merge, Place, intact
from gateway.storage.interval_log.pages import DamagedRow
from gateway.storage.interval_log.positions import Cursor

T = TypeVar("T")

_FIND = """
select {columns} from json_each(:keys) wanted cross join interval i
where i.start_ms = json_extract(wanted.value, '$[0]') and i.device = json_extract(wanted.value, '$[1]')
  and i.revision = (select max(revision) from interval where start_ms = i.start_ms and device = i.device)
"""
_NEWER = """
select {columns} from json_each(:keys) wanted cross join interval i
where i.start_ms = json_extract(wanted.value, '$[0]') and i.device = json_extract(wanted.value, '$[1]')
  and i.revision > json_extract(wanted.value, '$[2]')
"""
_STARTS = """
with recursive start(ms) as (
  select min(start_ms) from interval where start_ms >= :from_ms
  union all
  select (select min(start_ms) from interval where start_ms > ms) from start where ms < :to_ms)
select ms from start where ms < :to_ms
"""
_OF_SOME = """
select {columns} from interval i where i.start_ms >= :from_ms and i.start_ms < :to_ms
  and i.device in (select value from json_each(:devices))
"""


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


PAGE_ROWS = 10_000


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
        return found

    def _close(self, keep: Sequence[Path]) -> None:
        for path in [path for path in self._open if path not in keep]:
            with contextlib.suppress(sqlite3.Error):
                self._open.pop(path).close()


def _place(record: IntervalRecord) -> Place:
    return record.start_ms, record.device


def _legible(rows: Iterable[DamagedRow]) -> Iterator[tuple[Place, int]]:
    """Place and revision of damaged records that still tell them."""
    return (((row.start_ms, row.device), row.revision) for row in rows if row.legible)


class IntervalQueries(Part):
    """Queries a log from threads and connections of its own, so that queries neither wait for commits nor delay them,
    and what late repairs look up does not wait for what somebody asks. `files`: those that may contain intervals from a
    time (UTC ms) on; `on_damage` is called when one is damaged. Use as an async context manager."""

    def __init__(self, files: Callable[[int], Sequence[Path]], on_damage: Callable[[], Awaitable[None]]) -> None:
        self._files = files
        self._on_damage = on_damage
        self._asked = _Lane("interval-query")
        self._repairs = _Lane("interval-find")

    async def close(self) -> None:
        await self._asked.end()
        await self._repairs.end()

    async def page(
        self, wanted: IntervalSelection, after: Place | None, limit: int
    ) -> tuple[list[IntervalRecord], Place | None]:
        """The next `limit` intervals after a place (None = from the beginning), and the place to go on from (None =
        there are no more). Damaged records are left out. Raises StorageError if a file cannot be read: it never returns
        some intervals as if all."""

        lane = self._asked

        def work() -> tuple[list[IntervalRecord], Place | None]:
            merge = Merge(lane.connections(self._files(wanted.from_ms)), wanted, after, limit + 1)
            found, going_on = merge.page()
            rows = found.rows(slice(limit)).objects()
            if len(found) > limit:
                return rows, (rows[-1].start_ms, rows[-1].device)
            return rows, going_on

        return await self._run(lane, work)

    async def columns(self, wanted: IntervalSelection, rows: int = PAGE_ROWS) -> AsyncGenerator[IntervalColumns]:
        """All of these intervals as columns, by start and device, in pages of about `rows`; read in a thread of its own
        while the caller works. Each record was checked, and every column is there: the check covers them all. Damaged
        records are left out. May include intervals that are stored meanwhile. Raises StorageError."""
        lane = _Lane("interval-columns")
        try:
            files = self._files(wanted.from_ms)
            merge = await self._run(lane, lambda: Merge(lane.connections(files), wanted, None, rows))
            going_on: Place | None = (wanted.from_ms, "")
            while going_on is not None:
                page, going_on = await self._run(lane, merge.page)
                yield page
        finally:
            await lane.end()

    async def find(self, places: Sequence[Place]) -> tuple[list[IntervalRecord], list[Place]]:
        """The newest records of these intervals, by start and device, and the intervals whose newest record is damaged.
        Skips intervals without a record. Raises StorageError."""
        if not places:
            return [], []

        def work() -> tuple[list[IntervalRecord], list[Place]]:
            connections = self._repairs.connections(self._files(min(places)[0]))
            pages = [intact(connection, _FIND, {"keys": json.dumps(places)}) for connection in connections]
            found = {_place(record): record for record in newest([page.columns for page in pages]).objects()}
            lost = {
                place
                for place, revision in _legible(row for page in pages for row in page.damaged)
                if place not in found or found[place].revision < revision
            }
            return [record for place, record in found.items() if place not in lost], sorted(lost)

        return await self._run(self._repairs, work)

    async def superseded(self, rows: IntervalColumns) -> Bools:
        """By row, whether the log has a newer revision that is not damaged. Raises StorageError."""
        starts, devices = rows.records.start_ms.tolist(), rows.device_of_each()
        revisions = rows.records.revision.tolist()

        def work() -> Bools:
            connections = self._repairs.connections(self._files(min(starts)))
            keys = json.dumps(list(zip(starts, devices, revisions, strict=True)))
            newer: dict[Place, int] = {}
            for page in (intact(connection, _NEWER, {"keys": keys}) for connection in connections):
                found = page.columns
                places = zip(found.records.start_ms.tolist(), found.device_of_each(), strict=True)
                for place, revision in zip(places, found.records.revision.tolist(), strict=True):
                    newer[place] = max(revision, newer.get(place, 0))
            older = zip(zip(starts, devices, strict=True), revisions, strict=True)
            return np.array([newer.get(place, 0) > revision for place, revision in older], dtype=np.bool_)

        return await self._run(self._repairs, work) if starts else np.zeros(0, dtype=np.bool_)

    async def day(self, from_ms: int, to_ms: int, devices: Sequence[DeviceId]) -> Day:
        """The intervals that begin within `[from_ms, to_ms)`, without damaged records. Raises StorageError."""

        def work() -> Day:
            found: dict[DeviceId, dict[int, Found]] = {device: {} for device in devices}
            heard: set[int] = set()
            values = {"from_ms": from_ms, "to_ms": to_ms, "devices": json.dumps(devices)}
            for path in self._files(from_ms):
                connection = self._asked.connection(path)
                heard.update(ms for (ms,) in connection.execute(_STARTS, values) if ms is not None)
                page = intact(connection, _OF_SOME, values)
                for row, record in zip(page.ids.tolist(), page.columns.objects(), strict=True):
                    known = found[record.device].get(record.start_ms)
                    if known is None or known.record.revision < record.revision:
                        place = Cursor(int(path.name[:8]), row)
                        found[record.device][record.start_ms] = Found(record=record, place=place)
            return Day(newest=found, heard=frozenset(heard))

        return await self._run(self._asked, work)

    async def _run(self, lane: _Lane, work: Callable[[], T]) -> T:
        try:
            return await lane.run(work)
        except sqlite3.Error as error:
            if is_damage(error):
                await self._on_damage()
            raise StorageError(f"interval log: {error}") from error

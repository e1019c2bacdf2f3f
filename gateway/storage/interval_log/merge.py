"""Merges log files into one stretch of intervals by start and device, each at its newest revision, page by page.

Log files are in the order of commits. A late revision is in a later file than the record it corrects, so every file
that may contain one takes part; a file is read only from where its first interval is due, and what it gave too early
waits in a buffer, so memory holds a page of each file that overlaps the place reached.
"""

import json
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from gateway.domain.errors import StorageError
from gateway.domain.intervals.columns import NO_COLUMNS, IntervalColumns, newest
from gateway.domain.types import Bools
from gateway.storage.interval_log.pages import Page, fetch

log = logging.getLogger(__name__)

NAMED_MAX = 64
"""Up to this many devices are looked up one by one; for more the query scans every row of the stretch."""

Place = tuple[int, str]
"""Start (UTC ms) and device of the last interval returned."""

_AFTER = "(i.start_ms, i.device) > (:after_ms, :after_device)"
# `{columns}` and `{newest}`: see `pages.fetch`
_ALL = f"select {{newest}} from interval i where {_AFTER} and i.start_ms < :to_ms"  # noqa: S608 own constants
_ONCE = "group by i.start_ms, i.device order by i.start_ms, i.device limit :most"
# The starts that occur, each found by one step in the index, and each device at each of them.
NAMED = f"""
with recursive start(ms) as (
  select min(start_ms) from interval where start_ms >= :after_ms
  union all
  select (select min(start_ms) from interval where start_ms > ms) from start where ms < :to_ms)
select {{columns}} from start cross join json_each(:devices) named cross join interval i
where ms < :to_ms and i.start_ms = ms and i.device = named.value and {_AFTER}
  and i.revision = (select max(revision) from interval where start_ms = ms and device = named.value) limit :most
"""  # noqa: S608 own constants
_FIRST = "select min(start_ms) from interval where start_ms >= ? and start_ms < ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalSelection:
    """Intervals that begin within `[from_ms, to_ms)`, of `devices` (sorted) or of all."""

    from_ms: int
    to_ms: int
    devices: tuple[str, ...] | None = None


def intact(connection: sqlite3.Connection, select: str, values: dict[str, Any]) -> Page:
    """See `fetch`; logs damaged records."""
    page = fetch(connection, select, values)
    if page.damaged:
        # an id and a time: what else a record says is a customer's
        first = page.damaged[0]
        found = {"rows": len(page.damaged), "device": str(first.device)[:64], "start_ms": first.start_ms}
        log.error("interval query skipped damaged records", extra=found)
    return page


class Merge:
    """The intervals of `wanted` after a place (None = all), of several files. A page has at least `rows` of them unless
    it is the last, or records are damaged, and at most as many per file. Used from one thread."""

    def __init__(
        self, connections: Sequence[sqlite3.Connection], wanted: IntervalSelection, after: Place | None, rows: int
    ) -> None:
        self._sources = [_Source(connection, wanted, after, rows) for connection in connections]

    def page(self) -> tuple[IntervalColumns, Place | None]:
        """The next intervals, and the place to go on from (None = there are no more). Damaged records are left out.
        Raises sqlite3.Error, StorageError."""
        horizon: Place | None = None
        read: list[_Source] = []
        waiting = [(source.head, source) for source in self._sources if source.head is not None]
        for head, source in sorted(waiting, key=itemgetter(0)):
            if horizon is not None and head > horizon:
                break
            source.fill()
            read.append(source)
            if source.reached is not None:
                # this file may have more intervals after the last one read
                horizon = source.reached if horizon is None else min(horizon, source.reached)
        # in the order of files: of equal revisions the first one counts
        return newest([source.take(horizon) for source in self._sources if source in read]), horizon


class _Source:
    """What one file has of the intervals. `head`: nothing that it has still to give is before this place, None = there
    is nothing; `reached`: the file may have more after this place, None = it has been read to the end."""

    def __init__(
        self, connection: sqlite3.Connection, wanted: IntervalSelection, after: Place | None, rows: int
    ) -> None:
        self._connection = connection
        self._wanted = wanted
        self._rows = rows
        self._buffer = NO_COLUMNS
        self.reached: Place | None = after or (wanted.from_ms, "")
        ((first_ms,),) = connection.execute(_FIRST, (self.reached[0], wanted.to_ms)).fetchall()
        self.head: Place | None = None if first_ms is None else (first_ms, "")
        if first_ms is None:
            self.reached = None

    def fill(self) -> None:
        """Read on if nothing is left of what was read."""
        if len(self._buffer) or self.reached is None:
            return
        select, values = self._statement(self.reached)
        page = intact(self._connection, select, values)
        self._buffer = newest([page.columns])
        full = len(page.columns) + len(page.damaged) >= self._rows
        self.reached = self._last(page) if full else None

    def take(self, horizon: Place | None) -> IntervalColumns:
        """What was read up to and including a place (None = all)."""
        taken, self._buffer = self._buffer, NO_COLUMNS
        if horizon is not None and len(taken):
            due = _up_to(taken, horizon)
            taken, self._buffer = taken.rows(due), taken.rows(~due)
        self.head = _place(self._buffer, 0) if len(self._buffer) else self.reached
        return taken

    def _statement(self, after: Place) -> tuple[str, dict[str, Any]]:
        """The next of the intervals that the file has, at the newest revision that it has."""
        wanted = self._wanted
        values = {"after_ms": after[0], "after_device": after[1], "to_ms": wanted.to_ms, "most": self._rows}
        if wanted.devices is None:
            return f"{_ALL} {_ONCE}", values
        values["devices"] = json.dumps(wanted.devices)
        if len(wanted.devices) <= NAMED_MAX:
            return NAMED, values
        some = "and i.device in (select value from json_each(:devices))"
        return f"{_ALL} {some} {_ONCE}", values

    def _last(self, page: Page) -> Place:
        if len(self._buffer):
            return _place(self._buffer, -1)
        places = [(row.start_ms, row.device) for row in page.damaged if row.legible]
        if not places:
            raise StorageError("interval log: a page of records is damaged")
        return max(places)


def _place(columns: IntervalColumns, row: int) -> Place:
    records = columns.records
    return int(records.start_ms[row]), columns.devices[records.slots[row]]


def _up_to(columns: IntervalColumns, horizon: Place) -> Bools:
    """By row, whether it is not after a place."""
    start_ms, last = columns.records.start_ms, horizon[1]
    early = np.array([device <= last for device in columns.devices], dtype=np.bool_)
    due: Bools = (start_ms < horizon[0]) | ((start_ms == horizon[0]) & early[columns.records.slots])
    return due

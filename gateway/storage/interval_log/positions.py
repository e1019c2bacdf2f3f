"""Stores the position of each reader of the interval log: how far it has read, which stretches it skipped to be up to
date first, and what its receiver refused.

One SQLite file beside the log's; `outcomes` adds what each receiver was given. A reader goes on at `live`; each `Range`
is a stretch of the log it has still to read, oldest first. A parked record is one that the receiver refused; the file
keeps its identity until somebody has it sent again or the record itself is gone.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.storage.interval_log import outcomes
from gateway.storage.interval_log.outcomes import Given, RecordedOutcomes
from gateway.storage.interval_log.rows import Identity


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the log: everything up to row `row` of file `file` has been read."""

    file: int = 0
    row: int = 0

    def within(self, file: int, rows: int) -> int:
        """How many rows of a file that has `rows` lie up to here."""
        if self.file == file:
            return self.row
        return rows if self.file > file else 0


START = Cursor()


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """The records after `after`, up to `until` inclusive."""

    after: Cursor
    until: Cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far one reader has read."""

    live: Cursor = START
    backfill: tuple[Range, ...] = ()

    @property
    def oldest(self) -> Cursor:
        """Everything up to here has been read."""
        return min((self.live, *(unread.after for unread in self.backfill)))

    def lacks(self, place: Cursor) -> bool:
        """Whether the record at `place` has not been read yet."""
        return place > self.live or any(unread.after < place <= unread.until for unread in self.backfill)

    def left_behind(self, end: Cursor) -> "Position":
        """The position that jumps to `end` now and reads the skipped stretch later."""
        return Position(live=end, backfill=(*self.backfill, Range(self.live, end)))

    def caught_up(self, place: Cursor) -> "Position":
        """The position once the oldest stretch has been read up to `place`."""
        first, *others = self.backfill
        rest = [] if place >= first.until else [replace(first, after=place)]
        return Position(live=self.live, backfill=(*rest, *others))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A record that is not sent for now: the receiver refused it, or it waits to be sent again."""

    identity: Identity
    reason: str
    at_ms: int


RESEND = "resend"
"""The reason of records that somebody wants sent again."""

_SCHEMA = """
create table if not exists cursor (name text primary key, file integer not null, row integer not null);
create table if not exists backfill (
  name text not null, after_file integer not null, after_row integer not null, until_file integer not null,
  until_row integer not null, primary key (name, after_file, after_row));
create table if not exists parked (
  name text not null, start_ms integer not null, device text not null, revision integer not null, reason text not null,
  at_ms integer not null, primary key (name, start_ms, device, revision)) without rowid;
"""

_PARK = "insert into parked values (?, ?, ?, ?, ?, ?) on conflict do update set reason = excluded.reason"


class Positions:
    """The content of the positions' file; used from one thread. Every method raises sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.executescript(_SCHEMA + outcomes.SCHEMA)

    def close(self) -> None:
        self._connection.close()

    def load(self, name: str) -> Position:
        """The position of reader `name`; the start for a new one."""
        found = self._connection.execute("select file, row from cursor where name = ?", (name,)).fetchone()
        ranges = self._connection.execute(
            "select after_file, after_row, until_file, until_row from backfill where name = ? "
            "order by after_file, after_row",
            (name,),
        )
        return Position(
            live=Cursor(*found) if found else START,
            backfill=tuple(Range(Cursor(a, b), Cursor(c, d)) for a, b, c, d in ranges),
        )

    def save(
        self, name: str, position: Position, parked: Sequence[Parked] = (), unparked: Sequence[Identity] = (),
        given: Given | None = None,
    ) -> None:  # fmt: skip
        """Store where a reader is now, what its receiver refused (`parked`), what is no longer parked, and what its
        receiver was `given`: all of it or nothing."""
        do = self._connection
        do.execute("begin immediate")
        try:
            do.execute(
                "insert into cursor values (?, ?, ?) on conflict (name) do update set file = excluded.file, "
                "row = excluded.row",
                (name, position.live.file, position.live.row),
            )
            do.execute("delete from backfill where name = ?", (name,))
            for unread in position.backfill:
                place = (unread.after.file, unread.after.row, unread.until.file, unread.until.row)
                do.execute("insert into backfill values (?, ?, ?, ?, ?)", (name, *place))
            do.executemany(
                "delete from parked where name = ? and start_ms = ? and device = ? and revision = ?",
                [(name, *identity) for identity in unparked],
            )
            do.executemany(
                _PARK,
                [(name, *one.identity, one.reason, one.at_ms) for one in parked],
            )
            if given is not None:
                outcomes.record(do, name, given, position.live.file)
            do.execute("commit")
        except sqlite3.Error:
            if do.in_transaction:
                do.execute("rollback")
            raise

    def parked(self, name: str, limit: int, reason: str | None = None) -> list[Parked]:
        """Up to `limit` parked records, by start."""
        rows = self._connection.execute(
            "select start_ms, device, revision, reason, at_ms from parked where name = ? "
            "and (?2 is null or reason = ?2) order by start_ms limit ?3",
            (name, reason, limit),
        )
        return [Parked(identity=(s, d, r), reason=reason, at_ms=at) for s, d, r, reason, at in rows]

    def parked_counts(self, name: str) -> Mapping[str, int]:
        """How many records are parked, by reason."""
        rows = self._connection.execute("select reason, count(*) from parked where name = ? group by reason", (name,))
        return dict(rows.fetchall())

    def parked_within(self, name: str, from_ms: int, to_ms: int) -> list[Parked]:
        """The parked records of intervals that begin within `[from_ms, to_ms)`."""
        rows = self._connection.execute(
            "select start_ms, device, revision, reason, at_ms from parked where name = ? and start_ms >= ? "
            "and start_ms < ?",
            (name, from_ms, to_ms),
        )
        return [Parked(identity=(s, d, r), reason=reason, at_ms=at) for s, d, r, reason, at in rows]

    def recorded(self, name: str, files: tuple[int, int], from_ms: int, to_ms: int) -> RecordedOutcomes:
        """See `outcomes.recorded`."""
        return outcomes.recorded(self._connection, name, files, from_ms, to_ms)

    def park(self, name: str, parked: Sequence[Parked]) -> None:
        """Park these records."""
        self._connection.execute("begin immediate")
        self._connection.executemany(_PARK, [(name, *one.identity, one.reason, one.at_ms) for one in parked])
        self._connection.execute("commit")

    def release(self, name: str, from_ms: int, to_ms: int) -> int:
        """Mark parked records of intervals that begin within `[from_ms, to_ms)` to be sent again; returns how many."""
        return self._connection.execute(
            "update parked set reason = ? where name = ? and start_ms >= ? and start_ms < ? and reason != ?",
            (RESEND, name, from_ms, to_ms, RESEND),
        ).rowcount

    def forget_files(self, before: int) -> None:
        """Forget what receivers were given of files before `before`."""
        outcomes.forget(self._connection, before)

    def forget_before(self, start_ms: int) -> int:
        """Forget parked records whose intervals began before `start_ms`; returns how many."""
        return self._connection.execute("delete from parked where start_ms < ?", (start_ms,)).rowcount

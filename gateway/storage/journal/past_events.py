"""The tables of events that are over, in the journal's file, and what is kept of them.

`past_events` (id; own: the id that its source uses; source, revision, start_ms, end_ms, state, body: as in `events`)
has the events that the dispatcher remembers no more, `deliveries` the delivery records of every occurrence that is
over. `withdrawn` (event, by) names the operators who cancelled events. `past_counts` (source, cancelled, there) has how
many past events of each source are cancelled (1) and not (0): triggers count, so that no bound needs a look at every
row. Release 0.1 knows `deliveries` alone, and reads the file all the same; it gave cancelled events no state. In an id,
`~` is `scope.MARK`.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from gateway.domain.events.lifecycle import EventState
from gateway.domain.events.scope import own_id
from gateway.domain.journal.stored import NO_RECORDS, DeliveredEvent, StoredEvent, StoredOccurrence, StoredRecords
from gateway.domain.types import DeviceId, EventId
from gateway.storage.journal.bodies import read_event
from gateway.storage.journal.delivery_rows import count, unpack

_LESS = (
    "UPDATE past_counts SET there = there - 1 WHERE source IS old.source AND cancelled = (old.state = 'cancelled'); "
)
_MORE = (
    "INSERT INTO past_counts SELECT new.source, new.state = 'cancelled', 0 WHERE NOT EXISTS "
    "(SELECT 1 FROM past_counts WHERE source IS new.source AND cancelled = (new.state = 'cancelled')); "
    "UPDATE past_counts SET there = there + 1 WHERE source IS new.source AND cancelled = (new.state = 'cancelled'); "
)
_NO_LONGER_HELD = "DELETE FROM withdrawn WHERE event = old.id AND NOT EXISTS (SELECT 1 FROM events WHERE id = old.id); "
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS past_events (id TEXT PRIMARY KEY, own TEXT NOT NULL, source TEXT, "
    "revision INTEGER NOT NULL, start_ms INTEGER NOT NULL, end_ms INTEGER NOT NULL, state TEXT NOT NULL, "
    "body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS withdrawn (event TEXT PRIMARY KEY, by TEXT NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS past_events_by_start ON past_events (start_ms DESC, id)",
    "CREATE INDEX IF NOT EXISTS past_events_by_end ON past_events (end_ms)",
    "CREATE INDEX IF NOT EXISTS past_events_by_own_id ON past_events (own)",
    "CREATE INDEX IF NOT EXISTS past_events_cancelled ON past_events (source, end_ms) WHERE state = 'cancelled'",
    "CREATE INDEX IF NOT EXISTS past_events_over ON past_events (source, end_ms) WHERE state <> 'cancelled'",
    "CREATE INDEX IF NOT EXISTS deliveries_by_end ON deliveries (ended_ms)",
    "CREATE TABLE IF NOT EXISTS past_counts (source TEXT, cancelled INTEGER NOT NULL, there INTEGER NOT NULL)",
    f"CREATE TRIGGER IF NOT EXISTS past_events_added AFTER INSERT ON past_events BEGIN {_MORE}END",
    "CREATE TRIGGER IF NOT EXISTS past_events_changed AFTER UPDATE OF source, state ON past_events "
    f"BEGIN {_LESS}{_MORE}END",
    f"CREATE TRIGGER IF NOT EXISTS past_events_removed AFTER DELETE ON past_events BEGIN {_LESS}{_NO_LONGER_HELD}END",
)
PAGE_BYTES = 4 << 20
"""Bodies that a page of events reads at most, and one more."""

_AT_ONCE = 16
"""Rows that a commit removes of each table; more where it adds more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What is kept of events that are over: for `retention_ms`, of each source at most `events_max` of them and
    `cancelled_max` cancelled ones, the oldest delivery records only while the file has less than `bytes_max`. What an
    operator cancelled is kept for `retention_ms`: no source makes room for itself with it."""

    retention_ms: int = 400 * 24 * 3600 * 1000
    events_max: int = 100_000
    cancelled_max: int = 20_000
    bytes_max: int = 4 << 30


def begin(db: sqlite3.Connection) -> None:
    """Call at a start, in a transaction: a release that does not count may have written last."""
    db.execute("DELETE FROM past_counts")
    db.execute("INSERT INTO past_counts SELECT source, state = 'cancelled', count(*) FROM past_events GROUP BY 1, 2")
    db.execute(
        "DELETE FROM withdrawn WHERE NOT EXISTS (SELECT 1 FROM events WHERE id = event) "
        "AND NOT EXISTS (SELECT 1 FROM past_events WHERE id = event)"
    )


def archive(db: sqlite3.Connection, events: Sequence[str], now_ms: int) -> None:
    """Move events that are over from what is loaded at start. One that was revised meanwhile is not over, and stays.
    One that was called off before its end is kept from `now_ms` on: it may have had none."""
    names = (orjson.dumps(list(events)).decode(),)
    db.execute(
        "INSERT INTO past_events (id, own, source, revision, start_ms, end_ms, state, body) "
        "SELECT id, substr(id, instr(id, '~') + 1), source, revision, body ->> '$.request.start_ms', "
        "iif(coalesce(state, 'cancelled') = 'cancelled', min(end_ms, ?), end_ms), coalesce(state, 'cancelled'), body "
        "FROM events WHERE id IN (SELECT value FROM json_each(?)) "
        "AND (state IN ('completed', 'expired', 'cancelled') OR state IS NULL AND body ->> '$.request.cancelled') "
        "ON CONFLICT (id) DO UPDATE SET own = excluded.own, source = excluded.source, revision = excluded.revision, "
        "start_ms = excluded.start_ms, end_ms = excluded.end_ms, state = excluded.state, body = excluded.body",
        (now_ms, *names),
    )
    db.execute(
        "DELETE FROM events WHERE id IN (SELECT value FROM json_each(?)) "
        "AND (state IN ('completed', 'expired', 'cancelled') OR state IS NULL AND body ->> '$.request.cancelled')",
        names,
    )


def remove(db: sqlite3.Connection, events: Sequence[str]) -> None:
    """Forget archived revisions of events that were decided anew."""
    db.execute("DELETE FROM past_events WHERE id IN (SELECT value FROM json_each(?))", (orjson.dumps(events).decode(),))


def trim(db: sqlite3.Connection, bounds: Bounds, now_ms: int, *, added: int) -> int:
    """Remove what is beyond the bounds, `added` being the rows of the commit; returns how many went before their time
    was over."""
    most = max(_AT_ONCE, 2 * added)
    for table, end in (("past_events", "end_ms"), ("deliveries", "ended_ms")):
        db.execute(
            f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {end} < ? ORDER BY {end} LIMIT ?)",  # noqa: S608 names of this module
            (now_ms - bounds.retention_ms, most),
        )
    dropped = _too_many(db, bounds, most)
    if _used_bytes(db) > bounds.bytes_max:
        rows = (most,)
        gone = db.execute(
            "DELETE FROM deliveries WHERE rowid IN (SELECT rowid FROM deliveries ORDER BY ended_ms LIMIT ?)", rows
        ).rowcount
        if not gone:
            gone = db.execute(
                "DELETE FROM past_events WHERE rowid IN (SELECT rowid FROM past_events "
                "WHERE id NOT IN (SELECT event FROM withdrawn) ORDER BY end_ms LIMIT ?)",
                rows,
            ).rowcount
        dropped += gone
    return dropped


def _too_many(db: sqlite3.Connection, bounds: Bounds, most: int) -> int:
    """Remove the oldest of too many archived events, and of too many cancelled ones, of each source, `most` at a time;
    returns how many."""
    dropped = 0
    counts = db.execute("SELECT source, cancelled, there FROM past_counts").fetchall()
    for source, cancelled, there in counts:
        state, bound = ("= 'cancelled'", bounds.cancelled_max) if cancelled else ("<> 'cancelled'", bounds.events_max)
        if there > bound:
            dropped += db.execute(
                f"DELETE FROM past_events WHERE rowid IN (SELECT rowid FROM past_events WHERE state {state} "  # noqa: S608
                "AND source IS ? AND id NOT IN (SELECT event FROM withdrawn) ORDER BY end_ms LIMIT ?)",
                (source, min(there - bound, most)),
            ).rowcount
    return dropped


def _used_bytes(db: sqlite3.Connection) -> int:
    pages, free, size = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


# -- questions ---------------------------------------------------------------------------------------------------


def page(db: sqlite3.Connection, after: tuple[int, str] | None, limit: int) -> tuple[list[StoredEvent], bool]:
    """Archived events, newest start first, and whether there are more."""
    start_ms, name = after or (1 << 62, "")
    rows = db.execute(
        "SELECT body, source, state, by FROM past_events LEFT JOIN withdrawn ON event = id "
        "WHERE start_ms <= ? AND (start_ms < ? OR id > ?) ORDER BY start_ms DESC, id",
        (start_ms, start_ms, name),
    )
    found: list[StoredEvent] = []
    read_bytes = 0
    for row in rows:
        if len(found) == limit or read_bytes >= PAGE_BYTES:
            rows.close()
            return found, True
        read_bytes += len(row[0])
        found.append(_event(*row))
    return found, False


def known(db: sqlite3.Connection, event_id: str) -> list[StoredEvent]:
    """Events that are over, archived or not, and have this id, as their sources call them or as the gateway does."""
    own = own_id(EventId(event_id))
    found = db.execute(
        "SELECT body, source, coalesce(state, 'cancelled'), by FROM events LEFT JOIN withdrawn ON event = id "
        "WHERE substr(id, instr(id, '~') + 1) = ? "
        "AND (state IN ('completed', 'expired', 'cancelled') OR state IS NULL AND body ->> '$.request.cancelled') "
        "UNION ALL SELECT body, source, state, by FROM past_events LEFT JOIN withdrawn ON event = id WHERE own = ?",
        (own, own),
    )
    return [one for one in (_event(*row) for row in found) if event_id in (own, one.request.id)]


def occurrences(db: sqlite3.Connection, event: EventId, before_ms: int | None, limit: int) -> list[StoredOccurrence]:
    """The newest occurrences of an event that are over, oldest first."""
    found = db.execute(
        "SELECT occurrence_ms, ended_ms, body FROM deliveries WHERE event = ? AND occurrence_ms < ? "
        "ORDER BY occurrence_ms DESC LIMIT ?",
        (event, 1 << 62 if before_ms is None else before_ms, limit),
    )
    newest = [StoredOccurrence(occurrence_ms=at, ended_ms=ended, devices=count(body)) for at, ended, body in found]
    return newest[::-1]


def delivered_between(db: sqlite3.Connection, from_ms: int, until_ms: int, limit: int) -> list[DeliveredEvent]:
    """Occurrences that are over and ran within a stretch of time, the newest `limit` of them, oldest first."""
    found = db.execute(
        "SELECT event, occurrence_ms, ended_ms FROM deliveries WHERE ended_ms > ? AND occurrence_ms < ? "
        "ORDER BY ended_ms DESC, event LIMIT ?",
        (from_ms, until_ms, limit),
    )
    newest = [DeliveredEvent(event=EventId(name), occurrence_ms=at, ended_ms=ended) for name, at, ended in found]
    return newest[::-1]


def records_of(db: sqlite3.Connection, event: EventId, occurrence_ms: int, names: Sequence[str]) -> StoredRecords:
    """Delivery records of some devices in one occurrence."""
    found = db.execute(
        "SELECT body FROM deliveries WHERE event = ? AND occurrence_ms = ?", (event, occurrence_ms)
    ).fetchone()
    if found is None:
        return NO_RECORDS
    devices, columns = unpack(found[0])
    wanted = set(names)
    rows = [row for row, name in enumerate(devices) if name in wanted]
    return StoredRecords(
        total=len(rows),
        devices=tuple(DeviceId(devices[row]) for row in rows),
        columns={name: values[rows].copy() for name, values in columns.items()},
    )


def records(db: sqlite3.Connection, event: EventId, occurrence_ms: int | None, rows: slice) -> StoredRecords:
    """Delivery records of one occurrence (None = the newest)."""
    found = db.execute(
        "SELECT body FROM deliveries WHERE event = ? AND (? IS NULL OR occurrence_ms = ?) "
        "ORDER BY occurrence_ms DESC LIMIT 1",
        (event, occurrence_ms, occurrence_ms),
    ).fetchone()
    if found is None:
        return NO_RECORDS
    devices, columns = unpack(found[0])
    return StoredRecords(
        total=len(devices),
        devices=tuple(DeviceId(name) for name in devices[rows]),
        columns={name: values[rows].copy() for name, values in columns.items()},
    )


def _event(body: str, source: str | None, state: str, by: str | None) -> StoredEvent:
    decided = read_event(orjson.loads(body), source)
    return StoredEvent(
        request=decided.request, decided_ms=decided.answer.decided_ms, state=EventState(state), held_by=by
    )

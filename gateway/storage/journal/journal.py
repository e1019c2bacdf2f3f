"""The journal: durable memory of decisions, release plans, inventory and stops, with an audit trail.

One SQLite file (WAL, synchronous=FULL), two threads with a connection each: `journal` writes the commits, in their
order; `journal-past` writes what is over (delivery records, archived events) and looks it up. SQLite has one writer at
a time, so what is over is packed before its transaction, goes in by one change a transaction, and leaves by a few rows:
a commit waits for one of those at most. It is one file because release 0.1 reads delivery records there.

Tables: `meta` (key, value), `devices` (id, body), `reserves` (device, reserve_pct, source), `events` (id, revision,
end_ms, body, state, source), `controlled` (device, event), `prior` (device, body: settings before we touched them),
`holds` (exclusions: id, body), `areas` (those of areas: id, body), `quarantined` (name, reason), `quarantined_since`
(name, at_ms), `taken_back` (device, event, at_ms), `deliveries` (event, occurrence_ms, ended_ms, body: packed), `audit`
(utc_ms, kind, body, who, door).
Bodies are JSON objects, see `bodies`. `PRAGMA user_version` is the schema's version; the journal migrates an older
file, one version after the other, in one transaction, and refuses a newer one. What release 0.1 may not know is added
beside the version, so that it still reads the file: `source` is null in rows that it wrote, and events that are over
are in `past_events` once the dispatcher no longer remembers them. `sequences` tells which changes come too late. A
transaction is a handful of statements however many devices it names: rows go in as one JSON array.
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import orjson

from gateway.clock import Clock
from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.events.lifecycle import EventState
from gateway.domain.events.take_backs import TakeBack
from gateway.domain.journal.changes import EPOCH_MAX, UNNUMBERED, AuditDoor, Change, EventDelivered, EventsArchived
from gateway.domain.journal.stored import Departure, JournalState, StoredEvent
from gateway.domain.types import DeviceId, EventId
from gateway.files import sync_directory
from gateway.observability.metrics import Sample, counter
from gateway.observability.parts import Part
from gateway.storage.journal import audit_chain, audit_rows, past_events, sequences
from gateway.storage.journal.audit_before import before
from gateway.storage.journal.audit_rows import audit
from gateway.storage.journal.bodies import PLACED, read_device, read_event, read_exclusion
from gateway.storage.journal.writes import WRITE, At, packed
from gateway.storage.registry import connections, placements

log = logging.getLogger(__name__)

APPLICATION_ID = 0x62666731
AUDIT_ROWS_MAX = 200_000
PENDING_MAX = 256
EPOCH_BEGIN_MS = 1_577_836_800_000
EPOCH_MS = 600_000
EPOCH_BITS = 32
"""A number is the epoch and, below it, a count within the run: it grows from run to run."""

PAST_DROPPED = counter(
    "gateway_past_events_dropped",
    "Events and delivery records that were removed before their time, since there were too many.",
)

# Each step migrates a file from the version before; the first makes an empty one.
_STEPS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE devices (id TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE reserves (device TEXT PRIMARY KEY, reserve_pct REAL NOT NULL, source TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE events (id TEXT PRIMARY KEY, revision INTEGER NOT NULL, end_ms INTEGER NOT NULL, body TEXT NOT NULL);
    CREATE TABLE controlled (device TEXT PRIMARY KEY, event TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE audit (id INTEGER PRIMARY KEY, utc_ms INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL);
    INSERT INTO meta VALUES ('epoch', 0), ('stopped', 0)
    """,
    "CREATE TABLE prior (device TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID",
    """
    ALTER TABLE events ADD COLUMN state TEXT;
    CREATE TABLE holds (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE quarantined (name TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE deliveries (event TEXT NOT NULL, occurrence_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL,
                             body BLOB NOT NULL, PRIMARY KEY (event, occurrence_ms))
    """,
)
SCHEMA_VERSION = len(_STEPS)
_BESIDE = (
    "CREATE TABLE IF NOT EXISTS taken_back (device TEXT NOT NULL, event TEXT NOT NULL, at_ms INTEGER NOT NULL, "
    "PRIMARY KEY (device, event)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS departures (device TEXT PRIMARY KEY, at_ms INTEGER NOT NULL, who TEXT NOT NULL, "
    "door TEXT NOT NULL, body TEXT) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS areas (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS quarantined_since (name TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID",
)
_ADDED = {
    ("events", "source"): "ALTER TABLE events ADD COLUMN source TEXT",
    **audit_rows.ADDED,
    **audit_chain.ADDED,
    **placements.ADDED,
}


class SqliteJournal(Part):
    """Implements `gateway.ports.Journal`. Call `load` before the first commit and `close` at the end; both block.

    `pending`, `commits` and `failures` count commits, `dropped` events and delivery records removed before their time.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        audit_rows_max: int = AUDIT_ROWS_MAX,
        bounds: past_events.Bounds | None = None,
    ) -> None:
        self.path = path
        self._clock = clock
        self._audit_rows_max = audit_rows_max
        self._bounds = bounds or past_events.Bounds()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._db: sqlite3.Connection | None = None
        self._past_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal-past")
        self._past_db: sqlite3.Connection | None = None
        self._closed = False
        self._sequence = 0
        self.pending = 0
        self.commits = 0
        self.failures = 0
        self.dropped = 0

    def load(self) -> JournalState:
        """Open the file (or create it), read everything, begin a new epoch durably.

        Raises CorruptState if the file is damaged or from a newer version, StorageError if the disk refuses.
        """
        state = self._thread.submit(self._load).result()
        self._sequence = state.epoch << EPOCH_BITS
        return state

    def sequence(self) -> int:
        """The number of a change that is decided now."""
        self._sequence += 1
        return self._sequence

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make `changes` durable in one transaction, in order. Raises StorageError; then none of them is. A cancelled
        caller does not know whether its changes are durable; where the disk has not begun with them they are not."""
        if self._closed or self.pending >= PENDING_MAX:
            self.failures += 1
            raise StorageError("the journal is closed" if self._closed else f"{self.pending} commits wait already")
        # Their numbers are theirs now; there may be many of them, and the thread puts them on.
        asked = _Asked(changes=tuple(changes), first=self._sequence + 1)
        self._sequence += len(changes)
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._commit, asked)
        # A commit waits until the disk is done with it, whoever still waits for it.
        self.pending += 1
        running.add_done_callback(self._ended)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            asked.changes = ()
            raise

    def _ended(self, commit: "asyncio.Future[None]") -> None:
        self.pending -= 1
        if commit.cancelled() or commit.exception() is not None:
            self.failures += 1
        else:
            self.commits += 1

    async def known(self, event_id: str) -> list[StoredEvent]:
        """What is stored of events with this id that are over, of every source. Raises StorageError."""
        if self._closed:
            raise StorageError("the journal is closed")
        return await asyncio.get_running_loop().run_in_executor(self._past_thread, self._known, event_id)

    async def put_away(self, changes: Sequence[EventDelivered | EventsArchived]) -> None:
        """Make durable what is over, one change after the other, while commits go on. Raises StorageError; then some
        of them may be."""
        for change in changes:
            if self._closed:
                raise StorageError("the journal is closed")
            numbered = replace(change, seq=self.sequence()) if change.seq == UNNUMBERED else change
            await asyncio.get_running_loop().run_in_executor(self._past_thread, self._put_away, numbered)

    def samples(self) -> Iterator[Sample]:
        yield PAST_DROPPED.sample(self.dropped)

    def close(self) -> None:
        """Finish the pending commits and close the file. A second call has no effect."""
        if not self._closed:
            self._closed = True
            self._past_thread.submit(self._close_past).result()
            self._thread.submit(self._close).result()
        self._past_thread.shutdown(wait=True)
        self._thread.shutdown(wait=True)

    # Below: the journal's thread.

    def _load(self) -> JournalState:
        try:
            db = self._db = self._db or self._open()
            state = _read(db, self._clock.now().utc_ms)
            with _transaction(db):
                db.execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (state.epoch,))
                connections.begin(db)
                placements.begin(db)
                sequences.begin(db)
                past_events.begin(db)
                audit_chain.begin(db)
            return state
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self.path}: {error}") from error
        except (sqlite3.DatabaseError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise CorruptState(f"{self.path}: not a readable journal: {error}") from error
        except OSError as error:
            raise StorageError(f"{self.path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        created = not self.path.exists()
        if created:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self.path, isolation_level=None, timeout=5.0)
        try:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if not 0 <= version <= SCHEMA_VERSION:
                raise CorruptState(f"{self.path}: schema {version} is newer than {SCHEMA_VERSION}, the newest known")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            if version < SCHEMA_VERSION:
                with _transaction(db):
                    for step in _STEPS[version:]:
                        for statement in step.split(";"):
                            db.execute(statement)
                    if version == 0:
                        begin = first_epoch(self._clock.now().utc_ms)
                        db.execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (begin,))
                    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            for statement in (
                *_BESIDE,
                *audit_chain.SCHEMA,
                *past_events.SCHEMA,
                *sequences.SCHEMA,
                *connections.SCHEMA,
                *placements.SCHEMA,
            ):
                db.execute(statement)
            for (table, column), statement in _ADDED.items():
                if column not in {row[1] for row in db.execute(f"PRAGMA table_info({table})")}:
                    db.execute(statement)
        except BaseException:
            db.close()
            raise
        if created:
            sync_directory(self.path.parent)
        return db

    def _commit(self, asked: "_Asked") -> None:
        numbered = (
            replace(change, seq=number) if change.seq == UNNUMBERED else change
            for number, change in enumerate(asked.changes, start=asked.first)
        )
        changes = sorted(numbered, key=lambda change: change.seq)
        if not changes:
            return
        if self._db is None:
            raise StorageError("the journal is not open")
        self._write(self._db, changes)

    def _write(self, db: sqlite3.Connection, changes: Sequence[Change]) -> None:
        """One transaction, on the thread of its connection."""
        now_ms = self._clock.now().utc_ms
        at = At(now_ms=now_ms, packed=packed(changes))
        trail: list[audit_rows.Row] = []
        try:
            with _transaction(db):
                for kind, run in groupby(changes, type):
                    rows = sequences.newest(db, list(run))
                    if rows:
                        former = before(db, rows)
                        WRITE[kind](db, rows, at)
                        trail += audit(rows, former)
                added = sum(isinstance(change, EventsArchived | EventDelivered) for change in changes)
                dropped = past_events.trim(db, self._bounds, now_ms, added=added) if added else 0
                audit_chain.append(db, now_ms, trail)
                audit_chain.trim(db, self._audit_rows_max)
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{self.path}: {error}") from error
        if dropped:
            log.warning("events or delivery records were removed before their time", extra={"count": dropped})
        self.dropped += dropped

    # Below: the other thread.

    def _past(self) -> sqlite3.Connection:
        if self._db is None:
            raise StorageError("the journal is not open")
        if self._past_db is None:
            self._past_db = sqlite3.connect(self.path, isolation_level=None, timeout=5.0)
            self._past_db.execute("PRAGMA synchronous = FULL")
        return self._past_db

    def _put_away(self, change: Change) -> None:
        try:
            db = self._past()
        except sqlite3.Error as error:
            raise StorageError(f"{self.path}: {error}") from error
        self._write(db, [change])

    def _known(self, event_id: str) -> list[StoredEvent]:
        try:
            return past_events.known(self._past(), event_id)
        except sqlite3.Error as error:
            raise StorageError(f"{self.path}: {error}") from error

    def _close_past(self) -> None:
        if self._past_db is not None:
            self._past_db.close()
            self._past_db = None

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


@dataclass(slots=True)
class _Asked:
    """A commit on its way to the thread, with the number of its first change; empty once nobody waits for it."""

    changes: tuple[Change, ...]
    first: int


class _transaction:  # noqa: N801  # a context manager, used like a function
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error:
                self._rollback()
                raise
        else:
            self._rollback()

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")


def first_epoch(utc_ms: int) -> int:
    """Where a new file begins, so that its command ids are later than those of a file that was lost: at the time, since
    no gateway starts as often. At most half of what there is."""
    return min(max((utc_ms - EPOCH_BEGIN_MS) // EPOCH_MS, 0), EPOCH_MAX // 2)


def _read(db: sqlite3.Connection, now_ms: int) -> JournalState:
    meta = dict(db.execute("SELECT key, value FROM meta"))
    devices = db.execute(
        f"SELECT body, reserve_pct, {', '.join(PLACED)} FROM devices "  # noqa: S608
        "LEFT JOIN reserves ON reserves.device = devices.id "
        "LEFT JOIN placements ON placements.device = devices.id AND until_ms IS NULL ORDER BY devices.rowid"
    )
    events = db.execute("SELECT body, source, id, revision, state FROM events ORDER BY rowid").fetchall()
    controlled = db.execute("SELECT device, event FROM controlled ORDER BY device")
    prior = db.execute("SELECT device, body FROM prior ORDER BY device")
    return JournalState(
        epoch=meta["epoch"] + 1,
        devices=tuple(read_device(orjson.loads(body), *others) for body, *others in devices),
        events=tuple(read_event(orjson.loads(body), source) for body, source, *_ in events),
        controlled={DeviceId(device): EventId(event) for device, event in controlled},
        stopped=bool(meta["stopped"]),
        prior={DeviceId(device): dict(orjson.loads(body)) for device, body in prior},
        states={EventId(name): (revision, EventState(state)) for *_, name, revision, state in events if state},
        exclusions=tuple(
            read_exclusion(orjson.loads(body))
            for _, body in db.execute("SELECT id, body FROM holds UNION ALL SELECT id, body FROM areas ORDER BY id")
        ),
        quarantined=dict(db.execute("SELECT name, reason FROM quarantined ORDER BY name")),
        quarantined_since_ms=dict(
            db.execute("SELECT name, at_ms FROM quarantined JOIN quarantined_since USING (name) ORDER BY name")
        ),
        withdrawn={EventId(event): by for event, by in db.execute("SELECT event, by FROM withdrawn")},
        taken_back=tuple(
            TakeBack(device=DeviceId(device), event=EventId(event), at_ms=at_ms)
            for device, event, at_ms in db.execute("SELECT device, event, at_ms FROM taken_back ORDER BY device, event")
        ),
        departures=tuple(
            Departure(
                device=DeviceId(device),
                wanted=None if body is None else read_device(orjson.loads(body), None),
                since_ms=at_ms,
                by=who,
                door=AuditDoor(door),
            )
            for device, at_ms, who, door, body in db.execute(
                "SELECT device, at_ms, who, door, body FROM departures ORDER BY device"
            )
        ),
        removed=tuple(connections.removed_since(db, now_ms - connections.KEPT_MS)),
        replaced=connections.replaced(db),
        delivered=frozenset((EventId(e), ms) for e, ms in db.execute("SELECT event, occurrence_ms FROM deliveries")),
    )

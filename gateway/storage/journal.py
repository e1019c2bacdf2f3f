"""The journal: durable memory of decisions, release plans, inventory and stops, with an audit trail.

One SQLite file (WAL, synchronous=FULL) written by one thread in the order of the commits. Tables: `meta` (key, value),
`devices` (id, body), `reserves` (device, reserve_pct, source), `events` (id, revision, end_ms, body), `controlled`
(device, event), `prior` (device, body: settings as they were before we touched them), `audit` (utc_ms, kind, body).
Bodies are JSON objects, see `journal_bodies`. `PRAGMA user_version` is the schema's version; an older file is brought
forward, one version after the other, in one transaction, and a newer one is refused. A transaction is a handful of
statements however many devices it names: rows go in as one JSON array.
"""

import asyncio
import os
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, assert_never

import orjson

from gateway.clock import Clock
from gateway.domain.dispatch import Outcome
from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.model import DeviceId, EventId
from gateway.ports import (
    Change,
    ControlEnded,
    ControlTaken,
    DeviceEnrolled,
    EventDecided,
    JournalState,
    PriorRestored,
    PriorSaved,
    ReserveChanged,
    StopAll,
)
from gateway.storage.journal_bodies import device_body, event_body, read_device, read_event, settings_body

APPLICATION_ID = 0x62666731
AUDIT_ROWS_MAX = 200_000
PENDING_MAX = 256
EVENT_RETENTION_MS = 14 * 24 * 3600 * 1000
TOMBSTONE_MS = 15 * 24 * 3600 * 1000
NAMED_IN_AUDIT = 20

# What brings a file from the version before; the first makes an empty one.
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
)
SCHEMA_VERSION = len(_STEPS)


class SqliteJournal:
    """Implements `gateway.ports.Journal`. `load` before the first commit, `close` at the end; both block.

    `pending`, `commits` and `failures` count commits for the metrics.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        audit_rows_max: int = AUDIT_ROWS_MAX,
        event_retention_ms: int = EVENT_RETENTION_MS,
    ) -> None:
        self._path = path
        self._clock = clock
        self._audit_rows_max = audit_rows_max
        self._event_retention_ms = event_retention_ms
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._db: sqlite3.Connection | None = None
        self._closed = False
        self.pending = 0
        self.commits = 0
        self.failures = 0

    def load(self) -> JournalState:
        """Open the file (made where there is none), read everything, begin a new epoch durably.

        Raises CorruptState if the file is damaged or from a newer version, StorageError if the disk refuses.
        """
        return self._thread.submit(self._load).result()

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make `changes` durable in one transaction, in order. Raises StorageError; then none of them is. A cancelled
        caller does not know whether its changes are durable."""
        if self._closed or self.pending >= PENDING_MAX:
            self.failures += 1
            raise StorageError("the journal is closed" if self._closed else f"{self.pending} commits wait already")
        self.pending += 1
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, tuple(changes))
            self.commits += 1
        except StorageError:
            self.failures += 1
            raise
        finally:
            self.pending -= 1

    def close(self) -> None:
        """Finish what was committed and let go of the file; again without effect."""
        if not self._closed:
            self._closed = True
            self._thread.submit(self._close).result()
        self._thread.shutdown(wait=True)

    # on the thread

    def _load(self) -> JournalState:
        try:
            db = self._db = self._db or self._open()
            state = _read(db, self._clock.now().utc_ms - self._event_retention_ms)
            with _transaction(db):
                db.execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (state.epoch,))
            return state
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self._path}: {error}") from error
        except (sqlite3.DatabaseError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise CorruptState(f"{self._path}: not a journal that can be read: {error}") from error
        except OSError as error:
            raise StorageError(f"{self._path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        created = not self._path.exists()
        if created:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self._path, isolation_level=None, timeout=5.0)
        try:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if not 0 <= version <= SCHEMA_VERSION:
                raise CorruptState(f"{self._path}: schema {version} is newer than {SCHEMA_VERSION}, the newest known")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            if version < SCHEMA_VERSION:
                with _transaction(db):
                    for step in _STEPS[version:]:
                        for statement in step.split(";"):
                            db.execute(statement)
                    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except BaseException:
            db.close()
            raise
        if created:
            _sync_directory(self._path.parent)
        return db

    def _commit(self, changes: tuple[Change, ...]) -> None:
        if self._db is None:
            raise StorageError("the journal is not open")
        db, now_ms = self._db, self._clock.now().utc_ms
        audit: list[tuple[str, object]] = []
        try:
            with _transaction(db):
                for kind, run in groupby(changes, type):
                    rows = list(run)
                    _WRITE[kind](db, rows, now_ms)
                    audit += _audit(rows)
                if any(isinstance(change, EventDecided) for change in changes):
                    db.execute("DELETE FROM events WHERE end_ms < ?", (now_ms - self._event_retention_ms,))
                db.execute(
                    "INSERT INTO audit (utc_ms, kind, body) "
                    "SELECT ?, value ->> '$[0]', value -> '$[1]' FROM json_each(?)",
                    (now_ms, _json(audit)),
                )
                db.execute("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?", (self._audit_rows_max,))
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{self._path}: {error}") from error

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


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


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


# what each kind of change does; a run of one kind is one statement


def _enrolled(db: sqlite3.Connection, changes: list[DeviceEnrolled], _now_ms: int) -> None:
    rows = _json([[change.device.id, device_body(change.device)] for change in changes])
    db.execute(
        "INSERT INTO devices SELECT value ->> '$[0]', value -> '$[1]' FROM json_each(?) WHERE true "
        "ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        (rows,),
    )
    # an enrollment states the reserve anew
    db.execute("DELETE FROM reserves WHERE device IN (SELECT value ->> '$[0]' FROM json_each(?))", (rows,))


def _decided(db: sqlite3.Connection, changes: list[EventDecided], now_ms: int) -> None:
    newest = {c.request.id: c for c in changes if c.answer.outcome is Outcome.ACCEPTED}
    # the times of a cancellation are nobody's to check: its tombstone is kept for a while from now
    rows = [
        [
            c.request.id,
            c.request.revision,
            min(max(c.request.end_ms, now_ms), now_ms + TOMBSTONE_MS) if c.request.cancelled else c.request.end_ms,
            event_body(c),
        ]
        for c in newest.values()
    ]
    db.execute(
        "INSERT INTO events SELECT value ->> '$[0]', value ->> '$[1]', value ->> '$[2]', value -> '$[3]' "
        "FROM json_each(?) WHERE true ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, "
        "end_ms = excluded.end_ms, body = excluded.body WHERE excluded.revision > events.revision",
        (_json(rows),),
    )


def _taken(db: sqlite3.Connection, changes: list[ControlTaken], _now_ms: int) -> None:
    for change in changes:
        db.execute(
            "INSERT INTO controlled SELECT value, ? FROM json_each(?) WHERE true "
            "ON CONFLICT (device) DO UPDATE SET event = excluded.event",
            (change.event, _json(change.devices)),
        )


def _ended(db: sqlite3.Connection, changes: list[ControlEnded], _now_ms: int) -> None:
    for change in changes:
        db.execute("DELETE FROM controlled WHERE device IN (SELECT value FROM json_each(?))", (_json(change.devices),))


def _reserves(db: sqlite3.Connection, changes: list[ReserveChanged], _now_ms: int) -> None:
    for change in changes:
        db.execute(
            "INSERT INTO reserves SELECT value ->> '$[0]', value ->> '$[1]', ? FROM json_each(?) WHERE true "
            "ON CONFLICT (device) DO UPDATE SET reserve_pct = excluded.reserve_pct, source = excluded.source",
            (change.source, _json(list(zip(change.devices, change.reserve_pct, strict=True)))),
        )


def _prior_saved(db: sqlite3.Connection, changes: list[PriorSaved], _now_ms: int) -> None:
    db.execute(
        "INSERT INTO prior SELECT value ->> '$[0]', value -> '$[1]' FROM json_each(?) WHERE true "
        "ON CONFLICT (device) DO UPDATE SET body = excluded.body",
        (_json([[change.device, settings_body(change.settings)] for change in changes]),),
    )


def _prior_restored(db: sqlite3.Connection, changes: list[PriorRestored], _now_ms: int) -> None:
    rows = _json([change.device for change in changes])
    db.execute("DELETE FROM prior WHERE device IN (SELECT value FROM json_each(?))", (rows,))


def _stopped(db: sqlite3.Connection, changes: list[StopAll], _now_ms: int) -> None:
    db.execute("UPDATE meta SET value = ? WHERE key = 'stopped'", (int(changes[-1].active),))


_WRITE: dict[type, Any] = {
    DeviceEnrolled: _enrolled,
    EventDecided: _decided,
    ControlTaken: _taken,
    ControlEnded: _ended,
    ReserveChanged: _reserves,
    StopAll: _stopped,
    PriorSaved: _prior_saved,
    PriorRestored: _prior_restored,
}


def _audit(changes: Sequence[Change]) -> Iterator[tuple[str, object]]:
    """Audit rows of a run of one kind: small whatever the number of devices."""
    for kind, named in (
        ("device_enrolled", [change.device.id for change in changes if isinstance(change, DeviceEnrolled)]),
        ("prior_saved", [change.device for change in changes if isinstance(change, PriorSaved)]),
        ("prior_restored", [change.device for change in changes if isinstance(change, PriorRestored)]),
    ):
        if named:
            yield kind, _named(named)
    for change in changes:
        match change:
            case EventDecided(request=request, answer=answer):
                body = event_body(change)
                body["request"]["group"]["ids"] = _named(request.group.ids)
                yield f"event_{answer.outcome.value}", body
            case ControlTaken():
                yield "control_taken", {"event": change.event, **_named(change.devices)}
            case ControlEnded():
                yield "control_ended", {"reason": change.reason, **_named(change.devices)}
            case ReserveChanged():
                chosen = {"source": change.source, "reserve_pct": change.reserve_pct[:NAMED_IN_AUDIT]}
                yield "reserve_changed", chosen | _named(change.devices)
            case DeviceEnrolled() | PriorSaved() | PriorRestored():
                pass
            case StopAll():
                yield "stop_all", {"active": change.active, "by": change.by}
            case _:
                assert_never(change)


def _named(devices: Sequence[str]) -> dict[str, object]:
    return {"count": len(devices), "devices": list(devices[:NAMED_IN_AUDIT])}


def _read(db: sqlite3.Connection, oldest_end_ms: int) -> JournalState:
    meta = dict(db.execute("SELECT key, value FROM meta"))
    devices = db.execute(
        "SELECT body, reserve_pct FROM devices LEFT JOIN reserves ON device = id ORDER BY devices.rowid"
    )
    events = db.execute("SELECT body FROM events WHERE end_ms >= ? ORDER BY rowid", (oldest_end_ms,))
    controlled = db.execute("SELECT device, event FROM controlled ORDER BY device")
    prior = db.execute("SELECT device, body FROM prior ORDER BY device")
    return JournalState(
        epoch=meta["epoch"] + 1,
        devices=tuple(read_device(orjson.loads(body), reserve_pct) for body, reserve_pct in devices),
        events=tuple(read_event(orjson.loads(body)) for (body,) in events),
        controlled={DeviceId(device): EventId(event) for device, event in controlled},
        stopped=bool(meta["stopped"]),
        prior={DeviceId(device): dict(orjson.loads(body)) for device, body in prior},
    )

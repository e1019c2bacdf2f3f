"""Remembers identified messages, so that a repetition has no effect after a restart or a kill either.

One SQLite file in the state directory (`replay.sqlite`; WAL, synchronous=FULL), used from a thread of its own. `seen`
(number, door, source, id: 16 bytes of its BLAKE2b, issued_ms: null where the message does not say, answer), `floors`
(door, source, issued_ms: the newest that was forgotten). A source is a name of the configuration or of one who was
recognised; nothing is noted of a message whose sender was not. A damaged file is set aside: a new one begins, and what
was issued until then is too old.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.replay import NO_FLOOR_MS, Admission, ReplayBounds, admission
from gateway.domain.types import Now
from gateway.observability.metrics import Sample, counter, words
from gateway.observability.parts import Part
from gateway.storage.sqlite_thread import SqliteThread, set_aside, transaction

log = logging.getLogger(__name__)

T = TypeVar("T")

NAME = "replay.sqlite"
VERSION = 1
ANSWER_BYTES_MAX = 16 << 10
"""A longer answer is not kept; its message is known without it."""

_EVERYBODY = ""
"""The door and the source whose floor is everybody's."""

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS seen (number INTEGER PRIMARY KEY, door TEXT NOT NULL, source TEXT NOT NULL, "
    "id BLOB NOT NULL, issued_ms INTEGER, answer BLOB, UNIQUE (door, source, id))",
    "CREATE INDEX IF NOT EXISTS seen_by_time ON seen (door, source, issued_ms, number)",
    "CREATE TABLE IF NOT EXISTS floors (door TEXT NOT NULL, source TEXT NOT NULL, issued_ms INTEGER NOT NULL, "
    "PRIMARY KEY (door, source)) WITHOUT ROWID",
)

ADMISSIONS = counter(
    "gateway_replay_messages",
    "Identified messages at a door: new ones, repetitions, and those that were issued too long ago or ahead of the "
    "gateway's clock.",
    door="the doors for identified messages",
    admission=words(Admission),
)


class ReplayStore(Part):
    """The file. `window` makes the memory of one door."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / NAME
        self._thread = self._opened()
        self._set_aside: Path | None = None
        self.counts: dict[tuple[str, Admission], int] = {}

    def window(self, door: str, bounds: ReplayBounds | None = None) -> "DoorWindow":
        """The window of a door, whose name is a label of metrics."""
        for each in Admission:
            self.counts.setdefault((door, each), 0)
        return DoorWindow(self, door, bounds or ReplayBounds())

    async def ask(self, work: Callable[[sqlite3.Connection], T], now_ms: int) -> T:
        """Do something with the file. `now_ms`: from where on messages are taken if the file is damaged (UTC)."""
        try:
            return await self._thread.ask(work)
        except CorruptState as error:
            self._begin_anew(error)
            await self._thread.ask(lambda db: _raise_floor(db, _EVERYBODY, _EVERYBODY, now_ms))
            raise StorageError(f"{NAME}: damaged, begun anew") from error

    def _opened(self) -> SqliteThread:
        return SqliteThread(self.path, name="replay", schema=_SCHEMA, version=VERSION)

    def _begin_anew(self, error: CorruptState) -> None:
        self._thread.close()
        aside = set_aside(self.path)
        self._set_aside, self._thread = aside, self._opened()
        log.error("the replay window cannot be read", extra={"error": str(error), "kept": aside.name})

    def samples(self) -> Iterable[Sample]:
        for (door, each), count in self.counts.items():
            yield ADMISSIONS.sample(count, door=door, admission=each.value)

    def warnings(self) -> list[str]:
        if self._set_aside is None:
            return []
        return [f"access: the replay window could not be read; the file is kept as {self._set_aside.name}"]

    def close(self) -> None:
        """Finish what is asked, and close the file."""
        self._thread.close()


class DoorWindow:
    """Implements `gateway.ports.ReplayWindow`."""

    def __init__(self, store: ReplayStore, door: str, bounds: ReplayBounds) -> None:
        self._store = store
        self._door = door
        self._bounds = bounds

    async def seen(self, source: str, message_id: str, issued_ms: int | None, now: Now) -> Admission:
        """What a message is, without noting it."""
        return await self._store.ask(
            lambda db: self._judge(db, source, _digest(message_id), issued_ms, now), now.utc_ms
        )

    async def admit(
        self, source: str, message_id: str, issued_ms: int | None, now: Now, *, answer: bytes = b""
    ) -> Admission:
        """What a message is; the first time it is noted durably."""
        kept = answer if len(answer) <= ANSWER_BYTES_MAX else b""
        row = (self._door, source, _digest(message_id), issued_ms, kept)

        def work(db: sqlite3.Connection) -> Admission:
            with transaction(db):
                found = self._judge(db, source, row[2], issued_ms, now)
                if found is Admission.FIRST:
                    db.execute("INSERT INTO seen (door, source, id, issued_ms, answer) VALUES (?, ?, ?, ?, ?)", row)
                    self._trim(db, source, now)
            return found

        found = await self._store.ask(work, now.utc_ms)
        self._store.counts[self._door, found] += 1
        return found

    async def answer(self, source: str, message_id: str) -> bytes | None:
        """How a message was answered the first time; None = it is not known."""
        key = (self._door, source, _digest(message_id))

        def work(db: sqlite3.Connection) -> bytes | None:
            found = db.execute("SELECT answer FROM seen WHERE door = ? AND source = ? AND id = ?", key).fetchone()
            return None if found is None or not found[0] else bytes(found[0])

        return await self._store.ask(work, NO_FLOOR_MS)

    async def forget(self, source: str, message_id: str) -> None:
        """Take a message as new when it comes next."""
        key = (self._door, source, _digest(message_id))
        await self._store.ask(
            lambda db: db.execute("DELETE FROM seen WHERE door = ? AND source = ? AND id = ?", key), NO_FLOOR_MS
        )

    # Below: the store's thread.

    def _judge(
        self, db: sqlite3.Connection, source: str, digest: bytes, issued_ms: int | None, now: Now
    ) -> Admission:  # fmt: skip
        known = db.execute(
            "SELECT 1 FROM seen WHERE door = ? AND source = ? AND id = ?", (self._door, source, digest)
        ).fetchone()
        (floor_ms,) = db.execute(
            "SELECT coalesce(max(issued_ms), ?) FROM floors WHERE door = ? AND source = ? OR door = '' AND source = ''",
            (NO_FLOOR_MS, self._door, source),
        ).fetchone()
        return admission(
            known=known is not None, issued_ms=issued_ms, floor_ms=floor_ms, now_ms=now.utc_ms, bounds=self._bounds
        )

    def _trim(self, db: sqlite3.Connection, source: str, now: Now) -> None:
        """Forget what is too much or was kept long enough, and raise the floor to it. What does not say when it was
        issued goes by its number alone, whatever the clock says."""
        mine = (self._door, source)
        (count,) = db.execute("SELECT count(*) FROM seen WHERE door = ? AND source = ?", mine).fetchone()
        # without a time first: those are the lowest in SQLite's order
        gone = db.execute(
            "DELETE FROM seen WHERE number IN (SELECT number FROM seen WHERE door = ? AND source = ? "
            "ORDER BY issued_ms, number LIMIT ?) OR door = ? AND source = ? AND issued_ms < ? RETURNING issued_ms",
            (*mine, max(count - self._bounds.ids_max, 0), *mine, now.utc_ms - self._bounds.kept_ms),
        ).fetchall()
        times = [issued_ms for (issued_ms,) in gone if issued_ms is not None]
        if times:
            _raise_floor(db, *mine, max(times))


def _raise_floor(db: sqlite3.Connection, door: str, source: str, issued_ms: int) -> None:
    db.execute(
        "INSERT INTO floors VALUES (?, ?, ?) ON CONFLICT (door, source) "
        "DO UPDATE SET issued_ms = max(issued_ms, excluded.issued_ms)",
        (door, source, issued_ms),
    )


def _digest(message_id: str) -> bytes:
    """An id of any length in a few bytes."""
    return blake2b(message_id.encode("utf-8", "surrogateescape"), digest_size=16).digest()

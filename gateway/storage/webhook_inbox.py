"""Keeps the messages of webhooks as they came: until they are carried out, and for some time after.

One SQLite file in the state directory (`webhooks.sqlite`; WAL, synchronous=FULL), used from a thread of its own. `kept`
(id, source, received_ms, outcome: '' while it waits, problems: a JSON list, payload), `signed` (kept: the id there,
source, message_id, issued_ms; of those that say so). Of each source it keeps the newest that were taken and, by
themselves, the newest that were refused, so that one kind pushes out none of the other. A damaged file is set aside and
a new one begun.
"""

import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import orjson

from gateway.domain.errors import CorruptState, StorageError
from gateway.observability.parts import Part
from gateway.ports.inbox import KeptMessage
from gateway.storage.sqlite_thread import SqliteThread, set_aside, transaction

log = logging.getLogger(__name__)

T = TypeVar("T")

NAME = "webhooks.sqlite"
VERSION = 1
KEPT_MAX, KEPT_BYTES_MAX = 500, 16 << 20
"""Of the messages of a source that were taken, and of those that were refused."""
WAITING_MAX = 10_000

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS kept (id INTEGER PRIMARY KEY, source TEXT NOT NULL, received_ms INTEGER NOT NULL, "
    "outcome TEXT NOT NULL DEFAULT '', problems TEXT NOT NULL DEFAULT '[]', payload BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS kept_by_source ON kept (source, id)",
    "CREATE INDEX IF NOT EXISTS kept_waiting ON kept (id) WHERE outcome = ''",
    "CREATE TABLE IF NOT EXISTS signed (kept INTEGER PRIMARY KEY REFERENCES kept (id) ON DELETE CASCADE, "
    "source TEXT NOT NULL, message_id TEXT NOT NULL, issued_ms INTEGER)",
    "CREATE INDEX IF NOT EXISTS signed_by_message ON signed (source, message_id)",
)
_SELECT = (
    "SELECT id, kept.source, received_ms, outcome, problems, payload, message_id, issued_ms "
    "FROM kept LEFT JOIN signed ON kept = id"
)


class WebhookInbox(Part):
    """Implements `gateway.ports.Inbox`."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / NAME
        self._thread = self._opened()
        self._set_aside: Path | None = None

    async def keep(
        self, source: str, received_ms: int, payload: bytes, *, message_id: str | None = None,
        issued_ms: int | None = None,
    ) -> KeptMessage:  # fmt: skip
        """Store a message durably."""
        row = (source, received_ms, payload)

        def work(db: sqlite3.Connection) -> int:
            with transaction(db):
                (kept,) = db.execute(
                    "INSERT INTO kept (source, received_ms, payload) VALUES (?, ?, ?) RETURNING id", row
                ).fetchone()
                if message_id is not None:
                    db.execute("INSERT INTO signed VALUES (?, ?, ?, ?)", (kept, source, message_id, issued_ms))
            return int(kept)

        return KeptMessage(
            id=await self._ask(work), source=source, received_ms=received_ms, payload=payload, message_id=message_id,
            issued_ms=issued_ms,
        )  # fmt: skip

    async def finish(self, message: int, outcome: str, problems: Sequence[str] = ()) -> None:
        """Note what became of a message, and forget old ones."""
        told = orjson.dumps(list(problems)).decode()

        def work(db: sqlite3.Connection) -> None:
            with transaction(db):
                found = db.execute(
                    "UPDATE kept SET outcome = ?, problems = ? WHERE id = ? RETURNING source", (outcome, told, message)
                ).fetchone()
                if found is not None:
                    _trim(db, found[0], outcome)

        await self._ask(work)

    async def waiting(self) -> list[KeptMessage]:
        """The messages that are not carried out yet, in their order."""
        sql = f"{_SELECT} WHERE outcome = '' ORDER BY id LIMIT ?"
        return await self._ask(lambda db: list(map(_message, db.execute(sql, (WAITING_MAX,)))))

    async def after(self, source: str, message_id: str) -> list[KeptMessage]:
        """The messages of a source that came after the first receipt of this one, newest first; none if it is new."""
        first = "(SELECT min(kept) FROM signed WHERE source = ? AND message_id = ?)"
        sql = f"{_SELECT} WHERE kept.source = ? AND id > {first} ORDER BY id DESC LIMIT ?"
        return await self._ask(lambda db: list(map(_message, db.execute(sql, (source, source, message_id, KEPT_MAX)))))

    async def newest(self, source: str, limit: int) -> list[KeptMessage]:
        """The newest messages of a source, newest first."""
        sql = f"{_SELECT} WHERE kept.source = ? ORDER BY id DESC LIMIT ?"
        return await self._ask(lambda db: list(map(_message, db.execute(sql, (source, limit)))))

    def warnings(self) -> list[str]:
        if self._set_aside is None:
            return []
        return [f"webhooks: messages could not be read; the file is kept as {self._set_aside.name}"]

    def close(self) -> None:
        """Finish what is asked, and close the file."""
        self._thread.close()

    def _opened(self) -> SqliteThread:
        return SqliteThread(
            self.path, name="webhooks", schema=_SCHEMA, version=VERSION, pragmas=("foreign_keys = ON",)
        )  # fmt: skip

    async def _ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._thread.ask(work)
        except CorruptState as error:
            self._thread.close()
            self._set_aside, self._thread = set_aside(self.path), self._opened()
            log.error("kept messages cannot be read", extra={"error": str(error), "kept": self._set_aside.name})
            raise StorageError(f"{NAME}: damaged, begun anew") from error


def _trim(db: sqlite3.Connection, source: str, outcome: str) -> None:
    """Forget what is too much of the messages of a source that have this outcome."""
    db.execute(
        "DELETE FROM kept WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER newest_first AS number, "
        "sum(length(payload)) OVER newest_first AS bytes FROM kept WHERE source = ?1 AND outcome = ?2 "
        "WINDOW newest_first AS (ORDER BY id DESC)) WHERE number > ?3 OR bytes > ?4)",
        (source, outcome, KEPT_MAX, KEPT_BYTES_MAX),
    )


def _message(row: tuple[int, str, int, str, str, bytes, str | None, int | None]) -> KeptMessage:
    number, source, received_ms, outcome, problems, payload, message_id, issued_ms = row
    return KeptMessage(
        id=number, source=source, received_ms=received_ms, outcome=outcome, problems=tuple(orjson.loads(problems)),
        payload=bytes(payload), message_id=message_id, issued_ms=issued_ms,
    )  # fmt: skip

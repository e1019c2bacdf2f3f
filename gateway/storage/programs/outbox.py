"""Changes that are to be made at the aggregator, in `outbox.sqlite` in the state directory.

`rows` (number, kind, subject, state, body): `body` the whole row as JSON. A number is never given twice.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from gateway.domain.programs.outbox import OPEN, OutboxRow, WriteKind
from gateway.observability.parts import Part
from gateway.storage.sqlite_thread import SqliteThread, transaction

NAME = "outbox.sqlite"
VERSION = 1

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, "
    "subject TEXT NOT NULL, state TEXT NOT NULL, body TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS rows_by_state ON rows (state, kind, number)",
)
_STATES = msgspec.json.encode(sorted(OPEN)).decode()


class SqliteOutbox(Part):
    """Implements `gateway.ports.OutboxStore`."""

    component = "programs"

    def __init__(self, state_dir: Path) -> None:
        self._file = SqliteThread(state_dir / NAME, name="outbox", schema=_SCHEMA, version=VERSION)

    async def add(self, rows: Sequence[OutboxRow]) -> list[OutboxRow]:
        def work(db: sqlite3.Connection) -> list[OutboxRow]:
            added = []
            with transaction(db):
                for row in rows:
                    number = db.execute(
                        "INSERT INTO rows (kind, subject, state, body) VALUES (?, ?, ?, '')",
                        (row.kind, row.subject, row.state),
                    ).lastrowid
                    added.append(replace(row, number=number or 0))
                _put(db, added)
            return added

        return await self._file.ask(work)

    async def rows(
        self, *, kind: WriteKind | None = None, unfinished: bool = False, after: int = 0, limit: int
    ) -> list[OutboxRow]:
        def work(db: sqlite3.Connection) -> list[OutboxRow]:
            found = db.execute(
                "SELECT body FROM rows WHERE number > ?1 AND (?2 IS NULL OR kind = ?2) AND "
                "(NOT ?3 OR state IN (SELECT value FROM json_each(?4))) ORDER BY number LIMIT ?5",
                (after, kind, unfinished, _STATES, limit),
            )
            return [msgspec.json.decode(body, type=OutboxRow) for (body,) in found]

        return await self._file.ask(work)

    async def put(self, rows: Sequence[OutboxRow]) -> None:
        def work(db: sqlite3.Connection) -> None:
            with transaction(db):
                _put(db, rows)

        await self._file.ask(work)

    def close(self) -> None:
        """Finish what is asked, and close the file."""
        self._file.close()


def _put(db: sqlite3.Connection, rows: Sequence[OutboxRow]) -> None:
    db.executemany(
        "UPDATE rows SET state = ?, body = ? WHERE number = ?",
        [(row.state, msgspec.json.encode(row).decode(), row.number) for row in rows],
    )

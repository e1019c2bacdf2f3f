"""Cases of homes that underperform, in `cases.sqlite` in the state directory.

`cases` (number, home, cause, is_open, snoozed_until_ms, revision, told, body): `body` the whole case as JSON but for
its number and `told`. A home has one case of each cause, and a number is never given twice.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from gateway.domain.errors import CorruptState
from gateway.domain.programs.cases import HomeCase
from gateway.observability.parts import Part
from gateway.ports.cases import CaseQuestion
from gateway.storage.sqlite_thread import SqliteThread, transaction

NAME = "cases.sqlite"
VERSION = 1
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS cases (number INTEGER PRIMARY KEY AUTOINCREMENT, home TEXT NOT NULL, "
    "cause TEXT NOT NULL, is_open INTEGER NOT NULL, snoozed_until_ms INTEGER, revision INTEGER NOT NULL, "
    "told INTEGER NOT NULL, body TEXT NOT NULL, UNIQUE (home, cause))",
    "CREATE INDEX IF NOT EXISTS cases_untold ON cases (number) WHERE told < revision",
    "CREATE INDEX IF NOT EXISTS cases_open ON cases (number) WHERE is_open",
)
_ROW = "SELECT number, told, body FROM cases"


class SqliteCases(Part):
    """Implements `gateway.ports.CaseStore`."""

    component = "programs"

    def __init__(self, state_dir: Path) -> None:
        self._file = SqliteThread(state_dir / NAME, name="cases", schema=_SCHEMA, version=VERSION)

    async def cases(self, question: CaseQuestion, limit: int) -> list[HomeCase]:
        return await self._file.ask(
            lambda db: _read(
                db.execute(
                    f"{_ROW} WHERE number > ?1 AND (?2 IS NULL OR home = ?2) AND (?3 IS NULL OR cause = ?3) "
                    "AND (NOT ?4 OR is_open) ORDER BY number LIMIT ?5",
                    (question.after, question.home, question.cause, question.open_alone, limit),
                )
            )
        )

    async def of_homes(self, homes: Sequence[str]) -> list[HomeCase]:
        names = msgspec.json.encode(list(homes)).decode()
        some = f"{_ROW} WHERE home IN (SELECT value FROM json_each(?)) ORDER BY number"  # noqa: S608 no value
        return await self._file.ask(lambda db: _read(db.execute(some, (names,))))

    async def put(self, cases: Sequence[HomeCase]) -> list[HomeCase]:
        def work(db: sqlite3.Connection) -> list[HomeCase]:
            with transaction(db):
                return [_put(db, case) for case in cases]

        return await self._file.ask(work)

    async def untold(self, now_ms: int, limit: int) -> list[HomeCase]:
        return await self._file.ask(
            lambda db: _read(
                db.execute(
                    f"{_ROW} WHERE told < revision AND (NOT is_open OR coalesce(snoozed_until_ms, 0) <= ?) "
                    "ORDER BY number LIMIT ?",
                    (now_ms, limit),
                )
            )
        )

    async def note_told(self, number: int, revision: int) -> None:
        await self._file.ask(
            lambda db: db.execute("UPDATE cases SET told = max(told, ?) WHERE number = ?", (revision, number))
        )

    def close(self) -> None:
        """Finish what is asked, and close the file."""
        self._file.close()


def _put(db: sqlite3.Connection, case: HomeCase) -> HomeCase:
    body = msgspec.json.encode(replace(case, number=0, told=0)).decode()
    row = (case.closed_ms is None, case.snoozed_until_ms, case.revision, body, case.home, case.cause)
    # an upsert would use up a number each time
    found = db.execute(
        "UPDATE cases SET is_open = ?, snoozed_until_ms = ?, revision = ?, body = ? WHERE home = ? AND cause = ? "
        "RETURNING number, told",
        row,
    ).fetchone()
    if found is None:
        found = db.execute(
            "INSERT INTO cases (is_open, snoozed_until_ms, revision, body, home, cause, told) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING number, told",
            (*row, case.told),
        ).fetchone()
    number, told = found
    return replace(case, number=number, told=told)


def _read(rows: Iterable[tuple[int, int, str]]) -> list[HomeCase]:
    try:
        return [
            replace(msgspec.json.decode(body, type=HomeCase), number=number, told=told) for number, told, body in rows
        ]
    except msgspec.MsgspecError as error:
        raise CorruptState(f"{NAME}: a case cannot be read: {error}") from error

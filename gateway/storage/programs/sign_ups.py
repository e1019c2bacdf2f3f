"""What the aggregator's webhooks said of sign-ups, in `sign_ups.sqlite` in the state directory.

`heard` (reference, utility, word, first_ms): each word once, `utility` "" for the session itself. A word that comes
again changes nothing, so that neither order nor repetition matter.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.sign_ups import HeardWord
from gateway.observability.parts import Part
from gateway.storage.sqlite_thread import SqliteThread, transaction

NAME = "sign_ups.sqlite"
VERSION = 1
WORDS_MAX = 64
"""Words of one reference."""
REFERENCES_MAX = 1_000_000

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS heard (reference TEXT NOT NULL, utility TEXT NOT NULL, word TEXT NOT NULL, "
    "first_ms INTEGER NOT NULL, PRIMARY KEY (reference, utility, word)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS known (reference TEXT PRIMARY KEY) WITHOUT ROWID",
)


class SqliteSignUps(Part):
    """Implements `gateway.ports.SignUpStore`."""

    component = "programs"

    def __init__(self, state_dir: Path, *, words_max: int = WORDS_MAX) -> None:
        self._words_max = words_max
        self._file = SqliteThread(state_dir / NAME, name="sign-ups", schema=_SCHEMA, version=VERSION)

    async def note(self, heard: HeardWord) -> bool:
        return await self._file.ask(lambda db: self._note(db, heard))

    async def of(self, references: Sequence[str]) -> list[HeardWord]:
        def work(db: sqlite3.Connection) -> list[HeardWord]:
            found: list[HeardWord] = []
            for reference in references:
                rows = db.execute(
                    "SELECT utility, word, first_ms FROM heard WHERE reference = ? ORDER BY utility, word", (reference,)
                )
                found += [
                    HeardWord(reference=reference, utility=utility, word=word, first_ms=first_ms)
                    for utility, word, first_ms in rows
                ]
            return found

        return await self._file.ask(work)

    async def references(self, after: str, limit: int) -> list[str]:
        def work(db: sqlite3.Connection) -> list[str]:
            rows = db.execute(
                "SELECT reference FROM known WHERE reference > ? ORDER BY reference LIMIT ?", (after, limit)
            )
            return [reference for (reference,) in rows]

        return await self._file.ask(work)

    def close(self) -> None:
        """Finish what is asked, and close the file."""
        self._file.close()

    def _note(self, db: sqlite3.Connection, heard: HeardWord) -> bool:
        with transaction(db):
            (words,) = db.execute("SELECT count(*) FROM heard WHERE reference = ?", (heard.reference,)).fetchone()
            place = (heard.reference, heard.utility, heard.word)
            known = db.execute("SELECT 1 FROM heard WHERE reference = ? AND utility = ? AND word = ?", place).fetchone()
            if known is not None:
                return False
            if words >= self._words_max:
                raise InvalidInput(["status: too many words were heard of this reference"])
            db.execute("INSERT INTO heard VALUES (?, ?, ?, ?)", (*place, heard.first_ms))
            db.execute("INSERT OR IGNORE INTO known VALUES (?)", (heard.reference,))
        return True

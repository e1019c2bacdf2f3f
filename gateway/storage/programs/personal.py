"""Who customers are: names, addresses, accounts. In a file of its own, `personal.sqlite`, encrypted.

`people` (ref, sealed): `sealed` is a Fernet token (AES-128-CBC with HMAC-SHA-256) of a JSON object, the reference among
its members so that a row cannot be put in the place of another. The first key encrypts; what a former one encrypted is
encrypted anew at the start, after which the former key may go. SQLite overwrites what is deleted, and the WAL is
emptied after an erasure. No archive of the state holds this file, and nothing leaves it but through `reveal`.
"""

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from gateway.domain.errors import CorruptState, GatewayError, StorageError
from gateway.observability.parts import Part
from gateway.storage.sqlite_thread import SqliteThread, transaction

log = logging.getLogger(__name__)

NAME = "personal.sqlite"
SCHEMA_VERSION = 1
REF = "ref"

_SCHEMA = ("CREATE TABLE IF NOT EXISTS people (ref TEXT PRIMARY KEY, sealed BLOB NOT NULL) WITHOUT ROWID",)


class SqlitePersonal(Part):
    """Implements `gateway.ports.PersonalStore`. `keys`: urlsafe base64 of 32 bytes each, the one that encrypts first;
    without any, data can be erased and nothing else. Call `open` first and `close` at the end; both block."""

    component = "programs"

    def __init__(self, state_dir: Path, *, keys: Sequence[str]) -> None:
        self._file = SqliteThread(
            state_dir / NAME, name="personal", schema=_SCHEMA, version=SCHEMA_VERSION, pragmas=("secure_delete = ON",)
        )
        self._keys = [Fernet(key) for key in keys]
        self._problem = ""

    def open(self) -> None:
        """Open the file (or create it) and encrypt with the first key what a former one encrypted. What no key opens
        is left as it is."""
        try:
            sealed_otherwise = self._file.now(self._rotate)
            self._problem = f"no key opens the data of {sealed_otherwise} customers" if sealed_otherwise else ""
        except GatewayError as error:
            self._problem = str(error)
        if self._problem:
            log.error("personal data cannot be read", extra={"error": self._problem})

    async def keep(self, people: Mapping[str, Mapping[str, str]]) -> None:
        if not self._keys:
            raise StorageError(f"{NAME}: there is no key")
        first = self._keys[0]

        def write(db: sqlite3.Connection) -> None:
            rows = [(ref, first.encrypt(msgspec.json.encode({**data, REF: ref}))) for ref, data in people.items()]
            with transaction(db):
                db.executemany("INSERT OR REPLACE INTO people VALUES (?, ?)", rows)

        await self._file.ask(write)

    @property
    def can_keep(self) -> bool:
        return bool(self._keys)

    async def erase(self, ref: str) -> bool:
        def gone(db: sqlite3.Connection) -> bool:
            with transaction(db):
                found = db.execute("DELETE FROM people WHERE ref = ?", (ref,)).rowcount > 0
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return found

        return await self._file.ask(gone)

    async def known(self, refs: Sequence[str]) -> set[str]:
        given = msgspec.json.encode(list(refs)).decode()
        return await self._file.ask(
            lambda db: {
                ref
                for (ref,) in db.execute(
                    "SELECT ref FROM people WHERE ref IN (SELECT value FROM json_each(?))", (given,)
                )
            }
        )

    async def reveal(self, ref: str) -> dict[str, str] | None:
        """The personal data of a customer, None if there is none: for the peer that demands it, and for nobody else.
        Raises StorageError, CorruptState."""
        sealed = await self._file.ask(
            lambda db: db.execute("SELECT sealed FROM people WHERE ref = ?", (ref,)).fetchone()
        )
        if sealed is None:
            return None
        if not self._keys:
            raise StorageError(f"{NAME}: there is no key")
        try:
            found = msgspec.json.decode(MultiFernet(self._keys).decrypt(sealed[0]), type=dict[str, str])
        except InvalidToken:
            raise StorageError(f"{NAME}: no key opens the data of a customer") from None
        if found.pop(REF) != ref:
            raise CorruptState(f"{NAME}: the data of a customer stands under another reference")
        return found

    def warnings(self) -> list[str]:
        return [f"personal data cannot be read: {self._problem}"] if self._problem else []

    def close(self) -> None:
        self._file.close()

    # Below: the file's thread.

    def _rotate(self, db: sqlite3.Connection) -> int:
        """Returns how many rows no key opens."""
        if not self._keys:
            return int(db.execute("SELECT count(*) FROM people").fetchone()[0])
        first, every = self._keys[0], MultiFernet(self._keys)
        anew, lost = [], 0
        for ref, sealed in db.execute("SELECT ref, sealed FROM people"):
            try:
                first.extract_timestamp(sealed)
            except InvalidToken:
                try:
                    anew.append((every.rotate(sealed), ref))
                except InvalidToken:
                    lost += 1
        with transaction(db):
            db.executemany("UPDATE people SET sealed = ? WHERE ref = ?", anew)
        return lost

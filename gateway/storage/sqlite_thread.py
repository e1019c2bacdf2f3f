"""A SQLite file with one connection and one thread, which is all that touches it."""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from gateway.domain.errors import CorruptState, StorageError
from gateway.files import sync_directory

T = TypeVar("T")


class SqliteThread:
    """WAL, synchronous=FULL, made private. `schema`: statements that make what is not there yet; `version`: the newest
    that is known. `pragmas` are set on every opening."""

    def __init__(self, path: Path, *, name: str, schema: tuple[str, ...], version: int, pragmas: tuple[str, ...] = ()):
        self.path = path
        self._schema = schema
        self._version = version
        self._pragmas = pragmas
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._db: sqlite3.Connection | None = None
        self._closed = False

    def now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the file, and wait; blocks. Raises StorageError, CorruptState."""
        return self._thread.submit(self._do, work).result()

    async def ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the file; it is done even if nobody waits any more. Raises StorageError, CorruptState."""
        if self._closed:
            raise StorageError(f"{self.path}: is closed")
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._do, work))

    def close(self) -> None:
        """Finish what is asked, and close the file. A second call has no effect."""
        if not self._closed:
            self._closed = True
            self._thread.submit(self._close).result()
        self._thread.shutdown(wait=True)

    # Below: the thread.

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._db is None:
                self._db = self._open()
            return work(self._db)
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise CorruptState(f"{self.path}: {error}") from error
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror or error}") from error

    def _open(self) -> sqlite3.Connection:
        created = not self.path.exists()
        if created:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self.path, isolation_level=None, timeout=5.0)
        try:
            found = int(db.execute("PRAGMA user_version").fetchone()[0])
            if found > self._version:
                raise CorruptState(f"{self.path}: schema {found} is newer than {self._version}, the newest known")
            for pragma in ("journal_mode = WAL", "synchronous = FULL", *self._pragmas):
                db.execute(f"PRAGMA {pragma}").fetchall()
            with transaction(db):
                for statement in self._schema:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {self._version}")
        except BaseException:
            db.close()
            raise
        if created:
            sync_directory(self.path.parent)
        return db

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it, or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def set_aside(path: Path) -> Path:
    """Keep a file that is damaged, with what belongs to it, under a name that is free; returns that."""
    number = 1
    while (aside := path.with_name(f"{path.name}.{number}.corrupt")).exists():
        number += 1
    for suffix in ("", "-wal", "-shm"):
        found = path.with_name(path.name + suffix)
        if found.exists():
            found.rename(aside.with_name(aside.name + suffix))
    return aside

"""One file of the interval log: its name, its schema, and how SQLite reports damage."""

import logging
import sqlite3
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from gateway.domain.errors import NewerState
from gateway.storage.interval_log.rows import MIGRATIONS, SCHEMA_VERSION

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class LogFile:
    """`sequence` orders the files of one log; `day` is the UTC day of their commits."""

    sequence: int
    day: date
    path: Path


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the error means that the file differs from what was written, not that it cannot be used now."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    # a table or column has gone; other errors of this code are bugs of ours
    no_such = code == sqlite3.SQLITE_ERROR and str(error).startswith("no such")
    return no_such or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def size(path: Path) -> int:
    """Bytes of a file and of its WAL."""
    names = (path, path.with_name(path.name + "-wal"))
    return sum(name.stat().st_size for name in names if name.exists())


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose commits are durable once they return. Creates the file if there is none."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=16)
    try:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def position_in(connection: sqlite3.Connection) -> int:
    """The number of the newest record of the spool that an open log file holds. Raises sqlite3.DatabaseError."""
    found = connection.execute("select record from position").fetchone()
    if found is None or not isinstance(found[0], int):
        raise sqlite3.DatabaseError("the position is damaged")
    return found[0]


def open_file(path: Path) -> sqlite3.Connection | None:
    """Open a log file and migrate it to the present schema; None if its creation was cut short. Raises NewerState."""
    connection = connect(path)
    try:
        version = connection.execute("pragma user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise NewerState(f"{path.name} was written by a newer version (schema {version}, known {SCHEMA_VERSION})")
        if version:
            for number in range(version + 1, SCHEMA_VERSION + 1):
                log.info("migrating an interval log file", extra={"file": path.name, "schema": number})
                connection.executescript(f"begin;{MIGRATIONS[number]}pragma user_version = {number};commit;")
            connection.execute("select max(id) from interval").fetchone()
            return connection
    except (sqlite3.Error, NewerState):
        connection.close()
        raise
    connection.close()
    return None

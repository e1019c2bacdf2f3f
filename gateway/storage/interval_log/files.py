"""One file of the interval log: its name, its schema, and what SQLite says when it is damaged."""

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
    """`sequence` orders files of one log, `day` is the UTC day of their commits."""

    sequence: int
    day: date
    path: Path


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite (or we) say that the file is not what was written, rather than that it cannot be used now."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    # a table or column that is not there any more; other errors of this code are mistakes of ours
    no_such = code == sqlite3.SQLITE_ERROR and str(error).startswith("no such")
    return no_such or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def size(path: Path) -> int:
    """Bytes of a file and of what SQLite keeps beside it."""
    names = (path, path.with_name(path.name + "-wal"))
    return sum(name.stat().st_size for name in names if name.exists())


def connect(path: Path) -> sqlite3.Connection:
    """A connection by which a commit is durable once it returns; made if there is no such file."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=16)
    try:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def open_file(path: Path) -> sqlite3.Connection | None:
    """A log file, brought to the present schema, or None for one whose creation was cut short. Raises NewerState."""
    connection = connect(path)
    try:
        version = connection.execute("pragma user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise NewerState(f"{path.name} was written by a newer version (schema {version}, known {SCHEMA_VERSION})")
        if version:
            for number in range(version + 1, SCHEMA_VERSION + 1):
                log.info("an interval log file gets a newer schema", extra={"file": path.name, "schema": number})
                connection.executescript(f"begin;{MIGRATIONS[number]}pragma user_version = {number};commit;")
            connection.execute("select max(id) from interval").fetchone()
            return connection
    except (sqlite3.Error, NewerState):
        connection.close()
        raise
    connection.close()
    return None

"""Facts about enrollments, from `programs.sqlite`: read-only, beside the daemon that writes it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.programs.facts import Fact
from gateway.storage.programs.facts import NAME, read_fact

BUSY_S = 5.0


def facts_beside(state_dir: Path) -> list[Fact]:
    """Every fact, in the order in which they were first noted. Raises StorageError, CorruptState."""
    with _opened(state_dir) as db:
        if db is None:
            return []
        return [read_fact(kind, body) for kind, body in db.execute("SELECT kind, body FROM facts ORDER BY id")]


def programs_enrolled(state_dir: Path) -> set[str]:
    """The programs of which there is an enrollment. Raises StorageError, CorruptState."""
    with _opened(state_dir) as db:
        if db is None:
            return set()
        return {name for (name,) in db.execute("SELECT DISTINCT program FROM facts WHERE kind = 'enrollment'")}


def facts_sign(state_dir: Path) -> str:
    """Another text once a fact was noted. Raises StorageError, CorruptState."""
    with _opened(state_dir) as db:
        if db is None:
            return ""
        return "/".join(map(str, db.execute("SELECT count(*), max(id), max(noted_ms) FROM facts").fetchone()))


@contextmanager
def _opened(state_dir: Path) -> Iterator[sqlite3.Connection | None]:
    """None: nothing was ever noted."""
    path = state_dir / NAME
    if not path.exists():
        yield None
        return
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_S)) as db:
            there = db.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'facts'").fetchone()
            yield db if there else None
    except sqlite3.OperationalError as error:
        raise StorageError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise CorruptState(f"{path}: {error}") from error

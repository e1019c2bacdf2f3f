"""Revisions of events' performance, in `money/performance.sqlite`, which the process beside the daemon alone writes.

`revisions` (id, event, own: the id that its source uses; occurrence_ms, revision: 1, 2, ..; program, from_ms, until_ms,
computed_ms, digest of its inputs, because: JSON list of what changed, summary: JSON, inputs: JSON compressed) and
`pages` (revision: its id, level, first: the first name in it, body: JSON list of figures by name, compressed).
`seen` (event, occurrence_ms, from_ms, until_ms, sign: what was looked at last, so that nothing is read again while that
is the same) and `progress` (file, row: up to where the interval log was looked through for late records). A revision is
never changed; what is older than its time is removed whole.
"""

import os
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import orjson

from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.events.scope import own_id
from gateway.domain.programs.revised import InputKind, Inputs
from gateway.domain.types import EventId
from gateway.files import sync_directory
from gateway.storage.programs.daily import DIRECTORY, check_free
from gateway.storage.sqlite_thread import transaction

NAME = "performance.sqlite"
SCHEMA_VERSION = 1
PAGE_ROWS = 200
BUSY_S = 5.0
Plain = Mapping[str, Any]

_SCHEMA = (
    "CREATE TABLE revisions (id INTEGER PRIMARY KEY, event TEXT NOT NULL, own TEXT NOT NULL, "
    "occurrence_ms INTEGER NOT NULL, revision INTEGER NOT NULL, program TEXT NOT NULL, from_ms INTEGER NOT NULL, "
    "until_ms INTEGER NOT NULL, computed_ms INTEGER NOT NULL, digest TEXT NOT NULL, because TEXT NOT NULL, "
    "summary TEXT NOT NULL, inputs BLOB NOT NULL, UNIQUE (event, occurrence_ms, revision))",
    "CREATE INDEX revisions_of_program ON revisions (program, from_ms)",
    "CREATE INDEX revisions_by_own_id ON revisions (own)",
    "CREATE TABLE pages (revision INTEGER NOT NULL, level TEXT NOT NULL, first TEXT NOT NULL, body BLOB NOT NULL, "
    "PRIMARY KEY (revision, level, first)) WITHOUT ROWID",
    "CREATE TABLE seen (event TEXT NOT NULL, occurrence_ms INTEGER NOT NULL, from_ms INTEGER NOT NULL, "
    "until_ms INTEGER NOT NULL, sign TEXT NOT NULL, PRIMARY KEY (event, occurrence_ms)) WITHOUT ROWID",
    "CREATE TABLE progress (one INTEGER PRIMARY KEY CHECK (one = 1), file INTEGER NOT NULL, row INTEGER NOT NULL)",
)
_SHOWN = "id, event, occurrence_ms, revision, computed_ms, digest, because, summary"
_NEWEST = (
    "revision = (SELECT max(revision) FROM revisions b WHERE b.event = a.event AND b.occurrence_ms = a.occurrence_ms)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRevision:
    """A revision as stored; `id` grows with every one. `because`: what changed since the one before, empty for the
    first. `summary`: see `schemas/performance`."""

    id: int
    event: str
    occurrence_ms: int
    revision: int
    computed_ms: int
    digest: str
    because: tuple[str, ...]
    summary: Plain


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRevision:
    """What is worked out of an occurrence. `figures` of each level, by name."""

    event: str
    occurrence_ms: int
    program: str
    from_ms: int
    until_ms: int
    digest: str
    because: Sequence[str]
    inputs: Inputs
    summary: Plain
    figures: Mapping[str, Sequence[Plain]]


class EventRevisions:
    """The revisions of a state directory; blocks. `write`: creates the file and may change it; without it one that is
    not there is empty. Use as a context manager. Raises StorageError, CorruptState."""

    def __init__(self, state_dir: Path, *, write: bool = False) -> None:
        self._path = state_dir / DIRECTORY / NAME
        with self._told():
            self._db = self._connected(write=write)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._db.close()

    def newest(self, event: str, occurrence_ms: int | None = None) -> EventRevision | None:
        """The newest revision of an occurrence, None = the newest occurrence that has one."""
        found = self._all(
            f"SELECT {_SHOWN} FROM revisions WHERE event = ? AND (? IS NULL OR occurrence_ms = ?) "  # noqa: S608 names of this module
            "ORDER BY occurrence_ms DESC, revision DESC LIMIT 1",
            (event, occurrence_ms, occurrence_ms),
        )
        return found[0] if found else None

    def one(self, event: str, occurrence_ms: int, revision: int) -> EventRevision | None:
        """One revision."""
        found = self._all(
            f"SELECT {_SHOWN} FROM revisions WHERE event = ? AND occurrence_ms = ? AND revision = ?",  # noqa: S608 names of this module
            (event, occurrence_ms, revision),
        )
        return found[0] if found else None

    def of_event(self, name: str, limit: int) -> list[EventRevision]:
        """Revisions of all occurrences of the events that are called so, by their sources or here; the newest first."""
        return self._all(
            f"SELECT {_SHOWN} FROM revisions WHERE own = ? AND ? IN (own, event) "  # noqa: S608 names of this module
            "ORDER BY occurrence_ms DESC, event, revision DESC LIMIT ?",
            (own_id(EventId(name)), name, limit),
        )

    def of_program(
        self, program: str, from_ms: int, until_ms: int, after: tuple[int, str] | None, limit: int
    ) -> list[EventRevision]:
        """The newest revisions of a program's occurrences that begin from an instant until before another one, by start
        and event, after a place."""
        start_ms, event = after or (-(1 << 62), "")
        return self._all(
            f"SELECT {_SHOWN} FROM revisions a WHERE program = ? AND from_ms >= ? AND from_ms < ? AND {_NEWEST} "  # noqa: S608 names of this module
            "AND (from_ms, event) > (?, ?) ORDER BY from_ms, event LIMIT ?",
            (program, from_ms, until_ms, start_ms, event, limit),
        )

    def figures(self, revision: int, level: str, after: str, limit: int) -> list[dict[str, Any]]:
        """Figures of a revision (its `id`) by name, after a name."""
        with self._told():
            rows = self._db.execute(
                "SELECT body FROM pages WHERE revision = ? AND level = ? AND first >= coalesce((SELECT max(first) FROM "
                "pages WHERE revision = ? AND level = ? AND first <= ?), '') ORDER BY first LIMIT ?",
                (revision, level, revision, level, after, limit // PAGE_ROWS + 2),
            ).fetchall()
        found = (figure for (body,) in rows for figure in orjson.loads(zlib.decompress(body)))
        return [figure for figure in found if figure["name"] > after or not after][:limit]

    def inputs(self, revision: int) -> Inputs:
        """What a revision (its `id`) was worked out from."""
        with self._told():
            (packed,) = self._db.execute("SELECT inputs FROM revisions WHERE id = ?", (revision,)).fetchone()
        return {InputKind(kind): values for kind, values in orjson.loads(zlib.decompress(packed)).items()}

    def sign(self, event: str, occurrence_ms: int) -> str | None:
        """What was looked at last of an occurrence."""
        with self._told():
            found = self._db.execute(
                "SELECT sign FROM seen WHERE event = ? AND occurrence_ms = ?", (event, occurrence_ms)
            ).fetchone()
        return None if found is None else str(found[0])

    def put(self, new: NewRevision, now_ms: int) -> int:
        """Store a revision as the next one of its occurrence, whole or not at all; returns its number."""
        pages = [
            (level, str(some[0]["name"]), zlib.compress(orjson.dumps(some), 6))
            for level, figures in new.figures.items() for some in _pages(figures)
        ]  # fmt: skip
        inputs = zlib.compress(orjson.dumps({kind.value: dict(values) for kind, values in new.inputs.items()}), 6)
        with self._told():
            check_free(self._path)
        with self._told(), transaction(self._db):
            (last,) = self._db.execute(
                "SELECT coalesce(max(revision), 0) FROM revisions WHERE event = ? AND occurrence_ms = ?",
                (new.event, new.occurrence_ms),
            ).fetchone()
            number = self._db.execute(
                "INSERT INTO revisions (event, own, occurrence_ms, revision, program, from_ms, until_ms, computed_ms, "
                "digest, because, summary, inputs) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (new.event, own_id(EventId(new.event)), new.occurrence_ms, last + 1, new.program, new.from_ms,
                 new.until_ms, now_ms, new.digest, orjson.dumps(list(new.because)).decode(),
                 orjson.dumps(new.summary).decode(), inputs),
            ).lastrowid  # fmt: skip
            self._db.executemany("INSERT INTO pages VALUES (?, ?, ?, ?)", [(number, *page) for page in pages])
        return int(last) + 1

    def note(self, event: str, occurrence_ms: int, span: tuple[int, int], sign: str) -> None:
        """What was looked at of an occurrence, whose figures rest on intervals within a span (UTC ms)."""
        with self._told(), transaction(self._db):
            self._db.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", (event, occurrence_ms, *span, sign))

    def progress(self) -> tuple[int, int] | None:
        """Up to which place (file, row) the interval log was looked through; None = not yet."""
        with self._told():
            found = self._db.execute("SELECT file, row FROM progress").fetchone()
        return None if found is None else (int(found[0]), int(found[1]))

    def note_progress(self, file: int, row: int, hours_ms: Sequence[int]) -> None:
        """The log was looked through up to a place; in these hours (their starts, UTC ms) it has new records. What
        rests on such an hour is to be looked at again."""
        with self._told(), transaction(self._db):
            self._db.execute(
                "DELETE FROM seen WHERE EXISTS (SELECT 1 FROM json_each(?) WHERE value < until_ms "
                "AND value + 3600000 > from_ms)",
                (orjson.dumps(list(hours_ms)).decode(),),
            )
            self._db.execute("INSERT OR REPLACE INTO progress VALUES (1, ?, ?)", (file, row))

    def prune(self, before_ms: int, most: int = 20) -> int:
        """Remove up to `most` revisions of occurrences that ended before an instant; returns how many."""
        with self._told(), transaction(self._db):
            gone = [
                number
                for (number,) in self._db.execute(
                    "SELECT id FROM revisions WHERE until_ms < ? LIMIT ?", (before_ms, most)
                )
            ]
            for number in gone:
                self._db.execute("DELETE FROM pages WHERE revision = ?", (number,))
                self._db.execute("DELETE FROM revisions WHERE id = ?", (number,))
            self._db.execute("DELETE FROM seen WHERE occurrence_ms < ?", (before_ms,))
        return len(gone)

    def _all(self, statement: str, values: tuple[object, ...]) -> list[EventRevision]:
        with self._told():
            rows = self._db.execute(statement, values).fetchall()
        return [
            EventRevision(
                id=number, event=event, occurrence_ms=occurrence_ms, revision=revision, computed_ms=computed_ms,
                digest=digest, because=tuple(orjson.loads(because)), summary=orjson.loads(summary),
            )
            for number, event, occurrence_ms, revision, computed_ms, digest, because, summary in rows
        ]  # fmt: skip

    def _connected(self, *, write: bool) -> sqlite3.Connection:
        if write and not self._path.exists():
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            sync_directory(self._path.parent)
        if not self._path.exists():
            return _empty()
        address = f"file:{quote(str(self._path.absolute()))}?mode={'rw' if write else 'ro'}"
        db = sqlite3.connect(address, uri=True, isolation_level=None, timeout=BUSY_S)
        try:
            found = int(db.execute("PRAGMA user_version").fetchone()[0])
            if found > SCHEMA_VERSION:
                raise CorruptState(f"{self._path}: schema {found} is newer than {SCHEMA_VERSION}, the newest known")
            if write:
                for pragma in ("journal_mode = WAL", "synchronous = FULL"):
                    db.execute(f"PRAGMA {pragma}").fetchall()
                if not found:
                    _make(db)
            elif not found:
                # it was created just now, and nothing is in it yet
                db.close()
                return _empty()
        except BaseException:
            db.close()
            raise
        return db

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self._path}: {error}") from error
        except (sqlite3.DatabaseError, zlib.error, orjson.JSONDecodeError) as error:
            raise CorruptState(f"{self._path}: {error}") from error
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror or error}") from error


def _empty() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _make(db)
    return db


def _make(db: sqlite3.Connection) -> None:
    with transaction(db):
        for statement in _SCHEMA:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _pages(figures: Sequence[Plain]) -> Iterator[list[Plain]]:
    ordered = sorted(figures, key=lambda figure: str(figure["name"]))
    for _, some in groupby(enumerate(ordered), key=lambda one: one[0] // PAGE_ROWS):
        yield [figure for _, figure in some]

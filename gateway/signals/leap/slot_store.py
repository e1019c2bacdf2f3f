"""Stores the aggregator's slots, and which bodies were read, in one SQLite file.

    slots    one row per slot: its key, what counts of it (JSON), when it was said and confirmed, its event of ours
    events   events of ours, and when they end
    bodies   bodies that were read, by name: one that was read before the process ended is not read again
    bad      the newest slots and bodies that could not be read

A body and what it changed are one transaction. One process writes.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from gateway.signals.leap.slot_book import KnownSlot, SlotKey
from gateway.signals.leap.slots import BadSlot, DispatchSlot

VERSION = 1
BAD_MAX = 1_000
BODIES_MAX = 20_000

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS slots (key TEXT PRIMARY KEY, end_ms INTEGER NOT NULL, entry TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS slots_by_end ON slots (end_ms)",
    "CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY, end_ms INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS bodies (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE IF NOT EXISTS bad (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL, at_ms INTEGER NOT NULL,"
    " place TEXT NOT NULL, problem TEXT NOT NULL, event_id TEXT NOT NULL)",
)
_TUPLES = ("types", "programs", "meters", "references", "gaps")


class SlotStore:
    """The file. Every method raises sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        try:
            for pragma in ("journal_mode = WAL", "synchronous = FULL"):
                self._db.execute(f"PRAGMA {pragma}").fetchall()
            found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            if found > VERSION:
                raise sqlite3.DatabaseError(f"schema {found} is newer than {VERSION}, the newest known")
            with self.transaction():
                for statement in _SCHEMA:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {VERSION}")
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it, or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def load(self) -> list[KnownSlot]:
        """Every slot."""
        return [_entry(orjson.loads(text)) for (text,) in self._db.execute("SELECT entry FROM slots")]

    def events(self) -> dict[str, int]:
        """Events of ours, and when they end, UTC ms."""
        return dict(self._db.execute("SELECT id, end_ms FROM events").fetchall())

    def has_read(self, body: str) -> bool:
        return self._db.execute("SELECT 1 FROM bodies WHERE name = ?", (body,)).fetchone() is not None

    def note_read(self, body: str) -> None:
        self._db.execute("INSERT OR IGNORE INTO bodies (name) VALUES (?)", (body,))
        self._db.execute("DELETE FROM bodies WHERE id <= (SELECT MAX(id) FROM bodies) - ?", (BODIES_MAX,))

    def keep(self, known: Iterable[KnownSlot]) -> None:
        """Store these slots as they are now."""
        rows = ((_key(one.slot.key), one.slot.end_ms, orjson.dumps(one).decode()) for one in known)
        self._db.executemany("INSERT OR REPLACE INTO slots VALUES (?, ?, ?)", rows)

    def keep_events(self, events: Mapping[str, int]) -> None:
        self._db.executemany("INSERT OR REPLACE INTO events VALUES (?, ?)", events.items())

    def keep_bad(self, body: str, at_ms: int, bad: Sequence[BadSlot]) -> None:
        """Note what could not be read; the newest are kept."""
        self._db.executemany(
            "INSERT INTO bad (body, at_ms, place, problem, event_id) VALUES (?, ?, ?, ?, ?)",
            ((body, at_ms, one.place, one.problem, one.event_id) for one in bad[:BAD_MAX]),
        )
        self._db.execute("DELETE FROM bad WHERE id <= (SELECT MAX(id) FROM bad) - ?", (BAD_MAX,))

    def bad(self, limit: int) -> list[dict[str, Any]]:
        """The newest that could not be read."""
        rows = self._db.execute(
            "SELECT body, at_ms, place, problem, event_id FROM bad ORDER BY id DESC LIMIT ?", (limit,)
        )
        names = ("body", "at_ms", "place", "problem", "event_id")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def forget(self, keys: Iterable[SlotKey], events_before_ms: int) -> None:
        self._db.executemany("DELETE FROM slots WHERE key = ?", ((_key(key),) for key in keys))
        self._db.execute("DELETE FROM events WHERE end_ms < ?", (events_before_ms,))


def _key(key: SlotKey) -> str:
    integration, level, event_id, owner = key
    return f"{int(integration)}/{level}/{event_id}/{owner}"


def _entry(stored: dict[str, Any]) -> KnownSlot:
    hint = stored["hint"]
    return KnownSlot(**(stored | {"slot": _slot(stored["slot"]), "hint": None if hint is None else _slot(hint)}))


def _slot(stored: dict[str, Any]) -> DispatchSlot:
    return DispatchSlot(**(stored | {name: tuple(stored[name]) for name in _TUPLES}))

"""What was dispatched of a program, from the journal's file: read-only, beside the daemon that writes it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import orjson

from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.events.lifecycle import EventState
from gateway.domain.journal.stored import StoredEvent
from gateway.storage.journal.bodies import read_event

_EVENTS = (
    "SELECT body, source, coalesce(state, iif(body ->> '$.request.cancelled', 'cancelled', 'scheduled')) FROM events "
    "WHERE end_ms > ? AND body ->> '$.request.program' = ? "
    "UNION ALL SELECT body, source, state FROM past_events WHERE end_ms > ? AND body ->> '$.request.program' = ?"
)


def dispatched_events(path: Path, program: str, from_ms: int) -> list[StoredEvent]:
    """Events of a program that end after `from_ms` (UTC) and were decided here, whatever became of them. A journal that
    is not there has none. Raises StorageError, CorruptState."""
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5.0)) as db:
            return list(_read(db, program, from_ms))
    except sqlite3.OperationalError as error:
        raise StorageError(f"{path}: {error}") from error
    except (sqlite3.DatabaseError, KeyError, TypeError, ValueError) as error:
        raise CorruptState(f"{path}: not readable events: {error}") from error


def _read(db: sqlite3.Connection, program: str, from_ms: int) -> Iterator[StoredEvent]:
    for body, source, state in db.execute(_EVENTS, (from_ms, program) * 2):
        decided = read_event(orjson.loads(body), source)
        yield StoredEvent(request=decided.request, decided_ms=decided.answer.decided_ms, state=EventState(state))

"""Occurrences of events that are over, from the journal's file: read-only, beside the daemon that writes it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import orjson

from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.events.lifecycle import EventState
from gateway.domain.journal.stored import StoredEvent, StoredRecords
from gateway.domain.types import EventId
from gateway.storage.journal import past_events
from gateway.storage.journal.bodies import read_event

BUSY_S = 5.0

_PLAYED = (
    "SELECT d.event, d.occurrence_ms, d.ended_ms, length(d.body), e.body, e.source, e.state FROM deliveries d JOIN ("
    "SELECT id, body, source, coalesce(state, iif(body ->> '$.request.cancelled', 'cancelled', 'scheduled')) AS state "
    "FROM events UNION ALL SELECT id, body, source, state FROM past_events) e ON e.id = d.event "
    "WHERE d.ended_ms > ? ORDER BY d.ended_ms, d.event"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayedOccurrence:
    """An occurrence of an event that is over, with the newest revision of the event; `bytes` of its delivery records
    are another number where these changed."""

    event: StoredEvent
    occurrence_ms: int
    ended_ms: int
    bytes: int

    @property
    def span(self) -> tuple[int, int]:
        """Start and end of what ran, UTC ms; the end is not after the start where nothing did."""
        recorded = self.event.request.recorded_ms(self.occurrence_ms)
        return self.occurrence_ms, self.ended_ms if recorded is None else min(recorded[1], self.ended_ms)


def played(path: Path, from_ms: int) -> list[PlayedOccurrence]:
    """What was over after `from_ms` (UTC), by its end. A journal that is not there has none. Raises StorageError,
    CorruptState."""
    if not path.exists():
        return []
    with _opened(path) as db:
        return [
            PlayedOccurrence(
                event=_event(body, source, state), occurrence_ms=occurrence_ms, ended_ms=ended_ms, bytes=size
            )
            for _, occurrence_ms, ended_ms, size, body, source, state in db.execute(_PLAYED, (from_ms,))
        ]


def records_of(path: Path, event: EventId, occurrence_ms: int) -> StoredRecords:
    """All delivery records of an occurrence. Raises StorageError, CorruptState."""
    with _opened(path) as db:
        return past_events.records(db, event, occurrence_ms, slice(None))


def ratings_w(path: Path) -> dict[str, float]:
    """The discharge rating of every registered battery, W on the AC side. Raises StorageError, CorruptState."""
    if not path.exists():
        return {}
    with _opened(path) as db:
        return {
            device: float(watts)
            for device, watts in db.execute("SELECT id, body ->> '$.discharge_w_max' FROM devices")
            if watts is not None
        }


def _event(body: str, source: str | None, state: str) -> StoredEvent:
    decided = read_event(orjson.loads(body), source)
    return StoredEvent(request=decided.request, decided_ms=decided.answer.decided_ms, state=EventState(state))


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_S)) as db:
            yield db
    except sqlite3.OperationalError as error:
        raise StorageError(f"{path}: {error}") from error
    except (sqlite3.DatabaseError, KeyError, TypeError, ValueError) as error:
        raise CorruptState(f"{path}: not readable: {error}") from error

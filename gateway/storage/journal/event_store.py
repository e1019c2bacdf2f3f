"""Reads events that are over, their delivery records and the audit trail: on a connection and a thread of its own, so
that no question keeps a release plan waiting."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.journal.stored import (
    AuditChain,
    AuditEntry,
    AuditQuestion,
    DeliveredEvent,
    StoredEvent,
    StoredOccurrence,
    StoredRecords,
)
from gateway.domain.registry.connection import Connection
from gateway.domain.registry.placement import Placement
from gateway.domain.types import EventId
from gateway.observability.parts import Part
from gateway.storage.journal import audit_chain, audit_rows, past_events
from gateway.storage.registry import connections, placements

T = TypeVar("T")


class SqliteEventStore(Part):
    """Implements `gateway.ports.EventStore` and `AuditTrail` on the journal's file, which the journal has opened before
    the first question. Call `close` at the end; it blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="event-store")
        self._db: sqlite3.Connection | None = None
        self._closed = False

    async def events(self, after: tuple[int, str] | None, limit: int) -> tuple[list[StoredEvent], bool]:
        """A page of archived events, newest start first, and whether there are more."""
        return await self._ask(lambda db: past_events.page(db, after, limit))

    async def known(self, event_id: str) -> list[StoredEvent]:
        """Events that are over and have this id, of every source."""
        return await self._ask(lambda db: past_events.known(db, event_id))

    async def occurrences(self, event: EventId, before_ms: int | None, limit: int) -> list[StoredOccurrence]:
        """The newest occurrences that are over, oldest first."""
        return await self._ask(lambda db: past_events.occurrences(db, event, before_ms, limit))

    async def records(self, event: EventId, occurrence_ms: int | None, rows: slice) -> StoredRecords:
        """Delivery records of one occurrence (None = the newest)."""
        return await self._ask(lambda db: past_events.records(db, event, occurrence_ms, rows))

    async def delivered_between(self, from_ms: int, until_ms: int, limit: int) -> list[DeliveredEvent]:
        """Occurrences that are over and ran within a stretch of time, the newest `limit` of them, oldest first."""
        return await self._ask(lambda db: past_events.delivered_between(db, from_ms, until_ms, limit))

    async def records_of(self, event: EventId, occurrence_ms: int, devices: Sequence[str]) -> StoredRecords:
        """Delivery records of some devices in one occurrence."""
        return await self._ask(lambda db: past_events.records_of(db, event, occurrence_ms, devices))

    @property
    def kinds(self) -> Sequence[str]:
        """What an entry of the audit trail may be."""
        return audit_rows.KINDS

    async def audit(self, question: AuditQuestion, limit: int) -> list[AuditEntry]:
        """What was journalled, newest first."""
        return await self._ask(lambda db: audit_rows.entries(db, question, limit))

    async def chain(self, head: str | None = None) -> AuditChain:
        """Whether the audit trail is what was written. `head`: a hash that must be in it."""
        return await self._ask(lambda db: audit_chain.verify(db, head))

    async def connections(self, device: str) -> list[Connection]:
        """What a device was and where, oldest first; none = it was never registered."""
        return await self._ask(lambda db: connections.of_device(db, device))

    async def placements(self, device: str) -> list[Placement]:
        """At which site and meter a device was, oldest first."""
        return await self._ask(lambda db: placements.of_device(db, device))

    def close(self) -> None:
        """Finish the question under way and close the file. A second call has no effect."""
        if not self._closed:
            self._closed = True
            self._thread.submit(self._close).result()
        self._thread.shutdown(wait=True)

    async def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise StorageError("the event store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, question)

    # Below: the store's thread.

    def _answer(self, question: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._db is None:
                address = f"file:{quote(str(self._path))}?mode=ro"
                self._db = sqlite3.connect(address, uri=True, isolation_level=None, timeout=5.0)
            return question(self._db)
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self._path}: {error}") from error
        except (sqlite3.DatabaseError, KeyError, TypeError, ValueError) as error:
            raise CorruptState(f"{self._path}: not readable events: {error}") from error

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

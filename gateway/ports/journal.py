"""The ports of the journal: where changes are committed, and where what is over and the audit trail are read."""

from collections.abc import Sequence
from typing import Protocol

from gateway.domain.journal.changes import Change, EventDelivered, EventsArchived
from gateway.domain.journal.stored import (
    AuditChain,
    AuditEntry,
    AuditQuestion,
    DeliveredEvent,
    JournalState,
    StoredEvent,
    StoredOccurrence,
    StoredRecords,
)
from gateway.domain.registry.connection import Connection
from gateway.domain.registry.placement import Placement
from gateway.domain.types import EventId


class Journal(Protocol):
    """Durable memory of decisions: events, release plans, inventory, audit."""

    def load(self) -> JournalState:
        """Read everything and begin a new epoch (durably)."""
        ...

    def sequence(self) -> int:
        """The number of a change that is decided now: larger than all before, those of earlier runs included."""
        ...

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make `changes` durable in one transaction, in the order of their numbers; what is older than what is stored
        of the same thing, or was committed before, is left out. Raises StorageError; then none of them is."""
        ...

    async def put_away(self, changes: Sequence[EventDelivered | EventsArchived]) -> None:
        """Make durable what is over, beside the commits: none of them waits for it. Raises StorageError; then some of
        them may be."""
        ...

    async def known(self, event_id: str) -> list[StoredEvent]:
        """The stored events that are over and have this id, of every source. Raises StorageError."""
        ...


class EventStore(Protocol):
    """Reads events that are over, and their delivery records, beside the journal. Every method raises StorageError."""

    async def events(self, after: tuple[int, str] | None, limit: int) -> tuple[list[StoredEvent], bool]:
        """Archived events, newest start first, then by id, and whether there are more; `after`: start (epoch ms) and id
        of the last one known. Large ones make a page shorter."""
        ...

    async def known(self, event_id: str) -> list[StoredEvent]:
        """The events that are over and have this id, of every source."""
        ...

    async def occurrences(self, event: EventId, before_ms: int | None, limit: int) -> list[StoredOccurrence]:
        """The newest occurrences of an event that are over, oldest first; `before_ms`: those that began earlier."""
        ...

    async def records(self, event: EventId, occurrence_ms: int | None, rows: slice) -> StoredRecords:
        """Delivery records of one occurrence (None = the newest)."""
        ...


class DeliveryHistory(Protocol):
    """Reads what was delivered when, beside the journal. Every method raises StorageError."""

    async def delivered_between(self, from_ms: int, until_ms: int, limit: int) -> list[DeliveredEvent]:
        """Occurrences that are over and ran within `[from_ms, until_ms)`, the newest `limit` of them, oldest first."""
        ...

    async def known(self, event_id: str) -> list[StoredEvent]:
        """The events that are over and have this id, of every source."""
        ...

    async def records(self, event: EventId, occurrence_ms: int | None, rows: slice) -> StoredRecords:
        """Delivery records of one occurrence (None = the newest)."""
        ...

    async def records_of(self, event: EventId, occurrence_ms: int, devices: Sequence[str]) -> StoredRecords:
        """The delivery records of some devices in one occurrence."""
        ...


class DeviceHistory(Protocol):
    """Reads what devices were, and where, beside the journal."""

    async def connections(self, device: str) -> list[Connection]:
        """Oldest first; none = it was never registered. Raises StorageError."""
        ...

    async def placements(self, device: str) -> list[Placement]:
        """Oldest first. Raises StorageError."""
        ...


class AuditTrail(Protocol):
    """Reads what was journalled, beside the journal."""

    @property
    def kinds(self) -> Sequence[str]:
        """What an entry may be."""
        ...

    async def audit(self, question: AuditQuestion, limit: int) -> list[AuditEntry]:
        """At most `limit` entries, newest first. Raises StorageError."""
        ...

    async def chain(self, head: str | None = None) -> AuditChain:
        """Whether the trail is what was written. `head`: a hash that must be in it. Raises StorageError."""
        ...

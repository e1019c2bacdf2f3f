"""The port of the journal: the changes services commit, and the state a start loads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from numpy.typing import NDArray

from gateway.domain.events.book import Answer
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.lifecycle import EventState
from gateway.domain.events.request import EventRequest
from gateway.domain.events.take_backs import TakeBack
from gateway.domain.fleet.device import Device
from gateway.domain.types import DeviceId, EventId

UNNUMBERED = 0
"""The `seq` of a change that gets its number when it is committed. Every other `seq` is from `Journal.sequence`: it
says when the change was decided, and of two changes of one thing the journal keeps the later one, in whatever order
they are committed."""


class AuditDoor(StrEnum):
    """Through which door a change came: the gateway itself, a device, REST, the platform's connection, or the command
    line while no daemon runs."""

    GATEWAY = "gateway"
    DEVICE = "device"
    REST = "rest"
    PLATFORM = "mqtt"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRegistered:
    """A device was registered or changed."""

    device: Device
    by: str = field(default="", compare=False)
    door: AuditDoor = field(default=AuditDoor.GATEWAY, compare=False)
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDecided:
    """The newest accepted revision of an event (also its cancellation: a tombstone)."""

    request: EventRequest
    answer: Answer
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventMoved:
    """An event moved to another state."""

    event: EventId
    revision: int
    state: EventState
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventWithdrawn:
    """An operator cancelled an event here; no revision of its source brings it back."""

    event: EventId
    by: str
    door: AuditDoor = field(default=AuditDoor.GATEWAY, compare=False)
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalLifted:
    """An operator lets the source of an event revise it again."""

    event: EventId
    by: str = field(default="", compare=False)
    door: AuditDoor = field(default=AuditDoor.GATEWAY, compare=False)
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsArchived:
    """These events are over and are no longer remembered by the dispatcher: the store alone has them."""

    events: tuple[EventId, ...]
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDelivered:
    """An event (or an occurrence of one) is over: its delivery records, as columns over its devices."""

    event: EventId
    occurrence_ms: int
    ended_ms: int
    devices: tuple[DeviceId, ...]
    columns: Mapping[str, NDArray[Any]]
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExclusionSet:
    """An owner or operator excludes devices from dispatch."""

    exclusion: Exclusion
    by: str = field(default="", compare=False)
    door: AuditDoor = field(default=AuditDoor.GATEWAY, compare=False)
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExclusionLifted:
    """An exclusion has ended."""

    id: str
    by: str = field(default="", compare=False)
    door: AuditDoor = field(default=AuditDoor.GATEWAY, compare=False)
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """The gateway no longer writes to these devices (or products, `product:<profile>`), since `since_ms` (UTC; None =
    unknown)."""

    names: tuple[str, ...]
    reason: str
    since_ms: int | None = field(default=None, compare=False)
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """An operator lifted these quarantines and freezes: who, and why."""

    names: tuple[str, ...]
    by: str = field(default="", compare=False)
    reason: str = field(default="", compare=False)
    door: AuditDoor = field(default=AuditDoor.GATEWAY, compare=False)
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBack:
    """Owners took devices back from an event, at `at_ms` (UTC): see `take_backs`."""

    event: EventId
    devices: tuple[DeviceId, ...]
    at_ms: int
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeBackOver:
    """The event that these devices were taken back from may have them again."""

    event: EventId
    devices: tuple[DeviceId, ...]
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlTaken:
    """The release plan, written before the first setpoint: these devices must be released, whatever happens."""

    devices: tuple[DeviceId, ...]
    event: EventId
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlEnded:
    """These devices are back in the maker's own mode."""

    devices: tuple[DeviceId, ...]
    reason: str
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveChanged:
    """The owner's newest reserve (percent); `source`: a device report or an operator."""

    devices: tuple[DeviceId, ...]
    reserve_pct: tuple[float, ...]
    source: str
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAll:
    """An operator stopped dispatch (or allowed it again)."""

    active: bool
    by: str
    door: AuditDoor = field(default=AuditDoor.GATEWAY, compare=False)
    seq: int = field(default=UNNUMBERED, compare=False)


EPOCH_MAX = 2_000_000
"""Ids of commands stay below what a device can say: see `CommandIds`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRaised:
    """Command ids jumped ahead: the next start begins after `epoch`."""

    epoch: int
    seq: int = field(default=UNNUMBERED, compare=False)


Setting = float | str | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorSaved:
    """A device's settings from before we touched them, durable before the first write; written back at release."""

    device: DeviceId
    settings: Mapping[str, Setting]
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorRestored:
    """The device has its own settings again; the journal forgets the saved ones."""

    device: DeviceId
    seq: int = field(default=UNNUMBERED, compare=False)


Change = (
    DeviceRegistered
    | EventDecided
    | EventMoved
    | EventWithdrawn
    | WithdrawalLifted
    | EventsArchived
    | EventDelivered
    | ExclusionSet
    | ExclusionLifted
    | Quarantined
    | Trusted
    | TakenBack
    | TakeBackOver
    | ControlTaken
    | ControlEnded
    | ReserveChanged
    | StopAll
    | EpochRaised
    | PriorSaved
    | PriorRestored
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalState:
    """What the journal remembers at start. `epoch` grows at every start and prefixes command ids. `states`: newest
    revision and state by event; `quarantined`: the reason by device or `product:<profile>`, `quarantined_since_ms`:
    since when (UTC), where that is known; `delivered`: the occurrences that have delivery records; `withdrawn`: who
    cancelled an event here, by event."""

    epoch: int
    devices: tuple[Device, ...]
    events: tuple[EventDecided, ...]
    controlled: dict[DeviceId, EventId]
    stopped: bool
    prior: dict[DeviceId, Mapping[str, Setting]]
    states: dict[EventId, tuple[int, EventState]] = field(default_factory=dict)
    exclusions: tuple[Exclusion, ...] = ()
    quarantined: dict[str, str] = field(default_factory=dict)
    quarantined_since_ms: dict[str, int] = field(default_factory=dict)
    delivered: frozenset[tuple[EventId, int]] = frozenset()
    withdrawn: dict[EventId, str] = field(default_factory=dict)
    taken_back: tuple[TakeBack, ...] = ()


PAST = (EventDelivered, EventsArchived)
"""What is put away beside the commits."""


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

    async def known(self, event_id: str) -> list["StoredEvent"]:
        """The stored events that are over and have this id, of every source. Raises StorageError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """The newest stored revision of an event, and its last state. `held_by`: the operator who cancelled it here."""

    request: EventRequest
    decided_ms: int
    state: EventState
    held_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredOccurrence:
    """An occurrence that is over: when it began and ended, and how many devices have a delivery record of it."""

    occurrence_ms: int
    ended_ms: int
    devices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecords:
    """Some of the `total` delivery records of an occurrence that is over, as columns over their devices."""

    total: int
    devices: tuple[DeviceId, ...]
    columns: Mapping[str, NDArray[Any]]


NO_RECORDS = StoredRecords(total=0, devices=(), columns={})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """A change that was journalled: what, when (UTC), by whom and through which door; `by` and `door` are None in
    entries of release 0.1. `id` grows."""

    id: int
    utc_ms: int
    kind: str
    by: str | None
    door: str | None
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuestion:
    """Entries from `from_ms` until `until_ms` (UTC), of one `kind`, older than the one with the id `before`; None =
    whatever it is."""

    from_ms: int | None = None
    until_ms: int | None = None
    kind: str | None = None
    before: int | None = None


class AuditTrail(Protocol):
    """Reads what was journalled, beside the journal."""

    async def audit(self, question: AuditQuestion, limit: int) -> list[AuditEntry]:
        """At most `limit` entries, newest first. Raises StorageError."""
        ...

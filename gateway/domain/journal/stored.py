"""What the journal remembers: the state that a start loads, events that are over, and the audit trail."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.lifecycle import EventState
from gateway.domain.events.request import EventRequest
from gateway.domain.events.take_backs import TakeBack
from gateway.domain.fleet.device import Device
from gateway.domain.journal.changes import AuditDoor, EventDecided, Setting
from gateway.domain.types import DeviceId, EventId


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """A device that leaves its place as soon as it is handed back there, to be registered like `wanted`, or (None) to
    be removed; since when (UTC), and who asked for it through which door."""

    device: DeviceId
    wanted: Device | None
    since_ms: int
    by: str
    door: AuditDoor


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalState:
    """What the journal remembers at start. `epoch` grows at every start and prefixes command ids. `states`: newest
    revision and state by event; `quarantined`: the reason by device or `product:<profile>`, `quarantined_since_ms`:
    since when (UTC), where that is known; `delivered`: the occurrences that have delivery records; `withdrawn`: who
    cancelled an event here, by event; `departures` and, of devices that were removed lately, `removed`: the ids;
    `replaced`: since when (UTC ms) another battery answers as the devices that moved."""

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
    departures: tuple[Departure, ...] = ()
    removed: tuple[DeviceId, ...] = ()
    replaced: Mapping[DeviceId, int] = field(default_factory=dict)


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
class DeliveredEvent:
    """An occurrence of an event that is over and has delivery records: when it began and ended."""

    event: EventId
    occurrence_ms: int
    ended_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecords:
    """Some of the `total` delivery records of an occurrence that is over, as columns over their devices."""

    total: int
    devices: tuple[DeviceId, ...]
    columns: Mapping[str, NDArray[Any]]


NO_RECORDS = StoredRecords(total=0, devices=(), columns={})


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
class AuditChain:
    """What reading the whole audit trail found: how many `rows`, from the number `first` to `last`, of which
    `unchained` were written by a release before and have no hash; `head`: the newest hash that is right; `broken`: the
    first row that is not what was written, and why (None: none)."""

    rows: int
    unchained: int
    first: int | None
    last: int | None
    head: str | None
    broken: tuple[int, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuestion:
    """Entries from `from_ms` until `until_ms` (UTC), of one `kind`, older than the one with the id `before`; None =
    whatever it is."""

    from_ms: int | None = None
    until_ms: int | None = None
    kind: str | None = None
    before: int | None = None

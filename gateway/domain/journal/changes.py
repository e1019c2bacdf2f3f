"""The changes that are journalled: what was decided, by whom, and in which order."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from numpy.typing import NDArray

from gateway.domain.events.book import Answer
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.lifecycle import EventState
from gateway.domain.events.request import EventRequest
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
class DeviceRemoved:
    """A device was taken out of the registry; what it has sent, and where it was, stays."""

    device: DeviceId
    by: str = field(default="", compare=False)
    door: AuditDoor = field(default=AuditDoor.GATEWAY, compare=False)
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DepartureAsked:
    """A device is to be registered like `wanted` (None: to be removed) as soon as it is handed back where it is."""

    device: DeviceId
    wanted: Device | None
    by: str = field(default="", compare=False)
    door: AuditDoor = field(default=AuditDoor.GATEWAY, compare=False)
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DepartureOver:
    """These devices leave their places no more: they have, nobody wants it any more (`withdrawn`), or an operator gave
    up what was left there (`abandoned`: `why`)."""

    devices: tuple[DeviceId, ...]
    reason: str
    why: str = field(default="", compare=False)
    by: str = field(default="", compare=False)
    door: AuditDoor = field(default=AuditDoor.GATEWAY, compare=False)
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDecided:
    """The newest accepted revision of an event (also its cancellation: a tombstone). `by`: who sent it; "" = its source
    does not say."""

    request: EventRequest
    answer: Answer
    by: str = field(default="", compare=False)
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
class RawDiscarded:
    """An operator discarded the settlement messages that were kept raw of these topics: who, and why."""

    names: tuple[str, ...]
    messages: int
    by: str = field(default="", compare=False)
    reason: str = field(default="", compare=False)
    door: AuditDoor = field(default=AuditDoor.GATEWAY, compare=False)
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsChanged:
    """Enrollments, consents, customers or payees changed in one commit (`batch`), noted at `noted_ms` (UTC). `body`:
    how many of which kind, their hash, and the first before and after; the store of facts has all of them."""

    batch: str
    noted_ms: int
    body: Mapping[str, Any]
    by: str = field(default="", compare=False)
    door: AuditDoor = field(default=AuditDoor.GATEWAY, compare=False)
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxChanged:
    """Somebody proposed changes at the aggregator, gave leave to them, sent them or took them back (`action`): of which
    meters (`names`), and which rows of the outbox. `write`: what is changed there."""

    action: str
    write: str
    names: tuple[str, ...]
    numbers: tuple[int, ...]
    by: str = field(default="", compare=False)
    door: AuditDoor = field(default=AuditDoor.GATEWAY, compare=False)
    seq: int = field(default=UNNUMBERED, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseChanged:
    """Cases of homes (`names`) were opened, reopened, assigned, snoozed or closed (`action`), by their numbers."""

    action: str
    names: tuple[str, ...]
    numbers: tuple[int, ...]
    by: str = field(default="", compare=False)
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
    | DeviceRemoved
    | DepartureAsked
    | DepartureOver
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
    | RawDiscarded
    | FactsChanged
    | OutboxChanged
    | CaseChanged
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


PAST = (EventDelivered, EventsArchived)
"""What is put away beside the commits."""

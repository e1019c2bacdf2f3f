"""The seams: what services ask of links, signals, sinks and the journal. Adapters implement these structurally."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from gateway.domain.commands import CommandBatch, WriteReport
from gateway.domain.events.book import Answer
from gateway.domain.events.exclusions import Hold
from gateway.domain.events.lifecycle import EventState
from gateway.domain.events.request import EventRequest
from gateway.domain.fleet.device import Connection, Device
from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.readings import AckToken, ReadingBatch
from gateway.domain.types import DeviceId, EventId
from gateway.profiles.compiled.points import Read
from gateway.profiles.compiled.sequences import Request
from gateway.profiles.language.points import Point
from gateway.profiles.language.product import ProfileDocument

Emit = Callable[[ReadingBatch], None]
Submit = Callable[[EventRequest], Awaitable[Answer]]


class DeviceLink(Protocol):
    """Keeps the connections to many devices of one kind. Moves readings and commands; never decides or retries."""

    async def run(self, emit: Emit) -> None:
        """Serve until cancelled; `emit` is called on the loop, in the order received per device."""
        ...

    async def write(self, batch: CommandBatch, *, deadline_mono_ms: int) -> WriteReport:
        """Write all commands concurrently under one deadline. Rejects what it cannot encode; adjusts nothing."""
        ...

    def acknowledge(self, token: AckToken) -> None:
        """Tell the sender that the batch behind `token` is durable; without effect if the connection has changed."""
        ...

    def hold_telemetry(self, on: bool) -> None:
        """Stop (or go on) reading settlement telemetry: back-pressure, or priority for a dispatch."""
        ...

    def start_over(self) -> None:
        """Give up the telemetry session's connection, so that everything unacknowledged is sent again."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A device to connect to: its enrollment, the profile's document and the points of its variant. `secret` is the
    secret itself, "" = none."""

    device: DeviceId
    connection: Connection
    secret: str
    document: ProfileDocument
    points: Mapping[str, Point]


class PointLink(Protocol):
    """The values of one device. Moves raw values; decides nothing and does not reconnect by itself.

    `heard_mono_ms`: when the device last said something by itself; None for products that are asked.

    Every method but `close` raises LinkDown (not reached or no answer in time: what a write did is unknown), PeerBusy
    (asked to come later), PeerRefused (the device said no) and ProtocolViolation (the answer was none).
    """

    @property
    def heard_mono_ms(self) -> int | None: ...

    async def open(self) -> None:
        """Connect, log in and find what addresses rest on (SunSpec). Raises NotThisProduct where that is not there."""
        ...

    async def read(self, points: Sequence[str]) -> Mapping[str, Read]:
        """Raw values of `points`; one that the device does not have is MISSING."""
        ...

    async def write(self, request: Request) -> None:
        """Write one request, before reads that wait; returns once the device has taken it."""
        ...

    async def close(self) -> None:
        """Give up the connection (or the share in one); never raises."""
        ...


class PointLinks(Protocol):
    """All devices of one transport; shares connections, quotas and pacing between them."""

    def link(self, target: Target) -> PointLink:
        """A link to one device; does no I/O."""
        ...

    async def close(self) -> None:
        """Give up everything shared."""
        ...


class Signal(Protocol):
    """A source of dispatch events."""

    async def run(self, submit: Submit) -> None:
        """Serve until cancelled; each delivery is submitted once and answered after the decision is durable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """The receiver has the whole batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """The receiver refuses these rows for good and has the others: the reason by position in the batch."""

    refused: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Nothing is known to have arrived: keep the batch and try later (not before `after_s`). `whole`: it is this batch
    that cannot be taken, so a smaller one may be."""

    reason: str
    after_s: float = 0.0
    whole: bool = False


SinkResult = Accept | Reject | Keep


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalBatch:
    """Interval records in log order. `id` is the same for the same content: an idempotency key. `again`: somebody wants
    these sent once more, they are not the next of the log."""

    id: str
    rows: Sequence[IntervalRecord]
    again: bool = False


class Sink(Protocol):
    """A receiver of interval records. Passive: one batch, one answer; the cursor and the retries are not its job.
    `batch_rows`: the most rows that a batch for it has."""

    name: str
    batch_rows: int

    def wants(self, record: IntervalRecord) -> bool:
        """Whether this record is for this receiver at all; what is not is passed over and counted nowhere."""
        ...

    async def send(self, batch: IntervalBatch) -> SinkResult: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingInterval:
    """A time that the aggregator waits for data of, ends in epoch ms. `device`: None = the meter is none of ours."""

    device: DeviceId | None
    meter_id: str
    start_ms: int
    end_ms: int
    status: str
    data_type: str
    deadline_ms: int | None


Audit = Callable[[int, int], Awaitable[Sequence[MissingInterval] | Keep]]
"""Asks a receiver what it lacks between two times (UTC ms)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEnrolled:
    """A device was enrolled or changed."""

    device: Device


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDecided:
    """The newest accepted revision of an event (also its cancellation: a tombstone)."""

    request: EventRequest
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class EventMoved:
    """An event came to another state of its life."""

    event: EventId
    revision: int
    state: EventState


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDelivered:
    """An event (or an occurrence of one) is over: its delivery records, as columns over its devices."""

    event: EventId
    occurrence_ms: int
    ended_ms: int
    devices: tuple[DeviceId, ...]
    columns: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldSet:
    """Devices are kept out of dispatch by choice."""

    hold: Hold


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldLifted:
    """A hold has ended."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """Devices (or products, `product:<profile>`) that are not written any more."""

    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """An operator lifted these quarantines."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlTaken:
    """Release plan, written before the first setpoint: these devices must be released, whatever happens."""

    devices: tuple[DeviceId, ...]
    event: EventId


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlEnded:
    """These devices are back in the maker's own mode."""

    devices: tuple[DeviceId, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveChanged:
    """The owner's reserve as last chosen (percent), by device report or by operator."""

    devices: tuple[DeviceId, ...]
    reserve_pct: tuple[float, ...]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAll:
    """Dispatch is stopped (or allowed again) by an operator."""

    active: bool
    by: str


Setting = float | str | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorSaved:
    """What a device's settings were before we touched them, durable before the first write; restored at release."""

    device: DeviceId
    settings: Mapping[str, Setting]


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorRestored:
    """The device holds its own settings again; what was saved is forgotten."""

    device: DeviceId


Change = (
    DeviceEnrolled
    | EventDecided
    | EventMoved
    | EventDelivered
    | HoldSet
    | HoldLifted
    | Quarantined
    | Trusted
    | ControlTaken
    | ControlEnded
    | ReserveChanged
    | StopAll
    | PriorSaved
    | PriorRestored
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalState:
    """What the journal remembers at start. `epoch` is larger at every start; it prefixes command ids. `states`: the
    revision and state each event was last seen in; `quarantined`: why, by device or `product:<profile>`; `delivered`:
    the occurrences whose delivery records are there."""

    epoch: int
    devices: tuple[Device, ...]
    events: tuple[EventDecided, ...]
    controlled: dict[DeviceId, EventId]
    stopped: bool
    prior: dict[DeviceId, Mapping[str, Setting]]
    states: dict[EventId, tuple[int, EventState]] = field(default_factory=dict)
    holds: tuple[Hold, ...] = ()
    quarantined: dict[str, str] = field(default_factory=dict)
    delivered: frozenset[tuple[EventId, int]] = frozenset()


class Journal(Protocol):
    """Durable memory of decisions: events, release plans, inventory, audit."""

    def load(self) -> JournalState:
        """Read everything and begin a new epoch (durably)."""
        ...

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make `changes` durable in one transaction, in order. Raises StorageError; then none of them is."""
        ...

    async def delivered(self, event: EventId) -> list[EventDelivered]:
        """The delivery records of an event that is over, by occurrence. Raises StorageError."""
        ...

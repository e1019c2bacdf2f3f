"""The seams: what services ask of links, signals, sinks and the journal. Adapters implement these structurally."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.domain.dispatch import Answer
from gateway.domain.model import (
    AckToken,
    CommandBatch,
    Device,
    DeviceId,
    EventId,
    EventRequest,
    IntervalRecord,
    ReadingBatch,
    WriteReport,
)

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
    """The receiver refuses these rows (by position) for good and has the others."""

    rows: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Nothing is known to have arrived: keep the batch and try later (not before `after_s`)."""

    reason: str
    after_s: float = 0.0


SinkResult = Accept | Reject | Keep


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalBatch:
    """Interval records in log order. `id` is the same for the same content: an idempotency key."""

    id: str
    rows: Sequence[IntervalRecord]


class Sink(Protocol):
    """A receiver of interval records. Passive: one batch, one answer; the cursor and the retries are not its job."""

    name: str

    async def send(self, batch: IntervalBatch) -> SinkResult: ...


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


Change = DeviceEnrolled | EventDecided | ControlTaken | ControlEnded | ReserveChanged | StopAll


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalState:
    """What the journal remembers at start. `epoch` is larger at every start; it prefixes command ids."""

    epoch: int
    devices: tuple[Device, ...]
    events: tuple[EventDecided, ...]
    controlled: dict[DeviceId, EventId]
    stopped: bool


class Journal(Protocol):
    """Durable memory of decisions: events, release plans, inventory, audit."""

    def load(self) -> JournalState:
        """Read everything and begin a new epoch (durably)."""
        ...

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make `changes` durable in one transaction, in order. Raises StorageError; then none of them is."""
        ...

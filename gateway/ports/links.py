"""The ports towards batteries: what services ask of links. Adapters implement these structurally."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from gateway.domain.commands import CommandBatch, WriteReport
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.readings import AckToken, EnergyBatch, RawMessage, ReadingBatch
from gateway.domain.types import DeviceId
from gateway.profiles.compiled.points import Read
from gateway.profiles.compiled.sequences import Request
from gateway.profiles.language.points import Point
from gateway.profiles.language.product import ProfileDocument

Emit = Callable[[ReadingBatch], None]


class TelemetrySource(Protocol):
    """What devices say: keeps the connections to many of one kind. Moves readings; never decides or retries. `emit`:
    who gets them, called on the loop, in the order received per device; set it before `run`."""

    emit: Emit

    async def run(self) -> None:
        """Serve until cancelled."""
        ...

    def pause_telemetry(self, on: bool) -> None:
        """Stop (or go on) reading interval telemetry: back-pressure, or priority for a dispatch. Whoever pauses
        resumes; it is read while nobody pauses."""
        ...


class TelemetrySender(Protocol):
    """Whoever keeps the messages of a source until they are acknowledged, and sends them again on a new connection."""

    def acknowledge(self, token: AckToken) -> None:
        """Acknowledge the batch behind `token`: it is durable. No effect after a reconnect."""
        ...

    def start_over(self) -> None:
        """Drop the telemetry session's connection, so that everything unacknowledged is sent again."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAgain:
    """What came of raw messages: energy in their order, and by position what keeps the others ("" = their device)."""

    energy: Sequence[EnergyBatch]
    problems: Mapping[int, str]


class RawReader(Protocol):
    """Whoever hands over settlement messages as they came, and reads them later. `behind`: topics of which earlier
    messages wait; what comes there is handed over as it is, so that the order holds."""

    behind: Collection[str]

    def device(self, topic: str) -> DeviceId | None:
        """Whose messages come there; None = no installed product has the topic."""
        ...

    def waits_for(self, topic: str) -> str:
        """What keeps the messages of a topic, in words; "" = nothing, they can be read."""
        ...

    def read(self, messages: Sequence[RawMessage]) -> ReadAgain:
        """Read them again."""
        ...


class CommandTarget(Protocol):
    """Where commands go."""

    async def write(self, batch: CommandBatch, *, deadline_mono_ms: int) -> WriteReport:
        """Write all commands concurrently under one deadline. Rejects commands it cannot encode; adjusts nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PointTarget:
    """A device to connect to: its registered connection, the profile's document and the points of its variant.
    `secret` is the secret itself, "" = none."""

    device: DeviceId
    connection: DeviceConnection
    secret: str = field(repr=False)
    document: ProfileDocument
    points: Mapping[str, Point]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """A SunSpec model of a device: its id, its length in registers, numbers of its `blocks` by the profile's names, and
    where it is which of several, "" = the profile means the first one."""

    number: int
    length: int
    blocks: Mapping[str, int] = field(default_factory=dict)
    said: str = ""


NO_MODELS: Mapping[str, FoundModel] = MappingProxyType({})


class PointLink(Protocol):
    """The values of one device. Moves raw values; decides nothing and does not reconnect by itself.

    `heard_mono_ms`: when the device last published by itself; None for polled products. `notice`: what is wrong with
    the connection although it goes on; None = nothing. `models`: the SunSpec models found, by the profile's words.

    Every method but `close` raises LinkDown (not reached or no answer in time: the effect of a write is unknown),
    PeerBusy (the device asks to come later), PeerRefused (the device said no) and ProtocolViolation (a malformed
    answer).
    """

    @property
    def heard_mono_ms(self) -> int | None: ...

    @property
    def notice(self) -> str | None: ...

    @property
    def models(self) -> Mapping[str, FoundModel]: ...

    async def open(self) -> None:
        """Connect, log in and find the models that addresses depend on (SunSpec). Raises NotThisProduct if there are
        none."""
        ...

    async def read(self, points: Sequence[str]) -> Mapping[str, Read]:
        """Raw values of `points`; MISSING for one that the device does not have."""
        ...

    async def write(self, request: Request) -> None:
        """Write one request, before waiting reads; returns once the device has accepted it."""
        ...

    async def close(self) -> None:
        """Close the connection, or leave a shared one; never raises."""
        ...


class PointLinks(Protocol):
    """All devices of one transport; shares connections, quotas and pacing between them."""

    def link(self, target: PointTarget) -> PointLink:
        """A link to one device; does no I/O."""
        ...

    async def close(self) -> None:
        """Close everything shared."""
        ...

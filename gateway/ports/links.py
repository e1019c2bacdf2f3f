"""Towards batteries: what services ask of links. Adapters implement these structurally."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.domain.commands import CommandBatch, WriteReport
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.readings import AckToken, ReadingBatch
from gateway.domain.types import DeviceId
from gateway.profiles.compiled.points import Read
from gateway.profiles.compiled.sequences import Request
from gateway.profiles.language.points import Point
from gateway.profiles.language.product import ProfileDocument

Emit = Callable[[ReadingBatch], None]


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

    def pause_telemetry(self, on: bool) -> None:
        """Stop (or go on) reading settlement telemetry: back-pressure, or priority for a dispatch."""
        ...

    def start_over(self) -> None:
        """Give up the telemetry session's connection, so that everything unacknowledged is sent again."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PointTarget:
    """A device to connect to: its enrollment, the profile's document and the points of its variant. `secret` is the
    secret itself, "" = none."""

    device: DeviceId
    connection: DeviceConnection
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

    def link(self, target: PointTarget) -> PointLink:
        """A link to one device; does no I/O."""
        ...

    async def close(self) -> None:
        """Give up everything shared."""
        ...

"""What brings a file of intervals to the aggregator and says how it ended, whatever the way."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.ports.sinks import Keep, Stop
from gateway.sinks.leap.outbox import Outgoing
from gateway.sinks.leap.replies import LineError

Noted = Callable[[Outgoing], Awaitable[None]]
"""Makes what a transport has learnt of a file durable: `tried`, `job`, `lost`. Raises OSError."""

LOST_MAX = 3
"""A file that was there and is no longer goes up again so often; then somebody must look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The aggregator is done with a file: it took every row, or none for these errors (which may name no line)."""

    taken: bool
    errors: Sequence[LineError] = ()


class Transport(Protocol):
    """A way to the aggregator."""

    async def deliver(self, file: Outgoing, noted: Noted) -> Ended | Keep | Stop:
        """Bring the file there unless it is there, and follow it to its end. Keep = not over yet, or nothing arrived:
        call again with the same file, also after a crash. Raises OSError when `noted` does."""
        ...

    async def close(self) -> None: ...

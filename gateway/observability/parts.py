"""The face of everything that runs: what it does, counts and says, and how it is closed.

A part declares its own names and what its failure means. Whoever puts the gateway together keeps one list of parts, and
makes tasks, metrics, readiness and the stop of it without knowing what each can do.
"""

from collections.abc import Awaitable, Iterable, Sequence
from enum import Enum, auto
from typing import Self

from gateway.observability.metrics import Histogram, Sample


class Importance(Enum):
    """What it means that a part does not run. `SPARE`: the gateway still commands, hears and stores. `NEEDED`: it is
    not ready. `ESSENTIAL`: it does harm or loses what it has accepted, so its bugs count against a budget, beyond which
    the process ends. `VITAL`: the same, and one broken invariant is enough."""

    SPARE = auto()
    NEEDED = auto()
    ESSENTIAL = auto()
    VITAL = auto()


class Part:
    """A part that does, counts and says nothing; others say what is different about them. `service`: the name under
    which `run` is supervised, "" = it is not (there is nothing to run, or another part runs it). `component`: the part
    of the gateway that readiness counts its reasons and warnings under."""

    service: str = ""
    component: str = "gateway"
    importance: Importance = Importance.NEEDED
    histograms: Sequence[Histogram] = ()

    async def run(self) -> None:
        """Work until cancelled."""

    def samples(self) -> Iterable[Sample]:
        """Metrics, as of now."""
        return ()

    def reasons(self) -> list[str]:
        """Why the gateway is not ready."""
        return []

    def warnings(self) -> list[str]:
        """What is missing while the gateway is ready all the same."""
        return []

    def close(self) -> Awaitable[None] | None:
        """Give back what it holds, once nothing runs any more."""
        return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        closing = self.close()
        if closing is not None:
            await closing

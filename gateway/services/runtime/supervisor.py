"""Keeps the services running: each in a named task, restarted with back-off when it fails, its health reported."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway.clock import Clock
from gateway.observability.episodes import FewLines

log = logging.getLogger(__name__)

BACKOFF_BASE_S = 0.5
BACKOFF_CAP_S = 10.0
STABLE_MS = 60_000
TRACEBACKS_MAX = 5


@dataclass(slots=True)
class Health:
    """State of the services of one name: how often one failed, and which are not running now, with the reason."""

    restarts: int = 0
    down: dict[object, str] = field(default_factory=dict)

    @property
    def failing(self) -> str | None:
        """Why a service of this name is not running now; None = all of them run."""
        reason = next(iter(self.down.values()), None)
        return reason if reason is None or len(self.down) == 1 else f"{reason} and {len(self.down) - 1} more"


class Supervisor:
    """Runs services until cancelled. One that fails is logged and restarted; the others go on. Services share a name
    (every device's session does), so a few tracebacks a minute are logged, with the number of restarts."""

    def __init__(self, *, rng: random.Random, clock: Clock) -> None:
        self._rng = rng
        self._clock = clock
        self.health: dict[str, Health] = {}
        self._lines = FewLines(most=TRACEBACKS_MAX)

    async def keep(self, name: str, service: Callable[[], Awaitable[None]]) -> None:
        """Run `service` for ever. The only place that catches every exception: one fault must not stop the rest."""
        health = self.health.setdefault(name, Health())
        this, failures = object(), 0
        try:
            while True:
                health.down.pop(this, None)
                began_ms = self._clock.mono_ms()
                try:
                    await service()
                    return
                except Exception as error:
                    health.restarts += 1
                    health.down[this] = type(error).__name__
                    if self._lines.allow(name, self._clock.mono_ms()):
                        log.exception(
                            "a service failed and is restarted", extra={"service": name, "restarts": health.restarts}
                        )
                if self._clock.mono_ms() - began_ms > STABLE_MS:
                    failures = 0
                failures += 1
                ceiling = min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2 ** min(failures, 8))
                await asyncio.sleep(self._rng.uniform(0.5, 1.0) * ceiling)
        finally:
            health.down.pop(this, None)

"""Keeps the services running: each in a named task, restarted with back-off when it fails, its health reported.

What a failure means is decided by its retry class and by how important the service says it is. A bug in an essential
one counts: one too many within the budget, or a broken invariant in a vital one, ends the process, for what its state
is worth is unknown by then. Errors that may pass (a peer that is away, a disk that is full) never count, nor does any
error of another service.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from gateway.clock import Clock
from gateway.domain.errors import InvariantBroken, Retry, pause_ceiling_s, retry_of
from gateway.observability.episodes import FewLines
from gateway.observability.metrics import Sample, counter
from gateway.observability.parts import Importance, Part

log = logging.getLogger(__name__)

BACKOFF_BASE_S = 0.5
BACKOFF_CAP_S = 10.0
STABLE_MS = 60_000
TRACEBACKS_MAX = 5
WHY_MAX = 200

ENDING = (Importance.ESSENTIAL, Importance.VITAL)
RESTARTS_MAX = 3
BUDGET_MS = 60_000
"""An essential service that fails by a bug more than `RESTARTS_MAX` times within `BUDGET_MS` ends the process."""

RESTARTS = counter(
    "gateway_service_restarts", "Services that failed and were started again.", service="services of the daemon"
)


T = TypeVar("T")


@dataclass(slots=True)
class Health:
    """State of the services of one name: how often one failed, and which are not running now, with the reason.
    `bugs`: when it last failed by a bug, monotonic ms."""

    importance: Importance
    restarts: int = 0
    down: dict[object, str] = field(default_factory=dict)
    bugs: deque[int] = field(default_factory=lambda: deque(maxlen=RESTARTS_MAX + 1))

    @property
    def failing(self) -> str | None:
        """Why a service of this name is not running now; None = all of them run."""
        reason = next(iter(self.down.values()), None)
        return reason if reason is None or len(self.down) == 1 else f"{reason} and {len(self.down) - 1} more"


class Supervisor(Part):
    """Runs services until cancelled. One that fails is logged and restarted; the others go on. Services share a name
    (every device's session does), so a few tracebacks a minute are logged, with the number of restarts. `may_end`:
    whether bugs of essential services may end the process."""

    component = "services"

    def __init__(self, *, rng: random.Random, clock: Clock, may_end: bool = True) -> None:
        self._rng = rng
        self._clock = clock
        self._may_end = may_end
        self._lines = FewLines(most=TRACEBACKS_MAX)
        self._ended = asyncio.Event()
        self._end = ""
        self.health: dict[str, Health] = {}

    def attempt(self, name: str, work: Callable[[], T]) -> T | None:
        """What `work` returns; None where it fails, for a part that the others can do without. It is told as a service
        that does not run."""
        try:
            return work()
        except Exception as error:
            self.health.setdefault(name, Health(Importance.NEEDED)).down[name] = type(error).__name__
            log.exception("a part cannot begin; the others go on without it", extra={"service": name})
            return None

    async def ended(self) -> str:
        """Wait until the process must end; returns why."""
        await self._ended.wait()
        return self._end

    async def keep(
        self, name: str, service: Callable[[], Awaitable[None]], importance: Importance = Importance.NEEDED
    ) -> None:
        """Run `service` for ever. One fault must not stop the rest: here and in `attempt` every exception is caught."""
        health = self.health.setdefault(name, Health(importance))
        this, failures = object(), 0
        try:
            while True:
                health.down.pop(this, None)
                began_ms = self._clock.mono_ms()
                try:
                    await service()
                    return
                except Exception as error:
                    retry = retry_of(error)
                    health.down[this] = type(error).__name__
                    if self._is_the_end(name, health, error):
                        return
                    health.restarts += 1
                    if self._lines.allow(name, self._clock.mono_ms()):
                        log.exception(
                            "a service failed and is restarted", extra={"service": name, "restarts": health.restarts}
                        )
                if self._clock.mono_ms() - began_ms > STABLE_MS:
                    failures = 0
                failures += 1
                ceiling_s = pause_ceiling_s(retry, failures, base_s=BACKOFF_BASE_S, cap_s=BACKOFF_CAP_S)
                await asyncio.sleep(self._rng.uniform(0.5, 1.0) * ceiling_s)
        finally:
            if not self._ended.is_set():
                health.down.pop(this, None)

    def samples(self) -> Iterator[Sample]:
        yield from RESTARTS.each({name: health.restarts for name, health in self.health.items()})

    def reasons(self) -> list[str]:
        """Services that are not running now and are needed."""
        return [text for importance, text in self._failing() if importance is not Importance.SPARE]

    def warnings(self) -> list[str]:
        """Services that are not running now and can be spared."""
        return [text for importance, text in self._failing() if importance is Importance.SPARE]

    def _failing(self) -> Iterator[tuple[Importance, str]]:
        for name, health in self.health.items():
            if health.failing:
                yield health.importance, f"service {name}: {health.failing}"

    def _is_the_end(self, name: str, health: Health, error: Exception) -> bool:
        """Whether a failure ends the process; logs it once."""
        if not self._may_end or health.importance not in ENDING or retry_of(error) is not Retry.NEVER:
            return False
        now_ms = self._clock.mono_ms()
        health.bugs.append(now_ms)
        broken = _broken(error) if health.importance is Importance.VITAL else None
        if broken is not None:
            self._finish(f"{name}: broken invariant: {broken}", error)
        elif len(health.bugs) > RESTARTS_MAX and now_ms - health.bugs[0] <= BUDGET_MS:
            told = f"{len(health.bugs)} failures within {BUDGET_MS // 1000} s, the last {type(error).__name__}: {error}"
            self._finish(f"{name}: {told}", error)
        return self._ended.is_set()

    def _finish(self, why: str, error: Exception) -> None:
        if not self._ended.is_set():
            self._end = why[:WHY_MAX]
            log.critical(
                "an essential service is broken; the gateway ends", extra={"reason": self._end}, exc_info=error
            )
            self._ended.set()


def _broken(error: BaseException) -> InvariantBroken | None:
    """The broken invariant in an error, or among several at once."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for one in error.exceptions if (found := _broken(one)) is not None), None)
    return error if isinstance(error, InvariantBroken) else None

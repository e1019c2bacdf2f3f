"""Keeps the clock steady: a step of the wall clock while events run is reported, not followed."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from gateway import former_names
from gateway.clock import SteadyClock
from gateway.observability.metrics import Sample, counter, gauge
from gateway.observability.parts import Part

log = logging.getLogger(__name__)

EVERY_S = 1.0

STEP_HELD = gauge("gateway_clock_step_held_seconds", "Step of the wall clock that is not followed yet.")
STEPS = counter("gateway_clock_steps", "Steps of the wall clock.")


class ClockGuard(Part):
    """Observes the wall clock. `idle` says whether nothing runs, so that a step may be followed."""

    service = former_names.SERVICES["clock_guard"]
    component = "control"

    def __init__(self, clock: SteadyClock, *, idle: Callable[[], bool]) -> None:
        self._clock = clock
        self._idle = idle

    async def run(self) -> None:
        """Observe every second, until cancelled."""
        while True:
            self.observe()
            await asyncio.sleep(EVERY_S)

    def observe(self) -> None:
        """Compare once, and log a change."""
        before_ms = self._clock.step_ms
        self._clock.observe(idle=self._idle())
        step_ms = self._clock.step_ms
        if step_ms and step_ms != before_ms:
            log.error(
                "the wall clock stepped; running events go on by the time before", extra={"step_s": step_ms / 1000}
            )
        elif before_ms and not step_ms:
            log.warning("the wall clock is followed again", extra={"step_s": before_ms / 1000})

    def reasons(self) -> list[str]:
        """Why time is not ready."""
        step_ms = self._clock.step_ms
        return [f"clock: the wall clock stepped by {step_ms / 1000:+.0f} s, not followed"] if step_ms else []

    def samples(self) -> Iterable[Sample]:
        yield STEP_HELD.sample(self._clock.step_ms / 1000)
        yield STEPS.sample(self._clock.steps)

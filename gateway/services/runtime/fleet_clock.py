"""Asks the fleet what time it is: while most devices contradict our clock, no event begins or ends by it."""

import logging
from collections.abc import Callable, Iterable

from gateway.clock import Clock
from gateway.domain.fleet.clock_skew import ClockSkew, ClockTrust
from gateway.domain.types import Now
from gateway.observability.metrics import Sample, gauge
from gateway.observability.parts import Part

log = logging.getLogger(__name__)

START_MS = 60_000
"""After a start devices have this long to tell a time; until enough have, no event ends."""

SKEW = gauge(
    "gateway_fleet_clock_skew_seconds", "Median of the devices' clocks less ours, of those that told a time lately."
)
TELLING = gauge("gateway_fleet_clock_devices", "Devices that told a time lately.")
CONTRADICTED = gauge("gateway_clock_contradicted", "Whether most devices contradict the clock (1) or not (0).")


def nobody(_now: Now) -> ClockSkew:
    """A fleet that tells no time."""
    return ClockSkew()


class FleetClock(Part):
    """`skew` measures how far the fleet's clocks are from ours."""

    component = "control"

    def __init__(self, clock: Clock, skew: Callable[[Now], ClockSkew] = nobody) -> None:
        self._clock = clock
        self._skew = skew
        self._began_ms = clock.mono_ms()
        self._newest = ClockSkew()
        self.trust = ClockTrust.SURE

    def observe(self, now: Now) -> ClockTrust:
        """Measure once, and log a change."""
        skew = self._newest = self._skew(now)
        before, self.trust = self.trust, skew.trust(starting=now.mono_ms - self._began_ms < START_MS)
        was, is_now = (trust is ClockTrust.CONTRADICTED for trust in (before, self.trust))
        told = {"offset_s": skew.offset_s, "count": skew.apart, "of": skew.telling}
        if is_now and not was:
            log.error("devices contradict the clock; no event begins or ends until they agree", extra=told)
        elif was and not is_now:
            log.warning("devices no longer contradict the clock", extra=told)
        return self.trust

    def reasons(self) -> list[str]:
        """Why time is not ready."""
        skew = self._newest
        if self.trust is not ClockTrust.CONTRADICTED:
            return []
        return [
            f"clock: {skew.apart} of {skew.telling} devices contradict it (median {skew.offset_s:+.0f} s), "
            "no event begins or ends"
        ]

    def samples(self) -> Iterable[Sample]:
        """The median is missing while no device tells a time."""
        skew = self._newest
        if skew.offset_s is not None:
            yield SKEW.sample(skew.offset_s)
        yield TELLING.sample(skew.telling)
        yield CONTRADICTED.sample(int(self.trust is ClockTrust.CONTRADICTED))

"""Tells a fleet that is not heard: without readings nothing can be commanded, however well everything else works."""

from collections.abc import Iterable

import numpy as np

from gateway.clock import Clock
from gateway.domain.fleet.fleet import Fleet
from gateway.observability.metrics import Sample
from gateway.observability.parts import Part
from gateway.services.control.metrics import fleet_samples

HEARD_MS = 120_000
START_MS = 60_000
WARNING_SHARE = 0.1
BLIND_SHARE = 0.5


class Unheard(Part):
    """Registered devices without a reading of the last two minutes. After a start they have a minute to be heard."""

    component = "devices"

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock
        self._begin_ms = clock.mono_ms()

    def _counted(self) -> tuple[int, int]:
        """Registered devices, and those of them that are not heard."""
        fleet, n = self._fleet, self._fleet.n
        registered = fleet.nameplate.registered[:n]
        unheard = registered & (self._clock.mono_ms() - fleet.live.seen_mono_ms[:n] > HEARD_MS)
        return int(np.count_nonzero(registered)), int(np.count_nonzero(unheard))

    @property
    def _starting(self) -> bool:
        return self._clock.mono_ms() - self._begin_ms < START_MS

    def samples(self) -> Iterable[Sample]:
        """Metrics of the fleet."""
        return fleet_samples(self._fleet, self._clock)

    def reasons(self) -> list[str]:
        """More than half of the fleet is not heard."""
        registered, unheard = self._counted()
        blind = unheard > BLIND_SHARE * registered and not self._starting
        return [_text(unheard, registered)] if blind else []

    def warnings(self) -> list[str]:
        """No device is registered, or more than a tenth is not heard."""
        registered, unheard = self._counted()
        if not registered:
            return ["devices: none is registered"]
        blind = unheard > BLIND_SHARE * registered and not self._starting
        return [_text(unheard, registered)] if unheard > WARNING_SHARE * registered and not blind else []


def _text(unheard: int, registered: int) -> str:
    return f"devices: no reading of {unheard} of {registered} for two minutes"

"""Says when events are steered without readings: a warning on the edge, a reason for not being ready meanwhile."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.domain.events.arbitration import Claims
from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.fleet.measured import Power
from gateway.domain.types import EventId

log = logging.getLogger(__name__)

MISSING_PART = 0.1
"""Readings are missing when more than this part of steered power is not measured."""

BACK_PART = 0.05
"""They are back when no more than this is."""


@dataclass(slots=True)
class MeasurementGap:
    """What is steered unmeasured now: `devices`, and the `part` of steered power that they carry."""

    devices: int = 0
    part: float = 0.0
    open: bool = False

    def observe(self, devices: int, part: float) -> bool:
        """Take over what is so now; whether the gap has opened or closed."""
        was = self.open
        self.devices, self.part = devices, part
        self.open = part > (BACK_PART if was else MISSING_PART)
        return self.open is not was


class Unmeasured:
    """Keeps, of the fleet and of each running event, what is steered without readings."""

    def __init__(self) -> None:
        self.fleet = MeasurementGap()
        self._gaps: dict[int, MeasurementGap] = {}

    def observe(
        self, events: Sequence[ActiveEvent], claims: Claims, power: Power, names: Mapping[int, EventId]
    ) -> None:
        """After a tick. `names`: the events' ids by index."""
        self.fleet.observe(*power.unmeasured(np.ones(len(power.measured), dtype=np.bool_)))
        steering = [event for event in events if event.actuates]
        for index in self._gaps.keys() - {event.index for event in steering}:
            del self._gaps[index]
        for event in steering:
            gap = self._gaps.setdefault(event.index, MeasurementGap())
            if gap.observe(*power.unmeasured(claims.shares[event.index])):
                _tell(gap, names.get(event.index, EventId("unknown")))

    def reasons(self) -> list[str]:
        """Why steering is not in order."""
        if not self.fleet.open:
            return []
        part = f"{100 * self.fleet.part:.0f} % of steered power"
        return [f"control: no readings of {self.fleet.devices} steered devices ({part}), what they do is assumed"]


def _tell(gap: MeasurementGap, event: EventId) -> None:
    told = {"event": event, "count": gap.devices, "part_pct": round(100 * gap.part, 1)}
    if gap.open:
        log.warning("readings are missing of devices that are steered; what they do is assumed", extra=told)
    else:
        log.info("readings of steered devices are back", extra=told)

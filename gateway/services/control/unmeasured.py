"""Warns once when devices under control send no readings, and gives the reason for not being ready meanwhile."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.domain.events.arbitration import Claims
from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.fleet.measured import Power
from gateway.domain.types import EventId

log = logging.getLogger(__name__)

MISSING_SHARE = 0.1
"""Readings are missing when more than this share of the power under control is not measured."""

BACK_SHARE = 0.05
"""They are back when no more than this share is unmeasured."""


@dataclass(slots=True)
class MeasurementGap:
    """Unmeasured `devices` under control, and the `share` of the power under control that they carry."""

    devices: int = 0
    share: float = 0.0
    open: bool = False

    def observe(self, devices: int, share: float) -> bool:
        """Store the newest values; returns whether the gap has opened or closed."""
        was = self.open
        self.devices, self.share = devices, share
        self.open = share > (BACK_SHARE if was else MISSING_SHARE)
        return self.open is not was


class Unmeasured:
    """Keeps what is under control without readings, of the fleet and of each running event."""

    def __init__(self) -> None:
        self.fleet = MeasurementGap()
        self._gaps: dict[int, MeasurementGap] = {}

    def observe(
        self, events: Sequence[ActiveEvent], claims: Claims, power: Power, names: Mapping[int, EventId]
    ) -> None:
        """Observe a tick. `names`: the events' ids by index."""
        self.fleet.observe(*power.unmeasured(np.ones(len(power.measured), dtype=np.bool_)))
        actuating = [event for event in events if event.actuates]
        for index in self._gaps.keys() - {event.index for event in actuating}:
            del self._gaps[index]
        for event in actuating:
            gap = self._gaps.setdefault(event.index, MeasurementGap())
            if gap.observe(*power.unmeasured(claims.shares[event.index])):
                _log(gap, names.get(event.index, EventId("unknown")))

    def reasons(self) -> list[str]:
        """Why control is not ready."""
        if not self.fleet.open:
            return []
        share = f"{100 * self.fleet.share:.0f} % of the power"
        return [f"control: no readings of {self.fleet.devices} devices under control ({share}), theirs is assumed"]


def _log(gap: MeasurementGap, event: EventId) -> None:
    fields = {"event": event, "count": gap.devices, "share_pct": round(100 * gap.share, 1)}
    if gap.open:
        log.warning("devices under control send no readings; their power is assumed", extra=fields)
    else:
        log.info("devices under control send readings again", extra=fields)

"""Warns once when the readings of devices under control are overdue, gives the reason for not being ready meanwhile,
and says which products are measured too seldom to be called measured in between."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.domain.control.contact import Contact
from gateway.domain.events.arbitration import Claims
from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.fleet.measured import SLOW_S, Power, period_s
from gateway.domain.types import EventId

log = logging.getLogger(__name__)

MISSING_SHARE = 0.1
"""Readings are missing when more than this share of the power under control is not measured."""

BACK_SHARE = 0.05
"""They are back when no more than this share is unmeasured."""


@dataclass(slots=True)
class MeasurementGap:
    """Lost `devices` of those under control, and the `share` of the power under control that was theirs."""

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
    """Keeps what is under control without readings, of the fleet and of each running event. `measured_share`: the part
    of the power under control that is measured now."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.fleet = MeasurementGap()
        self.measured_share = 1.0
        self._gaps: dict[int, MeasurementGap] = {}

    def observe(
        self,
        events: Sequence[ActiveEvent],
        claims: Claims,
        power: Power,
        contact: Contact,
        names: Mapping[int, EventId],
    ) -> None:
        """Observe a tick. `names`: the events' ids by index."""
        everybody = np.ones(len(power.measured), dtype=np.bool_)
        self.fleet.observe(*contact.missing(power, everybody))
        self.measured_share = 1 - power.unmeasured(everybody)[1]
        actuating = [event for event in events if event.actuates]
        for index in self._gaps.keys() - {event.index for event in actuating}:
            del self._gaps[index]
        for event in actuating:
            gap = self._gaps.setdefault(event.index, MeasurementGap())
            if gap.observe(*contact.missing(power, claims.shares[event.index])):
                _log(gap, names.get(event.index, EventId("unknown")))

    def reasons(self) -> list[str]:
        """Why control is not ready."""
        if not self.fleet.open:
            return []
        share = f"{100 * self.fleet.share:.0f} % of the power"
        return [f"control: no readings of {self.fleet.devices} devices under control ({share})"]

    def warnings(self) -> list[str]:
        """Products that are measured so seldom that their power is assumed between readings."""
        seen, profile = self._fleet.snapshot(), self._fleet.nameplate.profile
        every_s = period_s(seen.live, seen.nameplate)
        rows = np.flatnonzero((every_s > SLOW_S) & seen.nameplate.registered & seen.nameplate.steerable)
        found = sorted({(self._fleet.profiles.texts[profile[row]], float(every_s[row])) for row in rows.tolist()})
        return [f"product {name}: measured every {s:g} s, its power in between is assumed" for name, s in found]


def _log(gap: MeasurementGap, event: EventId) -> None:
    fields = {"event": event, "count": gap.devices, "share_pct": round(100 * gap.share, 1)}
    if gap.open:
        log.warning("devices under control send no readings; others make up for them", extra=fields)
    else:
        log.info("devices under control send readings again", extra=fields)

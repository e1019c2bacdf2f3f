"""Charges batteries that no event has: up to their reserve after an event, and full where that is overdue.

Both are events of the gateway itself with the lowest priority of all: any other event claims its devices first. What
they charge from the grid is bounded per feeder, reserves first. While dispatch is stopped neither runs nor begins.
Rebound (what a fleet takes back after an event) is measured here too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from gateway.domain.control.maintenance import charging_w, filling, inside, recovering
from gateway.domain.events.arbitration import NOBODY
from gateway.domain.events.lifecycle import ActiveEvent, EventState, Transition
from gateway.domain.events.request import EventKind, EventRequest, Running, Target, TargetGroup, Want
from gateway.domain.fleet.fleet import Fleet, Snapshot
from gateway.domain.fleet.measured import Power
from gateway.domain.types import EventId, Floats, Now, Slots
from gateway.services.control.rebound import REBOUNDS_MAX, Rebound
from gateway.services.events.intake import Dispatcher
from gateway.services.settings import MaintenanceSettings

PROGRAM = "upkeep"

RECOVERY, FULL = NOBODY - 1, NOBODY - 2

NAMES: Mapping[int, EventId] = {RECOVERY: EventId("upkeep:recovery"), FULL: EventId("upkeep:full-charge")}

TARGETS: Mapping[int, Target] = {RECOVERY: Target(want=Want.CHARGE_TO), FULL: Target(want=Want.BACKUP)}

LAST = 1_000_000
"""No event of a program has a priority as low as this."""

AHEAD_MS = 900_000

CHECK_EVERY_MS = 10_000

NOBODY_CHARGED: Slots = np.zeros(0, dtype=np.int32)

OVER = (EventState.COMPLETED, EventState.CANCELLED, EventState.SCHEDULED)


@dataclass(slots=True)
class MaintenanceStats:
    """Devices being charged now: up to their reserve, and full."""

    recovering: int = 0
    filling: int = 0


class Maintenance:
    """Keeps which devices to charge, and the rebound after events."""

    def __init__(self, settings: MaintenanceSettings, *, fleet: Fleet, recharge_w: float) -> None:
        self._settings = settings
        self._recharge_w = recharge_w
        self._fleet = fleet
        self._members: dict[int, Slots] = {}
        self._checked_ms: int | None = None
        self._tick_ms: int | None = None
        self.rebounds: dict[EventId, Rebound] = {}
        self.stats = MaintenanceStats()

    def events(self, now: Now) -> list[ActiveEvent]:
        """What to charge now, as events that rank below all others. Called only while dispatch is not stopped."""
        until_ms = now.utc_ms + AHEAD_MS
        return [
            ActiveEvent(
                index=index,
                request=_request(index, now),
                running=Running(
                    target=TARGETS[index], since_ms=now.utc_ms, until_ms=until_ms, sustained_until_ms=until_ms
                ),
            )
            for index in (RECOVERY, FULL)
            if len(self._members.get(index, ()))
        ]

    @property
    def members(self) -> Mapping[int, Slots]:
        """The devices of each, by index."""
        return self._members

    def observe(
        self, edges: Iterable[Transition], dispatcher: Dispatcher, snapshot: Snapshot, power: Power, now: Now
    ) -> None:
        """Observe a tick: an event that ended starts its recovery time; now and then the members are chosen anew."""
        for edge in edges:
            request = edge.entry.request
            if edge.entry.state in OVER and edge.entry.ran and request.kind is not EventKind.DRY_RUN:
                until_ms = now.utc_ms + round(self._settings.recovery_s * 1000)
                slots = dispatcher.members(edge.entry.index, request)
                self.rebounds[request.id] = Rebound(event=request.id, slots=slots, until_ms=until_ms)
        self._rebound(power, now)
        if dispatcher.stopped:
            self._charge({}, None)
        elif self._checked_ms is None or now.mono_ms - self._checked_ms >= CHECK_EVERY_MS:
            self._charge({RECOVERY: self._recovering(snapshot, now), FULL: self._filling(snapshot, now)}, now.mono_ms)

    def _charge(self, members: dict[int, Slots], checked_ms: int | None) -> None:
        """Set which devices are charged from now on, as of `checked_ms` (None: choose anew in the next tick)."""
        self._members, self._checked_ms = members, checked_ms
        self.stats.recovering, self.stats.filling = len(members.get(RECOVERY, ())), len(members.get(FULL, ()))

    def _rebound(self, power: Power, now: Now) -> None:
        hours = 0.0 if self._tick_ms is None else (now.mono_ms - self._tick_ms) / 3_600_000
        self._tick_ms = now.mono_ms
        for rebound in self.rebounds.values():
            if now.utc_ms < rebound.until_ms:
                rebound.power_w = charging_w(power, rebound.slots)
                rebound.peak_w = max(rebound.peak_w, rebound.power_w)
                rebound.energy_wh += rebound.power_w * hours
            else:
                rebound.power_w = 0.0
        while len(self.rebounds) > REBOUNDS_MAX:
            self.rebounds.pop(next(iter(self.rebounds)))

    def _recovering(self, snapshot: Snapshot, now: Now) -> Slots:
        rebounding = [rebound.slots for rebound in self.rebounds.values() if now.utc_ms < rebound.until_ms]
        return recovering(snapshot, rebounding, self._members.get(RECOVERY, NOBODY_CHARGED))

    def _filling(self, snapshot: Snapshot, now: Now) -> Slots:
        cycles = self._settings.full_charge_cycles
        if cycles is None or not inside(self._settings.full_charge_hours, now):
            return NOBODY_CHARGED
        return filling(snapshot, now, cycles)

    def feeder_w(self) -> Floats:
        """The most that maintenance may charge on each feeder, W."""
        return np.full(len(self._fleet.feeders.texts), self._recharge_w)


def _request(index: int, now: Now) -> EventRequest:
    return EventRequest(
        id=NAMES[index],
        revision=0,
        kind=EventKind.REAL,
        program=PROGRAM,
        group=TargetGroup(all=True),
        start_ms=now.utc_ms,
        end_ms=now.utc_ms + AHEAD_MS,
        target=TARGETS[index],
        priority=LAST - index,
    )

"""Keeps who has each device from tick to tick: who obeyed, who left control, who is still ours after a restart."""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.control.adoption import adopt, adopted
from gateway.domain.control.authority import free, over, returned, undisturbed
from gateway.domain.control.compliance import obeyed, overridden
from gateway.domain.control.marks import note_readings
from gateway.domain.events.arbitration import NOBODY
from gateway.domain.fleet import reserve
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Fleet, Snapshot
from gateway.domain.journal.changes import Change, ControlEnded, ReserveChanged
from gateway.domain.types import NEVER_MS, Bools, DeviceId, Ints, Mode, Now
from gateway.services.control.restarted import Restarted
from gateway.services.settings import ControlSettings

log = logging.getLogger(__name__)

HEARD_SHARE = 0.95


@dataclass(slots=True)
class AuthorityStats:
    """Counts of devices that left control by themselves."""

    overridden: int = 0
    leases_run_out: int = 0


class DeviceAuthority:
    """Updates the control columns from what the devices report, and returns what the journal should remember."""

    def __init__(self, settings: ControlSettings, *, fleet: Fleet) -> None:
        self._settings = settings
        self._fleet = fleet
        self._obeying: Bools = np.zeros(0, dtype=np.bool_)
        self._left: dict[int, int] = {}
        self._excused: list[int] = []
        self._adopt: Bools = np.zeros(0, dtype=np.bool_)
        self._began_mono_ms = NEVER_MS
        self._newest_cmd = 0
        self._seen_mono_ms: Ints = np.zeros(0, dtype=np.int64)
        self.stats = AuthorityStats()
        self.restarted = Restarted(fleet)

    def adopt(
        self,
        controlled: Iterable[DeviceId],
        now: Now,
        *,
        newest_cmd: int = 0,
        taken_back: Mapping[int, bool] | None = None,
    ) -> None:
        """Mark `controlled` as still under control after a restart, until their lease (at most the product's whole one)
        has run out; their setpoint is read from what they do. `newest_cmd`: no command was given a larger id.
        `taken_back`: slots that their owners took back, and whether that goes on."""
        fleet = self._fleet
        control, plate = fleet.control, fleet.nameplate
        taken_back = taken_back or {}
        # Of those that only a checkpoint knows, as release 0.1 wrote it, the event is that which claims the device in
        # the first tick.
        left = np.flatnonzero(control.authority[: fleet.n] == Authority.OWNER).tolist()
        ours = np.zeros(fleet.n, dtype=np.bool_)
        ours[[fleet.slot_of[device] for device in controlled if device in fleet.slot_of]] = True
        control.authority[: fleet.n] = np.where(ours, Authority.CONTROLLED, Authority.DEVICE)
        self._left = {slot: NOBODY for slot in left if not ours[slot] and slot not in taken_back}
        going_on = [slot for slot, goes_on in taken_back.items() if goes_on and not ours[slot]]
        control.authority[[*self._left, *going_on]] = Authority.OWNER
        control.event[: fleet.n] = -1
        control.release_mono_ms[: fleet.n] = NEVER_MS
        whole = now.mono_ms + (1000 * plate.lease_s[: fleet.n]).astype(np.int64)
        control.lease_end_mono_ms[: fleet.n] = np.where(ours, whole, NEVER_MS)
        control.setpoint_w[: fleet.n][~ours] = 0
        self._adopt, self._began_mono_ms, self._newest_cmd = ours, now.mono_ms, newest_cmd
        reserve.begin_anew(fleet.live)
        if ours.any():
            log.info("devices are still under control from before the start", extra={"count": int(ours.sum())})

    def heard(self) -> bool:
        """Whether the devices still under control after a restart have been heard since, all but a few."""
        if not self._adopt.any():
            return True
        seen = self._fleet.live.seen_mono_ms[: len(self._adopt)][self._adopt]
        return float((seen > self._began_mono_ms).mean()) > HEARD_SHARE

    def update(self, now: Now) -> list[Change]:
        """Update the control columns before a tick decides; returns what the journal should remember."""
        fleet = self._fleet
        changes = self._adopt_controlled(now)
        snapshot, control = fleet.snapshot(), fleet.columns().control
        note_readings(control, snapshot)
        changes += self._end(snapshot, now)
        changes += self._owners_choice()
        self._obeying = obeyed(undisturbed(self._obeying, self._seen_mono_ms, snapshot), snapshot)
        self._seen_mono_ms = snapshot.live.seen_mono_ms.copy()
        self.restarted.observe(snapshot, now)
        self._excused += self.restarted.after_all(now).tolist()
        # of one that no event has had since the start nobody knows how much of its lease was left
        taken_back = overridden(snapshot, now, self._obeying) & (control.event != NOBODY)
        if taken_back.any():
            restarted = self.restarted.among(taken_back, control.event)
            if len(restarted):
                free(control, restarted)
                changes.append(ControlEnded(devices=fleet.names(restarted), reason="restarted"))
                taken_back[restarted] = False
            # without a mode nobody says that it is the owner's
            taken_back &= snapshot.live.mode != int(Mode.UNKNOWN)
        if taken_back.any():
            slots = np.flatnonzero(taken_back)
            self.restarted.taken_back(slots, control.event[slots], now)
            self._left |= dict(zip(slots.tolist(), control.event[slots].tolist(), strict=True))
            free(control, slots)
            control.authority[slots] = Authority.OWNER
            self.stats.overridden += len(slots)
            changes.append(ControlEnded(devices=fleet.names(slots), reason="owner"))
            log.warning("owners took devices back", extra={"count": len(slots), "first": fleet.ids[slots[0]]})
        return changes

    def end(self, now: Now) -> list[Change]:
        """Only free the devices that are no longer under control; returns what the journal should remember."""
        return self._adopt_controlled(now) + self._end(self._fleet.snapshot(), now)

    def _end(self, snapshot: Snapshot, now: Now) -> list[Change]:
        ended = over(snapshot, now, command_valid_s=self._settings.command_valid_s)
        self.stats.leases_run_out += ended.run_out
        if not len(ended.rows):
            return []
        free(self._fleet.columns().control, ended.rows)
        return [ControlEnded(devices=self._fleet.names(ended.rows), reason="released")]

    def _adopt_controlled(self, now: Now) -> list[Change]:
        """Take over devices still under control after a restart, as they are heard."""
        if not self._adopt.any():
            return []
        snapshot, control = self._fleet.snapshot(), self._fleet.columns().control
        found = adopted(snapshot, self._adopt, self._began_mono_ms)
        adopt(control, snapshot, found.ours, now, newest_cmd=self._newest_cmd)
        free(control, found.gone)
        self._adopt = found.waiting
        return [ControlEnded(devices=self._fleet.names(found.gone), reason="released")] if len(found.gone) else []

    def _owners_choice(self) -> list[Change]:
        """Record the reserves that owners have set on their devices: see `reserve`."""
        own = self._fleet.columns()
        slots, chosen_pct = reserve.choose(own.live, own.nameplate, own.control)
        if not len(slots):
            return []
        log.info("owners changed their reserve", extra={"count": len(slots), "first": self._fleet.ids[slots[0]]})
        chosen = tuple(chosen_pct.tolist())
        return [ReserveChanged(devices=self._fleet.names(slots), reserve_pct=chosen, source="device")]

    def left(self, holder: NDArray[np.int32]) -> dict[int, list[int]]:
        """Slots that their owners took back since this was last asked, by the index of the event they were in; where
        that is not known, the one that has the device now (`holder`)."""
        found: dict[int, list[int]] = {}
        for slot, index in self._left.items():
            event = index if index != NOBODY else int(holder[slot])
            found.setdefault(event, []).append(slot)
        self._left = {}
        return found

    def excused(self) -> list[int]:
        """Slots, since this was last asked, that seemed to be taken back and had restarted."""
        found, self._excused = self._excused, []
        return found

    def return_left(self, held_back: Collection[int]) -> None:
        """Return devices that their owners took back once that is over: they may be dispatched again."""
        self._fleet.control.authority[returned(self._fleet.snapshot(), held_back)] = Authority.DEVICE

"""Who has each device: under control, released, run out, taken back by its owner, still ours after a restart."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.control.compliance import obeyed, overridden, ratings_w
from gateway.domain.control.leases import NO_END_MS, release_at
from gateway.domain.control.ramp import in_turn
from gateway.domain.events.arbitration import NOBODY
from gateway.domain.fleet import reserve
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Fleet, Snapshot
from gateway.domain.journal.changes import Change, ControlEnded, ReserveChanged
from gateway.domain.types import NEVER_MS, Bools, DeviceId, Grid, Ints, Mode, Now
from gateway.services.control.restarted import Restarted
from gateway.services.settings import ControlSettings

log = logging.getLogger(__name__)

LEASE_MARGIN_MS = 2_000
GAP_MS = 12_000
HEARD_SHARE = 0.95
RENEW_PART = 0.25


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
        self._until_ms: Ints = np.zeros(0, dtype=np.int64)
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
        """Update the control columns before a snapshot is taken; returns what the journal should remember."""
        fleet, snapshot = self._fleet, self._fleet.snapshot()
        control, live, plate = snapshot.control, snapshot.live, snapshot.nameplate
        changes = self._adopt_controlled(now)
        confirmed = (live.cmd == control.cmd_sent) & (live.cmd > 0) & (live.seen_mono_ms > control.sent_mono_ms)
        np.copyto(control.before_w, control.setpoint_w, where=confirmed)
        in_force_ms = control.changed_mono_ms + (1000 * plate.command_latency_s).astype(np.int64)
        read = confirmed | (live.seen_mono_ms >= in_force_ms)
        for ran_w in (control.ran_high_w, control.ran_low_w):
            np.copyto(ran_w, control.setpoint_w, where=read, casting="same_kind")
        changes += self._end(snapshot, now)
        changes += self._owners_choice(snapshot)
        self._obeying = obeyed(self._undisturbed(), snapshot)
        self.restarted.observe(snapshot, now)
        self._excused += self.restarted.after_all(now).tolist()
        taken_back = overridden(snapshot, now, self._obeying)
        if taken_back.any():
            restarted = self.restarted.among(taken_back, control.event)
            if len(restarted):
                self._free(restarted)
                changes.append(ControlEnded(devices=fleet.names(restarted), reason="restarted"))
                taken_back[restarted] = False
            # without a mode nobody says that it is the owner's
            taken_back &= live.mode != int(Mode.UNKNOWN)
        if taken_back.any():
            slots = np.flatnonzero(taken_back)
            self.restarted.taken_back(slots, control.event[slots], now)
            self._left |= dict(zip(slots.tolist(), control.event[slots].tolist(), strict=True))
            self._free(slots)
            control.authority[slots] = Authority.OWNER
            self.stats.overridden += len(slots)
            changes.append(ControlEnded(devices=self._fleet.names(slots), reason="owner"))
            log.warning("owners took devices back", extra={"count": len(slots), "first": fleet.ids[slots[0]]})
        return changes

    def end(self, now: Now) -> list[Change]:
        """Only free the devices that are no longer under control; returns what the journal should remember."""
        return self._adopt_controlled(now) + self._end(self._fleet.snapshot(), now)

    def _end(self, snapshot: Snapshot, now: Now) -> list[Change]:
        freed = self._over(snapshot, now)
        if not len(freed):
            return []
        self._free(freed)
        return [ControlEnded(devices=self._fleet.names(freed), reason="released")]

    def _over(self, snapshot: Snapshot, now: Now) -> NDArray[np.intp]:
        """Devices whose lease has run out, or that have confirmed their release."""
        control, live, plate = snapshot.control, snapshot.live, snapshot.nameplate
        releasing = control.authority == int(Authority.RELEASING)
        late = (control.authority == int(Authority.CONTROLLED)) & (control.lease_end_mono_ms < now.mono_ms)
        rows = np.flatnonzero(releasing | late)
        if not len(rows):
            return rows
        releasing = releasing[rows]
        slack_ms = LEASE_MARGIN_MS + (1000 * plate.overrun_s[rows]).astype(np.int64)
        over = plate.timed[rows] & (control.lease_end_mono_ms[rows] + slack_ms < now.mono_ms)
        self.stats.leases_run_out += int(np.count_nonzero(over & ~releasing))
        mode, sent_ms = live.mode[rows], control.sent_mono_ms[rows]
        # what was sent before may still be under way, for as long as it is valid, and take the device after all
        dead_ms = sent_ms + round(1000 * self._settings.command_valid_s)
        elsewhere = (mode != int(Mode.REMOTE)) & (mode != int(Mode.UNKNOWN)) & (live.seen_mono_ms[rows] > dead_ms)
        confirmed = (control.cmd_applied[rows] >= control.cmd_sent[rows]) | elsewhere
        due: NDArray[np.intp] = rows[over | (releasing & confirmed)]
        return due

    def _undisturbed(self) -> Bools:
        """Devices that obeyed and have been heard without a gap since. A device that was away, islanded or faulty may
        have left remote control by itself, which is not its owner's choice."""
        n = len(self._obeying)
        live = self._fleet.live
        gap = live.seen_mono_ms[:n] - self._seen_mono_ms[:n] > GAP_MS
        self._seen_mono_ms = live.seen_mono_ms[: self._fleet.n].copy()
        result: Bools = self._obeying & ~gap & (live.grid[:n] != int(Grid.ISLAND)) & (live.faults[:n] == 0)
        return result

    def _adopt_controlled(self, now: Now) -> list[Change]:
        """Read the setpoints of devices still under control after a restart from what they do."""
        if not self._adopt.any():
            return []
        control, live = self._fleet.control, self._fleet.live
        n = len(self._adopt)
        # What was written or handed back since the start is known; it needs no reading.
        self._adopt &= control.authority[:n] == Authority.CONTROLLED
        # A reading from before the restart shows a power that a ramp has left behind.
        heard = self._adopt & (live.seen_mono_ms[:n] > self._began_mono_ms) & np.isfinite(live.battery_w[:n])
        # A product that does not report its mode may still be under control.
        ours = heard & ((live.mode[:n] == Mode.REMOTE) | (live.mode[:n] == Mode.UNKNOWN))
        slots = np.flatnonzero(ours)
        # How much of the lease is left is unknown: it is renewed soon, with the setpoint wanted by then.
        soon_ms = (1000 * RENEW_PART * self._fleet.nameplate.lease_s[slots]).astype(np.int64)
        control.lease_end_mono_ms[slots] = now.mono_ms + soon_ms
        control.setpoint_w[slots] = np.round(live.battery_w[slots]).astype(np.int64)
        control.before_w[slots] = control.setpoint_w[slots]
        control.ran_high_w[slots] = control.ran_low_w[slots] = control.setpoint_w[slots]
        # an id that was never given out proves nothing, however large
        cmd = np.where(live.cmd[slots] <= self._newest_cmd, live.cmd[slots], 0)
        control.cmd_sent[slots] = control.cmd_applied[slots] = cmd
        found_free = np.flatnonzero(heard & ~ours)
        self._free(found_free)
        self._adopt &= ~heard
        return [ControlEnded(devices=self._fleet.names(found_free), reason="released")] if len(found_free) else []

    def _owners_choice(self, seen: Snapshot) -> list[Change]:
        """Record the reserves that owners have set on their devices: see `reserve`."""
        slots, chosen_pct = reserve.choose(seen.live, seen.nameplate, seen.control)
        if not len(slots):
            return []
        log.info("owners changed their reserve", extra={"count": len(slots), "first": self._fleet.ids[slots[0]]})
        chosen = tuple(chosen_pct.tolist())
        return [ReserveChanged(devices=self._fleet.names(slots), reserve_pct=chosen, source="device")]

    def unguaranteed(self, n: int) -> Bools:
        """Devices not known to keep the owner's reserve by themselves: after a lease nothing else would."""
        kept = self._fleet.live.reserve_pct[:n] >= self._fleet.nameplate.owner_reserve_pct[:n] - reserve.STEP_PCT
        result: Bools = ~kept & self._fleet.nameplate.registered[:n]
        return result

    def reserves_due(self, taking: Bools) -> Bools:
        """Devices whose reserve is raised to the owner's before they are controlled; each value is tried once. A
        reserve that the owner may be lowering just now is not overwritten."""
        n = len(taking)
        control, plate = self._fleet.control, self._fleet.nameplate
        tried = np.abs(control.written_reserve_pct[:n] - plate.owner_reserve_pct[:n]) <= reserve.STEP_PCT
        reported = np.isfinite(self._fleet.live.reserve_pct[:n])
        result: Bools = (
            taking & (control.authority[:n] == int(Authority.DEVICE)) & self.unguaranteed(n) & reported & ~tried
        )
        if result.any():
            result &= ~reserve.unsure(self._fleet.live.view(n), plate.view(n), control.view(n))
        return result

    def _free(self, slots: NDArray[np.intp]) -> None:
        control = self._fleet.control
        control.authority[slots] = Authority.DEVICE
        control.event[slots] = -1
        control.idle[slots] = False
        control.setpoint_w[slots] = 0
        control.before_w[slots] = 0
        control.ran_high_w[slots] = control.ran_low_w[slots] = 0
        control.lease_end_mono_ms[slots] = NEVER_MS
        control.release_mono_ms[slots] = NEVER_MS

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

    def return_left(self, held_back: Collection[int], snapshot: Snapshot) -> None:
        """Return devices that their owners took back once that is over: they may be dispatched again."""
        for slot in np.flatnonzero(snapshot.control.authority == int(Authority.OWNER)).tolist():
            if slot not in held_back:
                self._fleet.control.authority[slot] = Authority.DEVICE
                snapshot.control.authority[slot] = Authority.DEVICE

    def turns(self, snapshot: Snapshot, taking: Bools, now: Now, at_once: Bools) -> Bools:
        """Devices to hand back in this tick. Releases are spread, no faster than the fleet may ramp. Those in `at_once`
        (their owners want it) go at once, as many as make no step of the fleet."""
        control = snapshot.control
        np.copyto(control.release_mono_ms, NEVER_MS, where=taking)
        over = (snapshot.control.authority == int(Authority.CONTROLLED)) & ~taking
        fresh = np.flatnonzero(over & (control.release_mono_ms == NEVER_MS))
        if len(fresh):
            turn_ms = self._turns_ms(fresh, now.mono_ms, snapshot)
            known = fresh < len(self._until_ms)
            # no lease runs beyond the turn that was its device's when it was given
            turn_ms[known] = np.minimum(turn_ms[known], self._until_ms[fresh[known]])
            control.release_mono_ms[fresh] = turn_ms
        due = (control.release_mono_ms != NEVER_MS) & (control.release_mono_ms <= now.mono_ms)
        wanting = at_once & over
        if wanting.any():
            power_w = snapshot.control.setpoint_w.astype(np.float64)
            due = (due & ~wanting) | in_turn(wanting, power_w, self._settings.step_w)
        result: Bools = ~taking & (due | (snapshot.control.authority == int(Authority.RELEASING)))
        return result

    def _turns_ms(self, slots: NDArray[np.intp], end_ms: int, snapshot: Snapshot) -> Ints:
        """When devices whose event is over at `end_ms` are handed back, as things stand (both monotonic)."""
        # The batteries of a home go together: one that is back would cover the load the other still feeds.
        site = snapshot.nameplate.site[slots]
        homes = np.where(site >= 0, site, snapshot.n + slots)
        # by rating, which does not change between the lease that ends then and the release
        return release_at(homes, ratings_w(snapshot)[slots], end_ms, self.spread_s(slots))

    def until_ms(self, ends: Sequence[tuple[Bools, int]], going_on: Bools, snapshot: Snapshot) -> Ints | None:
        """When each device is handed back (monotonic); None where none is soon. `ends`: devices whose event is over
        soon, and when; of those, the ones that are `going_on` have another event then, and are not handed back."""
        if not ends:
            self._until_ms = self._until_ms[:0]
            return None
        until_ms = np.full(snapshot.n, NO_END_MS)
        last_ms: dict[int, Bools] = {}
        for mine, end_ms in ends:
            last_ms[end_ms] = last_ms[end_ms] | mine if end_ms in last_ms else mine
        for end_ms in sorted(last_ms):
            slots = np.flatnonzero(last_ms[end_ms] & ~going_on)
            until_ms[slots] = self._turns_ms(slots, end_ms, snapshot)
        self._until_ms = until_ms
        return until_ms

    def unattended(self, snapshot: Snapshot, now: Now) -> Bools:
        """Devices without a timer whose lease was not renewed: they do not revert until they are released."""
        over = snapshot.control.lease_end_mono_ms < now.mono_ms
        result: Bools = ~snapshot.nameplate.timed & over & (snapshot.control.authority == int(Authority.CONTROLLED))
        return result

    def spread_s(self, slots: NDArray[np.integer]) -> float:
        """How long handing `slots` back takes: as configured, and no faster than the fleet may ramp."""
        power_w = abs(float(self._fleet.control.setpoint_w[slots].sum()))
        return max(self._settings.release_spread_s, power_w / self._settings.fleet_w_per_s)

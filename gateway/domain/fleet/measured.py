"""Whose power is measured, and what the others are taken to do meanwhile.

A reading stands for its device's power until a few more should have come. After that the device is taken to go on as it
was read last, in proportion to its setpoint. That is good enough to share out the rest by; it is never told as
delivered, and nothing is corrected by it.
"""

from dataclasses import dataclass

import numpy as np

from gateway.domain.fleet.columns import Authority, LiveColumns, Nameplate
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.types import NEVER_MS, Bools, Floats, Ints, Mode, Now

AGE_S = 30.0
PERIODS = 5.0
"""A reading counts for so long, or for so many of the periods in which its product is declared to be read."""

OWN_AGE_S = 120.0
"""For so long a device that nobody steers is taken to go on as it did."""

STOOD_S = 10.0
"""A setpoint that stood for so long before a reading is one the reading says something about."""

HEARD_S_MAX = 5.0
PART_W_MIN = 200.0
PART_MAX = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Power of every device, W (+ = discharge): `each_w` as read where `measured`, elsewhere assumed. `heard_s`: for
    devices that were read since the last tick, the time since the reading before (at most `HEARD_S_MAX`), else 0.
    `steered_w` the size of the setpoints in force."""

    each_w: Floats
    measured: Bools
    heard_s: Floats
    steered_w: Floats

    def measured_w(self, mask: Bools) -> float:
        """Measured power of some devices together."""
        return float(self.each_w[mask & self.measured].sum())

    def assumed_w(self, mask: Bools) -> float:
        """What those of them that are not measured are taken to do."""
        return float(self.each_w[mask & ~self.measured].sum())

    def unmeasured(self, mask: Bools) -> tuple[int, float]:
        """How many of them are steered unmeasured, and what part of their steered power that is."""
        total_w = float(self.steered_w[mask].sum())
        rows = mask & ~self.measured & (self.steered_w > 0)
        return int(np.count_nonzero(rows)), float(self.steered_w[rows].sum()) / max(total_w, 1.0)

    def heard(self, mask: Bools) -> float:
        """For how long the power of some devices was measured since the last tick, s: each counts by its setpoint. It
        is 0 when none of them was heard, however young their readings still are."""
        weight = np.where(mask, self.steered_w + 1.0, 0.0)
        total = float(weight.sum())
        return float((weight * self.heard_s).sum()) / total if total > 0 else 0.0


def measured(live: LiveColumns, plate: Nameplate, now: Now) -> Bools:
    """Whose power is measured now. A product that is read slowly, as it is declared to be, is so between readings."""
    age_ms = now.mono_ms - live.seen_mono_ms
    young: Bools = age_ms <= 1000 * AGE_S
    rows = np.flatnonzero(~young)
    young[rows] = age_ms[rows] <= 1000 * PERIODS * plate.report_s[rows]
    return young & ~np.isnan(live.battery_w)


def power_of(snapshot: Snapshot, now: Now, before_ms: Ints) -> Power:
    """Power of every device. `before_ms`: the times of the readings that the last tick knew (shorter if devices were
    added).

    Not measured: a device under control goes on as it was read, if it had settled at the setpoint that is still in
    force; else it does the part of its setpoint that it did before (`done_part`, all of it where that is unknown); with
    its lease that ends. One that was read in a mode of its own goes on with that for `OWN_AGE_S`."""
    live, control = snapshot.live, snapshot.control
    known = measured(live, snapshot.nameplate, now)
    leased = (control.authority == Authority.CONTROLLED) & (control.lease_end_mono_ms > now.mono_ms)
    if len(before_ms) < snapshot.n:
        before_ms = np.append(before_ms, np.full(snapshot.n - len(before_ms), NEVER_MS))
    gap_ms = np.clip(live.seen_mono_ms - before_ms, 0, round(1000 * HEARD_S_MAX)) * known
    each_w = live.battery_w
    if not known.all():
        own = (control.authority == Authority.DEVICE) & (live.mode != Mode.REMOTE)
        own &= now.mono_ms - live.seen_mono_ms <= 1000 * OWN_AGE_S
        kept = own | (leased & _settled(snapshot))
        part = np.where(np.isnan(control.done_part), 1.0, control.done_part)
        last_w = np.where(np.isnan(live.battery_w), part * control.setpoint_w, live.battery_w)
        assumed_w = np.where(kept, last_w, part * control.setpoint_w * leased)
        each_w = np.where(known, live.battery_w, assumed_w)
    steered_w = np.abs(control.setpoint_w) * leased.astype(np.float64)
    return Power(each_w=each_w, measured=known, heard_s=gap_ms * 0.001, steered_w=steered_w)


def keep_parts(snapshot: Snapshot, heard: Bools) -> None:
    """Note in `done_part` what part of its setpoint each device does that has settled there; of those that were `heard`
    since the last tick."""
    control = snapshot.control
    told = heard & (control.authority == Authority.CONTROLLED) & ~control.idle & _settled(snapshot)
    told &= np.abs(control.setpoint_w) >= PART_W_MIN
    part = np.divide(snapshot.live.battery_w, control.setpoint_w, where=told, out=np.zeros(snapshot.n))
    np.copyto(control.done_part, np.clip(part, 0.0, PART_MAX), where=told, casting="same_kind")


def _settled(snapshot: Snapshot) -> Bools:
    """Devices that had the time to come to the setpoint in force before they were read last."""
    settled: Bools = snapshot.live.seen_mono_ms >= snapshot.control.changed_mono_ms + round(1000 * STOOD_S)
    return settled

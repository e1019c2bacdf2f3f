"""Decides which devices are measured and which are overdue, and assumes a power for those that are not measured.

A reading counts as its device's power until several more should have come, by the period that the device or its profile
declares; a period learnt from gaps would excuse them. After that the device is overdue. Where the period is long, the
device is not measured between its readings either, without being overdue.

Without a measurement a device is assumed to go on as in its last reading, in proportion to its setpoint. Assumed power
is never reported as delivered, and it drives no correction.
"""

from dataclasses import dataclass

import numpy as np

from gateway.domain.fleet.columns import Authority, ControlColumns, LiveColumns, Nameplate
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.table import Singles
from gateway.domain.types import NEVER_MS, Bools, Floats, Ints, Mode, Now

AGE_S = 15.0
PERIODS = 5.0
"""A device is overdue when its last reading is older than `AGE_S` and than `PERIODS` of its declared periods."""

UNDECLARED_AGE_S = 30.0
"""The same where no period is declared."""

SLOW_S = 15.0
"""A device that is read less often than this is measured for so long after each reading, and assumed until the next."""

OWN_AGE_S = 120.0
"""How long a device in its own mode is assumed to go on as it was read."""

STOOD_S = 10.0
"""A reading applies to a setpoint that was in force for this long before it."""

HEARD_S_MAX = 5.0
PART_W_MIN = 200.0
PART_MAX = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Power of every device, W (+ = discharge): `each_w` as read where `measured`, elsewhere assumed; `overdue`:
    several readings have not come. `heard_s`: for devices that were read since the last tick, the time since the
    reading before (at most `HEARD_S_MAX`), else 0. `controlled_w` the size of the setpoints in force."""

    each_w: Floats
    measured: Bools
    overdue: Bools
    heard_s: Floats
    controlled_w: Floats

    def measured_w(self, mask: Bools) -> float:
        """Measured power of some devices together."""
        return sum_of(self.each_w, mask & self.measured)

    def assumed_w(self, mask: Bools) -> float:
        """Assumed power of those of them that are not measured, together."""
        return sum_of(self.each_w, mask & ~self.measured)

    def unmeasured(self, mask: Bools) -> tuple[int, float]:
        """How many of them have a setpoint and are not measured, and their part of the setpoints."""
        rows = mask & ~self.measured
        if not rows.any():
            return 0, 0.0
        total_w = sum_of(self.controlled_w, mask)
        rows &= self.controlled_w > 0
        return int(np.count_nonzero(rows)), float(self.controlled_w[rows].sum()) / max(total_w, 1.0)

    def heard(self, mask: Bools) -> float:
        """For how long the power of some devices was measured since the last tick, s: weighted by setpoint. 0
        when none of them was read, however young their readings still are."""
        weight = np.where(mask, self.controlled_w + 1.0, 0.0)
        total = float(weight.sum())
        return float((weight * self.heard_s).sum()) / total if total > 0 else 0.0


def sum_of(values: Floats, rows: Bools) -> float:
    """Sum of some rows of a column; without a copy where these are all."""
    return float(values.sum() if rows.all() else values[rows].sum())


def period_s(live: LiveColumns, plate: Nameplate) -> Singles:
    """The declared period of each device's readings: its own word, else its profile's; NaN = neither says."""
    result: Singles = np.where(np.isnan(live.report_s), plate.report_s, live.report_s)
    return result


def measured(live: LiveColumns, plate: Nameplate, now: Now) -> tuple[Bools, Bools]:
    """Devices whose power is measured now, and those whose readings are overdue."""
    age_ms = now.mono_ms - live.seen_mono_ms
    young: Bools = age_ms <= 1000 * AGE_S
    overdue = ~young
    rows = np.flatnonzero(overdue)
    if len(rows):
        declared_s = period_s(live, plate)[rows]
        most_s = np.where(np.isnan(declared_s), UNDECLARED_AGE_S, np.maximum(PERIODS * declared_s, AGE_S))
        overdue[rows] = age_ms[rows] > 1000 * most_s
        young[rows] = ~overdue[rows] & ~(declared_s > SLOW_S)
    return young & ~np.isnan(live.battery_w), overdue


def power_of(snapshot: Snapshot, now: Now, before_ms: Ints) -> Power:
    """Power of every device. `before_ms`: reading times as of the last tick (shorter if devices were added).

    Without a measurement a device under control is assumed to go on as read, if it had settled at the setpoint still in
    force; else to do the same part of its setpoint as before (`done_part`, all of it if unknown), until its lease ends.
    A device read in its own mode is assumed to go on for `OWN_AGE_S`."""
    live, control = snapshot.live, snapshot.control
    known, overdue = measured(live, snapshot.nameplate, now)
    leased = (control.authority == int(Authority.CONTROLLED)) & (control.lease_end_mono_ms > now.mono_ms)
    if len(before_ms) < snapshot.n:
        before_ms = np.append(before_ms, np.full(snapshot.n - len(before_ms), NEVER_MS))
    gap_ms = np.clip(live.seen_mono_ms - before_ms, 0, round(1000 * HEARD_S_MAX)) * known
    each_w = live.battery_w
    if not known.all():
        own = (control.authority == int(Authority.DEVICE)) & (live.mode != int(Mode.REMOTE))
        own &= now.mono_ms - live.seen_mono_ms <= 1000 * OWN_AGE_S
        kept = own | (leased & _settled(snapshot))
        part = np.where(np.isnan(control.done_part), 1.0, control.done_part)
        last_w = np.where(np.isnan(live.battery_w), part * control.setpoint_w, live.battery_w)
        assumed_w = np.where(kept, last_w, part * control.setpoint_w * leased)
        each_w = np.where(known, live.battery_w, assumed_w)
    controlled_w = np.abs(control.setpoint_w) * leased.astype(np.float64)
    return Power(each_w=each_w, measured=known, overdue=overdue, heard_s=gap_ms * 0.001, controlled_w=controlled_w)


def keep_parts(control: ControlColumns, snapshot: Snapshot, heard: Bools) -> None:
    """Store in `done_part` of `control` what part of its setpoint each settled device does, for those `heard` since the
    last tick."""
    rows = heard & (control.authority == int(Authority.CONTROLLED)) & ~control.idle & _settled(snapshot)
    if not rows.any():
        return
    rows &= np.abs(control.setpoint_w) >= PART_W_MIN
    part = np.divide(snapshot.live.battery_w, control.setpoint_w, where=rows, out=np.zeros(snapshot.n))
    np.copyto(control.done_part, np.clip(part, 0.0, PART_MAX), where=rows, casting="same_kind")


def _settled(snapshot: Snapshot) -> Bools:
    """Devices that had time to reach the setpoint in force before their last reading."""
    settled: Bools = snapshot.live.seen_mono_ms >= snapshot.control.changed_mono_ms + round(1000 * STOOD_S)
    return settled

"""From what is wanted to what is written: ramp, correction, leases, and the plan of one control tick.

Everything here is pure: state goes in and comes out as values. A device is written when its setpoint changes beyond the
dead band, when its lease is half over, and at once when it must be narrowed; never when it must not be touched.
"""

import math
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from gateway.domain.columns import Held
from gateway.domain.envelope import Envelope, Reason, check, spread
from gateway.domain.fleet import Snapshot
from gateway.domain.model import Bools, CommandOp, Floats, Grid, Ints, Mode, Now, Slots, Small

LEASE_PART_MIN = 0.6
HELD_W = 100
DT_S_MAX = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Governor:
    """Bounds how fast the fleet's commanded power may move, both ways."""

    w_per_s: float

    def step(self, desired_w: float, commanded_w: float, dt_s: float) -> float:
        """Next commanded power. After a start `commanded_w` is the measured fleet power; a late tick (`dt_s` > 5 s)
        does not earn a larger step."""
        most_w = self.w_per_s * min(max(dt_s, 0.0), DT_S_MAX)
        return commanded_w + min(max(desired_w - commanded_w, -most_w), most_w)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimParams:
    """`gain_per_s` of the integral; the correction stays within `part_max` of the target and is not driven by errors
    over `error_part_max` of it: those are ramps and outages, not offsets."""

    gain_per_s: float = 0.03
    part_max: float = 0.05
    error_part_max: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Trim:
    """Closed-loop correction of an event: `offset_w` is added to its target before allocation."""

    offset_w: float = 0.0


def trimmed(
    trim: Trim, *, target_w: float, delivered_w: float, dt_s: float, unserved_w: float, params: TrimParams
) -> Trim:
    """Integrate target less measured power. `unserved_w` (sign of the target) tells that the envelope is used up: then
    nothing is wound up in that direction. Unknown measured power holds the correction."""
    most_w = params.part_max * abs(target_w)
    offset_w = trim.offset_w
    error_w = target_w - delivered_w
    known = math.isfinite(delivered_w)
    windup = unserved_w * error_w > 0
    if known and not windup and abs(error_w) <= params.error_part_max * abs(target_w):
        offset_w += params.gain_per_s * min(max(dt_s, 0.0), DT_S_MAX) * error_w
    return replace(trim, offset_w=min(max(offset_w, -most_w), most_w))


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseParams:
    """A device follows if its measured power is within `tolerance_w` or `tolerance_part` of the setpoint once
    `settle_s` have passed; a reading older than `age_s_max` says nothing."""

    settle_s: float = 10.0
    tolerance_w: float = 200.0
    tolerance_part: float = 0.1
    age_s_max: float = 30.0


def responsive(snapshot: Snapshot, now: Now, params: ResponseParams) -> Bools:
    """Which devices may be relied upon. Those under control whose power does not follow are deaf; a change still under
    way is judged by the band between the setpoint before it and the new one. Devices not under control are not judged.
    """
    live, control = snapshot.live, snapshot.control
    setpoint_w = control.setpoint_w.astype(np.float64)
    before_w = control.before_w.astype(np.float64)
    settled = live.seen_mono_ms >= control.changed_mono_ms + round(1000 * params.settle_s)
    fresh = now.mono_ms - live.seen_mono_ms <= 1000 * params.age_s_max
    slack_w = np.maximum(params.tolerance_w, params.tolerance_part * np.abs(setpoint_w))
    low_w = np.where(settled, setpoint_w, np.minimum(setpoint_w, before_w)) - slack_w
    high_w = np.where(settled, setpoint_w, np.maximum(setpoint_w, before_w)) + slack_w
    follows = (live.battery_w >= low_w) & (live.battery_w <= high_w)
    # no band to judge by: what a device did before it was taken is nobody's setpoint, and one that has confirmed the
    # new setpoint may still be on its way
    fresh &= settled | ((control.before_w != 0) & (control.before_w != control.setpoint_w))
    judged = (control.held == Held.CONTROLLED) & fresh & ~np.isnan(live.battery_w)
    result: Bools = follows | ~judged
    return result


def expected_w(snapshot: Snapshot, now: Now, *, age_s_max: float) -> Floats:
    """Power each device adds to the sum whether or not it is told to: measured where the reading is recent, else the
    setpoint while its lease runs, else 0."""
    live, control = snapshot.live, snapshot.control
    recent = (now.mono_ms - live.seen_mono_ms <= 1000 * age_s_max) & ~np.isnan(live.battery_w)
    leased = (control.held == Held.CONTROLLED) & (control.lease_end_mono_ms > now.mono_ms)
    return np.where(recent, live.battery_w, control.setpoint_w * leased.astype(np.float64))


def obeyed(before: Bools, snapshot: Snapshot) -> Bools:
    """Which devices have been seen in remote mode under our newest confirmed command since they were taken and since
    they were last away. `before` is the last tick's answer (shorter if devices were added)."""
    live, control = snapshot.live, snapshot.control
    known = np.zeros(snapshot.n, dtype=np.bool_)
    known[: len(before)] = before
    ours = (live.mode == Mode.REMOTE) & (live.cmd == control.cmd_applied) & (live.cmd > 0)
    result: Bools = (known | ours) & (control.held == Held.CONTROLLED) & (live.online != 0)
    return result


def overridden(snapshot: Snapshot, now: Now, seen_obeying: Bools, *, margin_s: float = 10.0) -> Bools:
    """Devices an owner or maker took back: they had obeyed, the lease still runs for `margin_s`, and yet they report
    another mode. Faults, islanding and a restart (presence lost meanwhile) are not overrides."""
    live, control = snapshot.live, snapshot.control
    left = seen_obeying & (live.mode != Mode.REMOTE) & (live.mode != Mode.UNKNOWN)
    left &= (control.lease_end_mono_ms - now.mono_ms > 1000 * margin_s) & (control.cmd_applied == control.cmd_sent)
    result: Bools = left & (live.faults == 0) & (live.grid != Grid.ISLAND) & (control.held == Held.CONTROLLED)
    return result


def leases_s(snapshot: Snapshot, now: Now, slots: NDArray[np.intp], setpoint_w: Ints) -> Ints:
    """Leases for commands given now, whole s, 60 to 100 % of each product's: ends go where the least power ends
    already, so that no second sees more of the fleet revert than it must, whenever the gateway dies."""
    control = snapshot.control
    granted = np.maximum(snapshot.nameplate.lease_s[slots].astype(np.int64), 1)
    running = (control.held == Held.CONTROLLED) & (control.lease_end_mono_ms > now.mono_ms)
    running[slots] = False
    ends_s = (control.lease_end_mono_ms[running] - now.mono_ms) // 1000
    last_s = int(granted.max(initial=0))
    # what a held device does by itself afterwards is not known: it counts a little
    ending_w = np.bincount(
        np.minimum(ends_s, last_s), weights=np.abs(control.setpoint_w[running]) + HELD_W, minlength=last_s + 1
    ).astype(np.float64, copy=False)
    result = granted.copy()
    for most_s in np.flatnonzero(np.bincount(granted)).tolist():
        rows = np.flatnonzero(granted == most_s)
        # an even mix of slots; 16 bits, so that the sort is a radix sort
        rows = rows[np.argsort((slots[rows] * 40_503).astype(np.uint16), kind="stable")]
        first_s = max(1, math.ceil(LEASE_PART_MIN * most_s))
        window_w = ending_w[first_s : most_s + 1]
        power_w = np.abs(setpoint_w[rows]) + HELD_W
        reached_w = np.cumsum(power_w)
        room_w = np.cumsum(_filled_w(window_w, float(reached_w[-1])) - window_w)
        until = np.searchsorted(reached_w - power_w / 2, room_w, side="right")
        until[-1] = len(rows)
        result[rows] = np.repeat(np.arange(first_s, most_s + 1), np.diff(until, prepend=0))
        ending_w += np.bincount(result[rows], weights=power_w, minlength=last_s + 1)
    return result


def _filled_w(window_w: Floats, more_w: float) -> Floats:
    """`window_w` after `more_w` has been poured in, the lowest filled first."""
    steps_w = np.sort(window_w)
    counts = np.arange(1, len(steps_w) + 1)
    levels_w = (np.cumsum(steps_w) + more_w) / counts
    level_w = levels_w[max(int((levels_w > steps_w).sum()) - 1, 0)]
    filled_w: Floats = np.maximum(window_w, level_w)
    return filled_w


def release_at(slots: NDArray[np.integer], end_ms: int, spread_s: float) -> Ints:
    """When each device is handed back (same clock as `end_ms`): from the end on, spread over `spread_s`."""
    result: Ints = end_ms + (1000 * spread_s * spread(slots, 2)).astype(np.int64)
    return result


class Cause(IntEnum):
    """Why a command is written; the smaller, the more urgent."""

    NARROW = 0
    RELEASE = 1
    EXPIRING = 2
    CHANGE = 3
    RETRY = 4
    REFRESH = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanParams:
    """`dead_band_w` a setpoint may be off before it is rewritten; the sum of what is left off stays within
    `sum_band_part` of what is wanted. A lease is renewed once `refresh_left_part` of the product's is left (half of
    it has passed, on average), urgently at `expiring_left_part`; an unanswered command is repeated after `retry_s`.
    """

    dead_band_w: float = 50.0
    sum_band_part: float = 0.002
    refresh_left_part: float = 0.4
    expiring_left_part: float = 0.16
    retry_s: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Commands of one tick, at most one per device, most urgent first. `lease_s` 0 for a release. `deferred` did not
    fit the budget; `outside` were wanted past the envelope and are not written."""

    slots: Slots
    op: Small
    setpoint_w: Ints
    lease_s: Ints
    cause: Small
    deferred: int
    outside: int

    def __len__(self) -> int:
        return len(self.slots)


def plan(
    snapshot: Snapshot,
    envelope: Envelope,
    now: Now,
    params: PlanParams,
    *,
    wanted_w: Ints,
    members: Bools,
    release: Bools,
    deaf: Bools | None = None,
    budget: int | None = None,
) -> Plan:
    """What to write now.

    `members` belong to a running event and get `wanted_w` (0 = hold); `release` are handed back; devices that are
    neither keep their lease, narrowed if they must be. `deaf` devices are rewritten at refresh only. At most `budget`
    commands. The last thing is the paired check: what is wanted past the envelope is left out and counted.
    """
    control = snapshot.control
    writable = envelope.controllable & (control.held != Held.LEFT)
    faulty = (envelope.reasons_discharge & np.uint32(Reason.FAULT)) != 0
    narrow = envelope.must_narrow & writable
    take = members & writable & ~faulty
    cause, off_w = _causes(snapshot, now, params, wanted_w, take, deaf)
    _fill_up(cause, off_w, wanted_w, take, deaf, params)
    cause[narrow] = Cause.NARROW
    cause[_release_due(snapshot, now, params, release & ~members)] = Cause.RELEASE

    slots = np.flatnonzero(cause >= 0)
    slots = slots[np.argsort(cause[slots], kind="stable")]
    deferred = 0 if budget is None else max(0, len(slots) - budget)
    if deferred:
        slots = slots[np.lexsort((control.lease_end_mono_ms[slots], cause[slots]))][:budget]
    releasing = cause[slots] == Cause.RELEASE
    setpoint_w = np.where(take[slots], wanted_w[slots], _inside(control.setpoint_w[slots], envelope, slots))
    setpoint_w *= ~releasing
    inside = check(setpoint_w, slots, envelope) | releasing
    if not inside.all():
        slots, setpoint_w, releasing = slots[inside], setpoint_w[inside], releasing[inside]
    op = np.where(setpoint_w == 0, CommandOp.HOLD, CommandOp.SETPOINT).astype(np.int8)
    op[releasing] = CommandOp.RELEASE
    return Plan(
        slots=slots.astype(np.int32),
        op=op,
        setpoint_w=setpoint_w,
        lease_s=leases_s(snapshot, now, slots, setpoint_w) * ~releasing,
        cause=cause[slots],
        deferred=deferred,
        outside=int(len(inside) - inside.sum()),
    )


def _causes(
    snapshot: Snapshot, now: Now, params: PlanParams, wanted_w: Ints, take: Bools, deaf: Bools | None
) -> tuple[Small, Ints]:
    """Cause per slot (-1 = nothing to write) and how far each device under control is off what is wanted."""
    live, control = snapshot.live, snapshot.control
    cause = np.full(snapshot.n, -1, dtype=np.int8)
    held = control.held == Held.CONTROLLED
    left_part = (control.lease_end_mono_ms - now.mono_ms) / (1000 * snapshot.nameplate.lease_s)
    cause[take & held & (left_part <= params.refresh_left_part)] = Cause.REFRESH

    waited = now.mono_ms - control.sent_mono_ms >= 1000 * params.retry_s
    unseen = (control.cmd_applied < control.cmd_sent) | (
        (live.mode != Mode.REMOTE)
        & (live.mode != Mode.UNKNOWN)
        & (live.seen_mono_ms - control.sent_mono_ms > 1000 * snapshot.nameplate.delivery_s)
    )
    cause[take & held & waited & unseen & (live.cmd < control.cmd_sent)] = Cause.RETRY

    off_w = wanted_w - control.setpoint_w
    changed = (np.abs(off_w) > params.dead_band_w) | ((wanted_w == 0) != (control.setpoint_w == 0))
    changed = changed if deaf is None else changed & ~deaf
    cause[take & (changed | ~held)] = Cause.CHANGE
    cause[take & held & (left_part <= params.expiring_left_part)] = Cause.EXPIRING
    return cause, np.where(held, off_w, 0)


def _fill_up(cause: Small, off_w: Ints, wanted_w: Ints, take: Bools, deaf: Bools | None, params: PlanParams) -> None:
    """Many small differences add up: write the largest of them until the rest is within the band of the sum."""
    quiet = take & (cause < 0)
    if deaf is not None:
        quiet &= ~deaf
    missing_w = int(off_w[quiet].sum())
    band_w = params.sum_band_part * abs(int(wanted_w[take].sum()))
    if abs(missing_w) <= band_w:
        return
    rows = np.flatnonzero(quiet & (off_w * np.sign(missing_w) > 0))
    rows = rows[np.argsort(-np.abs(off_w[rows]), kind="stable")]
    covered_w = np.cumsum(np.abs(off_w[rows]))
    cause[rows[: int(np.searchsorted(covered_w, abs(missing_w) - band_w)) + 1]] = Cause.CHANGE


def _release_due(snapshot: Snapshot, now: Now, params: PlanParams, release: Bools) -> Bools:
    """Devices to hand back now: those under control, and those whose release has had no effect for a while."""
    live, control = snapshot.live, snapshot.control
    unheard = (control.held == Held.RELEASING) & (live.mode == Mode.REMOTE) & (control.cmd_applied < control.cmd_sent)
    unheard &= now.mono_ms - control.sent_mono_ms >= 1000 * params.retry_s
    islanded = live.grid == Grid.ISLAND
    due: Bools = release & ~islanded & ((control.held == Held.CONTROLLED) | unheard)
    return due


def _inside(setpoint_w: Ints, envelope: Envelope, slots: NDArray[np.intp]) -> Ints:
    """The setpoint in force, cut to what is allowed now."""
    low_w = -np.floor(envelope.charge_w[slots]).astype(np.int64)
    high_w = np.floor(envelope.discharge_w[slots]).astype(np.int64)
    return np.minimum(np.maximum(setpoint_w, low_w), high_w)

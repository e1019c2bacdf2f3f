"""From what is wanted to what is written: leases, rest, and the plan of one control tick.

Everything here is pure: state goes in and comes out as values. A device is written when its setpoint changes beyond the
dead band, when its lease is half over, and at once when it must be narrowed; never when it must not be touched.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from gateway.domain.columns import Held, run
from gateway.domain.envelope import Envelope, Reason, check, spread
from gateway.domain.fleet import Snapshot
from gateway.domain.model import Bools, CommandOp, Floats, Grid, Ints, Mode, Now, Slots, Small

LEASE_PART_MIN = 0.6
HELD_W = 100


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
    classes = np.flatnonzero(np.bincount(granted)).tolist()
    for most_s in classes:
        if len(classes) == 1:
            rows = _mixed(len(granted))
        else:
            rows = np.flatnonzero(granted == most_s)
            rows = rows[_mixed(len(rows))]
        first_s = max(1, math.ceil(LEASE_PART_MIN * most_s))
        window_w = ending_w[first_s : most_s + 1]
        power_w = np.abs(setpoint_w[rows]) + HELD_W
        reached_w = np.cumsum(power_w)
        room_w = np.cumsum(_filled_w(window_w, float(reached_w[-1])) - window_w)
        until = np.searchsorted(reached_w - power_w / 2, room_w, side="right")
        until[-1] = len(rows)
        result[rows] = np.repeat(np.arange(first_s, most_s + 1), np.diff(until, prepend=0))
        if most_s != classes[-1]:
            ending_w += np.bincount(result[rows], weights=power_w, minlength=last_s + 1)
    return result


def _mixed(count: int) -> NDArray[np.int64]:
    """Numbers below `count`, each once, neighbours far apart: an even mix of whatever they number."""
    step = max(1, round(0.618 * count))
    while math.gcd(step, count) != 1:
        step += 1
    mixed: NDArray[np.int64] = np.arange(count) * step % count
    return mixed


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What devices that are given nothing do: `blocked` are only kept from discharging, `free` left to their maker's
    own mode; the others are held at 0 W."""

    blocked: Bools
    free: Bools


def rest(snapshot: Snapshot, now: Now, *, idle: Bools, by_itself: Bools, guaranteed: Bools, after_s: float) -> Rest:
    """Members given nothing (`idle`) are kept from discharging and free to charge from PV where the product can; else,
    where they may be left `by_itself` and the device itself keeps its reserve (`guaranteed`), they are left to their
    maker's own mode; else they are held. What was given something a moment ago may be so again: it is held for
    `after_s` first."""
    control = snapshot.control
    settled = now.mono_ms - control.changed_mono_ms >= 1000 * after_s
    resting = idle & ((control.held != Held.CONTROLLED) | control.idle | ((control.setpoint_w == 0) & settled))
    blocked = resting & snapshot.nameplate.blocks
    return Rest(blocked=blocked, free=resting & ~snapshot.nameplate.blocks & by_itself & guaranteed)


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
    """Commands of one tick, at most one per device, most urgent first. `lease_s` 0 for a release. `outside` were wanted
    past the envelope and are not written."""

    slots: Slots
    op: Small
    setpoint_w: Ints
    lease_s: Ints
    cause: Small
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
    blocked: Bools | None = None,
) -> Plan:
    """What to write now.

    `members` belong to a running event and get `wanted_w` (0 = hold, or only kept from discharging where `blocked`);
    `release` are handed back; devices that are neither keep their lease, narrowed if they must be. `deaf` devices are
    rewritten at refresh only. The last thing is the paired check: what is wanted past the envelope is left out and
    counted.
    """
    control = snapshot.control
    writable = envelope.controllable & (control.held != Held.LEFT)
    faulty = (envelope.reasons_discharge & np.uint64(Reason.FAULT)) != 0
    narrow = envelope.must_narrow & writable
    take = members & writable & ~faulty
    rests = control.idle & False if blocked is None else blocked & take
    cause, off_w = _causes(snapshot, now, params, wanted_w, take, deaf, rests)
    _fill_up(cause, off_w, wanted_w, take, deaf, params)
    cause[narrow] = Cause.NARROW
    cause[_release_due(snapshot, now, params, release & ~members)] = Cause.RELEASE

    slots = np.flatnonzero(cause >= 0)
    slots = slots[np.argsort(cause[slots], kind="stable")]
    at = run(slots)
    releasing = cause[at] == Cause.RELEASE
    setpoint_w = wanted_w[at].copy()
    kept = np.flatnonzero(~take[at])
    setpoint_w[kept] = _inside(control.setpoint_w[slots[kept]], envelope, slots[kept])
    setpoint_w *= ~releasing
    inside = check(setpoint_w, at, envelope) | releasing
    if not inside.all():
        slots, setpoint_w, releasing = slots[inside], setpoint_w[inside], releasing[inside]
    op = np.where(setpoint_w == 0, CommandOp.HOLD, CommandOp.SETPOINT).astype(np.int8)
    op[rests[slots]] = CommandOp.BLOCK
    op[releasing] = CommandOp.RELEASE
    return Plan(
        slots=slots.astype(np.int32),
        op=op,
        setpoint_w=setpoint_w,
        lease_s=leases_s(snapshot, now, slots, setpoint_w) * ~releasing,
        cause=cause[slots],
        outside=int(len(inside) - inside.sum()),
    )


def _causes(
    snapshot: Snapshot, now: Now, params: PlanParams, wanted_w: Ints, take: Bools, deaf: Bools | None, rests: Bools
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
    changed |= rests != control.idle
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
    if not release.any():
        return release
    live, control = snapshot.live, snapshot.control
    ours = (live.mode == Mode.REMOTE) | (live.mode == Mode.UNKNOWN)
    unheard = (control.held == Held.RELEASING) & ours & (control.cmd_applied < control.cmd_sent)
    unheard &= now.mono_ms - control.sent_mono_ms >= 1000 * params.retry_s
    islanded = live.grid == Grid.ISLAND
    due: Bools = release & ~islanded & ((control.held == Held.CONTROLLED) | unheard)
    return due


def _inside(setpoint_w: Ints, envelope: Envelope, slots: NDArray[np.intp]) -> Ints:
    """The setpoint in force, cut to what is allowed now."""
    low_w = -np.floor(envelope.charge_w[slots]).astype(np.int64)
    high_w = np.floor(envelope.discharge_w[slots]).astype(np.int64)
    return np.minimum(np.maximum(setpoint_w, low_w), high_w)

"""How long each command's lease is, when a device is released, and what devices without power to give do."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits.types import spread
from gateway.domain.table import run
from gateway.domain.types import Bools, Floats, Ints, Now

LEASE_PART_MIN = 0.6

REVERTING_W = 100

NO_END_MS = 1 << 62
"""When a device is handed back whose events go on for longer than any lease."""


def leases_s(
    snapshot: Snapshot, now: Now, slots: NDArray[np.intp], setpoint_w: Ints, until_ms: Ints | None = None
) -> Ints:
    """Leases for commands given now, whole s, 60 to 100 % of each product's, and none beyond `until_ms` (monotonic, by
    device; None = no bounds). Ends go to the seconds in which the least power ends already, so that as little of the
    fleet as possible reverts at once if the gateway dies."""
    control, at = snapshot.control, run(slots)
    granted = np.maximum(snapshot.nameplate.lease_s[at].astype(np.int64), 1)
    running = (control.authority == int(Authority.CONTROLLED)) & (control.lease_end_mono_ms > now.mono_ms)
    running[at] = False
    ends_s = (control.lease_end_mono_ms[running] - now.mono_ms) // 1000
    last_s = int(granted.max(initial=0))
    # what a device at 0 W does once its lease ends is unknown: it counts a little
    ending_w = np.bincount(
        np.minimum(ends_s, last_s), weights=np.abs(control.setpoint_w[running]) + REVERTING_W, minlength=last_s + 1
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
        power_w = np.abs(setpoint_w[rows]) + REVERTING_W
        reached_w = np.cumsum(power_w)
        headroom_w = np.cumsum(_filled_w(window_w, float(reached_w[-1])) - window_w)
        until = np.searchsorted(reached_w - power_w / 2, headroom_w, side="right")
        until[-1] = len(rows)
        result[rows] = np.repeat(np.arange(first_s, most_s + 1), np.diff(until, prepend=0))
        if most_s != classes[-1]:
            ending_w += np.bincount(result[rows], weights=power_w, minlength=last_s + 1)
    return result if until_ms is None else _bounded_s(result, granted, snapshot, now, slots, until_ms)


def _bounded_s(
    leases: Ints, granted: Ints, snapshot: Snapshot, now: Now, slots: NDArray[np.intp], until_ms: Ints
) -> Ints:
    """Leases cut to `until_ms`: down to the second, and up to the next step of a timer that counts in longer ones. A
    device without such an end before its product's whole lease keeps its own."""
    rows = np.flatnonzero(until_ms[run(slots)] < now.mono_ms + 1000 * granted)
    if len(rows):
        slots = slots[rows]
        step_s = np.maximum(snapshot.nameplate.lease_step_s[slots].astype(np.int64), 1)
        left_s = np.maximum((until_ms[slots] - now.mono_ms) // 1000, 1)
        steps: Ints = -(-left_s // step_s) * step_s
        leases[rows] = np.where(left_s < granted[rows], np.minimum(leases[rows], steps), leases[rows])
    return leases


def _mixed(count: int) -> NDArray[np.int64]:
    """Numbers below `count`, each once, neighbours far apart."""
    step = max(1, round(0.618 * count))
    while math.gcd(step, count) != 1:
        step += 1
    # without a division of each number by a variable one, which takes several times as long
    products = np.arange(0, count * step, step)
    products -= products // count * count
    return products


def _filled_w(window_w: Floats, more_w: float) -> Floats:
    """`window_w` after `more_w` has been poured in, the lowest filled first."""
    steps_w = np.sort(window_w)
    counts = np.arange(1, len(steps_w) + 1)
    levels_w = (np.cumsum(steps_w) + more_w) / counts
    level_w = levels_w[max(int((levels_w > steps_w).sum()) - 1, 0)]
    filled_w: Floats = np.maximum(window_w, level_w)
    return filled_w


def release_at(homes: NDArray[np.integer], power_w: Floats, end_ms: int, spread_s: float) -> Ints:
    """When each device is released (same clock as `end_ms`): from the end on, spread over `spread_s` by power, so that
    two large batteries never go at once. Those of one of the `homes` (a number for each device) go together."""
    weight_w = np.abs(power_w) + REVERTING_W
    order = np.lexsort((homes, spread(homes, 2)))
    before_w = np.zeros(len(homes))
    before_w[order] = np.cumsum(weight_w[order]) - weight_w[order] / 2
    _, home = np.unique(homes, return_inverse=True)
    first_w = np.full(len(homes), np.inf)
    np.minimum.at(first_w, home, before_w)
    part = first_w[home] / max(float(weight_w.sum()), REVERTING_W)
    result: Ints = end_ms + (1000 * spread_s * part).astype(np.int64)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What members without power to give do: `blocked` are only kept from discharging, `free` are left to their maker's
    own mode, the others hold 0 W."""

    blocked: Bools
    free: Bools


def rest(snapshot: Snapshot, now: Now, *, idle: Bools, by_itself: Bools, guaranteed: Bools, after_s: float) -> Rest:
    """Members given nothing (`idle`) are kept from discharging and free to charge from PV where the product can do
    that; else they are left to their maker's own mode where they may be left `by_itself` and the device itself keeps
    its reserve (`guaranteed`); else they hold 0 W. A member that had power holds 0 W for `after_s` first, since it may
    get power again."""
    control = snapshot.control
    waited = now.mono_ms - control.changed_mono_ms >= 1000 * after_s
    resting = idle & (
        (control.authority != int(Authority.CONTROLLED)) | control.idle | ((control.setpoint_w == 0) & waited)
    )
    blocked = resting & snapshot.nameplate.blocks
    return Rest(blocked=blocked, free=resting & ~snapshot.nameplate.blocks & by_itself & guaranteed)

"""Keeps power within what each feeder may carry: devices are numbered by feeder, -1 = on none; sizes in W."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.fleet.measured import Power
from gateway.domain.types import Bools, Floats, Ints


def left_w(feeder_w: Floats, feeder: NDArray[np.int32], carried_w: Floats, mask: Bools) -> Floats:
    """What feeders still may carry beside what devices outside `mask` carry."""
    rows = np.flatnonzero((carried_w > 0) & ~mask & (feeder >= 0))
    used_w = np.bincount(feeder[rows], carried_w[rows], minlength=len(feeder_w))
    return np.maximum(feeder_w - used_w, 0.0)


def carried_w(
    goal_w: Floats,
    bounds_w: Iterable[Floats | None],
    feeder: NDArray[np.int32],
    taken_w: Ints,
    loose_w: Callable[[], Floats],
) -> Floats:
    """`goal_w` within every one of some bounds of feeders; None = no bounds. `loose_w` is asked where there are any."""
    for feeder_w in bounds_w:
        if feeder_w is not None and len(feeder_w):
            goal_w = within_w(goal_w, feeder_w, feeder, taken_w.astype(np.float64), loose_w())
    return goal_w


def within_w(goal_w: Floats, feeder_w: Floats, feeder: NDArray[np.int32], taken_w: Floats, loose_w: Floats) -> Floats:
    """`goal_w` cut to what feeders still may carry beside `taken_w` by earlier events and `loose_w`, which flows
    whatever is told; devices of one feeder are cut in proportion."""
    rows = np.flatnonzero(feeder >= 0)
    taken_w = taken_w[rows]
    more_w = np.maximum(np.abs(goal_w[rows]) - taken_w, 0.0)
    numbers, count = feeder[rows], len(feeder_w)
    used_w = np.bincount(numbers, np.maximum(taken_w, loose_w[rows]), minlength=count)
    asked_w = np.bincount(numbers, more_w, minlength=count)
    part = np.minimum(np.maximum(feeder_w - used_w, 0.0) / np.maximum(asked_w, 1e-9), 1.0)
    carried_w = goal_w.copy()
    carried_w[rows] = np.sign(goal_w[rows]) * np.minimum(np.abs(goal_w[rows]), taken_w + more_w * part[numbers])
    return carried_w


def loose_each_w(snapshot: Snapshot, power: Power, reliable: Bools, lost: Bools | None) -> Floats:
    """What each device may carry under a lease although nothing rests on it, as a size: feeders carry that too."""
    control = snapshot.control
    most_w = np.maximum(np.maximum(control.ran_high_w, -control.ran_low_w), np.abs(control.setpoint_w))
    loose = (power.controlled_w > 0) & ~reliable
    if lost is not None:
        loose |= lost & power.overdue
    return np.where(loose, np.where(power.measured, np.abs(power.each_w), most_w), 0.0)

"""Decides which units run: a product with a minimum power gives nothing or at least that minimum.

The shares of the time-to-go policy become shares that every product can carry: 0, or between its minimum and its cap.
A request below the sum of the minima is served by switching units off. The sum is never more than asked, and less only
by what no unit can carry.
"""

import numpy as np

from gateway.domain.types import Bools, Floats, Ints

ENTER_PART = 1.25
"""A unit that is off is switched on for a share of this many times its minimum; one that is on stays for any share."""


def commit(share_w: Floats, cap_w: Floats, least_w: Floats, time_s: Floats, on: Bools, goal_w: float) -> Floats:
    """Shares that can be carried. `cap_w` and `least_w` (0 = any share can) bound each unit, `time_s` its time-to-go,
    `on` those that run already. The longest-lasting come first, those that run before those that do not."""
    least_w = np.ceil(least_w)
    bound = least_w > 1
    runs = ~bound | (share_w >= least_w)
    able = bound & (cap_w >= least_w)
    runs &= ~bound | able
    kept = able & ~runs & on & (share_w > 0)
    idle = able & ~runs & ~kept & (share_w > 0)
    # units that are off come on as far as what they are owed together carries their minima
    rank = np.flatnonzero(idle)
    rank = rank[np.argsort(-time_s[rank], kind="stable")]
    owed_w = float(share_w[idle].sum())
    entering = rank[np.cumsum(least_w[rank]) * ENTER_PART <= owed_w]
    chosen = runs | kept
    chosen[entering] = True
    chosen = _affordable(chosen, bound, least_w, time_s, on, goal_w)
    chosen = _sufficient(chosen, able, cap_w, least_w, time_s, goal_w)
    low_w = np.where(chosen & bound, least_w, 0.0)
    wanted_w = np.where(chosen, np.clip(share_w, low_w, cap_w), 0.0)
    return _fitted(wanted_w, low_w, np.where(chosen, cap_w, 0.0), goal_w)


def _affordable(chosen: Bools, bound: Bools, least_w: Floats, time_s: Floats, on: Bools, goal_w: float) -> Bools:
    """Drop units whose minima would exceed the request: the shortest-lasting first, of two alike the one that is
    off."""
    rows = np.flatnonzero(chosen & bound)
    if float(least_w[rows].sum()) <= goal_w:
        return chosen
    rows = rows[np.lexsort((~on[rows], -time_s[rows]))]
    result = chosen.copy()
    result[rows[np.cumsum(least_w[rows]) > goal_w]] = False
    return result


def _sufficient(chosen: Bools, able: Bools, cap_w: Floats, least_w: Floats, time_s: Floats, goal_w: float) -> Bools:
    """Add units that are off, the longest-lasting first, where the others cannot carry the request."""
    missing_w = goal_w - float(cap_w[chosen].sum())
    if missing_w <= 0:
        return chosen
    rows = np.flatnonzero(able & ~chosen)
    rows = rows[np.argsort(-time_s[rows], kind="stable")]
    # all but the last carry their cap; the last carries at least its minimum
    before_w = np.concatenate(([0.0], np.cumsum(cap_w[rows])[:-1])) if len(rows) else np.zeros(0)
    needed = before_w < missing_w
    headroom_w = goal_w - float(np.where(chosen & able, least_w, 0.0).sum())
    result = chosen.copy()
    result[rows[needed & (np.cumsum(least_w[rows]) <= headroom_w)]] = True
    return result


def _fitted(wanted_w: Floats, low_w: Floats, high_w: Floats, goal_w: float) -> Floats:
    """`wanted_w` moved within its bounds so that its sum is `goal_w`, or as near from below as the bounds allow."""
    off_w = goal_w - float(wanted_w.sum())
    slack_w = high_w - wanted_w if off_w > 0 else wanted_w - low_w
    most_w = float(slack_w.sum())
    if most_w <= 0:
        return wanted_w
    fitted_w: Floats = wanted_w + np.sign(off_w) * slack_w * min(abs(off_w) / most_w, 1.0)
    return fitted_w


def in_steps(share_w: Ints, step_w: Floats, least_w: Floats, cap_w: Floats) -> Ints:
    """Cut shares to the product's steps (towards 0) and give the rest to units without steps."""
    coarse = step_w > 1
    if not coarse.any():
        return share_w
    cut_w = np.where(coarse, np.floor(share_w / step_w) * step_w, share_w).astype(np.int64)
    cut_w[coarse & (cut_w < least_w)] = 0
    left_w = int(share_w.sum() - cut_w.sum())
    fine = np.flatnonzero(~coarse & (cut_w > 0))
    headroom_w = np.floor(cap_w[fine]).astype(np.int64) - cut_w[fine]
    filled_w = np.minimum(np.cumsum(headroom_w), left_w)
    cut_w[fine] += np.diff(filled_w, prepend=0)
    return cut_w

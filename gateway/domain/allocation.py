"""Who delivers how much of a target: the time-to-go policy (Evans, Tindemans, Angeli 2018).

Every device has a time-to-go, the time its energy lasts at full power. Those with the longest go first: power is
`p * clip((x - z) / horizon, 0, 1)`, the level z chosen so that the sum meets the target. Homes share the target first,
then the devices of a home share what it got. Device limits are part of the search, so that the sum is exact whenever
the envelope allows it.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from gateway.domain.envelope import Envelope
from gateway.domain.fleet import Snapshot
from gateway.domain.model import Bools, Floats, Ints

# enough for any pair of doubles: a step halves the bracket at least every second time
_STEPS_MAX = 128


class Shortfall(Enum):
    """Why less was allocated than asked."""

    NONE = "none"
    NO_MEMBERS = "no_members"
    LIMITS = "limits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """`setpoint_w` per slot in whole W (+ = discharge), 0 outside the mask; sums in W with the target's sign."""

    setpoint_w: Ints
    allocated_w: int
    unserved_w: int
    reason: Shortfall


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """What the devices that can serve one direction offer: `cap_w` whole W now, `power_w` sustained, `energy_ws`."""

    slots: NDArray[np.intp]
    cap_w: Floats
    power_w: Floats
    energy_ws: Floats
    site: NDArray[np.int32]


def allocate(
    target_w: float | None,
    envelope: Envelope,
    snapshot: Snapshot,
    mask: Bools,
    *,
    horizon_s: float,
    seconds_to_end: float,
    charge: bool = False,
) -> Allocation:
    """Split `target_w` (W, + = discharge) over the devices in `mask`.

    `target_w` None = the most that can be sustained for `seconds_to_end`, charging if `charge`. Never past the
    envelope; the sum is the target in whole W whenever the envelope allows. `horizon_s` > 0 smooths: the larger, the
    more devices share and the less a setpoint moves.
    """
    charging = charge if target_w is None else target_w < 0
    offer = _offer(envelope, snapshot, mask, charging=charging)
    asked_w = None if target_w is None else round(abs(target_w))
    if asked_w is None:
        power_w = np.minimum(offer.cap_w, offer.energy_ws / max(seconds_to_end, 1.0))
        share_w = np.floor(power_w).astype(np.int64)
        reason = Shortfall.NONE
    else:
        most_w = int(offer.cap_w.sum())
        goal_w = min(asked_w, most_w)
        share_w = _whole(_shares(offer, float(goal_w), horizon_s), offer.cap_w, goal_w)
        reason = Shortfall.NONE if goal_w == asked_w else Shortfall.LIMITS if mask.any() else Shortfall.NO_MEMBERS
    sign = -1 if charging else 1
    setpoint_w = np.zeros(snapshot.n, dtype=np.int64)
    setpoint_w[offer.slots] = sign * share_w
    total_w = int(share_w.sum())
    return Allocation(
        setpoint_w=setpoint_w,
        allocated_w=sign * total_w,
        unserved_w=0 if asked_w is None else sign * (asked_w - total_w),
        reason=reason,
    )


def _offer(envelope: Envelope, snapshot: Snapshot, mask: Bools, *, charging: bool) -> _Offer:
    if charging:
        cap_w, power_w, energy_wh = envelope.charge_w, envelope.sustain_charge_w, envelope.absorbable_wh
    else:
        cap_w, power_w, energy_wh = envelope.discharge_w, envelope.sustain_discharge_w, envelope.deliverable_wh
    slots = np.flatnonzero(mask & envelope.controllable & (cap_w >= 1))
    return _Offer(
        slots=slots,
        cap_w=np.floor(cap_w[slots]),
        power_w=power_w[slots],
        energy_ws=energy_wh[slots] * 3600,
        site=snapshot.nameplate.site[slots],
    )


def _shares(offer: _Offer, goal_w: float, horizon_s: float) -> Floats:
    """Power of each device in W, not yet whole: homes first, then the devices of a home."""
    groups = _groups(offer.site)
    if groups is None:
        return _level_all(offer.power_w, offer.cap_w, offer.energy_ws / offer.power_w, goal_w, horizon_s)
    count = int(groups.max(initial=-1)) + 1

    power_w, cap_w = _sums(groups, offer.power_w, count), _sums(groups, offer.cap_w, count)
    time_s = _sums(groups, offer.energy_ws, count) / power_w
    home_w = _level_all(power_w, cap_w, time_s, goal_w, horizon_s)
    share_w = np.minimum(home_w[groups], offer.cap_w)
    split = (np.bincount(groups, minlength=count) > 1) & (home_w > 0) & (home_w < cap_w)
    rows = np.flatnonzero(split[groups])
    if len(rows):
        share_w[rows] = _level_each(
            (np.cumsum(split) - 1)[groups[rows]],
            offer.power_w[rows],
            offer.cap_w[rows],
            offer.energy_ws[rows] / offer.power_w[rows],
            home_w[split],
            horizon_s,
        )
    return share_w


def _groups(site: NDArray[np.int32]) -> NDArray[np.int64] | None:
    """Home of each row as a small number; None where every row stands alone."""
    group = site.astype(np.int64)
    alone = group < 0
    if alone.any():
        group[alone] = group.max(initial=-1) + 1 + np.arange(int(alone.sum()))
    present = np.bincount(group)
    if int(present.max(initial=0)) <= 1:
        return None
    number: NDArray[np.int64] = (np.cumsum(present > 0) - 1)[group]
    return number


def _level_all(power_w: Floats, cap_w: Floats, time_s: Floats, goal_w: float, horizon_s: float) -> Floats:
    """min(cap, power * clip((time - z) / horizon, 0, 1)) with z such that the sum is `goal_w` (at most the sum of
    `cap_w`). The sum falls with z, straight between breakpoints: Newton, kept inside a shrinking bracket."""
    if not len(power_w) or goal_w <= 0:
        return np.zeros(len(power_w))
    slope_w_s = power_w / horizon_s
    low, high = float(time_s.min()) - horizon_s, float(time_s.max())
    z = high - (high - low) * goal_w / max(float(cap_w.sum()), 1.0)
    share_w = cap_w
    width_s = high - low
    for step in range(_STEPS_MAX):
        raw_w = slope_w_s * (time_s - z)
        share_w = np.clip(raw_w, 0, cap_w)
        total_w = float(share_w.sum())
        if abs(total_w - goal_w) <= 1e-9 * max(goal_w, 1.0):
            break
        if total_w > goal_w:
            low = z
        else:
            high = z
        if not low < high:
            break
        fall = float(slope_w_s[(raw_w > 0) & (raw_w < cap_w)].sum())
        z = z + (total_w - goal_w) / fall if fall > 0 else low
        slow = step % 2 == 1 and high - low > width_s / 2
        if step % 2 == 1:
            width_s = high - low
        if slow or not low < z < high:
            z = low + (high - low) / 2
    return share_w


def _level_each(
    group: NDArray[np.int64], power_w: Floats, cap_w: Floats, time_s: Floats, goal_w: Floats, horizon_s: float
) -> Floats:
    """The same for many small groups at once, each with a level and a goal of its own; solved groups drop out."""
    result_w = np.zeros(len(group))
    rows = np.arange(len(group))
    low = np.full(len(goal_w), np.inf)
    np.minimum.at(low, group, time_s - horizon_s)
    high = np.full(len(goal_w), -np.inf)
    np.maximum.at(high, group, time_s)
    z = low + (high - low) / 2
    slope_w_s = power_w / horizon_s
    for _ in range(_STEPS_MAX):
        raw_w = slope_w_s * (time_s - z[group])
        share_w = np.clip(raw_w, 0, cap_w)
        over_w = _sums(group, share_w, len(goal_w)) - goal_w
        fall = _sums(group, slope_w_s * ((raw_w > 0) & (raw_w < cap_w)), len(goal_w))
        low, high = np.where(over_w > 0, z, low), np.where(over_w > 0, high, z)
        newton, middle = z + over_w / np.where(fall > 0, fall, np.inf), low + (high - low) / 2
        unsolved = (np.abs(over_w) > 1e-9 * np.maximum(goal_w, 1.0)) & (z != middle)
        z = np.where((newton > low) & (newton < high) & (fall > 0), newton, middle)
        result_w[rows] = share_w
        if not unsolved.any():
            break
        if 2 * int(unsolved.sum()) < len(unsolved):
            keep = unsolved[group]
            rows, time_s, cap_w, slope_w_s = rows[keep], time_s[keep], cap_w[keep], slope_w_s[keep]
            group = (np.cumsum(unsolved) - 1)[group[keep]]
            low, high, z, goal_w = low[unsolved], high[unsolved], z[unsolved], goal_w[unsolved]
    return result_w


def _sums(group: NDArray[np.int64], values: Floats, count: int) -> Floats:
    return np.bincount(group, weights=values, minlength=count).astype(np.float64, copy=False)


def _whole(share_w: Floats, cap_w: Floats, goal_w: int) -> Ints:
    """Whole W with the sum `goal_w`: rounded down, the rest to those that lost most, one W each."""
    whole_w = np.floor(share_w).astype(np.int64)
    most_w = cap_w.astype(np.int64)
    for _ in range(4):
        rest_w = goal_w - int(whole_w.sum())
        if rest_w == 0:
            break
        if rest_w < 0:
            rows = np.flatnonzero(whole_w > 0)
            lost = share_w[rows] - whole_w[rows]
        else:
            rows = np.flatnonzero(whole_w < most_w)
            lost = whole_w[rows] - share_w[rows]
        each = max(abs(rest_w) // max(len(rows), 1), 0)
        if each:
            room_w = whole_w[rows] if rest_w < 0 else most_w[rows] - whole_w[rows]
            whole_w[rows] += np.sign(rest_w) * np.minimum(each, room_w)
            continue
        chosen = rows[np.argpartition(lost, abs(rest_w) - 1)[: abs(rest_w)]]
        whole_w[chosen] += np.sign(rest_w)
    return whole_w

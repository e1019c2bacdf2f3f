"""Splits a target over devices by the time-to-go policy (Evans, Tindemans, Angeli 2018).

Every device has a time-to-go, the time its energy lasts at full power. Those with the longest go first: power is
`p * clip((x - z) / horizon, 0, 1)`, the level z chosen so that the sum meets the target. Homes come first: `limits`
splits the headroom of each meter among its batteries so that they last equally long; with those shares as full power,
one level for all devices gives the result of a level over homes and then one within each. A feeder is cut to what it
may carry, and the rest goes to the other devices. Device limits are part of the search, so that the sum is exact
whenever the envelope allows it.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from gateway.domain.control.unit_commitment import commit, in_steps
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits.types import Envelope
from gateway.domain.table import run
from gateway.domain.types import Bools, Floats, Ints

# enough for any pair of doubles: a step halves the bracket at least every second time
_STEPS_MAX = 128
_SUM_PART = 1e-9


class Shortfall(Enum):
    """Why less was allocated than asked. `MINIMA`: the rest is less than any product can carry. `CEILING`: the
    program's ceiling or the nomination bounds the request. `UNMEASURED`: all was allocated, but part of it to devices
    that are not measured. `NOT_DURABLE`: the journal does not take the release plans of some of the devices."""

    NONE = "none"
    NO_MEMBERS = "no_members"
    LIMITS = "limits"
    FEEDERS = "feeders"
    MINIMA = "minima"
    CEILING = "ceiling"
    UNMEASURED = "unmeasured"
    NOT_DURABLE = "not_durable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """`setpoint_w` per slot in whole W (+ = discharge), 0 outside the mask; sums in W with the target's sign."""

    setpoint_w: Ints
    allocated_w: int
    unserved_w: int
    reason: Shortfall


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request to allocate. `target_w` + = discharge, None = the most that can be sustained for `seconds_to_end`,
    charging if `charge`. `mask`: who may be asked. `horizon_s` > 0 smooths: the larger, the more devices share and the
    less a setpoint moves. `taken_w`: what each device already carries in this direction, as a magnitude. `feeder_w`:
    the most each feeder (by its number) may carry, inf = any."""

    target_w: float | None
    mask: Bools
    horizon_s: float
    seconds_to_end: float
    charge: bool = False
    taken_w: Ints | None = None
    feeder_w: Floats | None = None

    @property
    def charging(self) -> bool:
        return self.charge if self.target_w is None else self.target_w < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """Devices that can serve one direction: `cap_w` whole W now beside `taken_w`, `power_w` sustained, `energy_ws`;
    `least_w` and `step_w` of their products, `on` those that go this way already, `feeder_w` what feeders still may
    carry."""

    slots: NDArray[np.intp]
    cap_w: Floats
    taken_w: Floats
    power_w: Floats
    energy_ws: Floats
    least_w: Floats
    step_w: Floats
    on: Bools
    feeder: NDArray[np.intp]
    feeder_w: Floats | None

    def most_w(self) -> tuple[int, bool]:
        """The most all of them carry in whole W, and whether a feeder bounds it."""
        alone_w = int(self.cap_w.sum())
        if self.feeder_w is None:
            return alone_w, False
        free_w, sums_w = _by_feeder(self.feeder, self.cap_w, len(self.feeder_w))
        bounded_w = np.floor(np.minimum(sums_w, self.feeder_w)).sum() + free_w
        return int(bounded_w), bool(bounded_w < alone_w)


def allocate(ask: Ask, envelope: Envelope, snapshot: Snapshot) -> Allocation:
    """Split a target over devices. Never past the envelope; the sum is the target in whole W whenever envelope, feeders
    and minima allow."""
    offer = _offer(ask, envelope, snapshot)
    most_w, bounded = offer.most_w()
    lasting_w = offer.energy_ws / max(ask.seconds_to_end, 1.0) - offer.taken_w
    power_w = np.clip(lasting_w, 0.0, offer.cap_w)
    asked_w = min(int(power_w.sum()), most_w) if ask.target_w is None else round(abs(ask.target_w))
    goal_w = min(asked_w, most_w)
    level = ask.target_w is None and not bounded
    wanted_w = power_w if level else _shares(offer, float(goal_w), ask.horizon_s)
    cap_w = offer.cap_w
    if (offer.least_w > 1).any():
        wanted_w = _committed(offer, wanted_w, float(goal_w))
        goal_w = min(goal_w, int(wanted_w.sum() + 1e-6))
        cap_w = np.where(wanted_w > 0, cap_w, 0.0)
    share_w = in_steps(_whole(wanted_w, cap_w, goal_w), offer.step_w, offer.least_w, cap_w)
    sign = -1 if ask.charging else 1
    setpoint_w = np.zeros(snapshot.n, dtype=np.int64)
    setpoint_w[offer.slots] = sign * share_w
    total_w = int(share_w.sum())
    return Allocation(
        setpoint_w=setpoint_w,
        allocated_w=sign * total_w,
        unserved_w=0 if ask.target_w is None else sign * (asked_w - total_w),
        reason=_reason(ask, asked_w, most_w, total_w, bounded=bounded),
    )


def _by_feeder(feeder: NDArray[np.intp], power_w: Floats, count: int) -> tuple[float, Floats]:
    """Sums over the devices on no feeder and over those on each of `count`."""
    # the last entry is for -1: no feeder
    numbers = np.where(feeder < 0, count, feeder) if len(feeder) and feeder.min() < 0 else feeder
    sums_w = np.bincount(numbers, weights=power_w, minlength=count + 1).astype(np.float64, copy=False)
    return float(sums_w[count]), sums_w[:count]


def _committed(offer: _Offer, wanted_w: Floats, goal_w: float) -> Floats:
    """Shares that products with a minimum can carry, and no feeder more than it may."""
    time_s = offer.energy_ws / offer.power_w
    carried_w = commit(wanted_w, offer.cap_w, offer.least_w, time_s, offer.on, goal_w)
    if offer.feeder_w is None:
        return carried_w
    # where minima overload a feeder, its shortest-lasting devices are dropped first
    rows = np.flatnonzero((offer.feeder >= 0) & (carried_w > 0))
    rows = rows[np.lexsort((-time_s[rows], offer.feeder[rows]))]
    feeder = offer.feeder[rows]
    running_w = np.cumsum(carried_w[rows])
    first = np.searchsorted(feeder, feeder)
    before_w = running_w[first] - carried_w[rows][first]
    carried_w[rows[running_w - before_w > offer.feeder_w[feeder] * (1 + _SUM_PART) + _SUM_PART]] = 0.0
    return carried_w


def _reason(ask: Ask, asked_w: int, most_w: int, total_w: int, *, bounded: bool) -> Shortfall:
    if ask.target_w is None or total_w == asked_w:
        return Shortfall.NONE
    if not ask.mask.any():
        return Shortfall.NO_MEMBERS
    if total_w < min(asked_w, most_w):
        return Shortfall.MINIMA
    return Shortfall.FEEDERS if bounded else Shortfall.LIMITS


def _offer(ask: Ask, envelope: Envelope, snapshot: Snapshot) -> _Offer:
    if ask.charging:
        cap_w, power_w, energy_wh = envelope.charge_w, envelope.sustain_charge_w, envelope.absorbable_wh
    else:
        cap_w, power_w, energy_wh = envelope.discharge_w, envelope.sustain_discharge_w, envelope.deliverable_wh
    plate, in_force_w = snapshot.nameplate, snapshot.control.setpoint_w
    able = ask.mask & envelope.controllable & (cap_w >= 1)
    if ask.taken_w is not None:
        able &= cap_w >= ask.taken_w + 1
    slots = np.flatnonzero(able)
    at = run(slots)
    free_w, feeder_w = np.floor(cap_w[at]), ask.feeder_w
    least_w, feeder = plate.setpoint_w_min[at].astype(np.float64), plate.feeder[at].astype(np.intp)
    taken_w = np.zeros(len(slots)) if ask.taken_w is None else ask.taken_w[at].astype(np.float64)
    if ask.taken_w is not None:
        free_w -= taken_w
        least_w[taken_w > 0] = 0.0
        if feeder_w is not None:
            _, used_w = _by_feeder(
                plate.feeder.astype(np.intp), np.maximum(ask.taken_w, 0).astype(np.float64), len(feeder_w)
            )
            feeder_w = np.maximum(feeder_w - used_w, 0.0)
    return _Offer(
        slots=slots,
        cap_w=free_w,
        taken_w=taken_w,
        power_w=power_w[at],
        energy_ws=energy_wh[at] * 3600,
        least_w=least_w,
        step_w=plate.setpoint_step_w[at].astype(np.float64),
        on=in_force_w[at] < 0 if ask.charging else in_force_w[at] > 0,
        feeder=feeder,
        feeder_w=feeder_w,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Units:
    """Devices to share a goal: `power_w`, `cap_w`, `time_s` to go, and the feeder of each (-1 = none)."""

    power_w: Floats
    cap_w: Floats
    time_s: Floats
    feeder: NDArray[np.intp]

    def rows(self, rows: NDArray[np.intp]) -> "_Units":
        return _Units(
            power_w=self.power_w[rows], cap_w=self.cap_w[rows], time_s=self.time_s[rows], feeder=self.feeder[rows]
        )


def _shares(offer: _Offer, goal_w: float, horizon_s: float) -> Floats:
    """Power of each device in W, not yet whole."""
    units = _Units(
        power_w=offer.power_w, cap_w=offer.cap_w, time_s=offer.energy_ws / offer.power_w, feeder=offer.feeder
    )
    return _level(units, goal_w, horizon_s, offer.feeder_w)


def _level(units: _Units, goal_w: float, horizon_s: float, feeder_w: Floats | None) -> Floats:
    """One level for all devices, except those on a feeder that would carry too much: these get a level of their own
    that meets the feeder's limit, and the others one for the rest. (Bounds on disjoint groups: what is over its bound
    in the relaxed solution is at its bound in the true one.)"""
    share_w = _level_all(units, goal_w, horizon_s)
    if feeder_w is None:
        return share_w
    full = np.zeros(len(feeder_w), dtype=np.bool_)
    on_feeders = units.feeder >= 0
    for _ in range(len(feeder_w)):
        _, sums_w = _by_feeder(units.feeder, share_w, len(feeder_w))
        over = ~full & (sums_w > feeder_w * (1 + _SUM_PART) + _SUM_PART)
        if not over.any():
            break
        full |= over
        bound = on_feeders & full[units.feeder]
        rows = np.flatnonzero(bound)
        numbers = (np.cumsum(full) - 1)[units.feeder[rows]]
        share_w[rows] = _level_each(numbers, units.rows(rows), feeder_w[full], horizon_s)
        rest = np.flatnonzero(~bound)
        left_w = goal_w - float(share_w[rows].sum())
        share_w[rest] = _level_all(units.rows(rest), left_w, horizon_s)
    return share_w


def _level_all(units: _Units, goal_w: float, horizon_s: float) -> Floats:
    """min(cap, power * clip((time - z) / horizon, 0, 1)) with z such that the sum is `goal_w` (at most the sum of
    `cap_w`). The sum falls with z, straight between breakpoints: Newton, kept inside a shrinking bracket."""
    power_w, cap_w, time_s = units.power_w, units.cap_w, units.time_s
    if not len(power_w) or goal_w <= 0:
        return np.zeros(len(power_w))
    slope_w_s = power_w / horizon_s
    low, high = float(time_s.min()) - horizon_s, float(time_s.max())
    z = high - (high - low) * goal_w / max(float(cap_w.sum()), 1.0)
    share_w = cap_w.copy()
    width_s = high - low
    for step in range(_STEPS_MAX):
        raw_w = slope_w_s * (time_s - z)
        share_w = np.clip(raw_w, 0, cap_w)
        total_w = float(share_w.sum())
        if abs(total_w - goal_w) <= _SUM_PART * max(goal_w, 1.0):
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


def _level_each(group: NDArray[np.int64], units: _Units, goal_w: Floats, horizon_s: float) -> Floats:
    """The same for many small groups at once, each with a level and a goal of its own; solved groups drop out."""
    result_w = np.zeros(len(group))
    rows = np.arange(len(group))
    time_s, cap_w = units.time_s, units.cap_w
    low = np.full(len(goal_w), np.inf)
    np.minimum.at(low, group, time_s - horizon_s)
    high = np.full(len(goal_w), -np.inf)
    np.maximum.at(high, group, time_s)
    z = low + (high - low) / 2
    slope_w_s = units.power_w / horizon_s
    for _ in range(_STEPS_MAX):
        raw_w = slope_w_s * (time_s - z[group])
        share_w = np.clip(raw_w, 0, cap_w)
        over_w = _sums(group, share_w, len(goal_w)) - goal_w
        fall = _sums(group, slope_w_s * ((raw_w > 0) & (raw_w < cap_w)), len(goal_w))
        low, high = np.where(over_w > 0, z, low), np.where(over_w > 0, high, z)
        newton, middle = z + over_w / np.where(fall > 0, fall, np.inf), low + (high - low) / 2
        unsolved = (np.abs(over_w) > _SUM_PART * np.maximum(goal_w, 1.0)) & (z != middle)
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
            headroom_w = whole_w[rows] if rest_w < 0 else most_w[rows] - whole_w[rows]
            whole_w[rows] += np.sign(rest_w) * np.minimum(each, headroom_w)
            continue
        chosen = rows[np.argpartition(lost, abs(rest_w) - 1)[: abs(rest_w)]]
        whole_w[chosen] += np.sign(rest_w)
    return whole_w

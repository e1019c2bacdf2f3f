"""Baselines of many homes at once, exact: whole numbers of Wh over a denominator of each home.

The same rules as `baseline` has for one home, as arrays; days are in the order of `like_days`, newest first. A home
without what a baseline needs has none, and says why.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.domain.programs.baseline import DayMatching
from gateway.domain.programs.metered import HOUR_MS, MeteredWh
from gateway.domain.rules.performance import AdjustBy, TieBreak
from gateway.domain.types import Bools, Floats, Ints

Exact = NDArray[np.object_]
"""Integers of any size."""

NO_WINDOW = "the adjustment window has no data"
NO_HOURS_BEFORE = "the window before the event has no data"
NO_NOMINAL = "nominal power is unknown"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SiteBaselines:
    """`wh / over` is the energy of each interval (homes x intervals, `over` of each home). `why`: "" = it is known.
    `days`: which of the like days its mean is of (homes x days; none where it is of none)."""

    wh: Exact
    over: Exact
    why: NDArray[np.object_]
    days: Bools

    @property
    def known(self) -> Bools:
        found: Bools = self.why == ""
        return found

    def negative(self) -> "SiteBaselines":
        """The same of what is given instead of drawn."""
        return replace(self, wh=-self.wh)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LikeDayEnergy:
    """What homes did on days like that of the event: in the event's intervals and in the adjustment window (homes x
    days x intervals), and in the window of the event's own day (homes x intervals). `usable`: False on days that have
    no part in a home's baseline (homes x days)."""

    event: MeteredWh
    window: MeteredWh
    today: MeteredWh
    usable: Bools


def no_baselines(homes: int, intervals: int) -> SiteBaselines:
    """0 of every interval."""
    return _of(np.zeros((homes, intervals), dtype=np.int64), np.ones(homes, dtype=np.int64))


def unfounded(homes: int, intervals: int, why: str) -> SiteBaselines:
    """None of any home."""
    return replace(no_baselines(homes, intervals), why=np.full(homes, why, dtype=object))


def prescriptive(ratio: Fraction, nominal_w: Floats, intervals: int, length_ms: int) -> SiteBaselines:
    """A share of nominal power (W; NaN = unknown)."""
    known = ~np.isnan(nominal_w)
    watts = np.floor(np.where(known, nominal_w, 0.0) + 0.5).astype(np.int64).astype(object)
    wh = np.repeat((watts * ratio.numerator * length_ms)[:, np.newaxis], intervals, axis=1)
    over = np.full(len(watts), ratio.denominator * HOUR_MS, dtype=object)
    return replace(_of(wh, over), why=np.where(known, "", NO_NOMINAL).astype(object))


def hours_before(today: MeteredWh, intervals: int) -> SiteBaselines:
    """The mean of the window before the event, in every interval of it."""
    homes, count = today.wh.shape
    wh = np.repeat(today.wh.sum(axis=1)[:, np.newaxis], intervals, axis=1)
    known = today.known.all(axis=1) & (count > 0)
    return replace(_of(wh, np.full(homes, max(count, 1))), why=np.where(known, "", NO_HOURS_BEFORE).astype(object))


def like_days_mean(energy: LikeDayEnergy, matching: DayMatching) -> SiteBaselines:
    """The mean of the `highest` of the first `days` days that are whole, adjusted by what the home did in the window of
    the event's day."""
    adjusted = matching.adjust_by is not None
    whole = energy.usable & energy.event.known.all(axis=2)
    if adjusted:
        whole &= energy.window.known.all(axis=2)
    pool = whole & (np.cumsum(whole, axis=1) <= matching.days)
    there = pool.sum(axis=1)
    chosen = _highest(energy.event.wh.sum(axis=2), pool, matching)
    found = _of((energy.event.wh * chosen[:, :, np.newaxis]).sum(axis=1), np.full(len(pool), matching.highest))
    found = replace(found, days=chosen)
    why = np.full(len(pool), "", dtype=object)
    if adjusted:
        why[~energy.today.known.all(axis=1) | (energy.today.wh.shape[1] == 0)] = NO_WINDOW
        found = _adjusted(found, energy, chosen, matching)
    few = np.flatnonzero(there < matching.days)
    why[few] = [f"{n} of {matching.days} like days have data" for n in there[few]]
    return replace(found, why=why)


def _highest(total_wh: Ints, pool: Bools, matching: DayMatching) -> Bools:
    """Of each home's pool the days of most energy; of equal ones the earlier or the later one."""
    age = np.broadcast_to(np.arange(pool.shape[1]), pool.shape)
    first = -age if matching.ties is TieBreak.EARLIER else age
    order = np.lexsort((first, -total_wh, ~pool), axis=-1)[:, : matching.highest]
    chosen = np.zeros(pool.shape, dtype=np.bool_)
    np.put_along_axis(chosen, order, values=True, axis=1)
    return chosen & pool


def _adjusted(found: SiteBaselines, energy: LikeDayEnergy, chosen: Bools, matching: DayMatching) -> SiteBaselines:
    today = energy.today.wh.sum(axis=1).astype(object) * matching.highest
    usual = (energy.window.wh * chosen[:, :, np.newaxis]).sum(axis=(1, 2)).astype(object)
    if matching.adjust_by is AdjustBy.DIFFERENCE:
        count = max(energy.today.wh.shape[1], 1)
        return replace(found, wh=found.wh * count + (today - usual)[:, np.newaxis], over=found.over * count)
    # a ratio to what is 0 or below says nothing
    says = usual > 0
    up, down = np.where(says, today, 1), np.where(says, usual, 1)
    for cap, beyond in ((matching.cap_high, np.greater), (matching.cap_low, np.less)):
        if cap is not None:
            past = says & beyond(up * cap.denominator, down * cap.numerator).astype(np.bool_)
            up, down = np.where(past, cap.numerator, up), np.where(past, cap.denominator, down)
    return replace(found, wh=found.wh * up[:, np.newaxis], over=found.over * down)


def _of(wh: NDArray[Any], over: NDArray[Any]) -> SiteBaselines:
    return SiteBaselines(
        wh=wh.astype(object), over=over.astype(object), why=np.full(len(over), "", dtype=object),
        days=np.zeros((len(over), 0), dtype=np.bool_),
    )  # fmt: skip

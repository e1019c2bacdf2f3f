"""What a season will pay, and when a fleet is back after an event.

A season's pay is what its months have earned, and what the months to come will by the forecast; a month that runs
counts with what its events gave so far. A rate that nobody has verified makes the sum rest on it, and that is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from gateway.domain.programs.forecast import PowerForecast
from gateway.domain.types import Floats

BACK = 0.9
"""Part of the energy that an event took, back in the batteries, with which a fleet counts as back."""

BISECTIONS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SeasonMonth:
    """A month of a season: its rate by kW, the mean power that its events gave (None = none were yet), and whether it
    is over."""

    name: str
    rate: Decimal
    kw: float | None
    over: bool
    verified: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SeasonProjection:
    """`earned`: of months that are over; `expected`, `low`, `high`: of the whole season, with the band of the forecast
    on what is to come. `unverified`: months whose rate nobody has verified; `currency`: of all sums."""

    currency: str
    earned: Decimal
    expected: Decimal
    low: Decimal
    high: Decimal
    unverified: tuple[str, ...]


def projected(months: Sequence[SeasonMonth], coming: PowerForecast, *, currency: str) -> SeasonProjection:
    """The season's pay. A month that is over and had no event pays nothing."""
    earned = expected = low = high = Decimal(0)
    for month in months:
        if month.over:
            earned += month.rate * _kw(month.kw or 0.0)
            continue
        expected += month.rate * _kw(coming.kw if month.kw is None else month.kw)
        low += month.rate * _kw(coming.low_kw if month.kw is None else min(month.kw, coming.low_kw))
        high += month.rate * _kw(coming.high_kw if month.kw is None else max(month.kw, coming.high_kw))
    return SeasonProjection(
        currency=currency, earned=earned, expected=earned + expected, low=earned + low, high=earned + high,
        unverified=tuple(month.name for month in months if not month.verified),
    )  # fmt: skip


def _kw(value: float) -> Decimal:
    """kW as money is counted with it: whole watts."""
    return Decimal(round(value * 1000)) / 1000


def recovery_h(used_wh: Floats, charge_wh: Floats) -> float | None:
    """Hours until most of what an event took is back. `used_wh` (H): what each home gave; `charge_wh` (H, N): what it
    usually charges in each hour after; NaN = unknown, such homes are left out. None: not within those hours, or nothing
    is known."""
    known = np.isfinite(used_wh) & np.isfinite(charge_wh).all(axis=1) & (used_wh > 0)
    used, charge = used_wh[known], np.maximum(charge_wh[known], 0.0)
    wanted, hours = BACK * float(used.sum()), charge_wh.shape[1]
    by_hour = np.concatenate((np.zeros((len(used), 1)), np.cumsum(charge, axis=1)), axis=1)

    def back_wh(at_h: float) -> float:
        hour = min(int(at_h), hours - 1)
        return float(np.minimum(by_hour[:, hour] + charge[:, hour] * (at_h - hour), used).sum())

    if wanted <= 0 or not hours or back_wh(float(hours)) < wanted:
        return None
    low_h, high_h = 0.0, float(hours)
    for _ in range(BISECTIONS):
        middle_h = (low_h + high_h) / 2
        low_h, high_h = (low_h, middle_h) if back_wh(middle_h) >= wanted else (middle_h, high_h)
    return high_h

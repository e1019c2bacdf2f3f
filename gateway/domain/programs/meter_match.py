"""Compares what a home's own meter says with what its utility's does: their ratio, its band, and what is a mismatch.

Both are net energy of the same intervals, + = taken from the grid. The ratio of a stretch is that of the line through 0
which fits the utility's readings best over our own: it has a sign, and small readings weigh little.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from gateway.domain.types import Bools, Floats, Ints

INTERVALS_MIN = 96
"""Of a day at 15 minutes: less says nothing of a meter."""
DAYS_MIN = 7
"""Days that a band needs."""
BAND_PCT = (10.0, 90.0)
SCALE_MAX = 0.05
"""More than this off 1 a current transformer is not within its class, however wired."""
FIT_MIN = 0.8
"""The part of the utility's readings that the line has to explain before its slope says anything."""


class MeterMismatch(StrEnum):
    """How the home's own meter differs from the utility's. `REVERSED`: it counts the other way; `SCALED`: it reads too
    much or too little; `UNLIKE`: the two have little to do with each other."""

    REVERSED = "reversed"
    SCALED = "scaled"
    UNLIKE = "unlike"


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateBand:
    """What the utility's meter reads per Wh of our own: most days within `low` to `high`, `ratio` over all."""

    low: float
    ratio: float
    high: float

    def applied(self, wh: float) -> tuple[float, float, float]:
        """The utility's reading for one of ours: the lowest, the likeliest and the highest. An estimate."""
        low, high = sorted((wh * self.low, wh * self.high))
        return low, wh * self.ratio, high


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterMatch:
    """Two meters over `intervals` that both know, on `days` days. `ratio` None: too few, or nothing flowed; `fit`: the
    part of the utility's readings that it explains, 1 = all; `band` None: fewer than seven days, or a mismatch beyond
    scale."""

    intervals: int
    days: int
    ratio: float | None = None
    fit: float = 0.0
    band: EstimateBand | None = None
    mismatch: MeterMismatch | None = None


def matched(own: Sequence[Ints], utility: Sequence[Ints], known: Sequence[Bools]) -> MeterMatch:
    """Compare days of readings in Wh, each an array of intervals; `known`: which both meters know."""
    days = zip(own, utility, known, strict=True)
    pairs = [(o[k].astype(np.float64), u[k].astype(np.float64)) for o, u, k in days if k.any()]
    count = sum(len(o) for o, _ in pairs)
    nothing = MeterMatch(intervals=count, days=len(pairs))
    if count < INTERVALS_MIN:
        return nothing
    ours, theirs = (np.concatenate(side) for side in zip(*pairs, strict=True))
    ratio = _ratio(ours, theirs)
    if ratio is None:
        silent = not ours.any() and bool(theirs.any())
        return nothing if not silent else MeterMatch(
            intervals=count, days=len(pairs), mismatch=MeterMismatch.UNLIKE
        )  # fmt: skip
    rest = float(((theirs - ratio * ours) ** 2).sum())
    whole = float((theirs**2).sum())
    fit = 1.0 - rest / whole if whole > 0 else 0.0
    mismatch = _mismatch(ratio, fit)
    band = None if mismatch in (MeterMismatch.REVERSED, MeterMismatch.UNLIKE) else _band(ratio, pairs)
    return MeterMatch(intervals=count, days=len(pairs), ratio=ratio, fit=fit, band=band, mismatch=mismatch)


def _mismatch(ratio: float, fit: float) -> MeterMismatch | None:
    if fit < FIT_MIN:
        return MeterMismatch.UNLIKE
    if ratio < 0:
        return MeterMismatch.REVERSED
    return MeterMismatch.SCALED if abs(ratio - 1.0) > SCALE_MAX else None


def _band(ratio: float, pairs: Sequence[tuple[Floats, Floats]]) -> EstimateBand | None:
    days = [found for o, u in pairs if (found := _ratio(o, u)) is not None]
    if len(days) < DAYS_MIN:
        return None
    low, high = np.percentile(days, BAND_PCT).tolist()
    return EstimateBand(low=min(low, ratio), ratio=ratio, high=max(high, ratio))


def _ratio(own: Floats, utility: Floats) -> float | None:
    square = float((own**2).sum())
    return float((own * utility).sum()) / square if square > 0 else None

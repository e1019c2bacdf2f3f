"""The street of a season: homes of many sizes, how each counts, and when it takes part, drawn by seed.

One battery per home. How a home counts its battery's energy:

| `Meter` | what its messages have |
|---|---|
| `FINE` | lifetime counters whose step is at most a hundredth of a quarter hour at rated power |
| `COARSE` | counters of a larger step, and the energy since the message before |
| `POWER` | a sample of power alone |
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import IntEnum

import numpy as np

from simulators.homes import Bools, Floats, Homes, Ints, make_homes
from simulators.season.official import Event

STEPS_WH, STEP_PARTS = (1.0, 10.0, 100.0), (0.5, 0.3, 0.2)
POWER_ONLY = 0.02
FINE_PART, QUARTER_H = 0.01, 0.25
CLOCK_WRONG, CLOCK_MS = 0.3, 20_000
CLOCK_RIGHT_MS = 1_000
LATENCY_MS = (100, 900)
JOIN, LEAVE = 0.08, 0.05
OPT_OUT, DROPOUT, LOST = 0.02, 0.03, 0.2
"""Of homes and events: who opts out, who drops out, and who of those loses what it measured meanwhile."""

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
BACK_MS = 23 * HOUR_MS
LOAD_X, CLEAR_H = 1.4, 6.5
"""Mean load of a home over its base, appliances included; hours of full sun that a clear summer day is worth."""


class Meter(IntEnum):
    FINE = 0
    COARSE = 1
    POWER = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeasonStreet:
    """n homes at e events. `off_ms`: how far a home's clock is ahead; `latency_ms`: from sending to receipt;
    `takes_part` (n x 12): enrolled in a month of the year; `opts_out` (n x e); `away_ms` (n x e x 2): from when until
    when it is not connected, both 0 where it is connected all day; `loses` (n x e): what it measured meanwhile, which
    else it hands over when it is back."""

    seed: int
    homes: Homes
    events: tuple[Event, ...]
    meter: Ints
    off_ms: Ints
    latency_ms: Ints
    takes_part: Bools
    opts_out: Bools
    away_ms: Ints
    loses: Bools

    def __len__(self) -> int:
        return len(self.homes)

    @property
    def nominal_w(self) -> Floats:
        """Rated power, which is what is enrolled."""
        return self.homes.discharge_w_max

    def enrolled(self, day: date) -> Bools:
        return np.asarray(self.takes_part[:, day.month - 1], dtype=np.bool_)


def season_street(n: int, events: Sequence[Event], seed: int = 1) -> SeasonStreet:
    """`n` homes at `events`: the same seed gives the same street."""
    rng = np.random.default_rng([seed, 31])
    homes = _homes(n, rng, seed)
    e = len(events)
    power_only = rng.random(n) < POWER_ONLY
    coarse = homes.counter_step_wh > FINE_PART * QUARTER_H * homes.discharge_w_max
    wrong = rng.random(n) < CLOCK_WRONG
    off_ms = np.where(
        wrong,
        rng.choice([-1, 1], size=n) * rng.integers(3_000, CLOCK_MS, size=n),
        rng.integers(-CLOCK_RIGHT_MS, CLOCK_RIGHT_MS, size=n, endpoint=True),
    )
    meter = np.where(power_only, Meter.POWER, np.where(coarse, Meter.COARSE, Meter.FINE))
    away_ms, loses = _away(rng, n, events, losing=meter != Meter.COARSE)
    return SeasonStreet(
        seed=seed,
        homes=replace(homes, counter_step_wh=np.where(power_only, np.nan, homes.counter_step_wh)),
        events=tuple(events),
        meter=meter,
        off_ms=off_ms,
        latency_ms=rng.integers(*LATENCY_MS, size=n),
        takes_part=_membership(rng, n, events),
        opts_out=rng.random((n, e)) < OPT_OUT,
        away_ms=away_ms,
        loses=loses,
    )


def _homes(n: int, rng: np.random.Generator, seed: int) -> Homes:
    """Homes with a battery each, four in five with PV that yields 0.9 to 1.6 times what the home uses."""
    homes = make_homes(n, seed)
    base_w = rng.uniform(250, 900, n)
    export = rng.random(n) < 0.85
    pv = rng.random(n) < 0.8
    return replace(
        homes,
        ids=tuple(f"home-{i:05d}" for i in range(n)),
        sites=tuple(f"site-{i:05d}" for i in range(n)),
        site_index=np.arange(n),
        load_base_w=base_w,
        pv_peak_w=np.where(pv, (base_w * LOAD_X * 24 / CLEAR_H * rng.uniform(0.9, 1.6, n)).round(-2), 0.0),
        inverter_w_max=np.full(n, np.inf),
        reserve_pct=rng.choice(np.arange(10, 41, 5), size=n).astype(np.float64),
        export_allowed=export,
        site_import_w_max=np.full(n, np.inf),
        site_export_w_max=np.where(export, np.inf, np.nan),
        soc_uncertainty_pct=np.full(n, 5.0),
        soc_step_pct=np.ones(n),
        counter_step_wh=rng.choice(STEPS_WH, size=n, p=STEP_PARTS),
        ambient_c=rng.uniform(15, 28, n),
    )


def _membership(rng: np.random.Generator, n: int, events: Sequence[Event]) -> Bools:
    """Whole months: some join after the first, some leave before the last."""
    months = sorted({event.day.month for event in events})
    takes_part = np.zeros((n, 12), dtype=np.bool_)
    first, last = np.full(n, months[0]), np.full(n, months[-1])
    joins, leaves = rng.random(n) < JOIN, rng.random(n) < LEAVE
    first[joins] = rng.choice(months[1:] or months, size=int(joins.sum()))
    last[leaves] = rng.choice(months[:-1] or months, size=int(leaves.sum()))
    for month in months:
        takes_part[:, month - 1] = (first <= month) & (month <= np.maximum(first, last))
    return takes_part


def _away(rng: np.random.Generator, n: int, events: Sequence[Event], losing: Bools) -> tuple[Ints, Bools]:
    """Who is not connected from up to an hour before an event: for 20 minutes to 4 hours but not to the end of the day,
    and what it measured is lost; or up to 20 hours longer but not to the next event's day, and it comes back with all
    of it."""
    e = len(events)
    start_ms = np.array([event.start_ms for event in events], dtype=np.int64)
    midnight_ms = np.array([event.midnight_ms for event in events], dtype=np.int64)
    drops = rng.random((n, e)) < DROPOUT
    begin_ms = start_ms[None, :] + rng.integers(-3_600_000, 5_400_000, size=(n, e))
    end_ms = begin_ms + rng.integers(1_200_000, 14_400_000, size=(n, e))
    longer_ms = end_ms + np.where(rng.random((n, e)) < 0.5, 0, rng.integers(0, 72_000_000, size=(n, e)))
    longer_ms = np.minimum(longer_ms, np.append(midnight_ms[1:], midnight_ms[-1] + 2 * DAY_MS)[None, :] - HOUR_MS)
    lost = (rng.random((n, e)) < LOST) & losing[:, None]
    until_ms = np.where(lost, np.minimum(end_ms, midnight_ms[None, :] + BACK_MS), longer_ms) // 1000 * 1000
    away_ms = np.where(drops[:, :, None], np.stack([begin_ms, until_ms], axis=2), 0)
    return away_ms, drops & lost

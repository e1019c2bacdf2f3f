"""What the homes of a planted street are, and what the season does to them before anybody measures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simulators.homes import Bools, Floats, Ints
from simulators.season.causes import STRENGTHS, Cause, Planted, Spare
from simulators.season.official import Event

STEP_S = 300
DAY_MS = 86_400_000
AREAS = 12
HOT, HOT_C = 0.15, 38.0
DARK = 0.12
SUNLESS = 0.6
JOIN = 0.05
UPDATED = 0.15
TWO_UNITS = 0.1
UNKNOWN_TEMPERATURE = 0.1

# rating W, usable capacity Wh: for an event of two hours, limited by energy or by power
BY_ENERGY = np.array([(3_300.0, 5_000.0), (4_600.0, 9_600.0), (5_000.0, 10_000.0), (9_600.0, 20_500.0)])
BY_POWER = np.array([(3_300.0, 13_500.0), (3_700.0, 16_000.0), (5_000.0, 20_000.0), (5_000.0, 27_000.0)])
SMALL = (1_200.0, 2_500.0)


@dataclass(slots=True, kw_only=True, eq=False)
class Facts:
    """n homes, e events. `soc_pct` is true, at an event's start; `hot_limit`: part of the rating that heat leaves."""

    events: Sequence[Event]
    rating_w: Floats
    capacity_wh: Floats
    unit_w: Floats
    area: Ints
    reserve_pct: Floats
    soc_pct: Floats
    temperature_c: Floats
    hot_limit: Floats
    days_enrolled: Ints
    firmware: Ints
    counter_wh: Floats

    @property
    def hours(self) -> Ints:
        return np.array([len(event.hours) for event in self.events], dtype=np.int64)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Homes, events, steps of the longest event."""
        return len(self.rating_w), len(self.events), int(self.hours.max()) * 3600 // STEP_S

    @property
    def within(self) -> Bools:
        """Steps that an event has (e x k)."""
        return np.arange(self.shape[2])[None, :] < (self.hours * 3600 // STEP_S)[:, None]


def facts_of(
    rng: np.random.Generator,
    n: int,
    events: Sequence[Event],
    planted: Sequence[Planted],
    spared: Mapping[int, Spare],
) -> Facts:
    """Homes that can show what is planted in them: a battery whose energy is the limit shows no lack of power, and one
    whose power is the limit no lack of capacity."""
    by_power = rng.random(n) < 0.4
    by_power[_homes(spared, Spare.HOT)] = True
    for one in planted:
        by_power[one.home] = one.cause is not Cause.CAPACITY_FADE
    product = np.where(
        by_power[:, None],
        BY_POWER[rng.integers(len(BY_POWER), size=n)],
        BY_ENERGY[rng.integers(len(BY_ENERGY), size=n)],
    )
    product[_homes(spared, Spare.SMALL)] = SMALL
    area = rng.integers(AREAS, size=n)
    temperature_c, hot_limit = _heat(rng, area, len(events), _homes(spared, Spare.HOT))
    return Facts(
        events=events,
        rating_w=product[:, 0].copy(),
        capacity_wh=product[:, 1].copy(),
        unit_w=_units(rng, product[:, 0], planted),
        area=area,
        reserve_pct=_reserves(rng, n, len(events), planted, _homes(spared, Spare.RESERVE)),
        soc_pct=_charge(rng, n, len(events), _homes(spared, Spare.LITTLE_SUN)),
        temperature_c=np.where(rng.random((n, 1)) < UNKNOWN_TEMPERATURE, np.nan, temperature_c),
        hot_limit=hot_limit,
        days_enrolled=_enrolled(rng, n, events, planted, spared),
        firmware=_firmware(rng, n, len(events), planted),
        counter_wh=rng.choice([1.0, 10.0, 100.0], size=n, p=[0.6, 0.3, 0.1]),
    )


def _homes(spared: Mapping[int, Spare], reason: Spare) -> list[int]:
    return [home for home, why in spared.items() if why is reason]


def _units(rng: np.random.Generator, rating_w: Floats, planted: Sequence[Planted]) -> Floats:
    """Where a unit is to be off there are two, and the second is the part that will lack; nothing else is planted in a
    home with two units, because half of its power missing says as much."""
    n = len(rating_w)
    second = np.where(rng.random(n) < TWO_UNITS, 0.5, np.nan)
    for one in planted:
        second[one.home] = STRENGTHS[one.cause][one.strength] if one.cause is Cause.UNIT_OFF else np.nan
    return np.column_stack([rating_w * (1 - np.nan_to_num(second)), rating_w * second])


def _reserves(rng: np.random.Generator, n: int, e: int, planted: Sequence[Planted], high: Sequence[int]) -> Floats:
    reserve_pct = np.repeat(rng.choice([10.0, 15.0, 20.0, 30.0], size=(n, 1)), e, axis=1)
    reserve_pct[[one.home for one in planted]] = 20.0
    since = rng.integers(e, size=len(high))
    for home, begins in zip(high, since.tolist(), strict=True):
        reserve_pct[home, begins if home % 2 else 0 :] = 80.0
    return reserve_pct


def _charge(rng: np.random.Generator, n: int, e: int, sunless: Sequence[int]) -> Floats:
    """On a dark day all have less, and homes with little sun have little most days."""
    dark = rng.random(e) < DARK
    soc_pct = rng.uniform(78, 98, (n, e)) - np.where(dark, rng.uniform(10, 35, (n, e)), 0.0)
    low = rng.random((len(sunless), e)) < SUNLESS
    soc_pct[sunless] = np.where(low, rng.uniform(15, 45, low.shape), soc_pct[sunless])
    return soc_pct


def _heat(rng: np.random.Generator, area: Ints, e: int, hotter: Sequence[int]) -> tuple[Floats, Floats]:
    """Temperature and the part of the rating left by it: the hotter, the less, in the whole neighbourhood."""
    hot = rng.random((AREAS, e)) < HOT
    of_area_c = np.where(hot, rng.uniform(HOT_C + 3, HOT_C + 7, hot.shape), rng.uniform(18, 33, hot.shape))
    temperature_c = of_area_c[area] + rng.normal(0, 1, (len(area), 1))
    temperature_c[hotter] += np.where(hot[area[hotter]], 2.0, 1.0)
    return temperature_c, 1.0 - np.clip((temperature_c - HOT_C) * 0.045, 0.0, 0.45)


def _enrolled(
    rng: np.random.Generator,
    n: int,
    events: Sequence[Event],
    planted: Sequence[Planted],
    spared: Mapping[int, Spare],
) -> Ints:
    """Days since each joined: most long ago, some in mid-season, the new ones within two weeks of the last event."""
    day = np.array([event.start_ms // DAY_MS for event in events])
    span = int(day[-1] - day[0])
    joined = day[0] - rng.integers(30, 900, size=n)
    late = rng.random(n) < JOIN
    late[[*(one.home for one in planted), *spared]] = False
    joined[late] = day[0] + rng.integers(max(span, 1), size=int(late.sum()))
    new = _homes(spared, Spare.NEW)
    joined[new] = day[-1] - rng.integers(14, size=len(new))
    return np.asarray(day[None, :] - joined[:, None], dtype=np.int64)


def _firmware(rng: np.random.Generator, n: int, e: int, planted: Sequence[Planted]) -> Ints:
    """One version in a season, or two; most who are updated are none the worse for it."""
    since = np.where(rng.random(n) < UPDATED, rng.integers(1, max(e, 2), size=n), e)
    for one in planted:
        since[one.home] = one.since if one.cause is Cause.WORSE_SINCE_UPDATE else e
    return np.asarray(3 + (np.arange(e)[None, :] >= since[:, None]), dtype=np.int64)

"""A season of a fleet for those who forecast it: what its homes gave in each event, and what could be known before.

`fleet_season(seed)` gives a `FleetSeason`: H homes, E events in order. Among the homes 15 % join and 10 % drop out for
good within the season, each has its own reliability and its own share of energy that heat takes; the events are on the
days of DSGS in 2025, some left out by the seed, and last as long as `hours` says; there is one heat wave, clouds, and
now and then an evening on which many homes are not reached.

| array of `FleetSeason` | shape | unit, meaning |
|---|---|---|
| `start_ms`, `hours`, `month` | E | UTC ms; length; calendar month |
| `temperature_c` | E | as it is forecast at 15:00 of the day before |
| `rating_w`, `usable_wh` | H | as registered, above the owner's reserve |
| `enrolled` | H x E | takes part in the event's program then |
| `excluded` | H x E | opted out before 15:00 of the day before |
| `heard` | H x E | was heard at 15:00 of the day before |
| `commanded_w` | H x E | mean command; NaN = none (not enrolled, excluded) |
| `delivered_wh` | H x E | measured; NaN = nothing was heard, or not enrolled |
| `true_wh` | H x E | what was really given |
"""

from dataclasses import dataclass

import numpy as np

from simulators.homes import Bools, Floats, Ints
from simulators.season.official import events_of, official_hours

HOMES = 400
JOINERS, DROPOUTS = 0.15, 0.10
EVENTS_KEPT = 0.8
HEAT_C, HEAT_DAYS = 9.0, (6, 11)
DAY_MS = 86_400_000
KINDS = np.array(
    [(3_300.0, 9_600.0), (5_000.0, 10_000.0), (5_000.0, 13_500.0), (5_000.0, 20_000.0), (9_600.0, 20_500.0)]
)
EFFICIENCY = 0.95
OUTAGE, OUTAGE_SHARE = 0.03, 0.15


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FleetSeason:
    """See the table above."""

    seed: int
    start_ms: Ints
    hours: Ints
    month: Ints
    temperature_c: Floats
    rating_w: Floats
    usable_wh: Floats
    enrolled: Bools
    excluded: Bools
    heard: Bools
    commanded_w: Floats
    delivered_wh: Floats
    true_wh: Floats


def fleet_season(seed: int, *, homes: int = HOMES, lengths: tuple[int, ...] = (2, 3, 4)) -> FleetSeason:
    """One season; the hours of each event are drawn from `lengths`."""
    rng = np.random.default_rng(seed)
    events = [event for event in events_of(official_hours()) if rng.random() < EVENTS_KEPT]
    start_ms = np.array([event.start_ms for event in events], dtype=np.int64)
    hours = rng.choice(np.array(lengths, dtype=np.int64), size=len(events))
    day = (start_ms - start_ms[0]) // DAY_MS
    weather_c, clouds = _weather(rng, day)
    kind = KINDS[rng.integers(len(KINDS), size=homes)]
    rating_w, capacity_wh = kind[:, 0], kind[:, 1]
    reserve = rng.choice([0.1, 0.2, 0.3, 0.5], size=homes, p=[0.35, 0.4, 0.15, 0.1])
    enrolled, gone = _membership(rng, day, homes)

    # how full a battery is in the evening: heat and clouds take their part, some homes' more than others'
    thirst = rng.gamma(2.0, 0.5, homes)[:, None]
    full = 0.97 - thirst * (0.006 * np.clip(weather_c - 28, 0, None) + 0.12 * clouds)[None, :]
    full = np.clip(full + rng.normal(0, 0.05, full.shape), 0.3, 1.0)
    usable_wh = np.clip(full - reserve[:, None], 0, None) * capacity_wh[:, None] * EFFICIENCY
    cut = 1 - 0.025 * np.clip(weather_c - 34, 0, None)[None, :]
    able_w = np.minimum(rating_w[:, None] * cut, usable_wh / hours)

    missing = rng.random(full.shape) < rng.beta(1.0, 25.0, homes)[:, None]
    outage = (rng.random(len(events)) < OUTAGE) * rng.uniform(0.5, 1.5, len(events)) * OUTAGE_SHARE
    missing |= rng.random(full.shape) < outage[None, :]
    out = rng.random(full.shape) < 0.01 + 0.02 * (weather_c > 34)[None, :]
    before = out & (rng.random(full.shape) < 0.5)
    gives = enrolled & ~gone & ~missing & ~out
    true_wh = np.where(gives, able_w * hours * rng.normal(0.99, 0.01, full.shape), 0.0)
    commanded_w = np.where(enrolled & ~before, np.minimum(rating_w[:, None], usable_wh / hours), np.nan)
    silent = gone | (missing & (rng.random(full.shape) < 0.5))
    return FleetSeason(
        seed=seed,
        start_ms=start_ms,
        hours=hours,
        month=np.array([event.day.month for event in events], dtype=np.int64),
        temperature_c=weather_c + rng.normal(0, 1.5, len(events)),
        rating_w=rating_w,
        usable_wh=(1 - reserve) * capacity_wh,
        enrolled=enrolled,
        excluded=before & enrolled,
        heard=enrolled & ~gone & (rng.random(full.shape) >= 0.01),
        commanded_w=commanded_w,
        delivered_wh=np.where(enrolled & ~before & ~silent, true_wh, np.nan),
        true_wh=true_wh,
    )


def _weather(rng: np.random.Generator, day: Ints) -> tuple[Floats, Floats]:
    """Afternoon temperature and clouds (0 to 1) of the days of events."""
    length = int(day[-1]) + 1
    noise = np.zeros(length)
    clouds = np.zeros(length)
    for at in range(1, length):
        noise[at] = 0.7 * noise[at - 1] + rng.normal(0, 2.0)
        clouds[at] = np.clip(0.6 * clouds[at - 1] + rng.normal(0.05, 0.2), 0, 1)
    season = 26 + 5 * np.sin(np.pi * np.arange(length) / length)
    begin = int(day[rng.integers(len(day) // 3, len(day) - 1)]) - 2
    season[begin : begin + int(rng.integers(*HEAT_DAYS))] += HEAT_C
    return (season + noise)[day], clouds[day]


def _membership(rng: np.random.Generator, day: Ints, homes: int) -> tuple[Bools, Bools]:
    """Who is enrolled at each event, and who has dropped out for good without a word."""
    last = float(day[-1])
    joins = np.where(rng.random(homes) < JOINERS, rng.uniform(0, last, homes), -1.0)
    drops = np.where(rng.random(homes) < DROPOUTS, rng.uniform(0, last, homes), last + 1)
    return day[None, :] >= joins[:, None], day[None, :] >= drops[:, None]


def kw_of(season: FleetSeason) -> Floats:
    """Mean power of the fleet in each event, kW."""
    found: Floats = season.true_wh.sum(axis=0) / season.hours / 1000
    return found


def revenue_of(season: FleetSeason, rates: dict[int, float]) -> dict[int, float]:
    """Pay by month: the mean power of its events by the month's rate per kW."""
    power_kw = kw_of(season)
    months = sorted({int(month) for month in season.month})
    return {month: float(power_kw[season.month == month].mean()) * rates[month] for month in months}

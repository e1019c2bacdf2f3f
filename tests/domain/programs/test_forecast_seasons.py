"""The forecast against seasons that it has never seen: a heat wave, 10 % of homes drop out, 15 % join."""

import random
from collections import defaultdict
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import numpy as np

from gateway.domain.programs.forecast import ComingEvent, PastEvents, PowerForecast, forecast, forecast_period
from gateway.domain.programs.projection import SeasonMonth, projected
from simulators.season.fleet_season import FleetSeason, fleet_season, kw_of, revenue_of
from tests.depth import SEED, deep

SEASONS = deep(100, else_=12)
RATES = {5: 7.0, 6: 7.25, 7: 13.10, 8: 14.04, 9: 14.97, 10: 8.19}
ERROR_MAX, BETTER_MIN = 0.10, 0.80
HELD = (0.70, 0.90)


def past_of(season: FleetSeason) -> PastEvents:
    return PastEvents(
        rating_w=season.rating_w, usable_wh=season.usable_wh, asked=season.enrolled & ~season.excluded,
        delivered_wh=season.delivered_wh, hours=season.hours.astype(np.float64), temperature_c=season.temperature_c,
    )  # fmt: skip


def coming(season: FleetSeason, event: int) -> ComingEvent:
    """What is known at 15:00 of the day before an event."""
    return ComingEvent(
        enrolled=season.enrolled[:, event] & ~season.excluded[:, event], reached=season.heard[:, event],
        temperature_c=float(season.temperature_c[event]),
    )  # fmt: skip


def said_before(season: FleetSeason, past: PastEvents, event: int) -> PowerForecast:
    """What is said at 15:00 of the day before an event."""
    return forecast(past.until(event), coming(season, event), [float(season.hours[event])])[0]


def seasons(**how: Any) -> list[FleetSeason]:
    """Seasons by seeds that are printed."""
    draw = random.Random(SEED)
    seeds = [draw.randrange(1 << 31) for _ in range(SEASONS)]
    print("seeds", seeds)
    return [fleet_season(seed, homes=200, **how) for seed in seeds]


@dataclass
class Judged:
    """What came of the forecasts of next events."""

    errors: list[float] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    better: list[bool] = field(default_factory=list)

    def add(self, season: FleetSeason) -> None:
        past, true_kw = past_of(season), kw_of(season)
        ours, last = defaultdict(list), defaultdict(list)
        for event in range(1, len(true_kw)):
            said = said_before(season, past, event)
            month = int(season.month[event])
            ours[month].append(abs(said.kw - true_kw[event]) / true_kw[event])
            last[month].append(abs(true_kw[event - 1] - true_kw[event]) / true_kw[event])
            self.held.append(bool(said.low_kw <= true_kw[event] <= said.high_kw))
        self.errors += [error for some in ours.values() for error in some]
        self.better += [bool(np.mean(ours[month]) < np.mean(last[month])) for month in ours]

    def told(self) -> tuple[float, float, float]:
        """Mean error, months that are better than the last event, events in the band; printed."""
        error, better, held = (float(np.mean(some)) for some in (self.errors, self.better, self.held))
        print(
            f"events {len(self.errors)}: mean error {error:.1%}, better than the last event in {better:.0%} of "
            f"{len(self.better)} months, in the band {held:.0%}"
        )
        return error, better, held


def test_forecasts_of_seasons_never_seen_are_near_better_than_the_last_event_and_as_sure_as_they_say() -> None:
    judged = Judged()
    for season in seasons():
        judged.add(season)
    error, better, held = judged.told()
    assert error <= ERROR_MAX
    assert better >= BETTER_MIN
    assert HELD[0] <= held <= HELD[1]


def test_where_all_events_are_of_two_hours_the_last_one_is_hard_to_beat_and_forecasts_are_near_all_the_same() -> None:
    judged = Judged()
    for season in seasons(lengths=(2,)):
        judged.add(season)
    error, better, held = judged.told()
    assert error <= ERROR_MAX / 2
    assert better >= 0.6
    assert HELD[0] <= held <= HELD[1]


def test_the_pay_of_a_season_is_projected_from_the_second_month_on() -> None:
    off = [error for season in seasons(lengths=(2,)) for error in projections_off(season)]
    print(f"{len(off)} projections: off by {np.mean(off):.1%} in the mean, {np.max(off):.1%} at most")
    assert max(off) <= ERROR_MAX


def projections_off(season: FleetSeason) -> list[float]:
    """How far the season's pay is off that is projected when each month but the first begins."""
    past = past_of(season)
    true = sum(revenue_of(season, RATES).values())
    months = sorted({int(month) for month in season.month})
    measured_kw = np.nansum(past.delivered_wh, axis=0) / past.hours / 1000
    found = []
    for month in months[1:]:
        first = int(np.argmax(season.month == month))
        said = forecast_period(past.until(first), replace(coming(season, first), temperature_c=np.nan))
        table = [
            SeasonMonth(
                name=str(one), rate=Decimal(str(RATES[one])), over=one < month,
                kw=float(measured_kw[season.month == one].mean()) if one < month else None,
            )
            for one in months
        ]  # fmt: skip
        found.append(abs(float(projected(table, said, currency="USD").expected) - true) / true)
    return found

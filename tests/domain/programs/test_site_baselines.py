"""Baselines of many homes at once are those that each home has alone."""

from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.programs.baseline import DayBaseline, DayMatching, MatchedDay, NoBaseline, day_matched
from gateway.domain.programs.metered import MeteredWh
from gateway.domain.programs.site_baselines import (
    NO_NOMINAL,
    NO_WINDOW,
    LikeDayEnergy,
    SiteBaselines,
    hours_before,
    like_days_mean,
    prescriptive,
)
from gateway.domain.rules.performance import AdjustBy, TieBreak

TODAY = date(2026, 7, 31)
HOUR_MS = 3_600_000
EVENT_WH = [2000, 2200, 1800, 2400, 2600, 2000, 1600, 2200, 2800, 2400]
WINDOW_WH = [2100, 2300, 1900, 2500, 2400, 2100, 1700, 2200, 2500, 2300]
TEN_OF_TEN = DayMatching(
    days=10, highest=10, look_back_days=45, adjust_by=AdjustBy.RATIO, cap_low=Fraction("0.8"), cap_high=Fraction("1.2")
)
FIVE_OF_TEN = replace(TEN_OF_TEN, highest=5, cap_low=Fraction("0.6"), cap_high=Fraction("1.4"))


def metered(*rows: object) -> MeteredWh:
    return MeteredWh.of(np.array(rows, dtype=np.float64))


def energy(window_wh: int) -> LikeDayEnergy:
    """The ten days of the sheet, the newest first."""
    days = [[[wh] for wh in reversed(EVENT_WH)]]
    windows = [[[wh] for wh in reversed(WINDOW_WH)]]
    return LikeDayEnergy(
        event=metered(*days), window=metered(*windows), today=metered([window_wh]), usable=np.ones((1, 10), dtype=bool)
    )


def kw(found: SiteBaselines, home: int = 0) -> list[Fraction]:
    """kW of hours."""
    return [Fraction(wh, found.over[home]) / 1000 for wh in found.wh[home]]


@pytest.mark.parametrize(
    ("matching", "window_wh", "expected"),
    [
        (TEN_OF_TEN, 2420, "2.42"),
        (TEN_OF_TEN, 2860, "2.64"),
        (TEN_OF_TEN, 1540, "1.76"),
        (FIVE_OF_TEN, 3600, "3.472"),
        (FIVE_OF_TEN, 1400, "1.488"),
    ],
)
def test_the_days_of_the_sheet_give_its_baselines(matching: DayMatching, window_wh: int, expected: str) -> None:
    found = like_days_mean(energy(window_wh), matching)
    assert found.known.all()
    assert kw(found) == [Fraction(expected)]


WH = st.integers(-3, 6).map(lambda n: n * 100)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[LikeDayEnergy, DayMatching]:
    homes, days, intervals, window = (draw(st.integers(1, top)) for top in (3, 6, 3, 2))

    def drawn(*shape: int) -> MeteredWh:
        wh = draw(st.lists(WH | st.just(None), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        return MeteredWh.of(np.array([np.nan if one is None else one for one in wh], dtype=float).reshape(shape))

    usable = draw(st.lists(st.booleans(), min_size=homes * days, max_size=homes * days))
    caps = st.none() | st.fractions(Fraction(1, 2), 2, max_denominator=7)
    asked = draw(st.integers(1, 4))
    matching = DayMatching(
        days=asked, highest=draw(st.integers(1, asked)), look_back_days=days,
        ties=draw(st.sampled_from(TieBreak)), adjust_by=draw(st.none() | st.sampled_from(AdjustBy)),
        cap_low=draw(caps), cap_high=draw(caps),
    )  # fmt: skip
    whole = LikeDayEnergy(
        event=drawn(homes, days, intervals), window=drawn(homes, days, window), today=drawn(homes, window),
        usable=np.array(usable, dtype=bool).reshape(homes, days),
    )  # fmt: skip
    return whole, matching


@given(fleets())
def test_each_home_has_the_baseline_that_it_has_alone(drawn: tuple[LikeDayEnergy, DayMatching]) -> None:
    whole, matching = drawn
    found = like_days_mean(whole, matching)
    for home in range(len(whole.usable)):
        days = []
        for day, usable in enumerate(whole.usable[home]):
            there = whole.event.known[home, day].all()
            there &= matching.adjust_by is None or bool(whole.window.known[home, day].all())
            if usable and there:
                event, window = (
                    tuple(Fraction(int(wh)) for wh in of.wh[home, day]) for of in (whole.event, whole.window)
                )
                days.append(MatchedDay(day=TODAY - timedelta(days=day), event_kw=event, window_kw=window))
        there = whole.today.known[home].all()
        today = [Fraction(int(wh)) for wh in whole.today.wh[home]] if there else []
        alone = day_matched(days, today, matching)
        if isinstance(alone, NoBaseline):
            assert found.why[home] == alone.reason
            continue
        assert isinstance(alone, DayBaseline)
        assert found.why[home] == ""
        assert tuple(Fraction(wh, found.over[home]) for wh in found.wh[home]) == alone.kw
        assert {TODAY - timedelta(days=int(day)) for day in np.flatnonzero(found.days[home])} == set(alone.days)


def test_a_home_without_what_a_baseline_needs_has_none_and_says_why() -> None:
    whole = energy(2420)
    lacking = replace(whole, usable=np.array([[True] * 9 + [False]]))
    assert like_days_mean(lacking, TEN_OF_TEN).why.tolist() == ["9 of 10 like days have data"]
    unheard = replace(whole, today=metered([np.nan]))
    assert like_days_mean(unheard, TEN_OF_TEN).why.tolist() == [NO_WINDOW]
    found = prescriptive(Fraction("0.107899"), np.array([5_000.0, np.nan]), 1, HOUR_MS)
    assert found.why.tolist() == ["", NO_NOMINAL]
    assert kw(found) == [Fraction("0.539495")]


def test_the_hours_before_an_event_are_each_hour_of_it() -> None:
    found = hours_before(metered([1_000, 2_000], [1_000, np.nan]), 3)
    assert kw(found) == [Fraction("1.5")] * 3
    assert found.known.tolist() == [True, False]

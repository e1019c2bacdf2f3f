"""Baselines from like days, from the same day, from nominal power, and of a metered battery."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.baseline import (
    DayBaseline,
    DayMatching,
    MatchedDay,
    NoBaseline,
    day_matched,
    generator_output_kw,
    like_days,
    matching_of,
    mean,
    response_kw,
    same_clock_ms,
    same_day,
)
from gateway.domain.rules.calendar import HOUR_MS, local_ms
from gateway.domain.rules.performance import AdjustBy, Cited, LikeDays, TieBreak
from gateway.domain.rules.values import Certainty
from tests.programs.test_shipped import PROGRAMS

EVENT_KW = ["2.0", "2.2", "1.8", "2.4", "2.6", "2.0", "1.6", "2.2", "2.8", "2.4"]
WINDOW_KW = ["2.1", "2.3", "1.9", "2.5", "2.4", "2.1", "1.7", "2.2", "2.5", "2.3"]
FIRST = date(2026, 7, 1)
DAYS = [
    MatchedDay(day=FIRST + timedelta(days=n), event_kw=(Fraction(event),), window_kw=(Fraction(window),))
    for n, (event, window) in enumerate(zip(EVENT_KW, WINDOW_KW, strict=True))
]
TEN_OF_TEN = DayMatching(
    days=10, highest=10, look_back_days=45, adjust_by=AdjustBy.RATIO, cap_low=Fraction("0.8"), cap_high=Fraction("1.2")
)
FIVE_OF_TEN = replace(TEN_OF_TEN, highest=5, cap_low=Fraction("0.6"), cap_high=Fraction("1.4"))


def found(matching: DayMatching, window: str, days: Iterable[MatchedDay] = DAYS) -> DayBaseline:
    result = day_matched(list(days), [Fraction(window)], matching)
    assert isinstance(result, DayBaseline)
    return result


@pytest.mark.parametrize(
    ("matching", "window", "ratio", "kw", "reciprocal"),
    [
        (TEN_OF_TEN, "2.42", Fraction("1.1"), Fraction("2.42"), Fraction("2.42")),
        (TEN_OF_TEN, "2.86", Fraction("1.3"), Fraction("2.64"), Fraction("2.64")),
        (TEN_OF_TEN, "1.54", Fraction("0.7"), Fraction("1.76"), Fraction("2.2") / Fraction("1.2")),
        (FIVE_OF_TEN, "3.60", Fraction("1.5"), Fraction("3.472"), Fraction("3.472")),
        (FIVE_OF_TEN, "1.40", Fraction("1.4") / Fraction("2.4"), Fraction("1.488"), Fraction("2.48") / Fraction("1.4")),
    ],
)
def test_like_days_adjusted_by_the_window_within_caps_as_given_or_reciprocal(
    matching: DayMatching, window: str, ratio: Fraction, kw: Fraction, reciprocal: Fraction
) -> None:
    whole = found(matching, window)
    assert (whole.adjustment, whole.kw) == (ratio, (kw,))
    assert matching.cap_high is not None
    assert found(replace(matching, cap_low=1 / matching.cap_high), window).kw == (reciprocal,)


def test_without_a_cap_or_without_an_adjustment_the_figures_are_others() -> None:
    assert found(replace(TEN_OF_TEN, cap_high=None), "2.86").kw == (Fraction("2.86"),)
    assert found(replace(TEN_OF_TEN, adjust_by=None), "2.86").kw == (Fraction("2.2"),)
    by_difference = found(replace(TEN_OF_TEN, adjust_by=AdjustBy.DIFFERENCE), "2.86")
    assert (by_difference.adjustment, by_difference.kw) == (Fraction("0.66"), (Fraction("2.86"),))


def test_of_two_equal_days_the_stated_one_is_taken() -> None:
    earlier = found(FIVE_OF_TEN, "2.4")
    later = found(replace(FIVE_OF_TEN, ties=TieBreak.LATER), "2.4")
    assert [day.day for day in earlier.days] == [2, 4, 5, 9, 10]
    assert [day.day for day in later.days] == [4, 5, 8, 9, 10]
    assert (earlier.adjustment, later.adjustment) == (Fraction(1), Fraction("2.4") / Fraction("2.38"))


@given(st.permutations(DAYS))
def test_the_order_in_which_days_come_changes_nothing(days: list[MatchedDay]) -> None:
    assert found(FIVE_OF_TEN, "1.40", days) == found(FIVE_OF_TEN, "1.40")


@given(scale=st.integers(1, 1000), window=st.integers(1, 500))
def test_a_site_of_twice_the_size_has_twice_the_baseline(scale: int, window: int) -> None:
    larger = [replace(one, event_kw=(one.event_kw[0] * scale,), window_kw=(one.window_kw[0] * scale,)) for one in DAYS]
    kw = Fraction(window, 100)
    twice = day_matched(larger, [kw * scale], FIVE_OF_TEN)
    assert isinstance(twice, DayBaseline)
    assert twice.kw[0] == scale * found(FIVE_OF_TEN, str(kw)).kw[0]


def test_too_few_days_or_no_window_is_no_baseline_and_nothing_is_filled_in() -> None:
    assert day_matched(DAYS[:9], [Fraction(2)], TEN_OF_TEN) == NoBaseline(reason="9 of 10 like days have data")
    assert day_matched(DAYS, [], TEN_OF_TEN) == NoBaseline(reason="the adjustment window has no data")
    assert same_day([], 4) == NoBaseline(reason="the window before the event has no data")


def test_a_window_in_which_a_site_usually_draws_nothing_adjusts_nothing() -> None:
    idle = [replace(one, window_kw=(Fraction(0),)) for one in DAYS]
    whole = found(TEN_OF_TEN, "3", idle)
    assert (whole.adjustment, whole.kw) == (None, (Fraction("2.2"),))


def test_the_same_day_gives_every_interval_the_mean_of_the_hours_before() -> None:
    assert same_day([Fraction(1), Fraction(2)], 3) == (Fraction("1.5"),) * 3


def test_a_site_that_exports_is_taken_as_drawing_nothing_unless_exports_count() -> None:
    baseline = Fraction("3.472")
    assert response_kw(baseline, Fraction("0.3"), exports_counted=False) == Fraction("3.172")
    assert response_kw(baseline, Fraction(-1), exports_counted=False) == Fraction("3.472")
    assert response_kw(baseline, Fraction(-1), exports_counted=True) == Fraction("4.472")


def test_a_metered_battery_counts_for_what_its_home_draws_less_what_it_usually_gives() -> None:
    assert generator_output_kw(Fraction(5), Fraction(2), Fraction(0), exports_counted=False) == 2
    assert generator_output_kw(Fraction(5), Fraction(2), Fraction("0.6"), exports_counted=False) == Fraction("1.4")
    assert generator_output_kw(Fraction(5), Fraction(2), Fraction("0.6"), exports_counted=True) == Fraction("4.4")
    assert generator_output_kw(Fraction(-1), Fraction(2), Fraction(0), exports_counted=False) == -1


def test_like_days_leave_out_events_outages_and_other_kinds_of_days() -> None:
    event, holiday = date(2026, 7, 8), date(2026, 7, 3)
    kwargs = {"left_out": {date(2026, 7, 6)}, "holidays": {holiday}}
    days = list(like_days(event, TEN_OF_TEN, **kwargs))
    assert days[:4] == [date(2026, 7, 7), date(2026, 7, 2), date(2026, 7, 1), date(2026, 6, 30)]
    assert min(days) >= event - timedelta(days=45)
    rest = list(like_days(date(2026, 7, 4), TEN_OF_TEN, **kwargs))
    assert rest[:3] == [holiday, date(2026, 6, 28), date(2026, 6, 27)]
    same = list(like_days(event, replace(TEN_OF_TEN, like=LikeDays.SAME_WEEKDAY), **kwargs))
    assert {day.weekday() for day in same} == {2}
    assert len(list(like_days(event, replace(TEN_OF_TEN, like=LikeDays.ALL), **kwargs))) == 44


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "America/New_York", "Europe/Berlin", "Australia/Sydney"])
def test_the_same_clock_time_on_other_days_over_a_change_of_the_clock(zone: str) -> None:
    for event in (date(2026, 3, 10), date(2026, 4, 6), date(2026, 11, 3)):
        at_ms = local_ms(zone, event, 18 * 60)
        for back in range(1, 20):
            assert same_clock_ms(zone, at_ms, -back) == local_ms(zone, event - timedelta(days=back), 18 * 60)
    changed_ms = local_ms("America/Los_Angeles", date(2026, 3, 9), 18 * 60)
    assert changed_ms - same_clock_ms("America/Los_Angeles", changed_ms, -2) == 47 * HOUR_MS


def test_the_program_file_chooses_days_caps_and_ties_and_says_what_is_not_verified() -> None:
    version = PROGRAMS["ra-leap"].program.version_on(date(2026, 7, 8))
    assert version is not None
    assert version.performance is not None
    cited = Cited(version.performance)
    matching = matching_of(cited, adjusted=True)
    assert matching == FIVE_OF_TEN
    doubts = {one.path: one.certainty for one in cited.rests_on_unverified}
    assert doubts["performance.parameters.cap-low"] is Certainty.UNVERIFIED
    assert doubts["performance.parameters.highest"] is Certainty.REPORTED
    assert "performance.parameters.days" not in doubts
    assert "performance.parameters.cap-low-10-in-10" not in doubts


def test_a_program_that_states_no_days_has_no_day_matching() -> None:
    version = PROGRAMS["elrp-a4"].program.version_on(date(2026, 7, 8))
    assert version is not None
    assert version.performance is not None
    with pytest.raises(InvalidInput, match=r"performance\.parameters\.days: missing"):
        matching_of(Cited(version.performance), adjusted=False)


def test_a_mean_is_exact() -> None:
    assert mean([Fraction(1), Fraction(0), Fraction(0)]) == Fraction(1, 3)

"""The formulas that program files name: worked examples, and what must not come out."""

from dataclasses import replace
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.programs.performance import (
    HOUR_MS,
    BidBands,
    EventEnergy,
    FigureRange,
    WeightedHour,
    best_two_hours,
    bid_payment,
    mean_event_power,
    weighted_mean,
)

BANDS = BidBands(most=Fraction("1.05"), full=Fraction("0.75"), part=Fraction("0.6"), part_rate=Fraction("0.5"))
KW = st.integers(-20, 20).map(Fraction)
WEIGHTS = st.integers(0, 50).map(Fraction)
HOURS = st.lists(st.builds(WeightedHour, kw=KW, least=WEIGHTS, most=WEIGHTS), min_size=1, max_size=6).map(
    lambda hours: [replace(one, least=min(one.least, one.most), most=max(one.least, one.most)) for one in hours]
)


def hour(kw: str | Fraction, least: int | Fraction, most: int | Fraction | None = None) -> WeightedHour:
    return WeightedHour(kw=Fraction(kw), least=Fraction(least), most=Fraction(least if most is None else most))


def event(kwh: str | None, hours: int) -> EventEnergy:
    return EventEnergy(kwh=None if kwh is None else Fraction(kwh), hours=Fraction(hours))


@pytest.mark.parametrize(
    ("delivered", "paid"),
    [(110, 1050), (105, 1050), (90, 900), (75, 750), (70, 350), (60, 300), (50, -100)],
)
def test_a_bid_is_paid_by_bands_and_a_boundary_is_of_the_upper_one(delivered: int, paid: int) -> None:
    assert bid_payment(Fraction(100), Fraction(delivered), Fraction(10), BANDS) == paid


def test_a_bid_of_nothing_is_no_bid() -> None:
    with pytest.raises(ValueError, match="above 0"):
        bid_payment(Fraction(0), Fraction(1), Fraction(10), BANDS)


def test_mean_power_of_events_counts_a_missed_one() -> None:
    events = [event("15", 3), event("12", 3), event(None, 3)]
    assert mean_event_power(events, Fraction(0)) == 3
    assert mean_event_power(events[:2], Fraction(0)) == Fraction("4.5")
    assert mean_event_power([event("0", 3)], Fraction(-1)) == -1
    assert mean_event_power([], Fraction(0)) is None


def test_mean_power_is_of_events_and_not_of_hours() -> None:
    assert mean_event_power([event("2", 1), event("12", 3)], Fraction(0)) == 3


def test_the_best_two_hours_are_in_a_row() -> None:
    hours = [(0, Fraction(9)), (HOUR_MS * 2, Fraction(4)), (HOUR_MS * 3, Fraction(6)), (HOUR_MS * 5, Fraction(8))]
    assert best_two_hours(hours) == 5
    assert best_two_hours(hours[::-1]) == 5
    assert best_two_hours(hours[:2]) is None


def test_hours_with_weights_are_known_and_hours_without_make_a_range() -> None:
    assert weighted_mean([hour("4", 1), hour("1", 3)]) == FigureRange(low=Fraction("1.75"), high=Fraction("1.75"))
    assert weighted_mean([hour("4", 1), hour("1", 1, 3)]) == FigureRange(low=Fraction("1.75"), high=Fraction("2.5"))
    assert weighted_mean([hour("4", 0)]) is None
    assert weighted_mean([hour("4", -2), hour("1", 1)]) is None


@given(HOURS, st.randoms(use_true_random=False))
def test_no_weights_within_their_ranges_leave_the_range_of_the_mean(hours: list[WeightedHour], chance: Random) -> None:
    found = weighted_mean(hours)
    weights = [chance.choice([one.least, one.most, (one.least + one.most) / 2]) for one in hours]
    if sum(weights):
        assert found is not None
        value = sum((one.kw * weight for one, weight in zip(hours, weights, strict=True)), Fraction(0)) / sum(weights)
        assert found.low <= value <= found.high


@given(HOURS, st.integers(-5, 5), st.integers(1, 5))
def test_a_weighted_mean_is_linear_in_what_was_given(hours: list[WeightedHour], shift: int, scale: int) -> None:
    found = weighted_mean(hours)
    moved = weighted_mean([replace(one, kw=scale * one.kw + shift) for one in hours])
    if found is None:
        assert moved is None
    else:
        assert moved == FigureRange(low=scale * found.low + shift, high=scale * found.high + shift)

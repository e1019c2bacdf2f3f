"""Homes that give less than they are asked are named with their cause, and nobody else is."""

from fractions import Fraction

import numpy as np
import pytest

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.home_events import HomeEvents, home_events
from gateway.domain.programs.response import answers
from gateway.domain.programs.underperformers import (
    LikelyCause,
    Trend,
    Underperformer,
    lost_by_event,
    money_lost,
    trends_of,
    underperformers,
)
from tests.domain.programs.answering import (
    STEP_WH,
    STEPS,
    WANTED_W,
    begins_after,
    ends_at,
    given,
    quiet,
    street,
)

HOME = 3


def only(seen: HomeEvents) -> Underperformer:
    found = underperformers(seen)
    assert [one.home for one in found] == [f"home-{HOME}"]
    return found[0]


def test_nobody_is_named_where_all_homes_give_what_they_are_asked() -> None:
    assert underperformers(street()) == []


@pytest.mark.parametrize("part", [0.8, 0.6])
def test_a_home_at_part_of_its_power_is_derated(part: float) -> None:
    seen = street()
    given(seen, HOME, part, since=3)
    found = only(seen)
    assert (found.cause, found.since, found.affected) == (LikelyCause.POWER_DERATE, 3, (3, 4, 5))
    assert found.level == pytest.approx(part, abs=0.02)
    assert found.lost_wh == pytest.approx(3 * (1 - part) * WANTED_W * 2, rel=0.15)


@pytest.mark.parametrize("part", [0.8, 0.6])
def test_a_home_that_is_empty_before_the_end_has_lost_capacity(part: float) -> None:
    seen = street()
    given(seen, HOME, ends_at(part), since=3)
    found = only(seen)
    assert found.cause is LikelyCause.CAPACITY_FADE
    assert found.short == pytest.approx(1 - part, abs=0.03)


@pytest.mark.parametrize("late_s", [600, 1200])
def test_a_home_that_begins_late_is_late(late_s: int) -> None:
    seen = street()
    given(seen, HOME, begins_after(late_s), since=3)
    found = only(seen)
    assert found.cause is LikelyCause.LATE
    assert found.late_s == pytest.approx(late_s, abs=60)


def test_a_home_that_charges_instead_has_its_sign_reversed() -> None:
    seen = street()
    given(seen, HOME, -1.0 * ends_at(0.4))
    seen.soc_pct[HOME], seen.soc_end_pct[HOME] = 60.0, 90.0
    found = only(seen)
    assert (found.cause, found.trend) == (LikelyCause.BATTERY_REVERSED, Trend.REVERSED)


def test_a_home_whose_battery_empties_while_it_seems_to_charge_has_its_meter_reversed() -> None:
    seen = street()
    given(seen, HOME, -1.0)
    seen.soc_pct[HOME], seen.soc_end_pct[HOME] = 60.0, 10.0
    assert only(seen).cause is LikelyCause.METER_REVERSED


def test_a_meter_that_counts_much_less_than_what_leaves_the_battery_counts_some_of_it_backwards() -> None:
    seen = street()
    given(seen, HOME, 0.33)
    seen.soc_end_pct[HOME] = 12.0
    assert only(seen).cause is LikelyCause.METER_REVERSED


def test_more_charge_than_there_is_room_for_is_a_meter_reversed_where_no_soc_is_known_at_the_end() -> None:
    seen = street()
    given(seen, HOME, -1.0)
    assert only(seen).cause is LikelyCause.METER_REVERSED


def test_half_the_power_of_two_batteries_is_one_of_them_off() -> None:
    seen = street()
    given(seen, HOME, 0.5)
    assert only(seen).cause is LikelyCause.UNIT_OFF


def test_half_the_power_of_a_home_with_one_battery_is_a_derate() -> None:
    seen = street()
    given(seen, HOME, 0.5)
    seen.unit_w[HOME] = [4_000.0, np.nan]
    assert only(seen).cause is LikelyCause.POWER_DERATE


def test_the_smaller_of_two_batteries_that_is_off_is_one_of_them_off() -> None:
    seen = street()
    seen.unit_w[HOME] = [2_600.0, 1_400.0]
    given(seen, HOME, 0.65)
    assert only(seen).cause is LikelyCause.UNIT_OFF


def test_a_home_that_is_not_heard_and_takes_no_command_has_dead_communication() -> None:
    seen = street()
    quiet(seen, HOME, events=slice(3, None))
    found = only(seen)
    assert (found.cause, found.trend) == (LikelyCause.DEAD_COMMS, Trend.RARELY)
    assert found.unmeasured_wh == found.lost_wh > 0
    assert found.level is None


def test_a_home_that_acknowledges_and_gives_nothing_does_nothing() -> None:
    seen = street()
    given(seen, HOME, 0.01)
    found = only(seen)
    assert (found.cause, found.trend, found.acknowledged) == (LikelyCause.DOES_NOTHING, Trend.NEVER, 1.0)


def test_a_home_that_gives_nothing_in_every_other_event_is_intermittent() -> None:
    seen = street()
    for event in (1, 3, 5):
        given(seen, HOME, 0.0, since=event, until=event + 1)
    found = only(seen)
    assert (found.cause, found.affected) == (LikelyCause.INTERMITTENT, (1, 3, 5))


def test_a_home_that_drops_out_in_the_middle_of_events_is_intermittent() -> None:
    seen = street()
    given(seen, HOME, np.where(np.arange(STEPS) % 6 < 3, 1.0, 0.0))
    assert only(seen).cause is LikelyCause.INTERMITTENT


def test_less_power_since_an_update_is_since_the_update() -> None:
    seen = street()
    given(seen, HOME, 0.8, since=3)
    seen.firmware[HOME, 3:] = 2
    assert only(seen).cause is LikelyCause.SINCE_UPDATE


def test_less_power_long_before_an_update_is_a_derate() -> None:
    seen = street()
    given(seen, HOME, 0.8)
    seen.firmware[HOME, 3:] = 2
    assert only(seen).cause is LikelyCause.POWER_DERATE


def test_two_bad_events_name_nobody_yet_and_the_third_does() -> None:
    seen = street()
    given(seen, HOME, 0.7, since=3)
    assert underperformers(seen.until(5)) == []
    assert only(seen.until(6)).cause is LikelyCause.POWER_DERATE


def test_a_whole_neighbourhood_that_gives_less_on_a_hot_day_is_not_named() -> None:
    seen = street()
    seen.neighbourhood[:6] = 1
    seen.delivered_wh[:6] *= 0.75
    assert underperformers(seen) == []
    assert answers(seen).weather[0, 0] == pytest.approx(0.75, abs=0.02)


def test_heat_hides_a_derate_and_no_home_that_gives_hardly_anything() -> None:
    seen = street()
    seen.delivered_wh[:] *= 0.75
    given(seen, HOME, 0.8)
    given(seen, HOME + 1, 0.0)
    assert [one.cause for one in underperformers(seen)] == [LikelyCause.DOES_NOTHING]


def test_the_temperature_of_the_neighbourhood_counts_where_that_of_a_battery_is_unknown() -> None:
    seen = street()
    seen.temperature_c[:] = 44.0
    seen.temperature_c[HOME] = np.nan
    given(seen, HOME, 0.8)
    assert underperformers(seen) == []


def test_an_event_that_asks_for_less_than_a_derated_home_has_says_nothing() -> None:
    seen = street()
    given(seen, HOME, 0.7)
    for event in (3, 4):
        seen.commanded_w[HOME, event] = seen.expected_w[HOME, event] = WANTED_W * 0.6
        seen.delivered_wh[HOME, event] = STEP_WH * 0.6
    assert only(seen).affected == (0, 1, 2, 5)


def test_a_silent_event_now_and_then_is_no_fault() -> None:
    seen = street()
    for event in (1, 5):
        quiet(seen, HOME, events=slice(event, event + 1), acknowledged=0.0)
    assert underperformers(seen) == []


def test_a_home_that_falls_silent_in_each_event_has_dead_communication() -> None:
    seen = street()
    seen.delivered_wh[HOME, :, 8:] = np.nan
    seen.coverage[HOME], seen.acknowledged[HOME] = 8 / STEPS, 8 / STEPS
    assert only(seen).cause is LikelyCause.DEAD_COMMS


def test_coarse_counters_of_small_powers_are_no_fault() -> None:
    seen = street()
    seen.expected_w[HOME] = 400.0
    seen.commanded_w[HOME] = 400.0
    total = np.floor(np.cumsum(np.full((6, STEPS), 400 / 12), axis=1) / 100) * 100
    seen.delivered_wh[HOME] = np.diff(total, axis=1, prepend=0.0)
    assert underperformers(seen) == []


def test_without_neighbourhoods_homes_at_the_same_temperature_are_compared() -> None:
    seen = street()
    seen.neighbourhood[:] = -1
    seen.temperature_c[:6] = 47.0
    seen.delivered_wh[:6] *= 0.7
    assert underperformers(seen) == []


def test_a_home_is_held_to_the_energy_above_its_reserve() -> None:
    seen = street()
    seen.expected_w[HOME] = WANTED_W * 0.5
    given(seen, HOME, ends_at(0.5))
    assert underperformers(seen) == []


def test_a_reserve_that_leaves_nothing_to_give_is_no_fault() -> None:
    seen = street()
    seen.expected_w[HOME] = WANTED_W * 0.1
    given(seen, HOME, 0.0)
    assert underperformers(seen) == []


def test_events_that_the_owner_left_count_for_nothing() -> None:
    seen = street()
    given(seen, HOME, 0.0, since=3)
    seen.opted_out[HOME, 3:] = True
    assert underperformers(seen) == []


def test_the_first_two_weeks_count_for_nothing() -> None:
    seen = street()
    given(seen, HOME, 0.5)
    seen.enrolled_days[HOME] = np.arange(6) * 2.0
    assert underperformers(seen) == []


def test_gaps_are_no_fault() -> None:
    seen = street()
    seen.delivered_wh[HOME, :, 5:15] = np.nan
    seen.coverage[HOME] = 0.6
    quiet(seen, HOME + 1, acknowledged=1.0)
    assert underperformers(seen) == []


def test_a_gap_hides_no_derate() -> None:
    seen = street()
    given(seen, HOME, 0.7)
    seen.delivered_wh[HOME, :, 5:11] = np.nan
    assert only(seen).cause is LikelyCause.POWER_DERATE


def test_a_battery_that_loses_power_from_event_to_event_degrades() -> None:
    seen = street(events=8)
    seen.delivered_wh[HOME] *= np.linspace(1.0, 0.75, 8)[:, None]
    assert trends_of(answers(seen))[HOME] is Trend.DEGRADING_POWER


def test_a_battery_that_lasts_less_from_event_to_event_degrades() -> None:
    seen = street(events=8)
    for event, part in enumerate(np.linspace(1.0, 0.7, 8)):
        given(seen, HOME, ends_at(float(part)), since=event, until=event + 1)
    assert trends_of(answers(seen))[HOME] is Trend.DEGRADING_CAPACITY


def test_the_trend_of_a_new_home_is_unknown() -> None:
    assert set(trends_of(answers(street(events=2)))) == {Trend.UNKNOWN}


def test_the_most_costly_home_comes_first() -> None:
    seen = street()
    given(seen, 1, 0.8)
    given(seen, 2, 0.5)
    assert [one.home for one in underperformers(seen)] == ["home-2", "home-1"]


def test_nothing_is_lost_in_events_that_went_well() -> None:
    seen = street()
    given(seen, HOME, 0.5, since=5)
    lost = lost_by_event(answers(seen))
    assert lost[HOME, 5] == pytest.approx(STEPS * STEP_WH / 2, rel=0.05)
    assert lost.sum() == lost[HOME, 5]


def test_money_lost_is_exact_and_says_when_a_price_is_missing() -> None:
    assert money_lost([4_000, 1_000], [Fraction(2), Fraction("0.35")]) == (Fraction("8.35"), True)
    assert money_lost([4_000, 1_000], [Fraction(2), None]) == (Fraction(8), False)


def test_an_array_of_another_shape_is_named() -> None:
    ones = np.ones((2, 3))
    with pytest.raises(InvalidInput, match="commanded_w: the shape is"):
        home_events(("a", "b"), expected_w=ones, commanded_w=ones, delivered_wh=np.ones((2, 3, 4)), acknowledged=ones)


def test_no_events_name_nobody() -> None:
    empty = np.ones((2, 0))
    nothing = np.ones((2, 0, 0))
    seen = home_events(("a", "b"), expected_w=empty, commanded_w=nothing, delivered_wh=nothing, acknowledged=empty)
    assert underperformers(seen) == []

"""What a fleet will give: each home by its past, who is silent and who is new, heat, and how sure it is."""

from dataclasses import replace

import numpy as np
import pytest

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.forecast import (
    ComingEvent,
    PastEvents,
    PowerForecast,
    able,
    forecast,
    forecast_period,
    heat_slope,
)

HOMES, EVENTS = 100, 10
EVERYBODY = np.ones(HOMES, dtype=np.bool_)
COMING = ComingEvent(enrolled=EVERYBODY, reached=EVERYBODY)


def past(events: int = EVENTS, *, part: float = 0.8, wander: float = 0.02, hours: float = 2.0) -> PastEvents:
    """Homes of 5 kW and 20 kWh that gave a part of their power in events of two hours."""
    draw = np.random.default_rng(1)
    given = 5_000.0 * hours * part * (1 + wander * draw.standard_normal((HOMES, events)))
    return PastEvents(
        rating_w=np.full(HOMES, 5_000.0), usable_wh=np.full(HOMES, 20_000.0),
        asked=np.ones((HOMES, events), dtype=np.bool_), delivered_wh=given, hours=np.full(events, hours),
        temperature_c=np.full(events, 25.0),
    )  # fmt: skip


def two_hours(seen: PastEvents, coming: ComingEvent = COMING) -> PowerForecast:
    return forecast(seen, coming, [2.0])[0]


def test_a_fleet_that_gave_the_same_each_time_will_give_it_again_less_a_few_who_miss() -> None:
    found = two_hours(past())
    assert found.kw == pytest.approx(400, rel=0.05)
    assert found.low_kw < found.kw < found.high_kw
    assert found.nomination_kw == found.low_kw
    assert (found.homes, found.events) == (HOMES, EVENTS)


def test_longer_events_are_bounded_by_energy() -> None:
    by_hours = forecast(replace(past(), usable_wh=np.full(HOMES, 10_000.0)), COMING)
    assert [one.hours for one in by_hours] == [1.0, 2.0, 3.0, 4.0]
    assert by_hours[0].kw == pytest.approx(by_hours[1].kw)
    assert by_hours[3].kw == pytest.approx(by_hours[1].kw / 2)
    assert able(past(), 4.0)[0] == 5_000.0


def test_who_is_not_enrolled_is_not_counted_on() -> None:
    half = EVERYBODY & (np.arange(HOMES) < HOMES // 2)
    found = two_hours(past(), ComingEvent(enrolled=half, reached=EVERYBODY))
    assert found.kw == pytest.approx(two_hours(past()).kw / 2, rel=0.02)
    assert found.homes == HOMES // 2


def test_a_joiner_counts_like_the_others_and_makes_the_band_wider() -> None:
    seen = past()
    seen.asked[:30] = False
    seen.delivered_wh[:30] = np.nan
    found = two_hours(seen)
    assert found.kw == pytest.approx(two_hours(past()).kw, rel=0.03)
    assert found.high_kw - found.low_kw > two_hours(past()).high_kw - two_hours(past()).low_kw


def test_homes_that_fell_silent_for_good_are_hardly_counted_on_and_one_miss_is_forgiven() -> None:
    seen = past()
    seen.delivered_wh[:20, -4:] = np.nan
    assert two_hours(seen).kw == pytest.approx(0.8 * two_hours(past()).kw, rel=0.06)
    once = past()
    once.delivered_wh[:20, -1] = np.nan
    assert two_hours(once).kw > 0.93 * two_hours(past()).kw


def test_a_home_that_is_not_reached_counts_less() -> None:
    away = ComingEvent(enrolled=EVERYBODY, reached=EVERYBODY & (np.arange(HOMES) >= 50))
    assert 0.7 * two_hours(past()).kw < two_hours(past(), away).kw < 0.97 * two_hours(past()).kw


def hot(events: int = 12) -> PastEvents:
    """Every other event is hot, and gives a fifth less."""
    seen = past(events)
    seen.temperature_c[1::2] = 38.0
    seen.delivered_wh[:, 1::2] *= 0.8
    return seen


def test_heat_takes_what_it_took_before() -> None:
    cool, warm = (two_hours(hot(), replace(COMING, temperature_c=each)).kw for each in (25.0, 38.0))
    assert warm == pytest.approx(0.8 * cool, rel=0.06)
    assert heat_slope(hot()) < 0 == heat_slope(past())


def test_without_a_temperature_the_band_is_wider() -> None:
    known, unknown = two_hours(hot(), replace(COMING, temperature_c=25.0)), two_hours(hot())
    assert (unknown.high_kw - unknown.low_kw) / unknown.kw > 1.2 * (known.high_kw - known.low_kw) / known.kw


def test_before_any_event_the_nameplates_count_with_a_wide_band() -> None:
    found = two_hours(past(0))
    assert 300 < found.kw < 400
    assert found.high_kw - found.low_kw > two_hours(past()).high_kw - two_hours(past()).low_kw


def test_a_fleet_that_wanders_has_a_wider_band() -> None:
    restless = past()
    restless.delivered_wh[:] *= np.where(np.arange(EVENTS) % 2, 0.8, 1.1)
    steady = two_hours(past())
    assert two_hours(restless).high_kw - two_hours(restless).low_kw > 2 * (steady.high_kw - steady.low_kw)


def test_nobody_enrolled_gives_nothing() -> None:
    found = two_hours(past(), ComingEvent(enrolled=~EVERYBODY, reached=EVERYBODY))
    assert (found.kw, found.low_kw, found.high_kw) == (0.0, 0.0, 0.0)


def test_an_array_of_another_shape_is_named() -> None:
    with pytest.raises(InvalidInput, match="temperature_c: the shape is"):
        replace(past(), temperature_c=np.zeros(3))


def test_a_nomination_period_counts_each_length_as_often_as_it_came() -> None:
    seen = replace(past(), usable_wh=np.full(HOMES, 10_000.0))
    two, four = forecast(seen, COMING, [2.0, 4.0])
    found = forecast_period(seen, COMING, [2.0, 2.0, 2.0, 4.0])
    assert found.kw == pytest.approx((3 * two.kw + four.kw) / 4)
    assert found.nomination_kw == pytest.approx((3 * two.low_kw + four.low_kw) / 4)
    assert forecast_period(seen, COMING).kw == pytest.approx(two.kw)
    assert forecast_period(past(0), COMING).hours == 2.0

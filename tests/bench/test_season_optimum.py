"""The clairvoyant of a season, on cases that are solved by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bench.season_optimum import Battery, Event, Floats, best_wh, between, capacity_kw

IDEAL = Battery(capacity_wh=10_000, floor_wh=0, efficiency_charge=1, efficiency_discharge=1)


def event(
    *prices: float, room_w: float = 5_000, surplus_w: float | list[float] = 0, gain_wh: float = 0,
    most_wh: float = 10_000, fresh: bool = False,
) -> Event:  # fmt: skip
    """An event of whole hours, a step each."""
    hours = len(prices)
    return Event(
        room_w=np.full(hours, float(room_w)), surplus_w=np.broadcast_to(np.array(surplus_w, dtype=float), hours),
        weight=np.array(prices, dtype=float), step_h=1.0, gain_wh=gain_wh, most_wh=most_wh, fresh=fresh,
    )  # fmt: skip


def given_wh(battery: Battery, *events: Event, start_wh: float) -> list[list[float]]:
    return [np.round(steps, 3).tolist() for steps in best_wh(battery, events, start_wh)]


def test_optimum_full_battery_gives_its_rating_in_both_hours() -> None:
    assert given_wh(IDEAL, event(50, 60), start_wh=10_000) == [[5_000, 5_000]]


def test_optimum_half_full_battery_gives_in_the_dearer_hour() -> None:
    assert given_wh(IDEAL, event(50, 60), start_wh=5_000) == [[0, 5_000]]
    assert given_wh(IDEAL, event(60, 50), start_wh=7_000) == [[5_000, 2_000]]


def test_optimum_energy_that_comes_only_once_waits_for_the_dearer_evening() -> None:
    cheap, dear = event(50, 50), event(80, 80)
    assert given_wh(IDEAL, cheap, dear, start_wh=10_000) == [[0, 0], [5_000, 5_000]]
    assert given_wh(IDEAL, dear, cheap, start_wh=10_000) == [[5_000, 5_000], [0, 0]]


def test_optimum_sun_between_two_evenings_serves_the_second() -> None:
    dear, cheap = event(80, 80), event(50, 50, gain_wh=4_000)
    assert sum(given_wh(IDEAL, dear, cheap, start_wh=10_000)[1]) == 4_000


def test_optimum_no_more_than_the_battery_holds_is_there_whatever_the_sun_gives() -> None:
    first, second = event(0, 0), event(50, 50, gain_wh=50_000, most_wh=8_000)
    assert sum(given_wh(IDEAL, first, second, start_wh=10_000)[1]) == 8_000


def test_optimum_event_that_begins_anew_has_what_it_is_said_to_have() -> None:
    dear, cheap = event(80, 80), event(50, 50, most_wh=3_000, fresh=True)
    assert sum(given_wh(IDEAL, dear, cheap, start_wh=10_000)[1]) == 3_000


def test_optimum_reserve_stays_and_discharge_costs_its_losses() -> None:
    lossy = replace(IDEAL, floor_wh=2_000, efficiency_discharge=0.9, standby_w=100)
    # 10,000 - 2,000 - 2 h of 100 W, of which 0.9 arrive
    assert sum(given_wh(lossy, event(50, 50), start_wh=10_000)[0]) == pytest.approx(7_020)


def test_optimum_battery_below_its_reserve_gives_nothing() -> None:
    assert given_wh(replace(IDEAL, floor_wh=3_000), event(50, 60), start_wh=2_500) == [[0, 0]]


def test_optimum_meter_that_lets_nothing_out_bounds_the_power() -> None:
    assert given_wh(IDEAL, event(50, 60, room_w=800), start_wh=10_000) == [[800, 800]]


def test_optimum_charges_in_an_event_from_pv_alone_and_where_that_earns() -> None:
    lossy = replace(IDEAL, efficiency_charge=0.9)
    assert given_wh(lossy, event(10, 100), start_wh=0) == [[0, 0]]
    assert given_wh(lossy, event(10, 100, surplus_w=[2_000, 0]), start_wh=0) == [[-2_000, 1_800]]
    assert given_wh(lossy, event(95, 100, surplus_w=[2_000, 0]), start_wh=0) == [[0, 0]]


def test_between_keeps_what_there_is_and_takes_the_sun_until_full() -> None:
    battery = replace(IDEAL, efficiency_charge=0.9, standby_w=100)
    assert between(np.array([5_000.0, 5_000.0, 0.0]), 1.0, battery) == pytest.approx((8_700, 9_900))
    assert between(np.zeros(0), 1.0, battery) == (0, 10_000)


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.floats(0, 6_000), min_size=4, max_size=4), min_size=1, max_size=4),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=16, max_size=16),
    st.floats(2_000, 10_000),
)
def test_optimum_nobody_does_better(
    suns_w: list[list[float]], plays: list[tuple[float, float]], start_wh: float
) -> None:
    """Any player that keeps to the physics, and the reserve to the end of each event, earns at most as much."""
    battery = Battery(
        capacity_wh=10_000, floor_wh=2_000, efficiency_charge=0.95, efficiency_discharge=0.96, standby_w=20
    )
    events, energy_wh, earned, number = [], start_wh, 0.0, 0
    for day, sun_w in enumerate(suns_w):
        gain_wh, most_wh = between(np.array(sun_w), 1.0, battery)
        events.append(
            event(50 + 10.0 * day, 60, room_w=4_000, surplus_w=[sun_w[0] / 4, 0], gain_wh=gain_wh, most_wh=most_wh)
        )
        for power_w in sun_w:
            energy_wh = min(energy_wh + 0.95 * power_w - 20, 10_000)
        for step in range(2):
            out, into = plays[number % len(plays)]
            number += 1
            taken_wh = min(into * float(events[-1].surplus_w[step]), (10_020 - energy_wh) / 0.95)
            energy_wh += 0.95 * taken_wh - 20
            gives_wh = min(out * 4_000, max(energy_wh - 2_000 - 20 * (1 - step), 0) * 0.96)
            energy_wh -= gives_wh / 0.96
            earned += float(events[-1].weight[step]) * (gives_wh - taken_wh)
    best = sum(
        float((e.weight * steps).sum()) for e, steps in zip(events, best_wh(battery, events, start_wh), strict=True)
    )
    assert earned <= best + 1e-3 * max(best, 1.0)


# -- demonstrated capacity, worked examples ----------------------------------------------------------------------

MAY: Floats = np.array([51.75706, 52.50963, 53.47496, 55.05001, 61.67823, 60.87])


def test_capacity_of_a_month_is_weighted_by_price_and_counts_a_missing_hour() -> None:
    given_kw: Floats = np.array([5, 5, 4.8, 4.6, 5, 0])
    assert capacity_kw(given_kw, MAY, 0.539495) == pytest.approx(3.455361, abs=1e-6)
    assert capacity_kw(given_kw, MAY, 0.0) == pytest.approx(3.994856, abs=1e-6)


def test_capacity_floor_is_on_the_month_and_not_on_the_hour() -> None:
    assert capacity_kw(np.full(6, -0.5), MAY, 0.539495) == 0.0
    assert capacity_kw(np.array([5, -5, 0, 0, 0, 0.0]), MAY, 0.0) < 0.0 + 1e-9

"""Both judges of a season, on examples that were worked out by hand and on a small street."""

from dataclasses import replace
from datetime import date
from decimal import Decimal

import numpy as np
import pytest

from simulators.season.by_energies import ByEnergies
from simulators.season.by_readings import ByReadings, counted, integrated, whole
from simulators.season.days import TrueDay, true_days
from simulators.season.official import HOUR_MS, Event, OfficialHour, events_of, official_hours
from simulators.season.pay import RATES, HomeMonth, baseline_kw, home_month
from simulators.season.received import Meters, Received
from simulators.season.street import Meter, SeasonStreet, season_street
from simulators.settlement import Exact, cents, exact

QUARTER_MS = 900_000
MINUTE_MS = 60_000
GIVEN = ("5", "5", "4.8", "4.6", "5", "0")


# -- what a month is worth ------------------------------------------------------------------------------------------


def counted_hours(month: int) -> list[OfficialHour]:
    return [hour for hour in official_hours() if hour.day.month == month and hour.event_type == "Test Capacity"]


def worth(given: tuple[str | None, ...], base_kw: Exact, month: int = 5) -> HomeMonth:
    hours = zip(counted_hours(month), given, strict=True)
    known = [(hour, None if kw is None else exact(kw)) for hour, kw in hours]
    found = home_month(known, baseline_kw=base_kw, rate=RATES[month])
    assert found is not None
    return found


def test_may_of_2025_is_weighted_by_its_prices() -> None:
    found = worth(GIVEN, baseline_kw(5_000.0))
    assert round(float(found.capacity_kw), 6) == 3.455361
    assert found.pay == Decimal("30.32")


def test_an_hour_that_is_not_known_counts_as_nothing_given() -> None:
    assert worth((*GIVEN[:5], None), baseline_kw(5_000.0)).pay == Decimal("30.32")


def test_without_a_baseline_all_counts() -> None:
    found = worth(GIVEN, Exact(0))
    assert round(float(found.capacity_kw), 6) == 3.994856
    assert found.pay == Decimal("35.05")


def test_a_month_below_nothing_is_worth_nothing() -> None:
    found = worth(("-0.5",) * 6, baseline_kw(5_000.0))
    assert round(float(found.capacity_kw), 6) == -1.039495
    assert found.pay == Decimal("0.00")


def test_five_kilowatts_all_season_are_worth_five_times_the_monthly_rates() -> None:
    """At the published customers' share, 7.00 to 14.97 per kW, and at the program's own rates."""
    share = {5: "7.00", 6: "7.25", 7: "13.10", 8: "14.04", 9: "14.97", 10: "8.19"}
    shared = Decimal(0)
    for month, rate in share.items():
        hours = [(hour, exact(5)) for hour in counted_hours(month)]
        found = home_month(hours, baseline_kw=Exact(0), rate=exact(rate))
        assert found is not None
        shared += found.pay
    assert shared == Decimal("322.75")
    assert round(float(sum(RATES.values(), Exact(0))), 3) == 80.743


def test_an_hour_late_on_the_last_of_october_is_october() -> None:
    last = OfficialHour(day=date(2026, 10, 31), hour_end=21, event_type="Test Capacity", price=Decimal(50))
    assert last.start_ms == 1_793_502_000_000  # 2026-11-01T03:00Z
    assert last.day.month == 10


def test_a_month_whose_hours_do_not_count_is_not_worth_nothing_but_unknown() -> None:
    hours = [hour for hour in official_hours() if hour.event_type == "Test Non-Capacity"][:2]
    assert home_month([(hour, exact(5)) for hour in hours], baseline_kw=Exact(0), rate=exact(10)) is None


def test_the_season_has_34_events_of_two_hours() -> None:
    events = events_of(official_hours())
    assert [len(event.hours) for event in events] == [2] * 34
    assert all(event.end_ms - event.start_ms == 2 * HOUR_MS for event in events)
    assert events[0].notice_ms == events[0].midnight_ms - 9 * HOUR_MS


# -- energy of quarter hours ----------------------------------------------------------------------------------------


def test_a_counter_is_straight_between_two_readings() -> None:
    at_ms = np.array([0, 10, 25, 40]) * MINUTE_MS
    edges_ms = np.arange(5) * QUARTER_MS
    assert counted(at_ms, np.array([100.0, 200.0, 350.0, 500.0]), edges_ms)[:2] == pytest.approx([150.0, 150.0])
    assert np.isnan(counted(at_ms, np.array([100.0, 200.0, 350.0, 500.0]), edges_ms)[2:]).all()


def test_a_span_is_shared_by_time_and_a_hole_between_spans_is_not_filled() -> None:
    at_ms, span_ms = np.array([20, 50]) * MINUTE_MS, np.array([20, 10]) * MINUTE_MS
    wh = integrated(at_ms, span_ms, np.array([40.0, 30.0]), np.arange(6) * QUARTER_MS)
    assert wh[:4] == pytest.approx([30.0, 10.0, 15.0, 15.0])
    assert np.isnan(wh[4])


def test_an_hour_is_rounded_once_half_up_and_what_is_unknown_stays_so() -> None:
    assert whole(np.array([0.5, 1.4999, 2.49951, np.nan])).tolist() == [1, 1, 3, -1]
    assert whole(np.full((2, 8), 0.2501)).sum(axis=1).tolist() == [2, 2]
    assert whole(np.full(8, 0.2501)).tolist() == [0, 1, 0, 0, 0, 1, 0, 0]


# -- both on a street -----------------------------------------------------------------------------------------------


def event_at(day: date) -> Event:
    return next(event for event in events_of(official_hours()) if event.day == day)


MAY = [event for event in events_of(official_hours()) if event.day.month == 5]


@pytest.fixture(scope="module")
def street() -> SeasonStreet:
    return season_street(120, MAY, seed=5)


@pytest.fixture(scope="module")
def days(street: SeasonStreet) -> list[tuple[TrueDay, Received]]:
    meters = Meters(street)
    return [(true, meters.day(true)) for true in true_days(street)]


@pytest.fixture(scope="module")
def judged(street: SeasonStreet, days: list[tuple[TrueDay, Received]]) -> tuple[ByReadings, ByEnergies]:
    readings, energies = ByReadings(street=street), ByEnergies(street=street)
    for true, received in days:
        readings.day(received)
        energies.day(true, received)
    return readings, energies


def test_a_seed_gives_the_same_season(street: SeasonStreet, days: list[tuple[TrueDay, Received]]) -> None:
    again = season_street(120, MAY, seed=5)
    received = Meters(again).day(next(true_days(again)))
    assert np.array_equal(received.heard_ms, days[0][1].heard_ms)
    assert np.array_equal(received.discharge_wh, days[0][1].discharge_wh, equal_nan=True)
    other = season_street(120, MAY, seed=6)
    assert not np.array_equal(other.homes.capacity_wh, street.homes.capacity_wh)


def test_a_street_has_every_meter_clock_and_disturbance() -> None:
    street = season_street(2_000, events_of(official_hours()), seed=5)
    assert set(np.unique(street.homes.counter_step_wh[street.meter != Meter.POWER])) == {1.0, 10.0, 100.0}
    assert 0.01 < (street.meter == Meter.POWER).mean() < 0.03
    assert 15_000 < np.abs(street.off_ms).max() <= 20_000
    assert street.opts_out.any()
    away = street.away_ms[:, :, 0] > 0
    assert street.loses[away].any()
    assert not street.loses[away].all()
    assert not street.loses[~away].any()
    joined = ~street.takes_part[:, 4] & street.takes_part[:, 9]
    left = street.takes_part[:, 4] & ~street.takes_part[:, 9]
    assert joined.any()
    assert left.any()


def test_what_readings_pay_is_within_the_bound_of_what_energies_are_worth(
    judged: tuple[ByReadings, ByEnergies],
) -> None:
    paid, worth_by_home = judged[0].months(), judged[1].months()
    assert paid.keys() == worth_by_home.keys()
    assert [key for key, pay in paid.items() if not worth_by_home[key].holds(pay)] == []
    assert sum(pay > 0 for pay in paid.values()) > 60


def test_the_bound_of_a_connected_home_is_small(street: SeasonStreet, judged: tuple[ByReadings, ByEnergies]) -> None:
    away = np.asarray((street.away_ms[:, :, 0] > 0).any(axis=1))
    found = {home: one for (home, _), one in judged[1].months().items() if not away[home] and one.amount > 5}
    share = [float(one.bound / one.amount) for one in found.values()]
    assert np.median(share) < 0.02


def test_a_bound_is_left_by_a_kilowatt_too_much_in_one_hour(judged: tuple[ByReadings, ByEnergies]) -> None:
    """At every home that is connected and whose month is worth something."""
    tried = 0
    for (_, month), one in judged[1].months().items():
        if one.amount > 1 and one.bound < RATES[month] / 15:
            tried += 1
            assert not replace(one, amount=one.amount + RATES[month] / 6).holds(cents(one.amount))
    assert tried > 50


def test_a_lost_span_of_a_counter_is_shared_by_time(street: SeasonStreet, days: list[tuple[TrueDay, Received]]) -> None:
    """Between the last reading before and the first one after."""
    received = days[1][1]
    home = int(np.flatnonzero((street.meter == Meter.FINE) & (np.abs(street.off_ms) < 1_000))[0])
    start_ms = MAY[1].start_ms
    heard_ms = received.heard_ms.copy()
    gone = (received.sent_ms[home] > start_ms - 5 * MINUTE_MS) & (received.sent_ms[home] < start_ms + 65 * MINUTE_MS)
    heard_ms[home, gone] = 0
    kept = received.sent_ms[home, ~gone]
    last, first = kept[kept < start_ms].max(), kept[kept > start_ms].min()
    share = HOUR_MS / (first - last)
    at = [int(np.flatnonzero(received.sent_ms[home] == one)[0]) for one in (last, first)]
    moved = [float(np.diff(part[home, at])[0]) for part in (received.charge_wh, received.discharge_wh)]
    quarters = ByReadings(street=street).day(replace(received, heard_ms=heard_ms))
    net_wh = quarters.net_wh(home, start_ms)
    assert net_wh is not None
    assert net_wh == pytest.approx((moved[1] - moved[0]) * share, abs=4)


def test_power_that_is_not_told_is_unknown(street: SeasonStreet, days: list[tuple[TrueDay, Received]]) -> None:
    _, received = days[0]
    home = 0
    heard_ms = received.heard_ms.copy()
    heard_ms[home] = 0
    quarters = ByReadings(street=street).day(replace(received, heard_ms=heard_ms))
    assert quarters.net_wh(home, MAY[0].start_ms) is None
    assert quarters.net_wh(home + 1, MAY[0].start_ms) is not None

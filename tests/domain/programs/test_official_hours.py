"""Official hours and prices: what agrees with what was dispatched, what is missing, and what is paid once it comes."""

from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.programs.local_hours import hour_starts
from gateway.domain.programs.official_hours import (
    OfficialHour,
    calendar_diff,
    table_hours,
    undecided_months,
)
from gateway.domain.programs.prices import HourPrice, SeriesOrigin, SiteArea, area_at, price_gaps
from gateway.domain.programs.pricing import PRICE_MISSING, TYPE_MISSING, PricedSite, price_table
from gateway.domain.rules.calendar import HOUR_MS, local_ms
from tests.programs.test_shipped import PROGRAMS

DSGS = PROGRAMS["dsgs-option3"].program
ZONE = DSGS.zone
ORIGIN = SeriesOrigin(version=1, source="test", imported_ms=0)
DAY = date(2025, 7, 22)


def at(day: date, hour_end: int) -> int:
    return hour_starts(ZONE, day, hour_end)[0]


def official(day: date, hour_end: int, kind: str | None = "Test Capacity") -> OfficialHour:
    return OfficialHour(start_ms=at(day, hour_end), event_type=kind, announced_by="administrator", origin=ORIGIN)


def price(day: date, hour_end: int, value: str) -> HourPrice:
    return HourPrice(start_ms=at(day, hour_end), price=Decimal(value), currency="USD", origin=ORIGIN)


def test_official_hours_that_were_dispatched_agree() -> None:
    hours = [official(DAY, 20), official(DAY, 21)]
    assert calendar_diff(hours, [(at(DAY, 20), at(DAY, 21) + HOUR_MS)]).agrees
    assert calendar_diff(hours, [(at(DAY, 20), at(DAY, 21)), (at(DAY, 21), at(DAY, 22))]).agrees


def test_hours_that_were_never_or_partly_dispatched_or_are_not_official_are_told_apart() -> None:
    hours = [official(DAY, 19), official(DAY, 20), official(DAY, 21)]
    half = HOUR_MS // 2
    diff = calendar_diff(hours, [(at(DAY, 20) + half, at(DAY, 22) + half)])
    assert diff.never_dispatched == (at(DAY, 19),)
    assert diff.partly_dispatched == (at(DAY, 20),)
    assert diff.not_official == (at(DAY, 22),)
    assert not diff.agrees


HOURS = st.sets(st.integers(0, 12), max_size=8)


@given(HOURS, HOURS)
def test_every_hour_is_in_one_list_or_agrees(called: set[int], dispatched: set[int]) -> None:
    hours = [OfficialHour(start_ms=n * HOUR_MS, event_type=None, announced_by="a", origin=ORIGIN) for n in called]
    diff = calendar_diff(hours, [(n * HOUR_MS, (n + 1) * HOUR_MS) for n in dispatched])
    assert set(diff.never_dispatched) == {n * HOUR_MS for n in called - dispatched}
    assert set(diff.not_official) == {n * HOUR_MS for n in dispatched - called}
    assert diff.partly_dispatched == ()


@pytest.mark.parametrize(
    ("now", "months"),
    [((2025, 6, 19), []), ((2025, 6, 20), [(2025, 6)]), ((2025, 8, 21), [(2025, 6), (2025, 8)]), ((2025, 12, 1), [])],
)
def test_a_month_past_its_20th_without_an_hour_that_counts_is_told(
    now: tuple[int, int, int], months: list[tuple[int, int]]
) -> None:
    hours = [
        official(date(2025, 5, 22), 20), official(date(2025, 6, 3), 20, "Test Non-Capacity"),
        official(date(2025, 6, 4), 20, None), official(DAY, 20),
    ]  # fmt: skip
    assert undecided_months(DSGS, hours, local_ms(ZONE, date(*now), 0)) == months


def test_the_20th_is_that_of_the_programs_own_time_zone() -> None:
    midnight_ms = local_ms(ZONE, date(2025, 5, 20), 0)
    assert undecided_months(DSGS, [], midnight_ms - 1) == []
    assert undecided_months(DSGS, [], midnight_ms) == [(2025, 5)]


def test_an_hour_on_the_last_evening_of_a_month_decides_that_month() -> None:
    now_ms = local_ms(ZONE, date(2025, 10, 31), 23 * 60)
    known = [official(date(2025, month, 31 if month in {5, 7, 8, 10} else 30), 21) for month in range(5, 11)]
    assert undecided_months(DSGS, known, now_ms) == []
    assert undecided_months(DSGS, known[:-1], now_ms) == [(2025, 10)]


@pytest.mark.parametrize("name", ["elrp-a4", "generic-capacity"])
def test_a_program_without_types_of_hours_or_without_a_season_has_no_such_month(name: str) -> None:
    assert undecided_months(PROGRAMS[name].program, [], local_ms(ZONE, date(2026, 7, 25), 0)) == []


def test_gaps_are_the_official_hours_without_a_price() -> None:
    starts = [at(DAY, 21), at(DAY, 20), at(DAY, 20)]
    gaps = price_gaps("north", starts, [price(DAY, 20, "0")])
    assert [(gap.area, gap.start_ms) for gap in gaps] == [("north", at(DAY, 21))]


def test_a_figure_is_provisional_until_its_price_and_its_type_come() -> None:
    net_kw = {at(DAY, 20): Fraction(5), at(DAY, 21): Fraction(3)}
    version, site = DSGS.version_on(DAY), PricedSite(no_baseline=True)
    assert version is not None

    def status(kinds: tuple[str | None, str | None], *prices: HourPrice) -> tuple[str, str]:
        hours = [official(DAY, 20, kinds[0]), official(DAY, 21, kinds[1])]
        (period,) = price_table(version, table_hours(ZONE, hours, prices, net_kw), site).periods
        return period.status, str(period.pay)

    both = ("Capacity", "Capacity")
    first, second = price(DAY, 20, "40"), price(DAY, 21, "60")
    assert status(both, first) == (PRICE_MISSING, "None")
    assert status(("Capacity", None), first, second) == (TYPE_MISSING, "None")
    assert status(both, first, second) == ("computed", "62.24")


def test_two_areas_have_different_hours_on_one_day_and_a_site_is_paid_by_its_own() -> None:
    areas = {
        "north": ([official(DAY, 20), official(DAY, 21)], [price(DAY, 20, "40"), price(DAY, 21, "60")]),
        "south": ([official(DAY, 18)], [price(DAY, 18, "90")]),
    }
    rows = [
        SiteArea(site="a", area="north", from_ms=0), SiteArea(site="b", area="south", from_ms=0),
        SiteArea(site="b", area="north", from_ms=at(date(2025, 8, 1), 1)),
    ]  # fmt: skip
    net_kw = {at(DAY, 18): Fraction(1), at(DAY, 20): Fraction(5), at(DAY, 21): Fraction(3)}
    version = DSGS.version_on(DAY)
    assert version is not None
    paid = {}
    for site in "ab":
        area = area_at(rows, site, at(DAY, 18))
        assert area is not None
        hours, prices = areas[area]
        table = price_table(version, table_hours(ZONE, hours, prices, net_kw), PricedSite(no_baseline=True))
        paid[site] = table.total
    assert paid == {"a": Decimal("62.24"), "b": Decimal("16.38")}


def test_the_area_of_a_site_is_that_of_the_day_and_unknown_before_and_after_it_left() -> None:
    rows = [
        SiteArea(site="a", area="south", from_ms=200), SiteArea(site="a", area="north", from_ms=100),
        SiteArea(site="a", area="", from_ms=300),
    ]  # fmt: skip
    found = [area_at(rows, "a", at_ms) for at_ms in (99, 100, 199, 200, 300)]
    assert found == [None, "north", "north", "south", None]
    assert area_at(rows, "b", 150) is None

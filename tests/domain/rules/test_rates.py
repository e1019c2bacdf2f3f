"""Which rate holds: by the day of the event, of the enrollment, utility, duration and year of taking part."""

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.rules.rates import (
    ChosenRate,
    DateRange,
    NoRate,
    Rate,
    RateCase,
    RateFactor,
    RateUnit,
    YearsBy,
    choose_rate,
    year_of_participation,
)
from gateway.domain.rules.values import Certainty

ANY = Rate(
    name="any", amount=Decimal(100), currency="USD", unit=RateUnit.KW_SEASON, certainty=Certainty.VERIFIED, source="s"
)
BEFORE = replace(ANY, name="before", amount=Decimal(400), enrolled=DateRange(until=date(2024, 6, 1)))
AFTER = replace(ANY, name="after", amount=Decimal(225), enrolled=DateRange(first=date(2024, 6, 1)))
EVENT = date(2025, 7, 8)


def amount(*rates: Rate, case: RateCase, factors: tuple[RateFactor, ...] = ()) -> Decimal | str:
    found = choose_rate(rates, factors, RateUnit.KW_SEASON, case)
    return found.amount if isinstance(found, ChosenRate) else found.reason


def test_two_homes_with_one_event_have_the_rates_of_the_days_they_enrolled() -> None:
    for enrolled, worth in ((date(2024, 5, 31), 400), (date(2024, 6, 1), 225)):
        assert amount(BEFORE, AFTER, case=RateCase(event=EVENT, enrolled=enrolled)) == worth
    assert amount(BEFORE, AFTER, case=RateCase(event=EVENT)) == "the day of enrollment is unknown"


def test_the_year_of_taking_part_chooses_the_rate() -> None:
    early = replace(ANY, name="early", amount=Decimal(200), years=(1, 5))
    late = replace(ANY, name="late", amount=Decimal(115), years=(6, 10))
    by_event = {date(2025, 6, 14): 200, date(2025, 6, 15): 115}
    for event, worth in by_event.items():
        assert amount(early, late, case=RateCase(event=event, enrolled=date(2020, 6, 15))) == worth
    gone = amount(early, late, case=RateCase(event=EVENT, enrolled=date(2010, 1, 1)))
    assert gone == "no rate per kw_season for an event on 2025-07-08"


@pytest.mark.parametrize(
    ("by", "event", "year"),
    [
        (YearsBy.ANNIVERSARY, date(2021, 2, 28), 1),
        (YearsBy.ANNIVERSARY, date(2021, 3, 1), 2),
        (YearsBy.CALENDAR_YEAR, date(2020, 12, 31), 1),
        (YearsBy.CALENDAR_YEAR, date(2021, 1, 1), 2),
    ],
)
def test_years_are_counted_from_the_day_of_enrollment_or_by_calendar_years(by: YearsBy, event: date, year: int) -> None:
    assert year_of_participation(date(2020, 2, 29), event, by) == year


def test_utility_and_duration_choose_and_are_asked_for() -> None:
    first = replace(ANY, name="a", utilities=frozenset({"A"}), duration_h=2)
    second = replace(ANY, name="b", amount=Decimal(5), utilities=frozenset({"B"}), duration_h=4)
    assert amount(first, second, case=RateCase(event=EVENT, utility="B", duration_h=4)) == 5
    assert amount(first, second, case=RateCase(event=EVENT, duration_h=2)) == "the utility is unknown"
    assert amount(first, second, case=RateCase(event=EVENT, utility="A")) == "the duration is unknown"
    assert "no rate" in str(amount(first, second, case=RateCase(event=EVENT, utility="A", duration_h=4)))


def test_factors_of_the_day_of_the_event_are_in_the_amount() -> None:
    bonus = RateFactor(
        name="bonus", factor=Decimal("1.3"), events=DateRange(first=date(2025, 1, 1), until=date(2026, 1, 1)),
        certainty=Certainty.REPORTED, source="s",
    )  # fmt: skip
    may = replace(ANY, amount=Decimal("6.98"), months=frozenset({5, 6}))
    found = choose_rate([may], [bonus], RateUnit.KW_SEASON, RateCase(event=date(2025, 6, 1)))
    assert isinstance(found, ChosenRate)
    assert (found.amount, found.factors, found.certain) == (Decimal("9.074"), (bonus,), False)
    assert amount(may, case=RateCase(event=date(2026, 6, 1)), factors=(bonus,)) == Decimal("6.98")


def test_two_rates_that_hold_at_once_choose_none() -> None:
    assert amount(ANY, replace(ANY, name="other"), case=RateCase(event=EVENT)) == "several rates hold: any, other"
    other = choose_rate([ANY], (), RateUnit.KWH, RateCase(event=EVENT))
    assert isinstance(other, NoRate)


some_days = st.one_of(st.none(), st.dates(date(2024, 1, 1), date(2026, 12, 31)))


@given(
    bounds=st.lists(some_days, min_size=4, max_size=4), enrolled=st.dates(date(2024, 1, 1), date(2026, 12, 31)),
    years=st.lists(st.integers(1, 5), min_size=4, max_size=4),
)  # fmt: skip
def test_rates_that_do_not_rival_never_hold_at_once(
    bounds: list[date | None], enrolled: date, years: list[int]
) -> None:
    one = replace(ANY, enrolled=DateRange(first=bounds[0], until=bounds[1]), years=(min(years[:2]), max(years[:2])))
    two = replace(ANY, enrolled=DateRange(first=bounds[2], until=bounds[3]), years=(min(years[2:]), max(years[2:])))
    found = choose_rate([one, two], (), RateUnit.KW_SEASON, RateCase(event=date(2027, 1, 1), enrolled=enrolled))
    if not one.rivals(two):
        assert "several" not in getattr(found, "reason", "")

"""Local hours, months and days over changes of the clock."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.programs.local_hours import day_parts, hour_starts, local_hour, local_month, month_span
from gateway.domain.rules.calendar import HOUR_MS

PACIFIC = "America/Los_Angeles"
ZONES = st.sampled_from([PACIFIC, "America/New_York", "Europe/Berlin", "Australia/Sydney", "UTC"])


def utc_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1000)


def test_the_last_evening_of_october_counts_in_october() -> None:
    assert hour_starts(PACIFIC, date(2026, 10, 31), 21) == [utc_ms("2026-11-01T03:00:00Z")]
    assert local_month(PACIFIC, utc_ms("2026-11-01T03:00:00Z")) == (2026, 10)
    start_ms, end_ms = month_span(PACIFIC, (2026, 10))
    assert start_ms <= utc_ms("2026-11-01T03:00:00Z") < end_ms == utc_ms("2026-11-01T07:00:00Z")
    assert month_span(PACIFIC, (2026, 12))[1] == utc_ms("2027-01-01T08:00:00Z")


def test_an_hour_that_repeats_is_two_and_one_that_is_left_out_is_none() -> None:
    first, second = hour_starts(PACIFIC, date(2026, 11, 1), 2)
    assert second - first == HOUR_MS
    assert hour_starts(PACIFIC, date(2026, 3, 8), 3) == []
    assert len(hour_starts(PACIFIC, date(2026, 3, 8), 4)) == 1


@pytest.mark.parametrize(
    ("day", "quarters"), [(date(2026, 3, 8), 92), (date(2026, 7, 8), 96), (date(2026, 11, 1), 100)]
)
def test_a_local_day_has_92_96_or_100_quarters_of_an_hour(day: date, quarters: int) -> None:
    assert day_parts(PACIFIC, day, 900) == quarters


@given(ZONES, st.dates(date(2024, 1, 1), date(2028, 12, 31)))
def test_the_hours_of_a_day_are_each_in_it_once(zone: str, day: date) -> None:
    starts = [at_ms for end in range(1, 25) for at_ms in hour_starts(zone, day, end)]
    assert len(starts) == len(set(starts)) == day_parts(zone, day, 3600)
    assert {local_hour(zone, at_ms)[0] for at_ms in starts} == {day}


@given(ZONES, st.integers(2024, 2028), st.integers(1, 12))
def test_months_follow_each_other_without_a_gap(zone: str, year: int, number: int) -> None:
    start_ms, end_ms = month_span(zone, (year, number))
    after = (year + number // 12, number % 12 + 1)
    assert month_span(zone, after)[0] == end_ms
    assert (local_month(zone, start_ms), local_month(zone, end_ms - 1)) == ((year, number), (year, number))
    assert local_month(zone, end_ms) == after

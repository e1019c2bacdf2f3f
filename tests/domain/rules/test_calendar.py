"""Local-time windows, seasons and days: what a clock on the wall shows, through nights on which it is changed."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.rules.calendar import (
    DAY_MINUTES,
    HOUR_MS,
    MINUTE_MS,
    ClockWindow,
    ProgramCalendar,
    Season,
    local_ms,
    midnight_ms,
    united,
)

LOS_ANGELES, NEW_YORK, SYDNEY, BERLIN = "America/Los_Angeles", "America/New_York", "Australia/Sydney", "Europe/Berlin"
ZONES = (LOS_ANGELES, NEW_YORK, SYDNEY, BERLIN, "Australia/Lord_Howe", "Asia/Kolkata", "UTC")
CHANGES = {
    LOS_ANGELES: (date(2026, 3, 8), date(2026, 11, 1)),
    NEW_YORK: (date(2026, 3, 8), date(2026, 11, 1)),
    SYDNEY: (date(2026, 10, 4), date(2026, 4, 5)),
    BERLIN: (date(2026, 3, 29), date(2026, 10, 25)),
}
"""Per zone the day with 23 hours and the one with 25."""


def window(first: int, until: int) -> ClockWindow:
    """Of hours."""
    return ClockWindow(from_min=first * 60, until_min=until * 60)


def shown(zone: str, utc_ms: int) -> datetime:
    return datetime.fromtimestamp(utc_ms / 1000, tz=UTC).astimezone(ZoneInfo(zone))


def hours_of(zone: str, day: date, first: int, until: int) -> float:
    calendar = ProgramCalendar(zone=zone, windows=(window(first, until),))
    spans = calendar.spans(midnight_ms(zone, day), midnight_ms(zone, day + timedelta(days=1)))
    return sum(end - start for start, end in spans) / HOUR_MS


@pytest.mark.parametrize("zone", CHANGES)
def test_a_window_has_the_hours_that_the_clock_shows_on_the_nights_it_is_changed(zone: str) -> None:
    short, long = CHANGES[zone]
    assert [hours_of(zone, day, 0, 24) for day in (short, long, date(2026, 7, 1))] == [23, 25, 24]
    assert [hours_of(zone, day, 1, 4) for day in (short, long, date(2026, 7, 1))] == [2, 4, 3]
    assert [hours_of(zone, day, 16, 21) for day in (short, long, date(2026, 7, 1))] == [5, 5, 5]


def test_an_evening_in_california_crosses_the_date_in_utc() -> None:
    calendar = ProgramCalendar(zone=LOS_ANGELES, windows=(window(16, 21),))
    found = calendar.spans(*(round(datetime(2025, 7, day, tzinfo=UTC).timestamp() * 1000) for day in (2, 3)))
    told = [tuple(f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%d %H:%M}" for ms in span) for span in found]
    assert told == [("02 00:00", "02 04:00"), ("02 23:00", "03 00:00")]


def test_the_hour_that_repeats_counts_twice_and_the_one_left_out_not_at_all() -> None:
    calendar = ProgramCalendar(zone=BERLIN, windows=(window(2, 3),))
    short, long = (midnight_ms(BERLIN, day) for day in CHANGES[BERLIN])
    assert calendar.spans(short, short + 23 * HOUR_MS) == []
    assert calendar.spans(long, long + 25 * HOUR_MS) == [(long + 2 * HOUR_MS, long + 4 * HOUR_MS)]
    half = ProgramCalendar(zone=BERLIN, windows=(ClockWindow(from_min=120, until_min=150),))
    assert len(half.spans(long, long + 25 * HOUR_MS)) == 2


def test_a_window_past_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    friday = date(2026, 7, 3)
    calendar = ProgramCalendar(zone=NEW_YORK, weekdays=frozenset({4}), windows=(window(22, 2),))
    start_ms = local_ms(NEW_YORK, friday, 22 * 60)
    assert calendar.covers((start_ms, start_ms + 4 * HOUR_MS))
    assert not calendar.covers((start_ms, start_ms + 4 * HOUR_MS + 1))
    assert calendar.spans(midnight_ms(NEW_YORK, friday), start_ms) == []


def test_a_season_may_cross_the_end_of_the_year() -> None:
    winter = Season(name="winter", first=(12, 1), last=(3, 31))
    inside = [date(2025, 12, 1), date(2025, 12, 31), date(2026, 1, 1), date(2026, 3, 31)]
    assert [winter.covers(day) for day in inside] == [True] * 4
    assert [winter.covers(day) for day in (date(2025, 11, 30), date(2026, 4, 1))] == [False] * 2
    assert {winter.began(day) for day in inside} == {date(2025, 12, 1)}


def test_a_holiday_of_the_program_is_a_day_without() -> None:
    day = date(2026, 7, 3)
    for holidays, hours in ((frozenset[date](), 5), (frozenset({day}), 0)):
        calendar = ProgramCalendar(zone=NEW_YORK, holidays=holidays, windows=(window(15, 20),))
        spans = calendar.spans(midnight_ms(NEW_YORK, day), midnight_ms(NEW_YORK, day + timedelta(days=1)))
        assert sum(end - start for start, end in spans) == hours * HOUR_MS


days = st.dates(date(2024, 1, 1), date(2030, 12, 31))
minutes = st.integers(0, DAY_MINUTES - 1)


@given(zone=st.sampled_from(ZONES), day=days, first=minutes, until=minutes, offset=st.integers(0, 49 * 60))
def test_an_instant_is_inside_exactly_if_the_clock_shows_a_time_of_the_window(
    zone: str, day: date, first: int, until: int, offset: int
) -> None:
    calendar = ProgramCalendar(zone=zone, windows=(ClockWindow(from_min=first, until_min=until),))
    at_ms = midnight_ms(zone, day) + offset * MINUTE_MS
    clock = shown(zone, at_ms)
    minute = clock.hour * 60 + clock.minute
    inside = first <= minute < until if first < until else minute >= first or minute < until
    assert calendar.covers((at_ms, at_ms + MINUTE_MS)) is inside


@given(
    zone=st.sampled_from(ZONES), day=st.sampled_from([day for both in CHANGES.values() for day in both]), first=minutes
)
def test_a_window_through_a_change_of_the_clock_is_as_long_as_its_minutes_are_shown(
    zone: str, day: date, first: int
) -> None:
    calendar = ProgramCalendar(zone=zone, windows=(ClockWindow(from_min=first, until_min=DAY_MINUTES),))
    start_ms, end_ms = midnight_ms(zone, day), midnight_ms(zone, day + timedelta(days=1))
    counted = sum(
        shown(zone, ms).hour * 60 + shown(zone, ms).minute >= first for ms in range(start_ms, end_ms, MINUTE_MS)
    )
    assert sum(end - start for start, end in calendar.spans(start_ms, end_ms)) == counted * MINUTE_MS


@given(
    zone=st.sampled_from(ZONES), day=days, first=minutes, until=minutes,
    cuts=st.lists(st.integers(0, 4 * 24 * 60), min_size=1, max_size=4),
)  # fmt: skip
def test_spans_are_the_same_however_the_time_is_cut(
    zone: str, day: date, first: int, until: int, cuts: list[int]
) -> None:
    calendar = ProgramCalendar(zone=zone, windows=(ClockWindow(from_min=first, until_min=until),))
    start_ms = midnight_ms(zone, day)
    edges = [start_ms, *sorted(start_ms + cut * MINUTE_MS for cut in cuts), start_ms + 4 * 24 * HOUR_MS]
    parts = [span for a, b in pairwise(edges) for span in calendar.spans(a, b)]
    assert united(parts) == calendar.spans(edges[0], edges[-1])


def test_a_time_that_the_clock_leaves_out_is_later_by_what_it_leaves_out() -> None:
    short = CHANGES[NEW_YORK][0]
    assert f"{shown(NEW_YORK, local_ms(NEW_YORK, short, 150)):%H:%M}" == "03:30"
    long = CHANGES[NEW_YORK][1]
    assert local_ms(NEW_YORK, long, 90) - midnight_ms(NEW_YORK, long) == 90 * MINUTE_MS

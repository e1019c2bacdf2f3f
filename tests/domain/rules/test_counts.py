"""Events and hours of a day, month and season of a program."""

from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.rules.calendar import HOUR_MS, ProgramCalendar, Season, Span, local_ms, midnight_ms
from gateway.domain.rules.counts import Per, Used, period, used

ZONE = "America/Los_Angeles"
SUMMER = Season(name="summer", first=(5, 1), last=(10, 31))
WINTER = Season(name="winter", first=(12, 1), last=(3, 31))
CALENDAR = ProgramCalendar(zone=ZONE, seasons=(SUMMER, WINTER))


def at(day: date, hour: int, hours: int = 1) -> Span:
    start_ms = local_ms(ZONE, day, hour * 60)
    return start_ms, start_ms + hours * HOUR_MS


def test_a_season_is_counted_by_local_days_also_past_new_year() -> None:
    def within(day: date) -> Span:
        return period(CALENDAR, at(day, 20)[0], Per.SEASON)

    assert within(date(2025, 10, 31)) == (midnight_ms(ZONE, date(2025, 5, 1)), midnight_ms(ZONE, date(2025, 11, 1)))
    winter = midnight_ms(ZONE, date(2025, 12, 1)), midnight_ms(ZONE, date(2026, 4, 1))
    assert within(date(2025, 12, 31)) == within(date(2026, 1, 1)) == winter
    assert within(date(2025, 11, 15)) == (midnight_ms(ZONE, date(2025, 1, 1)), midnight_ms(ZONE, date(2026, 1, 1)))


def test_an_evening_at_the_end_of_a_month_counts_in_the_local_month() -> None:
    span = at(date(2025, 10, 31), 20)
    assert used([span], period(CALENDAR, span[0], Per.MONTH)) == Used(events=1, hours=1)
    november = period(CALENDAR, midnight_ms(ZONE, date(2025, 11, 1)), Per.MONTH)
    assert used([span], november) == Used(events=0, hours=0)


def test_an_event_over_the_end_of_a_month_counts_where_it_begins_and_its_hours_where_they_are() -> None:
    span = at(date(2025, 7, 31), 22, hours=4)
    july, august = (period(CALENDAR, at(day, 12)[0], Per.MONTH) for day in (date(2025, 7, 1), date(2025, 8, 1)))
    assert used([span], july) == Used(events=1, hours=2)
    assert used([span], august) == Used(events=0, hours=2)


def test_events_of_several_groups_in_one_evening_are_one_event() -> None:
    day = date(2025, 7, 8)
    spans = [at(day, 18, 2), at(day, 18, 2), at(day, 19, 2), at(day, 21, 1)]
    assert used(spans, period(CALENDAR, spans[0][0], Per.DAY)) == Used(events=1, hours=4)
    assert used([*spans, at(day, 23)], period(CALENDAR, spans[0][0], Per.DAY)) == Used(events=2, hours=5)


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 30)), max_size=20), st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter_and_no_event_lowers_what_is_used(
    drawn: list[tuple[int, int]], random: object
) -> None:
    within = period(CALENDAR, at(date(2025, 5, 1), 0)[0], Per.SEASON)
    spans = [(within[0] + first * HOUR_MS, within[0] + (first + length) * HOUR_MS) for first, length in drawn]
    shuffled = [*spans]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert used(shuffled, within) == used(spans, within)
    hours = [used(spans[:n], within).hours for n in range(len(spans) + 1)]
    assert hours == sorted(hours)

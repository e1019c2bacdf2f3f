"""When an event's targets hold: one target, legs, repeats by period and by list, and what lasts to which end."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.events.book import Book, Outcome, Refusal
from gateway.domain.events.request import EventRequest, Leg, Target, Want, Way, power
from tests.domain.events.test_book import HOUR, T0, at, outcome, request, submit

MIN = 60_000


def legs(*rows: tuple[int, int, float | None]) -> tuple[Leg, ...]:
    return tuple(Leg(after_ms=a * MIN, until_ms=u * MIN, target=power(w)) for a, u, w in rows)


def repeated(every_ms: int | None = None, starts_ms: tuple[int, ...] = (), **changes: Any) -> EventRequest:
    made = request(start_ms=T0, end_ms=T0 + 10 * HOUR, legs=legs((0, 30, 1000.0), (30, 60, -500.0)))
    return replace(made, every_ms=every_ms, starts_ms=starts_ms, **changes)


def wanted(asked: EventRequest, ms: int) -> float | str | None:
    found = asked.running(T0 + ms)
    return "nothing" if found is None else found.target.power_w


def test_event_single_target_holds_from_start_to_end() -> None:
    asked = request()
    assert [wanted(asked, ms) for ms in (HOUR - 1, HOUR, 2 * HOUR - 1, 2 * HOUR)] == [
        "nothing", 50_000, 50_000, "nothing",
    ]  # fmt: skip


def test_event_legs_hold_one_after_the_other_with_gaps_between() -> None:
    asked = request(legs=legs((0, 10, 1.0), (10, 20, 2.0), (30, 60, None)))
    times = (HOUR, HOUR + 10 * MIN - 1, HOUR + 10 * MIN, HOUR + 20 * MIN, HOUR + 30 * MIN)
    assert [wanted(asked, ms) for ms in times] == [1.0, 1.0, 2.0, "nothing", None]


def test_event_repeated_by_a_period_is_found_by_division_however_old_it_is() -> None:
    asked = repeated(every_ms=HOUR, end_ms=T0 + 10**6 * HOUR)
    assert [wanted(asked, ms) for ms in (0, 30 * MIN, HOUR, 5 * HOUR + 31 * MIN)] == [1000, -500, 1000, -500]
    assert wanted(asked, 999_999 * HOUR + 29 * MIN) == 1000
    assert wanted(asked, 10**6 * HOUR) == "nothing"
    assert asked.next_ms(T0 + 90 * MIN) == T0 + 2 * HOUR


def test_event_repeated_by_nothing_is_one_that_does_not_repeat() -> None:
    tombstone = repeated(every_ms=0, cancelled=True)
    assert (tombstone.occurrence_ms(T0 + 5), tombstone.next_ms(T0 + 5)) == (T0, None)
    book = Book()
    book.apply(tombstone, book.decide(tombstone, at(0)))
    assert book.advance(at(1)) == []
    assert [entry.state.value for entry in book.entries(at(1))] == ["cancelled"]


def test_event_repeated_by_a_list_rests_between() -> None:
    starts = (T0, T0 + 3 * HOUR, T0 + 9 * HOUR)
    asked = repeated(starts_ms=starts)
    assert [wanted(asked, h * HOUR) for h in range(11)] == [
        1000, "nothing", "nothing", 1000, *["nothing"] * 5, 1000, "nothing",
    ]  # fmt: skip
    assert [asked.next_ms(T0 + h * HOUR) for h in (0, 4, 9)] == [starts[1], starts[2], None]
    assert asked.occurrence_ms(T0 - 1) is None
    assert asked.next_ms(T0 - 1) == T0


def test_event_last_leg_ends_with_its_occurrence_be_it_short_or_long() -> None:
    starts, ends = (T0, T0 + 2 * HOUR, T0 + 4 * HOUR), (T0 + HOUR, T0 + 2 * HOUR + 40 * MIN, T0 + 6 * HOUR)
    asked = repeated(starts_ms=starts, ends_ms=ends, end_ms=ends[-1])
    assert [asked.until_over_ms(ms) for ms in starts] == list(ends)
    assert [wanted(asked, ms - T0 - 1) for ms in ends] == [-500, -500, -500]
    assert [wanted(asked, ms - T0) for ms in ends] == ["nothing"] * 3
    found = [asked.running(ms + 31 * MIN) for ms in starts]
    assert [(one.until_ms, one.sustained_until_ms) for one in found if one] == [(ms, ms) for ms in ends]


def test_event_that_starts_now_takes_all_its_occurrences_along() -> None:
    asked = repeated(starts_ms=(0, 2 * HOUR), ends_ms=(HOUR, 5 * HOUR), start_ms=0, end_ms=5 * HOUR, anchored=True)
    moved = Book().anchor(asked, at(7))
    assert (moved.start_ms, moved.end_ms) == (T0 + 7, T0 + 7 + 5 * HOUR)
    assert moved.starts_ms == (T0 + 7, T0 + 7 + 2 * HOUR)
    assert moved.ends_ms == (T0 + 7 + HOUR, T0 + 7 + 5 * HOUR)


def test_event_occurrence_that_ends_within_an_early_leg_has_no_later_one() -> None:
    asked = repeated(starts_ms=(T0, T0 + 2 * HOUR), ends_ms=(T0 + 20 * MIN, T0 + 3 * HOUR))
    assert [wanted(asked, minute * MIN) for minute in (19, 20, 31)] == [1000, "nothing", "nothing"]


def test_event_the_most_must_last_to_the_end_of_the_last_leg_that_asks_for_it() -> None:
    asked = request(legs=legs((0, 20, None), (20, 40, None), (40, 60, 500.0)))
    found = asked.running(asked.start_ms + MIN)
    assert found is not None
    assert (found.until_ms, found.sustained_until_ms) == (T0 + HOUR + 20 * MIN, T0 + HOUR + 40 * MIN)


def test_event_occurrence_that_passes_the_end_is_cut() -> None:
    asked = repeated(every_ms=2 * HOUR, end_ms=T0 + 2 * HOUR + 40 * MIN)
    found = asked.running(T0 + 2 * HOUR + 31 * MIN)
    assert found is not None
    assert found.until_ms == T0 + 2 * HOUR + 40 * MIN


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        (request(legs=legs((0, 10, 1.0), (5, 20, 2.0))), Refusal.LEGS_OUT_OF_ORDER),
        (request(legs=legs((10, 10, 1.0))), Refusal.LEGS_OUT_OF_ORDER),
        (repeated(every_ms=59 * MIN), Refusal.OCCURRENCES_OVERLAP),
        (repeated(starts_ms=(T0, T0 + 59 * MIN)), Refusal.OCCURRENCES_OVERLAP),
        (repeated(starts_ms=(T0 + 1, T0 + 2 * HOUR)), Refusal.OCCURRENCES_OVERLAP),
        (repeated(starts_ms=(T0, T0 + HOUR), ends_ms=(T0 + HOUR + 1, T0 + 2 * HOUR)), Refusal.OCCURRENCES_OVERLAP),
        (repeated(every_ms=HOUR, end_ms=T0 + 401 * 24 * HOUR), Refusal.TOO_LONG),
        (request(legs=legs((0, 24 * 60 + 1, 1.0))), Refusal.TOO_LONG),
        (request(legs=legs((0, 10, 1.0), (10, 20, 1e9))), Refusal.OVER_CEILING),
        (request(legs=legs((0, 10, 1.0), (10, 20, float("nan")))), Refusal.TARGET_NOT_FINITE),
    ],
)
def test_book_schedule_that_makes_no_sense_is_refused(asked: EventRequest, refusal: Refusal) -> None:
    assert outcome(Book(), asked) == refusal


def test_book_event_that_repeats_rests_between_and_ends_once() -> None:
    book = Book()
    submit(book, repeated(starts_ms=(T0, T0 + 3 * HOUR), end_ms=T0 + 4 * HOUR), at(0))
    states = []
    for minute in range(0, 5 * 60, 30):
        states += [edge.entry.state.value for edge in book.advance(at(minute * MIN))]
    assert states == ["active", "scheduled", "active", "completed"]


def test_book_event_whose_occurrences_follow_each_other_runs_through() -> None:
    book = Book()
    starts, ends = (T0, T0 + 50 * MIN, T0 + 2 * HOUR), (T0 + 50 * MIN, T0 + 2 * HOUR, T0 + 3 * HOUR)
    submit(book, repeated(starts_ms=starts, ends_ms=ends, end_ms=ends[-1]), at(0))
    states = []
    for minute in range(0, 4 * 60, 10):
        states += [edge.entry.state.value for edge in book.advance(at(minute * MIN))]
    assert states == ["active", "completed"]


def test_book_event_that_was_stored_without_the_ends_of_its_occurrences_is_the_same() -> None:
    book, starts = Book(), (T0, T0 + HOUR)
    submit(book, repeated(starts_ms=starts), at(0))
    again = repeated(starts_ms=starts, ends_ms=(T0 + HOUR, T0 + 2 * HOUR))
    assert outcome(book, again) is Outcome.DUPLICATE


def test_target_goes_one_way_and_shares_with_those_that_go_the_same() -> None:
    out, more, into = power(5.0), power(None), power(-5.0)
    charge = Target(want=Want.CHARGE_TO, soc_pct=80)
    idle = Target(want=Want.IDLE)
    assert [t.way for t in (out, more, into, power(0.0), charge, idle)] == [
        Way.OUT, Way.OUT, Way.INTO, Way.NEITHER, Way.INTO, Way.NEITHER,
    ]  # fmt: skip
    assert out.shares_with(more)
    assert into.shares_with(charge)
    assert idle.shares_with(Target(want=Want.IDLE))
    assert power(0.0).shares_with(power(0.0))
    assert not out.shares_with(into)
    assert not idle.shares_with(power(0.0))


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 20), st.integers(1, 9)), min_size=1, max_size=6),
    st.integers(0, 600),
    st.integers(0, 3000),
)
def test_event_any_schedule_holds_exactly_one_target_inside_its_legs(
    rows: list[tuple[int, int, int]], slack: int, minute: int
) -> None:
    made, at_min = [], 0
    for length, gap, watts in rows:
        made.append((at_min + gap, at_min + gap + length, float(watts)))
        at_min += gap + length
    every = at_min + slack
    asked = request(start_ms=T0, end_ms=T0 + 10 * every * MIN, legs=legs(*made), every_ms=every * MIN)
    inside = minute % every
    expected = next((w for a, u, w in made if a <= inside < u), "nothing") if minute < 10 * every else "nothing"
    assert wanted(asked, minute * MIN) == expected

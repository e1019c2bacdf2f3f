"""Events that go on until further notice: decided, revised, cancelled and outranked like any other, and never over by
the passing of time."""

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from gateway.domain.events.advice import forgotten
from gateway.domain.events.book import Book, BookParams, Outcome, Refusal
from gateway.domain.events.calendar import Daily
from gateway.domain.events.lifecycle import OPEN_HORIZON_S, EventState
from gateway.domain.events.request import OPEN_MS, EventKind, EventRequest, Leg, Target, Want, power
from gateway.domain.events.take_backs import APART_MS, TakeBack, occurs, over
from gateway.domain.types import DeviceId, EventId
from tests.domain.events.test_book import HOUR, T0, at, outcome, request, running, submit

DAY = 24 * HOUR
YEAR = 366 * DAY
CHARGE_TO = Target(want=Want.CHARGE_TO, soc_pct=80.0)


def ended(revision: int, ms: int, **changes: Any) -> EventRequest:
    """The event with an end, `ms` after the test began."""
    return request("e1", revision, end_ms=T0 + ms, **changes)


def opened(revision: int = 0, **changes: Any) -> EventRequest:
    return request("e1", revision, end_ms=OPEN_MS, **changes)


def state(book: Book, ms: int) -> EventState:
    entry = book.entry("e1", at(ms))
    assert entry is not None
    return entry.state


def test_open_event_runs_from_its_start_for_as_long_as_nobody_ends_it() -> None:
    book = Book()
    assert outcome(book, opened()) is Outcome.ACCEPTED
    assert running(book, HOUR - 1) == []
    for ms in (HOUR, 30 * DAY, 90 * YEAR):
        assert running(book, ms) == ["e1"]
        assert state(book, ms) is EventState.ACTIVE


def test_open_event_never_leaves_memory_by_time() -> None:
    book = Book(BookParams(retention_s=60.0))
    submit(book, opened(), at(0))
    for ms in (HOUR, YEAR, 10 * YEAR):
        book.advance(at(ms))
    assert book.forgotten() == []
    assert running(book, 10 * YEAR) == ["e1"]


def test_open_event_is_given_an_end_after_any_time_and_ends_then() -> None:
    book = Book()
    submit(book, opened(), at(0))
    book.advance(at(40 * DAY))
    assert outcome(book, ended(1, 40 * DAY + HOUR), at(40 * DAY)) is Outcome.ACCEPTED
    book.advance(at(40 * DAY))
    assert running(book, 40 * DAY) == running(book, 40 * DAY + HOUR - 1) == ["e1"]
    assert outcome(book, ended(2, 40 * DAY + 2 * HOUR), at(40 * DAY)) is Outcome.ACCEPTED, "and another"
    book.advance(at(40 * DAY))
    book.advance(at(40 * DAY + 2 * HOUR))
    assert state(book, 40 * DAY + 2 * HOUR) is EventState.COMPLETED


def test_end_of_an_open_event_is_no_further_from_now_than_that_of_a_new_one() -> None:
    book = Book()
    submit(book, opened(), at(0))
    longest_ms = round(book.params.length_s_max * 1000)
    assert outcome(book, ended(1, 3 * DAY + longest_ms + 1), at(3 * DAY)) == Refusal.TOO_LONG
    assert outcome(book, ended(1, 3 * DAY + longest_ms), at(3 * DAY)) is Outcome.ACCEPTED


def test_event_that_always_had_an_end_is_not_extended_beyond_the_longest() -> None:
    book = Book()
    submit(book, request("e1", 0, end_ms=T0 + HOUR + DAY), at(0))
    assert outcome(book, ended(1, HOUR + DAY + 1), at(12 * HOUR)) == Refusal.TOO_LONG


@pytest.mark.parametrize("over_ms", [0, 6 * HOUR])
def test_event_that_ends_or_has_ended_becomes_open_again(over_ms: int) -> None:
    book = Book()
    submit(book, request("e1", 0), at(0))
    book.advance(at(HOUR))
    book.advance(at(2 * HOUR - 1 + over_ms))
    assert outcome(book, opened(1), at(2 * HOUR - 1 + over_ms)) is Outcome.ACCEPTED
    book.advance(at(2 * HOUR + over_ms))
    assert state(book, 9 * DAY) is EventState.ACTIVE


@pytest.mark.parametrize("by_source", [True, False])
def test_open_event_is_cancelled_and_in_time_forgotten(by_source: bool) -> None:
    book = Book()
    submit(book, opened(), at(0))
    book.advance(at(2 * HOUR))
    if by_source:
        assert outcome(book, opened(1, cancelled=True), at(3 * HOUR)) is Outcome.ACCEPTED
    else:
        book.withdraw(EventId("e1"), held_by="me")
    book.advance(at(3 * HOUR))
    assert running(book, 3 * HOUR) == []
    assert state(book, 3 * HOUR) is EventState.CANCELLED
    book.advance(at(2 * YEAR))
    assert book.forgotten() == ["e1"]


def test_open_event_is_repeated_and_revised_by_number_like_any_other() -> None:
    book = Book()
    submit(book, opened(3), at(0))
    assert outcome(book, opened(3)) is Outcome.DUPLICATE
    assert outcome(book, ended(3, 5 * HOUR)) == Refusal.CONFLICT
    assert outcome(book, ended(2, 5 * HOUR)) is Outcome.SUPERSEDED


def test_open_event_that_starts_now_keeps_its_start_until_it_is_given_a_length() -> None:
    book = Book()
    now = opened(0, start_ms=0, anchored=True, sent_ms=T0)
    first = book.anchor(now, at(0))
    assert (first.start_ms, first.end_ms) == (T0, OPEN_MS)
    submit(book, first, at(0))
    again = book.anchor(replace(now, revision=1, target=power(1.0)), at(HOUR))
    assert (again.start_ms, again.end_ms) == (T0, OPEN_MS)
    bounded = book.anchor(replace(now, revision=2, end_ms=HOUR), at(3 * DAY))
    assert (bounded.start_ms, bounded.end_ms) == (T0 + 3 * DAY, T0 + 3 * DAY + HOUR)


def test_last_leg_that_is_open_runs_until_further_notice() -> None:
    asked = opened(legs=(
        Leg(after_ms=0, until_ms=HOUR, target=power(1.0)), Leg(after_ms=2 * HOUR, until_ms=OPEN_MS, target=power(2.0)),
    ))  # fmt: skip
    assert outcome(Book(), asked) is Outcome.ACCEPTED
    found = [asked.running(T0 + HOUR + ms) for ms in (0, HOUR, 2 * HOUR, YEAR)]
    assert [None if one is None else one.target.power_w for one in found] == [1.0, None, 2.0, 2.0]
    assert found[-1] is not None
    assert (found[-1].since_ms, found[-1].until_ms) == (asked.start_ms + 2 * HOUR, OPEN_MS)


DAILY = Daily(zone="Europe/Berlin", first_ms=T0 + HOUR, length_ms=HOUR)
LEG = (Leg(after_ms=0, until_ms=HOUR, target=power(1.0)),)


@pytest.mark.parametrize("how", [{"every_ms": DAY}, {"daily": DAILY}])
def test_event_that_repeats_until_further_notice_has_an_occurrence_on_each_day_for_ever(how: dict[str, Any]) -> None:
    asked = opened(legs=LEG, **how)
    book = Book()
    assert outcome(book, asked) is Outcome.ACCEPTED
    for day in (0, 1, 2, 1_000, 20_000):
        morning_ms = next(
            ms for ms in (asked.next_ms(T0 + day * DAY - HOUR), asked.next_ms(T0 + day * DAY)) if ms is not None
        )
        assert running(book, morning_ms - T0) == ["e1"]
        assert running(book, morning_ms - T0 + HOUR) == []
        book.advance(at(morning_ms - T0))
        book.advance(at(morning_ms - T0 + HOUR))
        assert state(book, morning_ms - T0 + HOUR) is EventState.SCHEDULED


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Australia/Lord_Howe", "Europe/London", "Asia/Kolkata"])
def test_daily_occurrences_are_those_of_the_days_listed_one_by_one(zone: str) -> None:
    first_ms = round(datetime(2030, 2, 27, 9, 30, tzinfo=UTC).timestamp() * 1000)
    daily = Daily(zone=zone, first_ms=first_ms, length_ms=DAY, weekdays=(2, 3, 6))
    listed = [found for day in range(800) if (found := daily.of_day(day)) is not None]
    rng = np.random.default_rng(1)
    for utc_ms in rng.integers(listed[0][0], listed[-2][0], 2_000).tolist():
        before = [one for one in listed if one[0] <= utc_ms]
        assert daily.newest(utc_ms) == before[-1]
        assert daily.next_ms(utc_ms) == listed[len(before)][0]
    assert daily.newest(listed[0][0] - 1) is None


def test_event_that_repeats_until_further_notice_is_given_an_end_after_years() -> None:
    book = Book()
    submit(book, opened(legs=LEG, every_ms=DAY), at(0))
    book.advance(at(3 * YEAR))
    assert outcome(book, ended(1, 3 * YEAR + 9 * DAY, legs=LEG, every_ms=DAY), at(3 * YEAR)) is Outcome.ACCEPTED
    assert running(book, 3 * YEAR + 10 * DAY + HOUR) == []


@pytest.mark.parametrize(
    "asked",
    [
        opened(target=CHARGE_TO),
        opened(kind=EventKind.CAPACITY_TEST),
        opened(legs=(*LEG, Leg(after_ms=HOUR, until_ms=OPEN_MS, target=CHARGE_TO))),
    ],
)
def test_open_event_that_asks_for_something_by_its_end_is_refused(asked: EventRequest) -> None:
    assert outcome(Book(), asked) == Refusal.NEEDS_END


@pytest.mark.parametrize(
    "asked",
    [
        opened(kind=EventKind.CAPACITY_TEST, legs=LEG, every_ms=DAY),
        opened(legs=(replace(LEG[0], target=CHARGE_TO),), daily=DAILY),
        opened(legs=(replace(LEG[0], target=CHARGE_TO), Leg(after_ms=HOUR, until_ms=OPEN_MS, target=power(0.0)))),
        opened(kind=EventKind.DRY_RUN),
        opened(target=Target(want=Want.BACKUP)),
        opened(target=power(None)),
    ],
)
def test_open_event_whose_occurrence_or_leg_has_an_end_may_ask_for_something_by_then(asked: EventRequest) -> None:
    assert outcome(Book(), asked) is Outcome.ACCEPTED


@pytest.mark.parametrize(
    "asked",
    [
        opened(legs=(Leg(after_ms=0, until_ms=OPEN_MS, target=power(1.0)),), every_ms=DAY),
        opened(legs=(Leg(after_ms=0, until_ms=OPEN_MS, target=power(1.0)),), daily=DAILY),
    ],
)
def test_occurrence_without_an_end_does_not_repeat(asked: EventRequest) -> None:
    assert outcome(Book(), asked) == Refusal.OCCURRENCES_OVERLAP


@pytest.mark.parametrize("asked", [opened(), opened(legs=LEG, every_ms=DAY), opened(legs=LEG, daily=DAILY)])
def test_program_may_refuse_open_events(asked: EventRequest) -> None:
    book = Book(BookParams(ending=frozenset({"evening"})))
    assert outcome(book, asked) == Refusal.OPEN_END_NOT_ALLOWED
    assert outcome(book, request("other", 0)) is Outcome.ACCEPTED
    assert outcome(book, replace(asked, id=EventId("third"), program="morning")) is Outcome.ACCEPTED


def test_most_that_an_open_event_can_sustain_is_for_a_horizon_that_moves_with_time() -> None:
    book = Book()
    submit(book, opened(target=power(None)), at(0))
    for ms in (HOUR, 3 * HOUR, 9 * DAY):
        (event,) = book.active(at(ms))
        assert event.seconds_to_end(at(ms)) == OPEN_HORIZON_S
    submit(book, ended(1, 9 * DAY + 2 * HOUR, target=power(None)), at(9 * DAY))
    (event,) = book.active(at(9 * DAY))
    assert event.seconds_to_end(at(9 * DAY)) == 2 * 3600, "its end is known now"


def test_end_of_an_open_event_is_far_and_can_be_counted_with() -> None:
    assert datetime.fromtimestamp(OPEN_MS / 1000, tz=UTC).year == 9999
    assert np.int64(OPEN_MS) + np.int64(400 * YEAR) < np.iinfo(np.int64).max
    assert math.isclose(float(OPEN_MS), OPEN_MS, abs_tol=0.5), "no digit is lost as a float"


def test_take_back_from_an_open_event_holds_for_a_day_and_not_for_ever() -> None:
    book = Book()
    submit(book, opened(), at(0))
    book.advance(at(2 * HOUR))
    entry = book.entry("e1", at(2 * HOUR))
    taken = TakeBack(device=DeviceId("a"), event=EventId("e1"), at_ms=T0 + 2 * HOUR)
    assert occurs(taken, entry, at(2 * HOUR + APART_MS))
    assert not over(taken, entry, at(2 * HOUR + DAY - 1))
    assert not occurs(taken, entry, at(2 * HOUR + DAY))
    assert over(taken, entry, at(2 * HOUR + DAY))


def test_open_event_that_nobody_ends_is_pointed_out_after_a_day() -> None:
    book = Book()
    submit(book, opened(), at(0))
    book.advance(at(HOUR))
    assert forgotten(book.entries(at(HOUR + DAY)), at(HOUR + DAY)) == []
    (text,) = forgotten(book.entries(at(HOUR + DAY + 1)), at(HOUR + DAY + 1))
    assert text == "event e1 runs until further notice, since 2027-01-15 09:00 UTC"

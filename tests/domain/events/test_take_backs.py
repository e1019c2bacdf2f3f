"""How long an owner's take-back holds."""

from dataclasses import replace

import pytest

from gateway.domain.events.lifecycle import BookEntry, EventState
from gateway.domain.events.request import EventKind, EventRequest, Leg, TargetGroup, power
from gateway.domain.events.take_backs import APART_MS, TakeBack, TakeBacks, occurs, over
from gateway.domain.types import DeviceId, EventId, Now

HOUR_MS = 3_600_000
TAKEN = TakeBack(device=DeviceId("a"), event=EventId("e"), at_ms=HOUR_MS)
DAILY = EventRequest(
    id=EventId("e"), revision=1, kind=EventKind.REAL, program="p", group=TargetGroup(all=True), start_ms=0,
    end_ms=240 * HOUR_MS, every_ms=24 * HOUR_MS, target=power(1.0), priority=1,
    legs=(Leg(after_ms=0, until_ms=2 * HOUR_MS, target=power(1.0)), Leg(after_ms=3 * HOUR_MS, until_ms=4 * HOUR_MS,
          target=power(2.0))),
)  # fmt: skip


def entry(request: EventRequest = DAILY, state: EventState = EventState.ACTIVE) -> BookEntry:
    return BookEntry(index=0, request=request, state=state, decided_ms=0)


def at(hours: float) -> Now:
    return Now(utc_ms=round(hours * HOUR_MS), mono_ms=0)


@pytest.mark.parametrize(("hours", "goes_on"), [(1, True), (2.5, True), (3.9, True), (4, False), (25, False)])
def test_take_back_holds_for_the_legs_of_its_occurrence_and_the_pauses_between(hours: float, goes_on: bool) -> None:
    assert occurs(TAKEN, entry(), at(hours)) is goes_on


@pytest.mark.parametrize(
    ("taken", "now", "goes_on"),
    [(22.5, 22.5, True), (22.5, 27.9, True), (22.5, 28, False), (21, 21, False), (4, 4, False)],
)
def test_take_back_in_a_preparation_holds_for_the_occurrence_that_it_prepares(
    taken: float, now: float, goes_on: bool
) -> None:
    prepared = entry(replace(DAILY, prepare_s=2 * 3600.0), EventState.SCHEDULED)
    assert occurs(replace(TAKEN, at_ms=at(taken).utc_ms), prepared, at(now)) is goes_on


@pytest.mark.parametrize("state", [EventState.CANCELLED, EventState.COMPLETED, EventState.EXPIRED, EventState.REJECTED])
def test_take_back_of_an_event_that_is_over_does_not_hold(state: EventState) -> None:
    assert not occurs(TAKEN, entry(state=state), at(1))
    assert not occurs(TAKEN, None, at(1))


def test_take_back_goes_by_the_times_of_the_newest_revision() -> None:
    once = replace(DAILY, every_ms=None, legs=(), end_ms=2 * HOUR_MS)
    assert not occurs(TAKEN, entry(once), at(2))
    assert occurs(TAKEN, entry(replace(once, end_ms=5 * HOUR_MS)), at(2))
    later = replace(once, start_ms=3 * HOUR_MS, end_ms=5 * HOUR_MS)
    assert occurs(TAKEN, entry(later), at(4)), "it was put off"


def test_take_back_keeps_its_event_away_for_the_day_and_not_for_the_next() -> None:
    assert not over(TAKEN, None, at(1 + APART_MS / HOUR_MS - 0.1))
    assert over(TAKEN, entry(), at(1 + APART_MS / HOUR_MS))
    assert over(TAKEN, entry(), at(24)), "the next day's occurrence gets the device"
    assert not over(TAKEN, entry(replace(DAILY, every_ms=None, legs=())), at(24)), "it is still the same occurrence"


def test_take_backs_forget_what_is_over_once_a_minute() -> None:
    taken = TakeBacks([TAKEN, replace(TAKEN, event=EventId("f"), at_ms=9 * HOUR_MS)])
    assert taken.forget(at(18), lambda _: None) == {}
    assert taken.forget(at(19), lambda _: None) == {EventId("e"): [DeviceId("a")]}
    assert [one.event for one in taken] == ["f"]

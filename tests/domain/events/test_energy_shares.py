"""Which energy is whose where several events of an evening want one battery."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.events.energy_shares import EnergyAsk, asked_wh, energy_left, next_span, rank
from gateway.domain.events.lifecycle import BookEntry, EventState
from gateway.domain.events.request import EventKind, EventRequest, Leg, Target, Want, power
from tests.domain.events.test_book import HOUR, T0, request


def entry(asked: EventRequest, state: EventState = EventState.SCHEDULED) -> BookEntry:
    return BookEntry(index=0, request=asked, state=state, decided_ms=0)


def ask(wh: float | None, *members: int) -> EnergyAsk:
    return EnergyAsk(entry=entry(request()), span=(0, 1), wh=wh, members=np.array(members, dtype=np.int32))


def left(*asks: EnergyAsk, held: tuple[float, ...] = (6_000.0, 4_000.0)) -> list[float]:
    return [round(one.left_wh) for one in energy_left(asks, np.array(held))]


def test_an_event_has_what_those_before_it_leave() -> None:
    assert left(ask(4_000, 0, 1), ask(1_000, 0), ask(None, 1)) == [10_000, 3_600, 2_400]
    assert left(ask(None, 0), ask(1, 0, 1)) == [6_000, 4_000], "the most is all there is"
    assert left(ask(50_000, 0), ask(1, 0)) == [6_000, 0]
    assert left(ask(1, 0), held=(0.0,)) == [0]


@given(st.lists(st.tuples(st.none() | st.floats(0, 9_000), st.sets(st.integers(0, 2))), max_size=5))
def test_no_energy_is_promised_twice(drawn: list[tuple[float | None, set[int]]]) -> None:
    held = (1_000.0, 2_000.0, 3_000.0)
    asks = [ask(wh, *sorted(members)) for wh, members in drawn]
    had = [one.left_wh for one in energy_left(asks, np.array(held))]
    given = [min(one.wh if one.wh is not None else has, has) for one, has in zip(asks, had, strict=True)]
    assert sum(given) <= sum(held) * (1 + 1e-9)
    assert all(has >= 0 for has in had)


def test_claims_rank_as_events_do() -> None:
    ranked = [
        rank(entry(request("a", priority=1)), yields=False), rank(entry(request("b", priority=4)), yields=False),
        rank(entry(request("c", priority=0)), yields=True),
    ]  # fmt: skip
    assert ranked == sorted(ranked)


def test_what_is_asked_for_is_power_by_the_time_that_is_left() -> None:
    two_hours = request(start_ms=T0, end_ms=T0 + 2 * HOUR, target=power(3_000.0))
    assert asked_wh(two_hours, (T0, T0 + 2 * HOUR), 5) == 6_000
    assert asked_wh(two_hours, (T0 + HOUR, T0 + 2 * HOUR), 5) == 3_000, "it runs"
    each = replace(two_hours, target=Target(want=Want.DEVICE_POWER, power_w=1_000.0))
    assert asked_wh(each, (T0, T0 + HOUR), 5) == 5_000
    assert asked_wh(replace(two_hours, target=power(None)), (T0, T0 + HOUR), 5) is None
    legs = tuple(
        Leg(after_ms=after * HOUR, until_ms=until * HOUR, target=target)
        for after, until, target in ((0, 1, power(1_000.0)), (1, 2, power(-9_000.0)), (2, 4, power(2_000.0)))
    )
    shaped = replace(two_hours, legs=legs, end_ms=T0 + 4 * HOUR)
    assert asked_wh(shaped, (T0, T0 + 4 * HOUR), 1) == 5_000
    assert asked_wh(shaped, (T0 + 3 * HOUR, T0 + 4 * HOUR), 1) == 2_000


@pytest.mark.parametrize("state", [EventState.CANCELLED, EventState.COMPLETED, EventState.REJECTED])
def test_an_event_that_is_over_asks_for_nothing(state: EventState) -> None:
    assert next_span(entry(request(), state), T0, T0 + 24 * HOUR) is None


def test_an_event_asks_from_now_or_from_its_start_within_the_time_that_is_looked_at() -> None:
    known = entry(request(start_ms=T0 + HOUR, end_ms=T0 + 3 * HOUR))
    assert next_span(known, T0, T0 + 24 * HOUR) == (T0 + HOUR, T0 + 3 * HOUR)
    assert next_span(known, T0 + 2 * HOUR, T0 + 24 * HOUR) == (T0 + 2 * HOUR, T0 + 3 * HOUR)
    assert next_span(known, T0, T0 + 2 * HOUR) == (T0 + HOUR, T0 + 2 * HOUR)
    assert next_span(known, T0, T0 + HOUR) is None
    assert next_span(known, T0 + 3 * HOUR, T0 + 24 * HOUR) is None
    assert next_span(entry(request(kind=EventKind.DRY_RUN)), T0, T0 + 24 * HOUR) is None
    assert next_span(entry(request(target=power(-1.0))), T0, T0 + 24 * HOUR) is None

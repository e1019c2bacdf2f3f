"""Events with many legs: the running one is found without a walk, whatever asks."""

from collections.abc import Iterator

from gateway.domain.events.request import EventKind, EventRequest, Leg, Target, TargetGroup, power
from gateway.domain.types import EventId

MINUTE_MS = 60_000


class Counting(tuple[Leg, ...]):
    """Legs that count how many of them are looked at."""

    looks = 0

    def __getitem__(self, at):  # type: ignore[no-untyped-def]
        Counting.looks += 1
        return super().__getitem__(at)

    def __iter__(self) -> Iterator[Leg]:
        for leg in super().__iter__():
            Counting.looks += 1
            yield leg


def many(targets: list[Target]) -> EventRequest:
    legs = [
        Leg(after_ms=i * MINUTE_MS, until_ms=(i + 1) * MINUTE_MS, target=target) for i, target in enumerate(targets)
    ]
    return EventRequest(
        id=EventId("e"), revision=1, kind=EventKind.REAL, program="p", group=TargetGroup(all=True), start_ms=0,
        end_ms=len(legs) * MINUTE_MS, target=targets[0], legs=Counting(legs), priority=1,
    )  # fmt: skip


def test_request_of_a_thousand_equal_legs_is_asked_for_its_target_with_few_looks() -> None:
    request = many([power(100.0)] * 1_000)
    Counting.looks = 0
    running = request.running(500 * MINUTE_MS + 1)
    assert running is not None
    assert (running.since_ms, running.until_ms) == (500 * MINUTE_MS, 501 * MINUTE_MS)
    assert running.sustained_until_ms == 1_000 * MINUTE_MS
    assert Counting.looks <= 20


def test_request_of_a_thousand_different_legs_is_asked_for_its_target_with_few_looks() -> None:
    request = many([power(100.0 + i) for i in range(1_000)])
    Counting.looks = 0
    running = request.running(999 * MINUTE_MS)
    assert running is not None
    assert (running.target, running.sustained_until_ms) == (power(1_099.0), 1_000 * MINUTE_MS)
    assert Counting.looks <= 20


def test_request_between_two_legs_asks_for_nothing_and_before_the_first_neither() -> None:
    legs = (
        Leg(after_ms=10 * MINUTE_MS, until_ms=20 * MINUTE_MS, target=power(1.0)),
        Leg(after_ms=30 * MINUTE_MS, until_ms=40 * MINUTE_MS, target=power(1.0)),
    )
    request = EventRequest(
        id=EventId("e"), revision=1, kind=EventKind.REAL, program="p", group=TargetGroup(all=True), start_ms=0,
        end_ms=40 * MINUTE_MS, target=power(1.0), legs=legs, priority=1,
    )  # fmt: skip
    found = [request.running(minute * MINUTE_MS) for minute in (0, 10, 19, 20, 29, 30, 39)]
    assert [running is not None for running in found] == [False, True, True, False, False, True, True]
    assert found[1] is not None
    assert found[1].sustained_until_ms == 20 * MINUTE_MS

"""From slots to events: joined, bundled, named; and changed without another name."""

from collections.abc import Mapping
from typing import Any

from gateway.signals.leap.plan import SlotPlan, make_plan
from gateway.signals.leap.slot_book import SlotBook
from tests.signals.leap.bodies import HOUR, T0, body, group_body, slot, slots_of, uid


class Planner:
    """A book of slots whose plans are remembered."""

    def __init__(self) -> None:
        self.book = SlotBook()
        self.events: dict[str, int] = {}
        self.ms = T0

    def take(self, told: Mapping[str, Any], level: str = "meter", *, now_ms: int | None = None) -> SlotPlan:
        self.ms += 1
        for found in slots_of(dict(told), level):
            self.book.webhook(found, self.ms)
        return self.plan(self.ms if now_ms is None else now_ms)

    def plan(self, now_ms: int) -> SlotPlan:
        plan = make_plan(self.book, self.events, now_ms)
        for known, event in plan.slots:
            self.book.put(known, event)
        self.events |= {event.id: event.end_ms for event in plan.events}
        return plan


def spans(*hours: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    return tuple((T0 + a * HOUR, T0 + b * HOUR) for a, b in hours)


def test_many_meters_with_the_same_slot_are_one_event_with_a_power_each() -> None:
    plan = Planner().take(body({f"m{i}": [slot(f"e{i}", energy_kw=i + 1)] for i in range(5)}))
    (event,) = plan.events
    assert event.id == min(uid(f"e{i}") for i in range(5))
    assert dict(zip(event.meters, event.kw, strict=True)) == {uid(f"m{i}"): (i + 1.0,) for i in range(5)}


def test_adjacent_slots_of_a_meter_are_legs_of_one_event_and_a_gap_parts_them() -> None:
    hours = [(1, 2), (2, 3), (4, 5)]
    plan = Planner().take(body({"m": [slot(f"e{a}", hours=(a, b), energy_kw=a) for a, b in hours]}))
    assert [event.spans_ms for event in plan.events] == [spans((1, 2), (2, 3)), spans((4, 5))]
    assert plan.events[0].kw == ((1.0, 2.0),)


def test_a_slot_that_the_hour_ahead_market_changed_stays_joined() -> None:
    first = slot("a", hours=(1, 2), energy_kw=8, dispatch_event_types=["day-ahead"])
    second = slot("b", hours=(2, 3), energy_kw=8, dispatch_event_types=["day-ahead"])
    planner = Planner()
    before = planner.take(body({"m": [first, second]}))
    after = planner.take(body({"m": [second | {"energy_kw": 3, "dispatch_event_types": ["hour-ahead"]}]}))
    assert [event.id for event in after.events] == [event.id for event in before.events]
    assert after.events[0].kw == ((8.0, 3.0),)
    assert after.events[0].types == ("day-ahead", "hour-ahead")


def test_the_most_and_a_given_power_are_two_events() -> None:
    plan = Planner().take(body({"m": [slot("a")], "n": [slot("b", energy_kw=2)]}))
    assert sorted(event.meters for event in plan.events) == sorted([(uid("m"),), (uid("n"),)])


def test_overlapping_slots_stay_apart_with_their_priorities() -> None:
    award = slot("a", hours=(1, 2), energy_kw=8, priority=2, programs=["CCA"])
    long = slot("b", hours=(1, 5), priority=3, programs=["ELRP"])
    plan = Planner().take(body({"m": [award, long]}))
    assert sorted((event.terms.priority, event.spans_ms) for event in plan.events) == [
        (2, spans((1, 2))), (3, spans((1, 5))),
    ]  # fmt: skip


def test_two_slots_of_a_meter_at_the_same_times_under_the_same_terms_are_an_event_each() -> None:
    planner = Planner()
    small, large = slot("a", energy_kw=3), slot("b", energy_kw=5)
    told = body({"m": [small, large], "n": [slot("c", energy_kw=1)]})
    plan = planner.take(told)
    by_meters = {event.meters: sorted(kw for row in event.kw for kw in row if kw) for event in plan.events}
    assert sorted(by_meters.values()) in ([[1.0, 3.0], [5.0]], [[1.0, 5.0], [3.0]]), "no meter twice in an event"
    names = {event.id for event in plan.events}
    assert {event.id for event in planner.take(told).events} == names
    rest = planner.take(body({"m": [slot("a", energy_kw=3, cancelled=True)]}))
    assert sorted(kw for event in rest.events for row in event.kw for kw in row if kw) == [1.0, 5.0]
    assert {event.id for event in rest.events} <= names


def test_a_change_keeps_the_name_and_a_cancelled_member_leaves() -> None:
    planner = Planner()
    name = planner.take(body({f"m{i}": [slot(f"e{i}")] for i in range(4)})).events[0].id
    moved = planner.take(body({f"m{i}": [slot(f"e{i}", hours=(2, 4))] for i in range(4)}))
    assert [(event.id, event.spans_ms) for event in moved.events] == [(name, spans((2, 4)))]
    fewer = planner.take(body({"m0": [slot("e0", cancelled=True)]}))
    assert [(event.id, len(event.meters)) for event in fewer.events] == [(name, 3)]
    none = planner.take(body({f"m{i}": [slot(f"e{i}", cancelled=True)] for i in range(1, 4)}))
    assert (none.events, list(none.gone)) == ([], [name])
    back = planner.take(body({"m2": [slot("e2")]}))
    assert ([event.id for event in back.events], list(back.gone)) == ([name], [])


def test_when_some_members_move_the_event_goes_with_most_of_them() -> None:
    planner = Planner()
    name = planner.take(body({f"m{i}": [slot(f"e{i}")] for i in range(4)})).events[0].id
    plan = planner.take(body({"m0": [slot("e0", hours=(2, 4))]}))
    sizes = {event.id: len(event.meters) for event in plan.events}
    assert sizes.pop(name) == 3
    assert list(sizes.values()) == [1]
    assert plan.gone == []


def test_an_event_is_named_gone_until_it_would_be_over() -> None:
    planner = Planner()
    planner.take(body({"m": [slot("e")]}))
    planner.take(body({"m": [slot("e", cancelled=True)]}))
    assert list(planner.plan(T0 + HOUR).gone) == [uid("e")]
    assert list(planner.plan(T0 + 2 * HOUR).gone) == []


def test_what_is_over_is_no_event_and_a_chain_that_has_begun_keeps_its_first_leg() -> None:
    planner = Planner()
    planner.take(body({"m": [slot("a", hours=(1, 2)), slot("b", hours=(2, 3))]}))
    assert planner.plan(T0 + 2 * HOUR + 1).events[0].spans_ms == spans((1, 2), (2, 3))
    assert planner.plan(T0 + 3 * HOUR).events == []


def test_a_chain_of_more_than_a_day_is_more_than_one_event() -> None:
    plan = Planner().take(body({"m": [slot(f"e{h}", hours=(h, h + 1)) for h in range(30)]}))
    assert [len(event.spans_ms) for event in plan.events] == [24, 6]


def test_each_group_is_an_event_of_its_own_whose_power_is_for_all() -> None:
    planner = Planner()
    planner.take(group_body("g", ["a", "b"], slot("x", group=True, energy_kw=12)), "group")
    plan = planner.take(group_body("h", ["b", "c"], slot("y", group=True, energy_kw=7)), "group")
    assert sorted((event.kw, event.meters) for event in plan.events) == sorted([
        (((12.0,),), (uid("a"), uid("b"))), (((7.0,),), (uid("b"), uid("c"))),
    ])  # fmt: skip


def test_two_dispatches_of_a_group_at_the_same_time_are_an_event_each_with_its_own_members() -> None:
    planner = Planner()
    told = group_body("g", ["a", "b"], slot("x", group=True, energy_kw=12))
    told["group_dispatches"] += group_body("g", ["c"], slot("y", group=True, energy_kw=7))["group_dispatches"]
    told["group_dispatches"] += group_body("g", ["c"], slot("z", group=True, energy_kw=5))["group_dispatches"]
    plan = planner.take(told, "group")
    found = {event.id: (event.meters, event.kw) for event in plan.events}
    assert found == {
        uid("x"): ((uid("a"), uid("b")), ((12.0,),)),
        uid("y"): ((uid("c"),), ((7.0,),)),
        uid("z"): ((uid("c"),), ((5.0,),)),
    }
    assert {event.id for event in planner.plan(planner.ms).events} == set(found)


def test_nominations_add_up_and_one_that_is_missing_leaves_the_sum_unknown() -> None:
    plan = Planner().take(body({"m": [slot("a", nomination_kw=3)], "n": [slot("b", nomination_kw=4)]}))
    assert [event.nomination_kw for event in plan.events] == [7]
    plan = Planner().take(body({"m": [slot("a", nomination_kw=3)], "n": [slot("b")]}))
    assert [event.nomination_kw for event in plan.events] == [None]

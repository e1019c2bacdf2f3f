"""From events of the plan to event requests: programs, kinds, pay, and who gives how much."""

from typing import Any

import pytest

from gateway.domain.events.request import Compensation, EventKind, Want
from gateway.domain.types import DeviceId
from gateway.signals.leap.plan import make_plan
from gateway.signals.leap.requests import Batteries, Made, PlanRows, make_request
from gateway.signals.leap.slot_book import SlotBook
from gateway.signals.leap.worker import messages_of
from tests.signals.leap.bodies import HOUR, T0, body, group_body, slot, slots_of, uid

OURS = {"CEC-DSGS": "dsgs-option3", "CCA": "ra-leap"}


def rows(told: dict[str, Any], level: str = "meter") -> list[PlanRows]:
    """The plan's events, as the reader's process hands them over."""
    book = SlotBook()
    for found in slots_of(told, level):
        book.webhook(found, 1)
    events: dict[str, PlanRows] = {}
    for event in make_plan(book, {}, T0).events:
        for message in messages_of(event):
            PlanRows.take(events, message)
    return list(events.values())


def made(told: dict[str, Any], behind: dict[str, Batteries], level: str = "meter", *, per_device: bool = False) -> Made:
    (event,) = rows(told, level)
    batteries = [behind.get(meter, ()) for meter in event.meters]
    return make_request(event, batteries, program_of=OURS, per_device=per_device)


def home(name: str, *rated_w: float) -> Batteries:
    return [(DeviceId(f"{name}-{i}"), w) for i, w in enumerate(rated_w)]


def test_a_dsgs_event_asks_for_the_most_of_every_battery_until_its_end() -> None:
    found = made(body({"m": [slot("e")]}), {uid("m"): home("a", 5_000)}).request
    assert found is not None
    assert (found.id, found.source, found.program, found.kind) == (uid("e"), "leap", "dsgs-option3", EventKind.REAL)
    assert (found.target.want, found.target.power_w) == (Want.POWER, None)
    assert (found.start_ms, found.end_ms, found.legs) == (T0 + HOUR, T0 + 2 * HOUR, ())
    assert (found.priority, found.voluntary, found.compensation) == (4, True, Compensation.EXPORTS)
    assert found.labels == ("standard",)


def test_the_power_of_a_meter_is_split_by_what_its_batteries_can_give() -> None:
    told = body({"m": [slot("a", energy_kw=6)], "n": [slot("b", energy_kw=2)]})
    behind = {uid("m"): home("m", 5_000, 10_000), uid("n"): home("n", 5_000)}
    found = made(told, behind).request
    assert found is not None
    power_w = dict(zip(found.group.ids, found.target.each_w, strict=True))
    assert power_w == {"m-0": 2_000, "m-1": 4_000, "n-0": 2_000}
    each = made(told, behind, per_device=True).request
    assert each is not None
    assert dict(zip(each.group.ids, each.target.each_w, strict=True)) == {"m-0": 6_000, "m-1": 6_000, "n-0": 2_000}


def test_an_award_of_two_hours_has_two_legs_with_their_powers() -> None:
    award: dict[str, Any] = {"priority": 2, "is_voluntary": False, "performance_compensation_cap": "up-to-site-load",
             "programs": ["CCA"], "dispatch_event_types": ["day-ahead"], "nomination_kw": 10}  # fmt: skip
    slots = [slot("a", energy_kw=8, **award), slot("b", hours=(2, 3), energy_kw=4, **award)]
    found = made(body({"m": slots}), {uid("m"): home("m", 5_000)}).request
    assert found is not None
    assert [(leg.after_ms, leg.until_ms, leg.target.power_w) for leg in found.legs] == [
        (0, HOUR, 8_000), (HOUR, 2 * HOUR, 4_000),
    ]  # fmt: skip
    assert (found.program, found.compensation, found.nomination_w) == ("ra-leap", Compensation.SITE_LOAD, 10_000)


def test_the_most_over_two_slots_is_sustained_over_both() -> None:
    found = made(body({"m": [slot("a"), slot("b", hours=(2, 3))]}), {uid("m"): home("m", 5_000)}).request
    assert found is not None
    running = found.running(T0 + HOUR)
    assert running is not None
    assert running.sustained_until_ms == T0 + 3 * HOUR


def test_a_group_is_one_power_for_all_of_its_batteries() -> None:
    told = group_body("g", ["m", "n"], slot("e", group=True, energy_kw=9))
    found = made(told, {uid("m"): home("m", 5_000), uid("n"): home("n", 5_000, 5_000)}, "group").request
    assert found is not None
    assert (found.target.want, found.target.power_w) == (Want.POWER, 9_000)
    assert found.group.ids == ("m-0", "n-0", "n-1")


@pytest.mark.parametrize(
    ("flags", "change", "kind", "label"),
    [
        ({"integration_test_notification": True}, {}, EventKind.DRY_RUN, "integration-test"),
        ({"communication_test": True}, {}, EventKind.CAPACITY_TEST, "communication-test"),
        ({}, {"is_communication_test": True}, EventKind.CAPACITY_TEST, "communication-test"),
        ({}, {"dispatch_event_types": ["capacity-test"]}, EventKind.CAPACITY_TEST, "capacity-test"),
        (
            {"integration_test_notification": True, "communication_test": True},
            {},
            EventKind.DRY_RUN,
            "integration-test",
        ),
    ],
)
def test_tests_of_the_interface_move_nothing_and_other_tests_are_tagged(
    flags: dict[str, bool], change: dict[str, Any], kind: EventKind, label: str
) -> None:
    found = made(body({"m": [slot("e", **change)]}, **flags), {uid("m"): home("m", 5_000)}).request
    assert found is not None
    assert found.kind is kind
    assert label in found.labels


@pytest.mark.parametrize("programs", [["PSE-RPO"], ["Neu/Ümläut"], []])
def test_a_program_that_nobody_knows_goes_and_is_marked(programs: list[str]) -> None:
    found = made(body({"m": [slot("e", programs=programs)]}), {uid("m"): home("m", 5_000)})
    assert not found.program_known
    assert found.request is not None
    assert "unknown-program" in found.request.labels
    assert found.request.program


def test_of_several_programs_the_first_that_is_ours_counts_and_all_are_told() -> None:
    found = made(body({"m": [slot("e", programs=["NEW", "CCA"])]}), {uid("m"): home("m", 5_000)})
    assert found.request is not None
    assert found.request.program == "ra-leap"
    assert {"several-programs", "NEW", "CCA"} <= set(found.request.labels)


def test_an_unknown_cap_of_pay_narrows_nothing_and_is_marked() -> None:
    found = made(body({"m": [slot("e", performance_compensation_cap="half")]}), {uid("m"): home("m", 5_000)}).request
    assert found is not None
    assert found.compensation is Compensation.EXPORTS
    assert "unknown-compensation" in found.labels


def test_meters_without_a_battery_are_counted_and_alone_make_no_event() -> None:
    told = body({"m": [slot("a")], "n": [slot("b")]})
    some = made(told, {uid("m"): home("m", 5_000)})
    assert (some.unknown, some.request is not None) == (1, True)
    none = made(told, {})
    assert (none.unknown, none.request) == (2, None)


def test_an_event_of_many_members_comes_over_in_parts_and_is_whole() -> None:
    told = body(
        {f"m{i}": [slot(f"e{i}", energy_kw=i % 7 + 1), slot(f"f{i}", hours=(2, 3), energy_kw=2)] for i in range(1_203)}
    )
    (event,) = rows(told)
    assert len(event.meters) == len(event.kw) == 1_203
    assert dict(zip(event.meters, event.kw, strict=True))[uid("m9")] == [3.0, 2.0]

"""Reading dispatch bodies: every field, every spelling, and a bad slot without its siblings."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.signals.leap.slots import DispatchSlot, read_results, read_webhook
from tests.signals.leap.bodies import HOUR, T0, body, group_body, one, slot, uid


def test_every_field_of_a_meter_slot_is_read_and_unknown_ones_are_kept() -> None:
    told = slot(
        "e", energy_kw=8, nomination_kw=10.5, performance_compensation_cap="up-to-site-load", priority=2,
        is_voluntary=False, dispatch_event_types=["day-ahead", "hour-ahead"], programs=["CCA", "NEW-ONE"], version=7,
    )  # fmt: skip
    found = read_webhook(body({"m": [told]}, sent_by="x"), "meter")
    assert found.slots == [
        DispatchSlot(
            level="meter", event_id=uid("e"), owner=uid("m"), start_ms=T0 + HOUR, end_ms=T0 + 2 * HOUR, energy_kw=8.0,
            nomination_kw=10.5, cap="up-to-site-load", priority=2, voluntary=False, types=("day-ahead", "hour-ahead"),
            programs=("CCA", "NEW-ONE"), references=("m",), more='{"sent_by":"x","version":7}',
        )
    ]  # fmt: skip


def test_a_group_slot_has_its_meters_each_once() -> None:
    found = read_webhook(group_body("g", ["a", "b", "a"], slot("e", group=True, energy_kw=120)), "group").slots
    assert [(s.level, s.owner, s.meters, s.energy_kw) for s in found] == [
        ("group", uid("g"), (uid("a"), uid("b")), 120)
    ]


@pytest.mark.parametrize("where", ["body", "item", "slot"])
@pytest.mark.parametrize("name", ["communication_test", "is_communication_test"])
@pytest.mark.parametrize("value", [True, "true"])
def test_the_test_flag_is_seen_under_each_of_its_names_and_in_each_of_its_places(
    where: str, name: str, value: object
) -> None:
    told = body({"m": [slot("e")]})
    place = {"body": told, "item": told["meter_dispatches"][0], "slot": told["meter_dispatches"][0]["timeslots"][0]}
    place[where][name] = value
    assert read_webhook(told, "meter").slots[0].test
    assert not read_webhook(body({"m": [slot("e")]}), "meter").slots[0].test


def test_a_test_of_the_interface_is_another_slot_than_the_real_one() -> None:
    real, test = one("e"), read_webhook(body({"m": [slot("e")]}, integration_test_notification=True), "meter").slots[0]
    assert test.integration
    assert test.key != real.key


@pytest.mark.parametrize("value", ["maybe", 1, 0, [], "yes"])
def test_a_body_that_may_be_a_test_of_the_interface_is_not_guessed_at(value: object) -> None:
    found = read_webhook(body({"m": [slot("e")]}, integration_test_notification=value), "meter")
    assert found.slots == []
    assert "integration_test_notification: neither true nor false" in found.problem


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"meter_event_id": "x"}, "meter_event_id: not a UUID"),
        ({"meter_event_id": None}, "meter_event_id: not a UUID"),
        ({"start_time": "2027-01-15T18:00:00"}, "start_time: not a time"),
        ({"start_time": 1_800_000_000}, "start_time: not a time"),
        ({"end_time": None}, "end_time: not a time"),
        ({"end_time": "2020-01-01T00:00:00Z"}, "end_time: not after"),
        ({"end_time": "2030-01-01T00:00:00Z"}, "more than 24 h"),
        ({"energy_kw": 0}, "energy_kw: neither null nor 0.01 to 100000"),
        ({"energy_kw": "8"}, "energy_kw: neither null"),
        ({"energy_kw": True}, "energy_kw: neither null"),
        ({"energy_kw": -1}, "energy_kw: neither null"),
        ({"nomination_kw": 1e9}, "nomination_kw: neither null"),
        ({"cancelled": "no"}, "cancelled: neither true nor false"),
    ],
)
def test_a_bad_slot_is_told_with_its_place_and_its_siblings_are_read(change: dict[str, Any], problem: str) -> None:
    told = body({"m": [slot("a"), slot("bad") | change, slot("b", hours=(2, 3))], "n": [slot("c")]})
    found = read_webhook(told, "meter")
    assert [s.event_id for s in found.slots] == [uid("a"), uid("b"), uid("c")]
    assert [bad.place for bad in found.bad] == ["meter_dispatches[0].timeslots[1]"]
    assert problem in found.bad[0].problem


@pytest.mark.parametrize("name", ["priority", "is_voluntary", "performance_compensation_cap", "programs", "cancelled"])
def test_a_required_field_that_is_absent_is_filled_in_and_named(name: str) -> None:
    told = slot("e")
    del told[name]
    found = read_webhook(body({"m": [told]}), "meter").slots[0]
    assert found.gaps == (name,)
    assert not found.cancelled


def test_a_slot_without_a_power_is_the_most() -> None:
    told = slot("e")
    del told["energy_kw"]
    assert read_webhook(body({"m": [told]}), "meter").slots[0].energy_kw is None


def test_a_cancellation_is_taken_by_its_id_whatever_else_it_says() -> None:
    told = {"meter_event_id": uid("e"), "cancelled": True, "start_time": "?", "energy_kw": -4, "priority": "x"}
    found = read_webhook(body({"m": [told]}), "meter")
    assert found.bad == []
    assert found.slots[0].cancelled
    assert found.slots[0].key == one("e").key


@pytest.mark.parametrize("told", [[], 3, None, "x", {}, {"meter_dispatches": 3}, {"group_dispatches": []}])
def test_what_is_no_dispatch_says_so(told: object) -> None:
    assert read_webhook(told, "meter").problem


def test_search_and_webhook_say_the_same_of_a_slot() -> None:
    told = body({"m": [slot("e", energy_kw=2, communication_test=True)]})
    assert read_results(told["meter_dispatches"], "meter").slots == read_webhook(told, "meter").slots


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([*slot(), "timeslots", "meter_id", "meter_dispatches", "communication_test"]), JSON)
def test_no_value_of_any_field_breaks_the_reader_or_loses_a_slot(name: str, value: object) -> None:
    told = json.loads(json.dumps(body({"m": [slot("a")], "n": [slot("b")]})))
    item = told["meter_dispatches"][0]
    place = told if name == "meter_dispatches" else item if name in item else item["timeslots"][0]
    place[name] = value
    found = read_webhook(told, "meter")
    assert found.problem or len(found.slots) + len(found.bad) >= 1
    if not found.problem and name not in ("meter_dispatches",):
        assert uid("b") in [s.event_id for s in found.slots]


def test_body_of_nothing_that_can_be_read_is_counted_whole_and_named_in_part() -> None:
    read = read_webhook({"meter_dispatches": [0] * 5_000}, "meter")
    assert (len(read.bad), read.bad_total) == (1_000, 5_000)
    assert read.bad[-1].place == "meter_dispatches[999]"
    told = body({"m": [slot("e"), *({"start_time": "now"} for _ in range(2_000))]})
    read = read_webhook(told, "meter")
    assert (len(read.slots), len(read.bad), read.bad_total) == (1, 1_000, 2_000)

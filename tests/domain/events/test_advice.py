"""Advice on requests: whom a group names in vain, and programs that are not configured."""

import pytest

from gateway.domain.events import advice
from gateway.domain.events.request import TargetGroup
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.types import DeviceId
from tests.builders.fakes import FACTS, home


def fleet() -> Fleet:
    made = Fleet()
    made.register(home("a", tags=("coast",)), FACTS)
    made.register(home("b"), FACTS)
    return made


def ids(*names: str) -> tuple[DeviceId, ...]:
    return tuple(map(DeviceId, names))


@pytest.mark.parametrize("group", [
    TargetGroup(all=True), TargetGroup(ids=ids("a", "b")), TargetGroup(tags=("coast",)),
    TargetGroup(ids=ids("b"), tags=("coast",)),
])  # fmt: skip
def test_group_that_is_there_has_no_warning(group: TargetGroup) -> None:
    assert advice.unmatched(fleet(), group) == ()


@pytest.mark.parametrize(("group", "found"), [
    (TargetGroup(ids=ids("a", "x")), ("not registered: x",)),
    (TargetGroup(ids=ids("b"), tags=("caost", "coast")), ("no device has the tag: caost",)),
    (TargetGroup(ids=ids("x")), ("not registered: x", "the group has no device now")),
    (TargetGroup(ids=ids("x"), tags=("y",)),
     ("not registered: x", "no device has the tag: y", "the group has no device now")),
])  # fmt: skip
def test_group_that_names_nobody_is_named(group: TargetGroup, found: tuple[str, ...]) -> None:
    assert advice.unmatched(fleet(), group) == found


def test_group_of_everybody_in_an_empty_fleet_is_nobody() -> None:
    assert advice.unmatched(Fleet(), TargetGroup(all=True)) == ("the group has no device now",)


def test_tag_that_its_last_device_has_lost_is_a_tag_that_nobody_has() -> None:
    made = fleet()
    made.register(home("a"), FACTS)
    assert advice.unmatched(made, TargetGroup(tags=("coast",)))


def test_many_unknown_names_are_counted() -> None:
    (first, _) = advice.unmatched(fleet(), TargetGroup(ids=ids(*(f"x{n}" for n in range(25)))))
    assert first.endswith(f"x{advice.NAMED - 1} and 15 more")

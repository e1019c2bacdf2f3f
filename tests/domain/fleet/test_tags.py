"""Tags of devices: found by tag and by device, without a walk over all tags."""

from collections.abc import Iterator

from gateway.domain.fleet.fleet import Fleet
from tests.builders.fakes import FACTS, home


class NoWalk(dict[str, set[int]]):
    """A dictionary that is only looked things up in."""

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("walks all tags")

    def values(self) -> object:  # type: ignore[override]
        raise AssertionError("walks all tags")

    def items(self) -> object:  # type: ignore[override]
        raise AssertionError("walks all tags")


def test_fleet_registers_and_shows_a_device_by_its_own_tags_alone() -> None:
    fleet = Fleet()
    fleet.tags = NoWalk()
    for i in range(20):
        fleet.register(home(f"h{i}", tags=(f"meter-{i}", "coast")), FACTS)
    again = fleet.register(home("h3", tags=("hill", "coast")), FACTS)
    assert again == 3
    assert fleet.device(3).tags == ("coast", "hill")
    assert fleet.device(4).tags == ("coast", "meter-4")
    assert fleet.tags["coast"] == set(range(20))
    assert (fleet.tags["hill"], fleet.tags["meter-3"]) == ({3}, set())


def test_fleet_device_without_tags_any_more_is_in_no_group() -> None:
    fleet = Fleet()
    fleet.register(home("a", tags=("coast",)), FACTS)
    fleet.register(home("a"), FACTS)
    assert (fleet.device(0).tags, fleet.tags["coast"]) == ((), set())

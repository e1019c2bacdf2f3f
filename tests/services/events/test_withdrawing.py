"""An operator's cancellation of an event holds until an operator lifts it, and the source of the event is told."""

import pytest

from gateway.api.views.dispatch import DispatchView
from gateway.domain.errors import StorageError
from gateway.domain.events.book import BookParams
from tests.scenes.world import World, homes_of


async def running() -> World:
    """An event of the platform, at its second revision."""
    world = World(homes_of(2))
    await world.go(2)
    for revision, target_w in ((1, 2_000.0), (2, 3_000.0)):
        assert await revised(world, revision, target_w) == ("accepted", None)
        await world.go(10)
    assert power(world) == 3_000
    return world


async def revised(
    world: World, revision: int, target_w: float = 4_000.0, *, cancelled: bool = False
) -> tuple[str, object]:
    answer = await world.submit(
        "reg", s=3_600, target_w=target_w, source="mqtt", revision=revision, cancelled=cancelled
    )
    return answer.outcome.value, answer.reason


def power(world: World) -> int:
    return int(round(world.homes.battery_w.sum(), -2))


def reported(world: World) -> list[tuple[object, ...]]:
    view = DispatchView(
        fleet=world.fleet, dispatcher=world.dispatcher, queries=world.queries, store=world.journal, clock=world.clock
    )
    return [(e["id"], e["state"], e.get("reason")) for body in view.event_reports() for e in body["events"]]


@pytest.mark.fault("F17")
async def test_cancel_by_an_operator_holds_against_every_revision_and_the_source_is_told() -> None:
    world = await running()
    answer = await world.dispatcher.cancel("reg", by="me")
    assert answer is not None
    assert (answer.outcome.value, answer.revision) == ("accepted", 2), "the numbers of revisions are the source's"
    await world.go(20)
    assert power(world) == 0
    for revision in (3, 4, 5):
        assert await revised(world, revision) == ("rejected", "cancelled_by_operator")
        await world.go(5)
    assert (power(world), world.state("reg")) == (0, "cancelled")
    assert reported(world) == [("reg", "cancelled", "cancelled_by_operator")]


async def test_cancel_by_an_operator_is_said_where_the_same_revision_is_sent_again() -> None:
    world = World(homes_of(1))
    asked = world.event("reg", s=3_600, target_w=1_000.0, source="mqtt")
    assert (await world.dispatcher.submit(asked)).reason is None
    assert (await world.dispatcher.submit(asked)).reason is None
    await world.dispatcher.cancel("reg", by="me")
    for _ in range(2):
        answer = await world.dispatcher.submit(asked)
        assert (answer.outcome.value, answer.reason) == ("duplicate", "cancelled_by_operator")
        world.restart(away_s=1)
    await world.dispatcher.lift_cancel("reg")
    assert (await world.dispatcher.submit(asked)).reason is None


async def test_cancel_by_an_operator_holds_over_a_restart() -> None:
    world = await running()
    await world.dispatcher.cancel("reg")
    world.restart(away_s=3)
    await world.go(30)
    assert await revised(world, 3) == ("rejected", "cancelled_by_operator")
    assert (power(world), world.state("reg")) == (0, "cancelled")
    assert reported(world) == [("reg", "cancelled", "cancelled_by_operator")]


async def test_cancel_by_an_operator_that_is_lifted_lets_the_next_revision_run() -> None:
    world = await running()
    await world.dispatcher.cancel("reg")
    await world.go(20)
    assert await world.dispatcher.lift_cancel("reg")
    await world.go(20)
    assert (power(world), reported(world)) == (0, []), "what was asked before the cancellation does not begin again"
    world.restart(away_s=1)
    await world.go(5)
    assert power(world) == 0
    assert await revised(world, 3) == ("accepted", None)
    await world.go(20)
    assert power(world) == 4_000
    assert not await world.dispatcher.lift_cancel("reg")


async def test_cancel_by_an_operator_outlives_a_cancellation_by_the_source() -> None:
    world = await running()
    await world.dispatcher.cancel("reg")
    assert await revised(world, 3, cancelled=True) == ("accepted", None)
    assert await revised(world, 4) == ("rejected", "cancelled_by_operator")
    await world.dispatcher.lift_cancel("reg")
    assert await revised(world, 4) == ("accepted", None)


async def test_cancel_by_the_source_holds_only_until_its_next_revision() -> None:
    world = await running()
    assert await revised(world, 3, cancelled=True) == ("accepted", None)
    assert await revised(world, 4) == ("accepted", None)
    await world.go(20)
    assert power(world) == 4_000


async def test_cancel_by_an_operator_holds_for_an_event_that_left_memory() -> None:
    world = await running()
    world.dispatcher._book.params = BookParams(tombstones_max=1)
    await world.dispatcher.cancel("reg")
    await world.go(2)
    for name in ("a", "b"):
        await world.submit(name, s=60, target_w=0.0, end_ms=world.clock.utc + 7_200_000, cancelled=True)
        await world.go(2)
    assert "reg" not in {entry.request.id for entry in world.dispatcher.entries()}
    assert await revised(world, 3) == ("rejected", "cancelled_by_operator")
    await world.go(3)
    again = await world.dispatcher.cancel("reg")
    assert again is not None
    assert again.outcome.value == "duplicate"
    assert await world.dispatcher.lift_cancel("reg")
    assert await revised(world, 3) == ("accepted", None)


async def test_cancel_that_is_not_durable_changes_nothing() -> None:
    world = await running()
    world.journal.failing = True
    with pytest.raises(StorageError):
        await world.dispatcher.cancel("reg")
    world.journal.failing = False
    await world.go(5)
    assert (power(world), world.state("reg")) == (3_000, "active")
    assert await world.dispatcher.cancel("none") is None


async def test_stop_all_takes_no_revision_from_the_source_and_ends_what_ran_for_good() -> None:
    world = await running()
    await world.dispatcher.stop_all(active=True, by="me")
    await world.go(20)
    assert await revised(world, 3) == ("rejected", "stopped")
    await world.dispatcher.stop_all(active=False, by="me")
    world.restart(away_s=1)
    await world.go(20)
    assert (power(world), world.state("reg")) == (0, "cancelled")
    assert await revised(world, 3) == ("accepted", None)
    await world.go(20)
    assert power(world) == 4_000

"""Events that are over leave memory and are known all the same: to their sources, to operators, after a restart."""

from dataclasses import replace

from gateway.domain.events.book import BookParams
from gateway.domain.events.lifecycle import EventState
from tests.scenes.world import World, homes_of


async def market(events: int) -> World:
    """Events of two seconds, one after the other; the newest two that are over are remembered."""
    world = World(homes_of(1))
    small(world)
    for i in range(events):
        answer = await world.submit(f"e{i}", s=2, target_w=1_000.0, source="mqtt", revision=3)
        assert answer.outcome.value == "accepted"
        await world.go(2)
    await world.go(3)
    return world


def small(world: World) -> None:
    world.dispatcher._book.params = BookParams(finished_max=2, tombstones_max=2, events_max=3)


def remembered(world: World) -> list[str]:
    return sorted(entry.request.id for entry in world.dispatcher.entries())


async def test_events_that_are_over_leave_memory_and_stay_in_the_store() -> None:
    world = await market(12)
    assert remembered(world) == ["e10", "e11"]
    stored, more = await world.journal.events(None, 100)
    assert not more
    assert [one.request.id for one in stored] == [f"e{i}" for i in reversed(range(10))]
    assert {one.state for one in stored} == {EventState.COMPLETED}
    assert len(await world.journal.occurrences(stored[-1].request.id, None, 10)) == 1


async def test_events_that_left_memory_are_not_loaded_again_at_the_start() -> None:
    world = await market(12)
    world.restart(away_s=1)
    assert remembered(world) == ["e10", "e11"]


async def test_revision_of_an_event_that_left_memory_goes_on_from_what_is_stored() -> None:
    world = await market(6)
    late = await world.submit("e0", s=600, target_w=9_000.0, source="mqtt", revision=2)
    again = await world.submit("e0", s=600, target_w=9_000.0, source="mqtt", revision=3)
    assert [late.outcome.value, again.reason] == ["superseded", "conflict"]
    higher = await world.submit("e0", s=600, target_w=1_000.0, source="mqtt", revision=4)
    await world.go(10)
    assert (higher.outcome.value, world.state("e0")) == ("accepted", "active")
    world.restart(away_s=1)
    await world.go(2)
    assert world.state("e0") == "active"


async def test_cancellation_at_the_same_revision_outlives_a_restart() -> None:
    world = World(homes_of(1))
    await world.submit("e", s=600, target_w=1_000.0, source="axle", revision=2)
    await world.go(10)
    assert world.state("e") == "active"
    (known,) = world.dispatcher.entries()
    gone = replace(known.request, cancelled=True)
    assert (await world.dispatcher.submit(gone)).outcome.value == "accepted"
    await world.go(10)
    assert world.state("e") == "cancelled"
    world.restart(away_s=1)
    await world.go(2)
    assert world.state("e") == "cancelled"
    assert (await world.dispatcher.submit(gone)).outcome.value == "duplicate"


async def test_cancellation_that_left_memory_still_keeps_its_event_from_running() -> None:
    world = World(homes_of(1))
    small(world)
    for i in range(6):
        await world.submit(f"e{i}", s=600, target_w=1_000.0, source="mqtt", revision=2, cancelled=True)
        await world.go(2)
    assert remembered(world) == ["e4", "e5"]
    late = await world.submit("e0", s=600, target_w=1_000.0, source="mqtt", revision=1)
    await world.go(10)
    assert (late.outcome.value, round(world.homes.battery_w.sum())) == ("superseded", 0)


async def test_source_that_uses_the_id_of_an_event_that_left_memory_gets_an_event_of_its_own() -> None:
    world = await market(6)
    taken = await world.submit("e0", s=600, target_w=1_000.0, source="rest")
    await world.go(10)
    assert taken.outcome.value == "accepted"
    assert [(e.request.source, e.state.value) for e in world.dispatcher.find("e0")] == [("rest", "active")]
    assert [(one.request.source, one.request.revision) for one in await world.journal.known("e0")] == [("mqtt", 3)]
    assert [one.occurrence_ms for one in world.journal.delivered(world.dispatcher.find("e0")[0].request.id)] == []

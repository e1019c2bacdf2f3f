"""An owner's opt-out acts at once, whatever the disk does; what is owed to the journal never undoes what is newer."""

from dataclasses import replace

import pytest

from gateway.domain.errors import StorageError
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.journal.changes import ExclusionLifted, ExclusionSet
from gateway.domain.types import EventId
from tests.scenes.world import World, group, homes_of


def opt_out(world: World, *ids: str, until_ms: int | None = None, name: str = "owner-1") -> Exclusion:
    return Exclusion(id=name, reason="opt_out", group=group(*ids), from_ms=world.clock.utc, until_ms=until_ms)


async def running(count: int = 2) -> World:
    world = World(homes_of(count))
    await world.go(2)
    await world.submit(s=3_600, target_w=2_000.0 * count)
    await world.go(30)
    assert world.homes.battery_w.min() > 1_000
    return world


async def test_opt_out_acts_at_once_though_the_disk_refuses_and_says_that_it_is_not_durable() -> None:
    world = await running()
    world.journal.failing = True
    assert not await world.dispatcher.exclude(opt_out(world, "home-00"))
    await world.go(2)
    assert (world.authority()[0], world.homes.battery_w[0]) == ("DEVICE", 0.0)
    assert world.dispatcher.pending.warnings() == [
        "journal: 2 changes are in force and not durable yet: no space left on device"
    ], "the opt-out, and that the home is free"
    world.journal.failing = False
    await world.go(2)
    assert world.dispatcher.pending.warnings() == []
    assert [one.id for one in world.journal.load().exclusions] == ["owner-1"]
    world.restart(away_s=1)
    await world.go(60)
    assert world.homes.battery_w[0] == 0.0


async def test_opt_out_that_the_disk_takes_is_durable_when_it_is_answered() -> None:
    world = await running()
    assert await world.dispatcher.exclude(opt_out(world, "home-00"))
    assert [one.id for one in world.journal.load().exclusions] == ["owner-1"]


async def test_opt_out_acts_at_once_though_the_disk_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await running()

    async def hangs(_changes: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(world.journal, "commit", hangs)
    assert not await world.dispatcher.exclude(opt_out(world, "home-00"))
    await world.go(2)
    assert world.authority()[0] == "DEVICE"


async def test_opt_out_again_is_not_lost_to_the_end_of_the_one_before_that_is_still_owed() -> None:
    world = World(homes_of(2))
    await world.go(2)
    assert await world.dispatcher.exclude(opt_out(world, "home-01", until_ms=world.clock.utc + 5_000))
    world.journal.failing = True
    await world.go(8)
    world.journal.failing = False
    assert await world.dispatcher.exclude(opt_out(world, "home-01"))
    await world.go(3)
    assert [one.id for one in world.journal.load().exclusions] == ["owner-1"]
    world.restart(away_s=1)
    await world.go(3)
    await world.submit(s=600, target_w=8_000.0)
    await world.go(30)
    assert world.homes.battery_w[1] == 0.0


async def test_opt_out_that_is_owed_and_was_lifted_does_not_come_back() -> None:
    world = await running()
    world.journal.failing = True
    assert not await world.dispatcher.exclude(opt_out(world, "home-00"))
    world.journal.failing = False
    assert await world.dispatcher.lift("owner-1")
    await world.go(3)
    assert world.journal.load().exclusions == ()
    assert [type(change) for change in world.journal.kept if isinstance(change, ExclusionSet | ExclusionLifted)] == [
        ExclusionSet,
        ExclusionLifted,
    ]


@pytest.mark.parametrize("event", [None, "e"])
@pytest.mark.parametrize("killed", [False, True])
async def test_opt_out_that_has_begun_goes_on_though_the_clock_is_set_back(event: str | None, killed: bool) -> None:
    world = World(homes_of(2))
    await world.go(2)
    begun = opt_out(world, "home-00")
    await world.dispatcher.exclude(replace(begun, event=None if event is None else EventId(event)))
    later = replace(opt_out(world, "home-01", name="later"), from_ms=world.clock.utc + 600_000)
    await world.dispatcher.exclude(later)
    await world.go(2)
    world.clock.utc -= 3_600_000
    await world.go(70)
    assert world.clock_guard.reasons() == [], "nothing runs, so the clock is followed"
    if killed:
        world.restart(away_s=1)
        await world.go(3)
    await world.submit(s=600, target_w=8_000.0)
    await world.go(30)
    assert world.authority() == ["DEVICE", "CONTROLLED"], "the other opt-out is an hour away again"


async def test_opt_out_that_is_lifted_stays_until_that_is_durable() -> None:
    world = await running()
    await world.dispatcher.exclude(opt_out(world, "home-00"))
    await world.go(5)
    world.journal.failing = True
    with pytest.raises(StorageError):
        await world.dispatcher.lift("owner-1")
    await world.go(30)
    assert world.homes.battery_w[0] == 0.0


async def test_opt_out_that_is_replaced_holds_beside_the_new_one_until_that_is_durable() -> None:
    world = await running()
    await world.dispatcher.exclude(opt_out(world, "home-00"))
    await world.go(5)
    world.journal.failing = True
    assert not await world.dispatcher.exclude(opt_out(world, "home-01"))
    await world.go(30)
    assert world.homes.battery_w.tolist() == [0.0, 0.0]
    world.journal.failing = False
    await world.go(40)
    assert world.homes.battery_w[0] > 1_000
    assert world.homes.battery_w[1] == 0.0


async def test_stop_all_acts_at_once_and_is_made_durable_by_itself() -> None:
    world = await running()
    world.journal.failing = True
    assert not await world.dispatcher.stop_all(active=True, by="me")
    await world.go(30)
    assert world.authority() == ["DEVICE"] * 2
    assert world.state() == "cancelled"
    with pytest.raises(StorageError):
        await world.dispatcher.stop_all(active=False, by="me")
    assert world.dispatcher.stopped
    world.journal.failing = False
    await world.go(2)
    world.restart(away_s=1)
    assert world.dispatcher.stopped
    await world.dispatcher.stop_all(active=False, by="me")
    await world.go(20)
    assert (world.state(), world.authority()) == ("cancelled", ["DEVICE"] * 2)


async def test_stop_all_that_is_owed_and_was_cleared_does_not_come_back() -> None:
    world = await running()
    world.journal.failing = True
    assert not await world.dispatcher.stop_all(active=True, by="me")
    world.journal.failing = False
    assert await world.dispatcher.stop_all(active=False, by="me")
    await world.go(3)
    found = world.journal.load()
    assert not found.stopped
    assert [state.value for _, state in found.states.values()] == ["cancelled"]


async def test_quarantine_that_is_owed_and_was_lifted_does_not_come_back() -> None:
    world = World(homes_of(6))
    world.homes.inverted = {0}
    await world.go(2)
    await world.submit(s=3_600, target_w=12_000.0)
    world.journal.failing = False
    await world.go(10)
    world.journal.failing = True
    await world.go(120)
    assert set(world.control.quarantine.quarantined) == {"home-00"}
    world.journal.failing = False
    world.homes.inverted = set()
    assert await world.control.trust("home-00")
    await world.go(2)
    assert world.journal.load().quarantined == {}

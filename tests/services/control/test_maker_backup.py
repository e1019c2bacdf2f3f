"""A battery that its maker keeps full for a storm is left alone unless the request says otherwise, and that is told."""

import pytest

from gateway.domain.events.request import Target, Want
from gateway.domain.limits.types import reason_names
from gateway.domain.types import Mode
from tests.scenes.world import World, homes_of

TARGETS = [
    {"target_w": 6_000},
    {"target_w": -6_000},
    {"target_w": None},
    {"target_w": None, "target": Target(want=Want.DEVICE_POWER, power_w=2_000.0)},
    {"target_w": None, "target": Target(want=Want.IDLE)},
]


async def stormy(**asked: object) -> World:
    """The first of four homes is in its maker's storm mode when an event begins."""
    world = World(homes_of(4))
    world.homes.mode[0] = Mode.BACKUP
    await world.go(5)
    await world.submit(s=600, **asked)  # type: ignore[arg-type]
    return await world.go(40)


@pytest.mark.parametrize("asked", TARGETS)
async def test_maker_backup_is_left_alone_at_the_start_of_an_event(asked: dict[str, object]) -> None:
    world = await stormy(**asked)
    assert world.ops(0) == []
    assert "maker_backup" in reason_names(world.queries.reasons_of(0))
    row = world.rows()["home-00"]
    assert (row["status"], row["failure"]) == ("failed", "excluded")
    assert "maker_backup" in row["limits"] or asked.get("target") == Target(want=Want.IDLE)


async def test_maker_backup_is_made_up_for_by_the_others() -> None:
    world = await stormy(target_w=6_000)
    assert world.homes.battery_w.tolist() == [0, 2_000, 2_000, 2_000]
    assert (world.progress().delivered_w, world.progress().unserved_w) == (6_000, 0)


async def test_maker_backup_is_taken_by_an_event_that_says_so_also_after_a_restart() -> None:
    world = await stormy(target_w=8_000, takes_backup=True)
    assert world.homes.battery_w.tolist() == [2_000] * 4
    world.restart(away_s=2)
    await world.go(60)
    assert world.homes.battery_w.sum() == pytest.approx(8_000, rel=0.02)


async def test_maker_backup_that_ends_in_mid_event_lets_the_battery_join() -> None:
    world = await stormy(target_w=6_000)
    world.homes.mode[0] = Mode.SELF_CONSUMPTION
    await world.go(40)
    assert world.homes.battery_w[0] > 1_000
    assert world.homes.battery_w.sum() == pytest.approx(6_000, rel=0.02)


async def test_maker_backup_is_not_charged_by_maintenance_and_not_available() -> None:
    world = World(homes_of(2))
    world.homes.mode[0] = Mode.BACKUP
    await world.go(5)
    assert [group.devices for group in world.queries.availability()] == [1]

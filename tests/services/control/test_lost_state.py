"""A gateway whose state directory was lost has its fleet under control again, and one device alone moves no ids."""

import logging

import pytest

from gateway.domain.journal.changes import EpochRaised
from gateway.services.control.command_ids import EPOCH_BITS
from tests.builders.fakes import MemoryJournal
from tests.scenes.world import World, homes_of


async def ahead(world: World, *slots: int, epochs: int) -> World:
    """Devices that know a command of a state that is lost."""
    for slot in slots:
        world.homes.cmd[slot] = (world.journal.epoch + epochs) << EPOCH_BITS
    await world.go(2)
    await world.submit(s=3_600, target_w=8_000)
    return world


@pytest.mark.fault("F42")
@pytest.mark.parametrize("epochs", [1, 40, 300_000])
async def test_fleet_that_knows_later_commands_is_under_control_again(
    epochs: int, caplog: pytest.LogCaptureFixture
) -> None:
    world = await ahead(World(homes_of(4)), 0, 1, 2, 3, epochs=epochs)
    await world.go(300)
    assert world.homes.battery_w.sum() == pytest.approx(8_000, rel=0.02)
    assert world.control.command_ids.reasons() == []
    jumps = [r.levelno for r in caplog.records if "ids jump ahead" in r.getMessage()]
    assert jumps == [logging.ERROR] * len(jumps)
    assert 1 <= len(jumps) < 21
    # the next start goes on from there
    world.restart(away_s=1)
    assert world.control.command_ids.newest > world.homes.cmd.max()


async def test_device_that_always_knows_later_commands_moves_no_ids_and_is_named() -> None:
    world = await ahead(World(homes_of(4)), 0, epochs=1_000)
    before = world.control.command_ids.newest >> EPOCH_BITS
    await world.go(120)
    assert world.control.command_ids.newest >> EPOCH_BITS == before
    assert world.journal.of(EpochRaised) == []
    assert world.rows()["home-00"]["result"] == "older"
    samples = {s.name: s.value for s in world.control.command_ids.samples()}
    assert samples["gateway_command_id_jumps"] == 0


async def test_ids_do_not_jump_beyond_what_a_device_can_say() -> None:
    journal = MemoryJournal()
    journal.epoch = 1_999_998
    world = await ahead(World(homes_of(2), journal=journal), 0, 1, epochs=3)
    await world.go(60)
    assert world.control.command_ids.newest < 9e15
    assert world.control.command_ids.reasons() == [
        "control: 2 of 2 devices know later commands than ours and obey none"
    ]

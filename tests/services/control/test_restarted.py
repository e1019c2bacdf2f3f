"""A device that restarts in mid-event is dispatched again; an owner who takes it back is obeyed."""

import logging

import numpy as np
import pytest

from gateway.domain.events.request import power
from gateway.domain.types import Mode
from simulators.faults import Fault, FaultKind
from tests.builders.homes import homes
from tests.scenes.street import Street
from tests.scenes.world import World, homes_of

REBOOT = Fault(kind=FaultKind.REBOOT, for_s=0.2)
OWNER = Fault(kind=FaultKind.OWNER_MODE)


async def street() -> Street:
    made = Street(homes(4))
    await made.go(5)
    await made.submit("e", s=3_600, target=power(8_000.0))
    return await made.go(60)


def authority(made: Street | World) -> list[int]:
    return [int(value) for value in made.fleet.control.authority[:4]]


async def test_reboot_of_a_fifth_of_a_second_is_no_take_back(caplog: pytest.LogCaptureFixture) -> None:
    made = await street()
    for index in range(4):
        made.inject(index, REBOOT)
    # away and back before the gateway looks
    await made.go(2, tick_s=2)
    await made.go(20)
    assert made.remote.all()
    assert made.devices.batteries.battery_w.sum() == pytest.approx(8_000, rel=0.02)
    assert (made.control.restarted.excused, made.control.authority_stats.overridden) == (4, 0)
    told = [r for r in caplog.records if "restarted in mid-event" in r.getMessage()]
    assert [r.levelno for r in told] == [logging.WARNING] * len(told)
    assert told


async def test_owner_who_takes_a_device_back_is_obeyed() -> None:
    made = await street()
    made.inject(0, OWNER)
    await made.go(30)
    assert authority(made) == [3, 1, 1, 1]
    assert made.control.restarted.excused == 0


async def test_owner_who_takes_a_device_back_long_after_its_birth_is_obeyed() -> None:
    made = await street()
    made.inject(0, REBOOT)
    await made.go(2, tick_s=2)
    await made.go(38)
    made.inject(0, OWNER)
    await made.go(30)
    assert authority(made) == [3, 1, 1, 1]


async def test_device_that_leaves_again_and_again_is_left_alone_after_two_restarts() -> None:
    made = await street()
    for _ in range(3):
        made.inject(0, REBOOT)
        await made.go(2, tick_s=2)
        await made.go(28)
    assert authority(made) == [3, 1, 1, 1]
    assert made.control.restarted.excused == 2


async def world() -> World:
    made = World(homes_of(4))
    await made.go(2)
    await made.submit(s=3_600, target_w=8_000)
    await made.go(30)
    made.fleet.restarts.observe_boots(np.arange(4, dtype=np.int32), np.full(4, 7), made.clock.now())
    return made


async def test_device_that_tells_a_new_boot_number_after_it_left_is_dispatched_again() -> None:
    made = await world()
    made.homes.revert(0)
    await made.go(5)
    assert authority(made) == [3, 1, 1, 1]
    made.fleet.restarts.observe_boots(np.array([0], dtype=np.int32), np.array([8]), made.clock.now())
    await made.go(10)
    assert authority(made) == [1, 1, 1, 1]


async def test_take_back_that_was_a_restart_is_forgotten_by_the_journal_too() -> None:
    made = await world()
    made.homes.revert(0)
    await made.go(5)
    assert [one.device for one in made.journal.load().taken_back] == ["home-00"]
    made.fleet.restarts.observe_boots(np.array([0], dtype=np.int32), np.array([8]), made.clock.now())
    await made.go(10)
    assert list(made.journal.load().taken_back) == []
    made.restart(away_s=1)
    await made.go(20)
    assert authority(made) == [1, 1, 1, 1]
    assert made.rows()["home-00"]["status"] == "delivering"


async def test_boot_number_that_is_told_too_late_or_that_is_an_earlier_one_excuses_nobody() -> None:
    made = await world()
    made.homes.revert(0)
    await made.go(5)
    made.fleet.restarts.observe_boots(np.array([0, 0], dtype=np.int32), np.array([6, 7]), made.clock.now())
    await made.go(130)
    made.fleet.restarts.observe_boots(np.array([0], dtype=np.int32), np.array([8]), made.clock.now())
    await made.go(10)
    assert authority(made) == [3, 1, 1, 1]


async def test_device_that_says_no_mode_and_no_command_is_told_its_setpoint_again() -> None:
    made = await world()
    made.homes.revert(0)
    made.homes.mode[0] = Mode.UNKNOWN
    written = len(made.homes.writes_to(0))
    await made.go(2)
    assert len(made.homes.writes_to(0)) > written
    await made.go(10)
    assert made.homes.battery_w.sum() == pytest.approx(8_000, rel=0.02)

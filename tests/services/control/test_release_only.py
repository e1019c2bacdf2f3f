"""A release-only gateway: what it finds under control it hands back or lets run out, and it gives no power."""

import asyncio
import sys
from dataclasses import replace

import numpy as np
import pytest

from gateway.domain.commands import CommandOp
from gateway.domain.control.planning import plan
from gateway.domain.control.tracking import track
from gateway.domain.errors import InvariantBroken
from gateway.domain.events.arbitration import claim
from gateway.domain.events.attribution import credit
from gateway.domain.events.book import Outcome, Refusal
from gateway.domain.fleet.measured import power_of
from gateway.domain.journal.changes import ControlEnded
from gateway.domain.limits.envelope import envelope
from tests.builders.fakes import FACTS
from tests.scenes.waiting import until
from tests.scenes.world import World, homes_of

UNTIMED = replace(FACTS, timed=False)
LEASE_S = round(FACTS.lease_s)


async def under_control(*, untimed: int = 2, timed: int = 2) -> World:
    """Homes in mid-event, then a gateway that is release-only."""
    devices = homes_of(untimed + timed)
    world = World(devices, facts_of={device.id: UNTIMED for device in devices[:untimed]})
    await world.go(2)
    await world.submit(s=3_600, target_w=6_000)
    await world.go(20)
    assert world.authority() == ["CONTROLLED"] * (untimed + timed)
    world.release_only = True
    world.restart(away_s=2)
    world.homes.writes.clear()
    return world


async def test_untimed_products_are_released_and_timed_leases_run_out() -> None:
    world = await under_control()
    await world.go(30)
    assert world.authority() == ["DEVICE", "DEVICE", "CONTROLLED", "CONTROLLED"]
    assert world.homes.battery_w[:2].tolist() == [0, 0]
    await world.go(LEASE_S + 20)
    assert world.authority() == ["DEVICE"] * 4
    assert set(world.ops()) == {CommandOp.RELEASE}
    assert {slot for slot, *_ in world.homes.writes} == {0, 1}
    ended = {name for change in world.journal.kept if isinstance(change, ControlEnded) for name in change.devices}
    assert ended == {f"home-{i:02d}" for i in range(4)}


async def test_releases_are_spread() -> None:
    world = await under_control(untimed=10, timed=0)
    at: list[int] = []
    for second in range(30):
        await world.go(1)
        at += [second] * (len(world.homes.writes) - len(at))
    assert len(at) == 10
    assert at[-1] - at[0] >= 5
    assert max(np.bincount(at)) <= 3


async def test_nothing_that_decides_on_power_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await under_control()

    def broken(*_: object, **__: object) -> None:
        raise InvariantBroken("always")

    decisions = (envelope, track, plan, power_of, credit, claim)
    modules = [
        module for name, module in sys.modules.items() if name.startswith(("gateway.services.", "gateway.domain."))
    ]
    found = [
        (module, name)
        for module in modules
        for name, value in vars(module).items()
        if any(value is decision for decision in decisions)
    ]
    assert len(found) >= len(decisions)
    for module, name in found:
        monkeypatch.setattr(module, name, broken)
    await world.go(30)
    assert world.authority()[:2] == ["DEVICE", "DEVICE"]


async def test_no_event_is_accepted_and_a_cancellation_is() -> None:
    world = await under_control()
    answer = await world.submit("other", s=60, target_w=1_000)
    assert (answer.outcome, answer.reason) == (Outcome.REJECTED, Refusal.RELEASE_ONLY)
    answer = await world.submit(s=3_600, target_w=6_000, revision=2, cancelled=True)
    assert answer.outcome is Outcome.ACCEPTED
    world.release_only = False
    world.restart(away_s=200)
    await world.go(10)
    assert world.state() == "cancelled"
    assert world.authority() == ["DEVICE"] * 4


async def test_stop_all_releases_timed_products_too() -> None:
    world = await under_control()
    await world.dispatcher.stop_all(active=True, by="operator")
    await world.go(30)
    assert world.authority() == ["DEVICE"] * 4
    assert {slot for slot, *_ in world.homes.writes} == {0, 1, 2, 3}


async def test_stop_with_release_hands_everything_back() -> None:
    world = await under_control()
    async with asyncio.TaskGroup() as tasks:
        ending = tasks.create_task(world.control.shut_down(release=True), name="shut-down")
        for _ in range(60):
            await world.go(1)
            await asyncio.sleep(0.3)
            if ending.done():
                break
        await until(ending.done)
    assert world.authority() == ["DEVICE"] * 4


async def test_release_goes_on_while_the_journal_fails() -> None:
    world = await under_control()
    world.journal.failing = True
    await world.go(30)
    assert world.authority()[:2] == ["DEVICE", "DEVICE"]
    world.journal.failing = False
    await world.go(1)
    ended = {name for change in world.journal.kept if isinstance(change, ControlEnded) for name in change.devices}
    assert ended >= {"home-00", "home-01"}

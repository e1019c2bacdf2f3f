"""While everything is stopped no device is given power: not by an event, not by own maintenance, not by a tick
that was under way, not by what still waits on its way to a device."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest

from gateway.domain.commands import CommandOp, CommandResult
from gateway.domain.errors import StorageError
from gateway.domain.journal.changes import Change, ControlEnded, ControlTaken, EventDecided, EventMoved, StopAll
from gateway.domain.types import EventId, Mode
from gateway.services.settings import ControlSettings, FeederSettings, MaintenanceSettings
from tests.builders.fakes import MemoryJournal, home
from tests.scenes.world import SETTINGS, World, homes_of

FULL = SETTINGS.model_copy(update={"maintenance": MaintenanceSettings(full_charge_cycles=10)})
OVERDUE_WH = 250_000


def powered(world: World, since: int) -> list[CommandOp]:
    """Commands other than releases, from the `since`-th on."""
    return [op for op in world.ops()[since:] if op is not CommandOp.RELEASE]


async def stop(world: World, *, active: bool = True) -> None:
    await world.dispatcher.stop_all(active=active, by="operator")


async def recovering() -> World:
    """Two of three homes end an event below their reserve and are charged up to it."""
    settings = SETTINGS.model_copy(update={"feeders": FeederSettings(recharge_kw=2.0)})
    world = World([home(f"home-{i:02d}", feeder="f") for i in range(3)], settings=settings)
    await world.go(2)
    await world.submit(s=60, target_w=6_000)
    await world.go(58)
    world.homes.soc_pct[:] = [15, 15, 60]
    await world.go(60)
    assert world.homes.battery_w.sum() == pytest.approx(-2_000, abs=2)
    return world


async def filling(count: int = 2) -> World:
    """Homes whose full charge is overdue."""
    world = World(homes_of(count), settings=FULL)
    world.fleet.live.since_full_wh[:count] = OVERDUE_WH
    return world


# -- the gateway's own maintenance -----------------------------------------------------------------------------------


async def test_stop_all_recovery_that_runs_is_released_and_begins_again_once_cleared() -> None:
    world = await recovering()
    written = len(world.homes.writes)
    await stop(world)
    await world.go(60)
    assert powered(world, written) == []
    assert world.homes.battery_w.tolist() == [0, 0, 0]
    assert world.authority() == ["DEVICE"] * 3
    assert world.control.maintenance.stats.recovering == 0
    await stop(world, active=False)
    await world.go(30)
    assert world.homes.battery_w.sum() == pytest.approx(-2_000, abs=2)


async def test_stop_all_recovery_of_what_it_cancelled_does_not_begin_before_it_is_cleared() -> None:
    world = World(homes_of(3))
    await world.go(2)
    await world.submit(s=600, target_w=6_000)
    await world.go(58)
    world.homes.soc_pct[:] = [15, 15, 60]
    written = len(world.homes.writes)
    await stop(world)
    await world.go(120)
    assert powered(world, written) == []
    assert world.authority() == ["DEVICE"] * 3
    await stop(world, active=False)
    await world.go(30)
    assert world.homes.battery_w[:2].max() < -1_000


async def test_stop_all_full_charge_that_runs_is_released_and_begins_again_once_cleared() -> None:
    world = await filling()
    await world.go(40)
    assert world.homes.battery_w.max() < -1_000
    written = len(world.homes.writes)
    await stop(world)
    await world.go(60)
    assert powered(world, written) == []
    assert world.authority() == ["DEVICE"] * 2
    assert world.control.maintenance.stats.filling == 0
    await stop(world, active=False)
    await world.go(40)
    assert world.homes.battery_w.max() < -1_000


async def test_stop_all_full_charge_that_is_due_later_does_not_begin() -> None:
    world = await filling()
    await stop(world)
    await world.go(60)
    assert world.ops() == []
    await stop(world, active=False)
    await world.go(40)
    assert world.homes.battery_w.max() < -1_000


@pytest.mark.parametrize("ticks", range(12))
async def test_stop_all_at_any_tick_of_a_beginning_full_charge_ends_it(ticks: int) -> None:
    world = await filling()
    await world.go(ticks)
    written = len(world.homes.writes)
    await stop(world)
    await world.go(40)
    assert powered(world, written) == []
    assert world.authority() == ["DEVICE"] * 2


async def test_stop_all_stands_over_a_restart_and_no_maintenance_begins() -> None:
    world = await filling()
    await world.go(40)
    written = len(world.homes.writes)
    await stop(world)
    world.restart(away_s=2)
    world.fleet.live.since_full_wh[:2] = OVERDUE_WH
    await world.go(60)
    assert world.dispatcher.stopped
    assert powered(world, written) == []
    assert world.authority() == ["DEVICE"] * 2
    await stop(world, active=False)
    await world.go(40)
    assert world.homes.battery_w.max() < -1_000


# -- what is under way ------------------------------------------------------------------------------------------


class Slow(MemoryJournal):
    """A journal in which `then` happens while a commit that takes devices is under way."""

    then: Callable[[], Awaitable[None]] | None = None

    async def commit(self, changes: Sequence[Change]) -> None:
        then = self.then
        if then is not None and any(isinstance(change, ControlTaken) for change in changes):
            self.then = None
            await then()
        await super().commit(changes)


@pytest.mark.parametrize("what", ["event", "maintenance"])
async def test_stop_all_during_a_tick_that_takes_devices_gives_them_nothing(what: str) -> None:
    journal = Slow()
    world = World(homes_of(2), journal=journal, settings=FULL)
    world.fleet.live.since_full_wh[:2] = 0
    await world.go(2)
    if what == "event":
        await world.submit(s=600, target_w=4_000)
    else:
        world.fleet.live.since_full_wh[:2] = OVERDUE_WH
    journal.then = lambda: stop(world)
    await world.go(40)
    assert world.dispatcher.stopped
    assert world.ops() == []
    # Nobody has them: no start after this one has anybody to hand back.
    assert journal.load().controlled == {}
    assert [change.reason for change in journal.kept if isinstance(change, ControlEnded)] == ["stopped"]


async def test_stop_all_during_a_tick_that_takes_devices_cleared_they_are_taken() -> None:
    journal = Slow()
    world = World(homes_of(2), journal=journal)
    await world.go(2)
    await world.submit(s=600, target_w=4_000)
    journal.then = lambda: stop(world)
    await world.go(10)
    await stop(world, active=False)
    await world.submit("again", s=600, target_w=4_000)
    await world.go(20)
    assert world.homes.battery_w.sum() == pytest.approx(4_000, rel=0.02)
    assert len(journal.load().controlled) == 2


class Moving(MemoryJournal):
    """A journal in which `then` happens while a commit that ends an event is under way."""

    then: Callable[[], Awaitable[None]] | None = None

    async def commit(self, changes: Sequence[Change]) -> None:
        then = self.then
        if then is not None and any(isinstance(change, EventMoved) for change in changes):
            self.then = None
            await then()
        await super().commit(changes)


async def test_stop_all_during_a_tick_that_hands_devices_back_lets_it_do_so() -> None:
    journal = Moving()
    settings = SETTINGS.model_copy(update={"fleet_w_per_s": 1e9, "release_spread_s": 0.0})
    world = World(homes_of(3), journal=journal, settings=settings)
    await world.go(2)
    await world.submit(s=600, target_w=6_000)
    await world.go(20)
    written = len(world.homes.writes)
    await world.dispatcher.cancel("e")
    journal.then = lambda: stop(world)
    await world.go(1)
    assert world.dispatcher.stopped
    assert world.ops()[written:] == [CommandOp.RELEASE] * 3


async def test_stop_all_device_that_must_be_narrowed_is_handed_back_and_given_no_other_setpoint() -> None:
    settings = SETTINGS.model_copy(update={"release_spread_s": 600.0})
    world = World([home("a", export_allowed=False), home("b")], settings=settings)
    world.homes.load_w[:] = 3_000
    await world.go(2)
    await world.submit(s=3_600, target_w=8_000)
    await world.go(40)
    assert world.homes.battery_w[0] > 2_000
    await stop(world)
    written = len(world.homes.writes)
    await world.go(1)
    world.homes.load_w[0] = 400
    await world.go(2)
    assert world.homes.battery_w[0] == 0
    await world.go(30)
    assert powered(world, written) == []


async def test_stop_all_setpoint_without_a_confirmation_is_called_back_at_once() -> None:
    settings = SETTINGS.model_copy(update={"release_spread_s": 600.0, "fleet_w_per_s": 100_000.0})
    world = World(homes_of(4), settings=settings)
    await world.go(2)
    await world.submit(s=3_600, target_w=8_000)
    await world.go(20)
    world.homes.unresponsive.add(3)
    await world.submit("e", s=3_600, target_w=12_000, revision=2)
    await world.go(2)
    assert world.ops(3)[-1] is CommandOp.SETPOINT
    await stop(world)
    await world.go(1)
    # The others have their turn; what is still on its way to the fourth is overtaken by a newer command.
    assert world.ops(3)[-1] is CommandOp.RELEASE
    assert world.authority().count("CONTROLLED") == 3


async def test_stop_all_many_unconfirmed_setpoints_are_called_back_no_faster_than_the_fleet_may_ramp() -> None:
    world = World(homes_of(20), settings=ControlSettings(fleet_w_per_s=6_000.0, release_spread_s=10.0))
    await world.go(2)
    await world.submit(s=3_600, target_w=40_000)
    await world.go(30)
    world.fleet.control.cmd_applied[:20] = 0
    world.homes.answers.clear()
    world.trace.clear()
    await stop(world)
    await world.go(60)
    assert world.steps_w() < 6_000 * 1.1
    assert world.authority() == ["DEVICE"] * 20


async def test_stop_all_answers_that_come_late_change_nothing() -> None:
    world = await filling(1)
    await world.go(5)
    slot, _, _, _, cmd = world.homes.writes[-1]
    await stop(world)
    await world.go(40)
    world.homes.answers.append((slot, cmd, CommandResult.APPLIED))
    written = len(world.homes.writes)
    await world.go(20)
    assert world.ops()[written:] == []
    assert world.authority() == ["DEVICE"]
    assert EventId("upkeep:full-charge") not in world.queries.totals()
    assert np.all(world.homes.battery_w == 0)


# -- orders in which it may be asked ----------------------------------------------------------------------------


class Gate(MemoryJournal):
    """A journal in which commits of some kind wait until they are let through."""

    def __init__(self, kind: type[Change]) -> None:
        super().__init__()
        self.kind = kind
        self.open = asyncio.Event()
        self.reached = asyncio.Event()

    async def commit(self, changes: Sequence[Change]) -> None:
        if any(isinstance(change, self.kind) for change in changes):
            self.reached.set()
            await self.open.wait()
        await super().commit(changes)


async def test_stop_all_cancels_an_event_that_was_being_taken_in() -> None:
    journal = Gate(EventDecided)
    world = World(homes_of(2), journal=journal)
    await world.go(2)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.submit(s=600, target_w=4_000), name="submit")
        await journal.reached.wait()
        tasks.create_task(stop(world), name="stop")
        await asyncio.sleep(0)
        journal.open.set()
    assert world.state() == "cancelled"
    await stop(world, active=False)
    await world.go(20)
    assert world.ops() == []


class Clearing(MemoryJournal):
    """A journal in which `then` happens while dispatch is being allowed again. `stopped` is what stood when the next
    stop was about to become durable; it does not if the journal is `full`."""

    def __init__(self) -> None:
        super().__init__()
        self.then: Callable[[], object] | None = None
        self.is_stopped: Callable[[], bool] = lambda: False
        self.stopped: list[bool] = []
        self.full = False

    async def commit(self, changes: Sequence[Change]) -> None:
        asked = [change.active for change in changes if isinstance(change, StopAll)]
        if asked == [False] and self.then is not None:
            self.then()
            await asyncio.sleep(0)
        elif asked and self.then is not None:
            self.stopped.append(self.is_stopped())
            if self.full:
                raise StorageError("no space left on device")
        await super().commit(changes)


@pytest.mark.parametrize("full", [False, True])
async def test_stop_all_asked_while_it_is_being_cleared_stands_all_along(full: bool) -> None:
    journal = Clearing()
    world = World(homes_of(2), journal=journal)
    await stop(world)
    journal.full, journal.is_stopped = full, lambda: world.dispatcher.stopped
    answers: list[str] = []

    async def again() -> None:
        durable = await world.dispatcher.stop_all(active=True, by="operator")
        answers.append("durable" if durable else "not durable")

    async with asyncio.TaskGroup() as tasks:
        journal.then = lambda: tasks.create_task(again(), name="stop")
        await stop(world, active=False)
    assert journal.stopped == [True]
    assert answers == ["not durable" if full else "durable"]
    assert world.dispatcher.stopped


async def test_stop_all_event_for_later_that_was_being_taken_in_stays() -> None:
    journal = Gate(EventDecided)
    world = World(homes_of(2), journal=journal)
    later = world.event(s=600, target_w=4_000)
    start_ms = world.clock.utc + 60_000
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.submit(s=600, target_w=4_000, start_ms=start_ms, end_ms=later.end_ms), name="submit")
        await journal.reached.wait()
        tasks.create_task(stop(world), name="stop")
        await asyncio.sleep(0)
        journal.open.set()
    assert world.state() == "scheduled"
    await stop(world, active=False)
    await world.go(90)
    assert world.homes.battery_w.sum() == pytest.approx(4_000, rel=0.02)


async def test_stop_all_ends_what_prepares_an_event_and_the_event_does_not_begin() -> None:
    world = World(homes_of(3))
    await world.go(2)
    at_ms = world.clock.utc + 300_000
    await world.submit(s=600, target_w=6_000, start_ms=at_ms, end_ms=at_ms + 600_000, prepare_s=290.0, precharge=True)
    await world.go(60)
    assert (world.homes.mode == Mode.REMOTE).any()
    await world.dispatcher.stop_all(active=True, by="test")
    await world.go(60)
    assert not (world.homes.mode == Mode.REMOTE).any()
    await world.dispatcher.stop_all(active=False, by="test")
    await world.go(300)
    assert (world.state(), (world.homes.mode == Mode.REMOTE).any()) == ("cancelled", False)


async def test_stop_all_holds_over_a_restart_for_the_gateway_s_own_charging_too() -> None:
    own = MaintenanceSettings(recovery_s=600, full_charge_cycles=1)
    world = World(homes_of(3), settings=ControlSettings(maintenance=own))
    world.fleet.live.since_full_wh[:3] = OVERDUE_WH
    await world.go(30)
    assert (world.homes.mode == Mode.REMOTE).any()
    await world.dispatcher.stop_all(active=True, by="test")
    await world.go(2)
    world.restart(away_s=1)
    await world.go(200)
    written = len(world.homes.writes)
    await world.go(100)
    assert not (world.homes.mode == Mode.REMOTE).any()
    assert len(world.homes.writes) == written

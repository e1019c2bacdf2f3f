"""Control over devices that follow their setpoints: ramps, limits in mid-event, owners, restarts, the end."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from gateway.domain.commands import CommandOp
from gateway.domain.errors import StorageError
from gateway.domain.events.request import EventKind
from gateway.domain.fleet.reserve import SUSTAINED_S
from gateway.domain.journal.changes import ControlEnded, ControlTaken, EventDecided, ReserveChanged, StopAll
from gateway.domain.types import Mode
from gateway.services.settings import ControlSettings
from tests.builders.fakes import FACTS, home
from tests.scenes.waiting import until
from tests.scenes.world import SETTINGS, World, group, homes_of

UNTIMED = replace(FACTS, timed=False)


async def settled(count: int = 4, *, target_w: float = 8_000.0, s: float = 600, **other: object) -> World:
    """A fleet that has reached its target."""
    world = World(homes_of(count, **other))
    await world.go(2)
    await world.submit(s=s, target_w=target_w)
    return await world.go(30)


async def test_control_start_of_an_event_is_ramped_by_the_governor() -> None:
    world = World(homes_of(4))
    await world.go(2)
    assert (await world.submit(s=600, target_w=8_000)).outcome.value == "accepted"
    await world.go(12)
    assert world.trace[:2] == [0, 0]
    assert world.steps_w() <= 1_000 * 1.001
    assert world.trace[-1] == pytest.approx(8_000, rel=0.01)
    assert world.trace[5] < 5_000


async def test_control_running_event_tracks_its_target_and_reports_it() -> None:
    world = await settled()
    world.trace.clear()
    await world.go(300)
    assert np.abs(np.array(world.trace) - 8_000).max() <= 0.01 * 8_000
    progress = world.progress()
    assert progress.delivered_w == pytest.approx(8_000, rel=0.01)
    assert world.queries.totals()["test"].target_w == 8_000


async def test_control_changed_target_is_ramped_both_ways() -> None:
    world = await settled()
    world.trace.clear()
    await world.dispatcher.submit(world.event(s=600, target_w=-6_000, revision=2))
    await world.go(30)
    assert world.trace[-1] == pytest.approx(-6_000, rel=0.01)
    assert world.steps_w() <= 1_000 * 1.001


async def test_control_release_at_the_end_is_staggered_and_journalled() -> None:
    world = await settled(10, target_w=5_000, s=60)
    await world.go(29)
    world.trace.clear()
    await world.go(30)
    assert world.authority() == ["DEVICE"] * 10
    assert world.trace[-1] == 0
    assert world.steps_w() <= 2_500
    assert world.ops().count(CommandOp.RELEASE) == 10
    ended = [name for change in world.journal.of(ControlEnded) for name in change.devices]  # type: ignore[union-attr]
    assert sorted(ended) == [device.id for device in world.devices]
    assert world.journal.load().controlled == {}


async def test_control_reserve_raised_in_mid_event_narrows_within_one_tick() -> None:
    world = await settled()
    before_w = float(world.homes.battery_w[1])
    assert before_w > 1_000
    world.homes.reserve_pct[1] = 70.0
    await world.go(1)
    assert world.homes.battery_w[1] <= 0
    changes = [change for change in world.journal.kept if isinstance(change, ReserveChanged)]
    assert [(change.devices, change.reserve_pct) for change in changes] == [((world.devices[1].id,), (70.0,))]
    await world.go(30)
    # The others take over what they can.
    assert world.trace[-1] == pytest.approx(8_000, rel=0.02)
    assert world.homes.battery_w[1] <= 0


async def test_control_reserve_lowered_in_mid_event_lets_more_through() -> None:
    world = World(homes_of(1, reserve_pct=60.0))
    await world.go(2)
    await world.submit(s=600, target_w=3_000)
    await world.go(20)
    assert world.trace[-1] <= 0
    world.homes.reserve_pct[0] = 20.0
    await world.go(round(SUSTAINED_S))
    assert world.trace[-1] <= 0
    await world.go(20)
    assert world.trace[-1] == pytest.approx(3_000, rel=0.02)


async def test_control_home_that_may_not_export_covers_its_load_at_most() -> None:
    world = World([home("a", export_allowed=False), home("b")])
    world.homes.load_w[:] = 1_500
    await world.go(2)
    await world.submit(s=600, target_w=6_000)
    exported: list[float] = []
    await world.go(60, each=lambda: exported.append(float(world.homes.battery_w[0] - world.homes.load_w[0])))
    assert max(exported) <= 0
    assert world.homes.battery_w[0] > 1_000
    assert world.trace[-1] == pytest.approx(6_000, rel=0.02)
    # The load falls: the home follows at once.
    world.homes.load_w[0] = 400
    await world.go(2)
    assert world.homes.battery_w[0] <= 400


async def test_control_grid_charge_is_for_those_who_may() -> None:
    world = World([home("a", grid_charge_allowed=False), home("b")])
    await world.go(2)
    await world.submit(s=600, target_w=-3_000)
    await world.go(20)
    assert world.homes.battery_w.tolist() == [0.0, pytest.approx(-3_000, rel=0.02)]


async def test_control_islanded_device_is_never_written() -> None:
    world = World(homes_of(3))
    world.homes.islanded.add(1)
    await world.go(2)
    await world.submit(s=60, target_w=3_000)
    await world.go(100)
    assert world.ops(1) == []
    assert world.ops(0)[-1] is CommandOp.RELEASE


async def test_control_islanded_device_is_told_no_reserve_either_until_it_is_back() -> None:
    world = World(homes_of(2, reserve_pct=40.0))
    world.homes.reserve_pct[:] = 20.0
    world.homes.islanded.add(1)
    await world.go(2)
    await world.submit(s=3_600, target_w=3_000)
    await world.go(30)
    assert world.ops(1) == []
    assert world.ops(0)[0] is CommandOp.RESERVE
    world.homes.islanded.clear()
    await world.go(30)
    assert world.ops(1)[0] is CommandOp.RESERVE
    assert CommandOp.SETPOINT in world.ops(1)


async def test_control_device_that_islands_in_mid_event_is_left_alone_until_it_is_back_above_its_reserve() -> None:
    world = await settled()
    world.homes.islanded.add(2)
    world.homes.revert(2)
    written = len(world.ops(2))
    await world.go(200)
    assert len(world.ops(2)) == written
    world.homes.islanded.clear()
    world.homes.soc_pct[2] = 15
    await world.go(30)
    assert world.homes.battery_w[2] <= 0
    world.homes.soc_pct[2] = 60
    await world.go(60)
    assert world.homes.battery_w[2] > 1_000


async def test_control_reconnected_device_is_not_charged_from_the_grid_at_once() -> None:
    world = World(homes_of(1))
    world.homes.islanded.add(0)
    await world.go(2)
    await world.submit(s=3_600, target_w=-2_000)
    await world.go(5)
    world.homes.islanded.clear()
    world.trace.clear()
    await world.go(299)
    assert set(world.trace) == {0.0}
    await world.go(620)
    assert world.trace[-1] == pytest.approx(-2_000, rel=0.03)


async def test_control_stale_devices_lease_runs_out_without_a_refresh() -> None:
    world = await settled()
    world.homes.silent.add(0)
    world.homes.unresponsive.add(0)
    remote: list[bool] = []
    await world.go(121, each=lambda: remote.append(bool(world.homes.mode[0] == Mode.REMOTE)))
    written = [op for op in world.ops(0) if op is not CommandOp.RELEASE]
    await world.go(179, each=lambda: remote.append(bool(world.homes.mode[0] == Mode.REMOTE)))
    # The newest reading counts for 120 s; after that it is only handed back, and a lease later nothing is in force.
    assert [op for op in world.ops(0) if op is not CommandOp.RELEASE] == written
    assert max(s for s, there in enumerate(remote) if there) <= 240
    assert world.authority()[0] == "DEVICE"
    assert world.trace[-1] == pytest.approx(8_000, rel=0.02)


async def test_control_owner_who_takes_the_device_back_leaves_the_event() -> None:
    world = await settled()
    world.homes.revert(3)
    await world.go(2)
    written = len(world.ops(3))
    assert world.authority()[3] == "OWNER"
    await world.go(100)
    assert len(world.ops(3)) == written
    ended = [change for change in world.journal.kept if isinstance(change, ControlEnded)]
    assert [(change.devices, change.reason) for change in ended] == [((world.devices[3].id,), "owner")]
    assert world.trace[-1] == pytest.approx(8_000, rel=0.02)
    await world.dispatcher.cancel("e")
    await world.go(30)
    assert world.authority() == ["DEVICE"] * 4
    await world.submit("next", s=600, target_w=4_000)
    await world.go(20)
    assert world.authority() == ["CONTROLLED"] * 4


async def test_control_unresponsive_device_is_covered_by_the_others() -> None:
    world = World(homes_of(4))
    world.homes.unresponsive.add(0)
    await world.go(2)
    await world.submit(s=600, target_w=8_000)
    await world.go(60)
    assert world.homes.battery_w[0] == 0
    assert world.trace[-1] == pytest.approx(8_000, rel=0.02)


async def test_control_restart_in_mid_event_goes_on_from_measured_power() -> None:
    world = await settled()
    largest = max(cmd for *_, cmd in world.homes.writes)
    world.trace.clear()
    written = len(world.homes.writes)
    world.restart(away_s=20)
    assert world.authority() == ["CONTROLLED"] * 4
    await world.go(40)
    assert np.abs(np.array(world.trace) - 8_000).max() <= 0.02 * 8_000
    again = world.homes.writes[written:]
    assert {slot for slot, *_ in again} == {0, 1, 2, 3}
    assert min(cmd for *_, cmd in again) > largest
    assert CommandOp.RELEASE not in {op for _, op, *_ in again}
    assert world.authority() == ["CONTROLLED"] * 4


async def test_control_restart_after_the_event_releases_what_is_still_under_control() -> None:
    # a time of the device's own, which does not end with the event
    world = World(homes_of(4), facts=replace(FACTS, lease_step_s=120))
    await world.go(2)
    await world.submit(s=60, target_w=8_000)
    await world.go(30)
    world.restart(away_s=40)
    await world.go(30)
    assert world.authority() == ["DEVICE"] * 4
    assert world.ops().count(CommandOp.RELEASE) == 4
    assert world.homes.battery_w.tolist() == [0, 0, 0, 0]


async def test_control_restart_after_the_event_finds_devices_that_ended_with_it_by_themselves() -> None:
    world = await settled(s=60)
    world.restart(away_s=42)
    assert world.homes.battery_w.tolist() == [0, 0, 0, 0]
    await world.go(3)
    assert world.authority() == ["DEVICE"] * 4
    assert world.ops().count(CommandOp.RELEASE) == 0


async def test_control_restart_device_that_reverted_meanwhile_is_taken_anew_with_a_ramp() -> None:
    world = await settled()
    world.restart(away_s=150)
    assert world.trace[-1] == 0
    world.trace.clear()
    await world.go(40)
    assert world.steps_w() <= 1_000 * 1.001
    assert world.trace[-1] == pytest.approx(8_000, rel=0.02)


async def test_control_command_ids_grow_over_restarts() -> None:
    world = await settled(2, target_w=2_000)
    for _ in range(3):
        world.restart(away_s=1)
        await world.go(50)
    ids = [cmd for *_, cmd in world.homes.writes]
    assert ids == sorted(set(ids))
    assert ids[-1] < 2**53


async def test_control_failing_journal_takes_no_device_newly_but_refreshes_the_running_ones() -> None:
    world = World(homes_of(4))
    await world.go(2)
    await world.submit("a", s=600, target_w=2_000, group=group("home-00", "home-01"))
    await world.submit("b", s=600, target_w=2_000, start_ms=world.clock.utc + 30_000, group=group("home-02", "home-03"))
    await world.go(20)
    assert world.authority() == ["CONTROLLED", "CONTROLLED", "DEVICE", "DEVICE"]
    world.journal.failing = True
    world.homes.writes.clear()
    await world.go(200)
    assert world.authority() == ["CONTROLLED", "CONTROLLED", "DEVICE", "DEVICE"]
    assert {slot for slot, *_ in world.homes.writes} == {0, 1}
    assert world.homes.battery_w.tolist() == [pytest.approx(1_000, abs=60)] * 2 + [0, 0]
    assert world.control.pending.stats.failures > 0
    assert world.queries.reasons()[0].startswith("journal: ")
    world.journal.failing = False
    await world.go(20)
    assert world.authority() == ["CONTROLLED"] * 4
    assert world.queries.reasons() == []


async def test_control_hanging_journal_takes_no_device_newly_and_the_loop_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(homes_of(4), settings=SETTINGS.model_copy(update={"write_deadline_s": 0.05}))
    await world.go(2)
    await world.submit("a", s=600, target_w=2_000, group=group("home-00", "home-01"))
    await world.submit("b", s=600, target_w=2_000, start_ms=world.clock.utc + 10_000, group=group("home-02", "home-03"))
    await world.go(8)

    async def hang(_changes: object) -> None:
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(world.journal, "commit", hang)
        await world.go(10)
        assert world.authority() == ["CONTROLLED", "CONTROLLED", "DEVICE", "DEVICE"]
        assert world.queries.reasons() == ["journal: no answer in time"]
        # each release plan may become durable yet, and what takes it back is owed once
        assert [change.reason for change in world.control.pending.owed(ControlEnded)] == ["not_taken"]
    await world.go(20)
    assert world.authority() == ["CONTROLLED"] * 4


async def test_control_release_plan_is_durable_before_the_first_setpoint() -> None:
    world = World(homes_of(2))
    order: list[str] = []
    commit, write = world.journal.commit, world.homes.write

    async def committing(changes: object) -> None:
        order.extend(type(change).__name__ for change in changes)  # type: ignore[attr-defined]
        await commit(changes)  # type: ignore[arg-type]

    async def writing(batch: object, *, deadline_mono_ms: int) -> object:
        order.append("write")
        return await write(batch, deadline_mono_ms=deadline_mono_ms)  # type: ignore[arg-type]

    world.journal.commit = committing  # type: ignore[method-assign]
    world.homes.write = writing  # type: ignore[method-assign,assignment]
    await world.go(2)
    await world.submit(s=60, target_w=2_000)
    await world.go(3)
    assert order[0] == EventDecided.__name__
    assert order.index(ControlTaken.__name__) < order.index("write")


async def test_control_refused_submission_changes_nothing() -> None:
    world = World(homes_of(2))
    world.journal.failing = True
    with pytest.raises(StorageError, match="no space"):
        await world.submit(s=60, target_w=2_000)
    assert world.dispatcher.entries() == []
    world.journal.failing = False
    await world.go(5)
    assert world.homes.writes == []


async def test_control_dry_run_never_actuates() -> None:
    world = World(homes_of(2))
    await world.go(2)
    await world.submit(s=60, target_w=2_000, kind=EventKind.DRY_RUN)
    await world.go(70)
    assert world.homes.writes == []
    assert world.authority() == ["DEVICE"] * 2


async def test_control_lower_priority_number_wins_a_contested_device() -> None:
    world = World(homes_of(2))
    await world.go(2)
    await world.submit("low", s=600, target_w=4_000, priority=50)
    await world.go(15)
    await world.submit("high", s=100, target_w=-1_000, priority=1, group=group("home-00"))
    await world.go(40)
    assert world.homes.battery_w[0] == pytest.approx(-1_000, abs=60)
    assert world.homes.battery_w[1] == pytest.approx(4_000, rel=0.03)
    await world.go(100)
    assert world.homes.battery_w.sum() == pytest.approx(4_000, rel=0.02)


async def test_control_stop_all_releases_and_refuses_until_cleared() -> None:
    world = await settled()
    await world.dispatcher.stop_all(active=True, by="me")
    await world.go(30)
    assert world.authority() == ["DEVICE"] * 4
    assert (await world.submit("new", s=60, target_w=1_000)).reason == "stopped"
    assert "dispatch is stopped by an operator" in world.queries.reasons()
    world.restart(away_s=1)
    assert world.dispatcher.stopped
    await world.dispatcher.stop_all(active=False, by="me")
    assert (await world.submit("new", s=60, target_w=1_000)).outcome.value == "accepted"
    assert [change.active for change in world.journal.kept if isinstance(change, StopAll)] == [True, False]
    await world.go(5)
    # What was running when it was stopped stays cancelled.
    assert world.state() == "cancelled"


async def test_control_stop_all_asked_again_after_a_failing_journal_cancels_what_ran() -> None:
    world = await settled()
    world.journal.failing = True
    assert not await world.dispatcher.stop_all(active=True, by="me")
    await world.go(30)
    assert world.authority() == ["DEVICE"] * 4
    world.journal.failing = False
    await world.submit("later", s=60, target_w=1_000)
    await world.dispatcher.stop_all(active=True, by="me")
    assert world.state() == "cancelled"
    world.restart(away_s=1)
    await world.dispatcher.stop_all(active=False, by="me")
    await world.go(20)
    assert (world.state(), world.authority()) == ("cancelled", ["DEVICE"] * 4)


async def shut(world: World, *, release: bool, each: Callable[[], None] | None = None) -> None:
    """Shut control down while it ticks."""
    async with asyncio.TaskGroup() as tasks:
        ending = tasks.create_task(world.control.shut_down(release=release), name="shut-down")
        for _ in range(200):
            if ending.done():
                break
            await world.go(1, each=each)
            await asyncio.sleep(0.01)
        await until(ending.done)


async def test_control_shut_down_leaves_timed_leases_running() -> None:
    world = await settled()
    written = len(world.homes.writes)
    await world.control.shut_down(release=False)
    assert len(world.homes.writes) == written
    assert world.authority() == ["CONTROLLED"] * 4


async def test_control_shut_down_with_release_hands_everything_back() -> None:
    world = await settled()
    await shut(world, release=True)
    assert world.authority() == ["DEVICE"] * 4
    assert world.homes.battery_w.tolist() == [0] * 4


async def test_control_shut_down_releases_only_products_without_a_timer() -> None:
    world = World(homes_of(4), facts_of={"home-02": UNTIMED})
    await world.go(2)
    await world.submit(s=600, target_w=8_000)
    await world.go(30)
    await shut(world, release=False)
    await world.go(3)
    assert world.authority() == ["CONTROLLED", "CONTROLLED", "DEVICE", "CONTROLLED"]
    assert world.ops(2)[-1] is CommandOp.RELEASE
    assert all(CommandOp.RELEASE not in world.ops(slot) for slot in (0, 1, 3))


async def test_control_stale_device_without_a_timer_is_told_to_go_back_when_its_time_is_over() -> None:
    world = World(homes_of(2), facts_of={"home-01": UNTIMED})
    await world.go(2)
    await world.submit(s=1_200, target_w=2_000)
    await world.go(30)
    world.homes.silent.add(1)
    await world.go(400)
    assert world.ops(1)[-1] is CommandOp.RELEASE
    assert world.homes.battery_w[1] == 0


async def test_control_target_over_the_ceiling_is_refused() -> None:
    world = World(homes_of(1), settings=ControlSettings(ceiling_mw=0.001))
    answer = await world.submit(s=60, target_w=1_001)
    assert (answer.outcome.value, answer.reason) == ("rejected", "over_ceiling")
    assert SETTINGS.ceiling_mw == 100

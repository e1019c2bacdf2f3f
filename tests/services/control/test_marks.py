"""While a tick awaits: what it has decided is marked by then, answers that come are kept, and whoever is not to be
given power any more wins."""

from collections.abc import Awaitable, Callable

import pytest

from gateway.domain.commands import CommandOp, CommandResult, WriteOutcome
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import ProductFacts
from gateway.domain.journal.changes import ControlEnded
from gateway.domain.types import EventId, Mode
from tests.builders.fakes import FACTS
from tests.scenes.halts import Halts, Killed, Place, kill
from tests.scenes.world import SETTINGS, World, group, homes_of

UNTIMED = ProductFacts(
    lease_s=120, command_latency_s=5, timed=False, efficiency_discharge=0.95, efficiency_charge=0.95, standby_w=30,
    soc_uncertainty_pct=5,
)  # fmt: skip
STEEP = SETTINGS.model_copy(update={"fleet_w_per_s": 1e9, "release_spread_s": 0.0})
BEFORE_WRITES = (Place.PLAN, Place.PLAN_DURABLE, Place.RESERVE, Place.RESERVE_RAISED)
AT_WRITES = (Place.WRITES, Place.WRITES_HALF, Place.WRITES_ALL)


async def about_to_take(place: Place, then: Callable[[World], Awaitable[None]], facts: ProductFacts = FACTS) -> World:
    """Four homes that an event is about to take; the reserve of the last one is to be raised first. `then` happens in
    the tick that takes the others, at `place`."""
    world = World(homes_of(4), settings=STEEP, facts=facts)
    world.homes.reserve_pct[3] = 10.0
    await world.go(2)
    await world.submit(s=600, target_w=6_000)
    halts = Halts(world, place, lambda: then(world))
    await world.go(1)
    assert halts.reached
    return world


# -- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [Place.WRITES_HALF, Place.WRITES_ALL])
@pytest.mark.parametrize("result", [CommandResult.REFUSED, CommandResult.APPLIED])
async def test_answer_that_comes_while_the_batch_is_being_written_is_kept(place: Place, result: CommandResult) -> None:
    async def answer(world: World) -> None:
        world.homes.answer()

    world = World(homes_of(4), settings=STEEP)
    if result is CommandResult.REFUSED:
        world.homes.refusing.add(0)
    await world.go(2)
    await world.submit(s=600, target_w=6_000)
    Halts(world, place, lambda: answer(world))
    await world.go(1)
    assert CommandResult(int(world.fleet.control.result[0])) is result
    await world.go(1)
    row = world.rows()["home-00"]
    assert (row["result"], row["failure"]) == (
        result.name.lower(), "refused" if result is CommandResult.REFUSED else None
    )  # fmt: skip


async def test_refusal_that_comes_while_the_batch_is_being_written_keeps_the_direction_from_being_asked_for_again() -> (
    None
):
    async def answer(world: World) -> None:
        world.homes.answer()

    world = World(homes_of(4), settings=STEEP)
    world.homes.refusing.add(0)
    await world.go(2)
    await world.submit(s=600, target_w=6_000)
    Halts(world, Place.WRITES_ALL, lambda: answer(world))
    await world.go(60)
    assert world.ops(0).count(CommandOp.SETPOINT) == 1
    assert world.homes.battery_w[1:].sum() == pytest.approx(6_000, rel=0.02)


# -- marks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", Place)
async def test_device_that_is_being_taken_counts_as_ours_from_the_first_await_on(place: Place) -> None:
    seen: list[list[str]] = []

    async def look(world: World) -> None:
        seen.append(world.authority())

    await about_to_take(place, look)
    assert seen == [["CONTROLLED"] * 3 + ["DEVICE"]]


@pytest.mark.parametrize(
    "outcome", [WriteOutcome.NOT_SENT, WriteOutcome.NO_SUBSCRIBER, WriteOutcome.REFUSED], ids=lambda one: one.name
)
async def test_command_that_did_not_go_out_leaves_the_device_as_it_was(outcome: WriteOutcome) -> None:
    world = World(homes_of(2), settings=STEEP)
    await world.go(2)
    await world.submit(s=600, target_w=4_000)
    await world.go(10)
    control = world.fleet.control
    columns = ("cmd_sent", "setpoint_w", "lease_end_mono_ms", "authority", "sent_mono_ms", "event", "result")
    before = {name: control.column(name)[0] for name in columns}
    world.homes.untold[0] = outcome
    await world.submit("e", s=600, target_w=6_000, revision=2)
    await world.go(1)
    assert {name: control.column(name)[0] for name in columns} == before
    assert control.setpoint_w[1] == 3_000


async def test_device_that_was_to_be_taken_is_free_again_where_the_release_plan_is_not_durable() -> None:
    async def full(world: World) -> None:
        world.journal.failing = True

    world = await about_to_take(Place.PLAN, full)
    assert world.authority() == ["DEVICE"] * 4
    assert world.fleet.control.cmd_sent[:4].tolist() == [0] * 4
    assert [op for op in world.ops() if op is not CommandOp.RESERVE] == []


@pytest.mark.parametrize("place", Place)
async def test_tick_that_breaks_off_leaves_as_ours_only_what_may_have_heard_its_command(place: Place) -> None:
    world = World(homes_of(4), settings=STEEP)
    world.homes.reserve_pct[3] = 10.0
    await world.go(2)
    await world.submit(s=600, target_w=6_000)
    Halts(world, place, kill())
    with pytest.raises(Killed):
        await world.go(1)
    ours = "CONTROLLED" if place in AT_WRITES else "DEVICE"
    assert world.authority() == [ours] * 3 + ["DEVICE"]
    assert (world.rows()["home-00"]["commands"] == 1) is (place in AT_WRITES)
    # the loop is started again, and goes on from there
    await world.go(30)
    assert world.homes.battery_w.sum() == pytest.approx(6_000, rel=0.02)
    assert world.journal.load().controlled.keys() == {f"home-{slot:02d}" for slot in range(4)}


# -- who wins --------------------------------------------------------------------------------------------------------


async def by_rest(world: World) -> None:
    await world.dispatcher.exclude(
        Exclusion(id="x", reason="opt_out", group=group("home-01"), from_ms=world.clock.utc, until_ms=None)
    )


async def by_rest_from_this_event(world: World) -> None:
    await world.dispatcher.exclude(
        Exclusion(
            id="x", reason="opt_out", group=group("home-01"), from_ms=world.clock.utc, until_ms=None,
            event=EventId("e"),
        )
    )  # fmt: skip


async def on_the_device(world: World) -> None:
    world.homes.opted_out.add(1)
    world.homes.report(answers=False)


async def by_a_quarantine(world: World) -> None:
    world.control.quarantine.load({"home-01": "wrong_sign"}, {})


async def by_an_island(world: World) -> None:
    world.homes.islanded.add(1)
    world.homes.report(answers=False)


@pytest.mark.parametrize("place", BEFORE_WRITES)
@pytest.mark.parametrize("leaves", [by_rest, by_rest_from_this_event, on_the_device, by_an_island, by_a_quarantine])
async def test_device_that_may_not_be_taken_any_more_before_the_writes_go_out_is_not_written(
    place: Place, leaves: Callable[[World], Awaitable[None]]
) -> None:
    world = await about_to_take(place, leaves)
    assert world.ops(1) == []
    await world.go(5)
    assert (world.ops(1), world.authority()[1]) == ([], "DEVICE")
    assert "home-01" not in world.journal.load().controlled
    assert world.homes.battery_w.sum() == pytest.approx(6_000, rel=0.02)


@pytest.mark.parametrize("place", AT_WRITES)
@pytest.mark.parametrize("leaves", [by_rest, by_rest_from_this_event, on_the_device])
async def test_owner_who_opts_out_while_the_writes_go_out_is_handed_back_by_the_next_tick(
    place: Place, leaves: Callable[[World], Awaitable[None]]
) -> None:
    world = await about_to_take(place, leaves)
    await world.go(1)
    assert world.ops(1) == [CommandOp.SETPOINT, CommandOp.RELEASE]
    await world.go(3)
    assert (world.homes.mode[1], world.authority()[1]) == (Mode.SELF_CONSUMPTION, "DEVICE")
    assert "home-01" not in world.journal.load().controlled


@pytest.mark.parametrize("leaves", [by_rest, by_rest_from_this_event, on_the_device])
async def test_lease_of_an_owner_who_opts_out_is_not_renewed_by_the_tick_that_was_under_way(
    leaves: Callable[[World], Awaitable[None]],
) -> None:
    world = World(homes_of(2), settings=STEEP)
    await world.go(2)
    await world.submit("e", s=600, target_w=2_000, group=group("home-01"))
    await world.go(10)
    # the other home is taken by a tick that has something new for this one too
    await world.submit("e", s=600, target_w=4_000, group=group("home-00", "home-01"), revision=2)
    await world.submit("e", s=600, target_w=6_000, group=group("home-00", "home-01"), revision=3)
    written = len(world.ops(1))
    halts = Halts(world, Place.PLAN, lambda: leaves(world))
    await world.go(1)
    assert halts.reached
    assert world.ops(1)[written:] == []
    await world.go(1)
    assert world.ops(1)[written:] == [CommandOp.RELEASE]


async def stop(world: World) -> None:
    await world.dispatcher.stop_all(active=True, by="operator")


@pytest.mark.parametrize("place", Place)
async def test_stop_all_at_any_await_of_a_tick_wins(place: Place) -> None:
    world = await about_to_take(place, stop)
    written = len(world.homes.writes)
    if place not in AT_WRITES:
        assert [op for op in world.ops() if op is not CommandOp.RESERVE] == []
    await world.go(10)
    assert set(world.ops()[written:]) <= {CommandOp.RELEASE}
    assert world.authority() == ["DEVICE"] * 4
    assert (world.homes.mode == Mode.SELF_CONSUMPTION).all()
    assert world.journal.load().controlled == {}


@pytest.mark.parametrize("place", [Place.PLAN, Place.PLAN_DURABLE])
async def test_release_plan_of_a_device_that_was_not_written_is_taken_back(place: Place) -> None:
    world = await about_to_take(place, by_rest)
    ended = world.control.pending.owed(ControlEnded)
    assert [(change.devices, change.reason) for change in ended] == [(("home-01",), "not_taken")]


# -- what may not have arrived ----------------------------------------------------------------------------------------


async def test_lease_that_may_still_run_counts_where_a_write_with_a_shorter_one_is_cut_off() -> None:
    world = World(homes_of(4), settings=STEEP)
    await world.go(2)
    await world.submit(s=600, target_w=6_000)
    await world.go(3)
    before_ms = world.fleet.control.lease_end_mono_ms[:4].copy()
    await world.submit(s=40, target_w=3_000, revision=2)
    Halts(world, Place.WRITES_ALL, kill())
    with pytest.raises(Killed):
        await world.go(1)
    assert world.fleet.control.setpoint_w[:4].sum() == 3_000
    assert (world.fleet.control.lease_end_mono_ms[:4] >= before_ms).all()


# -- the process dies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", Place)
async def test_kill_at_any_await_of_a_tick_leaves_nothing_under_control_without_a_release_plan(place: Place) -> None:
    world = World(homes_of(4), settings=STEEP, facts=UNTIMED)
    world.homes.reserve_pct[3] = 10.0
    await world.go(2)
    await world.submit(s=600, target_w=6_000)
    Halts(world, place, kill())
    with pytest.raises(Killed):
        await world.go(1)
    remote = {f"home-{slot:02d}" for slot in (world.homes.mode == Mode.REMOTE).nonzero()[0]}
    assert remote <= world.journal.load().controlled.keys()
    world.restart(away_s=3)
    await world.dispatcher.cancel("e")
    await world.go(40)
    assert (world.homes.mode == Mode.SELF_CONSUMPTION).all()
    assert world.authority() == [Authority.DEVICE.name] * 4
    assert world.journal.load().controlled == {}

"""The owner's reserve as devices report it: what raises it counts at once, what lowers it once it is confirmed."""

import numpy as np
import pytest

from gateway.domain.commands import CommandOp
from gateway.domain.events.request import power
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.fleet.reserve import SUSTAINED_S
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.journal.changes import ReserveChanged
from gateway.services.checkpointing import fleet_columns, load_columns
from gateway.storage.checkpoint import Checkpoint, CheckpointHeader
from tests.builders.fakes import MemoryJournal, home
from tests.builders.homes import homes
from tests.scenes.street import Street
from tests.scenes.world import World, homes_of

LONG_S = round(SUSTAINED_S)


def chosen(journal: MemoryJournal) -> list[tuple[str, float]]:
    """The reserves that became durable, in order."""
    return [
        (device, pct)
        for change in journal.kept
        if isinstance(change, ReserveChanged)
        for device, pct in zip(change.devices, change.reserve_pct, strict=True)
    ]


def in_force(fleet: Fleet) -> list[float]:
    """The reserve of every device: in the columns, and as REST and an import see it."""
    kept: list[float] = fleet.nameplate.owner_reserve_pct[: fleet.n].tolist()
    assert [fleet.device(slot).reserve_pct for slot in range(fleet.n)] == kept
    return kept


async def at_the_floor() -> World:
    """Two homes in an event; the first has nothing above its reserve of 20 % and what its SoC may be wrong by."""
    world = World(homes_of(2))
    world.homes.soc_pct[:] = [22, 90]
    await world.go(2)
    await world.submit(s=7_200, target_w=8_000)
    await world.go(30)
    assert world.homes.battery_w.tolist() == [0, 5_000]
    return world


def restart(world: World, *, away_s: int) -> None:
    """The gateway dies; the next one finds the journal and a checkpoint of the moment before."""
    columns = fleet_columns(world.fleet, world.clock.now(), world.clock.boot)
    header = CheckpointHeader(
        record=0, session=0, utc_ms=world.clock.utc, rules=IntervalRules(length_s=300), ids=list(world.fleet.ids)
    )
    found = Checkpoint(header=header, columns={name: column.copy() for name, column in columns.items()})
    for _ in range(away_s):
        world.clock.advance(s=1)
        world.homes.report(answers=False)
    world._begin()
    load_columns(world.fleet, found, world.clock)
    world.homes.fleet, world.homes.answers = world.fleet, []
    world._attach()


# -- lower ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told_pct", [0, 10])
async def test_reserve_one_reading_that_is_lower_lowers_nothing(told_pct: float) -> None:
    world = await at_the_floor()
    world.homes.reserve_pct[0] = told_pct
    await world.go(1)
    world.homes.reserve_pct[0] = 20
    assert world.homes.battery_w[0] == 0
    await world.go(10)
    assert world.homes.battery_w[0] == 0
    assert (in_force(world.fleet), chosen(world.journal)) == ([20, 20], [])
    assert "reserve" in world.rows()["home-00"]["limits"]


async def test_reserve_lower_one_stays_out_of_force_until_it_is_confirmed() -> None:
    world = await at_the_floor()
    world.homes.reserve_pct[0] = 10
    highest_w: list[float] = []
    await world.go(LONG_S, each=lambda: highest_w.append(float(world.homes.battery_w[0])))
    assert max(highest_w) == 0
    assert (in_force(world.fleet), chosen(world.journal)) == ([20, 20], [])
    await world.go(20)
    assert (in_force(world.fleet), chosen(world.journal)) == ([10, 20], [("home-00", 10)])
    assert world.homes.battery_w[0] > 1_000


async def test_reserve_of_nothing_that_an_owner_wants_counts_once_it_is_confirmed() -> None:
    world = await at_the_floor()
    world.homes.reserve_pct[0] = 0
    await world.go(LONG_S + 20)
    assert (in_force(world.fleet), chosen(world.journal)) == ([0, 20], [("home-00", 0)])
    assert world.homes.battery_w[0] > 1_000


async def test_reserve_higher_one_counts_at_once_and_a_lower_one_after_it_does_not() -> None:
    world = await at_the_floor()
    world.homes.reserve_pct[1] = 95
    await world.go(1)
    assert world.homes.battery_w[1] == 0
    assert (in_force(world.fleet), chosen(world.journal)) == ([20, 95], [("home-01", 95)])
    world.homes.reserve_pct[1] = 30
    await world.go(LONG_S)
    assert world.homes.battery_w[1] == 0
    assert in_force(world.fleet) == [20, 95]
    await world.go(30)
    assert (in_force(world.fleet), chosen(world.journal)[1:]) == ([20, 30], [("home-01", 30)])
    assert world.homes.battery_w[1] > 1_000


@pytest.mark.parametrize("other_pct", [20, 10])
async def test_reserve_that_flaps_never_lowers(other_pct: float) -> None:
    world = await at_the_floor()
    for second in range(2 * LONG_S):
        world.homes.reserve_pct[0] = 0 if second % 2 else other_pct
        await world.go(1)
        assert world.homes.battery_w[0] == 0
    assert (in_force(world.fleet), chosen(world.journal)) == ([20, 20], [])


async def test_reserve_of_a_device_that_fell_silent_is_not_confirmed_by_time() -> None:
    world = await at_the_floor()
    world.homes.reserve_pct[0] = 0
    await world.go(1)
    world.homes.silent.add(0)
    await world.go(2 * LONG_S)
    assert (in_force(world.fleet), chosen(world.journal)) == ([20, 20], [])
    world.homes.silent.clear()
    await world.go(60)
    assert (in_force(world.fleet), chosen(world.journal)) == ([20, 20], [])


# -- restarts ---------------------------------------------------------------------------------------------------


async def test_reserve_that_was_not_confirmed_before_a_restart_begins_anew() -> None:
    world = await at_the_floor()
    world.homes.reserve_pct[0] = 10
    await world.go(LONG_S - 10)
    restart(world, away_s=30)
    await world.go(LONG_S)
    assert (in_force(world.fleet), chosen(world.journal)) == ([20, 20], [])
    assert world.homes.battery_w[0] == 0
    await world.go(20)
    assert (in_force(world.fleet), chosen(world.journal)) == ([10, 20], [("home-00", 10)])


async def test_reserve_after_a_restart_that_found_no_checkpoint_is_the_journals() -> None:
    world = await at_the_floor()
    world.homes.reserve_pct[0] = 0
    await world.go(LONG_S - 10)
    world.restart(away_s=5)
    await world.go(2 * LONG_S)
    # What a device tells first is no choice, however long it tells it.
    assert (in_force(world.fleet), chosen(world.journal)) == ([20, 20], [])
    assert world.homes.battery_w[0] == 0
    world.homes.reserve_pct[0] = 40
    await world.go(1)
    assert (in_force(world.fleet), chosen(world.journal)) == ([40, 20], [("home-00", 40)])


async def test_reserve_lowered_while_nobody_listened_is_a_choice_where_the_old_one_is_remembered() -> None:
    world = await at_the_floor()
    await world.go(5)
    restart(world, away_s=1)
    world.homes.reserve_pct[0] = 10
    await world.go(LONG_S + 20)
    assert chosen(world.journal) == [("home-00", 10)]


# -- what is written to devices ---------------------------------------------------------------------------------


async def test_reserve_that_an_owner_may_be_lowering_is_not_written_back() -> None:
    world = World(homes_of(1))
    await world.go(5)
    world.homes.reserve_pct[0] = 10
    await world.go(5)
    await world.submit(s=7_200, target_w=3_000)
    await world.go(30)
    # Controlled by the old reserve, which no device is asked to keep by itself.
    assert CommandOp.RESERVE not in world.ops()
    assert world.homes.battery_w[0] > 1_000
    assert in_force(world.fleet) == [20]
    await world.go(LONG_S)
    assert (in_force(world.fleet), float(world.homes.reserve_pct[0])) == ([10], 10)


async def test_reserve_below_the_registered_one_from_the_first_is_raised_before_control() -> None:
    world = World([home("a", reserve_pct=30.0)])
    world.homes.reserve_pct[0] = 10
    await world.go(5)
    await world.submit(s=600, target_w=3_000)
    await world.go(10)
    assert world.ops()[0] is CommandOp.RESERVE
    assert (float(world.homes.reserve_pct[0]), in_force(world.fleet)) == (30, [30])


# -- firmware that talks MQTT -----------------------------------------------------------------------------------


async def at_the_floor_over_mqtt() -> Street:
    """A simulated home whose battery has nothing above its reserve of 20 %, in an event; its messages are JSON."""
    street = Street(homes(2, soc_start_pct=np.array([22.0, 90.0]), reserve_pct=20.0))
    await street.go(2)
    await street.submit(s=7_200, target=power(6_000))
    await street.go(30)
    assert in_force(street.fleet) == [20, 20]
    return street


async def test_reserve_of_nothing_in_one_message_lowers_nothing() -> None:
    street = await at_the_floor_over_mqtt()
    batteries = street.devices.batteries
    for _ in range(20):
        batteries.reserve_pct[0] = 0
        await street.go(1)
        batteries.reserve_pct[0] = 20
        await street.go(5)
        assert batteries.battery_w[0] <= 0
    assert (in_force(street.fleet), chosen(street.journal), street.problems) == ([20, 20], [], [])


async def test_reserve_that_firmware_goes_on_telling_counts_in_the_end() -> None:
    street = await at_the_floor_over_mqtt()
    street.devices.batteries.reserve_pct[0] = 10
    await street.go(LONG_S - 10)
    assert (in_force(street.fleet), chosen(street.journal)) == ([20, 20], [])
    assert street.devices.batteries.battery_w[0] <= 0
    await street.go(40)
    assert chosen(street.journal) == [(street.homes.ids[0], 10)]
    assert street.devices.batteries.battery_w[0] > 500
    assert street.problems == []


async def test_reserve_that_goes_to_and_fro_between_lower_values_is_never_confirmed() -> None:
    world = World(homes_of(2))
    await world.go(2)
    for told_pct in (10, 7) * (LONG_S // 5):
        world.homes.reserve_pct[0] = told_pct
        await world.go(5)
    assert (in_force(world.fleet), chosen(world.journal)) == ([20, 20], [])

"""A device that its owner took back stays with its owner: through pauses, other events, revisions and restarts, until
the occurrence is over; its event does not get it again that day."""

from typing import Any

import pytest

from gateway.domain.commands import CommandOp
from gateway.domain.events.request import Leg, power
from gateway.domain.fleet.columns import Authority
from gateway.domain.journal.changes import TakenBack
from gateway.services.control.maintenance import NAMES, RECOVERY
from tests.scenes.world import World, group, homes_of

LEGS = (
    Leg(after_ms=0, until_ms=60_000, target=power(4_000.0)),
    Leg(after_ms=120_000, until_ms=240_000, target=power(4_000.0)),
)


async def running(**other: Any) -> World:
    """An event in which the owner of the first of three homes has just taken it back."""
    world = World(homes_of(3))
    await world.go(2)
    await world.submit(s=3_600, target_w=4_000.0, **other)
    await world.go(30)
    world.homes.revert(0)
    await world.go(3)
    assert world.authority() == ["OWNER", "CONTROLLED", "CONTROLLED"]
    return world


def powered(world: World, since: int) -> list[CommandOp]:
    """What the first home was told from the `since`-th command on."""
    return [op for slot, op, *_ in world.homes.writes[since:] if slot == 0]


async def test_take_back_is_journalled_in_the_tick_in_which_it_is_seen() -> None:
    world = await running()
    (taken,) = [change for change in world.journal.kept if isinstance(change, TakenBack)]
    assert (taken.event, taken.devices) == ("e", (world.devices[0].id,))
    assert world.clock.utc - 3_000 <= taken.at_ms < world.clock.utc


async def test_take_back_outlasts_a_pause_between_legs() -> None:
    start_ms = World(homes_of(1)).clock.utc + 2_000
    world = await running(legs=LEGS, start_ms=start_ms, end_ms=start_ms + 240_000)
    written = len(world.homes.writes)
    await world.go(150)
    assert world.homes.battery_w[1:].sum() == pytest.approx(4_000, rel=0.05), "the second leg runs"
    assert powered(world, written) == []


async def test_take_back_outlasts_a_short_event_of_higher_rank() -> None:
    world = await running()
    written = len(world.homes.writes)
    await world.submit("short", s=60, target_w=-3_000.0, priority=1)
    await world.go(150)
    assert world.homes.battery_w[1:].sum() == pytest.approx(4_000, rel=0.05), "the first event goes on"
    assert powered(world, written) == []


async def test_take_back_before_a_later_occurrence_outlasts_an_event_of_higher_rank() -> None:
    world = World(homes_of(3))
    await world.go(2)
    start_ms, legs = world.clock.utc, (Leg(after_ms=0, until_ms=60_000, target=power(4_000.0)),)
    await world.submit(
        s=3_600, target_w=4_000.0, start_ms=start_ms, every_ms=300_000, legs=legs, prepare_s=100.0
    )  # fmt: skip
    await world.go(240)
    world.homes.revert(0)
    await world.go(3)
    assert world.authority() == ["OWNER", "CONTROLLED", "CONTROLLED"]
    written = len(world.homes.writes)
    await world.submit("other", s=600, target_w=9_000.0, priority=1)
    await world.go(100)
    assert world.homes.battery_w[1:].sum() == pytest.approx(9_000, rel=0.05)
    assert powered(world, written) == []


async def test_take_back_outlasts_a_revision() -> None:
    world = await running()
    written = len(world.homes.writes)
    await world.submit(s=3_600, target_w=6_000.0, revision=2)
    await world.go(60)
    assert powered(world, written) == []


@pytest.mark.parametrize("when", ["at once", "in the pause"])
async def test_take_back_outlasts_a_kill_of_the_gateway(when: str) -> None:
    start_ms = World(homes_of(1)).clock.utc + 2_000
    world = await running(legs=LEGS, start_ms=start_ms, end_ms=start_ms + 240_000)
    if when == "in the pause":
        await world.go(40)
    world.restart(away_s=2)
    assert world.authority()[0] == "OWNER"
    written = len(world.homes.writes)
    await world.go(140)
    assert world.homes.battery_w[1:].sum() == pytest.approx(4_000, rel=0.05)
    assert powered(world, written) == []


async def test_lease_from_before_a_kill_that_ends_as_the_next_event_begins_is_no_take_back() -> None:
    world = World(homes_of(3))
    await world.go(2)
    await world.submit(s=60, target_w=9_000.0)
    await world.go(60)
    world.restart(away_s=1)
    left_s = (world.homes.lease_end_ms - world.clock.mono) // 1000
    await world.go(int(left_s[left_s > 0].min()))
    await world.submit("next", s=600, target_w=3_000.0)
    await world.go(20)
    assert world.authority() == ["CONTROLLED"] * 3
    assert list(world.journal.load().taken_back) == []


async def test_take_back_while_the_disk_refuses_is_durable_once_it_does_not() -> None:
    world = World(homes_of(3))
    await world.go(2)
    await world.submit(s=3_600, target_w=4_000.0)
    await world.go(30)
    world.journal.failing = True
    world.homes.revert(0)
    await world.go(3)
    world.journal.failing = False
    await world.go(1)
    world.restart(away_s=1)
    written = len(world.homes.writes)
    await world.go(60)
    assert powered(world, written) == []


@pytest.mark.parametrize("end", ["cancelled", "completed"])
async def test_take_back_ends_with_its_event_and_another_one_may_have_the_device(end: str) -> None:
    start_ms = World(homes_of(1)).clock.utc + 2_000
    world = await running(end_ms=start_ms + 60_000)
    if end == "cancelled":
        await world.dispatcher.cancel("e")
    await world.go(90)
    assert world.authority() == ["DEVICE"] * 3
    await world.submit("next", s=600, target_w=6_000.0)
    await world.go(30)
    assert world.authority() == ["CONTROLLED"] * 3


async def test_take_back_keeps_a_later_occurrence_of_the_same_day_away_and_its_record_says_so() -> None:
    start_ms = World(homes_of(1)).clock.utc + 2_000
    legs = (Leg(after_ms=0, until_ms=60_000, target=power(4_000.0)),)
    world = await running(legs=legs, start_ms=start_ms, every_ms=300_000, end_ms=start_ms + 3_600_000)
    await world.go(100)
    assert world.authority() == ["DEVICE"] * 3
    written = len(world.homes.writes)
    await world.go(200)
    assert world.homes.battery_w[1:].sum() == pytest.approx(4_000, rel=0.05), "the second occurrence runs"
    assert powered(world, written) == []
    assert world.rows()["home-00"]["status"] == "opted_out"


async def test_take_back_from_the_gateways_own_charging_is_not_undone_by_it() -> None:
    world = World(homes_of(1))
    world.dispatcher.taken_back.add({RECOVERY: [0]}, NAMES, world.clock.now())
    await world.submit(s=60, target_w=2_000.0, group=group("home-00"))
    await world.go(58)
    world.homes.soc_pct[:] = 10.0
    await world.go(60)
    assert world.homes.battery_w[0] == 0.0, "recovery leaves it alone"


async def test_take_back_that_is_over_when_the_gateway_starts_again_is_not_taken_for_one_of_another_event() -> None:
    world = await running()
    await world.dispatcher.cancel("e")
    await world.submit("next", s=3_600, target_w=4_000.0)
    world.restart(away_s=2)
    # what a checkpoint from before the cancellation says
    world.fleet.control.authority[0] = Authority.OWNER
    world.control.load(world.journal.load())
    await world.go(40)
    assert world.authority() == ["CONTROLLED"] * 3


async def test_take_back_that_only_the_checkpoint_of_a_release_before_knows_belongs_to_the_event_that_runs() -> None:
    world = World(homes_of(3))
    await world.go(2)
    await world.submit(s=3_600, target_w=4_000.0)
    world.restart(away_s=1)
    world.fleet.control.authority[0] = Authority.OWNER
    world.control.load(world.journal.load())
    await world.go(40)
    assert world.authority() == ["OWNER", "CONTROLLED", "CONTROLLED"]
    assert [one.event for one in world.journal.load().taken_back] == ["e"]

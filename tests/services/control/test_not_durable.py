"""While the journal fails nobody newly comes under control: what those could have given is told as unserved, with its
cause, others make up for them, and they come back once the disk takes their release plans."""

import math

import pytest

from gateway.domain.control.allocation import Shortfall
from gateway.domain.control.reach import SPREAD_PART, UNSENT_S_MAX
from gateway.domain.events.request import Target, Want, power
from gateway.services.control.metrics import control_samples
from tests.scenes.world import World, group, homes_of

TARGET_W = 8_000.0
BACK_S = round(UNSENT_S_MAX * (1 + SPREAD_PART)) + 1
"""After the disk is well again everybody is tried by then."""

RAMP_S = 20


async def street(n: int = 4) -> World:
    world = World(homes_of(n))
    return await world.go(2)


def undurable(world: World) -> float:
    found = [s for s in control_samples(world.queries) if s.name == "gateway_unreachable_devices"]
    return next(s.value for s in found if s.labels == (("cause", "not_durable"),))


async def failing_event(world: World, target: Target = power(TARGET_W)) -> None:  # noqa: B008 (frozen)
    """An event that was accepted just before the disk failed."""
    await world.submit(s=600, target_w=None, target=target)
    world.journal.failing = True
    await world.go(30)


async def test_event_that_nobody_can_be_commanded_for_is_told_as_unserved_with_its_cause() -> None:
    world = await street()
    await failing_event(world)
    told = world.progress()
    assert world.authority() == ["DEVICE"] * 4
    assert (told.target_w, told.delivered_w) == (TARGET_W, 0)
    assert (told.unserved_w, told.reason) == (TARGET_W, Shortfall.NOT_DURABLE)
    assert undurable(world) == 4
    for row in world.rows().values():
        assert (row["status"], row["failure"], row["unreachable"]) == ("failed", "unreachable", "not_durable")
    assert any("journal" in reason for reason in world.queries.reasons())


async def test_event_is_served_soon_after_the_disk_takes_its_release_plans() -> None:
    world = await street()
    await failing_event(world)
    world.journal.failing = False
    await world.go(BACK_S + RAMP_S)
    told = world.progress()
    assert told.delivered_w == pytest.approx(TARGET_W, rel=0.02)
    assert (told.unserved_w, told.reason) == (0, Shortfall.NONE)
    assert undurable(world) == 0
    assert {row["status"] for row in world.rows().values()} == {"delivering"}
    assert world.steps_w() <= 1.5 * world.settings.step_w, "no step of the fleet"


@pytest.mark.parametrize(
    "target",
    [
        Target(want=Want.DEVICE_POWER, power_w=2_000.0),
        Target(want=Want.DEVICE_POWER, power_w=-2_000.0),
        Target(want=Want.CHARGE_TO, soc_pct=90.0),
        Target(want=Want.BACKUP),
    ],
    ids=lambda target: f"{target.want.value}",
)
async def test_targets_of_each_device_that_nobody_can_be_told_are_unserved_too(target: Target) -> None:
    world = await street()
    await failing_event(world, target)
    told = world.progress()
    assert abs(told.target_w) > 500
    assert told.unserved_w == pytest.approx(told.target_w)
    assert told.reason is Shortfall.NOT_DURABLE
    world.journal.failing = False
    await world.go(BACK_S + RAMP_S)
    told = world.progress()
    assert told.reason is not Shortfall.NOT_DURABLE
    assert abs(told.commanded_w) > 500


@pytest.mark.parametrize("target_w", [8_000.0, 12_000.0, -12_000.0])
async def test_devices_under_control_make_up_for_those_that_cannot_be_taken(target_w: float) -> None:
    world = await street()
    await world.submit(s=600, target_w=math.copysign(2_000.0, target_w), group=group("home-00", "home-01"))
    await world.go(20)
    # accepted just before the disk fails
    await world.submit(s=600, target_w=target_w, revision=2)
    world.journal.failing = True
    await world.go(40)
    told, most_w = world.progress(), math.copysign(10_000.0, target_w)
    assert world.authority() == ["CONTROLLED", "CONTROLLED", "DEVICE", "DEVICE"]
    given_w = min(target_w, most_w, key=abs)
    assert told.delivered_w == pytest.approx(given_w, rel=0.02)
    assert told.unserved_w == pytest.approx(target_w - given_w)
    assert told.reason is (Shortfall.NONE if given_w == target_w else Shortfall.NOT_DURABLE)


async def test_devices_under_control_are_refreshed_and_delivered_while_the_disk_fails() -> None:
    world = await street()
    await world.submit(s=600, target_w=TARGET_W)
    await world.go(30)
    world.journal.failing = True
    await world.go(200)
    told = world.progress()
    assert told.delivered_w == pytest.approx(TARGET_W, rel=0.02)
    assert (told.unserved_w, told.reason) == (0, Shortfall.NONE)

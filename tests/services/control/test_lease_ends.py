"""A lease ends with its event: what happens when nobody is heard any more shortly before."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gateway.domain.commands import CommandOp, WriteOutcome
from gateway.domain.events.request import Leg, Target, Want, power
from gateway.domain.types import Mode
from gateway.services.control.lease_ends import ASKED_AT_ONCE
from tests.builders.fakes import FACTS
from tests.scenes.world import SETTINGS, World, group, homes_of

SPREAD_S = SETTINGS.release_spread_s
TARGET_W = 40_000.0
LENGTH_S = 90
FAST = SETTINGS.model_copy(update={"fleet_w_per_s": 20_000.0})
LATE_S = 1
"""A lease is whole seconds, and what runs out in a second is seen in the next."""


async def cut_off(s: int = LENGTH_S, *, before_s: int = 3, target_w: float = TARGET_W, **other: Any) -> World:
    """A fleet whose link is lost `before_s` before the end of its event; at once after that the trace begins."""
    world = World(homes_of(20), **({"settings": FAST} | other))
    await world.go(2)
    await world.submit(s=s, target_w=target_w)
    await world.go(s - before_s)
    assert world.homes.battery_w.sum() == pytest.approx(target_w, rel=0.02)
    world.homes.untold = dict.fromkeys(range(20), WriteOutcome.NOT_SENT)
    world.trace.clear()
    return world


async def test_lease_of_a_fleet_that_is_cut_off_ends_with_the_event_and_the_release_spread() -> None:
    world = await cut_off()
    await world.go(200)
    over_s = 3 + SPREAD_S + LATE_S
    assert max(world.trace[int(over_s) :]) == 0
    assert min(world.trace[:3]) == pytest.approx(TARGET_W, rel=0.02), "nobody leaves before the end"
    assert np.abs(np.diff(world.trace)).max() <= 0.25 * TARGET_W, "nor all at once"
    given_wh = sum(world.trace[3:]) / 3600
    assert given_wh <= TARGET_W * (SPREAD_S / 2 + LATE_S) / 3600


async def test_lease_of_a_fleet_that_is_heard_ends_as_it_is_released() -> None:
    cut = await cut_off()
    heard = await cut_off()
    heard.homes.untold = {}
    await cut.go(40)
    await heard.go(40)
    assert heard.ops().count(CommandOp.RELEASE) == 20
    assert np.abs(np.array(cut.trace) - np.array(heard.trace)).max() <= 2 * TARGET_W / 20


@pytest.mark.parametrize("s", [10, 30])
async def test_lease_of_a_short_event_is_as_short(s: int) -> None:
    world = await cut_off(s)
    assert max(lease_s for *_, lease_s, _ in world.homes.writes) <= s + SPREAD_S
    await world.go(100)
    assert max(world.trace[round(3 + SPREAD_S) + LATE_S :]) == 0


@pytest.mark.parametrize("later_s", [40, 80])
async def test_lease_of_a_short_event_in_a_longer_one_ends_with_the_longer_one(later_s: int) -> None:
    """A device goes from one event to another that is over before its lease, too: the last end counts."""
    world = World(homes_of(4), settings=FAST)
    await world.go(2)
    await world.submit("long", s=100, target_w=4_000.0)
    await world.go(100 - later_s)
    await world.submit("short", s=20, target_w=8_000.0, priority=1)
    await world.go(10)
    world.homes.untold = dict.fromkeys(range(4), WriteOutcome.NOT_SENT)
    left_s = (world.fleet.control.lease_end_mono_ms[:4] - world.clock.mono_ms()) / 1000
    assert left_s.min() > later_s - 10 - 4, "the longer one has them after the shorter one"
    assert left_s.max() <= later_s - 10 + SPREAD_S + LATE_S


@pytest.mark.parametrize("target", [power(TARGET_W), Target(want=Want.IDLE)], ids=["power", "idle"])
async def test_lease_is_cut_where_a_revision_brings_the_end_nearer(target: Target) -> None:
    world = World(homes_of(20), settings=FAST)
    await world.go(2)
    start_ms = world.clock.utc
    event: dict[str, Any] = {"s": 0, "target_w": None, "target": target, "start_ms": start_ms}
    await world.submit(end_ms=start_ms + 600_000, **event)
    await world.go(20)
    await world.submit(revision=2, end_ms=start_ms + 40_000, **event)
    await world.go(3)
    world.homes.untold = dict.fromkeys(range(20), WriteOutcome.NOT_SENT)
    await world.go(round(17 + SPREAD_S) + LATE_S)
    assert max(world.fleet.control.lease_end_mono_ms[:20]) <= world.clock.mono_ms()
    assert world.homes.battery_w.sum() == 0


async def test_lease_far_from_the_end_is_the_products_own() -> None:
    world = await cut_off(1_000, before_s=200, target_w=5_000.0)
    leases_s = [lease_s for _, op, _, lease_s, _ in world.homes.writes if op is CommandOp.SETPOINT]
    assert 72 <= min(leases_s) <= 75
    assert 115 <= max(leases_s) <= 120
    await world.go(60)
    assert world.trace[-1] > 0


async def test_lease_near_the_end_is_not_renewed_again_and_again() -> None:
    world = await cut_off(600, before_s=130, target_w=5_000.0)
    world.homes.untold = {}
    world.homes.writes.clear()
    await world.go(129)
    assert 20 <= len(world.homes.writes) <= 3 * 20
    assert world.homes.battery_w.sum() == pytest.approx(5_000, rel=0.02)


async def adjacent(first: float, second: float, **other: Any) -> World:
    """Two events one after the other; the link is lost just before the second."""
    world = World(homes_of(20), settings=FAST)
    await world.go(2)
    start_ms = world.clock.utc
    await world.submit("first", s=LENGTH_S, target_w=first)
    await world.submit("second", s=0, target_w=second, start_ms=start_ms + LENGTH_S * 1000,
                       end_ms=start_ms + 3_600_000, **other)  # fmt: skip
    await world.go(LENGTH_S - 3)
    world.homes.untold = dict.fromkeys(range(20), WriteOutcome.NOT_SENT)
    world.trace.clear()
    await world.go(25)
    return world


async def test_lease_goes_on_where_the_next_event_wants_the_same_way() -> None:
    assert min((await adjacent(TARGET_W, TARGET_W)).trace) == pytest.approx(TARGET_W, rel=0.02)


async def test_lease_ends_where_the_next_event_wants_the_other_way() -> None:
    assert max((await adjacent(TARGET_W, -TARGET_W)).trace[14:]) == 0


async def test_lease_ends_for_those_whom_the_next_event_does_not_have() -> None:
    world = await adjacent(TARGET_W, TARGET_W / 4, group=group("home-00", "home-01"))
    assert (world.homes.battery_w[:2] > 1_000).all()
    assert not world.homes.battery_w[2:].any()


async def test_lease_of_a_device_that_a_longer_event_has_too_is_not_cut() -> None:
    world = World(homes_of(4), settings=FAST)
    await world.go(2)
    await world.submit("long", s=3_600, target_w=4_000.0)
    await world.submit("short", s=LENGTH_S, target_w=8_000.0)
    await world.go(LENGTH_S - 3)
    world.homes.untold = dict.fromkeys(range(4), WriteOutcome.NOT_SENT)
    await world.go(25)
    assert (world.homes.battery_w > 0).all()


async def test_lease_over_legs_of_one_way_goes_on_and_ends_before_a_pause() -> None:
    world = World(homes_of(4), settings=FAST)
    await world.go(2)
    legs = tuple(
        Leg(after_ms=a * 1000, until_ms=u * 1000, target=t)
        for a, u, t in (
            (0, 60, power(8_000.0)), (60, 120, power(6_000.0)), (120, 180, Target(want=Want.SELF_CONSUMPTION)),
        )
    )  # fmt: skip
    await world.submit(s=180, target_w=8_000.0, legs=legs)
    await world.go(57)
    world.homes.untold = dict.fromkeys(range(4), WriteOutcome.NOT_SENT)
    await world.go(20)
    assert world.homes.battery_w.sum() == pytest.approx(8_000, rel=0.02)
    world.homes.untold = {}
    await world.go(40)
    world.homes.untold = dict.fromkeys(range(4), WriteOutcome.NOT_SENT)
    await world.go(20)
    assert world.homes.battery_w.sum() == 0


async def test_lease_of_a_time_that_cannot_be_set_is_the_whole_one() -> None:
    world = await cut_off(20, facts=replace(FACTS, lease_s=60, lease_step_s=60, overrun_s=30))
    assert min(lease_s for _, op, _, lease_s, _ in world.homes.writes if op is CommandOp.SETPOINT) >= 36


async def test_lease_of_a_device_that_waits_for_its_release_is_narrowed_and_not_renewed() -> None:
    world = await cut_off()
    world.homes.untold = {}
    await world.go(4)
    world.homes.writes.clear()
    world.fleet.nameplate.export_allowed[:20] = False
    await world.go(1)
    narrowed = [(slot, lease_s) for slot, op, _, lease_s, _ in world.homes.writes if op is not CommandOp.RELEASE]
    assert narrowed
    assert max(lease_s for _, lease_s in narrowed) <= SPREAD_S


async def test_device_is_not_taken_for_free_while_a_setpoint_on_its_way_is_still_valid() -> None:
    world = World(homes_of(2))
    await world.go(2)
    # commands wait somewhere; the device does not know that it has an event
    world.homes.unresponsive.add(0)
    await world.submit(s=600, target_w=4_000)
    await world.go(6)
    await world.dispatcher.cancel("e")
    for _ in range(12):
        await world.go(1)
        if world.authority()[0] == "RELEASING":
            break
    # it says that it is in its maker's mode, and that is true
    await world.go(3)
    assert world.authority()[0] == "RELEASING"
    # the setpoint arrives late, and the release that went after it is lost
    late = next(cmd for slot, op, _, _, cmd in world.homes.writes if slot == 0 and op is CommandOp.SETPOINT)
    world.homes.mode[0], world.homes.battery_w[0] = Mode.REMOTE, 2_000.0
    world.homes.cmd[0] = world.homes.in_force[0] = late
    world.homes.lease_end_ms[0] = world.clock.mono + 100_000
    world.homes.unresponsive.clear()
    await world.go(15)
    assert world.homes.battery_w.tolist() == [0, 0]
    assert world.authority() == ["DEVICE", "DEVICE"]


async def test_device_that_confirms_nothing_is_free_once_nothing_that_was_sent_is_valid() -> None:
    world = World(homes_of(2))
    await world.go(2)
    world.homes.unresponsive.add(0)
    await world.submit(s=600, target_w=4_000)
    await world.go(6)
    await world.dispatcher.cancel("e")
    await world.go(60)
    assert world.authority() == ["DEVICE", "DEVICE"]


async def test_lease_ends_of_many_events_are_looked_up_a_few_in_a_tick_and_all_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(homes_of(20))
    await world.go(2)
    for number in range(40):
        await world.submit(f"e{number}", s=60 + number, target_w=1_000.0, priority=10 + number)
    asked: list[int] = []
    claims = world.dispatcher.claims

    def counted(*args: Any) -> Any:
        asked[-1] += 1
        return claims(*args)

    monkeypatch.setattr(world.dispatcher, "claims", counted)
    for _ in range(20):
        asked.append(0)
        await world.go(1)
    assert max(asked) <= 1 + ASKED_AT_ONCE
    assert sum(asked) >= 20 + 40
    await world.go(110)
    assert not (world.homes.mode == Mode.REMOTE).any()

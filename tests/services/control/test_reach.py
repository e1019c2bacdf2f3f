"""Devices that report and cannot be told anything: others make up for them, they are tried now and then, and they come
back by themselves."""

import logging
from typing import Any

import numpy as np
import pytest

from gateway.api.views.dispatch import DispatchView
from gateway.domain.commands import CommandOp, WriteOutcome
from gateway.domain.control.reach import UNSENT_S_MAX, URGENT_S, WAIT_S_MAX
from gateway.domain.events.request import Target, Want
from gateway.domain.types import Mode
from gateway.services.control.metrics import control_samples
from gateway.services.settings import ControlSettings
from tests.scenes.world import SETTINGS, World, group, homes_of

FAILING = (WriteOutcome.NO_SUBSCRIBER, WriteOutcome.REFUSED, WriteOutcome.NOT_SENT)
TARGET_W = 40_000.0
STEP_W = 1_000.0
FIRST_MINUTES_S = 400
TRIES_MAX = 12
"""Pauses of 2, 4, 8, 16, 32 s and then a minute or more."""


def cut_off(world: World, slots: range, outcome: WriteOutcome = WriteOutcome.NO_SUBSCRIBER) -> None:
    world.homes.untold = dict.fromkeys(slots, outcome)


async def go(world: World, s: int) -> None:
    """Let `s` seconds pass while batteries fill and empty as they are used."""
    homes = world.homes

    def used() -> None:
        homes.soc_pct -= 100 * homes.battery_w / 3600 / 10_000

    await world.go(s, each=used)


async def street(n: int = 20, **other: Any) -> World:
    world = World(homes_of(n), **other)
    await go(world, 2)
    return world


def least_w(world: World, s: int = 10) -> float:
    """The least mean power of any `s` seconds on the way."""
    return float(np.convolve(world.trace, np.ones(s) / s, "valid").min())


def metric(world: World, cause: str) -> float:
    found = [s for s in control_samples(world.queries) if s.name == "gateway_unreachable_devices"]
    return next(s.value for s in found if s.labels == (("cause", cause),))


# -- others make up for them ------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", FAILING, ids=lambda o: o.name)
async def test_reach_devices_that_cannot_be_told_are_made_up_for(outcome: WriteOutcome) -> None:
    world = await street()
    cut_off(world, range(4), outcome)
    await world.submit(s=3600, target_w=TARGET_W)
    await go(world, 60)
    world.trace.clear()
    await go(world, FIRST_MINUTES_S)
    assert least_w(world) > 0.97 * TARGET_W
    assert world.progress().unserved_w == 0
    shown = world.rows()["home-00"]
    assert (shown["status"], shown["failure"], shown["unreachable"]) == ("failed", "unreachable", outcome.name.lower())
    assert world.rows()["home-19"]["status"] == "delivering"
    assert metric(world, outcome.name.lower()) == 4


@pytest.mark.parametrize("outcome", FAILING, ids=lambda o: o.name)
async def test_reach_devices_lost_in_mid_event_give_until_their_lease_ends_and_are_made_up_for(
    outcome: WriteOutcome,
) -> None:
    world = await street()
    await world.submit(s=3600, target_w=TARGET_W)
    await go(world, 60)
    cut_off(world, range(4), outcome)
    world.trace.clear()
    await go(world, FIRST_MINUTES_S)
    assert least_w(world) > 0.97 * TARGET_W
    assert max(world.trace) < 1.06 * TARGET_W
    assert world.progress().unserved_w == 0
    assert {row["failure"] for row in list(world.rows().values())[:4]} == {"unreachable"}


async def test_reach_share_is_given_to_others_in_the_next_tick() -> None:
    world = await street(settings=ControlSettings(fleet_w_per_s=1e9))
    cut_off(world, range(4))
    await world.submit(s=3600, target_w=TARGET_W)
    await go(world, 2)
    assert world.homes.battery_w.sum() == pytest.approx(TARGET_W, rel=0.01)


async def test_reach_what_the_others_cannot_make_up_is_unserved() -> None:
    world = await street()
    cut_off(world, range(18))
    await world.submit(s=3600, target_w=TARGET_W)
    await go(world, 90)
    assert world.progress().unserved_w == pytest.approx(TARGET_W - 10_000, rel=0.01)
    (found,) = [a for a in world.queries.availability() if a.group == "all"]
    assert found.devices == 2
    assert found.discharge_w[0] <= 2 * 5_000


@pytest.mark.parametrize("want", [Want.DEVICE_POWER, Want.BACKUP, Want.CHARGE_TO])
async def test_reach_devices_with_a_target_of_their_own_are_out_too(want: Want) -> None:
    world = await street()
    cut_off(world, range(4))
    power_w, soc_pct = (4_000.0 if want is Want.DEVICE_POWER else None), (90.0 if want is Want.CHARGE_TO else None)
    await world.submit(s=3600, target_w=None, target=Target(want=want, power_w=power_w, soc_pct=soc_pct))
    await go(world, 60)
    assert len([1 for slot, *_ in world.homes.writes if slot == 0]) <= TRIES_MAX / 2
    assert world.rows()["home-00"]["failure"] == "unreachable"
    assert world.rows()["home-19"]["failure"] is None


# -- others are not held up -------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", FAILING, ids=lambda o: o.name)
async def test_reach_device_that_cannot_be_told_is_tried_with_growing_pauses(outcome: WriteOutcome) -> None:
    world = await street()
    cut_off(world, range(4), outcome)
    await world.submit(s=3600, target_w=TARGET_W)
    await go(world, FIRST_MINUTES_S)
    tries = [len(world.homes.writes_to(slot)) for slot in range(4)]
    assert min(tries) >= 5
    assert max(tries) <= (FIRST_MINUTES_S / UNSENT_S_MAX + 2 if outcome is WriteOutcome.NOT_SENT else TRIES_MAX)


async def test_reach_reserve_that_cannot_be_told_is_tried_with_growing_pauses() -> None:
    world = World(homes_of(20))
    world.homes.reserve_pct[:4] = 5.0
    await go(world, 2)
    cut_off(world, range(4))
    await world.submit(s=3600, target_w=TARGET_W)
    await go(world, FIRST_MINUTES_S)
    assert len(world.homes.writes_to(0)) <= TRIES_MAX
    world.homes.untold = {}
    await go(world, round(1.25 * WAIT_S_MAX) + 20)
    assert world.homes.reserve_pct[0] == 20
    assert world.rows()["home-00"]["status"] == "delivering"


async def test_reach_event_whose_devices_cannot_be_told_holds_up_no_other() -> None:
    world, alone = await street(), await street()
    cut_off(world, range(15))
    names = [device.id for device in world.devices]
    for w in (world, alone):
        await w.submit("lost", s=3600, target_w=TARGET_W, group=group(*names[:15]))
        await w.submit("other", s=3600, target_w=15_000.0, group=group(*names[15:]))
        await go(w, 40)
        assert w.homes.battery_w[15:].sum() == pytest.approx(15_000, rel=0.01)
    assert world.progress("lost").unserved_w >= TARGET_W / 2


async def test_reach_devices_that_wait_take_no_turn_of_those_that_stop_by_themselves() -> None:
    world = await street()
    world.homes.own_w[:] = world.homes.battery_w[:] = 900.0
    cut_off(world, range(10))
    await world.submit(s=3600, target_w=None, target=Target(want=Want.IDLE))
    await go(world, 60)
    assert (world.homes.mode[10:] == Mode.REMOTE).all()
    assert world.homes.battery_w[10:].sum() == 0


# -- they come back ---------------------------------------------------------------------------------------------


async def test_reach_device_that_can_be_told_again_comes_back_by_itself_and_ramped() -> None:
    world = await street()
    cut_off(world, range(16))
    await world.submit(s=3600, target_w=TARGET_W)
    await go(world, 200)
    world.homes.untold = {}
    world.trace.clear()
    await go(world, round(1.25 * WAIT_S_MAX) + 40)
    assert world.trace[0] == pytest.approx(20_000, rel=0.01)
    assert world.homes.battery_w.sum() == pytest.approx(TARGET_W, rel=0.01)
    assert world.steps_w() <= 1.1 * STEP_W
    assert {row["failure"] for row in world.rows().values()} == {None}
    assert metric(world, "no_subscriber") == 0


async def test_reach_device_under_a_lease_is_tried_before_that_needs_to_be_renewed() -> None:
    world = await street(4)
    await world.submit(s=3600, target_w=8_000.0)
    await go(world, 60)
    cut_off(world, range(4))
    await world.submit(s=3600, target_w=6_000.0, revision=2)
    await go(world, 3)
    assert metric(world, "no_subscriber") == 4
    world.homes.untold = {}
    await go(world, 10)
    assert world.homes.battery_w.sum() == pytest.approx(6_000, rel=0.01)
    assert metric(world, "no_subscriber") == 0


async def test_reach_device_that_reports_to_be_back_is_tried_at_once() -> None:
    world = await street()
    cut_off(world, range(16))
    await world.submit(s=3600, target_w=TARGET_W)
    await go(world, 200)
    world.homes.offline = set(range(16))
    await go(world, 2)
    world.homes.untold, world.homes.offline = {}, set()
    await go(world, 3)
    assert (world.homes.mode == Mode.REMOTE).all()


async def test_reach_connection_that_is_back_has_control_back_within_5_s_and_ramped() -> None:
    world = await street()
    await world.submit(s=3600, target_w=TARGET_W)
    await go(world, 60)
    cut_off(world, range(20), WriteOutcome.NOT_SENT)
    await go(world, 130)
    assert world.homes.battery_w.sum() == 0
    world.homes.untold = {}
    world.trace.clear()
    await go(world, 5)
    assert world.homes.battery_w.sum() > 0
    await go(world, 50)
    assert world.homes.battery_w.sum() == pytest.approx(TARGET_W, rel=0.01)
    assert world.steps_w() <= 1.1 * STEP_W


async def test_reach_device_that_is_told_and_does_not_answer_is_not_counted_on() -> None:
    world = await street()
    cut_off(world, range(4))
    await world.submit(s=3600, target_w=TARGET_W)
    await go(world, 60)
    world.homes.untold, world.homes.unresponsive = {}, {0, 1, 2, 3}
    world.trace.clear()
    await go(world, 300)
    assert least_w(world, 30) > 0.97 * TARGET_W


async def test_reach_device_that_no_event_has_tried_for_long_is_unknown_again() -> None:
    world = await street(4)
    cut_off(world, range(4))
    await world.submit(s=60, target_w=4_000.0)
    await go(world, 60)
    assert metric(world, "no_subscriber") == 4
    await go(world, 1_000)
    assert metric(world, "no_subscriber") == 0


# -- handing back and narrowing do not wait ---------------------------------------------------------------------


@pytest.mark.fault("F24")
async def test_reach_narrowing_and_release_wait_for_seconds_only_and_get_through() -> None:
    world = await street(4)
    await world.submit(s=3600, target_w=16_000.0)
    await go(world, 60)
    cut_off(world, range(1))
    await go(world, 60)
    world.homes.writes.clear()
    world.homes.reserve_pct[:] = world.fleet.nameplate.owner_reserve_pct[:4] = 90.0
    await go(world, 20)
    tries = world.homes.writes_to(0)
    assert 20 / URGENT_S <= len(tries) <= 20 / URGENT_S + 3
    world.homes.untold = {}
    await go(world, round(URGENT_S) + 1)
    assert world.homes.battery_w[0] == 0


async def test_reach_release_that_could_not_be_told_is_tried_until_the_lease_is_over() -> None:
    world = await street(4)
    await world.submit(s=3600, target_w=16_000.0)
    await go(world, 55)
    cut_off(world, range(2))
    await world.dispatcher.cancel("e")
    await go(world, 40)
    releases = [op for op in world.ops(0) if op is CommandOp.RELEASE]
    assert 3 <= len(releases) <= 40 / URGENT_S + 4
    world.homes.untold = {}
    await go(world, round(URGENT_S) + 1)
    assert world.authority()[0] == "DEVICE"
    assert world.homes.mode[0] == Mode.SELF_CONSUMPTION


# -- what is told -----------------------------------------------------------------------------------------------


async def test_reach_is_logged_on_its_edges(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="gateway.services.control.reach")
    world = await street()
    cut_off(world, range(4))
    await world.submit(s=3600, target_w=TARGET_W)
    await go(world, 100)
    (said,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert {"count": 4, "new": 4, "first": "home-00", "reason": "no_subscriber"}.items() <= said.__dict__.items()
    world.homes.untold = {}
    await go(world, 100)
    assert [r.levelno for r in caplog.records] == [logging.WARNING, logging.INFO]


async def test_reach_record_names_the_cause_in_what_the_platform_is_told() -> None:
    world = await street(4)
    view = DispatchView(
        fleet=world.fleet, dispatcher=world.dispatcher, queries=world.queries, store=world.journal, clock=world.clock
    )
    cut_off(world, range(1))
    await world.submit(s=60, target_w=4_000.0)
    await go(world, 10)
    changed = world.control.records.changed(10)
    assert changed is not None
    (told,) = [row for row in view.delivery_reports(changed)["devices"] if row["device"] == "home-00"]
    assert (told["failure"], told["unreachable"]) == ("unreachable", "no_subscriber")
    await go(world, 100)
    assert world.rows()["home-00"]["unreachable"] == "no_subscriber"
    assert SETTINGS.release_spread_s < 100

"""Events that go on until further notice, on a fleet: what they command, record and tell, and how they end."""

from typing import Any

import pytest

from gateway.api.views.dispatch import DispatchView
from gateway.domain.events.lifecycle import OPEN_HORIZON_S
from gateway.domain.events.request import OPEN_MS, Leg, Target, Want, power
from gateway.domain.journal.changes import EventDelivered
from gateway.services.control.metrics import dispatch_samples
from gateway.services.settings import ProgramSettings
from tests.builders.fakes import FACTS
from tests.scenes.world import SETTINGS, World, group, homes_of

DAY_S = 86_400
TARGET_W = 4_000.0


async def running(s: int = 60, *, ago_s: float = 0, target_w: float | None = TARGET_W, **other: Any) -> World:
    """An event without an end that began `ago_s` before the gateway did."""
    world = World(homes_of(4), settings=SETTINGS)
    start_ms = world.clock.utc - round(1000 * ago_s)
    await world.submit(s=0, target_w=target_w, **({"start_ms": start_ms, "end_ms": OPEN_MS} | other))
    return await world.go(s)


def fleet_w(world: World) -> float:
    return float(world.homes.battery_w.sum())


def view(world: World) -> DispatchView:
    return DispatchView(
        fleet=world.fleet, dispatcher=world.dispatcher, queries=world.queries, store=world.journal, clock=world.clock
    )


def delivered(world: World) -> list[EventDelivered]:
    return [change for change in world.journal.kept if isinstance(change, EventDelivered)]


async def test_open_event_gives_whole_leases_and_never_one_that_ends_with_it() -> None:
    world = await running()
    assert fleet_w(world) == pytest.approx(TARGET_W, rel=0.02)
    left_s = (world.homes.lease_end_ms - world.clock.mono) / 1000
    assert (left_s > 0.2 * FACTS.lease_s).all()


async def test_open_event_is_given_an_end_and_its_devices_are_handed_back_then() -> None:
    world = await running()
    start_ms, end_ms = world.dispatcher.entries()[0].request.start_ms, world.clock.utc + 30_000
    await world.submit(s=0, target_w=TARGET_W, start_ms=start_ms, end_ms=end_ms, revision=2)
    await world.go(29)
    assert fleet_w(world) == pytest.approx(TARGET_W, rel=0.02)
    await world.go(30)
    assert (world.state(), set(world.authority())) == ("completed", {"DEVICE"})


async def test_open_event_that_is_cancelled_hands_its_devices_back() -> None:
    world = await running()
    await world.dispatcher.cancel("e")
    await world.go(30)
    assert (world.state(), set(world.authority())) == ("cancelled", {"DEVICE"})


async def test_open_event_loses_its_devices_to_a_bounded_one_of_higher_rank_and_gets_them_back() -> None:
    world = await running()
    await world.submit("short", s=60, target_w=-3_000.0, priority=1)
    await world.go(30)
    assert world.state() == "superseded"
    assert fleet_w(world) == pytest.approx(-3_000, rel=0.02)
    await world.go(60)
    assert (world.state("short"), world.state()) == ("completed", "active")
    assert fleet_w(world) == pytest.approx(TARGET_W, rel=0.02)


async def test_bounded_event_of_higher_rank_takes_some_devices_and_the_open_one_goes_on_with_the_others() -> None:
    world = await running()
    await world.submit("short", s=60, target_w=-1_000.0, priority=1, group=group("home-00"))
    await world.go(30)
    assert world.state() == "active"
    assert world.homes.battery_w[1:].sum() == pytest.approx(TARGET_W, rel=0.02)


async def test_open_event_goes_on_over_a_restart() -> None:
    world = await running()
    world.restart(away_s=20)
    await world.go(20)
    assert world.state() == "active"
    assert fleet_w(world) == pytest.approx(TARGET_W, rel=0.02)


async def test_open_event_of_a_daily_calendar_goes_on_over_a_restart() -> None:
    world = World(homes_of(2))
    leg = Leg(after_ms=0, until_ms=3_600_000, target=power(1_000.0))
    await world.submit(s=0, target_w=1_000.0, end_ms=OPEN_MS, legs=(leg,), every_ms=DAY_S * 1000)
    await world.go(10)
    world.restart(away_s=5)
    await world.go(20)
    assert fleet_w(world) == pytest.approx(1_000, rel=0.05)


async def test_most_of_an_open_event_would_last_for_the_horizon() -> None:
    world = await running(target_w=None)
    deliverable_wh = float(world.queries.envelope.deliverable_wh.sum()) if world.queries.envelope else 0.0
    assert deliverable_wh > 0
    assert fleet_w(world) == pytest.approx(deliverable_wh * 3600 / OPEN_HORIZON_S, rel=0.03)


async def test_open_event_has_a_record_for_each_day_that_it_runs() -> None:
    world = await running(ago_s=2 * DAY_S - 30, s=29)
    assert delivered(world) == []
    (row, *_) = world.rows().values()
    assert row["status"] == "delivering"
    await world.go(20)
    (kept,) = delivered(world)
    start_ms = world.dispatcher.entries()[0].request.start_ms
    assert (kept.occurrence_ms, kept.ended_ms) == (start_ms + DAY_S * 1000, start_ms + 2 * DAY_S * 1000)
    asked_wh = float(kept.columns["asked_wh"].sum())
    assert 0 < asked_wh < TARGET_W * 30 / 3600
    assert world.state() == "active", "the event itself goes on"
    rows = world.rows().values()
    assert {row["status"] for row in rows} == {"delivering"}
    assert sum(row["asked_wh"] for row in rows) == pytest.approx(TARGET_W * 18 / 3600, rel=0.02)


async def test_open_event_that_is_given_an_end_keeps_its_record_until_then() -> None:
    world = await running(ago_s=3 * DAY_S + 100)
    start_ms, end_ms = world.dispatcher.entries()[0].request.start_ms, world.clock.utc + 10_000
    await world.submit(s=0, target_w=TARGET_W, start_ms=start_ms, end_ms=end_ms, revision=2)
    await world.go(30)
    (kept,) = delivered(world)
    assert (kept.occurrence_ms, kept.ended_ms) == (start_ms + 3 * DAY_S * 1000, end_ms)


async def test_owner_who_takes_a_device_back_from_an_open_event_is_left_alone() -> None:
    world = await running()
    world.homes.revert(0)
    await world.go(60)
    assert world.authority()[0] == "OWNER"
    assert world.homes.battery_w[1:].sum() == pytest.approx(TARGET_W, rel=0.05)


async def test_open_event_is_shown_without_an_end_in_lists_and_reports() -> None:
    world = await running()
    (shown,) = (await view(world).page(None, 10)).events
    assert (shown.state, shown.end) == ("active", "open")
    ((told,),) = [body["events"] for body in view(world).event_reports()]
    assert told["end"] == "open"


@pytest.mark.parametrize(("ago_s", "warnings"), [(0, 0), (DAY_S, 1)])
async def test_open_event_that_runs_for_a_day_is_a_warning_and_every_one_is_counted(ago_s: int, warnings: int) -> None:
    world = await running(ago_s=ago_s)
    assert len(world.dispatcher.warnings()) == warnings
    (count,) = [
        one for one in dispatch_samples(world.dispatcher, world.queries) if one.name == "gateway_events_open_ended"
    ]
    assert count.value == 1
    await world.dispatcher.cancel("e")
    assert world.dispatcher.warnings() == []


async def test_program_that_may_not_run_open_events_refuses_them() -> None:
    programs = {"test": ProgramSettings(ceiling_mw=1.0, open_ended=False)}
    world = World(homes_of(1), programs=programs)
    answer = await world.submit(s=0, target_w=1.0, end_ms=OPEN_MS)
    assert (answer.outcome.value, answer.reason) == ("rejected", "open_end_not_allowed")


async def test_open_idle_event_keeps_devices_from_discharging_until_it_is_called_off() -> None:
    world = await running(target=Target(want=Want.IDLE))
    assert fleet_w(world) == 0
    assert world.state() == "active"

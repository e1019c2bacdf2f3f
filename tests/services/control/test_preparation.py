"""What batteries do for an event that is known and has not begun, as its program has it: late, moved, cancelled, killed
in the middle of it; and what a program that yields leaves to it."""

from dataclasses import replace

import pytest

from gateway.domain.commands import CommandOp
from gateway.domain.events.request import EventRequest
from gateway.domain.rules.preparation import AdjustmentWindow, KeepFrom, PreparationRules
from gateway.domain.rules.program import GridProgram, LeadNotice, ProgramVersion
from gateway.domain.rules.rates import DateRange
from gateway.domain.rules.stacking import StackingTerms
from gateway.domain.rules.values import Certainty, Effect, Evident, Rule
from tests.builders.fakes import FACTS
from tests.domain.events.test_preparation import rules
from tests.scenes.world import World, homes_of

OWN_W = 900.0
BLOCKS = replace(FACTS, blocks=True)
"""A product that can be kept from discharging and left free to charge."""


def program(name: str, preparation: PreparationRules, **other: object) -> GridProgram:
    version = ProgramVersion(program=name, name="1", zone="UTC", days=DateRange(), preparation=preparation)
    return GridProgram(id=name, zone="UTC", versions=(replace(version, **other),))  # type: ignore[arg-type]


def world(n: int, *programs: GridProgram, own_w: float = OWN_W) -> World:
    """Homes whose batteries give `own_w` in their maker's own mode."""
    found = World(homes_of(n), facts=BLOCKS, rules={one.id: one for one in programs})
    found.homes.own_w[:] = own_w
    for slot in range(n):
        found.homes.revert(slot)
    return found


def known(found: World, in_s: int, *, s: int = 60, target_w: float = 4_000.0, **other: object) -> EventRequest:
    """An event of the program `dear` that begins in `in_s` seconds."""
    start_ms = found.clock.utc + in_s * 1000
    times = {"start_ms": start_ms, "end_ms": start_ms + s * 1000, "program": "dear"}
    return found.event("known", s=s, target_w=target_w, **times | other)


async def test_energy_is_kept_from_when_the_program_says_and_at_once_for_an_event_that_comes_late() -> None:
    for keep_s, kept_after_s in ((50.0, 50), (500.0, 0)):
        found = world(2, program("dear", rules(keep_s=keep_s)))
        await found.go(2)
        await found.dispatcher.submit(known(found, 100))
        await found.go(kept_after_s or 1)
        if kept_after_s:
            assert found.homes.battery_w.sum() == 2 * OWN_W
        await found.go(5)
        assert found.homes.battery_w.sum() == 0
        await found.go(94 - kept_after_s)
        assert found.homes.battery_w.sum() < 2_000, "until the event begins"
        await found.go(10)
        assert found.homes.battery_w.sum() == pytest.approx(4_000, rel=0.02)
        assert found.steps_w() <= found.settings.fleet_w_per_s * 1.01


async def test_energy_is_kept_from_the_programs_notice_on_through_a_new_time_a_kill_and_a_cancellation() -> None:
    lead = Rule(value=LeadNotice(lead_s=100.0), effect=Effect.WARN, certainty=Certainty.VERIFIED, source="page")
    found = world(2, program("dear", rules(keep_s=KeepFrom.NOTICE), notice=lead))
    await found.go(2)
    event = known(found, 150)
    await found.dispatcher.submit(event)
    await found.go(45)
    assert found.homes.battery_w.sum() == 2 * OWN_W, "it is known before the notice"
    await found.go(10)
    assert found.homes.battery_w.sum() == 0
    moved = replace(event, revision=2, start_ms=event.start_ms + 90_000, end_ms=event.end_ms + 90_000)
    await found.dispatcher.submit(moved)
    await found.go(40)
    assert found.homes.battery_w.sum() == 2 * OWN_W
    await found.go(50)
    assert found.homes.battery_w.sum() == 0
    quiet = len(found.trace)
    found.restart(away_s=10)
    await found.go(20)
    assert max(found.trace[quiet:-1]) == 0
    await found.dispatcher.submit(replace(moved, revision=3, cancelled=True))
    await found.go(40)
    assert (found.homes.battery_w.sum(), set(found.authority())) == (2 * OWN_W, {"DEVICE"})


async def test_members_that_keep_their_energy_are_left_free_to_charge_unless_the_program_forbids_it() -> None:
    for from_pv, op in ((True, CommandOp.BLOCK), (False, CommandOp.HOLD)):
        found = world(2, program("dear", rules(keep_s=500.0, charge_from_pv=from_pv)))
        await found.go(2)
        await found.dispatcher.submit(known(found, 200))
        await found.go(100)
        assert found.homes.battery_w.sum() == 0
        assert {found.ops(slot)[-1] for slot in (0, 1)} == {op}


async def test_an_event_that_is_moved_takes_its_preparation_along_and_a_cancelled_one_lets_go_without_a_step() -> None:
    found = world(12, program("dear", rules(keep_s=100.0)))
    await found.go(2)
    event = known(found, 90, s=120)
    await found.dispatcher.submit(event)
    await found.go(30)
    assert found.homes.battery_w.sum() == 0
    moved = replace(event, revision=2, start_ms=event.start_ms + 200_000, end_ms=event.end_ms + 200_000)
    await found.dispatcher.submit(moved)
    await found.go(60)
    assert found.homes.battery_w.sum() == 12 * OWN_W, "nothing is kept so early"
    assert set(found.authority()) == {"DEVICE"}
    await found.go(130)
    assert (found.homes.battery_w.sum(), found.state("known")) == (0, "scheduled")
    await found.dispatcher.submit(replace(moved, revision=3, cancelled=True))
    await found.go(40)
    assert (found.homes.battery_w.sum(), set(found.authority())) == (12 * OWN_W, {"DEVICE"})
    assert found.steps_w() <= 4 * OWN_W, "they are given back one after the other"


async def test_a_gateway_that_is_killed_while_energy_is_kept_goes_on_keeping_it() -> None:
    found = world(2, program("dear", rules(keep_s=500.0)))
    await found.go(2)
    await found.dispatcher.submit(known(found, 200, s=120))
    await found.go(100)
    quiet = len(found.trace)
    found.restart(away_s=10)
    await found.go(80)
    assert max(found.trace[quiet:-1]) == 0
    await found.go(30)
    assert found.homes.battery_w.sum() == pytest.approx(4_000, rel=0.02)


async def test_batteries_are_charged_from_the_grid_outside_the_adjustment_window_of_the_baseline() -> None:
    permits = Rule(value=True, effect=Effect.CLIP, certainty=Certainty.VERIFIED, source="page")
    wants = rules(keep_s=300.0, charge_from_grid=True)
    window = Evident(value=AdjustmentWindow(from_s=150.0, until_s=0.0), certainty=Certainty.INFERRED, source="page")
    by_rules = (
        (program("dear", wants, grid_charge=permits), (True, True)),
        (program("dear", replace(wants, adjustment=window), grid_charge=permits), (True, False)),
        (program("dear", wants, grid_charge=replace(permits, value=False)), (False, False)),
        (program("dear", wants), (False, False)),
    )
    for dear, charged in by_rules:
        found = world(2, dear)
        await found.go(2)
        await found.dispatcher.submit(known(found, 300))
        trace_w: list[float] = []
        for s in (100, 150):
            await found.go(s)
            trace_w.append(float(found.homes.battery_w.sum()))
        assert tuple(w < 0 for w in trace_w) == charged, dear
        assert max(trace_w) <= 0


async def test_a_program_that_yields_leaves_its_members_to_a_known_event_and_takes_them_back() -> None:
    for yields in (True, False):
        tou = program("tou", PreparationRules(), stacking=StackingTerms(yields=yields))
        found = world(4, program("dear", rules(keep_s=100.0)), tou, own_w=0.0)
        await found.go(2)
        await found.submit("daily", s=3_600, target_w=2_000.0, program="tou", priority=1)
        await found.go(20)
        event = known(found, 60, s=60, priority=500)
        await found.dispatcher.submit(event)
        await found.go(20)
        kept = found.homes.battery_w.sum() == 0
        assert (kept, found.state("daily")) == ((True, "superseded") if yields else (False, "active"))
        await found.dispatcher.submit(replace(event, revision=2, cancelled=True))
        await found.go(20)
        assert found.homes.battery_w.sum() == pytest.approx(2_000, rel=0.02)
        assert found.state("daily") == "active"
        if not yields:
            assert min(found.trace[-40:]) > 1_900, "a preparation stops nothing that runs"
        assert found.steps_w() <= found.settings.fleet_w_per_s * 1.01

"""Exclusions of territories in force: in a running event within a tick, over a death, until they end; their bounds."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from gateway.domain.errors import InvalidInput
from gateway.domain.events import exclusions as bounds
from gateway.domain.events.areas import ProgramHomes
from gateway.domain.events.exclusions import Exclusion, Exclusions
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import ExclusionLifted, ExclusionSet
from gateway.domain.limits.types import reason_names
from gateway.domain.registry.territory import Area
from gateway.domain.types import Now, Slots
from gateway.services.events import excluding
from gateway.services.events.participation import Everybody
from tests.builders.fakes import FACTS, home
from tests.scenes.world import World, homes_of

HERE, THERE = {"postcode": "95404", "county": "Sonoma"}, {"postcode": "94107", "county": "San Francisco"}


def street(here: int = 1, there: int = 2) -> World:
    """Homes in two postcodes."""
    homes = [home(f"home-{i:02d}", **(HERE if i < here else THERE)) for i in range(here + there)]
    return World(homes)


def storm(world: World, name: str = "storm-7", /, *, s: float = 600, **other: object) -> Exclusion:
    named = {key: other.pop(key) for key in ("postcodes", "counties", "programs") if key in other}
    known: dict[str, object] = {
        "id": name, "reason": "storm", "from_ms": world.clock.utc, "until_ms": world.clock.utc + round(s * 1000),
        "area": Area(**(named or {"postcodes": ("95404",)})),  # type: ignore[arg-type]
    }  # fmt: skip
    return Exclusion(**(known | other))  # type: ignore[arg-type]


async def running(world: World, *, target_w: float = 6_000.0) -> World:
    await world.go(2)
    await world.submit(s=3_600, target_w=target_w)
    await world.go(30)
    assert world.homes.battery_w.min() > 1_000
    return world


@pytest.mark.parametrize("reason", ["storm", "utility_request"])
async def test_area_is_out_of_a_running_event_in_the_next_tick_and_back_when_its_time_is_over(reason: str) -> None:
    world = await running(street())
    assert await world.dispatcher.exclude(storm(world, s=60, reason=reason))
    await world.go(1)
    assert world.fleet.control.setpoint_w[0] == 0, "one tick"
    await world.go(30)
    assert world.homes.battery_w[0] == 0
    assert world.homes.battery_w.sum() == pytest.approx(6_000, rel=0.02), "the others make up for it"
    await world.go(70)
    assert world.homes.battery_w[0] > 1_000
    assert world.dispatcher.exclusions.all() == []
    assert isinstance(world.journal.kept[-1], ExclusionLifted) or world.journal.load().exclusions == ()


async def test_device_that_is_excluded_says_why_and_its_record_too() -> None:
    world = await running(street())
    await world.dispatcher.exclude(storm(world, reason="utility_request"))
    await world.go(5)
    assert world.authority()[0] == "DEVICE"
    assert reason_names(world.queries.reasons_of(0)) == ["excluded"]
    row = world.rows()["home-00"]
    assert (row["status"], row["failure"], row["limits"]) == ("failed", "excluded", ["excluded"])


async def test_area_is_still_out_after_the_gateway_died_in_mid_event() -> None:
    world = await running(street())
    asked = storm(world, s=120, reserve_pct=80.0, note="wind", reason="weather")
    assert await world.dispatcher.exclude(asked)
    world.restart(away_s=5)
    assert world.dispatcher.exclusions.all() == [asked]
    await world.go(30)
    assert world.homes.battery_w[0] == 0
    assert world.homes.battery_w[1] > 1_000
    await world.go(130)
    assert world.homes.battery_w[0] > 1_000


async def test_home_that_moves_in_or_is_new_is_out_in_the_next_tick() -> None:
    world = await running(street())
    await world.dispatcher.exclude(storm(world))
    await world.go(20)
    world.fleet.register(replace(world.fleet.device(1), **HERE), FACTS)  # type: ignore[arg-type]
    await world.go(1)
    assert world.fleet.control.setpoint_w[:2].tolist() == [0, 0]
    world.fleet.register(replace(world.fleet.device(0), **THERE), FACTS)  # type: ignore[arg-type]
    await world.go(30)
    assert world.homes.battery_w[0] > 1_000


async def test_home_that_a_running_event_of_an_excluded_program_names_never_gets_a_setpoint() -> None:
    world = street()
    await world.dispatcher.exclude(storm(world, programs=("test",), counties=("Sonoma",)))
    await world.go(2)
    await world.submit(s=600, target_w=6_000.0)
    await world.submit("other", s=600, target_w=6_000.0, program="else")
    await world.go(60)
    assert world.ops(0) == []
    assert world.homes.battery_w[1:].min() > 1_000


async def test_home_that_is_enrolled_in_an_excluded_program_is_out_of_every_event() -> None:
    class Enrolled(Everybody):
        slots: Slots = np.zeros(0, dtype=np.int32)

        def enrolled(self, program: str, _now: Now) -> Slots:
            return self.slots if program == "p" else np.zeros(0, dtype=np.int32)

    book = Enrolled()

    def participation(_fleet: Fleet) -> Enrolled:
        return book

    world = await running(World(homes_of(2), participation=participation), target_w=4_000.0)
    await world.dispatcher.exclude(storm(world, programs=("p",)))
    await world.go(5)
    assert world.homes.battery_w.min() > 1_000
    book.slots = np.array([1], dtype=np.int32)
    await world.go(2)
    assert (world.homes.battery_w[0] > 1_000, world.homes.battery_w[1]) == (True, 0)


async def test_above_a_raised_reserve_a_home_is_dispatched_and_below_it_it_is_not() -> None:
    world = street(1, 1)
    world.homes.soc_pct[:] = 70.0
    await running(world, target_w=8_000.0)
    await world.dispatcher.exclude(storm(world, reserve_pct=60.0, dispatch_above_reserve=True))
    await world.go(20)
    assert world.homes.battery_w[0] > 1_000
    await world.dispatcher.exclude(storm(world, reserve_pct=90.0, dispatch_above_reserve=True))
    await world.go(2)
    assert world.homes.battery_w[0] == 0
    assert "raised_reserve" in reason_names(world.queries.reasons_of(0))
    assert await world.dispatcher.lift("storm-7")
    await world.go(90)
    assert world.homes.battery_w[0] > 1_000


async def test_raised_reserve_holds_for_homes_that_no_event_has_and_the_owners_or_programs_higher_one_wins() -> None:
    world = street(2, 1)
    world.fleet.nameplate.owner_reserve_pct[1] = 90.0
    await world.dispatcher.exclude(storm(world, reserve_pct=60.0, dispatch_above_reserve=True))
    await world.go(2)
    allowed = world.queries.envelope
    assert allowed is not None
    unsure_pct = FACTS.soc_uncertainty_pct
    assert allowed.floor_pct.tolist() == [60 + unsure_pct, min(90 + unsure_pct, 100), 20 + unsure_pct]
    await world.submit(s=600, target_w=6_000.0, reserve_pct=75.0)
    await world.go(2)
    allowed = world.queries.envelope
    assert allowed is not None
    assert allowed.floor_pct[0] == 75 + unsure_pct


async def test_area_sent_again_changes_nothing_and_goes_on_since_it_began() -> None:
    world = street()
    first = storm(world, s=3_600, note="wind")
    assert await world.dispatcher.exclude(first)
    await world.go(30)
    again = replace(first, from_ms=world.clock.utc, by="the feed, again")
    assert await world.dispatcher.exclude(again)
    assert world.dispatcher.exclusions.all() == [first]
    assert sum(isinstance(change, ExclusionSet) for change in world.journal.kept) == 1
    longer = replace(again, until_ms=first.until_ms and first.until_ms + 1_000)
    assert await world.dispatcher.exclude(longer)
    assert world.dispatcher.exclusions.all() == [replace(longer, from_ms=first.from_ms)]


async def test_area_is_in_force_though_the_disk_refuses_and_durable_once_it_takes_it() -> None:
    world = await running(street())
    world.journal.failing = True
    assert not await world.dispatcher.exclude(storm(world))
    assert not await world.dispatcher.exclude(storm(world)), "the same again is no more durable"
    await world.go(2)
    assert world.fleet.control.setpoint_w[0] == 0
    world.journal.failing = False
    await world.go(2)
    assert [one.id for one in world.journal.load().exclusions] == ["storm-7"]


async def test_there_are_as_many_areas_as_a_tick_can_match(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excluding, "AREAS_MAX", 2)
    assert bounds.AREAS_MAX > 2
    world = street()
    for name in ("a", "b", "b"):
        await world.dispatcher.exclude(storm(world, name))
    with pytest.raises(InvalidInput, match="2 exclusions of areas"):
        await world.dispatcher.exclude(storm(world, "c"))
    done = await world.dispatcher.excluding.exclude_all(
        [storm(world, "c"), storm(world, "a", note="new"), storm(world, "b"), storm(world, "a", s=-1)]
    )
    assert (done.changed, done.unchanged, done.durable) == (1, 1, True)
    assert done.refused == {"c": "there are 2 exclusions of areas already", "a": "until: is over already"}


async def test_event_is_told_at_its_acceptance_how_many_of_its_homes_are_excluded_in_its_time() -> None:
    world = street(2, 3)
    later = world.clock.utc + 1_800_000
    await world.dispatcher.exclude(storm(world, "later", s=7_200, from_ms=later))
    answer = await world.submit(s=3_600, target_w=1_000.0)
    assert answer.warnings == ("2 of 5 devices are excluded at some time of the event: later",)
    assert (await world.submit("short", s=600, target_w=1_000.0)).warnings == ()


async def test_homes_are_counted_by_reason_and_nothing_of_where_they_are_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    world = street(2, 1)
    await world.dispatcher.exclude(storm(world, "a"))
    await world.dispatcher.exclude(storm(world, "b", reason="outage", counties=("San Francisco",)))
    found = world.dispatcher.excluding.homes()
    assert {reason: count for reason, count in found.items() if count} == {"storm": 2, "outage": 1}
    said = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert "exclusion set" in said
    assert not [word for word in ("95404", "Francisco") if word in said]


async def test_area_of_a_program_is_worked_out_once_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = street(1, 2)
    await world.dispatcher.exclude(storm(world, programs=("test",), counties=("Sonoma",)))
    # one that is over soon is looked ahead of in every tick
    await world.submit(s=100, target_w=6_000.0)
    await world.submit("next", s=1, target_w=6_000.0, start_ms=world.clock.utc + 90_000, end_ms=world.clock.utc + 10**6)
    await world.go(20)
    asked: list[str] = []
    whole = Exclusions.observe_programs

    def counted(exclusions: Exclusions, programs: ProgramHomes) -> None:
        before = exclusions.devices(world.fleet, exclusions.all()[0])
        whole(exclusions, programs)
        asked.extend("again" for _ in [0] if exclusions.devices(world.fleet, exclusions.all()[0]) is not before)

    monkeypatch.setattr(Exclusions, "observe_programs", counted)
    await world.go(20)
    assert asked == []

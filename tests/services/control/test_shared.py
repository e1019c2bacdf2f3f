"""Events that share devices: each is told what it gets, what of that others are credited with, and what it stops."""

import pytest

from gateway.domain.events.book import Outcome
from gateway.domain.events.request import EventKind
from gateway.schemas.event import answer_body
from tests.scenes.world import World, group, homes_of


async def two_on_one_group() -> World:
    """Forty and sixty kW of twenty homes."""
    world = World(homes_of(20))
    await world.go(2)
    await world.submit("first", s=3_600, target_w=40_000, priority=1, program="a")
    await world.submit("second", s=3_600, target_w=60_000, priority=2, program="b")
    return await world.go(150)


async def test_event_that_shares_its_group_is_told_what_serves_it_and_is_credited_to_another() -> None:
    world = await two_on_one_group()
    assert world.homes.battery_w.sum() == pytest.approx(60_000, rel=0.02)
    totals = world.queries.totals()
    assert totals["a"].attributed_w == pytest.approx(40_000, rel=0.02)
    assert totals["a"].shared_w == 0
    assert totals["b"].attributed_w == pytest.approx(20_000, rel=0.05)
    assert totals["b"].shared_w == pytest.approx(40_000, rel=0.02)
    assert totals["b"].unserved_w == 0


async def test_delivery_records_say_with_how_many_events_a_device_is_shared_and_which_energy_is_in_theirs_too() -> None:
    world = await two_on_one_group()
    for name in ("first", "second"):
        rows = [*world.rows(name).values()]
        assert {row["shared_with"] for row in rows} == {1}
        assert all(0 < row["shared_wh"] <= row["delivered_wh"] + 0.01 for row in rows)
    before_wh = sum(row["shared_wh"] for row in world.rows("second").values())
    await world.dispatcher.cancel("first")
    await world.go(60)
    rows = [*world.rows("second").values()]
    assert {row["shared_with"] for row in rows} == {0}
    assert sum(row["shared_wh"] for row in rows) == pytest.approx(before_wh, rel=0.05)


async def test_delivery_records_of_an_event_alone_share_nothing() -> None:
    world = World(homes_of(2))
    await world.go(2)
    await world.submit("e", s=600, target_w=4_000)
    await world.submit("dry", s=600, target_w=9_000, kind=EventKind.DRY_RUN)
    await world.go(30)
    assert {(row["shared_with"], row["shared_wh"]) for row in world.rows().values()} == {(0, 0.0)}


async def test_event_that_asks_for_less_than_the_group_does_by_itself_is_accepted_with_a_warning() -> None:
    world = World(homes_of(10))
    world.homes.own_w[:] = world.homes.battery_w[:] = 2_190.0
    await world.go(3)
    answer = await world.submit(s=600, target_w=20)
    assert answer.outcome is Outcome.ACCEPTED
    assert answer.warnings == (
        "the group discharges with 21900 W by itself now; the event asks for 20 W of it in all, "
        "and may end the other 21880 W of discharging",
    )
    assert answer_body(answer)["warnings"] == [*answer.warnings]


@pytest.mark.parametrize("target_w", [21_900.0, 19_990.0, 30_000.0, -20.0, None])
async def test_event_that_ends_nothing_of_its_way_has_no_warning(target_w: float | None) -> None:
    world = World(homes_of(10))
    world.homes.own_w[:] = world.homes.battery_w[:] = 2_190.0
    await world.go(3)
    assert (await world.submit(s=600, target_w=target_w)).warnings == ()


async def test_warning_counts_the_group_alone_and_only_what_is_heard_and_not_under_control() -> None:
    world = World(homes_of(10))
    world.homes.own_w[:] = world.homes.battery_w[:] = -1_000.0
    await world.go(3)
    few = await world.submit("few", s=600, target_w=-100, group=group("home-00", "home-01"))
    assert few.warnings
    assert few.warnings[0].startswith("the group charges with 2000 W by itself now; the event asks for 100 W")
    world.homes.silent.update(range(2, 10))
    await world.go(90)
    # two are under control and eight are not heard
    assert (await world.submit("all", s=600, target_w=-100)).warnings == ()


async def test_cancellation_and_a_target_that_asks_for_no_power_have_no_warning() -> None:
    world = World(homes_of(2))
    world.homes.own_w[:] = world.homes.battery_w[:] = 2_000.0
    await world.go(3)
    assert (await world.submit(s=600, target_w=20)).warnings
    assert (await world.dispatcher.submit(world.event(s=600, target_w=20, revision=2, cancelled=True))).warnings == ()
    assert (await world.submit("zero", s=600, target_w=0)).warnings == ()

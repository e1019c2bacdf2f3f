"""What others ask of control is answered from the newest tick, and changes nothing."""

import pytest

from gateway.domain.events.request import Compensation, Target, Want
from gateway.domain.limits.types import reason_names
from tests.scenes.world import World, homes_of


def test_queries_before_the_first_tick_know_nothing_and_say_so() -> None:
    world = World(homes_of(2))
    queries = world.queries
    assert (queries.envelope, list(queries.availability()), queries.totals()) == (None, [], {})
    assert queries.reasons_of(0) == 0
    assert queries.reasons() == ["control: no tick lately"]
    assert queries.idle()


async def test_queries_tell_how_an_event_is_doing_as_of_the_newest_tick() -> None:
    world = World(homes_of(2))
    await world.go(2)
    await world.submit(s=600, target_w=4_000)
    assert world.queries.idle()
    entry = world.dispatcher.entry("e")
    assert entry is not None
    assert (world.queries.progress(entry), world.queries.credit(entry)) == (None, None)
    await world.go(10)
    assert not world.queries.idle()
    assert world.progress().delivered_w == pytest.approx(4_000, rel=0.02)
    credit = world.queries.credit(entry)
    assert credit is not None
    assert credit.own_w == pytest.approx(4_000, rel=0.02)


async def test_queries_tell_why_a_device_may_not_discharge_more() -> None:
    world = World(homes_of(2))
    world.homes.soc_pct[1] = 20.0
    await world.go(2)
    assert "reserve" in reason_names(world.queries.reasons_of(1))
    assert "reserve" not in reason_names(world.queries.reasons_of(0))


async def test_queries_count_devices_that_keep_no_reserve_by_themselves() -> None:
    world = World(homes_of(3))
    world.homes.reserve_pct[1] = 10.0
    await world.go(2)
    assert world.queries.unguaranteed() == 1


async def test_queries_say_that_ticks_are_missing() -> None:
    world = World(homes_of(2))
    await world.go(2)
    assert world.queries.reasons() == []
    world.clock.advance(s=10)
    assert world.queries.reasons() == ["control: no tick lately"]


async def test_queries_credit_the_load_of_a_home_with_two_batteries_once() -> None:
    world = World(homes_of(2, site="home"))
    world.homes.load_w[:] = 1_000  # the home's, told by both
    await world.go(2)
    await world.submit("load", s=600, target_w=4_000, priority=1, compensation=Compensation.SITE_LOAD)
    await world.submit("exports", s=600, target_w=4_000, priority=2)
    await world.go(20)
    given_w = float(world.homes.battery_w.sum())
    assert given_w == pytest.approx(4_000, rel=0.02)
    for name, own_w in (("load", 1_000), ("exports", given_w - 1_000)):
        entry = world.dispatcher.entry(name)
        assert entry is not None
        credit = world.queries.credit(entry)
        assert credit is not None
        assert credit.own_w == pytest.approx(own_w, rel=0.01), name


async def test_queries_same_dispatch_of_meters_and_of_their_group_is_given_once() -> None:
    world = World(homes_of(4))
    await world.go(2)
    each = Target(want=Want.DEVICE_POWER, power_w=1_000.0)
    await world.submit("meters", s=600, target_w=None, target=each)
    await world.submit("group", s=600, target_w=4_000)
    await world.go(40)
    assert world.homes.battery_w.sum() == pytest.approx(4_000, rel=0.02)
    entries = [world.dispatcher.entry(name) for name in ("meters", "group")]
    credits = [world.queries.credit(entry) for entry in entries if entry is not None]
    own_w = [credit.own_w for credit in credits if credit is not None]
    assert sum(own_w) == pytest.approx(4_000, rel=0.02)
    assert len(own_w) == 2

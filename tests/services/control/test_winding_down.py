"""A stop that hands everything back: what the running events deliver meanwhile is what is measured."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.domain.control.progress import Progress
from tests.scenes.waiting import until
from tests.scenes.world import World, homes_of


async def stopped(world: World, *, each: Callable[[], None]) -> None:
    """Stop with release while the loop ticks."""
    async with asyncio.TaskGroup() as tasks:
        ending = tasks.create_task(world.control.shut_down(release=True), name="shut-down")
        for _ in range(200):
            if ending.done():
                break
            await world.go(1, each=each)
            await asyncio.sleep(0.01)
        await until(ending.done)


async def test_delivered_falls_with_what_is_measured_while_a_stop_hands_devices_back() -> None:
    world = World(homes_of(4))
    await world.go(2)
    await world.submit(s=600, target_w=8_000)
    await world.go(30)
    seen: list[tuple[float, Progress, float]] = []
    true_w = [8_000.0]

    def look() -> None:
        totals = world.queries.totals()["test"]
        # the tick knows the power of the report before it
        seen.append((true_w[-1], world.progress(), totals.delivered_w))
        true_w.append(float(world.homes.battery_w.sum()))

    await stopped(world, each=look)
    assert len(seen) > 4
    for measured_w, progress, delivered_w in seen:
        assert delivered_w == progress.delivered_w == pytest.approx(measured_w, abs=1)
        assert progress.unserved_w == pytest.approx(8_000 - measured_w, abs=1)
    assert seen[-1][0] < 4_000
    each_w = [row["measured_w"] for row in world.rows().values()]
    assert sum(each_w) < 4_000
    assert world.authority() == ["DEVICE"] * 4
    assert world.state() == "active"

"""The live stream: newest readings of what was heard, in parts, at a bounded rate; what is not taken is gone."""

import asyncio
from typing import Any

import numpy as np
import pytest

from gateway.clock import ManualClock
from gateway.domain.fleet.fleet import Fleet
from gateway.schemas.reports import LiveReport
from gateway.services.telemetry import live_feed as module
from gateway.services.telemetry.live_feed import LiveFeed
from tests.scenes.waiting import service
from tests.scenes.world import World, homes_of


class Told:
    """What was told; takes the first `takes` messages."""

    def __init__(self, takes: int = 10**9) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.takes = takes
        self.more = asyncio.Event()

    async def __call__(self, kind: str, body: dict[str, Any]) -> bool:
        assert kind == "live"
        LiveReport.model_validate(body)
        self.bodies.append(body)
        self.more.set()
        return len(self.bodies) <= self.takes

    @property
    def devices(self) -> list[str]:
        return [row["device"] for body in self.bodies for row in body["devices"]]


def heard(fleet: Fleet, clock: ManualClock, *slots: int) -> None:
    fleet.live.seen_mono_ms[list(slots)] = clock.now().mono_ms


async def rounds(feed: LiveFeed, monkeypatch: pytest.MonkeyPatch, *steps: Any) -> list[float]:
    """Let the feed go round once before each step and once after the last."""
    waits: list[float] = []
    real, left = asyncio.sleep, list(steps)
    done = asyncio.Event()

    async def sleep(s: float) -> None:
        waits.append(s)
        if s == 30.0:
            if not left:
                done.set()
                await real(3600)
            left.pop(0)()
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    async with service(feed.run):
        await asyncio.wait_for(done.wait(), 30)
    return waits


async def test_live_tells_only_what_was_heard_since_in_parts_at_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART", 2)
    world, told = World(homes_of(5)), Told()
    fleet, clock = world.fleet, world.clock
    fleet.live.seen_mono_ms[:5] = np.iinfo(np.int64).min // 2
    fleet.live.battery_w[:5] = [100.06, np.nan, 3, 4, 5]
    fleet.live.online[:5] = [1, 0, -1, 1, 1]
    feed = LiveFeed(fleet, clock, told, period_s=30.0, per_s=4.0)

    def later() -> None:
        clock.advance(s=7)
        heard(fleet, clock, 3)

    first = lambda: heard(fleet, clock, 0, 1, 2)  # noqa: E731
    waits = await rounds(feed, monkeypatch, first, later, lambda: None)
    assert told.devices == [*fleet.ids[:3], fleet.ids[3]]
    assert [len(body["devices"]) for body in told.bodies] == [2, 1, 1]
    assert [(r["battery_w"], r["online"]) for r in told.bodies[0]["devices"]] == [(100.1, True), (None, False)]
    assert told.bodies[1]["devices"][0]["online"] is None
    assert waits == [30.0, 0.5, 0.5, 30.0, 0.5, 30.0, 30.0]
    assert (feed.stats.published, feed.stats.dropped) == (4, 0)


async def test_live_that_the_peer_rejects_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    world, told = World(homes_of(3)), Told(takes=0)
    world.fleet.live.seen_mono_ms[:3] = np.iinfo(np.int64).min // 2
    feed = LiveFeed(world.fleet, world.clock, told, period_s=30.0, per_s=1e6)
    await rounds(feed, monkeypatch, lambda: heard(world.fleet, world.clock, 0, 2), lambda: None)
    assert len(told.bodies) == 1
    assert (feed.stats.published, feed.stats.dropped) == (0, 2)

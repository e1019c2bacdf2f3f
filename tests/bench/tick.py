"""Tick: one control tick over the whole fleet, every setpoint changing.

Limits, allocation, plan and bookkeeping at three fleet sizes, with a link that only counts and a journal that forgets:
what is left is arithmetic over columns. `growth_x`: cost per device at 100,000 over that at 10,000; more than 1 means
that the columns no longer fit the caches. The limit is memory traffic.
"""

import time
from typing import Any

from gateway.app.daemon import keep_memory
from gateway.clock import ManualClock
from tests.bench.rig import aim, percentile, pin, report
from tests.bench.wiring import CountingLink, NoJournal, event, make_fleet, readings, reference, steered

TARGETS_W = (2_000, 3_000)
PERIOD_S = 1.0


async def ticks_ms(devices: int, rounds: int) -> list[float]:
    """How long each tick took once the fleet is under control; every device is written in every one of them."""
    fleet, clock, link = make_fleet(devices, reference()), ManualClock(), CountingLink()
    desk = steered(fleet, link, NoJournal(), clock)
    took: list[float] = []
    for i in range(rounds + 2):
        now = clock.now()
        fleet.observe_live(readings(fleet, now), now)
        await desk.dispatcher.submit(event(i + 1, devices * TARGETS_W[i % 2], now))
        before, began = link.written, time.perf_counter()
        await desk.control.tick()
        took.append((time.perf_counter() - began) * 1000)
        assert link.written - before == devices, (link.written - before, devices)
        clock.advance(s=PERIOD_S)
    return took[2:]


async def run(*, quick: bool, sizes: tuple[int, ...] = (1_000, 10_000, 100_000)) -> dict[str, Any]:
    pin()
    keep_memory()
    rounds = 5 if quick else 30
    found: list[dict[str, Any]] = []
    for n in sizes:
        took = await ticks_ms(n, rounds)
        middle = percentile(took, 0.5)
        found.append(
            {
                "n": n,
                "rounds": rounds,
                "seconds": round(middle / 1000, 6),
                "us_per_item": round(middle / n * 1000, 4),
                "p99_ms": round(percentile(took, 0.99), 3),
                "best_ms": round(min(took), 3),
            }
        )
    growth = found[-1]["us_per_item"] / found[-2]["us_per_item"]
    return report(
        "tick",
        sizes=found,
        ratios={"growth_x": growth},
        aims={
            "tick_ms": aim(found[-1]["seconds"] * 1000, most=50.0),
            "growth_x": aim(growth, most=1.2),
        },
    )

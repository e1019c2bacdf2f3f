"""Tick: one control tick over the whole fleet, every setpoint changing.

Limits, allocation, plan and bookkeeping at three fleet sizes, with a link that only counts and a journal that forgets:
what is left is arithmetic over columns. `growth_x`: cost per device at 100,000 over that at 10,000; more than 1 means
that the columns no longer fit the caches. The limit is memory traffic. `passes_x`: a tick over one addition of two
float64 columns of the largest fleet, medians of CPU time of the same run: how many passes over a column it is worth.
"""

import time
from typing import Any

import numpy as np

from gateway.app.daemon import keep_memory
from gateway.clock import ManualClock
from tests.bench.rig import Meter, aim, percentile, pin, report
from tests.bench.wiring import CountingLink, NoJournal, event, make_fleet, readings, reference, steered

TARGETS_W = (2_000, 3_000)
PERIOD_S = 1.0
ADDITIONS = 500


async def ticks_ms(devices: int, rounds: int) -> tuple[list[float], list[float]]:
    """How long each tick took once the fleet is under control, by the wall and of CPU; every device is written in every
    one of them."""
    fleet, clock, link = make_fleet(devices, reference()), ManualClock(), CountingLink()
    desk = steered(fleet, link, NoJournal(), clock)
    took: list[float] = []
    cpu: list[float] = []
    for i in range(rounds + 2):
        now = clock.now()
        fleet.observe_live(readings(fleet, now), now)
        await desk.dispatcher.submit(event(i + 1, devices * TARGETS_W[i % 2], now))
        before, meter = link.written, Meter()
        await desk.control.tick()
        wall_s, cpu_s = meter.stop()
        took.append(wall_s * 1000)
        cpu.append(cpu_s * 1000)
        assert link.written - before == devices, (link.written - before, devices)
        clock.advance(s=PERIOD_S)
    return took[2:], cpu[2:]


def additions_ms(devices: int) -> list[float]:
    """CPU time of each of many additions of two columns."""
    one, other = np.full(devices, 1.0), np.full(devices, 2.0)
    took: list[float] = []
    for _ in range(ADDITIONS):
        began = time.process_time()
        one + other
        took.append((time.process_time() - began) * 1000)
    return took


async def run(*, quick: bool, sizes: tuple[int, ...] = (1_000, 10_000, 100_000)) -> dict[str, Any]:
    pin()
    keep_memory()
    rounds = 5 if quick else 30
    found: list[dict[str, Any]] = []
    cpu_ms: list[float] = []
    for n in sizes:
        took, cpu_ms = await ticks_ms(n, rounds)
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
    passes = percentile(cpu_ms, 0.5) / percentile(additions_ms(sizes[-1]), 0.5)
    growth = found[-1]["us_per_item"] / found[-2]["us_per_item"]
    return report(
        "tick",
        sizes=found,
        ratios={"growth_x": growth, "passes_x": passes},
        aims={
            "tick_ms": aim(found[-1]["seconds"] * 1000, most=50.0),
            "growth_x": aim(growth, most=1.2),
        },
    )

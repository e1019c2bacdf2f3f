"""Tick: one control tick over the whole fleet, every setpoint changing.

Limits, allocation, plan and bookkeeping at three fleet sizes, with a link that only counts and a journal that forgets:
what is left is arithmetic over columns. `growth_x`: cost per device at 100,000 over that at 10,000; more than 1 means
that the columns no longer fit the caches. The limit is memory traffic. `passes_x`: a tick over one addition of two
float64 columns of the largest fleet, medians of CPU time of the same run: how many passes over a column it is worth.
`territories_x`: CPU of a tick while 100 territories are excluded (above a reserve: as much is written) over that of one
without, and `territories_changed_ms`: that of finding out anew whom they cover, after one was set or a home has come.
"""

import time
from typing import Any

import numpy as np

from gateway.app.daemon import keep_memory
from gateway.clock import ManualClock
from gateway.domain.events.exclusions import Exclusion, Exclusions
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.registry.territory import Area
from tests.bench.rig import Meter, aim, percentile, pin, report
from tests.bench.wiring import CountingLink, NoJournal, event, make_fleet, readings, reference, steered

TARGETS_W = (2_000, 3_000)
PERIOD_S = 1.0
ADDITIONS = 500
TERRITORIES, POSTCODES, FEEDERS = 100, 2_000, 50


def excluded(number: int) -> Exclusion:
    """A territory of some postcodes."""
    area = Area(postcodes=tuple(str(one) for one in range(number, POSTCODES, TERRITORIES)))
    return Exclusion(
        id=f"area-{number}", reason="storm", area=area, from_ms=0, until_ms=None, reserve_pct=20.0,
        dispatch_above_reserve=True,
    )  # fmt: skip


def placed(fleet: Fleet) -> Fleet:
    """Every home in one of many postcodes."""
    for slot in range(fleet.n):
        fleet.nameplate.territory[slot] = fleet.territories.index(str(slot % POSTCODES), "", "", f"f-{slot % FEEDERS}")
    return fleet


def changed_ms(devices: int, rounds: int) -> list[float]:
    """CPU time of each working out of whom exclusions cover, in turn after one was set and after a home was
    registered."""
    fleet, clock = placed(make_fleet(devices, reference())), ManualClock()
    exclusions = Exclusions(excluded(number) for number in range(TERRITORIES))
    took: list[float] = []
    for i in range(rounds + 2):
        if i % 2:
            exclusions.set(one := excluded(i % TERRITORIES))
            exclusions.settle(one)
        else:
            fleet.version += 1
            fleet.nameplate.territory[i] = fleet.territories.index(f"new-{i}", "", "", "")
        began = time.process_time()
        exclusions.bits(fleet, clock.now())
        took.append((time.process_time() - began) * 1000)
    return took[2:]


async def ticks_ms(devices: int, rounds: int, territories: int = 0) -> tuple[list[float], list[float]]:
    """How long each tick took once the fleet is under control, by the wall and of CPU; every device is written in every
    one of them. So many `territories` are excluded."""
    fleet, clock, link = make_fleet(devices, reference()), ManualClock(), CountingLink()
    desk = steered(fleet, link, NoJournal(), clock)
    if territories:
        placed(fleet)
        for number in range(territories):
            desk.dispatcher.exclusions.set(excluded(number))
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
    _, with_them = await ticks_ms(sizes[-1], rounds, TERRITORIES)
    territories = percentile(with_them, 0.5) / percentile(cpu_ms, 0.5)
    anew_ms = percentile(changed_ms(sizes[-1], max(rounds, 10)), 0.5)
    growth = found[-1]["us_per_item"] / found[-2]["us_per_item"]
    return report(
        "tick",
        sizes=found,
        ratios={"growth_x": growth, "passes_x": passes, "territories_x": territories},
        aims={
            "tick_ms": aim(found[-1]["seconds"] * 1000, most=50.0),
            "growth_x": aim(growth, most=1.2),
            "territories_changed_ms": aim(anew_ms, most=10.0),
        },
    )

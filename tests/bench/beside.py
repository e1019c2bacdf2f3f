"""Beside: how late ticks are while a season report runs in the process beside the daemon, and without it.

Ticks of 10,000 devices, every setpoint changing, on their schedule in real time; the report (`season`) runs in a
process of its own, at the priority of the process that works out money, again and again until the ticks are over. Pairs
in turn, without it and with it. `more_p99_ms`: by how much the 99th percentile of lateness is more with it, median of
the pairs; `skipped`: ticks that began a whole period late, of all with it. A tick's lateness is from its due time to
its start.
"""

import asyncio
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from gateway.app.daemon import keep_memory
from gateway.clock import SystemClock
from tests.bench.rig import aim, percentile, report
from tests.bench.season import events_of, store_days, weekdays
from tests.bench.wiring import CountingLink, NoJournal, event, make_fleet, readings, reference, steered

PERIOD_S = 0.5
TARGETS_W = (2_000, 3_000)
PAIRS = 5
TICKS = 40
SITES, EVENTS = 500, 3
MORE_MS_MOST = 20.0


async def lateness_ms(devices: int, ticks: int) -> list[float]:
    """How late each tick began."""
    fleet, clock, link = make_fleet(devices, reference()), SystemClock(), CountingLink()
    desk = steered(fleet, link, NoJournal(), clock)
    loop = asyncio.get_running_loop()
    late: list[float] = []
    begin = loop.time() + PERIOD_S
    for number in range(ticks + 2):
        due = begin + number * PERIOD_S
        await asyncio.sleep(max(due - loop.time(), 0))
        late.append(max(loop.time() - due, 0.0) * 1000)
        now = clock.now()
        fleet.observe_live(readings(fleet, now), now)
        await desk.dispatcher.submit(event(number + 1, devices * TARGETS_W[number % 2], now))
        await desk.control.tick()
    return late[2:]


async def beside_a_report(state_dir: str, devices: int, ticks: int, sites: int) -> list[float]:
    """The same while a report runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.season", "for-ever", state_dir, str(sites), str(EVENTS),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"runs\n"
        late = await lateness_ms(devices, ticks)
        assert process.returncode is None, "the report ended before the ticks did"
        return late
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def run(
    *, quick: bool, devices: int = 10_000, pairs: int | None = None, ticks: int | None = None, sites: int = SITES
) -> dict[str, Any]:
    keep_memory()
    count, of = pairs or (1 if quick else PAIRS), ticks or (10 if quick else TICKS)
    last = max(one.day for one in events_of(EVENTS))
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as directory:
        store_days(Path(directory), sites, [day for day in weekdays() if day <= last])
        for number in range(count):
            without = await lateness_ms(devices, of)
            beside = await beside_a_report(directory, devices, of, sites)
            rows.append(
                {
                    "n": devices, "pair": number + 1, "ticks": of, "p99_ms": round(percentile(without, 0.99), 3),
                    "beside_p99_ms": round(percentile(beside, 0.99), 3),
                    "skipped": sum(one >= PERIOD_S * 1000 for one in beside),
                }
            )  # fmt: skip
    more = median(row["beside_p99_ms"] - row["p99_ms"] for row in rows)
    skipped = sum(row["skipped"] for row in rows)
    return report(
        "beside", sizes=rows, ratios={},
        aims={"more_p99_ms": aim(more, most=MORE_MS_MOST), "skipped": aim(skipped, most=0)},
    )  # fmt: skip

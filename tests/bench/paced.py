"""Pace: settlement telemetry as a fleet sends it, on one core: 10,000 devices once a second, 100,000 once in 10 s.

Each is 10,000 messages a second, from the socket to the acknowledgement after `fdatasync`; in the middle of what is
measured every device crosses the edge of an interval. `cpu_share`: our CPU (all threads) over the time that passed;
`behind_s`: how long the last acknowledgement came after the last message was due. The limit at this pace is what a
batch costs whatever is in it: the engine takes one about every 10 ms.
"""

import asyncio
import time
from typing import Any

from tests.bench.rig import Meter, aim, peer, percentile, pin, report
from tests.bench.wiring import wired

FLEETS = ((10_000, 1_000), (100_000, 10_000))
LENGTH_MS = 300_000
WARM_S, MEASURED_S = 10, 20
QUICK = ((200, 100), (1_000, 500))
CHECK_S = 0.002
TIMEOUT_S = 240


async def held(devices: int, step_ms: int, *, warm_s: int, measured_s: int) -> dict[str, Any]:
    """One fleet at its pace. `step_ms` lies between two messages of a device."""
    per_s = devices * 1000 // step_ms
    warm, messages = per_s * warm_s, per_s * (warm_s + measured_s)
    edge_ms = int(time.time() * 1000) // LENGTH_MS * LENGTH_MS
    begin_ms = edge_ms - 500 * (warm_s + measured_s)
    args = {"devices": devices, "messages": messages, "t-ms": begin_ms, "step-ms": step_ms, "per-s": per_s}
    texts = [text for name, value in args.items() for text in (f"--{name}", str(value))]
    async with peer(*texts) as port, wired(port, devices) as parts, asyncio.timeout(TIMEOUT_S):
        stats = parts.link.telemetry.stats
        while stats.acks_sent < warm:
            await asyncio.sleep(CHECK_S)
        waits: list[float] = []
        first, meter = stats.acks_sent, Meter()
        while stats.acks_sent < messages:
            mark, began = stats.rx_messages, time.perf_counter()
            while stats.acks_sent < mark:
                await asyncio.sleep(CHECK_S)
            waits.append(time.perf_counter() - began)
            await asyncio.sleep(CHECK_S)
        wall, cpu = meter.stop()
        assert parts.recorder.engine.totals.new == messages
        assert parts.log.rows >= devices, parts.log.rows
        return {
            "n": devices,
            "messages": messages - first,
            "seconds": round(wall, 3),
            "items_per_s": round((messages - first) / wall),
            "cpu_share": round(cpu / wall, 3),
            "cpu_us_per_item": round(cpu / (messages - first) * 1e6, 2),
            "behind_s": round(wall - (messages - first) / per_s, 3),
            "p99_ms": round(percentile(waits, 0.99) * 1000, 2),
            "worst_ms": round(max(waits) * 1000, 2),
        }


async def run(*, quick: bool) -> dict[str, Any]:
    pin()
    warm_s, measured_s = (1, 1) if quick else (WARM_S, MEASURED_S)
    sizes = [
        await held(devices, step_ms, warm_s=warm_s, measured_s=measured_s)
        for devices, step_ms in (QUICK if quick else FLEETS)
    ]
    return report(
        "paced",
        sizes=sizes,
        ratios={},
        aims={
            "cpu_share": aim(max(size["cpu_share"] for size in sizes), most=0.9),
            "behind_s": aim(max(size["behind_s"] for size in sizes), most=1.0),
        },
    )

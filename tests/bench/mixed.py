"""Mixed: a fan-out while settlement telemetry arrives as fast as it is taken, against the same fan-out idle.

`idle_x`: time from the event to the 99th of 100 acknowledgements, under load over idle, on the same connections;
`bound_x`: the fan-out under load over the bare loop of `fanout` (idle). Telemetry is spooled and acknowledged all the
while; afterwards it must go on, and every message acknowledged must have been counted once. What limits it is the
turn of the loop that is being ingested when the event comes, and the disk, which both the journal and the spool sync.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.fanout import Shot, bare, encoded, median, shoot, size
from tests.bench.rig import aim, peer, pin, report
from tests.bench.wiring import Wired, wired

DEVICES = 10_000
TELEMETRY = 60_000
CHECK_S = 0.005
TIMEOUT_S = 60


async def ingested(parts: Wired, messages: int) -> None:
    """Wait until that many more messages have been acknowledged."""
    stats = parts.link.telemetry.stats
    goal = stats.acks_sent + messages
    async with asyncio.timeout(TIMEOUT_S):
        while stats.acks_sent < goal:
            await asyncio.sleep(CHECK_S)


async def drained(parts: Wired) -> tuple[int, int]:
    """Stop reading and wait until all that was read is acknowledged: (acknowledged, counted as new samples)."""
    stats = parts.link.telemetry.stats
    parts.link.pause_telemetry(True)
    async with asyncio.timeout(TIMEOUT_S):
        while stats.acks_sent < stats.rx_messages:
            await asyncio.sleep(CHECK_S)
    return stats.acks_sent, parts.recorder.engine.totals.new


async def volley(t_ms: int, devices: int, rounds: int, *, loaded: bool) -> tuple[list[Shot], int]:
    """Fan-outs in a row, each of devices that are not under control yet; how many messages came meanwhile."""
    load = (str(TELEMETRY), "--again", "--t-ms", str(t_ms)) if loaded else ("0",)
    async with AsyncExitStack() as stack:
        args = ("--devices", str(devices), "--seconds", "120", "--messages", *load)
        port = await stack.enter_async_context(peer(*args))
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="gateway-bench-", dir=Path.cwd())))
        parts = await stack.enter_async_context(wired(port, devices))
        async with asyncio.timeout(TIMEOUT_S):
            await parts.link.control.wait_connected()
            await parts.link.telemetry.wait_connected()
        shots: list[Shot] = []
        for i in range(rounds):
            if loaded:
                await ingested(parts, TELEMETRY // 3)
            parts.fleet.control.authority[:] = 0
            parts.fleet.control.setpoint_w[:] = 0
            shots.append(await shoot(parts, directory, i + 1))
        if not loaded:
            return shots, 0
        await ingested(parts, TELEMETRY // 3)
        acknowledged, counted = await drained(parts)
        assert counted == acknowledged, (counted, acknowledged)
        return shots, counted


async def run(*, quick: bool, devices: int = DEVICES) -> dict[str, Any]:
    pin()
    rounds = 3 if quick else 15
    packets = encoded(devices)
    t_ms = int(time.time() * 1000) // 300_000 * 300_000
    idle, _ = await volley(t_ms, devices, rounds, loaded=False)
    loaded, counted = await volley(t_ms, devices, rounds, loaded=True)
    bound_s = median([await bare(packets) for _ in range(rounds)])
    found = [size(devices, shots, bound_s) for shots in (idle, loaded)]
    found[0]["load"], found[1]["load"] = "idle", "saturated"
    found[1]["messages_ingested"] = counted
    ratios = {
        "idle_x": found[1]["p99_ms"] / found[0]["p99_ms"],
        "bound_x": found[1]["seconds"] / bound_s,
    }
    return report(
        "mixed",
        sizes=found,
        ratios=ratios,
        aims={
            "idle_x": aim(ratios["idle_x"], most=1.5),
            "resumed_and_nothing_lost": {"aim": "counted == acknowledged", "value": counted, "met": True},
        },
    )

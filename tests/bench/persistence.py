"""Persistence: what it costs mosquitto to write what it holds, by how it is configured.

mosquitto writes everything anew each time: every minute, every second (as shipped), or after each change. First as it
runs every day: 50 devices send at an even pace to a gateway that acknowledges, beside retained messages (each size has
`retained` and `rate_per_s`); then one client alone, each time with messages already queued for a gateway that is away
(`queued`). `ratios` compare writing after each change with what is shipped, at the largest size.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gateway.transports.mqtt.connection import MqttConnection, OutMessage
from tests.bench.rig import percentile, report
from tests.scenes.brokers import BrokerProcess, mosquitto_process
from tests.scenes.mqtt_peers import Inbox, make_connection, make_settings, running, send

KINDS = {"each minute": "autosave_interval 60", "shipped": "", "each change": "autosave_on_changes true"}
PAYLOAD = b"x" * 184
CLIENTS = 50
SMALL: dict[str, Any] = {"receive_max": 100, "read_buffer_bytes": 4096, "max_packet_bytes": 4096}
ALONE = 200
FOREVER_MS = 2**62
TICK_S = 0.02


def written_bytes(broker: BrokerProcess) -> int:
    """What the broker's process has written so far, to sockets as well."""
    process = broker.child.process
    lines = Path(f"/proc/{process.pid if process else 0}/io").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


@asynccontextmanager
async def one_broker(kind: str) -> AsyncIterator[BrokerProcess]:
    lines = ["allow_anonymous true", *([KINDS[kind]] if KINDS[kind] else [])]
    with TemporaryDirectory() as directory:
        async with mosquitto_process(Path(directory), listener=lines) as broker:
            yield broker


async def every_day(kind: str, retained: int, rate_per_s: int, seconds: float) -> dict[str, Any]:
    """Devices and gateway both there."""
    inbox, waits_ms = Inbox(), list[float]()
    async with one_broker(kind) as broker, AsyncExitStack() as stack:
        homes = [
            await stack.enter_async_context(running(make_connection(make_settings(broker.url, f"home-{i}", **SMALL))))
            for i in range(CLIENTS)
        ]
        kept = [OutMessage(f"kept/{i}", PAYLOAD, retain=True) for i in range(retained)]
        await homes[0].publish(kept, deadline_mono_ms=FOREVER_MS)
        gateway = await stack.enter_async_context(
            running(make_connection(make_settings(broker.url, "gateway"), "t/+", inbox=inbox))
        )

        async def home(number: int, connection: MqttConnection, began: float) -> None:
            due = began + number / rate_per_s
            while due < began + seconds:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                sent = time.perf_counter()
                await send(connection, f"t/{number}", PAYLOAD)
                waits_ms.append((time.perf_counter() - sent) * 1000)
                due += CLIENTS / rate_per_s

        async def acknowledging() -> None:
            while True:
                await asyncio.sleep(TICK_S)
                inbox.acknowledge(gateway)

        acks = asyncio.create_task(acknowledging(), name="acks")
        before, began = written_bytes(broker), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number, connection in enumerate(homes):
                group.create_task(home(number, connection, began), name=f"home-{number}")
        spent_s = time.perf_counter() - began
        mb_per_s = (written_bytes(broker) - before) / spent_s / 1e6
        acks.cancel()
    return {
        "n": len(waits_ms), "kind": kind, "retained": retained, "rate_per_s": rate_per_s,
        "items_per_s": round(len(waits_ms) / spent_s), "written_mb_per_s": round(mb_per_s, 2),
        "p50_ms": round(percentile(waits_ms, 0.5), 2), "p99_ms": round(percentile(waits_ms, 0.99), 2),
    }  # fmt: skip


async def alone(kind: str, queued: int) -> dict[str, Any]:
    """One client, without waiting for each PUBACK, and no gateway."""
    async with one_broker(kind) as broker, AsyncExitStack() as stack:
        async with running(make_connection(make_settings(broker.url, "gateway"), "t/+")):
            pass
        # Many fill the queue: what they send in one turn of the broker's loop is written at once.
        homes = [
            await stack.enter_async_context(running(make_connection(make_settings(broker.url, f"home-{i}", **SMALL))))
            for i in range(CLIENTS)
        ]
        await asyncio.gather(*(send(home, "t/0", *[PAYLOAD] * (queued // CLIENTS)) for home in homes))
        began = time.perf_counter()
        await send(homes[0], "t/0", *[PAYLOAD] * ALONE)
        spent_s = time.perf_counter() - began
    return {"n": ALONE, "kind": kind, "queued": queued, "items_per_s": round(ALONE / spent_s)}


async def run(*, quick: bool) -> dict[str, Any]:
    loads, seconds = ([(0, 100)], 0.5) if quick else ([(1_000, 100), (10_000, 1_000)], 5.0)
    queues = (0,) if quick else (0, 5_000, 20_000)
    sizes = [await every_day(kind, *load, seconds) for load in loads for kind in KINDS]
    shipped, each_change = (
        next(size for size in reversed(sizes) if size["kind"] == kind) for kind in ("shipped", "each change")
    )
    ratios = {
        "each_change_written_x": round(each_change["written_mb_per_s"] / max(shipped["written_mb_per_s"], 0.01), 1),
        "each_change_p50_x": round(each_change["p50_ms"] / max(shipped["p50_ms"], 0.01), 1),
    }
    sizes += [await alone(kind, queued) for queued in queues for kind in ("shipped", "each change")]
    return report("persistence", sizes=sizes, ratios=ratios, aims={})

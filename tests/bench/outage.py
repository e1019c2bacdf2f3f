"""Outage: a receiver that falls silent (stopped, not closed) while the fleet goes on, for a minute and for a week.

The receiver is a process of its own that books every row by device, start and revision, and checks its content against
what that row must be. It is stopped with SIGSTOP, so that connections stay open and nothing answers. `minute` is real
time, with an edge every second; in `week` seven days of intervals are closed as fast as the log takes them. Then it
goes on, and what counts is that nothing is lost and nothing is there with different content, that memory is that of one
batch, and how long the backlog takes to drain. The limit of the drain is the interpreter: on this side a record is
read, put into words and compressed, on the other parsed and booked.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import numpy as np
import orjson
from aiohttp import web

from gateway.clock import ManualClock
from gateway.domain.intervals.records import RECORD_COLUMNS, IntervalRecords, sealed
from gateway.services.uplink.delivery import SinkDelivery
from gateway.services.uplink.resend import Resend
from gateway.sinks.http import HttpSink, HttpSinkSettings
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.interval_log.query import IntervalQueries
from gateway.storage.recovery import Unlogged
from tests.bench.rig import aim, report, rss_kib

T0_MS = 1_800_000_000_000
LENGTH_S = 900
BEFORE = 8
CALM_S = 0.05
DRAIN_S = 900.0
SILENT_S = 60.0


def energy_wh(device: int, index: int) -> float:
    """What an interval must hold, so that the receiver can tell."""
    return float((device * 31 + index * 17) % 1000)


def closes_of(devices: int, index: int) -> IntervalRecords:
    """An edge: one interval of every device."""
    columns = {name: np.zeros(devices, dtype=dtype) for name, dtype in RECORD_COLUMNS.items()}
    columns["slots"] = np.arange(devices, dtype=np.int32)
    columns["start_ms"] = np.full(devices, T0_MS + index * LENGTH_S * 1000)
    columns["length_s"] = np.full(devices, LENGTH_S)
    columns["revision"] = np.ones(devices, dtype=np.int32)
    columns["charge_wh"] = np.array([energy_wh(device, index) for device in range(devices)])
    return sealed(IntervalRecords(**columns))


# -- the receiver, a process of its own ----------------------------------------------------------------------


class Book:
    """What came, by device and interval."""

    def __init__(self, devices: int, intervals: int) -> None:
        self.seen = np.zeros((devices, intervals), dtype=np.uint8)
        self.wrong = 0
        self.newest = -1

    async def take(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        for row in body["intervals"]:
            device = int(row["device"][4:])
            index = (_ms(row["start"]) - T0_MS) // (LENGTH_S * 1000)
            self.seen[device, index] += self.seen[device, index] < 255
            self.wrong += row["charge_wh"] != energy_wh(device, index) or row["revision"] != 1
            self.newest = max(self.newest, index)
        return web.json_response({"batch": body["batch"], "accepted": len(body["intervals"])})

    async def tell(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "missing": int((self.seen == 0).sum()),
                "repeated": int((self.seen > 1).sum()),
                "different": self.wrong,
                "received": int((self.seen > 0).sum()),
                "newest": self.newest,
            }
        )


def _ms(text: str) -> int:
    days = np.datetime64(text[:-1], "ms")
    return int(days.astype(np.int64))


async def receive(devices: int, intervals: int) -> None:
    book = Book(devices, intervals)
    app = web.Application(client_max_size=1 << 30)
    app.add_routes([web.post("/intervals", book.take), web.get("/report", book.tell)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


@asynccontextmanager
async def receiver(devices: int, intervals: int) -> AsyncIterator[tuple[int, int]]:
    """Its process and port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.outage", "--devices", str(devices), "--intervals", str(intervals),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process.pid, int(await asyncio.wait_for(process.stdout.readline(), 60))
    finally:
        process.kill()
        await process.wait()


# -- the gateway's side ----------------------------------------------------------------------------------------


class Rig:
    """Log and delivery, fed edge by edge."""

    def __init__(self, devices: int, log: IntervalLog, delivery: SinkDelivery, clock: ManualClock) -> None:
        self.devices, self.log, self.delivery, self.clock = devices, log, delivery, clock
        self.ids = [f"bat-{i:05d}" for i in range(devices)]
        self.index = 0
        self.peak_kib = 0

    async def edge(self) -> None:
        await self.log.append(
            [Unlogged(record=self.index + 1, records=closes_of(self.devices, self.index), ids=self.ids)]
        )
        self.index += 1
        self.clock.advance(s=LENGTH_S)
        self.delivery.news.set()
        self.peak_kib = max(self.peak_kib, rss_kib())

    async def drained(self) -> None:
        async with asyncio.timeout(DRAIN_S):
            while self.delivery.position.backfill or await self.log.backlog(self.delivery.position):
                self.peak_kib = max(self.peak_kib, rss_kib())
                await asyncio.sleep(CALM_S)


async def outage(name: str, devices: int, edges: int, silent: Callable[[Rig], Any]) -> dict[str, Any]:
    """One outage: before it all is well, after it something new comes first and then the rest."""
    total = BEFORE + edges + 1
    clock = ManualClock(utc_ms=T0_MS)
    async with receiver(devices, total) as (pid, port):
        with TemporaryDirectory(prefix="gateway-bench-", dir=Path.cwd()) as directory:
            async with (
                IntervalLog(Path(directory), clock=clock) as log,
                IntervalQueries(log.files_from, log.check) as queries,
            ):
                settings = HttpSinkSettings(
                    kind="http", name="receiver", url=f"http://127.0.0.1:{port}/intervals", timeout_s=2.0,
                )  # fmt: skip
                sink = HttpSink(settings)
                delivery = SinkDelivery(
                    sink, log_=log, finder=Resend(log, queries, clock), clock=clock, rng=random.Random(1), rate=1e9
                )
                rig = Rig(devices, log, delivery, clock)
                task = asyncio.create_task(delivery.run(), name="delivery")
                try:
                    return await _measured(name, rig, pid, port, edges, silent)
                finally:
                    task.cancel()
                    await sink.close()


async def _measured(
    name: str, rig: Rig, pid: int, port: int, edges: int, silent: Callable[[Rig], Any]
) -> dict[str, Any]:
    for _ in range(BEFORE):
        await rig.edge()
    await rig.drained()
    calm_kib, rig.peak_kib = rss_kib(), 0
    os.kill(pid, signal.SIGSTOP)
    began = time.perf_counter()
    await silent(rig)
    silent_s = time.perf_counter() - began
    assert rig.index == BEFORE + edges
    backlog = await rig.log.backlog(rig.delivery.position)
    os.kill(pid, signal.SIGCONT)
    resumed = time.perf_counter()
    await rig.edge()
    await rig.drained()
    drain_s = time.perf_counter() - resumed
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/report") as reply:
        told = await reply.json()
    rows = rig.devices * (edges + 1)
    return {
        "n": rig.devices, "outage": name, "rows": rows, "silent_s": round(silent_s, 1), "backlog": backlog,
        "seconds": round(drain_s, 2), "items_per_s": round(rows / drain_s), "lost": told["missing"],
        "different": told["different"], "repeated": told["repeated"],
        "memory_mib": round((rig.peak_kib - calm_kib) / 1024, 1),
    }  # fmt: skip


async def a_minute(rig: Rig, seconds: float) -> None:
    """Real time: an edge every second."""
    until = time.perf_counter() + seconds
    for second in range(round(seconds)):
        await rig.edge()
        await asyncio.sleep(max(until - seconds + second + 1 - time.perf_counter(), 0.0))


async def a_week(rig: Rig, edges: int) -> None:
    for _ in range(edges):
        await rig.edge()


async def run(
    *, quick: bool, devices: int | None = None, silent_s: float | None = None, week: int | None = None
) -> dict[str, Any]:
    devices = devices or (100 if quick else 10_000)
    silent_s = silent_s or (5.0 if quick else SILENT_S)
    week = week or (96 if quick else 7 * 86_400 // LENGTH_S)
    sizes = [
        await outage("minute", devices, round(silent_s), lambda rig: a_minute(rig, silent_s)),
        await outage("week", devices, week, lambda rig: a_week(rig, week)),
    ]
    lost = sum(size["lost"] for size in sizes)
    different = sum(size["different"] for size in sizes)
    memory = max(size["memory_mib"] for size in sizes)
    return report(
        "outage", sizes=sizes, ratios={},
        aims={
            "lost": aim(lost, most=0), "different": aim(different, most=0), "memory_mib": aim(memory, most=64),
        },
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--intervals", type=int, required=True)
    args = parser.parse_args()
    asyncio.run(receive(args.devices, args.intervals))

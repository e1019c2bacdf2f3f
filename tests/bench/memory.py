"""Memory: what one more MQTT device costs, and what it must not cost: tasks, timers, collector work, scrape blocks.

A fresh child process imports everything and makes the object graph without devices; then devices are enrolled, each
sends live and settlement messages of two intervals through the link's own receivers, and control ticks once. The
difference in resident memory over the number of devices is what counts, taken before the tick: its working memory,
which the allocator keeps for the next one, is reported beside it. A device is about 370 bytes of fleet columns and 430
of interval columns (two intervals, two counters, what was received; more for one that was silent for long), its id and
its home's name with their places in an index, its enrollment, and what the growing left. The scrape is of 10,000
series, the longest turn of the loop while it is answered.
"""

import argparse
import asyncio
import gc
import importlib
import json
import pkgutil
import sys
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import mqtt5
import orjson
from aiohttp import web

import gateway
from gateway.api.access.callers import Callers
from gateway.api.access.refusals import Refusals
from gateway.api.app import Parts, make_app
from gateway.api.guard import Doorway
from gateway.clock import ManualClock, SystemClock
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.types import IntervalRules
from gateway.links.mqtt.messages import MqttLink, MqttLinkSettings
from gateway.observability.metrics import Sample, registry
from gateway.services.devices.import_rows import parse_rows
from gateway.services.devices.registry import DeviceRegistry
from gateway.services.telemetry.ingest import Ingest
from gateway.services.telemetry.recorder import Recorder
from gateway.transports.mqtt.settings import MqttSettings
from tests.bench.blaster import DEVICE, telemetry
from tests.bench.rig import aim, percentile, report, rss_kib
from tests.bench.wiring import CountingLog, NoAnswers, NoJournal, recording, reference, steered
from tests.builders.fakes import NothingRaw
from tests.scenes.waiting import service

TIMEOUT_S = 120
READ = 100
INTERVALS = 2
LENGTH_S = 300
IMPORT = 1_000
IDLE_S = 0.1
WARM_UP = 10_000
SERIES = 10_000
FAMILIES = 100
SOURCES = 20
SCRAPES = 5


def live(device: int, t_ms: int) -> bytes:
    """A live message as the reference firmware sends it."""
    return orjson.dumps(
        {
            "id": DEVICE.format(device), "t": t_ms, "battery_w": 0.0, "soc_pct": 55.5, "soc_step_pct": 0.1,
            "temp_c": 25.0, "discharge_w_max": 5000.0, "charge_w_max": 5000.0, "reserve_pct": 20.0, "pv_w": 300.0,
            "load_w": 400.0, "grid_w": 100.0, "mode": "self_consumption", "grid": "on", "faults": 0, "cmd": 0,
        }
    )  # fmt: skip


async def say(link: MqttLink, devices: int, messages: int, t_ms: int, step_s: int) -> None:
    """So many live and settlement messages, of one device after the other, in reads of some. `step_s` lies between two
    settlement messages of a device, the last of which is of `t_ms`."""
    for first in range(0, messages, READ):
        some = [divmod(k, devices) for k in range(first, min(first + READ, messages))]
        topics = [f"gateway/v1/devices/{DEVICE.format(i)}" for _, i in some]
        packets = [
            mqtt5.PublishPacket(f"{topic}/live", live(i, t_ms)) for (_, i), topic in zip(some, topics, strict=True)
        ]
        link.control._on_messages(0, packets, [])
        packets = [
            mqtt5.PublishPacket(
                f"{topic}/energy",
                telemetry(i, 1 + round_, t_ms - 1000 * step_s * (messages // devices - 1 - round_)),
                qos=mqtt5.QoS.AT_LEAST_ONCE,
                packet_id=1,
            )
            for (round_, i), topic in zip(some, topics, strict=True)
        ]
        link.telemetry._on_messages(0, packets, [1] * len(packets))
        await asyncio.sleep(0)


def full_collection_ms() -> float:
    """A full garbage collection of a settled heap, median."""
    gc.collect()
    took: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        gc.collect()
        took.append((time.perf_counter() - began) * 1000)
    return percentile(took, 0.5)


def timers() -> int:
    """Timer handles of the standard loop."""
    return len(asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]


async def child(devices: int) -> dict[str, Any]:
    """Measures in this process, which must be fresh."""
    for module in pkgutil.walk_packages(gateway.__path__, "gateway."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    clock, codec, fleet = SystemClock(), reference(), Fleet()
    broker = MqttSettings(url="mqtt://127.0.0.1:1", client_id="bench")
    link = MqttLink(MqttLinkSettings(broker=broker), codecs=[codec], fleet=fleet, clock=clock)
    recorder = Recorder(Engine(IntervalRules(length_s=LENGTH_S)), ids=fleet.ids, clock=clock)
    ingest = Ingest(
        fleet=fleet, recorder=recorder, clock=clock, wall=clock, answers=NoAnswers(), lengths={}, raw=NothingRaw()
    )
    parts = [run for _, run in recording(fleet, ingest, recorder, CountingLog(), clock)]
    control = steered(fleet, link, NoJournal(), clock).control
    inventory = DeviceRegistry(clock=ManualClock(), fleet=fleet, journal=NoJournal(), codecs={codec.name: codec})
    link.emit = ingest.emitter(link, sender=link)
    with TemporaryDirectory(prefix="gateway-bench-", dir=Path.cwd()) as directory:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(recorder.open_spool(Path(directory), first_record=1))
            for run in parts:
                await stack.enter_async_context(service(run))
            recorder.begin(IntervalRules(length_s=LENGTH_S), clock.now())
            # The paths have run before the base is taken: what they load, cache and work with is not a device's.
            await imported(inventory, 1, codec.name)
            await said(link, recorder, 1, WARM_UP, clock)
            await control.tick()
            # What lives as long as the process is left out of later collections, as the daemon does.
            gc.collect()
            gc.freeze()
            await asyncio.sleep(IDLE_S)
            base_kib, base_tasks, base_timers = rss_kib(), len(asyncio.all_tasks()), timers()
            await imported(inventory, devices, codec.name)
            gc.collect()
            enrolled_kib = rss_kib()
            await said(link, recorder, devices, INTERVALS * devices, clock, step_s=LENGTH_S)
            gc.collect()
            said_kib = rss_kib()
            await control.tick()
            gc.collect()
            ticked_kib = rss_kib()
            # The batch timer of ingest comes and goes with traffic; it is one, whatever the fleet's size.
            await asyncio.sleep(IDLE_S)
            return {
                "n": devices,
                "rss_kib_per_item": round((said_kib - base_kib) / devices, 4),
                "enrolled_kib_per_item": round((enrolled_kib - base_kib) / devices, 4),
                "after_tick_kib_per_item": round((ticked_kib - base_kib) / devices, 4),
                "tasks_per_item": round((len(asyncio.all_tasks()) - base_tasks) / devices, 3),
                "timers_per_item": round((timers() - base_timers) / devices, 3),
                "gc_ms": round(full_collection_ms(), 3),
            }


async def imported(inventory: DeviceRegistry, devices: int, profile: str) -> None:
    """Devices enrolled as imports bring them, some at a time."""
    for first in range(0, devices, IMPORT):
        lines = (
            orjson.dumps(
                {
                    "id": DEVICE.format(i), "profile": profile, "site": f"site-{i}", "feeder": f"feeder-{i // 50}",
                    "capacity_wh": 13_500, "discharge_w_max": 5_000, "charge_w_max": 5_000, "reserve_pct": 20,
                    "export_allowed": True, "grid_charge_allowed": True, "site_import_w_max": "unlimited",
                    "site_export_w_max": "unlimited", "fuse_protected": True,
                }
            ).decode()
            for i in range(first, min(first + IMPORT, devices))
        )  # fmt: skip
        parsed = parse_rows("\n".join(lines), form="jsonl", profiles=inventory.profiles)
        assert not parsed.bad, parsed.bad[0]
        await inventory.register(parsed.devices)


async def said(
    link: MqttLink, recorder: Recorder, devices: int, messages: int, clock: SystemClock, *, step_s: int = 0
) -> None:
    """Every device has spoken, and what it said is durable."""
    goal = recorder.engine.totals.rows + messages
    await say(link, devices, messages, clock.now().utc_ms, step_s)
    async with asyncio.timeout(TIMEOUT_S):
        while recorder.engine.totals.rows < goal or recorder.spool.durable_record < recorder.spool.last_record:
            await asyncio.sleep(0.01)


# -- the scrape ------------------------------------------------------------------------------------------------


def source(first: int) -> Iterable[Sample]:
    """Some families of many series each."""
    for family in range(first, first + FAMILIES // SOURCES):
        for i in range(SERIES // FAMILIES):
            labels = (("profile", f"profile-{i % 10}"), ("reason", f"reason-{i // 10}"))
            yield Sample(name=f"gateway_bench_{family}", help="A family.", value=i * 1.5, kind="counter", labels=labels)


class LongestTurn:
    """How long one turn of the loop took at most, seen by a callback that runs in every one of them."""

    def __init__(self) -> None:
        self.worst_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._last = time.perf_counter()
        self._on = True
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        now = time.perf_counter()
        self.worst_s = max(self.worst_s, now - self._last)
        self._last = now
        if self._on:
            self._loop.call_soon(self._turn)

    def stop(self) -> float:
        self._on = False
        return self.worst_s


async def scrape() -> dict[str, Any]:
    """Longest block of the loop while /metrics is read: median and worst of some scrapes."""
    sources = [lambda first=i * FAMILIES // SOURCES: source(first) for i in range(SOURCES)]
    nobody = cast("Any", None)
    events = cast("Any", SimpleNamespace(excluded=None))
    parts = Parts(
        dispatcher=nobody, events=events, devices=nobody, history=nobody, inventory=nobody,
        registry=registry(sources, []), readiness=nobody, trust=nobody, clock=nobody, telemetry=nobody,
        door=Doorway(callers=Callers, clock=SystemClock(), refusals=Refusals(SystemClock())),
        leap=nobody, raw=nobody, audit=nobody, past=nobody, programs=nobody, enrollments=nobody,
        participation=nobody, eligibility=nobody, webhooks=nobody, outbox=nobody, rates=nobody,
        cases=nobody, explained=nobody, forecasts=nobody, sign_ups=nobody,
        performance=nobody,
    )  # fmt: skip
    runner = web.AppRunner(make_app(parts), handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    worst: list[float] = []
    text = ""
    # Nothing else is measured by the same process: the reader takes part of its turns.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.memory", "--read", str(port), stdout=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for _ in range(SCRAPES):
            gc.collect()
            turn = LongestTurn()
            process.stdin.write(b"\n")
            text = (await asyncio.wait_for(process.stdout.readline(), TIMEOUT_S)).decode()
            worst.append(turn.stop() * 1000)
    finally:
        process.kill()
        await process.wait()
        await runner.cleanup()
    series, size = map(int, text.split())
    return {
        "series": series,
        "scrape_bytes": size,
        "scrape_block_ms": round(percentile(worst, 0.5), 3),
        "scrape_block_worst_ms": round(max(worst), 3),
    }


async def read(port: int) -> None:
    """Reads /metrics once per line of standard input; says how many series and bytes came."""
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as session:
        while await loop.run_in_executor(None, sys.stdin.readline):
            async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
                body = await response.read()
            lines = [line for line in body.splitlines() if line.startswith(b"gateway_bench_")]
            sys.stdout.write(f"{len(lines)} {len(body)}\n")
            sys.stdout.flush()


async def run(*, quick: bool, devices: int | None = None) -> dict[str, Any]:
    n = devices or (5_000 if quick else 50_000)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.memory", "--child", str(n), stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, process.returncode
    found = json.loads(output)
    found |= await scrape()
    return report(
        "memory",
        sizes=[found],
        ratios={},
        aims={
            "rss_kib_per_item": aim(found["rss_kib_per_item"], most=1.0),
            "tasks_per_item": aim(found["tasks_per_item"], most=0.01),
            "timers_per_item": aim(found["timers_per_item"], most=0.01),
            "gc_ms": aim(found["gc_ms"], most=10.0),
            "scrape_block_ms": aim(found["scrape_block_ms"], most=5.0),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", type=int, help="measure so many devices in this process")
    parser.add_argument("--read", type=int, help="read the metrics of this port")
    args = parser.parse_args()
    if args.read:
        asyncio.run(read(args.read))
    else:
        print(json.dumps(asyncio.run(child(args.child))))


if __name__ == "__main__":
    main()

"""Edge: 100,000 devices whose intervals all end at once, with nothing but the clock to close them.

Every device has sent a few samples; then the edge and the grace pass. `close_s` is the engine alone, all slices
together. Then the same through the service: engine, spool (real files, fdatasync), interval log (real SQLite) beside a
timer that wants to run every `PERIOD_S`, as control's tick does; `late_ms` is the most that it was late. The limit is
one slice of the engine and its record, and the log's thread, which takes the interpreter between statements.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gateway.clock import ManualClock
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.readings import EnergyBatch
from gateway.domain.types import Now
from gateway.services.telemetry.ingest import Ingest
from gateway.services.telemetry.recorder import Recorder
from gateway.storage.interval_log.log import IntervalLog
from tests.bench.rig import aim, report
from tests.bench.wiring import NoAnswers, enroll, recording, reference
from tests.builders.fakes import NothingRaw

T0_MS = 1_800_000_000_000
LENGTH_S = 300
SAMPLES = 5
BATCH_ROWS = 4_096
PERIOD_S = 0.01
TIMEOUT_S = 120.0
RATED_W = 5_000.0


def batch(slots: np.ndarray[Any, np.dtype[np.int32]], sample: int) -> EnergyBatch:
    n = len(slots)
    unknown = np.full(n, np.nan)
    return EnergyBatch(
        slots=slots, boot=np.ones(n, dtype=np.int64), seq=np.full(n, sample), t_ms=np.full(n, T0_MS + 50_000 * sample),
        span_ms=np.full(n, 50_000), charge_counter_wh=np.full(n, 10.0 * sample), discharge_wh=unknown,
        discharge_counter_wh=np.full(n, 5.0 * sample), charge_wh=unknown, battery_w=np.full(n, -360.0),
        soc_pct=np.full(n, 50.0), grid_w=unknown, pv_w=unknown, load_w=unknown,
    )  # fmt: skip


def batches(devices: int) -> list[tuple[EnergyBatch, Now]]:
    everyone = np.arange(devices, dtype=np.int32)
    return [
        (batch(everyone[at : at + BATCH_ROWS], sample), Now(utc_ms=T0_MS + 50_000 * sample, mono_ms=0))
        for sample in range(1, SAMPLES + 1)
        for at in range(0, devices, BATCH_ROWS)
    ]


def engine_alone(devices: int) -> tuple[float, float]:
    """Seconds for all slices, and for the longest."""
    engine = Engine(IntervalRules(length_s=LENGTH_S))
    for rows, now in batches(devices):
        engine.ingest(rows, now, np.full(len(rows), RATED_W))
    now = Now(utc_ms=T0_MS + (LENGTH_S + 30) * 1000, mono_ms=0)
    closed, total, longest = 0, 0.0, 0.0
    while closed < devices:
        began = time.perf_counter()
        closed += len(engine.close_due(now))
        spent = time.perf_counter() - began
        total, longest = total + spent, max(longest, spent)
    return total, longest


class Lateness:
    """The most that a timer was late."""

    def __init__(self) -> None:
        self.worst_s = 0.0

    async def run(self) -> None:
        while True:
            due = time.perf_counter() + PERIOD_S
            await asyncio.sleep(PERIOD_S)
            self.worst_s = max(self.worst_s, time.perf_counter() - due)


async def through_the_service(devices: int) -> tuple[float, float]:
    """Seconds from the edge until everything is in the log, and the most that a timer was late meanwhile."""
    clock, fleet = ManualClock(utc_ms=T0_MS), Fleet()
    enroll(fleet, devices, reference())
    engine = Engine(IntervalRules(length_s=LENGTH_S))
    recorder = Recorder(engine, ids=fleet.ids, clock=clock)
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="gateway-bench-", dir=Path.cwd())))
        log = await stack.enter_async_context(IntervalLog(directory / "log", clock=clock))
        ingest = Ingest(
            fleet=fleet, recorder=recorder, clock=clock, wall=clock, answers=NoAnswers(), lengths={}, raw=NothingRaw()
        )
        spool = recorder.open_spool(directory / "spool", first_record=1)
        await stack.enter_async_context(spool)
        recorder.begin(engine.rules, clock.now())
        rated_w = np.full(devices, RATED_W)
        for rows, now in batches(devices):
            recorder.ingest(rows, now, rated_w)
        await spool.wait_durable(spool.last_record)
        lateness = Lateness()
        async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
            parts = recording(fleet, ingest, recorder, log, clock)
            tasks = [group.create_task(run(), name=name) for name, run in parts]
            await asyncio.sleep(0.1)
            tasks.append(group.create_task(lateness.run(), name="lateness"))
            clock.advance(s=LENGTH_S + 30)
            began = time.perf_counter()
            while log.stats.rows < devices:
                await asyncio.sleep(PERIOD_S)
            spent = time.perf_counter() - began
            for task in tasks:
                task.cancel()
    return spent, lateness.worst_s


async def run(*, quick: bool, devices: int | None = None) -> dict[str, Any]:
    rounds = 1 if quick else 5
    devices = devices or (10_000 if quick else 100_000)
    alone = sorted(engine_alone(devices) for _ in range(rounds))[rounds // 2]
    found = [await through_the_service(devices) for _ in range(rounds)]
    seconds, late_s = sorted(s for s, _ in found)[rounds // 2], sorted(s for _, s in found)[rounds // 2]
    size = {
        "n": devices, "seconds": round(seconds, 4), "close_s": round(alone[0], 4), "slice_ms": round(alone[1] * 1e3, 2),
        "late_ms": round(late_s * 1e3, 2), "worst_late_ms": round(max(s for _, s in found) * 1e3, 2),
        "items_per_s": round(devices / seconds),
    }  # fmt: skip
    return report(
        "edge", sizes=[size], ratios={},
        aims={"close_s": aim(alone[0], most=0.2), "late_ms": aim(late_s * 1e3, most=100.0)},
    )  # fmt: skip

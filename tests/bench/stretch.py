"""Stretch: the longest that anything but the tick keeps the event loop, in CPU time of its thread.

A task that wants nothing but its next turn reads the thread's CPU clock at every turn; what lies between two turns is
everything that ran in one pass of the loop, so the figure is an upper bound, and other processes do not count. Cases:

    telemetry    a reading of every device, in reads of 500, over an edge of intervals; then the edge of a silent fleet
    silences     everybody back after hours of silence, whose energy is shared by time and becomes late data's records
    spans        rows that cover a day each
    checkpoint   the copy of everything, as the gateway makes it
    import       a file of new devices over REST, and the same file again
    lists        devices, exclusions, groups, quarantine and metrics over REST
    registration one more device (the columns of the whole fleet may have to grow)
    named        an event of the aggregator that names the whole fleet meter by meter, against enrollment: new, the same
                 again, changed and taken back

The limit of each is one slice of its work. Garbage is collected before a case and not in it.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gateway.app.leap import EnrolledMeters
from gateway.clock import ManualClock
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.request import TargetGroup
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.readings import AckToken, EnergyBatch, ReadingBatch
from gateway.domain.types import DeviceId
from gateway.services.checkpointing import copied, fleet_columns
from gateway.services.events.intake import Dispatcher
from gateway.services.programs.participation import ProgramParticipation
from gateway.services.settings import ControlSettings, ProgramSettings
from gateway.services.telemetry.ingest import Ingest
from gateway.services.telemetry.recorder import Recorder
from gateway.signals.leap.requests import PlanRows
from gateway.signals.leap.submission import Submission
from gateway.storage.checkpoint import Checkpoints
from gateway.storage.journal.journal import SqliteJournal
from tests.api.test_app import HEADER, Rig, rig
from tests.bench.rig import aim, report
from tests.bench.signal import PROGRAM, THEIRS, enrolled
from tests.bench.wiring import CountingLog, NoAnswers, enroll, readings, recording, reference
from tests.builders.fakes import FACTS, FakeLink, NothingRaw
from tests.signals.leap.bodies import uid

SIZES, QUICK_SIZES = (1_000, 10_000, 100_000), (200, 1_000)
T0_MS = 1_800_000_000_000
LENGTH_S = 300
READ_ROWS = 500
SILENT_DEVICE_HOURS = 80_000
SPAN_ROWS = 64
WARM_UP = 20
IMPORTED = 10_000
DAY_S = 86_400
QUARTER_MS = 900_000
AIM_MS = 10.0
TIMEOUT_S = 600.0


@dataclass(slots=True)
class Turns:
    """The longest stretch between two turns since `begin`, in s of this thread's CPU time."""

    worst_s: float = 0.0
    _last_s: float = field(default_factory=time.thread_time)

    def begin(self) -> None:
        self.worst_s, self._last_s = 0.0, time.thread_time()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(0)
            now_s = time.thread_time()
            self.worst_s, self._last_s = max(self.worst_s, now_s - self._last_s), now_s


@asynccontextmanager
async def watched() -> AsyncIterator[Turns]:
    turns = Turns()
    task = asyncio.create_task(turns.run(), name="turns")
    try:
        yield turns
    finally:
        task.cancel()


async def longest_ms(turns: Turns, work: Callable[[], Awaitable[object]]) -> float:
    """The longest stretch of `work`."""
    gc.collect()
    gc.freeze()
    gc.disable()
    await asyncio.sleep(0)
    turns.begin()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await work()
        await asyncio.sleep(0)
    finally:
        gc.enable()
        gc.unfreeze()
    return turns.worst_s * 1e3


def rows(slots: "np.ndarray[Any, np.dtype[np.int32]]", *, seq: int, t_s: float, wh: float, span_s: int) -> EnergyBatch:
    n = len(slots)
    unknown, same = np.full(n, np.nan), np.full(n, wh)
    by_span = span_s > LENGTH_S
    return EnergyBatch(
        slots=slots, boot=np.ones(n, dtype=np.int64), seq=np.full(n, seq), t_ms=np.full(n, T0_MS + round(t_s * 1e3)),
        span_ms=np.full(n, span_s * 1000), charge_counter_wh=unknown if by_span else same,
        discharge_counter_wh=unknown if by_span else same, charge_wh=same if by_span else unknown,
        discharge_wh=same if by_span else unknown, battery_w=unknown, soc_pct=np.full(n, 50.0), grid_w=unknown,
        pv_w=unknown, load_w=unknown,
    )  # fmt: skip


class TelemetryPath:
    """The telemetry path over a real spool; the log only counts."""

    def __init__(self, devices: int, directory: Path) -> None:
        self.devices = devices
        self.fleet, self.clock, self.log = Fleet(), ManualClock(utc_ms=T0_MS), CountingLog()
        enroll(self.fleet, devices, reference())
        self.recorder = Recorder(Engine(IntervalRules(length_s=LENGTH_S)), ids=self.fleet.ids, clock=self.clock)
        self.ingest = Ingest(
            fleet=self.fleet, recorder=self.recorder, clock=self.clock, wall=self.clock, answers=NoAnswers(),
            lengths={}, raw=NothingRaw(),
        )  # fmt: skip
        self.spool = self.recorder.open_spool(directory / "spool", first_record=1)
        self.checkpoints = Checkpoints(directory / "checkpoints")
        self.link = FakeLink()
        self.emit = self.ingest.emitter(self.link, sender=self.link)
        self.said = 0

    async def say(self, *, seq: int, t_s: float, wh: float, span_s: int = 10, only: int | None = None) -> None:
        """A row of everybody, acknowledged."""
        slots = np.arange(self.devices if only is None else only, dtype=np.int32)
        for at in range(0, len(slots), READ_ROWS):
            batch = rows(slots[at : at + READ_ROWS], seq=seq, t_s=t_s, wh=wh, span_s=span_s)
            self.emit(ReadingBatch(energy=batch))
            self.said += 1
            self.emit(ReadingBatch(token=AckToken(generation=1, packet_ids=[self.said])))
            await asyncio.sleep(0)
        while len(self.link.acknowledged) < self.said:
            await asyncio.sleep(0.001)

    async def closed(self) -> None:
        """Everything that is due has been closed and repaired."""
        engine = self.recorder.engine
        while engine.pending(self.clock.now()) or engine.to_repair:
            self.clock.advance(s=5)
            await asyncio.sleep(0.05)

    async def telemetry(self) -> None:
        for i in range(1, 4):
            self.clock.advance(s=LENGTH_S / 2)
            await self.say(seq=i, t_s=i * LENGTH_S / 2, wh=10.0 * i)
        self.clock.advance(s=LENGTH_S + 60)
        await asyncio.sleep(1.5)

    async def silences(self) -> None:
        hours = min(8.0, SILENT_DEVICE_HOURS / self.devices)
        self.clock.advance(s=hours * 3600)
        began_s = (self.clock.now().utc_ms - T0_MS) / 1000
        for i in range(3):
            await self.say(seq=10 + i, t_s=began_s + i * LENGTH_S, wh=1_000.0)
            self.clock.advance(s=LENGTH_S)
        self.clock.advance(s=1_000)
        await asyncio.sleep(1.5)
        await self.closed()

    async def spans(self) -> None:
        now_s = (self.clock.now().utc_ms - T0_MS) / 1000
        await self.say(seq=100, t_s=now_s, wh=1.0, span_s=DAY_S, only=min(SPAN_ROWS, self.devices))

    async def checkpoint(self) -> None:
        now = self.clock.now()
        extra = await copied(fleet_columns(self.fleet, now, "boot"))
        await self.recorder.checkpoint(self.checkpoints, now, extra)


async def through_the_path(devices: int, turns: Turns) -> dict[str, float]:
    found: dict[str, float] = {}
    with TemporaryDirectory(prefix="gateway-bench-", dir=Path.cwd()) as directory:
        path = TelemetryPath(devices, Path(directory))
        async with path.spool:
            path.recorder.begin(path.recorder.engine.rules, path.clock.now())
            parts = recording(path.fleet, path.ingest, path.recorder, path.log, path.clock)
            tasks = [asyncio.ensure_future(run()) for _, run in parts]
            for case in (path.telemetry, path.silences, path.spans, path.checkpoint):
                found[case.__name__] = await longest_ms(turns, case)
            for task in tasks:
                task.cancel()
    return found


async def populated(r: Rig, devices: int) -> None:
    """A group of twenty devices each, and an opt-out of every tenth."""
    fleet, exclusions = r.world.fleet, r.world.dispatcher.exclusions
    for i, device in enumerate(r.world.devices):
        fleet.register(replace(device, tags=(f"zone-{i // 20}",)), FACTS)
    for i in range(0, devices, 10):
        group = TargetGroup(ids=(DeviceId(fleet.ids[i]),))
        exclusions.set(Exclusion(id=f"out-{i}", reason="opt_out", group=group, from_ms=0, until_ms=None))
    r.world.homes.report()
    await r.world.control.tick()


async def over_rest(devices: int, turns: Turns) -> dict[str, float]:
    async with rig(devices=devices) as r:
        await populated(r, devices)

        async def whole(method: str, path: str, **how: Any) -> None:
            async with r.client.request(method, path, **how) as reply:
                async for _ in reply.content.iter_chunked(1 << 14):
                    pass
                assert reply.status == 200, (method, path)

        async def lists() -> None:
            for path in ("devices?limit=1000", "exclusions", "availability", "quarantine"):
                await whole("GET", f"/v1/{path}")
            await whole("GET", "/metrics")

        n = min(devices, IMPORTED)
        text = (HEADER + "".join(f"new-{i},p,s-{i},10000,5000,5000,20\n" for i in range(n))).encode()

        async def imported() -> None:
            for _ in range(2):
                await whole("POST", "/v1/devices", data=text, headers={"Content-Type": "text/csv"})

        async def registration() -> None:
            r.world.fleet.register(replace(r.world.devices[0], id=DeviceId("one-more")), FACTS)

        return {
            "lists": await longest_ms(turns, lists),
            "registration": await longest_ms(turns, registration),
            "import": await longest_ms(turns, imported),
        }


def everybody(devices: int, start_ms: int, kw: float) -> PlanRows:
    """An event for every meter, each with its own power in each of four slots."""
    spans = tuple((start_ms + leg * QUARTER_MS, start_ms + (leg + 1) * QUARTER_MS) for leg in range(4))
    return PlanRows(
        id=uid("event"), level="meter", integration=False, test=False, capacity_test=False, programs=(THEIRS,),
        priority=4, voluntary=True, cap="grid-exports-allowed", spans_ms=spans, nomination_kw=None,
        types=("standard",), gaps=(), meters=[uid(f"meter-{number}") for number in range(devices)],
        kw=[[kw + (number + leg) % 7 / 10 for leg in range(4)] for number in range(devices)],
    )  # fmt: skip


async def named(devices: int, turns: Turns) -> float:
    """The longest stretch of any of what may become of such an event."""
    clock = ManualClock(utc_ms=T0_MS)
    fleet = Fleet()
    enroll(fleet, devices, reference())
    now = clock.now()
    fleet.observe_live(readings(fleet, now), now)
    book = enrolled(devices, now.utc_ms)
    programs = {PROGRAM: ProgramSettings(enrollment="enforce", dispatchers=("leap",))}
    with TemporaryDirectory(prefix="gateway-bench-", dir=Path.cwd()) as directory:
        journal = SqliteJournal(Path(directory) / "journal.sqlite", clock=clock)
        journal.load()
        dispatcher = Dispatcher(
            ControlSettings(ceiling_mw=10_000), fleet=fleet, journal=journal, clock=clock, programs=programs,
            participation=ProgramParticipation(book, fleet=fleet, programs=programs),
        )  # fmt: skip
        submission = Submission(
            submit=dispatcher.submit, known=dispatcher.entry, meters=EnrolledMeters(book, fleet),
            program_of={THEIRS: PROGRAM}, per_device=False,
        )  # fmt: skip
        start_ms = now.utc_ms + 60_000
        worst = []
        for kw in (1.0, 1.0, 2.0, None):
            events = [] if kw is None else [everybody(devices, start_ms, kw)]
            gone = [uid("event")] if kw is None else []
            worst.append(await longest_ms(turns, partial(submission.bring, events, gone, now.utc_ms, again=False)))
        assert dispatcher.entry(uid("event")) is not None
        journal.close()
    return max(worst)


async def run(*, quick: bool, sizes: tuple[int, ...] | None = None) -> dict[str, Any]:
    out: list[dict[str, Any]] = []
    async with watched() as turns:
        # the first of everything costs once
        await through_the_path(WARM_UP, turns)
        await over_rest(WARM_UP, turns)
        await named(WARM_UP, turns)
        for n in sizes or (QUICK_SIZES if quick else SIZES):
            began = time.perf_counter()
            found = await through_the_path(n, turns) | await over_rest(n, turns) | {"named": await named(n, turns)}
            cases = {case: round(ms, 1) for case, ms in found.items()}
            longest = max(cases, key=lambda case: cases[case])
            seconds = round(time.perf_counter() - began, 1)
            size = {"n": n, "seconds": seconds, "stretch_ms": cases[longest], "longest": longest, "cases_ms": cases}
            out.append(size)
    worst_ms = max(float(size["stretch_ms"]) for size in out)
    return report("stretch", sizes=out, ratios={}, aims={"stretch_ms": aim(worst_ms, most=AIM_MS)})

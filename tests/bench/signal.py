"""Signal: the aggregator dispatches a fleet meter by meter a minute before the start, in one body of 14 MB.

Ours: the webhook over HTTP, durable and answered; read into the book of slots by the process that does so; every meter
looked up in the enrollment of the fleet; one event of each device's own power, decided and journalled; control ticks
that begin it at its time under the governor (5 % of the dispatched power a second), published at QoS 1 to a sink
that acknowledges each. The body comes again and again, as it does when answers are lost. Peers are processes of their
own; homes do as they were told and report once a second.

`answer_p99_ms`: from the first byte that the aggregator sends to its answer; `book_s`: from the first byte to the event
in the book; `tick_late_ms`: the worst lateness of a tick, and `late_ms` of a timer of 5 ms, until all bodies are read;
`first_command_s`: when the last device had its first command written, after the start; `acknowledged_s`: how long a
command waited for its acknowledgement at most. What limits the book is the reader: one process parses and stores 40,000
slots; what limits the first command is the tick and the place in the ramp.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
from aiohttp import web
from pydantic import SecretStr

from gateway.api.access.callers import Callers
from gateway.api.access.refusals import Refusals
from gateway.api.app import Parts, make_app
from gateway.api.guard import Doorway
from gateway.api.routes.leap_dispatch import LeapDispatch
from gateway.app.leap import EnrolledMeters
from gateway.clock import SystemClock
from gateway.domain.commands import CommandBatch, WriteOutcome, WriteReport
from gateway.domain.events.lifecycle import BookEntry
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.programs.enrollment import EnrollmentBook
from gateway.domain.programs.facts import (
    DeliveryPeriod,
    Enrollment,
    EnrollmentStatus,
    MeterDevice,
    Subject,
    SubjectKind,
)
from gateway.observability.metrics import Histogram
from gateway.ports.links import CommandTarget
from gateway.services.control.loop import TICK_LATENESS, ControlLoop
from gateway.services.events.intake import Dispatcher
from gateway.services.programs.participation import ProgramParticipation
from gateway.services.settings import ControlSettings, ProgramSettings
from gateway.signals.leap.requests import SOURCE
from gateway.signals.leap.settings import LeapSignalSettings
from gateway.signals.leap.signal import LeapSignal
from gateway.signals.leap.submission import Submission
from gateway.storage.journal.journal import SqliteJournal
from tests.bench.blaster import DEVICE
from tests.bench.rig import aim, peer, percentile, report
from tests.bench.wiring import readings, wired
from tests.signals.leap.bodies import at, uid

DEVICES, SLOTS, SLOT_S = 10_000, 4, 900
KW_MIN, KW_MAX = 0.5, 4.5
AHEAD_S, QUICK_AHEAD_S = 60.0, 3.0
RAMP, QUICK_RAMP = 0.05, 0.25
"""Of the dispatched power a second: the governor."""
POSTS, QUICK_POSTS = 20, 3
SECRET = "shared-secret-of-the-bench"
PROGRAM, THEIRS = "dsgs-option3", "CEC-DSGS"
TIMER_S = 0.005
CALM_S = 1.5
"""So long before the body is posted nothing else is done."""
SETTLED_S = 3.0
TIMEOUT_S = 240
DAY_MS = 86_400_000


def body(devices: int, start_ms: int) -> tuple[bytes, float]:
    """The webhook, and the power that it dispatches in its first slot, kW."""
    rng = random.Random(7)
    items, total_kw = [], 0.0
    for number in range(devices):
        kw = [round(rng.uniform(KW_MIN, KW_MAX), 2) for _ in range(SLOTS)]
        total_kw += kw[0]
        items.append({
            "meter_id": uid(f"meter-{number}"), "partner_reference": DEVICE.format(number),
            "timeslots": [
                {
                    "meter_event_id": uid(f"event-{number}-{slot}"),
                    "start_time": at(start_ms + slot * SLOT_S * 1000),
                    "end_time": at(start_ms + (slot + 1) * SLOT_S * 1000),
                    "cancelled": False, "energy_kw": kw[slot], "nomination_kw": 4.5,
                    "performance_compensation_cap": "grid-exports-allowed", "priority": 4, "is_voluntary": True,
                    "dispatch_event_types": ["standard"], "programs": [THEIRS],
                }
                for slot in range(SLOTS)
            ],
        })  # fmt: skip
    told = {"integration_test_notification": False, "communication_test": False, "meter_dispatches": items}
    return json.dumps(told).encode(), total_kw


def enrolled(devices: int, now_ms: int) -> EnrollmentBook:
    """Every device, behind a meter of its own."""
    book = EnrollmentBook()
    period = DeliveryPeriod(name="now", from_ms=now_ms - 30 * DAY_MS, until_ms=now_ms + 30 * DAY_MS)
    for number in range(devices):
        meter = uid(f"meter-{number}")
        book.add(
            MeterDevice(meter=meter, device=DEVICE.format(number), from_ms=period.from_ms, revision=2 * number + 1)
        )
        book.add(Enrollment(
            subject=Subject(kind=SubjectKind.LEAP_METER, id=meter), program=PROGRAM, period=period, from_ms=0,
            revision=2 * number + 2, status=EnrollmentStatus.ACTIVE,
        ))  # fmt: skip
    return book


@dataclass(slots=True)
class Written:
    """A link that notes when each device had its first command, and how long acknowledgements took. Times in s of the
    performance counter. `taken` commands were acknowledged, `not_taken` were not."""

    link: CommandTarget
    first_s: dict[int, float] = field(default_factory=dict)
    waits_s: list[float] = field(default_factory=list)
    taken: int = 0
    not_taken: int = 0

    async def write(self, batch: CommandBatch, *, deadline_mono_ms: int) -> WriteReport:
        began_s = time.perf_counter()
        found = await self.link.write(batch, deadline_mono_ms=deadline_mono_ms)
        ended_s = time.perf_counter()
        for slot in batch.slots.tolist():
            self.first_s.setdefault(slot, ended_s)
        self.waits_s.append(ended_s - began_s)
        taken = int((found.delivery == WriteOutcome.ACCEPTED).sum())
        self.taken += taken
        self.not_taken += len(batch) - taken
        return found


class Lateness(Histogram):
    """Every lateness of a tick, s."""

    def __init__(self) -> None:
        super().__init__(TICK_LATENESS)
        self.all_s: list[float] = []

    def observe(self, value: float) -> None:
        super().observe(value)
        self.all_s.append(value)


class Timer:
    """How late a timer is at most, s."""

    def __init__(self) -> None:
        self.worst_s = 0.0

    async def run(self) -> None:
        while True:
            began_s = time.perf_counter()
            await asyncio.sleep(TIMER_S)
            self.worst_s = max(self.worst_s, time.perf_counter() - began_s - TIMER_S)


@dataclass(slots=True)
class Bench:
    """The gateway's parts that dispatch goes through."""

    fleet: Fleet
    dispatcher: Dispatcher
    signal: LeapSignal
    written: Written
    lateness: Lateness
    port: int

    def accepted(self) -> list[BookEntry]:
        return [entry for entry in self.dispatcher.entries() if entry.request.source == SOURCE]


@contextlib.asynccontextmanager
async def served(signal: LeapSignal, clock: SystemClock) -> AsyncIterator[int]:
    """The API with nothing behind it but the signal; gives its port."""
    needed = (one.name for one in fields(Parts) if one.default is MISSING and one.default_factory is MISSING)
    known: dict[str, Any] = dict.fromkeys(needed)
    known |= {
        "events": SimpleNamespace(excluded=None), "clock": clock, "leap_dispatch": LeapDispatch(signal=signal),
        "door": Doorway(callers=Callers, clock=clock, refusals=Refusals(clock)),
    }  # fmt: skip
    parts = Parts(**known)
    runner = web.AppRunner(make_app(parts), handle_signals=False, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def gateway(port: int, devices: int, directory: Path, ramp_w_per_s: float) -> AsyncIterator[Bench]:
    """Everything, with homes that report."""
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(wired(port, devices))
        clock, fleet = parts.clock, parts.fleet
        await parts.link.control.wait_connected()
        book = enrolled(devices, clock.now().utc_ms)
        journal = SqliteJournal(directory / "journal.sqlite", clock=clock)
        stack.callback(journal.close)
        programs = {PROGRAM: ProgramSettings()}
        settings = ControlSettings(fleet_w_per_s=ramp_w_per_s, ceiling_mw=1_000)
        participation = ProgramParticipation(book, fleet=fleet, programs=programs)
        dispatcher = Dispatcher(
            settings, fleet=fleet, journal=journal, clock=clock, programs=programs, participation=participation
        )
        written, lateness = Written(parts.link), Lateness()
        control = ControlLoop(
            settings, fleet=fleet, dispatcher=dispatcher, link=written, clock=clock, epoch=journal.load().epoch
        )
        control.tick_lateness = lateness

        def known(name: str) -> BookEntry | None:
            entry = dispatcher.entry(name)
            return entry if entry is not None and entry.request.source == SOURCE else None

        submission = Submission(
            submit=dispatcher.submit, known=known, meters=EnrolledMeters(book, fleet), program_of={THEIRS: PROGRAM},
            per_device=False,
        )  # fmt: skip
        asked = LeapSignalSettings(secret=SecretStr(SECRET))
        signal = await stack.enter_async_context(LeapSignal(asked, submission, directory=directory, clock=clock))

        async def report_homes() -> None:
            while True:
                now = clock.now()
                fleet.observe_live(readings(fleet, now), now)
                await asyncio.sleep(1.0)

        running = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = [
            running.create_task(work, name=name)
            for name, work in (("homes", report_homes()), ("control", control.run()), ("signal", signal.run()))
        ]
        http = await stack.enter_async_context(served(signal, clock))
        await signal.caught_up()
        try:
            yield Bench(fleet, dispatcher, signal, written, lateness, http)
        finally:
            for task in tasks:
                task.cancel()


async def posted(port: int, path: Path, posts: int) -> AsyncIterator[float]:
    """Post the body as the aggregator does, from a process of its own; s until each was answered."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.signal", "--post", str(port), str(path), str(posts),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(posts):
        found = orjson.loads(await process.stdout.readline())
        assert found["status"] == 202, found
        yield float(found["seconds"])
    await process.wait()


async def until(condition: Any, what: str) -> None:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(what) from None


async def dispatched(devices: int, ahead_s: float, posts: int, ramp: float) -> dict[str, Any]:
    """One fleet, dispatched."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="gateway-bench-", dir=Path.cwd())))
        port = await stack.enter_async_context(peer("--messages", "0", "--seconds", "900"))
        began_s = time.perf_counter()
        _, total_kw = body(devices, 0)
        takes_s = time.perf_counter() - began_s + CALM_S
        bench = await stack.enter_async_context(gateway(port, devices, directory, total_kw * 1000 * ramp))
        start_ms = round((time.time() + takes_s + ahead_s) * 1000)
        raw, _ = await asyncio.to_thread(body, devices, start_ms)
        path = directory / "body.json"
        await asyncio.to_thread(path.write_bytes, raw)
        start_s = time.perf_counter() + start_ms / 1000 - time.time()
        # what was made here has no part in what is measured
        await asyncio.sleep(CALM_S)
        bench.lateness.all_s.clear()
        timer = Timer()
        watching = asyncio.create_task(timer.run(), name="timer")
        answers_s: list[float] = []
        began_s = book_s = ahead_s = 0.0
        async for answer_s in posted(bench.port, path, posts):
            answers_s.append(answer_s)
            if len(answers_s) == 1:
                began_s = time.perf_counter() - answer_s
                ahead_s = start_s - began_s
                await until(bench.accepted, "the event is not in the book")
                book_s = time.perf_counter() - began_s
        await bench.signal.caught_up()
        late_s, tick_late_s = timer.worst_s, max(bench.lateness.all_s, default=0.0)
        all_read_s = time.perf_counter() - began_s
        watching.cancel()
        (entry,) = bench.accepted()
        assert len(entry.request.group.ids) == devices, len(entry.request.group.ids)
        await until(lambda: len(bench.written.first_s) == devices, "not every device had a command")
        firsts = sorted(first_s - start_s for first_s in bench.written.first_s.values())
        # until each has its power, and for a while
        await asyncio.sleep(max(0.0, start_s + 1 / ramp + SETTLED_S - time.perf_counter()))
        setpoints = bench.fleet.control.setpoint_w[:devices]
        return {
            "n": devices, "bytes": len(raw), "ahead_s": round(ahead_s, 1), "posts": posts, "ramp_pct_per_s": ramp * 100,
            "answer_p99_ms": round(percentile(answers_s, 0.99) * 1000, 1),
            "book_s": round(book_s, 3),
            "all_read_s": round(all_read_s, 3),
            "tick_late_ms": round(tick_late_s * 1000, 1),
            "late_ms": round(late_s * 1000, 1),
            "first_command_s": round(firsts[-1], 3),
            "first_command_median_s": round(percentile(firsts, 0.5), 3),
            "acknowledged_s": round(max(bench.written.waits_s), 3),
            "not_acknowledged": bench.written.not_taken,
            "dispatched_kw": round(total_kw, 1),
            "commanded_kw": round(float(np.sum(setpoints)) / 1000, 1),
            "revisions": entry.request.revision,
        }  # fmt: skip


async def run(*, quick: bool, devices: int | None = None) -> dict[str, Any]:
    n = devices or (1_000 if quick else DEVICES)
    how = (QUICK_AHEAD_S, QUICK_POSTS, QUICK_RAMP) if quick else (AHEAD_S, POSTS, RAMP)
    found = await dispatched(n, *how)
    return report(
        "signal",
        sizes=[found],
        ratios={"commanded_x": found["commanded_kw"] / found["dispatched_kw"]},
        aims={
            "answer_p99_ms": aim(found["answer_p99_ms"], most=10_000),
            "first_command_s": aim(found["first_command_s"], most=10.0),
            "acknowledged_s": aim(found["acknowledged_s"], most=2.0),
            "tick_late_ms": aim(found["tick_late_ms"], most=100.0),
        },
    )


def post(port: str, path: str, posts: str) -> None:
    """Post a body so many times, and print what became of each."""
    raw = Path(path).read_bytes()
    for _ in range(int(posts)):
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
        headers = {"x-leap-secret": SECRET, "content-type": "application/json"}
        began_s = time.perf_counter()
        connection.request("POST", "/v1/signals/leap/meter", body=raw, headers=headers)
        status = connection.getresponse().status
        connection.close()
        print(json.dumps({"status": status, "seconds": time.perf_counter() - began_s}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--post", nargs=3, metavar=("PORT", "FILE", "POSTS"), required=True)
    post(*parser.parse_args().post)

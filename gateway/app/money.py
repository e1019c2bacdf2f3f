"""Starts the process that works out performance and money, starts it again when it is gone or stuck, and tells of it.

Nothing here waits for it: what it does not do is missing in figures, and control goes on.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.app.money_worker import MoneyPlan
from gateway.app.parts import RunningParts
from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.observability.metrics import Sample, counter, gauge
from gateway.observability.parts import Importance, Part
from gateway.services.programs.meter_mismatches import MeterMismatches

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "gateway.app.money_worker")
ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""What the process is given of our environment, which holds secrets."""

LINE_BYTES_MAX = 1 << 20
STARTS_MAX, BUDGET_S = 5, 600
"""It is started so often within so long, and then again when the oldest start is as long ago."""
PAUSE_S = 1.0
START_S = 60.0
"""From its start to its first word."""
JOBS_MAX = 32
SAID_MAX = 5

JOB = "jobs of the process"
RUNNING = gauge("gateway_money_running", "Whether the process that works out performance and money runs (1).")
RESTARTS = counter(
    "gateway_money_restarts",
    "Starts of the process that works out money after the first one, by what became of the one before.",
    reason=("ended", "silent"),
)
SUCCESS = gauge(
    "gateway_money_job_success_timestamp_seconds", "When a job of that process last did what it had to.", job=JOB
)
FAILURES = counter("gateway_money_job_failures", "Steps of jobs of that process that failed.", job=JOB)
BACKLOG = gauge("gateway_money_backlog", "What a job of that process has still to do, in its units.", job=JOB)
PROBLEMS = gauge("gateway_money_job_problems", "What a job of that process cannot do while it does the rest.", job=JOB)


@dataclass(slots=True)
class _Job:
    """What a job told last. `error` since its last success; `success_ms` 0 = it has had none."""

    success_ms: int = 0
    failures: int = 0
    backlog: int = 0
    error: str = ""
    problems: Sequence[str] = ()


class MoneyProcess(Part):
    """The process. `command`: what is started; it is given `plan` and ends with its input."""

    service = "money"
    component = "money"
    importance = Importance.SPARE

    def __init__(self, plan: MoneyPlan, *, clock: Clock, command: Sequence[str] = COMMAND) -> None:
        self._plan = plan
        self._clock = clock
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._ready = False
        self._restarts = {"ended": 0, "silent": 0}
        self._starts: deque[int] = deque(maxlen=STARTS_MAX)
        self._jobs: dict[str, _Job] = {}
        self._refused: Sequence[str] = ()
        self._down = "it has not begun yet"

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return None if self._process is None else self._process.pid

    async def run(self) -> None:
        """Keep it running until cancelled."""
        while True:
            await self._budget()
            self._starts.append(self._clock.mono_ms())
            why = await self._one()
            self._restarts[why] += 1
            log.warning("the process that works out money is started again", extra={"reason": why, "error": self._down})
            await asyncio.sleep(PAUSE_S)

    def samples(self) -> Iterable[Sample]:
        yield RUNNING.sample(float(self._ready))
        yield from RESTARTS.each(self._restarts)
        for name, job in self._jobs.items():
            yield SUCCESS.sample(job.success_ms / 1000, job=name)
            yield FAILURES.sample(job.failures, job=name)
            yield BACKLOG.sample(job.backlog, job=name)
            yield PROBLEMS.sample(len(job.problems), job=name)

    def warnings(self) -> list[str]:
        said = [] if self._ready else [f"performance is not worked out: {self._down}"]
        said += [f"a program cannot be read for performance: {problem}" for problem in self._refused[:SAID_MAX]]
        for name, job in self._jobs.items():
            said += [f"job {name}: {job.error}"] if job.error else []
            said += [f"job {name}: {problem}" for problem in job.problems[:SAID_MAX]]
        return said

    async def _budget(self) -> None:
        """Wait until another start is within the budget."""
        if len(self._starts) < STARTS_MAX:
            return
        wait_s = BUDGET_S - (self._clock.mono_ms() - self._starts[0]) / 1000
        if wait_s > 0:
            self._down += f"; the next start is in {wait_s:.0f} s at the latest"
            await asyncio.sleep(wait_s)

    async def _one(self) -> str:
        """Start it and hear what it says until it ends; returns how it ended."""
        why = "ended"
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES_MAX,
                env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            )  # fmt: skip
        except OSError as error:
            self._down = f"it cannot be started: {error}"
            return why
        try:
            await self._hear(process)
            self._down = f"it ended with {await process.wait()}"
        except TimeoutError:
            why, self._down = "silent", f"it said nothing for {self._plan.money.silent_s:g} s"
        except (ConnectionError, ValueError) as error:
            self._down = f"it said what it should not: {error}"
        finally:
            self._ready = False
            await self._kill(process)
            self._process = None
        return why

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        given, said = process.stdin, process.stdout
        if given is None or said is None:
            raise ConnectionError("no pipe")
        given.write(self._plan.model_dump_json(exclude_unset=True).encode() + b"\n")
        async with asyncio.timeout(self._plan.money.silent_s):
            await given.drain()
        while True:
            silent_s = self._plan.money.silent_s
            async with asyncio.timeout(silent_s if self._ready else max(silent_s, START_S)):
                line = await said.readline()
            if not line:
                return
            self._take(orjson.loads(line))

    def _take(self, message: Any) -> None:
        if not isinstance(message, dict):
            raise ValueError("no object")
        if "ready" in message:
            self._ready, self._refused = True, message.get("refused", ())
            for problem in self._refused:
                log.error("a program cannot be read for performance", extra={"error": str(problem)})
        name = message.get("job")
        if name is None or (name not in self._jobs and len(self._jobs) >= JOBS_MAX):
            return
        job = self._jobs.setdefault(str(name), _Job())
        error = str(message["error"])
        if error and not job.error:
            log.error("a job of the process that works out money fails", extra={"job": name, "error": error})
        if error:
            job.failures += 1
        else:
            job.success_ms, job.backlog, job.problems = message["at_ms"], message["backlog"], message["problems"]
        job.error = error

    async def _kill(self, process: asyncio.subprocess.Process) -> None:
        """End it, whatever it does: what it has stored is whole at any time."""
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()


async def money(settings: Settings, clock: Clock, parts: RunningParts) -> None:
    """Start the process of a configuration that knows a program."""
    if not settings.programs and settings.programs_dir is None:
        return
    plan = MoneyPlan(
        state_dir=settings.state_dir.absolute(), programs=settings.programs, interval_s=settings.intervals.length_s,
        programs_dir=None if settings.programs_dir is None else settings.programs_dir.absolute(), money=settings.money,
    )  # fmt: skip
    await parts.start(MoneyProcess(plan, clock=clock))
    await parts.start(MeterMismatches(settings.state_dir))

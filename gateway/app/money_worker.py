"""The process that works out performance and money: at low priority, of what is stored, and apart from control.

It is started as `python -m gateway.app.money_worker`, reads one line from its input, the `MoneyPlan` as JSON, and ends
when its input does. Each line of its output is JSON: `{"ready": true}` once it begins, `{"alive": true}`, a `JobTold`,
or `{"refused": [..]}`: programs that cannot be read, which it goes on without. It opens what the daemon writes
(interval log, journal with the registry, `programs.sqlite`) read-only, and writes to `money/` in the state directory
alone, where nobody else does.
"""

import fcntl
import logging
import os
import resource
import select
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from gateway.clock import SystemClock, utc_struct
from gateway.domain.errors import GatewayError, InvalidInput
from gateway.observability.logs import set_up_logging
from gateway.programs.loader import LoadedProgram, load_program
from gateway.services.programs.completeness_job import CompletenessJob
from gateway.services.programs.daily_columns import DailyColumnsJob
from gateway.services.programs.event_figures import EventFiguresJob
from gateway.services.programs.event_inputs import RatedProgram
from gateway.services.programs.frames import ProgramFrames
from gateway.services.programs.meter_match_job import MeterMatchJob
from gateway.services.programs.terms import program_terms
from gateway.services.programs.work import Job, JobTold, run_jobs
from gateway.services.settings import MoneySettings, ProgramSettings
from gateway.storage.programs.daily import DIRECTORY

log = logging.getLogger(__name__)

NICE = 15
FORMER_TRIES, FORMER_PAUSE_S = 60, 0.5
"""How often, and how long after each other, the directory is asked for while a former process still has it."""
MEMORY_BYTES_MAX = 4 << 30
REFUSED_MAX = 20
BUSY = 75
"""The exit code where another process writes there, or the disk refuses (EX_TEMPFAIL)."""


class MoneyPlan(BaseModel):
    """What the process is to do, and for whom; without secrets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state_dir: Path
    programs_dir: Path | None = None
    programs: dict[str, ProgramSettings] = {}
    interval_s: int = 300
    money: MoneySettings = MoneySettings()


def jobs_of(plan: MoneyPlan, loaded: Mapping[str, LoadedProgram]) -> list[Job]:
    """What it does, in this order in turn."""
    terms = program_terms(plan.programs, {name: one.terms for name, one in loaded.items()})
    frames = ProgramFrames(
        terms=terms, settings=plan.programs, length_s=plan.interval_s, late_s=plan.money.late_s
    )  # fmt: skip
    programs = sorted(plan.programs)
    return [
        DailyColumnsJob(plan.state_dir, frames=frames, programs=programs, keep_days=plan.money.keep_days),
        CompletenessJob(plan.state_dir, frames=frames, programs=programs),
        MeterMatchJob(plan.state_dir),
        EventFiguresJob(
            plan.state_dir, frames=frames, keep_days=plan.money.keep_days,
            programs={name: RatedProgram(program=one.program, digest=one.digest) for name, one in loaded.items()},
        ),
    ]  # fmt: skip


def loadable(directory: Path | None) -> tuple[dict[str, LoadedProgram], list[str]]:
    """The programs of a directory that can be read, and what is wrong with the others."""
    loaded: dict[str, LoadedProgram] = {}
    refused: list[str] = []
    for path in [] if directory is None else sorted(directory.glob("*.yaml")):
        try:
            loaded[path.stem] = load_program(path)
        except InvalidInput as error:
            refused += error.problems
        except (OSError, GatewayError, ValueError, RecursionError) as error:
            refused.append(f"{path.name}: {type(error).__name__}: {error}")
    return loaded, refused[:REFUSED_MAX]


def main(jobs: Callable[[MoneyPlan, Mapping[str, LoadedProgram]], Sequence[Job]] = jobs_of) -> int:
    os.umask(0o077)
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    set_up_logging(form="json", level="warning", converter=utc_struct)
    plan = MoneyPlan.model_validate_json(sys.stdin.buffer.readline())
    directory = plan.state_dir / DIRECTORY
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _alone(directory):
            return 0
    except OSError as error:
        log.error("the directory of figures cannot be used", extra={"error": str(error)})
        return BUSY
    loaded, refused = loadable(plan.programs_dir)
    _say({"ready": True} | ({"refused": refused} if refused else {}))
    run_jobs(jobs(plan, loaded), clock=SystemClock(), say=_told, ends=_ends, pause_s=plan.money.every_s)
    return 0


def _alone(directory: Path) -> bool:
    """Be the one that writes to a directory, for as long as this process lives; False: the input ended meanwhile. The
    one before may still be about to end, as its daemon was killed: it is waited for. Raises OSError."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for _ in range(FORMER_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        _told(None)
        if _ends(FORMER_PAUSE_S):
            return False
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True


def _told(told: JobTold | None) -> None:
    _say({"alive": True} if told is None else told)


def _say(message: Mapping[str, Any] | JobTold) -> None:
    try:
        sys.stdout.buffer.write(orjson.dumps(message) + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # the daemon is gone; what is stored is whole at any time
        os._exit(0)


def _ends(wait_s: float) -> bool:
    """Wait for the end of the input."""
    ready, _, _ = select.select([sys.stdin.fileno()], [], [], wait_s)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1)


if __name__ == "__main__":
    sys.exit(main())

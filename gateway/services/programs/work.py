"""Runs jobs in the process beside the daemon, a bounded step of each in turn, and says what became of each.

What a job raises, whatever it is, is said and does not keep the others from running: this is the supervisor of that
process. The daemon's side is `gateway/app/money`.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.clock import Clock
from gateway.domain.errors import GatewayError

log = logging.getLogger(__name__)

ERROR_MAX = 500
PROBLEMS_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """After a step of a job. `more`: there is work that can be done now; `backlog`: how much of it, in units of the
    job; `problems`: what it cannot do, in words, while it does the rest."""

    more: bool = False
    backlog: int = 0
    problems: tuple[str, ...] = ()


class Job(Protocol):
    """Something that is computed again and again, of what is stored."""

    @property
    def name(self) -> str:
        """One word, the same at every start: a label of metrics."""
        ...

    def step(self, now_ms: int) -> JobState:
        """Do a piece of work that takes seconds, not minutes, and that may be cut off anywhere: whatever is stored is
        whole, and the next step goes on from it. `now_ms` is UTC."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTold:
    """What is said after a step; `error` "" = it ended well."""

    job: str
    at_ms: int
    error: str = ""
    backlog: int = 0
    problems: tuple[str, ...] = ()


def run_jobs(
    jobs: Sequence[Job], *, clock: Clock, say: Callable[[JobTold | None], None], ends: Callable[[float], bool],
    pause_s: float,
) -> None:  # fmt: skip
    """Run until `ends(s)`, which waits for so long, says so. `say(None)` is a sign of life."""
    while True:
        going_on = list(jobs)
        while going_on:
            going_on = [job for job in going_on if not ends(0.0) and _step(job, clock, say)]
        say(None)
        if ends(pause_s):
            return


def _step(job: Job, clock: Clock, say: Callable[[JobTold | None], None]) -> bool:
    """Whether there is more to be done now."""
    now_ms = clock.now().utc_ms
    try:
        done = job.step(now_ms)
    except GatewayError as error:
        say(JobTold(job=job.name, at_ms=now_ms, error=str(error)[:ERROR_MAX]))
        return False
    except Exception as error:
        log.exception("a job failed; the others go on", extra={"job": job.name})
        say(JobTold(job=job.name, at_ms=now_ms, error=f"{type(error).__name__}: {error}"[:ERROR_MAX]))
        return False
    say(JobTold(job=job.name, at_ms=now_ms, backlog=done.backlog, problems=done.problems[:PROBLEMS_MAX]))
    return done.more

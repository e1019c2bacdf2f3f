"""What a start makes of the runs before it, and what is left of a run for the next start.

A run that was killed, crashed or ended because it is broken counts; one that was stopped, or refused to start, does
not. After three of them within ten minutes the next start is release-only: see `services/control/release_only`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.clock import SystemClock
from gateway.domain.errors import GatewayError, InvariantBroken, StorageError
from gateway.domain.runs import ENDS_MAX, WITHIN_MS, RunEnd, only_releases
from gateway.observability.metrics import Sample, gauge
from gateway.observability.parts import Part
from gateway.services.runtime.pending_changes import PendingChanges
from gateway.storage.runs import Runs

log = logging.getLogger(__name__)

RELEASE_ONLY = gauge("gateway_release_only", "1 while the gateway only hands devices back and runs no events.")

LAST_CHANCE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRuns(Part):
    """The ends that this start knows of, and whether it may only release devices."""

    component = "release-only"

    runs: Runs
    ends: tuple[RunEnd, ...]
    release_only: bool

    def reasons(self) -> list[str]:
        """Why the gateway only releases, and how to leave that."""
        if not self.release_only:
            return []
        until = datetime.fromtimestamp((self.ends[-ENDS_MAX].utc_ms + WITHIN_MS) / 1000, tz=UTC)
        causes = "; ".join(dict.fromkeys(end.why for end in self.ends))
        return [
            f"release-only: {ENDS_MAX} runs ended within {WITHIN_MS // 60_000} minutes: {causes}. "
            "Devices are handed back, no event runs. To leave: `gateway resume --config FILE` and a restart, or a "
            f"restart after {until:%Y-%m-%dT%H:%M:%SZ}"
        ]

    def samples(self) -> Iterable[Sample]:
        yield RELEASE_ONLY.sample(int(self.release_only))

    async def note_end(self, why: str, pending: PendingChanges) -> None:
        """The last chance, for a few seconds, of what is in force and not durable yet; then note why the run ends."""
        with contextlib.suppress(TimeoutError, StorageError):
            async with asyncio.timeout(LAST_CHANCE_S):
                await pending.close()
        with contextlib.suppress(TimeoutError, StorageError):
            async with asyncio.timeout(LAST_CHANCE_S):
                await asyncio.to_thread(self.runs.end, why)


@contextmanager
def noted_run(state_dir: Path) -> Iterator[LastRuns]:
    """Note the start of a run, and its end where it is one that does not count. The state directory is locked."""
    clock = SystemClock()
    runs = Runs(state_dir, clock=clock)
    ends = runs.begin()
    last = LastRuns(runs=runs, ends=ends, release_only=only_releases(ends, clock.now(), clock.boot))
    if last.release_only:
        log.critical("the gateway starts release-only", extra={"reasons": last.reasons()})
    try:
        yield last
    except InvariantBroken as error:
        why = f"start: broken invariant: {error}"
        log.critical("the gateway cannot start", extra={"reason": why}, exc_info=error)
        with contextlib.suppress(StorageError):
            runs.end(why)
        raise
    except (GatewayError, asyncio.CancelledError):
        _note_stop(runs)
        raise
    _note_stop(runs)


def _note_stop(runs: Runs) -> None:
    try:
        runs.stop()
    except StorageError as error:
        log.error("the stop cannot be noted; it will count as a crash", extra={"error": str(error)})


def resume(state_dir: Path) -> None:
    """Let the next start run events again. Raises StorageError."""
    Runs(state_dir, clock=SystemClock()).forget()

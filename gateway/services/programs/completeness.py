"""What is missing for each program's data deadline, read from what the process beside the daemon has counted."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from gateway.clock import Clock
from gateway.domain.errors import GatewayError
from gateway.domain.programs.due_data import DueData
from gateway.observability.metrics import Sample, gauge
from gateway.observability.parts import Importance, Part
from gateway.storage.programs.due_file import CountedDue, read_due

log = logging.getLogger(__name__)

EVERY_S = 15.0
PROGRAM = "programs with a data deadline"

MISSING = gauge(
    "gateway_program_data_missing_intervals",
    "Intervals that are missing for a program's next data deadline, of days that are over.",
    program=PROGRAM,
)
OWED = gauge(
    "gateway_program_data_owed_intervals", "Intervals that are owed for it, of days that are over.", program=PROGRAM
)
SITES = gauge("gateway_program_data_missing_sites", "Sites at which some of them are missing.", program=PROGRAM)
DUE = gauge("gateway_program_data_due_timestamp_seconds", "When a program's next data deadline is.", program=PROGRAM)


class DataCompleteness(Part):
    """Keeps what was counted last."""

    service = "data-completeness"
    component = "money"
    importance = Importance.SPARE

    def __init__(self, state_dir: Path, *, clock: Clock) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self._counted = CountedDue()
        self._unreadable = ""

    async def run(self) -> None:
        """Read it again and again, until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(EVERY_S)

    async def read(self) -> None:
        """Read it once."""
        try:
            self._counted = await asyncio.to_thread(read_due, self._state_dir)
        except GatewayError as error:
            if not self._unreadable:
                log.error("what is missing for data deadlines cannot be read", extra={"error": str(error)})
            self._unreadable = str(error)
        else:
            self._unreadable = ""

    def due(self) -> Sequence[DueData]:
        """Deadlines that have not passed, of periods that have begun."""
        now_ms = self._clock.now().utc_ms
        return [one for one in self._counted.due if one.due_ms >= now_ms]

    def samples(self) -> Iterable[Sample]:
        following: dict[str, DueData] = {}
        for one in sorted(self.due(), key=lambda one: one.due_ms):
            following.setdefault(one.program, one)
        for program, one in following.items():
            yield MISSING.sample(one.missing, program=program)
            yield OWED.sample(one.owed, program=program)
            yield SITES.sample(one.sites, program=program)
            yield DUE.sample(one.due_ms / 1000, program=program)

    def warnings(self) -> list[str]:
        if self._unreadable:
            return [f"what is missing for data deadlines cannot be read: {self._unreadable}"]
        return []

"""How many homes have a meter that differs from their utility's, as the process beside the daemon has counted it."""

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from gateway.domain.errors import GatewayError
from gateway.domain.programs.meter_match import MeterMismatch
from gateway.observability.metrics import Sample, gauge
from gateway.observability.parts import Importance, Part
from gateway.storage.programs.match_file import MatchCounts, read_counts

log = logging.getLogger(__name__)

EVERY_S = 60.0

MISMATCHES = gauge(
    "gateway_meter_mismatch_sites",
    "Sites whose own meter differs from their utility's: it is reversed, scaled (a wrong factor) or unlike.",
    kind=tuple(kind.value for kind in MeterMismatch),
)


class MeterMismatches(Part):
    """Keeps what was counted last; `gateway meters list --mismatches` names the sites."""

    service = "meter-mismatches"
    component = "money"
    importance = Importance.SPARE

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._counts = MatchCounts()
        self._unreadable = ""

    async def run(self) -> None:
        """Read it again and again, until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(EVERY_S)

    async def read(self) -> None:
        """Read it once."""
        try:
            self._counts = await asyncio.to_thread(read_counts, self._state_dir)
        except GatewayError as error:
            if not self._unreadable:
                log.error("how meters compare cannot be read", extra={"error": str(error)})
            self._unreadable = str(error)
        else:
            self._unreadable = ""

    def samples(self) -> Iterable[Sample]:
        yield from MISMATCHES.each({kind.value: self._counts.mismatches.get(kind.value, 0) for kind in MeterMismatch})

    def warnings(self) -> list[str]:
        return [f"how meters compare cannot be read: {self._unreadable}"] if self._unreadable else []

"""Counts who was not let in, and why, and logs it on the edge: a line for each source and reason, then their number
once a period. A line says who knocked (a caller that was recognised, else an address) and never what was presented.
"""

import asyncio
import logging
from collections.abc import Iterable

from gateway.clock import Clock
from gateway.domain.access import DoorRefusal
from gateway.observability.metrics import Sample, counter, words
from gateway.observability.parts import Importance, Part

log = logging.getLogger(__name__)

PERIOD_MS = 600_000
SETTLE_S = 30.0
KNOCKING_MAX = 256
"""Pairs of a source and a reason that are told apart at a time; the others are counted together."""

OTHERS = "others"

REFUSALS = counter(
    "gateway_access_refusals",
    "Requests and connections that were refused at the door, by reason.",
    reason=words(DoorRefusal),
)


class Refusals(Part):
    """`counts` by reason since the start."""

    service = "access-refusals"
    importance = Importance.SPARE

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: dict[tuple[str, DoorRefusal], tuple[int, int]] = {}  # since when, and how many since then
        self.counts = dict.fromkeys(DoorRefusal, 0)

    def note(self, reason: DoorRefusal, source: str) -> None:
        """Somebody was refused. `source`: the name of a caller that was recognised, else an address."""
        self.counts[reason] += 1
        key = (source, reason)
        if key not in self._told and len(self._told) >= KNOCKING_MAX:
            key = (OTHERS, reason)
        since_ms, count = self._told.get(key, (None, 0))
        if since_ms is None:
            self._tell(key, 1)
            self._told[key] = (self._clock.mono_ms(), 0)
        else:
            self._told[key] = (since_ms, count + 1)

    def settle(self) -> None:
        """Tell how many more there were in a period that is over, and forget who knocks no more."""
        now_ms = self._clock.mono_ms()
        for key, (since_ms, count) in list(self._told.items()):
            if now_ms - since_ms < PERIOD_MS:
                continue
            if count:
                self._tell(key, count)
                self._told[key] = (now_ms, 0)
            else:
                del self._told[key]

    async def run(self) -> None:
        """Settle now and then, until cancelled."""
        while True:
            await asyncio.sleep(SETTLE_S)
            self.settle()

    def _tell(self, key: tuple[str, DoorRefusal], count: int) -> None:
        source, reason = key
        log.warning("refused at the door", extra={"source": source, "reason": reason.value, "count": count})

    def samples(self) -> Iterable[Sample]:
        return REFUSALS.each(self.counts)

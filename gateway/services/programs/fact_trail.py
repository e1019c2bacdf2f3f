"""Tells the journal's audit trail what was committed to the facts of programs.

What the trail is to say is committed with the facts themselves; it is told right after, and again every minute and at a
start until the trail has it. So no row is lost, whenever the process ends, and none is told twice: they are told in
their order, and the newest row of the trail says which of them it has.
"""

import asyncio
import logging
from collections.abc import Iterable

from gateway.domain.errors import GatewayError
from gateway.domain.journal.changes import FactsChanged
from gateway.domain.journal.stored import AuditQuestion
from gateway.observability.metrics import Sample, gauge
from gateway.observability.parts import Importance, Part
from gateway.ports.journal import AuditTrail, Journal
from gateway.ports.programs import FactBatch, FactStore

log = logging.getLogger(__name__)

KIND = "facts_changed"
PAGE = 100
RETRY_S = 60.0

WAITING = gauge(
    "gateway_programs_untold_commits",
    "Commits of enrollments, consents and customers that the audit trail does not have yet.",
)


class FactTrail(Part):
    """Tells the trail. `trail`: what it has."""

    component = "programs"
    service = "fact-trail"
    importance = Importance.SPARE

    def __init__(self, store: FactStore, journal: Journal, trail: AuditTrail) -> None:
        self._store = store
        self._journal = journal
        self._trail = trail
        self._sure = False
        """Whether the oldest that waits is known not to be in the trail."""
        self._waiting = 0
        self._failing = False
        self._one_at_a_time = asyncio.Lock()

    async def run(self) -> None:
        """Tell again what waits, every minute, until cancelled."""
        while True:
            await self.tell()
            await asyncio.sleep(RETRY_S)

    async def tell(self) -> None:
        """Tell what waits; what cannot be told now is told later."""
        async with self._one_at_a_time:
            try:
                while waiting := await self._left():
                    self._waiting = len(waiting)
                    # until it is noted here, what is told may be in the trail or not
                    self._sure = False
                    await self._tell(waiting)
                    self._sure = True
                self._waiting = 0
                self._failing = False
            except GatewayError as error:
                if not self._failing:
                    log.warning("the audit trail does not have what changed yet", extra={"error": str(error)})
                self._failing = True

    async def _left(self) -> list[FactBatch]:
        waiting = await self._store.untold(PAGE)
        if not waiting or self._sure:
            return waiting
        newest = await self._trail.audit(AuditQuestion(kind=KIND), 1)
        has = newest[0].body.get("batch") if newest else None
        if has in [one.id for one in waiting]:
            await self._store.told(str(has))
            return await self._store.untold(PAGE)
        return waiting

    async def _tell(self, waiting: list[FactBatch]) -> None:
        await self._journal.commit(
            [
                FactsChanged(batch=one.id, noted_ms=one.noted_ms, body=one.body, by=one.by, door=one.door)
                for one in waiting
            ]
        )
        await self._store.told(waiting[-1].id)

    def samples(self) -> Iterable[Sample]:
        yield WAITING.sample(self._waiting)

    def warnings(self) -> list[str]:
        if not self._waiting:
            return []
        return [f"{self._waiting} commits of enrollments or customers are not in the audit trail yet"]

"""Sends records to a sink again: parked records that an operator has dealt with, or a whole stretch of time."""

from collections.abc import Sequence

from gateway.clock import Clock
from gateway.domain.intervals.columns import IntervalColumns
from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.types import Bools
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.interval_log.merge import Place
from gateway.storage.interval_log.positions import RESEND, Parked
from gateway.storage.interval_log.query import IntervalQueries
from gateway.storage.interval_log.rows import Identity

MARKED_AT_ONCE = 50_000


class Resend:
    """Marks records to be sent again, and finds them for delivery."""

    def __init__(self, log_: IntervalLog, queries: IntervalQueries, clock: Clock) -> None:
        self._log = log_
        self._queries = queries
        self._clock = clock

    async def again(self, name: str, limit: int) -> tuple[Sequence[IntervalRecord], Sequence[Identity]]:
        """See `delivery.Finder`. A record with a newer revision by now is sent as that."""
        waiting = await self._log.ask(lambda positions: positions.parked(name, limit, RESEND))
        places: list[Place] = [(one.identity[0], one.identity[1]) for one in waiting]
        records, _ = await self._queries.find(places)
        return records, [one.identity for one in waiting]

    async def superseded(self, rows: IntervalColumns) -> Bools:
        """See `delivery.Finder`."""
        return await self._queries.superseded(rows)

    async def mark(self, name: str, rows: Sequence[IntervalRecord]) -> int:
        """Mark these records to be sent again; returns how many."""
        at_ms = self._clock.now().utc_ms
        marks = [Parked(identity=(row.start_ms, row.device, row.revision), reason=RESEND, at_ms=at_ms) for row in rows]
        await self._log.ask(lambda positions: positions.park(name, marks))
        return len(marks)

    async def mark_parked(self, name: str, from_ms: int, to_ms: int) -> int:
        """Mark the parked records of a stretch of time to be sent again; returns how many."""
        return await self._log.ask(lambda positions: positions.release(name, from_ms, to_ms))

"""Carries interval records from the log to the sinks: one cursor, one window and one back-off per sink."""

import asyncio
import hashlib
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, assert_never

from gateway.clock import Clock
from gateway.domain.model import IntervalRecord
from gateway.ports import Accept, IntervalBatch, Keep, Reject, Sink

log = logging.getLogger(__name__)

RETRY_BASE_S = 0.5
RETRY_CAP_S = 60.0


class IntervalReader(Protocol):
    """What delivery asks of the interval log. A cursor is opaque here and totally ordered there."""

    async def read(self, cursor: Any, limit: int) -> tuple[Sequence[IntervalRecord], Any]: ...

    async def load_cursor(self, name: str) -> Any: ...

    async def save_cursor(self, name: str, cursor: Any) -> None: ...

    async def backlog(self, cursor: Any) -> tuple[int, int | None]: ...


@dataclass(slots=True)
class SinkStats:
    """What a sink has been given. `oldest_ms`: start of the oldest record it does not have, None = none waiting."""

    accepted: int = 0
    rejected: int = 0
    kept: int = 0
    failing: str | None = None
    backlog: int = 0
    oldest_ms: int | None = None


def batch_id(rows: Sequence[IntervalRecord]) -> str:
    """The same for the same rows in the same order: a receiver can tell a repetition."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr((row.device, row.start_ms, row.revision)).encode())
    return digest.hexdigest()[:32]


class Delivery:
    """Delivers the log to one sink, at least once and in log order. `gather_s`: how long to wait for more after a batch
    that was not full, for receivers that are better served with few large batches."""

    def __init__(
        self, sink: Sink, *, log_: IntervalReader, clock: Clock, rng: random.Random, gather_s: float = 0.0
    ) -> None:
        self.sink = sink
        self.stats = SinkStats()
        self._log = log_
        self._clock = clock
        self._rng = rng
        self._gather_s = gather_s
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Something was appended to the log."""
        self._news.set()

    async def run(self) -> None:
        """Serve until cancelled. A crash between the receiver's answer and the cursor's step repeats one batch."""
        cursor = await self._log.load_cursor(self.sink.name)
        failures = 0
        while True:
            self._news.clear()
            rows, after = await self._log.read(cursor, self.sink.batch_rows)
            if not rows:
                self.stats.oldest_ms, self.stats.backlog = None, 0
                await self._news.wait()
                continue
            self.stats.oldest_ms = rows[0].start_ms
            whole = len(rows) < self.sink.batch_rows
            self.stats.backlog = len(rows) if whole else (await self._log.backlog(cursor))[0]
            wanted = [row for row in rows if self.sink.wants(row)]
            wait_s = await self._offer(wanted, failures) if wanted else None
            if wait_s is None:
                failures = 0
                cursor = after
                await self._log.save_cursor(self.sink.name, cursor)
                if whole and self._gather_s:
                    self.stats.oldest_ms, self.stats.backlog = None, 0
                    await asyncio.sleep(self._gather_s)
            else:
                failures += 1
                await asyncio.sleep(wait_s)

    async def _offer(self, rows: Sequence[IntervalRecord], failures: int) -> float | None:
        """None when the cursor may move, else how long to wait in s."""
        result = await self.sink.send(IntervalBatch(id=batch_id(rows), rows=rows))
        match result:
            case Accept():
                self.stats.accepted += len(rows)
                self._recovered()
                return None
            case Reject(refused=refused):
                self.stats.accepted += len(rows) - len(refused)
                self.stats.rejected += len(refused)
                first, reason = min(refused.items())
                log.error(
                    "a receiver refused interval records for good",
                    extra={"sink": self.sink.name, "rows": len(refused), "reason": reason, "first": repr(rows[first])},
                )
                self._recovered()
                return None
            case Keep(reason=reason, after_s=after_s):
                self.stats.kept += 1
                if self.stats.failing != reason:
                    log.warning(
                        "a receiver does not take interval records", extra={"sink": self.sink.name, "reason": reason}
                    )
                self.stats.failing = reason
                ceiling = min(RETRY_CAP_S, RETRY_BASE_S * 2 ** min(failures, 10))
                return float(max(after_s, self._rng.uniform(0.1, 1.0) * ceiling))
            case _:
                assert_never(result)

    def _recovered(self) -> None:
        if self.stats.failing is not None:
            log.info("a receiver takes interval records again", extra={"sink": self.sink.name})
        self.stats.failing = None

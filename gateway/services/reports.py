"""What is told upstream of dispatch: delivery records as they change, events as they go, what can be sustained.

The newest of each counts: what has not been told yet is replaced, not queued behind. While nobody takes it, it waits.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from gateway.clock import Clock
from gateway.services.ledger import StatusReport
from gateway.services.observe import Sample

log = logging.getLogger(__name__)

ROWS_MAX = 500
PENDING_MAX = 200_000
RETRY_S = 1.0
EVENTS_EVERY_S = 10.0

Body = dict[str, Any]
Publish = Callable[[str, Body], Awaitable[bool]]
"""Tell one report of a kind (`deliveries`, `events`, `availability`); whether it was taken."""


@dataclass(slots=True)
class ReportStats:
    """Counts: rows and reports told, rows given up since too many waited."""

    rows: int = 0
    reports: int = 0
    dropped: int = 0


class Reports:
    """Gathers what is to be told, and tells it."""

    def __init__(self, *, clock: Clock, availability_s: float) -> None:
        self._clock = clock
        self._availability_s = availability_s
        self._rows: OrderedDict[str, tuple[str, int, Body]] = OrderedDict()
        self._news = asyncio.Event()
        self.stats = ReportStats()

    def take(self, report: StatusReport) -> None:
        """Delivery records that have changed."""
        for row in report.rows:
            self._rows[row["id"]] = (report.event, report.revision, row)
            self._rows.move_to_end(row["id"])
        while len(self._rows) > PENDING_MAX:
            self._rows.popitem(last=False)
            self.stats.dropped += 1
        self._news.set()

    async def run(
        self, publish: Publish, *, events: Callable[[], Iterable[Body]], availability: Callable[[], Iterable[Body]]
    ) -> None:
        """Tell until cancelled. `events` and `availability` are asked for what is so now."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_rows(publish), name="report-deliveries")
            group.create_task(self._tell_often(publish, "events", events, EVENTS_EVERY_S), name="report-events")
            group.create_task(
                self._tell_often(publish, "availability", availability, self._availability_s),
                name="report-availability",
            )

    async def _tell_rows(self, publish: Publish) -> None:
        while True:
            await self._news.wait()
            batch = self._batch()
            if not batch:
                self._news.clear()
                continue
            event, revision, rows = batch
            body = {"event": event, "revision": revision, "t": self._clock.now().utc_ms, "devices": rows}
            if not await publish("deliveries", body):
                await asyncio.sleep(RETRY_S)
                continue
            self.stats.rows += len(rows)
            for row in rows:
                known = self._rows.get(row["id"])
                if known is not None and known[2] is row:
                    del self._rows[row["id"]]

    def _batch(self) -> tuple[str, int, list[Body]] | None:
        """Oldest rows of one event."""
        if not self._rows:
            return None
        event, revision, _ = next(iter(self._rows.values()))
        rows: list[Body] = []
        for other, other_revision, row in self._rows.values():
            if (other, other_revision) == (event, revision):
                rows.append(row)
            if len(rows) >= ROWS_MAX:
                break
        return event, revision, rows

    async def _tell_often(
        self, publish: Publish, kind: str, bodies: Callable[[], Iterable[Body]], period_s: float
    ) -> None:
        while True:
            await asyncio.sleep(period_s)
            found = list(bodies())
            if found:
                self.stats.reports += await publish(kind, {"t": self._clock.now().utc_ms, kind: found})

    def samples(self) -> Iterable[Sample]:
        for name, text, value in (
            ("gateway_reported_rows", "Delivery records told upstream.", self.stats.rows),
            ("gateway_reports", "Reports on events and availability told upstream.", self.stats.reports),
            ("gateway_report_rows_dropped", "Delivery records not told, since too many waited.", self.stats.dropped),
        ):
            yield Sample(name=name, help=text, value=value, kind="counter")
        yield Sample(name="gateway_report_rows_waiting", help="Delivery records to be told.", value=len(self._rows))

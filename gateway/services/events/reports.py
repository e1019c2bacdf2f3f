"""What is told upstream of dispatch: delivery records as they change, events as they go, what can be sustained.

The newest of each counts: nothing queues behind what nobody takes; a record that waits is told as it is by then.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.observability.metrics import Sample
from gateway.services.events.delivery_records import DeliveryRecords, StatusReport

log = logging.getLogger(__name__)

PART = 32
"""Records, events or groups in one report: with the longest names and every limit they fit a packet of 64 KiB."""

LOOK_S = 0.5
RETRY_S = 1.0
EVENTS_EVERY_S = 10.0

Body = dict[str, Any]
Publish = Callable[[str, Body], Awaitable[bool]]
"""Tell one report of a kind (`deliveries`, `events`, `availability`); whether it was taken."""


@dataclass(slots=True)
class ReportStats:
    """Counts: delivery records told, reports on events and availability told, reports that nobody took; `failing`: the
    kinds that are not taken now."""

    rows: int = 0
    reports: int = 0
    refused: int = 0
    failing: set[str] = field(default_factory=set)


class Reports:
    """Tells what the ledger holds, and what it is asked to ask for."""

    def __init__(self, ledger: DeliveryRecords, *, availability_s: float) -> None:
        self._records = ledger
        self._availability_s = availability_s
        self.stats = ReportStats()

    async def run(
        self,
        publish: Publish,
        *,
        records: Callable[[StatusReport], Body],
        events: Callable[[], Sequence[Body]],
        availability: Callable[[], Sequence[Body]],
    ) -> None:
        """Tell until cancelled. `records` puts rows into words, `events` and `availability` are asked for what is so
        now, in parts."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_rows(publish, records), name="report-deliveries")
            group.create_task(self._tell_often(publish, "events", events, EVENTS_EVERY_S), name="report-events")
            group.create_task(
                self._tell_often(publish, "availability", availability, self._availability_s),
                name="report-availability",
            )

    async def _tell_rows(self, publish: Publish, records: Callable[[StatusReport], Body]) -> None:
        while True:
            report = self._records.changed(PART)
            if report is None:
                await asyncio.sleep(LOOK_S)
                continue
            if self._taken("deliveries", await publish("deliveries", records(report))):
                self.stats.rows += len(report.rows)
            else:
                self._records.give_back(report)
                await asyncio.sleep(RETRY_S)

    def _taken(self, kind: str, taken: bool) -> bool:
        """Count and, where it begins and ends, tell that reports of a kind are not taken."""
        stats = self.stats
        if taken and kind in stats.failing:
            stats.failing.discard(kind)
            log.info("reports are taken again", extra={"kind": kind})
        elif not taken:
            stats.refused += 1
            if kind not in stats.failing:
                stats.failing.add(kind)
                log.warning("reports are not taken", extra={"kind": kind})
        return taken

    async def _tell_often(
        self, publish: Publish, kind: str, told: Callable[[], Sequence[Body]], period_s: float
    ) -> None:
        while True:
            await asyncio.sleep(period_s)
            for body in told():
                self.stats.reports += self._taken(kind, await publish(kind, body))

    def samples(self) -> Iterable[Sample]:
        for name, text, value in (
            ("gateway_reported_rows", "Delivery records told upstream.", self.stats.rows),
            ("gateway_reports", "Reports on events and availability told upstream.", self.stats.reports),
            ("gateway_reports_refused", "Reports that nobody took.", self.stats.refused),
            (
                "gateway_report_rows_dropped",
                "Delivery records never told, since nobody took them.",
                self._records.dropped,
            ),
        ):
            yield Sample(name=name, help=text, value=value, kind="counter")
        yield Sample(
            name="gateway_report_rows_waiting", help="Delivery records to be told.", value=self._records.waiting
        )

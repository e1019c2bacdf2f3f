"""Publishes dispatch upstream: changed delivery records, plus periodic event and availability reports.

Only the newest state is sent; an unsent record is replaced, not queued.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.domain.errors import StorageError
from gateway.observability.metrics import Sample, counter, gauge
from gateway.observability.parts import Importance, Part
from gateway.ports.journal import EventStore
from gateway.services.events.delivery_records import DeliveryRecords, StatusReport

log = logging.getLogger(__name__)

PART = 32
"""Records, events or groups in one report: with the longest names and every limit they fit a packet of 64 KiB."""

POLL_S = 0.5
RETRY_S = 1.0
EVENTS_EVERY_S = 10.0

ROWS = counter("gateway_reported_rows", "Delivery records told upstream.")
REPORTS = counter("gateway_reports", "Reports on events and availability told upstream.")
REFUSED = counter("gateway_reports_refused", "Reports that nobody took.")
ROWS_DROPPED = counter("gateway_report_rows_dropped", "Delivery records never told, since nobody took them.")
ROWS_WAITING = gauge("gateway_report_rows_waiting", "Delivery records to be told.")

Body = dict[str, Any]
Publish = Callable[[str, Body], Awaitable[bool]]
"""Publish one report of a kind (`deliveries`, `events`, `availability`); returns whether the peer accepted it."""


@dataclass(slots=True)
class ReportStats:
    """Counts: delivery records published, reports on events and availability published, reports rejected; `failing`:
    the kinds that are being rejected now."""

    rows: int = 0
    reports: int = 0
    refused: int = 0
    failing: set[str] = field(default_factory=set)


class ReportBodies(Protocol):
    """Makes the bodies of reports. `event_reports` and `availability_report` return the present state as several, which
    may be made while they are published."""

    def delivery_reports(self, report: StatusReport) -> Body: ...

    def event_reports(self) -> Iterable[Body]: ...

    def availability_report(self) -> Iterable[Body]: ...


class Reports(Part):
    """Publishes changed delivery records, plus periodic event and availability reports. `publish` None = nobody is
    told."""

    component = "control"
    importance = Importance.SPARE

    def __init__(
        self, records: DeliveryRecords, bodies: ReportBodies, publish: Publish | None, *, store: EventStore,
        availability_s: float,
    ) -> None:  # fmt: skip
        self.service = "" if publish is None else "reports"
        self.stats = ReportStats()
        self._records = records
        self._bodies = bodies
        self._publish: Publish = _untold if publish is None else publish
        self._store = store
        self._availability_s = availability_s

    async def run(self) -> None:
        """Publish until cancelled."""
        events, availability = self._bodies.event_reports, self._bodies.availability_report
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publish_records(), name="report-deliveries")
            group.create_task(self._publish_often("events", events, EVENTS_EVERY_S), name="report-events")
            group.create_task(
                self._publish_often("availability", availability, self._availability_s), name="report-availability"
            )

    async def _publish_records(self) -> None:
        while True:
            report = self._records.changed(PART) or await self._stored()
            if report is None:
                await asyncio.sleep(POLL_S)
                continue
            body = self._bodies.delivery_reports(report)
            if self._accepted("deliveries", await self._publish("deliveries", body)):
                self.stats.rows += len(report.rows)
            else:
                self._records.give_back(report)
                await asyncio.sleep(RETRY_S)

    async def _stored(self) -> StatusReport | None:
        """What is over, not published, and only in the journal, as far as that can be read."""
        try:
            return await self._records.stored(self._store, PART)
        except StorageError as error:
            log.debug("delivery records cannot be read", extra={"error": str(error)})
            return None

    def _accepted(self, kind: str, accepted: bool) -> bool:
        """Count rejected reports; log when a kind begins and ends to be rejected."""
        stats = self.stats
        if accepted and kind in stats.failing:
            stats.failing.discard(kind)
            log.info("platform accepts reports again", extra={"kind": kind})
        elif not accepted:
            stats.refused += 1
            if kind not in stats.failing:
                stats.failing.add(kind)
                log.warning("platform rejected reports", extra={"kind": kind})
        return accepted

    async def _publish_often(self, kind: str, bodies: Callable[[], Iterable[Body]], period_s: float) -> None:
        while True:
            await asyncio.sleep(period_s)
            for body in bodies():
                self.stats.reports += self._accepted(kind, await self._publish(kind, body))

    def samples(self) -> Iterable[Sample]:
        yield ROWS.sample(self.stats.rows)
        yield REPORTS.sample(self.stats.reports)
        yield REFUSED.sample(self.stats.refused)
        yield ROWS_DROPPED.sample(self._records.dropped)
        yield ROWS_WAITING.sample(self._records.waiting)


async def _untold(_kind: str, _body: Body) -> bool:
    """Nobody is told."""
    return False

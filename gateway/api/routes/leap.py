"""How the uploads to the aggregator stand: what is confirmed, the last file, what is missing, what waits and why."""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from gateway.api.exchange import json_answer
from gateway.api.interval_models import (
    LeapAcceptedBody,
    LeapFileBody,
    LeapMissingBody,
    LeapSinkState,
    LeapStatus,
)
from gateway.api.route import RestRoute
from gateway.clock import Clock
from gateway.observability.metrics import Sample
from gateway.observability.parts import Part
from gateway.ports.sinks import Keep, Stop
from gateway.schemas import operations as ops
from gateway.schemas.interval_rows import rfc3339
from gateway.services.uplink.delivery import SinkDelivery
from gateway.sinks.leap.confirmed import LeapConfirmed
from gateway.sinks.leap.sink import LeapCsvSink
from gateway.storage.interval_log.log import IntervalLog

ASKED_MS = 100 * 86_400_000
"""How far back the aggregator is asked for missing intervals."""
ASK_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeapUploads(Part):
    """The sinks of the aggregator with their deliveries, and what is confirmed."""

    log: IntervalLog
    clock: Clock
    confirmed: LeapConfirmed = field(default_factory=LeapConfirmed)
    sinks: Sequence[tuple[LeapCsvSink, SinkDelivery]] = ()

    def samples(self) -> Iterable[Sample]:
        """What is not confirmed, where there is a sink."""
        return self.confirmed.samples() if self.sinks else ()

    async def status(self) -> LeapStatus:
        """All of it. Asks the aggregator."""
        return LeapStatus(
            state="UNCONFIRMED" if self.confirmed.unconfirmed else "CONFIRMED",
            confirmed={point: value for point, value in self.confirmed.model_dump().items() if value is not None},
            unconfirmed=self.confirmed.unconfirmed,
            sinks=[await self._sink(sink, delivery) for sink, delivery in self.sinks],
        )

    async def _sink(self, sink: LeapCsvSink, delivery: SinkDelivery) -> LeapSinkState:
        stats = delivery.stats
        with contextlib.suppress(OSError):  # the sink says so itself as soon as it has something to send
            await sink.recall()
        parked = await self.log.ask(lambda readers: readers.parked_counts(sink.name))
        missing, unknown = await self._missing(sink)
        return LeapSinkState(
            sink=sink.name, transport=sink.settings.transport, upload_schema=sink.settings.upload_schema,
            failing=stats.failing, stopped=stats.stopped, detail=stats.detail,
            backlog=await self.log.backlog(delivery.position),
            oldest=None if stats.oldest_ms is None else rfc3339(stats.oldest_ms),
            waiting=dict(sink.stats.waiting), parked=dict(parked), meters=sink.meters_known,
            meters_failing=sink.meters_failing, last_file=_last(sink), on_its_way=_current(sink),
            last_accepted=_accepted(sink), missing=missing, missing_unknown=unknown,
        )  # fmt: skip

    async def _missing(self, sink: LeapCsvSink) -> tuple[LeapMissingBody | None, str | None]:
        """What the aggregator says it lacks, or why that is not known."""
        now_ms = self.clock.now().utc_ms
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                found = await sink.missing(now_ms - ASKED_MS, now_ms)
        except TimeoutError:
            return None, "timeout"
        if isinstance(found, Keep):
            return None, found.reason
        if isinstance(found, Stop):
            return None, f"{found.reason}: {found.detail}" if found.detail else found.reason
        deadlines = [lack.deadline_ms for lack in found if lack.deadline_ms is not None and lack.deadline_ms > now_ms]
        oldest = min(found, key=lambda lack: lack.start_ms, default=None)
        return LeapMissingBody(
            entries=len(found), oldest=None if oldest is None else rfc3339(oldest.start_ms),
            oldest_meter=None if oldest is None else oldest.meter_id,
            oldest_device=None if oldest is None else oldest.device,
            next_deadline=rfc3339(min(deadlines)) if deadlines else None,
        ), None  # fmt: skip


def _last(sink: LeapCsvSink) -> LeapFileBody | None:
    last = sink.past.last
    if last is None:
        return None
    return LeapFileBody(
        name=last["name"], rows=last["rows"], job=last["job"], status=last["status"], at=rfc3339(last["at_ms"])
    )


def _current(sink: LeapCsvSink) -> LeapFileBody | None:
    file = sink.current
    if file is None:
        return None
    status = "uploaded" if file.job is not None else "perhaps uploaded" if file.tried else "not uploaded"
    return LeapFileBody(name=file.name, rows=len(file.rows), job=file.job, status=status, at=rfc3339(file.began_ms))


def _accepted(sink: LeapCsvSink) -> LeapAcceptedBody | None:
    row = sink.past.accepted
    return None if row is None else LeapAcceptedBody(start=rfc3339(row[0]), device=row[1], revision=row[2])


class LeapRoutes:
    """The routes of the aggregator."""

    def __init__(self, uploads: LeapUploads) -> None:
        self._uploads = uploads

    async def status(self, _request: web.Request) -> web.StreamResponse:
        return json_answer(await self._uploads.status())

    ROUTES = (
        RestRoute(
            operation=ops.SHOW_LEAP, handler=status,
            summary="Show how uploads to the aggregator stand; asks it what is missing",
            answers={200: LeapStatus}, problems=(503,),
        ),
    )  # fmt: skip

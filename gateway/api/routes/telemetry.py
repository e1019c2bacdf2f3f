"""Intervals, completeness of a day, how far each receiver is, what one lacks, and sending intervals again."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.api.exchange import PAGE_MAX, json_answer, json_list, problem, read_body, read_query
from gateway.api.interval_models import (
    CompletenessList,
    DeviceDayBody,
    GapBody,
    IntervalList,
    MissingBody,
    MissingList,
    ResendBody,
    ResendReport,
    RetryReport,
    SinkDayBody,
    SinkList,
    SinkState,
)
from gateway.api.route import RestRoute
from gateway.api.routes.intervals import CONTENT_TYPES, IntervalQuery, answer
from gateway.clock import Clock
from gateway.domain.access import Scope
from gateway.domain.errors import InvalidInput, PeerBusy
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.completeness import DeviceDay
from gateway.domain.types import DeviceId
from gateway.ports.sinks import Auditable, Keep, MissingInterval, Stop
from gateway.schemas import operations as ops
from gateway.schemas.event import Identifier, Moment
from gateway.schemas.interval_rows import rfc3339
from gateway.services.telemetry.completeness import DAY_MS, Completeness
from gateway.services.telemetry.history import History, Question
from gateway.services.uplink.delivery import SinkDelivery
from gateway.services.uplink.resend import Resend
from gateway.storage.interval_log.log import IntervalLog


def _written(day: object) -> object:
    """A day is written; a number would be taken for a time."""
    if isinstance(day, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", day):
        raise ValueError("a day is written like 2030-06-01")
    return day


Day = Annotated[date, BeforeValidator(_written)]


class CompletenessQuery(BaseModel):
    """Which devices of which day."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    day: Day | None = None
    device: Annotated[list[Identifier], Field(max_length=PAGE_MAX)] = []
    tag: Annotated[list[str], Field(max_length=256)] = []
    offset: Annotated[int, Field(ge=0, le=10**9)] = 0
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = 100
    incomplete: bool = False


class StretchQuery(BaseModel):
    """A stretch of time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Moment = Field(alias="from")
    to: Moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """The services that these routes ask."""

    completeness: Completeness
    deliveries: Sequence[SinkDelivery]
    resend: Resend
    history: History
    log: IntervalLog
    fleet: Fleet
    clock: Clock
    auditable: Mapping[str, Auditable] = field(default_factory=dict)
    unconfirmed: Sequence[str] = ()

    async def day(self, request: web.Request) -> web.StreamResponse:
        """A page of the completeness of a day, yesterday unless the request names one; it has fewer devices than asked
        for where they have many intervals. `incomplete` leaves only the devices of the page that lack something here or
        at a sink. Raises InvalidInput and StorageError."""
        query = read_query(request, CompletenessQuery)
        now_ms = self.clock.now().utc_ms
        day = query.day or date.fromisoformat(rfc3339(now_ms - DAY_MS)[:10])
        day_ms = round(datetime.combine(day, time(), UTC).timestamp() * 1000)
        if day_ms > now_ms:
            raise InvalidInput([f"day: {day} has not begun"])
        if day_ms < 0:
            raise InvalidInput([f"day: {day} is before 1970"])
        named = self._named(query.device, query.tag)
        page = self.completeness.fit(named[query.offset : query.offset + query.limit])
        following = query.offset + len(page)
        body = CompletenessList(
            day=day.isoformat(),
            unconfirmed=list(self.unconfirmed),
            total=len(named),
            next=following if following < len(named) and page else None,
            devices=[],
        )
        found = self.completeness.day(day_ms, page)
        return await json_list(
            request, body, "devices", (_body(one) async for one in found if not (query.incomplete and _whole(one)))
        )

    def _named(self, devices: Sequence[str], tags: Sequence[str]) -> Sequence[DeviceId]:
        if not (devices or tags):
            return self.fleet.ids
        unknown = [f"device: {name}: not registered" for name in devices if name not in self.fleet.slot_of]
        unknown += [f"tag: {tag}: no device has it" for tag in tags if tag not in self.fleet.tags]
        if unknown:
            raise InvalidInput(unknown)
        slots = {self.fleet.slot_of[name] for name in devices}.union(*(self.fleet.tags[tag] for tag in tags))
        return [self.fleet.ids[slot] for slot in sorted(slots)]

    async def sinks(self) -> SinkList:
        """All receivers."""
        out = []
        for delivery in self.deliveries:
            stats, name = delivery.stats, delivery.sink.name
            parked = await self.log.ask(lambda readers, name=name: readers.parked_counts(name))  # type: ignore[misc]
            out.append(
                SinkState(
                    name=name, accepted=stats.accepted, backlog=await self.log.backlog(delivery.position),
                    oldest=None if stats.oldest_ms is None else rfc3339(stats.oldest_ms),
                    backfills=len(delivery.position.backfill), parked=dict(parked), failing=stats.failing,
                    stopped=stats.stopped, detail=stats.detail,
                )
            )  # fmt: skip
        return SinkList(sinks=out)

    async def send_again(self, name: str, body: ResendBody) -> ResendReport | None:
        """Mark records to be sent again; None = there is no such sink."""
        delivery = next((one for one in self.deliveries if one.sink.name == name), None)
        if delivery is None:
            return None
        question = Question(
            from_ms=round(body.since.timestamp() * 1000), to_ms=round(body.to.timestamp() * 1000),
            devices=tuple(body.devices), tags=tuple(body.tags),
        )  # fmt: skip
        if body.parked:
            marked = await self.resend.mark_parked(name, question.from_ms, question.to_ms)
        elif body.missing:
            marked = 0
            for lack in await self._lacking(name, question.from_ms, question.to_ms) or ():
                if lack.device is not None and lack.end_ms > lack.start_ms:
                    part = Question(from_ms=lack.start_ms, to_ms=lack.end_ms, devices=(lack.device,))
                    marked += await self._mark(delivery, part)
        else:
            marked = await self._mark(delivery, question)
        delivery.resend()
        return ResendReport(marked=marked)

    def retry(self, name: str) -> bool:
        """Try a sink again now; returns whether there is one of this name."""
        found = [one for one in self.deliveries if one.sink.name == name]
        for delivery in found:
            delivery.retry()
        return bool(found)

    async def _mark(self, delivery: SinkDelivery, question: Question) -> int:
        marked = 0
        async with aclosing(self.history.all(question)) as pages:
            async for page in pages:
                rows = await asyncio.to_thread(page.objects)
                wanted = [row for row in rows if delivery.sink.wants(row.device, row.length_s)]
                marked += await self.resend.mark(delivery.sink.name, wanted)
        return marked

    async def missing(self, name: str, request: web.Request) -> MissingList | None:
        """What a receiver says it lacks; None = there is no such sink, or it cannot be asked. Raises PeerBusy."""
        stretch = read_query(request, StretchQuery)
        found = await self._lacking(name, round(stretch.since.timestamp() * 1000), round(stretch.to.timestamp() * 1000))
        if found is None:
            return None
        return MissingList(
            missing=[
                MissingBody(
                    device=lack.device, meter=lack.meter_id, start=rfc3339(lack.start_ms), end=rfc3339(lack.end_ms),
                    status=lack.status, kind=lack.data_type,
                    deadline=None if lack.deadline_ms is None else rfc3339(lack.deadline_ms),
                )
                for lack in found
            ]
        )  # fmt: skip

    async def _lacking(self, name: str, from_ms: int, to_ms: int) -> Sequence[MissingInterval] | None:
        sink = self.auditable.get(name)
        if sink is None:
            return None
        found = await sink.missing(from_ms, to_ms)
        if isinstance(found, Keep):
            raise PeerBusy(f"{name} could not be asked: {found.reason}", after_s=found.after_s)
        if isinstance(found, Stop):
            raise PeerBusy(f"{name} could not be asked: {found.reason} {found.detail}".rstrip())
        return found


class TelemetryRoutes:
    """The routes of intervals and sinks."""

    def __init__(self, telemetry: Telemetry, history: History) -> None:
        self._telemetry = telemetry
        self._history = history

    async def intervals(self, request: web.Request) -> web.StreamResponse:
        return await answer(request, self._history)

    async def completeness(self, request: web.Request) -> web.StreamResponse:
        return await self._telemetry.day(request)

    async def sinks(self, _request: web.Request) -> web.StreamResponse:
        return json_answer(await self._telemetry.sinks())

    async def missing(self, request: web.Request) -> web.StreamResponse:
        found = await self._telemetry.missing(request.match_info["name"], request)
        return json_answer(found) if found is not None else problem(404, "no such sink, or one that cannot be asked")

    async def resend(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, ResendBody)
        report = await self._telemetry.send_again(request.match_info["name"], body)
        return json_answer(report) if report is not None else problem(404, "no such sink")

    async def retry(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        known = self._telemetry.retry(name)
        return json_answer(RetryReport(sink=name)) if known else problem(404, "no such sink")

    ROUTES = (
        RestRoute(
            operation=ops.LIST_INTERVALS, handler=intervals, streams=tuple(CONTENT_TYPES.values()),
            summary="List intervals by device, group and time: a page, or everything as CSV or NDJSON",
            query=IntervalQuery, answers={200: IntervalList}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.SHOW_COMPLETENESS, handler=completeness,
            summary="Completeness of a day: intervals expected, stored, accepted by each sink, missing and why",
            query=CompletenessQuery, answers={200: CompletenessList}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.LIST_SINKS, handler=sinks, summary="List receivers of intervals", answers={200: SinkList}
        ),
        RestRoute(
            operation=ops.LIST_MISSING, handler=missing,
            summary="Ask a receiver what it lacks within a stretch of time",
            query=StretchQuery, answers={200: MissingList}, problems=(400, 404, 502),
        ),
        RestRoute(
            operation=ops.RESEND, scope=Scope.ADMIN, handler=resend, summary="Send intervals to a receiver again",
            body=ResendBody, answers={200: ResendReport}, problems=(400, 404, 502, 503),
        ),
        RestRoute(
            operation=ops.RETRY, scope=Scope.ADMIN, handler=retry,
            summary="Try a receiver again now that stopped or is waited for",
            answers={200: RetryReport}, problems=(404,),
        ),
    )  # fmt: skip


def _whole(day: DeviceDay) -> bool:
    return day.complete == day.expected and all(sink.accepted == day.stored for sink in day.sinks.values())


def _body(day: DeviceDay) -> DeviceDayBody:
    return DeviceDayBody(
        device=day.device, length_s=day.length_s, expected=day.expected, stored=day.stored, complete=day.complete,
        revised=day.revised, missing=dict(day.missing),
        sinks={name: SinkDayBody(**asdict(sink)) for name, sink in day.sinks.items()},
        gaps=[
            GapBody(start=rfc3339(gap.from_ms), end=rfc3339(gap.to_ms), intervals=gap.intervals, reason=gap.reason)
            for gap in day.gaps
        ],
    )  # fmt: skip

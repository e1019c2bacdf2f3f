"""What settlement asks: the completeness ledger, where receivers stand, what one lacks, and to send it once more."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.api.interval_models import (
    CompletenessList,
    DeviceDayBody,
    GapBody,
    MissingBody,
    MissingList,
    ResendBody,
    ResendReport,
    SinkDayBody,
    SinkList,
    SinkState,
)
from gateway.clock import Clock
from gateway.domain.errors import InvalidInput, PeerBusy
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.completeness import DeviceDay
from gateway.domain.types import DeviceId
from gateway.ports.sinks import Audit, Keep, MissingInterval
from gateway.schemas.event import Identifier, Moment, problems_of
from gateway.schemas.interval_rows import rfc3339
from gateway.services.telemetry.completeness import DAY_MS, Completeness
from gateway.services.telemetry.history import History, Question
from gateway.services.uplink.delivery import SinkDelivery
from gateway.services.uplink.resend import Resend
from gateway.storage.interval_log.log import IntervalLog

PAGE_MAX = 1_000


class _CompletenessQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    day: date | None = None
    device: Annotated[list[Identifier], Field(max_length=PAGE_MAX)] = []
    tag: Annotated[list[str], Field(max_length=256)] = []
    offset: Annotated[int, Field(ge=0, le=10**9)] = 0
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = 100
    incomplete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What these routes stand on."""

    completeness: Completeness
    deliveries: Sequence[SinkDelivery]
    resend: Resend
    history: History
    log: IntervalLog
    fleet: Fleet
    clock: Clock
    audits: Mapping[str, Audit] = field(default_factory=dict)

    async def ledger(self, request: web.Request) -> CompletenessList:
        """A page of the completeness ledger; of yesterday unless a day is asked for. With `incomplete` only devices of
        the page that lack something here or at a sink."""
        query = _parsed(request)
        now_ms = self.clock.now().utc_ms
        day = query.day or date.fromisoformat(rfc3339(now_ms - DAY_MS)[:10])
        day_ms = round(datetime.combine(day, time(), UTC).timestamp() * 1000)
        if day_ms > now_ms:
            raise InvalidInput([f"day: {day} has not begun"])
        named = self._named(query.device, query.tag)
        page = named[query.offset : query.offset + query.limit]
        found = await self.completeness.day(day_ms, page)
        following = query.offset + len(page)
        return CompletenessList(
            day=day.isoformat(),
            total=len(named),
            next=following if following < len(named) and page else None,
            devices=[_body(one) for one in found if not (query.incomplete and _whole(one))],
        )

    def _named(self, devices: Sequence[str], tags: Sequence[str]) -> Sequence[DeviceId]:
        if not (devices or tags):
            return self.fleet.ids
        unknown = [f"device: {name}: not enrolled" for name in devices if name not in self.fleet.slot_of]
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
                )
            )  # fmt: skip
        return SinkList(sinks=out)

    async def send_again(self, name: str, body: ResendBody) -> ResendReport | None:
        """Have records sent once more; None = there is no such sink."""
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

    async def _mark(self, delivery: SinkDelivery, question: Question) -> int:
        marked = 0
        async for rows in self.history.all(question):
            marked += await self.resend.mark(delivery.sink.name, [row for row in rows if delivery.sink.wants(row)])
        return marked

    async def missing(self, name: str, request: web.Request) -> MissingList | None:
        """What a receiver says it lacks; None = there is no such sink, or it cannot be asked that."""
        stretch = _stretch(request)
        found = await self._lacking(name, *stretch)
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
        audit = self.audits.get(name)
        if audit is None:
            return None
        found = await audit(from_ms, to_ms)
        if isinstance(found, Keep):
            raise PeerBusy(f"{name} could not be asked: {found.reason}", after_s=found.after_s)
        return found


class _Stretch(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Moment = Field(alias="from")
    to: Moment


def _stretch(request: web.Request) -> tuple[int, int]:
    try:
        stretch = _Stretch.model_validate(dict(request.query))
    except ValidationError as error:
        raise InvalidInput(problems_of(error)) from error
    return round(stretch.since.timestamp() * 1000), round(stretch.to.timestamp() * 1000)


def _parsed(request: web.Request) -> _CompletenessQuery:
    many = ("device", "tag")
    values = {n: request.query.getall(n) if n in many else request.query.getall(n)[-1] for n in request.query}
    try:
        return _CompletenessQuery.model_validate(values)
    except ValidationError as error:
        raise InvalidInput(problems_of(error)) from error


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

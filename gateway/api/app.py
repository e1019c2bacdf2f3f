"""The HTTP surface: REST under /v1/, /metrics, /healthz, /readyz. Parses, asks a service, answers; decides nothing."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from pydantic import BaseModel, SecretStr, ValidationError

from gateway.api.guard import IMPORT_FORMS, guard
from gateway.api.interval_models import ResendBody
from gateway.api.models import (
    AnswerBody,
    BadRowBody,
    DeviceList,
    DeviceState,
    EventList,
    HoldBody,
    ImportReport,
    NoteBody,
    Problem,
    Readiness,
    StopBody,
    Unenrolled,
)
from gateway.api.routes import intervals
from gateway.api.routes.telemetry import Telemetry
from gateway.api.views.dispatch import DispatchView
from gateway.clock import Clock
from gateway.domain.errors import InvalidInput, PeerBusy, StorageError
from gateway.domain.events.book import Answer, Outcome
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.types import EventId
from gateway.observability.metrics import Metrics
from gateway.schemas.event import MAX_BODY_BYTES, answer_body, parse_event, problems_of
from gateway.services.devices.import_rows import MAX_IMPORT_BYTES, MAX_REPORTED, parse_rows
from gateway.services.devices.registry import DeviceRegistry
from gateway.services.events.intake import Dispatcher
from gateway.services.telemetry.history import History

log = logging.getLogger(__name__)

PAGE_MAX = 1_000


class DeviceView(Protocol):
    """What the API asks of the fleet."""

    def page(self, offset: int, limit: int) -> tuple[int, list[DeviceState]]: ...

    def one(self, device_id: str) -> DeviceState | None: ...

    def unenrolled(self) -> Unenrolled: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the routes stand on."""

    dispatcher: Dispatcher
    events: DispatchView
    trust: Callable[[str], Awaitable[bool]]
    devices: DeviceView
    history: History
    telemetry: Telemetry
    clock: Clock
    inventory: DeviceRegistry
    registry: Metrics
    readiness: Callable[[], list[str]]
    token: SecretStr | None


def _json(body: BaseModel, *, status: int = 200) -> web.Response:
    return web.Response(body=body.model_dump_json().encode(), status=status, content_type="application/json")


def _problem(status: int, error: str, problems: Sequence[str] = ()) -> web.Response:
    return _json(Problem(error=error, problems=list(problems)), status=status)


def make_app(parts: Parts) -> web.Application:
    """The routes over `parts`."""
    routes = _Routes(parts)
    app = web.Application(middlewares=[_translate, guard(parts.token)], client_max_size=MAX_IMPORT_BYTES)
    app.add_routes(
        [
            web.post("/v1/dispatch-events", routes.submit),
            web.get("/v1/dispatch-events", routes.events),
            web.get("/v1/dispatch-events/{id}", routes.event),
            web.delete("/v1/dispatch-events/{id}", routes.cancel),
            web.post("/v1/dispatch/stop-all", routes.stop_all),
            web.post("/v1/holds", routes.set_hold),
            web.get("/v1/holds", routes.holds),
            web.delete("/v1/holds/{id}", routes.lift_hold),
            web.get("/v1/quarantine", routes.quarantine),
            web.delete("/v1/quarantine/{name}", routes.trust),
            web.get("/v1/availability", routes.availability),
            web.get("/v1/intervals", routes.intervals),
            web.get("/v1/completeness", routes.completeness),
            web.get("/v1/sinks", routes.sinks),
            web.get("/v1/sinks/{name}/missing", routes.missing),
            web.post("/v1/sinks/{name}/resend", routes.resend),
            web.get("/v1/devices", routes.devices),
            web.post("/v1/devices", routes.import_devices),
            web.get("/v1/devices/{id}", routes.device),
            web.get("/v1/unenrolled", routes.unenrolled),
            web.get("/metrics", routes.metrics),
            web.get("/healthz", routes.healthz),
            web.get("/readyz", routes.readyz),
        ]
    )
    return app


@web.middleware
async def _translate(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except InvalidInput as error:
        return _problem(400, "the request was not understood", error.problems)
    except StorageError as error:
        log.warning("a request could not be made durable", extra={"path": request.path, "why": str(error)})
        return _problem(503, "it could not be made durable; try again", [str(error)])
    except PeerBusy as error:
        return _problem(502, "a receiver could not be asked; try again", [str(error)])
    except web.HTTPException as error:
        return _problem(error.status, error.reason)


class _Routes:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def submit(self, request: web.Request) -> web.StreamResponse:
        if (request.content_length or 0) > MAX_BODY_BYTES:
            return _problem(413, f"larger than {MAX_BODY_BYTES} bytes")
        answer = await self._parts.dispatcher.submit(parse_event(await request.read(), source="rest"))
        return _answer(answer)

    async def events(self, _request: web.Request) -> web.StreamResponse:
        dispatcher = self._parts.dispatcher
        return _json(EventList(events=self._parts.events.all(), stopped=dispatcher.stopped))

    async def event(self, request: web.Request) -> web.StreamResponse:
        found = await self._parts.events.one(
            request.match_info["id"],
            occurrence=request.query.get("occurrence"),
            offset=_number(request, "offset", 0, 10**9),
            limit=_number(request, "limit", PAGE_MAX, PAGE_MAX),
        )
        return _json(found) if found is not None else _problem(404, "no such event")

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        answer = await self._parts.dispatcher.cancel(request.match_info["id"])
        return _answer(answer) if answer is not None else _problem(404, "no such event")

    async def stop_all(self, request: web.Request) -> web.StreamResponse:
        body = await _read(request, StopBody)
        await self._parts.dispatcher.stop_all(active=body.active, by=body.by)
        return _json(body)

    async def set_hold(self, request: web.Request) -> web.StreamResponse:
        body = await _read(request, HoldBody)
        now_ms = self._parts.clock.now().utc_ms
        hold = Exclusion(
            id=body.id,
            reason=body.reason,
            group=body.group.group(),
            from_ms=now_ms if body.since is None else round(body.since.timestamp() * 1000),
            until_ms=None if body.until is None else round(body.until.timestamp() * 1000),
            event=None if body.event is None else EventId(body.event),
            by=body.by,
        )
        await self._parts.dispatcher.hold(hold)
        return _json(self._parts.events.hold(hold))

    async def holds(self, _request: web.Request) -> web.StreamResponse:
        return _json(self._parts.events.holds())

    async def lift_hold(self, request: web.Request) -> web.StreamResponse:
        if not await self._parts.dispatcher.lift(request.match_info["id"]):
            return _problem(404, "no such hold")
        return _json(self._parts.events.holds())

    async def quarantine(self, _request: web.Request) -> web.StreamResponse:
        return _json(self._parts.events.quarantine())

    async def trust(self, request: web.Request) -> web.StreamResponse:
        if not await self._parts.trust(request.match_info["name"]):
            return _problem(404, "not in quarantine")
        return _json(self._parts.events.quarantine())

    async def availability(self, _request: web.Request) -> web.StreamResponse:
        return _json(self._parts.events.availability())

    async def intervals(self, request: web.Request) -> web.StreamResponse:
        return await intervals.answer(request, self._parts.history)

    async def completeness(self, request: web.Request) -> web.StreamResponse:
        return _json(await self._parts.telemetry.ledger(request))

    async def sinks(self, _request: web.Request) -> web.StreamResponse:
        return _json(await self._parts.telemetry.sinks())

    async def missing(self, request: web.Request) -> web.StreamResponse:
        found = await self._parts.telemetry.missing(request.match_info["name"], request)
        return _json(found) if found is not None else _problem(404, "no such sink, or not one that can be asked")

    async def resend(self, request: web.Request) -> web.StreamResponse:
        body = await _read(request, ResendBody)
        report = await self._parts.telemetry.send_again(request.match_info["name"], body)
        return _json(report) if report is not None else _problem(404, "no such sink")

    async def devices(self, request: web.Request) -> web.StreamResponse:
        offset, limit = _number(request, "offset", 0, 10**9), _number(request, "limit", 100, PAGE_MAX)
        total, page = self._parts.devices.page(offset, limit)
        following = offset + len(page)
        return _json(DeviceList(total=total, next=following if following < total and page else None, devices=page))

    async def device(self, request: web.Request) -> web.StreamResponse:
        found = self._parts.devices.one(request.match_info["id"])
        return _json(found) if found is not None else _problem(404, "no such device")

    async def import_devices(self, request: web.Request) -> web.StreamResponse:
        form = IMPORT_FORMS[request.content_type]
        raw = await request.read()
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidInput([f"not UTF-8 at byte {error.start}"]) from error
        inventory = self._parts.inventory
        parsed = await asyncio.to_thread(
            parse_rows,
            text,
            form="csv" if form == "csv" else "jsonl",
            profiles=inventory.profiles,
            places=inventory.places,
        )
        done = await inventory.take(parsed)
        return _json(
            ImportReport(
                rows=done.rows,
                enrolled=done.enrolled,
                rejected=[BadRowBody(line=row.line, problem=row.problem) for row in done.bad[:MAX_REPORTED]],
                rejected_total=len(done.bad),
                notes=[NoteBody(line=note.line, note=note.note) for note in done.notes[:MAX_REPORTED]],
            )
        )

    async def unenrolled(self, _request: web.Request) -> web.StreamResponse:
        return _json(self._parts.devices.unenrolled())

    async def metrics(self, _request: web.Request) -> web.StreamResponse:
        text = await self._parts.registry.text()
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_1_0_0})

    async def healthz(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text="alive\n")

    async def readyz(self, _request: web.Request) -> web.StreamResponse:
        reasons = self._parts.readiness()
        return _json(Readiness(ready=not reasons, reasons=reasons), status=503 if reasons else 200)


def _answer(answer: Answer) -> web.Response:
    body = AnswerBody.model_validate(answer_body(answer))
    return _json(body, status=409 if answer.outcome in (Outcome.REJECTED, Outcome.SUPERSEDED) else 200)


B = TypeVar("B", bound=BaseModel)


async def _read(request: web.Request, kind: type[B]) -> B:
    """A body of `kind`. Raises InvalidInput with every fault."""
    try:
        return kind.model_validate_json(await request.read())
    except ValidationError as error:
        raise InvalidInput(problems_of(error)) from error


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdecimal() or len(text) > len(str(most)) or int(text) > most:
        raise InvalidInput([f"{name}: a whole number from 0 to {most}"])
    return int(text)

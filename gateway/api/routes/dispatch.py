"""Events, stops, quarantine and availability."""

from collections.abc import Awaitable
from typing import Protocol

from aiohttp import web

from gateway.api.exchange import PAGE_MAX, json_answer, json_list, problem, read_body, small_body
from gateway.api.models import (
    AvailabilityList,
    EventList,
    Quarantine,
    StopBody,
    StopState,
)
from gateway.api.route import BY, Number, RestRoute, Text, by, source
from gateway.api.views.dispatch import DispatchView
from gateway.clock import Clock
from gateway.domain.access import Scope
from gateway.domain.events.book import Answer, Outcome, Refusal
from gateway.domain.events.lifecycle import BookEntry
from gateway.schemas import operations as ops
from gateway.schemas.event import EventBody, answer_body, parse_event
from gateway.schemas.reports import AnswerBody, EventStatus
from gateway.services.events.intake import Dispatcher

AFTER, LIMIT = Text("after"), Number("limit", 100, PAGE_MAX)
SOURCE, OCCURRENCE, BEFORE = Text("source"), Text("occurrence"), Text("before")
OFFSET, DEVICES = Number("offset", 0, 10**9), Number("limit", PAGE_MAX, PAGE_MAX)
REASON = Text("reason", most=200)


class Trust(Protocol):
    """Lifts the quarantine or freeze of a device or product; False = there is none."""

    def __call__(self, name: str, /, *, by: str, reason: str) -> Awaitable[bool]: ...


class DispatchRoutes:
    """The routes of dispatch."""

    def __init__(self, dispatcher: Dispatcher, events: DispatchView, trust: Trust, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._events = events
        self._trust = trust
        self._clock = clock

    async def submit(self, request: web.Request) -> web.StreamResponse:
        body = await small_body(request)
        asked = parse_event(body, source=source(request), received_ms=self._clock.now().utc_ms)
        answer = await self._dispatcher.submit(asked, by=by(request, nobody=""))
        if answer.reason == Refusal.RELEASE_ONLY:
            return problem(503, "the gateway is release-only and starts no event; /readyz says why", [answer.reason])
        return _answer(answer)

    async def events(self, request: web.Request) -> web.StreamResponse:
        return json_answer(await self._events.page(AFTER.of(request), max(1, LIMIT.of(request))))

    async def event(self, request: web.Request) -> web.StreamResponse:
        occurrence, offset, limit = OCCURRENCE.of(request), OFFSET.of(request), DEVICES.of(request)
        found = await self._named(request)
        if isinstance(found, web.StreamResponse):
            return found
        return json_answer(
            await self._events.one(found, occurrence=occurrence, before=BEFORE.of(request), offset=offset, limit=limit)
        )

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        found = await self._named(request)
        if isinstance(found, web.StreamResponse):
            return found
        answer = await self._dispatcher.cancel(found.request.id, by=by(request))
        return _answer(answer) if answer is not None else problem(404, "no such event")

    async def lift_cancel(self, request: web.Request) -> web.StreamResponse:
        found = await self._named(request)
        if isinstance(found, web.StreamResponse):
            return found
        if not await self._dispatcher.lift_cancel(found.request.id, by=by(request)):
            return problem(404, "no operator has cancelled this event")
        return await self.event(request)

    async def _named(self, request: web.Request) -> BookEntry | web.StreamResponse:
        """The one event that a request names, or the answer that says why there is none."""
        found = await self._events.find(request.match_info["id"], SOURCE.of(request))
        if not found:
            return problem(404, "no such event")
        if len(found) > 1:
            sources = sorted(entry.request.source for entry in found)
            return problem(409, "several sources have an event of this id: add ?source=", sources)
        return found[0]

    async def stop_all(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, StopBody)
        who = by(request, body.by)
        durable = await self._dispatcher.stop_all(active=body.active, by=who)
        return json_answer(StopState(active=body.active, by=who, durable=durable), status=200 if durable else 202)

    async def quarantine(self, request: web.Request) -> web.StreamResponse:
        return await json_list(request, self._events.quarantine(), "entries", self._events.untrusted())

    async def trust(self, request: web.Request) -> web.StreamResponse:
        reason = REASON.of(request) or ""
        if not await self._trust(request.match_info["name"], by=by(request), reason=reason):
            return self._not_lifted(request.match_info["name"])
        return await self.quarantine(request)

    def _not_lifted(self, name: str) -> web.Response:
        found = next((entry for entry in self._events.untrusted() if entry.name == name), None)
        if found is None:
            return problem(404, "not in quarantine")
        return problem(409, f"{found.reason} is not lifted by an operator, but by {found.lifted_by}", [found.detail])

    async def availability(self, request: web.Request) -> web.StreamResponse:
        return await json_list(request, AvailabilityList(groups=[]), "groups", self._events.availability())

    ROUTES = (
        RestRoute(
            operation=ops.SUBMIT_EVENT, scope=Scope.DISPATCH, handler=submit,
            summary="Submit, update or cancel a dispatch event; idempotent by id and revision",
            query=(BY,), body=EventBody, answers={200: AnswerBody, 409: AnswerBody}, problems=(400, 503),
            texts={409: "rejected, with the reason"},
        ),
        RestRoute(
            operation=ops.LIST_EVENTS, handler=events, summary="A page of events, newest start first",
            query=(AFTER, LIMIT), answers={200: EventList}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.SHOW_EVENT, handler=event, summary="One event with the delivery records of its devices",
            query=(SOURCE, OCCURRENCE, BEFORE, OFFSET, DEVICES), answers={200: EventStatus},
            problems=(400, 404, 409, 503),
        ),
        RestRoute(
            operation=ops.CANCEL_EVENT, scope=Scope.DISPATCH, handler=cancel, urgent=True,
            summary="Cancel an event until this is lifted, whatever its source sends meanwhile",
            query=(SOURCE, BY), answers={200: AnswerBody}, problems=(400, 404, 409, 503),
        ),
        RestRoute(
            operation=ops.LIFT_CANCELLATION, scope=Scope.DISPATCH, handler=lift_cancel,
            summary="Let the source of a cancelled event revise it again; it stays cancelled until then",
            query=(SOURCE, BY), answers={200: EventStatus}, problems=(400, 404, 409, 503),
        ),
        RestRoute(
            operation=ops.STOP_ALL, scope=Scope.DISPATCH, handler=stop_all, urgent=True,
            summary="Stop dispatch: release everything, ramped, and refuse events until cleared (active false)",
            body=StopBody, answers={200: StopState, 202: StopState}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.SHOW_QUARANTINE, handler=quarantine,
            summary="Devices and products that get no setpoints because they cannot be trusted",
            answers={200: Quarantine},
        ),
        RestRoute(
            operation=ops.TRUST, scope=Scope.DEVICES, handler=trust,
            summary="Lift the quarantine or freeze of a device or a product",
            query=(BY, REASON), answers={200: Quarantine}, problems=(400, 404, 409, 503),
        ),
        RestRoute(
            operation=ops.SHOW_AVAILABILITY, handler=availability,
            summary="What each group can sustain, and for how many hours", answers={200: AvailabilityList},
        ),
    )  # fmt: skip


def _answer(answer: Answer) -> web.Response:
    body = AnswerBody.model_validate(answer_body(answer))
    return json_answer(body, status=409 if answer.outcome in (Outcome.REJECTED, Outcome.SUPERSEDED) else 200)

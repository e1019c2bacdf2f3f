"""Events, stops, exclusions, quarantine and availability."""

from collections.abc import Awaitable
from typing import Protocol

from aiohttp import web

from gateway import former_names
from gateway.api.exchange import PAGE_MAX, by, json_answer, json_list, number, problem, read_body, small_body
from gateway.api.models import AnswerBody, AvailabilityList, ExclusionBody, ExclusionList, StopBody, StopState
from gateway.api.views.dispatch import DispatchView
from gateway.clock import Clock
from gateway.domain.errors import InvalidInput
from gateway.domain.events.book import Answer, Outcome, Refusal
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.lifecycle import BookEntry
from gateway.domain.types import EventId
from gateway.schemas.event import answer_body, parse_event
from gateway.services.events.intake import Dispatcher

EVENTS_PAGE = 100
REASON_MAX = 200
EXCLUSIONS = "exclusions"


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

    def table(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/dispatch-events", self.submit),
            web.get("/v1/dispatch-events", self.events),
            web.get("/v1/dispatch-events/{id}", self.event),
            web.delete("/v1/dispatch-events/{id}", self.cancel),
            web.delete("/v1/dispatch-events/{id}/cancellation", self.lift_cancel),
            web.post("/v1/dispatch/stop-all", self.stop_all),
            web.post("/v1/exclusions", self.set_exclusion),
            web.get("/v1/exclusions", self.exclusions),
            web.delete("/v1/exclusions/{id}", self.lift_exclusion),
            web.post(former_names.PATHS["/v1/exclusions"], self.set_exclusion),
            web.get(former_names.PATHS["/v1/exclusions"], self.exclusions_formerly),
            web.delete(former_names.PATHS["/v1/exclusions/{id}"], self.lift_exclusion_formerly),
            web.get("/v1/quarantine", self.quarantine),
            web.delete("/v1/quarantine/{name}", self.trust),
            web.get("/v1/availability", self.availability),
        ]

    async def submit(self, request: web.Request) -> web.StreamResponse:
        body = await small_body(request)
        asked = parse_event(body, source="rest", received_ms=self._clock.now().utc_ms)
        answer = await self._dispatcher.submit(asked)
        if answer.reason == Refusal.RELEASE_ONLY:
            return problem(503, "the gateway is release-only and starts no event; /readyz says why", [answer.reason])
        return _answer(answer)

    async def events(self, request: web.Request) -> web.StreamResponse:
        limit = number(request, "limit", EVENTS_PAGE, PAGE_MAX)
        return json_answer(await self._events.page(request.query.get("after"), max(1, limit)))

    async def event(self, request: web.Request) -> web.StreamResponse:
        occurrence = request.query.get("occurrence")
        offset, limit = number(request, "offset", 0, 10**9), number(request, "limit", PAGE_MAX, PAGE_MAX)
        found = await self._named(request)
        if isinstance(found, web.StreamResponse):
            return found
        before = request.query.get("before")
        return json_answer(
            await self._events.one(found, occurrence=occurrence, before=before, offset=offset, limit=limit)
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
        found = await self._events.find(request.match_info["id"], request.query.get("source"))
        if not found:
            return problem(404, "no such event")
        if len(found) > 1:
            sources = sorted(entry.request.source for entry in found)
            return problem(409, "several sources have an event of this id: add ?source=", sources)
        return found[0]

    async def stop_all(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, StopBody)
        durable = await self._dispatcher.stop_all(active=body.active, by=body.by)
        return json_answer(StopState(active=body.active, by=body.by, durable=durable), status=200 if durable else 202)

    async def set_exclusion(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, ExclusionBody)
        now_ms = self._clock.now().utc_ms
        exclusion = Exclusion(
            id=body.id,
            reason=body.reason,
            group=body.group.group(),
            from_ms=now_ms if body.since is None else round(body.since.timestamp() * 1000),
            until_ms=None if body.until is None else round(body.until.timestamp() * 1000),
            event=None if body.event is None else EventId(body.event),
            by=body.by,
        )
        durable = await self._dispatcher.exclude(exclusion)
        return json_answer(self._events.exclusion(exclusion, durable=durable), status=200 if durable else 202)

    async def exclusions(self, request: web.Request) -> web.StreamResponse:
        return await json_list(request, ExclusionList(exclusions=[]), EXCLUSIONS, self._events.exclusions())

    async def exclusions_formerly(self, request: web.Request) -> web.StreamResponse:
        member = former_names.MEMBERS[EXCLUSIONS]
        return await json_list(request, f'{{"{member}":[]}}'.encode(), member, self._events.exclusions())

    async def lift_exclusion(self, request: web.Request) -> web.StreamResponse:
        if not await self._dispatcher.lift(request.match_info["id"], by=by(request)):
            return problem(404, "no such exclusion")
        return await self.exclusions(request)

    async def lift_exclusion_formerly(self, request: web.Request) -> web.StreamResponse:
        if not await self._dispatcher.lift(request.match_info["id"], by=by(request)):
            return problem(404, "no such hold")
        return await self.exclusions_formerly(request)

    async def quarantine(self, request: web.Request) -> web.StreamResponse:
        return await json_list(request, self._events.quarantine(), "entries", self._events.untrusted())

    async def trust(self, request: web.Request) -> web.StreamResponse:
        reason = request.query.get("reason", "")
        if len(reason) > REASON_MAX:
            raise InvalidInput([f"reason: at most {REASON_MAX} characters"])
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


def _answer(answer: Answer) -> web.Response:
    body = AnswerBody.model_validate(answer_body(answer))
    return json_answer(body, status=409 if answer.outcome in (Outcome.REJECTED, Outcome.SUPERSEDED) else 200)

"""Nominations at the aggregator: what became of them, a read on demand, and a power to be suggested."""

from collections.abc import Iterable

from aiohttp import web

from gateway.api.exchange import PAGE_MAX, asking_peer, json_answer, json_list, problem, read_body
from gateway.api.nomination_models import (
    NominationAsked,
    NominationHeld,
    NominationList,
    NominationProposed,
    SuggestionState,
)
from gateway.api.route import BY, CALLER, Number, RestRoute, Text, by
from gateway.domain.access import SOMEBODY_HERE, Scope
from gateway.domain.errors import InvalidInput
from gateway.domain.programs.nominations import NominationState
from gateway.schemas import operations as ops
from gateway.schemas.interval_rows import rfc3339
from gateway.services.programs.nominations import Nominations, NominationSeen

NOT_CONFIGURED = "leap.account is not configured"
STATE, OFFSET, LIMIT = Text("state"), Number("offset", 0, 1 << 40), Number("limit", 100, PAGE_MAX)


class NominationRoutes:
    """The routes; None = there is no account."""

    def __init__(self, nominations: Nominations | None) -> None:
        self._nominations = nominations

    async def status(self, request: web.Request) -> web.StreamResponse:
        named, offset, limit = STATE.of(request), OFFSET.of(request), LIMIT.of(request)
        if named is not None and named not in set(NominationState):
            raise InvalidInput([f"state: one of {', '.join(NominationState)}"])
        return await self._listed(request, named, offset, limit)

    async def read(self, request: web.Request) -> web.StreamResponse:
        if self._nominations is None:
            return problem(409, NOT_CONFIGURED)
        with asking_peer():
            await self._nominations.read()
        return await self._listed(request, None, 0, LIMIT.default)

    async def suggest(self, request: web.Request) -> web.StreamResponse:
        asked = await read_body(request, NominationAsked)
        if self._nominations is None:
            return problem(409, NOT_CONFIGURED)
        who = request.get(CALLER, SOMEBODY_HERE).name or by(request)
        with asking_peer():
            found = await self._nominations.suggest(
                asked.program, asked.kw, since=asked.start_date, until=asked.end_date, by=who
            )
        numbers = [row.number for row in found.rows]
        return json_answer(
            NominationProposed(
                rows=len(numbers), meters=found.meters, kw=found.kw, first=min(numbers, default=None),
                last=max(numbers, default=None),
            )
        )  # fmt: skip

    async def _listed(self, request: web.Request, state: str | None, offset: int, limit: int) -> web.StreamResponse:
        found = self._nominations
        if found is None:
            return json_answer(NominationList(configured=False))
        newest = found.newest
        if newest is None:
            return json_answer(NominationList(configured=True, failing=found.failing))
        seen = newest.seen if state is None else newest.by_state.get(NominationState(state), [])
        page = seen[offset : offset + limit]
        meters = {one.suggestion.meter for one in page}
        body = NominationList(
            configured=True, read=rfc3339(newest.at_ms), failing=found.failing,
            counts={one.value: newest.count(one) for one in NominationState},
            holding_total=newest.holding_total,
            holding=[
                NominationHeld(
                    meter=one.meter, program=one.program, start_time=one.since, end_time=one.until, kw=one.kw,
                    source=one.source,
                )
                for meter in sorted(meters) for one in newest.holding.get(meter, ())
            ],
            suggestions=[], next=offset + limit if offset + limit < len(seen) else None,
        )  # fmt: skip
        return await json_list(request, body, "suggestions", _states(page))

    ROUTES = (
        RestRoute(
            operation=ops.LIST_NOMINATIONS, handler=status,
            summary="Nominations at the aggregator: what became of what was suggested, and what holds",
            query=(STATE, OFFSET, LIMIT), answers={200: NominationList}, problems=(400,),
        ),
        RestRoute(
            operation=ops.READ_NOMINATIONS, scope=Scope.PROGRAMS, handler=read,
            summary="Read the aggregator's nominations now", answers={200: NominationList},
            problems=(409, 502, 503), texts={409: NOT_CONFIGURED},
        ),
        RestRoute(
            operation=ops.SUGGEST_NOMINATION, scope=Scope.PROGRAMS, handler=suggest,
            summary="Propose a power of a program over its meters, as rows that need another person's leave",
            query=(BY,), body=NominationAsked, answers={200: NominationProposed}, problems=(400, 409, 502, 503),
            texts={409: NOT_CONFIGURED},
        ),
    )  # fmt: skip


def _states(page: Iterable[NominationSeen]) -> Iterable[SuggestionState]:
    for one in page:
        known = one.suggestion
        yield SuggestionState(
            id=known.id, meter=known.meter, program=one.program, start_date=known.since, end_date=known.until,
            sent_kw=one.sent_kw, kw=known.kw, state=one.state, word=known.word,
        )  # fmt: skip

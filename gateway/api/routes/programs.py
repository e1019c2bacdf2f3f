"""Grid programs: their rules, and what these allow."""

from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.exchange import json_answer, problem, read_query
from gateway.api.program_models import AllowedList, ProgramList, ProgramState
from gateway.api.route import RestRoute
from gateway.api.views.programs import ProgramView
from gateway.clock import Clock
from gateway.domain.errors import InvalidInput
from gateway.domain.events.calendar import DAY_MS
from gateway.schemas import operations as ops
from gateway.schemas.event import Moment

SPAN_MS = 7 * DAY_MS
SPAN_MS_MAX = 62 * DAY_MS
AWAY_MS_MAX = 800 * DAY_MS


class AllowedQuery(BaseModel):
    """The time that is asked about: at most 62 days, and not further than 800 days from now. `from` absent = from now
    on, `to` absent = seven days."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Annotated[Moment | None, Field(alias="from")] = None
    until: Annotated[Moment | None, Field(alias="to")] = None

    def span_ms(self, now_ms: int) -> tuple[int, int]:
        """Start and end in UTC ms. Raises InvalidInput."""
        from_ms = now_ms if self.since is None else round(self.since.timestamp() * 1000)
        until_ms = from_ms + SPAN_MS if self.until is None else round(self.until.timestamp() * 1000)
        if abs(from_ms - now_ms) > AWAY_MS_MAX:
            raise InvalidInput([f"from: at most {AWAY_MS_MAX // DAY_MS} days from now"])
        if not from_ms < until_ms <= from_ms + SPAN_MS_MAX:
            raise InvalidInput([f"to: after from, and at most {SPAN_MS_MAX // DAY_MS} days after it"])
        return from_ms, until_ms


class ProgramRoutes:
    """The routes of grid programs."""

    def __init__(self, programs: ProgramView, clock: Clock) -> None:
        self._programs = programs
        self._clock = clock

    async def programs(self, _request: web.Request) -> web.StreamResponse:
        return json_answer(self._programs.all())

    async def program(self, request: web.Request) -> web.StreamResponse:
        found = self._programs.one(request.match_info["id"])
        return problem(404, "no such program") if found is None else json_answer(found)

    async def allowed(self, request: web.Request) -> web.StreamResponse:
        from_ms, until_ms = read_query(request, AllowedQuery).span_ms(self._clock.now().utc_ms)
        found = await self._programs.allowed(request.match_info["id"], from_ms, until_ms)
        return problem(404, "no such program") if found is None else json_answer(found)

    ROUTES = (
        RestRoute(
            operation=ops.LIST_PROGRAMS, handler=programs, summary="Grid programs whose rules are known here",
            answers={200: ProgramList},
        ),
        RestRoute(
            operation=ops.SHOW_PROGRAM, handler=program,
            summary="The rules of a grid program, every value with its evidence and source",
            answers={200: ProgramState}, problems=(404,),
        ),
        RestRoute(
            operation=ops.SHOW_ALLOWED, handler=allowed,
            summary="What a program's rules leave to be dispatched: when, and how many events and hours",
            query=AllowedQuery, answers={200: AllowedList}, problems=(400, 404, 503),
        ),
    )  # fmt: skip

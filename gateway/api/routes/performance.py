"""The performance of events: of one with its figures, and of a program's events."""

from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.exchange import PAGE_MAX, json_list, problem, read_query
from gateway.api.performance_models import (
    EventPerformanceRow,
    EventPerformanceState,
    PerformanceFigureRow,
    PerformanceRevisionRow,
    ProgramPerformanceList,
)
from gateway.api.route import RestRoute
from gateway.clock import Clock
from gateway.domain.access import Scope
from gateway.domain.errors import InvalidInput
from gateway.domain.events.calendar import DAY_MS
from gateway.domain.programs.event_performance import FigureLevel
from gateway.schemas import operations as ops
from gateway.schemas.event import Moment
from gateway.schemas.interval_rows import rfc3339
from gateway.services.programs.performance import FigureQuestion, PerformanceReader
from gateway.storage.programs.event_revisions import EventRevision

NAME_MAX = 128
PROGRAM_PAGE_MAX = 200
SPAN_MS = 62 * DAY_MS
SPAN_MS_MAX = 400 * DAY_MS


class FiguresQuery(BaseModel):
    """Which figures. `occurrence`: its start (of an event that repeats), absent = the newest; `revision` absent = the
    newest; `after`: the `next` of the page before."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: FigureLevel = FigureLevel.DEVICE
    occurrence: Moment | None = None
    revision: Annotated[int | None, Field(ge=1, le=1 << 31)] = None
    after: Annotated[str, Field(max_length=NAME_MAX)] = ""
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = 100

    def question(self) -> FigureQuestion:
        return FigureQuestion(
            level=self.level, after=self.after, limit=self.limit, revision=self.revision,
            occurrence_ms=None if self.occurrence is None else round(self.occurrence.timestamp() * 1000),
        )  # fmt: skip


class EventsQuery(BaseModel):
    """Events that begin within a time of at most 400 days; `to` absent = until now, `from` absent = 62 days before
    that. `after`: the `next` of the page before."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Annotated[Moment | None, Field(alias="from")] = None
    until: Annotated[Moment | None, Field(alias="to")] = None
    after: Annotated[str | None, Field(pattern=r"^[0-9]{1,15} [^ ]{1,200}$")] = None
    limit: Annotated[int, Field(ge=1, le=PROGRAM_PAGE_MAX)] = 50

    def span_ms(self, now_ms: int) -> tuple[int, int]:
        """Start and end in UTC ms. Raises InvalidInput."""
        until_ms = now_ms if self.until is None else round(self.until.timestamp() * 1000)
        from_ms = until_ms - SPAN_MS if self.since is None else round(self.since.timestamp() * 1000)
        if not from_ms < until_ms <= from_ms + SPAN_MS_MAX:
            raise InvalidInput([f"to: after from, and at most {SPAN_MS_MAX // DAY_MS} days after it"])
        return from_ms, until_ms

    def place(self) -> tuple[int, str] | None:
        """Where the page before ended."""
        if self.after is None:
            return None
        at_ms, _, event = self.after.partition(" ")
        return int(at_ms), event


class PerformanceRoutes:
    """The routes of performance."""

    def __init__(self, performance: PerformanceReader, clock: Clock) -> None:
        self._performance = performance
        self._clock = clock

    async def event(self, request: web.Request) -> web.StreamResponse:
        asked = read_query(request, FiguresQuery).question()
        found = await self._performance.event(request.match_info["id"], asked)
        if found is None:
            return problem(404, "nothing is worked out of such an event, or not this revision")
        body = EventPerformanceState.model_validate(
            _row(found.revision)
            | {
                "level": asked.level.value,
                "figures": [],
                "next": found.figures[-1]["name"] if found.more else None,
                "revisions": [_revision(one) for one in found.others],
            }
        )
        rows = (PerformanceFigureRow.model_validate(figure) for figure in found.figures)
        return await json_list(request, body, "figures", rows)

    async def program(self, request: web.Request) -> web.StreamResponse:
        query, program = read_query(request, EventsQuery), request.match_info["id"]
        from_ms, until_ms = query.span_ms(self._clock.now().utc_ms)
        found = await self._performance.program(program, from_ms, until_ms, query.place(), query.limit)
        last = found.revisions[-1] if found.more else None
        body = ProgramPerformanceList(
            program=program, start=rfc3339(from_ms), end=rfc3339(until_ms), events=[],
            next=None if last is None else f"{last.occurrence_ms} {last.event}",
        )  # fmt: skip
        rows = (EventPerformanceRow.model_validate(_row(one)) for one in found.revisions)
        return await json_list(request, body, "events", rows)

    ROUTES = (
        RestRoute(
            operation=ops.SHOW_EVENT_PERFORMANCE, handler=event, query=FiguresQuery, scope=Scope.MONEY,
            summary="What an event's batteries, homes and customers gave, why the rest is missing, what it is worth",
            answers={200: EventPerformanceState}, problems=(400, 404, 503),
        ),
        RestRoute(
            operation=ops.LIST_PROGRAM_PERFORMANCE, handler=program, query=EventsQuery, scope=Scope.MONEY,
            summary="The performance of a program's events, by their start",
            answers={200: ProgramPerformanceList}, problems=(400, 503),
        ),
    )  # fmt: skip


def _row(one: EventRevision) -> dict[str, Any]:
    return {"event": one.event} | _revision(one) | dict(one.summary)


def _revision(one: EventRevision) -> dict[str, Any]:
    return PerformanceRevisionRow(
        occurrence=rfc3339(one.occurrence_ms), revision=one.revision, computed=rfc3339(one.computed_ms),
        because=list(one.because),
    ).model_dump()  # fmt: skip

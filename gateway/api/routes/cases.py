"""Cases of homes that underperform: listed, opened, assigned, put off, closed."""

from aiohttp import web

from gateway.api.case_models import CaseChangeBody, CaseList, OpenCaseBody
from gateway.api.exchange import PAGE_MAX, json_answer, json_list, problem, read_body
from gateway.api.route import BY, Number, RestRoute, Text, by
from gateway.domain.access import Scope
from gateway.domain.errors import InvalidInput
from gateway.domain.programs.underperformers import LikelyCause
from gateway.ports.cases import CaseQuestion
from gateway.schemas import operations as ops
from gateway.schemas.cases import CaseBody, case_body
from gateway.services.programs.cases import CaseOrder, Cases

HOME, CAUSE, OPEN = Text("home", most=64), Text("cause"), Number("open", 1, 1)
NUMBER_MAX = 1 << 62
AFTER, LIMIT = Number("after", 0, NUMBER_MAX), Number("limit", 100, PAGE_MAX)


class CaseRoutes:
    """The routes of cases."""

    def __init__(self, cases: Cases) -> None:
        self._cases = cases

    async def listed(self, request: web.Request) -> web.StreamResponse:
        limit, named = LIMIT.of(request), CAUSE.of(request)
        if named is not None and named not in set(LikelyCause):
            raise InvalidInput([f"cause: one of {', '.join(LikelyCause)}"])
        cause = None if named is None else LikelyCause(named)
        alone = bool(OPEN.of(request))
        question = CaseQuestion(home=HOME.of(request), cause=cause, open_alone=alone, after=AFTER.of(request))
        found = await self._cases.store.cases(question, limit)
        following = found[-1].number if found and len(found) == limit else None
        now_ms = self._cases.clock.now().utc_ms
        rows = (case_body(case, now_ms) for case in found)
        return await json_list(request, CaseList(entries=[], next=following), "entries", rows)

    async def open(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, OpenCaseBody)
        case = await self._cases.open(body.home, body.cause, by=by(request))
        return json_answer(case_body(case, self._cases.clock.now().utc_ms))

    async def change(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, CaseChangeBody)
        until = None
        if "snooze_until" in body.model_fields_set:
            until = 0 if body.snooze_until is None else round(body.snooze_until.timestamp() * 1000)
        order = CaseOrder(assignee=body.assignee, snooze_until_ms=until, close_because=body.close)
        number = request.match_info["id"]
        if not (number.isascii() and number.isdecimal() and len(number) < len(str(NUMBER_MAX))):
            return problem(404, "no such case")
        case = await self._cases.change(int(number), order, by=by(request))
        if case is None:
            return problem(404, "no such case")
        return json_answer(case_body(case, self._cases.clock.now().utc_ms))

    ROUTES = (
        RestRoute(
            operation=ops.LIST_CASES, handler=listed,
            summary="Cases of homes that underperform, one per home and cause",
            query=(HOME, CAUSE, OPEN, AFTER, LIMIT), answers={200: CaseList}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.OPEN_CASE, scope=Scope.PROGRAMS, handler=open,
            summary="Open a case; the one that is open already is answered as it is", query=(BY,), body=OpenCaseBody,
            answers={200: CaseBody}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.CHANGE_CASE, scope=Scope.PROGRAMS, handler=change,
            summary="Assign a case, put it off, or close it and say why", query=(BY,), body=CaseChangeBody,
            answers={200: CaseBody}, problems=(400, 404, 503),
        ),
    )  # fmt: skip

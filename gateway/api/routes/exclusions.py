"""Exclusions: set, preview, import, list and lift. A feed of weather or outages sets them here, too."""

import asyncio
from dataclasses import asdict

from aiohttp import web

from gateway import former_names
from gateway.api.exchange import json_answer, json_list, problem, read_body
from gateway.api.exclusion_models import (
    DAYS_MAX,
    ExclusionAnswer,
    ExclusionBody,
    ExclusionEffect,
    ExclusionImport,
    ExclusionList,
    ExclusionRow,
    too_long,
)
from gateway.api.models import BadRowBody, RowFaultBody
from gateway.api.route import BY, RestRoute, asked_formerly, by
from gateway.api.views.exclusions import ExclusionView
from gateway.clock import Clock
from gateway.domain.access import Scope
from gateway.domain.errors import InvalidInput
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.request import TargetGroup
from gateway.domain.types import EventId
from gateway.schemas import operations as ops
from gateway.services.devices.import_rows import MAX_REPORTED
from gateway.services.devices.row_faults import BadRow, RowFault, bounded
from gateway.services.devices.table_rows import TableForm
from gateway.services.events.intake import Dispatcher
from gateway.services.programs.rows import end_ms, read_table, utc_ms

EXCLUSIONS = "exclusions"
FORMS: dict[str, TableForm] = {"text/csv": "csv", "application/x-ndjson": "jsonl"}
IMPORT_BYTES_MAX = 4 << 20
UNTIL = f"until: more than {DAYS_MAX} days ahead"


class ExclusionRoutes:
    """The routes of exclusions."""

    def __init__(self, dispatcher: Dispatcher, view: ExclusionView, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._view = view
        self._clock = clock

    async def set_exclusion(self, request: web.Request) -> web.StreamResponse:
        exclusion = await self._asked(request)
        durable = await self._dispatcher.exclude(exclusion)
        return json_answer(self._view.set(exclusion, durable=durable), status=200 if durable else 202)

    async def preview(self, request: web.Request) -> web.StreamResponse:
        exclusion = await self._asked(request)
        # what could not be set has no effect
        self._dispatcher.excluding.anew(exclusion)
        return json_answer(await self._view.effect(exclusion))

    async def _asked(self, request: web.Request) -> Exclusion:
        body = await read_body(request, ExclusionBody)
        now_ms = self._clock.now().utc_ms
        until_ms = end_ms(body.until)
        if body.territory is not None and too_long(now_ms, until_ms):
            raise InvalidInput([UNTIL])
        return Exclusion(
            id=body.id,
            reason=body.reason,
            group=TargetGroup() if body.group is None else body.group.group(),
            from_ms=now_ms if body.since is None else utc_ms(body.since),
            until_ms=until_ms,
            event=None if body.event is None else EventId(body.event),
            by=by(request, body.by),
            area=None if body.territory is None else body.territory.area(),
            note=body.note,
            reserve_pct=body.reserve_pct,
            dispatch_above_reserve=body.dispatch_above_reserve,
        )

    async def import_exclusions(self, request: web.Request) -> web.StreamResponse:
        form, asker = FORMS[request.content_type], by(request)
        if (request.content_length or 0) > IMPORT_BYTES_MAX:
            raise InvalidInput([f"larger than {IMPORT_BYTES_MAX} bytes"])
        raw = await request.read()
        if len(raw) > IMPORT_BYTES_MAX:
            raise InvalidInput([f"larger than {IMPORT_BYTES_MAX} bytes"])
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidInput([f"not UTF-8 at byte {error.start}"]) from error
        good, faults = await asyncio.to_thread(read_table, text, ExclusionRow, form=form)
        first: dict[str, int] = {}
        asked: list[Exclusion] = []
        for line, row in good:
            found = [*self._faults(row)]
            if first.setdefault(row.id, line) != line:
                found.append(RowFault(column="id", problem=f"stands on line {first[row.id]} already", value=row.id))
            if found:
                faults[line] = found
            else:
                asked.append(self._exclusion(row, asker))
        done = await self._dispatcher.excluding.exclude_all(asked)
        for name, why in done.refused.items():
            faults[first[name]] = [RowFault(column="", problem=why)]
        bad = [BadRow(line=line, faults=bounded(found)) for line, found in sorted(faults.items())]
        body = ExclusionImport(
            rows=len(asked) + len(bad) - len(done.refused), changed=done.changed, unchanged=done.unchanged,
            durable=done.durable,
            rejected=[
                BadRowBody(line=row.line, problem=row.problem, faults=[RowFaultBody(**asdict(f)) for f in row.faults])
                for row in bad[:MAX_REPORTED]
            ],
            rejected_total=len(bad),
        )  # fmt: skip
        return json_answer(body, status=200 if done.durable else 202)

    def _faults(self, row: ExclusionRow) -> list[RowFault]:
        too_far = too_long(self._clock.now().utc_ms, utc_ms(row.until))
        return [RowFault(column="until", problem=f"more than {DAYS_MAX} days ahead")] if too_far else []

    def _exclusion(self, row: ExclusionRow, asker: str) -> Exclusion:
        return Exclusion(
            id=row.id,
            reason=row.reason,
            from_ms=self._clock.now().utc_ms if row.since is None else utc_ms(row.since),
            until_ms=utc_ms(row.until),
            by=asker,
            area=row.area(),
            note=row.note,
            reserve_pct=row.reserve_pct,
            dispatch_above_reserve=row.dispatch_above_reserve,
        )

    async def exclusions(self, request: web.Request) -> web.StreamResponse:
        empty: ExclusionList | bytes = ExclusionList(exclusions=[])
        member = EXCLUSIONS
        if asked_formerly(request):
            member = former_names.MEMBERS[EXCLUSIONS]
            empty = f'{{"{member}":[]}}'.encode()
        return await json_list(request, empty, member, self._view.all())

    async def lift_exclusion(self, request: web.Request) -> web.StreamResponse:
        if not await self._dispatcher.lift(request.match_info["id"], by=by(request)):
            return problem(404, "no such hold" if asked_formerly(request) else "no such exclusion")
        return await self.exclusions(request)

    ROUTES = (
        RestRoute(
            operation=ops.SET_EXCLUSION, scope=Scope.DISPATCH, handler=set_exclusion,
            summary="Keep devices out of dispatch (an owner's opt-out, a storm, a territory); the same id replaces",
            query=(BY,), body=ExclusionBody, answers={200: ExclusionAnswer, 202: ExclusionAnswer}, problems=(400,),
        ),
        RestRoute(
            operation=ops.PREVIEW_EXCLUSION, scope=Scope.READ, handler=preview,
            summary="What an exclusion would do if it were set: devices, homes, power and programs",
            query=(BY,), body=ExclusionBody, answers={200: ExclusionEffect}, problems=(400,),
        ),
        RestRoute(
            operation=ops.IMPORT_EXCLUSIONS, scope=Scope.DISPATCH, handler=import_exclusions,
            summary="Set exclusions of territories from rows: text/csv or application/x-ndjson",
            query=(BY,), body=tuple(FORMS), rows=ExclusionRow,
            answers={200: ExclusionImport, 202: ExclusionImport}, problems=(400,),
        ),
        RestRoute(
            operation=ops.LIST_EXCLUSIONS, handler=exclusions, summary="List exclusions",
            answers={200: ExclusionList},
        ),
        RestRoute(
            operation=ops.LIFT_EXCLUSION, scope=Scope.DISPATCH, handler=lift_exclusion, summary="End an exclusion",
            query=(BY,), answers={200: ExclusionList}, problems=(400, 404, 503),
        ),
    )  # fmt: skip

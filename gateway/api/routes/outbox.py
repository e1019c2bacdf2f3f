"""Changes at the aggregator: shown, proposed, approved by another person, sent, taken back."""

from collections.abc import Sequence

from aiohttp import web

from gateway.api.exchange import PAGE_MAX, asking_peer, json_list, problem, read_body
from gateway.api.leap_models import LeapWebhookAsked
from gateway.api.outbox_models import (
    DifferenceBody,
    OutboxRowList,
    OutboxRowState,
    ProposalBody,
    RowNumbers,
    RunBody,
    RunReportBody,
)
from gateway.api.route import BY, CALLER, Number, RestRoute, Text, by
from gateway.domain.access import SOMEBODY_HERE, Scope
from gateway.domain.errors import InvalidInput
from gateway.domain.programs.outbox import OutboxRow, WriteKind, differences
from gateway.schemas import operations as ops
from gateway.schemas.interval_rows import rfc3339
from gateway.services.programs.outbox import ChangeOutbox, Proposal, RunReport
from gateway.signals.leap.webhook_rows import WebhookRows

KIND, UNFINISHED = Text("kind"), Number("unfinished", 1, 1)
AFTER, LIMIT = Number("after", 0, 1 << 62), Number("limit", 100, PAGE_MAX)


NEEDED = {WriteKind.METER: Scope.PII, WriteKind.WEBHOOK: Scope.ADMIN}
"""What sending a kind needs besides: who customers are leaves the gateway; dispatch goes elsewhere."""
NOT_CONFIGURED = "signals.leap is not configured, or leap.account is not"


class OutboxRoutes:
    """The routes of the outbox. `webhooks`: how the aggregator's are registered; None = not configured."""

    def __init__(self, outbox: ChangeOutbox, webhooks: WebhookRows | None) -> None:
        self._outbox = outbox
        self._webhooks = webhooks

    async def rows(self, request: web.Request) -> web.StreamResponse:
        limit, named = LIMIT.of(request), KIND.of(request)
        if named is not None and named not in set(WriteKind):
            raise InvalidInput([f"kind: one of {', '.join(WriteKind)}"])
        kind = None if named is None else WriteKind(named)
        unfinished, after = bool(UNFINISHED.of(request)), AFTER.of(request)
        found = await self._outbox.store.rows(kind=kind, unfinished=unfinished, after=after, limit=limit)
        following = found[-1].number if found and len(found) == limit else None
        return await self._listed(request, found, OutboxRowList(entries=[], next=following))

    async def propose(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, ProposalBody)
        wanted = [Proposal(subject=row.subject, after=row.after) for row in body.rows]
        with asking_peer():
            found = await self._outbox.propose(body.kind, wanted, by=_who(request))
        return await self._listed(request, found)

    async def approve(self, request: web.Request) -> web.StreamResponse:
        numbers = (await read_body(request, RowNumbers)).rows
        # whoever may say any name is nobody in particular
        person = request.get(CALLER, SOMEBODY_HERE).name
        if not person:
            return problem(403, "leave is given by a named caller: see http.access")
        return await self._listed(request, await self._outbox.approve(numbers, by=person))

    async def withdraw(self, request: web.Request) -> web.StreamResponse:
        numbers = (await read_body(request, RowNumbers)).rows
        return await self._listed(request, await self._outbox.withdraw(numbers, by=_who(request)))

    async def run(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, RunBody)
        needed = None if body.dry_run else NEEDED.get(body.kind)
        if needed is not None and needed not in request.get(CALLER, SOMEBODY_HERE).scopes:
            return problem(403, f"the scope {needed.value} is required")
        report = await self._outbox.send(body.kind, dry=body.dry_run, confirm=body.confirm, by=_who(request))
        return await self._reported(request, report)

    async def register(self, request: web.Request) -> web.StreamResponse:
        asked = await read_body(request, LeapWebhookAsked)
        if self._webhooks is None:
            return problem(404, NOT_CONFIGURED)
        kind, who = WriteKind.WEBHOOK, _who(request)
        with asking_peer():
            after = await self._webhooks.content(asked.level, asked.replace)
            await self._outbox.propose(kind, [Proposal(subject=asked.level, after=after)], by=who)
        return await self._reported(
            request, await self._outbox.send(kind, dry=not asked.send, confirm=asked.confirm, by=who)
        )

    async def _reported(self, request: web.Request, report: RunReport) -> web.StreamResponse:
        told = RunReportBody(
            kind=report.kind, dry_run=report.dry, would_send=report.would_send, waiting=report.waiting,
            refusal=report.refusal, error=report.error, entries=[],
        )  # fmt: skip
        return await json_list(request, told, "entries", map(_state, report.rows))

    async def _listed(
        self, request: web.Request, rows: Sequence[OutboxRow], body: OutboxRowList | None = None
    ) -> web.StreamResponse:
        return await json_list(request, body or OutboxRowList(entries=[]), "entries", map(_state, rows))

    ROUTES = (
        RestRoute(
            operation=ops.LIST_OUTBOX, handler=rows, summary="Changes for the aggregator, each as a difference",
            query=(KIND, UNFINISHED, AFTER, LIMIT), answers={200: OutboxRowList}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.PROPOSE_CHANGES, scope=Scope.PROGRAMS, handler=propose,
            summary="Propose changes at the aggregator; nothing is sent", query=(BY,), body=ProposalBody,
            answers={200: OutboxRowList}, problems=(400, 502, 503),
        ),
        RestRoute(
            operation=ops.APPROVE_CHANGES, scope=Scope.ADMIN, handler=approve,
            summary="Give leave to rows that another person proposed", body=RowNumbers,
            answers={200: OutboxRowList}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.WITHDRAW_CHANGES, scope=Scope.PROGRAMS, handler=withdraw,
            summary="Take back rows that were not sent", query=(BY,), body=RowNumbers,
            answers={200: OutboxRowList}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.SEND_CHANGES, scope=Scope.PROGRAMS, handler=run,
            summary="Send what is ready of one kind, or (dry_run, the default) show it", query=(BY,), body=RunBody,
            answers={200: RunReportBody}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.REGISTER_LEAP_WEBHOOK, scope=Scope.ADMIN, handler=register,
            summary="Propose that the aggregator posts dispatch to this gateway, and (send) send it", query=(BY,),
            body=LeapWebhookAsked, answers={200: RunReportBody}, problems=(400, 404, 502, 503),
            texts={404: NOT_CONFIGURED},
        ),
    )  # fmt: skip


def _who(request: web.Request) -> str:
    """Who asks, by the name that was recognised where there is one: leave is another name's."""
    said = by(request)
    return request.get(CALLER, SOMEBODY_HERE).name or said


def _state(row: OutboxRow) -> OutboxRowState:
    return OutboxRowState(
        number=row.number, kind=row.kind, subject=row.subject, state=row.state.value,
        differences=[
            DifferenceBody(member=one.member, before=one.before, after=one.after)
            for one in differences(row.before, row.after)
        ],
        is_new=row.before is None, proposed_by=row.proposed_by, proposed=rfc3339(row.proposed_ms),
        approved_by=row.approved_by, needs_approval=not row.approved, job=row.job, detail=row.detail,
    )  # fmt: skip

"""The audit trail: what was journalled, when, by whom and through which door."""

from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.exchange import PAGE_MAX, json_answer, json_list, read_query
from gateway.api.models import AuditBody, AuditBreak, AuditChainState, AuditList
from gateway.api.route import RestRoute, Text
from gateway.domain.errors import InvalidInput
from gateway.domain.journal.stored import AuditQuestion
from gateway.ports.journal import AuditTrail
from gateway.schemas import operations as ops
from gateway.schemas.event import Moment
from gateway.schemas.interval_rows import rfc3339

HEAD = Text("head", least=64, most=64)
"""A hash that somebody kept, which must still be in the trail."""


class AuditQuery(BaseModel):
    """Which entries. `after`: the `next` of the page before."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Annotated[Moment | None, Field(alias="from")] = None
    until: Moment | None = None
    kind: Annotated[str | None, Field(pattern=r"^[a-z_]{1,40}$")] = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = 100
    after: Annotated[int | None, Field(ge=1, le=1 << 62)] = None

    def question(self) -> AuditQuestion:
        return AuditQuestion(
            from_ms=None if self.since is None else round(self.since.timestamp() * 1000),
            until_ms=None if self.until is None else round(self.until.timestamp() * 1000),
            kind=self.kind,
            before=self.after,
        )


class AuditRoutes:
    """The routes of the audit trail."""

    def __init__(self, trail: AuditTrail) -> None:
        self._trail = trail

    async def entries(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, AuditQuery)
        if query.kind is not None and query.kind not in self._trail.kinds:
            raise InvalidInput([f"kind: none of {', '.join(self._trail.kinds)}"])
        found = await self._trail.audit(query.question(), query.limit + 1)
        page = found[: query.limit]
        following = str(page[-1].id) if len(found) > query.limit else None
        bodies = (
            AuditBody(
                id=entry.id, at=rfc3339(entry.utc_ms), kind=entry.kind, by=entry.by, door=entry.door,
                what=dict(entry.body),
            )
            for entry in page
        )  # fmt: skip
        return await json_list(request, AuditList(entries=[], next=following), "entries", bodies)

    async def chain(self, request: web.Request) -> web.StreamResponse:
        found = await self._trail.chain(HEAD.of(request))
        broken = None if found.broken is None else AuditBreak(id=found.broken[0], why=found.broken[1])
        return json_answer(
            AuditChainState(
                rows=found.rows, unchained=found.unchained, first=found.first, last=found.last, head=found.head,
                broken=broken,
            )
        )  # fmt: skip

    ROUTES = (
        RestRoute(
            operation=ops.VERIFY_AUDIT, handler=chain,
            summary="Whether the audit trail is what was written: every row carries the hash of the one before it",
            query=(HEAD,), answers={200: AuditChainState}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.LIST_AUDIT, handler=entries,
            summary="What was journalled, newest first: what, when, by whom and through which door",
            query=AuditQuery, answers={200: AuditList}, problems=(400, 503),
        ),
    )  # fmt: skip

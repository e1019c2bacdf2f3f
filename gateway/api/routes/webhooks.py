"""Messages of webhook peers, and what became of them. The door itself proves who sends."""

import base64

from aiohttp import hdrs, web

from gateway.api.exchange import json_answer, json_list, problem
from gateway.api.route import Number, RestRoute
from gateway.api.webhook_models import (
    WebhookAnswerBody,
    WebhookMessage,
    WebhookMessageList,
    WebhookPeerList,
    WebhookPeerRow,
)
from gateway.ports.inbox import KeptMessage
from gateway.schemas import operations as ops
from gateway.schemas.interval_rows import rfc3339
from gateway.schemas.reports import AnswerBody
from gateway.signals.webhook.door import BODY_BYTES_MAX, WebhookDoor

NEWEST = Number("limit", 20, 100)


class WebhookRoutes:
    """The routes of webhooks."""

    def __init__(self, door: WebhookDoor) -> None:
        self._door = door

    async def receive(self, request: web.Request) -> web.StreamResponse:
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                return problem(413, f"larger than {BODY_BYTES_MAX} bytes")
        headers: dict[str, list[str]] = {}
        for name, value in request.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        answer = await self._door.receive(request.match_info["name"], headers, bytes(body))
        if answer is None:
            return problem(404, "no such webhook")
        if answer.status == 503:
            return problem(503, "not now; send it again", [str(event["reason"]) for event in answer.events])
        events = [AnswerBody.model_validate(dict(event)) for event in answer.events]
        reply = json_answer(WebhookAnswerBody(events=events, problems=list(answer.problems)), status=answer.status)
        if answer.retry_after_s:
            reply.headers[hdrs.RETRY_AFTER] = str(answer.retry_after_s)
        return reply

    async def peers(self, request: web.Request) -> web.StreamResponse:
        return await json_list(request, WebhookPeerList(webhooks=[]), "webhooks", map(self._row, self._peers()))

    async def messages(self, request: web.Request) -> web.StreamResponse:
        name, limit = request.match_info["name"], NEWEST.of(request)
        if name not in self._peers():
            return problem(404, "no such webhook")
        found = await self._door.newest(name, limit)
        return await json_list(request, WebhookMessageList(messages=[]), "messages", map(_message, found))

    def _peers(self) -> list[str]:
        return [peer.name for peer in self._door.peers]

    def _row(self, name: str) -> WebhookPeerRow:
        document = next(peer.document for peer in self._door.peers if peer.name == name)
        counts = {taken.value: count for taken, count in self._door.counts(name).items()}
        return WebhookPeerRow(
            webhook=name,
            title=document.title,
            evidence=document.evidence.value,
            auth=document.auth.kind,
            messages=counts,
        )

    ROUTES = (
        RestRoute(
            operation=ops.RECEIVE_WEBHOOK, scope=None, own_secret=True, handler=receive,
            summary="A message of a webhook peer, proven as its file says; idempotent by event id",
            answers=dict.fromkeys((200, 400, 401, 409, 429), WebhookAnswerBody),
            problems=(404, 413, 503), texts={409: "understood, and refused, with the reason"},
        ),
        RestRoute(
            operation=ops.LIST_WEBHOOKS, handler=peers, summary="Webhook peers, and what became of their messages",
            answers={200: WebhookPeerList},
        ),
        RestRoute(
            operation=ops.SHOW_WEBHOOK, handler=messages, summary="The newest messages of a webhook peer, as they came",
            query=(NEWEST,), answers={200: WebhookMessageList}, problems=(400, 404, 503),
        ),
    )  # fmt: skip


def _message(one: KeptMessage) -> WebhookMessage:
    text: str | None = None
    encoded: str | None = None
    try:
        text = one.payload.decode()
    except UnicodeDecodeError:
        encoded = base64.b64encode(one.payload).decode()
    return WebhookMessage(
        received=rfc3339(one.received_ms), outcome=one.outcome or "waiting", problems=list(one.problems), text=text,
        base64=encoded,
    )  # fmt: skip

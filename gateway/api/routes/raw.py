"""Settlement messages that are kept raw: of whom, why, what they say, and how they are discarded."""

import base64

from aiohttp import web

from gateway.api.exchange import PAGE_MAX, json_answer, json_list, problem
from gateway.api.models import DiscardedRaw, RawMessageList, RawMessageState, RawTopic, RawTopicList
from gateway.api.route import BY, Number, RestRoute, Text, by
from gateway.domain.access import Scope
from gateway.domain.errors import InvalidInput
from gateway.schemas import operations as ops
from gateway.schemas.interval_rows import rfc3339
from gateway.services.telemetry.raw import KeptTopic, RawMessages
from gateway.storage.raw_messages import StoredRaw

OFFSET, LIMIT, NEWEST = Number("offset", 0, 10**9), Number("limit", 100, PAGE_MAX), Number("limit", 20, 100)
WHY = Text("reason", most=200)
NOTHING = "nothing is kept of this device or topic"


class RawRoutes:
    """The routes of raw messages."""

    def __init__(self, kept: RawMessages) -> None:
        self._kept = kept

    async def topics(self, request: web.Request) -> web.StreamResponse:
        offset, limit = OFFSET.of(request), LIMIT.of(request)
        total, page = self._kept.page(offset, limit)
        following = offset + len(page)
        body = RawTopicList(total=total, next=following if following < total and page else None, topics=[])
        return await json_list(request, body, "topics", (self._topic(*found) for found in page))

    async def messages(self, request: web.Request) -> web.StreamResponse:
        limit = NEWEST.of(request)
        topics = self._kept.named(request.match_info["name"])
        if not topics:
            return problem(404, NOTHING)
        found = await self._kept.newest(topics, limit)
        return await json_list(request, RawMessageList(messages=[]), "messages", map(_message, found))

    async def discard(self, request: web.Request) -> web.StreamResponse:
        name, why = request.match_info["name"], WHY.of(request)
        if not self._kept.named(name):
            return problem(404, NOTHING)
        if not why:
            raise InvalidInput(["reason: why are these messages given up?"])
        count = await self._kept.discard(name, why=why, by=by(request))
        return json_answer(DiscardedRaw(discarded=count))

    def _topic(self, topic: str, kept: KeptTopic) -> RawTopic:
        stored = kept.stored
        known = stored.messages > 0
        return RawTopic(
            topic=topic, device=kept.device, reason=self._kept.reason(topic), messages=stored.messages,
            unreadable=stored.unreadable, bytes=stored.bytes, since=rfc3339(stored.since_ms) if known else None,
            newest=rfc3339(stored.newest_ms) if known else None, discarded=kept.discarded,
        )  # fmt: skip

    ROUTES = (
        RestRoute(
            operation=ops.LIST_RAW, handler=topics,
            summary="List whose settlement messages are kept as they came, and why",
            query=(OFFSET, LIMIT), answers={200: RawTopicList}, problems=(400,),
        ),
        RestRoute(
            operation=ops.SHOW_RAW, handler=messages, summary="The newest raw messages of a device or a topic",
            query=(NEWEST,), answers={200: RawMessageList}, problems=(400, 404, 503),
        ),
        RestRoute(
            operation=ops.DISCARD_RAW, scope=Scope.ADMIN, handler=discard,
            summary="Discard the raw messages of a device or a topic; the audit trail says who did and why",
            query=(BY, WHY), answers={200: DiscardedRaw}, problems=(400, 404, 503),
        ),
    )  # fmt: skip


def _message(one: StoredRaw) -> RawMessageState:
    text: str | None = None
    encoded: str | None = None
    try:
        text = one.message.payload.decode()
    except UnicodeDecodeError:
        encoded = base64.b64encode(one.message.payload).decode()
    return RawMessageState(
        topic=one.message.topic, received=rfc3339(one.received_ms), problem=one.message.problem, text=text,
        base64=encoded,
    )  # fmt: skip

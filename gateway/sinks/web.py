"""Shared by HTTP sinks: one question with a capped answer, and the meaning of a status other than 2xx."""

from collections.abc import Mapping

import aiohttp

from gateway.ports.sinks import Keep, Stop
from gateway.transports import web
from gateway.transports.web import MAX_REPLY_BYTES, NoAnswer, WebAnswer, words

REFUSED_RETRY_S = 3600.0
"""A key that is refused may be allowed at the other end: one more try after this time."""


async def ask(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    headers: dict[str, str],
    data: bytes | None = None,
    params: Mapping[str, str] | None = None,
    most_bytes: int = MAX_REPLY_BYTES,
) -> WebAnswer | Keep:
    """The answer, whatever its status; Keep where there was none."""
    try:
        return await web.ask(session, method, url, headers=headers, data=data, params=params, most_bytes=most_bytes)
    except NoAnswer as error:
        return Keep(reason=error.reason)


def body_of(reply: WebAnswer, *, sent: bool) -> bytes | Keep | Stop:
    """The body of a 2xx answer, else what its status means for a batch that was `sent`."""
    if reply.fine:
        return reply.body
    reason = f"http_{reply.status}"
    if reply.status in (401, 403):
        return Stop(reason=reason, detail=words(reply.body), retry_s=REFUSED_RETRY_S)
    # the receiver does not understand the batch, or it is too large
    whole = sent and reply.status in (400, 413, 422)
    return Keep(reason=reason, after_s=reply.after_s, whole=whole)

"""Shared by HTTP sinks: a session, one exchange with a capped answer, and the meaning of a status other than 2xx."""

import aiohttp

from gateway.ports.sinks import Keep

MAX_REPLY_BYTES = 4 << 20
RETRY_AFTER_MAX_S = 3600.0


def open_session(timeout_s: float) -> aiohttp.ClientSession:
    """A session without cookies and with two connections. Call it inside a running loop."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        connector=aiohttp.TCPConnector(limit=2),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def exchange(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    headers: dict[str, str],
    data: bytes | None = None,
    most_bytes: int = MAX_REPLY_BYTES,
) -> bytes | Keep:
    """The body of a 2xx answer, else a Keep with the reason. Follows no redirects: they would carry the token along."""
    try:
        async with session.request(method, url, data=data, headers=headers, allow_redirects=False) as reply:
            body = await _body(reply, most_bytes)
            return body if 200 <= reply.status < 300 else _later(reply, sent=data is not None)
    except TimeoutError:
        return Keep(reason="timeout")
    except aiohttp.ClientError as error:
        return Keep(reason=type(error).__name__)


async def _body(reply: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """The whole body; one that is too long is cut off, which no JSON parser accepts."""
    body = bytearray()
    async for chunk in reply.content.iter_any():
        body += chunk
        if len(body) > most_bytes:
            reply.close()
            break
    return bytes(body[:most_bytes])


def _later(reply: aiohttp.ClientResponse, *, sent: bool) -> Keep:
    after = reply.headers.get("Retry-After", "")
    after_s = min(float(after), RETRY_AFTER_MAX_S) if after.isascii() and after.isdecimal() else 0.0
    # the receiver does not understand the batch, or it is too large
    whole = sent and reply.status in (400, 413, 422)
    return Keep(reason=f"http_{reply.status}", after_s=after_s, whole=whole)

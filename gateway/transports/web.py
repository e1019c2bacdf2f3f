"""Shared by clients of HTTP peers: the check of an address, a session, and one question with a capped answer."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from gateway.addresses import is_loopback
from gateway.domain.errors import LinkDown

MAX_REPLY_BYTES = 4 << 20
RETRY_AFTER_MAX_S = 3600.0
WORDS_MAX = 200


class NoAnswer(LinkDown):
    """No answer came: whether the peer did what it was asked is not known. `reason`: a bounded word."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"no answer: {reason}")
        self.reason = reason


def check_url(url: str, *, secret: bool, key: str = "token") -> None:
    """Refuse an address without a host or with an account in it, and one that would carry a secret (configured under
    `key`) in the open. Raises ValueError, which does not repeat the address."""
    try:
        parts = urlsplit(url)
        _, host = parts.port, parts.hostname
    except ValueError as error:
        raise ValueError("url: http(s)://host[:port]/path is expected") from error
    if not host:
        raise ValueError("url: no host")
    if "@" in parts.netloc:
        raise ValueError(f"url: credentials do not belong here; use {key}")
    if secret and parts.scheme != "https" and not is_loopback(host):
        raise ValueError(f"url: https is required, because requests carry the {key}")


def open_session(timeout_s: float) -> aiohttp.ClientSession:
    """A session without cookies and with two connections. Call it inside a running loop."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        connector=aiohttp.TCPConnector(limit=2),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WebAnswer:
    """An answer; `after_s`: how long the receiver asks to be left alone, 0 = not told. `whole`: all of its body."""

    status: int
    body: bytes
    after_s: float
    whole: bool = True

    @property
    def fine(self) -> bool:
        return 200 <= self.status < 300


async def ask(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    headers: dict[str, str],
    data: bytes | None = None,
    params: Mapping[str, str] | None = None,
    most_bytes: int = MAX_REPLY_BYTES,
) -> WebAnswer:
    """The answer, whatever its status. Follows no redirects: they would carry the token along. Raises NoAnswer."""
    # as a file a large body leaves in pieces, and other tasks run between them
    payload = None if data is None else io.BytesIO(data)
    try:
        async with session.request(
            method, url, data=payload, headers=headers, params=params, allow_redirects=False
        ) as reply:
            body, whole = await _body(reply, most_bytes)
            if reply.status >= 300:
                body = _without_key(body, headers)
            after = reply.headers.get("Retry-After", "")
            after_s = min(float(after), RETRY_AFTER_MAX_S) if after.isascii() and after.isdecimal() else 0.0
            return WebAnswer(status=reply.status, body=body, after_s=after_s, whole=whole)
    except TimeoutError as error:
        raise NoAnswer("timeout") from error
    except aiohttp.ClientError as error:
        raise NoAnswer(type(error).__name__) from error


def words(body: bytes) -> str:
    """What a receiver said, as one line that is short enough for a log."""
    text = " ".join(body[: 4 * WORDS_MAX].decode("utf-8", errors="replace").split())
    return "".join(c for c in text if c.isprintable())[:WORDS_MAX]


def _without_key(body: bytes, headers: Mapping[str, str]) -> bytes:
    """What a receiver says of a refusal may repeat the key."""
    key = headers.get("Authorization", "").removeprefix("Bearer ").encode()
    return body.replace(key, b"[key]") if key else body


async def _body(reply: aiohttp.ClientResponse, most_bytes: int) -> tuple[bytes, bool]:
    """The body, and whether it is all of it; one that is too long is cut off, which no JSON parser accepts."""
    body = bytearray()
    async for chunk in reply.content.iter_any():
        body += chunk
        if len(body) > most_bytes:
            reply.close()
            return bytes(body[:most_bytes]), False
    return bytes(body), True

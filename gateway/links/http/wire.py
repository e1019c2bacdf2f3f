"""Sends one HTTP request and classifies its answer: bounded in time, size and redirects; errors of our taxonomy."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime

import aiohttp
from yarl import URL

from gateway.clock import Clock
from gateway.domain.errors import LinkDown, PeerBusy, PeerRefused, ProtocolViolation
from gateway.observability.metrics import Sample, counter

REDIRECTS_MAX = 3
RETRY_AFTER_S_MAX = 3600.0
CONNECTIONS_MAX = 10_000
IDLE_S = 30.0
REDIRECTS = (301, 302, 303, 307, 308)
KEEPS_METHOD = (307, 308)
FAILURES = (
    "timeout", "unreachable", "certificate", "broken_off", "malformed", "oversized", "redirect", "unauthorised",
    "refused", "not_found", "server_error", "busy", "left_alone",
)  # fmt: skip

REQUESTS = counter("gateway_http_requests", "Requests sent to polled devices, logins and redirects included.")
FAILED = counter("gateway_http_failures", "Requests that failed, by reason.", reason=FAILURES)
LOGINS = counter("gateway_http_logins", "Logins.")
BREAKER_OPENED = counter("gateway_http_breaker_opened", "Times a host that kept failing was left alone for a while.")
REDIRECTS_REFUSED = counter("gateway_http_redirects_refused", "Redirects that were not followed.")
MALFORMED = counter("gateway_http_malformed", "Bodies that were not the expected JSON.")
NO_SCALAR = counter("gateway_http_no_scalar", "Points whose value is an object or an array.")


@dataclass(slots=True)
class HttpStats:
    """Counts over all hosts. `requests` on the wire (logins and redirects included), `failures` by reason,
    `malformed`: bodies that were not the expected JSON, `no_scalar`: points whose value is an object or an array."""

    requests: int = 0
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAILURES, 0))
    logins: int = 0
    breaker_opened: int = 0
    redirects_refused: int = 0
    malformed: int = 0
    no_scalar: int = 0

    def samples(self) -> Iterator[Sample]:
        yield REQUESTS.sample(self.requests)
        yield from FAILED.each(self.failures)
        yield LOGINS.sample(self.logins)
        yield BREAKER_OPENED.sample(self.breaker_opened)
        yield REDIRECTS_REFUSED.sample(self.redirects_refused)
        yield MALFORMED.sample(self.malformed)
        yield NO_SCALAR.sample(self.no_scalar)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. `body` is JSON."""

    method: str
    url: URL
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    middlewares: tuple[aiohttp.ClientMiddlewareType, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer: a status below 500 that is no redirect."""

    status: int
    headers: Mapping[str, str]
    cookies: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


def new_session() -> aiohttp.ClientSession:
    """The one session of all hosts; call it inside a running loop. Its limit only guards file descriptors: each host
    has its own limit, and hosts that do not answer must not use up the others' share."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=IDLE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "battery-fleet-gateway", "Accept": "application/json"},
    )


class HttpWire:
    """Requests to one host. `tls` is aiohttp's `ssl` argument."""

    def __init__(
        self,
        session: Callable[[], aiohttp.ClientSession],
        *,
        tls: aiohttp.Fingerprint | bool,
        timeout_s: float,
        body_bytes_max: int,
        cool_down_s: float,
        stats: HttpStats,
        clock: Clock,
    ) -> None:
        self._session = session
        self._tls = tls
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._body_bytes_max = body_bytes_max
        self._cool_down_s = cool_down_s
        self._stats = stats
        self._clock = clock

    async def send(self, call: Call, *, pause: Callable[[], Awaitable[None]]) -> Reply:
        """Send `call`, following redirects on the same host; `pause` comes before each request.

        Raises LinkDown (also for 5xx), PeerBusy (429, and 503 with Retry-After), PeerRefused (redirects elsewhere, a
        wrong certificate) and ProtocolViolation (no HTTP, too long a body).
        """
        for _ in range(REDIRECTS_MAX + 1):
            await pause()
            reply = await self._once(call)
            if reply.status not in REDIRECTS:
                return self._judged(reply, call)
            call = self._onward(call, reply)
        raise self._no_redirect(f"{call.url.path}: more than {REDIRECTS_MAX} redirects")

    def _judged(self, reply: Reply, call: Call) -> Reply:
        after_s = self._retry_after_s(reply.headers)
        if reply.status == 429 or (reply.status == 503 and after_s is not None):
            self._stats.failures["busy"] += 1
            raise PeerBusy(
                f"{call.url.path}: HTTP {reply.status}", after_s=self._cool_down_s if after_s is None else after_s
            )
        if reply.status >= 500:
            self._stats.failures["server_error"] += 1
            raise LinkDown(f"{call.url.path}: HTTP {reply.status}")
        if reply.status < 200 or 300 <= reply.status < 400:
            raise self.malformed(f"{call.url.path}: HTTP {reply.status} was not asked for")
        return reply

    def _onward(self, call: Call, reply: Reply) -> Call:
        """The request a redirect leads to. A write keeps its method or is not repeated."""
        try:
            url = call.url.join(URL(reply.headers.get("Location", ""), encoded=True))
            same = url.origin() == call.url.origin()
        except ValueError as error:
            raise self._no_redirect(f"{call.url.path}: a redirect to nowhere") from error
        if not same or (call.method != "GET" and reply.status not in KEEPS_METHOD):
            raise self._no_redirect(f"{call.url.path}: a redirect ({reply.status}) that is not followed")
        return Call(
            method=call.method, url=url, headers=call.headers, body=call.body, middlewares=call.middlewares
        )  # fmt: skip

    def _no_redirect(self, message: str) -> PeerRefused:
        self._stats.failures["redirect"] += 1
        self._stats.redirects_refused += 1
        return PeerRefused(message)

    def malformed(self, message: str) -> ProtocolViolation:
        """Count a malformed answer and return the error to raise."""
        self._stats.failures["malformed"] += 1
        self._stats.malformed += 1
        return ProtocolViolation(message)

    async def _once(self, call: Call) -> Reply:
        """Send one request and read the whole answer."""
        self._stats.requests += 1
        headers = dict(call.headers)
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        async with (
            self._translated(call),
            self._session().request(
                call.method,
                call.url,
                headers=headers,
                data=call.body,
                ssl=self._tls,
                allow_redirects=False,
                timeout=self._timeout,
                middlewares=call.middlewares,
            ) as answer,
        ):
            return Reply(
                status=answer.status,
                headers=answer.headers,
                cookies={name: morsel.coded_value for name, morsel in answer.cookies.items()},
                body=await self._body(answer, call),
            )

    @asynccontextmanager
    async def _translated(self, call: Call) -> AsyncIterator[None]:
        """Translate aiohttp's errors to ours."""
        path, failures = call.url.path, self._stats.failures
        try:
            yield
        except TimeoutError as error:
            failures["timeout"] += 1
            raise LinkDown(f"{path}: no answer in time") from error
        except (aiohttp.ServerFingerprintMismatch, aiohttp.ClientConnectorCertificateError, ssl.CertificateError) as e:
            failures["certificate"] += 1
            raise PeerRefused(f"{path}: the host's certificate is wrong") from e
        except (aiohttp.ClientConnectionError, OSError) as error:
            failures["unreachable"] += 1
            raise LinkDown(f"{path}: {type(error).__name__}") from error
        except aiohttp.ClientPayloadError as error:
            failures["broken_off"] += 1
            raise LinkDown(f"{path}: the answer broke off") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise self.malformed(f"{path}: {type(error).__name__}") from error

    async def _body(self, answer: aiohttp.ClientResponse, call: Call) -> bytes:
        body = bytearray()
        async for chunk in answer.content.iter_any():
            body += chunk
            if len(body) > self._body_bytes_max:
                answer.close()
                self._stats.failures["oversized"] += 1
                raise ProtocolViolation(f"{call.url.path}: more than {self._body_bytes_max} bytes")
        return bytes(body)

    def _retry_after_s(self, headers: Mapping[str, str]) -> float | None:
        """Retry-After in s, by the host's own clock where it sends one; None = no such header."""
        text = headers.get("Retry-After", "").strip()
        if text.isascii() and text.isdecimal():
            return min(float(text[:12]), RETRY_AFTER_S_MAX)
        until = _date(text)
        if until is None:
            return None
        now = _date(headers.get("Date", ""))
        now_s = now.timestamp() if now is not None else self._clock.now().utc_ms / 1000
        return min(max(until.timestamp() - now_s, 0.0), RETRY_AFTER_S_MAX)


def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None

"""Links batteries that speak JSON over HTTP: reads documents, writes values; logins, pacing and quotas are per host."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
from yarl import URL

from gateway.addresses import is_loopback
from gateway.clock import Clock
from gateway.domain.errors import InvalidInput, LinkDown, PeerBusy, PeerRefused, ProtocolViolation
from gateway.links.http.auth import COOKIES_MAX, Credentials, Grant
from gateway.links.http.gate import QUEUE_S_MAX, Breaker, Gate, Quota
from gateway.links.http.wire import Call, HttpStats, HttpWire, Reply, new_session
from gateway.links.json_values import (
    Json,
    filled,
    has,
    json_body,
    parse_json,
    raw_of,
    segment_of,
    tokens_of,
    value_at,
)
from gateway.observability.metrics import Sample
from gateway.observability.parts import Part
from gateway.ports.links import NO_MODELS, PointTarget
from gateway.profiles.compiled.points import Marker, Raw, Unwritable
from gateway.profiles.compiled.sequences import Request
from gateway.profiles.language.points import Point, WriteTo
from gateway.profiles.language.transport import HttpSection

__all__ = ["HttpLinks", "HttpStats"]

FORGET_MS = 3_600_000
SWEEP_STEP = 64
NOT_THERE = (404, 410)
T = TypeVar("T")
HostKey = tuple[str, str, str, str, str]


@dataclass(slots=True)
class _Host:
    """What the links to one host with one account share. It outlives them for a while, so that a reconnect neither
    resets the failures of a host nor logs in again."""

    section: HttpSection
    origin: URL
    wire: HttpWire
    gate: Gate
    breaker: Breaker
    credentials: Credentials
    quota: Quota | None
    users: int = 0
    left_ms: int = 0


class _Turn:
    """The requests sent during one turn at the host; the quota has counted the first one already."""

    __slots__ = ("_host", "used")

    def __init__(self, host: _Host) -> None:
        self._host = host
        self.used = False

    async def pause(self) -> None:
        """Wait before each request of the turn."""
        if not self.used:
            self.used = True
            return
        if self._host.quota is not None:
            self._host.quota.spend()
        await self._host.gate.again()


class HttpLinks(Part):
    """The `PointLinks` of every HTTP product."""

    component = "devices"

    def __init__(self, clock: Clock) -> None:
        self.stats = HttpStats()
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._hosts: dict[HostKey, _Host] = {}
        self._gates: dict[tuple[str, str], tuple[Gate, Breaker]] = {}
        self._quotas: dict[tuple[str, str, str], Quota] = {}
        self._sweep_at = SWEEP_STEP

    def link(self, target: PointTarget) -> "HttpLink":
        """A link to one device. Raises InvalidInput when its connection does not fit the profile."""
        section = target.document.http
        if section is None:
            raise InvalidInput([f"{target.device}: {target.document.profile} is not reached over HTTP"])
        return HttpLink(target, section, self._host(target, section), stats=self.stats, clock=self._clock)

    def samples(self) -> Iterable[Sample]:
        return self.stats.samples()

    async def close(self) -> None:
        for gate, _ in self._gates.values():
            gate.close()
        for quota in self._quotas.values():
            quota.close()
        self._hosts.clear()
        self._gates.clear()
        self._quotas.clear()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = new_session()
        return self._session

    def _host(self, target: PointTarget, section: HttpSection) -> _Host:
        connection, profile = target.connection, target.document.profile
        origin = _origin(connection.url, section)
        pin = dict(connection.parameters).get("fingerprint", "")
        secret_digest = hashlib.sha256(target.secret.encode()).hexdigest()
        name = f"{profile} {section.model_dump_json()}"  # an overlay may have another section
        key = (name, str(origin), connection.username, secret_digest, pin)
        host = self._hosts.get(key)
        if host is not None:
            return host
        self._sweep()
        credentials = Credentials(section.auth, username=connection.username, secret=target.secret, clock=self._clock)
        gate, breaker = self._gate((name, str(origin)), section)
        host = _Host(
            section=section,
            origin=origin,
            wire=HttpWire(
                self._open_session,
                tls=_tls(section, pin),
                timeout_s=section.timeout_s,
                body_bytes_max=section.body_bytes_max,
                cool_down_s=section.cool_down_s,
                stats=self.stats,
                clock=self._clock,
            ),
            gate=gate,
            breaker=breaker,
            credentials=credentials,
            quota=self._quota((profile, connection.username, str(origin)), section),
            left_ms=self._clock.mono_ms(),
        )
        self._hosts[key] = host
        return host

    def _gate(self, key: tuple[str, str], section: HttpSection) -> tuple[Gate, Breaker]:
        """The gate and the breaker of a host; all accounts there share them."""
        found = self._gates.get(key)
        if found is None:
            gate = Gate(concurrency=section.concurrency, spacing_s=section.spacing_s, clock=self._clock)
            breaker = Breaker(failures_max=section.breaker, rest_s=section.breaker_s, clock=self._clock)
            found = self._gates[key] = (gate, breaker)
        return found

    def _quota(self, key: tuple[str, str, str], section: HttpSection) -> Quota | None:
        if section.account_per_min is None:
            return None
        if key not in self._quotas:
            self._quotas[key] = Quota(per_min=section.account_per_min, clock=self._clock)
        return self._quotas[key]

    def _sweep(self) -> None:
        """Forget hosts unused for an hour, once there are enough to look through."""
        if len(self._hosts) < self._sweep_at:
            return
        now_ms = self._clock.mono_ms()
        self._hosts = {k: h for k, h in self._hosts.items() if h.users or now_ms - h.left_ms < FORGET_MS}
        places = {(profile, origin) for profile, origin, *_ in self._hosts}
        self._gates = {key: pair for key, pair in self._gates.items() if key in places}
        accounts = {(profile, username, origin) for profile, origin, username, *_ in self._hosts}
        self._quotas = {key: quota for key, quota in self._quotas.items() if key in accounts}
        self._sweep_at = 2 * len(self._hosts) + SWEEP_STEP


class HttpLink:
    """One device; see `ports.PointLink`."""

    heard_mono_ms: int | None = None
    notice: str | None = None
    models = NO_MODELS

    def __init__(
        self, target: PointTarget, section: HttpSection, host: _Host, *, stats: HttpStats, clock: Clock
    ) -> None:
        self._host = host
        self._section = section
        self._stats = stats
        self._clock = clock
        self._points = target.points
        self._tokens = {name: tokens_of(point.pointer) for name, point in target.points.items()}
        self._open = False
        wanted = section.auth.unauthorized_without
        self._proof = tokens_of(wanted) if wanted is not None else None
        paths = {point.path for point in target.points.values() if wanted is not None and point.pointer == wanted}
        self._proof_paths = frozenset(paths)

    async def open(self) -> None:
        """Log in, where the product needs it; otherwise the first request shows whether the host answers."""
        if not self._open:
            self._open = True
            self._host.users += 1
        credentials = self._host.credentials
        if credentials.wanting:
            await self._in_turn(lambda turn: credentials.ready(lambda: self._log_in(turn)), write=False)

    async def close(self) -> None:
        if self._open:
            self._open = False
            self._host.users -= 1
            self._host.left_ms = self._clock.mono_ms()

    async def read(self, points: Sequence[str]) -> dict[str, Raw]:
        """Read with one request per document; a missing document (404) makes its points MISSING."""
        by_document: dict[str, list[str]] = {}
        for name in points:
            by_document.setdefault(self._points[name].document, []).append(name)
        out: dict[str, Raw] = {}
        for names in by_document.values():
            document = await self._document(self._points[names[0]])
            for name in names:
                out[name] = self._raw(document, name)
        return out

    async def write(self, request: Request) -> None:
        """Write one request. Any 2xx except a web page means success; the body is ignored."""
        writes = [(self._write_to(write.point), write.raw) for write in request.writes]
        if len({(to.method, to.path) for to, _ in writes}) != 1:
            raise Unwritable("the members of one request go to one place")
        to, raw = writes[0]
        body = json_body(writes)
        path = to.path or "/"
        if body is None:
            path = f"{path.rstrip('/')}/{segment_of(raw)}"

        async def send(turn: _Turn) -> None:
            reply, _ = await self._authorised(turn, to.method or "POST", path, body, reads=False)
            if not reply.ok:
                raise self._refused(f"{path}: HTTP {reply.status}")
            if reply.body.lstrip()[:1] == b"<":
                # A portal, a proxy or an error page answered, not the device.
                raise self._host.wire.malformed(f"{path}: a page came instead of an answer")

        await self._in_turn(send, write=True)

    # -- documents -------------------------------------------------------------------------------------------

    def _raw(self, document: Json, name: str) -> Raw:
        raw = raw_of(value_at(document, self._tokens[name]))
        self._stats.no_scalar += raw is Marker.GARBLED
        return raw

    async def _document(self, point: Point) -> Json:
        if point.path is None:
            return Marker.MISSING
        path, method, body = point.path, "GET", None
        if point.ask is not None:
            method, body = "POST", json.dumps(point.ask).encode()

        async def get(turn: _Turn) -> Json:
            reply, document = await self._authorised(turn, method, path, body, reads=True)
            if reply.status in NOT_THERE:
                self._stats.failures["not_found"] += 1
                return Marker.MISSING
            if not reply.ok:
                raise self._refused(f"{path}: HTTP {reply.status}")
            return document

        return await self._in_turn(get, write=False)

    def _write_to(self, name: str) -> WriteTo:
        to = self._points[name].write
        if to is None or to.path is None:
            raise Unwritable(f"{name}: is not written over HTTP")
        return to

    def _refused(self, message: str) -> PeerRefused:
        self._stats.failures["refused"] += 1
        return PeerRefused(message)

    # -- one request, with all that belongs to it ------------------------------------------------------------

    async def _in_turn(self, send: Callable[[_Turn], Awaitable[T]], *, write: bool) -> T:
        """Run `send` when the host, its account's quota and its breaker allow it; the breaker counts the outcome."""
        host = self._host
        self._check(host.breaker.check)
        if host.quota is not None:
            await host.quota.acquire(first=write, at_most_s=QUEUE_S_MAX if write else self._section.timeout_s)
        turn = _Turn(host)
        try:
            async with host.gate.turn(first=write):
                trial = self._check(host.breaker.begin)
                try:
                    return await self._judged(send(turn))
                finally:
                    host.breaker.end(trial=trial)
        finally:
            if host.quota is not None and not turn.used:
                host.quota.returned()

    def _check(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except (LinkDown, PeerBusy):
            self._stats.failures["left_alone"] += 1
            raise

    async def _judged(self, sending: Awaitable[T]) -> T:
        breaker = self._host.breaker
        try:
            result = await sending
        except (LinkDown, ProtocolViolation):
            self._stats.breaker_opened += breaker.failed()
            raise
        except PeerBusy as error:
            breaker.succeeded()
            breaker.busy(error.after_s)
            raise
        except PeerRefused:
            breaker.succeeded()
            raise
        breaker.succeeded()
        return result

    async def _authorised(
        self, turn: _Turn, method: str, path: str, body: bytes | None, *, reads: bool
    ) -> tuple[Reply, Json]:
        """Send a request and return the answer. If the product says that the login has expired, log in again once."""
        credentials = self._host.credentials
        generation = await credentials.ready(lambda: self._log_in(turn))
        reply, document = await self._send(turn, method, path, body, reads=reads)
        if not self._unauthorised(path, reply, document):
            return reply, document
        if credentials.renewable:
            await credentials.renew(generation, lambda: self._log_in(turn))
            reply, document = await self._send(turn, method, path, body, reads=reads)
            if not self._unauthorised(path, reply, document):
                return reply, document
        self._stats.failures["unauthorised"] += 1
        raise PeerRefused(f"{path}: not authorised (HTTP {reply.status})")

    async def _send(
        self, turn: _Turn, method: str, path: str, body: bytes | None, *, reads: bool
    ) -> tuple[Reply, Json]:
        host = self._host
        call = Call(
            method=method,
            url=_at(host.origin, path),
            headers=host.credentials.headers(),
            body=body,
            middlewares=host.credentials.middlewares,
        )
        reply = await host.wire.send(call, pause=turn.pause)
        return reply, self._parsed(path, reply) if reads and reply.ok else None

    def _unauthorised(self, path: str, reply: Reply, document: Json) -> bool:
        """Whether the answer means "not logged in": by its status, or by a document without the profile's proof."""
        if reply.status in self._section.auth.expired_status:
            return True
        if self._proof is None or not isinstance(document, dict):
            return False
        if not document:
            return True
        return (not self._proof_paths or path in self._proof_paths) and not has(document, self._proof)

    def _parsed(self, path: str, reply: Reply) -> Json:
        try:
            return parse_json(reply.body)
        except ValueError as error:
            raise self._host.wire.malformed(f"{path}: the body is no JSON") from error

    async def _log_in(self, turn: _Turn) -> Grant:
        host, auth = self._host, self._section.auth
        path = auth.path or "/"
        credentials = host.credentials
        self._stats.logins += 1
        body = filled(auth.fields, username=credentials.username, secret=credentials.secret)
        reply = await host.wire.send(Call(method="POST", url=_at(host.origin, path), body=body), pause=turn.pause)
        if not reply.ok:
            self._stats.failures["unauthorised"] += 1
            raise PeerRefused(f"{path}: login refused (HTTP {reply.status})")
        token = value_at(self._parsed(path, reply), tokens_of(auth.token or ""))
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise host.wire.malformed(f"{path}: the login gave no token")
        return Grant(token=token, cookies=dict(list(reply.cookies.items())[:COOKIES_MAX]))


def _at(origin: URL, path: str) -> URL:
    return URL(f"{origin}{path}", encoded=True)


def _origin(url: str, section: HttpSection) -> URL:
    """Scheme, host and port of a connection. Raises InvalidInput, also where a secret would go unprotected."""
    try:
        given = URL(url)
        host, scheme = given.host, given.scheme
        if scheme not in ("http", "https") or not host or given.user is not None or given.path not in ("", "/"):
            raise ValueError
        origin = given.origin() if given.explicit_port is not None else given.with_port(section.port).origin()
    except ValueError as error:
        raise InvalidInput(["address: http(s)://host[:port] is expected"]) from error
    if scheme == "http" and section.tls != "none" and not is_loopback(host):
        raise InvalidInput(["address: https:// is expected; the product protects what is sent to it"])
    return origin


def _tls(section: HttpSection, pin: str) -> aiohttp.Fingerprint | bool:
    """How to verify the certificate; a pinned one needs no signature."""
    if pin:
        try:
            return aiohttp.Fingerprint(bytes.fromhex(pin.replace(":", "")))
        except ValueError as error:
            raise InvalidInput(["parameters: 'fingerprint' is a SHA-256 in hexadecimal"]) from error
    return section.tls != "unverified"

"""The HTTP server: keys and permissions, scripted trouble, envelopes, and a record of every request.

    async with Aggregator(keys={"key": Access()}, meters={meter: date(2026, 11, 1)}, clock=clock) as aggregator:
        aggregator.script(Operation.UPLOAD, cut(done=True))
        await client.upload(aggregator.url)
        assert aggregator.intervals.accepted[meter, start_ms]

Stopped and started again it keeps its state and its port. Every JSON reply is checked against the published schema
before it goes out; one that fails is the fake's own fault and ends in `faults` and 500.

Not public [?]: the names of the permissions for interval data (those of `Permission` are ours), the text of errors (an
untyped object; here title, status, details), and what answers an unknown key (here 401 like none).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from types import TracebackType
from typing import Any, Self

import orjson
from aiohttp import web

from simulators.aggregator import contract
from simulators.aggregator.contract import Body, OffContract, Shape
from simulators.aggregator.control import Control
from simulators.aggregator.deliveries import Deliveries
from simulators.aggregator.dispatch_api import DispatchApi
from simulators.aggregator.dispatch_book import DispatchBook
from simulators.aggregator.interval_api import IntervalApi
from simulators.aggregator.interval_api import envelope as intervals_envelope
from simulators.aggregator.intervals import Intervals, Schema
from simulators.aggregator.meter_book import MeterBook
from simulators.aggregator.meter_jobs import MeterJobs
from simulators.aggregator.meters_api import MetersApi
from simulators.aggregator.nomination_api import NominationApi
from simulators.aggregator.permissions import Access, Environment, Permission
from simulators.aggregator.refusal import Refused
from simulators.aggregator.revenue_api import RevenueApi
from simulators.aggregator.service import JSON, Call, Reply, Route, Service
from simulators.aggregator.spoil import spoiled
from simulators.aggregator.switches import Fate, Mischief, Mishap, OpenPoints, Operation, Pace, Trouble, cut
from simulators.aggregator.times import ServerClock
from simulators.aggregator.webhook_api import WebhookApi
from simulators.clock import Clock, RealClock

BODY_MAX = 1 << 30


@dataclass(slots=True, kw_only=True, eq=False)
class Seen:
    """A request as it came. `headers` are without the key; `status` is None while or where nothing was answered;
    `unknown` names parameters and fields that the service ignored."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    key_sent: bool
    body: bytes
    at_ms: int
    operation: Operation | None = None
    status: int | None = None
    reply: bytes = b""
    unknown: list[str] = field(default_factory=list)

    def json(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)


class Aggregator:
    """The service on loopback. `requests` are all that came; `intervals` is the state; fields of `mischief`, of
    `intervals.points` and `clock.skew_ms` may be set at any time. `on_request` is called with each request that has
    come whole, before it is answered."""

    def __init__(
        self,
        *,
        keys: Mapping[str, Access],
        meters: Mapping[str, date],
        clock: Clock | None = None,
        environment: Environment = Environment.STAGING,
        schemas: tuple[Schema, ...] = (Schema.LOAD,),
        points: OpenPoints | None = None,
        mischief: Mischief | None = None,
        pace: Pace | None = None,
        skew_ms: int = 0,
        port: int = 0,
    ) -> None:
        self.keys = dict(keys)
        self.clock = ServerClock(clock or RealClock(), skew_ms=skew_ms)
        self.environment = environment
        self.mischief = mischief or Mischief()
        self.intervals = Intervals(clock=self.clock, meters=meters, points=points or OpenPoints(), pace=pace or Pace())
        self.requests: list[Seen] = []
        self.faults: list[str] = []
        self.on_request: Callable[[Seen], None] = lambda _: None
        self._api = IntervalApi(self.intervals, self.mischief, schemas, lambda: self.url)
        self.deliveries = Deliveries(self.clock)
        self.dispatch_book = DispatchBook(self.clock)
        self.dispatch = DispatchApi(self.dispatch_book, self.deliveries, self.clock, self.mischief)
        self.webhooks = WebhookApi(self.deliveries)
        self.meter_book = MeterBook(self.clock, self.webhooks.tell)
        self.meter_jobs = MeterJobs(self.meter_book, self.clock)
        self.meters = MetersApi(self.meter_book, self.meter_jobs, self.clock, self.mischief)
        self.nominations = NominationApi(self.meter_book, self.clock, self.mischief)
        self.revenue = RevenueApi(self.mischief)
        self.services: tuple[Service, ...] = (
            self._api.service(),
            self.dispatch.service(),
            self.webhooks.service(),
            self.meter_jobs.service(),
            self.nominations.service(),
            self.meters.service(),
            self.revenue.service(),
        )
        self._scripts: dict[Operation, list[Mishap | None]] = {operation: [] for operation in Operation}
        self._service_scripts: dict[str, list[Mishap | None]] = {}
        self.outages: list[tuple[int, int]] = []
        self._port = port
        self._runner: web.AppRunner | None = None
        self._stopping = asyncio.Event()

    @property
    def url(self) -> str:
        """Root of the service, known once it was started."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; the second time on the port of the first."""
        app = web.Application(client_max_size=BODY_MAX)
        Control(self).mount(app)
        for service in self.services:
            for route in service.routes:
                app.router.add_route(route.method, route.path, self._handler(service, route))
        app.router.add_route("*", "/{path:.*}", self._other)
        self._stopping = asyncio.Event()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, auto_decompress=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Listen no more; what hangs is cut."""
        self._stopping.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """Nobody listens in here; the state is kept."""
        await self.stop()
        try:
            yield
        finally:
            await self.start()

    def script(self, operation: Operation, *mishaps: Mishap | None) -> None:
        """What goes wrong with the next answers of an operation, in order; None = nothing."""
        self._scripts[operation] += mishaps

    def script_service(self, name: str, *mishaps: Mishap | None) -> None:
        """The same for whatever is asked of a service next."""
        if name not in {service.name for service in self.services}:
            raise ValueError(f"no service is called {name!r}")
        self._service_scripts.setdefault(name, []).extend(mishaps)

    def is_out(self) -> bool:
        """Whether the platform is in one of its `outages`: no answer, no webhook."""
        return any(start_ms <= self.clock.utc_ms() < end_ms for start_ms, end_ms in self.outages)

    async def deliver(self) -> int:
        """Post the webhooks that are due; the number of posts."""
        return 0 if self.is_out() else await self.deliveries.run_due(together=True)

    def unused(self, operation: Operation) -> int:
        """How many scripted answers nobody has asked for."""
        return len(self._scripts[operation])

    def next_files(self, *fates: Fate) -> None:
        """What becomes of the next files, in order."""
        self.intervals.fates += fates

    def asked(self, operation: Operation) -> list[Seen]:
        """The requests of one operation."""
        return [seen for seen in self.requests if seen.operation is operation]

    def _handler(self, service: Service, route: Route) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            seen = await self._see(request, route.operation)
            if self.is_out():
                return await self._go_wrong(request, seen, cut(), None)
            script = self._scripts[route.operation] or self._service_scripts.get(service.name, [])
            mishap = script.pop(0) if script else None
            if mishap is not None and not mishap.done:
                return await self._go_wrong(request, seen, mishap, None)
            reply = await self._reply(request, seen, service, route)
            if mishap is not None:
                return await self._go_wrong(request, seen, mishap, reply)
            return _sent(seen, reply)

        return handle

    async def _other(self, request: web.Request) -> web.StreamResponse:
        seen = await self._see(request, None)
        token = request.path.removeprefix("/presigned/")
        if request.method == "GET" and token != request.path:
            try:
                return _sent(seen, Reply(content=self._api.presigned(token), headers={"Content-Type": "text/csv"}))
            except Refused as refused:
                return _sent(seen, intervals_envelope(refused))
        envelope = next((s.envelope for s in self.services if request.path.startswith(s.prefixes)), intervals_envelope)
        return _sent(seen, envelope(Refused(404, "no such operation", method=request.method, path=request.path)))

    async def _see(self, request: web.Request, operation: Operation | None) -> Seen:
        seen = Seen(
            method=request.method,
            path=request.path,
            query=list(request.query.items()),
            headers={name: value for name, value in request.headers.items() if name.lower() != "authorization"},
            key_sent="Authorization" in request.headers,
            body=b"",
            at_ms=self.clock.utc_ms(),
            operation=operation,
        )
        self.requests.append(seen)
        seen.body = await request.read()
        self.on_request(seen)
        return seen

    async def _reply(self, request: web.Request, seen: Seen, service: Service, route: Route) -> Reply:
        call = Call(
            query=seen.query,
            headers=request.headers,
            body=seen.body,
            ids=dict(request.match_info),
            unknown=seen.unknown,
        )
        try:
            if route.permission is not None:
                self._let_in(request, route.permission)
            reply = route.handler(call)
            return self._checked(reply if isinstance(reply, Reply) else await reply)
        except Refused as refused:
            return self._checked(service.envelope(refused))
        except OffContract as error:
            self.faults.append(str(error))
            return service.envelope(Refused(500, "the fake broke its contract"))

    def _let_in(self, request: web.Request, permission: Permission) -> None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        access = self.keys.get(key) if scheme == "Bearer" else None
        if access is None:
            raise Refused(401, "Unauthorized")
        if access.environment is not self.environment or permission not in access.permissions:
            raise Refused(403, "You do not have the necessary permissions for this operation")

    def _checked(self, reply: Reply) -> Reply:
        """The reply by the contract; with mischief once more, enums open."""
        if reply.body is None:
            return reply
        _check(reply.body, reply.json)
        odd = spoiled(reply.body, reply.json, self.mischief)
        if odd is not reply.json:
            _check(reply.body, odd, open_enums=True)
        return replace(reply, json=odd)

    async def _go_wrong(
        self, request: web.Request, seen: Seen, mishap: Mishap, reply: Reply | None
    ) -> web.StreamResponse:
        match mishap.trouble:
            case Trouble.ANSWER:
                headers = {"Content-Type": JSON} | mishap.headers
                return _sent(seen, Reply(status=mishap.status, content=mishap.body, headers=headers))
            case Trouble.SLOW if reply is not None:
                await asyncio.sleep(mishap.s)
                return _sent(seen, reply)
            case Trouble.HANG:
                await self._stopping.wait()
            case Trouble.HALF | Trouble.STALL if reply is not None:
                response = await _half_sent(request, reply)
                if mishap.trouble is Trouble.STALL:
                    await self._stopping.wait()
                if request.transport is not None:
                    request.transport.close()
                return response
            case _:
                pass
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)


def _check(body: Body | Shape, value: object, *, open_enums: bool = False) -> None:
    if isinstance(body, Shape):
        body.check(value, open_enums=open_enums)
    else:
        contract.check(body, value, open_enums=open_enums)


def _sent(seen: Seen, reply: Reply) -> web.Response:
    content = _content(reply)
    seen.status = reply.status
    seen.reply = content
    headers = dict(reply.headers)
    if reply.json is not None:
        headers["Content-Type"] = JSON
    return web.Response(status=reply.status, body=content, headers=headers)


def _content(reply: Reply) -> bytes:
    return orjson.dumps(reply.json) if reply.json is not None else reply.content


async def _half_sent(request: web.Request, reply: Reply) -> web.StreamResponse:
    """The first half of a body whose length was announced."""
    content = _content(reply)
    response = web.StreamResponse(status=reply.status, headers={"Content-Type": JSON})
    response.content_length = len(content)
    await response.prepare(request)
    await response.write(content[: len(content) // 2])
    return response

"""The HTTP server: REST, metrics and health, with a second listener for these two if asked for, behind a door that
bounds connections."""

import asyncio
import resource
import ssl
from collections.abc import Iterable
from functools import partial
from typing import cast

from aiohttp import web

from gateway.addresses import is_loopback
from gateway.api.app import Parts, make_app, make_metrics_app, server_log
from gateway.api.guard import Doorway
from gateway.app.access import Access
from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.domain.errors import GatewayError
from gateway.observability.metrics import Sample, counter, gauge
from gateway.observability.parts import Part

STOP_GRACE_S = 10.0
CONNECTIONS_MIN, CONNECTIONS_MAX = 64, 1_024

CONNECTIONS = gauge("gateway_rest_connections", "Connections of HTTP peers.")
CONNECTIONS_REFUSED = counter("gateway_rest_connections_refused", "Connections of HTTP peers that were too many.")


def connections_max(files: int) -> int:
    """How many peers may be connected: a quarter of the files that the process may open (`files`, -1 = any number), for
    brokers and batteries need the others."""
    return CONNECTIONS_MAX if files < 0 else max(CONNECTIONS_MIN, min(CONNECTIONS_MAX, files // 4))


class Door(Part):
    """Lets `most` connections in, half of them from one address. `refused` counts the others."""

    def __init__(self, most: int) -> None:
        self.refused = 0
        self._most = most
        self._runners: list[web.AppRunner] = []
        self._sockets: list[asyncio.Server] = []

    @property
    def open(self) -> int:
        """Connections now."""
        return len(self._connections())

    def _connections(self) -> list[web.RequestHandler]:
        servers = [runner.server for runner in self._runners]
        return [known for server in servers if server is not None for known in server.connections]

    async def listen(
        self, runner: web.AppRunner, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> int:  # fmt: skip
        """Serve from here on, until it is closed; returns the port. Raises OSError."""
        self._runners.append(runner)
        await runner.setup()
        served = partial(_Threshold, self, runner)
        listening = await asyncio.get_running_loop().create_server(served, host, port, backlog=128, ssl=tls)
        self._sockets.append(listening)
        return int(listening.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Let nobody in any more, and finish what is being answered."""
        for listening in self._sockets:
            listening.close()
        for runner in self._runners:
            await runner.cleanup()

    def admit(self, runner: web.AppRunner, transport: asyncio.Transport) -> asyncio.Protocol | None:
        """Who serves a new connection; None = nobody."""
        server = runner.server
        if server is None:
            return None
        peers = [_address(known.transport) for known in self._connections() if known.transport is not None]
        if len(peers) >= self._most or peers.count(_address(transport)) >= self._most // 2:
            self.refused += 1
            return None
        return server()

    def samples(self) -> Iterable[Sample]:
        yield CONNECTIONS.sample(self.open)
        yield CONNECTIONS_REFUSED.sample(self.refused)


class _Threshold(asyncio.Protocol):
    """A connection until the door has looked at it."""

    def __init__(self, door: Door, runner: web.AppRunner) -> None:
        self._door = door
        self._runner = runner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods without the base class.
        peer = cast("asyncio.Transport", transport)
        protocol = self._door.admit(self._runner, peer)
        if protocol is None:
            peer.abort()
            return
        peer.set_protocol(protocol)
        protocol.connection_made(transport)


def _address(transport: asyncio.BaseTransport) -> str:
    name = transport.get_extra_info("peername")
    return str(name[0]) if name else ""


def front_door() -> Door:
    """A door for this process."""
    return Door(connections_max(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))


async def serve(settings: Settings, parts: Parts, door: Door, access: Access) -> None:
    """Serve until the door is closed. Raises GatewayError."""
    http = settings.http
    await _listen(door, make_app(parts), parts, http.host, http.port, access.tls)
    metrics = http.metrics
    if metrics is not None:
        app = make_metrics_app(parts, doorway(access, parts.clock, metrics.host))
        tls = None if is_loopback(metrics.host) else access.tls
        await _listen(door, app, parts, metrics.host, metrics.port, tls)


def doorway(access: Access, clock: Clock, host: str) -> Doorway:
    """How requests come to a listener at `host`."""
    return Doorway(callers=lambda: access.callers, clock=clock, exposed=not is_loopback(host))


async def _listen(
    door: Door, app: web.Application, parts: Parts, host: str, port: int, tls: ssl.SSLContext | None
) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_GRACE_S, logger=server_log(parts.peers))
    try:
        await door.listen(runner, host, port, tls=tls)
    except OSError as error:
        raise GatewayError(f"http: cannot listen on {host}:{port}: {error}") from error

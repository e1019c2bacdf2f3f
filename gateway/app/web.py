"""The HTTP server: REST, metrics and health on one port, behind a door that bounds connections."""

import asyncio
import resource
from collections.abc import Iterable
from typing import cast

from aiohttp import web

from gateway.api.app import Parts, make_app, server_log
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
        self._runner: web.AppRunner | None = None
        self._server: web.Server | None = None
        self._socket: asyncio.Server | None = None

    @property
    def open(self) -> int:
        """Connections now."""
        return 0 if self._server is None else len(self._server.connections)

    async def listen(self, runner: web.AppRunner, host: str, port: int) -> int:
        """Serve from here on, until it is closed; returns the port. Raises OSError."""
        self._runner = runner
        await runner.setup()
        self._server, loop = runner.server, asyncio.get_running_loop()
        self._socket = await loop.create_server(lambda: _Threshold(self), host, port, backlog=128)
        return int(self._socket.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Let nobody in any more, and finish what is being answered."""
        if self._socket is not None:
            self._socket.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def admit(self, transport: asyncio.Transport) -> asyncio.Protocol | None:
        """Who serves a new connection; None = nobody."""
        server = self._server
        if server is None:
            return None
        peers = [_address(known.transport) for known in server.connections if known.transport is not None]
        if len(peers) >= self._most or peers.count(_address(transport)) >= self._most // 2:
            self.refused += 1
            return None
        return server()

    def samples(self) -> Iterable[Sample]:
        yield CONNECTIONS.sample(self.open)
        yield CONNECTIONS_REFUSED.sample(self.refused)


class _Threshold(asyncio.Protocol):
    """A connection until the door has looked at it."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods without the base class.
        peer = cast("asyncio.Transport", transport)
        protocol = self._door.admit(peer)
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


async def serve(settings: Settings, parts: Parts, door: Door) -> None:
    """Serve until the door is closed. Raises GatewayError."""
    runner = web.AppRunner(
        make_app(parts), access_log=None, shutdown_timeout=STOP_GRACE_S, logger=server_log(parts.peers)
    )
    try:
        await door.listen(runner, settings.http.host, settings.http.port)
    except OSError as error:
        raise GatewayError(f"http: cannot listen on {settings.http.host}:{settings.http.port}: {error}") from error

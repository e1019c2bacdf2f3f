"""The door of the HTTP server: bounds how many peers are connected, and how many have yet to say hello in TLS.

A peer is counted from the moment that it is connected. TLS begins only then, and in a time of its own: who says nothing
is cut off, and where too many wait, those that have waited longest.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import cast

from aiohttp import web

from gateway.api.access.refusals import Refusals
from gateway.domain.access import DoorRefusal
from gateway.observability.metrics import Sample, counter, gauge
from gateway.observability.parts import Part

log = logging.getLogger(__name__)

BACKLOG = 128
HELLO_S = 10.0
ACCEPT_AGAIN_S = 0.5
PLAIN_HTTP = frozenset({"HTTP_REQUEST", "WRONG_VERSION_NUMBER"})
"""What TLS says of a peer that does not speak it."""

CONNECTIONS = gauge("gateway_rest_connections", "Connections of HTTP peers.")
CONNECTIONS_REFUSED = counter("gateway_rest_connections_refused", "Connections of HTTP peers that were too many.")
HELLOS = gauge("gateway_rest_hellos_waiting", "Connections of HTTP peers that have yet to finish their TLS hello.")


@dataclass(slots=True, eq=False)
class _Listener:
    """A socket for peers in TLS, the server behind it, and whether somebody lets them in yet."""

    socket: socket.socket
    runner: web.AppRunner
    tls: ssl.SSLContext
    served: bool = False


class Door(Part):
    """Lets `most` connections in, half of them from one address; a quarter of them, and of those half from one address,
    may have yet to say hello in TLS, each for `hello_s`. `refused` counts those that were too many."""

    service = "door"

    def __init__(self, most: int, refusals: Refusals, *, hello_s: float = HELLO_S) -> None:
        self.refused = 0
        self._most = most
        self._refusals = refusals
        self._hello_s = hello_s
        self._runners: list[web.AppRunner] = []
        self._servers: list[asyncio.Server] = []
        self._listeners: list[_Listener] = []
        self._news = asyncio.Event()
        self._waiting: dict[socket.socket, str] = {}  # in the order of arrival, with their addresses

    @property
    def open(self) -> int:
        """Connections now."""
        return len(self._connections()) + len(self._waiting)

    def _connections(self) -> list[web.RequestHandler]:
        servers = [runner.server for runner in self._runners]
        return [known for server in servers if server is not None for known in server.connections]

    async def listen(
        self, runner: web.AppRunner, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> int:  # fmt: skip
        """Serve from here on (in TLS: while `run` runs), until it is closed; returns the port. Raises OSError."""
        self._runners.append(runner)
        await runner.setup()
        if tls is None:
            served = partial(_Threshold, self, runner)
            listening = await asyncio.get_running_loop().create_server(served, host, port, backlog=BACKLOG)
            self._servers.append(listening)
            return int(listening.sockets[0].getsockname()[1])
        bound = await _bound(host, port)
        self._listeners += [_Listener(one, runner, tls) for one in bound]
        self._news.set()
        return int(bound[0].getsockname()[1])

    async def run(self) -> None:
        """Let in those who come in TLS, until cancelled."""
        for listener in self._listeners:
            listener.served = False
        async with asyncio.TaskGroup() as group:
            while True:
                for listener in self._listeners:
                    if not listener.served:
                        listener.served = True
                        group.create_task(self._accept(listener, group), name="door-accept")
                await self._news.wait()
                self._news.clear()

    async def close(self) -> None:
        """Let nobody in any more, and finish what is being answered."""
        for listening in self._servers:
            listening.close()
        for listener in self._listeners:
            listener.socket.close()
        for runner in self._runners:
            await runner.cleanup()

    def admits(self, runner: web.AppRunner, address: str) -> bool:
        """Whether one more connection from this address may come in; if not, it is counted."""
        peers = [_address(known.transport) for known in self._connections() if known.transport is not None]
        peers += self._waiting.values()
        if runner.server is not None and len(peers) < self._most and peers.count(address) < self._most // 2:
            return True
        self._refuse(address)
        return False

    def _refuse(self, address: str) -> None:
        self.refused += 1
        self._refusals.note(DoorRefusal.TOO_MANY_CONNECTIONS, address)

    async def _accept(self, listener: _Listener, group: asyncio.TaskGroup) -> None:
        """Take peers, each with a task of its own until it has said hello."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, name = await loop.sock_accept(listener.socket)
            except OSError as error:
                # too many files: peers that are there will leave
                log.warning("no peer can be accepted", extra={"error": str(error)})
                await asyncio.sleep(ACCEPT_AGAIN_S)
                continue
            address = str(name[0])
            if not self.admits(listener.runner, address):
                peer.close()
            elif [*self._waiting.values()].count(address) >= self._most // 8:
                self._refuse(address)
                peer.close()
            else:
                if len(self._waiting) >= self._most // 4:
                    self._cut_off(next(iter(self._waiting)))
                self._waiting[peer] = address
                group.create_task(self._greet(peer, listener), name="door-hello")

    def _cut_off(self, peer: socket.socket) -> None:
        """End the connection that has waited longest; its hello fails of it."""
        self._refusals.note(DoorRefusal.NO_HELLO, self._waiting.pop(peer))
        with contextlib.suppress(OSError):
            peer.shutdown(socket.SHUT_RDWR)

    async def _greet(self, peer: socket.socket, listener: _Listener) -> None:
        """Begin TLS; once it is there, the server has the connection."""
        server = listener.runner.server
        reason = None
        try:
            if server is None:
                peer.close()
                return
            await asyncio.get_running_loop().connect_accepted_socket(
                server, peer, ssl=listener.tls, ssl_handshake_timeout=self._hello_s
            )
        except ssl.SSLError as error:
            reason = DoorRefusal.NOT_TLS if error.reason in PLAIN_HTTP else DoorRefusal.FAILED_HELLO
        except ConnectionAbortedError:
            reason = DoorRefusal.NO_HELLO
        except OSError:
            reason = DoorRefusal.FAILED_HELLO
        finally:
            address = self._waiting.pop(peer, None)
            if reason is not None and address is not None:
                self._refusals.note(reason, address)

    def samples(self) -> Iterable[Sample]:
        yield CONNECTIONS.sample(self.open)
        yield CONNECTIONS_REFUSED.sample(self.refused)
        yield HELLOS.sample(len(self._waiting))


class _Threshold(asyncio.Protocol):
    """A connection without TLS until the door has looked at it."""

    def __init__(self, door: Door, runner: web.AppRunner) -> None:
        self._door = door
        self._runner = runner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods without the base class.
        peer = cast("asyncio.Transport", transport)
        server = self._runner.server
        if not self._door.admits(self._runner, _address(peer)) or server is None:
            peer.abort()
            return
        protocol = server()
        peer.set_protocol(protocol)
        protocol.connection_made(peer)


def _address(transport: asyncio.BaseTransport) -> str:
    name = transport.get_extra_info("peername")
    return str(name[0]) if name else ""


async def _bound(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for every address that a host name means. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    out: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            out.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.setblocking(False)
            one.bind(address)
            one.listen(BACKLOG)
    except BaseException:
        for one in out:
            one.close()
        raise
    return out

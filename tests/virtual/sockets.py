"""Loopback inside one process: stream sockets of the kernel that are named like TCP and never leave the process.

They are UNIX sockets. What one end has sent lies in the other end's queue when `send` returns, so "every byte that was
written has been read" is what epoll says at once: no delivery, no acknowledgement and no port of the machine is waited
for. Flow control, end of file, half-close, reset and refusal are the kernel's, as over TCP.
"""

import ipaddress
import itertools
import os
import socket
from collections.abc import Callable
from typing import Any

FIRST_PORT = 49_152
LISTEN_MAX = 4096
ANY = ("", "0.0.0.0", "::", "localhost", "::1")
LOCAL = "127.0.0.1"
Heard = Callable[[str, tuple[str, int], tuple[str, int], bytes], None]


class Network:
    """The addresses of one loop. Ports that nobody asked for are counted upwards, so that every run has the same.

    `on_bytes(what, own, peer, data)` is told what each socket sends ("sent") and takes ("read").
    """

    def __init__(self) -> None:
        self._key = f"{os.getpid()}-{id(self)}"
        self._ports = itertools.count(FIRST_PORT)
        self.on_bytes: Heard | None = None

    @staticmethod
    def is_local(host: str | None) -> bool:
        """Whether `host` is this machine's loopback."""
        if host is None or host in ANY:
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def free_port(self) -> int:
        return next(self._ports)

    def name(self, host: str | None, port: int) -> bytes:
        """An address as the kernel knows it: abstract, gone with the socket."""
        return f"\0{self._key} {LOCAL if host is None or host in ANY else host} {port}".encode()

    def address(self, name: bytes | str) -> tuple[str, int]:
        """The inverse of `name`; a socket without a name has port 0."""
        text = name.decode() if isinstance(name, bytes) else name
        _, host, port = (text or f"- {LOCAL} 0").rsplit(" ", 2)
        return host, int(port)

    def listener(self, host: str | None, port: int | None) -> "LocalSocket":
        """A socket bound to `port`, 0 or None = a free one. Raises OSError(EADDRINUSE)."""
        made = LocalSocket(self)
        try:
            made.bind((host or LOCAL, port or self.free_port()))
        except OSError:
            made.close()
            raise
        made.setblocking(False)
        return made

    def dial(self, host: str | None, port: int) -> "LocalSocket":
        """A connected socket, not blocking. Raises OSError (ConnectionRefusedError if nobody listens)."""
        made = LocalSocket(self)
        try:
            made.bind((LOCAL, self.free_port()))
            made.setblocking(False)
            made.connect((host or LOCAL, port))
        except OSError:
            made.close()
            raise
        return made


class LocalSocket(socket.socket):
    """A stream socket whose addresses read as (host, port)."""

    def __init__(self, network: Network, fileno: int | None = None) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno)
        self._network = network

    def bind(self, address: Any) -> None:
        super().bind(self._network.name(*address[:2]))

    def connect(self, address: Any) -> None:
        super().connect(self._network.name(*address[:2]))

    def connect_ex(self, address: Any) -> int:
        return super().connect_ex(self._network.name(*address[:2]))

    def accept(self) -> "tuple[LocalSocket, tuple[str, int]]":
        fd, name = self._accept()  # type: ignore[attr-defined]
        made = LocalSocket(self._network, fd)
        return made, self._network.address(name)

    def getsockname(self) -> tuple[str, int]:
        return self._network.address(super().getsockname())

    def getpeername(self) -> tuple[str, int]:
        return self._network.address(super().getpeername())

    def listen(self, backlog: int = LISTEN_MAX) -> None:
        super().listen(max(backlog, LISTEN_MAX))

    def send(self, data: Any, flags: int = 0) -> int:
        count = super().send(data, flags)
        self._tell("sent", bytes(memoryview(data)[:count]))
        return count

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = super().recv(size, flags)
        self._tell("read", data)
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        count = super().recv_into(buffer, nbytes, flags)
        self._tell("read", bytes(memoryview(buffer)[:count]))
        return count

    def _tell(self, what: str, data: bytes) -> None:
        if self._network.on_bytes is not None:
            try:
                peer = self.getpeername()
            except OSError:
                peer = ("", 0)
            self._network.on_bytes(what, self.getsockname(), peer, data)

"""The HTTP server's door: peers cannot use up the sockets that brokers and batteries need."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from gateway.api.access.refusals import Refusals
from gateway.api.guard import guard
from gateway.app.access import Access
from gateway.app.door import Door
from gateway.app.web import doorway
from gateway.clock import ManualClock
from gateway.config.settings import HttpSettings
from gateway.domain.access import DoorRefusal
from tests.app.test_access import FIRST, Authority, Hello, asked, callers_file
from tests.scenes.waiting import service, until

OK = b"HTTP/1.1 200 OK"


class Street:
    """A door, and peers before and behind it."""

    def __init__(self, door: Door, port: int) -> None:
        self.door = door
        self.port = port
        self.peers: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def come(self) -> None:
        self.peers.append(await asyncio.open_connection("127.0.0.1", self.port))

    async def ask(self) -> bytes:
        """The first line of an answer; nothing where the connection is refused."""
        await self.come()
        reader, writer = self.peers[-1]
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await writer.drain()
            return (await reader.readline()).strip()
        except ConnectionError:
            return b""

    async def leave(self, index: int) -> None:
        _, writer = self.peers[index]
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def street(most: int) -> AsyncIterator[Street]:
    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.add_routes([web.get("/", hello)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    async with Door(most, Refusals(ManualClock())) as door:
        made = Street(door, await door.listen(runner, "127.0.0.1", 0))
        yield made
        for index in range(len(made.peers)):
            await made.leave(index)
        await until(lambda: door.open == 0)


async def test_door_lets_in_as_many_as_it_may_and_others_once_some_have_left() -> None:
    async with street(8) as s:
        assert [await s.ask() for _ in range(4)] == [OK] * 4
        # half of them from one address
        assert [await s.ask() for _ in range(3)] == [b""] * 3
        assert (s.door.open, s.door.refused) == (4, 3)
        await s.leave(0)
        await until(lambda: s.door.open == 3)
        assert await s.ask() == OK


async def test_door_connections_that_never_ask_count_too() -> None:
    async with street(8) as s:
        for _ in range(4):
            await s.come()
        await until(lambda: s.door.open == 4)
        assert await s.ask() == b""
        for index in range(4):
            await s.leave(index)
        await until(lambda: s.door.open == 0)
        assert await s.ask() == OK
        assert {sample.name: sample.value for sample in s.door.samples()} == {
            "gateway_rest_connections": 1, "gateway_rest_connections_refused": 1, "gateway_rest_hellos_waiting": 0,
        }  # fmt: skip


# -- TLS: on the loop of the daemon, with real sockets -----------------------------------------------------------------


class Square:
    """A door in TLS whose callers have a token, and peers that come from any address of this machine."""

    def __init__(self, door: Door, port: int, authority: Authority, refusals: Refusals) -> None:
        self.door = door
        self.port = port
        self.authority = authority
        self.refusals = refusals
        self.writers: list[asyncio.StreamWriter] = []

    async def come(self, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))
        self.writers.append(writer)
        return reader, writer

    async def leave(self) -> None:
        """All of them."""
        for writer in self.writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    @property
    def waiting(self) -> float:
        return next(s.value for s in self.door.samples() if s.name == "gateway_rest_hellos_waiting")

    async def served(self) -> bool:
        return await asked(self.port, self.authority, token=FIRST) == (200, "room")


@asynccontextmanager
async def square(directory: Path, *, most: int = 32, hello_s: float = 60.0) -> AsyncIterator[Square]:
    authority = Authority(directory, "authority")
    tls = authority.issue("gateway", "server")
    access = Access(HttpSettings(access=callers_file(directory, FIRST), tls=tls))
    refusals = Refusals(ManualClock())
    checked = guard(doorway(access, ManualClock(), "127.0.0.1", refusals), Hello.ROUTES)
    app = web.Application(middlewares=[checked])
    app.add_routes([web.get("/", Hello().hello)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    async with Door(most, refusals, hello_s=hello_s) as door, service(door.run):
        made = Square(door, await door.listen(runner, "127.0.0.1", 0, tls=access.tls), authority, refusals)
        yield made
        await made.leave()
        await until(lambda: door.open == 0)


async def over(reader: asyncio.StreamReader) -> bool:
    """Once the other side has ended the connection."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(1024):
            pass
    return True


def on_the_daemons_loop(story: Callable[[Path], Coroutine[Any, Any, None]], directory: Path) -> None:
    uvloop.run(asyncio.wait_for(story(directory), 60))


async def _silent(directory: Path) -> None:
    async with square(directory, hello_s=0.3) as s:
        peers = [await s.come("127.0.0.2") for _ in range(4)]
        assert await s.served(), "others are served meanwhile"
        assert all([await over(reader) for reader, _ in peers])
        assert (s.door.open, s.waiting) == (0, 0)
        assert s.refusals.counts[DoorRefusal.NO_HELLO] == 4
        assert await s.served()


def test_door_peers_that_never_say_hello_are_cut_off(tmp_path: Path) -> None:
    on_the_daemons_loop(_silent, tmp_path)


async def _slow(directory: Path) -> None:
    async with square(directory, hello_s=0.3) as s:
        reader, writer = await s.come()
        # the beginning of a hello that says it is longer
        writer.write(b"\x16\x03\x01\x02\x00\x01")
        assert await over(reader)
        assert s.refusals.counts[DoorRefusal.NO_HELLO] == 1


def test_door_peer_that_says_hello_slowly_is_cut_off(tmp_path: Path) -> None:
    on_the_daemons_loop(_slow, tmp_path)


async def _crowd(directory: Path) -> None:
    async with square(directory, most=32) as s:
        first = [await s.come("127.0.0.2") for _ in range(4)]
        await until(lambda: s.waiting == 4)
        fifth, _ = await s.come("127.0.0.2")
        assert await over(fifth), "one address may not fill the door"
        assert s.refusals.counts[DoorRefusal.TOO_MANY_CONNECTIONS] == 1
        for i in range(4):
            await s.come(f"127.0.0.{3 + i}")
        await until(lambda: s.waiting == 8)
        # who says hello gets in all the same: the one that has waited longest makes room
        assert await s.served()
        assert await over(first[0][0])
        assert s.refusals.counts[DoorRefusal.NO_HELLO] == 1
        assert s.waiting == 7
        await s.leave()
        await until(lambda: s.door.open == 0)


def test_door_crowd_that_says_nothing_keeps_nobody_out(tmp_path: Path) -> None:
    on_the_daemons_loop(_crowd, tmp_path)


async def _plain(directory: Path) -> None:
    async with square(directory) as s:
        reader, writer = await s.come()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await over(reader)
        reader, writer = await s.come()
        writer.write(b"\x16\x03\x01\x00\x05nonsense")
        assert await over(reader)
        await until(lambda: s.door.open == 0)
        counts = s.refusals.counts
        assert (counts[DoorRefusal.NOT_TLS], counts[DoorRefusal.FAILED_HELLO]) == (1, 1)


def test_door_peers_that_speak_no_tls_are_counted(tmp_path: Path) -> None:
    on_the_daemons_loop(_plain, tmp_path)


async def _together(directory: Path) -> None:
    async with square(directory, most=256) as s:
        assert all(await asyncio.gather(*(s.served() for _ in range(16))))
        await until(lambda: s.door.open == 0)


def test_door_peers_that_come_together_are_all_served(tmp_path: Path) -> None:
    on_the_daemons_loop(_together, tmp_path)

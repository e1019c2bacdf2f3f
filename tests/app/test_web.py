"""The HTTP server's door: peers cannot use up the sockets that brokers and batteries need."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from gateway.app.web import Door, connections_max
from tests.scenes.waiting import until

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
    async with Door(most) as door:
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
            "gateway_rest_connections": 1, "gateway_rest_connections_refused": 1,
        }  # fmt: skip


@pytest.mark.parametrize(("files", "most"), [(1_024, 256), (65_536, 1_024), (100, 64), (4_096, 1_024), (-1, 1_024)])
def test_door_takes_a_quarter_of_the_files_that_the_process_may_open(files: int, most: int) -> None:
    assert connections_max(files) == most

"""What the tests of MQTT faces share: an independent client that keeps what it hears, and waiting with a ceiling."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiomqtt
import orjson

from simulators.faces.plant import Connection

CEILING_S = 60.0


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition` holds; fails with `what` after a generous ceiling."""
    try:
        async with asyncio.timeout(CEILING_S):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {CEILING_S:g} s: {what}") from None


class Ear:
    """An aiomqtt client: every message by topic, in order."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client = client
        self.heard: dict[str, list[bytes]] = {}
        self.retained: set[str] = set()
        self.count = 0

    def take(self, message: aiomqtt.Message) -> None:
        assert isinstance(message.payload, bytes)
        self.heard.setdefault(message.topic.value, []).append(message.payload)
        if message.retain:
            self.retained.add(message.topic.value)
        self.count += 1

    def clear(self) -> None:
        self.heard.clear()

    async def say(self, topic: str, payload: str | bytes, *, retain: bool = False) -> None:
        """QoS 1: returns when the broker has it."""
        await self.client.publish(topic, payload, qos=1, retain=retain)

    async def hears(self, topic: str) -> bytes:
        """The newest message of `topic`; waits for the first."""
        await until(lambda: topic in self.heard, f"a message on {topic}")
        return self.heard[topic][-1]

    async def json(self, topic: str) -> dict[str, Any]:
        return dict(orjson.loads(await self.hears(topic)))


@asynccontextmanager
async def ear_at(
    connection: Connection, *topics: str, protocol: aiomqtt.ProtocolVersion = aiomqtt.ProtocolVersion.V5
) -> AsyncIterator[Ear]:
    """A client of the broker that the face names, subscribed to `topics`."""
    address = urlsplit(connection.url)
    async with aiomqtt.Client(address.hostname or "", address.port or 0, protocol=protocol) as client:
        for topic in topics:
            await client.subscribe(topic, qos=1)
        ear = Ear(client)

        async def listen() -> None:
            async for message in client.messages:
                ear.take(message)

        listening = asyncio.create_task(listen())
        try:
            yield ear
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

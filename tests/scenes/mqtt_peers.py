"""What the transport's tests talk to: a connection with an inbox, and a broker that says what it is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import mqtt5

from gateway.clock import Clock
from gateway.transports.mqtt.connection import MqttConnection, OutMessage, PublishOutcome
from gateway.transports.mqtt.settings import MqttSettings
from tests.virtual.clock import loop_clock

CEILING_S = 60.0
DEADLINE_MS = 60_000


def make_settings(url: str, client_id: str = "test", **more: object) -> MqttSettings:
    return MqttSettings.model_validate(
        {"url": url, "client_id": client_id, "reconnect_base_s": 0.05, "reconnect_cap_s": 0.2} | more
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what has no event of its own; TimeoutError if it does not come."""
    async with asyncio.timeout(CEILING_S):
        while not condition():
            await asyncio.sleep(0.005)


class Inbox:
    """Messages of a connection as they came, with the generation each came on."""

    def __init__(self) -> None:
        self.messages: list[mqtt5.PublishPacket] = []
        self.pending: list[tuple[int, list[int]]] = []
        self._news = asyncio.Event()

    def __call__(self, generation: int, messages: list[mqtt5.PublishPacket], packet_ids: list[int]) -> None:
        self.messages += messages
        if packet_ids:
            self.pending.append((generation, packet_ids))
        self._news.set()

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]

    async def has(self, count: int) -> list[bytes]:
        """Wait for at least `count` messages; their payloads."""
        async with asyncio.timeout(CEILING_S):
            while len(self.messages) < count:
                self._news.clear()
                await self._news.wait()
        return self.payloads

    def acknowledge(self, connection: MqttConnection) -> int:
        """Acknowledge all that came; how many PUBACKs left."""
        pending, self.pending = self.pending, []
        return sum(connection.acknowledge(generation, ids) for generation, ids in pending)


def make_connection(
    settings: MqttSettings, *patterns: str, inbox: Inbox | None = None, clock: Clock | None = None, qos: int = 1
) -> MqttConnection:
    level = mqtt5.QoS.AT_LEAST_ONCE if qos else mqtt5.QoS.AT_MOST_ONCE
    return MqttConnection(
        settings,
        clock=clock or loop_clock(),
        subscriptions=[mqtt5.TopicFilter(pattern, max_qos=level) for pattern in patterns],
        on_messages=inbox or Inbox(),
    )


@asynccontextmanager
async def running(connection: MqttConnection, *, connected: bool = True) -> AsyncIterator[MqttConnection]:
    """Run a connection; waits until it is up unless told otherwise."""
    task = asyncio.create_task(connection.run(), name="connection")
    try:
        if connected:
            async with asyncio.timeout(CEILING_S):
                await connection.wait_connected()
        yield connection
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def send(connection: MqttConnection, topic: str, *payloads: bytes, **more: int) -> list[PublishOutcome]:
    """Publish with QoS 1 unless told otherwise."""
    messages = [
        OutMessage(topic, payload, qos=more.get("qos", 1), message_expiry_s=more.get("expiry_s"))
        for payload in payloads
    ]
    deadline_ms = loop_clock().mono_ms() + more.get("within_ms", DEADLINE_MS)
    return await connection.publish(messages, deadline_mono_ms=deadline_ms)


class Caller:
    """One end of a connection, packet by packet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._rest = b""

    async def next(self) -> mqtt5.Packet | None:
        """The peer's next packet; None when it has closed."""
        async with asyncio.timeout(CEILING_S):
            while True:
                try:
                    packet, used = mqtt5.read(memoryview(self._rest))
                except IndexError:
                    try:
                        more = await self._reader.read(65_536)
                    except ConnectionError:
                        return None
                    if not more:
                        return None
                    self._rest += more
                    continue
                self._rest = self._rest[used:]
                return packet

    async def next_of(self, kind: type[mqtt5.Packet]) -> mqtt5.Packet:
        """The peer's next packet of one kind; EOFError when it closes before."""
        while True:
            packet = await self.next()
            if packet is None:
                raise EOFError
            if isinstance(packet, kind):
                return packet

    def say(self, *packets: bytes) -> None:
        self._writer.write(b"".join(packets))

    def close(self) -> None:
        self._writer.close()

    async def welcome(self, *, receive_max: int = 65_535, packet_max: int | None = None) -> None:
        """Accept CONNECT."""
        await self.next_of(mqtt5.ConnectPacket)
        self.say(mqtt5.ConnAckPacket(receive_max=receive_max, max_packet_size=packet_max).write())

    async def grant(self) -> None:
        """Accept SUBSCRIBE."""
        packet = await self.next_of(mqtt5.SubscribePacket)
        if isinstance(packet, mqtt5.SubscribePacket):
            codes = [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE for _ in packet.topic_filters]
            self.say(mqtt5.SubAckPacket(packet.packet_id, codes).write())


@asynccontextmanager
async def calling(port: int, *first: bytes) -> AsyncIterator[Caller]:
    """A client of bare packets that begins with `first`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        caller = Caller(reader, writer)
        caller.say(*first)
        yield caller
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


class ScriptedBroker:
    """Listens on loopback and hands every client to the test."""

    def __init__(self) -> None:
        self.port = 0
        self._callers: asyncio.Queue[Caller] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    async def caller(self) -> Caller:
        async with asyncio.timeout(CEILING_S):
            return await self._callers.get()

    def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._callers.put_nowait(Caller(reader, writer))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["ScriptedBroker"]:
        server = await asyncio.start_server(self._met, "127.0.0.1", 0)
        self.port = int(server.sockets[0].getsockname()[1])
        try:
            yield self
        finally:
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            await server.wait_closed()


def publish_packet(packet_id: int, payload: bytes = b"x", *, topic: str = "a/b", duplicate: bool = False) -> bytes:
    """A QoS 1 PUBLISH; QoS 0 for packet id 0."""
    return mqtt5.PublishPacket(
        topic,
        payload,
        qos=mqtt5.QoS.AT_LEAST_ONCE if packet_id else mqtt5.QoS.AT_MOST_ONCE,
        packet_id=packet_id or None,
        duplicate=duplicate,
    ).write()


def pubacks(wire: bytes) -> Sequence[int]:
    """Packet ids of the PUBACKs in `wire`."""
    view, found = memoryview(wire), []
    while view:
        packet, used = mqtt5.read(view)
        if isinstance(packet, mqtt5.PubAckPacket):
            found.append(packet.packet_id)
        view = view[used:]
    return found

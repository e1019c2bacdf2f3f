"""A wire tap between a gateway and its broker: forwards bytes, and records which messages the gateway acknowledged.

It reads MQTT 5 by itself (a fixed header, PUBLISH of QoS 1, PUBACK), so the record does not rest on the codec in use.
What counts is what left the gateway: a PUBACK is recorded before it is passed on.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

PUBLISH, PUBACK = 3, 4
CHUNK = 1 << 16


@dataclass(slots=True)
class _Packets:
    """Cuts a byte stream into packets: (first byte, body)."""

    rest: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        self.rest += data
        out: list[tuple[int, bytes]] = []
        while True:
            found = _varint(self.rest, 1)
            if found is None or len(self.rest) < found[1] + found[0]:
                return out
            length, start = found
            out.append((self.rest[0], bytes(self.rest[start : start + length])))
            del self.rest[: start + length]


def _varint(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """(value, position behind it), None when incomplete."""
    value = 0
    for i in range(4):
        if at + i >= len(data):
            return None
        value |= (data[at + i] & 0x7F) << (7 * i)
        if not data[at + i] & 0x80:
            return value, at + i + 1
    raise ValueError("not a length")


@dataclass(slots=True)
class Tap:
    """Listens on loopback `port` and connects each client through to the broker. `acknowledged` are the payloads of
    QoS 1 messages that the gateway acknowledged, in order; `strange` counts PUBACKs of nothing that was sent.
    `deaf`: the gateway hears no PUBACK of the broker."""

    broker_port: int
    wanted: str = "/energy"
    port: int = 0
    acknowledged: list[bytes] = field(default_factory=list)
    strange: int = 0
    deaf: bool = False
    on_ack: Callable[[bytes], None] | None = None
    _server: asyncio.Server | None = None
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def __aenter__(self) -> "Tap":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.broker_port)
            open_ids: dict[int, bytes | None] = {}
            down, up = _Packets(), _Packets()

            def from_broker(data: bytes) -> bytes:
                out = bytearray()
                for first, body in down.feed(data):
                    if first >> 4 == PUBLISH and first & 0x06:
                        self._sent(body, open_ids)
                    if first >> 4 != PUBACK or not self.deaf:
                        out += bytes([first]) + _length(len(body)) + body
                return bytes(out)

            def from_gateway(data: bytes) -> bytes:
                for first, body in up.feed(data):
                    if first >> 4 == PUBACK:
                        self._acked(int.from_bytes(body[:2], "big"), open_ids)
                return data

            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_carry(reader, far_writer, from_gateway), name="tap up")
                    group.create_task(_carry(far_reader, writer, from_broker), name="tap down")
            finally:
                far_writer.close()
        finally:
            writer.close()
            if task is not None:
                self._tasks.discard(task)

    def _sent(self, body: bytes, open_ids: dict[int, bytes | None]) -> None:
        topic_end = 2 + int.from_bytes(body[:2], "big")
        number = int.from_bytes(body[topic_end : topic_end + 2], "big")
        properties = _varint(body, topic_end + 2)
        if properties is None:
            raise ValueError("a PUBLISH without properties")
        topic = body[2:topic_end].decode()
        open_ids[number] = body[properties[1] + properties[0] :] if topic.endswith(self.wanted) else None

    def _acked(self, number: int, open_ids: dict[int, bytes | None]) -> None:
        if number not in open_ids:
            self.strange += 1
            return
        payload = open_ids.pop(number)
        if payload is not None:
            self.acknowledged.append(payload)
            if self.on_ack is not None:
                self.on_ack(payload)


def _length(value: int) -> bytes:
    """A length as it is written."""
    out = bytearray()
    while True:
        value, part = value >> 7, value & 0x7F
        out.append(part | (0x80 if value else 0))
        if not value:
            return bytes(out)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], bytes]) -> None:
    """Pass on what `look` leaves of the bytes, until either side ends; what one side said last still gets through."""
    try:
        while data := await reader.read(CHUNK):
            writer.write(look(data))
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()

"""What the gateway's ingest is measured against: a bare protocol as the bound, a conventional handler as the peer."""

import asyncio
import json
import struct
from typing import Annotated, Any

import aiomqtt
import msgspec
from pydantic import BaseModel, Field


class BareRow(msgspec.Struct, gc=False):
    """The 16 fields a bare decoder reads."""

    id: str
    boot: int
    seq: int
    t: int
    span_ms: int
    charge_counter_wh: float | None
    discharge_counter_wh: float | None
    charge_wh: float | None
    discharge_wh: float | None
    battery_w: float | None
    soc_pct: float | None
    grid_w: float | None
    pv_w: float | None
    load_w: float | None
    temp_c: float | None
    faults: int


class BareSum:
    """One device's accumulator."""

    __slots__ = ("energy", "first", "last", "samples")

    def __init__(self) -> None:
        self.energy = 0.0
        self.first = self.last = 0.0
        self.samples = 0


class BareProtocol(asyncio.Protocol):
    """The least that receives, parses, decodes and accumulates in memory; acknowledges at once; nothing is durable."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.seen = 0
        self.sums: dict[str, BareSum] = {}
        self.done = asyncio.get_running_loop().create_future()
        self._rest = b""
        self._decode = msgspec.json.Decoder(BareRow).decode
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        client = b"bare"
        body = b"\x00\x04MQTT\x05\x00\x00\x14\x00" + struct.pack(">H", len(client)) + client
        transport.write(b"\x10" + bytes([len(body)]) + body)
        topic = b"gateway/v1/devices/+/energy"
        body = b"\x00\x01\x00" + struct.pack(">H", len(topic)) + topic + b"\x01"
        transport.write(b"\x82" + bytes([len(body)]) + body)

    def data_received(self, data: bytes) -> None:
        buffer = self._rest + data if self._rest else data
        end, at = len(buffer), 0
        acks = bytearray()
        decode, sums = self._decode, self.sums
        while end - at >= 5:
            kind = buffer[at]
            length, i = buffer[at + 1], at + 2
            if length & 0x80:
                length = (length & 0x7F) | (buffer[i] << 7)
                i += 1
            stop = i + length
            if stop > end:
                break
            if kind & 0xF0 == 0x30:
                topic_end = i + 2 + (buffer[i] << 8 | buffer[i + 1])
                acks += b"\x40\x02" + buffer[topic_end : topic_end + 2]
                row = decode(buffer[topic_end + 3 : stop])
                total = sums.get(row.id)
                if total is None:
                    total = sums[row.id] = BareSum()
                counter = row.discharge_counter_wh
                if counter is not None:
                    total.energy += counter - total.last
                    total.last = counter
                total.samples += 1
                self.seen += 1
            at = stop
        self._rest = buffer[at:]
        if acks and self._transport is not None:
            self._transport.write(bytes(acks))
        if self.seen >= self.expected and not self.done.done():
            self.done.set_result(None)


Watts = Annotated[float, Field(ge=-100_000, le=100_000)]


class Reading(BaseModel):
    """The same 16 fields as a pydantic model."""

    id: str
    boot: int
    seq: int
    t: int
    span_ms: int
    charge_counter_wh: float | None = None
    discharge_counter_wh: float | None = None
    charge_wh: float | None = None
    discharge_wh: float | None = None
    battery_w: Watts | None = None
    soc_pct: Annotated[float, Field(ge=0, le=100)] | None = None
    grid_w: Watts | None = None
    pv_w: Watts | None = None
    load_w: Watts | None = None
    temp_c: float | None = None
    faults: int = 0


async def bare(port: int, expected: int) -> int:
    """Run the bound until `expected` messages are in; returns how many."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(lambda: BareProtocol(expected), "127.0.0.1", port)
    await protocol.done
    transport.close()
    return protocol.seen


async def conventional(port: int, expected: int) -> int:
    """aiomqtt, json and pydantic, the newest model per device in a dict: what a first version usually looks like."""
    newest: dict[str, Reading] = {}
    energy: dict[str, float] = {}
    seen = 0
    client = aiomqtt.Client("127.0.0.1", port, identifier="conventional", protocol=aiomqtt.ProtocolVersion.V5)
    async with client:
        await client.subscribe("gateway/v1/devices/+/energy", qos=1)
        async for message in client.messages:
            device = str(message.topic).split("/")[3]
            payload = message.payload
            assert isinstance(payload, bytes)
            reading = Reading.model_validate(json.loads(payload))
            before = newest.get(device)
            if before is not None and before.discharge_counter_wh is not None:
                energy[device] = (
                    energy.get(device, 0.0) + (reading.discharge_counter_wh or 0) - before.discharge_counter_wh
                )
            newest[device] = reading
            seen += 1
            if seen >= expected:
                break
    return seen

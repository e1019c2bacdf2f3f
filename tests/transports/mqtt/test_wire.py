"""The socket side of a connection towards a broker that does not read."""

import asyncio

import mqtt5

from gateway.clock import ManualClock
from gateway.transports.mqtt.wire import UNSENT_BYTES_MAX, ConnectionStats, MqttWire
from tests.scenes.mqtt_peers import make_settings, publish_packet


class Transport(asyncio.Transport):
    """A socket whose peer reads nothing until `drain`."""

    def __init__(self) -> None:
        super().__init__()
        self.unsent = 0
        self.reading = True
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.unsent += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


class Rig:
    """A connected wire that acknowledges at once what it receives."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.transport = Transport()
        self.wire = MqttWire(
            make_settings("mqtt://127.0.0.1:1", keepalive_s=20), ConnectionStats(), clock=self.clock, generation=1,
            on_accepted=lambda _: None, on_messages=self._acknowledge,
        )  # fmt: skip
        self.wire.connection_made(self.transport)
        self.say(mqtt5.ConnAckPacket().write())
        self.transport.unsent = 0

    def _acknowledge(self, _generation: int, _packets: list[mqtt5.PublishPacket], packet_ids: list[int]) -> None:
        self.wire.send([self.wire.session.acknowledge(packet_ids)])

    def say(self, data: bytes) -> None:
        view = self.wire.get_buffer(-1)
        view[: len(data)] = data
        self.wire.buffer_updated(len(data))

    async def flood(self, reads: int) -> int:
        """Feed messages as long as the wire reads; returns the most that waited unsent."""
        burst, most = publish_packet(7) * 400, 0
        for _ in range(reads):
            if not self.transport.reading:
                break
            self.say(burst)
            most = max(most, self.transport.unsent)
            # the wire gives the loop a turn now and then
            await asyncio.sleep(0)
        return most

    def drain(self) -> None:
        self.transport.unsent = 0
        self.wire.resume_writing()


async def test_wire_broker_that_sends_and_never_reads_cannot_fill_the_memory() -> None:
    rig = Rig()
    most = await rig.flood(10 * UNSENT_BYTES_MAX // (4 * 400))
    assert not rig.transport.reading
    assert UNSENT_BYTES_MAX < most <= UNSENT_BYTES_MAX + 4 * 400
    rig.clock.advance(s=26)
    rig.wire._check_keepalive()
    assert rig.transport.aborted


async def test_wire_reads_on_once_the_broker_has_read() -> None:
    rig = Rig()
    await rig.flood(10 * UNSENT_BYTES_MAX // (4 * 400))
    rig.clock.advance(s=20)
    rig.drain()
    assert rig.transport.reading
    rig.clock.advance(s=20)
    rig.wire._check_keepalive()
    assert not rig.transport.aborted
    rig.drain()
    assert await rig.flood(100) == 100 * 4 * 400

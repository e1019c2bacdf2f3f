"""One MQTT 5 connection as a sans-I/O state machine on the `mqtt5` codec: bytes in, messages and bytes out.

The session refuses an oversized packet by its fixed header, before it is buffered. QoS 0 and 1 only. The caller
acknowledges; PUBACKs leave in the order the messages came (MQTT 5.0, 4.6), so a missing one delays all later ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import mqtt5
import numpy as np

from gateway.domain.errors import ProtocolViolation
from gateway.transports.mqtt.settings import MqttSettings

PINGREQ = mqtt5.PingReqPacket().write()
MAX_PACKET_ID = 65_535
PUBLISH = 0x30
PUBACK = 0x40
QOS_BITS = 0x06
QOS_1 = 0x02


class MqttState(Enum):
    """States of one connection."""

    NEW = auto()
    CONNECTING = auto()
    CONNECTED = auto()
    CLOSED = auto()


ALLOWED: dict[MqttState, tuple[type, ...]] = {
    MqttState.NEW: (),
    MqttState.CONNECTING: (mqtt5.ConnAckPacket,),
    MqttState.CONNECTED: (
        mqtt5.PublishPacket,
        mqtt5.PubAckPacket,
        mqtt5.SubAckPacket,
        mqtt5.PingRespPacket,
        mqtt5.DisconnectPacket,
    ),
    MqttState.CLOSED: (),
}
"""Which packets a broker may send in which state; anything else is a violation."""


class BrokerViolation(ProtocolViolation):
    """The broker broke the protocol or a limit; `code` goes to it in DISCONNECT."""

    def __init__(
        self, message: str, code: mqtt5.DisconnectReasonCode = mqtt5.DisconnectReasonCode.PROTOCOL_ERROR
    ) -> None:
        super().__init__(message)
        self.code = code


class PublishOutcome(Enum):
    """The known outcome of a published message, worst first."""

    REFUSED = "refused"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"
    NO_SUBSCRIBER = "no_subscriber"
    ACKED = "acked"


@dataclass(slots=True)
class OutMessage:
    """A message to publish. `message_expiry_s` None = the broker may keep it for ever."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    message_expiry_s: int | None = None


class Batch:
    """Outcomes of messages published together; the session calls `done` once, when none is open."""

    __slots__ = ("done", "open", "outcomes")

    def __init__(self, size: int, done: Callable[[], None]) -> None:
        self.outcomes = [PublishOutcome.NOT_SENT] * size
        self.open = 0
        self.done = done


@dataclass(slots=True)
class AgreedLimits:
    """The limits that both sides agreed on in CONNECT and CONNACK."""

    in_flight_max: int = 0
    server_receive_max: int = 0
    server_packet_max: int = 0
    keepalive_s: int = 0
    session_present: bool = False
    session_expiry_s: int = 0


class MqttSession:
    """State of one connection; each connection has a new one. `rx_*`/`tx_*` count packets."""

    def __init__(self, settings: MqttSettings, *, will: mqtt5.Will | None = None) -> None:
        self._settings = settings
        self._will = will
        self.state = MqttState.NEW
        self.limits = AgreedLimits()
        self.closing: mqtt5.DisconnectPacket | None = None
        self.connack: mqtt5.ConnAckPacket | None = None
        self.suback: mqtt5.SubAckPacket | None = None
        self.rx_packets = 0
        self.refusals = 0
        self._received: list[int] = []
        self._acked_to = 0
        self._early: set[int] = set()
        self._in_flight: dict[int, tuple[Batch, int]] = {}
        self._next_id = 1
        self._subscribe_id: int | None = None

    # -- opening ---------------------------------------------------------------------------------------------

    def connect(self) -> bytes:
        """CONNECT; the broker resumes the session of an earlier connection if it still has it."""
        s = self._settings
        self.state = MqttState.CONNECTING
        return mqtt5.ConnectPacket(
            s.client_id,
            username=s.username,
            password=s.password.get_secret_value().encode() if s.password is not None else None,
            clean_start=False,
            will=self._will,
            keep_alive=s.keepalive_s,
            session_expiry_interval=s.session_expiry_s,
            receive_max=s.receive_max,
            max_packet_size=s.max_packet_bytes,
        ).write()

    def subscribe(self, filters: Sequence[mqtt5.TopicFilter]) -> bytes:
        self._subscribe_id = self._next_free_id()
        return mqtt5.SubscribePacket(self._subscribe_id, list(filters)).write()

    # -- receiving -------------------------------------------------------------------------------------------

    def receive(self, view: memoryview) -> tuple[int, list[mqtt5.PublishPacket], list[int]]:
        """Parse the whole packets in `view`; returns the bytes used, the messages, and the packet ids of those that
        need an acknowledgement (QoS 1), in order.

        Raises BrokerViolation when the broker breaks the protocol or a limit; the connection is then unusable.
        """
        messages: list[mqtt5.PublishPacket] = []
        packet_ids: list[int] = []
        offset, end = 0, len(view)
        read = mqtt5.read
        connected = self.state is MqttState.CONNECTED
        packet_max = self._settings.max_packet_bytes
        while offset < end:
            first = view[offset]
            # Most answers to a burst of commands are plain PUBACKs (4 bytes, reason success): parsed without the codec.
            if first == PUBACK and connected and end - offset >= 4 and view[offset + 1] == 2:
                self._resolve(view[offset + 2] << 8 | view[offset + 3], 0)
                offset += 4
                continue
            try:
                packet: Any
                packet, used = read(view[offset:])
            except IndexError:
                self._check_size(view[offset:])
                break
            except BaseException as error:
                if not isinstance(error, ValueError) and not is_codec_panic(error):
                    raise
                raise BrokerViolation(
                    f"malformed packet: {error}", mqtt5.DisconnectReasonCode.MALFORMED_PACKET
                ) from error
            if used > packet_max:
                raise oversized(used)
            # The first byte has a PUBLISH's kind and QoS: cheaper than the codec's object.
            offset += used
            if first & 0xF0 == PUBLISH and connected:
                if first & QOS_BITS:
                    if first & QOS_BITS != QOS_1:
                        raise BrokerViolation(
                            "the broker sent a QoS 2 message", mqtt5.DisconnectReasonCode.QOS_NOT_SUPPORTED
                        )
                    packet_ids.append(packet.packet_id)
                messages.append(packet)
            else:
                self._control(packet)
                connected = self.state is MqttState.CONNECTED
        self.rx_packets += len(messages)
        if 0 in packet_ids:
            raise BrokerViolation("packet id 0")
        self._received += packet_ids
        return offset, messages, packet_ids

    def _check_size(self, view: memoryview) -> None:
        """Refuse a packet by its announced length, before the rest of it is read."""
        length, shift = 0, 0
        for byte in bytes(view[1:5]):
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                total = 1 + shift // 7 + length
                if total > self._settings.max_packet_bytes:
                    raise oversized(total)
                return

    def _control(self, packet: mqtt5.Packet) -> None:
        if not isinstance(packet, ALLOWED[self.state]):
            raise BrokerViolation(f"{type(packet).__name__} while {self.state.name.lower()}")
        match packet:
            case mqtt5.PubAckPacket():
                self._resolve(packet.packet_id, int(packet.reason_code))
            case mqtt5.ConnAckPacket():
                self._accepted(packet)
            case mqtt5.SubAckPacket():
                if packet.packet_id != self._subscribe_id:
                    raise BrokerViolation(f"SUBACK for packet {packet.packet_id}, which was not a SUBSCRIBE")
                self._subscribe_id = None
                self.suback = packet
            case mqtt5.DisconnectPacket():
                self.closing = packet
                self.state = MqttState.CLOSED
            case _:
                pass

    def _accepted(self, packet: mqtt5.ConnAckPacket) -> None:
        self.connack = packet
        if packet.reason_code != mqtt5.ConnAckReasonCode.SUCCESS:
            self.state = MqttState.CLOSED
            return
        self.state = MqttState.CONNECTED
        s = self._settings
        self.limits = AgreedLimits(
            in_flight_max=min(s.in_flight_max, packet.receive_max, MAX_PACKET_ID - 1),
            server_receive_max=packet.receive_max,
            server_packet_max=packet.max_packet_size if packet.max_packet_size is not None else 0,
            keepalive_s=packet.server_keep_alive if packet.server_keep_alive is not None else s.keepalive_s,
            session_present=packet.session_present,
            session_expiry_s=s.session_expiry_s
            if packet.session_expiry_interval is None
            else packet.session_expiry_interval,
        )

    # -- acknowledging ---------------------------------------------------------------------------------------

    def acknowledge(self, packet_ids: Sequence[int]) -> bytes:
        """PUBACKs for `packet_ids`. An id out of order waits until those before it are acknowledged; one that is not
        outstanding has no effect."""
        count, start = len(packet_ids), self._acked_to
        if not self._early and self._received[start : start + count] == packet_ids:
            ready = list(packet_ids)
        else:
            outstanding = self._received[start:]
            self._early.update(set(outstanding).intersection(packet_ids))
            ready = []
            for packet_id in outstanding:
                if packet_id not in self._early:
                    break
                self._early.discard(packet_id)
                ready.append(packet_id)
        self._acked_to += len(ready)
        if self._acked_to > 4096 and self._acked_to * 2 > len(self._received):
            del self._received[: self._acked_to]
            self._acked_to = 0
        return puback_bytes(ready)

    @property
    def overrun(self) -> bool:
        """Whether the broker has sent more than our receive maximum allows. mosquitto 2.0 does so with a backlog after
        the first PUBACK; a disconnect would repeat that for ever, so the connection stops reading instead."""
        return len(self._received) - self._acked_to > self._settings.receive_max

    # -- publishing ------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many more QoS 1 messages may be in flight."""
        return self.limits.in_flight_max - len(self._in_flight)

    def publish(self, messages: Sequence[OutMessage], first: int, count: int, batch: Batch) -> list[bytes]:
        """Encode messages `first` to `first + count` of a batch; the caller keeps QoS 1 within `room`."""
        out: list[bytes] = []
        packet_max = self.limits.server_packet_max
        in_flight = self._in_flight
        packet_class, at_least_once, at_most_once = mqtt5.PublishPacket, mqtt5.QoS.AT_LEAST_ONCE, mqtt5.QoS.AT_MOST_ONCE
        for i in range(first, first + count):
            message = messages[i]
            packet_id = self._next_free_id() if message.qos else None
            try:
                wire = packet_class(
                    message.topic,
                    message.payload,
                    qos=at_least_once if packet_id is not None else at_most_once,
                    retain=message.retain,
                    packet_id=packet_id,
                    message_expiry_interval=message.message_expiry_s,
                ).write()
            except (ValueError, OverflowError):
                # A topic that cannot be one, or an expiry that does not fit: the others of the batch still go.
                wire = b""
            if not wire or (packet_max and len(wire) > packet_max):
                batch.outcomes[i] = PublishOutcome.REFUSED
                self.refusals += 1
                continue
            if packet_id is None:
                batch.outcomes[i] = PublishOutcome.UNKNOWN
            else:
                in_flight[packet_id] = (batch, i)
                batch.outcomes[i] = PublishOutcome.UNKNOWN
                batch.open += 1
            out.append(wire)
        return out

    def _resolve(self, packet_id: int, reason: int) -> None:
        entry = self._in_flight.pop(packet_id, None)
        if entry is None:
            raise BrokerViolation(f"PUBACK for packet {packet_id}, which is not in flight")
        batch, index = entry
        if reason == 0:
            batch.outcomes[index] = PublishOutcome.ACKED
        elif reason == int(mqtt5.PubAckReasonCode.NO_MATCHING_SUBSCRIBERS):
            batch.outcomes[index] = PublishOutcome.NO_SUBSCRIBER
        else:
            batch.outcomes[index] = PublishOutcome.REFUSED
            self.refusals += 1
        batch.open -= 1
        if not batch.open:
            batch.done()

    def _next_free_id(self) -> int:
        in_flight, packet_id = self._in_flight, self._next_id
        while packet_id in in_flight or packet_id == self._subscribe_id:
            packet_id = packet_id % MAX_PACKET_ID + 1
        self._next_id = packet_id % MAX_PACKET_ID + 1
        return packet_id

    # -- ending ----------------------------------------------------------------------------------------------

    def disconnect(self, reason: mqtt5.DisconnectReasonCode = mqtt5.DisconnectReasonCode.NORMAL_DISCONNECTION) -> bytes:
        self.state = MqttState.CLOSED
        return mqtt5.DisconnectPacket(reason_code=reason).write()

    def lost(self) -> None:
        """Handle the loss of the connection: messages in flight stay UNKNOWN and are not sent again."""
        self.state = MqttState.CLOSED
        batches = {id(batch): batch for batch, _ in self._in_flight.values()}
        self._in_flight.clear()
        for batch in batches.values():
            if batch.open:
                batch.open = 0
                batch.done()


def oversized(length: int) -> BrokerViolation:
    return BrokerViolation(f"a packet of {length} bytes is over the limit", mqtt5.DisconnectReasonCode.PACKET_TOO_LARGE)


def is_codec_panic(error: BaseException) -> bool:
    """Whether the codec's native code panicked: it does on text that is not UTF-8. Its class is not importable."""
    return type(error).__name__ == "PanicException"


def puback_bytes(packet_ids: Sequence[int]) -> bytes:
    """PUBACK packets with reason success in their short form (MQTT 5.0, 3.4.2.1): 0x40, 2, packet id."""
    wire = np.empty((len(packet_ids), 4), dtype=np.uint8)
    ids = np.array(packet_ids, dtype=np.uint16)
    wire[:, 0] = 0x40
    wire[:, 1] = 2
    wire[:, 2] = ids >> 8
    wire[:, 3] = ids & 0xFF
    return wire.tobytes()

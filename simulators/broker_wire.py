"""The connections of the stand-in broker: MQTT 5 packets between a socket and the hub."""

import asyncio
from collections.abc import Callable
from typing import cast

import mqtt5

from simulators.broker_core import Message, Session, Subscription, valid_filter, valid_topic
from simulators.broker_hub import Connack, Goodbye, Hub

WRITE_HIGH_BYTES = 4 << 20
CONNECT_WITHIN_S = 10.0
PINGRESP = mqtt5.PingRespPacket().write()


class Refused(Exception):
    """The client broke the protocol or a limit; the connection ends with this reason."""

    def __init__(self, reason: mqtt5.DisconnectReasonCode) -> None:
        super().__init__(reason.name)
        self.reason = reason


class Wire(asyncio.Protocol):
    """One client. Writes of one turn of the loop leave together."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._session: Session | None = None
        self._username: str | None = None
        self._will: mqtt5.Will | None = None
        self._silence_s = CONNECT_WITHIN_S
        self._rest = b""
        self._out: list[bytes] = []
        self._last_rx_s = self._loop.time()
        self._now_s = self._last_rx_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self._hub.wires[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed(self._will)

    def pause_writing(self) -> None:
        if self._session is not None:
            self._session.full = True

    def resume_writing(self) -> None:
        if self._session is not None:
            self._session.full = False
            self._session.pump(self._loop.time())

    def send(self, wire: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(wire)

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def check(self, now_s: float) -> None:
        """End the connection if nothing came for 1.5 keepalives (or no CONNECT in time)."""
        if self._silence_s and now_s - self._last_rx_s > self._silence_s:
            self.end(Goodbye.KEEP_ALIVE_TIMEOUT)

    def end(self, reason: mqtt5.DisconnectReasonCode, *, leave_will: bool = True) -> None:
        """Say why and close."""
        transport, session = self._transport, self._session
        if transport is None:
            return
        if session is not None:
            self.send(mqtt5.DisconnectPacket(reason_code=reason).write())
        self._flush()
        transport.close()
        if reason == Goodbye.KEEP_ALIVE_TIMEOUT:
            # A peer that has gone silent will not read the goodbye either.
            transport.abort()
        self._closed(self._will if leave_will else None)

    def _closed(self, will: mqtt5.Will | None) -> None:
        session, self._session = self._session, None
        self._transport = None
        self._hub.wires.pop(self, None)
        if session is not None:
            self._hub.close_session(self, session, will, self._loop.time())

    # -- packets ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._now_s = self._last_rx_s = self._loop.time()
        if self._rest:
            data = self._rest + data
        view, offset, end = memoryview(data), 0, len(data)
        try:
            while offset < end and self._transport is not None:
                length = packet_length(view[offset : offset + 5])
                if length is not None and length > self._hub.max_packet_bytes:
                    raise Refused(Goodbye.PACKET_TOO_LARGE)
                if length is None or length > end - offset:
                    break
                self._handle(mqtt5.read(view[offset : offset + length])[0])
                offset += length
        except Refused as refused:
            self.end(refused.reason)
        except BaseException as error:
            # The codec's native code panics on text that is not UTF-8; the class of that cannot be imported.
            if not isinstance(error, ValueError | IndexError) and type(error).__name__ != "PanicException":
                raise
            self.end(Goodbye.MALFORMED_PACKET)
        self._rest = bytes(view[offset:])

    def _handle(self, packet: mqtt5.Packet) -> None:
        session = self._session
        if session is None:
            if not isinstance(packet, mqtt5.ConnectPacket):
                raise Refused(Goodbye.PROTOCOL_ERROR)
            self._connect(packet)
            return
        match packet:
            case mqtt5.PublishPacket():
                self._publish(session, packet)
            case mqtt5.PubAckPacket():
                delivery = session.acknowledged(packet.packet_id, self._now_s)
                if delivery is not None and self._hub.on_ack is not None:
                    self._hub.on_ack(session.client_id, delivery)
            case mqtt5.PingReqPacket():
                self.send(PINGRESP)
            case mqtt5.SubscribePacket():
                self._subscribe(session, packet)
            case mqtt5.UnsubscribePacket():
                removed = [self._hub.router.remove(session, pattern) for pattern in packet.patterns]
                code = mqtt5.UnsubAckReasonCode
                codes = [code.SUCCESS if done else code.NO_SUBSCRIPTION_EXISTED for done in removed]
                self.send(mqtt5.UnsubAckPacket(packet.packet_id, codes).write())
            case mqtt5.DisconnectPacket():
                self._disconnect(session, packet)
            case _:
                raise Refused(Goodbye.PROTOCOL_ERROR)

    def _connect(self, packet: mqtt5.ConnectPacket) -> None:
        hub = self._hub
        reason = hub.admit(packet)
        if reason != Connack.SUCCESS:
            self.send(mqtt5.ConnAckPacket(reason_code=reason).write())
            self.end(Goodbye.NOT_AUTHORIZED)
            return
        session, present = hub.open_session(self, packet, self._now_s)
        self._session, self._username, self._will = session, packet.username, packet.will
        self._silence_s = packet.keep_alive * 1.5
        self.send(
            mqtt5.ConnAckPacket(
                session_present=present,
                assigned_client_id=None if packet.client_id else session.client_id,
                receive_max=hub.receive_max,
                max_qos=mqtt5.QoS.AT_LEAST_ONCE,
                max_packet_size=hub.max_packet_bytes,
                shared_subscription_available=False,
            ).write()
        )
        session.pump(self._now_s)

    def _publish(self, session: Session, packet: mqtt5.PublishPacket) -> None:
        if packet.topic_alias is not None:
            raise Refused(Goodbye.TOPIC_ALIAS_INVALID)
        if not valid_topic(packet.topic):
            raise Refused(Goodbye.TOPIC_NAME_INVALID)
        if int(packet.qos) > 1:
            raise Refused(Goodbye.QOS_NOT_SUPPORTED)
        hub, code = self._hub, mqtt5.PubAckReasonCode
        hub.stats.received += 1
        if hub.may_publish(self._username, packet.topic):
            wanted = hub.route(Message(packet, self._now_s, session.client_id))
            reason = code.SUCCESS if wanted else code.NO_MATCHING_SUBSCRIBERS
        else:
            hub.stats.refused_topics += 1
            reason = code.NOT_AUTHORIZED
        if packet.packet_id is not None:
            self.send(mqtt5.PubAckPacket(packet.packet_id, reason_code=reason).write())

    def _subscribe(self, session: Session, packet: mqtt5.SubscribePacket) -> None:
        code = mqtt5.SubAckReasonCode
        codes: list[mqtt5.SubAckReasonCode] = []
        after: list[Callable[[float], None]] = []
        for wanted in packet.topic_filters:
            if wanted.pattern.startswith("$share/"):
                codes.append(code.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED)
            elif not valid_filter(wanted.pattern):
                codes.append(code.TOPIC_FILTER_INVALID)
            else:
                subscription = Subscription(wanted, packet.subscription_id)
                after.append(self._hub.subscribe(session, subscription))
                codes.append(code.GRANTED_QOS_AT_LEAST_ONCE if subscription.qos else code.GRANTED_QOS_AT_MOST_ONCE)
        self.send(mqtt5.SubAckPacket(packet.packet_id, codes).write())
        for send_retained in after:
            send_retained(self._now_s)

    def _disconnect(self, session: Session, packet: mqtt5.DisconnectPacket) -> None:
        if packet.session_expiry_interval is not None and session.expiry_s:
            session.expiry_s = packet.session_expiry_interval
        will = self._will if packet.reason_code == Goodbye.DISCONNECT_WITH_WILL_MESSAGE else None
        if self._transport is not None:
            self._flush()
            self._transport.close()
        self._closed(will)


def packet_length(head: memoryview) -> int | None:
    """Whole length of the packet that starts with `head` (5 bytes or what there is); None = not known yet.

    Raises ValueError for a length of more than four bytes (MQTT 5.0, 1.5.5).
    """
    length, shift = 0, 0
    for i, byte in enumerate(head[1:]):
        length |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return 2 + i + length
        shift += 7
    if shift >= 28:
        raise ValueError("malformed remaining length")
    return None

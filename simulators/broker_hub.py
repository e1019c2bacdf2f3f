"""The stand-in broker without its sockets: accounts, sessions, retained messages, last wills, routing."""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import mqtt5

from simulators.broker_core import Delivery, Message, Router, Session, Stats, Subscription, matches

RETAINED_MAX = 200_000

Connack = mqtt5.ConnAckReasonCode
Goodbye = mqtt5.DisconnectReasonCode


class Peer(Protocol):
    """The connection of one client, as the hub sees it."""

    def send(self, wire: bytes) -> None: ...

    def check(self, now_s: float) -> None: ...

    def end(self, reason: mqtt5.DisconnectReasonCode, *, leave_will: bool = True) -> None: ...


@dataclass(slots=True, frozen=True, kw_only=True)
class User:
    """An account: its password, and the topic prefixes it may publish under."""

    password: str
    publish: tuple[str, ...] = ("",)


class Hub:
    """Sessions, retained messages and last wills of everybody, and the way of a message from one to others."""

    def __init__(
        self,
        *,
        users: Mapping[str, User] | None,
        queue_max: int,
        receive_max: int,
        max_packet_bytes: int,
        on_ack: Callable[[str, Delivery], None] | None,
    ) -> None:
        self.stats = Stats()
        self.sessions: dict[str, Session] = {}
        self.users = users
        self.receive_max = receive_max
        self.max_packet_bytes = max_packet_bytes
        self.on_ack = on_ack
        self.router = Router()
        self.wires: dict[Peer, None] = {}
        self.online: dict[str, Peer] = {}
        self._retained: dict[str, Message] = {}
        self._queue_max = queue_max
        self._wills: dict[str, asyncio.TimerHandle] = {}
        self._names = itertools.count(1)

    def sweep(self, now_s: float) -> None:
        """End silent connections, drop sessions whose time is over."""
        for wire in list(self.wires):
            wire.check(now_s)
        for session in [session for session in self.sessions.values() if session.expired(now_s)]:
            self._forget(session)

    def close(self) -> None:
        """Say goodbye to everybody; no last wills."""
        for wire in list(self.wires):
            wire.end(Goodbye.SERVER_SHUTTING_DOWN, leave_will=False)
        for timer in self._wills.values():
            timer.cancel()

    # -- sessions --------------------------------------------------------------------------------------------

    def admit(self, packet: mqtt5.ConnectPacket) -> mqtt5.ConnAckReasonCode:
        """Whether this CONNECT is let in."""
        if packet.authentication_method is not None:
            return Connack.BAD_AUTHENTICATION_METHOD
        if self.users is None:
            return Connack.SUCCESS
        user = self.users.get(packet.username or "")
        if user is None or (packet.password or b"").decode("utf-8", "replace") != user.password:
            return Connack.BAD_USER_NAME_OR_PASSWORD
        return Connack.SUCCESS

    def may_publish(self, username: str | None, topic: str) -> bool:
        return self.users is None or topic.startswith(self.users[username or ""].publish)

    def open_session(self, wire: Peer, packet: mqtt5.ConnectPacket, now_s: float) -> tuple[Session, bool]:
        """The session of this client id, taken over from whoever held it; and whether it was there before."""
        client_id = packet.client_id or f"unnamed-{next(self._names)}"
        held = self.online.get(client_id)
        if held is not None:
            self.stats.takeovers += 1
            held.end(Goodbye.SESSION_TAKEN_OVER)
        session = self.sessions.get(client_id)
        if session is not None and (packet.clean_start or session.expired(now_s)):
            self._forget(session)
            session = None
        present = session is not None
        if session is None:
            session = self.sessions[client_id] = Session(client_id, self.stats, self._queue_max)
        timer = self._wills.pop(client_id, None)
        if timer is not None:
            timer.cancel()
        session.expiry_s = packet.session_expiry_interval
        session.attach(wire.send, receive_max=packet.receive_max, packet_max=packet.max_packet_size)
        self.online[client_id] = wire
        self.stats.connects += 1
        return session, present

    def close_session(self, wire: Peer, session: Session, will: mqtt5.Will | None, now_s: float) -> None:
        """The connection is gone; `will` is what it leaves, if anything."""
        if self.online.get(session.client_id) is wire:
            del self.online[session.client_id]
            session.detach(now_s)
        if will is not None:
            delay_s = min(will.will_delay_interval, session.expiry_s)
            if delay_s:
                self._wills[session.client_id] = asyncio.get_running_loop().call_later(
                    delay_s, self._leave_will, session.client_id, will
                )
            else:
                self._leave_will(session.client_id, will)
        if session.expired(now_s):
            self._forget(session)

    def _forget(self, session: Session) -> None:
        for pattern in list(session.subscriptions):
            self.router.remove(session, pattern)
        self.sessions.pop(session.client_id, None)

    def _leave_will(self, client_id: str, will: mqtt5.Will) -> None:
        self._wills.pop(client_id, None)
        packet = mqtt5.PublishPacket(
            will.topic,
            will.payload or b"",
            qos=will.qos,
            retain=will.retain,
            packet_id=1 if int(will.qos) else None,
            payload_format_indicator=will.payload_format_indicator,
            message_expiry_interval=will.message_expiry_interval,
            content_type=will.content_type,
            response_topic=will.response_topic,
            correlation_data=will.correlation_data,
            user_properties=will.user_properties,
        )
        self.route(Message(packet, asyncio.get_running_loop().time(), None))

    # -- messages --------------------------------------------------------------------------------------------

    def route(self, message: Message) -> bool:
        """Give a message to everybody who wants it; returns whether there was anybody."""
        packet, now_s = message.packet, message.accepted_s
        if packet.retain:
            self._retain(message)
        qos = min(1, int(packet.qos))
        found = self.router.match(packet.topic)
        for session, subscriptions in found:
            if session.client_id == message.sender:
                subscriptions = tuple(s for s in subscriptions if not s.filter.no_local)
                if not subscriptions:
                    continue
            delivery = Delivery(
                message,
                min(qos, max(s.qos for s in subscriptions)),
                packet.retain and any(s.filter.retain_as_published for s in subscriptions),
                tuple(s.subscription_id for s in subscriptions if s.subscription_id is not None),
            )
            session.deliver(delivery, now_s)
        return bool(found)

    def _retain(self, message: Message) -> None:
        topic = message.packet.topic
        if not message.packet.payload:
            self._retained.pop(topic, None)
        elif topic in self._retained or len(self._retained) < RETAINED_MAX:
            self._retained[topic] = message
        else:
            self.stats.dropped_queue_full += 1

    def subscribe(self, session: Session, subscription: Subscription) -> Callable[[float], None]:
        """Subscribe; returns what sends the retained messages, to be called after SUBACK has been written."""
        known = self.router.add(session, subscription)
        wanted = subscription.filter
        handling = int(wanted.retain_handling)
        if handling == 2 or (handling == 1 and known):
            return lambda now_s: None
        ids = () if subscription.subscription_id is None else (subscription.subscription_id,)

        def send_retained(now_s: float) -> None:
            for topic, message in list(self._retained.items()):
                if matches(wanted.pattern, topic):
                    qos = min(int(message.packet.qos), subscription.qos)
                    session.deliver(Delivery(message, qos, True, ids), now_s)

        return send_retained

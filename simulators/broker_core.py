"""What the stand-in broker knows: topics, subscriptions, messages and the sessions they wait in. No sockets here."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import mqtt5

MAX_PACKET_ID = 65_535
CACHED_TOPICS = 200_000
FOREVER = 0xFFFF_FFFF


def valid_topic(topic: str) -> bool:
    """Whether a message may carry this topic (MQTT 5.0, 4.7.1)."""
    return bool(topic) and not any(sign in topic for sign in "+#\0")


def valid_filter(pattern: str) -> bool:
    """Whether this may be subscribed to: `+` fills a level, `#` the last one (MQTT 5.0, 4.7.1)."""
    if not pattern or "\0" in pattern:
        return False
    levels = pattern.split("/")
    return all(len(level) == 1 or not ({"+", "#"} & set(level)) for level in levels) and "#" not in levels[:-1]


def matches(pattern: str, topic: str) -> bool:
    """Whether `topic` falls under `pattern` (MQTT 5.0, 4.7.1 and 4.7.2)."""
    wanted, found = pattern.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for i, level in enumerate(wanted):
        if level == "#":
            return True
        if i >= len(found) or level not in ("+", found[i]):
            return False
    return len(wanted) == len(found)


@dataclass(slots=True, frozen=True)
class Message:
    """An accepted message; `accepted_s` is when, in the loop's monotonic time. `sender` None = a last will."""

    packet: mqtt5.PublishPacket
    accepted_s: float
    sender: str | None

    def remaining_s(self, now_s: float) -> int | None:
        """Lifetime left in s, 0 or less when it is over; None = no end."""
        span = self.packet.message_expiry_interval
        return None if span is None else span - int(now_s - self.accepted_s)


@dataclass(slots=True, frozen=True)
class Delivery:
    """A message on its way to one session."""

    message: Message
    qos: int
    retain: bool
    subscription_ids: tuple[int, ...]

    def encode(self, now_s: float, *, packet_id: int | None, duplicate: bool = False) -> bytes | None:
        """The PUBLISH packet; None when the message has expired."""
        packet = self.message.packet
        expiry = self.message.remaining_s(now_s)
        if expiry is not None and expiry <= 0:
            return None
        return mqtt5.PublishPacket(
            packet.topic,
            packet.payload,
            qos=mqtt5.QoS.AT_MOST_ONCE if packet_id is None else mqtt5.QoS.AT_LEAST_ONCE,
            retain=self.retain,
            packet_id=packet_id,
            duplicate=duplicate,
            payload_format_indicator=packet.payload_format_indicator,
            message_expiry_interval=expiry,
            content_type=packet.content_type,
            response_topic=packet.response_topic,
            correlation_data=packet.correlation_data,
            subscription_ids=list(self.subscription_ids),
            user_properties=packet.user_properties,
        ).write()


@dataclass(slots=True)
class Stats:
    """Messages in and out, and every way one can be lost here."""

    received: int = 0
    delivered: int = 0
    redelivered: int = 0
    acknowledged: int = 0
    dropped_queue_full: int = 0
    dropped_expired: int = 0
    dropped_too_large: int = 0
    dropped_slow_reader: int = 0
    refused_topics: int = 0
    connects: int = 0
    takeovers: int = 0


@dataclass(slots=True, frozen=True)
class Subscription:
    """One filter of one session."""

    filter: mqtt5.TopicFilter
    subscription_id: int | None

    @property
    def qos(self) -> int:
        return min(1, int(self.filter.max_qos))


@dataclass(slots=True, eq=False)
class Session:
    """What is kept for a client id, connected or not. `send` writes to its connection and is None without one."""

    client_id: str
    stats: Stats
    queue_max: int
    expiry_s: int = 0
    gone_s: float = 0.0
    receive_max: int = MAX_PACKET_ID
    packet_max: int | None = None
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    queue: deque[Delivery] = field(default_factory=deque)
    in_flight: dict[int, Delivery] = field(default_factory=dict)
    send: Callable[[bytes], None] | None = None
    full: bool = False
    _redeliver: deque[tuple[int, Delivery]] = field(default_factory=deque)
    _next_id: int = 1

    def attach(self, send: Callable[[bytes], None], *, receive_max: int, packet_max: int | None) -> None:
        """A connection is there: what it left unacknowledged goes out again first (MQTT 5.0, 4.4)."""
        self._redeliver.extendleft(reversed(self.in_flight.items()))
        self.in_flight = {}
        self.send, self.receive_max, self.packet_max, self.full = send, receive_max, packet_max, False

    def detach(self, now_s: float) -> None:
        self.send, self.gone_s, self.full = None, now_s, False

    def expired(self, now_s: float) -> bool:
        return self.send is None and self.expiry_s != FOREVER and now_s - self.gone_s >= self.expiry_s

    def deliver(self, delivery: Delivery, now_s: float) -> None:
        """Send now, or keep for later if QoS 1."""
        if delivery.qos == 0:
            self._send_once(delivery, now_s)
            return
        if self.send is None or self.full or self.queue or self._redeliver or len(self.in_flight) >= self.receive_max:
            if len(self.queue) >= self.queue_max:
                self.stats.dropped_queue_full += 1
            else:
                self.queue.append(delivery)
            return
        self._send_kept(self._take_id(), delivery, now_s)

    def acknowledged(self, packet_id: int, now_s: float) -> Delivery | None:
        """The client has the message; None when it was not in flight."""
        delivery = self.in_flight.pop(packet_id, None)
        if delivery is not None:
            self.stats.acknowledged += 1
            if self.queue or self._redeliver:
                self.pump(now_s)
        return delivery

    def pump(self, now_s: float) -> None:
        """Send what waits, as far as the client's receive maximum and the socket go."""
        while self.send is not None and not self.full and len(self.in_flight) < self.receive_max:
            if self._redeliver:
                packet_id, delivery = self._redeliver.popleft()
                self.stats.redelivered += 1
                self._send_kept(packet_id, delivery, now_s, duplicate=True)
            elif self.queue:
                self._send_kept(self._take_id(), self.queue.popleft(), now_s)
            else:
                return

    def _send_once(self, delivery: Delivery, now_s: float) -> None:
        if self.send is None:
            return
        if self.full:
            self.stats.dropped_slow_reader += 1
            return
        wire = self._encode(delivery, now_s, packet_id=None, duplicate=False)
        if wire is not None:
            self.stats.delivered += 1
            self.send(wire)

    def _send_kept(self, packet_id: int, delivery: Delivery, now_s: float, *, duplicate: bool = False) -> None:
        wire = self._encode(delivery, now_s, packet_id=packet_id, duplicate=duplicate)
        if wire is not None and self.send is not None:
            self.in_flight[packet_id] = delivery
            self.stats.delivered += 1
            self.send(wire)

    def _encode(self, delivery: Delivery, now_s: float, *, packet_id: int | None, duplicate: bool) -> bytes | None:
        wire = delivery.encode(now_s, packet_id=packet_id, duplicate=duplicate)
        if wire is None:
            self.stats.dropped_expired += 1
        elif self.packet_max is not None and len(wire) > self.packet_max:
            self.stats.dropped_too_large += 1
            return None
        return wire

    def _take_id(self) -> int:
        packet_id = self._next_id
        while packet_id in self.in_flight:
            packet_id = packet_id % MAX_PACKET_ID + 1
        self._next_id = packet_id % MAX_PACKET_ID + 1
        return packet_id


Match = tuple[Session, tuple[Subscription, ...]]


class Router:
    """Who wants which topic. Matches are remembered per topic until a subscription that bears on it changes."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[Session, Subscription]] = {}
        self._wild: dict[str, dict[Session, Subscription]] = {}
        self._found: dict[str, tuple[Match, ...]] = {}

    def add(self, session: Session, subscription: Subscription) -> bool:
        """Subscribe; returns whether the session had this filter before."""
        pattern = subscription.filter.pattern
        known = pattern in session.subscriptions
        session.subscriptions[pattern] = subscription
        self._table(pattern).setdefault(pattern, {})[session] = subscription
        self._forget(pattern)
        return known

    def remove(self, session: Session, pattern: str) -> bool:
        """Unsubscribe; returns whether the session had this filter."""
        if session.subscriptions.pop(pattern, None) is None:
            return False
        table = self._table(pattern)
        holders = table[pattern]
        del holders[session]
        if not holders:
            del table[pattern]
        self._forget(pattern)
        return True

    def match(self, topic: str) -> tuple[Match, ...]:
        """Sessions that want `topic`, each with all its filters that fit."""
        found = self._found.get(topic)
        if found is None:
            wanted: dict[Session, list[Subscription]] = {}
            for holders in (
                self._exact.get(topic, {}),
                *(held for pattern, held in self._wild.items() if matches(pattern, topic)),
            ):
                for session, subscription in holders.items():
                    wanted.setdefault(session, []).append(subscription)
            found = tuple((session, tuple(subscriptions)) for session, subscriptions in wanted.items())
            if len(self._found) >= CACHED_TOPICS:
                self._found.clear()
            self._found[topic] = found
        return found

    def _table(self, pattern: str) -> dict[str, dict[Session, Subscription]]:
        return self._wild if "+" in pattern or "#" in pattern else self._exact

    def _forget(self, pattern: str) -> None:
        if self._table(pattern) is self._wild:
            self._found.clear()
        else:
            self._found.pop(pattern, None)

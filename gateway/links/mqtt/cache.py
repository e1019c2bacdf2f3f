"""Keeps, per device, the newest values that each MQTT topic said of the profile's points, and the time they came."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.domain.errors import InvalidInput
from gateway.domain.types import DeviceId
from gateway.links.json_values import Json, parse_json, raw_of, tokens_of, value_at
from gateway.observability.metrics import Sample, counter
from gateway.profiles.compiled.points import Marker, Raw, Read, Unreadable
from gateway.profiles.language.points import Point, PointType
from gateway.profiles.language.product import ProfileDocument

NO_LEVEL = frozenset("/+#\0")
RARELY = ("once", "slow")
TEXT_MAX = 1_024
FULL_EVERY_MS = 50_000
ANSWER_MS = 20_000
"""How long a device may take to say everything."""

MESSAGES = counter("gateway_topics_messages", "Messages with points of polled devices.")
MALFORMED = counter("gateway_topics_malformed", "Messages that could not be read.")
UNKNOWN_TOPICS = counter("gateway_topics_unknown_topics", "Messages of devices that are not registered or connected.")
RETAINED = counter("gateway_topics_retained", "Messages that the broker had kept, which say nothing of now.")
RETAINED_DROPPED = counter("gateway_topics_retained_dropped", "Kept messages that were more than the gateway keeps.")
NO_SCALAR = counter("gateway_topics_no_scalar", "Points whose value is an object, an array or too long a text.")
KEEPALIVES = counter("gateway_topics_keepalives", "Messages sent so that devices go on publishing.")
KEEPALIVES_MISSED = counter("gateway_topics_keepalives_missed", "Keepalives that could not be sent.")
WRITES = counter("gateway_topics_writes", "Writes published.")
NO_SUBSCRIBER = counter("gateway_topics_no_subscriber", "Writes that nobody had subscribed to.")
SILENT = counter("gateway_topics_silent", "Reads of devices that have said nothing for longer than their product may.")


@dataclass(slots=True)
class PointMessageStats:
    """Counts over all devices. `unknown_topics`: messages of devices that are not registered or not connected;
    `retained`: messages the broker had kept, which say nothing of now; `retained_dropped`: those of them that were more
    than the gateway keeps; `no_scalar`: points whose value is an object, an array or a text longer than any value;
    `no_subscriber`: writes without a subscriber."""

    messages: int = 0
    malformed: int = 0
    unknown_topics: int = 0
    retained: int = 0
    retained_dropped: int = 0
    no_scalar: int = 0
    keepalives: int = 0
    keepalives_missed: int = 0
    writes: int = 0
    no_subscriber: int = 0
    silent: int = 0

    def samples(self) -> Iterator[Sample]:
        yield MESSAGES.sample(self.messages)
        yield MALFORMED.sample(self.malformed)
        yield UNKNOWN_TOPICS.sample(self.unknown_topics)
        yield RETAINED.sample(self.retained)
        yield RETAINED_DROPPED.sample(self.retained_dropped)
        yield NO_SCALAR.sample(self.no_scalar)
        yield KEEPALIVES.sample(self.keepalives)
        yield KEEPALIVES_MISSED.sample(self.keepalives_missed)
        yield WRITES.sample(self.writes)
        yield NO_SUBSCRIBER.sample(self.no_subscriber)
        yield SILENT.sample(self.silent)


def levels_of(document: ProfileDocument, device: DeviceId, parameters: Mapping[str, str]) -> dict[str, str]:
    """The topic levels of one device by name. Raises InvalidInput for missing and malformed ones."""
    section = document.mqtt
    names = section.variables if section is not None else ()
    levels = {"device": parameters.get("device", str(device))}
    levels |= {name: parameters[name] for name in names if name in parameters}
    problems = [f"parameters: {name!r} is missing" for name in names if name not in levels]
    problems += [
        f"parameters: {name!r} is one level of a topic"
        for name, value in levels.items()
        if not value or NO_LEVEL & set(value)
    ]
    if problems:
        raise InvalidInput(problems)
    return levels


def topic_of(pattern: str, levels: Mapping[str, str]) -> str:
    """A pattern with the levels of one device."""
    return "/".join(levels[level[1:-1]] if level.startswith("{") else level for level in pattern.split("/"))


def filter_of(pattern: str) -> str:
    """The subscription that matches a pattern's topics of all devices."""
    return "/".join("+" if level.startswith("{") else level for level in pattern.split("/"))


def points_of(document: ProfileDocument) -> list[Point]:
    """Every point that is read, of all variants."""
    variants = [document.points, *(overlay.points for overlay in document.overlays)]
    return [point for points in variants for point in points.values() if point.topic is not None]


class DeviceCache:
    """One device. `heard_ms`: monotonic time of its newest message (retained ones do not count), None = never.

    `waited`: a read has waited for first values in vain once. `trust_retained`: retained messages count for every
    point, not only for those that are rarely read. `values`: per topic those of its points, by pointer; whatever else a
    document holds is let go.
    """

    def __init__(self, points: Iterable[Point], levels: Mapping[str, str], *, trust_retained: bool) -> None:
        self.levels = levels
        self.heard_ms: int | None = None
        self.waited = False
        self.users = 0
        self.left_ms = 0
        self.greeted = False
        self.due_ms: int | None = None
        self._trust_retained = trust_retained
        self.values: dict[str, dict[str, Raw]] = {}
        self._unreadable: set[str] = set()
        self._kept: set[str] = set()
        self._bare: dict[str, bool] = {}
        self._text: dict[str, bool] = {}
        self._pointers: dict[str, dict[str, tuple[str, ...]]] = {}
        for point in points:
            topic = topic_of(point.topic or "", levels)
            bare = point.pointer == ""
            self._pointers.setdefault(topic, {})[point.pointer] = tokens_of(point.pointer)
            self._bare[topic] = self._bare.get(topic, True) and bare
            self._text[topic] = self._text.get(topic, True) and bare and point.type is PointType.TEXT
        self._rare: dict[str, bool] = {}
        for point in points:
            topic = topic_of(point.topic or "", levels)
            self._rare[topic] = self._rare.get(topic, True) and point.poll in RARELY
        self._heard: dict[str, int] = {}
        self._asked: deque[int] = deque(maxlen=2)
        self._news = asyncio.Event()

    @property
    def topics(self) -> Iterable[str]:
        return self._bare

    def ingest(self, topic: str, payload: bytes, *, retained: bool, now_ms: int) -> bool:
        """Keep a message; False if it is malformed. A malformed one makes the topic's last document unreadable and is
        no sign of life."""
        if retained and topic in self.values and topic not in self._kept:
            return True
        try:
            document = Marker.EMPTY if not payload else self._read(topic, payload)
        except ValueError:
            if not retained:
                self.values.setdefault(topic, self._values_of(topic, Marker.GARBLED))
                self._unreadable.add(topic)
            return False
        self.values[topic] = self._values_of(topic, document)
        self._unreadable.discard(topic)
        if retained:
            self._kept.add(topic)
        else:
            self._kept.discard(topic)
            self.heard_ms = self._heard[topic] = now_ms
        self._wake()
        return True

    def _read(self, topic: str, payload: bytes) -> Json:
        """A document, or bare text where the topic carries one value. Raises ValueError."""
        try:
            document = parse_json(payload)
        except ValueError:
            if not self._bare[topic]:
                raise
            return payload.decode()
        return payload.decode() if self._text[topic] and not isinstance(document, str) else document

    def _values_of(self, topic: str, document: Json) -> dict[str, Raw]:
        """What a document, or a marker in its place, says of the topic's points."""
        return {
            pointer: document if isinstance(document, Marker) else _short(raw_of(value_at(document, tokens)))
            for pointer, tokens in self._pointers[topic].items()
        }

    def forget(self) -> None:
        """Drop every value: on a new connection the device publishes everything again."""
        self.values.clear()
        self._unreadable.clear()
        self._kept.clear()
        self._heard.clear()
        self._asked.clear()
        self.waited = False

    def due_in_full(self, now_ms: int) -> bool:
        """Whether the device is to be asked for everything: it was not, or a while ago."""
        return not self.greeted or not self._asked or now_ms - self._asked[-1] >= FULL_EVERY_MS

    def asked_in_full(self, now_ms: int) -> None:
        """Everything was asked for. What the two times before have not brought is no value of now: what it comes from
        may be gone while the rest speaks. Values that do not change are not said otherwise."""
        if self._asked and now_ms - self._asked[-1] < ANSWER_MS:
            return
        if len(self._asked) == 2:
            for topic in [t for t, ms in self._heard.items() if ms < self._asked[0] and not self._rare[t]]:
                self.values.pop(topic, None)
                self._unreadable.discard(topic)
                del self._heard[topic]
        self._asked.append(now_ms)

    def quiet(self, point: Point, since_ms: int) -> bool:
        """Whether the topic of a point that is read often has said nothing since."""
        heard_ms = self._heard.get(topic_of(point.topic or "", self.levels))
        return point.poll == "live" and heard_ms is not None and heard_ms < since_ms

    def complete(self, points: Sequence[Point]) -> bool:
        """Whether each of `points` and the device itself have been heard: retained messages are no sign of life."""
        return self.heard_ms is not None and all(
            self._known(point, topic_of(point.topic, self.levels)) for point in points if point.topic
        )

    def _known(self, point: Point, topic: str) -> bool:
        if topic not in self.values:
            return False
        return self._trust_retained or topic not in self._kept or point.poll in RARELY

    def raw(self, point: Point) -> Read:
        """The newest value of a point."""
        topic = topic_of(point.topic or "", self.levels)
        if not self._known(point, topic):
            return Marker.MISSING
        found = self.values[topic].get(point.pointer, Marker.MISSING)
        return Unreadable(found) if topic in self._unreadable else found

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def changed(self) -> None:
        """Wait for the next message."""
        await self._news.wait()


def _short(raw: Raw) -> Raw:
    """A raw value; GARBLED for a text longer than any value."""
    return Marker.GARBLED if isinstance(raw, str) and len(raw) > TEXT_MAX else raw

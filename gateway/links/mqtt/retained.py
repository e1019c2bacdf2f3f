"""Keeps what a broker retains, for devices that join after it was sent: within bounds, and only what a profile names.

The broker sends a retained message once per connection. One home's broker must not fill the memory that all homes
share, so topics and bytes are bounded per connection. What a device that is here wants takes the place of what nobody
wants; everything else beyond the bound is dropped and counted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainedBounds:
    """The most that is kept of one connection. `bytes`: topics and payloads."""

    topics: int
    bytes: int


# A product's own broker serves one home, and there may be thousands of them; ours serves the whole fleet.
HOME_BOUNDS = RetainedBounds(topics=1_000, bytes=256 << 10)
FLEET_BOUNDS = RetainedBounds(topics=200_000, bytes=64 << 20)


class RetainedMessages:
    """Retained messages of one connection that match one of `filters`. `bytes`: what is kept; `dropped`: messages of
    this connection that did not fit."""

    def __init__(self, filters: Iterable[str], bounds: RetainedBounds) -> None:
        self.bytes = 0
        self.dropped = 0
        self._filters = [each.split("/") for each in filters]
        self._bounds = bounds
        self._generation = 0
        self._claimed: set[str] = set()
        self._wanted: dict[str, bytes] = {}
        self._others: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._wanted) + len(self._others)

    def begin(self, generation: int) -> None:
        """Let everything go on a new connection: the broker sends it again, but not what it has let go since."""
        if generation == self._generation:
            return
        self._generation = generation
        self._wanted.clear()
        self._others.clear()
        self.bytes = self.dropped = 0

    def claim(self, topics: Iterable[str]) -> None:
        """A device that wants these topics is here."""
        for topic in topics:
            self._claimed.add(topic)
            if topic in self._others:
                self._wanted[topic] = self._others.pop(topic)

    def release(self, topics: Iterable[str]) -> None:
        """No device wants these topics any more; their messages stay while nobody needs the room."""
        for topic in topics:
            self._claimed.discard(topic)
            if topic in self._wanted:
                self._others[topic] = self._wanted.pop(topic)

    def payload(self, topic: str) -> bytes | None:
        return self._wanted.get(topic, self._others.get(topic))

    def ingest(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Keep a retained message, or what replaces it: an empty one clears it. A live message of a topic of which
        nothing was retained is not kept."""
        known = self._forget(topic)
        if not payload or not (known or (retained and self._named(topic))):
            return
        size = len(topic) + len(payload)
        if topic in self._claimed and size <= self._bounds.bytes:
            self._make_room(size)
        if len(self) >= self._bounds.topics or self.bytes + size > self._bounds.bytes:
            self.dropped += 1
            return
        (self._wanted if topic in self._claimed else self._others)[topic] = payload
        self.bytes += size

    def _forget(self, topic: str) -> bool:
        """Whether the topic had a message."""
        payload = self._wanted.pop(topic, None)
        if payload is None:
            payload = self._others.pop(topic, None)
        if payload is None:
            return False
        self.bytes -= len(topic) + len(payload)
        return True

    def _make_room(self, size: int) -> None:
        """Drop what nobody wants, newest first."""
        bounds = self._bounds
        while self._others and (len(self) >= bounds.topics or self.bytes + size > bounds.bytes):
            topic, payload = self._others.popitem()
            self.bytes -= len(topic) + len(payload)
            self.dropped += 1

    def _named(self, topic: str) -> bool:
        levels = topic.split("/")
        return any(_matches(levels, each) for each in self._filters)


def _matches(levels: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a topic matches a filter without `#`."""
    return len(levels) == len(pattern) and all(
        want in ("+", level) for level, want in zip(levels, pattern, strict=True)
    )

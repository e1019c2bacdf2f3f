"""Keeps settlement messages that nobody can take yet: of devices that are not registered, whose profile is missing or
that speak as another product, and messages that cannot be read.

They are stored as they came before they are acknowledged. What comes after them on the same topic waits behind them, so
that their order holds; `raw_replay` applies them once they can be. What a topic may have is bounded, and so is what
all may: beyond that the newest are discarded, since a counter still tells the energy of all when the device is known.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from gateway.clock import Clock
from gateway.domain.errors import InvalidInput, StorageError
from gateway.domain.journal.changes import AuditDoor, RawDiscarded
from gateway.domain.readings import RawMessage
from gateway.domain.types import DeviceId
from gateway.observability.metrics import Sample, counter, gauge
from gateway.observability.parts import Part
from gateway.ports.journal import Journal
from gateway.ports.links import RawReader
from gateway.storage.raw_messages import RawStore, StoredRaw, TopicTotals, stored_bytes

log = logging.getLogger(__name__)

RAW_MESSAGES = gauge("gateway_raw_messages", "Settlement messages that are kept raw.")
RAW_BYTES = gauge("gateway_raw_bytes", "Bytes of settlement messages that are kept raw, about.")
RAW_TOPICS = gauge("gateway_raw_topics", "Topics of which settlement messages are kept raw.")
KEPT = counter("gateway_raw_kept", "Settlement messages that were stored raw.")
APPLIED = counter("gateway_raw_applied", "Raw settlement messages that were counted later.")
DISCARDED = counter("gateway_raw_discarded", "Raw settlement messages that were discarded.", why=("room", "operator"))

TOPIC_BYTES_MAX = 8 << 20
"""Some 30,000 messages: three days of one every 10 s."""
TOPICS_MAX = 200_000
SLICE = 500
NO_PROFILE = "the profile of its device is not installed"
UNREADABLE = "they cannot be read"


@dataclass(slots=True, kw_only=True)
class KeptTopic:
    """What is kept of a topic: what is stored, messages (and bytes) on their way there, and how many found no room.
    `device`: whose they are, where that can be told."""

    device: DeviceId | None
    stored: TopicTotals = field(default_factory=TopicTotals)
    coming: int = 0
    coming_bytes: int = 0
    discarded: int = 0

    @property
    def waits(self) -> bool:
        """Whether messages wait for their device."""
        return self.coming > 0 or self.stored.messages > self.stored.unreadable


class RawMessages(Part):
    """What is kept, by topic. `orphans`: devices whose profile is not installed; `most_bytes` of all together, half of
    it, and of the topics, at most of devices that are not registered. Whoever works on what is stored holds `still`."""

    component = "telemetry"

    def __init__(
        self, store: RawStore, *, reader: RawReader, clock: Clock, journal: Journal, registered: Collection[str],
        orphans: Collection[str], most_bytes: int,
    ) -> None:  # fmt: skip
        self.store = store
        self.still = asyncio.Lock()
        self.topics: dict[str, KeptTopic] = {}
        self.applied = 0
        self.kept = 0
        self.discarded = dict.fromkeys(("room", "operator"), 0)
        self._behind: set[str] = set()
        self._reader = reader
        self._clock = clock
        self._journal = journal
        self._registered = registered
        self._orphans = orphans
        self._most_bytes = most_bytes
        self._bytes = self._messages = 0
        self._of_device: dict[str, set[str]] = {}
        self._coming: list[RawMessage] = []
        self._full: dict[str, None] = {}
        self._known: int | None = None
        self._failing: str | None = None
        reader.behind = self._behind

    async def load(self) -> None:
        """Find out what is stored, unless that is known. Raises StorageError."""
        if self._known == self.store.begun:
            return
        async with self.still:
            if self._known == self.store.begun:
                return
            found = await self.store.totals()
            begun = self.store.begun
            for topic in self.topics.keys() - found.keys():
                self._nothing_stored(topic)
            for count, (topic, totals) in enumerate(found.items()):
                kept = self._of(topic)
                self._bytes += totals.bytes - kept.stored.bytes
                self._messages += totals.messages - kept.stored.messages
                kept.stored = totals
                if totals.messages > totals.unreadable:
                    self._behind.add(topic)
                if count % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
            self._known = begun

    # -- what comes ------------------------------------------------------------------------------------------

    def observe(self, messages: Sequence[RawMessage]) -> None:
        """Take messages from a link, in the order received; `coming` has them until they are stored."""
        for message in messages:
            size = stored_bytes(message)
            if not self._room(message.topic, size):
                self._no_room(message.topic)
                continue
            kept = self._of(message.topic)
            kept.coming += 1
            kept.coming_bytes += size
            self._bytes += size
            if not message.problem:
                self._behind.add(message.topic)
            self._coming.append(message)

    def coming(self) -> list[RawMessage]:
        """What has come since the last call, to be stored in this order."""
        out, self._coming = self._coming, []
        return out

    async def keep(self, messages: Sequence[RawMessage]) -> None:
        """Store messages durably. Raises StorageError; then none of them is stored."""
        if not messages:
            return
        now_ms = self._clock.now().utc_ms
        try:
            await self.load()
            await self.store.add(messages, now_ms)
        except StorageError as error:
            if self._failing is None:
                log.error("raw messages cannot be stored", extra={"error": str(error)})
            self._failing = str(error)
            raise
        except asyncio.CancelledError:
            # they may be stored all the same
            self._known = None
            raise
        self._failing = None
        self.kept += len(messages)
        for message in messages:
            kept = self._of(message.topic)
            if not kept.stored.messages:
                kept.stored.since_ms = now_ms
                self._tell(message)
            size = self._came(kept, message)
            kept.stored.bytes += size
            kept.stored.messages += 1
            self._messages += 1
            kept.stored.unreadable += bool(message.problem)
            kept.stored.newest_ms = now_ms

    def forget(self, messages: Sequence[RawMessage]) -> None:
        """These will be sent again: they were not acknowledged."""
        for message in [*messages, *self.coming()]:
            self._bytes -= self._came(self._of(message.topic), message)
            self._drop_if_empty(message.topic)

    @staticmethod
    def _came(kept: KeptTopic, message: RawMessage) -> int:
        """A message is on its way no more; returns its size."""
        size = stored_bytes(message)
        kept.coming -= 1
        kept.coming_bytes -= size
        return size

    def _room(self, topic: str, size: int) -> bool:
        kept = self.topics.get(topic)
        if kept is not None and kept.stored.bytes + kept.coming_bytes + size > TOPIC_BYTES_MAX:
            return False
        device = self._reader.device(topic) if kept is None else kept.device
        ours = device is not None and (device in self._registered or device in self._orphans)
        part = 1 if ours else 2
        return self._bytes + size <= self._most_bytes // part and (
            kept is not None or len(self.topics) < TOPICS_MAX // part
        )

    def _no_room(self, topic: str) -> None:
        self.discarded["room"] += 1
        kept = self.topics.get(topic)
        if kept is not None:
            kept.discarded += 1
        if len(self._full) < TOPICS_MAX:
            self._full[topic] = None
        count = self.discarded["room"]
        if count & (count - 1) == 0:
            log.error("no room for raw messages: the newest are discarded", extra={"topic": topic, "count": count})

    def _tell(self, message: RawMessage) -> None:
        """Log the first topic that has raw messages, and each time their number has doubled."""
        count = len(self.topics)
        if count & (count - 1) == 0:
            log.warning(
                "settlement messages are kept raw",
                extra={"device": self._of(message.topic).device or "", "topic": message.topic,
                       "reason": message.problem or self.reason(message.topic), "count": count},
            )  # fmt: skip

    # -- what becomes of it ----------------------------------------------------------------------------------

    def reason(self, topic: str) -> str:
        """What keeps the messages of a topic, in words."""
        kept = self.topics.get(topic)
        if kept is not None and not kept.waits and kept.stored.unreadable:
            return UNREADABLE
        if self._reader.device(topic) in self._orphans:
            return NO_PROFILE
        return self._reader.waits_for(topic) or "they are about to be counted"

    async def ready(self) -> list[str]:
        """Topics whose messages wait and can be read by now; other tasks run meanwhile."""
        out, waiting = [], list(self._behind)
        for at in range(0, len(waiting), SLICE):
            out += [topic for topic in waiting[at : at + SLICE] if not self._reader.waits_for(topic)]
            await asyncio.sleep(0)
        return out

    async def finish(self, read: Sequence[StoredRaw], problems: Sequence[tuple[StoredRaw, str]]) -> None:
        """These were counted durably, and those cannot be read."""
        await self.store.finish([one.id for one in read], [(one.id, problem) for one, problem in problems])
        self.applied += len(read)
        if read:
            self._full.clear()
        for one in read:
            totals, size = self._of(one.message.topic).stored, stored_bytes(one.message)
            totals.messages -= 1
            self._messages -= 1
            totals.unreadable -= bool(one.message.problem)
            totals.bytes -= size
            self._bytes -= size
        for one, _ in problems:
            self._of(one.message.topic).stored.unreadable += not one.message.problem
        for topic in {one.message.topic for one in read}:
            self._drop_if_empty(topic)

    def goes_on(self, topics: Iterable[str]) -> None:
        """All that waited of these topics was read: what comes there now waits behind nothing."""
        for topic in topics:
            kept = self.topics.get(topic)
            if kept is None or not kept.waits:
                self._behind.discard(topic)

    async def discard(self, name: str, *, why: str, by: str, door: AuditDoor = AuditDoor.REST) -> int:
        """Forget what is kept of a device, or of a topic; returns how many messages that was. Raises InvalidInput where
        nothing is, StorageError."""
        async with self.still:
            topics = self.named(name)
            if not topics:
                raise InvalidInput([f"{name!r}: nothing is kept of it"])
            count = sum(self.topics[topic].stored.messages for topic in topics)
            change = RawDiscarded(names=tuple(topics), messages=count, reason=why, by=by, door=door)
            await self._journal.commit([change])
            for topic in topics:
                await self.store.discard(topic)
                self._full.clear()
                self._nothing_stored(topic)
        self.discarded["operator"] += count
        log.warning("raw messages were discarded", extra={"of": name, "count": count, "by": by, "reason": why})
        return count

    def named(self, name: str) -> list[str]:
        """The topics of a device that something is kept of, or the topic itself."""
        if name in self.topics:
            return [name]
        return sorted(self._of_device.get(name, ()))

    async def newest(self, topics: Sequence[str], limit: int) -> list[StoredRaw]:
        """The newest messages of some topics, newest first. Raises StorageError."""
        found = [one for topic in topics for one in await self.store.newest(topic, limit)]
        return sorted(found, key=lambda one: -one.id)[:limit]

    def page(self, offset: int, limit: int) -> tuple[int, list[tuple[str, KeptTopic]]]:
        """Number of topics that something is kept of, and some of them."""
        return len(self.topics), list(islice(self.topics.items(), offset, offset + limit))

    # -- what it says ----------------------------------------------------------------------------------------

    def samples(self) -> Iterator[Sample]:
        yield RAW_MESSAGES.sample(self._messages)
        yield RAW_BYTES.sample(self._bytes)
        yield RAW_TOPICS.sample(len(self.topics))
        yield KEPT.sample(self.kept)
        yield APPLIED.sample(self.applied)
        yield from DISCARDED.each(self.discarded)

    def reasons(self) -> list[str]:
        return [] if self._failing is None else [f"raw messages: {self._failing}"]

    def warnings(self) -> list[str]:
        out = []
        if self.topics:
            first = next(iter(self.topics))
            named = self.topics[first].device or first
            out.append(
                f"telemetry: settlement messages on {len(self.topics)} topics are kept raw, "
                f"first of {named}: {self.reason(first)}"
            )
        if self._full:
            out.append(
                f"telemetry: no room for raw messages on {len(self._full)} topics, first {next(iter(self._full))}"
            )
        return out

    def _of(self, topic: str) -> KeptTopic:
        kept = self.topics.get(topic)
        if kept is None:
            device = self._reader.device(topic)
            kept = self.topics[topic] = KeptTopic(device=device)
            if device is not None:
                self._of_device.setdefault(device, set()).add(topic)
        return kept

    def _nothing_stored(self, topic: str) -> None:
        kept = self._of(topic)
        self._bytes -= kept.stored.bytes
        self._messages -= kept.stored.messages
        kept.stored = TopicTotals()
        self._drop_if_empty(topic)

    def _drop_if_empty(self, topic: str) -> None:
        kept = self.topics[topic]
        if not kept.coming and not kept.stored.messages:
            del self.topics[topic]
            if kept.device is not None:
                self._of_device[kept.device].discard(topic)
                if not self._of_device[kept.device]:
                    del self._of_device[kept.device]
            self._behind.discard(topic)
            self._full.pop(topic, None)

"""Counts raw settlement messages once they can be read: in their order, as of when they were received.

Each step of the engine goes by the time of receipt of its messages, so that a device's clock is judged as if they had
been read then. They are forgotten once what they became is durable; a kill before that counts none twice.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import Protocol

from gateway.domain.errors import StorageError
from gateway.domain.readings import EnergyBatch
from gateway.domain.types import Now
from gateway.observability.parts import Part
from gateway.ports.links import RawReader
from gateway.services.telemetry.raw import RawMessages
from gateway.storage.raw_messages import StoredRaw

log = logging.getLogger(__name__)

PERIOD_S = 1.0
PAGE = 2_000
TOGETHER_MS = 2_000
"""Messages that came within this time of each other are counted in one step."""


class EnergyRecorder(Protocol):
    """Whoever counts energy: see `Ingest`."""

    async def record(self, batch: EnergyBatch, now: Now) -> int: ...

    async def wait_durable(self, record: int) -> None: ...


class RawReplay(Part):
    """Applies what `RawMessages` keeps, through `recorder`."""

    service = "raw-replay"
    component = "telemetry"

    def __init__(self, kept: RawMessages, *, reader: RawReader, recorder: EnergyRecorder) -> None:
        self._kept = kept
        self._reader = reader
        self._recorder = recorder
        self._tried = False
        self._failing: str | None = None

    async def run(self) -> None:
        """Until cancelled. What could not be read before is tried once a run: a profile or the gateway may be newer."""
        while True:
            try:
                await self._kept.load()
                if not self._tried:
                    await self._try_unreadable()
                    self._tried = True
                await self.replay()
                self._failing = None
            except StorageError as error:
                if self._failing is None:
                    log.warning("raw messages cannot be read", extra={"error": str(error)})
                self._failing = str(error)
            await asyncio.sleep(PERIOD_S)

    async def replay(self) -> None:
        """Count what waits and can be read by now. Raises StorageError."""
        topics = await self._kept.ready()
        if not topics:
            return
        after, count = 0, 0
        passed: set[str] = set()
        while True:
            async with self._kept.still:
                page = await self._kept.store.waiting(topics, after, PAGE)
                if not page:
                    break
                count += await self._count(page, passed)
                after = page[-1].id
        # nothing is awaited between the last look and this, and what comes from now on is newer
        self._kept.goes_on(topics)
        if count:
            log.info("raw settlement messages were counted", extra={"count": count, "topics": len(topics)})

    async def _try_unreadable(self) -> None:
        after, until, count = 0, await self._kept.store.last_id(), 0
        while True:
            async with self._kept.still:
                page = await self._kept.store.unreadable(after, until, PAGE)
                if not page:
                    break
                count += await self._count(
                    [one for one in page if not self._reader.waits_for(one.message.topic)], set()
                )
                after = page[-1].id
        if count:
            log.info("messages that could not be read before were counted", extra={"count": count})

    async def _count(self, page: Sequence[StoredRaw], passed: set[str]) -> int:
        """Count a page of messages but for topics that were `passed` over: what cannot be taken now, as its device was
        removed meanwhile, passes its topic over. Returns how many."""
        read: list[StoredRaw] = []
        problems: list[tuple[StoredRaw, str]] = []
        record = 0
        for together in _together(page):
            some = [one for one in together if one.message.topic not in passed]
            found = self._reader.read([one.message for one in some])
            now = Now(utc_ms=together[-1].received_ms, mono_ms=0)
            for batch in found.energy:
                record = await self._recorder.record(batch, now)
            read += [one for at, one in enumerate(some) if at not in found.problems]
            problems += [(some[at], problem) for at, problem in found.problems.items() if problem]
            passed.update(some[at].message.topic for at, problem in found.problems.items() if not problem)
        if record:
            await self._recorder.wait_durable(record)
        if read or problems:
            await self._kept.finish(read, problems)
        return len(read)

    def reasons(self) -> list[str]:
        return [] if self._failing is None else [f"raw messages: {self._failing}"]


def _together(page: Sequence[StoredRaw]) -> Iterator[list[StoredRaw]]:
    """What came within `TOGETHER_MS`, in order."""
    some: list[StoredRaw] = []
    for one in page:
        if some and not 0 <= one.received_ms - some[0].received_ms < TOGETHER_MS:
            yield some
            some = []
        some.append(one)
    if some:
        yield some

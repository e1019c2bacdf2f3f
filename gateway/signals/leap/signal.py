"""Dispatch from the aggregator: what waits in the inbox is read in a process of its own, what that makes of it becomes
events.

The order of things for each body: on disk, answered, read into the book of slots (one transaction), moved away; then
the plan of all slots is brought to the book of events. A kill at any point repeats only what changes nothing.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gateway.clock import Clock
from gateway.domain.errors import StorageError
from gateway.observability.metrics import Sample, counter, gauge, words
from gateway.observability.parts import Part
from gateway.signals.leap.door import LeapDoor
from gateway.signals.leap.inbox import BodyInbox, KeptBody
from gateway.signals.leap.reader import BodyReader, ReaderGone
from gateway.signals.leap.requests import PlanRows
from gateway.signals.leap.settings import LeapSignalSettings
from gateway.signals.leap.slot_book import Took
from gateway.signals.leap.submission import DispatchStanding, Submission

log = logging.getLogger(__name__)

TRIES_MAX = 3
"""A body of which so many readers died is set aside."""
LOOK_S = 1.0
"""How often it is looked whether batteries are behind other meters now."""
AGAIN_MS = 60_000
"""How often the plan is made anew, and what was refused is asked for once more, without news."""
RETRY_S = 5.0

FOLDER = "leap-dispatch"

SLOTS = counter("gateway_leap_slots", "Slots in bodies of the aggregator, by what they did.", took=words(Took))
BAD_SLOTS = counter("gateway_leap_slots_bad", "Slots that could not be read; their siblings were.")
BAD_BODIES = counter("gateway_leap_bodies_bad", "Bodies that were set aside: no dispatch, or no reader survives them.")
SET_ASIDE = gauge("gateway_leap_bodies_set_aside", "Bodies that were set aside and wait for somebody to look.")
RESTARTS = counter("gateway_leap_reader_restarts", "Starts of the process that reads bodies after it ended.")
EVENTS = gauge(
    "gateway_leap_events", "Events of the aggregator that are to run.", state=("planned", "refused", "early", "empty")
)
UNKNOWN_METERS = gauge("gateway_leap_unknown_meters", "Meters in such events behind which no battery is known.")
UNKNOWN_PROGRAMS = gauge("gateway_leap_unknown_program_events", "Such events of a program that no file describes.")
HINTS = gauge("gateway_leap_hints", "Slots of which a webhook says something else than the newest search.")
UNCONFIRMED = counter("gateway_leap_hints_unconfirmed", "Hints that took effect because no search could be had.")


class LeapSignal(Part):
    """The signal. `door`: lets webhooks in; `inbox`: what waits. `hints`: slots of which search must decide;
    `wants_search`: set by a webhook that says something new; `newest_ms`: when the newest webhook came, UTC, None =
    none has."""

    service = "leap-dispatch"
    component = "leap"

    def __init__(
        self, settings: LeapSignalSettings, submission: Submission, *, directory: Path, clock: Clock
    ) -> None:  # fmt: skip
        self._clock = clock
        self._submission = submission
        self._news = asyncio.Event()
        self.inbox = BodyInbox(directory)
        self.door = LeapDoor(settings, self.inbox, clock=clock, came=self._news.set)
        self.reader = BodyReader(directory, timeout_s=settings.read_timeout_s)
        self.hints = 0
        self.wants_search = asyncio.Event()
        self.newest_ms: int | None = None
        self._events: Sequence[PlanRows] = ()
        self._gone: Sequence[str] = ()
        self._rounds = asyncio.Condition()
        self._asked = self._served = self._waiting = 0
        self._slots = dict.fromkeys(Took, 0)
        self._bad_slots = self._bad_bodies = self._unconfirmed = self._slots_known = 0

    async def run(self) -> None:
        """Read what waits, and what comes; bring events to it."""
        try:
            await asyncio.to_thread(self.inbox.open)
            await self._serve()
        except OSError as error:
            raise StorageError(f"{self.inbox.directory}: {error}") from error

    async def _serve(self) -> None:
        planned_ms: int | None = None
        version: tuple[int, int] | None = None
        while True:
            self._news.clear()
            asked = self._asked
            read = await self._read_waiting()
            now = self._clock.now()
            again = planned_ms is None or now.mono_ms - planned_ms >= AGAIN_MS
            if again:
                await asyncio.to_thread(self.inbox.count_bad)
            if read or again:
                await self._plan(now.utc_ms)
            current = self._submission.version
            if read or again or current != version:
                await self._bring(again=again)
                version = current
            if again:
                planned_ms = now.mono_ms
            async with self._rounds:
                self._served = asked
                self._rounds.notify_all()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        await self.reader.close()

    async def keep_page(self, kind: str, asked_ms: int, page: bytes) -> None:
        """Put a page of search into the inbox. Raises OSError."""
        await asyncio.to_thread(self.inbox.store, kind, asked_ms, page)
        self.inbox.came(len(page))
        self._news.set()

    async def caught_up(self) -> None:
        """Wait until everything that waits now was read, and events were brought to it."""
        self._asked += 1
        mine = self._asked
        self._news.set()
        async with self._rounds:
            await self._rounds.wait_for(lambda: self._served >= mine)

    @property
    def waiting(self) -> int:
        """Bodies that wait to be read."""
        return self._waiting

    @property
    def standing(self) -> DispatchStanding:
        """How the events of the plan stand."""
        return self._submission.standing

    @property
    def took(self) -> dict[Took, int]:
        """What slots did, since the start."""
        return dict(self._slots)

    async def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Ask the reader something that has one answer. Raises ReaderGone."""
        return await self.reader.one(question)

    async def _read_waiting(self) -> bool:
        """Read every body that waits; returns whether one was read."""
        found = False
        waiting = await asyncio.to_thread(lambda: list(self.inbox.waiting()))
        for number, body in enumerate(waiting):
            self._waiting = len(waiting) - number
            found = await self._read_one(body) or found
        self._waiting = 0
        return found

    async def _read_one(self, body: KeptBody) -> bool:
        question = {
            "ask": "read", "body": body.name, "path": str(body.path), "kind": body.kind, "at_ms": body.at_ms,
            "now_ms": self._clock.now().utc_ms,
        }  # fmt: skip
        try:
            answer = await self.reader.one(question)
        except ReaderGone as error:
            log.error("a dispatch body was not read", extra={"body": body.name, "error": str(error)})
            if error.later:
                await asyncio.sleep(RETRY_S)
                return False
            await asyncio.to_thread(self._died, body)
            self._news.set()
            return False
        self._count(body, answer)
        if answer.get("problem"):
            self._bad_bodies += 1
            log.error("a body is no dispatch", extra={"body": body.name, "error": answer["problem"]})
            await asyncio.to_thread(self.inbox.set_aside, body)
        else:
            await asyncio.to_thread(self.inbox.read, body)
        return True

    def _died(self, body: KeptBody) -> None:
        if body.tried + 1 < TRIES_MAX:
            self.inbox.died(body)
            return
        self._bad_bodies += 1
        log.error("no reader survives a dispatch body; it is set aside", extra={"body": body.name})
        self.inbox.set_aside(body)

    def _count(self, body: KeptBody, answer: dict[str, Any]) -> None:
        for word, count in answer.get("took", {}).items():
            self._slots[Took(word)] += count
        bad = int(answer.get("bad", 0))
        self._bad_slots += bad
        if bad:
            log.error("slots of a dispatch body cannot be read", extra={"body": body.name, "count": bad})
        if not body.kind.endswith("_search"):
            self.newest_ms = max(self.newest_ms or 0, body.at_ms)
            if answer.get("took", {}).keys() - {Took.SAME.value}:
                self.wants_search.set()
            log.info("read a dispatch webhook", extra={"body": body.name, "slots": answer.get("slots", 0),
                                                       "took": answer.get("took", {})})  # fmt: skip

    async def _plan(self, now_ms: int) -> None:
        """Take over the plan of all slots. Raises ReaderGone."""
        events: dict[str, PlanRows] = {}
        async for message in self.reader.ask({"ask": "plan", "now_ms": now_ms}):
            if "gone" in message:
                self._gone = message["gone"]
                self.hints, self._slots_known = message["hints"], message["slots"]
                self._unconfirmed += message["unconfirmed"]
                continue
            PlanRows.take(events, message)
        self._events = list(events.values())

    async def _bring(self, *, again: bool) -> None:
        now_ms = self._clock.now().utc_ms
        while True:
            try:
                await self._submission.bring(self._events, self._gone, now_ms, again=again)
                break
            except StorageError as error:
                log.warning("dispatch of the aggregator cannot be stored yet", extra={"error": str(error)})
                await asyncio.sleep(RETRY_S)

    def samples(self) -> Iterable[Sample]:
        standing = self._submission.standing
        yield from self.door.samples()
        yield from SLOTS.each(self._slots)
        yield BAD_SLOTS.sample(self._bad_slots)
        yield BAD_BODIES.sample(self._bad_bodies)
        yield SET_ASIDE.sample(self.inbox.kept_bad)
        yield RESTARTS.sample(self.reader.restarts)
        yield EVENTS.sample(standing.events, state="planned")
        yield EVENTS.sample(len(standing.refused), state="refused")
        yield EVENTS.sample(standing.early, state="early")
        yield EVENTS.sample(len(standing.unresolved), state="empty")
        yield UNKNOWN_METERS.sample(standing.unknown_meters)
        yield UNKNOWN_PROGRAMS.sample(len(standing.unknown_programs))
        yield HINTS.sample(self.hints)
        yield UNCONFIRMED.sample(self._unconfirmed)

    def warnings(self) -> list[str]:
        standing = self._submission.standing
        found = []
        if self.inbox.kept_bad:
            found.append(f"{self.inbox.kept_bad} bodies of the aggregator could not be read: {FOLDER}/bad")
        if standing.refused:
            name, reason = next(iter(standing.refused.items()))
            found.append(f"{len(standing.refused)} events of the aggregator are not taken: {name}: {reason}")
        if standing.unknown_meters:
            found.append(f"the aggregator dispatches {standing.unknown_meters} meters without a known battery")
        if standing.unknown_programs:
            found.append(f"{len(standing.unknown_programs)} events of the aggregator are of an unknown program")
        return found

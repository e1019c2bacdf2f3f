"""A gateway and the aggregator it is to be in step with: dispatch by webhook and search, enrollment by search and rows,
processes that end anywhere. What the aggregator has in the end is the truth; `in_step_judge` holds it beside ours.

One process is the signal, the catch-up, the sync, the enrollments and the book of events over real files; bodies are
read by the code of the reader's process, in this one. Slots begin and end by half hours after `T0`.
"""

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
from pydantic import SecretStr

from gateway.app.leap import EnrolledMeters
from gateway.clock import ManualClock
from gateway.domain.errors import GatewayError
from gateway.domain.events.book import Answer
from gateway.domain.events.lifecycle import BookEntry
from gateway.domain.events.request import EventRequest
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import AuditDoor
from gateway.domain.programs.facts import Fact
from gateway.services.events.intake import Dispatcher
from gateway.services.programs.enrollment import Enrollments
from gateway.services.programs.fact_trail import FactTrail
from gateway.services.programs.leap_sync import LeapSync
from gateway.services.settings import ControlSettings
from gateway.signals.leap.catch_up import AHEAD_MS, BEHIND_MS, LeapCatchUp
from gateway.signals.leap.reader import BodyReader, ReaderGone
from gateway.signals.leap.requests import SOURCE
from gateway.signals.leap.settings import LeapSignalSettings
from gateway.signals.leap.signal import LeapSignal
from gateway.signals.leap.submission import Submission
from gateway.signals.leap.worker import Reader
from gateway.storage.journal.event_store import SqliteEventStore
from gateway.storage.journal.journal import SqliteJournal
from gateway.storage.programs.facts import SqliteFacts
from gateway.transports.leap.account import LeapAccount
from gateway.transports.leap.client import LeapClient
from simulators.aggregator import Access, Aggregator
from simulators.aggregator.dispatch_book import DispatchBook, Event, Kind, grouped, webhook_body
from tests.builders.fakes import FACTS, home
from tests.scenes.leap import FollowingClock
from tests.signals.leap.bodies import HOUR, T0, uid

KEY, SECRET = "key-of-the-account", "shared-secret-0123456789"
PROGRAMS = {"CEC-DSGS": "dsgs-option3", "CCA": "ra-leap"}
METERS = [uid(f"m{number}") for number in range(4)]
HOMES = [f"home-{number}" for number in range(len(METERS))]
MORE = [f"{name}-too" for name in HOMES]
"""Of a second battery behind a meter, which only rows of ours tell of."""
METER_SLOTS, GROUP_SLOTS = 6, 2
MEMBERS = ((METERS[0], METERS[1]), (METERS[1], METERS[2], METERS[3]))
SETTINGS = LeapSignalSettings(secret=SecretStr(SECRET), levels=("meter", "group"))
PERIOD = {
    "program_identifier": "CEC-DSGS", "delivery_period": "CEC-DSGS_2026_NOV_APR",
    "delivery_period_start_date_time": "2026-11-01T07:00:00Z",
    "delivery_period_end_date_time": "2027-05-01T07:00:00Z", "enrollment_deadlines": [],
}  # fmt: skip


class Fuse:
    """Where a process ends: at the point that is so many points away. What comes to it then goes on no more."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.burnt = asyncio.Event()

    async def point(self) -> None:
        """A place at which the process may end."""
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.burnt.set()
        if self.burnt.is_set():
            await asyncio.Event().wait()


class ReaderHere(BodyReader):
    """Reads bodies in this process. `dies`: at the next body, once it is in the book of slots and nobody knows."""

    def __init__(self, directory: Path, fuse: Fuse) -> None:
        super().__init__(directory, timeout_s=30)
        self.dies = False
        self._folder = directory
        self._fuse = fuse
        self._reader: Reader | None = None

    async def ask(self, question: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        await self._fuse.point()
        self._reader = self._reader or Reader(self._folder)
        messages = list(self._reader.answer(dict(question)))
        await self._fuse.point()
        if self.dies and question["ask"] == "read":
            self.dies = False
            self.end()
            raise ReaderGone("the reader of dispatch bodies ended", later=False)
        for message in messages:
            # as over the pipe
            yield orjson.loads(orjson.dumps(message))

    def end(self) -> None:
        """It ends, with all that it had in memory."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class FactsThatEnd(SqliteFacts):
    """Facts on disk, with a place to end before and after each commit."""

    def __init__(self, directory: Path, *, clock: ManualClock, fuse: Fuse) -> None:
        super().__init__(directory, clock=clock)
        self._fuse = fuse

    async def commit(
        self, facts: Sequence[Fact], *, by: str, door: AuditDoor, customers: Sequence[str] = (),
        people: Sequence[str] = (),
    ) -> None:  # fmt: skip
        await self._fuse.point()
        await super().commit(facts, by=by, door=door, customers=customers, people=people)
        await self._fuse.point()


class Process:
    """One run of the gateway. `asked`: the events that were submitted; `accepted` of them were new to the book."""

    def __init__(self, directory: Path, url: str, clock: ManualClock) -> None:
        self.fuse = Fuse()
        self.asked: list[tuple[EventRequest, Answer]] = []
        self._clock = clock
        self._journal = SqliteJournal(directory / "journal.sqlite", clock=clock)
        fleet = Fleet()
        for name in (*HOMES, *MORE):
            fleet.register(home(name), FACTS)
        self.dispatcher = Dispatcher(ControlSettings(), fleet=fleet, journal=self._journal, clock=clock)
        self.dispatcher.load(self._journal.load())
        self._facts = FactsThatEnd(directory, clock=clock, fuse=self.fuse)
        self._audit = SqliteEventStore(self._journal.path)
        trail = FactTrail(self._facts, self._journal, self._audit)
        self.enrollments = Enrollments(self._facts, None, trail, clock=clock, program_of=PROGRAMS)
        self._facts.load(self.enrollments.book.add)
        submission = Submission(
            submit=self._submit, known=self._known, meters=EnrolledMeters(self.enrollments.book, fleet),
            program_of=PROGRAMS, per_device=False,
        )  # fmt: skip
        self.signal = LeapSignal(SETTINGS, submission, directory=directory / "leap-dispatch", clock=clock)
        self.reader = ReaderHere(directory / "leap-dispatch", self.fuse)
        self.signal.reader = self.reader
        account = LeapAccount(environment="staging", key=SecretStr(KEY), url=url, timeout_s=5)
        rng = random.Random(1)
        self._clients = [LeapClient(account), LeapClient(account)]
        self.catch_up = LeapCatchUp(SETTINGS, self._clients[0], self.signal, clock=clock, rng=rng)
        self.sync = LeapSync(
            self._clients[1], self.enrollments, program_of=PROGRAMS, clock=clock, every_s=None, mismatched=lambda: 0,
            rng=rng,
        )  # fmt: skip
        self.running = asyncio.create_task(self.signal.run(), name="leap")

    async def _submit(self, request: EventRequest) -> Answer:
        await self.fuse.point()
        answer = await self.dispatcher.submit(request)
        self.asked.append((request, answer))
        await self.fuse.point()
        return answer

    def _known(self, name: str) -> BookEntry | None:
        entry = self.dispatcher.entry(name)
        return entry if entry is not None and entry.request.source == SOURCE else None

    async def tick(self) -> None:
        """Events begin and end."""
        _, changes = self.dispatcher.advance(self._clock.now(), ())
        if changes:
            await self._journal.commit(changes)

    async def end(self) -> None:
        """It is gone; what is on disk stays."""
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        self.reader.end()
        for client in self._clients:
            await client.close()
        self._facts.close()
        self._audit.close()
        self._journal.close()


@dataclass(slots=True)
class Post:
    """A webhook on its way."""

    level: str
    body: bytes


@dataclass(slots=True)
class Truth:
    """What is so beside what the aggregator has: batteries behind meters, and what rows of ours said last of homes."""

    behind: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    status: dict[str, str] = field(default_factory=dict)
    wish: dict[str, str] = field(default_factory=dict)


class InStep:
    """Both sides. `posts`: webhooks that were sent off and have not come; `answers`: pages of searches, as they were
    when they were asked, that have not come either; `searched_ms`: when the newest search ended well, if no slot has
    become another one since then."""

    def __init__(self, directory: Path, aggregator: Aggregator, clock: ManualClock) -> None:
        self.aggregator = aggregator
        self.clock = clock
        self.posts: list[Post] = []
        self.answers: list[tuple[str, int, bytes]] = []
        self.truth = Truth()
        self.searched_ms: int | None = None
        self.process = Process(directory, aggregator.url, clock)
        self._directory = directory

    @property
    def book(self) -> DispatchBook:
        return self.aggregator.dispatch_book

    async def restart(self) -> None:
        """The process ends, however it stands, and another one is there."""
        await self.process.end()
        self.process = Process(self._directory, self.aggregator.url, self.clock)
        await self.do(self.process.signal.caught_up())

    async def do(self, work: Any) -> bool:
        """Do something with the process; where that ends meanwhile there is another one. Returns whether it did not."""
        process = self.process
        doing, gone = asyncio.ensure_future(work), asyncio.ensure_future(process.fuse.burnt.wait())
        await asyncio.wait([doing, gone, process.running], return_when=asyncio.FIRST_COMPLETED)
        if process.running.done():
            doing.cancel()
            gone.cancel()
            await process.running
        ended = process.fuse.burnt.is_set()
        gone.cancel()
        if ended:
            doing.cancel()
        await asyncio.gather(gone, *([doing] if ended else []), return_exceptions=True)
        if ended:
            if process is self.process:
                await self.restart()
            return False
        await doing
        return True

    async def go(self, s: float) -> None:
        """Time passes."""
        self.clock.advance(s=s)
        self.aggregator.meter_book.advance()
        await self.process.tick()
        await self.do(self.process.signal.caught_up())

    # -- dispatch --------------------------------------------------------------------------------------------

    def event(self, number: int) -> Event | None:
        """The slot of this number, as the aggregator has it."""
        kind = Kind.METER if number < METER_SLOTS else Kind.GROUP
        return self.book.events.get((kind, uid(f"e{number}")))

    def put(self, number: int, **fields: Any) -> None:
        """The aggregator makes a slot, or another one of it."""
        self.searched_ms = None
        if number < METER_SLOTS:
            self.book.put(Event(kind=Kind.METER, target=METERS[number % len(METERS)], slot=fields))
        else:
            members = MEMBERS[number - METER_SLOTS]
            self.book.put(Event(kind=Kind.GROUP, target=uid(f"g{number}"), members=members, slot=fields))

    def change(self, number: int, **fields: Any) -> None:
        """The aggregator says something else of a slot, if there is one."""
        if (event := self.event(number)) is not None:
            self.searched_ms = None
            self.book.change(event, **fields)

    def push(self, numbers: Sequence[int], *, test: bool = False) -> None:
        """Send off webhooks that say what is so of these slots now, one of each level. `test`: tests of the interface,
        which say something else."""
        found = [event for number in numbers if (event := self.event(number)) is not None]
        if test:
            found = [replace(event, slot=event.slot | {"energy_kw": 9.0}) for event in found]
        for kind in Kind:
            mine = [event for event in found if event.kind is kind]
            if mine:
                self.posts.append(Post(kind.value, webhook_body(kind, mine, integration_test=test)))

    async def deliver(self, post: Post, *, answered: bool = True) -> None:
        """A webhook comes. Not `answered`: the process ends when it is durable."""
        if not answered:
            inbox = self.process.signal.inbox
            inbox.store(post.level, inbox.stamp(self.clock.now().utc_ms), post.body)
            await self.restart()
            return

        async def pieces() -> AsyncIterator[bytes]:
            yield post.body

        await self.process.signal.door.receive(post.level, pieces(), len(post.body))
        await self.do(self.process.signal.caught_up())

    def ask(self) -> None:
        """A search is asked for, and answered with what is so now; the answer is on its way."""
        self.clock.advance(s=0.001)
        now_ms = self.process.signal.inbox.stamp(self.clock.now().utc_ms)
        for kind in Kind:
            found = self.book.found(kind, now_ms - BEHIND_MS, now_ms + AHEAD_MS, by_start=True)
            page = orjson.dumps({"results": grouped(kind, found, flags=True)})
            self.answers.append((f"{kind.value}_search", now_ms, page))

    async def answer(self, number: int) -> None:
        """An answer comes."""
        kind, asked_ms, page = self.answers.pop(number)
        await self.process.signal.keep_page(kind, asked_ms, page)
        await self.do(self.process.signal.caught_up())

    async def search(self) -> bool:
        """A search from its question to what it changes; returns whether it ended well."""
        self.clock.advance(s=0.001)
        now_ms = self.clock.now().utc_ms
        searched = self.process.catch_up.search(now_ms - BEHIND_MS, now_ms + AHEAD_MS, schedule=True)
        well = await self._asked(searched)
        if well:
            self.searched_ms = now_ms
        return well

    # -- enrollment ------------------------------------------------------------------------------------------

    async def sync(self) -> bool:
        """A read of all enrollments; returns whether it ended well."""
        done = await self._asked(self.process.sync.sync())
        if done:
            for meter in self.aggregator.meter_book.meters.values():
                self.truth.behind[meter.meter_id].add(meter.asset["partner_reference"])
        return done and await self.do(self.process.signal.caught_up())

    async def _asked(self, work: Any) -> bool:
        try:
            return await self.do(work)
        except GatewayError:
            return False

    async def state(self, row: Mapping[str, str]) -> bool:
        """A table of ours with one row; returns whether it was imported and nobody ended meanwhile."""
        text = ",".join(row) + "\n" + ",".join(row.values()) + "\n"
        taken: list[int] = []

        async def imported() -> None:
            told = await self.process.enrollments.import_enrollments(text, form="csv", by="us", door=AuditDoor.REST)
            taken.append(len(told.bad))

        done = await self.do(imported())
        assert taken in ([], [0]), row
        return done and await self.do(self.process.signal.caught_up())


@contextlib.asynccontextmanager
async def in_step(directory: Path) -> AsyncIterator[InStep]:
    clock = ManualClock(utc_ms=T0)
    async with Aggregator(keys={KEY: Access()}, meters={}, clock=FollowingClock(clock)) as aggregator:
        both = InStep(directory, aggregator, clock)
        try:
            yield both
        finally:
            await both.process.end()
        assert aggregator.faults == []


def span(half_hour: int, half_hours: int) -> tuple[int, int]:
    """Start and end, UTC ms."""
    start_ms = T0 + half_hour * HOUR // 2
    return start_ms, start_ms + half_hours * HOUR // 2

"""Histories of the aggregator and us: what it changes, what it tells late, twice, in another order or never, what
searches answer and when, what rows of ours say, and where our process ends; drawn at random and done to both.

A history is data (what is done and how long it waits), so that it can be printed and made again.
"""

import asyncio
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from simulators.aggregator import Change, Mishap, Operation, Trouble, slot
from simulators.aggregator.dispatch_book import Kind
from simulators.aggregator.meter_book import Meter
from simulators.aggregator.periods import Period, Preference
from tests.scenes.in_step import GROUP_SLOTS, HOMES, METER_SLOTS, METERS, MORE, PERIOD, InStep, in_step, span
from tests.scenes.in_step_judge import judge, judge_meanwhile
from tests.signals.leap.bodies import uid

Action = tuple[Any, ...]

SLOTS = METER_SLOTS + GROUP_SLOTS
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""A directory of real files that wait for no disk, where there is one."""
ASSET = {
    "transmission_region": "CAISO", "customer_classification": "RESIDENTIAL", "load_types": ["BATTERY_STORAGE"],
    "meter_type": "DEVICE",
    "customer": {
        "street_1": "1 Way", "city": "Fresno", "postal_code": "93650", "state_or_province_code": "CA",
        "country_code": "US",
    },
}  # fmt: skip
OWN_PERIOD = {
    "program": "dsgs-option3", "delivery_period": "ours",
    "delivery_period_start_date_time": "2026-11-01T07:00:00Z", "delivery_period_end_date_time": "2027-05-01T07:00:00Z",
}  # fmt: skip

PERIOD_ROW = {name: str(value) for name, value in PERIOD.items() if name != "enrollment_deadlines"}
SINCE = [None, "2026-12-01T00:00:00Z", "2027-03-01T00:00:00Z"]
"""From when a row of ours is so: from now on, for long, or one day."""

SLOT = st.sampled_from([0, 0, 0, *range(SLOTS)])
SOME_SLOTS = st.lists(SLOT, min_size=1, max_size=4)
METER = st.integers(0, len(METERS) - 1)
STATUS = st.sampled_from(["ACTIVE", "ACTIVE", "PENDING", "ELIGIBLE", "INELIGIBLE"])
WAY = st.sampled_from([0, 0, 1, 2, -1, -1])
"""Which of those that are on their way: from the oldest, or the newest."""

DISPATCH = st.tuples(
    st.just("dispatch"), SLOT, st.integers(0, 8), st.integers(1, 2), st.sampled_from([None, 1.0, 2.5]),
    st.sampled_from([1, 4]), st.sampled_from(["CEC-DSGS", "CEC-DSGS", "CCA"]),
)  # fmt: skip
DISPATCHING = st.one_of(
    DISPATCH,
    st.tuples(st.just("change"), SLOT, st.sampled_from([None, 1.0, 2.0])),
    st.tuples(st.just("change"), SLOT, st.sampled_from([None, 1.0, 2.0])),
    st.tuples(st.just("cancel"), SLOT),
    st.tuples(st.just("push"), SOME_SLOTS),
    st.tuples(st.just("push"), SOME_SLOTS),
    st.tuples(st.just("test"), SLOT),
    st.tuples(st.just("deliver"), WAY, st.booleans()),
    st.tuples(st.just("deliver"), WAY, st.booleans()),
    st.tuples(st.just("lose"), WAY),
    st.tuples(st.just("cut"), WAY),
    st.tuples(st.just("search")),
    st.tuples(st.just("search")),
    st.tuples(st.just("ask")),
    st.tuples(st.just("answer"), WAY),
    st.tuples(st.just("answer"), WAY),
    st.tuples(st.just("reader")),
    st.tuples(
        st.just("outrun"), SLOT, st.sampled_from(["webhook", "answer", "test"]), st.sampled_from([None, 1.0, 2.0])
    ),
)
ENROLLING = st.one_of(
    st.tuples(st.just("status"), METER, STATUS),
    st.tuples(st.just("archive"), METER, st.booleans()),
    st.tuples(st.just("idle"), METER, st.integers(-1, 1), st.integers(1, 3)),
    st.tuples(st.just("active"), METER, st.integers(-1, 1)),
    st.tuples(st.just("not idle"), METER),
    st.tuples(st.just("sync")),
    st.tuples(st.just("sync")),
    st.tuples(st.just("our status"), METER, STATUS),
    st.tuples(st.just("our wish"), METER, st.sampled_from(["IDLE", "PARTICIPATE", "DISENROLL"])),
    st.tuples(st.just("our word of a meter"), METER, STATUS, st.sampled_from(SINCE)),
    st.tuples(st.just("one more battery"), METER),
)
ENDING = st.one_of(
    st.tuples(st.just("outage"), st.sampled_from(["dispatch", "enrollment"])),
    st.tuples(st.just("restart")),
    st.tuples(st.just("kill"), st.integers(0, 9)),
    st.tuples(st.just("kill"), st.integers(0, 9)),
)
WAITS_S = st.sampled_from([0, 0, 0, 0, 1, 5, 70, 1_000, 4_000, 40_000])
STEPS = [st.one_of(DISPATCHING, ENDING), st.one_of(ENROLLING, ENDING), st.one_of(DISPATCHING, ENROLLING, ENDING)]
HISTORIES = st.one_of(*(st.lists(st.tuples(step, WAITS_S), min_size=1, max_size=20) for step in STEPS))
"""Of dispatch, of enrollment, and of both."""


class History:
    """Does to both sides what it is told to."""

    def __init__(self, both: InStep) -> None:
        self.both = both

    async def begin(self, *, known: bool) -> None:
        """Meters that are enrolled, of which we know nothing if not `known`; a slot that is to come."""
        for number, (meter, name) in enumerate(zip(METERS, HOMES, strict=True)):
            made = self.both.aggregator.meter_book.add(ASSET | {"partner_reference": name}, meter_id=meter)
            made.programs = [PERIOD | {"enrollment_status": "ACTIVE" if number else "PENDING"}]
        if known:
            await self.both.sync()
        await self.do(("dispatch", 0, 6, 2, 2.5, 4, "CEC-DSGS"))

    def _meter(self, number: int) -> Meter:
        return self.both.aggregator.meter_book.meters[METERS[number]]

    async def do(self, action: Action) -> None:
        """Do it."""
        both = self.both
        match action:
            case ("dispatch" | "change" | "cancel" | "push" | "test", *_):
                self._dispatch(action)
            case ("deliver" | "cut" | "lose", *_):
                if both.posts:
                    await self._post(action)
            case ("answer", way):
                if both.answers:
                    await both.answer(way % len(both.answers))
            case ("ask",):
                both.ask()
            case ("outrun", number, what, kw):
                await self._outrun(number, what, kw)
            case ("search",):
                await both.search()
            case ("sync",):
                await both.sync()
            case ("restart",):
                await both.restart()
            case ("outage" | "reader" | "kill", *_):
                self._trouble(action)
            case ("our status" | "our wish" | "our word of a meter" | "one more battery", *_):
                await self._state(action)
            case _:
                self._enroll(action)

    def _dispatch(self, action: Action) -> None:
        both = self.both
        match action:
            case ("dispatch", number, begin, length, kw, priority, program):
                kind = Kind.METER if number < METER_SLOTS else Kind.GROUP
                start_ms, end_ms = span(begin, length)
                both.put(number, **slot(kind, start_ms, end_ms, event_id=uid(f"e{number}"), energy_kw=kw,
                                        priority=priority, programs=[program]))  # fmt: skip
            case ("change", number, kw):
                both.change(number, energy_kw=kw)
            case ("cancel", number):
                both.change(number, cancelled=True)
            case ("push", numbers):
                both.push(numbers)
            case ("test", number):
                both.push([number], test=True)
            case _:
                raise AssertionError(action)

    async def _post(self, action: Action) -> None:
        both = self.both
        what, way, *more = action
        post = both.posts[way % len(both.posts)]
        if what == "lose" or more == [False]:
            both.posts.remove(post)
        if what != "lose":
            await both.deliver(post, answered=what == "deliver")

    async def _outrun(self, number: int, what: str, kw: float | None) -> None:
        """What was said of a slot, or a test that names it, comes when a search has shown that it is another one by
        now."""
        both = self.both
        if what == "answer":
            both.ask()
        else:
            both.push([number], test=what == "test")
        both.change(number, energy_kw=kw)
        await both.search()
        self.check()
        hints = both.process.signal.hints
        for _ in Kind if what == "answer" else range(1):
            await self.do(("answer", -1) if what == "answer" else ("deliver", -1, False))
        assert what != "test" or both.process.signal.hints == hints, "a test of the interface is a word about a slot"

    def _trouble(self, action: Action) -> None:
        match action:
            case ("outage", what):
                operation = Operation.METER_DISPATCH_SEARCH if what == "dispatch" else Operation.ENROLLMENT_SEARCH
                self.both.aggregator.script(operation, Mishap(trouble=Trouble.ANSWER, status=503))
            case ("reader",):
                self.both.process.reader.dies = True
            case ("kill", points):
                self.both.process.fuse.left = points
            case _:
                raise AssertionError(action)

    def _enroll(self, action: Action) -> None:
        """The aggregator says something else of a meter."""
        book = self.both.aggregator.meter_book
        now_ms = self.both.clock.now().utc_ms
        match action:
            case ("status", number, word):
                book.plan(now_ms, Change(meter_id=METERS[number], program=PERIOD | {"enrollment_status": word}))
            case ("archive", number, archived):
                book.plan(now_ms, Change(meter_id=METERS[number], archived=archived))
            case ("idle", number, begin, days):
                first = self._meter(number).today(now_ms) + timedelta(days=begin)
                self._put(number, Period(preference=Preference.IDLE, first=first, end=first + timedelta(days=days)))
            case ("active", number, begin):
                today = self._meter(number).today(now_ms)
                self._put(number, Period(preference=Preference.PARTICIPATE, first=today + timedelta(days=begin)))
            case ("not idle", number):
                periods = self._meter(number).periods
                for idle in periods.idle()[:1]:
                    if idle.end is not None:
                        periods.remove(idle.first, idle.end)
            case _:
                raise AssertionError(action)
        book.advance()

    async def _state(self, action: Action) -> None:
        """A table of ours says something; whoever sent it and had no answer sends it again."""
        what, number, *more = action
        truth, name, of_meter = self.both.truth, HOMES[number], {"meter_id": METERS[number]} | PERIOD_ROW
        row: dict[str, str]
        match (what, *more):
            case ("our status", word):
                row = {"device": name} | OWN_PERIOD | {"enrollment_status": word}
                truth.status[name] = word
            case ("our wish", word):
                status = truth.status.setdefault(name, "ACTIVE")
                row = {"device": name} | OWN_PERIOD | {"enrollment_status": status, "participation_preference": word}
                truth.wish[name] = word
            case ("our word of a meter", word, since):
                row = of_meter | {"enrollment_status": word} | ({} if since is None else {"since": since})
            case ("one more battery",):
                status = self._meter(number).programs[0]["enrollment_status"]
                row = of_meter | {"device": MORE[number], "enrollment_status": status}
                truth.behind[METERS[number]].add(MORE[number])
            case _:
                raise AssertionError(action)
        if not await self.both.state(row):
            assert await self.both.state(row)

    def _put(self, number: int, period: Period) -> None:
        self._meter(number).periods.put(period)

    def check(self) -> None:
        """What holds at any time."""
        said = judge_meanwhile(self.both)
        assert not said, "\n".join(said)

    async def end(self) -> None:
        """What is still on its way comes, the aggregator is asked once more, and both are to say the same: now, when it
        all comes again, and after a restart."""
        both = self.both
        both.process.fuse.left, both.process.reader.dies = None, False
        for operation in (Operation.METER_DISPATCH_SEARCH, Operation.ENROLLMENT_SEARCH):
            for _ in range(both.aggregator.unused(operation)):
                await (both.search if operation is Operation.METER_DISPATCH_SEARCH else both.sync)()
        for post in both.posts:
            await both.deliver(post)
        both.clock.advance(s=1)
        assert await both.sync()
        assert await both.search()
        # a late word about a slot that is too old for a search is believed by then
        await both.go(61)
        said = judge(both)
        before = len(both.process.asked)
        assert await both.search()
        assert await both.sync()
        if both.process.asked[before:]:
            said.append(f"submitted again: {both.process.asked[before:]}")
        if both.process.sync.newest is None or both.process.sync.newest.changed:
            said.append(f"stated again: {both.process.sync.newest}")
        await both.restart()
        said += [f"after a restart: {text}" for text in judge(both)]
        if both.process.asked:
            said.append(f"submitted again after a restart: {both.process.asked}")
        assert not said, "\n".join(said)


async def told(actions: Sequence[tuple[Action, int]], *, known: bool) -> None:
    """A history from its first start to its judgement."""
    with tempfile.TemporaryDirectory(prefix="in-step-", dir=MEMORY) as scratch:
        async with in_step(Path(scratch)) as both:
            history = History(both)
            await both.do(both.process.signal.caught_up())
            await history.begin(known=known)
            for action, wait_s in actions:
                await history.do(action)
                history.check()
                await both.go(wait_s)
                history.check()
            await history.end()


def play(actions: Sequence[tuple[Action, int]], *, known: bool = False) -> None:
    """Tell it."""
    asyncio.run(told(actions, known=known))


@dataclass(slots=True)
class Search:
    """Tries histories; `tried` of them so far."""

    tried: int = 0

    def run(self, number: int, count: int, *, shrink: bool = True) -> None:
        """Try `count` histories of the seed `number`, and raise what the first that breaks a promise has to say: shrunk
        to the least that does."""
        phases = [Phase.generate, *([Phase.shrink] if shrink else [])]

        @seed(number)
        @settings(max_examples=count, derandomize=False, phases=phases, suppress_health_check=list(HealthCheck),
                  deadline=None, database=None, report_multiple_bugs=False)  # fmt: skip
        @given(actions=HISTORIES, known=st.booleans())
        def histories(actions: list[tuple[Action, int]], known: bool) -> None:
            self.tried += 1
            play(actions, known=known)

        histories()

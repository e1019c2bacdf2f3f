"""Whatever comes while a tick awaits, drawn at random: answers, opt-outs, stops, a full disk, the end of the process.

Who is not to be given power any more wins at every await; nobody is under control without a release plan; and what is
asked for is given by those who may, also after that."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from gateway.domain.commands import CommandOp
from gateway.domain.errors import StorageError
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import ProductFacts
from gateway.domain.types import EventId, Mode
from tests.builders.fakes import FACTS
from tests.depth import SEED, deep
from tests.scenes.halts import Halts, Killed, Place
from tests.scenes.world import SETTINGS, World, group, homes_of

COUNT = 4
UNTIMED = ProductFacts(
    lease_s=120, command_latency_s=5, timed=False, efficiency_discharge=0.95, efficiency_charge=0.95, standby_w=30,
    soc_uncertainty_pct=5,
)  # fmt: skip
STEEP = SETTINGS.model_copy(update={"fleet_w_per_s": 1e9, "release_spread_s": 0.0})
AT_WRITES = (Place.WRITES, Place.WRITES_HALF, Place.WRITES_ALL)
STEERS = frozenset({CommandOp.SETPOINT, CommandOp.HOLD, CommandOp.BLOCK})
HANDED_BACK_S = 5
SETTLED_S = 30

Deed = tuple[Any, ...]
SLOT = st.integers(0, COUNT - 1)
MEANWHILE = st.one_of(
    st.tuples(st.just("answer")),
    *[st.tuples(st.just("out"), SLOT, st.just(how)) for how in ("by_rest", "from_the_event", "on_the_device")],
    st.tuples(st.just("stop")),
    st.tuples(st.just("kill"), st.sampled_from([0, 3])),
    st.tuples(st.just("disk"), st.booleans()),
)
BEFORE = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from([6_000, 2_000, -4_000, 18_000])),
    st.tuples(st.just("ask"), st.sampled_from([6_000, 2_000, -4_000, 18_000])),
    st.tuples(st.just("withdraw")),
    st.tuples(st.just("in"), SLOT),
    st.tuples(st.just("clear")),
    st.tuples(st.just("disk"), st.just(True)),
    st.tuples(st.just("reserve"), SLOT),
)
PLACES = st.sampled_from([Place.PLAN, Place.PLAN_DURABLE, *Place])
STEPS = st.lists(st.tuples(BEFORE, PLACES, MEANWHILE, st.sampled_from([1, 1, 6, 40])), min_size=1, max_size=8)


@dataclass(slots=True)
class Story:
    """A world and what may no longer happen in it: `barred` has the homes that may not be steered, and from which of
    the writes on; `unsure` those of them that a new process need not know of."""

    world: World
    halts: Halts = field(init=False)
    target_w: int | None = None
    revision: int = 0
    barred: dict[int, int] = field(default_factory=dict)
    unsure: set[int] = field(default_factory=set)
    out: dict[int, bool] = field(default_factory=dict)
    stopped: bool = False
    calm_s: int = 0
    at: Place = Place.PLAN

    def __post_init__(self) -> None:
        self.halts = Halts(self.world, Place.PLAN, self.nothing)

    async def nothing(self) -> None:
        """A stop at which nothing happens."""

    # -- what happens ------------------------------------------------------------------------------------------------

    async def before(self, deed: Deed) -> None:
        """Between two ticks. What the disk refuses did not happen."""
        world = self.world
        try:
            match deed:
                case ("ask", target_w):
                    await self.ask(target_w)
                case ("withdraw",):
                    await self.ask(None)
                case ("in", slot):
                    await self.back(slot)
                case ("clear",):
                    await world.dispatcher.stop_all(active=False, by="operator")
                    self.stopped = False
                    self.barred = {slot: at for slot, at in self.barred.items() if slot in self.out}
                case ("disk", well):
                    world.journal.failing = not well
                case ("reserve", slot):
                    world.homes.reserve_pct[slot] = 10.0
        except StorageError:
            assert world.journal.failing
        self.calm_s = 0

    async def ask(self, target_w: int | None) -> None:
        self.revision += 1
        answer = await self.world.submit(
            "e", s=3_600, target_w=target_w or 1_000, revision=self.revision, cancelled=target_w is None
        )
        if answer.reason is None:
            self.target_w = target_w

    async def back(self, slot: int) -> None:
        await self.world.dispatcher.lift(f"x{slot}")
        self.world.homes.opted_out.discard(slot)
        self.out.pop(slot, None)
        self.unsure.discard(slot)
        if not self.stopped:
            self.barred.pop(slot, None)

    async def meanwhile(self, deed: Deed) -> None:
        """While a tick awaits."""
        world = self.world
        match deed:
            case ("answer",):
                world.homes.answer()
            case ("out", slot, "on_the_device"):
                world.homes.opted_out.add(slot)
                world.homes.report(answers=False)
                self.bar(slot)
                self.out[slot] = True
            case ("out", slot, how):
                durable = await world.dispatcher.exclude(
                    Exclusion(id=f"x{slot}", reason="opt_out", group=group(f"home-{slot:02d}"), from_ms=world.clock.utc,
                              until_ms=None, event=EventId("e") if how == "from_the_event" else None)
                )  # fmt: skip
                self.bar(slot)
                self.out[slot] = durable or slot in world.homes.opted_out
            case ("stop",):
                durable = await world.dispatcher.stop_all(active=True, by="operator")
                self.stopped, self.target_w = True, None
                for slot in range(COUNT):
                    self.bar(slot)
                    if not durable:
                        self.unsure.add(slot)
            case ("kill", _):
                raise Killed
            case ("disk", well):
                world.journal.failing = not well
        self.calm_s = 0

    def bar(self, slot: int) -> None:
        """No command that steers it is written from now on; at the writes, after those that are under way."""
        self.barred.setdefault(slot, 1 << 60 if self.at in AT_WRITES else len(self.world.homes.writes))

    async def tick(self, place: Place, deed: Deed) -> None:
        self.at = place
        self.halts.again(place, lambda: self.meanwhile(deed))
        try:
            await self.world.go(1)
        except Killed:
            self.halts.again(place, self.nothing)
            self.forget()
            self.world.restart(away_s=deed[1])
        self.halts.again(place, self.nothing)
        most = len(self.world.homes.writes)
        self.barred = {slot: min(at, most) for slot, at in self.barred.items()}
        self.judge()

    def forget(self) -> None:
        """What was not durable when the process died need not be known to the next one."""
        lost = {slot for slot, durable in self.out.items() if not durable}
        for slot in lost:
            self.out.pop(slot)
        if self.unsure and self.stopped:
            self.stopped = self.world.journal.load().stopped
        self.unsure.clear()
        if not self.stopped:
            self.barred = {slot: at for slot, at in self.barred.items() if slot in self.out}

    async def wait(self, s: int) -> None:
        for _ in range(s):
            await self.world.go(1)
            self.calm_s += 1
            self.judge()

    # -- what is promised --------------------------------------------------------------------------------------------

    def judge(self) -> None:
        world, homes = self.world, self.world.homes
        remote = {slot for slot in range(COUNT) if homes.mode[slot] == Mode.REMOTE}
        planned = world.journal.load().controlled
        assert {f"home-{slot:02d}" for slot in remote} <= planned.keys()
        for slot, at in self.barred.items():
            assert not STEERS & {op for to, op, *_ in homes.writes[at:] if to == slot}, f"{slot} is steered"
        if self.calm_s > HANDED_BACK_S:
            assert not remote & self.barred.keys()
        if self.calm_s > SETTLED_S and not world.journal.failing and not self.stopped:
            may = COUNT - len(self.out)
            asked_w = self.target_w or 0
            given_w = min(max(asked_w, -5_000 * may), 5_000 * may)
            assert homes.battery_w.sum() == pytest.approx(given_w, rel=0.02, abs=60)

    async def end(self) -> None:
        world = self.world
        world.journal.failing = False
        await self.ask(None)
        await world.go(60)
        assert world.authority() == [Authority.DEVICE.name] * COUNT
        assert (world.homes.mode == Mode.SELF_CONSUMPTION).all()
        assert world.journal.load().controlled == {}


async def told(facts: ProductFacts, steps: list[tuple[Deed, Place, Deed, int]]) -> None:
    story = Story(World(homes_of(COUNT), settings=STEEP, facts=facts))
    await story.world.go(2)
    await story.ask(6_000)
    for before, place, deed, wait_s in steps:
        await story.before(before)
        await story.tick(place, deed)
        await story.wait(wait_s)
    await story.end()


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


def test_marks_whatever_comes_while_ticks_await_every_promise_is_kept(runner: asyncio.Runner) -> None:
    @seed(SEED)
    @settings(
        max_examples=deep(3_000, else_=20), derandomize=False, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(facts=st.sampled_from([FACTS, UNTIMED]), steps=STEPS)
    def stories(facts: ProductFacts, steps: list[tuple[Deed, Place, Deed, int]]) -> None:
        runner.run(told(facts, steps))

    stories()

"""Histories of settlement: what devices, operators, receivers, clocks, disks and processes may do to the way from a
message to a receiver, drawn at random and done to a plant.

A history is data (who is registered, what is done and how long it waits), so that it can be printed and made again.
"""

import asyncio
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from gateway.domain.intervals.types import IntervalRules
from tests.scenes.last_writes import ILL, last_writes
from tests.scenes.meters import Meter
from tests.scenes.settlement import Plant, products
from tests.scenes.settlement_judge import judge, judge_ledger
from tests.virtual.loop import VirtualLoop

Action = tuple[Any, ...]

COUNTING, INTEGRATING = 6, 3
COUNT = COUNTING + INTEGRATING
"""Of which three are meddled with: the others make a fleet, whose clocks together are believed against the
machine's."""
GAP_S = IntervalRules().gap_hold_s + 60
"""By then the energy of every gap has been shared by time, and what it changed is with the receiver."""
REST_S, REST_TRIES = 90, 20
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""A directory of real files that wait for no disk, where there is one."""

INDEX = st.sampled_from([0, 0, COUNTING, 1])
PRODUCT = st.sampled_from(["reference-mqtt", "second"])
STRANGE: tuple[bytes | dict[str, Any], ...] = (
    b"", b"{", b"[]", b"null", b"\xff\xfe", {"seq": None}, {"boot": "one"}, {"seq": 0}, {"t": None}, {"boot": -1},
    {"id": "somebody"}, {"t": "now"}, {"seq": 1.5},
)  # fmt: skip
"""What nobody can read, or nobody is to believe."""

ACTIONS = st.one_of(
    st.tuples(st.just("nothing")),
    st.tuples(st.just("repeat"), INDEX, st.integers(1, 40)),
    st.tuples(st.just("hold"), INDEX, st.sampled_from([2, 3, 7, 20])),
    st.tuples(st.just("silent"), INDEX, st.sampled_from([2, 9, 40])),
    st.tuples(st.just("strange"), INDEX, st.integers(0, len(STRANGE) - 1)),
    st.tuples(st.just("stray"), INDEX),
    st.tuples(st.just("reboot"), INDEX),
    st.tuples(st.just("off"), INDEX, st.sampled_from([-240, -30, 0, 30, 240])),
    st.tuples(st.just("wild"), INDEX),
    st.tuples(st.just("import"), INDEX, PRODUCT),
    st.tuples(st.just("import"), INDEX, PRODUCT),
    st.tuples(st.just("remove"), INDEX),
    st.tuples(st.just("place"), st.sampled_from([1, 2, None])),
    st.tuples(st.just("profile"), PRODUCT, st.booleans()),
    st.tuples(st.just("receiver"), st.sampled_from(["well", *ILL])),
    st.tuples(st.just("receiver"), st.sampled_from(["well", *ILL])),
    st.tuples(st.just("resend")),
    st.tuples(st.just("clock"), st.sampled_from([-1_200, -240, -50, 0, 0, 1_200])),
    st.tuples(st.just("event"), st.booleans()),
    st.tuples(st.just("disk"), st.sampled_from(["hangs", "well"])),
    st.tuples(st.just("kill"), st.sampled_from([0, 1, 2, 3, 5, 8, 10_000])),
    st.tuples(st.just("kill"), st.sampled_from([0, 1, 2, 3, 5, 8, 10_000])),
    st.tuples(st.just("restart")),
)
WAITS_S = st.sampled_from([0, 10, 20, 70, 70, 140, 300, 600])
ENROLLED = st.lists(st.sampled_from(["reference-mqtt", "reference-mqtt", "second", None]), min_size=2, max_size=2)
"""What two of the homes are registered as at first, one of each kind; None: they come later. The others are there."""


class History:
    """Does to a plant what it is told to."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant

    async def begin(self, enrolled: Sequence[str | None]) -> None:
        """A first start, and whoever is registered."""
        await self.plant.start()
        late = {0: enrolled[0], COUNTING: enrolled[1]}
        for index, meter in enumerate(self.plant.meters):
            product = late.get(index, "reference-mqtt")
            if product is not None:
                await self.plant.register(meter, product)

    async def do(self, action: Action) -> None:
        """Do it."""
        plant = self.plant
        match action:
            case ("nothing",):
                pass
            case ("import", index, product):
                await plant.register(plant.meters[index], product)
            case ("remove", index):
                await plant.remove(plant.meters[index])
            case ("place", number):
                await plant.place(number)
            case ("profile", product, there):
                (plant.installed.add if there else plant.installed.discard)(product)
            case ("receiver", how):
                plant.receiver.how = how
            case ("resend",):
                await plant.resend()
            case ("clock", s):
                plant.clock.step_ms = 1_000 * s
            case ("event", runs):
                plant.running = runs
            case ("disk", how):
                (plant.process.spool.gate.set if how == "well" else plant.process.spool.gate.clear)()
            case ("kill", jobs):
                await plant.kill(jobs)
            case ("restart",):
                await plant.restart()
            case (what, index, *how):
                self._of_device(plant.meters[index], what, *how)
            case _:
                raise AssertionError(action)

    def _of_device(self, meter: Meter, what: str, how: Any = None) -> None:
        match what:
            case "repeat":
                self.plant.publish(meter.sent[-how:][:1])
            case "hold":
                meter.held = how
            case "silent":
                meter.silent, meter.astray = how, True
            case "strange":
                self.plant.publish([meter.strange(STRANGE[how])])
            case "stray":
                self.plant.publish([meter.stray()])
            case "reboot":
                meter.reboot()
            case "off":
                meter.off_ms, meter.astray = 1_000 * how, True
            case "wild":
                meter.wild = True
            case _:
                raise AssertionError(what)

    async def check(self) -> None:
        """What holds at any time."""
        self.plant.problems += await judge_ledger(self.plant)

    async def end(self) -> None:
        """All is well again and everybody registered; once nothing moves any more, it is judged."""
        plant = self.plant
        plant.receiver.how = "well"
        plant.running = False
        plant.clock.step_ms = 0
        plant.installed = set(products())
        plant.process.spool.gate.set()
        await plant.restart()
        for meter in plant.meters:
            meter.off_ms = meter.silent = 0
            if meter.name not in plant.registered:
                await plant.register(meter, meter.product)
            plant.publish(meter.release())
        await plant.go(240)
        await self._rest()
        plant.problems += await judge(plant)
        await plant.stop()
        assert not plant.problems, "\n".join(plant.problems)

    async def _rest(self) -> None:
        """Until the receiver has been offered everything."""
        upstream = self.plant.process.upstream
        (delivery,) = upstream.deliveries
        await asyncio.sleep(GAP_S)
        for _ in range(REST_TRIES):
            delivery.retry()
            await asyncio.sleep(REST_S)
            if delivery.position.live == await upstream.log.end() and not delivery.position.backfill:
                break


def street(*, strict: bool) -> list[Meter]:
    """Homes with counters, then homes without."""
    return [
        Meter(name=f"home-{i}", counts=i < COUNTING, product="reference-mqtt", number=i, strict=strict)
        for i in range(COUNT)
    ]


async def told(enrolled: Sequence[str | None], actions: Sequence[tuple[Action, int]], *, strict: bool) -> None:
    """A history from its first start to its judgement."""
    with tempfile.TemporaryDirectory(prefix="settlement-", dir=MEMORY) as scratch:
        async with last_writes() as receiver:
            history = History(Plant(Path(scratch), receiver, street(strict=strict)))
            await history.begin(enrolled)
            await history.plant.go(70)
            for action, wait_s in actions:
                await history.do(action)
                await history.plant.go(wait_s)
                await history.check()
            await history.end()


def play(enrolled: Sequence[str | None], actions: Sequence[tuple[Action, int]], *, strict: bool = False) -> None:
    """Tell it in a time of its own; `strict` as in `Meter`."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(told(enrolled, actions, strict=strict))


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
        @given(enrolled=ENROLLED, actions=st.lists(st.tuples(ACTIONS, WAITS_S), min_size=1, max_size=8))
        def histories(enrolled: list[str | None], actions: list[tuple[Action, int]]) -> None:
            self.tried += 1
            play(enrolled, actions)

        histories()

"""A small fleet under control, moved by hand: devices report, control ticks, a second passes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gateway.clock import ManualClock, SteadyClock
from gateway.domain.commands import CommandOp
from gateway.domain.control.progress import Progress
from gateway.domain.events.book import Answer
from gateway.domain.events.request import EventKind, EventRequest, TargetGroup, power
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.device import Device
from gateway.domain.fleet.fleet import Fleet, ProductFacts
from gateway.domain.journal.changes import EventDelivered
from gateway.domain.rules.program import GridProgram
from gateway.domain.types import DeviceId, EventId
from gateway.services.control.loop import ControlLoop
from gateway.services.control.queries import ControlQueries
from gateway.services.events.delivery_records import Row, bodies
from gateway.services.events.intake import Dispatcher
from gateway.services.events.participation import Participation
from gateway.services.events.program_rules import ProgramRules
from gateway.services.runtime.clock_guard import ClockGuard
from gateway.services.settings import ControlSettings, ProgramSettings, SourceSettings
from tests.builders.fakes import FACTS, Homes, MemoryJournal, home

SETTINGS = ControlSettings(fleet_w_per_s=1_000.0, release_spread_s=10.0)


@dataclass(slots=True)
class World:
    """`trace` is the fleet's power in W, one value per second. `clock` is the machine's: moving its `utc` alone is what
    a step of the wall clock is. `release_only`: what the next process is."""

    devices: Sequence[Device]
    facts: ProductFacts = FACTS
    facts_of: dict[str, ProductFacts] = field(default_factory=dict)
    settings: ControlSettings = SETTINGS
    programs: Mapping[str, ProgramSettings] = field(default_factory=dict)
    sources: Mapping[str, SourceSettings] = field(default_factory=dict)
    rules: Mapping[str, GridProgram] = field(default_factory=dict)
    clock: ManualClock = field(default_factory=ManualClock)
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    release_only: bool = False
    participation: Callable[[Fleet], Participation] | None = None
    fleet: Fleet = field(init=False)
    homes: Homes = field(init=False)
    dispatcher: Dispatcher = field(init=False)
    control: ControlLoop = field(init=False)
    queries: ControlQueries = field(init=False)
    clock_guard: ClockGuard = field(init=False)
    trace: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._begin()
        self.homes = Homes(self.fleet, self.clock)
        self._attach()

    def _begin(self) -> None:
        self.fleet = Fleet()
        for device in self.devices:
            self.fleet.register(device, self.facts_of.get(device.id, self.facts))

    def _attach(self) -> None:
        remembered = self.journal.load()
        steady = SteadyClock(self.clock)
        self.dispatcher = Dispatcher(
            self.settings,
            fleet=self.fleet,
            journal=self.journal,
            clock=steady,
            release_only=self.release_only,
            programs=self.programs,
            sources=self.sources,
            rules=ProgramRules(self.rules, settings=self.programs, store=self.journal),
            participation=None if self.participation is None else self.participation(self.fleet),
        )
        self.dispatcher.load(remembered)
        self.control = ControlLoop(
            self.settings, fleet=self.fleet, dispatcher=self.dispatcher, link=self.homes,
            clock=steady, epoch=remembered.epoch, publishing=True,
            release_only=self.release_only,
        )  # fmt: skip
        self.control.records.know(remembered.delivered)
        self.control.load(remembered)
        self.queries = ControlQueries(
            self.control, fleet=self.fleet, dispatcher=self.dispatcher, clock=steady, tick_s=self.settings.tick_s
        )
        self.clock_guard = ClockGuard(steady, idle=self.queries.idle)
        self.homes.on_acks = self.control.observe_acks

    def restart(self, *, away_s: int) -> None:
        """The gateway dies, the homes live on; a new process finds the journal and nothing else."""
        for _ in range(away_s):
            self.clock.advance(s=1)
            self.homes.report(answers=False)
            self.trace.append(float(self.homes.battery_w.sum()))
        self._begin()
        self.homes.fleet = self.fleet
        self.homes.answers = []
        self._attach()

    async def go(self, s: int, *, each: Callable[[], None] | None = None) -> "World":
        """Let `s` seconds pass."""
        for _ in range(s):
            self.homes.report()
            self.clock_guard.observe()
            await self.control.tick()
            await self.control.pending.put_away()
            self.trace.append(float(self.homes.battery_w.sum()))
            if each is not None:
                each()
            self.clock.advance(s=1)
        return self

    def progress(self, name: str = "e") -> Progress:
        """How an event that runs is doing."""
        entry = self.dispatcher.entry(name)
        assert entry is not None
        found = self.queries.progress(entry)
        assert found is not None
        return found

    def state(self, name: str = "e") -> str:
        entry = self.dispatcher.entry(name)
        assert entry is not None
        return entry.state.value

    def rows(self, name: str = "e") -> dict[str, Row]:
        """The delivery records of an event that runs, or those of its occurrences that are over, by device."""
        entry = self.dispatcher.entry(name)
        assert entry is not None
        _, found = self.control.records.page(entry, self.dispatcher.members(entry.index, entry.request), slice(None))
        for change in self.journal.kept:
            if isinstance(change, EventDelivered) and change.event == name and not found:
                found = bodies(change.event, change.devices, change.columns)
        return {row["device"]: row for row in found}

    def event(self, name: str = "e", *, s: float, target_w: float | None, **other: object) -> EventRequest:
        """An event to everybody from now on."""
        made = EventRequest(
            id=EventId(name), revision=1, kind=EventKind.REAL, program="test", group=TargetGroup(all=True),
            start_ms=self.clock.utc, end_ms=self.clock.utc + round(s * 1000), target=power(target_w), priority=100,
        )  # fmt: skip
        return replace(made, **other)  # type: ignore[arg-type]

    async def submit(self, name: str = "e", *, s: float, target_w: float | None, **other: object) -> Answer:
        return await self.dispatcher.submit(self.event(name, s=s, target_w=target_w, **other))

    def authority(self) -> list[str]:
        return [Authority(int(value)).name for value in self.fleet.control.authority[: self.fleet.n]]

    def ops(self, slot: int | None = None) -> list[CommandOp]:
        return [op for at, op, *_ in self.homes.writes if slot in (None, at)]

    def steps_w(self) -> float:
        """The largest change of the fleet's power from one second to the next."""
        return float(np.abs(np.diff(self.trace)).max())


def homes_of(count: int, **other: object) -> list[Device]:
    return [home(f"home-{i:02d}", **other) for i in range(count)]


def group(*ids: str) -> TargetGroup:
    return TargetGroup(ids=tuple(DeviceId(name) for name in ids))

"""Histories of a few simulated homes: what a platform, operators, owners, homes, wires, disks, clocks and processes may
do to a gateway, drawn at random and done to a town.

A history is data (columns of the homes, what is done and how long it waits), so that it can be printed and made again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from gateway.domain.errors import StorageError
from gateway.domain.events.book import Outcome
from gateway.domain.events.request import Target, Want, power
from gateway.services.settings import MaintenanceSettings
from gateway.transports.mqtt.session import PublishOutcome
from simulators.battery import Batteries
from simulators.faults import Fault, FaultKind
from simulators.homes import Homes
from tests.builders.homes import homes, late
from tests.scenes.street import FAR_S, SETTINGS
from tests.scenes.town import CAPPED, Town

Action = tuple[Any, ...]

COUNT = 3
NOW_AGE_S_MAX = 60
MAINTENANCE = {
    "none": MaintenanceSettings(recovery_s=0),
    "full": MaintenanceSettings(recovery_s=60, full_charge_cycles=1),
}
SOURCES = st.sampled_from(["platform", "platform", "platform", "local"])
NAMES = st.sampled_from(["a", "a", "a", "b"])
INDEX = st.integers(0, COUNT - 1)
GROUPS = st.sampled_from([(), (), (0, 1), (2,)])
PROGRAMS = st.sampled_from(["test", CAPPED])
POWER_W = st.one_of(
    st.integers(-15_000, 15_000), st.sampled_from([15_000, 12_000, 6_000, -15_000, -6_000, 0])
)  # fmt: skip
TARGETS = st.one_of(
    POWER_W.map(power),
    POWER_W.map(power),
    st.just(power(None)),
    POWER_W.map(lambda w: Target(want=Want.DEVICE_POWER, power_w=w / COUNT)),
    st.sampled_from([5_000.0, -5_000.0]).map(lambda w: Target(want=Want.DEVICE_POWER, power_w=w)),
    st.integers(-2_000, 2_000).map(lambda w: Target(want=Want.FOLLOW_LOAD, power_w=w)),
    st.integers(5, 100).map(lambda pct: Target(want=Want.CHARGE_TO, soc_pct=pct)),
    st.sampled_from([Target(want=Want.IDLE), Target(want=Want.BACKUP), Target(want=Want.SELF_CONSUMPTION)]),
)
FAULTS = st.one_of(
    st.sampled_from([5.0, 60.0]).map(lambda s: Fault(kind=FaultKind.OFFLINE, for_s=s)),
    st.sampled_from([3.0, 20.0]).map(lambda s: Fault(kind=FaultKind.REBOOT, for_s=s)),
    st.sampled_from([20.0, 200.0]).map(lambda s: Fault(kind=FaultKind.STALE, for_s=s)),
    st.sampled_from([20.0, 200.0]).map(lambda s: Fault(kind=FaultKind.DEAF, for_s=s)),
    st.just(Fault(kind=FaultKind.ISLAND, for_s=30.0)),
    st.just(Fault(kind=FaultKind.FAULT_BITS, value=2.0, for_s=30.0)),
    st.just(Fault(kind=FaultKind.OWNER_MODE, for_s=1.0)),
    st.just(Fault(kind=FaultKind.LAG, value=8.0, for_s=30.0)),
    st.just(Fault(kind=FaultKind.GARBAGE, for_s=20.0)),
    st.just(Fault(kind=FaultKind.BACKLOG, for_s=40.0)),
)
FAILING = st.sampled_from([*[o for o in PublishOutcome if o is not PublishOutcome.ACKED], None])
SAYINGS = st.sampled_from(
    [{"opt_out": True}, {"locked": True}, {"opt_out": 1}, {"locked": "true"}, {"faults": -1}, {"grid": "off"}, {}]
)
ODD = st.sampled_from(
    [({"reserve_pct": 0}, 0), ({"reserve_pct": 7}, 0), *[({"reserve_pct": 7}, 100)] * 3, ({"soc_pct": 100}, 0)]
)
ANY_STREET = st.fixed_dictionaries(
    {
        "over_reserve_pct": st.lists(st.sampled_from([-10, 4, 8, 40, 40, 80]), min_size=COUNT, max_size=COUNT),
        "reserve_pct": st.lists(st.sampled_from([20, 5, 50, 100]), min_size=COUNT, max_size=COUNT),
        "capacity_wh": st.lists(st.sampled_from([500, 10_000, 10_000]), min_size=COUNT, max_size=COUNT),
        "export_allowed": st.lists(st.sampled_from([True, True, False]), min_size=COUNT, max_size=COUNT),
        "grid_charge_allowed": st.lists(st.sampled_from([True, True, False]), min_size=COUNT, max_size=COUNT),
        "pv_peak_w": st.lists(st.sampled_from([0, 6_000]), min_size=COUNT, max_size=COUNT),
        "site_index": st.sampled_from([(0, 1, 2), (0, 0, 1)]),
        "fleet_w_per_s": st.sampled_from([20_000.0, 1_000.0, 250.0]),
        "dead_s": st.sampled_from([0, 0, 8]),
        "maintenance": st.sampled_from(["none", "none", "none", "full"]),
    }
)

ROOMY: dict[str, Any] = {
    "over_reserve_pct": [40] * COUNT, "reserve_pct": [20] * COUNT, "capacity_wh": [10_000] * COUNT,
    "export_allowed": [True] * COUNT, "grid_charge_allowed": [True] * COUNT, "pv_peak_w": [0] * COUNT,
    "site_index": tuple(range(COUNT)), "fleet_w_per_s": 20_000.0, "dead_s": 0, "maintenance": "none",
}  # fmt: skip
"""Homes that can do whatever they are asked for: what an event lacks is not their fault."""
ROOMY_STREET = st.sampled_from([ROOMY | {"fleet_w_per_s": 1_000.0}, ROOMY | {"fleet_w_per_s": 250.0}])
STREETS = st.one_of(ANY_STREET, ANY_STREET, ANY_STREET, ROOMY_STREET)


def submits() -> SearchStrategy[Action]:
    """Made anew for each time that they are to count: the same one twice counts once."""
    return st.tuples(
        st.just("submit"), SOURCES, NAMES, TARGETS, st.sampled_from([-20, 0, 0, 10]),
        st.sampled_from([20, 90, 90, 400, None]), GROUPS, PROGRAMS,
    )  # fmt: skip


FIRSTS = st.tuples(
    st.just("submit"), st.just("platform"), st.just("a"), TARGETS, st.just(0),
    st.sampled_from([400, 400, 90, 20, None]), st.sampled_from([(), (), (0, 1), (0, 1), (2,)]), PROGRAMS,
)  # fmt: skip
ACTIONS = st.one_of(
    submits(),
    submits(),
    submits(),
    st.tuples(st.just("withdraw"), SOURCES, NAMES),
    st.tuples(st.just("end"), SOURCES, NAMES, st.sampled_from([30, 90, None])),
    st.tuples(st.just("cancel"), SOURCES, NAMES, st.booleans()),
    st.tuples(st.just("lift"), SOURCES, NAMES),
    st.tuples(st.just("many"), st.integers(2, 12), st.sampled_from([20, 60, 400])),
    st.tuples(st.just("now"), st.sampled_from([None, 0, 30, 90, 3_600])),
    st.tuples(st.just("stop"), st.sampled_from([True, True, False])),
    st.tuples(st.just("fault"), INDEX, FAULTS),
    st.tuples(st.just("reserve"), INDEX, st.integers(0, 100)),
    st.tuples(st.just("odd"), INDEX, ODD),
    st.tuples(st.just("odd"), INDEX, ODD),
    st.tuples(st.just("says"), INDEX, SAYINGS),
    st.tuples(st.just("out"), INDEX),
    st.tuples(st.just("in"), INDEX),
    st.tuples(st.just("move"), INDEX),
    st.tuples(st.just("failing"), INDEX, FAILING),
    st.tuples(st.just("wire"), st.sampled_from([False, False, True])),
    st.tuples(st.just("blind"), st.sampled_from([True, True, False])),
    st.tuples(st.just("reading"), st.booleans()),
    st.tuples(st.just("disk"), st.sampled_from(["full", "slow", "well"])),
    st.tuples(st.just("step"), st.sampled_from([-10_800, 5, 172_800])),
    st.tuples(st.just("kill"), st.sampled_from(["before", "after"])),
    st.tuples(st.just("restart"), st.sampled_from([0, 30, 130]), st.sampled_from([None, None, 0, 2])),
)
BEGINNINGS = st.one_of(
    st.tuples(st.lists(ACTIONS, max_size=2), FIRSTS),
    st.tuples(st.lists(ACTIONS, max_size=2), FIRSTS),
    # events that stand still beside the one that moves
    st.tuples(
        st.tuples(st.tuples(st.just("many"), st.integers(4, 8), st.just(400))),
        st.tuples(
            st.just("submit"), st.just("platform"), st.just("a"), POWER_W.map(power), st.just(0), st.just(400),
            st.just((0, 1)), PROGRAMS,
        ),
    ),
)  # fmt: skip
"""What was there before, and the first event."""
WAITS_S = st.sampled_from([1, 5, 20, 60, 60, 130])


def town_of(drawn: dict[str, Any]) -> Town:
    """Homes of such columns; batteries of 5 kW each."""
    columns = dict(drawn)
    maintenance, w_per_s = columns.pop("maintenance"), columns.pop("fleet_w_per_s")
    dead_s = columns.pop("dead_s")
    values = {name: np.array(column) for name, column in columns.items()}
    values["soc_start_pct"] = np.clip(values["reserve_pct"] + values.pop("over_reserve_pct"), 8, 100)
    site = values["site_index"]
    for name in ("export_allowed", "pv_peak_w"):  # of the home, or one per home
        values[name] = values[name][site] if name == "export_allowed" else values[name][: site.max() + 1]
    for name in ("soc_start_pct", "reserve_pct", "capacity_wh", "pv_peak_w"):
        values[name] = values[name].astype(np.float64)
    made: Homes = homes(
        COUNT, discharge_w_max=5_000.0, charge_w_max=5_000.0, slew_w_per_s=3_000.0, response_s=1.5,
        site_export_w_max=np.where(values["export_allowed"], np.inf, 0.0), site_import_w_max=np.inf,
        sites=tuple(f"site-{i}" for i in site), load_base_w=np.full(site.max() + 1, 500.0), **values,
    )  # fmt: skip
    changed = {"fleet_w_per_s": w_per_s, "maintenance": MAINTENANCE[maintenance]}
    return Town(
        made,
        settings=SETTINGS.model_copy(update=changed),
        maintained=maintenance != "none",
        dead_s=dead_s,
        physics=late(dead_s) if dead_s else Batteries,
    )


class History:
    """Does to a town what it is told to."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.revisions: dict[tuple[str, str], int] = {}
        self._count = 0

    async def do(self, action: Action) -> None:
        """Do it; what the disk refuses did not happen."""
        try:
            await self._ask(action)
        except StorageError:
            assert self.town.journal.failing

    def _next(self, source: str, name: str) -> int:
        self.revisions[source, name] = self.revisions.get((source, name), 0) + 1
        return self.revisions[source, name]

    async def _ask(self, action: Action) -> None:
        town = self.town
        match action:
            case ("submit", source, name, target, in_s, s, group, program):
                await town.ask(
                    source, name, target, revision=self._next(source, name), in_s=in_s, s=s, homes=group,
                    program=program,
                )  # fmt: skip
            case ("withdraw", source, name):
                await self._revise(source, name, cancelled=True)
            case ("end", source, name, in_s):
                await self._end(source, name, in_s)
            case ("cancel", source, name, insists):
                await town.call_off(source, name)
                await self._revise(source, name, cancelled=False if insists else None)
            case ("lift", source, name):
                await town.lift(source, name)
            case ("many", count, s):
                for _ in range(count):
                    self._count += 1
                    target = Target(want=Want.DEVICE_POWER, power_w=200.0)
                    await town.ask("local", f"many-{self._count}", target, revision=1, s=s, homes=(2,))
            case ("now", age_s):
                await self._now(age_s)
            case ("stop", active):
                await town.stop(active=active)
            case ("out", index):
                await town.opt_out(index)
            case ("in", index):
                await town.opt_in(index)
            case ("move", index):
                await town.move(index)
            case ("restart", away_s, missing):
                town.missing = frozenset() if missing is None else frozenset({missing})
                await town.restart(away_s=away_s)
            case _:
                self._befall(action)

    async def _revise(self, source: str, name: str, *, cancelled: bool | None) -> None:
        """A source sends its event once more, or calls it off; None: it does not."""
        wish = self.town.wishes.get((source, name))
        if wish is not None and cancelled is not None:
            revision = self._next(source, name)
            await self.town.ask(source, name, wish.target, revision=revision, s=90, cancelled=cancelled)

    async def _end(self, source: str, name: str, in_s: int | None) -> None:
        """A source gives its event another end, so many seconds from now; None: it takes it away."""
        wish = self.town.wishes.get((source, name))
        if wish is not None:
            from_s = (wish.start_ms - self.town.time.now().utc_ms) / 1000
            s = None if in_s is None else in_s - min(from_s, 0)
            revision = self._next(source, name)
            await self.town.ask(source, name, wish.target, revision=revision, in_s=from_s, s=s)

    async def _now(self, age_s: int | None) -> None:
        """An event that says "now" and was sent some time ago; nobody knows when, if None."""
        town = self.town
        self._count += 1
        sent_ms = None if age_s is None else town.time.now().utc_ms - 1_000 * age_s
        answer = await town.submit(f"now-{self._count}", s=30, target=power(3_000), anchored=True, sent_ms=sent_ms)
        if answer.outcome is Outcome.ACCEPTED:
            town.expect_all(until_ms=town.time.now().utc_ms + 30_000)
            if age_s is None or age_s > NOW_AGE_S_MAX:
                town.problems.append(f"a now of {age_s} s ago was carried out")

    def _befall(self, action: Action) -> None:
        town = self.town
        match action:
            case ("fault", index, fault):
                town.inject(index, fault)
            case ("reserve", index, pct):
                # nobody could know of a choice that the home never reports
                town.odd.pop(index, None)
                town.inject(index, Fault(kind=FaultKind.OWNER_RESERVE, value=float(pct)))
            case ("odd", index, (said, for_s)):
                town.odd[index] = (said, town.now_ms + 1_000 * for_s)
            case ("says", index, said):
                town.say(index, said)
            case ("failing", index, outcome):
                town.fail(index, outcome)
            case ("wire", up):
                town.wire.up = up
            case ("blind", blind):
                town.blind = blind
            case ("reading", reading):
                town.reading = reading
            case ("disk", how):
                town.journal.failing, town.journal.slow = how == "full", how == "slow"
            case ("step", s):
                town.clock.utc += s * 1_000
                town.stepped = True
            case ("kill", where):
                town.journal.kill = where
            case _:
                raise AssertionError(action)

    async def end(self) -> None:
        """All is well again and everything is called off: in the end nobody is under control, and every record is
        there."""
        town = self.town
        town.journal.failing = town.journal.slow = town.blind = False
        town.journal.kill = None
        town.reading = town.wire.up = True
        for index in list(town.failing):
            town.fail(index, None)
        for name in list(town.asked):
            await town.cancel(name)
        town.wishes.clear()
        if town.maintained:
            await town.stop(active=True)
        if town.registry.departures and town.missing:
            # nobody leaves a place whose product nobody knows
            town.missing = frozenset()
            await town.restart(away_s=0)
        await town.go(30, tick_s=10)
        await town.go(FAR_S - 30, tick_s=(FAR_S - 30) / 2)
        town.judge_records()
        if town.remote.any():
            town.problems.append("somebody is under control after everything was cancelled")
        if town.registry.departures:
            town.problems.append(f"{sorted(town.registry.departures)} have not left their places")
        town.keep()


async def short(
    columns: dict[str, Any], before: Sequence[Action], first: Action, actions: Sequence[tuple[Action, int]]
) -> None:
    """An event that begins at once, what was there before, and what comes between."""
    history = History(town_of(columns))
    await history.town.go(1)
    for action in before:
        await history.do(action)
        await history.town.go(1)
    await history.do(first)
    await history.town.go(4, tick_s=2)
    for action, wait_s in actions:
        await history.do(action)
        await history.town.go(wait_s, tick_s=max(1.0, min(wait_s / 3, 5.0)))
        history.town.keep()
    await history.end()


@dataclass(slots=True)
class Search:
    """Tries short histories; `tried` of them so far."""

    tried: int = 0

    def run(self, number: int, count: int, *, shrink: bool = True) -> None:
        """Try `count` histories of the seed `number`, and raise what the first that breaks a promise has to say: shrunk
        to the least that does."""
        phases = [Phase.generate, *([Phase.shrink] if shrink else [])]

        @seed(number)
        @settings(max_examples=count, derandomize=False, phases=phases, suppress_health_check=list(HealthCheck),
                  deadline=None, database=None)  # fmt: skip
        @given(
            columns=STREETS, beginning=BEGINNINGS,
            actions=st.lists(st.tuples(ACTIONS, WAITS_S), min_size=1, max_size=5),
        )  # fmt: skip
        def histories(
            columns: dict[str, Any], beginning: tuple[Sequence[Action], Action], actions: list[tuple[Action, int]]
        ) -> None:
            self.tried += 1
            runner.run(short(columns, *beginning, actions))

        with asyncio.Runner() as runner:
            histories()

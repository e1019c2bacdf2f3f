"""Histories of a few simulated homes: events, revisions, cancels, opt-outs, clock steps, link losses, reserves that
change, restarts. Judged from the simulated batteries and from the commands that reached them: no discharge below a
reserve, nothing under control after its time, no older command applied, and what a home may not do it does not do.

The small count runs with every test; `make test-deep` makes 20,000 short histories and 500 long ones. (100,000 each:
`test_written` in the domain, `test_commands` here.)
"""

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.domain.events.request import Target, Want, power
from simulators.faults import Fault, FaultKind
from simulators.homes import Homes
from tests.builders.homes import homes
from tests.depth import SEED, deep
from tests.scenes.street import FAR_S, Street

COUNT = 3
NAMES = st.sampled_from(["a", "b", "c"])
INDEX = st.integers(0, COUNT - 1)
POWER_W = st.one_of(st.integers(-15_000, 15_000), st.sampled_from([15_000, 6_000, -15_000, 0]))
TARGETS = st.one_of(
    POWER_W.map(power),
    st.just(power(None)),
    POWER_W.map(lambda w: Target(want=Want.DEVICE_POWER, power_w=w / COUNT)),
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
STREETS = st.fixed_dictionaries(
    {
        "over_reserve_pct": st.lists(st.sampled_from([-10, 4, 8, 40, 80]), min_size=COUNT, max_size=COUNT),
        "reserve_pct": st.lists(st.sampled_from([20, 5, 50, 100]), min_size=COUNT, max_size=COUNT),
        "capacity_wh": st.lists(st.sampled_from([500, 3_000, 10_000]), min_size=COUNT, max_size=COUNT),
        "export_allowed": st.lists(st.booleans(), min_size=COUNT, max_size=COUNT),
        "grid_charge_allowed": st.lists(st.booleans(), min_size=COUNT, max_size=COUNT),
        "pv_peak_w": st.lists(st.sampled_from([0, 6_000]), min_size=COUNT, max_size=COUNT),
        "site_index": st.sampled_from([(0, 1, 2), (0, 0, 1)]),
    }
)


def street_of(columns: dict[str, Any]) -> Street:
    """Homes of such columns; batteries of 5 kW each."""
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
    return Street(made)


@pytest.fixture(scope="module")
def runner() -> Any:
    with asyncio.Runner() as made:
        yield made


ACTIONS = st.one_of(
    st.tuples(st.just("submit"), NAMES, TARGETS, st.sampled_from([-20, 0, 10]), st.sampled_from([20, 90, 400])),
    st.tuples(st.just("submit"), NAMES, TARGETS, st.just(0), st.just(400)),
    st.tuples(st.just("cancel"), NAMES),
    st.tuples(st.just("fault"), INDEX, FAULTS),
    st.tuples(st.just("reserve"), INDEX, st.integers(0, 100)),
    st.tuples(st.just("out"), INDEX),
    st.tuples(st.just("in"), INDEX),
    st.tuples(st.just("wire"), st.booleans()),
    st.tuples(st.just("step"), st.sampled_from([-10_800, 5, 172_800])),
    st.tuples(st.just("restart"), st.sampled_from([0, 30])),
)
WAITS_S = st.sampled_from([1, 5, 20, 60, 60])


class History:
    """Does to a street what it is told to."""

    def __init__(self, street: Street) -> None:
        self.street = street
        self.revisions: dict[str, int] = {}

    async def do(self, action: tuple[Any, ...]) -> None:
        street = self.street
        match action:
            case ("submit", name, target, in_s, s):
                self.revisions[name] = self.revisions.get(name, 0) + 1
                await street.submit(name, in_s=in_s, s=s, target=target, revision=self.revisions[name])
            case ("cancel", name):
                await street.cancel(name)
                # or no later revision in the history would run
                await street.dispatcher.lift_cancel(name)
            case ("fault", index, fault):
                street.inject(index, fault)
            case ("reserve", index, pct):
                street.inject(index, Fault(kind=FaultKind.OWNER_RESERVE, value=float(pct)))
            case ("out", index):
                await street.opt_out(index)
            case ("in", index):
                await street.opt_in(index)
            case ("wire", up):
                street.wire.up = up
            case ("step", s):
                street.clock.utc += s * 1_000
            case ("restart", away_s):
                await street.restart(away_s=away_s)
            case _:
                raise AssertionError(action)

    async def end(self) -> None:
        """Everything is called off; in the end nobody is under control."""
        street = self.street
        street.wire.up = True
        for name in list(street.asked):
            await street.cancel(name)
        await street.go(30, tick_s=10)
        await street.go(FAR_S - 30, tick_s=(FAR_S - 30) / 2)
        assert not street.remote.any(), "under control after everything was cancelled"
        assert street.problems == []


async def short(columns: dict[str, Any], first: Target, actions: list[tuple[tuple[Any, ...], int]]) -> None:
    """An event that begins at once, and what comes between."""
    history = History(street_of(columns))
    await history.street.go(1)
    await history.do(("submit", "a", first, 0, 400))
    await history.street.go(4, tick_s=2)
    for action, wait_s in actions:
        await history.do(action)
        await history.street.go(wait_s, tick_s=max(1.0, wait_s / 3))
        assert history.street.problems == []
    await history.end()


@pytest.mark.parametrize("part", range(20))
def test_history_that_is_short_keeps_to_its_limits_and_ends_free(runner: asyncio.Runner, part: int) -> None:
    @seed(SEED + part)
    @settings(max_examples=deep(1_000, else_=5), derandomize=False)
    @given(columns=STREETS, first=TARGETS, actions=st.lists(st.tuples(ACTIONS, WAITS_S), min_size=1, max_size=4))
    def histories(columns: dict[str, Any], first: Target, actions: list[tuple[tuple[Any, ...], int]]) -> None:
        runner.run(short(columns, first, actions))

    histories()


class Histories(RuleBasedStateMachine):
    """The same, long and second by second: what happens next depends on nothing but the order that is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.history: History | None = None

    @initialize(columns=STREETS)
    def begin(self, columns: dict[str, Any]) -> None:
        self.history = History(street_of(columns))
        self.runner.run(self.history.street.go(2))

    @rule(action=ACTIONS)
    def happens(self, action: tuple[Any, ...]) -> None:
        assert self.history is not None
        self.runner.run(self.history.do(action))

    @rule(s=st.sampled_from([1, 3, 10, 45, 130]))
    def passes(self, s: int) -> None:
        assert self.history is not None
        self.runner.run(self.history.street.go(s))

    @invariant()
    def nothing_is_broken(self) -> None:
        assert self.history is None or self.history.street.problems == []

    def teardown(self) -> None:
        with self.runner:
            if self.history is not None:
                self.runner.run(self.history.end())


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=deep(500, else_=4), stateful_step_count=deep(60, else_=25))

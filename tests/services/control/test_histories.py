"""Histories of a few simulated homes: events of several sources, withdrawals, an operator's cancellations, stops,
opt-outs, odd readings, homes that cannot be told or not be seen, imports, disks that are full or slow, clock steps,
restarts and kills. Judged from outside by what a gateway promises, see `tests/scenes/town`.

The small count runs with every test; `make test-deep` makes 20,000 short histories and 500 long ones, and
`python -m tests.histories` as many as are asked for. (100,000 each: `test_written` in the domain, `test_commands`
here.)
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.domain.events.request import Target, Want, power
from gateway.transports.mqtt.session import PublishOutcome
from tests.depth import SEED, deep
from tests.scenes.histories import ACTIONS, ROOMY, STREETS, Action, History, Search, short, town_of
from tests.scenes.town import CAPPED


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.mark.parametrize("part", range(20))
def test_history_that_is_short_keeps_every_promise_and_ends_free(part: int) -> None:
    Search().run(SEED + part, deep(1_000, else_=5))


def test_history_whose_disk_is_full_before_an_event_begins_tells_what_nobody_can_be_commanded_for(
    runner: asyncio.Runner,
) -> None:
    """Seldom drawn: the event is accepted, and its homes are not under control yet."""
    first = ("submit", "platform", "a", power(3_000), 0, 400, (0, 1), "test")
    later = ("submit", "local", "b", power(5_000), 10, 400, (2,), "test")
    runner.run(short(ROOMY, (), first, [(later, 1), (("disk", "full"), 130), (("disk", "well"), 60)]))


def test_history_of_an_event_that_turns_while_others_stand_still_gets_their_part_of_the_ramp(
    runner: asyncio.Runner,
) -> None:
    first = ("submit", "platform", "a", power(8_000), 0, 400, (0, 1), "test")
    turned = ("submit", "platform", "a", power(-8_000), 0, 400, (0, 1), "test")
    runner.run(short(ROOMY | {"fleet_w_per_s": 250.0}, [("many", 8, 400)], first, [(turned, 130), (turned, 20)]))


def test_history_of_a_program_with_a_ceiling_that_asks_for_more_of_each_home_keeps_it(runner: asyncio.Runner) -> None:
    each = Target(want=Want.DEVICE_POWER, power_w=3_500.0)
    runner.run(short(ROOMY, (), ("submit", "platform", "a", each, 0, 400, (), CAPPED), [(("in", 0), 130)]))


def test_history_of_an_event_that_turns_before_slow_batteries_have_followed_it_puts_nobody_in_quarantine(
    runner: asyncio.Runner,
) -> None:
    """For some seconds they do the opposite of the newest setpoint."""
    first = ("submit", "platform", "a", power(12_000), 0, 400, (), "test")
    turned = ("submit", "platform", "a", power(-12_000), 0, 400, (), "test")
    runner.run(short(ROOMY | {"dead_s": 8}, (), first, [(turned, 20), (("in", 0), 20)]))


def test_history_of_a_home_that_moves_while_nobody_knows_what_of_its_commands_arrives(runner: asyncio.Runner) -> None:
    """The lease of a command that did not arrive is shorter than the one that runs."""
    first = ("submit", "platform", "a", power(309), 0, 400, (), "test")
    lost = ("failing", 0, PublishOutcome.UNKNOWN)
    moved = [(("move", 0), 5), (lost, 5), (("move", 0), 20), (("now", None), 60)]
    runner.run(short(ROOMY | {"fleet_w_per_s": 1_000.0}, (), first, moved))


def test_history_of_an_opt_out_that_was_never_durable_and_a_process_that_dies_is_forgotten(
    runner: asyncio.Runner,
) -> None:
    """Its owner was told so. One that is durable when the process dies is kept."""
    first = ("submit", "platform", "a", power(3_000), 0, 400, (), "test")
    lost = [(("disk", "full"), 1), (("kill", "before"), 1), (("out", 0), 20), (("disk", "well"), 20)]
    kept = [(("disk", "full"), 1), (("out", 0), 5), (("disk", "well"), 20), (("restart", 0, None), 60)]
    for actions in (lost, kept):
        runner.run(short(ROOMY, (), first, actions))


def test_history_of_a_reserve_that_an_owner_raised_before_the_process_died_is_kept_whatever_the_home_says(
    runner: asyncio.Runner,
) -> None:
    """The choice was durable, and a lower report is none before it is confirmed."""
    first = ("submit", "platform", "a", power(15_000), 0, 400, (), "test")
    chosen = [(("reserve", 1, 60), 1), (("odd", 1, ({"reserve_pct": 7}, 100)), 1), (("kill", "before"), 1)]
    runner.run(short(ROOMY | {"fleet_w_per_s": 1_000.0}, (), first, [*chosen, (("now", 0), 60)]))


def test_history_of_a_home_that_leaves_its_place_once_its_product_is_installed_again(runner: asyncio.Runner) -> None:
    first = ("submit", "platform", "a", power(0), 0, 400, (), "test")
    runner.run(short(ROOMY, (), first, [(("move", 2), 1), (("restart", 0, 2), 1)]))


class Histories(RuleBasedStateMachine):
    """The same, long and second by second: what happens next depends on nothing but the order that is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.history: History | None = None

    @initialize(columns=STREETS)
    def begin(self, columns: dict[str, Any]) -> None:
        self.history = History(town_of(columns))
        self.runner.run(self.history.town.go(2))

    @rule(action=ACTIONS)
    def happens(self, action: Action) -> None:
        assert self.history is not None
        self.runner.run(self.history.do(action))

    @rule(s=st.sampled_from([1, 3, 10, 45, 130]))
    def passes(self, s: int) -> None:
        assert self.history is not None
        self.runner.run(self.history.town.go(s))

    @invariant()
    def every_promise_is_kept(self) -> None:
        if self.history is not None:
            self.history.town.keep()

    def teardown(self) -> None:
        with self.runner:
            if self.history is not None:
                self.runner.run(self.history.end())


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=deep(500, else_=4), stateful_step_count=deep(60, else_=25))

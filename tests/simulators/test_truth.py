"""The judges of a disturbance, on made-up traces: each lets the good run through and stops the bad one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulators import truth
from simulators.battery import Mode
from simulators.homes import make_homes
from simulators.oracle import (
    Verdict,
    Window,
    expected_of_polled,
    judge_charging,
    judge_ended,
    judge_safety,
    judge_steps,
    judge_tracking,
)
from simulators.recorder import Trace
from simulators.told import Told

T0 = 1_800_000_000_000
S, N = 240, 10


def trace(**columns: Any) -> Trace:
    """Ten homes under control for four minutes, 1 kW each, a sample a second."""
    shape = (S, N)
    whole: dict[str, Any] = {
        name: np.zeros(shape, dtype=np.float32)
        for name in ("true_soc_pct", "grid_w", "load_w", "pv_w", "reserve_pct", "setpoint_w")
    }
    whole |= {
        "t_ms": T0 + 1000 * np.arange(S), "battery_w": np.full(shape, 1000, dtype=np.float32),
        "available_w": np.full(shape, 5000, dtype=np.float32), "mode": np.full(shape, Mode.REMOTE, dtype=np.int8),
        "islanded": np.zeros(shape, dtype=np.bool_), "reachable": np.ones(shape, dtype=np.bool_),
        "command": np.ones(shape, dtype=np.int64), "lease_end_ms": np.zeros(shape, dtype=np.int64),
    }  # fmt: skip
    return Trace(**(whole | columns))


WINDOW = Window(id="e", start_ms=T0, end_ms=T0 + S * 1000, target_w=10_000)
ALL = np.ones(N, dtype=np.bool_)


def told(second: int, delivered_w: float) -> Told:
    return Told(asked_ms=T0 + 1000 * second, t_ms=T0 + 1000 * second, delivered_w=delivered_w, assumed_w=0)


NOBODY = np.zeros((S, N), dtype=np.bool_)
EVERY_1_S = np.ones(N)
EVERY_5_S = np.full(N, 5.0)


def problems(judge: Any, *args: Any, **more: Any) -> list[str]:
    verdict = Verdict()
    judge(*args, verdict=verdict, **more)
    return verdict.problems


def test_time_that_stands_still_with_the_broker_is_a_problem() -> None:
    assert problems(truth.judge_time, trace()) == []
    t_ms = T0 + 1000 * np.arange(S)
    t_ms[100:] += 20_000
    assert problems(truth.judge_time, trace(t_ms=t_ms)) == ["the batteries' time stood still for 21.0 s"]


def test_what_is_called_delivered_must_have_been_there_shortly_before() -> None:
    battery_w = np.full((S, N), 1000, dtype=np.float32)
    battery_w[100:] = 200
    made = trace(battery_w=battery_w)
    good = [told(50, 10_000), told(105, 10_000), told(120, 2_000), told(200, 0)]
    assert problems(truth.judge_told, made, good, EVERY_1_S, NOBODY) == []
    assert problems(truth.judge_told, made, [*good, told(120, 10_000)], EVERY_1_S, NOBODY) == [
        "8000 W were called delivered and were not there"
    ]


@pytest.mark.parametrize(
    ("second", "period_s", "held"), [(116, 1, True), (119, 1, False), (126, 5, True), (129, 5, False)]
)
def test_reading_counts_for_five_periods_and_fifteen_seconds_at_least(second: int, period_s: float, held: bool) -> None:
    battery_w = np.full((S, N), 1000, dtype=np.float32)
    battery_w[100:] = 200
    answers = [told(second, 10_000)]
    found = problems(truth.judge_told, trace(battery_w=battery_w), answers, np.full(N, period_s), NOBODY)
    assert (found == []) is held


def test_answer_that_comes_late_is_judged_from_when_it_was_asked_for() -> None:
    battery_w = np.full((S, N), 1000, dtype=np.float32)
    battery_w[100:] = 200
    late = Told(asked_ms=T0 + 116_000, t_ms=T0 + 119_000, delivered_w=10_000, assumed_w=0)
    assert problems(truth.judge_told, trace(battery_w=battery_w), [late], EVERY_1_S, NOBODY) == []


def moved() -> Trace:
    """Half of the homes give 2 kW; after 100 s it is the others that do."""
    battery_w = np.zeros((S, N), dtype=np.float32)
    battery_w[:100, :5] = 2000
    battery_w[100:, 5:] = 2000
    return trace(battery_w=battery_w)


def test_homes_that_are_read_at_different_times_may_be_seen_at_their_most_together() -> None:
    answers = [told(102, 20_000), told(104, 14_000), told(140, 10_000)]
    assert problems(truth.judge_told, moved(), answers, EVERY_5_S, NOBODY) == []


@pytest.mark.parametrize("since_s", [30, 60, 110, 200])
def test_tenth_too_much_for_twenty_seconds_is_seen_even_after_power_has_moved(since_s: int) -> None:
    def answers(part: float) -> list[Told]:
        lied = range(since_s, since_s + 20)
        return [told(second, 10_000 * (part if second in lied else 1.0)) for second in range(20, S - 10)]

    assert problems(truth.judge_told, moved(), answers(1.0), EVERY_1_S, NOBODY) == []
    assert problems(truth.judge_told, moved(), answers(1.1), EVERY_1_S, NOBODY) == [
        "1000 W were called delivered and were not there"
    ]


def test_what_nobody_hears_must_not_be_called_delivered_however_true_it_is() -> None:
    made, dark = trace(), truth.unheard_in(trace(), range(4), (T0 + 60_000, T0 + 160_000))
    good = [told(50, 10_000), told(75, 10_000), told(100, 6_000), told(161, 10_000)]
    assert problems(truth.judge_told, made, good, EVERY_1_S, dark) == []
    assert problems(truth.judge_told, made, [*good, told(100, 10_000)], EVERY_1_S, dark) == [
        "4000 W were called delivered and were not there"
    ]


def test_home_that_charges_and_is_not_heard_may_be_left_out_of_what_is_delivered() -> None:
    battery_w = np.full((S, N), 1000, dtype=np.float32)
    battery_w[:, :4] = -1000
    made = trace(battery_w=battery_w)
    dark = truth.unheard_in(made, range(4), (T0 + 60_000, T0 + 160_000))
    assert problems(truth.judge_told, made, [told(100, 6_000)], EVERY_1_S, dark) == []
    assert len(problems(truth.judge_told, made, [told(100, 6_000)], EVERY_1_S, NOBODY)) == 1


@pytest.mark.parametrize(("until_s", "held"), [(106, True), (118, True), (123, False)])
def test_reserve_that_is_raised_while_nobody_hears_it_is_kept_soon_after(until_s: int, held: bool) -> None:
    reserve_pct = np.full((S, N), 20, dtype=np.float32)
    reserve_pct[100:, 3] = 80
    battery_w = np.full((S, N), 1000, dtype=np.float32)
    battery_w[until_s:, 3] = 0
    made = trace(battery_w=battery_w, reserve_pct=reserve_pct, true_soc_pct=np.full((S, N), 60, dtype=np.float32))
    homes = make_homes(N)
    heard = problems(judge_safety, made, homes)
    assert (heard == []) is (until_s < 110)
    dark = problems(judge_safety, made, homes, unheard=[3], unheard_ms=(T0 + 40_000, T0 + 110_000))
    assert dark == ([] if held else [f"discharged below the reserve: {homes.ids[3]}"])
    others = problems(judge_safety, made, homes, unheard=[4], unheard_ms=(T0 + 40_000, T0 + 110_000))
    assert others == heard


@pytest.mark.parametrize(("after_s", "held"), [(3, True), (7, True), (20, False), (None, False)])
def test_control_must_be_back_soon_after_the_broker_goes_on(after_s: int | None, held: bool) -> None:
    command = np.ones((S, N), dtype=np.int64)
    if after_s is not None:
        command[100 + after_s :, 3] = 7
    found = problems(
        truth.judge_return, trace(command=command), ALL, since_ms=T0 + 100_000, until_ms=WINDOW.end_ms
    )  # fmt: skip
    assert (found == []) is held


def test_fleet_that_nobody_measures_goes_on_with_what_it_does() -> None:
    span_ms = (T0 + 70_000, T0 + 150_000)
    assert problems(truth.judge_kept, trace(), WINDOW, span_ms) == []
    less = trace(battery_w=np.full((S, N), 680, dtype=np.float32))
    assert problems(truth.judge_kept, less, WINDOW, span_ms) == ["without readings the fleet gave 68.0 % of the target"]


def test_minutes_of_a_disturbance_and_of_the_ramp_after_it_are_not_judged() -> None:
    battery_w = np.full((S, N), 1000, dtype=np.float32)
    battery_w[70:110] = 0
    made = trace(battery_w=battery_w)
    assert len(problems(judge_tracking, made, WINDOW)) == 1
    verdict = Verdict()
    judge_tracking(made, WINDOW, verdict, but=(T0 + 65_000, T0 + 110_000))
    assert (verdict.problems, [minute.start_s for minute in verdict.minutes]) == ([], [172])


def test_step_counts_what_homes_do_that_are_or_just_were_under_control() -> None:
    mode = np.full((S, N), Mode.REMOTE, dtype=np.int8)
    mode[:, 5:] = Mode.SELF_CONSUMPTION
    battery_w = np.full((S, N), 1000, dtype=np.float32)
    battery_w[100:, 5:] = 0
    assert problems(judge_steps, trace(mode=mode, battery_w=battery_w), 10_000.0, 500.0) == []
    mode[98:, :5] = Mode.SELF_CONSUMPTION
    battery_w[100:, :5] = 0
    found = problems(judge_steps, trace(mode=mode, battery_w=battery_w), 10_000.0, 500.0)
    assert found == ["a step of 50.0 % of the target"]


def test_intervals_are_due_of_polled_homes_but_while_nobody_could_ask_them() -> None:
    all_of_them = expected_of_polled(["a"], length_s=60, since_ms=T0, until_ms=T0 + 300_000)
    assert len(all_of_them) == 5
    some = expected_of_polled(
        ["a"], length_s=60, since_ms=T0, until_ms=T0 + 300_000, but=(T0 + 70_000, T0 + 130_000)
    )  # fmt: skip
    assert {start - T0 for _, start, _ in some} == {0, 180_000, 240_000}


def test_event_of_some_homes_is_judged_by_what_those_do() -> None:
    battery_w = np.full((S, N), 1000, dtype=np.float32)
    battery_w[:, 6:] = -3000
    made, window = trace(battery_w=battery_w), replace(WINDOW, target_w=6_000, members=tuple(range(6)))
    assert problems(judge_tracking, made, window) == []
    assert len(problems(judge_tracking, made, replace(window, members=None))) == 3


@pytest.mark.parametrize(("each_w", "held"), [(-1000, True), (-900, True), (-1200, False), (0, False), (500, False)])
def test_recharge_must_charge_and_no_more_than_was_asked_for(each_w: float, held: bool) -> None:
    battery_w = np.full((S, N), 5000, dtype=np.float32)
    battery_w[:, :4] = each_w
    window = replace(WINDOW, target_w=-4_000, members=(0, 1, 2, 3))
    assert (problems(judge_charging, trace(battery_w=battery_w), window) == []) is held


def test_every_home_of_an_event_must_be_told_of_how_it_ended() -> None:
    window, verdict, ids = replace(WINDOW, members=(0, 2)), Verdict(), ["a", "b", "c"]
    deliveries = {"e/a": {"status": "completed"}, "e/c": {"status": "opted_out"}}
    assert [record["status"] for record in judge_ended(window, ids, deliveries, verdict)] == ["completed", "opted_out"]
    assert (verdict.problems, verdict.records) == ([], {"completed": 1, "opted_out": 1})
    judge_ended(window, ids, {"e/a": {"status": "active"}}, verdict)
    assert verdict.problems == ["e: 2 homes of which the platform was not told how it ended"]

"""The clock that does not jump."""

from itertools import pairwise

import pytest

from gateway.clock import ManualClock, SteadyClock, SystemClock

HOUR_MS = 3_600_000


def passes(source: ManualClock, clock: SteadyClock, *, s: int, idle: bool, drift_ms_per_s: float = 0.0) -> list[int]:
    """Look every second for `s` seconds; the wall time of each."""
    seen = []
    for _ in range(s):
        source.advance(s=1)
        source.utc += round(drift_ms_per_s)
        clock.observe(idle=idle)
        seen.append(clock.now().utc_ms)
    return seen


@pytest.mark.fault("F11")
@pytest.mark.parametrize("step_ms", [-3 * HOUR_MS, 48 * HOUR_MS, 3_000, -3_000])
def test_clock_step_is_held_while_something_runs(step_ms: int) -> None:
    source = ManualClock()
    clock = SteadyClock(source)
    before_ms = clock.now().utc_ms
    source.utc += step_ms
    seen = passes(source, clock, s=600, idle=False)
    assert seen == [before_ms + 1_000 * (i + 1) for i in range(600)]
    assert clock.step_ms == step_ms
    assert clock.steps == 1


@pytest.mark.fault("F11")
def test_clock_step_that_has_stood_for_a_minute_is_followed_once_nothing_runs() -> None:
    source = ManualClock()
    clock = SteadyClock(source)
    source.utc -= 3 * HOUR_MS
    passes(source, clock, s=59, idle=True)
    assert clock.now().utc_ms - source.utc == 3 * HOUR_MS
    passes(source, clock, s=2, idle=True)
    assert clock.now() == source.now()
    assert clock.step_ms == 0


@pytest.mark.fault("F11")
def test_clock_step_that_goes_back_is_forgotten_and_one_that_moves_on_waits_anew() -> None:
    source = ManualClock()
    clock = SteadyClock(source)
    source.utc += HOUR_MS
    passes(source, clock, s=50, idle=True)
    source.utc += HOUR_MS
    passes(source, clock, s=50, idle=True)
    assert clock.step_ms == 2 * HOUR_MS
    source.utc -= 2 * HOUR_MS
    passes(source, clock, s=1, idle=True)
    assert clock.step_ms == 0
    assert clock.now() == source.now()


def test_clock_drift_is_followed_and_never_backwards() -> None:
    source = ManualClock()
    clock = SteadyClock(source)
    seen = passes(source, clock, s=300, idle=False, drift_ms_per_s=-1)
    assert all(after > before for before, after in pairwise(seen))
    assert abs(clock.now().utc_ms - source.utc) <= 2
    source.utc += 500
    passes(source, clock, s=600, idle=False)
    assert clock.now() == source.now()


def test_clock_of_the_machine_agrees_with_itself() -> None:
    source = SystemClock()
    clock = SteadyClock(source)
    clock.observe(idle=True)
    assert abs(clock.now().utc_ms - source.now().utc_ms) <= 5
    assert clock.step_ms == 0
    assert clock.cpu_ns() <= source.cpu_ns()

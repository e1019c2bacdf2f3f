"""The recorder keeps the newest samples, in order, and copies them out."""

import numpy as np

from simulators.recorder import Recorder
from tests.builders.homes import Run, devices


def test_recorder_full_keeps_the_newest_in_order() -> None:
    run = Run(devices(2))
    recorder = Recorder(run.fleet, samples_max=5)
    for _ in range(8):
        run.go(1)
        recorder.sample(run.now_ms)
    trace = recorder.trace()
    assert recorder.overwritten == 3
    assert np.all(np.diff(trace.t_ms) == 1_000)
    assert trace.t_ms[-1] == run.now_ms
    np.testing.assert_allclose(trace.battery_w[-1], run.fleet.batteries.battery_w, rtol=1e-6)
    np.testing.assert_allclose(trace.total_w, trace.battery_w.sum(axis=1), rtol=1e-6)


def test_recorder_trace_since_leaves_out_what_came_before() -> None:
    run = Run(devices())
    recorder = Recorder(run.fleet)
    for _ in range(4):
        run.go(1)
        recorder.sample(run.now_ms)
    assert len(recorder.trace(since_ms=run.now_ms - 1_000).t_ms) == 2


def test_recorder_shows_the_command_in_force() -> None:
    run = Run(devices(2)).go(1)
    recorder = Recorder(run.fleet)
    run.setpoint(9, 1_000, lease_s=30, index=1)
    recorder.sample(run.now_ms)
    trace = recorder.trace()
    assert trace.command.tolist() == [[0, 9]]
    assert trace.lease_end_ms[0, 1] == run.now_ms + 30_000

"""Judges a run with a disturbance: whether time went on, what the gateway told meanwhile, and when it was back."""

from collections.abc import Sequence

import numpy as np

from simulators.oracle import Bools, Verdict, Window, on_grid_total
from simulators.recorder import Trace
from simulators.told import Told

STILL_S_MAX = 3.0
"""The batteries' time must not depend on the broker: a longer gap between two samples proves nothing about them."""

TOLD_S = 19.0
"""How old what is told may be: a reading counts for 15 s, and then there are a tick, a report and a busy machine."""

TOLD_PCT = 2.0
RETURN_S = 5.0
DEVICES_S = 3.0
"""How long a simulated device may pause before it connects again."""

KEPT_PCT = 10.0
SETTLED_S = 30


def judge_time(trace: Trace, verdict: Verdict) -> None:
    still_s = float(np.diff(trace.t_ms).max(initial=0)) / 1000
    if still_s > STILL_S_MAX:
        verdict.problems.append(f"the batteries' time stood still for {still_s:.1f} s")


def judge_told(trace: Trace, told: Sequence[Told], largest_device_w: float, verdict: Verdict) -> None:
    """What is called delivered must have been there in the seconds before; what is assumed may be wrong."""
    total_w = on_grid_total(trace)
    for one in told:
        near = (trace.t_ms >= one.t_ms - TOLD_S * 1000) & (trace.t_ms <= one.t_ms)
        if near.any():
            over_w = one.delivered_w - float(total_w[near].max())
            verdict.told_over_w = round(max(verdict.told_over_w, over_w), 1)
    if verdict.told_over_w > max(largest_device_w, TOLD_PCT / 100 * float(np.abs(total_w).max(initial=0.0))):
        verdict.problems.append(f"{verdict.told_over_w:.0f} W were called delivered and were not there")


def judge_return(trace: Trace, spoken: Bools, *, since_ms: int, until_ms: int, verdict: Verdict) -> None:
    """When the first of the `spoken` devices has a new command in force after the broker goes on."""
    after = np.flatnonzero((trace.t_ms >= since_ms) & (trace.t_ms < until_ms))
    if not len(after):
        return
    command = trace.command[:, spoken]
    new = (command[after] > 0) & (command[after] != command[after[0]])
    if not new.any():
        verdict.problems.append("nobody was controlled again after the broker went on")
        return
    first_ms = int(trace.t_ms[after][new.any(axis=1).argmax()])
    verdict.return_s = round((first_ms - since_ms) / 1000, 1)
    if verdict.return_s > RETURN_S + DEVICES_S:
        verdict.problems.append(f"control was back {verdict.return_s} s after the broker went on")


def judge_kept(trace: Trace, window: Window, span_ms: tuple[int, int], verdict: Verdict) -> None:
    """While nobody is measured the fleet goes on with what it does: its mean power, against the target."""
    trace = window.of(trace)
    begin_ms = max(span_ms[0], window.start_ms + 60_000)
    rows = (trace.t_ms >= begin_ms) & (trace.t_ms < min(span_ms[1], window.end_ms))
    if rows.sum() < SETTLED_S:
        return
    verdict.kept_pct = round(float(on_grid_total(trace)[rows].mean()) / window.target_w * 100, 1)
    if abs(verdict.kept_pct - 100) > KEPT_PCT:
        verdict.problems.append(f"without readings the fleet gave {verdict.kept_pct} % of the target")

"""Judges a run with a disturbance: whether time went on, what the gateway told meanwhile, and when it was back."""

from collections.abc import Sequence

import numpy as np

from simulators.oracle import Bools, Floats, Verdict, Window, on_grid_total
from simulators.recorder import Trace
from simulators.told import Told

STILL_S_MAX = 3.0
"""The batteries' time must not depend on the broker: a longer gap between two samples proves nothing about them."""

AGE_S, PERIODS = 15.0, 5.0
"""A reading counts for so long, or for so many of the periods that its device declares."""

LATE_S = 2.0
"""What is told is that of the newest tick: a second ago, or two on a busy machine."""

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


def unheard_in(trace: Trace, homes: Sequence[int], span_ms: tuple[int, int] | None) -> Bools:
    """Samples of `homes` whose readings nobody hears while a disturbance lasts. A broker that goes on hands over what
    it kept: the newest of that is young enough to count."""
    unheard = np.zeros(trace.battery_w.shape, dtype=np.bool_)
    if span_ms is not None:
        rows = (trace.t_ms > span_ms[0]) & (trace.t_ms < span_ms[1] - 1000 * AGE_S)
        unheard[np.ix_(np.flatnonzero(rows), np.array(homes, dtype=np.int64))] = True
    return unheard


def judge_told(trace: Trace, told: Sequence[Told], period_s: Floats, unheard: Bools, verdict: Verdict) -> None:
    """What is called delivered must have been there and have been measured; what is assumed may be wrong. `period_s`:
    the declared period of each home's readings; `unheard`: samples of homes whose readings nobody hears.

    The gateway promises readings that are not overdue, not readings of one moment: where power moves from homes that
    are read every 5 s to others that are read every second, it sees both at their most for a while. So the bound is the
    sum of the most that each home gave while a reading may count; what nobody hears is nothing."""
    age_s = np.maximum(AGE_S, PERIODS * period_s)
    for one in told:
        over_w = one.delivered_w - _most_w(trace, one, age_s, unheard)
        verdict.told_over_w = round(max(verdict.told_over_w, over_w), 1)
    if verdict.told_over_w > TOLD_PCT / 100 * float(np.abs(on_grid_total(trace)).max(initial=0.0)):
        verdict.problems.append(f"{verdict.told_over_w:.0f} W were called delivered and were not there")


def _most_w(trace: Trace, one: Told, age_s: Floats, unheard: Bools) -> float:
    """The most that readings which count at an answer can add up to, W: from the sample before the oldest of them to
    the sample after the answer, since a reading lies between two samples."""
    end = int(np.searchsorted(trace.t_ms, one.t_ms)) + 1
    most_w = 0.0
    for each_s in np.unique(age_s):
        oldest_ms = one.asked_ms - 1000 * (each_s + LATE_S)
        rows = slice(max(int(np.searchsorted(trace.t_ms, oldest_ms, side="right")) - 1, 0), end)
        gave_w = np.where(trace.islanded[rows] | unheard[rows], 0.0, trace.battery_w[rows])
        most_w += float(gave_w[:, age_s == each_s].max(axis=0).sum(dtype=np.float64))
    return most_w


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

"""Chooses device time or receipt time for each energy sample.

Device time is used if it is plausible: at most `past_ms` old and at most `future_ms` ahead. An old sample may come from
the device's buffer, or from a clock that is wrong by hours (local time, daylight saving). Buffered samples arrive
faster than they were measured, so their age shrinks; the age under a wrong clock stays constant. After `STEADY` samples
of constant age in a row, each some seconds after the one before, the clock counts as wrong and receipt time is used
until the clock is right again. Those first samples keep their device time.
"""

import numpy as np

from gateway.domain.intervals.duplicates import tails
from gateway.domain.intervals.types import IntervalRules, SampleCounts
from gateway.domain.table import Table, column
from gateway.domain.types import Bools, Ints, Now, Slots, Small

STEADY = 3
SAME_MS = 5_000
PACED_MS = 4_000


class Clocks(Table):
    """`age_ms` of the newest sample when it was received, `heard_ms` when that was; `steady` how many samples in a row
    had that same age; `wrong`: receipt time is used instead. `doubted`: `steady` or `wrong` may be set."""

    age_ms: Ints = column(0)
    heard_ms: Ints = column(0)
    steady: Small = column(0)
    wrong: Bools = column(False)
    doubted = False


def times(
    clocks: Clocks, slots: Slots, t_ms: Ints, now: Now, rules: IntervalRules, counts: SampleCounts
) -> tuple[Ints, Bools]:
    """Return the time of each sample, and whether it is the receipt time. Sorted by slot, then device time."""
    now_ms = now.utc_ms
    wrong = (t_ms < now_ms - rules.past_ms) | (t_ms > now_ms + rules.future_ms)
    last = tails(slots)
    s = slots[last]
    age = now_ms - t_ms[last]
    skewed = (np.abs(age) > rules.skew_ms) & ~wrong[last]
    if clocks.doubted or skewed.any():
        clocks.doubted = True
        _judge(clocks, s, age, skewed, now_ms)
        wrong |= clocks.wrong[slots]
    if not wrong.any():
        return t_ms, wrong
    counts.time_replaced += int(np.count_nonzero(wrong))
    return np.where(wrong, now_ms, t_ms), wrong


def _judge(clocks: Clocks, s: Slots, age: Ints, skewed: Bools, now_ms: int) -> None:
    same = skewed & (np.abs(age - clocks.age_ms[s]) <= SAME_MS)
    paced = now_ms - clocks.heard_ms[s] >= PACED_MS
    counted = same & paced
    steady = clocks.steady[s]
    steady = np.where(counted, np.minimum(steady + 1, STEADY), np.where(skewed & ~same, 1, np.where(skewed, steady, 0)))
    clocks.steady[s] = steady
    clocks.wrong[s] = skewed & ((steady >= STEADY) | clocks.wrong[s])
    moved = counted | (skewed & ~same)
    clocks.age_ms[s[moved]], clocks.heard_ms[s[moved]] = age[moved], now_ms

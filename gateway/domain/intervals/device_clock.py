"""Device time or time of receipt: whose clock a settlement sample goes by.

A device's time counts if it is plausible: not before `past_ms`, not more than `future_ms` ahead. A sample of long ago
may have been stored; but a clock that is wrong by hours (local time, daylight saving) also looks like that. The two
are told apart by pace: what was stored comes faster than it was measured, so its age shrinks; the age that a wrong
clock shows stays the same. After `STEADY` such samples in a row, each some seconds after the one before, the clock is
taken for wrong until it is right again. What those first samples brought stays where they said.
"""

import numpy as np

from gateway.domain.intervals.duplicates import tails
from gateway.domain.intervals.types import IntervalRules, SampleCounts
from gateway.domain.table import Table
from gateway.domain.types import Bools, Ints, Now, Slots, Small

STEADY = 3
SAME_MS = 5_000
PACED_MS = 4_000


class Clocks(Table):
    """`age_ms` of the newest sample when it was received, `heard_ms` when that was; `steady` how many samples in a row
    had that same age; `wrong`: the clock is not believed. `doubted`: something of it may be set."""

    SPEC = {
        "age_ms": (np.int64, 0),
        "heard_ms": (np.int64, 0),
        "steady": (np.int8, 0),
        "wrong": (np.bool_, False),
    }
    age_ms: Ints
    heard_ms: Ints
    steady: Small
    wrong: Bools
    doubted = False


def times(
    clocks: Clocks, slots: Slots, t_ms: Ints, now: Now, rules: IntervalRules, counts: SampleCounts
) -> tuple[Ints, Bools]:
    """The time each sample goes by, and whether it is that of receipt. `slots` sorted, device time within."""
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

"""Corrects the times of devices whose clock is wrong, judged from when their samples are received.

The delay of a sample is its receipt less its device time. The smallest delay of some samples is what the device's clock
is behind (+) or ahead (-), give or take the fastest transmission. Nothing is received before it is measured: a delay
less than the correction in use is certain and counts at once. A longer one may be a backlog, whose delays shrink; only
if it stays the same within `SAME_MS` over `STEADY` samples that come one by one is the clock behind. (A link that
always takes so long looks the same and is corrected, too.) Until then times are used as they are, and marked.

Where most devices move at once it is the gateway's clock that was set: nobody is corrected for that, and no time of
theirs is impossible because it is ahead of that clock. Where it was set back, what most have sent already lies in the
future: all of those are taken to have moved, until each says otherwise.
"""

import numpy as np

from gateway.domain.intervals.duplicates import heads, tails
from gateway.domain.intervals.types import IntervalRules, SampleCounts
from gateway.domain.table import Table, column
from gateway.domain.types import NEVER_MS, Bools, Ints, Now, Slots, Small

STEADY = 6
SAME_MS = 5_000
PACED_MS = 4_000

MOST = 5
LATELY_MS = 3_600_000
"""At least `MOST` devices, and more than half of those with samples within `LATELY_MS` of the newest, make a fleet that
moves at once."""


class Clocks(Table):
    """`offset_ms` is added to device times (0 = the clock is right), `base_ms` what it was before the newest doubt.
    `low_ms`, `high_ms`: least and largest delay of the last `steady` samples, whose newest came at `heard_ms`.
    `moved`: the delay is no longer what it was. `watched`: any of these is set. `overtaken`: its newest sample lies in
    the future, since the gateway's clock was set back."""

    offset_ms: Ints = column(0)
    base_ms: Ints = column(0)
    low_ms: Ints = column(0)
    high_ms: Ints = column(0)
    heard_ms: Ints = column(0)
    steady: Small = column(0)
    moved: Bools = column(False)
    watched: Bools = column(False)
    overtaken: Bools = column(False)
    any_watched = False

    def take_over(self, wrong: Bools, age_ms: Ints) -> None:
        """Clocks of a version that used the time of receipt instead: `age_ms` is how far those that are `wrong` are
        behind."""
        n = len(wrong)
        self.watched[:n] = wrong
        self.offset_ms[:n] = self.base_ms[:n] = np.where(wrong, age_ms, 0)

    def overtake(self, newest_ms: Ints, now_ms: int) -> None:
        """Take all devices to have moved whose newest sample (`newest_ms` by slot) lies in the future, where that is
        new and most have one."""
        overtaken = self.overtaken[: len(newest_ms)]
        ahead = newest_ms > now_ms + SAME_MS
        overtaken &= ahead
        new = np.flatnonzero(ahead & ~overtaken)
        if len(new) >= MOST and 2 * len(new) > int(np.count_nonzero(_lately(newest_ms))):
            for mark in (self.overtaken, self.moved, self.watched):
                mark[new] = True
            self.any_watched = True

    def most_moved(self, newest_ms: Ints) -> bool:
        """Whether most devices moved, of those whose newest sample is not old."""
        lately = _lately(newest_ms)
        moved = int(np.count_nonzero(self.moved[: len(newest_ms)] & lately))
        return moved >= MOST and 2 * moved > int(np.count_nonzero(lately))


def _lately(newest_ms: Ints) -> Bools:
    """Devices whose newest sample is not old."""
    lately: Bools = newest_ms > newest_ms.max(initial=NEVER_MS) - LATELY_MS
    return lately


def times(
    clocks: Clocks, slots: Slots, t_ms: Ints, newest_ms: Ints, now: Now, rules: IntervalRules, counts: SampleCounts
) -> tuple[Ints, Bools]:
    """Return the time of each sample, and whether the clock of its device is in doubt or corrected. Sorted by slot;
    `newest_ms` by slot: of the samples before these (`NEVER_MS` = none)."""
    now_ms = now.utc_ms
    last = tails(slots)
    s = slots[last]
    if bool((newest_ms[s] > now_ms + SAME_MS).any()):
        clocks.overtake(newest_ms, now_ms)
    delay = now_ms - (t_ms if last.all() else np.maximum.reduceat(t_ms, np.flatnonzero(heads(slots))))
    near_ms = min(rules.skew_ms, rules.past_ms, rules.future_ms)
    if not clocks.any_watched and bool(delay.min() >= -near_ms) and bool(delay.max() <= near_ms):
        right = np.zeros(len(t_ms), dtype=np.bool_)
        return (t_ms, right) if len(delay) == len(t_ms) else _plausible(t_ms, right, now_ms, rules, counts)
    judged = (np.abs(delay) > rules.skew_ms) | clocks.watched[s]
    if not judged.any():
        clocks.any_watched = bool(clocks.watched.any())
        return _plausible(t_ms, np.zeros(len(t_ms), dtype=np.bool_), now_ms, rules, counts)
    clocks.any_watched = True
    judged &= np.abs(delay) <= rules.past_ms
    doubted, held = np.zeros((2, len(s)), dtype=np.bool_)
    doubted[judged], held[judged] = _judge(clocks, s[judged], delay[judged], newest_ms, now_ms, rules)
    offset_ms = clocks.offset_ms[slots]
    corrected = offset_ms != 0
    rows = np.diff(np.flatnonzero(last), prepend=-1)
    marked = corrected | np.repeat(doubted, rows)
    counts.time_corrected += int(np.count_nonzero(corrected))
    counts.time_doubted += int(np.count_nonzero(marked & ~corrected))
    return _plausible(t_ms + offset_ms, marked, now_ms, rules, counts, np.repeat(held, rows))


def _plausible(
    t_ms: Ints, marked: Bools, now_ms: int, rules: IntervalRules, counts: SampleCounts, held: Bools | None = None
) -> tuple[Ints, Bools]:
    """The time of receipt replaces one that is impossible. `held`: by our clock nothing of theirs is ahead."""
    ahead = t_ms > now_ms + rules.future_ms
    wrong = (t_ms < now_ms - rules.past_ms) | (ahead if held is None else ahead & ~held)
    if not wrong.any():
        return t_ms, marked
    counts.time_replaced += int(np.count_nonzero(wrong))
    return np.where(wrong, now_ms, t_ms), marked | wrong


def _judge(
    clocks: Clocks, s: Slots, delay: Ints, newest_ms: Ints, now_ms: int, rules: IntervalRules
) -> tuple[Bools, Bools]:
    """Learn from the newest sample of each device; returns whose time is in doubt, and who moved with most others."""
    offset, base = clocks.offset_ms[s], clocks.base_ms[s]
    low, high, steady = clocks.low_ms[s], clocks.high_ms[s], clocks.steady[s]
    same = (steady > 0) & (delay >= high - SAME_MS) & (delay <= low + SAME_MS)
    counted = ~same | (np.abs(now_ms - clocks.heard_ms[s]) >= PACED_MS)
    steady = np.where(same, np.minimum(steady + counted, STEADY), 1)
    low, high = np.where(same, np.minimum(low, delay), delay), np.where(same, np.maximum(high, delay), delay)
    clocks.heard_ms[s[counted]] = now_ms

    right = np.abs(delay) <= rules.skew_ms
    had = (base != 0) | clocks.moved[s] | (~clocks.watched[s] & (newest_ms[s] != NEVER_MS))
    moved = had & ~right & (np.abs(delay - base) > rules.skew_ms)
    clocks.moved[s] = moved
    held = moved & (bool(moved.any()) and clocks.most_moved(newest_ms))

    excess = delay - offset
    at_once = ((excess < -rules.skew_ms) & (delay >= -rules.future_ms)) | (right & (excess > SAME_MS))
    learnt = steady >= STEADY
    offset = np.where(held, base, np.where(learnt, low, np.where(at_once, delay, offset)))
    offset[np.abs(offset) <= rules.skew_ms] = 0
    known = ~held & (learnt | (at_once & right))
    clocks.base_ms[s] = np.where(known, offset, base)
    clocks.moved[s] &= ~known
    off = np.abs(delay - offset) > rules.skew_ms
    clocks.offset_ms[s] = offset
    clocks.watched[s] = off | (offset != 0) | clocks.moved[s]
    clocks.low_ms[s], clocks.high_ms[s] = low, high
    clocks.steady[s] = np.where((learnt & ~held) | ~clocks.watched[s], 0, steady)
    doubted: Bools = off & (steady > 1)
    return doubted, held

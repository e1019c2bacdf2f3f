"""Which readings of a counter stand: a movement of a counter is believed once the next reading stands on it.

A fall is held: nothing is booked for it. If the next reading is back at the old total, the fall was noise and the
energy from the old total on is booked; if not, the counter began anew at the fall. A rise is booked at once, but if the
next reading falls back into it, it is taken back. Either way a reading that does not stand is replaced by the line
between its neighbours. A fall within a step of the counter is nothing at all.
"""

from dataclasses import dataclass

import numpy as np

from gateway.domain.intervals.duplicates import heads, tails
from gateway.domain.intervals.gaps import before
from gateway.domain.intervals.record import Quality
from gateway.domain.intervals.types import (
    CounterState,
    Flow,
    IntervalRules,
    SampleCounts,
    SampleRows,
    Stretches,
    TooHigh,
    implausible,
)
from gateway.domain.types import NEVER_MS, Bools, Floats, Ints, Slots

MODULI = (*(10.0**n for n in range(4, 13)), *(2.0**n for n in (16, 31, 32)))
"""Where counters roll over, in steps of the counter: registers of 16, 31 and 32 bits, and decimal displays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Readings of counters by device and time, `k` their rows, each with the one before it (`before_t` = `NEVER_MS`:
    there is none, or the counter began anew). `held`: falls that the next reading decides. `reset`: falls for good."""

    k: Ints
    slots: Slots
    t: Ints
    v: Floats
    before_t: Ints
    before_v: Floats
    held: Bools
    reset: Bools


def standing(
    rows: SampleRows,
    k: Ints,
    counter_wh: Floats,
    state: CounterState,
    rules: IntervalRules,
    counts: SampleCounts,
    out: Flow,
) -> Readings:
    """The readings of rows `k` as far as they stand; what was booked for readings before them that do not is taken
    back."""
    s, t, v = rows.slots[k], rows.t_ms[k], counter_wh[k]
    before_t, before_v = before(s, t, v, state.t_ms, state.wh)
    none = np.zeros(len(k), dtype=np.bool_)
    found = Readings(
        k=k, slots=s, t=t, v=v, before_t=before_t, before_v=before_v, held=none, reset=none.copy()
    )  # fmt: skip
    head = heads(s)
    open_ = (v < before_v) & (before_t != NEVER_MS)
    open_[head] |= state.held[s[head]]
    if not head.all() and open_.any():
        open_ &= ~_levelled(rows, found, head, state)
    while open_.any():  # once per fall of a device
        c = np.flatnonzero(open_)
        c = c[heads(s[c])]
        open_[c] = False
        _decide(rows, found, c, head[c], state, rules, counts, out)
        after = c[(c < len(s) - 1) & ~head[np.minimum(c + 1, len(s) - 1)]] + 1
        before_v[after] = v[after - 1]
        open_[after] = found.held[after - 1] | (v[after] < before_v[after])
    return found


def remember(state: CounterState, found: Readings, doubted: Bools) -> None:
    """The newest readings of each device become its state. `doubted`: rises that are not booked."""
    tail = tails(found.slots)
    s, before_t = found.slots[tail], found.before_t[tail]
    state.t_ms[s], state.wh[s] = found.t[tail], found.v[tail]
    known = before_t != NEVER_MS
    state.before_ms[s] = np.where(known, before_t, 0)
    state.before_wh[s] = np.where(known, found.before_v[tail], 0.0)
    state.held[s] = (found.held | doubted)[tail]


def _levelled(rows: SampleRows, found: Readings, head: Bools, state: CounterState) -> Bools:
    """Level the readings of devices that fall by no more than a step, however often; returns which these are."""
    s, top = found.slots, found.v.copy()
    began = head & (found.before_t != NEVER_MS)
    top[began] = np.maximum(top[began], found.before_v[began])
    begins = np.flatnonzero(head)
    lengths = np.diff(begins, append=len(s))
    apart, most = 1, int(lengths.max())
    while apart < most:
        top[apart:] = np.where(s[apart:] == s[:-apart], np.maximum(top[apart:], top[:-apart]), top[apart:])
        apart *= 2
    rough = (found.v < top - _step_wh(rows, s)) | (head & state.held[s])
    level: Bools = np.repeat(~np.logical_or.reduceat(rough, begins), lengths)
    found.v[level] = top[level]
    after = np.flatnonzero(level & ~head)
    found.before_v[after] = found.v[after - 1]
    return level


def _step_wh(rows: SampleRows, slots: Slots) -> Floats:
    step = rows.step_wh[slots]
    return np.where(np.isfinite(step), step, 1.0)


def _decide(
    rows: SampleRows,
    found: Readings,
    c: Ints,
    head: Bools,
    state: CounterState,
    rules: IntervalRules,
    counts: SampleCounts,
    out: Flow,
) -> None:
    """Decide by readings `c`, one per device, what became of the readings before them, and what `c` are themselves."""
    s, v, t, last = found.slots[c], found.v[c], found.t[c], np.maximum(c - 1, 0)
    p_t, p_v = found.before_t[c], found.before_v[c]
    q_t = np.where(head, np.where(state.before_ms[s] > 0, state.before_ms[s], NEVER_MS), found.before_t[last])
    q_v = np.where(head, state.before_wh[s], found.before_v[last])
    unbooked = np.where(head, state.held[s], True)
    noise = _step_wh(rows, s)
    known = q_t != NEVER_MS

    fell = known & (p_v < q_v) & np.where(head, state.held[s], found.held[last])
    back = fell & (v >= q_v - noise)
    again = fell & ~back
    if again.any():
        _begin_anew(found, c[again], head[again], counts, rows, out)
        known &= ~again
    falls = ~back & (v < p_v)
    noisy = falls & (v >= p_v - noise)
    found.v[c[noisy]] = p_v[noisy]
    falls &= ~noisy
    returned = falls & known & ~fell & (v >= q_v - noise) & ~rows.rebooted[found.k[c]]
    falls &= ~returned

    gone = back | returned
    if gone.any():
        c_, of, q_t, q_v = c[gone], np.flatnonzero(gone), q_t[gone], q_v[gone]
        found.v[c_] = np.maximum(v[gone], q_v)
        line = q_v + (found.v[c_] - q_v) * ((p_t[gone] - q_t) / (t[gone] - q_t))
        within = ~head[gone]
        found.v[c_[within] - 1] = line[within]
        found.held[c_[within] - 1] = False
        skips = ~within & unbooked[gone]
        found.before_t[c_[skips]], found.before_v[c_[skips]] = q_t[skips], q_v[skips]
        found.before_v[c_[~skips]] = line[~skips]
        counts.outliers += len(c_)
        rows.quality[found.k[c_]] |= Quality.JUMP
        taken = ~within & ~skips
        if taken.any():
            i = of[taken]
            _take_back(rows, found.k[c[i]], p_t[i], p_v[i], q_t[taken], line[taken], state, out)
    if falls.any():
        i = c[falls]
        gained = _rolled_over(rows, found, i, rules)
        over = np.isfinite(gained)
        found.before_v[i[over]] = found.v[i[over]] - gained[over]
        counts.rollovers += int(np.count_nonzero(over))
        found.held[i[~over]] = True


def _begin_anew(found: Readings, c: Ints, head: Bools, counts: SampleCounts, rows: SampleRows, out: Flow) -> None:
    """The readings before `c` were falls for good."""
    counts.counter_resets += len(c)
    i = c[~head] - 1
    found.held[i], found.reset[i], found.before_t[i] = False, True, NEVER_MS
    rows.quality[found.k[i]] |= Quality.RESET
    i = c[head]
    if len(i):
        out.broken[found.k[i]] = True
        out.stretches.append(
            Stretches(
                slots=found.slots[i], from_ms=found.before_t[i] - 1, to_ms=found.before_t[i], wh=np.zeros(len(i)),
                quality=np.full(len(i), Quality.RESET, dtype=np.int16), covers=False,
            )
        )  # fmt: skip


def _take_back(
    rows: SampleRows, k: Ints, p_t: Ints, p_v: Floats, q_t: Ints, line: Floats, state: CounterState, out: Flow
) -> None:
    """Take back what was booked of the rise to `p_v` beyond `line`, or of the gap that waits."""
    s = rows.slots[k]
    waits = (state.since_ms[s] > 0) & (state.to_ms[s] > q_t) & (state.to_ms[s] <= p_t)
    wh = p_v - line
    held = np.minimum(wh, np.maximum(state.to_wh[s] - state.from_wh[s], 0.0))
    state.to_wh[s[waits]] -= held[waits]
    out.filled_wh[k] -= np.where(waits & rows.coarse[k], held, 0.0)
    coarse = rows.coarse[k]
    if coarse.any():
        out.too_high.append(TooHigh(slots=s[coarse], t_ms=p_t[coarse], wh=wh[coarse]))
    booked = ~waits & ~rows.coarse[k]
    if booked.any():
        out.stretches.append(
            Stretches(
                slots=s[booked], from_ms=q_t[booked], to_ms=p_t[booked], wh=-wh[booked],
                quality=np.full(int(np.count_nonzero(booked)), Quality.JUMP, dtype=np.int16), covers=False,
            )
        )  # fmt: skip


def _rolled_over(rows: SampleRows, found: Readings, i: Ints, rules: IntervalRules) -> Floats:
    """What each counter gained that rolled over at the end of its register; NaN where it did not."""
    k, lasted = found.k[i], found.t[i] - found.before_t[i]
    step = _step_wh(rows, found.slots[i])
    modulus = step[:, None] * np.array(MODULI)
    before_v = found.before_v[i]
    grown = found.v[i] - before_v
    gained = np.where(modulus >= before_v[:, None], grown[:, None] + modulus, np.inf).min(axis=1)
    known = np.isfinite(rows.rated_w[k]) & (lasted <= rows.length_ms[k])
    wrapped = (
        known & (gained >= 0) & ~implausible(gained, lasted, rows.rated_w[k], np.fmax(step, rules.counter_step_wh))
    )
    return np.where(wrapped, gained, np.nan)

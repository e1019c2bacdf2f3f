"""Silences: stretches longer than an interval of which a counter tells the energy, but not when it flowed.

The newest of each device waits for a while, because the device may still send what it has stored; what is not told by
then is shared by time.
"""

import numpy as np

from gateway.domain.intervals.duplicates import heads, tails
from gateway.domain.intervals.record import Quality
from gateway.domain.intervals.types import (
    CounterState,
    Flow,
    IntervalRules,
    SampleCounts,
    SampleRows,
    Stretches,
    implausible,
)
from gateway.domain.types import Floats, Ints, Slots


def open_gaps(
    rows: SampleRows,
    span_wh: Floats,
    base: CounterState,
    k: Ints,
    before_t: Ints,
    before_v: Floats,
    v: Floats,
    rules: IntervalRules,
    counts: SampleCounts,
    out: Flow,
    now_ms: int,
) -> None:
    """Silences that ended with rows `k`. The newest of each device waits, others are shared by time at once."""
    s = rows.slots[k]
    own_ms, own_wh = _own_spans(rows, span_wh, k, rules)
    until = np.maximum(rows.t_ms[k] - own_ms, before_t)
    to_wh = np.maximum(v - own_wh, before_v)
    counts.silent_segments += len(k)
    bounded = until - before_t <= rules.past_ms
    counts.unattributed_wh += float((to_wh - before_v)[~bounded].sum())
    out.broken[k[~bounded]] = True
    # what its own span covers is no silence
    bounded &= until > before_t
    k, s, before_t, until = k[bounded], s[bounded], before_t[bounded], until[bounded]
    before_v, to_wh = before_v[bounded], to_wh[bounded]
    waiting = s[tails(s)]
    waiting = waiting[base.since_ms[waiting] > 0]
    if len(waiting):
        out.stretches.append(apportion(base, waiting, counts))
    out.filled_wh[k] = np.where(rows.coarse[k], to_wh - before_v, 0.0)
    last = tails(s)
    if not last.all():
        gone = ~last
        counts.spread_wh += float((to_wh - before_v)[gone].sum())
        out.stretches.append(
            Stretches(
                slots=s[gone], from_ms=before_t[gone], to_ms=until[gone], wh=(to_wh - before_v)[gone],
                quality=np.full(int(gone.sum()), Quality.SPREAD, dtype=np.int16),
            )
        )  # fmt: skip
    s = s[last]
    base.from_ms[s], base.from_wh[s] = before_t[last], before_v[last]
    base.to_ms[s], base.to_wh[s] = until[last], to_wh[last]
    base.since_ms[s] = now_ms


def refine(
    rows: SampleRows,
    counter_wh: Floats,
    span_wh: Floats,
    base: CounterState,
    k: Ints,
    rules: IntervalRules,
    out: Flow,
    now_ms: int,
) -> None:
    """Samples that the device had stored tell what happened within a silence."""
    s, t, v = rows.slots[k], rows.t_ms[k], counter_wh[k]
    inside = (base.since_ms[s] > 0) & (t > base.from_ms[s]) & (t < base.to_ms[s] + rows.coarse[k])
    # the silence of a coarse counter ends before the span of the row that ended it, whose energy may show already
    inside &= (v >= base.from_wh[s]) & (v <= np.where(rows.coarse[k], base.wh[s], base.to_wh[s]))
    k = last_of_equal_times(rows, k[inside])
    if not len(k):
        return
    s, t = rows.slots[k], rows.t_ms[k]
    v = np.minimum(counter_wh[k], base.to_wh[s])
    before_t, before_v = before(s, t, v, base.from_ms, base.from_wh)
    grown, lasted = v - before_v, t - before_t
    if np.any(grown < 0):
        # a counter that goes up and down again says nothing that could be relied on
        sane = ~np.isin(s, s[grown < 0])
        k, s, t, before_t, lasted = k[sane], s[sane], t[sane], before_t[sane], lasted[sane]
        v, grown = v[sane], grown[sane]
        if not len(k):
            return
    # what the span of a coarse counter's row tells is counted by itself, and not again with the silence
    own_ms, own_wh = _own_spans(rows, span_wh, k, rules)
    own_wh = np.minimum(own_wh, grown)
    short = (lasted <= rows.length_ms[k]) | (own_ms >= lasted)
    out.filled_wh[k] = np.where(rows.coarse[k], -np.where(short, grown, own_wh), 0.0)
    placed = short & ~rows.coarse[k]
    out.wh[k] = np.where(placed, grown, 0.0)
    out.from_ms[k] = np.where(placed, before_t, t)
    far = ~short
    if far.any():
        out.stretches.append(
            Stretches(
                slots=s[far], from_ms=before_t[far], to_ms=(t - own_ms)[far], wh=(grown - own_wh)[far],
                quality=np.full(int(far.sum()), Quality.SPREAD, dtype=np.int16),
            )
        )  # fmt: skip
    tail = tails(s)
    k, s, t, v = k[tail], s[tail], t[tail], v[tail]
    base.from_ms[s], base.from_wh[s], base.since_ms[s] = t, v, now_ms
    done = base.to_ms[s] - t <= rows.length_ms[k]
    if done.any():
        k, s = k[done], s[done]
        # a step that shows only after all of the silence was told has no time left to be placed in
        out.filled_wh[k] -= np.where(base.to_ms[s] == base.from_ms[s], base.to_wh[s] - base.from_wh[s], 0.0)
        rest = Stretches(
            slots=s, from_ms=base.from_ms[s], to_ms=base.to_ms[s], wh=base.to_wh[s] - base.from_wh[s],
            quality=np.zeros(len(s), dtype=np.int16),
        )  # fmt: skip
        base.since_ms[s] = 0
        out.stretches.append(rest)


def _own_spans(rows: SampleRows, span_wh: Floats, k: Ints, rules: IntervalRules) -> tuple[Ints, Floats]:
    """Time and energy that rows of coarse counters tell of their own spans; nothing where that is not believed."""
    ms, wh = rows.span_ms[k], span_wh[k]
    told = rows.coarse[k] & (ms > 0) & (ms <= rules.past_ms) & (wh >= 0)
    told &= ~implausible(wh, ms, rows.rated_w[k], rules.counter_step_wh)
    return np.where(told, ms, 0), np.where(told, wh, 0.0)


def apportion(base: CounterState, slots: Slots, counts: SampleCounts) -> Stretches:
    """Give up waiting for what happened in the silences of these devices: what is left is shared by time."""
    found = Stretches(
        slots=slots,
        from_ms=base.from_ms[slots],
        to_ms=base.to_ms[slots],
        wh=base.to_wh[slots] - base.from_wh[slots],
        quality=np.full(len(slots), Quality.SPREAD, dtype=np.int16),
    )
    base.since_ms[slots] = 0
    counts.spread_wh += float(found.wh.sum())
    return found


def last_of_equal_times(rows: SampleRows, k: Ints) -> Ints:
    if len(k) < 2:
        return k
    s, t = rows.slots[k], rows.t_ms[k]
    keep = np.ones(len(k), dtype=np.bool_)
    keep[:-1] = (s[1:] != s[:-1]) | (t[1:] != t[:-1])
    return k if bool(keep.all()) else k[keep]


def before(s: Slots, t: Ints, v: Floats, base_t: Ints, base_v: Floats) -> tuple[Ints, Floats]:
    """Time and value before each row: those of the row before it, of the first row of a device its base."""
    head = heads(s)
    before_t, before_v = np.empty_like(t), np.empty_like(v)
    before_t[1:], before_v[1:] = t[:-1], v[:-1]
    before_t[head], before_v[head] = base_t[s[head]], base_v[s[head]]
    return before_t, before_v

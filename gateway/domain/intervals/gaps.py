"""Gaps: stretches longer than an interval whose energy a counter knows, but not when it flowed.

The newest gap of each device waits for a while, because the device may still send stored samples; the rest is then
shared by time.
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
    state: CounterState,
    k: Ints,
    before_t: Ints,
    before_v: Floats,
    v: Floats,
    rules: IntervalRules,
    counts: SampleCounts,
    out: Flow,
    now_ms: int,
) -> None:
    """Record gaps that ended with rows `k`. The newest of each device waits, others are shared by time at once."""
    s = rows.slots[k]
    own_ms, own_wh = _own_spans(rows, span_wh, k, rules)
    until = np.maximum(rows.t_ms[k] - own_ms, before_t)
    to_wh = np.maximum(v - own_wh, before_v)
    counts.counter_gaps += len(k)
    bounded = until - before_t <= rules.past_ms
    counts.unattributed_wh += float((to_wh - before_v)[~bounded].sum())
    out.broken[k[~bounded]] = True
    # what its own span covers is no gap
    bounded &= until > before_t
    k, s, before_t, until = k[bounded], s[bounded], before_t[bounded], until[bounded]
    before_v, to_wh = before_v[bounded], to_wh[bounded]
    waiting = s[tails(s)]
    waiting = waiting[state.since_ms[waiting] > 0]
    if len(waiting):
        out.stretches.append(apportion(state, waiting, counts))
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
    state.from_ms[s], state.from_wh[s] = before_t[last], before_v[last]
    state.to_ms[s], state.to_wh[s] = until[last], to_wh[last]
    state.since_ms[s] = now_ms


def refine(
    rows: SampleRows,
    counter_wh: Floats,
    span_wh: Floats,
    state: CounterState,
    k: Ints,
    rules: IntervalRules,
    out: Flow,
    now_ms: int,
) -> None:
    """Place the energy of a gap by samples that the device had stored."""
    s, t, v = rows.slots[k], rows.t_ms[k], counter_wh[k]
    inside = (state.since_ms[s] > 0) & (t > state.from_ms[s]) & (t < state.to_ms[s] + rows.coarse[k])
    # the gap of a coarse counter ends before the span of the row that ended it, whose energy the counter may include
    inside &= (v >= state.from_wh[s]) & (v <= np.where(rows.coarse[k], state.wh[s], state.to_wh[s]))
    k = last_of_equal_times(rows, k[inside])
    if not len(k):
        return
    s, t = rows.slots[k], rows.t_ms[k]
    v = np.minimum(counter_wh[k], state.to_wh[s])
    before_t, before_v = before(s, t, v, state.from_ms, state.from_wh)
    grown, lasted = v - before_v, t - before_t
    if np.any(grown < 0):
        # a counter that goes up and down again cannot be relied on
        sane = ~np.isin(s, s[grown < 0])
        k, s, t, before_t, lasted = k[sane], s[sane], t[sane], before_t[sane], lasted[sane]
        v, grown = v[sane], grown[sane]
        if not len(k):
            return
    # the span energy of a coarse counter's row is counted by itself, and not again with the gap
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
    state.from_ms[s], state.from_wh[s], state.since_ms[s] = t, v, now_ms
    nearer = (state.before_ms[s] > 0) & (t > state.before_ms[s]) & (t < state.t_ms[s])
    state.before_ms[s[nearer]], state.before_wh[s[nearer]] = t[nearer], v[nearer]
    done = state.to_ms[s] - t <= rows.length_ms[k]
    if done.any():
        k, s = k[done], s[done]
        # a step that shows only after the whole gap was filled has no time left to be placed in
        out.filled_wh[k] -= np.where(state.to_ms[s] == state.from_ms[s], state.to_wh[s] - state.from_wh[s], 0.0)
        rest = Stretches(
            slots=s, from_ms=state.from_ms[s], to_ms=state.to_ms[s], wh=state.to_wh[s] - state.from_wh[s],
            quality=np.zeros(len(s), dtype=np.int16),
        )  # fmt: skip
        state.since_ms[s] = 0
        out.stretches.append(rest)


def _own_spans(rows: SampleRows, span_wh: Floats, k: Ints, rules: IntervalRules) -> tuple[Ints, Floats]:
    """Time and energy of the own spans of coarse counters' rows; 0 where that is implausible."""
    ms, wh = rows.span_ms[k], span_wh[k]
    plausible = rows.coarse[k] & (ms > 0) & (ms <= rules.past_ms) & (wh >= 0)
    plausible &= ~implausible(wh, ms, rows.rated_w[k], rules.counter_step_wh)
    return np.where(plausible, ms, 0), np.where(plausible, wh, 0.0)


def apportion(state: CounterState, slots: Slots, counts: SampleCounts, until_ms: int | None = None) -> Stretches:
    """Stop waiting for stored samples of these devices: share their gaps by time, those that last beyond `until_ms` up
    to there."""
    from_ms, to_ms = state.from_ms[slots], state.to_ms[slots]
    wh = state.to_wh[slots] - state.from_wh[slots]
    if until_ms is not None:
        part = to_ms > until_ms
        wh[part] *= (until_ms - from_ms[part]) / (to_ms[part] - from_ms[part])
        to_ms[part] = until_ms
        state.from_wh[slots[part]] += wh[part]
        state.from_ms[slots[part]] = until_ms
        state.since_ms[slots[~part]] = 0
    else:
        state.since_ms[slots] = 0
    counts.spread_wh += float(wh.sum())
    return Stretches(
        slots=slots, from_ms=from_ms, to_ms=to_ms, wh=wh, quality=np.full(len(slots), Quality.SPREAD, dtype=np.int16)
    )


def last_of_equal_times(rows: SampleRows, k: Ints) -> Ints:
    if len(k) < 2:
        return k
    s, t = rows.slots[k], rows.t_ms[k]
    keep = np.ones(len(k), dtype=np.bool_)
    keep[:-1] = (s[1:] != s[:-1]) | (t[1:] != t[:-1])
    return k if bool(keep.all()) else k[keep]


def before(s: Slots, t: Ints, v: Floats, state_t: Ints, state_v: Floats) -> tuple[Ints, Floats]:
    """Time and value before each row: those of the row before; before a device's first row `state_t`, `state_v`."""
    head = heads(s)
    before_t, before_v = np.empty_like(t), np.empty_like(v)
    before_t[1:], before_v[1:] = t[:-1], v[:-1]
    before_t[head], before_v[head] = state_t[s[head]], state_v[s[head]]
    return before_t, before_v

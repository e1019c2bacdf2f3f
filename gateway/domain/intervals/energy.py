"""Turns energy samples into energy over a stretch of time, one direction (charge or discharge) at a time.

Counters are preferred: the energy between two samples is their difference. A device that ever sent a counter for a
direction never falls back to the energy of spans there, unless its counter is too coarse for its intervals: then spans
are integrated, and the counter only checks them once a day and fills gaps. The gain of a counter over a gap longer than
an interval waits for a while, because the device may still send stored samples; the rest is then shared by time. Energy
that cannot be placed in time is left out and counted.
"""

import numpy as np

from gateway.domain.intervals.gaps import last_of_equal_times, open_gaps, refine
from gateway.domain.intervals.record import Quality
from gateway.domain.intervals.standing import remember, standing
from gateway.domain.intervals.types import (
    MS_PER_HOUR,
    CounterState,
    Flow,
    IntervalRules,
    SampleCounts,
    SampleRows,
    Stretches,
    implausible,
)
from gateway.domain.types import NEVER_MS, Floats, Ints


def flow(
    rows: SampleRows,
    counter_wh: Floats,
    span_wh: Floats,
    power_w: Floats,
    state: CounterState,
    rules: IntervalRules,
    counts: SampleCounts,
    now_ms: int,
) -> Flow:
    """Return the energy of each row and advance the counter states. `power_w` is the mean power of the span in this
    direction (negative = the other way); it replaces the energy of spans that a device does not report. A counter row
    that is not newer than the state adds none (the differences contain it already) unless it lies within a gap; after a
    reset, a jump or a gap longer than an interval the difference starts over from that row."""
    n = len(rows.t_ms)
    out = Flow(
        wh=np.zeros(n),
        from_ms=rows.t_ms.copy(),
        stretches=[],
        filled_wh=np.zeros(n),
        broken=np.zeros(n, dtype=np.bool_),
        too_high=[],
        standing_wh=counter_wh.copy() if rows.any_coarse else counter_wh,
    )
    with_counter = np.isfinite(counter_wh) & (counter_wh >= 0)
    spanned = ~with_counter | rows.coarse
    if spanned.any():
        by_power = np.maximum(power_w, 0.0) * (rows.span_ms / MS_PER_HOUR)
        span_wh = np.where(np.isnan(span_wh), by_power, span_wh)
        spanned &= np.isfinite(span_wh)
    k = np.flatnonzero(with_counter)
    if len(k):
        ahead = rows.t_ms[k] > state.t_ms[rows.slots[k]]
        if not ahead.all():
            refine(rows, counter_wh, span_wh, state, k[~ahead], rules, out, now_ms)
            k = k[ahead]
        k = last_of_equal_times(rows, k)
    if len(k):
        _differences(rows, counter_wh, span_wh, state, k, rules, counts, out, now_ms)
    if spanned.any():
        _spans(rows, span_wh, np.flatnonzero(spanned), state, rules, counts, out)
    return out


def _differences(
    rows: SampleRows,
    counter_wh: Floats,
    span_wh: Floats,
    state: CounterState,
    k: Ints,
    rules: IntervalRules,
    counts: SampleCounts,
    out: Flow,
    now_ms: int,
) -> None:
    found = standing(rows, k, counter_wh, state, rules, counts, out)
    s, t, v, before_t, before_v = found.slots, found.t, found.v, found.before_t, found.before_v
    started = (before_t != NEVER_MS) & ~found.held
    lasted = t - before_t
    grown = v - before_v
    jump = started & implausible(grown, lasted, rows.rated_w[k], np.fmax(rows.step_wh[s], rules.counter_step_wh))
    gap = started & ~jump & (lasted > rows.length_ms[k])
    good = started & ~jump & ~gap
    if jump.any():
        counts.jumps += int(np.count_nonzero(jump))
        counts.jump_wh += float(grown[jump].sum())
        rows.quality[k[jump]] |= Quality.JUMP
    out.broken[k] |= found.reset | jump
    remember(state, found, jump | (gap & (lasted > rules.past_ms)))
    if rows.any_coarse:
        out.standing_wh[k] = np.where(found.held, np.nan, v)
    placed = good & ~rows.coarse[k]
    out.wh[k] = np.where(placed, grown, 0.0)
    out.from_ms[k] = np.where(placed, before_t, t)
    if gap.any():
        i = np.flatnonzero(gap)
        open_gaps(rows, span_wh, state, k[i], before_t[i], before_v[i], v[i], rules, counts, out, now_ms)


def _spans(
    rows: SampleRows,
    span_wh: Floats,
    k: Ints,
    state: CounterState,
    rules: IntervalRules,
    counts: SampleCounts,
    out: Flow,
) -> None:
    beside = (state.t_ms[rows.slots[k]] != NEVER_MS) & ~rows.coarse[k]
    if beside.any():
        counts.spans_beside_counter += int(np.count_nonzero(beside))
        k = k[~beside]
    span, energy = rows.span_ms[k], span_wh[k]
    fits = (span > 0) & (span <= rules.past_ms) & (energy >= 0)
    jump = fits & implausible(energy, span, rows.rated_w[k], rules.counter_step_wh)
    if jump.any():
        counts.jumps += int(np.count_nonzero(jump))
        counts.jump_wh += float(energy[jump].sum())
        rows.quality[k[jump]] |= Quality.JUMP
    if not fits.all():
        counts.spans_refused += int(np.count_nonzero(~fits))
        counts.unattributed_wh += float(np.maximum(energy[~fits], 0.0).sum())
    good = fits & ~jump
    long = good & (span > rows.length_ms[k])
    if long.any():
        i = k[long]
        out.filled_wh[i] += energy[long]
        counts.spread_wh += float(energy[long].sum())
        out.stretches.append(
            Stretches(
                slots=rows.slots[i], from_ms=rows.t_ms[i] - span[long], to_ms=rows.t_ms[i], wh=energy[long],
                quality=np.full(len(i), Quality.SPREAD, dtype=np.int16),
            )
        )  # fmt: skip
        good &= ~long
    k = k[good]
    out.wh[k] = energy[good]
    out.from_ms[k] = rows.t_ms[k] - span[good]

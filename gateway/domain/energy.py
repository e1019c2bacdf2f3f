"""Turns settlement samples into energy over a stretch of time, one direction (charge or discharge) at a time.

Counters are preferred: the energy between two samples is their difference. A device that ever sent a counter for a
direction never falls back to the energy of spans there. What cannot be placed in time is not placed: it is counted.
"""

from dataclasses import dataclass

import numpy as np

from gateway.domain.columns import Table
from gateway.domain.duplicates import heads, tails
from gateway.domain.model import NEVER_MS, Bools, Floats, Ints, Slots

MS_PER_HOUR = 3_600_000
RATING_MARGIN = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the interval engine goes by. `length_s` divides a day; `counter_step_wh` is the coarsest step a counter
    may have on top of what rated power explains; device time counts within `past_ms` and `future_ms` of now."""

    length_s: int = 300
    grace_s: int = 30
    counter_step_wh: float = 100.0
    past_ms: int = 49 * MS_PER_HOUR
    future_ms: int = 5 * 60_000
    close_slice: int = 20_000

    @property
    def length_ms(self) -> int:
        return self.length_s * 1000

    @property
    def grace_ms(self) -> int:
        return self.grace_s * 1000


@dataclass(slots=True)
class Counts:
    """What happened to settlement samples: rows, energy in Wh, intervals."""

    rows: int = 0
    new: int = 0
    duplicates: int = 0
    too_old: int = 0
    gaps: int = 0
    malformed: int = 0
    time_replaced: int = 0
    counter_resets: int = 0
    jumps: int = 0
    jump_wh: float = 0.0
    silent_segments: int = 0
    unattributed_wh: float = 0.0
    spans_refused: int = 0
    spans_beside_counter: int = 0
    late_rows: int = 0
    late_wh: float = 0.0
    closes: int = 0
    revisions: int = 0

    def add(self, other: "Counts") -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Baseline(Table):
    """The newest counter reading of each device in one direction; `t_ms` = `NEVER_MS`: it never had a counter."""

    SPEC = {"t_ms": (np.int64, NEVER_MS), "wh": (np.float64, np.nan)}
    t_ms: Ints
    wh: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """New samples sorted by device and time; `rated_w` NaN = rating unknown, no plausibility check."""

    slots: Slots
    t_ms: Ints
    span_ms: Ints
    rated_w: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Energy of one direction per row: `wh` over `(from_ms, t_ms]`; `from_ms == t_ms`: none is known."""

    wh: Floats
    from_ms: Ints


def flow(rows: Rows, counter_wh: Floats, span_wh: Floats, base: Baseline, rules: Rules, counts: Counts) -> Flow:
    """Energy each row brings; moves the baselines. A counter row that is not newer than its baseline brings none (the
    differences contain it already); resets, jumps and silences longer than an interval restart the baseline."""
    wh = np.zeros(len(rows.t_ms))
    from_ms = rows.t_ms.copy()
    with_counter = np.isfinite(counter_wh) & (counter_wh >= 0)
    k = np.flatnonzero(with_counter)
    if len(k):
        k = _advancing(rows, base, k)
    if len(k):
        wh[k], from_ms[k] = _differences(rows, counter_wh, base, k, rules, counts)
    if len(k) < len(wh):
        with_span = np.isfinite(span_wh) & ~with_counter
        if np.any(with_span):
            _spans(rows, span_wh, np.flatnonzero(with_span), base, rules, counts, wh, from_ms)
    return Flow(wh=wh, from_ms=from_ms)


def _advancing(rows: Rows, base: Baseline, k: Ints) -> Ints:
    s, t = rows.slots[k], rows.t_ms[k]
    keep = t > base.t_ms[s]
    if len(k) > 1:
        keep[:-1] &= (s[1:] != s[:-1]) | (t[1:] != t[:-1])
    return k if bool(keep.all()) else k[keep]


def _differences(
    rows: Rows, counter_wh: Floats, base: Baseline, k: Ints, rules: Rules, counts: Counts
) -> tuple[Floats, Ints]:
    s, t, v = rows.slots[k], rows.t_ms[k], counter_wh[k]
    head, tail = heads(s), tails(s)
    before_t, before_v = np.empty_like(t), np.empty_like(v)
    before_t[1:], before_v[1:] = t[:-1], v[:-1]
    before_t[head], before_v[head] = base.t_ms[s[head]], base.wh[s[head]]
    base.t_ms[s[tail]], base.wh[s[tail]] = t[tail], v[tail]

    started = before_t != NEVER_MS
    lasted = t - before_t
    grown = v - before_v
    reset = started & (grown < 0)
    jump = started & _implausible(grown, lasted, rows.rated_w[k], rules)
    silent = started & ~reset & ~jump & (lasted > rules.length_ms)
    good = started & ~reset & ~jump & ~silent
    if np.any(reset):
        counts.counter_resets += int(np.count_nonzero(reset))
    if np.any(jump):
        counts.jumps += int(np.count_nonzero(jump))
        counts.jump_wh += float(grown[jump].sum())
    if np.any(silent):
        counts.silent_segments += int(np.count_nonzero(silent))
        counts.unattributed_wh += float(grown[silent].sum())
    return np.where(good, grown, 0.0), np.where(good, before_t, t)


def _spans(
    rows: Rows, span_wh: Floats, k: Ints, base: Baseline, rules: Rules, counts: Counts, wh: Floats, from_ms: Ints
) -> None:
    beside = base.t_ms[rows.slots[k]] != NEVER_MS
    if np.any(beside):
        counts.spans_beside_counter += int(np.count_nonzero(beside))
        k = k[~beside]
    span, energy = rows.span_ms[k], span_wh[k]
    fits = (span > 0) & (span <= rules.length_ms) & (energy >= 0)
    jump = fits & _implausible(energy, span, rows.rated_w[k], rules)
    if np.any(jump):
        counts.jumps += int(np.count_nonzero(jump))
        counts.jump_wh += float(energy[jump].sum())
    if not fits.all():
        counts.spans_refused += int(np.count_nonzero(~fits))
        counts.unattributed_wh += float(np.maximum(energy[~fits], 0.0).sum())
    good = fits & ~jump
    k = k[good]
    wh[k] = energy[good]
    from_ms[k] -= span[good]


def _implausible(wh: Floats, ms: Ints, rated_w: Floats, rules: Rules) -> Bools:
    ceiling = rated_w * (ms * (RATING_MARGIN / MS_PER_HOUR)) + rules.counter_step_wh
    return wh > ceiling

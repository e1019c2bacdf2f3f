"""Turns settlement samples into energy over a stretch of time, one direction (charge or discharge) at a time.

Counters are preferred: the energy between two samples is their difference. A device that ever sent a counter for a
direction never falls back to the energy of spans there, unless its counter is too coarse for its intervals: then spans
are integrated and the counter only checks them, once a day, and fills silences. What a counter gained over a silence
longer than an interval is kept apart for a while, because the device may still send what it has stored; what is not
told by then is shared by time. What cannot be placed in time is not placed: it is counted.
"""

from dataclasses import dataclass

import numpy as np

from gateway.domain.columns import Table
from gateway.domain.duplicates import heads, tails
from gateway.domain.model import NEVER_MS, Bools, Flags, Floats, Ints, Quality, Slots

MS_PER_HOUR = 3_600_000
DAY_MS = 24 * MS_PER_HOUR
RATING_MARGIN = 1.2
DRIFT_PART = 0.005
DRIFT_STEPS = 2.0
DRIFT_FACTOR_MAX = 2.0
MODULI = (*(10.0**n for n in range(4, 13)), *(2.0**n for n in (16, 31, 32)))
"""Where counters begin anew, in steps of the counter: registers of 16, 31 and 32 bits, and decimal displays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the interval engine goes by. `length_s` divides a day and holds for devices without terms of their own;
    `counter_step_wh` is the coarsest step a counter may have on top of what rated power explains; device time counts
    within `past_ms` and `future_ms` of now, a constant difference only within `skew_ms`. What a counter gained over a
    silence waits `gap_hold_s` for the device's stored samples, late samples wait a grace for more of them."""

    length_s: int = 300
    grace_s: int = 30
    counter_step_wh: float = 100.0
    past_ms: int = 49 * MS_PER_HOUR
    future_ms: int = 5 * 60_000
    close_slice: int = 20_000
    skew_ms: int = 5 * 60_000
    gap_hold_s: int = 600

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
    rollovers: int = 0
    jumps: int = 0
    jump_wh: float = 0.0
    power_refused: int = 0
    silent_segments: int = 0
    spread_wh: float = 0.0
    unattributed_wh: float = 0.0
    spans_refused: int = 0
    spans_beside_counter: int = 0
    days_compared: int = 0
    days_drifted: int = 0
    drift_wh: float = 0.0
    late_rows: int = 0
    late_wh: float = 0.0
    lost_rows: int = 0
    lost_wh: float = 0.0
    closes: int = 0
    revisions: int = 0
    repairs: int = 0

    def add(self, other: "Counts") -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Baseline(Table):
    """The counter of each device in one direction. `t_ms`, `wh`: its newest reading (`NEVER_MS`: it never had one).
    `from_*` and `to_*`: its readings around a silence whose energy is not placed yet, `since_ms` the last time that
    something of it became known (0 or less: there is none). Coarse counters only: `day_*` the first reading of the
    day (0 or less: there was none) and `day_integrated_wh` what has been integrated since."""

    SPEC = {
        "t_ms": (np.int64, NEVER_MS),
        "wh": (np.float64, np.nan),
        "from_ms": (np.int64, 0),
        "from_wh": (np.float64, 0.0),
        "to_ms": (np.int64, 0),
        "to_wh": (np.float64, 0.0),
        "since_ms": (np.int64, 0),
        "day_ms": (np.int64, 0),
        "day_wh": (np.float64, 0.0),
        "day_integrated_wh": (np.float64, 0.0),
    }
    t_ms: Ints
    wh: Floats
    from_ms: Ints
    from_wh: Floats
    to_ms: Ints
    to_wh: Floats
    since_ms: Ints
    day_ms: Ints
    day_wh: Floats
    day_integrated_wh: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """New samples sorted by device and time. `rated_w` NaN = rating unknown, no plausibility check; `step_wh` (by slot)
    the counter's step, NaN = unknown; `coarse`: it is too large for the device's intervals. `quality` gathers, per
    row, what was found out about it."""

    slots: Slots
    t_ms: Ints
    span_ms: Ints
    rated_w: Floats
    length_ms: Ints
    step_wh: Floats
    coarse: Bools
    any_coarse: bool
    quality: Flags


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretches:
    """Energy over `(from_ms, to_ms]`, as long as it may be, sorted by nothing in particular."""

    slots: Slots
    from_ms: Ints
    to_ms: Ints
    wh: Floats
    quality: Flags

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drifted:
    """What was integrated over `(from_ms, to_ms]` is to be multiplied by `factor`, to be what the counter says. At most
    one per device, by slot."""

    slots: Slots
    from_ms: Ints
    to_ms: Ints
    factor: Floats


@dataclass(slots=True, kw_only=True)
class Flow:
    """Energy of one direction per row: `wh` over `(from_ms, t_ms]`; `from_ms == t_ms`: none is known. `stretches`:
    what is longer than an interval or ends elsewhere than at a row. `filled_wh`: what a coarse counter tells of a
    silence that a row ended, less what rows within it tell. `drifted`: days before, which these rows ended."""

    wh: Floats
    from_ms: Ints
    stretches: list[Stretches]
    filled_wh: Floats
    drifted: Drifted | None = None


def flow(
    rows: Rows,
    counter_wh: Floats,
    span_wh: Floats,
    power_w: Floats,
    base: Baseline,
    rules: Rules,
    counts: Counts,
    now_ms: int,
) -> Flow:
    """Energy each row brings; moves the baselines. `power_w` is the mean power of the span into this direction (what is
    negative went the other way); it stands in for the energy of spans that a device does not tell. A counter row that
    is not newer than its baseline brings none (the differences contain it already) unless it lies within a silence;
    resets, jumps and silences longer than an interval restart the baseline."""
    n = len(rows.t_ms)
    out = Flow(wh=np.zeros(n), from_ms=rows.t_ms.copy(), stretches=[], filled_wh=np.zeros(n))
    with_counter = np.isfinite(counter_wh) & (counter_wh >= 0)
    k = np.flatnonzero(with_counter)
    if len(k):
        ahead = rows.t_ms[k] > base.t_ms[rows.slots[k]]
        if not ahead.all():
            _refine(rows, counter_wh, base, k[~ahead], out, now_ms)
            k = k[ahead]
        k = _last_of_equal_times(rows, k)
    if len(k):
        _differences(rows, counter_wh, span_wh, base, k, rules, counts, out, now_ms)
    if len(k) < len(counter_wh) or rows.any_coarse:
        spanned = ~with_counter | rows.coarse
        unknown = np.isnan(span_wh)
        if unknown.any():
            by_power = np.maximum(power_w, 0.0) * (rows.span_ms / MS_PER_HOUR)
            span_wh = np.where(unknown, by_power, span_wh)
        spanned &= np.isfinite(span_wh)
        if spanned.any():
            _spans(rows, span_wh, np.flatnonzero(spanned), base, rules, counts, out)
    if rows.any_coarse:
        _compare(rows, counter_wh, with_counter, base, rules, counts, out)
    return out


def settle(base: Baseline, slots: Slots, counts: Counts) -> Stretches:
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


def _last_of_equal_times(rows: Rows, k: Ints) -> Ints:
    if len(k) < 2:
        return k
    s, t = rows.slots[k], rows.t_ms[k]
    keep = np.ones(len(k), dtype=np.bool_)
    keep[:-1] = (s[1:] != s[:-1]) | (t[1:] != t[:-1])
    return k if bool(keep.all()) else k[keep]


def _before(s: Slots, t: Ints, v: Floats, base_t: Ints, base_v: Floats) -> tuple[Ints, Floats]:
    """Time and value before each row: those of the row before it, of the first row of a device its base."""
    head = heads(s)
    before_t, before_v = np.empty_like(t), np.empty_like(v)
    before_t[1:], before_v[1:] = t[:-1], v[:-1]
    before_t[head], before_v[head] = base_t[s[head]], base_v[s[head]]
    return before_t, before_v


def _differences(
    rows: Rows,
    counter_wh: Floats,
    span_wh: Floats,
    base: Baseline,
    k: Ints,
    rules: Rules,
    counts: Counts,
    out: Flow,
    now_ms: int,
) -> None:
    s, t, v = rows.slots[k], rows.t_ms[k], counter_wh[k]
    before_t, before_v = _before(s, t, v, base.t_ms, base.wh)
    tail = tails(s)
    base.t_ms[s[tail]], base.wh[s[tail]] = t[tail], v[tail]

    started = before_t != NEVER_MS
    lasted = t - before_t
    grown = v - before_v
    reset = started & (grown < 0)
    if reset.any():
        _roll_over(rows, k, before_v, grown, reset, lasted, rules, counts)
        counts.counter_resets += int(np.count_nonzero(reset))
        rows.quality[k[reset]] |= Quality.RESET
    jump = started & _implausible(grown, lasted, rows.rated_w[k], rules)
    silent = started & ~reset & ~jump & (lasted > rows.length_ms[k])
    good = started & ~reset & ~jump & ~silent
    if jump.any():
        counts.jumps += int(np.count_nonzero(jump))
        counts.jump_wh += float(grown[jump].sum())
        rows.quality[k[jump]] |= Quality.JUMP
    placed = good & ~rows.coarse[k]
    out.wh[k] = np.where(placed, grown, 0.0)
    out.from_ms[k] = np.where(placed, before_t, t)
    if silent.any():
        i = np.flatnonzero(silent)
        _open_silences(rows, span_wh, base, k[i], before_t[i], before_v[i], v[i], rules, counts, out, now_ms)


def _roll_over(
    rows: Rows, k: Ints, before_v: Floats, grown: Floats, reset: Bools, lasted: Ints, rules: Rules, counts: Counts
) -> None:
    """A counter that began anew at the end of its register went on counting: `grown` becomes what it gained."""
    i = np.flatnonzero(reset)
    step = rows.step_wh[rows.slots[k[i]]]
    step = np.where(np.isfinite(step), step, 1.0)
    modulus = step[:, None] * np.array(MODULI)
    gained = np.where(modulus >= before_v[i][:, None], grown[i][:, None] + modulus, np.inf).min(axis=1)
    known = np.isfinite(rows.rated_w[k[i]]) & (lasted[i] <= rows.length_ms[k[i]])
    wrapped = known & (gained >= 0) & ~_implausible(gained, lasted[i], rows.rated_w[k[i]], rules)
    grown[i[wrapped]] = gained[wrapped]
    reset[i[wrapped]] = False
    counts.rollovers += int(np.count_nonzero(wrapped))


def _open_silences(
    rows: Rows,
    span_wh: Floats,
    base: Baseline,
    k: Ints,
    before_t: Ints,
    before_v: Floats,
    v: Floats,
    rules: Rules,
    counts: Counts,
    out: Flow,
    now_ms: int,
) -> None:
    """Silences that ended with rows `k`. The newest of each device waits, others are shared by time at once."""
    s, coarse = rows.slots[k], rows.coarse[k]
    # a coarse counter's row brings the energy of its own span besides
    span = np.where(coarse, np.maximum(rows.span_ms[k], 0), 0)
    until = np.maximum(rows.t_ms[k] - span, before_t)
    to_wh = np.maximum(v - np.where(coarse, np.nan_to_num(span_wh[k]), 0.0), before_v)
    counts.silent_segments += len(k)
    bounded = until - before_t <= rules.past_ms
    counts.unattributed_wh += float((to_wh - before_v)[~bounded].sum())
    k, s, before_t, until = k[bounded], s[bounded], before_t[bounded], until[bounded]
    before_v, to_wh = before_v[bounded], to_wh[bounded]
    waiting = s[tails(s)]
    waiting = waiting[base.since_ms[waiting] > 0]
    if len(waiting):
        out.stretches.append(settle(base, waiting, counts))
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


def _refine(rows: Rows, counter_wh: Floats, base: Baseline, k: Ints, out: Flow, now_ms: int) -> None:
    """Samples that the device had stored tell what happened within a silence."""
    s, t, v = rows.slots[k], rows.t_ms[k], counter_wh[k]
    inside = (base.since_ms[s] > 0) & (t > base.from_ms[s]) & (t < base.to_ms[s])
    inside &= (v >= base.from_wh[s]) & (v <= base.to_wh[s])
    k = _last_of_equal_times(rows, k[inside])
    if not len(k):
        return
    s, t, v = rows.slots[k], rows.t_ms[k], counter_wh[k]
    before_t, before_v = _before(s, t, v, base.from_ms, base.from_wh)
    grown, lasted = v - before_v, t - before_t
    if np.any(grown < 0):
        # a counter that goes up and down again says nothing that could be relied on
        sane = ~np.isin(s, s[grown < 0])
        k, s, t, before_t, lasted = k[sane], s[sane], t[sane], before_t[sane], lasted[sane]
        v, grown = v[sane], grown[sane]
        if not len(k):
            return
    short = lasted <= rows.length_ms[k]
    out.filled_wh[k] = np.where(short & rows.coarse[k], -grown, 0.0)
    placed = short & ~rows.coarse[k]
    out.wh[k] = np.where(placed, grown, 0.0)
    out.from_ms[k] = np.where(placed, before_t, t)
    far = ~short
    if far.any():
        out.stretches.append(
            Stretches(
                slots=s[far], from_ms=before_t[far], to_ms=t[far], wh=grown[far],
                quality=np.full(int(far.sum()), Quality.SPREAD, dtype=np.int16),
            )
        )  # fmt: skip
    tail = tails(s)
    s, t, v, length = s[tail], t[tail], v[tail], rows.length_ms[k[tail]]
    base.from_ms[s], base.from_wh[s], base.since_ms[s] = t, v, now_ms
    done = base.to_ms[s] - t <= length
    if done.any():
        s = s[done]
        rest = Stretches(
            slots=s, from_ms=base.from_ms[s], to_ms=base.to_ms[s], wh=base.to_wh[s] - base.from_wh[s],
            quality=np.zeros(len(s), dtype=np.int16),
        )  # fmt: skip
        base.since_ms[s] = 0
        out.stretches.append(rest)


def _spans(rows: Rows, span_wh: Floats, k: Ints, base: Baseline, rules: Rules, counts: Counts, out: Flow) -> None:
    beside = (base.t_ms[rows.slots[k]] != NEVER_MS) & ~rows.coarse[k]
    if beside.any():
        counts.spans_beside_counter += int(np.count_nonzero(beside))
        k = k[~beside]
    span, energy = rows.span_ms[k], span_wh[k]
    fits = (span > 0) & (span <= rules.past_ms) & (energy >= 0)
    jump = fits & _implausible(energy, span, rows.rated_w[k], rules)
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


def _compare(
    rows: Rows, counter_wh: Floats, with_counter: Bools, base: Baseline, rules: Rules, counts: Counts, out: Flow
) -> None:
    """Integration against a coarse counter, from the first reading of a UTC day to that of a later one. What is off by
    more than its tolerance is to be scaled, unless it is off by so much that one of the two must be wrong."""
    k = np.flatnonzero(rows.coarse & (rows.t_ms > base.day_ms[rows.slots]))
    moved, s, t = out.wh[k] + out.filled_wh[k], rows.slots[k], rows.t_ms[k]
    i = np.flatnonzero(with_counter[k] & (t // DAY_MS > base.day_ms[s] // DAY_MS))
    i = i[heads(s[i])]
    if not len(i):
        np.add.at(base.day_integrated_wh, s, moved)
        return
    at = np.minimum(np.searchsorted(s[i], s), len(i) - 1)
    after = (s[i][at] == s) & (t > t[i][at])
    np.add.at(base.day_integrated_wh, s[~after], moved[~after])
    _end_days(rows, counter_wh, k[i], base, rules, counts, out)
    np.add.at(base.day_integrated_wh, s[after], moved[after])


def _end_days(rows: Rows, counter_wh: Floats, k: Ints, base: Baseline, rules: Rules, counts: Counts, out: Flow) -> None:
    s, t, v = rows.slots[k], rows.t_ms[k], counter_wh[k]
    counted, integrated = v - base.day_wh[s], base.day_integrated_wh[s]
    off = np.abs(counted - integrated)
    step = rows.step_wh[s]
    step = np.where(np.isfinite(step), step, rules.counter_step_wh)
    begun = (base.day_ms[s] > 0) & (counted >= 0)
    drifted = begun & (off > np.maximum(DRIFT_STEPS * step, DRIFT_PART * counted))
    counts.days_compared += int(np.count_nonzero(begun))
    counts.days_drifted += int(np.count_nonzero(drifted))
    counts.drift_wh += float(off[drifted].sum())
    believed = drifted & (counted <= DRIFT_FACTOR_MAX * integrated) & (integrated <= DRIFT_FACTOR_MAX * counted)
    rows.quality[k[drifted & ~believed]] |= Quality.DRIFT
    if believed.any():
        out.drifted = Drifted(
            slots=s[believed], from_ms=base.day_ms[s[believed]], to_ms=t[believed],
            factor=counted[believed] / integrated[believed],
        )  # fmt: skip
    base.day_ms[s], base.day_wh[s], base.day_integrated_wh[s] = t, v, 0.0


def _implausible(wh: Floats, ms: Ints, rated_w: Floats, rules: Rules) -> Bools:
    ceiling = rated_w * (ms * (RATING_MARGIN / MS_PER_HOUR)) + rules.counter_step_wh
    return wh > ceiling

"""Words of the way from samples to energy: the rules, counts, what is kept per counter, rows and what they bring."""

from dataclasses import dataclass

import numpy as np

from gateway.domain.table import Table
from gateway.domain.types import NEVER_MS, Bools, Flags, Floats, Ints, Slots

MS_PER_HOUR = 3_600_000
RATING_MARGIN = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalRules:
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
class SampleCounts:
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

    def add(self, other: "SampleCounts") -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class CounterState(Table):
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
class SampleRows:
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
class Flow:
    """Energy of one direction per row: `wh` over `(from_ms, t_ms]`; `from_ms == t_ms`: none is known. `stretches`:
    what is longer than an interval or ends elsewhere than at a row. `filled_wh`: what else of a row counts as
    integrated: what a coarse counter tells of a silence that it ended, less what rows within it tell, and spans of over
    an interval. `broken` marks rows over which a counter says nothing: it began anew or jumped."""

    wh: Floats
    from_ms: Ints
    stretches: list[Stretches]
    filled_wh: Floats
    broken: Bools


def implausible(wh: Floats, ms: Ints, rated_w: Floats, step_wh: Floats | float) -> Bools:
    """Energy over a time that is more than rated power and a step of the counter explain; False where the rating is not
    known."""
    ceiling = rated_w * (ms * (RATING_MARGIN / MS_PER_HOUR)) + step_wh
    return wh > ceiling

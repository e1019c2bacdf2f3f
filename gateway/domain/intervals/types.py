"""Types on the way from samples to energy: rules, counts, counter states, sample rows and their energy."""

from dataclasses import dataclass

import numpy as np

from gateway.domain.table import Table, column
from gateway.domain.types import NEVER_MS, Bools, Flags, Floats, Ints, Slots

MS_PER_HOUR = 3_600_000
WHOLE_SLICE = 20_000
RATING_MARGIN = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalRules:
    """Rules of the interval engine. `length_s` divides a day and holds for devices without a length of their own;
    `counter_step_wh` is the coarsest step a counter may have on top of what rated power explains; device time is used
    within `past_ms` and `future_ms` of now, and corrected for a clock that is off by more than `skew_ms`: less than 1 %
    of an interval of 5 minutes, more than transmission usually takes (0.1 wrote 5 minutes). The energy of a gap waits
    `gap_hold_s` for the device's stored samples, late samples wait a grace for more of them. `close_slice` bounds the
    devices and the intervals of gaps that one step works on; 0.1 had `WHOLE_SLICE` for devices alone, and what it wrote
    is replayed like that."""

    length_s: int = 300
    grace_s: int = 30
    counter_step_wh: float = 100.0
    past_ms: int = 49 * MS_PER_HOUR
    future_ms: int = 5 * 60_000
    close_slice: int = 2_048
    skew_ms: int = 2_000
    gap_hold_s: int = 600

    @property
    def length_ms(self) -> int:
        return self.length_s * 1000

    @property
    def grace_ms(self) -> int:
        return self.grace_s * 1000

    @property
    def sliced(self) -> bool:
        """Whether a step's intervals of gaps are bounded, too."""
        return self.close_slice < WHOLE_SLICE


@dataclass(slots=True)
class SampleCounts:
    """Counts of what happened to energy samples: rows, energy in Wh, intervals."""

    rows: int = 0
    new: int = 0
    duplicates: int = 0
    too_old: int = 0
    gaps: int = 0
    gaps_given_up: int = 0
    malformed: int = 0
    time_replaced: int = 0
    time_corrected: int = 0
    time_doubted: int = 0
    counter_resets: int = 0
    rollovers: int = 0
    jumps: int = 0
    jump_wh: float = 0.0
    outliers: int = 0
    power_refused: int = 0
    counter_gaps: int = 0
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
    records: int = 0
    revisions: int = 0
    repairs: int = 0

    def add(self, other: "SampleCounts") -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class CounterState(Table):
    """The counter of each device in one direction. `t_ms`, `wh`: its newest reading (`NEVER_MS`: it never had one).
    `from_*` and `to_*`: its readings around a gap not placed in time yet, `since_ms` when a sample last narrowed that
    gap (0 or less: there is none). Coarse counters only: `day_*` the first reading of the
    day (0 or less: there was none) and `day_integrated_wh` what has been integrated since. `before_*`: the reading
    before the newest (0 or less: there is none, or the counter began anew); `held`: the movement between the two is not
    booked, and the next reading decides whether it stands."""

    t_ms: Ints = column(NEVER_MS)
    wh: Floats = column(np.nan)
    from_ms: Ints = column(0)
    from_wh: Floats = column(0.0)
    to_ms: Ints = column(0)
    to_wh: Floats = column(0.0)
    since_ms: Ints = column(0)
    day_ms: Ints = column(0)
    day_wh: Floats = column(0.0)
    day_integrated_wh: Floats = column(0.0)
    before_ms: Ints = column(0)
    before_wh: Floats = column(0.0)
    held: Bools = column(False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRows:
    """New samples sorted by device and time. `rated_w` NaN = rating unknown, no plausibility check; `step_wh` (by slot)
    the counter's step, NaN = unknown; `coarse`: it is too large for the device's intervals; `rebooted`: the device has
    started anew since its sample before. `quality` collects
    the bits of each row."""

    slots: Slots
    t_ms: Ints
    span_ms: Ints
    rated_w: Floats
    length_ms: Ints
    step_wh: Floats
    coarse: Bools
    any_coarse: bool
    rebooted: Bools
    quality: Flags


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretches:
    """Energy over `(from_ms, to_ms]` of any length, in no order. `covers`: no other energy is known of that time."""

    slots: Slots
    from_ms: Ints
    to_ms: Ints
    wh: Floats
    quality: Flags
    covers: bool = True

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class TooHigh:
    """Counter readings at `t_ms` that were `wh` too high."""

    slots: Slots
    t_ms: Ints
    wh: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Energy of one direction per row: `wh` over `(from_ms, t_ms]`; `from_ms == t_ms`: none is known. `stretches`:
    energy over more than an interval, or that does not end at a row. `filled_wh`: other energy that counts as
    integrated: a coarse counter's gain over a gap, less what rows within it report, and spans longer than an interval.
    `broken` marks rows where the counter was reset or jumped, so that its difference is unknown. `standing_wh`: the
    counter readings as far as they stand, NaN where the next one decides that. `too_high`: earlier readings of coarse
    counters that did not stand, and by how much."""

    wh: Floats
    from_ms: Ints
    stretches: list[Stretches]
    filled_wh: Floats
    broken: Bools
    standing_wh: Floats
    too_high: list[TooHigh]


def implausible(wh: Floats, ms: Ints, rated_w: Floats, step_wh: Floats | float) -> Bools:
    """Energy over a time that is more than rated power and a step of the counter explain; False where the rating is not
    known."""
    ceiling = rated_w * (ms * (RATING_MARGIN / MS_PER_HOUR)) + step_wh
    return wh > ceiling

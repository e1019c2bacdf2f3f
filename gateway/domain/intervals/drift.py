"""Corrects integrated energy by the coarse counter, a day at a time.

Every interval of a day that drifted is multiplied by the same factor, so that the day has the energy of the counter.
Once the whole day is in the interval log, the caller passes the records in, the oldest of a day first, and gets their
next revisions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gateway.domain.intervals.duplicates import heads, tails
from gateway.domain.intervals.record import Quality
from gateway.domain.intervals.types import MS_PER_HOUR, CounterState, Flow, IntervalRules, SampleCounts, SampleRows
from gateway.domain.table import new_slots
from gateway.domain.types import NEVER_MS, Bools, Floats, Ints, Slots, Small

CHARGE, DISCHARGE = 0, 1
DAY_MS = 24 * MS_PER_HOUR
DRIFT_PART = 0.005
DRIFT_STEPS = 2.0
DRIFT_FACTOR_MAX = 2.0


@dataclass(slots=True, kw_only=True)
class Days:
    """One row per day `(from_ms, to_ms]` and `direction`: energy by counter and by integration. `ready_ms`: when its
    last interval was recorded, 0 = not yet."""

    slots: Slots
    direction: Small
    from_ms: Ints
    to_ms: Ints
    counted_wh: Floats
    integrated_wh: Floats
    ready_ms: Ints

    def rows(self, index: Ints | Bools) -> Self:
        return type(self)(**{name: column[index] for name, column in self.columns().items()})

    def columns(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in self.__slots__}


def no_days(n: int = 0) -> Days:
    """`n` rows to fill in."""
    whole = np.zeros(n, dtype=np.int64)
    return Days(
        slots=np.zeros(n, dtype=np.int32), direction=np.zeros(n, dtype=np.int8), from_ms=whole, to_ms=whole.copy(),
        counted_wh=np.ones(n), integrated_wh=np.ones(n), ready_ms=whole.copy(),
    )  # fmt: skip


def joined(parts: Sequence[Days]) -> Days:
    """The rows of all parts, in their order."""
    columns = [part.columns() for part in parts]
    return Days(**{name: np.concatenate([part[name] for part in columns]) for name in columns[0]})


def compare(
    rows: SampleRows,
    flow: Flow,
    direction: int,
    state: CounterState,
    rules: IntervalRules,
    counts: SampleCounts,
) -> Days:
    """Compare integration with a coarse counter, from the first reading of a UTC day to that of the next one with
    readings. Returns days off by more than the tolerance, to be scaled; not those off by so much that one of the two
    must be wrong. The comparison starts over where a counter was reset or jumped."""
    counter_wh = flow.standing_wh
    for high in flow.too_high:
        begins = state.day_ms[high.slots] == high.t_ms
        state.day_wh[high.slots[begins]] -= high.wh[begins]
    broken = np.flatnonzero(rows.coarse & flow.broken)
    if len(broken):
        broken = broken[tails(rows.slots[broken])]
        s = rows.slots[broken]
        state.day_ms[s], state.day_wh[s], state.day_integrated_wh[s] = rows.t_ms[broken], counter_wh[broken], 0.0
    moved_wh = flow.wh + flow.filled_wh
    readable = np.isfinite(counter_wh) & (counter_wh >= 0)
    left = np.flatnonzero(rows.coarse & (rows.t_ms > state.day_ms[rows.slots]))
    found = []
    while True:  # once per day that the rows of a device begin
        s, day = rows.slots[left], rows.t_ms[left] // DAY_MS
        first = np.flatnonzero(readable[left] & (day > state.day_ms[s] // DAY_MS))
        first = first[heads(s[first])]
        if not len(first):
            break
        of = np.minimum(np.searchsorted(s[first], s), len(first) - 1)
        before = (s[first][of] == s) & (rows.t_ms[left] <= rows.t_ms[left[first]][of])
        np.add.at(state.day_integrated_wh, s[before], moved_wh[left[before]])
        found.append(_ended(rows, counter_wh, left[first], direction, state, rules, counts))
        left = left[~before]
    np.add.at(state.day_integrated_wh, s, moved_wh[left])
    return joined(found) if found else no_days()


def _ended(
    rows: SampleRows,
    counter_wh: Floats,
    k: Ints,
    direction: int,
    state: CounterState,
    rules: IntervalRules,
    counts: SampleCounts,
) -> Days:
    s, t, v = rows.slots[k], rows.t_ms[k], counter_wh[k]
    counted, integrated = v - state.day_wh[s], state.day_integrated_wh[s]
    off = np.abs(counted - integrated)
    step = rows.step_wh[s]
    step = np.where(np.isfinite(step), step, rules.counter_step_wh)
    begun = (state.day_ms[s] > 0) & (counted >= 0)
    drifted = begun & (off > np.maximum(DRIFT_STEPS * step, DRIFT_PART * counted))
    counts.days_compared += int(np.count_nonzero(begun))
    counts.days_drifted += int(np.count_nonzero(drifted))
    counts.drift_wh += float(off[drifted].sum())
    believed = drifted & (counted <= DRIFT_FACTOR_MAX * integrated) & (integrated <= DRIFT_FACTOR_MAX * counted)
    rows.quality[k[drifted & ~believed]] |= Quality.DRIFT
    days = no_days(len(s))
    length_ms = rows.length_ms[k]
    days.slots, days.direction[:] = s, direction
    days.from_ms, days.to_ms = state.day_ms[s] // length_ms * length_ms, t
    believed &= t - days.from_ms >= length_ms
    days.counted_wh, days.integrated_wh = counted, integrated.copy()
    state.day_ms[s], state.day_wh[s], state.day_integrated_wh[s] = t, v, 0.0
    return days.rows(believed)


def _pairs(of_days: Slots, slots: Slots) -> tuple[Ints, Ints]:
    """Each day with each of its device's rows in `slots`: positions in both."""
    order = np.argsort(slots, kind="stable")
    known = slots[order]
    begins, ends = np.searchsorted(known, of_days), np.searchsorted(known, of_days, side="right")
    n = ends - begins
    of = np.repeat(np.arange(len(of_days)), n)
    return of, order[np.repeat(begins - (np.cumsum(n) - n), n) + np.arange(len(of))]


class DriftCorrection:
    """Days that wait for their correction, in the order of the comparisons. Interval starts and lengths are in ms."""

    def __init__(self) -> None:
        self.days = no_days()

    def __len__(self) -> int:
        return len(self.days.slots)

    def add(self, days: Days) -> None:
        """Days of at least one interval; `from_ms` is the start of the first."""
        if len(days.slots):
            self.days = joined((self.days, days))

    def add_late(self, rows: SampleRows, flow: Flow, direction: int) -> None:
        """Add energy that arrived after the day's comparison to what was integrated."""
        days = self.days
        order = np.flatnonzero(days.direction == direction)
        order = order[np.argsort(days.slots[order], kind="stable")]
        newest = order[tails(days.slots[order])]
        if not len(newest):
            return
        at = newest[np.minimum(np.searchsorted(days.slots[newest], rows.slots), len(newest) - 1)]
        within = rows.coarse & (days.slots[at] == rows.slots)
        within &= (rows.t_ms > days.from_ms[at]) & (rows.t_ms <= days.to_ms[at])
        np.add.at(days.integrated_wh, at[within], (flow.wh + flow.filled_wh)[within])

    def take_back(self, flow: Flow, direction: int) -> None:
        """Correct days whose last reading was too high."""
        for high in flow.too_high if len(self) else ():
            of, at = _pairs(self.days.slots, high.slots)
            ended = (self.days.direction[of] == direction) & (self.days.to_ms[of] == high.t_ms[at])
            self.days.counted_wh[of[ended]] -= high.wh[at[ended]]

    def ready(self, days: Bools, now_ms: int) -> None:
        """Mark days whose intervals have all been recorded."""
        self.days.ready_ms[days & (self.days.ready_ms == 0)] = now_ms

    def first(self, days: Bools, most: int, length_ms: Ints) -> tuple[Slots, Ints]:
        """Devices and starts of up to `most` intervals of the chosen days. Lengths by slot."""
        index = np.flatnonzero(days & (self.days.ready_ms > 0))
        before = np.cumsum(self._intervals(index, length_ms)) - self._intervals(index, length_ms)
        of, start_ms, _ = self._spread(index[before < most], length_ms)
        return self.days.slots[of[:most]], start_ms[:most]

    def pop(self, slots: Slots, start_ms: Ints, length_ms: Ints) -> NDArray[np.float64]:
        """Return the factors for charge and discharge of these intervals (1 = unchanged) and remove them. Of a day only
        the oldest waiting intervals are removed, without a gap between them, so that an interval repaired for another
        cause is not scaled twice."""
        out = np.ones((len(slots), 2))
        index = np.flatnonzero((self.days.ready_ms > 0) & np.isin(self.days.slots, slots))
        if not len(index):
            return out
        of, at = _pairs(self.days.slots[index], slots)
        day = index[of]
        length = length_ms[self.days.slots[day]]
        number, beside = np.divmod(start_ms[at] - self.days.from_ms[day], length)
        within = (number >= 0) & (beside == 0) & (number < self._intervals(day, length_ms))
        of, at, day, number = of[within], at[within], day[within], number[within]
        order = np.lexsort((number, of))
        of, at, day, number = of[order], at[order], day[order], number[order]
        # the oldest without a gap between them are those whose number is their place in the row
        first = heads(of)
        begins = np.flatnonzero(first)
        place = np.arange(len(of)) - np.repeat(begins, np.diff(begins, append=len(of)))
        popped = number == place
        factor = self._factors()
        np.multiply.at(out, (at[popped], self.days.direction[day[popped]]), factor[day[popped]])
        reached = np.bincount(of[popped], minlength=len(index))
        self.days.from_ms[index] += reached * length_ms[self.days.slots[index]]
        self.days = self.days.rows(self.days.to_ms - self.days.from_ms >= length_ms[self.days.slots])
        return out

    def drop(self, slots: Slots, *, after_ms: int = NEVER_MS) -> None:
        """Forget days of these devices that end after `after_ms`; their intervals stay uncorrected."""
        self.days = self.days.rows(~np.isin(self.days.slots, slots) | (self.days.to_ms <= after_ms))

    def renumber(self, old_slots: Ints) -> None:
        """See `Engine.renumber`; days of devices that are gone are dropped."""
        self.days.slots = new_slots(self.days.slots, old_slots)
        self.days = self.days.rows(self.days.slots >= 0)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Everything, by name."""
        return self.days.columns()

    def load(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Load what `columns` returned; without effect if columns are missing."""
        empty = no_days().columns()
        if empty.keys() <= columns.keys():
            self.days = Days(**{name: columns[name].astype(column.dtype) for name, column in empty.items()})

    def _factors(self) -> Floats:
        """The factor of each day; 1 where energy that arrived after the comparison explains the difference."""
        counted, integrated = self.days.counted_wh, self.days.integrated_wh
        unscaled = np.abs(counted - integrated) <= DRIFT_PART * counted
        unscaled |= (counted > DRIFT_FACTOR_MAX * integrated) | (integrated > DRIFT_FACTOR_MAX * counted)
        return np.where(unscaled, 1.0, counted / np.where(unscaled, 1.0, integrated))

    def _intervals(self, index: Ints, length_ms: Ints) -> Ints:
        """How many intervals of each day wait; the one that holds the comparison belongs to the next day."""
        n: Ints = (self.days.to_ms[index] - self.days.from_ms[index]) // length_ms[self.days.slots[index]]
        return n

    def _spread(self, index: Ints, length_ms: Ints) -> tuple[Ints, Ints, Ints]:
        """List the intervals of some days: row of the day, start, number within it."""
        n = self._intervals(index, length_ms)
        of = np.repeat(index, n)
        number = np.arange(len(of)) - np.repeat(np.cumsum(n) - n, n)
        return of, self.days.from_ms[of] + number * length_ms[self.days.slots[of]], number

"""What came too late for a device's two newest intervals, until the records it belongs to have been made again.

Older intervals are not kept in memory; their records are in the interval log. What is late waits here, summed per
device and interval, until somebody brings the newest record of each; then it becomes the next revision.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.domain.intervals.accumulators import Accumulators
from gateway.domain.intervals.record import EnergySource, Quality
from gateway.domain.intervals.records import IntervalRecords, part_of, records_of
from gateway.domain.types import NEVER_MS, Bools, Floats, Ints, Slots

_SLOTS = "slots"
DAMAGED = -1
"""The revision of a base that cannot be read any more."""


class Late:
    """Sums per device and interval, sorted by both."""

    def __init__(self) -> None:
        self.slots: Slots = np.zeros(0, dtype=np.int32)
        self.rows = Accumulators(0)

    def __len__(self) -> int:
        return len(self.slots)

    def add(self, slots: Slots, more: Accumulators, now_ms: int) -> None:
        """Add rows, at most one per device and interval."""
        at, there = self._find(slots, more.start_ms)
        self.rows.add(at[there], more.rows(there), now_ms)
        # every addition may be followed by more
        self.rows.changed_ms[at[there]] = now_ms
        new = ~there
        if new.any():
            fresh = more.rows(new)
            fresh.changed_ms[:] = now_ms
            slots, rows = np.concatenate((self.slots, slots[new])), Accumulators.joined(self.rows, fresh)
            order = np.lexsort((rows.start_ms, slots))
            self.slots, self.rows = slots[order], rows.rows(order)

    def first(self, rows: Bools, most: int) -> tuple[Slots, Ints]:
        """Devices and starts of up to `most` intervals of some of the rows."""
        index = np.flatnonzero(rows)[:most]
        return self.slots[index], self.rows.start_ms[index]

    def repair(
        self,
        slots: Slots,
        start_ms: Ints,
        bases: IntervalRecords,
        length_ms: Ints,
        by_counter: tuple[Bools, Bools],
        factors: Floats,
    ) -> tuple[IntervalRecords, Accumulators]:
        """The next revisions of these intervals, which wait no more, and what of them is lost. `bases`: their newest
        records, where there are any (in any order); an interval without one becomes its first, of one that is `DAMAGED`
        nothing is made. `length_ms` and `by_counter` are by slot, `factors` what charge and discharge of each record
        are to be multiplied by, with what is late (1 = nothing to do)."""
        at, there = self._find(slots, start_ms)
        base_at, known = positions(slots, start_ms, bases.slots, bases.start_ms)
        lost = known & (bases.revision[base_at] == DAMAGED) if known.any() else known
        scaled = (factors != 1.0).any(axis=1)
        gone = np.zeros(len(self.slots), dtype=np.bool_)
        gone[at[there]] = True
        out = self.rows.rows(at[there & lost])
        order = np.lexsort((start_ms, slots))
        order = order[((there | (known & scaled)) & ~lost)[order]]
        s, start_ms, factors, scaled = slots[order], start_ms[order], factors[order], scaled[order]
        there, base_at, known = there[order], base_at[order], known[order]
        at = at[order][there]
        whole = Accumulators(len(s))
        whole.start_ms = start_ms
        counted = [by[s] for by in by_counter]
        if known.any():
            kept = bases.rows(base_at[known])
            whole.put(np.flatnonzero(known).astype(np.int32), part_of(kept))
            for by in counted:
                by[known] &= kept.source != EnergySource.INTEGRATED
        whole.add(np.flatnonzero(there), self.rows.rows(at), NEVER_MS + 1)
        whole.quality[there] |= Quality.LATE
        whole.charge_wh *= factors[:, 0]
        whole.discharge_wh *= factors[:, 1]
        whole.quality[scaled] |= Quality.DRIFT
        whole.revision += 1
        self.slots, self.rows = self.slots[~gone], self.rows.rows(~gone)
        return records_of(s, whole, length_ms[s], (counted[0], counted[1])), out

    def drop(self, slots: Slots) -> Accumulators:
        """Give up what waits for these devices; returns it."""
        gone = np.isin(self.slots, slots)
        out = self.rows.rows(gone)
        self.slots, self.rows = self.slots[~gone], self.rows.rows(~gone)
        return out

    def columns(self) -> dict[str, NDArray[Any]]:
        """Everything, by name."""
        return {_SLOTS: self.slots} | {name: self.rows.column(name) for name in Accumulators.SPEC}

    def load(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `columns` gave; without effect if there is nothing."""
        if _SLOTS in columns:
            self.slots = columns[_SLOTS].astype(np.int32)
            self.rows = Accumulators(len(self.slots))
            for name in Accumulators.SPEC:
                if name in columns:
                    self.rows.column(name)[:] = columns[name]

    def renumber(self, old_slots: Ints) -> None:
        """See `Engine.renumber`; what waits for a device that is not there any more is gone."""
        slots = new_slots(self.slots, old_slots)
        kept = slots >= 0
        slots, rows = slots[kept], self.rows.rows(kept)
        order = np.lexsort((rows.start_ms, slots))
        self.slots, self.rows = slots[order], rows.rows(order)

    def _find(self, slots: Slots, start_ms: Ints) -> tuple[Ints, Bools]:
        return positions(slots, start_ms, self.slots, self.rows.start_ms)


def new_slots(slots: Slots, old_slots: Ints) -> Slots:
    """Where devices are once they have new slots (see `Engine.renumber`), -1 for those that are not there any more."""
    new_of = np.full(int(max(slots.max(initial=-1), old_slots.max(initial=-1))) + 1, -1, dtype=np.int32)
    known = old_slots >= 0
    new_of[old_slots[known]] = np.flatnonzero(known)
    return new_of[slots]


def positions(slots: Slots, start_ms: Ints, in_slots: Slots, in_start_ms: Ints) -> tuple[Ints, Bools]:
    """Where each (slot, start) stands in the other list (which repeats none), and whether it does."""
    n = len(in_slots)
    if not n:
        return np.zeros(len(slots), dtype=np.int64), np.zeros(len(slots), dtype=np.bool_)
    order = np.lexsort((in_start_ms, in_slots))
    held, wanted = _keys(in_slots[order], in_start_ms[order]), _keys(slots, start_ms)
    at = np.minimum(np.searchsorted(held, wanted), n - 1)
    return order[at], held[at] == wanted


def _keys(slots: Slots, start_ms: Ints) -> Ints:
    # intervals begin on whole seconds; 34 bits of them reach the year 2514
    return (slots.astype(np.int64) << 34) | (start_ms // 1000)

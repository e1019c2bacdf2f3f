"""Late data: samples older than a device's two newest intervals, until their records have been revised.

Older intervals are not kept in memory; their records are in the interval log. Late data waits here, summed per device
and interval, until the caller passes in the newest record of each; then it becomes the next revision.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.domain.intervals.accumulators import Accumulators
from gateway.domain.intervals.record import EnergySource, Quality
from gateway.domain.intervals.records import IntervalRecords, accumulators_of, records_of
from gateway.domain.types import NEVER_MS, Bools, Floats, Ints, Slots

_SLOTS = "slots"
DAMAGED = -1
"""The revision of a base record that cannot be read."""


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
        """Devices and starts of up to `most` intervals of the chosen rows."""
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
        """Return the next revisions of these intervals and the late data that is lost, and remove both. `bases`: their
        newest records, where there are any (in any order); without one the late data becomes the first record, with one
        that is `DAMAGED` it is lost. `length_ms` and `by_counter` by slot; `factors` multiply charge and discharge of
        each record, late data included (1 = unchanged)."""
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
            whole.put(np.flatnonzero(known).astype(np.int32), accumulators_of(kept))
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
        """Remove and return the late data of these devices."""
        gone = np.isin(self.slots, slots)
        out = self.rows.rows(gone)
        self.slots, self.rows = self.slots[~gone], self.rows.rows(~gone)
        return out

    def columns(self) -> dict[str, NDArray[Any]]:
        """Everything, by name."""
        return {_SLOTS: self.slots} | {name: self.rows.column(name) for name in Accumulators.SPEC}

    def load(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Load what `columns` returned; without effect if it is empty."""
        if _SLOTS in columns:
            self.slots = columns[_SLOTS].astype(np.int32)
            self.rows = Accumulators(len(self.slots))
            for name in Accumulators.SPEC:
                if name in columns:
                    self.rows.column(name)[:] = columns[name]

    def renumber(self, old_slots: Ints) -> None:
        """See `Engine.renumber`; late data of devices that are gone is dropped."""
        slots = new_slots(self.slots, old_slots)
        kept = slots >= 0
        slots, rows = slots[kept], self.rows.rows(kept)
        order = np.lexsort((rows.start_ms, slots))
        self.slots, self.rows = slots[order], rows.rows(order)

    def _find(self, slots: Slots, start_ms: Ints) -> tuple[Ints, Bools]:
        return positions(slots, start_ms, self.slots, self.rows.start_ms)


def new_slots(slots: Slots, old_slots: Ints) -> Slots:
    """The new slots of devices (see `Engine.renumber`), -1 for those that are gone."""
    new_of = np.full(int(max(slots.max(initial=-1), old_slots.max(initial=-1))) + 1, -1, dtype=np.int32)
    known = old_slots >= 0
    new_of[old_slots[known]] = np.flatnonzero(known)
    return new_of[slots]


def positions(slots: Slots, start_ms: Ints, in_slots: Slots, in_start_ms: Ints) -> tuple[Ints, Bools]:
    """Index of each (slot, start) in the other list (which repeats none), and whether it is in it."""
    n = len(in_slots)
    if not n:
        return np.zeros(len(slots), dtype=np.int64), np.zeros(len(slots), dtype=np.bool_)
    order = np.lexsort((in_start_ms, in_slots))
    known, wanted = _keys(in_slots[order], in_start_ms[order]), _keys(slots, start_ms)
    at = np.minimum(np.searchsorted(known, wanted), n - 1)
    return order[at], known[at] == wanted


def _keys(slots: Slots, start_ms: Ints) -> Ints:
    # intervals begin on whole seconds; 34 bits of them reach the year 2514
    return (slots.astype(np.int64) << 34) | (start_ms // 1000)

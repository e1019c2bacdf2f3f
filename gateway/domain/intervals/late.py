"""Late data: samples older than a device's two newest intervals, until their records have been revised.

Older intervals are not kept in memory; their records are in the interval log. Late data waits here, summed per device
and interval, until the caller passes in the newest record of each; then it becomes the next revision. There may be some
hundred thousand rows, and each batch may bring more: rows stay where they are, and a sorted list of their keys finds
them, so that a change moves twelve bytes per waiting row and not all its columns.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.domain.intervals.accumulators import Accumulators
from gateway.domain.intervals.record import EnergySource, Quality
from gateway.domain.intervals.records import IntervalRecords, accumulators_of, records_of
from gateway.domain.table import blank, new_slots
from gateway.domain.types import NEVER_MS, Bools, Floats, Ints, Slots

_SLOTS = "slots"
FEW, MANY = 1 << 12, 1 << 19
DAMAGED = -1
"""The revision of a base record that cannot be read."""


class Late:
    """Sums per device and interval, in the order in which they came, but for those that fill the place of one that has
    gone."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._n = 0
        self._slots: Slots = np.zeros(0, dtype=np.int32)
        self._table = Accumulators(0)
        self._keys: Ints = np.zeros(0, dtype=np.int64)
        self._at: Slots = np.zeros(0, dtype=np.int32)

    def __len__(self) -> int:
        return self._n

    @property
    def slots(self) -> Slots:
        return self._slots[: self._n]

    @property
    def rows(self) -> Accumulators:
        return self._table.view(self._n)

    def add(self, slots: Slots, more: Accumulators, now_ms: int) -> None:
        """Add rows, at most one per device and interval."""
        keys = _keys(slots, more.start_ms)
        order = np.argsort(keys)
        keys = keys[order]
        place = np.searchsorted(self._keys, keys)
        there = self._has(keys, place)
        at = self._at[place[there]]
        if len(at):
            self._table.add(at, more.rows(order[there]), now_ms)
            # every addition may be followed by more
            self._table.changed_ms[at] = now_ms
        new = ~there
        if new.any():
            fresh = more.rows(order[new])
            fresh.changed_ms[:] = now_ms
            at = np.arange(self._n, self._n + len(fresh.start_ms), dtype=np.int32)
            self._reserve(self._n + len(at))
            self._table.put(at, fresh)
            self._slots[at] = slots[order[new]]
            self._n += len(at)
            self._keys, self._at = np.insert(self._keys, place[new], keys[new]), np.insert(self._at, place[new], at)

    def first(self, due: Callable[[Ints], Bools], most: int) -> tuple[Slots, Ints]:
        """Devices and starts of up to `most` intervals that are due by when they changed, sorted by both."""
        index = np.flatnonzero(due(self._table.changed_ms[: self._n]))[:most]
        slots, start_ms = self._slots[index], self._table.start_ms[index]
        order = np.lexsort((start_ms, slots))
        return slots[order], start_ms[order]

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
        gone = at[there]
        out = self._table.rows(at[there & lost])
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
        whole.add(np.flatnonzero(there), self._table.rows(at), NEVER_MS + 1)
        whole.quality[there] |= Quality.LATE
        whole.charge_wh *= factors[:, 0]
        whole.discharge_wh *= factors[:, 1]
        whole.quality[scaled] |= Quality.DRIFT
        whole.revision += 1
        self._remove(gone)
        return records_of(s, whole, length_ms[s], (counted[0], counted[1])), out

    def drop(self, slots: Slots) -> Accumulators:
        """Remove and return the late data of these devices."""
        gone = np.flatnonzero(np.isin(self.slots, slots)).astype(np.int32)
        out = self._table.rows(gone)
        self._remove(gone)
        return out

    def columns(self) -> dict[str, NDArray[Any]]:
        """Views of everything, by name."""
        rows = self.rows
        return {_SLOTS: self.slots} | {name: rows.column(name) for name in Accumulators.SPEC}

    def load(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Load what `columns` returned; without effect if it is empty."""
        if _SLOTS in columns:
            slots = columns[_SLOTS].astype(np.int32)
            rows = Accumulators(len(slots))
            for name in Accumulators.SPEC:
                if name in columns:
                    rows.column(name)[:] = columns[name]
            self._set(slots, rows)

    def renumber(self, old_slots: Ints) -> None:
        """See `Engine.renumber`; late data of devices that are gone is dropped."""
        slots = new_slots(self.slots, old_slots)
        kept = slots >= 0
        self._set(slots[kept], self.rows.rows(kept))

    def _set(self, slots: Slots, rows: Accumulators) -> None:
        self._n, self._slots, self._table = len(slots), slots, rows
        keys = _keys(slots, rows.start_ms)
        self._at = np.argsort(keys).astype(np.int32)
        self._keys = keys[self._at]

    def _reserve(self, n: int) -> None:
        """Have room for `n` rows. A column that is mapped and not written takes no memory."""
        if n > len(self._slots):
            capacity = FEW if n <= FEW else max(MANY, 2 * n)
            table, slots = Accumulators.__new__(Accumulators), np.zeros(capacity, dtype=np.int32)
            for name, (dtype, _) in Accumulators.SPEC.items():
                setattr(table, name, blank(capacity, dtype, 0))
                table.column(name)[: self._n] = self._table.column(name)[: self._n]
            slots[: self._n] = self.slots
            self._table, self._slots = table, slots

    def _remove(self, gone: Slots) -> None:
        """Remove rows; the last ones fill their places."""
        n = self._n - len(gone)
        if not n:
            self._clear()
            return
        stays = np.ones(self._n, dtype=np.bool_)
        stays[gone] = False
        kept = stays[self._at]
        self._keys, self._at = self._keys[kept], self._at[kept]
        holes = np.sort(gone[gone < n])
        moved = (n + np.flatnonzero(stays[n:])).astype(np.int32)
        self._table.put(holes, self._table.rows(moved))
        self._slots[holes] = self._slots[moved]
        self._n = n
        self._at[np.searchsorted(self._keys, _keys(self._slots[holes], self._table.start_ms[holes]))] = holes

    def _has(self, keys: Ints, place: Ints) -> Bools:
        if not self._n:
            return np.zeros(len(keys), dtype=np.bool_)
        found: Bools = self._keys[np.minimum(place, self._n - 1)] == keys
        return found

    def _find(self, slots: Slots, start_ms: Ints) -> tuple[Slots, Bools]:
        """Row of each (slot, start), and whether there is one."""
        keys = _keys(slots, start_ms)
        place = np.searchsorted(self._keys, keys)
        there = self._has(keys, place)
        at = np.zeros(len(keys), dtype=np.int32)
        at[there] = self._at[place[there]]
        return at, there


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

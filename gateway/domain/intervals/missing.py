"""Sequence numbers that a device has skipped: what was never received is new whenever it comes, once.

Ranges of a device are in the order in which they were noted; beyond `RANGES_MAX` the oldest is given up. Few devices
have any, so these are columns of their own, sorted by slot, and not a table by slot.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.domain.table import new_slots
from gateway.domain.types import Bools, Ints, Slots

RANGES_MAX = 32
NONE = -1


class MissingNumbers:
    """Ranges of sequence numbers, `first` to `last` (both missing), by `slots` and `boot`. `given_up` counts ranges
    that there was no room for."""

    def __init__(self) -> None:
        self.slots: Slots = np.zeros(0, dtype=np.int32)
        self.boot: Ints = np.zeros(0, dtype=np.int64)
        self.first: Ints = np.zeros(0, dtype=np.int64)
        self.last: Ints = np.zeros(0, dtype=np.int64)
        self.given_up = 0

    def __len__(self) -> int:
        return len(self.slots)

    def find(self, slots: Slots, boot: Ints, seq: Ints) -> Ints:
        """The number of the range that each row is in, `NONE` = in none."""
        found: Ints = np.full(len(slots), NONE, dtype=np.int64)
        if not len(self.slots):
            return found
        begin, end = np.searchsorted(self.slots, slots, side="left"), np.searchsorted(self.slots, slots, side="right")
        for offset in range(int((end - begin).max(initial=0))):
            at = begin + offset
            inside = at < end
            at = np.where(inside, at, 0)
            inside &= (self.boot[at] == boot) & (self.first[at] <= seq) & (seq <= self.last[at])
            found[inside] = at[inside]
        return found

    def add(self, slots: Slots, boot: Ints, first: Ints, last: Ints) -> None:
        """Note ranges, rows in the order of their slots."""
        at = np.searchsorted(self.slots, slots, side="right")
        self._set(
            np.insert(self.slots, at, slots), np.insert(self.boot, at, boot), np.insert(self.first, at, first),
            np.insert(self.last, at, last),
        )  # fmt: skip
        self._bound(slots)

    def take(self, numbers: Ints, seq: Ints) -> None:
        """These have come now, each in the range of that number, sorted by both: what is left of a range stays."""
        if not len(numbers):
            return
        heads = np.ones(len(numbers), dtype=np.bool_)
        heads[1:] = (numbers[1:] != numbers[:-1]) | (seq[1:] != seq[:-1] + 1)
        begins = np.flatnonzero(heads)
        ends = np.append(begins[1:], len(numbers)) - 1
        left: list[tuple[int, int, int]] = []
        runs = zip(numbers[begins].tolist(), seq[begins].tolist(), seq[ends].tolist(), strict=True)
        number_at, rest = NONE, 0
        for number, from_seq, to_seq in runs:
            if number != number_at:
                self._close(left, number_at, rest)
                number_at, rest = number, int(self.first[number])
            if rest < from_seq:
                left.append((number, rest, from_seq - 1))
            rest = to_seq + 1
        self._close(left, number_at, rest)
        pieces = np.array(left, dtype=np.int64).reshape(-1, 3)
        gone = np.unique(numbers)
        keep = np.ones(len(self.slots), dtype=np.bool_)
        keep[gone] = False
        # pieces stand where their range stood
        order = np.argsort(np.concatenate((np.flatnonzero(keep), pieces[:, 0])), kind="stable")
        at = pieces[:, 0]
        split = self.slots[at]
        self._set(
            np.concatenate((self.slots[keep], self.slots[at]))[order],
            np.concatenate((self.boot[keep], self.boot[at]))[order],
            np.concatenate((self.first[keep], pieces[:, 1]))[order],
            np.concatenate((self.last[keep], pieces[:, 2]))[order],
        )
        self._bound(split)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Everything, by name."""
        return {"slots": self.slots, "boot": self.boot, "first": self.first, "last": self.last}

    def load(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Load what `columns` returned; without effect if it is empty."""
        if "slots" in columns:
            self._set(columns["slots"].astype(np.int32), columns["boot"], columns["first"], columns["last"])

    def renumber(self, old_slots: Ints) -> None:
        """See `Engine.renumber`; ranges of devices that are gone are dropped."""
        slots = new_slots(self.slots, old_slots)
        order = np.argsort(slots, kind="stable")
        order = order[slots[order] >= 0]
        self._set(slots[order], self.boot[order], self.first[order], self.last[order])

    def _close(self, left: list[tuple[int, int, int]], number: int, rest: int) -> None:
        if number != NONE and rest <= self.last[number]:
            left.append((number, rest, int(self.last[number])))

    def _bound(self, slots: Slots) -> None:
        """Give up the oldest ranges of devices among `slots` that have too many."""
        found = np.unique(slots)
        begin, end = np.searchsorted(self.slots, found, side="left"), np.searchsorted(self.slots, found, side="right")
        surplus = np.maximum(end - begin - RANGES_MAX, 0)
        if not surplus.any():
            return
        keep: Bools = np.ones(len(self.slots), dtype=np.bool_)
        for at, count in zip(begin[surplus > 0].tolist(), surplus[surplus > 0].tolist(), strict=True):
            keep[at : at + count] = False
        self.given_up += int(surplus.sum())
        self._set(self.slots[keep], self.boot[keep], self.first[keep], self.last[keep])

    def _set(self, slots: Slots, boot: Ints, first: Ints, last: Ints) -> None:
        self.slots, self.boot, self.first, self.last = slots, boot, first, last

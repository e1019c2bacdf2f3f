"""Measured energy of batteries or homes over the intervals of an event: arrays of whole Wh, and what of them is known.

Rows are batteries or homes, the last axis is time. What is not known is 0 in `wh` and False in `known`, so that a sum
of what is known needs no care and a sum that must be whole can ask for it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gateway.domain.errors import invariant
from gateway.domain.types import Bools, Floats, Ints

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeteredWh:
    """Whole Wh, battery + = discharge, meter + = import."""

    wh: Ints
    known: Bools

    @classmethod
    def of(cls, wh: Floats) -> "MeteredWh":
        """From measured energies, NaN = unknown; halves go up."""
        known = ~np.isnan(wh)
        return cls(wh=np.floor(np.where(known, wh, 0.0) + 0.5).astype(np.int64), known=known)

    @classmethod
    def unknown(cls, shape: tuple[int, ...]) -> "MeteredWh":
        """Nothing was measured."""
        return cls(wh=np.zeros(shape, dtype=np.int64), known=np.zeros(shape, dtype=np.bool_))

    def added(self, row_of: Ints, rows: int) -> "MeteredWh":
        """Rows added up into `rows` of them, `row_of` each (-1: into none). One is known where all of its parts are,
        and it has one."""
        mine = row_of >= 0
        wh = np.zeros((rows, *self.wh.shape[1:]), dtype=np.int64)
        lacking = np.zeros(wh.shape, dtype=np.int64)
        np.add.at(wh, row_of[mine], self.wh[mine])
        np.add.at(lacking, row_of[mine], ~self.known[mine])
        some = np.bincount(row_of[mine], minlength=rows) > 0
        known = (lacking == 0) & some.reshape(-1, *[1] * (wh.ndim - 1))
        return MeteredWh(wh=np.where(known, wh, 0), known=known)

    def plus(self, other: "MeteredWh") -> "MeteredWh":
        """Both together, where both are known."""
        known = self.known & other.known
        return MeteredWh(wh=np.where(known, self.wh + other.wh, 0), known=known)

    @property
    def floats(self) -> Floats:
        """The same with NaN for what is not known."""
        return np.where(self.known, self.wh.astype(np.float64), np.nan)


@dataclass(frozen=True, kw_only=True)
class EventIntervals:
    """The intervals of `length_ms` that an event touches, which lasts from `from_ms` until `until_ms` (UTC ms)."""

    from_ms: int
    until_ms: int
    length_ms: int

    def __post_init__(self) -> None:
        invariant(self.from_ms < self.until_ms, "an event ends after it begins")
        invariant(HOUR_MS % self.length_ms == 0, "an hour has whole intervals")

    @cached_property
    def starts_ms(self) -> Ints:
        """When each begins, UTC ms."""
        return np.arange(self.from_ms // self.length_ms * self.length_ms, self.until_ms, self.length_ms, dtype=np.int64)

    @cached_property
    def part_ms(self) -> Ints:
        """How much of each is the event's."""
        ends = np.minimum(self.starts_ms + self.length_ms, self.until_ms)
        part: Ints = ends - np.maximum(self.starts_ms, self.from_ms)
        return part

    @cached_property
    def hours_ms(self) -> tuple[int, ...]:
        """When each clock hour that the event touches begins, UTC ms."""
        return tuple(range(self.from_ms // HOUR_MS * HOUR_MS, self.until_ms, HOUR_MS))

    @cached_property
    def hour_of(self) -> Ints:
        """The place of each interval's hour in `hours_ms`."""
        found: Ints = (self.starts_ms - self.hours_ms[0]) // HOUR_MS
        return found

    @cached_property
    def hour_parts_ms(self) -> Ints:
        """How much of each hour is the event's."""
        return self.by_hour(self.part_ms)

    def by_hour(self, columns: Ints) -> Ints:
        """Columns of intervals added up by the hour."""
        first = np.searchsorted(self.hour_of, np.arange(len(self.hours_ms)))
        sums: Ints = np.add.reduceat(columns, first, axis=-1)
        return sums

    def in_part(self, wh: Ints) -> Ints:
        """What of whole intervals' energy is the event's, power taken to be even; rounded towards 0."""
        way = np.sign(wh)
        part: Ints = way * (np.abs(wh) * self.part_ms // self.length_ms)
        return part

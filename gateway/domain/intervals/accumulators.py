"""Columns that sum up the samples of an interval, and the function that sums a batch by device and interval."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from gateway.domain.intervals.duplicates import heads
from gateway.domain.intervals.types import Flow, SampleRows, Stretches
from gateway.domain.table import Table, column
from gateway.domain.types import NEVER_MS, Bools, Flags, Floats, Ints, Slots

Int32s = NDArray[np.int32]
LATER_MS = -NEVER_MS
SITE = ("grid", "pv", "load")
SITE_SUMS = tuple((f"{name}_wms", f"{name}_ms") for name in SITE)


class Accumulators(Table):
    """The sums of one interval of each device. `start_ms` = `NEVER_MS`: none. `revision` counts its records;
    `changed_ms` is when it first changed since the newest record (`NEVER_MS`: it did not). `*_ms` beside `*_wh` is the
    time that energy covers; `*_wms` sums power times span, `*_ms` beside it the spans. `soc_*` is the newest sample,
    `first_soc_*` the one nearest to the start, which may be of the interval before (`LATER_MS`: there is none)."""

    start_ms: Ints = column(NEVER_MS)
    revision: Int32s = column(0)
    changed_ms: Ints = column(NEVER_MS)
    samples: Int32s = column(0)
    charge_wh: Floats = column(0.0)
    charge_ms: Ints = column(0)
    discharge_wh: Floats = column(0.0)
    discharge_ms: Ints = column(0)
    power_wms: Floats = column(0.0)
    power_ms: Ints = column(0)
    grid_wms: Floats = column(0.0)
    grid_ms: Ints = column(0)
    pv_wms: Floats = column(0.0)
    pv_ms: Ints = column(0)
    load_wms: Floats = column(0.0)
    load_ms: Ints = column(0)
    power_w_min: Floats = column(np.nan)
    power_w_max: Floats = column(np.nan)
    soc_pct: Floats = column(np.nan)
    soc_t_ms: Ints = column(NEVER_MS)
    first_soc_pct: Floats = column(np.nan)
    first_soc_t_ms: Ints = column(LATER_MS)
    quality: Flags = column(0)
    SUMS: ClassVar[tuple[str, ...]] = (
        "samples",
        "charge_wh",
        "charge_ms",
        "discharge_wh",
        "discharge_ms",
        "power_wms",
        "power_ms",
    )

    def rows(self, index: Ints | Slots | Bools) -> Self:
        out = type(self).__new__(type(self))
        for name in self.SPEC:
            setattr(out, name, self.column(name)[index])
        return out

    def put(self, index: Slots, rows: Self) -> None:
        for name in self.SPEC:
            self.column(name)[index] = rows.column(name)

    def add(self, index: Slots | Ints, more: Self, now_ms: int) -> None:
        """Add rows to the intervals at `index`, which must not repeat."""
        for name in self.SUMS:
            self.column(name)[index] += more.column(name)  # type: ignore[misc]
        for wms, ms in SITE_SUMS:
            if more.column(ms).any():
                self.column(wms)[index] += more.column(wms)  # type: ignore[misc]
                self.column(ms)[index] += more.column(ms)  # type: ignore[misc]
        self.power_w_min[index] = np.fmin(self.power_w_min[index], more.power_w_min)
        self.power_w_max[index] = np.fmax(self.power_w_max[index], more.power_w_max)
        soc_t = self.soc_t_ms[index]
        newer = more.soc_t_ms > soc_t
        self.soc_pct[index] = np.where(newer, more.soc_pct, self.soc_pct[index])
        self.soc_t_ms[index] = np.where(newer, more.soc_t_ms, soc_t)
        self.open_at(index, more.first_soc_t_ms, more.first_soc_pct)
        if more.quality.any():
            self.quality[index] |= more.quality
        changed = self.changed_ms[index]
        self.changed_ms[index] = np.where(changed == NEVER_MS, now_ms, changed)

    def open_at(self, index: Slots | Ints, t_ms: Ints, soc_pct: Floats) -> None:
        """Set the SoC at the start of the intervals at `index` where `t_ms` is nearer to it than the known one."""
        start, known = self.start_ms[index], self.first_soc_t_ms[index]
        nearer = (t_ms != LATER_MS) & (
            (known == LATER_MS) | (np.abs(t_ms - start) < np.abs(np.where(known == LATER_MS, start, known) - start))
        )
        if nearer.any():
            self.first_soc_t_ms[index] = np.where(nearer, t_ms, known)
            self.first_soc_pct[index] = np.where(nearer, soc_pct, self.first_soc_pct[index])

    @classmethod
    def joined(cls, *tables: Self) -> Self:
        out = cls.__new__(cls)
        for name in cls.SPEC:
            setattr(out, name, np.concatenate([table.column(name) for table in tables]))
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Powers:
    """Mean power over each row's span (W, NaN unknown) and SoC at its end (percent)."""

    battery: Floats
    grid: Floats
    pv: Floats
    load: Floats
    soc_pct: Floats


def gather(
    rows: SampleRows, charge: Flow, discharge: Flow, powers: Powers, length_ms: Ints
) -> tuple[Slots, Accumulators]:
    """Sum `rows` to one row per device and interval, sorted by both. Energy across an edge is split in proportion to
    time. `length_ms` by slot."""
    t = rows.t_ms
    start = (t - 1) // rows.length_ms * rows.length_ms
    span = np.maximum(rows.span_ms, 1)
    pieces = Accumulators.__new__(Accumulators)
    pieces.start_ms = start
    pieces.samples = np.ones(len(t), dtype=np.int32)
    pieces.charge_wh, pieces.charge_ms = charge.wh, t - charge.from_ms
    pieces.discharge_wh, pieces.discharge_ms = discharge.wh, t - discharge.from_ms
    pieces.power_wms, pieces.power_ms = _weighed(powers.battery, span)
    for name, (wms, ms) in zip(SITE, SITE_SUMS, strict=True):
        weighed, weights = _weighed(getattr(powers, name), span)
        setattr(pieces, wms, weighed)
        setattr(pieces, ms, weights)
    pieces.power_w_min = pieces.power_w_max = powers.battery
    pieces.soc_pct = pieces.first_soc_pct = powers.soc_pct
    known = np.isfinite(powers.soc_pct)
    pieces.soc_t_ms = np.where(known, t, NEVER_MS)
    pieces.first_soc_t_ms = np.where(known, t, LATER_MS)
    pieces.quality = rows.quality
    slots = rows.slots
    more = [
        split(stretches, length_ms, direction)
        for direction, found in (("charge", charge), ("discharge", discharge))
        for stretches in found.stretches
    ]
    crossing = np.flatnonzero((charge.from_ms < start) | (discharge.from_ms < start))
    if len(crossing):
        more.append(_over_edges(slots, pieces, crossing, charge, discharge, rows.length_ms))
    if more:
        slots = np.concatenate([slots, *(s for s, _ in more)])
        pieces = _joined_pieces([pieces, *(piece for _, piece in more)])
        order = np.lexsort((pieces.start_ms, slots))
        slots, pieces = slots[order], _picked(pieces, order)
    return summed(slots, pieces)


def _weighed(power_w: Floats, span_ms: Ints) -> tuple[Floats, Ints]:
    known = np.isfinite(power_w)
    if not known.any():
        return np.zeros(len(power_w)), np.zeros(len(power_w), dtype=np.int64)
    weight = np.where(known, span_ms, 0)
    return np.where(known, power_w, 0.0) * weight, weight


_OWN = tuple(name for name in Accumulators.SPEC if name not in ("revision", "changed_ms"))


def _joined_pieces(tables: Sequence[Accumulators]) -> Accumulators:
    out = Accumulators.__new__(Accumulators)
    for name in _OWN:
        setattr(out, name, np.concatenate([table.column(name) for table in tables]))
    return out


def _picked(pieces: Accumulators, index: Ints) -> Accumulators:
    out = Accumulators.__new__(Accumulators)
    for name in _OWN:
        setattr(out, name, pieces.column(name)[index])
    return out


def _over_edges(
    slots: Slots, pieces: Accumulators, crossing: Ints, charge: Flow, discharge: Flow, length_ms: Ints
) -> tuple[Slots, Accumulators]:
    """Move energy from before each crossing row's interval out of `pieces`; no row covers more than one interval's
    length."""
    early = Accumulators(len(crossing))
    edge = pieces.start_ms[crossing]
    early.start_ms = edge - length_ms[crossing]
    for flow, wh, ms, early_wh, early_ms in (
        (charge, pieces.charge_wh, pieces.charge_ms, early.charge_wh, early.charge_ms),
        (discharge, pieces.discharge_wh, pieces.discharge_ms, early.discharge_wh, early.discharge_ms),
    ):
        before = np.maximum(edge - flow.from_ms[crossing], 0)
        whole = np.maximum(ms[crossing], 1)
        early_ms[:] = before
        early_wh[:] = wh[crossing] * (before / whole)
        wh[crossing] -= early_wh
        ms[crossing] -= before
    return slots[crossing], early


def split(stretches: Stretches, length_ms: Ints, direction: str) -> tuple[Slots, Accumulators]:
    """Split stretches at the edges of intervals; each interval gets its share by time. `length_ms` by slot."""
    length = length_ms[stretches.slots]
    first = stretches.from_ms // length
    n = np.where(stretches.to_ms > stretches.from_ms, (stretches.to_ms - 1) // length - first + 1, 0)
    of = np.repeat(np.arange(len(n)), n)
    number = np.arange(len(of)) - np.repeat(np.cumsum(n) - n, n)
    start = (first[of] + number) * length[of]
    ms = np.minimum(start + length[of], stretches.to_ms[of]) - np.maximum(start, stretches.from_ms[of])
    out = Accumulators(len(of))
    out.start_ms = start
    out.quality = stretches.quality[of]
    setattr(out, f"{direction}_wh", stretches.wh[of] * (ms / (stretches.to_ms - stretches.from_ms)[of]))
    if stretches.covers:
        setattr(out, f"{direction}_ms", ms)
    return stretches.slots[of], out


def summed(slots: Slots, pieces: Accumulators) -> tuple[Slots, Accumulators]:
    """Sum rows that are sorted by device and interval to one row each."""
    at = np.flatnonzero(heads(slots, pieces.start_ms))
    if len(at) == len(slots):
        pieces.revision = np.zeros(len(at), dtype=np.int32)
        pieces.changed_ms = np.full(len(at), NEVER_MS, dtype=np.int64)
        return slots, pieces
    out = Accumulators.__new__(Accumulators)
    out.start_ms = pieces.start_ms[at]
    out.revision = np.zeros(len(at), dtype=np.int32)
    out.changed_ms = np.full(len(at), NEVER_MS, dtype=np.int64)
    for name in (*Accumulators.SUMS, *itertools.chain.from_iterable(SITE_SUMS)):
        column = pieces.column(name)
        setattr(out, name, np.add.reduceat(column, at, dtype=column.dtype))
    out.soc_pct, out.first_soc_pct = np.full(len(at), np.nan), np.full(len(at), np.nan)
    out.power_w_min = np.fmin.reduceat(pieces.power_w_min, at)
    out.power_w_max = np.fmax.reduceat(pieces.power_w_max, at)
    out.quality = np.bitwise_or.reduceat(pieces.quality, at)
    out.soc_t_ms = np.maximum.reduceat(pieces.soc_t_ms, at)
    out.first_soc_t_ms = np.minimum.reduceat(pieces.first_soc_t_ms, at)
    group = np.repeat(np.arange(len(at)), np.diff(at, append=len(slots)))
    for t, wanted, soc in (
        (pieces.soc_t_ms, out.soc_t_ms, out.soc_pct),
        (pieces.first_soc_t_ms, out.first_soc_t_ms, out.first_soc_pct),
    ):
        hit = np.flatnonzero(t == wanted[group])
        soc[group[hit]] = pieces.soc_pct[hit] if t is pieces.soc_t_ms else pieces.first_soc_pct[hit]
    return slots[at], out

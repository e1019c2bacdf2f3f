"""Columns that gather the samples of an interval, and the step from rows to one sum per device and interval."""

from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from gateway.domain.columns import Table
from gateway.domain.duplicates import heads
from gateway.domain.energy import Flow, Rows
from gateway.domain.model import NEVER_MS, Bools, Floats, Ints, Slots

Int32s = NDArray[np.int32]


class Part(Table):
    """One interval of each device. `start_ms` = `NEVER_MS`: none. `revision` counts the records made of it;
    `changed_ms` is when it first changed since the last record (`NEVER_MS`: not). `*_ms` beside `*_wh` is the time
    that energy covers; `power_wms` the sum of power times span, `power_ms` of spans."""

    SPEC = {
        "start_ms": (np.int64, NEVER_MS),
        "revision": (np.int32, 0),
        "changed_ms": (np.int64, NEVER_MS),
        "samples": (np.int32, 0),
        "charge_wh": (np.float64, 0.0),
        "charge_ms": (np.int64, 0),
        "discharge_wh": (np.float64, 0.0),
        "discharge_ms": (np.int64, 0),
        "power_wms": (np.float64, 0.0),
        "power_ms": (np.int64, 0),
        "power_w_min": (np.float64, np.nan),
        "power_w_max": (np.float64, np.nan),
        "soc_pct": (np.float64, np.nan),
        "soc_t_ms": (np.int64, NEVER_MS),
    }
    SUMS: ClassVar[tuple[str, ...]] = (
        "samples",
        "charge_wh",
        "charge_ms",
        "discharge_wh",
        "discharge_ms",
        "power_wms",
        "power_ms",
    )
    start_ms: Ints
    revision: Int32s
    changed_ms: Ints
    samples: Int32s
    charge_wh: Floats
    charge_ms: Ints
    discharge_wh: Floats
    discharge_ms: Ints
    power_wms: Floats
    power_ms: Ints
    power_w_min: Floats
    power_w_max: Floats
    soc_pct: Floats
    soc_t_ms: Ints

    def rows(self, index: Ints | Slots | Bools) -> Self:
        out = type(self).__new__(type(self))
        for name in self.SPEC:
            setattr(out, name, self.column(name)[index])
        return out

    def put(self, index: Slots, rows: Self) -> None:
        for name in self.SPEC:
            self.column(name)[index] = rows.column(name)

    def add(self, index: Slots, more: Self, now_ms: int) -> None:
        """Add rows to the intervals at `index`, which must not repeat."""
        for name in self.SUMS:
            self.column(name)[index] += more.column(name)  # type: ignore[misc]
        self.power_w_min[index] = np.fmin(self.power_w_min[index], more.power_w_min)
        self.power_w_max[index] = np.fmax(self.power_w_max[index], more.power_w_max)
        soc_t = self.soc_t_ms[index]
        newer = more.soc_t_ms > soc_t
        self.soc_pct[index] = np.where(newer, more.soc_pct, self.soc_pct[index])
        self.soc_t_ms[index] = np.where(newer, more.soc_t_ms, soc_t)
        changed = self.changed_ms[index]
        self.changed_ms[index] = np.where(changed == NEVER_MS, now_ms, changed)

    @classmethod
    def joined(cls, *parts: Self) -> Self:
        out = cls.__new__(cls)
        for name in cls.SPEC:
            setattr(out, name, np.concatenate([part.column(name) for part in parts]))
        return out


def gather(
    rows: Rows, charge: Flow, discharge: Flow, battery_w: Floats, soc_pct: Floats, length_ms: int
) -> tuple[Slots, Part]:
    """One row per device and interval, sorted by both: the sums of what `rows` bring. Energy over an edge is shared
    in proportion to time; no stretch is longer than an interval, so it meets at most two."""
    t = rows.t_ms
    start = (t - 1) // length_ms * length_ms
    powered = np.isfinite(battery_w)
    weight = np.where(powered, np.maximum(rows.span_ms, 1), 0)
    slots = rows.slots
    pieces = Part.__new__(Part)
    pieces.start_ms = start
    pieces.samples = np.ones(len(t), dtype=np.int32)
    pieces.charge_wh, pieces.charge_ms = charge.wh, t - charge.from_ms
    pieces.discharge_wh, pieces.discharge_ms = discharge.wh, t - discharge.from_ms
    pieces.power_wms = np.where(powered, battery_w, 0.0) * weight
    pieces.power_ms = weight
    pieces.power_w_min = pieces.power_w_max = battery_w
    pieces.soc_pct = soc_pct
    pieces.soc_t_ms = np.where(np.isfinite(soc_pct), t, NEVER_MS)
    crossing = np.flatnonzero((charge.from_ms < start) | (discharge.from_ms < start))
    if len(crossing):
        slots, pieces = _with_edges(slots, pieces, crossing, charge, discharge, length_ms)
    return _summed(slots, pieces)


def _with_edges(
    slots: Slots, pieces: Part, crossing: Ints, charge: Flow, discharge: Flow, length_ms: int
) -> tuple[Slots, Part]:
    edge = pieces.start_ms[crossing]
    early = Part(len(crossing))
    early.start_ms = edge - length_ms
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
    s = np.concatenate((slots[crossing], slots))
    out = Part.__new__(Part)
    for name in Part.SPEC:
        if name not in ("revision", "changed_ms"):
            setattr(out, name, np.concatenate((early.column(name), pieces.column(name))))
    order = np.lexsort((out.start_ms, s))
    for name in Part.SPEC:
        if name not in ("revision", "changed_ms"):
            setattr(out, name, out.column(name)[order])
    return s[order], out


def _summed(slots: Slots, pieces: Part) -> tuple[Slots, Part]:
    first = heads(slots, pieces.start_ms)
    at = np.flatnonzero(first)
    pieces.revision = np.zeros(len(at), dtype=np.int32)
    pieces.changed_ms = np.full(len(at), NEVER_MS, dtype=np.int64)
    if len(at) == len(slots):
        return slots, pieces
    out = Part.__new__(Part)
    out.revision, out.changed_ms, out.start_ms = pieces.revision, pieces.changed_ms, pieces.start_ms[at]
    for name in Part.SUMS:
        column = pieces.column(name)
        setattr(out, name, np.add.reduceat(column, at, dtype=column.dtype))
    out.power_w_min = np.fmin.reduceat(pieces.power_w_min, at)
    out.power_w_max = np.fmax.reduceat(pieces.power_w_max, at)
    # Rows are in time order within a group: the newest known SoC is the last one.
    where = np.maximum.reduceat(np.where(pieces.soc_t_ms != NEVER_MS, np.arange(len(slots)), -1), at)
    out.soc_pct = np.where(where >= 0, pieces.soc_pct[where], np.nan)
    out.soc_t_ms = np.where(where >= 0, pieces.soc_t_ms[where], NEVER_MS)
    return slots[at], out

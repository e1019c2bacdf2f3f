"""The interval engine: settlement samples in, closed clock-aligned energy intervals out.

State is columnar, indexed by slot: what has been received (duplicates), counter baselines, and the accumulators of
each device's two newest intervals. The engine reads no clock and keeps no order of its own: the same sequence of
batches and `now`s gives the same bits, which is what recovery by replay rests on. Intervals are half open in time,
but a sample that ends exactly on an edge belongs to the interval it completes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gateway.domain.duplicates import Seen, by_slot, heads, second_last, sift, tails
from gateway.domain.energy import Baseline, Counts, Flow, Rows, Rules, flow
from gateway.domain.errors import invariant
from gateway.domain.fleet import Table
from gateway.domain.model import NEVER_MS, Bools, EnergyBatch, EnergySource, Floats, Ints, Now, Slots, Small

DAY_S = 86_400
Counts32 = NDArray[np.int32]


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
        "power_min_w": (np.float64, np.nan),
        "power_max_w": (np.float64, np.nan),
        "soc_pct": (np.float64, np.nan),
        "soc_t_ms": (np.int64, NEVER_MS),
    }
    SUMS: ClassVar = (
        "samples",
        "charge_wh",
        "charge_ms",
        "discharge_wh",
        "discharge_ms",
        "power_wms",
        "power_ms",
    )
    start_ms: Ints
    revision: Counts32
    changed_ms: Ints
    samples: Counts32
    charge_wh: Floats
    charge_ms: Ints
    discharge_wh: Floats
    discharge_ms: Ints
    power_wms: Floats
    power_ms: Ints
    power_min_w: Floats
    power_max_w: Floats
    soc_pct: Floats
    soc_t_ms: Ints

    def rows(self, index: NDArray[np.generic]) -> "Part":
        out = Part.__new__(Part)
        for name in self.SPEC:
            setattr(out, name, self.column(name)[index])
        return out

    def put(self, index: NDArray[np.generic], rows: "Part", chosen: NDArray[np.generic]) -> None:
        for name in self.SPEC:
            self.column(name)[index] = rows.column(name)[chosen]

    def add(self, index: NDArray[np.generic], more: "Part", now_ms: int) -> None:
        """Add rows to the intervals at `index`, which must not repeat."""
        for name in self.SUMS:
            self.column(name)[index] += more.column(name)
        self.power_min_w[index] = np.fmin(self.power_min_w[index], more.power_min_w)
        self.power_max_w[index] = np.fmax(self.power_max_w[index], more.power_max_w)
        newer = more.soc_t_ms >= self.soc_t_ms[index]
        self.soc_pct[index] = np.where(newer & np.isfinite(more.soc_pct), more.soc_pct, self.soc_pct[index])
        self.soc_t_ms[index] = np.maximum(more.soc_t_ms, self.soc_t_ms[index])
        changed = self.changed_ms[index]
        self.changed_ms[index] = np.where(changed == NEVER_MS, now_ms, changed)

    @staticmethod
    def joined(parts: "list[Part]") -> "Part":
        out = Part.__new__(Part)
        for name in Part.SPEC:
            setattr(out, name, np.concatenate([part.column(name) for part in parts]))
        return out


class Newest(Table):
    """`t_ms` of the newest sample of each device."""

    SPEC = {"t_ms": (np.int64, NEVER_MS)}
    t_ms: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Closes:
    """Records of intervals, by device and time. Energy in Wh on the AC side (NaN unknown), power in W (+ =
    discharge), `source` an `EnergySource`. Full content of the interval at that revision, never a difference."""

    slots: Slots
    start_ms: Ints
    length_s: Ints
    revision: Counts32
    charge_wh: Floats
    discharge_wh: Floats
    coverage_pct: Floats
    samples: Counts32
    soc_end_pct: Floats
    source: Small
    battery_w_mean: Floats
    battery_w_min: Floats
    battery_w_max: Floats

    def __len__(self) -> int:
        return len(self.slots)


CLOSE_COLUMNS: Mapping[str, str] = {
    "slots": "<i4",
    "start_ms": "<i8",
    "length_s": "<i8",
    "revision": "<i4",
    "charge_wh": "<f8",
    "discharge_wh": "<f8",
    "coverage_pct": "<f8",
    "samples": "<i4",
    "soc_end_pct": "<f8",
    "source": "<i1",
    "battery_w_mean": "<f8",
    "battery_w_min": "<f8",
    "battery_w_max": "<f8",
}

NO_CLOSES = Closes(**{name: np.zeros(0, dtype=dtype) for name, dtype in CLOSE_COLUMNS.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Outcome of one batch. `new` marks, in the batch's order, the rows that counted as samples."""

    new: Bools
    counts: Counts
    closes: Closes


class Engine:
    """Accumulates settlement samples of all devices into intervals; the one mutable copy, used from one thread."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        invariant(0 < self.rules.length_s <= DAY_S, "an interval is between a second and a day")
        invariant(DAY_S % self.rules.length_s == 0, "the interval length divides a day")
        self.n = 0
        self.totals = Counts()
        self._tables: dict[str, Table] = {
            "seen": Seen(),
            "charge": Baseline(),
            "discharge": Baseline(),
            "newest": Newest(),
            "cur": Part(),
            "prev": Part(),
        }
        self._bind()

    def _bind(self) -> None:
        tables = self._tables
        for name, kind in (("seen", Seen), ("newest", Newest), ("cur", Part), ("prev", Part)):
            invariant(isinstance(tables[name], kind), "tables keep their kinds")
        self._seen: Seen = tables["seen"]  # type: ignore[assignment]
        self._charge: Baseline = tables["charge"]  # type: ignore[assignment]
        self._discharge: Baseline = tables["discharge"]  # type: ignore[assignment]
        self._newest: Newest = tables["newest"]  # type: ignore[assignment]
        self._cur: Part = tables["cur"]  # type: ignore[assignment]
        self._prev: Part = tables["prev"]  # type: ignore[assignment]

    def reserve(self, n: int) -> None:
        """Have room for slots below `n`."""
        if n > self.n:
            if n > len(self._newest.t_ms):
                for table in self._tables.values():
                    table.grow(max(64, n + n // 4))
            self.n = n

"""Turns the accumulators of an interval into its record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gateway.domain.intervals.accumulators import LATER_MS, SITE, Accumulators, Int32s
from gateway.domain.intervals.record import EnergySource, Quality
from gateway.domain.intervals.types import MS_PER_HOUR
from gateway.domain.types import Bools, Flags, Floats, Ints, Slots, Small

DISAGREE_PART = 0.1
DISAGREE_W = 50.0
DISAGREE_COVERED = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalRecords:
    """Records of intervals, by device and time. Energy in Wh on the AC side (NaN unknown), power in W (battery + =
    discharge, grid + = import), SoC in percent, `source` an `EnergySource`, `quality` a `Quality`. Full content of the
    interval at that revision, never a difference."""

    slots: Slots
    start_ms: Ints
    length_s: Ints
    revision: Int32s
    charge_wh: Floats
    discharge_wh: Floats
    coverage_pct: Floats
    samples: Int32s
    soc_start_pct: Floats
    soc_end_pct: Floats
    source: Small
    quality: Flags
    battery_w_mean: Floats
    battery_w_min: Floats
    battery_w_max: Floats
    grid_w_mean: Floats
    pv_w_mean: Floats
    load_w_mean: Floats
    hash: Ints

    def __len__(self) -> int:
        return len(self.slots)

    def rows(self, index: Ints | Slots | Bools | slice) -> "IntervalRecords":
        return IntervalRecords(**{name: getattr(self, name)[index] for name in RECORD_COLUMNS})


RECORD_COLUMNS: Mapping[str, str] = {
    "slots": "<i4",
    "start_ms": "<i8",
    "length_s": "<i8",
    "revision": "<i4",
    "charge_wh": "<f8",
    "discharge_wh": "<f8",
    "coverage_pct": "<f8",
    "samples": "<i4",
    "soc_start_pct": "<f8",
    "soc_end_pct": "<f8",
    "source": "<i1",
    "quality": "<i2",
    "battery_w_mean": "<f8",
    "battery_w_min": "<f8",
    "battery_w_max": "<f8",
    "grid_w_mean": "<f8",
    "pv_w_mean": "<f8",
    "load_w_mean": "<f8",
    "hash": "<i8",
}
HASHED = tuple(name for name in RECORD_COLUMNS if name not in ("slots", "hash"))
_FLOATS = tuple(name for name in HASHED if RECORD_COLUMNS[name] == "<f8")
_WHOLES = tuple(name for name in HASHED if name not in _FLOATS)
# odd, so that a change of any one value changes the sum
_WEIGHTS = np.random.default_rng(20_240_229).integers(1 << 62, size=(len(HASHED), 1), dtype=np.uint64) * 2 + 1

NO_RECORDS = IntervalRecords(**{name: np.zeros(0, dtype=dtype) for name, dtype in RECORD_COLUMNS.items()})


def hashes(columns: Mapping[str, Sequence[Any] | np.ndarray]) -> Ints:
    """Hash the content of each record (`HASHED`, without the device) to 63 bits: a weighted sum modulo 2^64 of the bits
    of its values; all NaNs are equal. Never 0, which means that there is none. It finds damage and mistakes, not a
    forger. Few operations on purpose: beside a busy thread each waits for the GIL."""
    floats = np.array([columns[name] for name in _FLOATS], dtype=np.float64)
    floats[np.isnan(floats)] = np.nan
    # -0.0 equals 0.0
    floats += 0.0
    wholes = np.array([columns[name] for name in _WHOLES], dtype=np.int64)
    bits = np.concatenate((floats.view(np.uint64), wholes.view(np.uint64)))
    bits *= _WEIGHTS
    found: Ints = (np.add.reduce(bits, axis=0) >> np.uint64(1)).astype(np.int64) | 1
    return found


def sealed(records: IntervalRecords) -> IntervalRecords:
    """The same records with their hashes."""
    return replace(records, hash=hashes({name: getattr(records, name) for name in HASHED}))


def records_of(slots: Slots, rows: Accumulators, length_ms: Ints, by_counter: tuple[Bools, Bools]) -> IntervalRecords:
    """Records of `rows` as they stand. `by_counter`: whether charge and discharge come from lifetime counters."""
    charged, discharged = rows.charge_ms > 0, rows.discharge_ms > 0
    covered = np.minimum(
        np.where(charged, np.minimum(rows.charge_ms, length_ms), length_ms),
        np.where(discharged, np.minimum(rows.discharge_ms, length_ms), length_ms),
    )
    covered = np.where(charged | discharged, covered, 0)
    counted = (by_counter[0] | ~charged) & (by_counter[1] | ~discharged)
    source = np.where(counted, EnergySource.COUNTER, EnergySource.INTEGRATED)
    source = np.where(charged | discharged, source, EnergySource.NONE)
    mean = _mean(rows.power_wms, rows.power_ms)
    # what is taken back may leave a rounding error below nothing
    charge_wh = np.where(charged, np.maximum(rows.charge_wh, 0.0), np.nan)
    discharge_wh = np.where(discharged, np.maximum(rows.discharge_wh, 0.0), np.nan)
    quality = rows.quality | np.where((covered < length_ms) | ~charged | ~discharged, Quality.GAP, 0)
    well_known = (covered >= DISAGREE_COVERED * length_ms) & (rows.power_ms >= DISAGREE_COVERED * length_ms)
    off_wh = np.abs(discharge_wh - charge_wh - mean * (covered / MS_PER_HOUR))
    allowed_wh = DISAGREE_PART * (charge_wh + discharge_wh) + DISAGREE_W * (length_ms / MS_PER_HOUR)
    quality = quality | np.where(counted & well_known & (off_wh > allowed_wh), Quality.DISAGREES, 0)
    return sealed(
        IntervalRecords(
            slots=slots,
            start_ms=rows.start_ms,
            length_s=length_ms // 1000,
            revision=rows.revision,
            charge_wh=charge_wh,
            discharge_wh=discharge_wh,
            coverage_pct=100.0 * covered / length_ms,
            samples=rows.samples,
            soc_start_pct=rows.first_soc_pct,
            soc_end_pct=rows.soc_pct,
            source=source.astype(np.int8),
            quality=quality.astype(np.int16),
            battery_w_mean=mean,
            battery_w_min=rows.power_w_min,
            battery_w_max=rows.power_w_max,
            grid_w_mean=_mean(rows.grid_wms, rows.grid_ms),
            pv_w_mean=_mean(rows.pv_wms, rows.pv_ms),
            load_w_mean=_mean(rows.load_wms, rows.load_ms),
            hash=np.zeros(len(slots), dtype=np.int64),
        )
    )


def accumulators_of(records: IntervalRecords) -> Accumulators:
    """Rebuild accumulators from records, as far as these go: every known value covers the same share of the interval,
    and SoC counts as read at the edges."""
    out = Accumulators(len(records))
    length_ms = records.length_s * 1000
    covered = np.rint(records.coverage_pct / 100.0 * length_ms).astype(np.int64)
    out.start_ms, out.revision, out.samples = records.start_ms.copy(), records.revision.copy(), records.samples.copy()
    for name in ("charge", "discharge"):
        wh = getattr(records, f"{name}_wh")
        setattr(out, f"{name}_wh", np.nan_to_num(wh))
        setattr(out, f"{name}_ms", np.where(np.isnan(wh), 0, covered))
    for name, mean in (("power", records.battery_w_mean), *((n, getattr(records, f"{n}_w_mean")) for n in SITE)):
        ms = np.where(np.isnan(mean), 0, np.maximum(covered, 1))
        setattr(out, f"{name}_ms", ms)
        setattr(out, f"{name}_wms", np.nan_to_num(mean) * ms)
    out.power_w_min, out.power_w_max = records.battery_w_min.copy(), records.battery_w_max.copy()
    out.soc_pct, out.first_soc_pct = records.soc_end_pct.copy(), records.soc_start_pct.copy()
    out.soc_t_ms = np.where(np.isnan(out.soc_pct), out.soc_t_ms, records.start_ms + length_ms)
    out.first_soc_t_ms = np.where(np.isnan(out.first_soc_pct), LATER_MS, records.start_ms)
    # late data may fill a gap; the other bits stay
    out.quality = records.quality & ~np.int16(Quality.GAP | Quality.DISAGREES)
    return out


def _mean(wms: Floats, ms: Ints) -> Floats:
    mean: Floats = np.where(ms > 0, wms / np.maximum(ms, 1), np.nan)
    return mean

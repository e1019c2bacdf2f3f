"""Writes interval records as receivers see them: JSON with RFC 3339 times; identity (device, start, revision, hash)."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field

from gateway.domain.intervals.record import IntervalRecord, Quality

RowsPerS = Annotated[float, Field(gt=0, le=1_000_000)]
"""The most records per second that a sink is sent."""


def rfc3339(ms: int) -> str:
    """UTC epoch milliseconds as RFC 3339, without a fraction for whole seconds."""
    moment = datetime.fromtimestamp(ms / 1000, tz=UTC)
    return moment.isoformat(timespec="milliseconds" if ms % 1000 else "seconds").replace("+00:00", "Z")


def row_of(record: IntervalRecord) -> dict[str, Any]:
    """A record as JSON: energy in Wh on the AC side, charge and discharge apart; null = unknown; `quality` by name."""
    return {
        "device": record.device,
        "start": rfc3339(record.start_ms),
        "length_s": record.length_s,
        "revision": record.revision,
        "charge_wh": _rounded(record.charge_wh),
        "discharge_wh": _rounded(record.discharge_wh),
        "coverage_pct": round(record.coverage_pct, 2),
        "samples": record.samples,
        "soc_start_pct": record.soc_start_pct,
        "soc_end_pct": record.soc_end_pct,
        "source": record.source.name.lower(),
        "battery_w_mean": _rounded(record.battery_w_mean),
        "battery_w_min": record.battery_w_min,
        "battery_w_max": record.battery_w_max,
        "grid_w_mean": _rounded(record.grid_w_mean),
        "pv_w_mean": _rounded(record.pv_w_mean),
        "load_w_mean": _rounded(record.load_w_mean),
        "quality": quality_names(record.quality),
        "hash": record.hash,
    }


def quality_names(quality: Quality) -> list[str]:
    """The names of an interval's quality flags."""
    return _NAMES[quality]


_NAMES = {flags: [flag.name.lower() for flag in Quality if flag & flags and flag.name] for flags in range(512)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)

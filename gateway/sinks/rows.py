"""An interval record as receivers see it: JSON with RFC 3339 times; identity is (device, start, revision)."""

from datetime import UTC, datetime
from typing import Any

from gateway.domain.model import IntervalRecord


def rfc3339(ms: int) -> str:
    """UTC epoch milliseconds as RFC 3339, to the second where it is whole."""
    moment = datetime.fromtimestamp(ms / 1000, tz=UTC)
    return moment.isoformat(timespec="milliseconds" if ms % 1000 else "seconds").replace("+00:00", "Z")


def row_of(record: IntervalRecord) -> dict[str, Any]:
    """Energy in Wh on the AC side, charge and discharge apart; null = unknown."""
    return {
        "device": record.device,
        "start": rfc3339(record.start_ms),
        "length_s": record.length_s,
        "revision": record.revision,
        "charge_wh": _rounded(record.charge_wh),
        "discharge_wh": _rounded(record.discharge_wh),
        "coverage_pct": round(record.coverage_pct, 2),
        "samples": record.samples,
        "soc_end_pct": record.soc_end_pct,
        "source": record.source.name.lower(),
        "battery_w_mean": _rounded(record.battery_w_mean),
        "battery_w_min": record.battery_w_min,
        "battery_w_max": record.battery_w_max,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)

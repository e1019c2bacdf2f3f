"""Writes interval records as receivers see them: JSON with RFC 3339 times; identity (device, start, revision, hash)."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from gateway.domain.intervals.columns import IntervalColumns
from gateway.domain.intervals.record import EnergySource, IntervalRecord, Quality
from gateway.domain.types import Floats
from gateway.schemas.body import Body

DECIMALS = 6
COVERAGE_DECIMALS = 2

RowsPerS = Annotated[float, Field(gt=0, le=1_000_000)]
"""The most records per second that a sink is sent."""


class IntervalBody(Body):
    """An interval record. (device, start, revision) identify it and `hash` is that of its content when it closed, so
    the same identity with another hash is an error; a higher revision replaces a lower one. Energy in Wh on the AC
    side, charge and discharge apart; power in W, battery + = discharge, grid + = import; null = unknown, never zero.
    `quality` lists what a reader should know: gap, clock, reset, jump, spread, late, disagrees, drift, cut."""

    device: str
    start: str
    length_s: int
    revision: int
    charge_wh: float | None
    discharge_wh: float | None
    coverage_pct: float
    samples: int
    soc_start_pct: float | None
    soc_end_pct: float | None
    source: Literal["none", "counter", "integrated"]
    battery_w_mean: float | None
    battery_w_min: float | None
    battery_w_max: float | None
    grid_w_mean: float | None
    pv_w_mean: float | None
    load_w_mean: float | None
    quality: list[str]
    hash: str


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
        "coverage_pct": round(record.coverage_pct, COVERAGE_DECIMALS),
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


def csv_lines(columns: IntervalColumns) -> bytes:
    """The same members as lines of CSV, in the same order; what is unknown is empty, several qualities have bars
    between them. No value needs quoting."""
    records = columns.records
    texts = (
        columns.device_of_each(),
        _each(records.start_ms, rfc3339),
        _each(records.length_s, str),
        _each(records.revision, str),
        _reals(records.charge_wh, DECIMALS),
        _reals(records.discharge_wh, DECIMALS),
        _reals(records.coverage_pct, COVERAGE_DECIMALS),
        _each(records.samples, str),
        _reals(records.soc_start_pct),
        _reals(records.soc_end_pct),
        _each(records.source, source_name),
        _reals(records.battery_w_mean, DECIMALS),
        _reals(records.battery_w_min),
        _reals(records.battery_w_max),
        _reals(records.grid_w_mean, DECIMALS),
        _reals(records.pv_w_mean, DECIMALS),
        _reals(records.load_w_mean, DECIMALS),
        _each(records.quality, quality_text),
        [f"{value:016x}" if value else "" for value in records.hash.tolist()],
    )
    return "".join([f"{','.join(line)}\n" for line in zip(*texts, strict=True)]).encode()


def _each(values: np.ndarray, text: Callable[[int], str]) -> list[str]:
    """The text of each value; few are distinct."""
    distinct, places = np.unique(values, return_inverse=True)
    texts = [text(value) for value in distinct.tolist()]
    return [texts[place] for place in places.tolist()]


def _reals(values: Floats, decimals: int | None = None) -> list[str]:
    known = values.tolist() if decimals is None else [round(value, decimals) for value in values.tolist()]
    return ["" if math.isnan(value) else str(value) for value in known]


def source_name(source: int) -> str:
    """The name of an energy source."""
    return EnergySource(source).name.lower()


def quality_text(quality: int) -> str:
    """The names of an interval's quality flags with bars between them."""
    return "|".join(_NAMES[quality])


def quality_names(quality: Quality) -> list[str]:
    """The names of an interval's quality flags."""
    return _NAMES[quality]


_NAMES = {flags: [flag.name.lower() for flag in Quality if flag & flags and flag.name] for flags in range(512)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)

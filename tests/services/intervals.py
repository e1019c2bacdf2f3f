"""Interval records for tests of delivery, and a log of them in memory."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gateway.domain.model import DeviceId, EnergySource, IntervalRecord

T0 = 1_800_000_000_000


def record(number: int, *, revision: int = 1, charge_wh: float | None = 1.5) -> IntervalRecord:
    """The `number`th record of a home."""
    return IntervalRecord(
        device=DeviceId(f"home-{number}"), start_ms=T0 + 300_000 * number, length_s=300, revision=revision,
        charge_wh=charge_wh, discharge_wh=0.0, coverage_pct=100.0, samples=30, soc_end_pct=55.0,
        source=EnergySource.ENERGY, battery_w_mean=-18.0, battery_w_min=-20.0, battery_w_max=None,
    )  # fmt: skip


def quarter(
    home: int,
    *,
    index: int = 0,
    revision: int = 1,
    charge_wh: float | None = 500.0,
    discharge_wh: float | None = 250.0,
    coverage_pct: float = 100.0,
) -> IntervalRecord:
    """15 minutes of a home, the `index`th after `T0`."""
    return replace(
        record(home, revision=revision, charge_wh=charge_wh), start_ms=T0 + 900_000 * index, length_s=900,
        discharge_wh=discharge_wh, coverage_pct=coverage_pct,
    )  # fmt: skip


class MemoryReader:
    """The log as delivery reads it: a cursor is a position. `saved` are the cursors in the order they were saved."""

    def __init__(self, rows: Sequence[IntervalRecord] = ()) -> None:
        self.rows = list(rows)
        self.saved: list[int] = []
        self.idle = asyncio.Event()

    async def read(self, cursor: Any, limit: int) -> tuple[Sequence[IntervalRecord], Any]:
        rows = self.rows[cursor : cursor + limit]
        if not rows:
            self.idle.set()
        return rows, cursor + len(rows)

    async def load_cursor(self, name: str) -> Any:
        return self.saved[-1] if self.saved else 0

    async def save_cursor(self, name: str, cursor: Any) -> None:
        self.saved.append(cursor)

    async def backlog(self, cursor: Any) -> tuple[int, int | None]:
        left = self.rows[cursor:]
        return len(left), left[0].start_ms if left else None

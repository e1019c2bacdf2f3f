"""Interval records for tests of delivery, and a log of them in memory."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gateway.domain.intervals.columns import IntervalColumns, columns_of_objects
from gateway.domain.intervals.record import EnergySource, IntervalRecord
from gateway.domain.types import Bools, DeviceId
from gateway.ports.sinks import IntervalBatch
from gateway.storage.interval_log.outcomes import Given, Places
from gateway.storage.interval_log.positions import RESEND, Cursor, Parked, Position
from gateway.storage.interval_log.rows import Identity

T0 = 1_800_000_000_000


def record(number: int, *, revision: int = 1, charge_wh: float | None = 1.5) -> IntervalRecord:
    """The `number`th record of a home."""
    return IntervalRecord(
        device=DeviceId(f"home-{number}"), start_ms=T0 + 300_000 * number, length_s=300, revision=revision,
        charge_wh=charge_wh, discharge_wh=0.0, coverage_pct=100.0, samples=30, soc_end_pct=55.0,
        source=EnergySource.INTEGRATED, battery_w_mean=-18.0, battery_w_min=-20.0, battery_w_max=None,
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


def batch(rows: Sequence[IntervalRecord], id_: str = "abc", *, again: bool = False) -> IntervalBatch:
    """A batch of these records."""
    return IntervalBatch(id=id_, columns=columns_of_objects(rows), again=again)


class MemoryReader:
    """The log as delivery reads it, in one file; and what is parked. `saved` are the rows that the reader was at, in
    the order they were saved."""

    def __init__(self, rows: Sequence[IntervalRecord] = ()) -> None:
        self.rows = list(rows)
        self.saved: list[int] = []
        self.state = Position()
        self.parked: dict[Identity, str] = {}
        self.idle = asyncio.Event()

    async def read_columns(
        self, cursor: Cursor, limit: int, until: Cursor | None = None
    ) -> tuple[IntervalColumns, Places, Cursor]:
        rows = self.rows[cursor.row : min(cursor.row + limit, len(self.rows) if until is None else until.row)]
        if not rows:
            self.idle.set()
        places = Places(files=np.ones(len(rows), dtype=np.int64), rows=cursor.row + 1 + np.arange(len(rows)))
        return columns_of_objects(rows), places, Cursor(1, cursor.row + len(rows)) if rows else cursor

    async def end(self) -> Cursor:
        return Cursor(1, len(self.rows))

    async def position_of(self, name: str) -> Position:
        return self.state

    async def save_position(
        self, name: str, position: Position, parked: Sequence[Parked] = (), unparked: Sequence[Identity] = (),
        given: Given | None = None,
    ) -> None:  # fmt: skip
        self.state = position
        self.saved.append(position.live.row)
        for one in unparked:
            self.parked.pop(one, None)
        self.parked |= {one.identity: one.reason for one in parked}

    async def backlog(self, position: Position) -> int:
        behind = sum(part.until.row - part.after.row for part in position.backfill)
        return len(self.rows) - position.live.row + behind

    async def again(self, name: str, limit: int) -> tuple[Sequence[IntervalRecord], Sequence[Identity]]:
        waiting = [one for one, reason in self.parked.items() if reason == RESEND][:limit]
        return [row for row in self.rows if (row.start_ms, row.device, row.revision) in waiting], waiting

    async def superseded(self, rows: IntervalColumns) -> Bools:
        newest: dict[tuple[int, str], int] = {}
        for row in self.rows:
            newest[row.start_ms, row.device] = max(row.revision, newest.get((row.start_ms, row.device), 0))
        return np.array([newest[row.start_ms, row.device] > row.revision for row in rows.objects()], dtype=np.bool_)

"""Days of sites for tests, and a state directory that they are made of."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np

from gateway.clock import Clock
from gateway.domain.intervals.columns import columns_of_objects
from gateway.domain.intervals.record import EnergySource, IntervalRecord
from gateway.domain.intervals.records import sealed
from gateway.domain.journal.changes import DeviceRegistered
from gateway.domain.programs.site_day import DayFrame, SiteChannel, SiteDays, write_basis
from gateway.domain.types import DeviceId
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.journal.journal import SqliteJournal
from gateway.storage.recovery import Unlogged
from tests.builders.fakes import home

PACIFIC = DayFrame(zone="America/Los_Angeles", length_s=900)
JULY = date(2026, 7, 14)


def site_days(
    sites: Sequence[str], *, frame: DayFrame = PACIFIC, day: date = JULY, wh: int | np.ndarray = 250,
    known: bool | np.ndarray = True, coverage_pct: int = 100,
) -> SiteDays:  # fmt: skip
    """Every interval of every channel alike, unless said otherwise."""
    shape = (len(SiteChannel), len(sites), frame.parts(day))
    there = np.broadcast_to(np.asarray(known), shape).copy()
    return SiteDays(
        frame=frame, day=day, sites=tuple(sites),
        energy_wh=np.where(there, np.broadcast_to(np.asarray(wh), shape), 0).astype(np.int32), known=there,
        coverage_pct=np.full(shape[1:], coverage_pct, dtype=np.uint8), quality=np.zeros(shape[1:], dtype=np.int16),
        bases=(write_basis([]),) * len(sites), versions=(0,) * len(sites),
    )  # fmt: skip


def measured(
    device: str, start_ms: int, *, length_s: int = 300, charge_wh: float | None = 0.0,
    discharge_wh: float | None = 0.0, grid_w: float | None = None, revision: int = 1, coverage_pct: float = 100.0,
) -> IntervalRecord:  # fmt: skip
    """A record."""
    return IntervalRecord(
        device=DeviceId(device), start_ms=start_ms, length_s=length_s, revision=revision, charge_wh=charge_wh,
        discharge_wh=discharge_wh, coverage_pct=coverage_pct, samples=3, soc_end_pct=None, source=EnergySource.COUNTER,
        grid_w_mean=grid_w,
    )  # fmt: skip


def whole_day(device: str, day: date, *, frame: DayFrame = PACIFIC, **known: float) -> list[IntervalRecord]:
    """Five-minute records of a local day."""
    from_ms, until_ms = frame.span(day)
    return [measured(device, at, **known) for at in range(from_ms, until_ms, 300_000)]  # type: ignore[arg-type]


async def logged(state_dir: Path, records: Sequence[IntervalRecord], clock: Clock, *, number: int = 1) -> None:
    """Store records in the interval log as spool record `number`."""
    columns = columns_of_objects(records)
    unlogged = Unlogged(record=number, records=sealed(columns.records), ids=columns.devices)
    async with IntervalLog(state_dir / "intervals", clock=clock) as log:
        await log.append([unlogged])


async def placed(state_dir: Path, homes: Iterable[tuple[str, str]], clock: Clock) -> None:
    """Register devices at sites, by device and site, from now on."""
    journal = SqliteJournal(state_dir / "journal.sqlite", clock=clock)
    try:
        journal.load()
        for device, site in homes:
            await journal.commit([DeviceRegistered(device=replace(home(device), site=site))])
    finally:
        journal.close()

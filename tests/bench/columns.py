"""Columns: days of sites as they are stored: bytes of each at 15 and at 5 minutes, and what writing and reading costs.

The days look like those of homes with PV and a battery: load with a morning, an evening and noise, clouds, a battery
that takes what is left over and gives it back in the evening or to an event; records of 5 minutes in whole Wh of
counters, one in a hundred missing or revised. `bytes_per_site_day`: the body as stored, `file_bytes_per_site_day` the
file over its rows. `read_us` and `write_us` per site-day include the file.
"""

import time
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gateway.domain.intervals.columns import IntervalColumns
from gateway.domain.intervals.records import NO_RECORDS, RECORD_COLUMNS, IntervalRecords
from gateway.domain.programs.day_builder import DayBuilder, SiteStay
from gateway.domain.programs.site_day import DayFrame
from gateway.domain.types import DeviceId
from gateway.storage.programs.daily import DailyColumns
from tests.bench.rig import aim, pin, report

ZONE = "America/Los_Angeles"
FIRST = date(2026, 7, 1)
RECORD_S = 300
AIM_BYTES = 800


def home_days(
    frame: DayFrame, day: date, sites: int, rng: np.random.Generator, *, gaps: float = 0.005
) -> tuple[IntervalColumns, list[SiteStay]]:
    """A day's records of homes with one battery each; `gaps`: the part of them that is missing."""
    from_ms, until_ms = frame.span(day)
    count = (until_ms - from_ms) // (RECORD_S * 1000)
    hour = np.arange(count) * RECORD_S / 3600
    load_w = 350 + 900 * np.exp(-(((hour - 19.5) / 2.2) ** 2)) + 500 * np.exp(-(((hour - 7.5) / 1.2) ** 2))
    load_w = load_w * rng.lognormal(0, 0.35, (sites, 1)) * rng.lognormal(0, 0.25, (sites, count))
    load_w += rng.choice([0.0, 1500.0, 3000.0], (sites, count), p=[0.9, 0.06, 0.04])
    clouds = np.repeat(rng.beta(5, 1.5, (sites, count // 12 + 1)), 12, axis=1)[:, :count]
    pv_w = np.clip(np.sin((hour - 6) / 13 * np.pi), 0, None) * rng.uniform(3000, 7000, (sites, 1)) * clouds
    pv_w *= rng.normal(1, 0.05, (sites, count))
    surplus = pv_w - load_w
    room_wh, charge_w, discharge_w = rng.uniform(8_000, 13_000, sites), np.zeros_like(load_w), np.zeros_like(load_w)
    held = np.zeros(sites)
    for at in range(count):
        event = 17 <= hour[at] < 19
        take = np.clip(surplus[:, at], 0, 5_000) * (held < room_wh)
        give = np.where(event, 4_500.0, np.clip(-surplus[:, at], 0, 5_000) * (hour[at] > 16)) * (held > 400)
        charge_w[:, at], discharge_w[:, at] = take, give * (take == 0)
        held += (take * 0.95 - discharge_w[:, at]) * RECORD_S / 3600
    grid_w = load_w - pv_w + charge_w - discharge_w
    there = rng.random((sites, count)) >= gaps
    site, number = np.nonzero(there)
    wh = RECORD_S / 3600
    columns: dict[str, np.ndarray] = {name: np.zeros(len(site), dtype=dtype) for name, dtype in RECORD_COLUMNS.items()}
    columns |= {
        "slots": site.astype(np.int32), "start_ms": from_ms + number * RECORD_S * 1000,
        "length_s": np.full(len(site), RECORD_S), "coverage_pct": np.where(rng.random(len(site)) > 0.01, 100.0, 93.0),
        "revision": np.where(rng.random(len(site)) > 0.005, 1, 2).astype(np.int32),
        "charge_wh": np.rint(charge_w[there] * wh), "discharge_wh": np.rint(discharge_w[there] * wh),
        "grid_w_mean": grid_w[there],
    }  # fmt: skip
    devices = [DeviceId(f"battery-{number:06d}") for number in range(sites)]
    order = np.lexsort((columns["slots"], columns["start_ms"]))
    records = NO_RECORDS if not len(site) else IntervalRecords(**{name: c[order] for name, c in columns.items()})
    stays = [
        SiteStay(site=f"home-{n:06d}", device=d, from_ms=from_ms, until_ms=until_ms) for n, d in enumerate(devices)
    ]
    return IntervalColumns(devices=devices, records=records), stays


def measure(length_s: int, sites: int, days: int) -> dict[str, Any]:
    """One interval length."""
    rng, frame = np.random.default_rng(7), DayFrame(zone=ZONE, length_s=length_s)
    build_s = write_s = 0.0
    with TemporaryDirectory() as directory:
        with DailyColumns(Path(directory), write=True) as store:
            for n in range(days):
                day = FIRST + timedelta(days=n)
                page, stays = home_days(frame, day, sites, rng)
                began = time.perf_counter()
                builder = DayBuilder(frame, day, stays)
                builder.add(page)
                built = builder.result()
                build_s += time.perf_counter() - began
                began = time.perf_counter()
                store.put(built, n)
                write_s += time.perf_counter() - began
            rows, size = store.size()
            path = store.path
        began = time.perf_counter()
        with DailyColumns(Path(directory)) as store:
            read = sum(len(day.sites) for day in store.days(frame, (FIRST + timedelta(days=n) for n in range(days))))
        read_s = time.perf_counter() - began
        assert read == rows == sites * days
        file_bytes = path.stat().st_size
    return {
        "n": rows, "interval_s": length_s, "bytes_per_site_day": round(size / rows, 1),
        "file_bytes_per_site_day": round(file_bytes / rows, 1), "build_us": round(build_s / rows * 1e6, 1),
        "write_us": round(write_s / rows * 1e6, 1), "read_us": round(read_s / rows * 1e6, 1),
    }  # fmt: skip


async def run(*, quick: bool, sites: int | None = None) -> dict[str, Any]:
    pin()
    count, days = sites or (200 if quick else 5_000), 2 if quick else 6
    sizes = [measure(length_s, count, days) for length_s in (900, 300)]
    quarter = sizes[0]["bytes_per_site_day"]
    return report(
        "columns", sizes=sizes, ratios={}, aims={"bytes_per_site_day": aim(quarter, most=AIM_BYTES)}
    )  # fmt: skip

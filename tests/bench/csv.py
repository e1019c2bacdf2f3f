"""Csv: a day of 15-minute energy of 8,121 sites (779,616 rows) as the aggregator's file, written and checked.

`seconds`: from interval records to sorted bytes, and our check over all of them. `stdlib_x`: the same by the standard
library as one would write it first (`csv.writer`; `csv.DictReader` with `datetime` and `float` per field, the same
rules and a set of what was seen), over ours. Both must find nothing wrong, and the same lines wrong in a file where one
in a thousand is spoilt. The limit is the interpreter: two numbers formatted and one line sorted, split and looked up,
for each row.
"""

import csv
import io
import random
import time
import uuid
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.domain.intervals.record import EnergySource, IntervalRecord
from gateway.domain.types import DeviceId
from gateway.sinks.leap.rows import COLUMNS, LeapMeter, render, validate
from tests.bench.rig import aim, pin, report

SITES, QUARTERS = 8_121, 96
T0, QUARTER_MS = 1_780_272_000_000, 900_000
NOW_MS = T0 + 2 * 86_400_000
SPOILT_EVERY = 1_000
SECONDS_MOST = 10.0
HEADER = COLUMNS[:5]


def fleet(sites: int, rng: random.Random) -> tuple[list[IntervalRecord], dict[DeviceId, LeapMeter]]:
    """A day in log order: all sites, quarter by quarter."""
    meters = {DeviceId(f"home-{i}"): LeapMeter(id=str(uuid.UUID(int=rng.getrandbits(128)))) for i in range(sites)}
    rows = [
        IntervalRecord(
            device=device, start_ms=T0 + i * QUARTER_MS, length_s=900, revision=1, charge_wh=rng.random() * 1_250,
            discharge_wh=rng.random() * 1_250 if i % 3 else 0.0, coverage_pct=100.0, samples=90, soc_end_pct=50.0,
            source=EnergySource.COUNTER,
        )
        for i in range(QUARTERS)
        for device in meters
    ]  # fmt: skip
    return rows, meters


def plain_write(rows: list[IntervalRecord], meters: Mapping[DeviceId, LeapMeter]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    for row in sorted(rows, key=lambda row: (meters[row.device].id, row.start_ms)):
        start = datetime.fromtimestamp(row.start_ms / 1000, tz=UTC)
        end = start + timedelta(seconds=row.length_s)
        assert row.discharge_wh is not None
        assert row.charge_wh is not None
        writer.writerow(
            [
                meters[row.device].id,
                start.strftime("%Y-%m-%dT%H:%M:%SZ"),
                end.strftime("%Y-%m-%dT%H:%M:%SZ"),
                f"{row.discharge_wh / 1000:.6f}",
                f"{row.charge_wh / 1000:.6f}",
            ]
        )
    return out.getvalue().encode()


def plain_check(body: bytes, meters: Collection[str], now_ms: int) -> set[int]:
    """The lines that are wrong, without saying why."""
    wrong: set[int] = set()
    seen: set[tuple[str, datetime]] = set()
    now = datetime.fromtimestamp(now_ms / 1000, tz=UTC)
    reader = csv.DictReader(io.StringIO(body.decode(), newline=""))
    for line, row in enumerate(reader, 2):
        try:
            start, end = (datetime.fromisoformat(row[name]) for name in HEADER[1:3])
            fine = (
                row[HEADER[0]] in meters
                and start.minute % 15 == start.second == 0
                and end - start == timedelta(minutes=15)
                and end <= now
                and all(float(row[name]) >= 0 for name in HEADER[3:])
                and (row[HEADER[0]], start) not in seen
            )
        except (ValueError, TypeError):
            fine = False
        if fine:
            seen.add((row[HEADER[0]], start))
        else:
            wrong.add(line)
    return wrong


def spoilt(body: bytes) -> tuple[bytes, set[int]]:
    """The file with a negative energy in every thousandth line, and which lines these are."""
    lines = body.split(b"\n")
    at = range(1, len(lines) - 1, SPOILT_EVERY)
    for i in at:
        head, _, _ = lines[i].rpartition(b",")
        lines[i] = head + b",-1.000000"
    return b"\n".join(lines), {i + 1 for i in at}


Result = tuple[float, float]


def ours(
    rows: list[IntervalRecord], meters: Mapping[DeviceId, LeapMeter], known: Collection[str]
) -> tuple[bytes, Result]:
    """The file, and how long it took to write and to check."""
    began = time.perf_counter()
    body = render(rows, range(len(rows)), meters).body()
    written = time.perf_counter()
    assert validate(body, meters=known, now_ms=NOW_MS) == []
    return body, (written - began, time.perf_counter() - written)


def plain(
    rows: list[IntervalRecord], meters: Mapping[DeviceId, LeapMeter], known: Collection[str]
) -> tuple[bytes, float]:
    """The file as the standard library writes it, and how long it took to write and to check."""
    began = time.perf_counter()
    body = plain_write(rows, meters)
    assert plain_check(body, known, NOW_MS) == set()
    return body, time.perf_counter() - began


async def run(*, quick: bool, sites: int = SITES) -> dict[str, Any]:
    pin()
    rows, meters = fleet(sites, random.Random(1))
    known = frozenset(meter.id for meter in meters.values())
    took: list[Result] = []
    plain_s: list[float] = []
    body = b""
    for _ in range(1 if quick else 3):
        body, both_s = ours(rows, meters, known)
        other, other_s = plain(rows, meters, known)
        assert other == body
        took.append(both_s)
        plain_s.append(other_s)
    bad_body, bad = spoilt(body)
    began = time.perf_counter()
    faults = validate(bad_body, meters=known, now_ms=NOW_MS)
    bad_s = time.perf_counter() - began
    assert {fault.line for fault in faults} == plain_check(bad_body, known, NOW_MS) == bad
    write_s, check_s = sorted(took, key=sum)[len(took) // 2]
    seconds, stdlib_s = write_s + check_s, sorted(plain_s)[len(plain_s) // 2]
    sizes = [
        {
            "n": len(rows),
            "rounds": len(took),
            "seconds": round(seconds, 3),
            "write_seconds": round(write_s, 3),
            "check_seconds": round(check_s, 3),
            "check_spoilt_seconds": round(bad_s, 3),
            "stdlib_seconds": round(stdlib_s, 3),
            "us_per_item": round(seconds / len(rows) * 1e6, 3),
            "bytes": len(body),
        }
    ]
    return report(
        "csv",
        sizes=sizes,
        ratios={"stdlib_x": stdlib_s / seconds},
        aims={"seconds": aim(seconds, most=SECONDS_MOST)},
    )

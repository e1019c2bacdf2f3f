"""Reads a table of utility meters' readings: CSV with `meter`, `start`, `usage_wh` and, where it differs, `length_s`.

`start` is RFC 3339 with a zone, on an edge of the interval; `usage_wh` is whole Wh, + = taken from the grid; an empty
one is not known and skipped. Every bad row is named with its line.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.storage.programs.utility_meters import UsageRow

COLUMNS = ("meter", "start", "usage_wh")
LENGTHS_S = (300, 900, 1800, 3600)
FAULTS_MAX = 50
METER_MAX = 128
WH_MAX = 10_000_000
ROWS_MAX = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageTable:
    """Good rows, how many had no reading, and what is wrong with others. `faults` are up to a bound."""

    rows: Sequence[UsageRow]
    empty: int
    faults: Sequence[str]
    bad: int


def read_usage(text: str, *, length_s: int) -> UsageTable:
    """Read a table; `length_s`: of the intervals where no column says another."""
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    lacking = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if lacking:
        return UsageTable(rows=(), empty=0, faults=[f"line 1: no column {', '.join(lacking)}"], bad=1)
    rows: dict[tuple[str, int, int], UsageRow] = {}
    faults: list[str] = []
    empty = bad = 0
    for row in reader:
        line = reader.line_num
        if len(rows) >= ROWS_MAX:
            return UsageTable(rows=(), empty=0, faults=[f"line {line}: more than {ROWS_MAX} rows"], bad=1)
        try:
            if not (row["usage_wh"] or "").strip():
                empty += 1
                continue
            one = _row(row, length_s)
            known = rows.setdefault((one.meter, one.start_ms, one.length_s), one)
            if known.wh != one.wh:
                raise ValueError(f"start {row['start']}: the file says {known.wh} and {one.wh} Wh of one interval")
        except ValueError as error:
            bad += 1
            if len(faults) < FAULTS_MAX:
                faults.append(f"line {line}: {error}")
    return UsageTable(rows=list(rows.values()), empty=empty, faults=faults, bad=bad)


def _row(row: Mapping[str, str | None], length_s: int) -> UsageRow:
    meter, start, usage = ((row[name] or "").strip() for name in COLUMNS)
    if not 0 < len(meter) <= METER_MAX:
        raise ValueError("meter: empty or too long")
    try:
        at = datetime.fromisoformat(start)
    except ValueError:
        raise ValueError(f"start: {start!r} is no time like 2026-07-14T17:15:00Z") from None
    if at.tzinfo is None:
        raise ValueError(f"start: {start!r} has no zone")
    try:
        wh = float(usage)
    except ValueError:
        raise ValueError(f"usage_wh: {usage!r} is no number") from None
    if not math.isfinite(wh) or abs(wh) > WH_MAX:
        raise ValueError(f"usage_wh: {usage!r} is no energy of a home")
    given = (row.get("length_s") or "").strip()
    length = int(given) if given.isdecimal() else (length_s if not given else 0)
    if length not in LENGTHS_S:
        raise ValueError(f"length_s: {given!r} is none of {', '.join(map(str, LENGTHS_S))}")
    start_ms = round(at.timestamp() * 1000)
    if start_ms % (length * 1000):
        raise ValueError(f"start: {start!r} is not on an edge of {length} s")
    return UsageRow(meter=meter, start_ms=start_ms, length_s=length, wh=math.floor(wh + 0.5))

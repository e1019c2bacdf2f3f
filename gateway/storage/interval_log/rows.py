"""Interval records as SQLite rows: the schema of a log file and its few statements."""

import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gateway.domain.intervals.late import DAMAGED
from gateway.domain.intervals.record import EnergySource, IntervalRecord, Quality
from gateway.domain.intervals.records import RECORD_COLUMNS, IntervalRecords, sealed
from gateway.domain.types import DeviceId

Row = tuple[Any, ...]
Identity = tuple[int, str, int]
"""Start (UTC ms), device and revision: what no two records share."""

Columns = list[list[Any]]
"""Values by the order of `COLUMNS`, each column as long as the others."""

SCHEMA_VERSION = 2
# Statements of few sizes stay compiled. The last rows are padded with rows that the statement skips; that costs twice
# as much per row, so only small statements are padded.
WHOLE_ROWS = (8192, 1024)
PADDED_ROWS = (16, 128, 1024)

COLUMNS = (
    "device",
    "start_ms",
    "length_s",
    "revision",
    "charge_wh",
    "discharge_wh",
    "coverage_pct",
    "samples",
    "soc_end_pct",
    "source",
    "battery_w_mean",
    "battery_w_min",
    "battery_w_max",
    "soc_start_pct",
    "quality",
    "grid_w_mean",
    "pv_w_mean",
    "load_w_mean",
    "hash",
)
_NAMES = ", ".join(COLUMNS)
_ROW = "(" + ", ".join("?" * len(COLUMNS)) + ")"

SELECT_AFTER = "select {columns} from interval i where id > ? and id <= ? order by id limit ?"
"""See `pages.fetch`."""
SELECT_IDENTITY = f"select {_NAMES} from interval where start_ms = ? and device = ? and revision = ?"  # noqa: S608
_WHOLE = {
    size: f"insert into interval ({_NAMES}) values {', '.join([_ROW] * size)} on conflict do nothing"  # noqa: S608
    for size in WHOLE_ROWS
}
_PADDED = {
    size: f"insert into interval ({_NAMES}) select * from (values {', '.join([_ROW] * size)}) "  # noqa: S608
    "where column1 is not null on conflict do nothing"
    for size in PADDED_ROWS
}


def create_sql(position: int) -> str:
    """Creates a log file, whole or not at all; `position`: the last spool record that earlier files contain."""
    return f"""
begin;
create table interval (
  id integer primary key, device text not null, start_ms integer not null, length_s integer not null,
  revision integer not null, charge_wh real, discharge_wh real, coverage_pct real not null, samples integer not null,
  soc_end_pct real, source integer not null, battery_w_mean real, battery_w_min real, battery_w_max real,
  soc_start_pct real, quality integer not null default 0, grid_w_mean real, pv_w_mean real, load_w_mean real,
  hash integer);
create unique index identity on interval (start_ms, device, revision);
create table position (one integer primary key check (one = 1), record integer not null);
insert into position values (1, {position:d});
pragma user_version = {SCHEMA_VERSION};
commit;
"""  # noqa: S608 an integer and own constants


# Each migrates a file from the version before, whole or not at all, and cheaply however large the file is.
MIGRATIONS: Mapping[int, str] = {
    2: """
alter table interval add column soc_start_pct real;
alter table interval add column quality integer not null default 0;
alter table interval add column grid_w_mean real;
alter table interval add column pv_w_mean real;
alter table interval add column load_w_mean real;
alter table interval add column hash integer;
""",
}


def insertions(columns: Columns, variables_max: int) -> Iterator[tuple[slice, str, list[Any]]]:
    """Few statements for all rows: for each the slice of rows, its text and its parameters. `variables_max`: SQLite's
    limit."""
    at, rows = 0, len(columns[0])
    wholes = [size for size in WHOLE_ROWS if size * len(COLUMNS) <= variables_max]
    while at < rows:
        size = next((size for size in wholes if size <= rows - at), None)
        if size is not None:
            chunk, statement = slice(at, at + size), _WHOLE[size]
        else:
            paddeds = [size for size in PADDED_ROWS if size * len(COLUMNS) <= variables_max]
            size = next((size for size in paddeds if size >= rows - at), paddeds[-1])
            chunk, statement = slice(at, min(at + size, rows)), _PADDED[size]
        values: list[Any] = [None] * (size * len(COLUMNS))
        for place, column in enumerate(columns):
            values[place : (chunk.stop - at) * len(COLUMNS) : len(COLUMNS)] = column[chunk]
        yield chunk, statement, values
        at = chunk.stop


def columns_of(records: IntervalRecords, ids: Sequence[str]) -> Columns:
    """Columns of the records, without those of slots that have no name. SQLite stores NaN as NULL."""
    known = len(ids)
    devices = [ids[slot] if slot < known else "" for slot in records.slots.tolist()]
    hashed = [with_device(one, device) for one, device in zip(records.hash.tolist(), devices, strict=True)]
    columns = [devices, *(getattr(records, name).tolist() for name in COLUMNS[1:-1]), hashed]
    if all(devices):
        return columns
    return [list(itertools.compress(column, devices)) for column in columns]


def with_device(content: int, device: str) -> int | None:
    """The hash of a record's content and its device; None = it has none."""
    return content ^ zlib.crc32(device.encode()) << 1 if content else None


def rows_of(columns: Columns, chunk: slice) -> list[Row]:
    """The rows of one slice."""
    return list(zip(*(column[chunk] for column in columns), strict=True))


def records_of_rows(records: Sequence[IntervalRecord], slot_of: Mapping[str, int]) -> IntervalRecords:
    """Records as columns by slot, without those of devices that have no slot. The inverse of `rows_of`."""
    known = [record for record in records if record.device in slot_of]
    columns: dict[str, np.ndarray] = {}
    for name, dtype in RECORD_COLUMNS.items():
        if name != "hash":
            values = [slot_of[r.device] if name == "slots" else getattr(r, name) for r in known]
            columns[name] = np.array(values, dtype=np.dtype(dtype).newbyteorder("="))
    return sealed(IntervalRecords(**columns, hash=np.zeros(len(known), dtype=np.int64)))


def damaged_record(device: DeviceId, start_ms: int) -> IntervalRecord:
    """Stands for a record that can no longer be read: nothing may be computed from it."""
    return IntervalRecord(
        device=device, start_ms=start_ms, length_s=1, revision=DAMAGED, charge_wh=None, discharge_wh=None,
        coverage_pct=0.0, samples=0, soc_end_pct=None, source=EnergySource.NONE,
    )  # fmt: skip


def identity(row: Row) -> Row:
    """Start, device, revision: what no two records share."""
    return row[1], row[0], row[3]


def as_stored(row: Row) -> Row:
    """`row` as it reads back."""
    return tuple(None if isinstance(value, float) and value != value else value for value in row)  # noqa: PLR0124


def record_of(row: Row) -> IntervalRecord:
    """The record behind a row: its id and `COLUMNS`."""
    return IntervalRecord(
        device=DeviceId(row[1]),
        start_ms=row[2],
        length_s=row[3],
        revision=row[4],
        charge_wh=row[5],
        discharge_wh=row[6],
        coverage_pct=row[7],
        samples=row[8],
        soc_end_pct=row[9],
        source=EnergySource(row[10]),
        battery_w_mean=row[11],
        battery_w_min=row[12],
        battery_w_max=row[13],
        soc_start_pct=row[14],
        quality=Quality(row[15]),
        grid_w_mean=row[16],
        pv_w_mean=row[17],
        load_w_mean=row[18],
        hash="" if row[19] is None else f"{row[19]:016x}",
    )

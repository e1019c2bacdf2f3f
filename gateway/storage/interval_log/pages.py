"""Reads interval records from a log file as columns, many at a time, and checks each against its hash.

SQLite hands out its rows one by one and releases the interpreter for each. So one statement copies what is asked into a
table in memory, and numpy takes the columns out of the bytes of that (`image`). What does not fit (a value of another
type than its column's: damage) is read again row by row.
"""

import contextlib
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from gateway.domain.intervals.columns import IntervalColumns, columns_of_objects, joined
from gateway.domain.intervals.record import EnergySource
from gateway.domain.intervals.records import HASHED, RECORD_COLUMNS, IntervalRecords, hashes
from gateway.domain.types import Bools, DeviceId, Ints
from gateway.storage.interval_log.image import UnreadableImage, numbers
from gateway.storage.interval_log.rows import COLUMNS, Row, record_of

IMAGE_PAGE_BYTES = 16_384

_REALS = tuple(name for name in COLUMNS if RECORD_COLUMNS.get(name) == "<f8")
_WHOLES = ("id", *(name for name in COLUMNS if name != "device" and name not in _REALS))
_PREPARE = (
    f"pragma image.page_size = {IMAGE_PAGE_BYTES}",
    "pragma image.auto_vacuum = none",
    "pragma image.journal_mode = off",
    f"create table image.page ({', '.join((*_WHOLES, *_REALS))}, device)",
)


def _selecting(select: str, names: Iterable[str]) -> str:
    """The statement with the columns that it selects in place of `{columns}`, or of `{newest}` where it groups by
    interval: beside max() SQLite takes the other columns from the row that has the maximum."""
    # no hash is even: 0 says that there is none, and a 0 that is stored is damage
    hash_ = "ifnull(iif(i.hash = 0, 2, i.hash), 0)"
    columns = ", ".join(hash_ if name == "hash" else f"i.{name}" for name in names)
    return select.format(columns=columns, newest=columns.replace("i.revision", "max(i.revision)"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedRow:
    """What is left of a record that differs from what was written; any value may be the damaged one."""

    id: int
    start_ms: Any
    device: Any
    revision: Any

    @property
    def legible(self) -> bool:
        """Whether start, device and revision can still be read."""
        kinds = ((self.start_ms, int), (self.device, str), (self.revision, int))
        return all(isinstance(value, kind) for value, kind in kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The intact records that a statement selects, the id of the row of each, and the damaged ones."""

    columns: IntervalColumns
    ids: Ints
    damaged: Sequence[DamagedRow]

    @property
    def last_id(self) -> int:
        """The largest id of rows that are in the order of ids; 0 = there are none."""
        return max([*self.ids[-1:].tolist(), *(row.id for row in self.damaged)], default=0)


def fetch(connection: sqlite3.Connection, select: str, values: Mapping[str, Any] | Sequence[Any]) -> Page:
    """The records that a statement selects, in its order; it names the table `interval i` and has `{columns}` or
    `{newest}` for what it selects. Rows written before there were hashes count as intact. The connection
    is in autocommit and in no transaction. Raises sqlite3.Error."""
    try:
        with _image(connection):
            copied = _selecting(select, (*_WHOLES, *_REALS, "device"))
            connection.execute(f"insert into image.page {copied}", values)
            return _checked(*_columns(connection))
    except (sqlite3.Error, UnreadableImage, ValueError):
        # a value of another type than its column's; or the file is damaged, then this raises again
        return _row_by_row(connection, select, values)


@contextlib.contextmanager
def _image(connection: sqlite3.Connection) -> Iterator[None]:
    """An empty table `image.page` in memory while the block runs."""
    connection.execute("attach ':memory:' as image")
    try:
        for statement in _PREPARE:
            connection.execute(statement)
        yield
    finally:
        connection.execute("detach image")


def _columns(connection: sqlite3.Connection) -> tuple[IntervalColumns, Ints]:
    """The rows of `image.page` and the ids of the rows they were copied from. Raises sqlite3.Error, ValueError."""
    ((root,),) = connection.execute("select rootpage from image.sqlite_schema").fetchall()
    ((text,),) = connection.execute("select cast(json_group_array(device) as blob) from image.page").fetchall()
    named: list[DeviceId] = orjson.loads(text)
    devices = list(dict.fromkeys(named))
    if not set(map(type, devices)) <= {str}:
        raise UnreadableImage("a device is not text")
    slot_of = dict(zip(devices, range(len(devices)), strict=True))
    wholes, reals = numbers(connection.serialize(name="image"), root, wholes=len(_WHOLES), reals=len(_REALS))
    wide = dict(zip((*_WHOLES, *_REALS), (*wholes, *reals), strict=True))
    columns = {name: wide[name].astype(RECORD_COLUMNS[name]) for name in COLUMNS if name != "device"}
    if any((columns[name] != wide[name]).any() for name in _WHOLES if name != "id"):
        raise UnreadableImage("a number is too large for its column")
    columns["slots"] = np.fromiter(map(slot_of.__getitem__, named), dtype=np.int32, count=len(named))
    return IntervalColumns(devices=devices, records=IntervalRecords(**columns)), wide["id"]


def _checked(columns: IntervalColumns, ids: Ints) -> Page:
    bad = _damaged(columns)
    if not bad.any():
        return Page(columns=columns, ids=ids, damaged=())
    lost = columns.rows(bad)
    places = zip(
        ids[bad].tolist(), lost.records.start_ms.tolist(), lost.device_of_each(), lost.records.revision.tolist(),
        strict=True,
    )  # fmt: skip
    damaged = [DamagedRow(id=id_, start_ms=ms, device=name, revision=number) for id_, ms, name, number in places]
    return Page(columns=columns.rows(~bad), ids=ids[~bad], damaged=damaged)


def _damaged(columns: IntervalColumns) -> Bools:
    """By row, whether its content no longer matches its stored hash, or names a source that does not exist."""
    records = columns.records
    # of a device once, of the rest by row
    devices = np.fromiter(map(zlib.crc32, map(str.encode, columns.devices)), np.int64, len(columns.devices)) << 1
    content = hashes({name: getattr(records, name) for name in HASHED})
    wrong: Bools = (records.hash != 0) & (content ^ devices[records.slots] != records.hash)
    return wrong | (records.source < min(EnergySource)) | (records.source > max(EnergySource))


def _row_by_row(connection: sqlite3.Connection, select: str, values: Mapping[str, Any] | Sequence[Any]) -> Page:
    """The same, for rows of which some have values that no column can hold."""
    good: list[IntervalColumns] = []
    ids: list[int] = []
    damaged: list[DamagedRow] = []
    connection.text_factory = _text
    try:
        rows = connection.execute(_selecting(select, ("id", *COLUMNS)), values).fetchall()
    finally:
        connection.text_factory = str
    for row in rows:
        columns = _one(row)
        if columns is None:
            damaged.append(DamagedRow(id=row[0], device=row[1], start_ms=row[2], revision=row[4]))
        else:
            good.append(columns)
            ids.append(row[0])
    return Page(columns=joined(good), ids=np.array(ids, dtype=np.int64), damaged=damaged)


def _text(value: bytes) -> str | bytes:
    """Text, or bytes that no longer are any: one damaged name is no reason to refuse the whole file."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _one(row: Row) -> IntervalColumns | None:
    """A row as columns; None if it is damaged."""
    named = dict(zip(("id", *COLUMNS), row, strict=True))
    wholes = [named[name] for name in _WHOLES if name != "hash"]
    if not isinstance(named["device"], str) or not all(isinstance(value, int) for value in wholes):
        return None
    try:
        columns = columns_of_objects([record_of(row)])
    except (TypeError, ValueError, OverflowError):
        return None
    return None if _damaged(columns)[0] else columns

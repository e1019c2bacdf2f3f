"""Writes interval records as Arrow columns and Parquet files. pyarrow is an extra, imported only on use.

A column per field of the record: the start as a UTC timestamp in ms, enumerations by name, lower case, several
qualities separated by `|`, unknown = null.
"""

import importlib.util
import typing
from collections.abc import Sequence
from dataclasses import fields
from enum import Enum
from operator import attrgetter
from types import NoneType
from typing import Any, BinaryIO

from gateway.domain.intervals.record import IntervalRecord, Quality
from gateway.schemas.interval_rows import quality_names

NEEDED = "Parquet needs pyarrow: pip install 'battery-fleet-gateway[parquet]'"
COMPRESSION = "zstd"
START = "start_ms"
_SMALL = ("length_s", "revision")


def available() -> bool:
    """Whether pyarrow is installed."""
    return importlib.util.find_spec("pyarrow") is not None


def arrow_schema() -> Any:
    """The columns' names and types (a `pyarrow.Schema`), in the order of the record's fields."""
    import pyarrow as pa

    plain = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    columns = []
    for name, kind in _kinds().items():
        if name == START:
            columns.append((name.removesuffix("_ms"), pa.timestamp("ms", "UTC")))
        elif name in _SMALL:
            columns.append((name, pa.int32()))
        else:
            columns.append((name, pa.string() if issubclass(kind, Enum) else plain[kind]))
    return pa.schema(columns)


def write_parquet(rows: Sequence[IntervalRecord], file: BinaryIO) -> None:
    """Records as one Parquet file. Raises what `file` raises."""
    import pyarrow as pa
    import pyarrow.parquet

    kinds, schema = _kinds(), arrow_schema()
    columns = zip(*map(attrgetter(*kinds), rows), strict=True)
    arrays = [
        pa.array([_text(value) for value in column] if issubclass(kind, Enum) else column, type=type_)
        for kind, type_, column in zip(kinds.values(), schema.types, columns, strict=True)
    ]
    packed = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table(arrays, schema=schema), packed, compression=COMPRESSION)
    file.write(packed.getvalue())


def _text(value: Enum) -> str:
    return "|".join(quality_names(value)) if isinstance(value, Quality) else value.name.lower()


def _kinds() -> dict[str, type]:
    """The type of each field of a record, whether it may be unknown or not."""
    hints = typing.get_type_hints(IntervalRecord)
    found: dict[str, type] = {}
    for field in fields(IntervalRecord):
        hint = next((kind for kind in typing.get_args(hints[field.name]) if kind is not NoneType), hints[field.name])
        found[field.name] = getattr(hint, "__supertype__", hint)
    return found

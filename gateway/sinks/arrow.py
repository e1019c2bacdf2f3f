"""Writes interval records as Arrow columns and Parquet files. pyarrow is an extra, imported only on use.

A column per field of the record: the start as a UTC timestamp in ms, enumerations by name, lower case, several
qualities separated by `|`, unknown = null.
"""

import importlib.util
import typing
from collections.abc import Callable
from dataclasses import fields
from enum import Enum
from types import NoneType
from typing import Any, BinaryIO

import numpy as np

from gateway.domain.intervals.columns import IntervalColumns
from gateway.domain.intervals.record import IntervalRecord
from gateway.schemas.interval_rows import quality_text, source_name

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


def write_parquet(columns: IntervalColumns, file: BinaryIO) -> None:
    """Records as one Parquet file. Raises what `file` raises."""
    import pyarrow as pa
    import pyarrow.parquet

    schema, records = arrow_schema(), columns.records
    texts = {
        "device": (columns.devices, records.slots),
        "source": _named(records.source, source_name),
        "quality": _named(records.quality, quality_text),
    }
    arrays = []
    for name, type_ in zip(_kinds(), schema.types, strict=True):
        if name in texts:
            names, places = texts[name]
            arrays.append(pa.DictionaryArray.from_arrays(places, pa.array(names, pa.string())).cast(type_))
        elif name == "hash":
            arrays.append(pa.array([f"{value:016x}" if value else "" for value in records.hash.tolist()], type_))
        else:
            # unknown (NaN) becomes null
            arrays.append(pa.array(getattr(records, name), from_pandas=True).cast(type_))
    packed = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table(arrays, schema=schema), packed, compression=COMPRESSION)
    file.write(packed.getvalue())


def _named(values: np.ndarray, text: Callable[[int], str]) -> tuple[list[str], np.ndarray]:
    """The texts of the distinct values, and the place of each value among them."""
    distinct, places = np.unique(values, return_inverse=True)
    return [text(value) for value in distinct.tolist()], places


def _kinds() -> dict[str, type]:
    """The type of each field of a record, whether it may be unknown or not."""
    hints = typing.get_type_hints(IntervalRecord)
    found: dict[str, type] = {}
    for field in fields(IntervalRecord):
        hint = next((kind for kind in typing.get_args(hints[field.name]) if kind is not NoneType), hints[field.name])
        found[field.name] = getattr(hint, "__supertype__", hint)
    return found

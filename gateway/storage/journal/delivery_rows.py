"""Stored delivery records: u32 length of a header as JSON (`devices`, `columns`: name, dtype), then each column
contiguous in the header's order, little endian; all of it compressed with zlib."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from gateway.domain.errors import CorruptState

_LENGTH = struct.Struct("<I")
LEVEL = 1


def pack(devices: Sequence[str], columns: Mapping[str, NDArray[Any]]) -> bytes:
    """Columns with one row per device."""
    little = {name: np.ascontiguousarray(c, dtype=c.dtype.newbyteorder("<")) for name, c in columns.items()}
    spec = {"devices": list(devices), "columns": [(name, column.dtype.str) for name, column in little.items()]}
    header = orjson.dumps(spec)
    return zlib.compress(b"".join([_LENGTH.pack(len(header)), header, *(c.tobytes() for c in little.values())]), LEVEL)


def count(body: bytes) -> int:
    """How many devices have a row, without unpacking the rows. Raises CorruptState."""
    try:
        unpacking = zlib.decompressobj()
        (length,) = _LENGTH.unpack(unpacking.decompress(body, _LENGTH.size))
        return len(orjson.loads(unpacking.decompress(unpacking.unconsumed_tail, length))["devices"]) if length else 0
    except (zlib.error, struct.error, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise CorruptState(f"delivery records: {error}") from error


def unpack(body: bytes) -> tuple[tuple[str, ...], dict[str, NDArray[Any]]]:
    """The inverse of `pack`. Raises CorruptState."""
    try:
        data = zlib.decompress(body)
        (length,) = _LENGTH.unpack_from(data)
        at = _LENGTH.size + length
        spec = orjson.loads(data[_LENGTH.size : at])
        devices, columns = tuple(spec["devices"]), {}
        for name, dtype in spec["columns"]:
            column = np.frombuffer(data, dtype=dtype, count=len(devices), offset=at)
            at += column.nbytes
            columns[name] = column
    except (zlib.error, struct.error, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise CorruptState(f"delivery records: {error}") from error
    return devices, columns

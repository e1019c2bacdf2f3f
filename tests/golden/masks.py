"""Text of what is shown and stored: ordered, one thing a line, without what differs from run to run."""

import json
import re
import sqlite3
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

MASK = "#"
_RECORD = struct.Struct("<4sBBHIIQQ")
_MAGIC_BYTES = 8
_JSON_KINDS = (1, 2)
_HEX_BYTES = 48
_VALUE = re.compile(r"^(?P<series>gateway_\w+(?:\{.*\})?) \S+$")
_OF_THE_MACHINE = re.compile(r'\b(version|python)="[^"]*"')
_ADDRESS = re.compile(r"\b127\.0\.0\.1:\d+")


def json_text(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def without(value: Any, *names: str) -> Any:
    """A document in which the values of these members are masked."""
    if isinstance(value, Mapping):
        return {name: MASK if name in names else without(one, *names) for name, one in value.items()}
    if isinstance(value, list):
        return [without(one, *names) for one in value]
    return _ADDRESS.sub(f"127.0.0.1:{MASK}", value) if isinstance(value, str) else value


def metrics(text: str, *, values: bool = False) -> str:
    """A scrape: families by name, their series by labels, without values unless they are asked for."""
    families: dict[str, list[str]] = {}
    series: list[str] = []
    for line in text.splitlines():
        if line.startswith("# HELP"):
            series = families.setdefault(line.split()[2], [])
        found = _VALUE.match(line)
        told = line if values or found is None else found["series"]
        series.append(_OF_THE_MACHINE.sub(rf'\1="{MASK}"', told))
    return "\n".join(line for name in sorted(families) for line in families[name])


def only(directory: Path, suffix: str) -> Path:
    """The one file of a kind."""
    (found,) = (path for path in directory.iterdir() if path.suffix == suffix)
    return found


def database(path: Path) -> str:
    """Schema and rows of an SQLite file; packed bytes as what is in them."""
    with closing(sqlite3.connect(path)) as db:
        lines = [f"application_id {db.execute('pragma application_id').fetchone()[0]:#x}"]
        lines.append(f"user_version {db.execute('pragma user_version').fetchone()[0]}")
        tables = db.execute("select name, sql from sqlite_master where sql is not null order by type desc, name")
        for name, sql in tables.fetchall():
            lines += ["", f"{' '.join(sql.split())};"]
            if sql.lower().startswith("create table"):
                lines += [_row(row) for row in db.execute(f"select * from {name}")]  # noqa: S608
    return "\n".join(lines)


def _row(row: tuple[object, ...]) -> str:
    return "  " + json.dumps([_unpacked(v) if isinstance(v, bytes) else v for v in row], ensure_ascii=False)


def _unpacked(body: bytes) -> list[str]:
    """Delivery records: their header, then the columns."""
    data = zlib.decompress(body)
    (length,) = struct.unpack_from("<I", data)
    return [data[4 : 4 + length].decode(), data[4 + length :].hex()]


def spool(path: Path) -> str:
    """A segment: every record's header, its payload as JSON text or hexadecimal."""
    data = path.read_bytes()
    return "\n".join([f"{path.name} {data[:_MAGIC_BYTES]!r}", *_records(data)])


def _records(data: bytes) -> Iterator[str]:
    at = _MAGIC_BYTES
    while at < len(data):
        magic, kind, version, zero, length, crc, number, session = _RECORD.unpack_from(data, at)
        payload = data[at + _RECORD.size : at + _RECORD.size + length]
        at += _RECORD.size + length
        yield f"{number}: {magic!r} kind {kind} version {version} {zero} session {session} crc {crc:08x} {length} bytes"
        if kind in _JSON_KINDS:
            yield f"  {payload.decode()}"
        else:
            for first in range(0, length, _HEX_BYTES):
                yield f"  {payload[first : first + _HEX_BYTES].hex()}"


def checkpoint(path: Path, *, values: bool) -> str:
    """A checkpoint's header and the names and kinds of its columns, and what is in them where that is asked for."""
    data = path.read_bytes()
    magic, length, _ = struct.unpack_from("<8sII", data)
    header = json.loads(data[16 : 16 + length])
    at, lines = 16 + length, []
    for name, dtype, n in header.pop("columns"):
        column = np.frombuffer(data, dtype=dtype, count=n, offset=at)
        at += column.nbytes
        lines.append(f"{name} {dtype} {column.tolist()}" if values else f"{name} {dtype}")
    return "\n".join([f"{path.suffix} {magic!r}", json.dumps(header), *lines])

"""The bytes of a spool record: framing, and the payload of each kind.

Everything is little endian. A record is a 32-byte header and a payload:

    4s magic  u8 kind  u8 version  u16 0  u32 payload length  u32 crc32  u64 number  u64 session

The crc covers the header without the crc itself, then the payload. `number` grows by one per record over all
segments; `session` is the number of the first record of the process that wrote it, and names the slot numbering.

    FLEET, NAMES   JSON `[first slot, [device id, ...]]`; FLEET (first = 0, complete) begins every segment
    BATCH, TIMER   i64 now (UTC ms)  u32 rows  u32 closes  row columns  close columns, each contiguous; TIMER: no rows
    RULES          i64 now (UTC ms)  u32 length of JSON  u32 closes  JSON of the interval rules  close columns
"""

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum

import numpy as np
import orjson

from gateway.domain.energy import Rules
from gateway.domain.errors import CorruptState
from gateway.domain.intervals import CLOSE_COLUMNS, NO_CLOSES, Closes
from gateway.domain.model import EnergyBatch, Floats, Now

MAGIC = b"\xb5BFR"
VERSION = 1
_HEADER = struct.Struct("<4sBBHIIQQ")
_CHECKED = struct.Struct("<4sBBHIQQ")
HEADER_BYTES = _HEADER.size
_BODY = struct.Struct("<qII")

ROW_COLUMNS: Mapping[str, str] = {
    "slots": "<i4",
    "boot": "<i8",
    "seq": "<i8",
    "t_ms": "<i8",
    "span_ms": "<i8",
    "charge_counter_wh": "<f8",
    "discharge_counter_wh": "<f8",
    "charge_wh": "<f8",
    "discharge_wh": "<f8",
    "battery_w": "<f8",
    "soc_pct": "<f8",
}
_RATED = "<f4"


class Kind(IntEnum):
    """What a record holds."""

    FLEET = 1
    NAMES = 2
    BATCH = 3
    TIMER = 4
    RULES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One verified record."""

    kind: Kind
    number: int
    session: int
    payload: memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What moved the engine, and the closes that it caused. `batch` None: the timer, or new `rules`."""

    now: Now
    batch: EnergyBatch | None
    rated_w: Floats | None
    rules: Rules | None
    closes: Closes


def frame(kind: Kind, number: int, session: int, parts: Sequence[bytes]) -> bytes:
    """A whole record from the parts of its payload."""
    length = sum(map(len, parts))
    crc = zlib.crc32(_CHECKED.pack(MAGIC, kind, VERSION, 0, length, number, session))
    for part in parts:
        crc = zlib.crc32(part, crc)
    return b"".join((_HEADER.pack(MAGIC, kind, VERSION, 0, length, crc, number, session), *parts))


def record_at(data: memoryview, offset: int) -> Record | None:
    """The record that begins at `offset`, or None if no whole, intact one does."""
    if offset + HEADER_BYTES > len(data):
        return None
    magic, kind, version, zero, length, crc, number, session = _HEADER.unpack_from(data, offset)
    end = offset + HEADER_BYTES + length
    if magic != MAGIC or version != VERSION or end > len(data):
        return None
    payload = data[offset + HEADER_BYTES : end]
    checked = _CHECKED.pack(magic, kind, version, zero, length, number, session)
    if zlib.crc32(payload, zlib.crc32(checked)) != crc or kind not in _KINDS:
        return None
    return Record(kind=Kind(kind), number=number, session=session, payload=payload)


_KINDS = frozenset(Kind)


def names_payload(first: int, ids: Sequence[str]) -> list[bytes]:
    """Device ids of the slots from `first` on."""
    return [orjson.dumps([first, list(ids)])]


def read_names(payload: memoryview) -> tuple[int, list[str]]:
    """The inverse of `names_payload`."""
    first, ids = orjson.loads(payload)
    return int(first), [str(name) for name in ids]


def batch_payload(now: Now, batch: EnergyBatch, rated_w: Floats, closes: Closes) -> list[bytes]:
    """Rows taken and what they closed. `rated_w` is kept in single precision."""
    parts = [_BODY.pack(now.utc_ms, len(batch), len(closes))]
    parts += [_bytes(getattr(batch, name), dtype) for name, dtype in ROW_COLUMNS.items()]
    parts.append(_bytes(rated_w, _RATED))
    return parts + _closes_parts(closes)


def timer_payload(now: Now, closes: Closes) -> list[bytes]:
    """What the timer closed."""
    return [_BODY.pack(now.utc_ms, 0, len(closes)), *_closes_parts(closes)]


def rules_payload(now: Now, rules: Rules, closes: Closes) -> list[bytes]:
    """The rules from here on, and what changing them closed."""
    text = orjson.dumps(asdict(rules))
    return [_BODY.pack(now.utc_ms, len(text), len(closes)), text, *_closes_parts(closes)]


def read_step(record: Record) -> Step:
    """The inverse of the three payloads above. Raises CorruptState if the lengths do not add up."""
    payload = record.payload
    if len(payload) < _BODY.size:
        raise CorruptState(f"record {record.number} is too short")
    utc_ms, size, n_closes = _BODY.unpack_from(payload)
    now = Now(utc_ms=utc_ms, mono_ms=0)
    at = _BODY.size
    batch, rated, rules = None, None, None
    try:
        if record.kind is Kind.RULES:
            rules = Rules(**orjson.loads(payload[at : at + size]))
            at += size
        elif record.kind is Kind.BATCH:
            columns, at = _read_columns(payload, at, size, ROW_COLUMNS)
            batch = EnergyBatch(**columns)
            rated = np.frombuffer(payload, dtype=_RATED, count=size, offset=at).astype(np.float64)
            at += size * np.dtype(_RATED).itemsize
        closes = NO_CLOSES
        if n_closes:
            columns, at = _read_columns(payload, at, n_closes, CLOSE_COLUMNS)
            closes = Closes(**columns)
    except (ValueError, TypeError) as wrong:
        raise CorruptState(f"record {record.number} does not hold what it says") from wrong
    if at != len(payload):
        raise CorruptState(f"record {record.number} has {len(payload) - at} bytes too many")
    return Step(now=now, batch=batch, rated_w=rated, rules=rules, closes=closes)


def same_closes(one: Closes, other: Closes) -> bool:
    """Whether both are the same to the bit."""
    return len(one) == len(other) and _closes_parts(one) == _closes_parts(other)


def _read_columns(payload: memoryview, at: int, n: int, spec: Mapping[str, str]) -> tuple[dict[str, np.ndarray], int]:
    columns = {}
    for name, dtype in spec.items():
        column = np.frombuffer(payload, dtype=dtype, count=n, offset=at)
        at += column.nbytes
        columns[name] = column.astype(column.dtype.newbyteorder("="))
    return columns, at


def _closes_parts(closes: Closes) -> list[bytes]:
    if not len(closes):
        return []
    return [_bytes(getattr(closes, name), dtype) for name, dtype in CLOSE_COLUMNS.items()]


def _bytes(column: np.ndarray, dtype: str) -> bytes:
    return column.astype(dtype, copy=False).tobytes()


def records_in(data: memoryview, start: int) -> Iterator[tuple[int, Record]]:
    """Every intact record from `start` on, with its offset; damaged stretches are searched for the next one."""
    at = start
    whole = bytes(data) if not isinstance(data.obj, bytes) else data.obj
    while at < len(data):
        record = record_at(data, at)
        if record is not None:
            yield at, record
            at += HEADER_BYTES + len(record.payload)
            continue
        at = whole.find(MAGIC, at + 1)
        if at < 0:
            return

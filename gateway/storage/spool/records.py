"""The bytes of a spool record: framing, and the payload of each kind.

Everything is little endian. A record is a 32-byte header and a payload:

    4s magic  u8 kind  u8 version  u16 0  u32 payload length  u32 crc32  u64 number  u64 session

The crc covers the header without the crc itself, then the payload. `number` grows by one per record over all
segments; `session` is the number of the first record of the process that wrote it, and names the slot numbering.

    FLEET, NAMES   JSON `[first slot, [device id, ...]]`; FLEET (first = 0, complete) begins every segment
    BATCH, TIMER   i64 now (UTC ms)  u32 rows  u32 n  row columns  n intervals, each column contiguous; TIMER: no rows
    RULES          i64 now (UTC ms)  u32 length of JSON  u32 n  JSON of the interval rules  n intervals
    TERMS          i64 now (UTC ms)  u32 devices  u32 n  config columns  n intervals
    REPAIR         i64 now (UTC ms)  u32 repaired  u32 n  u32 bases  slots and starts  bases (columns like intervals)
                   n intervals

"Intervals" are the columns of the interval records that the step closed. Version 1 had fewer columns; the missing ones
read as unknown. The reader refuses a record of a newer version; it never skips one.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import orjson

from gateway.domain.errors import CorruptState, NewerState
from gateway.domain.intervals.config import AgreedConfig
from gateway.domain.intervals.records import NO_RECORDS, RECORD_COLUMNS, IntervalRecords
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.readings import EnergyBatch
from gateway.domain.types import Floats, Ints, Now, Slots

MAGIC = b"\xb5BFR"
VERSION = 2
_HEADER = struct.Struct("<4sBBHIIQQ")
_CHECKED = struct.Struct("<4sBBHIQQ")
HEADER_BYTES = _HEADER.size
_BODY = struct.Struct("<qII")
_COUNT = struct.Struct("<I")

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
    "grid_w": "<f8",
    "pv_w": "<f8",
    "load_w": "<f8",
}
CONFIG_COLUMNS: Mapping[str, str] = {"slots": "<i4", "length_s": "<i8", "counter_step_wh": "<f8", "rated_w": "<f8"}
KEY_COLUMNS: Mapping[str, str] = {"slots": "<i4", "start_ms": "<i8"}
SINCE_2 = frozenset(
    {"grid_w", "pv_w", "load_w", "soc_start_pct", "quality", "grid_w_mean", "pv_w_mean", "load_w_mean", "hash"}
)
_RATED = "<f4"


class Kind(IntEnum):
    """Content of a record."""

    FLEET = 1
    NAMES = 2
    BATCH = 3
    TIMER = 4
    RULES = 5
    TERMS = 6
    REPAIR = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One verified record."""

    kind: Kind
    number: int
    session: int
    payload: memoryview
    version: int = VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolStep:
    """One step of the engine (a batch, new rules, new config, a repair, or the timer) and the interval records that it
    closed."""

    now: Now
    records: IntervalRecords
    batch: EnergyBatch | None = None
    rated_w: Floats | None = None
    rules: IntervalRules | None = None
    config: AgreedConfig | None = None
    repair: "Repair | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Intervals to compute again, and the newest record of each that has one."""

    slots: Slots
    start_ms: Ints
    bases: IntervalRecords


def frame(kind: Kind, number: int, session: int, parts: Sequence[bytes]) -> bytes:
    """A whole record; `parts` together are its payload."""
    length = sum(map(len, parts))
    crc = zlib.crc32(_CHECKED.pack(MAGIC, kind, VERSION, 0, length, number, session))
    for part in parts:
        crc = zlib.crc32(part, crc)
    return b"".join((_HEADER.pack(MAGIC, kind, VERSION, 0, length, crc, number, session), *parts))


def record_at(data: memoryview, offset: int) -> Record | None:
    """The whole, intact record that begins at `offset`, or None. Raises NewerState for an intact one that this version
    does not know."""
    if offset + HEADER_BYTES > len(data):
        return None
    magic, kind, version, zero, length, crc, number, session = _HEADER.unpack_from(data, offset)
    end = offset + HEADER_BYTES + length
    if magic != MAGIC or end > len(data):
        return None
    payload = data[offset + HEADER_BYTES : end]
    checked = _CHECKED.pack(magic, kind, version, zero, length, number, session)
    if zlib.crc32(payload, zlib.crc32(checked)) != crc or not version:
        return None
    if version > VERSION or kind not in _KINDS:
        raise NewerState(f"record {number} was written by a newer version (format {version}, known {VERSION})")
    return Record(kind=Kind(kind), number=number, session=session, payload=payload, version=version)


_KINDS = frozenset(Kind)


def names_payload(first: int, ids: Sequence[str]) -> list[bytes]:
    """Device ids of the slots from `first` on."""
    return [orjson.dumps([first, list(ids)])]


def read_names(payload: memoryview) -> tuple[int, list[str]]:
    """The inverse of `names_payload`."""
    first, ids = orjson.loads(payload)
    return int(first), [str(name) for name in ids]


def batch_payload(now: Now, batch: EnergyBatch, rated_w: Floats, records: IntervalRecords) -> list[bytes]:
    """The ingested rows, and the intervals that they closed. `rated_w` is stored in single precision."""
    parts = [_BODY.pack(now.utc_ms, len(batch), len(records))]
    parts += [_bytes(getattr(batch, name), dtype) for name, dtype in ROW_COLUMNS.items()]
    parts.append(_bytes(rated_w, _RATED))
    return parts + _columns(records)


def timer_payload(now: Now, records: IntervalRecords) -> list[bytes]:
    """The intervals that the timer closed."""
    return [_BODY.pack(now.utc_ms, 0, len(records)), *_columns(records)]


def rules_payload(now: Now, rules: IntervalRules, records: IntervalRecords) -> list[bytes]:
    """The rules from here on, and the intervals that the change closed."""
    text = orjson.dumps(asdict(rules))
    return [_BODY.pack(now.utc_ms, len(text), len(records)), text, *_columns(records)]


def config_payload(now: Now, agreed: AgreedConfig, records: IntervalRecords) -> list[bytes]:
    """Config of some devices from here on, and the intervals that the change closed."""
    parts = [_BODY.pack(now.utc_ms, len(agreed.slots), len(records))]
    parts += [_bytes(getattr(agreed, name), dtype) for name, dtype in CONFIG_COLUMNS.items()]
    return parts + _columns(records)


def repair_payload(now: Now, repair: Repair, records: IntervalRecords) -> list[bytes]:
    """The repaired intervals, their base records, and the new revisions."""
    parts = [_BODY.pack(now.utc_ms, len(repair.slots), len(records)), _COUNT.pack(len(repair.bases))]
    parts += [_bytes(getattr(repair, name), dtype) for name, dtype in KEY_COLUMNS.items()]
    return parts + _columns(repair.bases) + _columns(records)


def read_step(record: Record) -> SpoolStep:
    """The inverse of the payloads above. Raises CorruptState if the lengths do not add up."""
    payload = record.payload
    if len(payload) < _BODY.size:
        raise CorruptState(f"record {record.number} is too short")
    utc_ms, size, n_records = _BODY.unpack_from(payload)
    now = Now(utc_ms=utc_ms, mono_ms=0)
    at = _BODY.size
    reader = _PayloadReader(payload, at, record.version)
    found: dict[str, Any] = {}
    try:
        if record.kind is Kind.RULES:
            found["rules"] = IntervalRules(**orjson.loads(reader.raw(size)))
        elif record.kind is Kind.TERMS:
            found["config"] = AgreedConfig(**reader.columns(size, CONFIG_COLUMNS))
        elif record.kind is Kind.REPAIR:
            (bases,) = _COUNT.unpack(reader.raw(_COUNT.size))
            keys = reader.columns(size, KEY_COLUMNS)
            found["repair"] = Repair(**keys, bases=reader.records(bases))
        elif record.kind is Kind.BATCH:
            found["batch"] = EnergyBatch(**reader.columns(size, ROW_COLUMNS))
            found["rated_w"] = reader.columns(size, {"rated_w": _RATED})["rated_w"].astype(np.float64)
        records = reader.records(n_records)
    except (ValueError, TypeError, struct.error) as wrong:
        raise CorruptState(f"record {record.number}: its content does not match its counts") from wrong
    if reader.at != len(payload):
        raise CorruptState(f"record {record.number} has {len(payload) - reader.at} bytes too many")
    return SpoolStep(now=now, records=records, **found)


class _PayloadReader:
    """Reads a payload from `at` on."""

    def __init__(self, payload: memoryview, at: int, version: int) -> None:
        self.at = at
        self._payload = payload
        self._version = version

    def raw(self, size: int) -> memoryview:
        found = self._payload[self.at : self.at + size]
        self.at += size
        return found

    def columns(self, n: int, spec: Mapping[str, str]) -> dict[str, np.ndarray]:
        out = {}
        for name, dtype in spec.items():
            if self._version < 2 and name in SINCE_2:
                kind = np.dtype(dtype)
                out[name] = np.full(n, np.nan if kind.kind == "f" else 0, dtype=kind.newbyteorder("="))
                continue
            column = np.frombuffer(self._payload, dtype=dtype, count=n, offset=self.at)
            self.at += column.nbytes
            out[name] = column.astype(column.dtype.newbyteorder("="))
        return out

    def records(self, n: int) -> IntervalRecords:
        return IntervalRecords(**self.columns(n, RECORD_COLUMNS)) if n else NO_RECORDS


def same_records(one: IntervalRecords, other: IntervalRecords) -> bool:
    """Whether both are the same to the bit."""
    return len(one) == len(other) and _columns(one) == _columns(other)


def _columns(records: IntervalRecords) -> list[bytes]:
    if not len(records):
        return []
    return [_bytes(getattr(records, name), dtype) for name, dtype in RECORD_COLUMNS.items()]


def _bytes(column: np.ndarray, dtype: str) -> bytes:
    return column.astype(dtype, copy=False).tobytes()


def records_in(data: memoryview, start: int) -> Iterator[tuple[int, Record]]:
    """Every intact record from `start` on, with its offset; past damage the search goes on to the next intact one."""
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

"""The bytes of a spool record: framing, and the payload of each kind.

Everything is little endian. A record is a 32-byte header and a payload:

    4s magic  u8 kind  u8 version  u16 0  u32 payload length  u32 crc32  u64 number  u64 session

The crc covers the header without the crc itself, then the payload. `number` grows by one per record over all
segments; `session` is the number of the first record of the process that wrote it, and names the slot numbering.

    FLEET, NAMES   JSON `[first slot, [device id, ...]]`; FLEET (first = 0, complete) begins every segment
    BATCH, TIMER   i64 now (UTC ms)  u32 rows  u32 closes  row columns  close columns, each contiguous; TIMER: no rows
    RULES          i64 now (UTC ms)  u32 length of JSON  u32 closes  JSON of the interval rules  close columns
    TERMS          i64 now (UTC ms)  u32 devices  u32 closes  terms columns  close columns
    REPAIR         i64 now (UTC ms)  u32 intervals  u32 closes  u32 bases  slots and starts  base columns (like closes)
                   close columns

Version 1 had fewer columns; what it lacks is unknown. A record of a newer version is refused, never skipped.
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
    """What a record holds."""

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
    """What moved the engine, and the closes that it caused: a batch, new rules, new terms, a repair, or the timer."""

    now: Now
    closes: IntervalRecords
    batch: EnergyBatch | None = None
    rated_w: Floats | None = None
    rules: IntervalRules | None = None
    terms: AgreedConfig | None = None
    repair: "Repair | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Intervals to make again, and the newest records of those that have one."""

    slots: Slots
    start_ms: Ints
    bases: IntervalRecords


def frame(kind: Kind, number: int, session: int, parts: Sequence[bytes]) -> bytes:
    """A whole record from the parts of its payload."""
    length = sum(map(len, parts))
    crc = zlib.crc32(_CHECKED.pack(MAGIC, kind, VERSION, 0, length, number, session))
    for part in parts:
        crc = zlib.crc32(part, crc)
    return b"".join((_HEADER.pack(MAGIC, kind, VERSION, 0, length, crc, number, session), *parts))


def record_at(data: memoryview, offset: int) -> Record | None:
    """The record that begins at `offset`, or None if no whole, intact one does. Raises NewerState for an intact one
    that this version does not know."""
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


def batch_payload(now: Now, batch: EnergyBatch, rated_w: Floats, closes: IntervalRecords) -> list[bytes]:
    """Rows taken and what they closed. `rated_w` is kept in single precision."""
    parts = [_BODY.pack(now.utc_ms, len(batch), len(closes))]
    parts += [_bytes(getattr(batch, name), dtype) for name, dtype in ROW_COLUMNS.items()]
    parts.append(_bytes(rated_w, _RATED))
    return parts + _record_parts(closes)


def timer_payload(now: Now, closes: IntervalRecords) -> list[bytes]:
    """What the timer closed."""
    return [_BODY.pack(now.utc_ms, 0, len(closes)), *_record_parts(closes)]


def rules_payload(now: Now, rules: IntervalRules, closes: IntervalRecords) -> list[bytes]:
    """The rules from here on, and what changing them closed."""
    text = orjson.dumps(asdict(rules))
    return [_BODY.pack(now.utc_ms, len(text), len(closes)), text, *_record_parts(closes)]


def config_payload(now: Now, agreed: AgreedConfig, closes: IntervalRecords) -> list[bytes]:
    """Terms of some devices from here on, and what changing them closed."""
    parts = [_BODY.pack(now.utc_ms, len(agreed.slots), len(closes))]
    parts += [_bytes(getattr(agreed, name), dtype) for name, dtype in CONFIG_COLUMNS.items()]
    return parts + _record_parts(closes)


def repair_payload(now: Now, repair: Repair, closes: IntervalRecords) -> list[bytes]:
    """What was made again from what, and the outcome."""
    parts = [_BODY.pack(now.utc_ms, len(repair.slots), len(closes)), _COUNT.pack(len(repair.bases))]
    parts += [_bytes(getattr(repair, name), dtype) for name, dtype in KEY_COLUMNS.items()]
    return parts + _record_parts(repair.bases) + _record_parts(closes)


def read_step(record: Record) -> SpoolStep:
    """The inverse of the payloads above. Raises CorruptState if the lengths do not add up."""
    payload = record.payload
    if len(payload) < _BODY.size:
        raise CorruptState(f"record {record.number} is too short")
    utc_ms, size, n_closes = _BODY.unpack_from(payload)
    now = Now(utc_ms=utc_ms, mono_ms=0)
    at = _BODY.size
    cut = _Cut(payload, at, record.version)
    found: dict[str, Any] = {}
    try:
        if record.kind is Kind.RULES:
            found["rules"] = IntervalRules(**orjson.loads(cut.take(size)))
        elif record.kind is Kind.TERMS:
            found["terms"] = AgreedConfig(**cut.columns(size, CONFIG_COLUMNS))
        elif record.kind is Kind.REPAIR:
            (bases,) = _COUNT.unpack(cut.take(_COUNT.size))
            keys = cut.columns(size, KEY_COLUMNS)
            found["repair"] = Repair(**keys, bases=cut.closes(bases))
        elif record.kind is Kind.BATCH:
            found["batch"] = EnergyBatch(**cut.columns(size, ROW_COLUMNS))
            found["rated_w"] = cut.columns(size, {"rated_w": _RATED})["rated_w"].astype(np.float64)
        closes = cut.closes(n_closes)
    except (ValueError, TypeError, struct.error) as wrong:
        raise CorruptState(f"record {record.number} does not hold what it says") from wrong
    if cut.at != len(payload):
        raise CorruptState(f"record {record.number} has {len(payload) - cut.at} bytes too many")
    return SpoolStep(now=now, closes=closes, **found)


class _Cut:
    """Reads a payload from `at` on."""

    def __init__(self, payload: memoryview, at: int, version: int) -> None:
        self.at = at
        self._payload = payload
        self._version = version

    def take(self, size: int) -> memoryview:
        part = self._payload[self.at : self.at + size]
        self.at += size
        return part

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

    def closes(self, n: int) -> IntervalRecords:
        return IntervalRecords(**self.columns(n, RECORD_COLUMNS)) if n else NO_RECORDS


def same_records(one: IntervalRecords, other: IntervalRecords) -> bool:
    """Whether both are the same to the bit."""
    return len(one) == len(other) and _record_parts(one) == _record_parts(other)


def _record_parts(closes: IntervalRecords) -> list[bytes]:
    if not len(closes):
        return []
    return [_bytes(getattr(closes, name), dtype) for name, dtype in RECORD_COLUMNS.items()]


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

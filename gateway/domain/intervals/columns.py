"""Interval records of several devices as columns: what the log gives to readers of many."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from gateway.domain.intervals.record import EnergySource, IntervalRecord, Quality
from gateway.domain.intervals.records import NO_RECORDS, RECORD_COLUMNS, IntervalRecords
from gateway.domain.types import Bools, DeviceId, Ints

_FIELDS = tuple(field.name for field in fields(IntervalRecord))
_SOURCES = tuple(EnergySource)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalColumns:
    """Interval records by column. `records.slots` are places in `devices`, which may name some without a record here.
    `records.hash` includes the device; 0 = written by a version without hashes."""

    devices: Sequence[DeviceId]
    records: IntervalRecords

    def __len__(self) -> int:
        return len(self.records)

    def rows(self, index: Ints | Bools | slice) -> "IntervalColumns":
        """Only these rows, in this order."""
        return replace(self, records=self.records.rows(index))

    def device_of_each(self) -> list[DeviceId]:
        """The device of each row."""
        devices = self.devices
        return [devices[slot] for slot in self.records.slots.tolist()]

    def objects(self) -> list[IntervalRecord]:
        """The same records one by one."""
        qualities = {flags: Quality(flags) for flags in np.unique(self.records.quality).tolist()}
        columns: dict[str, list[Any]] = {}
        for name in _FIELDS:
            column: np.ndarray = getattr(self.records, "slots" if name == "device" else name)
            values: list[Any] = column.tolist()
            match name:
                case "device":
                    values = self.device_of_each()
                case "source":
                    values = [_SOURCES[value] for value in values]
                case "quality":
                    values = [qualities[value] for value in values]
                case "hash":
                    values = [f"{value:016x}" if value else "" for value in values]
                case _ if name != "coverage_pct" and np.isnan(column).any():
                    values = [None if math.isnan(value) else value for value in values]
            columns[name] = values
        return [IntervalRecord(**dict(zip(_FIELDS, row, strict=True))) for row in zip(*columns.values(), strict=True)]


NO_COLUMNS = IntervalColumns(devices=(), records=NO_RECORDS)


def columns_of_objects(records: Sequence[IntervalRecord]) -> IntervalColumns:
    """The same records as columns: the inverse of `objects`."""
    devices = list(dict.fromkeys(record.device for record in records))
    slot_of = {device: slot for slot, device in enumerate(devices)}
    columns: dict[str, np.ndarray] = {}
    for name, dtype in RECORD_COLUMNS.items():
        match name:
            case "slots":
                values = [slot_of[record.device] for record in records]
            case "hash":
                values = [int(record.hash or "0", 16) for record in records]
            case _:
                values = [getattr(record, name) for record in records]
        columns[name] = np.array(values, dtype=np.dtype(dtype).newbyteorder("="))
    return IntervalColumns(devices=devices, records=IntervalRecords(**columns))


def joined(parts: Sequence[IntervalColumns]) -> IntervalColumns:
    """All rows of the parts, one part after the other; `devices` are sorted."""
    if not parts:
        return NO_COLUMNS
    devices = sorted(set().union(*(part.devices for part in parts)))
    slot_of = {device: slot for slot, device in enumerate(devices)}
    moved = [np.array([slot_of[device] for device in part.devices], dtype=np.int32) for part in parts]
    slots = [to[part.records.slots] for to, part in zip(moved, parts, strict=True)]
    columns = {name: np.concatenate([getattr(part.records, name) for part in parts]) for name in RECORD_COLUMNS}
    return IntervalColumns(devices=devices, records=IntervalRecords(**{**columns, "slots": np.concatenate(slots)}))


def newest(parts: Sequence[IntervalColumns]) -> IntervalColumns:
    """The newest revision of each interval, by start and device; of equal revisions that of the first part."""
    together = joined([*reversed(parts)])
    records = together.records
    order = np.lexsort((records.revision, records.slots, records.start_ms))
    start_ms, slots = records.start_ms[order], records.slots[order]
    last = np.ones(len(order), dtype=np.bool_)
    last[:-1] = (start_ms[1:] != start_ms[:-1]) | (slots[1:] != slots[:-1])
    return together.rows(order[last])

"""Writes what a restart needs beside the journal into one durable file every few seconds, and loads it back."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.clock import Clock
from gateway.domain.errors import StorageError
from gateway.domain.events.lifecycle import BookEntry
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.table import Table
from gateway.domain.types import NEVER_MS, Now
from gateway.former_names import read, written
from gateway.observability.metrics import Sample, counter, gauge
from gateway.observability.parts import Part
from gateway.services.events.delivery_records import DeliveryRecords
from gateway.services.telemetry.metrics import recovery_samples
from gateway.services.telemetry.recorder import Recorder
from gateway.storage.checkpoint import Checkpoint, Checkpoints
from gateway.storage.recovery import RecoveryStats

log = logging.getLogger(__name__)

PERIOD_S = 10.0
MONO = "_mono_ms"
RECORDS = "records/"
SEEN = "seen_mono_ms"
CLOCKS, BOOT = "clocks/ms", "clocks/boot"

WRITTEN = counter("gateway_checkpoints", "Checkpoints written.")
FAILURES = counter("gateway_checkpoint_failures", "Checkpoints that could not be written.")
BYTES = gauge("gateway_checkpoint_bytes", "Bytes of the newest checkpoint.")


def fleet_columns(fleet: Fleet, now: Now, boot: str) -> dict[str, NDArray[Any]]:
    """Live and control columns by name, and the clocks at that time."""
    out: dict[str, NDArray[Any]] = {
        written(f"{name}/{column}"): table.column(column)[: fleet.n]
        for name, table in _tables(fleet).items()
        for column in table.SPEC
    }
    clocks = np.array([now.utc_ms, now.mono_ms], dtype=np.int64)
    return out | {CLOCKS: clocks, BOOT: np.frombuffer(boot.encode(), dtype=np.uint8)}


async def copied(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Copies, a table at a time: the columns of one belong together, and other tasks run between two tables."""
    out: dict[str, NDArray[Any]] = {}
    for _, table in groupby(columns.items(), key=lambda named: named[0].rpartition("/")[0]):
        out.update({name: column.copy() for name, column in table})
        await asyncio.sleep(0)
    return out


def load_columns(fleet: Fleet, checkpoint: Checkpoint, clock: Clock) -> int:
    """Load a checkpoint's columns, device by device; returns how many devices were found. Within one run of the machine
    readings keep their true ages. After a reboot their age is unknown: on a machine that starts with the wrong time the
    wall clock would make them look young."""
    slot_of = fleet.slot_of
    pairs = [(slot_of[name], i) for i, name in enumerate(checkpoint.header.ids) if name in slot_of]
    if not pairs:
        return 0
    here, there = (np.array(side, dtype=np.int64) for side in zip(*pairs, strict=True))
    shift = _Shift(checkpoint, clock)
    for name, table in _tables(fleet).items():
        for column in table.SPEC:
            stored = read(checkpoint.columns, f"{name}/{column}")
            if stored is None or len(stored) <= there.max():
                continue
            values = stored[there]
            if column.endswith(MONO):
                values = shift.of(column, values)
            table.column(column)[here] = values
    return len(pairs)


class _Shift:
    """Converts monotonic times of a checkpoint into those of this run."""

    def __init__(self, checkpoint: Checkpoint, clock: Clock) -> None:
        stored = checkpoint.columns.get(BOOT)
        self._same = bool(clock.boot) and stored is not None and bytes(stored).decode() == clock.boot
        self._now = clock.now()
        utc_ms, mono_ms = checkpoint.columns.get(CLOCKS, np.zeros(2, dtype=np.int64)).tolist()
        self._by_ms = utc_ms - mono_ms + self._now.mono_ms - self._now.utc_ms

    def of(self, column: str, values: NDArray[Any]) -> NDArray[Any]:
        if self._same:
            return values
        if column == SEEN:
            return np.full(len(values), NEVER_MS)
        # no time lies ahead of now: where the wall clock went back, a wait counts as just begun
        moved = np.minimum(values + self._by_ms, self._now.mono_ms)
        return np.where(values == NEVER_MS, NEVER_MS, moved)


def load_records(records: DeliveryRecords, checkpoint: Checkpoint, entries: Iterable[BookEntry], fleet: Fleet) -> None:
    """Load a checkpoint's delivery records, event by event and device by device. Call it once `records` knows what the
    journal has."""
    columns = {k.removeprefix(RECORDS): v for k, v in checkpoint.columns.items() if k.startswith(RECORDS)}
    slot_of = {i: fleet.slot_of[name] for i, name in enumerate(checkpoint.header.ids) if name in fleet.slot_of}
    at_ms = int(checkpoint.columns[CLOCKS][0]) if CLOCKS in checkpoint.columns else 0
    records.load(columns, entries, slot_of, at_ms)


def _tables(fleet: Fleet) -> dict[str, Table]:
    return {"live": fleet.live, "control": fleet.control}


class Checkpointer(Part):
    """Writes checkpoints until cancelled, and a last one at the end. `recovered`: what the start met."""

    service = "checkpoint"

    def __init__(
        self, *, recorder: Recorder, checkpoints: Checkpoints, fleet: Fleet, records: DeliveryRecords, clock: Clock,
        recovered: RecoveryStats | None = None,
    ) -> None:  # fmt: skip
        self._recorder = recorder
        self._checkpoints = checkpoints
        self._fleet = fleet
        self._records = records
        self._clock = clock
        self._recovered = RecoveryStats() if recovered is None else recovered

    async def run(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            await self.write()

    async def close(self) -> None:
        await self.write()

    async def write(self) -> None:
        """Write one checkpoint. A failure is counted and logged once; the checkpoint before stays."""
        now = self._clock.now()
        was_failing = self._checkpoints.stats.failing is not None
        try:
            records = {RECORDS + name: column for name, column in self._records.columns().items()}
            extra = await copied(fleet_columns(self._fleet, now, self._clock.boot) | records)
            await self._recorder.checkpoint(self._checkpoints, now, extra)
        except StorageError as error:
            if not was_failing:
                log.warning("a checkpoint could not be written", extra={"error": str(error)})

    def samples(self) -> Iterable[Sample]:
        yield WRITTEN.sample(self._checkpoints.stats.written)
        yield FAILURES.sample(self._checkpoints.stats.failures)
        yield BYTES.sample(self._checkpoints.stats.bytes)
        yield from recovery_samples(self._recovered, self._checkpoints.stats.corrupt)

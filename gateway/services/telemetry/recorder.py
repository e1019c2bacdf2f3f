"""Passes settlement telemetry through the interval engine and into the spool, in the same order; closes by time.

The interval records that a step closed share a spool record with the rows that caused them, and wait for the interval
log from when that is durable. The recorder runs on the event loop; nothing here blocks.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gateway.clock import Clock
from gateway.domain.errors import StorageError, invariant
from gateway.domain.intervals.config import AgreedConfig
from gateway.domain.intervals.engine import Engine, Ingested
from gateway.domain.intervals.records import IntervalRecords
from gateway.domain.intervals.slices import steps
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.readings import EnergyBatch
from gateway.domain.types import Floats, Ints, Now, Slots
from gateway.observability.metrics import Sample
from gateway.observability.parts import Importance, Part
from gateway.services.telemetry.metrics import energy_samples, spool_samples
from gateway.storage.checkpoint import Checkpoints, Columns, capture
from gateway.storage.recovery import Unlogged
from gateway.storage.spool.records import (
    Kind,
    Repair,
    batch_payload,
    config_payload,
    names_payload,
    repair_payload,
    rules_payload,
    timer_payload,
)
from gateway.storage.spool.spool import Spool

UNLOGGED_ROWS = 500_000
LATE_ROWS = 500_000
CLOSE_PERIOD_S = 1.0
DURABLE_WAIT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A batch on its way to the disk: durable, and so acknowledged, once the spool reports `record`."""

    record: int
    taken: Ingested


class Recorder(Part):
    """Owns the engine. `ids` is the fleet's list of device ids by slot, which only grows. Whoever runs beside others
    takes each step within `step`."""

    service = "recorder"
    component = "telemetry"
    importance = Importance.ESSENTIAL

    def __init__(self, engine: Engine, *, ids: Sequence[str], clock: Clock, unlogged: Sequence[Unlogged] = ()) -> None:
        self.engine = engine
        self._ids = ids
        self._clock = clock
        self._named = 0
        self._names: list[bytes] = []
        self._spool: Spool | None = None
        self._unlogged: deque[Unlogged] = deque(unlogged)
        self._rows = sum(len(found.records) for found in unlogged)
        self._some = asyncio.Event()
        if unlogged:
            self._some.set()
        self._still = asyncio.Lock()
        self._copying = False

    def open_spool(
        self,
        directory: Path,
        *,
        first_record: int,
        corrupt: Sequence[Path] = (),
        segment_bytes: int = 64 << 20,
        max_bytes: int = 8 << 30,
        queue_bytes: int = 32 << 20,
    ) -> Spool:
        """Make the spool this recorder appends to; enter it, then call `begin`."""
        self._spool = Spool(
            directory,
            first_record=first_record,
            preface=self._fleet,
            segment_bytes=segment_bytes,
            max_bytes=max_bytes,
            queue_bytes=queue_bytes,
            corrupt=corrupt,
        )
        return self._spool

    @property
    def spool(self) -> Spool:
        if self._spool is None:
            raise StorageError("the spool is not open")
        return self._spool

    @property
    def room(self) -> bool:
        """Whether another batch may be ingested; if not, pause telemetry: the disk or the log is behind."""
        return self.spool.room and self._rows < UNLOGGED_ROWS and len(self.engine.late) < LATE_ROWS

    @property
    def room_for_repair(self) -> bool:
        """Whether a repair may be recorded: it makes room where late data leaves none."""
        return self.spool.room and self._rows < UNLOGGED_ROWS

    def begin(self, rules: IntervalRules, now: Now) -> int:
        """Record the rules from here on, the first step of a session. Returns its record."""
        records = self.engine.relength(rules)
        return self._append(Kind.RULES, rules_payload(now, rules, records), records)

    @asynccontextmanager
    async def step(self) -> AsyncIterator[None]:
        """Alone with the engine, for one step; in a pass of the loop there is one at most. A checkpoint, which copies
        the engine's state in parts, keeps all others waiting."""
        async with self._still:
            yield
            await asyncio.sleep(0)

    def steps(self, batch: EnergyBatch, now: Now) -> list[EnergyBatch]:
        """The rows as batches of bounded work, to be ingested in turn, each once there is `room`."""
        return steps(self.engine, batch, now)

    def ingest(self, batch: EnergyBatch, now: Now, rated_w: Floats | None = None) -> Recorded:
        """Ingest a batch. `rated_w` by slot (W, NaN unknown). Raises StorageError if the spool's queue is full, and
        then nothing has changed; check `room` first."""
        spool = self.spool
        if not spool.room:
            raise StorageError("the spool's queue is full")
        self._alone()
        self._name_devices()
        slots = batch.slots
        rated = np.full(len(batch), np.nan) if rated_w is None else rated_w[slots]
        rated = rated.astype(np.float32).astype(np.float64)
        taken = self.engine.ingest(batch, now, rated)
        record = self._append(Kind.BATCH, batch_payload(now, batch, rated, taken.records), taken.records)
        return Recorded(record=record, taken=taken)

    def agree(self, agreed: AgreedConfig, now: Now) -> int:
        """Apply the config of some devices from here on. Returns the record. Raises StorageError without `room` in the
        spool, and then nothing has changed."""
        if not self.spool.room:
            raise StorageError("the spool's queue is full")
        self._alone()
        self._name_devices()
        records = self.engine.agree(agreed)
        return self._append(Kind.TERMS, config_payload(now, agreed, records), records)

    def repair(self, slots: Slots, start_ms: Ints, bases: IntervalRecords, now: Now) -> int:
        """Revise older intervals from their newest records. Returns the record."""
        self._alone()
        records = self.engine.repair(slots, start_ms, bases)
        payload = repair_payload(now, Repair(slots=slots, start_ms=start_ms, bases=bases), records)
        return self._append(Kind.REPAIR, payload, records)

    def close_due(self, now: Now) -> int:
        """Close intervals that are due by the clock, one slice; returns how many, or 1 where others than closed ones
        were worked on. Call again until it returns 0."""
        if not self.room:
            return 0
        self._alone()
        pending = self.engine.pending(now)
        records = self.engine.close_due(now)
        if len(records) or pending:
            self._append(Kind.TIMER, timer_payload(now, records), records)
        return max(len(records), int(pending))

    async def wait_unlogged(self) -> None:
        """Return once the interval log lacks durable interval records."""
        await self._some.wait()
        await self.spool.wait_durable(self._unlogged[0].record)

    def unlogged(self, rows: int = 20_000) -> list[Unlogged]:
        """Durable interval records for the interval log, oldest first, about `rows` of them. Confirm with `logged`."""
        out: list[Unlogged] = []
        for found in self._unlogged:
            if found.record > self.spool.durable_record or (out and rows < len(found.records)):
                break
            out.append(found)
            rows -= len(found.records)
        return out

    def logged(self, record: int) -> None:
        """Call once the interval log durably has the interval records of all spool records up to `record`."""
        while self._unlogged and self._unlogged[0].record <= record:
            self._rows -= len(self._unlogged.popleft().records)
        if not self._unlogged:
            self._some.clear()

    def logged_record(self) -> int:
        """The spool record up to which the log lacks nothing."""
        return self._unlogged[0].record - 1 if self._unlogged else self.spool.durable_record

    async def run(self) -> None:
        """Close intervals by time, until cancelled."""
        while True:
            await asyncio.sleep(CLOSE_PERIOD_S)
            while await self._close_slice():
                # An edge, or the end of a silence, takes the whole fleet in slices; other tasks run between them.
                pass

    async def _close_slice(self) -> int:
        async with self.step():
            return self.close_due(self._clock.now())

    def samples(self) -> Iterable[Sample]:
        """Metrics of the engine and the spool."""
        yield from energy_samples(self.engine.totals)
        yield from spool_samples(self.spool)

    def reasons(self) -> list[str]:
        """Why nothing becomes durable."""
        failing = self.spool.stats.failing
        return [f"spool: {failing}"] if failing else []

    async def checkpoint(self, checkpoints: Checkpoints, now: Now, extra: Columns) -> None:
        """Write a checkpoint as of now and drop the segments no longer needed. `extra`: columns by slot that the caller
        has copied.
        Raises StorageError when the spool is not durable up to here in time, or the file cannot be written."""
        spool = self.spool
        async with self._still:
            self._name_devices()
            if not spool.room:
                # Only a checkpoint of a later record than the last one's frees what that one needs, and none is on its
                # way.
                spool.append(Kind.NAMES, names_payload(self._named, ()))
            self._copying = True
            try:
                image = await capture(
                    self.engine,
                    record=spool.last_record,
                    session=spool.session,
                    utc_ms=now.utc_ms,
                    ids=self._ids[: self._named],
                    extra=extra,
                )
            finally:
                self._copying = False
        try:
            async with asyncio.timeout(DURABLE_WAIT_S):
                await spool.wait_durable(image.header.record)
        except TimeoutError as late:
            # The spool may be full of what the log has stored since: only room lets it become durable again.
            await self._drop(checkpoints)
            raise StorageError("the spool is not durable up to the checkpoint") from late
        await checkpoints.save(image)
        await self._drop(checkpoints)

    async def _drop(self, checkpoints: Checkpoints) -> None:
        await self.spool.drop_before(min(checkpoints.oldest_record, self.logged_record()) + 1)

    def _alone(self) -> None:
        invariant(not self._copying, "the engine stands still while it is copied")

    def _append(self, kind: Kind, parts: list[bytes], records: IntervalRecords) -> int:
        record = self.spool.append(kind, parts)
        if len(records):
            self._unlogged.append(Unlogged(record=record, records=records, ids=self._ids))
            self._rows += len(records)
            self._some.set()
        return record

    def _fleet(self) -> tuple[Kind, list[bytes]]:
        if self._named != len(self._ids) or not self._names:
            self._named = len(self._ids)
            self.engine.reserve(self._named)
            self._names = names_payload(0, self._ids)
        return Kind.FLEET, self._names

    def _name_devices(self) -> None:
        """Write the names of devices registered since the last record into the spool before their first row, also of
        the first device of an empty fleet. They count as named only once the spool has accepted the record."""
        first, n = self._named, len(self._ids)
        if first < n:
            self.spool.append(Kind.NAMES, names_payload(first, self._ids[first:]))
            if self._named != n:
                self._named, self._names = n, []
            self.engine.reserve(n)

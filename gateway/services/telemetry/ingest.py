"""Ingests readings: live state goes to the fleet at once, settlement data through engine and spool; then acknowledges.

Settlement batches of many reads are processed together: the engine counts every row once and returns the interval
records it closes, one spool record holds both, and when that is durable the messages are acknowledged and the interval
records go to the interval log. The engine may be ahead of the disk; what leaves the gateway never is.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gateway.clock import Clock
from gateway.domain.errors import StorageError
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.records import IntervalRecords
from gateway.domain.readings import AckBatch, AckToken, EnergyBatch, ReadingBatch
from gateway.domain.types import Ints, Slots
from gateway.observability.metrics import Sample
from gateway.ports.links import DeviceLink, Emit
from gateway.services.telemetry.interval_config import IntervalConfigs
from gateway.services.telemetry.metrics import energy_samples, spool_samples
from gateway.services.telemetry.recorder import Recorded, Recorder
from gateway.storage.recovery import Unlogged

log = logging.getLogger(__name__)

BATCH_ROWS = 4096
BATCH_DELAY_S = 0.010
PAUSED_RETRY_S = 0.05
CLOSE_PERIOD_S = 1.0
LOG_RETRY_S = 1.0
REPAIR_PERIOD_S = 5.0
REPAIR_PAUSE_S = 0.05
ENERGY_COLUMNS = tuple(EnergyBatch.__dataclass_fields__)


class IntervalSink(Protocol):
    """Where interval records go once they are durable in the spool; repeating one has no effect."""

    async def append(self, entries: Sequence[Unlogged]) -> int: ...


Newest = Callable[[Slots, Ints], Awaitable[IntervalRecords]]


@dataclass(slots=True)
class IngestStats:
    """Counts of what was ingested."""

    live: int = 0
    rows: int = 0
    batches: int = 0
    log_failures: int = 0
    pauses: int = 0


def joined(batches: list[EnergyBatch]) -> EnergyBatch:
    """One batch of all rows, in order."""
    if len(batches) == 1:
        return batches[0]
    return EnergyBatch(**{name: np.concatenate([getattr(b, name) for b in batches]) for name in ENERGY_COLUMNS})


def in_batches(batches: Sequence[EnergyBatch]) -> Iterator[list[EnergyBatch]]:
    """What arrived, in order: as many reads together as make a batch."""
    some: list[EnergyBatch] = []
    count = 0
    for batch in batches:
        if some and count + len(batch) > BATCH_ROWS:
            yield some
            some, count = [], 0
        some.append(batch)
        count += len(batch)
    if some:
        yield some


class Ingest:
    """The telemetry path of all links. `on_acks` gets devices' answers to commands, `on_logged` is called when the
    interval log has grown; `newest` finds the newest records of some intervals in the log; `lengths` of intervals in s
    by the tag of a program."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        recorder: Recorder,
        log_: IntervalSink,
        clock: Clock,
        on_acks: Callable[[AckBatch], None],
        on_logged: Callable[[], None],
        newest: Newest,
        lengths: Mapping[str, int],
    ) -> None:
        self._fleet = fleet
        self._recorder = recorder
        self._log = log_
        self._clock = clock
        self._on_acks = on_acks
        self._on_logged = on_logged
        self._configs = IntervalConfigs(fleet=fleet, recorder=recorder, clock=clock, lengths=lengths)
        self._newest = newest
        self._links: list[DeviceLink] = []
        self._rows: list[EnergyBatch] = []
        self._row_count = 0
        self._tokens: list[tuple[DeviceLink, AckToken]] = []
        self._unacknowledged: deque[tuple[int, list[tuple[DeviceLink, AckToken]]]] = deque()
        self._news = asyncio.Event()
        self._paused = False
        self._log_work = asyncio.Event()
        self.failing: str | None = None
        self.stats = IngestStats()

    def emitter(self, link: DeviceLink) -> Emit:
        """The callback of one link."""
        if link not in self._links:
            self._links.append(link)

        def emit(batch: ReadingBatch) -> None:
            if batch.live is not None:
                self.stats.live += len(batch.live.slots)
                self._fleet.observe_live(batch.live, self._clock.now())
            if batch.unclear is not None:
                self._fleet.observe_unclear(batch.unclear)
            if batch.status is not None:
                self._fleet.observe_status(batch.status, self._clock.now())
            if batch.acks is not None:
                self._on_acks(batch.acks)
            if batch.energy is not None:
                self._fleet.observe_energy(batch.energy, self._clock.now())
                self._rows.append(batch.energy)
                self._row_count += len(batch.energy)
            if batch.token is not None:
                self._tokens.append((link, batch.token))
                self._news.set()

        return emit

    async def _process(self) -> None:
        """Process batches as they fill or grow old, so that many reads share one commit. After a fault here what was
        received and not recorded must be sent again, so the links' sessions start over."""
        whole = True
        try:
            while True:
                await self._news.wait()
                if self._row_count < BATCH_ROWS:
                    await asyncio.sleep(BATCH_DELAY_S)
                self._news.clear()
                await self._until_room()
                whole = False
                await self._flush()
                whole = True
        finally:
            if not whole:
                self._rows, self._row_count, self._tokens = [], 0, []
                self._unacknowledged.clear()
                for link in self._links:
                    link.start_over()

    async def _until_room(self) -> None:
        while not self._recorder.room:
            # Links are paused; a read or two may still have been on the way. They wait, unacknowledged.
            self._press()
            await asyncio.sleep(PAUSED_RETRY_S)

    async def _flush(self) -> None:
        """Process what has arrived since the last call, in steps between which other tasks run."""
        tokens, self._tokens = self._tokens, []
        rows, self._rows, self._row_count = self._rows, [], 0
        spool = self._recorder.spool
        number = spool.last_record
        if rows:
            await self._configs.update()
            for some in in_batches(rows):
                for part in self._recorder.steps(joined(some), self._clock.now()):
                    recorded = await self._ingest(part)
                    number = recorded.record
                    self.stats.rows += recorded.taken.counts.rows
                    self.stats.batches += 1
        if number <= spool.durable_record:
            for link, token in tokens:
                link.acknowledge(token)
        else:
            self._unacknowledged.append((number, tokens))
        self._press()

    async def _ingest(self, rows: EnergyBatch) -> Recorded:
        while True:
            await self._until_room()
            async with self._recorder.step():
                if self._recorder.room:
                    plate = self._fleet.nameplate
                    rated_w = np.maximum(plate.discharge_w_max, plate.charge_w_max)
                    return self._recorder.ingest(rows, self._clock.now(), rated_w)

    def _press(self) -> None:
        """Apply back-pressure: telemetry is read only while there is room for it; control goes on."""
        full = not self._recorder.room
        if full != self._paused:
            self._paused = full
            self.stats.pauses += full
            for link in self._links:
                link.pause_telemetry(full)

    def durable(self, record: int) -> None:
        """Call once spool records up to `record` are durable: acknowledges their messages, forwards their intervals."""
        waiting = self._unacknowledged
        while waiting and waiting[0][0] <= record:
            for link, token in waiting.popleft()[1]:
                link.acknowledge(token)
        self._log_work.set()
        self._press()

    async def run(self) -> None:
        """Process batches, close intervals by time and carry durable interval records to the log, until cancelled."""
        self._log_work.set()
        self._news.set()
        await self._configs.update()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._process(), name="ingest-batches")
            group.create_task(self._close_by_time(), name="interval-closer")
            group.create_task(self._carry(), name="interval-log")
            group.create_task(self._repair(), name="interval-repair")

    async def _repair(self) -> None:
        """Revise intervals for which data came late, from their newest records in the log."""
        waiting = False
        while True:
            await asyncio.sleep(REPAIR_PERIOD_S)
            while True:
                slots, starts = self._recorder.repairs_due(self._clock.now())
                if not len(slots):
                    if not self._recorder.repair_on_its_way:
                        break
                    await asyncio.sleep(REPAIR_PAUSE_S)
                    continue
                try:
                    bases = await self._newest(slots, starts)
                except StorageError as error:
                    self.stats.log_failures += 1
                    if not waiting:
                        log.warning("late data waits for the interval log", extra={"error": str(error)})
                    waiting = True
                    break
                waiting = False
                async with self._recorder.step():
                    if not self._recorder.room_for_repair:
                        break
                    self._recorder.repair(slots, starts, bases, self._clock.now())
                await asyncio.sleep(REPAIR_PAUSE_S)

    async def _close_by_time(self) -> None:
        while True:
            await asyncio.sleep(CLOSE_PERIOD_S)
            while await self._close_slice():
                # An edge, or the end of a silence, takes the whole fleet in slices; other tasks run between them.
                pass

    async def _close_slice(self) -> int:
        async with self._recorder.step():
            return self._recorder.close_due(self._clock.now())

    async def _carry(self) -> None:
        while True:
            await self._log_work.wait()
            self._log_work.clear()
            while found := self._recorder.unlogged():
                try:
                    await self._log.append(found)
                except StorageError as error:
                    self.stats.log_failures += 1
                    if self.failing is None:
                        log.warning("closed intervals cannot be logged", extra={"error": str(error)})
                    self.failing = str(error)
                    await asyncio.sleep(LOG_RETRY_S)
                    continue
                self._recorder.logged(found[-1].record)
                self.failing = None
                self._on_logged()
                self._press()

    def samples(self) -> Iterable[Sample]:
        """Metrics of the telemetry path."""
        for name, text, value in (
            ("gateway_live_readings", "Live readings taken.", self.stats.live),
            ("gateway_settlement_rows", "Settlement messages taken, duplicates included.", self.stats.rows),
            ("gateway_settlement_batches", "Batches of settlement messages taken.", self.stats.batches),
            ("gateway_telemetry_holds", "Times that telemetry was held back.", self.stats.pauses),
            ("gateway_interval_log_failures", "Failed appends to the interval log.", self.stats.log_failures),
        ):
            yield Sample(name=name, help=text, value=value, kind="counter")
        yield from energy_samples(self._recorder.engine.totals)
        yield from spool_samples(self._recorder.spool)

    def reasons(self) -> list[str]:
        """Why telemetry is not ready."""
        out: list[str] = []
        if self._recorder.spool.stats.failing:
            out.append(f"spool: {self._recorder.spool.stats.failing}")
        if self.failing is not None:
            out.append(f"interval log: {self.failing}")
        if self._paused:
            out.append("telemetry is paused until the disk has caught up")
        return out

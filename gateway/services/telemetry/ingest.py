"""Joins what the links emit: live state goes to the fleet at once, settlement data to the recorder; then acknowledges.

Settlement batches of many reads are recorded together, in the order received, and their messages acknowledged once the
spool reports the record durable. Where the recorder has no room, telemetry is paused; control goes on. The engine may
be ahead of the disk; what leaves the gateway never is.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gateway.clock import Clock
from gateway.domain.errors import StorageError
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.readings import AckBatch, AckToken, EnergyBatch, RawMessage, ReadingBatch
from gateway.domain.types import Now
from gateway.observability.metrics import Sample, counter
from gateway.observability.parts import Importance, Part
from gateway.ports.links import Emit, TelemetrySender, TelemetrySource
from gateway.services.telemetry.interval_config import IntervalConfigs
from gateway.services.telemetry.recorder import Recorded, Recorder

LIVE = counter("gateway_live_readings", "Live readings taken.")
ROWS = counter("gateway_settlement_rows", "Settlement messages taken, duplicates included.")
BATCHES = counter("gateway_settlement_batches", "Batches of settlement messages taken.")
DROPPED = counter("gateway_settlement_dropped", "Settlement messages that a fault kept from the disk.")
PAUSES = counter("gateway_telemetry_holds", "Times that telemetry was held back.")

BATCH_ROWS = 4096
BATCH_DELAY_S = 0.010
PAUSED_RETRY_S = 0.05
KEEP_RETRY_S = 1.0
ENERGY_COLUMNS = tuple(EnergyBatch.__dataclass_fields__)

Tokens = list[tuple[TelemetrySender, AckToken]]


class CommandAnswers(Protocol):
    """What control knows of devices' answers to its commands."""

    def observe_acks(self, batch: AckBatch) -> None: ...


class RawKeeper(Protocol):
    """Whoever keeps messages that cannot be counted yet: see `RawMessages`."""

    def observe(self, messages: Sequence[RawMessage]) -> None: ...

    def coming(self) -> list[RawMessage]: ...

    async def keep(self, messages: Sequence[RawMessage]) -> None: ...

    def forget(self, messages: Sequence[RawMessage]) -> None: ...


@dataclass(slots=True)
class IngestStats:
    """Counts of what was ingested. `dropped`: rows that a fault kept from being recorded; senders send them again."""

    live: int = 0
    rows: int = 0
    batches: int = 0
    pauses: int = 0
    dropped: int = 0


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


class Ingest(Part):
    """The way in for all sources. Live state goes by the `clock` of control, settlement data by the `wall` clock.
    `answers` gets devices' answers to commands; `lengths` of intervals in s by the tag of a program; `raw` keeps what
    cannot be counted yet."""

    service = "ingest"
    component = "telemetry"
    importance = Importance.ESSENTIAL

    def __init__(
        self,
        *,
        fleet: Fleet,
        recorder: Recorder,
        clock: Clock,
        wall: Clock,
        answers: CommandAnswers,
        lengths: Mapping[str, int],
        raw: RawKeeper,
    ) -> None:
        self._fleet = fleet
        self._raw = raw
        self._recorder = recorder
        self._clock = clock
        self._wall = wall
        self._answers = answers
        self._configs = IntervalConfigs(fleet=fleet, recorder=recorder, clock=wall, lengths=lengths)
        self._sources: list[TelemetrySource] = []
        self._senders: list[TelemetrySender] = []
        self._rows: list[EnergyBatch] = []
        self._row_count = 0
        self._unrecorded = 0
        self._keeping: list[RawMessage] = []
        self._tokens: Tokens = []
        self._news = asyncio.Event()
        self._unacknowledged: deque[tuple[int, Tokens]] = deque()
        self._recorded = asyncio.Event()
        self._halfway = False
        self._unkept = False
        self._paused = False
        self.stats = IngestStats()

    def emitter(self, source: TelemetrySource, *, sender: TelemetrySender | None = None) -> Emit:
        """The callback of one source; `sender`: who keeps its messages until they are acknowledged, None = nobody."""
        if source not in self._sources:
            self._sources.append(source)
        if sender is not None and sender not in self._senders:
            self._senders.append(sender)

        def emit(batch: ReadingBatch) -> None:
            if batch.live is not None:
                self.stats.live += len(batch.live.slots)
                self._fleet.observe_live(batch.live, self._clock.now())
            if batch.unclear is not None:
                self._fleet.observe_unclear(batch.unclear)
            if batch.status is not None:
                self._fleet.observe_status(batch.status, self._clock.now())
            if batch.acks is not None:
                self._answers.observe_acks(batch.acks)
            if batch.energy is not None:
                self._fleet.observe_energy(batch.energy, self._clock.now())
                self._rows.append(batch.energy)
                self._row_count += len(batch.energy)
                self._news.set()
            if batch.raw:
                self._raw.observe(batch.raw)
            if batch.token is not None and sender is not None:
                self._tokens.append((sender, batch.token))
                self._news.set()

        return emit

    async def run(self) -> None:
        """Record and acknowledge, until cancelled. After a fault, what was received and not acknowledged must be sent
        again, so the senders start over."""
        self._news.set()
        try:
            await self._configs.update()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._record(), name="ingest-record")
                group.create_task(self._acknowledge(), name="ingest-acknowledge")
        except BaseExceptionGroup:
            self._halfway = True
            raise
        finally:
            if self._halfway:
                self._begin_anew()

    def _begin_anew(self) -> None:
        self.stats.dropped += self._unrecorded + self._row_count
        self._unrecorded = 0
        self._raw.forget(self._keeping)
        self._rows, self._row_count, self._tokens, self._keeping = [], 0, [], []
        self._unkept = False
        self._unacknowledged.clear()
        self._recorded.clear()
        self._halfway = False
        for sender in self._senders:
            sender.start_over()

    async def _record(self) -> None:
        """Record batches as they fill or grow old, so that many reads share one commit."""
        while True:
            await self._news.wait()
            if self._row_count < BATCH_ROWS:
                await asyncio.sleep(BATCH_DELAY_S)
            self._news.clear()
            await self._until_room()
            self._halfway = True
            await self._flush()
            self._halfway = False
            await self._until_room()

    async def _flush(self) -> None:
        """Record what has arrived since the last call, in steps between which other tasks run."""
        tokens, self._tokens = self._tokens, []
        rows, self._rows, self._unrecorded, self._row_count = self._rows, [], self._row_count, 0
        self._keeping = self._raw.coming()
        number = self._recorder.spool.last_record
        if rows:
            await self._configs.update()
            for some in in_batches(rows):
                for part in self._recorder.steps(joined(some), self._wall.now()):
                    recorded = await self._ingest(part)
                    number = recorded.record
                    self.stats.rows += recorded.taken.counts.rows
                    self._unrecorded -= recorded.taken.counts.rows
                    self.stats.batches += 1
        await self._keep()
        if tokens:
            self._unacknowledged.append((number, tokens))
            self._recorded.set()

    async def _keep(self) -> None:
        """Store what is raw of what arrived, however long the disk takes; meanwhile telemetry is not read."""
        while self._keeping:
            try:
                await self._raw.keep(self._keeping)
            except StorageError:
                self._unkept = True
                self._pause(True)
                await asyncio.sleep(KEEP_RETRY_S)
                continue
            self._keeping, self._unkept = [], False

    async def record(self, batch: EnergyBatch, now: Now) -> int:
        """Record energy that was received at `now` and kept since, in bounded steps, each once there is room; returns
        the record to wait for."""
        await self._configs.update()
        number = 0
        for part in self._recorder.steps(batch, now):
            recorded = await self._ingest(part, now)
            number = recorded.record
            self.stats.rows += recorded.taken.counts.rows
            self.stats.batches += 1
        return number

    async def wait_durable(self, record: int) -> None:
        """Return once a record is durable."""
        await self._recorder.spool.wait_durable(record)

    async def _ingest(self, rows: EnergyBatch, received: Now | None = None) -> Recorded:
        """Record rows that were received then; None = now."""
        while True:
            await self._until_room()
            async with self._recorder.step():
                if self._recorder.room:
                    plate = self._fleet.nameplate
                    # of a device that was removed meanwhile nobody knows the rating any more
                    rated_w = np.where(plate.registered, np.maximum(plate.discharge_w_max, plate.charge_w_max), np.nan)
                    return self._recorder.ingest(rows, received or self._wall.now(), rated_w)

    async def _acknowledge(self) -> None:
        """Acknowledge in the order of recording, each batch once it is durable."""
        while True:
            await self._recorded.wait()
            while self._unacknowledged:
                await self._recorder.spool.wait_durable(self._unacknowledged[0][0])
                for sender, token in self._unacknowledged.popleft()[1]:
                    sender.acknowledge(token)
            self._recorded.clear()

    async def _until_room(self) -> None:
        """Wait for room; meanwhile telemetry is not read. A read or two may still have been on the way: they wait,
        unacknowledged."""
        while not self._recorder.room:
            self._pause(True)
            await asyncio.sleep(PAUSED_RETRY_S)
        self._pause(self._unkept)

    def _pause(self, on: bool) -> None:
        if on != self._paused:
            self._paused = on
            self.stats.pauses += on
            for source in self._sources:
                source.pause_telemetry(on)

    def samples(self) -> Iterable[Sample]:
        """Metrics of what comes in."""
        yield LIVE.sample(self.stats.live)
        yield ROWS.sample(self.stats.rows)
        yield BATCHES.sample(self.stats.batches)
        yield DROPPED.sample(self.stats.dropped)
        yield PAUSES.sample(self.stats.pauses)

    def reasons(self) -> list[str]:
        """Why telemetry is not read."""
        return ["telemetry is paused until the disk has caught up"] if self._paused else []

"""Readings in: live state into the fleet at once, settlement data through engine and spool, acknowledged when durable.

Settlement batches of many reads are processed together: the engine counts every row once and says what closes, one
spool record holds both, and when that record is durable the messages are acknowledged and the closes go to the
interval log. The engine may be ahead of the disk; what leaves the gateway never is.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gateway.clock import Clock
from gateway.domain.errors import StorageError
from gateway.domain.fleet import Fleet
from gateway.domain.intervals import Closes, Engine
from gateway.domain.model import AckBatch, AckToken, EnergyBatch, ReadingBatch, StatusBatch
from gateway.ports import DeviceLink, Emit
from gateway.services.observe import Sample
from gateway.storage.records import Kind, batch_payload, timer_payload
from gateway.storage.spool import Spool

log = logging.getLogger(__name__)

BATCH_ROWS = 4096
BATCH_DELAY_S = 0.005
CLOSE_PERIOD_S = 1.0
LOG_RETRY_S = 1.0
ENERGY_COLUMNS = tuple(EnergyBatch.__dataclass_fields__)


class IntervalSink(Protocol):
    """Where closes go once they are durable in the spool; idempotent by identity."""

    async def append(self, closes: Closes, ids: list[str]) -> None: ...


@dataclass(slots=True)
class IngestStats:
    """Counts of what was taken in."""

    live: int = 0
    rows: int = 0
    batches: int = 0
    log_failures: int = 0
    held: int = 0


def joined(batches: list[EnergyBatch]) -> EnergyBatch:
    """One batch of all rows, in order."""
    if len(batches) == 1:
        return batches[0]
    return EnergyBatch(**{name: np.concatenate([getattr(b, name) for b in batches]) for name in ENERGY_COLUMNS})


class Ingest:
    """The telemetry path of all links. `on_acks` gets devices' answers to commands."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        engine: Engine,
        log_: IntervalSink,
        clock: Clock,
        on_acks: Callable[[AckBatch], None],
        on_logged: Callable[[], None],
    ) -> None:
        self._fleet = fleet
        self._engine = engine
        self._log = log_
        self._clock = clock
        self._on_acks = on_acks
        self._on_logged = on_logged
        self._links: list[DeviceLink] = []
        self._rows: list[EnergyBatch] = []
        self._row_count = 0
        self._tokens: list[tuple[DeviceLink, AckToken]] = []
        self._unacknowledged: deque[tuple[int, list[tuple[DeviceLink, AckToken]]]] = deque()
        self._unlogged: deque[tuple[int, Closes]] = deque()
        self._flush_due: asyncio.TimerHandle | None = None
        self._holding = False
        self._log_work = asyncio.Event()
        self.spool: Spool | None = None
        self.logged_record = 0
        self.stats = IngestStats()

    def attach(self, spool: Spool) -> None:
        """Use `spool`, which calls `durable`."""
        self.spool = spool
        self.logged_record = spool.durable_record

    def emitter(self, link: DeviceLink) -> Emit:
        """The callback of one link."""
        self._links.append(link)

        def emit(batch: ReadingBatch) -> None:
            if batch.live is not None:
                self.stats.live += len(batch.live.slots)
                self._fleet.take_live(batch.live, self._clock.now())
            if batch.status is not None:
                self._take_status(batch.status)
            if batch.acks is not None:
                self._on_acks(batch.acks)
            if batch.energy is not None:
                self._rows.append(batch.energy)
                self._row_count += len(batch.energy)
            if batch.token is not None:
                self._tokens.append((link, batch.token))
                if self._row_count >= BATCH_ROWS:
                    self._flush()
                elif self._flush_due is None:
                    self._flush_due = asyncio.get_running_loop().call_later(BATCH_DELAY_S, self._flush)

        return emit

    def _take_status(self, batch: StatusBatch) -> None:
        self._fleet.live.online[batch.slots] = batch.online

    def _flush(self) -> None:
        """Process what has come in since the last time."""
        if self._flush_due is not None:
            self._flush_due.cancel()
            self._flush_due = None
        spool = self.spool
        if spool is None:
            return
        if not spool.room and self._holding and self._row_count < 4 * BATCH_ROWS:
            # Held links may still have a read or two on the way; they wait here, unacknowledged.
            self._flush_due = asyncio.get_running_loop().call_later(BATCH_DELAY_S * 10, self._flush)
            return
        tokens, self._tokens = self._tokens, []
        rows, self._rows, self._row_count = self._rows, [], 0
        number = spool.last_record
        if rows:
            batch = joined(rows)
            now = self._clock.now()
            plate = self._fleet.nameplate
            rated_w = np.maximum(plate.discharge_w_max[batch.slots], plate.charge_w_max[batch.slots])
            taken = self._engine.take(batch, now, rated_w)
            number = spool.append(Kind.BATCH, batch_payload(now, batch, rated_w, taken.closes))
            self._remember(number, taken.closes)
            self.stats.rows += len(batch)
            self.stats.batches += 1
        if number <= spool.durable_record:
            for link, token in tokens:
                link.acknowledge(token)
        else:
            self._unacknowledged.append((number, tokens))
        self._press()

    def _remember(self, number: int, closes: Closes) -> None:
        if len(closes):
            self._unlogged.append((number, closes))

    def _press(self) -> None:
        """Back-pressure: telemetry is read only while the spool has room; control goes on."""
        full = self.spool is not None and not self.spool.room
        if full != self._holding:
            self._holding = full
            self.stats.held += full
            for link in self._links:
                link.hold_telemetry(full)

    def durable(self, number: int) -> None:
        """Records up to `number` are durable: acknowledge what they hold, let their closes go on."""
        waiting = self._unacknowledged
        while waiting and waiting[0][0] <= number:
            for link, token in waiting.popleft()[1]:
                link.acknowledge(token)
        self._log_work.set()
        self._press()

    async def run(self) -> None:
        """Close intervals by time and carry durable closes to the log, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._close_by_time(), name="interval-closer")
            group.create_task(self._carry(), name="interval-log")

    async def _close_by_time(self) -> None:
        while True:
            await asyncio.sleep(CLOSE_PERIOD_S)
            spool = self.spool
            while spool is not None and spool.room:
                now = self._clock.now()
                closes = self._engine.close_due(now)
                if not len(closes):
                    break
                self._remember(spool.append(Kind.TIMER, timer_payload(now, closes)), closes)
                # An edge closes the whole fleet in slices; the loop gets its turn between them.
                await asyncio.sleep(0)

    async def _carry(self) -> None:
        while True:
            await self._log_work.wait()
            self._log_work.clear()
            spool = self.spool
            while spool is not None and self._unlogged and self._unlogged[0][0] <= spool.durable_record:
                number, closes = self._unlogged[0]
                try:
                    await self._log.append(closes, list(self._fleet.ids))
                except StorageError as error:
                    self.stats.log_failures += 1
                    if self.stats.log_failures == 1:
                        log.warning("closed intervals cannot be logged", extra={"why": str(error)})
                    await asyncio.sleep(LOG_RETRY_S)
                    continue
                self._unlogged.popleft()
                self.logged_record = number
                self._on_logged()
            if spool is not None and not self._unlogged:
                self.logged_record = spool.durable_record

    @property
    def unlogged(self) -> int:
        """Closes that are not in the interval log yet."""
        return sum(len(closes) for _, closes in self._unlogged)

    def samples(self) -> Iterable[Sample]:
        """Metrics of the telemetry path."""
        totals, spool = self._engine.totals, self.spool
        for name, text, value in (
            ("gateway_live_readings", "Live readings taken.", self.stats.live),
            ("gateway_settlement_rows", "Settlement messages taken, duplicates included.", self.stats.rows),
            ("gateway_duplicates", "Settlement messages that had been counted before.", totals.duplicates),
            ("gateway_too_old", "Settlement messages too old to be told from duplicates.", totals.too_old),
            ("gateway_sequence_gaps", "Settlement messages that were never received.", totals.gaps),
            ("gateway_late_rows", "Settlement messages later than any revision.", totals.late_rows),
            ("gateway_time_replaced", "Settlement messages with an implausible device time.", totals.time_replaced),
            ("gateway_telemetry_holds", "Times that telemetry was held back.", self.stats.held),
            ("gateway_interval_log_failures", "Failed appends to the interval log.", self.stats.log_failures),
        ):
            yield Sample(name=name, help=text, value=value, kind="counter")
        yield Sample(
            name="gateway_intervals_unlogged", help="Closed intervals not in the log yet.", value=self.unlogged
        )
        if spool is not None:
            yield Sample(
                name="gateway_spool_commits", help="Commits of the spool.", value=spool.stats.commits, kind="counter"
            )
            yield Sample(
                name="gateway_spool_failures", help="Failed commits.", value=spool.stats.failures, kind="counter"
            )
            yield Sample(name="gateway_spool_bytes", help="Bytes in spool segments.", value=spool.stats.segment_bytes)
            yield Sample(name="gateway_spool_queue_bytes", help="Bytes not durable yet.", value=spool.queued_bytes)
            failing = 1.0 if spool.stats.failing else 0.0
            yield Sample(name="gateway_spool_failing", help="1 while nothing becomes durable.", value=failing)

    def reasons(self) -> list[str]:
        """Why telemetry is not in order."""
        out: list[str] = []
        if self.spool is not None and self.spool.stats.failing:
            out.append(f"spool: {self.spool.stats.failing}")
        if self._holding:
            out.append("telemetry is held back: the spool's queue is full")
        return out

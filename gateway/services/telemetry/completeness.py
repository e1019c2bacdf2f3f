"""Computes completeness from the log and what the sinks were given, a page of devices at a time."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gateway.clock import Clock
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.completeness import FORGOTTEN, DeviceDay, Fate, RowOutcome, device_day
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.types import DeviceId
from gateway.ports.sinks import Sink
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.interval_log.outcomes import RecordedOutcomes
from gateway.storage.interval_log.positions import RESEND, Position, Positions
from gateway.storage.interval_log.query import Found, IntervalQueries
from gateway.storage.interval_log.rows import Identity

DAY_MS = 86_400_000
PAGE_INTERVALS = 100_000
LOOP_INTERVALS = 1_000
STORED_AFTER_MS = 60_000
"""An interval is closed and stored at most this long after its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """A sink, its position, what it refused (by identity), and what is recorded of it."""

    sink: Sink
    position: Position
    refused: dict[Identity, str]
    recorded: RecordedOutcomes

    def fate(self, found: Found) -> Fate | None:
        """None = it is not for this sink, and its turn has not come."""
        record = found.record
        identity = (record.start_ms, record.device, record.revision)
        reason = self.refused.get(identity)
        outcome = self.recorded.outcome(found.place.file, found.place.row, identity)
        if reason is not None and reason != RESEND:
            return reason
        if outcome is RowOutcome.ACCEPTED:
            return outcome
        if reason == RESEND:
            return RowOutcome.WAITING
        if outcome is not None:
            return FORGOTTEN if outcome is RowOutcome.REFUSED else outcome
        if not self.sink.wants(record.device, record.length_s):
            return None
        return RowOutcome.WAITING if self.position.lacks(found.place) else RowOutcome.INFERRED


class Completeness:
    """What is stored of a day, what each sink has, and the reason for what is missing."""

    def __init__(
        self, *, queries: IntervalQueries, log_: IntervalLog, sinks: Sequence[Sink], fleet: Fleet, engine: Engine,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._queries = queries
        self._log = log_
        self._sinks = sinks
        self._fleet = fleet
        self._engine = engine
        self._clock = clock

    def fit(self, devices: Sequence[DeviceId]) -> Sequence[DeviceId]:
        """The first of these devices, as many as have `PAGE_INTERVALS` a day together, and at least one."""
        slots = [self._fleet.slot_of.get(device) for device in devices]
        together = np.cumsum([DAY_MS // 1000 // self._length_s(slot) for slot in slots])
        return devices[: max(int(np.searchsorted(together, PAGE_INTERVALS, side="right")), 1)]

    async def day(self, day_ms: int, devices: Sequence[DeviceId]) -> AsyncIterator[DeviceDay]:
        """The UTC day that begins at `day_ms`, as far as it is over, of some devices, one by one: other tasks run
        between them. Raises StorageError before the first."""
        to_ms = min(day_ms + DAY_MS, self._clock.now().utc_ms - STORED_AFTER_MS)
        found = await self._queries.day(day_ms, day_ms + DAY_MS, devices)
        files = [one.place.file for of_device in found.newest.values() for one in of_device.values()]
        span = (min(files), max(files)) if files else (0, 0)
        readers = [await self._reader(sink, day_ms, span) for sink in self._sinks]
        for device in devices:
            stored = found.newest.pop(device, {})
            work = partial(self._device_day, device, day_ms, max(to_ms, day_ms), stored, found.heard, readers)
            # a day of seconds is too much for the loop
            yield await asyncio.to_thread(work) if len(stored) > LOOP_INTERVALS else work()
            await asyncio.sleep(0)

    def _length_s(self, slot: int | None) -> int:
        known = slot is not None and slot < self._engine.n
        return int(self._engine.config.length_ms[slot]) // 1000 if known else self._engine.rules.length_s

    async def _reader(self, sink: Sink, day_ms: int, files: tuple[int, int]) -> _Reader:
        day = (day_ms, day_ms + DAY_MS)

        def work(all_: Positions) -> _Reader:
            return _Reader(
                sink=sink,
                position=all_.load(sink.name),
                refused={one.identity: one.reason for one in all_.parked_within(sink.name, *day)},
                recorded=all_.recorded(sink.name, files, *day),
            )

        # in one step: a delivery in between would pass for one that was not recorded
        return await self._log.ask(work)

    def _device_day(
        self,
        device: DeviceId,
        from_ms: int,
        to_ms: int,
        found: dict[int, Found],
        heard: frozenset[int],
        readers: list[_Reader],
    ) -> DeviceDay:
        length_s = self._length_s(self._fleet.slot_of.get(device))
        newest: dict[int, IntervalRecord] = {start: one.record for start, one in found.items()}
        fates = {
            reader.sink.name: {start: fate for start, one in found.items() if (fate := reader.fate(one)) is not None}
            for reader in readers
        }
        return device_day(
            device, from_ms=from_ms, to_ms=to_ms, length_s=length_s, newest=newest, heard=heard, fates=fates
        )

"""Revises older intervals for which data came late, from their newest records in the interval log.

What changed an interval is in spool records; it is repaired once the log has the interval records of all of these, and
of the repair before, so that the newest record of the log is the newest there is.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from gateway.clock import Clock
from gateway.domain.errors import StorageError
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.intervals.records import IntervalRecords
from gateway.domain.types import NEVER_MS, DeviceId, Ints, Now, Slots
from gateway.observability.metrics import Sample, counter, gauge
from gateway.observability.parts import Importance, Part
from gateway.services.telemetry.recorder import Recorder
from gateway.storage.interval_log.merge import Place
from gateway.storage.interval_log.rows import damaged_record, records_of_rows

log = logging.getLogger(__name__)

FAILURES = counter(
    "gateway_interval_repair_failures",
    "Times that late data had to wait, since the interval log could not be read.",
)
WAITING = gauge("gateway_interval_repairs_waiting", "Older intervals and days with data that came late.")

PERIOD_S = 5.0
PAUSE_S = 0.05
ROWS = 1_000
"""Intervals of one step."""


class NewestRecords(Protocol):
    """The interval log, asked for the newest records of some intervals, and for those whose record is damaged."""

    async def find(self, places: Sequence[Place]) -> tuple[list[IntervalRecord], list[Place]]: ...


class Repairs(Part):
    """Makes late data into the next revisions."""

    service = "repair"
    component = "telemetry"
    importance = Importance.SPARE

    def __init__(self, recorder: Recorder, *, records: NewestRecords, fleet: Fleet, clock: Clock) -> None:
        self._recorder = recorder
        self._records = records
        self._fleet = fleet
        self._clock = clock
        # the log has all that changed up to `_logged_ms`; once it has the record of the mark, up to the mark's time
        self._logged_ms = NEVER_MS
        self._mark = (0, NEVER_MS)
        self._asked_ms = NEVER_MS
        self._repaired = 0
        self._failing: str | None = None
        self.failures = 0

    async def run(self) -> None:
        """Revise what is due, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            while await self._step():
                # small steps, so that none holds the loop, and as fast as the log has each
                await asyncio.sleep(PAUSE_S)

    async def _step(self) -> bool:
        """One repair; returns whether there may be another."""
        slots, starts = self.due(self._clock.now())
        if not len(slots):
            return self.on_its_way
        try:
            bases = await self._newest(slots, starts)
        except StorageError as error:
            self.failures += 1
            if self._failing is None:
                log.warning("late data waits for the interval log", extra={"error": str(error)})
            self._failing = str(error)
            return False
        self._failing = None
        async with self._recorder.step():
            if not self._recorder.room_for_repair:
                return False
            self.revise(slots, starts, bases, self._clock.now())
        return True

    @property
    def on_its_way(self) -> bool:
        """Whether the log still lacks the newest repair; another one begins from what it has."""
        return self._recorder.logged_record() < self._repaired

    def due(self, now: Now) -> tuple[Slots, Ints]:
        """Older intervals that are due for a revision, once the log has the records of what changed them."""
        engine, newest = self._recorder.engine, self._recorder.spool.last_record
        if now.utc_ms < self._asked_ms:
            self._logged_ms, self._mark = NEVER_MS, (newest, now.utc_ms)
        self._asked_ms = now.utc_ms
        if self.on_its_way:
            return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64)
        slots, start_ms = engine.repairs_due(now, ROWS, self._logged_ms)
        if not len(slots) and engine.to_repair and self._recorder.logged_record() >= self._mark[0]:
            # What has changed by now is in records up to here; it is due when the log has come as far.
            self._logged_ms, self._mark = self._mark[1], (newest, now.utc_ms)
            slots, start_ms = engine.repairs_due(now, ROWS, self._logged_ms)
        return slots, start_ms

    def revise(self, slots: Slots, start_ms: Ints, bases: IntervalRecords, now: Now) -> None:
        """Record the next revisions of intervals from their newest records."""
        self._repaired = self._recorder.repair(slots, start_ms, bases, now)

    async def _newest(self, slots: Slots, starts: Ints) -> IntervalRecords:
        ids = self._fleet.ids
        places = [(start, ids[slot]) for slot, start in zip(slots.tolist(), starts.tolist(), strict=True)]
        records, damaged = await self._records.find(places)
        return records_of_rows(
            [*records, *(damaged_record(DeviceId(id_), start) for start, id_ in damaged)], self._fleet.slot_of
        )

    def samples(self) -> Iterable[Sample]:
        """Metrics of late data."""
        yield FAILURES.sample(self.failures)
        yield WAITING.sample(self._recorder.engine.to_repair)

    def warnings(self) -> list[str]:
        """Why late data waits; meanwhile it is stored."""
        return [] if self._failing is None else [f"late data waits for the interval log: {self._failing}"]

"""Writes durable interval records into the interval log, in the spool's order, and wakes who reads it."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from gateway.domain.errors import StorageError
from gateway.observability.metrics import Sample, counter
from gateway.observability.parts import Part
from gateway.storage.recovery import Unlogged

log = logging.getLogger(__name__)

FAILURES = counter("gateway_interval_log_failures", "Failed appends to the interval log.")

RETRY_S = 1.0


class Unwritten(Protocol):
    """Interval records on their way to the log: see `Recorder`."""

    async def wait_unlogged(self) -> None: ...

    def unlogged(self) -> list[Unlogged]: ...

    def logged(self, record: int) -> None: ...


class IntervalSink(Protocol):
    """Where interval records go once they are durable in the spool; repeating one has no effect."""

    async def append(self, entries: Sequence[Unlogged]) -> int: ...


class LogWriter(Part):
    """Moves records from the spool's queue into the log. `readers` are set whenever the log has grown."""

    service = "log-writer"
    component = "telemetry"

    def __init__(self, unwritten: Unwritten, log_: IntervalSink, *, readers: Sequence[asyncio.Event] = ()) -> None:
        self._unwritten = unwritten
        self._log = log_
        self._readers = readers
        self._failing: str | None = None
        self.failures = 0

    async def run(self) -> None:
        """Write until cancelled. What could not be written is tried again."""
        while True:
            await self._unwritten.wait_unlogged()
            found = self._unwritten.unlogged()
            try:
                await self._log.append(found)
            except StorageError as error:
                self.failures += 1
                if self._failing is None:
                    log.warning("closed intervals cannot be logged", extra={"error": str(error)})
                self._failing = str(error)
                await asyncio.sleep(RETRY_S)
                continue
            self._unwritten.logged(found[-1].record)
            self._failing = None
            for reader in self._readers:
                reader.set()

    def samples(self) -> Iterable[Sample]:
        """Metrics of the way into the log."""
        yield FAILURES.sample(self.failures)

    def reasons(self) -> list[str]:
        """Why intervals do not reach the log."""
        return [] if self._failing is None else [f"interval log: {self._failing}"]

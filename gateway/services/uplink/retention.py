"""Keeps the interval log within its days and its disk budget."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from gateway.domain.errors import StorageError
from gateway.observability.parts import Importance, Part
from gateway.storage.interval_log.retention import DiskBudget

log = logging.getLogger(__name__)

PERIOD_S = 60.0


class Retained(Protocol):
    """What retention asks of the interval log."""

    async def retain(self, days: int, readers: Iterable[str], disk_budget: DiskBudget | None = None) -> int: ...


class Retention(Part):
    """Drops old files once every one of `readers` has read them, and also before where the `budget` is short."""

    service = "retention"
    component = "upstream"
    importance = Importance.SPARE

    def __init__(self, log_: Retained, *, keep_days: int, readers: Sequence[str], budget: DiskBudget) -> None:
        self._log = log_
        self._keep_days = keep_days
        self._readers = readers
        self._budget = budget

    async def run(self) -> None:
        """Look every minute, until cancelled."""
        failing = False
        while True:
            try:
                await self._log.retain(self._keep_days, self._readers, self._budget)
                failing = False
            except StorageError as error:
                if not failing:
                    log.warning("retention failed and will be tried again", extra={"error": str(error)})
                failing = True
            await asyncio.sleep(PERIOD_S)

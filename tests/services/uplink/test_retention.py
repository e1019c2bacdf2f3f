"""Retention goes on while the log cannot be tidied, and says so once."""

import asyncio
from collections.abc import Iterable

import pytest

from gateway.domain.errors import StorageError
from gateway.services.uplink.retention import PERIOD_S, Retention
from gateway.storage.interval_log.retention import DiskBudget
from tests.scenes.waiting import service


class Shelf:
    """A log that is asked to drop what is old; it cannot while it is `broken`."""

    def __init__(self) -> None:
        self.broken = False
        self.asked: list[tuple[int, tuple[str, ...], int]] = []

    async def retain(self, days: int, readers: Iterable[str], disk_budget: DiskBudget | None = None) -> int:
        if self.broken:
            raise StorageError("the disk is away")
        self.asked.append((days, tuple(readers), 0 if disk_budget is None else disk_budget(0)))
        return 0


async def test_retention_asks_every_minute_for_what_its_readers_have_and_its_budget_admits() -> None:
    shelf = Shelf()
    retention = Retention(shelf, keep_days=30, readers=["web", "leap"], budget=lambda used: used + 5)
    async with service(retention.run):
        await asyncio.sleep(2.5 * PERIOD_S)
    assert shelf.asked == [(30, ("web", "leap"), 5)] * 3


async def test_retention_that_fails_is_tried_again_and_logged_once_a_time(caplog: pytest.LogCaptureFixture) -> None:
    shelf = Shelf()
    retention = Retention(shelf, keep_days=1, readers=[], budget=lambda _: 0)
    async with service(retention.run):
        for broken in (True, False, True):
            shelf.broken = broken
            await asyncio.sleep(3 * PERIOD_S)
    assert caplog.messages == ["retention failed and will be tried again"] * 2
    assert len(shelf.asked) == 3

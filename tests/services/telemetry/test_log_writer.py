"""The way into the interval log: in order, again after a failure, and whoever reads the log is woken."""

import asyncio
from collections.abc import Sequence

from gateway.domain.errors import StorageError
from gateway.domain.intervals.records import NO_RECORDS
from gateway.services.telemetry.log_writer import LogWriter
from gateway.storage.recovery import Unlogged
from tests.scenes.waiting import service, until


class Queue:
    """Records that wait for the log, two at a time."""

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self.some = asyncio.Event()

    def put(self, *records: int) -> None:
        self.waiting += records
        self.some.set()

    async def wait_unlogged(self) -> None:
        await self.some.wait()

    def unlogged(self) -> list[Unlogged]:
        return [Unlogged(record=record, records=NO_RECORDS, ids=()) for record in self.waiting[:2]]

    def logged(self, record: int) -> None:
        self.waiting = [waits for waits in self.waiting if waits > record]
        if not self.waiting:
            self.some.clear()


class Log:
    """Takes records; `failing` refuses them."""

    def __init__(self) -> None:
        self.records: list[int] = []
        self.failing = False

    async def append(self, entries: Sequence[Unlogged]) -> int:
        if self.failing:
            raise StorageError("disk full")
        self.records += [entry.record for entry in entries]
        return len(entries)


async def test_log_writer_takes_what_waits_in_order_and_wakes_every_reader() -> None:
    queue, log, readers = Queue(), Log(), [asyncio.Event(), asyncio.Event()]
    writer = LogWriter(queue, log, readers=readers)
    queue.put(1, 2, 3)
    async with service(writer.run):
        await until(lambda: not queue.waiting)
        assert log.records == [1, 2, 3]
        assert all(reader.is_set() for reader in readers)
        for reader in readers:
            reader.clear()
        queue.put(4)
        await until(lambda: log.records == [1, 2, 3, 4])
        assert all(reader.is_set() for reader in readers)


async def test_log_writer_tries_again_what_the_log_refused_and_says_so_meanwhile() -> None:
    queue, log, reader = Queue(), Log(), asyncio.Event()
    writer = LogWriter(queue, log, readers=[reader])
    log.failing = True
    queue.put(1, 2)
    async with service(writer.run):
        await until(lambda: writer.failures == 2)
        assert (writer.reasons(), reader.is_set(), queue.waiting) == (["interval log: disk full"], False, [1, 2])
        log.failing = False
        await until(lambda: log.records == [1, 2])
        assert (writer.reasons(), reader.is_set()) == ([], True)
    assert {sample.name: sample.value for sample in writer.samples()} == {"gateway_interval_log_failures": 2}

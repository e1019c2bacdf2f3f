"""The spool: received telemetry and the interval records it causes, durable before the gateway acknowledges it.

A directory of append-only segments `<first record number, 16 digits>.spool`: 8 bytes `BFGSPL01`, then records (see
`records`). The loop queues records; one thread writes all that is queued, calls fdatasync once and reports the newest
durable record to the loop. After a failed write the thread cuts the file back to its last durable byte and writes the
same records again, in order. A process never appends to the segments of an earlier one.

The size limit holds for what a checkpoint can free. A record counts with at most an eighth of it, and all segments of
earlier processes with at most half: otherwise one record or one start could be refused for ever.
"""

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from gateway.domain.errors import StorageError, invariant
from gateway.files import sync_directory
from gateway.observability.parts import Part
from gateway.storage.spool.records import HEADER_BYTES, Kind, Record, frame, records_in

log = logging.getLogger(__name__)

SEGMENT_MAGIC = b"BFGSPL01"
SUFFIX = ".spool"
CORRUPT_SUFFIX = ".corrupt"
CORRUPT_KEPT = 4
COMMIT_BYTES = 8 << 20
PAUSE_PART = 0.9
RECORD_PART, SEGMENT_PART, EARLIER_PART = 1 / 8, 1 / 4, 1 / 2
RETRY_S = (0.05, 0.2, 1.0, 5.0)
STOP_S = 15.0

Preface = Callable[[], tuple[Kind, Sequence[bytes]]]


@dataclass(slots=True)
class SpoolStats:
    """Counters of the writer. `failing`: the reason why records do not become durable now, None if they do."""

    records: int = 0
    bytes: int = 0
    commits: int = 0
    failures: int = 0
    segments: int = 0
    segment_bytes: int = 0
    uncounted_bytes: int = 0
    dropped_segments: int = 0
    corrupt_segments: int = 0
    failing: str | None = None


@dataclass(frozen=True, slots=True)
class _Item:
    number: int
    data: bytes
    opens: bool


class Spool(Part):
    """Appends records; `durable_record` is the newest durable one. `gate` is set; clear it to delay commits."""

    def __init__(
        self,
        directory: Path,
        *,
        first_record: int,
        preface: Preface,
        segment_bytes: int = 64 << 20,
        max_bytes: int = 8 << 30,
        queue_bytes: int = 32 << 20,
        corrupt: Sequence[Path] = (),
    ) -> None:
        invariant(first_record > 0, "record numbers begin at 1")
        self.directory = directory
        self.session = first_record
        self.stats = SpoolStats()
        self.gate = threading.Event()
        self.gate.set()
        self.last_record = first_record - 1
        self.durable_record = first_record - 1
        self._preface = preface
        self._segment_limit = min(segment_bytes, int(SEGMENT_PART * max_bytes))
        self._max_bytes = max_bytes
        self._queue_limit = queue_bytes
        self._corrupt = set(corrupt)
        self._left = 0
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._work = threading.Condition()
        self._queue: deque[_Item] = deque()
        self._queued_bytes = 0
        self._stopping = False
        self._segments: dict[int, int] = {}
        self._uncounted: dict[int, int] = {}
        self._fd = -1
        self._open_first = -1
        self._good = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._begin)
        self._thread.start()
        return self

    async def close(self) -> None:
        """Write what is queued, within a bound, and stop."""
        with self._work:
            self._stopping = True
            self._work.notify()
        await asyncio.to_thread(self._thread.join, STOP_S)
        for _, waiter in self._waiters:
            waiter.cancel()

    @property
    def room(self) -> bool:
        """Whether another batch may be appended; if not, pause telemetry. The last tenth of the size limit is kept for
        the records that a checkpoint waits for, because a checkpoint is what frees segments."""
        return self._queued_bytes < self._queue_limit and self._counted_bytes() < PAUSE_PART * self._max_bytes

    @property
    def queued_bytes(self) -> int:
        return self._queued_bytes

    def append(self, kind: Kind, parts: Sequence[bytes]) -> int:
        """Queue a record; returns its number. Raises StorageError when the queue reaches twice its bound."""
        invariant(self._loop is not None and not self._stopping, "the spool is open")
        if self._queued_bytes >= 2 * self._queue_limit:
            raise StorageError("the spool's queue is full")
        opens = self._left <= 0
        if opens:
            self._left = self._segment_limit
            self._push(*self._preface(), opens=True)
        return self._push(kind, parts, opens=False)

    def _push(self, kind: Kind, parts: Sequence[bytes], *, opens: bool) -> int:
        number = self.last_record + 1
        item = _Item(number, frame(kind, number, self.session, parts), opens)
        self.last_record = number
        self._left -= len(item.data)
        with self._work:
            self._queue.append(item)
            self._queued_bytes += len(item.data)
            self._work.notify()
        return number

    async def wait_durable(self, number: int) -> None:
        """Return once record `number` is durable. The caller bounds the wait: while `failing` it never ends."""
        if number <= self.durable_record:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((number, waiter))
        await waiter

    async def drop_before(self, number: int) -> int:
        """Remove segments that contain only records below `number`; set damaged ones aside. Returns how many."""
        return await asyncio.to_thread(self._drop, number)

    def _durable(self, number: int) -> None:
        self.durable_record = number
        waiting, self._waiters = self._waiters, []
        for wanted, waiter in waiting:
            if wanted > number:
                self._waiters.append((wanted, waiter))
            elif not waiter.done():
                waiter.set_result(None)

    # Below: the writer's thread.

    def _begin(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._segments = {int(path.name[: -len(SUFFIX)]): path.stat().st_size for path in segments(self.directory)}
        counted = min(1.0, EARLIER_PART * self._max_bytes / max(sum(self._segments.values()), 1))
        self._uncounted = {first: size - int(size * counted) for first, size in self._segments.items()}
        self._count_segments()

    def _run(self) -> None:
        try:
            self._write_until_stopped()
        finally:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            if not self._stopping:
                self.stats.failing = "the writer has stopped"

    def _write_until_stopped(self) -> None:
        attempt = 0
        while True:
            items = self._next()
            if items is None:
                return
            try:
                self._commit(items)
            except OSError as error:
                self._failed(error)
                with self._work:
                    if not self._stopping:
                        self._work.wait_for(lambda: self._stopping, RETRY_S[min(attempt, len(RETRY_S) - 1)])
                    if self._stopping and attempt > 0:
                        return
                attempt += 1
            else:
                attempt = 0
                self._succeeded(items)

    def _next(self) -> list[_Item] | None:
        """The records of one commit (all of one segment), None to stop."""
        with self._work:
            self._work.wait_for(lambda: self._queue or self._stopping)
            if not self._queue:
                return None
        while not self.gate.wait(0.05):
            if self._stopping:
                return None
        with self._work:
            items: list[_Item] = []
            size = 0
            for item in self._queue:
                if items and (item.opens or size + len(item.data) > COMMIT_BYTES):
                    break
                items.append(item)
                size += len(item.data)
            return items

    def _commit(self, items: list[_Item]) -> None:
        if items[0].opens and self._open_first != items[0].number:
            self._open_segment(items[0].number)
        offset = self._good
        total, most = self._counted_bytes(), int(RECORD_PART * self._max_bytes)
        uncounted = 0
        for item in items:
            counted = min(len(item.data), most)
            total += counted
            uncounted += len(item.data) - counted
            if total > self._max_bytes:
                raise OSError(errno.EDQUOT, "the spool has reached its size limit")
            view = memoryview(item.data)
            while view:
                written = os.pwrite(self._fd, view, offset)
                offset += written
                view = view[written:]
        os.fdatasync(self._fd)
        self._good = offset
        self._segments[self._open_first] = offset
        self._uncounted[self._open_first] += uncounted

    def _open_segment(self, first: int) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        path = segment_path(self.directory, first)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.pwrite(fd, SEGMENT_MAGIC, 0)
            os.fdatasync(fd)
            sync_directory(self.directory)
        except OSError:
            os.close(fd)
            raise
        self._fd, self._open_first, self._good = fd, first, len(SEGMENT_MAGIC)
        self._segments[first], self._uncounted[first] = self._good, 0
        self._count_segments()

    def _failed(self, error: OSError) -> None:
        self.stats.failures += 1
        reason = errno.errorcode.get(error.errno or 0, "unknown")
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._good)
        if self.stats.failing != reason:
            log.error("received telemetry cannot be stored", extra={"reason": reason})
        self.stats.failing = reason

    def _succeeded(self, items: list[_Item]) -> None:
        size = sum(len(item.data) for item in items)
        with self._work:
            for _ in items:
                self._queue.popleft()
            self._queued_bytes -= size
        self.stats.records += len(items)
        self.stats.bytes += size
        self.stats.commits += 1
        self._count_segments()
        if self.stats.failing is not None:
            log.info("received telemetry is stored again", extra={"was": self.stats.failing})
            self.stats.failing = None
        with contextlib.suppress(RuntimeError):  # the loop may be gone when the last commit ends
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._durable, items[-1].number)

    def _count_segments(self) -> None:
        self.stats.segments = len(self._segments)
        self.stats.segment_bytes = sum(self._segments.copy().values())
        self.stats.uncounted_bytes = sum(self._uncounted.copy().values())

    def _counted_bytes(self) -> int:
        return self.stats.segment_bytes - self.stats.uncounted_bytes

    def _drop(self, number: int) -> int:
        """Runs on another thread than the writer's, which no longer touches segments older than the open one."""
        firsts = sorted(self._segments.copy())
        dropped = 0
        for first, following in itertools.pairwise(firsts):
            if following > number:
                break
            path = segment_path(self.directory, first)
            with contextlib.suppress(FileNotFoundError):
                if path in self._corrupt:
                    self.stats.corrupt_segments += 1
                    path.rename(path.with_suffix(CORRUPT_SUFFIX))
                else:
                    path.unlink()
            del self._segments[first]
            del self._uncounted[first]
            dropped += 1
        if dropped:
            set_aside = sorted(self.directory.glob(f"*{CORRUPT_SUFFIX}"))
            for path in set_aside[:-CORRUPT_KEPT]:
                path.unlink(missing_ok=True)
            sync_directory(self.directory)
            self.stats.dropped_segments += dropped
            self._count_segments()
        return dropped


@dataclass(slots=True)
class Scan:
    """Reads a spool in order. Its fields count what it met; they are complete once the iteration has ended."""

    directory: Path
    last_record: int = 0
    records: int = 0
    torn_bytes: int = 0
    damaged_bytes: int = 0
    corrupt: list[Path] = field(default_factory=list)

    def __iter__(self) -> Iterator[Record]:
        """Every intact record. Cuts off a torn end; damage elsewhere marks the segment, and reading goes on."""
        paths = segments(self.directory)
        for index, path in enumerate(paths):
            follows = int(paths[index + 1].name[: -len(SUFFIX)]) if index + 1 < len(paths) else None
            yield from self._segment(path, follows)

    def _segment(self, path: Path, follows: int | None) -> Iterator[Record]:
        data = memoryview(path.read_bytes())
        expected = len(SEGMENT_MAGIC)
        damaged = 0
        found = False
        for at, record in records_in(data, min(expected, len(data))):
            damaged += at - expected
            expected = at + HEADER_BYTES + len(record.payload)
            if record.number <= self.last_record:
                continue
            self.last_record = record.number
            self.records += 1
            found = True
            yield record
        tail = len(data) - expected
        self.damaged_bytes += damaged
        torn = damaged == 0 and (follows is None or follows == self.last_record + 1)
        if damaged or (tail > 0 and not torn):
            self.corrupt.append(path)
            self.damaged_bytes += max(tail, 0)
            log.error("a spool segment is damaged", extra={"segment": path.name, "bytes": damaged + max(tail, 0)})
        elif tail:
            self.torn_bytes += max(tail, 0)
            log.warning("cut off the torn end of a spool segment", extra={"segment": path.name, "bytes": tail})
            if found:
                os.truncate(path, expected)
            else:
                path.rename(path.with_suffix(CORRUPT_SUFFIX))


def segments(directory: Path) -> list[Path]:
    """The segments of a spool, oldest first."""
    if not directory.is_dir():
        return []
    return sorted(p for p in directory.glob(f"*{SUFFIX}") if p.name[: -len(SUFFIX)].isdigit())


def segment_path(directory: Path, first: int) -> Path:
    return directory / f"{first:016d}{SUFFIX}"

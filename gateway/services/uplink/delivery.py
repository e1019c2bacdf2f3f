"""Carries interval records from the log to the sinks: one position, one window and one back-off per sink.

New records go first. A sink that was away for long gets new records at once and catches up on the rest meanwhile,
oldest first, at a bounded rate; of the rest, a record with a newer revision is superseded and not sent, so that none
arrives after its newer one. What a receiver refuses for good is parked and reported, and can be sent again.

A batch that a receiver cannot accept as a whole is halved until one record is left, a suspect. It is parked only on
evidence: the receiver accepts another record (a witness) after it refused the suspect, and then refuses the suspect
once more. A receiver that accepts no witness is ill: nothing is parked, and it is tried again later.
"""

import asyncio
import contextlib
import hashlib
import logging
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, assert_never

import numpy as np

from gateway.clock import Clock
from gateway.domain.errors import StorageError
from gateway.domain.intervals.columns import IntervalColumns, columns_of_objects
from gateway.domain.intervals.completeness import RowOutcome
from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.types import Bools
from gateway.observability.episodes import Episode
from gateway.observability.metrics import Sample
from gateway.observability.parts import Importance, Part
from gateway.ports.sinks import Accept, IntervalBatch, Keep, Reject, Sink, SinkResult, Stop
from gateway.schemas.interval_rows import rfc3339
from gateway.services.uplink.metrics import SinkStats
from gateway.storage.interval_log.outcomes import Given, Outcomes, Places
from gateway.storage.interval_log.positions import Cursor, Parked, Position
from gateway.storage.interval_log.rows import Identity

log = logging.getLogger(__name__)

RETRY_BASE_S = 0.5
RETRY_CAP_S = 60.0
READ_RETRY_S = 1.0
BACKLOG_EVERY_S = 60.0
BEHIND_BATCHES = 20
BACKFILLS_MAX = 8
PART_ROWS = 5_000
WITNESS_ROWS = 1_000


class IntervalReader(Protocol):
    """What delivery asks of the interval log."""

    async def read_columns(
        self, cursor: Cursor, limit: int, until: Cursor | None = None
    ) -> tuple[IntervalColumns, Places, Cursor]: ...

    async def end(self) -> Cursor: ...

    async def position_of(self, name: str) -> Position: ...

    async def save_position(
        self, name: str, position: Position, parked: Sequence[Parked] = (), unparked: Sequence[Identity] = (),
        given: Given | None = None,
    ) -> None: ...  # fmt: skip

    async def backlog(self, position: Position) -> int: ...


class Finder(Protocol):
    """Finds records that are marked to be sent again, and those that are no longer to be sent."""

    async def again(self, name: str, limit: int) -> tuple[Sequence[IntervalRecord], Sequence[Identity]]:
        """The records as they are now, and the identities that wait (also of those that are gone)."""
        ...

    async def superseded(self, rows: IntervalColumns) -> Bools:
        """By row, whether the log has a newer revision of its interval."""
        ...


def identity(record: IntervalRecord) -> Identity:
    """Start, device and revision."""
    return record.start_ms, record.device, record.revision


def batch_id(columns: IntervalColumns) -> str:
    """The same for the same rows in the same order, so that a receiver can recognise a repetition."""
    digest = hashlib.sha256()
    records = columns.records
    hashes = (f"{value:016x}" if value else "" for value in records.hash.tolist())
    numbers = (records.start_ms.tolist(), records.revision.tolist())
    for row in zip(columns.device_of_each(), *numbers, hashes, strict=True):
        digest.update(repr(row).encode())
    return digest.hexdigest()[:32]


def _given_again(rows: IntervalColumns, outcomes: Outcomes) -> Given:
    numbers = (rows.records.start_ms.tolist(), rows.device_of_each(), rows.records.revision.tolist())
    return Given(again=dict(zip(zip(*numbers, strict=True), map(RowOutcome, outcomes.tolist()), strict=True)))


async def _batch(rows: IntervalColumns, *, again: bool) -> IntervalBatch:
    return IntervalBatch(id=await asyncio.to_thread(batch_id, rows), columns=rows, again=again)


def _last_accepted(rows: IntervalColumns, refused: Mapping[int, str]) -> IntervalColumns | None:
    """The last of the rows that was not refused, alone."""
    place = next((at for at in range(len(rows) - 1, -1, -1) if at not in refused), None)
    return None if place is None else rows.rows(np.array([place], dtype=np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """The outcome of a batch: whether the sink is `done` with it, except for `refused` (by position); else how long to
    wait, None = until somebody asks for another try."""

    done: bool = True
    wait_s: float | None = None
    refused: Mapping[int, str] = field(default_factory=dict)


class SinkDelivery(Part):
    """Delivers the log to one sink, at least once. `rate` bounds rows per second, so that a backlog does not flood the
    receiver; `gather_s`: how long to wait for more rows once all are sent, for receivers that prefer few large
    batches; `news` is set when the log has grown."""

    component = "upstream"
    importance = Importance.SPARE

    def __init__(
        self, sink: Sink, *, log_: IntervalReader, finder: Finder, clock: Clock, rng: random.Random,
        rate: float = 10_000.0, gather_s: float = 0.0,
    ) -> None:  # fmt: skip
        self.service = f"delivery-{sink.name}"
        self.sink = sink
        self.stats = SinkStats()
        self._log = log_
        self._finder = finder
        self._clock = clock
        self._rng = rng
        self._rate = rate
        self._gather_s = gather_s
        self.news = asyncio.Event()
        self._retry = asyncio.Event()
        self._resend = True
        self._batch_rows = sink.batch_rows
        self._failures = 0
        self._position = Position()
        self._refusals = Episode()
        self._told: set[str] = set()
        self._last: IntervalColumns | None = None

    def resend(self) -> None:
        """Call after records were marked to be sent again."""
        self._resend = True
        self.news.set()

    def retry(self) -> None:
        """Try again now what waits: somebody has mended what kept it."""
        self._retry.set()

    @property
    def position(self) -> Position:
        """The sink's position in the log."""
        return self._position

    async def run(self) -> None:
        """Serve until cancelled. A crash between the receiver's answer and the saved position repeats one batch."""
        self._position = await self._log.position_of(self.sink.name)
        self._failures = 0
        waiting = False
        while True:
            self.news.clear()
            try:
                worked = await self._step()
            except StorageError as error:
                # records that wait to be sent again may not have been read
                self._resend = True
                if not waiting:
                    log.warning(
                        "a sink waits for the interval log", extra={"sink": self.sink.name, "error": str(error)}
                    )
                waiting = True
                await asyncio.sleep(READ_RETRY_S)
                continue
            waiting = False
            if not worked:
                self.stats.oldest_ms, self.stats.backlog = None, 0
                await self.news.wait()
                if self._gather_s:
                    await asyncio.sleep(self._gather_s)

    def samples(self) -> Iterable[Sample]:
        return self.stats.samples(self.sink.name, self._clock.now())

    def warnings(self) -> list[str]:
        """Why the receiver does not accept: the log keeps what it lacks."""
        stats = self.stats
        if not stats.failing:
            return []
        return [f"sink {self.sink.name}: {stats.failing}" + (" (stopped: somebody must act)" if stats.stopped else "")]

    async def _step(self) -> bool:
        """Deliver one batch: new records, else marked ones, else the backlog. Returns whether there was one."""
        here = self._position
        rows, places, after = await self._log.read_columns(here.live, self._batch_rows)
        if len(rows):
            if len(rows) == self._batch_rows:
                self.stats.backlog = await self._log.backlog(here)
                if self.stats.backlog > BEHIND_BATCHES * self.sink.batch_rows and len(here.backfill) < BACKFILLS_MAX:
                    self._position = here.left_behind(await self._log.end())
                    await self._log.save_position(self.sink.name, self._position)
                    return True
            else:
                self.stats.backlog = len(rows)
            await self._deliver(rows, Position(live=after, backfill=here.backfill), places)
            return True
        if self._resend:
            # records marked during the query must be queried again
            self._resend = False
            found, waiting = await self._finder.again(self.sink.name, self._batch_rows)
            if waiting:
                self._resend = True
                await self._deliver(await asyncio.to_thread(columns_of_objects, found), here, waiting=waiting)
                return True
        if here.backfill:
            part = here.backfill[0]
            rows, places, after = await self._log.read_columns(part.after, self._batch_rows, part.until)
            self.stats.backlog = await self._log.backlog(here)
            await self._deliver(rows, here.caught_up(after if len(rows) else part.until), places, late=True)
            return True
        return False

    async def _deliver(
        self, rows: IntervalColumns, then: Position, places: Places | None = None, *,
        waiting: Sequence[Identity] = (), late: bool = False,
    ) -> None:  # fmt: skip
        """Offer rows; if the sink is not done with them, wait and leave them for the next step. `places` of rows in
        their turn; `waiting` identities are cleared, whatever the receiver answers. `late`: newer records than these
        were delivered already."""
        began_ms = self._clock.mono_ms()
        outcomes = np.full(len(rows), RowOutcome.ACCEPTED, dtype=np.uint8)
        due = np.arange(len(rows))
        if late:
            # a newer revision may have been delivered before their turn: the older one must not follow it
            over = await self._finder.superseded(rows)
            outcomes[over] = RowOutcome.SUPERSEDED
            due = due[~over]
        if len(due):
            self.stats.oldest_ms = int(rows.records.start_ms[due[0]])
        picked = await self._picked(rows.rows(due))
        outcomes[due[~picked]] = RowOutcome.NOT_WANTED
        due = due[picked]
        wanted = rows if len(due) == len(rows) else rows.rows(due)
        batch: IntervalBatch | None = None
        outcome = _Outcome()
        if len(wanted):
            batch = await _batch(wanted, again=bool(waiting))
            result = await self.sink.send(batch)
            if isinstance(result, Keep) and result.whole and len(wanted) == 1:
                result = await self._suspected(batch, result, then)
            outcome = self._judge(batch, result)
        if not outcome.done:
            self._failures += 1
            await self._pause(outcome.wait_s)
            return
        self._failures = 0
        self._batch_rows = min(2 * self._batch_rows, self.sink.batch_rows)
        at_ms = self._clock.now().utc_ms
        refused = np.array([*outcome.refused], dtype=np.int64)
        outcomes[due[refused]] = RowOutcome.REFUSED
        parked = [
            Parked(identity=identity(record), reason=reason, at_ms=at_ms)
            for record, reason in zip(wanted.rows(refused).objects(), outcome.refused.values(), strict=True)
        ]
        given = _given_again(rows, outcomes) if places is None else Given.of(places, outcomes)
        await self._log.save_position(self.sink.name, then, parked, waiting, given)
        self._position = then
        self._last = _last_accepted(wanted, outcome.refused) or self._last
        if batch is not None:
            await self.sink.settled(batch)
        self.stats.resent += len(waiting)
        self.stats.superseded += int((outcomes == RowOutcome.SUPERSEDED).sum())
        spent_s = (self._clock.mono_ms() - began_ms) / 1000
        await asyncio.sleep(max(len(wanted) / self._rate - spent_s, 0.0))

    async def _suspected(self, suspect: IntervalBatch, kept: Keep, then: Position) -> SinkResult:
        """What becomes of a lone record that was refused: after a witness is accepted, a second refusal is for good."""
        for witness in await self._witnesses(then):
            match await self.sink.send(await _batch(witness, again=True)):
                case Accept():
                    second = await self.sink.send(suspect)
                    refused = isinstance(second, Keep) and second.whole
                    return Reject(refused={0: kept.reason}) if refused else second
                case Stop() as stop:
                    return stop
        return kept

    async def _witnesses(self, then: Position) -> list[IntervalColumns]:
        """Records to tell an ill receiver by: the one that it accepted last, and one at random of those that follow the
        suspect, which is delivered once more in its turn."""
        found = [] if self._last is None else [self._last]
        unread = ((then.live, None), *((part.after, part.until) for part in then.backfill))
        for after, until in unread:
            rows, _, _ = await self._log.read_columns(after, WITNESS_ROWS, until)
            rows = rows.rows(~await self._finder.superseded(rows))
            wants = map(self.sink.wants, rows.device_of_each(), rows.records.length_s.tolist())
            places = [at for at, wanted in enumerate(wants) if wanted]
            if places:
                found.append(rows.rows(np.array([self._rng.choice(places)], dtype=np.int64)))
                break
        return found

    async def _picked(self, rows: IntervalColumns) -> Bools:
        """By row, whether it is for this sink; a large batch is filtered in parts, other tasks run between them."""
        wanted: list[bool] = []
        for at in range(0, len(rows), PART_ROWS):
            part = rows.rows(slice(at, at + PART_ROWS))
            wanted += self.sink.pick(part.device_of_each(), part.records.length_s.tolist())
            if at + PART_ROWS < len(rows):
                await asyncio.sleep(0)
        return np.array(wanted, dtype=np.bool_)

    async def _pause(self, wait_s: float | None) -> None:
        """Wait, or until somebody asks for another try; meanwhile the backlog is told as it grows."""
        left_s = math.inf if wait_s is None else wait_s
        while left_s > 0:
            try:
                async with asyncio.timeout(min(left_s, BACKLOG_EVERY_S)):
                    await self._retry.wait()
                break
            except TimeoutError:
                left_s -= BACKLOG_EVERY_S
            if left_s > 0:
                with contextlib.suppress(StorageError):
                    self.stats.backlog = await self._log.backlog(self._position)
        self._retry.clear()

    def _judge(self, batch: IntervalBatch, result: SinkResult) -> _Outcome:
        rows = batch.columns
        match result:
            case Accept():
                self.stats.accepted += len(rows)
                self._recovered()
                return _Outcome()
            case Reject(refused=refused):
                self.stats.accepted += len(rows) - len(refused)
                self._refused(rows, refused)
                self._recovered()
                return _Outcome(refused=refused)
            case Keep(reason=reason, after_s=after_s, whole=whole):
                return self._kept(rows, reason, after_s, whole=whole)
            case Stop():
                return self._stopped(result)
            case _:
                assert_never(result)

    def _stopped(self, stop: Stop) -> _Outcome:
        self.stats.kept += 1
        if not self.stats.stopped or self.stats.failing != stop.reason:
            log.error(
                "a sink stopped and needs somebody to act; then `gateway sinks retry` or a restart lets it go on",
                extra={"sink": self.sink.name, "reason": stop.reason, "detail": stop.detail},
            )
        self.stats.failing, self.stats.detail, self.stats.stopped = stop.reason, stop.detail, True
        return _Outcome(done=False, wait_s=stop.retry_s)

    def _kept(self, rows: IntervalColumns, reason: str, after_s: float, *, whole: bool) -> _Outcome:
        self.stats.kept += 1
        if reason not in self._told:
            self._told.add(reason)
            log.warning("receiver does not accept interval records", extra={"sink": self.sink.name, "reason": reason})
        self.stats.failing, self.stats.detail, self.stats.stopped = reason, "", False
        if whole:
            self._batch_rows = max(1, min(self._batch_rows, len(rows)) // 2)
        ceiling = min(RETRY_CAP_S, RETRY_BASE_S * 2 ** min(self._failures, 10))
        return _Outcome(done=False, wait_s=float(max(after_s, self._rng.uniform(0.1, 1.0) * ceiling)))

    def _refused(self, rows: IntervalColumns, refused: Mapping[int, str]) -> None:
        self.stats.rejected += len(refused)
        for reason in refused.values():
            known = reason if reason in self.stats.refused or len(self.stats.refused) < 64 else "other"
            self.stats.refused[known] = self.stats.refused.get(known, 0) + 1
        now_ms = self._clock.mono_ms()
        for reason, count in Counter(refused.values()).items():
            if self._refusals.add(reason, count, now_ms):
                place = min(at for at, why in refused.items() if why == reason)
                (first,) = rows.rows(slice(place, place + 1)).objects()
                log.error(
                    "receiver refused interval records; they are parked",
                    extra={"sink": self.sink.name, "reason": reason, "count": count, "device": first.device,
                           "start": rfc3339(first.start_ms)},
                )  # fmt: skip

    def _recovered(self) -> None:
        if self.stats.failing is not None:
            log.info("receiver accepts interval records again", extra={"sink": self.sink.name})
        self.stats.failing, self.stats.detail, self.stats.stopped = None, "", False
        self._told.clear()
        counts = self._refusals.over(self._clock.mono_ms())
        if counts:
            log.info("receiver refuses no more interval records", extra={"sink": self.sink.name, "reasons": counts})

"""Keeps our enrollments in step with the aggregator's: reads all of them, states what is new, lists what contradicts.

A read states what the aggregator says of each meter and delivery period, as a table would. What it does not show
states nothing. Where an owner sits out here or there, they sit out; that the two differ is listed, and what owners want
here is proposed there. A webhook is a hint to read.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson

from gateway.clock import Clock
from gateway.domain.errors import GatewayError, InvalidInput, Retry, pause_ceiling_s, retry_of
from gateway.domain.journal.changes import AuditDoor
from gateway.domain.programs.facts import OwnerPreference, Preference, SubjectKind
from gateway.observability.metrics import Sample, counter, gauge
from gateway.observability.parts import Importance, Part
from gateway.ports.programs import StoredFact
from gateway.schemas.interval_rows import rfc3339
from gateway.services.programs.enrollment import Enrollments
from gateway.services.programs.peer_words import preference_of
from gateway.services.programs.wishes import OwnerWishes
from gateway.signals.leap_account.enrollments import (
    MEMBER,
    SEARCH,
    MeterEnrollment,
    RequiredAction,
    Row,
    meter_enrollment,
)
from gateway.transports.leap.client import SEARCH_PAGES, LeapClient

log = logging.getLogger(__name__)

BY = "leap"
PACE_S = 30.0
"""How often all may be read, whatever hints come."""
BASE_S, CAP_S = 5.0, 600.0
LATE = 3
"""Reads are overdue when none ended well for so many times their schedule."""
LISTED_MAX = 1_000
READS_MAX = 4
"""A list of several pages is read until a reading shows no meter that those before it did not, or so often."""

SLICE = 100
OUTCOMES = ("complete", "later", "after_change", "never")

AGE = gauge(
    "gateway_leap_enrollment_age_seconds", "Since the newest read of enrollments that ended well, or the start."
)
READS = counter("gateway_leap_enrollment_reads", "Reads of all enrollments, by how they ended.", outcome=OUTCOMES)
METERS = gauge("gateway_leap_enrollment_meters", "Meters that the newest read found.")
CONFLICTS = gauge("gateway_leap_enrollment_conflicts", "What of them contradicts our book.")
ACTIONS = gauge("gateway_leap_enrollment_actions", "What is to be done for them by us.")


@dataclass(slots=True, kw_only=True)
class SyncReport:
    """What a read found: `changed` rows said something new. `conflicts` in words, `actions` in the aggregator's;
    `proposed` and `withdrawn`: rows of the outbox that owners' wishes came to."""

    at_ms: int
    meters: int = 0
    rows: int = 0
    changed: int = 0
    proposed: int = 0
    withdrawn: int = 0
    conflicts: list[str] = field(default_factory=list)
    actions: list[RequiredAction] = field(default_factory=list)


class LeapSync(Part):
    """Reads on a schedule (`every_s` None: when asked alone) and within a minute after our book has changed, when a
    webhook hints at something, and within a minute while events name homes that are not active in our book
    (`mismatched` of them). `wishes`: what proposes those of owners; None: nobody does."""

    service = "leap-sync"
    component = "programs"
    importance = Importance.SPARE

    def __init__(
        self, client: LeapClient, enrollments: Enrollments, *, program_of: Mapping[str, str], clock: Clock,
        every_s: float | None, mismatched: Callable[[], int], rng: random.Random, wishes: OwnerWishes | None = None,
    ) -> None:  # fmt: skip
        self.failing = ""
        self.newest: SyncReport | None = None
        self._client = client
        self._enrollments = enrollments
        self._wishes = wishes
        self._program_of = program_of
        self._clock = clock
        self._every_s = every_s
        self._mismatched = mismatched
        self._rng = rng
        self._hinted = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._began_mono_ms = clock.mono_ms()
        self._well_mono_ms: int | None = None
        self._read_version = enrollments.book.version
        self._counts = dict.fromkeys(OUTCOMES, 0)

    async def close(self) -> None:
        await self._client.close()

    def hint(self) -> None:
        """Something may have changed at the aggregator."""
        self._hinted.set()

    async def run(self) -> None:
        """Read, and wait for the next reason to."""
        failures = 0
        if self._every_s is None:
            await self._asked_for()
        while True:
            try:
                await self.sync()
            except (GatewayError, OSError) as error:
                retry = Retry.LATER if isinstance(error, OSError) else retry_of(error)
                if retry is Retry.NEVER:
                    raise
                ceiling_s = pause_ceiling_s(retry, failures, base_s=BASE_S, cap_s=CAP_S)
                await asyncio.sleep(ceiling_s * self._rng.uniform(0.5, 1.0))
                failures += 1
                continue
            failures = 0
            await self._due()

    async def _asked_for(self) -> None:
        """Wait for a hint, or for homes that events name though they are not active."""
        while not self._hinted.is_set() and not self._mismatched():
            with suppress(TimeoutError):
                async with asyncio.timeout(PACE_S):
                    await self._hinted.wait()

    async def _due(self) -> None:
        """Wait for the next read: never sooner than `PACE_S`."""
        waited_s = 0.0
        while True:
            await asyncio.sleep(PACE_S)
            waited_s += PACE_S
            if self._hinted.is_set() or self._mismatched():
                return
            if self._every_s is None:
                continue
            if waited_s >= self._every_s or self._enrollments.book.version != self._read_version:
                return

    async def sync(self) -> SyncReport:
        """Read all enrollments and state them. Raises what asking the aggregator raises, StorageError."""
        async with self._one_at_a_time:
            self._hinted.clear()
            try:
                report = await self._read()
            except (GatewayError, OSError) as error:
                retry = Retry.LATER if isinstance(error, OSError) else retry_of(error)
                self._counts[retry.value] += 1
                if self.failing != str(error):
                    log.warning("enrollments of the aggregator cannot be read", extra={"error": str(error)})
                self.failing = str(error)
                raise
            self.failing, self.newest = "", report
            self._read_version = self._enrollments.book.version
            self._well_mono_ms = self._clock.mono_ms()
            self._counts["complete"] += 1
            return report

    async def _read_pages(self, found: dict[str, MeterEnrollment], now: datetime) -> int:
        """Read the list once, into what was found; returns how many pages it had. Pages of a list that changes under
        the reader shift: one may be shown twice, and then the later reading counts, and one not at all."""
        pages = 0
        async for page in self._client.pages("POST", SEARCH, paging=SEARCH_PAGES, body={}):
            pages += 1
            entries = page.get(MEMBER)
            for number, entry in enumerate(entries if isinstance(entries, list) else []):
                if number % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
                one = meter_enrollment(entry, now) if isinstance(entry, Mapping) else None
                if one is not None:
                    found[one.meter] = one
        return pages

    async def _read(self) -> SyncReport:
        now_ms = self._clock.now().utc_ms
        now = datetime.fromtimestamp(now_ms / 1000, tz=UTC)
        report = SyncReport(at_ms=now_ms)
        found: dict[str, MeterEnrollment] = {}
        for _ in range(READS_MAX):
            known = len(found)
            pages = await self._read_pages(found, now)
            if pages < 2 or len(found) == known:
                break
        report.meters = len(found)
        rows: dict[tuple[str, str, str], Row] = {}
        for one in found.values():
            report.conflicts += one.problems
            report.actions += [action for action in one.actions if action.whose == "partner"]
            for row in one.rows:
                theirs = row["program_identifier"]
                ours = {name: value for name, value in row.items() if name != "program_identifier"}
                ours["program"] = self._program_of.get(theirs, theirs)
                rows[row["meter_id"], theirs, row["delivery_period"]] = ours
        report.rows = len(rows)
        await self._state(list(rows.values()), report)
        stored = await self._enrollments.stored((OwnerPreference,))
        await self._state(await asyncio.to_thread(_outlived, rows, found, stored, now_ms), report)
        if self._wishes is not None:
            told = await self._wishes.settle(found)
            report.conflicts += told.conflicts
            report.proposed, report.withdrawn = told.proposed, told.withdrawn
        del report.conflicts[LISTED_MAX:], report.actions[LISTED_MAX:]
        return report

    async def _state(self, rows: list[Row], report: SyncReport) -> None:
        if not rows:
            return
        text = await asyncio.to_thread(lambda: b"\n".join(map(orjson.dumps, rows)).decode())
        try:
            told = await self._enrollments.import_enrollments(text, form="jsonl", by=BY, door=AuditDoor.GATEWAY)
        except InvalidInput as error:
            report.conflicts += error.problems
            return
        report.changed += told.changed
        for bad in told.bad:
            row = rows[bad.line - 1]
            words = "; ".join(f"{fault.column}: {fault.problem}" for fault in bad.faults)
            report.conflicts.append(f"{row['meter_id']} in {row['delivery_period']}: {words}")

    def samples(self) -> Iterable[Sample]:
        since_ms = self._began_mono_ms if self._well_mono_ms is None else self._well_mono_ms
        yield AGE.sample((self._clock.mono_ms() - since_ms) / 1000)
        yield from READS.each(self._counts)
        if self.newest is not None:
            yield METERS.sample(self.newest.meters)
            yield CONFLICTS.sample(len(self.newest.conflicts))
            yield ACTIONS.sample(len(self.newest.actions))

    def warnings(self) -> list[str]:
        found = [f"enrollments of the aggregator cannot be read: {self.failing}"] if self.failing else []
        since_ms = self._began_mono_ms if self._well_mono_ms is None else self._well_mono_ms
        late = self._every_s is not None and self._clock.mono_ms() - since_ms > LATE * self._every_s * 1000
        if late and not found:
            found.append("enrollments of the aggregator were not read for long")
        if self.newest is not None and self.newest.conflicts:
            found.append(f"enrollments: {len(self.newest.conflicts)} conflicts with the aggregator")
        return found


def _outlived(
    rows: Mapping[tuple[str, str, str], Row], found: Mapping[str, MeterEnrollment], stored: Iterable[StoredFact],
    now_ms: int,
) -> list[Row]:  # fmt: skip
    """Rows that say from now on what the aggregator says of now, where another word began later and would count: an
    earlier one of the aggregator, which took a time out back or says that it began before, or one of ours, where the
    owner sits out there."""
    newest: dict[tuple[str, str], tuple[OwnerPreference, bool]] = {}
    for one in stored:
        wish = one.fact
        if not isinstance(wish, OwnerPreference) or wish.subject.kind is not SubjectKind.LEAP_METER:
            continue
        if wish.from_ms <= now_ms and (wish.until_ms is None or now_ms < wish.until_ms):
            before = newest.get((wish.subject.id, wish.program))
            if before is None or (before[0].from_ms, before[0].revision) < (wish.from_ms, wish.revision):
                newest[wish.subject.id, wish.program] = wish, one.door == AuditDoor.GATEWAY
    again = []
    for (meter, _, _), row in rows.items():
        holds, known = found[meter].holds, newest.get((meter, row["program"]))
        if known is None or not holds:
            continue
        wish, theirs = known
        said = preference_of(holds["participation_preference"])
        # who sits out by our own word goes on doing so
        counts = theirs or wish.preference is Preference.PARTICIPATE
        if counts and said != (wish.preference, wish.peer_preference):
            rest = {name: value for name, value in row.items() if not name.startswith("participation_")}
            again.append(rest | holds | {"participation_start_time": rfc3339(now_ms)})
    return again

"""Follows nominations at the aggregator: what became of each suggestion, what holds, and new suggestions as rows of the
outbox, which go with another person's leave alone."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from gateway.clock import Clock
from gateway.domain.errors import GatewayError, InvalidInput, Retry, pause_ceiling_s, retry_of
from gateway.domain.programs.enrollment import in_force
from gateway.domain.programs.facts import Enrollment, EnrollmentStatus, SubjectKind
from gateway.domain.programs.nominations import (
    KW_MAX,
    Nomination,
    NominationState,
    Suggestion,
    judged,
    shared_kw,
)
from gateway.domain.programs.outbox import OutboxRow, WriteKind, WriteState
from gateway.observability.metrics import Sample, gauge, words
from gateway.observability.parts import Importance, Part
from gateway.services.programs.enrollment import Enrollments
from gateway.services.programs.outbox import PROPOSED_MAX, ChangeOutbox, Proposal
from gateway.signals.leap_account import nominations as wire
from gateway.transports.leap.client import SEARCH_PAGES, LeapClient

log = logging.getLogger(__name__)

BASE_S, CAP_S = 5.0, 600.0
SLICE = 100
PAGE = 5_000
ROWS_MAX = 200_000

AGE = gauge(
    "gateway_leap_nomination_age_seconds", "Since the newest read of nominations that ended well, or the start."
)
STATES = gauge(
    "gateway_leap_nominations", "Suggested nominations that are not over, by what became of them.",
    state=words(NominationState),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class NominationSeen:
    """A suggestion with what became of it. `program`: ours; `sent_kw`: what was sent from here, None = nothing was."""

    suggestion: Suggestion
    program: str
    state: NominationState
    sent_kw: float | None


@dataclass(slots=True, kw_only=True)
class NominationReport:
    """What a read found: suggestions by meter and first day, and the same by what became of them; what holds of each
    meter."""

    at_ms: int
    seen: list[NominationSeen] = field(default_factory=list)
    by_state: dict[NominationState, list[NominationSeen]] = field(default_factory=dict)
    holding: dict[str, list[Nomination]] = field(default_factory=dict)
    holding_total: int = 0

    def count(self, state: NominationState) -> int:
        """How many suggestions became of this."""
        return len(self.by_state.get(state, ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggested:
    """What came of a power that was to be suggested: rows, over so many meters, and the kW in them."""

    rows: Sequence[OutboxRow]
    meters: int
    kw: float


class Nominations(Part):
    """Reads on a schedule (`every_s` None: when asked alone). `program_of`: our program for each id that the aggregator
    has; `rating_w`: the power of the batteries behind a meter at an instant, W; `zone_of`: the zone of each program."""

    service = "leap-nominations"
    component = "programs"
    importance = Importance.SPARE

    def __init__(
        self, client: LeapClient, outbox: ChangeOutbox, enrollments: Enrollments, *, program_of: Mapping[str, str],
        zone_of: Mapping[str, str], rating_w: Callable[[Sequence[str], int], list[float]], clock: Clock,
        every_s: float | None, rng: random.Random,
    ) -> None:  # fmt: skip
        self.failing = ""
        self.newest: NominationReport | None = None
        self._client = client
        self._outbox = outbox
        self._enrollments = enrollments
        self._program_of = program_of
        self._zone_of = zone_of
        self._rating_w = rating_w
        self._clock = clock
        self._every_s = every_s
        self._rng = rng
        self._one_at_a_time = asyncio.Lock()
        self._well_mono_ms = clock.mono_ms()

    async def close(self) -> None:
        await self._client.close()

    async def run(self) -> None:
        """Read on schedule, with patience while that fails."""
        failures = 0
        while self._every_s is None:
            await asyncio.sleep(CAP_S)
        while True:
            try:
                await self.read()
                failures, pause_s = 0, self._every_s
            except (GatewayError, OSError) as error:
                retry = Retry.LATER if isinstance(error, OSError) else retry_of(error)
                if retry is Retry.NEVER:
                    raise
                pause_s = pause_ceiling_s(retry, failures, base_s=BASE_S, cap_s=CAP_S) * self._rng.uniform(0.5, 1.0)
                failures += 1
            await asyncio.sleep(pause_s)

    async def read(self) -> NominationReport:
        """Read all suggestions that are not over, and all nominations that hold. Raises what asking the aggregator
        raises, StorageError."""
        async with self._one_at_a_time:
            try:
                report = await self._read()
            except (GatewayError, OSError) as error:
                if self.failing != str(error):
                    log.warning("nominations cannot be read", extra={"error": str(error)})
                self.failing = str(error)
                raise
            self.failing, self.newest = "", report
            self._well_mono_ms = self._clock.mono_ms()
            return report

    async def suggest(self, program: str, kw: float, *, since: date, until: date | None, by: str) -> Suggested:
        """Propose a power of a program, in kW, over its meters that are active on the first day, in proportion to their
        batteries. Raises InvalidInput, StorageError, and what asking the aggregator raises."""
        theirs = [peer_id for peer_id, ours in self._program_of.items() if ours == program]
        faults = [] if len(theirs) == 1 else [f"program: {program[:64]}: the aggregator has {len(theirs)} of that name"]
        if not 0 < kw <= KW_MAX * ROWS_MAX:
            faults.append("kw: a power above 0")
        if until is not None and until <= since:
            faults.append("end_date: not after start_date; the day itself is excluded")
        if faults:
            raise InvalidInput(faults)
        weights = await self._weights(program, since)
        parts = shared_kw(kw, weights)
        if not parts:
            raise InvalidInput([f"program: {program} has no active meter with batteries on {since}"])
        too_large = next((meter for meter, part in parts.items() if part > KW_MAX), None)
        if too_large is not None:
            raise InvalidInput([f"kw: more than {KW_MAX} kW of meter {too_large}"])
        end = {} if until is None else {"end_date": until.isoformat()}
        proposals = [
            Proposal(
                subject=meter,
                after={"start_date": since.isoformat(), "nomination_kw": part, "program_identifier": theirs[0]} | end,
            )
            for meter, part in parts.items()
        ]
        rows: list[OutboxRow] = []
        for first in range(0, len(proposals), PROPOSED_MAX):
            some = proposals[first : first + PROPOSED_MAX]
            rows += await self._outbox.propose(WriteKind.NOMINATION, some, by=by)
        return Suggested(rows=rows, meters=len(parts), kw=round(sum(parts.values()), 2))

    async def _weights(self, program: str, since: date) -> dict[str, float]:
        """What each active meter of a program can give, W."""
        zone = ZoneInfo(self._zone_of.get(program, "UTC"))
        at_ms = round(datetime.combine(since, time(), zone).timestamp() * 1000)
        facts = await self._enrollments.every((Enrollment,))

        def active() -> list[str]:
            of: dict[str, list[Enrollment]] = {}
            for fact in facts:
                if not isinstance(fact, Enrollment) or fact.program != program:
                    continue
                if fact.subject.kind is SubjectKind.LEAP_METER:
                    of.setdefault(fact.subject.id, []).append(fact)
            held = ((meter, in_force(some, at_ms)) for meter, some in of.items())
            return sorted(m for m, one in held if one is not None and one.status is EnrollmentStatus.ACTIVE)

        meters = await asyncio.to_thread(active)
        weights: dict[str, float] = {}
        for first in range(0, len(meters), SLICE):
            some = meters[first : first + SLICE]
            weights |= dict(zip(some, self._rating_w(some, at_ms), strict=True))
            await asyncio.sleep(0)
        return weights

    async def _read(self) -> NominationReport:
        now_ms = self._clock.now().utc_ms
        report = NominationReport(at_ms=now_ms)
        sent = await self._sent()
        # days of the aggregator's text are of no zone that anybody names: one more is asked for
        today = (datetime.fromtimestamp(now_ms / 1000, tz=UTC) - timedelta(days=1)).date().isoformat()
        async for entry in self._entries(wire.SEARCH, "suggestions", {"start_date": today}):
            one = wire.suggestion(entry)
            if one is not None:
                sent_kw = sent.get((one.meter, one.program, one.since), sent.get((one.meter, "", one.since)))
                program = self._program_of.get(one.program, one.program)
                report.seen.append(
                    NominationSeen(suggestion=one, program=program, state=judged(one, sent_kw), sent_kw=sent_kw)
                )
        async for entry in self._entries(wire.NOMINATIONS, "nominations", {}):
            held = wire.nomination(entry)
            if held is not None:
                report.holding.setdefault(held.meter, []).append(held)
                report.holding_total += 1
        await asyncio.to_thread(_ordered, report)
        return report

    async def _entries(self, path: str, member: str, asked: Mapping[str, Any]) -> Any:
        async for page in self._client.pages("POST", path, paging=SEARCH_PAGES, body=asked):
            found = page.get(member)
            for number, entry in enumerate(found if isinstance(found, list) else []):
                if number % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
                if isinstance(entry, Mapping):
                    yield entry

    async def _sent(self) -> dict[tuple[str, str, str], float]:
        """The power that was last sent of each meter, program and first day."""
        found: dict[tuple[str, str, str], float] = {}
        after = 0
        while True:
            page = await self._outbox.store.rows(kind=WriteKind.NOMINATION, after=after, limit=PAGE)
            for row in page:
                if row.state in (WriteState.DONE, WriteState.DIFFERS):
                    place = (row.subject, str(row.after.get("program_identifier") or ""), str(row.after["start_date"]))
                    found[place] = float(row.after["nomination_kw"])
            if len(page) < PAGE:
                return found
            after = page[-1].number

    def samples(self) -> Iterable[Sample]:
        yield AGE.sample((self._clock.mono_ms() - self._well_mono_ms) / 1000)
        if self.newest is not None:
            for state in NominationState:
                yield STATES.sample(self.newest.count(state), state=state.value)

    def warnings(self) -> list[str]:
        found = [f"nominations of the aggregator cannot be read: {self.failing}"] if self.failing else []
        if self.newest is not None:
            odd = {state: self.newest.count(state) for state in (NominationState.REJECTED, NominationState.CHANGED)}
            found += [f"{count} suggested nominations were {state.value}" for state, count in odd.items() if count]
        return found


def _ordered(report: NominationReport) -> None:
    report.seen.sort(key=lambda one: (one.suggestion.meter, one.suggestion.since, one.suggestion.made))
    for one in report.seen:
        report.by_state.setdefault(one.state, []).append(one)
    for some in report.holding.values():
        some.sort(key=lambda held: held.since)

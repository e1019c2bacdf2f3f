"""Proposes at the aggregator what owners want here, after each read of what it has: never more than a proposal.

What was stated here and did not come from the aggregator is a wish. A row that a wish no longer asks for is taken back,
a row of the same meter that is on its way is waited for.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.clock import Clock
from gateway.domain.errors import GatewayError
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.journal.changes import AuditDoor
from gateway.domain.programs.facts import OwnerPreference, Preference, Subject, SubjectKind
from gateway.domain.programs.outbox import OutboxRow, WriteKind, WriteState
from gateway.domain.programs.wishes import (
    MeterWishes,
    PeerPeriod,
    Statement,
    WantedDays,
    still_fits,
    wanted_days,
)
from gateway.ports.programs import StoredFact
from gateway.services.programs.enrollment import Enrollments
from gateway.services.programs.outbox import PROPOSED_MAX, ChangeOutbox, Proposal
from gateway.services.programs.peer_words import preference_of
from gateway.signals.leap_account.enrollments import MeterEnrollment

BY = "gateway:wishes"
"""Who proposes: no person, so that any named one may give leave."""
KINDS = (WriteKind.IDLE, WriteKind.PARTICIPATE, WriteKind.DISENROLL)
SLICE = 500
INELIGIBLE = "INELIGIBLE"


@dataclass(slots=True, kw_only=True)
class WishReport:
    """What wishes came to: rows that are new, rows that were taken back, and what contradicts, in words."""

    proposed: int = 0
    withdrawn: int = 0
    conflicts: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Stated:
    """Statements of each subject, and when what the aggregator has was first noted."""

    of: defaultdict[Subject, list[Statement]] = field(default_factory=lambda: defaultdict(list))
    noted_ms: dict[tuple[str, Preference, int], int] = field(default_factory=dict)


class OwnerWishes:
    """Owners' wishes on their way to the outbox. `zone_of`: the zone of each program; `program_of`: our program for the
    aggregator's; `part_days`: a day that is given up in part is given up; `opt_outs`: exclusions from dispatch."""

    def __init__(
        self, enrollments: Enrollments, outbox: ChangeOutbox, *, clock: Clock, zone_of: Mapping[str, str],
        program_of: Mapping[str, str], part_days: bool, opt_outs: Callable[[], Sequence[Exclusion]],
    ) -> None:  # fmt: skip
        self._enrollments = enrollments
        self._outbox = outbox
        self._clock = clock
        self._zone_of = zone_of
        self._program_of = program_of
        self._part_days = part_days
        self._opt_outs = opt_outs

    async def settle(self, found: Mapping[str, MeterEnrollment]) -> WishReport:
        """Propose what is wanted of these meters and is not so there. Raises StorageError; where the aggregator cannot
        be asked that is told as a conflict, and the next read tries again."""
        now_ms = self._clock.now().utc_ms
        stored = await self._enrollments.stored((OwnerPreference,))
        opt_outs = self._opt_outs()
        stated = await asyncio.to_thread(_stated, stored, opt_outs)
        report = WishReport()
        meters = await self._meters(found, stated, now_ms) if stated.of else []

        def wanted() -> list[WantedDays]:
            changes: list[WantedDays] = []
            for one in meters:
                some, conflicts = wanted_days(one, now_ms, part_days=self._part_days)
                changes += some
                report.conflicts += conflicts
            return changes

        changes = await asyncio.to_thread(wanted)
        try:
            for kind in KINDS:
                await self._bring(kind, [one for one in changes if one.kind is kind], found, now_ms, report)
        except GatewayError as error:
            report.conflicts.append(f"wishes of owners could not be proposed: {error}")
        return report

    async def _bring(
        self, kind: WriteKind, changes: Sequence[WantedDays], found: Mapping[str, MeterEnrollment], now_ms: int,
        report: WishReport,
    ) -> None:  # fmt: skip
        """Bring the open rows of a kind to what is wanted."""
        rows: defaultdict[str, list[OutboxRow]] = defaultdict(list)
        for row in await self._outbox.open_rows(kind):
            if row.subject in found:
                rows[row.subject].append(row)
        wanted: defaultdict[str, list[WantedDays]] = defaultdict(list)
        for change in changes:
            wanted[change.meter].append(change)
        stale = [
            row.number
            for some in rows.values() for row in some
            if row.proposed_by == BY and row.state is WriteState.PROPOSED
            and not any(still_fits(change, row.after, now_ms) for change in wanted[row.subject])
        ]  # fmt: skip
        new = [
            Proposal(subject=meter, after=change.after)
            for meter, some in wanted.items()
            if all(row.state is WriteState.PROPOSED for row in rows[meter])
            for change in some
            if not any(still_fits(change, row.after, now_ms) for row in rows[meter])
        ]
        if stale:
            await self._outbox.withdraw(stale, by=BY, door=AuditDoor.GATEWAY)
            report.withdrawn += len(stale)
        for first in range(0, len(new), PROPOSED_MAX):
            some_new = new[first : first + PROPOSED_MAX]
            added = await self._outbox.propose(kind, some_new, by=BY, door=AuditDoor.GATEWAY)
            report.proposed += len(added)

    async def _meters(self, found: Mapping[str, MeterEnrollment], stated: _Stated, now_ms: int) -> list[MeterWishes]:
        """The meters of which, or of whose batteries, something was stated."""
        meters: list[MeterWishes] = []
        every = list(found.values())
        for first in range(0, len(every), SLICE):
            some = every[first : first + SLICE]
            behind = self._enrollments.book.devices_of([one.meter for one in some], now_ms)
            for one, devices in zip(some, behind, strict=True):
                own = stated.of.get(Subject(kind=SubjectKind.LEAP_METER, id=one.meter), [])
                batteries = [
                    [*own, *stated.of.get(Subject(kind=SubjectKind.DEVICE, id=device), ())]
                    for device in devices or ([one.reference] if one.reference else [])
                ] or [own]
                if any(batteries):
                    meters.append(self._meter(one, batteries, stated, now_ms))
            await asyncio.sleep(0)
        return meters

    def _meter(
        self, one: MeterEnrollment, batteries: Sequence[Sequence[Statement]], stated: _Stated, now_ms: int
    ) -> MeterWishes:
        programs = {
            self._program_of.get(row["program_identifier"], row["program_identifier"])
            for row in one.rows
            if row["enrollment_status"] != INELIGIBLE
        }
        zones = {self._zone_of.get(program) for program in programs}
        periods = []
        for period in one.periods:
            word, _ = preference_of(period.word)
            from_ms = round(period.start.timestamp() * 1000)
            until_ms = None if period.end is None else round(period.end.timestamp() * 1000)
            if until_ms is None or until_ms > now_ms:
                noted_ms = stated.noted_ms.get((one.meter, word, from_ms))
                periods.append(PeerPeriod(preference=word, from_ms=from_ms, until_ms=until_ms, noted_ms=noted_ms))
        return MeterWishes(
            meter=one.meter, reference=one.reference or one.meter, programs=frozenset(programs),
            zone=zones.pop() if len(zones) == 1 else None, batteries=batteries, periods=periods,
        )  # fmt: skip


def _stated(stored: Iterable[StoredFact], opt_outs: Iterable[Exclusion]) -> _Stated:
    """What was stated here, apart from what the aggregator said."""
    out = _Stated()
    for one in stored:
        fact = one.fact
        if not isinstance(fact, OwnerPreference):
            continue
        if one.door == AuditDoor.GATEWAY:
            place = (fact.subject.id, fact.preference, fact.from_ms)
            out.noted_ms[place] = min(one.noted_ms, out.noted_ms.get(place, one.noted_ms))
            continue
        out.of[fact.subject].append(
            Statement(
                preference=fact.preference, program=fact.program, from_ms=fact.from_ms, until_ms=fact.until_ms,
                noted_ms=one.noted_ms, revision=fact.revision,
            )
        )  # fmt: skip
    for opt_out in opt_outs:
        if opt_out.reason != "opt_out" or opt_out.event is not None:
            continue
        paused = Statement(
            preference=Preference.PAUSED, from_ms=opt_out.from_ms, until_ms=opt_out.until_ms, noted_ms=opt_out.from_ms
        )
        for device in opt_out.group.ids:
            out.of[Subject(kind=SubjectKind.DEVICE, id=device)].append(paused)
    return out

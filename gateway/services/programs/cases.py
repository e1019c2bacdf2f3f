"""Keeps cases of homes that underperform, and tells the ticket system of each change.

A case is stored before anybody is told of it. The ticket system gets the newest state of a case; what it has not
accepted is sent again, also after a restart.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

from gateway.clock import Clock
from gateway.domain.errors import GatewayError, InvalidInput
from gateway.domain.journal.changes import AuditDoor, CaseChanged
from gateway.domain.programs.cases import (
    GATEWAY,
    Finding,
    HomeCase,
    after_findings,
    assigned,
    closed,
    opened,
    reopened,
    snoozed,
)
from gateway.domain.programs.underperformers import LikelyCause
from gateway.observability.metrics import Sample, counter, gauge, words
from gateway.observability.parts import Importance, Part
from gateway.ports.cases import CaseQuestion, CaseStore, TicketSystem
from gateway.ports.journal import Journal
from gateway.ports.sinks import Accept, Keep, Stop

log = logging.getLogger(__name__)

PART = 500
"""Cases that are read at once."""
CASES_MAX = 200_000
BATCH = 50
POLL_S = 5.0
RETRY_S, RETRY_S_MAX = 10.0, 900.0
SNOOZE_MS_MAX = 366 * 86_400_000

CASES = gauge("gateway_cases", "Cases of homes that underperform and are not closed.", cause=words(LikelyCause))
TOLD = counter("gateway_tickets", "Cases that the ticket system accepted.")
REFUSED = counter("gateway_tickets_refused", "Cases that the ticket system did not accept; they are sent again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseOrder:
    """What is to change of a case; None = nothing. `assignee` "" = nobody; `snooze_until_ms` 0 = no longer."""

    assignee: str | None = None
    snooze_until_ms: int | None = None
    close_because: str | None = None


class Cases(Part):
    """The cases. `tickets` None: nobody is told."""

    component = "programs"
    importance = Importance.SPARE

    def __init__(self, store: CaseStore, tickets: TicketSystem | None, *, clock: Clock, journal: Journal) -> None:
        self.service = "" if tickets is None else "tickets"
        self.store = store
        self.clock = clock
        self._tickets = tickets
        self._journal = journal
        self._one_at_a_time = asyncio.Lock()
        self._changed = asyncio.Event()
        self._open: dict[LikelyCause, int] = {}
        self._told = self._refused = 0
        self._failing = ""

    async def load(self) -> None:
        """Count what is open."""
        try:
            await self._count()
        except GatewayError as error:
            log.error("cases cannot be read", extra={"error": str(error)})

    async def open(self, home: str, cause: LikelyCause, *, by: str) -> HomeCase:
        """A case that a person opens; the one that is open already, where there is one. Raises StorageError."""
        async with self._one_at_a_time:
            known = {case.cause: case for case in await self.store.of_homes([home])}.get(cause)
            if known is not None and known.closed_ms is None:
                return known
            now_ms = self.clock.now().utc_ms
            case = opened(home, cause, by=by, now_ms=now_ms) if known is None else reopened(known, since_ms=now_ms)
            (stored,) = await self._put("opened" if known is None else "reopened", [case], by=by, door=AuditDoor.REST)
            return stored

    async def change(self, number: int, order: CaseOrder, *, by: str) -> HomeCase | None:
        """The case after it was changed; None = there is none. Raises InvalidInput, StorageError."""
        now_ms = self.clock.now().utc_ms
        async with self._one_at_a_time:
            found = await self.store.cases(CaseQuestion(after=number - 1), 1)
            if not found or found[0].number != number:
                return None
            case = found[0]
            for action, after in _ordered(case, order, by=by, now_ms=now_ms):
                if after != case:
                    (case,) = await self._put(action, [after], by=by, door=AuditDoor.REST)
            return case

    async def observe(self, found: Sequence[Finding], sound: Collection[str]) -> list[HomeCase]:
        """Take what the last events say: homes that are named, and homes that gave what they were asked. Returns the
        cases that are new or changed. Raises StorageError."""
        async with self._one_at_a_time:
            named = sorted({one.home for one in found})
            known = {case.key: case for case in await self.store.of_homes(named)}
            known |= {case.key: case for case in await self._all_open()}
            changed = after_findings(known, found, sound, now_ms=self.clock.now().utc_ms)
            stored: list[HomeCase] = []
            for action, some in _by_action(known, changed):
                stored += await self._put(action, some, by=GATEWAY, door=AuditDoor.GATEWAY)
            return stored

    async def run(self) -> None:
        """Tell the ticket system until cancelled."""
        wait_s = POLL_S
        while True:
            again_s = await self._tell()
            # what fails is tried less and less often
            wait_s = POLL_S if again_s is None else min(max(again_s, RETRY_S, 2 * wait_s), RETRY_S_MAX)
            self._changed.clear()
            try:
                async with asyncio.timeout(wait_s):
                    if again_s is None:
                        await self._changed.wait()
                    else:
                        await asyncio.Event().wait()
            except TimeoutError:
                pass

    def samples(self) -> Iterable[Sample]:
        for cause, count in sorted(self._open.items()):
            yield CASES.sample(count, cause=cause.value)
        if self._tickets is not None:
            yield TOLD.sample(self._told)
            yield REFUSED.sample(self._refused)

    def warnings(self) -> list[str]:
        return [f"the ticket system does not accept cases: {self._failing}"] if self._failing else []

    # -- one step each -------------------------------------------------------------------------------------------

    async def _tell(self) -> float | None:
        """Send what the ticket system lacks; returns how long it is to be left alone, None = it has all of it."""
        if self._tickets is None:
            return None
        try:
            while some := await self.store.untold(self.clock.now().utc_ms, BATCH):
                for case in some:
                    answer = await self._tickets.send(case, self.clock.now().utc_ms)
                    match answer:
                        case Accept():
                            await self.store.note_told(case.number, case.revision)
                            self._told += 1
                            self._failed("")
                        case Keep(reason=reason, after_s=after_s):
                            self._failed(reason)
                            return after_s
                        case Stop(reason=reason, retry_s=retry_s):
                            self._failed(reason)
                            return RETRY_S_MAX if retry_s is None else retry_s
                        case _:
                            assert_never(answer)
        except GatewayError as error:
            log.warning("cases cannot be told to the ticket system", extra={"error": str(error)})
            return RETRY_S
        return None

    def _failed(self, reason: str) -> None:
        """Count refusals; log when they begin and end."""
        if reason:
            self._refused += 1
        if reason and not self._failing:
            log.warning("the ticket system does not accept cases", extra={"reason": reason})
        elif self._failing and not reason:
            log.info("the ticket system accepts cases again")
        self._failing = reason

    async def _put(self, action: str, cases: Sequence[HomeCase], *, by: str, door: AuditDoor) -> list[HomeCase]:
        """Store cases, and write the audit trail: of every change that others are told of."""
        stored = await self.store.put(cases)
        if action:
            names, numbers = tuple(one.home for one in stored), tuple(one.number for one in stored)
            await self._journal.commit([CaseChanged(action=action, names=names, numbers=numbers, by=by, door=door)])
        await self._count()
        self._changed.set()
        return stored

    async def _all_open(self) -> list[HomeCase]:
        found: list[HomeCase] = []
        while len(found) < CASES_MAX:
            some = await self.store.cases(CaseQuestion(open_alone=True, after=found[-1].number if found else 0), PART)
            found += some
            if len(some) < PART:
                break
        return found

    async def _count(self) -> None:
        counts: dict[LikelyCause, int] = {}
        for case in await self._all_open():
            counts[case.cause] = counts.get(case.cause, 0) + 1
        self._open = counts


def _ordered(case: HomeCase, order: CaseOrder, *, by: str, now_ms: int) -> list[tuple[str, HomeCase]]:
    """The case after each step of an order. Raises InvalidInput."""
    until_ms = order.snooze_until_ms
    if until_ms is not None and until_ms and not now_ms < until_ms <= now_ms + SNOOZE_MS_MAX:
        raise InvalidInput(["snooze_until: within the next 366 days"])
    if case.closed_ms is not None and until_ms:
        raise InvalidInput([f"case {case.number} is closed"])
    steps: list[tuple[str, HomeCase]] = []
    if order.assignee is not None:
        steps.append(("assigned", case := assigned(case, order.assignee)))
    if until_ms is not None:
        steps.append(("snoozed", case := snoozed(case, until_ms or None)))
    if order.close_because is not None:
        steps.append(("closed", closed(case, because=order.close_because, by=by, now_ms=now_ms)))
    return steps


def _by_action(
    known: dict[tuple[str, LikelyCause], HomeCase], changed: Sequence[HomeCase]
) -> Iterable[tuple[str, list[HomeCase]]]:
    """Changed cases by what became of them; "" = more evidence alone."""
    found: dict[str, list[HomeCase]] = {}
    for case in changed:
        before = known.get(case.key)
        if before is None:
            action = "opened"
        elif before.closed_ms is None:
            action = "" if case.closed_ms is None else "closed"
        else:
            action = "reopened"
        found.setdefault(action, []).append(case)
    return found.items()

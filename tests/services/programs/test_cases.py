"""Cases are kept, audited, and told to the ticket system until it accepts them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import InvalidInput
from gateway.domain.journal.changes import CaseChanged
from gateway.domain.programs.cases import GATEWAY, Finding, HomeCase
from gateway.domain.programs.underperformers import LikelyCause, Trend
from gateway.ports.cases import CaseQuestion
from gateway.ports.sinks import Accept, Keep, Stop
from gateway.services.programs.cases import CaseOrder, Cases
from gateway.storage.programs.cases import SqliteCases
from tests.builders.fakes import MemoryJournal

FOUND = Finding(
    home="home-1", cause=LikelyCause.LATE, trend=Trend.LATE, since_ms=1, newest_ms=2, events=3, lost_wh=4_000,
    evidence={"late_s": 600.0},
)  # fmt: skip


@dataclass
class Tickets:
    """A ticket system; `answers` are given first, then it accepts."""

    answers: list[Keep | Stop] = field(default_factory=list)
    asked: int = 0
    taken: list[tuple[int, int]] = field(default_factory=list)

    async def send(self, case: HomeCase, now_ms: int) -> Accept | Keep | Stop:
        self.asked += 1
        if self.answers:
            return self.answers.pop(0)
        self.taken.append((case.number, case.revision))
        return Accept()


@asynccontextmanager
async def opened(
    folder: Path, tickets: Tickets | None = None, journal: MemoryJournal | None = None
) -> AsyncIterator[Cases]:
    async with SqliteCases(folder) as store:
        cases = Cases(store, tickets, clock=ManualClock(), journal=journal or MemoryJournal())
        await cases.load()
        yield cases


async def told(cases: Cases) -> None:
    """Run until the ticket system has everything."""
    task = asyncio.create_task(cases.run(), name="tickets")
    async with asyncio.timeout(3_600):
        while await cases.store.untold(cases.clock.now().utc_ms, 1):
            await asyncio.sleep(1)
        # it waits for changes now, and asks the store nothing
        await asyncio.sleep(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_findings_open_update_close_and_reopen_one_case_and_the_trail_has_it(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with opened(tmp_path, journal=journal) as cases:
        (case,) = await cases.observe([FOUND], ())
        assert [one.number for one in await cases.observe([replace(FOUND, lost_wh=5_000)], ())] == [case.number]
        await cases.observe([], {"home-1"})
        now_ms = cases.clock.now().utc_ms
        (again,) = await cases.observe([replace(FOUND, newest_ms=now_ms + 1)], ())
        assert (again.number, again.reopened, again.lost_wh) == (case.number, 1, 4_000)
        assert len(await cases.store.cases(CaseQuestion(), 10)) == 1
    found = [(one.action, one.by, one.names) for one in journal.kept if isinstance(one, CaseChanged)]
    assert found == [(action, GATEWAY, ("home-1",)) for action in ("opened", "closed", "reopened")]


async def test_people_assign_snooze_and_close_and_each_step_is_in_the_trail(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with opened(tmp_path, journal=journal) as cases:
        case = await cases.open("home-1", LikelyCause.UNIT_OFF, by="ann")
        assert await cases.open("home-1", LikelyCause.UNIT_OFF, by="bob") == case
        later_ms = cases.clock.now().utc_ms + 86_400_000
        order = CaseOrder(assignee="carol", snooze_until_ms=later_ms, close_because="replaced")
        after = await cases.change(case.number, order, by="bob")
        assert after is not None
        assert (after.assignee, after.closed_by, after.closed_because) == ("carol", "bob", "replaced")
        again = await cases.open("home-1", LikelyCause.UNIT_OFF, by="ann")
        assert (again.number, again.closed_ms, again.reopened) == (case.number, None, 1)
    actions = [one.action for one in journal.kept if isinstance(one, CaseChanged)]
    assert actions == ["opened", "assigned", "snoozed", "closed", "reopened"]


async def test_orders_that_cannot_be_are_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as cases:
        case = await cases.open("home-1", LikelyCause.UNIT_OFF, by="ann")
        with pytest.raises(InvalidInput, match="snooze_until: within the next 366 days"):
            await cases.change(case.number, CaseOrder(snooze_until_ms=cases.clock.now().utc_ms), by="ann")
        await cases.change(case.number, CaseOrder(close_because="x"), by="ann")
        later_ms = cases.clock.now().utc_ms + 86_400_000
        with pytest.raises(InvalidInput, match="case 1 is closed"):
            await cases.change(case.number, CaseOrder(snooze_until_ms=later_ms), by="ann")
        assert await cases.change(2, CaseOrder(assignee="x"), by="ann") is None


async def test_the_ticket_system_is_asked_again_until_it_accepts(tmp_path: Path) -> None:
    tickets = Tickets(answers=[Keep(reason="http_503", after_s=30.0), Stop(reason="http_401", retry_s=None)])
    async with opened(tmp_path, tickets) as cases:
        await cases.observe([FOUND], ())
        await told(cases)
        assert (tickets.asked, tickets.taken) == (3, [(1, 1)])
        assert cases.warnings() == []
        assert {one.name: one.value for one in cases.samples()} == {
            "gateway_cases": 1, "gateway_tickets": 1, "gateway_tickets_refused": 2,
        }  # fmt: skip


async def test_a_case_that_was_not_accepted_before_a_restart_is_told_after_it_in_its_newest_state(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as cases:
        case = await cases.open("home-1", LikelyCause.UNIT_OFF, by="ann")
        await cases.change(case.number, CaseOrder(assignee="bob"), by="ann")
    tickets = Tickets()
    async with opened(tmp_path, tickets) as cases:
        await told(cases)
    assert tickets.taken == [(1, 2)]
    tickets = Tickets()
    async with opened(tmp_path, tickets) as cases:
        await cases.open("home-2", LikelyCause.LATE, by="ann")
        await told(cases)
    assert tickets.taken == [(2, 1)]


async def test_a_ticket_system_that_refuses_is_a_warning(tmp_path: Path) -> None:
    tickets = Tickets(answers=[Keep(reason="http_503")] * 1_000)
    async with opened(tmp_path, tickets) as cases:
        await cases.observe([FOUND], ())
        task = asyncio.create_task(cases.run(), name="tickets")
        while not cases.warnings():
            await asyncio.sleep(1)
        assert cases.warnings() == ["the ticket system does not accept cases: http_503"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

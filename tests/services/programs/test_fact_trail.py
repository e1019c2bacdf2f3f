"""Every change of enrollments, consents, customers and payees is in the audit trail once, whatever ends the process."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import StorageError
from gateway.domain.journal.changes import AuditDoor, Change
from gateway.domain.journal.stored import AuditEntry, AuditQuestion
from gateway.services.programs.fact_trail import KIND, FactTrail
from gateway.storage.journal.event_store import SqliteEventStore
from gateway.storage.journal.journal import SqliteJournal
from gateway.storage.programs.facts import SqliteFacts
from tests.builders.fakes import MemoryJournal
from tests.services.programs.stores import BASE, CONSENT, opened, table

CHILD = Path(__file__).with_name("trail_child.py")
HELD = {"customer": "c-1", "device": "home-1", "held_since": "2026-01-01T00:00:00Z"}
PAID = HELD | {"payee": "bank-1", "payee_role": "financier", "paid_since": "2026-01-01T00:00:00Z"}
PERSON = {"end_customer_name": "Ada Lovelace"}


async def rows(journal: MemoryJournal) -> list[AuditEntry]:
    """Oldest first."""
    return (await journal.audit(AuditQuestion(kind=KIND), 1_000))[::-1]


def said(entry: AuditEntry) -> list[tuple[str, Any, Any]]:
    return [(one["kind"], one["before"], one["after"]) for one in entry.body["changed"]]


class FullJournal(MemoryJournal):
    """Takes nothing while it is `full`."""

    full = True

    async def commit(self, changes: Sequence[Change]) -> None:
        if self.full:
            raise StorageError("the disk is full")
        await super().commit(changes)


async def test_a_row_says_who_through_which_door_and_what_was_before_and_after(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with opened(tmp_path, trail=journal) as (service, _):
        await service.import_enrollments(table(BASE), form="csv", by="clerk", door=AuditDoor.REST)
        later = BASE | {"enrollment_status": "PENDING", "since": "2026-05-01T07:00:00Z"}
        await service.import_enrollments(table(later), form="csv", by="boss", door=AuditDoor.OFFLINE)
    added, corrected = await rows(journal)
    assert (added.by, added.door, added.body["kinds"]) == ("clerk", "rest", {"enrollment": 1})
    assert (corrected.by, corrected.door) == ("boss", "offline")
    [(kind, before, after)] = said(added)
    assert (kind, before, after["status"]) == ("enrollment", None, 6)
    [(_, before, after)] = said(corrected)
    assert (before["status"], after["status"]) == (6, 4)


async def test_consents_withdrawals_customers_payees_and_erasures_are_told(tmp_path: Path) -> None:
    journal = MemoryJournal()
    withdrawn = {"customer": "c-1", "program": "dsgs", "withdrawn": "2026-05-02T00:00:00Z", "by": "owner"}
    async with opened(tmp_path, trail=journal) as (service, _):
        await service.import_customers(table(PAID | PERSON), form="csv", by="clerk", door=AuditDoor.REST)
        await service.import_consents(table(CONSENT), form="csv", by="clerk", door=AuditDoor.REST)
        await service.import_consents(table(withdrawn), form="csv", by="clerk", door=AuditDoor.REST)
        assert await service.erase("c-1", by="officer", door=AuditDoor.REST)
    found = await rows(journal)
    assert [entry.body["kinds"] for entry in found] == [
        {"customer": 1, "holding": 1, "payee": 1, "personal": 1}, {"consent": 1}, {"withdrawal": 1}, {"erased": 1},
    ]  # fmt: skip
    assert (found[-1].by, found[-1].body["changed"][0]["key"]) == ("officer", ["c-1"])
    assert "Lovelace" not in str(found)


async def test_what_says_nothing_new_is_not_told(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with opened(tmp_path, trail=journal) as (service, _):
        for _ in range(2):
            await service.import_enrollments(table(BASE), form="csv", by="clerk", door=AuditDoor.REST)
            await service.import_customers(table(HELD), form="csv", by="clerk", door=AuditDoor.REST)
    assert len(await rows(journal)) == 2


async def test_a_large_table_is_one_row_from_which_every_fact_is_found(tmp_path: Path) -> None:
    journal = MemoryJournal()
    many = [BASE | {"device": f"home-{n}"} for n in range(1_100)]
    async with opened(tmp_path, trail=journal) as (service, _):
        await service.import_enrollments(table(*many), form="csv", by="clerk", door=AuditDoor.REST)
        [entry] = await rows(journal)
        batch = entry.body["batch"]
        assert (entry.body["count"], len(entry.body["changed"])) == (1_100, 20)
        assert await service.store.digest(batch) == entry.body["sha256"]
        found = [one for at in range(0, 1_100, 500) for one in await service.store.changes(batch, at, 500)]
        assert {one.key[1] for one in found} == {f"home-{n}" for n in range(1_100)}
        assert [one.place for one in found] == list(range(1_100))
        assert await service.store.digest("nothing") is None


async def test_what_the_trail_could_not_take_is_told_as_soon_as_it_can_in_order(tmp_path: Path) -> None:
    journal = FullJournal()
    async with opened(tmp_path, trail=journal) as (service, _):
        for n in range(3):
            table_ = table(BASE | {"device": f"home-{n}"})
            report = await service.import_enrollments(table_, form="csv", by="clerk", door=AuditDoor.REST)
            assert report.changed == 1, "the facts are durable, and their row is with them"
        trail = FactTrail(service.store, journal, journal)
        await trail.tell()
        assert trail.warnings() == ["3 commits of enrollments or customers are not in the audit trail yet"]
        journal.full = False
        await trail.tell()
        await trail.tell()
        assert trail.warnings() == []
    assert [entry.body["changed"][0]["key"][1] for entry in await rows(journal)] == ["home-0", "home-1", "home-2"]


@asynccontextmanager
async def restarted(directory: Path) -> AsyncIterator[tuple[FactTrail, SqliteEventStore, SqliteFacts]]:
    clock = ManualClock()
    journal = SqliteJournal(directory / "journal.sqlite", clock=clock)
    journal.load()
    store = SqliteFacts(directory, clock=clock)
    store.load(lambda _: None)
    async with SqliteEventStore(journal.path) as audit:
        try:
            yield FactTrail(store, journal, audit), audit, store
        finally:
            store.close()
            journal.close()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_kill_between_the_commit_of_facts_and_that_of_their_row_neither_loses_nor_doubles_it(
    tmp_path: Path, when: str
) -> None:
    command = [sys.executable, str(CHILD), str(tmp_path), when]
    done = await asyncio.to_thread(subprocess.run, command, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    async with restarted(tmp_path) as (trail, audit, store):
        there = await audit.audit(AuditQuestion(kind=KIND), 10)
        assert len(there) == (when == "after"), "where it was killed"
        [waiting] = await store.untold(10)
        await trail.tell()
        [entry] = await audit.audit(AuditQuestion(kind=KIND), 10)
        assert (entry.by, entry.door, entry.body["batch"]) == ("child", "rest", waiting.id)
        assert await store.untold(10) == []
        assert (await audit.chain()).broken is None


async def test_an_erasure_that_was_noted_and_not_done_is_done_at_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as (service, _):
        await service.import_customers(table(HELD | PERSON), form="csv", by="clerk", door=AuditDoor.REST)
        await service.store.note_erased("c-1", by="officer", door=AuditDoor.REST)
    async with opened(tmp_path) as (service, _):
        assert service.personal is not None
        assert await service.personal.known(["c-1"]) == {"c-1"}, "the process ended in between"
        assert await service.erase_noted() == 1
        assert await service.personal.known(["c-1"]) == set()

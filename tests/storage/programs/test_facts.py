"""Facts are durable, one per key, the newest of each."""

import asyncio
import os
import random
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import StorageError
from gateway.domain.journal.changes import AuditDoor
from gateway.domain.programs.facts import (
    Consent,
    Deadline,
    DeliveryPeriod,
    DispatchOption,
    Enrollment,
    EnrollmentStatus,
    Fact,
    Holding,
    MeterDevice,
    OwnerPreference,
    Payee,
    PayeeRole,
    Preference,
    RateLock,
    Withdrawal,
)
from gateway.ports.programs import FactQuestion
from gateway.storage.programs.facts import NAME, SqliteFacts
from tests.domain.programs.stated import consented, device, enrolled, held, meter, withdrawn

CHILD = Path(__file__).with_name("facts_child.py")
CEILING_S = 60.0

WHOLE = Enrollment(
    subject=meter("m-1"), program="dsgs", period=DeliveryPeriod(name="MAY_JUL", from_ms=1_000, until_ms=9_000),
    from_ms=1_000, revision=1, status=EnrollmentStatus.UNKNOWN, reasons=("HAS_NOMINATIONS",), peer_status="NAPPING",
    market_group="g-1", deadlines=(Deadline(what="enrollment", at_ms=500),),
    rate=RateLock(key="ri-2024", locked_ms=10, until_ms=99_000), dispatch=DispatchOption.TARGETED,
)  # fmt: skip
EACH: list[Fact] = [
    WHOLE,
    OwnerPreference(
        subject=device("home-1"), from_ms=5, revision=2, preference=Preference.PAUSED, program="dsgs", until_ms=6,
        peer_preference="IDLE",
    ),
    held(device("home-1"), "c-1", revision=3),
    Payee(subject=device("home-1"), payee="bank", role=PayeeRole.FINANCIER, from_ms=0, revision=4),
    MeterDevice(meter="m-1", device="home-1", from_ms=0, revision=5),
    consented("c-1", expires_ms=77, revision=6),
    withdrawn("c-1", 55, revision=7),
]  # fmt: skip
KINDS = (Enrollment, OwnerPreference, Holding, Payee, MeterDevice, Consent, Withdrawal)


def opened(directory: Path) -> tuple[SqliteFacts, list[Fact]]:
    store, found = SqliteFacts(directory, clock=ManualClock()), list[Fact]()
    store.load(found.append)
    return store, found


async def noted(store: SqliteFacts, *facts: Fact) -> None:
    await store.commit(facts, by="clerk", door=AuditDoor.REST)


async def test_every_kind_of_fact_comes_back_as_it_was(tmp_path: Path) -> None:
    store, found = opened(tmp_path)
    assert found == []
    await noted(store, *EACH)
    told = await store.facts(FactQuestion(kinds=KINDS), 100)
    assert [one.fact for one in told] == EACH
    assert {(one.by, one.door) for one in told} == {("clerk", "rest")}
    store.close()
    again, found = opened(tmp_path)
    assert found == EACH
    assert again.revision() == 8
    again.close()


async def test_the_newest_of_a_key_wins_whatever_the_order_of_commits(tmp_path: Path) -> None:
    store, _ = opened(tmp_path)
    newer = enrolled(device("home-1"), EnrollmentStatus.PENDING, revision=9)
    await noted(store, newer)
    await noted(store, enrolled(device("home-1"), revision=2), enrolled(device("home-2"), revision=3))
    found = await store.facts(FactQuestion(kinds=(Enrollment,)), 10)
    assert [one.fact for one in found] == [newer, enrolled(device("home-2"), revision=3)]
    store.close()


async def test_facts_are_found_by_what_they_are_about_page_by_page(tmp_path: Path) -> None:
    store, _ = opened(tmp_path)
    await noted(store, *EACH, enrolled(device("home-2"), revision=8, program="ra"))
    of_home = await store.facts(FactQuestion(kinds=KINDS, subject="home-1"), 10)
    assert [type(one.fact) for one in of_home] == [OwnerPreference, Holding, Payee, MeterDevice]
    of_customer = await store.facts(FactQuestion(kinds=KINDS, customer="c-1"), 10)
    assert [type(one.fact) for one in of_customer] == [Holding, Consent, Withdrawal]
    of_program = await store.facts(FactQuestion(kinds=(Enrollment,), program="ra"), 10)
    assert len(of_program) == 1
    first = await store.facts(FactQuestion(kinds=KINDS), 3)
    rest = await store.facts(FactQuestion(kinds=KINDS, after=first[-1].id), 100)
    assert len(first) + len(rest) == len(EACH) + 1
    store.close()


async def test_customers_are_references_that_stay_when_their_data_is_erased(tmp_path: Path) -> None:
    store, _ = opened(tmp_path)
    await noted(store, consented("c-2", revision=1), held(device("home-1"), "c-1", revision=2))
    assert await store.note_erased("c-1", by="clerk", door=AuditDoor.REST)
    assert not await store.note_erased("nobody", by="clerk", door=AuditDoor.REST)
    told = await store.customers("", 10)
    assert [(one.ref, one.erased_ms is None) for one in told] == [("c-1", False), ("c-2", True)]
    assert [one.ref for one in await store.customers("c-1", 10)] == ["c-2"]
    store.close()


async def test_a_commit_is_whole_or_not_at_all(tmp_path: Path) -> None:
    store, _ = opened(tmp_path)
    with closing(sqlite3.connect(tmp_path / NAME)) as db, db:
        db.execute("CREATE TRIGGER full BEFORE INSERT ON customers BEGIN SELECT raise(ABORT, 'full'); END")
    with pytest.raises(Exception, match="full"):
        await noted(store, *EACH)
    assert await store.facts(FactQuestion(kinds=KINDS), 10) == []
    store.close()


async def test_a_file_that_cannot_be_read_is_left_alone_and_said(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"not a database at all" * 100)
    store, found = opened(tmp_path)
    assert found == []
    assert "cannot be read" in store.reasons()[0]
    with pytest.raises(StorageError):
        await noted(store, *EACH)
    store.close()
    assert (tmp_path / NAME).read_bytes().startswith(b"not a database")


def test_a_file_that_cannot_be_read_is_a_warning_where_nobodys_dispatch_rests_on_it(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"not a database at all" * 100)
    store = SqliteFacts(tmp_path, clock=ManualClock(), decides=False)
    store.load(lambda _: None)
    assert (len(store.warnings()), store.reasons()) == (1, [])
    store.close()


async def test_many_facts_are_one_commit(tmp_path: Path) -> None:
    store, _ = opened(tmp_path)
    facts = [held(device(f"home-{n}"), f"c-{n}", revision=n + 1) for n in range(1_200)]
    await noted(store, *facts)
    assert [one.fact for one in await store.facts(FactQuestion(kinds=(Holding,)), 2_000)] == facts
    assert len(await store.customers("", 2_000)) == 1_200
    store.close()


async def test_a_file_of_a_newer_gateway_is_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / NAME)) as db, db:
        db.execute("PRAGMA user_version = 99")
    store, _ = opened(tmp_path)
    assert "newer" in store.reasons()[0]
    store.close()


async def test_what_was_committed_is_there_after_a_kill(tmp_path: Path) -> None:
    rng, told = random.Random(3), 0
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(CHILD), str(tmp_path), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(CEILING_S):
                for _ in range(rng.randrange(2, 12)):
                    line = await process.stdout.readline()
                    assert line, "the child ended by itself"
                    told = max(told, int(line))
        finally:
            os.kill(process.pid, signal.SIGKILL)
            rest, _ = await process.communicate()
            told = max([told, *(int(line) for line in rest.rpartition(b"\n")[0].splitlines())])
        store, found = opened(tmp_path)
        store.close()
        revisions = [fact.revision for fact in found]
        assert max(revisions) >= told
        assert sorted(revisions) == list(range(1, max(revisions) + 1)), "each commit is there whole"
        assert max(revisions) % 3 == 0

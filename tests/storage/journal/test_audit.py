"""Every change that is journalled can be read: what, when, by whom and through which door."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.request import TargetGroup
from gateway.domain.journal.changes import (
    AuditDoor,
    ControlTaken,
    DeviceRegistered,
    EventWithdrawn,
    ExclusionLifted,
    ExclusionSet,
    PriorSaved,
    ReserveChanged,
    StopAll,
    TakenBack,
    Trusted,
    WithdrawalLifted,
)
from gateway.domain.journal.stored import AuditQuestion
from gateway.domain.types import DeviceId, EventId
from gateway.storage.journal.event_store import SqliteEventStore
from gateway.storage.journal.journal import SqliteJournal
from tests.storage.journal.test_journal import device, event

A = DeviceId("a")
STORM = Exclusion(id="h", reason="storm", group=TargetGroup(all=True), from_ms=0, until_ms=None, by="me")


class Trail:
    """A journal and the reader of its audit trail."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self.journal = SqliteJournal(path, clock=self.clock, audit_rows_max=50)
        self.journal.load()
        self.store = SqliteEventStore(path)

    async def read(self, limit: int = 100, **asked: object) -> list[tuple[str, str | None, str | None]]:
        found = await self.store.audit(AuditQuestion(**asked), limit)  # type: ignore[arg-type]
        return [(entry.kind, entry.by, entry.door) for entry in found]


@pytest.fixture
def trail(tmp_path: Path) -> Iterator[Trail]:
    made = Trail(tmp_path / "journal.sqlite")
    yield made
    made.store.close()
    made.journal.close()


async def test_audit_names_who_asked_and_the_door_of_every_change(trail: Trail) -> None:
    theirs = event(trail.clock)
    await trail.journal.commit([
        DeviceRegistered(device=device("a"), by="ann", door=AuditDoor.OFFLINE),
        DeviceRegistered(device=device("b"), by="bob", door=AuditDoor.REST),
        replace(theirs, request=replace(theirs.request, source="mqtt")),
        replace(event(trail.clock, name="e2"), by="zoe"),
        EventWithdrawn(event=EventId("e1"), by="cid", door=AuditDoor.REST),
        WithdrawalLifted(event=EventId("e1"), by="dan", door=AuditDoor.REST),
        ExclusionSet(exclusion=STORM, by="me", door=AuditDoor.REST),
        ExclusionLifted(id="h", by="eve", door=AuditDoor.REST),
        ExclusionLifted(id="h"), Trusted(names=("a",), by="fay", door=AuditDoor.REST),
        StopAll(active=True, by="gus", door=AuditDoor.REST),
        ReserveChanged(devices=(A,), reserve_pct=(30.0,), source="device"),
        TakenBack(event=EventId("e1"), devices=(A,), at_ms=1), ControlTaken(devices=(A,), event=EventId("e1")),
        PriorSaved(device=A, settings={}),
    ])  # fmt: skip
    assert (await trail.read())[::-1] == [
        ("device_enrolled", "ann", "offline"), ("device_enrolled", "bob", "rest"), ("event_accepted", "mqtt", "mqtt"),
        ("event_accepted", "zoe", "rest"),
        ("event_withdrawn", "cid", "rest"), ("withdrawal_lifted", "dan", "rest"), ("hold_set", "me", "rest"),
        ("hold_lifted", "eve", "rest"), ("hold_lifted", "gateway", "gateway"), ("trusted", "fay", "rest"),
        ("stop_all", "gus", "rest"), ("reserve_changed", "owner", "device"), ("taken_back", "owner", "device"),
        ("control_taken", "gateway", "gateway"), ("prior_saved", "gateway", "gateway"),
    ]  # fmt: skip


async def test_audit_is_read_page_by_page_by_time_and_by_kind(trail: Trail) -> None:
    began_ms = trail.clock.utc
    for i in range(10):
        await trail.journal.commit([StopAll(active=True, by=str(i)), Trusted(names=("a",), by=str(i))])
        trail.clock.advance(s=10)
    assert [by for _, by, _ in await trail.read(kind="trusted")] == [str(i) for i in reversed(range(10))]
    window = {"from_ms": began_ms + 20_000, "until_ms": began_ms + 40_000}
    assert {by for _, by, _ in await trail.read(**window)} == {"2", "3"}
    read: list[int] = []
    before: int | None = None
    while page := await trail.store.audit(AuditQuestion(before=before), 3):
        read += [entry.id for entry in page]
        before = page[-1].id
    assert read == sorted(read, reverse=True)
    assert len(set(read)) == 20


async def test_audit_keeps_within_its_bound_and_reads_what_the_release_before_wrote(trail: Trail) -> None:
    with closing(sqlite3.connect(trail.path)) as db, db:
        db.execute('INSERT INTO audit (utc_ms, kind, body) VALUES (1, \'stop_all\', \'{"active":true,"by":"old"}\')')
    db.close()
    assert await trail.read() == [("stop_all", "old", None)]
    for i in range(80):
        await trail.journal.commit([StopAll(active=True, by=str(i))])
    found = await trail.read()
    assert (len(found), found[0][1], found[-1][1]) == (50, "79", "30")

"""What devices were, and where, over time: noted in the transaction that makes it so."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from gateway.clock import ManualClock
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.journal.changes import (
    Change,
    DepartureAsked,
    DepartureOver,
    DeviceRegistered,
    DeviceRemoved,
    PriorSaved,
)
from gateway.domain.registry.connection import Connection, ConnectionEnd
from gateway.domain.types import DeviceId
from gateway.storage.journal.event_store import SqliteEventStore
from gateway.storage.journal.journal import SqliteJournal
from gateway.storage.registry.connections import KEPT_MS
from tests.builders.fakes import home

A, B = DeviceId("a"), DeviceId("b")
HERE = home("a", connection=DeviceConnection(url="modbus://10.0.0.5", units=(("main", 1),), secret="env:ONE"))
THERE = replace(HERE, connection=DeviceConnection(url="modbus://10.0.0.6", units=(("main", 1),)))


class Life:
    """A journal on a disk; `at` is the time of each commit."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock()
        self.path = directory / "journal.sqlite"
        self.start()

    def start(self) -> None:
        self.journal = SqliteJournal(self.path, clock=self.clock)
        self.state = self.journal.load()

    def again(self) -> None:
        self.journal.close()
        self.start()

    async def commit(self, *changes: Change, after_s: float = 10) -> int:
        self.clock.advance(s=after_s)
        await self.journal.commit(changes)
        return self.clock.utc

    async def of(self, device: str) -> Sequence[Connection]:
        store = SqliteEventStore(self.path)
        try:
            return await store.connections(device)
        finally:
            store.close()


async def test_connection_is_closed_and_the_next_one_opened_where_place_or_product_change(tmp_path: Path) -> None:
    life = Life(tmp_path)
    first = await life.commit(DeviceRegistered(device=HERE))
    await life.commit(DeviceRegistered(device=replace(HERE, tags=("x",), reserve_pct=30.0)))
    await life.commit(DeviceRegistered(device=replace(HERE, connection=replace(HERE.connection, secret="env:TWO"))))  # type: ignore[type-var]
    moved = await life.commit(DeviceRegistered(device=THERE))
    other = await life.commit(DeviceRegistered(device=replace(THERE, profile="other")))
    removed = await life.commit(DeviceRemoved(device=A))
    back = await life.commit(DeviceRegistered(device=HERE))
    found = await life.of("a")
    assert [(c.profile, c.url, c.valid.from_ms, c.valid.until_ms, c.ended) for c in found] == [
        ("p", "modbus://10.0.0.5", first, moved, ConnectionEnd.MOVED),
        ("p", "modbus://10.0.0.6", moved, other, ConnectionEnd.MOVED),
        ("other", "modbus://10.0.0.6", other, removed, ConnectionEnd.REMOVED),
        ("p", "modbus://10.0.0.5", back, None, None),
    ]
    assert found[0].units == {"main": 1}
    ends = [c.valid.until_ms for c in found[:-1]]
    begins = [c.valid.from_ms for c in found[1:]]
    assert all(
        until is not None and begin is not None and until <= begin for until, begin in zip(ends, begins, strict=True)
    )
    assert "env:" not in str(found)
    life.journal.close()


async def test_device_of_an_older_state_directory_has_been_there_since_nobody_knows_when(tmp_path: Path) -> None:
    life = Life(tmp_path)
    await life.commit(DeviceRegistered(device=HERE), DeviceRegistered(device=home("b")))
    life.journal.close()
    with closing(sqlite3.connect(life.path)) as db, db:
        db.execute("DROP TABLE connections")
        db.execute("DROP TABLE departures")
    life.start()
    assert [(c.url, c.valid.from_ms, c.valid.until_ms is None) for c in await life.of("a")] == [
        ("modbus://10.0.0.5", None, True)
    ]
    moved = await life.commit(DeviceRegistered(device=THERE))
    assert [c.valid.until_ms for c in await life.of("a")] == [moved, None]
    life.again()
    assert len(await life.of("a")) == 2
    assert len(await life.of("b")) == 1
    life.journal.close()


async def test_departures_and_who_was_removed_lately_are_remembered(tmp_path: Path) -> None:
    life = Life(tmp_path)
    await life.commit(DeviceRegistered(device=HERE), DeviceRegistered(device=home("b")))
    asked = await life.commit(DepartureAsked(device=A, wanted=THERE, by="ann"), DepartureAsked(device=B, wanted=None))
    life.again()
    assert [(d.device, d.wanted, d.since_ms, d.by) for d in life.state.departures] == [
        (A, THERE, asked, "ann"), (B, None, asked, ""),
    ]  # fmt: skip
    await life.commit(DeviceRemoved(device=B), DepartureOver(devices=(B,), reason="gone"))
    life.again()
    assert ([d.device for d in life.state.departures], life.state.removed) == ([A], (B,))
    assert [device.id for device in life.state.devices] == [A]
    life.clock.advance(s=KEPT_MS / 1000 + 1)
    life.again()
    assert life.state.removed == ()
    life.journal.close()


async def test_connection_that_is_abandoned_takes_release_plan_and_settings_with_it(tmp_path: Path) -> None:
    life = Life(tmp_path)
    await life.commit(
        DeviceRegistered(device=HERE), PriorSaved(device=A, settings={"mode": 2.0}),
        DepartureAsked(device=A, wanted=THERE),
    )  # fmt: skip
    await life.commit(DepartureOver(devices=(A,), reason=ConnectionEnd.ABANDONED, why="gone", by="ann"))
    await life.commit(DeviceRegistered(device=THERE))
    assert [c.ended for c in await life.of("a")] == [ConnectionEnd.ABANDONED, None]
    life.again()
    assert (life.state.prior, life.state.controlled, life.state.departures) == ({}, {}, ())
    life.journal.close()


async def test_same_device_twice_in_one_commit_has_one_open_connection(tmp_path: Path) -> None:
    life = Life(tmp_path)
    await life.commit(DeviceRegistered(device=HERE), DeviceRegistered(device=THERE))
    assert [(c.url, c.valid.until_ms is None) for c in await life.of("a")] == [("modbus://10.0.0.6", True)]
    assert await life.of("nobody") == []
    life.journal.close()


async def test_device_that_was_abandoned_and_removed_is_remembered_as_removed(tmp_path: Path) -> None:
    life = Life(tmp_path)
    await life.commit(DeviceRegistered(device=HERE), DepartureAsked(device=A, wanted=None))
    await life.commit(DepartureOver(devices=(A,), reason=ConnectionEnd.ABANDONED), DeviceRemoved(device=A))
    life.again()
    assert life.state.removed == (A,)
    life.journal.close()


async def test_device_that_was_abandoned_and_still_waits_gets_no_connection_of_before_at_a_start(
    tmp_path: Path,
) -> None:
    life = Life(tmp_path)
    await life.commit(DeviceRegistered(device=HERE), DepartureAsked(device=A, wanted=THERE))
    await life.commit(
        DepartureOver(devices=(A,), reason=ConnectionEnd.ABANDONED), DepartureAsked(device=A, wanted=THERE)
    )  # fmt: skip
    life.again()
    assert [departure.device for departure in life.state.departures] == [A]
    await life.commit(DeviceRegistered(device=THERE))
    found = await life.of("a")
    assert [c.ended for c in found] == [ConnectionEnd.ABANDONED, None]
    assert found[1].valid.from_ms == life.clock.utc
    life.journal.close()


async def test_start_knows_since_when_another_battery_answers_as_a_device_that_moved(tmp_path: Path) -> None:
    def numbered(url: str) -> DeviceConnection:
        return DeviceConnection(url=url, units=(("main", 1),), parameters=(("serial", "S1"),))

    life = Life(tmp_path)
    same = home("same", connection=numbered("modbus://10.0.0.7"))
    back = home("back", connection=DeviceConnection(url="modbus://10.0.0.9"))
    new = home("new", connection=DeviceConnection(url="modbus://10.0.0.10"))
    await life.commit(*(DeviceRegistered(device=device) for device in (HERE, home(B), same, back, new)))
    moved = [THERE, home(B, profile="other"), replace(same, connection=numbered("modbus://10.0.0.8"))]
    at_ms = await life.commit(*(DeviceRegistered(device=device) for device in moved), DeviceRemoved(device=back.id))
    await life.commit(DeviceRegistered(device=replace(back, connection=DeviceConnection(url="modbus://10.0.0.11"))))
    life.again()
    assert life.state.replaced == {A: at_ms}
    again_ms = await life.commit(DeviceRegistered(device=HERE))
    life.again()
    assert life.state.replaced == {A: again_ms}
    life.journal.close()

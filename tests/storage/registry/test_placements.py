"""At which site and meter devices were, over time; and the meter that they are behind now."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.journal.changes import DepartureAsked, DeviceRegistered, DeviceRemoved
from gateway.domain.registry.placement import Placement
from gateway.domain.types import DeviceId
from gateway.storage.journal.event_store import SqliteEventStore
from tests.builders.fakes import home
from tests.storage.registry.test_connections import Life

A = DeviceId("a")
HOME = home("a", meter="SAID-1")


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    made = Life(tmp_path)
    yield made
    made.journal.close()


async def placed(life: Life) -> list[tuple[str, str, int | None, int | None]]:
    store = SqliteEventStore(life.path)
    try:
        found: list[Placement] = await store.placements("a")
    finally:
        store.close()
    return [(one.site, one.meter, one.valid.from_ms, one.valid.until_ms) for one in found]


async def test_placement_is_closed_and_the_next_one_opened_where_site_or_meter_change(life: Life) -> None:
    first = await life.commit(DeviceRegistered(device=HOME))
    await life.commit(DeviceRegistered(device=replace(HOME, capacity_wh=9_000.0)))
    second = await life.commit(DeviceRegistered(device=replace(HOME, meter="SAID-2")))
    third = await life.commit(DeviceRegistered(device=replace(HOME, meter="SAID-2", site="next-door")))
    gone = await life.commit(DeviceRemoved(device=A))
    back = await life.commit(DeviceRegistered(device=HOME))
    assert await placed(life) == [
        ("site-a", "SAID-1", first, second), ("site-a", "SAID-2", second, third), ("next-door", "SAID-2", third, gone),
        ("site-a", "SAID-1", back, None),
    ]  # fmt: skip


async def test_meter_is_there_after_a_restart_and_that_of_a_device_that_departs_too(life: Life) -> None:
    await life.commit(DeviceRegistered(device=HOME), DepartureAsked(device=A, wanted=replace(HOME, meter="SAID-2")))
    life.again()
    assert [device.meter for device in life.state.devices] == ["SAID-1"]
    assert [known.wanted.meter for known in life.state.departures if known.wanted] == ["SAID-2"]
    life.again()
    assert len(await placed(life)) == 1


async def test_meter_is_not_in_what_release_0_1_reads(life: Life) -> None:
    await life.commit(DeviceRegistered(device=HOME))
    life.journal.close()
    with closing(sqlite3.connect(life.path)) as db:
        ((body,),) = db.execute("SELECT body FROM devices")
        assert "meter" not in body
        db.execute("DROP TABLE placements")
        db.commit()
    life.start()
    assert (await placed(life), life.state.devices[0].meter) == ([("site-a", "", None, None)], "")


async def test_nothing_overlaps_where_the_clock_is_set_back_between_two_changes(life: Life) -> None:
    first = await life.commit(DeviceRegistered(device=HOME))
    gone = await life.commit(DeviceRemoved(device=A), after_s=1_200)
    await life.commit(DeviceRegistered(device=HOME), after_s=-1_200)
    moved = replace(HOME, meter="SAID-2", connection=DeviceConnection(url="modbus://10.0.0.5"))
    await life.commit(DeviceRegistered(device=moved), after_s=10)
    assert await placed(life) == [
        ("site-a", "SAID-1", first, gone), ("site-a", "SAID-1", gone, gone), ("site-a", "SAID-2", gone, None),
    ]  # fmt: skip
    spans = [(one.valid.from_ms, one.valid.until_ms) for one in await life.of("a")]
    assert spans == [(first, gone), (gone, gone), (gone, None)]


async def test_where_a_home_is_has_time_as_its_site_has_and_survives_a_restart(life: Life) -> None:
    here = replace(HOME, postcode="95404", county="Sonoma", utility="PG&E")
    first = await life.commit(DeviceRegistered(device=here))
    second = await life.commit(DeviceRegistered(device=replace(here, postcode="95405")))
    life.again()
    assert life.state.devices == (replace(here, postcode="95405"),)
    store = SqliteEventStore(life.path)
    try:
        found = await store.placements("a")
    finally:
        store.close()
    assert [(one.postcode, one.county, one.utility, one.valid.from_ms, one.valid.until_ms) for one in found] == [
        ("95404", "Sonoma", "PG&E", first, second), ("95405", "Sonoma", "PG&E", second, None),
    ]  # fmt: skip


async def test_file_from_before_homes_were_anywhere_is_read_and_takes_where_they_are(life: Life) -> None:
    await life.commit(DeviceRegistered(device=HOME))
    life.journal.close()
    with closing(sqlite3.connect(life.path)) as db, db:
        for column in ("postcode", "county", "utility"):
            db.execute(f"ALTER TABLE placements DROP COLUMN {column}")
        db.execute("DROP TABLE areas")
    life.again()
    assert life.state.devices == (HOME,)
    await life.commit(DeviceRegistered(device=replace(HOME, county="Sonoma")))
    life.again()
    assert [device.county for device in life.state.devices] == ["Sonoma"]

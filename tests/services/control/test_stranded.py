"""Devices that may be under control and that cannot be released, since their profile is missing: never silent."""

import logging

import pytest

from gateway.domain.fleet.device import Device
from gateway.domain.journal.changes import ControlEnded, ControlTaken, DeviceRegistered, PriorRestored, PriorSaved
from gateway.domain.types import DeviceId, EventId
from gateway.services.control.metrics import control_samples
from tests.builders.fakes import MemoryJournal, home
from tests.scenes.world import World

NOT_INSTALLED = "not installed"


async def journal_of(*devices: Device, controlled: tuple[str, ...] = (), saved: tuple[str, ...] = ()) -> MemoryJournal:
    journal = MemoryJournal()
    await journal.commit([DeviceRegistered(device=device) for device in devices])
    await journal.commit([ControlTaken(devices=tuple(map(DeviceId, controlled)), event=EventId("e"))])
    await journal.commit([PriorSaved(device=DeviceId(name), settings={"mode": 1.0}) for name in saved])
    return journal


def told(world: World) -> list[str]:
    return [reason for reason in world.queries.reasons() if NOT_INSTALLED in reason]


def counted(world: World) -> float:
    found = [s.value for s in control_samples(world.queries) if s.name == "gateway_stranded_devices"]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("how", ["controlled", "saved"])
async def test_device_under_control_without_its_profile_is_told_until_it_is_back(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept = {how: ("a",)}
    lost = home("a", profile="gone")
    journal = await journal_of(lost, home("b"), controlled=kept.get("controlled", ()), saved=kept.get("saved", ()))
    world = World([home("b")], journal=journal)
    await world.go(400)
    assert told(world) == [
        "1 device may still be under control and cannot be released, its profile is not installed: a (gone)"
    ]
    assert counted(world) == 1
    lines = [record for record in caplog.records if NOT_INSTALLED in record.getMessage()]
    assert [(line.levelno, line.__dict__["count"], line.__dict__["first"]) for line in lines] == [
        (logging.ERROR, 1, "a (gone)")
    ]
    # Its profile is installed again: it is taken over, and released.
    again = World([home("b"), lost], journal=journal)
    assert (told(again), counted(again)) == ([], 0)
    await again.go(400)
    if how == "controlled":
        assert journal.load().controlled == {}


async def test_device_without_its_profile_that_is_free_is_no_reason() -> None:
    journal = await journal_of(home("a", profile="gone"), home("b"), controlled=("a", "b"), saved=("a",))
    await journal.commit([ControlEnded(devices=(DeviceId("a"),), reason="released"),
                          PriorRestored(device=DeviceId("a"))])  # fmt: skip
    world = World([home("b")], journal=journal)
    assert (told(world), counted(world)) == ([], 0)


async def test_reason_names_some_of_many_and_stays_short() -> None:
    lost = [home(f"device-{i:04d}-{'x' * 40}", profile=f"gone-{i % 7}") for i in range(3_000)]
    journal = await journal_of(*lost, controlled=tuple(device.id for device in lost))
    world = World([home("b")], journal=journal)
    (reason,) = told(world)
    assert reason.startswith("3000 devices may still be under control and cannot be released, their profiles are")
    assert reason.endswith(" and 2995 more")
    assert len(reason) < 600
    assert counted(world) == 3_000

"""Devices that send without being registered: listed until they are, bounded, and told in few lines."""

import pytest

from gateway.links.mqtt.unregistered import UNREGISTERED_MAX, Unregistered
from tests.builders.fakes import home
from tests.links.mqtt.test_messages_unclear import Rig, live
from tests.scenes.street import reference


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    found = [r for r in caplog.records if r.message == "telemetry of devices that are not registered"]
    return [(r.__dict__["device"], r.__dict__["count"]) for r in found]


def test_link_forgets_a_device_that_was_registered_since_and_keeps_the_others() -> None:
    rig = Rig()
    for name in ("new", "stranger"):
        rig.hear(live(), device=name)
    rig.fleet.register(home("new", profile="reference-mqtt"), reference().facts)
    assert set(rig.link.unregistered.devices()) == {"stranger"}
    rig.hear(live(), device="stranger")
    assert rig.link.stats.unregistered == 3


def test_unregistered_newest_take_the_place_of_those_heard_longest_ago() -> None:
    found = Unregistered({})
    for i in range(UNREGISTERED_MAX):
        found.observe(f"d{i}", i)
    found.observe("d0", UNREGISTERED_MAX)
    found.observe("new", UNREGISTERED_MAX + 1)
    devices = found.devices()
    assert len(devices) == UNREGISTERED_MAX
    assert devices["d0"] == UNREGISTERED_MAX
    assert "d1" not in devices
    assert "new" in devices


def test_unregistered_registered_ones_make_room_for_strangers() -> None:
    registered: dict[str, int] = {}
    found = Unregistered(registered)
    for i in range(UNREGISTERED_MAX):
        found.observe(f"d{i}", i)
    registered |= {f"d{i}": i for i in range(1, UNREGISTERED_MAX)}
    found.observe("new", 5_000)
    assert set(found.devices()) == {"d0", "new"}


def test_unregistered_many_at_once_are_few_lines_with_counts(caplog: pytest.LogCaptureFixture) -> None:
    found = Unregistered({})
    for i in range(3_000):
        found.observe(f"d{i}", i)
        found.observe(f"d{i}", i)
    assert lines(caplog) == [(f"d{n - 1}", n) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)]


def test_unregistered_is_told_again_after_none_was_left(caplog: pytest.LogCaptureFixture) -> None:
    registered: dict[str, int] = {}
    found = Unregistered(registered)
    found.observe("a", 1)
    registered["a"] = 0
    assert found.devices() == {}
    found.observe("b", 2)
    assert lines(caplog) == [("a", 1), ("b", 1)]

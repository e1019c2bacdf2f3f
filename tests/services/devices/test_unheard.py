"""A fleet that is not heard makes the gateway not ready; a few devices that are not are a warning."""

import pytest

from gateway.clock import ManualClock
from gateway.domain.fleet.fleet import Fleet
from gateway.services.devices.unheard import Unheard
from tests.builders.fakes import FACTS, home


def rig(devices: int, heard: int) -> tuple[ManualClock, Fleet, Unheard]:
    """A gateway that has run for an hour."""
    clock, fleet = ManualClock(), Fleet()
    for i in range(devices):
        fleet.register(home(f"home-{i}"), FACTS)
    unheard = Unheard(fleet, clock)
    clock.advance(s=3_600)
    fleet.live.seen_mono_ms[:heard] = clock.mono_ms()
    return clock, fleet, unheard


@pytest.mark.parametrize(
    ("heard", "reasons", "warnings"), [(20, 0, 0), (18, 0, 0), (17, 0, 1), (10, 0, 1), (9, 1, 0), (0, 1, 0)]
)
def test_fleet_of_which_more_than_half_is_not_heard_is_not_ready_and_a_few_are_a_warning(
    heard: int, reasons: int, warnings: int
) -> None:
    _, _, unheard = rig(20, heard)
    assert (len(unheard.reasons()), len(unheard.warnings())) == (reasons, warnings)
    for text in unheard.reasons() + unheard.warnings():
        assert text == f"devices: no reading of {20 - heard} of 20 for two minutes"


def test_fleet_that_falls_silent_is_told_after_two_minutes_and_no_more_once_it_is_back() -> None:
    clock, fleet, unheard = rig(4, 4)
    clock.advance(s=119)
    assert unheard.reasons() == []
    clock.advance(s=2)
    assert len(unheard.reasons()) == 1
    fleet.live.seen_mono_ms[:4] = clock.mono_ms()
    assert (unheard.reasons(), unheard.warnings()) == ([], [])


def test_fleet_has_a_minute_after_the_start_and_is_a_warning_meanwhile() -> None:
    clock, fleet = ManualClock(), Fleet()
    fleet.register(home("home"), FACTS)
    unheard = Unheard(fleet, clock)
    clock.advance(s=59)
    assert (unheard.reasons(), len(unheard.warnings())) == ([], 1)
    clock.advance(s=2)
    assert (len(unheard.reasons()), unheard.warnings()) == (1, [])


def test_gateway_without_devices_is_ready_and_says_so() -> None:
    _, _, unheard = rig(0, 0)
    assert (unheard.reasons(), unheard.warnings()) == ([], ["devices: none is registered"])

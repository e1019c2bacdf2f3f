"""Who does nothing, whose product is gone: proven, not guessed, and never the innocent."""

from typing import Any

import numpy as np
import pytest

from gateway.domain.control.compliance import Conduct, ResponseParams, responsive, unresponsive_for_s, update_conduct
from gateway.domain.control.quarantine import StruckParams, failed_products, lost_products
from gateway.domain.fleet.columns import Authority
from gateway.domain.types import Grid, Now
from tests.builders.fleets import NOW, fleet_of


class Controlled:
    """One device that gets setpoints and is checked every second; it is read every `every_s`."""

    def __init__(self, *, every_s: int = 1, **columns: Any) -> None:
        free = {
            "authority": Authority.DEVICE,
            "cmd": 0,
            "cmd_sent": 0,
            "cmd_applied": 0,
            "command_latency_s": 5,
            "settle_s": 30,
        }
        self.snapshot = fleet_of(1, **(free | columns))
        self.conduct = Conduct(1)
        self.now = NOW
        self.every_s = every_s
        self.unresponsive_s: list[int] = []
        self.told_mono_ms = NOW.mono_ms
        self.observe()

    def observe(self) -> None:
        update_conduct(self.conduct, self.snapshot, self.now)
        if not responsive(self.conduct, self.snapshot, self.now, ResponseParams())[0]:
            self.unresponsive_s.append((self.now.mono_ms - self.told_mono_ms) // 1000)

    def commanded(self, setpoint_w: float, *, answers: bool = True) -> "Controlled":
        control = self.snapshot.control
        self.told_mono_ms = self.now.mono_ms
        control.authority[:] = Authority.CONTROLLED
        control.setpoint_w[:] = setpoint_w
        control.cmd_sent[:] += 1
        control.sent_mono_ms[:] = control.changed_mono_ms[:] = self.now.mono_ms
        if answers:
            control.cmd_applied[:] = control.cmd_sent
        return self

    def does(self, battery_w: float, *, s: int) -> "Controlled":
        for _ in range(s):
            self.now = Now(utc_ms=self.now.utc_ms + 1_000, mono_ms=self.now.mono_ms + 1_000)
            if (self.now.mono_ms - NOW.mono_ms) // 1000 % self.every_s == 0:
                self.snapshot.live.battery_w[:] = battery_w
                self.snapshot.live.seen_mono_ms[:] = self.now.mono_ms
            self.observe()
        return self


# -- may it be relied upon ---------------------------------------------------------------------------------------


def test_responsive_device_that_follows_is_relied_upon() -> None:
    assert Controlled().commanded(2_000).does(2_190, s=100).does(1_810, s=100).unresponsive_s == []


@pytest.mark.fault("F22")
def test_responsive_device_that_does_not_follow_is_unresponsive_once_it_must_have_settled() -> None:
    assert Controlled().commanded(2_000).does(1_700, s=38).unresponsive_s == [36, 37, 38]


@pytest.mark.fault("F22")
@pytest.mark.parametrize("settle_s", [0, 30, 120])
def test_responsive_each_product_has_its_own_time(settle_s: int) -> None:
    device = Controlled(settle_s=settle_s).commanded(2_000).does(500, s=settle_s + 6)
    assert device.unresponsive_s == [settle_s + 6]


def test_responsive_device_that_is_slow_on_a_ramp_is_not_judged_by_setpoints_it_cannot_have_reached() -> None:
    device = Controlled(every_s=5)
    for step in range(1, 31):
        device.commanded(100 * step).does(100 * max(step - 15, 0), s=1)
    for step in range(15, 31):
        device.does(100 * step, s=1)
    assert device.does(3_000, s=60).unresponsive_s == []


@pytest.mark.fault("F22")
def test_responsive_corrections_leave_a_slow_device_its_time_and_an_unresponsive_one_none() -> None:
    slow, unresponsive = (
        Controlled().commanded(3_000).does(3_000, s=40),
        Controlled().commanded(3_000).does(3_000, s=40),
    )
    for correction in range(1, 30):
        slow.commanded(3_000 + 16 * correction).does(3_000 + 16 * max(correction - 3, 0), s=10)
        unresponsive.commanded(3_000 + 16 * correction).does(2_000, s=10)
    assert slow.unresponsive_s == []
    assert unresponsive.unresponsive_s


@pytest.mark.fault("F22")
def test_responsive_correction_is_over_once_the_device_must_have_settled() -> None:
    device = Controlled().commanded(3_000).does(3_000, s=40).commanded(3_400).does(3_000, s=71)
    assert device.unresponsive_s
    assert min(device.unresponsive_s) >= 35


@pytest.mark.fault("F22")
def test_responsive_command_that_is_not_answered_in_time_gives_no_time_to_settle() -> None:
    # written in one tick, known in the next, and 5 s from there on
    assert Controlled().commanded(2_000, answers=False).does(500, s=8).unresponsive_s == [7, 8]


@pytest.mark.fault("F22")
def test_responsive_unanswered_commands_of_a_ramp_count_from_the_first_of_them() -> None:
    device = Controlled()
    for step in range(1, 11):
        device.commanded(500 * step, answers=False).does(0, s=1)
    assert len(device.unresponsive_s) == 4


def test_responsive_answers_that_are_late_but_come_leave_the_time_to_settle() -> None:
    device = Controlled()
    for step in range(1, 31):
        device.commanded(100 * step, answers=False).does(0, s=1)
        device.snapshot.control.cmd_applied[:] = max(step - 4, 0)
    assert device.unresponsive_s == []


def test_responsive_device_that_shows_our_command_has_answered_it() -> None:
    device = Controlled().commanded(2_000, answers=False)
    device.snapshot.live.cmd[:] = device.snapshot.control.cmd_sent
    assert device.does(500, s=30).unresponsive_s == []
    # an id that was never given out says nothing
    device.commanded(-2_000, answers=False)
    device.snapshot.live.cmd[:] = 1 << 60
    assert device.does(500, s=7).unresponsive_s == [6, 7]


@pytest.mark.parametrize(
    ("column", "value"), [("authority", Authority.DEVICE), ("idle", True), ("battery_w", np.nan), ("seen_mono_ms", 0)]
)
def test_responsive_free_idle_stale_or_unknown_device_is_not_judged(column: str, value: float) -> None:
    device = Controlled().commanded(3_000).does(0, s=30)
    table = device.snapshot.live if column in device.snapshot.live.SPEC else device.snapshot.control
    device.every_s = 10**9
    table.column(column)[:] = value
    assert device.does(0, s=60).unresponsive_s == []


def test_responsive_reading_from_before_the_time_is_over_says_nothing_after_it() -> None:
    device = Controlled().commanded(3_000).does(0, s=34)
    device.every_s = 10**9
    assert device.does(0, s=20).unresponsive_s == []


def test_responsive_device_that_did_not_follow_is_not_relied_upon_again_for_having_fallen_silent() -> None:
    device = Controlled().commanded(3_000).does(0, s=36)
    device.every_s = 10**9
    assert device.does(0, s=60).unresponsive_s[-1] == 96
    # it got another setpoint since it was read
    before = len(device.unresponsive_s)
    assert len(device.commanded(-3_000).does(0, s=60).unresponsive_s) == before


# -- unresponsive -----------------------------------------------------------------------------------------------------


@pytest.mark.fault("F22")
def test_unresponsive_counts_from_when_it_began_and_ends_with_the_first_reading_that_follows() -> None:
    conduct = Conduct(2)
    both, one = np.array([False, True]), np.array([True, True])

    def at(s: int) -> Now:
        return Now(utc_ms=0, mono_ms=s * 1000)

    assert unresponsive_for_s(conduct, both, at(100)).tolist() == [0, 0]
    assert unresponsive_for_s(conduct, both, at(170)).tolist() == [70, 0]
    assert unresponsive_for_s(conduct, one, at(171)).tolist() == [0, 0]
    assert unresponsive_for_s(conduct, both, at(200)).tolist() == [0, 0]


# -- F40: many devices of a product fall out at once ------------------------------------------------------------

FAILED = [("faults", 4, 0), ("authority", Authority.OWNER, Authority.CONTROLLED)]
LOST = [("online", 0, 1), ("grid", Grid.ISLAND, Grid.ON)]


class Fleet:
    """Two products of 20 devices each; looked at every five seconds. `silent` devices say nothing."""

    def __init__(self) -> None:
        self.snapshot = fleet_of(40, product=np.repeat([0, 1], 20))
        self.conduct = Conduct(40)
        self.now = NOW
        self.silent = np.zeros(40, dtype=np.bool_)
        self.failed: frozenset[int] = frozenset()
        self.lost: frozenset[int] = frozenset()
        self.observe()

    def observe(self, s: int = 5) -> tuple[frozenset[int], frozenset[int]]:
        """Failed and lost products."""
        self.now = Now(utc_ms=self.now.utc_ms + s * 1000, mono_ms=self.now.mono_ms + s * 1000)
        self.snapshot.live.seen_mono_ms[~self.silent] = self.now.mono_ms
        params = StruckParams()
        self.failed = failed_products(self.conduct, self.snapshot, self.failed, self.now, params)
        self.lost = lost_products(self.conduct, self.snapshot, self.lost, self.now, params)
        return self.failed, self.lost

    def set(self, column: str, slots: slice, value: int) -> None:
        table = self.snapshot.control if column == "authority" else self.snapshot.live
        table.column(column)[slots] = value


@pytest.mark.fault("F40")
@pytest.mark.parametrize(("column", "gone", "here"), [*FAILED, *LOST])
def test_struck_is_a_product_of_which_many_fall_out_at_once_and_no_other(column: str, gone: int, here: int) -> None:
    fleet = Fleet()
    which = 0 if (column, gone, here) in FAILED else 1

    def struck() -> frozenset[int]:
        return fleet.observe()[which]

    fleet.set(column, slice(7), gone)
    assert struck() == frozenset()
    fleet.set(column, slice(7, 8), gone)
    assert struck() == {0}
    # some are back, then all but one in ten
    fleet.set(column, slice(5), here)
    assert struck() == {0}
    fleet.set(column, slice(6), here)
    assert struck() == frozenset()


@pytest.mark.fault("F40")
@pytest.mark.parametrize(("column", "gone", "here"), LOST)
def test_failed_is_no_product_of_which_many_are_lost(column: str, gone: int, here: int) -> None:
    fleet = Fleet()
    fleet.set(column, slice(20), gone)
    assert fleet.observe() == (frozenset(), frozenset({0}))


def test_failed_is_judged_by_those_that_are_heard() -> None:
    fleet = Fleet()
    fleet.silent[:12] = True
    fleet.observe(s=130)
    fleet.set("faults", slice(12, 16), 4)
    assert fleet.observe()[0] == frozenset()
    fleet.set("faults", slice(16, 17), 4)
    assert fleet.observe()[0] == {0}
    # those that are silent say nothing for or against it either
    fleet.set("faults", slice(12, 17), 0)
    assert fleet.observe()[0] == frozenset()


@pytest.mark.fault("F40")
def test_lost_silence_counts_once_readings_are_too_old() -> None:
    fleet = Fleet()
    fleet.silent[:10] = True
    assert fleet.observe(s=119)[1] == frozenset()
    assert fleet.observe(s=2) == (frozenset(), frozenset({0}))


def test_struck_is_no_product_whose_devices_fall_out_one_after_the_other_over_an_hour() -> None:
    fleet = Fleet()
    for slot in range(12):
        fleet.set("online" if slot % 2 else "faults", slice(slot, slot + 1), 0 if slot % 2 else 4)
        assert fleet.observe(s=300) == (frozenset(), frozenset())


def test_struck_is_no_small_product() -> None:
    fleet = Fleet()
    fleet.snapshot.nameplate.product[:] = np.arange(40) // 4
    fleet.set("online", slice(4), 0)
    fleet.set("faults", slice(8, 12), 4)
    assert fleet.observe() == (frozenset(), frozenset())


def test_lost_devices_that_never_were_there_are_no_loss() -> None:
    snapshot = fleet_of(20, product=0, online=0)
    assert lost_products(Conduct(20), snapshot, frozenset(), NOW, StruckParams()) == frozenset()

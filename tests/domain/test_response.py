"""Who does the opposite, who does nothing, whose product is gone: proven, not guessed, and never the innocent."""

from typing import Any

import numpy as np
import pytest

from gateway.domain.columns import Held
from gateway.domain.envelope import LimitParams
from gateway.domain.fleet import Snapshot
from gateway.domain.limits import envelope
from gateway.domain.model import Grid, Mode, Now
from gateway.domain.response import (
    Conduct,
    LossParams,
    SignParams,
    deaf_for_s,
    lost_products,
    wrong_products,
    wrong_way,
)
from tests.domain.scenes import NOW, fleet_of


class Trial:
    """Devices that are told something and read again, a second at a time."""

    def __init__(self, n: int = 1, /, **columns: Any) -> None:
        free = {"held": Held.FREE, "mode": Mode.SELF_CONSUMPTION, "cmd": 0, "cmd_sent": 0, "cmd_applied": 0}
        self.snapshot: Snapshot = fleet_of(n, **({"soc_pct": 60} | free | columns))
        self.conduct = Conduct(n)
        self.now = NOW
        self.proven: set[int] = set()
        self.look()

    def look(self) -> None:
        allowed = envelope(self.snapshot, self.now, LimitParams())
        found = wrong_way(self.conduct, self.snapshot, allowed, self.now, SignParams())
        self.proven |= set(np.flatnonzero(found).tolist())

    def told(self, setpoint_w: float, *, acked: bool = True) -> "Trial":
        control = self.snapshot.control
        control.held[:] = Held.CONTROLLED
        control.setpoint_w[:] = setpoint_w
        control.cmd_sent[:] += 1
        if acked:
            control.cmd_applied[:] = control.cmd_sent
            self.snapshot.live.mode[:] = Mode.REMOTE
        return self

    def does(self, *battery_w: float, after_s: int = 2) -> "Trial":
        self.now = Now(utc_ms=self.now.utc_ms + after_s * 1000, mono_ms=self.now.mono_ms + after_s * 1000)
        self.snapshot.live.battery_w[:] = battery_w
        self.snapshot.live.seen_mono_ms[:] = self.now.mono_ms
        self.look()
        return self


def test_wrong_way_two_readings_on_the_other_side_are_proof_f21() -> None:
    trial = Trial().told(3_000).does(0).does(-3_000)
    assert trial.proven == set()
    assert trial.does(-3_000).proven == {0}


def test_wrong_way_charging_told_and_discharging_done_is_proof_too_f21() -> None:
    assert Trial().told(-2_000).does(0).does(2_000).does(2_000).proven == {0}


def test_wrong_way_device_that_follows_is_innocent_however_often_it_turns() -> None:
    trial = Trial()
    for setpoint_w in (3_000, -3_000, 4_000, -1_000, 5_000):
        trial.told(setpoint_w).does(setpoint_w * 0.6).does(setpoint_w).does(setpoint_w)
    assert trial.proven == set()


def test_wrong_way_is_judged_by_the_power_before_and_not_by_its_sign() -> None:
    # 4 kW in its own mode, told 1.5 kW, does 1.5 kW: less than before and right
    assert Trial(battery_w=4_000).told(1_500).does(4_000).does(1_500).does(1_500).proven == set()
    # told 1.5 kW more and does less
    assert Trial(battery_w=1_500).told(4_000).does(1_500).does(-1_000).does(-1_000).proven == {0}


def test_wrong_way_on_a_ramp_is_seen_before_its_end() -> None:
    trial = Trial()
    for step in range(1, 11):
        trial.told(500 * step).does(-500 * step)
    assert trial.proven == {0}


@pytest.mark.parametrize(
    ("columns", "setpoint_w"),
    [
        ({}, 900),  # less than a fifth of the rating
        ({"soc_pct": 22}, 3_000),  # at its reserve, the BMS may do as it likes
        ({"soc_pct": 98}, -3_000),
        ({"faults": 1}, 3_000),
    ],
)
def test_wrong_way_small_or_limited_changes_are_not_judged(columns: dict[str, Any], setpoint_w: float) -> None:
    trial = Trial(**columns).told(setpoint_w)
    for _ in range(5):
        trial.does(-setpoint_w)
    assert trial.proven == set()


def test_wrong_way_at_the_limit_of_the_bms_is_not_judged() -> None:
    trial = Trial()
    trial.snapshot.live.discharge_w_max[:] = 3_000
    trial.told(3_000).does(0).does(-3_000).does(-3_000)
    assert trial.proven == set()
    trial.snapshot.live.discharge_w_max[:] = 5_000
    assert trial.does(-3_000).does(-3_000).proven == {0}


def test_wrong_way_device_that_was_not_reached_is_deaf_and_not_wrong() -> None:
    trial = Trial(battery_w=3_000).told(5_000, acked=False)
    for battery_w in (2_000, 500, -500):
        trial.does(battery_w)
    assert trial.proven == set()


def test_wrong_way_only_the_guilty() -> None:
    assert Trial(3).told(3_000).does(0, 0, 0).does(3_000, -3_000, 2_900).does(3_000, -3_000, 2_900).proven == {1}


def test_wrong_way_taken_anew_begins_anew() -> None:
    trial = Trial().told(3_000).does(0).does(-3_000)
    trial.snapshot.control.held[:] = Held.FREE
    trial.does(-3_000)
    trial.told(3_000).does(-3_000).does(3_000).does(3_000)
    assert trial.proven == set()


def test_wrong_way_what_a_device_did_while_it_was_lost_is_not_held_against_it() -> None:
    trial = Trial().told(3_000).does(3_000).told(4_500)
    live, control = trial.snapshot.live, trial.snapshot.control
    live.mode[:] = Mode.SELF_CONSUMPTION
    trial.does(-200)  # the lease ended while nothing arrived
    live.mode[:] = Mode.REMOTE
    trial.does(-200).does(-200).does(3_000)  # back, and on its way
    assert (trial.proven, control.setpoint_w.tolist()) == (set(), [4_500])
    assert trial.does(-3_000).does(-3_000).proven == {0}


def test_wrong_way_is_judged_from_the_newest_power_that_was_right_however_small_the_step_to_it() -> None:
    trial = Trial().told(900).does(900).told(0).does(0)
    trial.snapshot.control.idle[:] = True
    trial.does(-600).does(-1_200)  # left to charge from PV
    trial.snapshot.control.idle[:] = False
    assert trial.told(2_500).does(230).does(250).does(2_400).proven == set()
    assert trial.told(0).does(4_000).does(4_500).proven == {0}


def test_wrong_products_several_of_one_profile_condemn_it_and_no_other() -> None:
    snapshot = fleet_of(20, profile=np.repeat([0, 1], 10))
    quarantined = np.zeros(20, dtype=np.bool_)
    quarantined[[0, 1, 10]] = True
    assert wrong_products(quarantined, snapshot, SignParams()).tolist() == []
    quarantined[2] = True
    assert wrong_products(quarantined, snapshot, SignParams()).tolist() == [0]


def test_wrong_products_few_of_a_large_fleet_are_only_few() -> None:
    snapshot = fleet_of(100, profile=0)
    quarantined = np.arange(100) < 5
    assert wrong_products(quarantined, snapshot, SignParams()).tolist() == []


# -- deaf -------------------------------------------------------------------------------------------------------


def test_deaf_counts_from_when_it_began_and_ends_with_the_first_reading_that_follows_f22() -> None:
    conduct = Conduct(2)
    both, one = np.array([False, True]), np.array([True, True])

    def at(s: int) -> Now:
        return Now(utc_ms=0, mono_ms=s * 1000)

    assert deaf_for_s(conduct, both, at(100)).tolist() == [0, 0]
    assert deaf_for_s(conduct, both, at(170)).tolist() == [70, 0]
    assert deaf_for_s(conduct, one, at(171)).tolist() == [0, 0]
    assert deaf_for_s(conduct, both, at(200)).tolist() == [0, 0]


# -- F40: a product is lost -------------------------------------------------------------------------------------


class Fleet:
    """Two products of 20 devices each; looked at every five seconds."""

    def __init__(self) -> None:
        self.snapshot = fleet_of(40, profile=np.repeat([0, 1], 20))
        self.conduct = Conduct(40)
        self.now = NOW
        self.frozen: frozenset[int] = frozenset()
        self.look()

    def look(self, s: int = 5) -> frozenset[int]:
        self.now = Now(utc_ms=self.now.utc_ms + s * 1000, mono_ms=self.now.mono_ms + s * 1000)
        self.snapshot.live.seen_mono_ms[:] = self.now.mono_ms
        self.frozen = lost_products(self.conduct, self.snapshot, self.frozen, self.now, LossParams())
        return self.frozen


@pytest.mark.parametrize(
    ("column", "gone", "here"),
    [("online", 0, 1), ("faults", 4, 0), ("grid", Grid.ISLAND, Grid.ON), ("held", Held.LEFT, Held.CONTROLLED)],
)
def test_lost_many_of_one_product_at_once_freeze_it_and_no_other_f40(column: str, gone: int, here: int) -> None:
    fleet = Fleet()
    table = fleet.snapshot.control if column == "held" else fleet.snapshot.live
    table.column(column)[:7] = gone
    assert fleet.look() == frozenset()
    table.column(column)[7] = gone
    assert fleet.look() == {0}
    # some are back, then all but one in ten
    table.column(column)[:5] = here
    assert fleet.look() == {0}
    table.column(column)[:6] = here
    assert fleet.look() == frozenset()


def test_lost_silence_counts_once_readings_are_too_old_f40() -> None:
    fleet = Fleet()
    fleet.snapshot.live.seen_mono_ms[:10] = fleet.now.mono_ms - 121_000
    fleet.frozen = lost_products(fleet.conduct, fleet.snapshot, fleet.frozen, fleet.now, LossParams())
    assert fleet.frozen == {0}


def test_lost_devices_one_after_the_other_over_an_hour_freeze_nothing() -> None:
    fleet = Fleet()
    for slot in range(12):
        fleet.snapshot.live.online[slot] = 0
        assert fleet.look(s=300) == frozenset()


def test_lost_few_devices_of_a_small_product_freeze_nothing() -> None:
    fleet = Fleet()
    fleet.snapshot.nameplate.profile[:] = np.arange(40) // 4
    fleet.snapshot.live.online[:4] = 0
    assert fleet.look() == frozenset()


def test_lost_devices_that_never_were_there_are_no_loss() -> None:
    snapshot = fleet_of(20, profile=0, online=0)
    assert lost_products(Conduct(20), snapshot, frozenset(), NOW, LossParams()) == frozenset()

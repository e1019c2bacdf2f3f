"""Devices that do the opposite of their setpoint: proven by lasting readings; devices that obey are never accused."""

from typing import Any

import numpy as np
import pytest

from gateway.domain.control.compliance import Conduct, update_conduct
from gateway.domain.control.quarantine import HOMES_MIN, SUSTAINED_S, VERDICT_S, wrong_products, wrong_way
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits.envelope import envelope
from gateway.domain.limits.types import LimitParams
from gateway.domain.types import Grid, Mode, Now
from tests.builders.fleets import NOW, fleet_of

COMMAND_LATENCY_S, SETTLE_S = 5, 30
FOUND_S = COMMAND_LATENCY_S + SETTLE_S + SUSTAINED_S


class Trial:
    """Devices that get setpoints and are checked every second; they are read every `every_s`."""

    def __init__(self, n: int = 1, /, *, every_s: int = 1, **columns: Any) -> None:
        free = {"authority": Authority.DEVICE, "mode": Mode.SELF_CONSUMPTION, "cmd": 0, "cmd_sent": 0, "cmd_applied": 0}
        facts = {"command_latency_s": COMMAND_LATENCY_S, "settle_s": SETTLE_S}
        self.snapshot: Snapshot = fleet_of(n, **({"soc_pct": 60} | free | facts | columns))
        self.conduct = Conduct(n)
        self.now = NOW
        self.every_s = every_s
        self.proven: set[int] = set()
        self.found_s: int | None = None
        self.told_mono_ms = NOW.mono_ms
        self.observe()

    def observe(self) -> None:
        allowed = envelope(self.snapshot, self.now, LimitParams())
        update_conduct(self.conduct, self.snapshot, self.now)
        found = wrong_way(self.conduct, self.snapshot, allowed, self.now)
        if found.any() and self.found_s is None:
            self.found_s = (self.now.mono_ms - self.told_mono_ms) // 1000
        self.proven |= set(np.flatnonzero(found).tolist())

    def commanded(self, *setpoint_w: float, acked: bool = True) -> "Trial":
        control = self.snapshot.control
        self.told_mono_ms = self.now.mono_ms
        control.authority[:] = Authority.CONTROLLED
        control.setpoint_w[:] = setpoint_w
        control.cmd_sent[:] += 1
        control.sent_mono_ms[:] = self.now.mono_ms
        if acked:
            control.cmd_applied[:] = control.cmd_sent
            self.snapshot.live.mode[:] = Mode.REMOTE
        self.observe()
        return self

    def does(self, *battery_w: float, s: int) -> "Trial":
        """So much for `s` seconds, under a lease that is kept up."""
        live = self.snapshot.live
        for _ in range(s):
            self.now = Now(utc_ms=self.now.utc_ms + 1_000, mono_ms=self.now.mono_ms + 1_000)
            self.snapshot.control.lease_end_mono_ms[:] = self.now.mono_ms + 80_000
            if (self.now.mono_ms - NOW.mono_ms) // 1000 % self.every_s == 0:
                live.battery_w[:] = battery_w
                live.grid_w[:] = live.load_w - live.pv_w - live.battery_w
                live.seen_mono_ms[:] = self.now.mono_ms
            self.observe()
        return self


# -- the guilty ----------------------------------------------------------------------------------------------


@pytest.mark.fault("F21")
@pytest.mark.parametrize("setpoint_w", [5_000, 3_000, 1_000, -1_000, -2_000, -5_000])
def test_wrong_way_all_of_the_setpoint_on_the_other_side_is_found_in_time_and_not_before(setpoint_w: float) -> None:
    trial = Trial(load_w=100).commanded(setpoint_w).does(-setpoint_w, s=FOUND_S)
    assert trial.proven == set()
    trial.does(-setpoint_w, s=2)
    assert (trial.proven, trial.found_s) == ({0}, FOUND_S + 1)


@pytest.mark.fault("F21")
def test_wrong_way_device_that_follows_at_first_and_turns_later_is_found() -> None:
    trial = Trial().commanded(3_000).does(3_000, s=600).does(-3_000, s=SUSTAINED_S)
    assert trial.proven == set()
    assert trial.does(-3_000, s=1).proven == {0}


@pytest.mark.fault("F21")
def test_wrong_way_after_a_ramp_is_found_as_soon_as_after_a_step() -> None:
    trial = Trial()
    for step in range(1, 11):
        trial.commanded(500 * step).does(-500 * step, s=2)
    assert trial.does(-5_000, s=FOUND_S).proven == {0}


@pytest.mark.fault("F21")
def test_wrong_way_corrections_of_a_setpoint_do_not_put_the_verdict_off() -> None:
    trial = Trial().commanded(3_000)
    for correction_w in range(0, 300, 20):
        trial.does(-3_000 - correction_w, s=7).commanded(3_000 + correction_w)
    assert trial.proven == {0}


@pytest.mark.fault("F21")
def test_wrong_way_battery_that_can_do_less_the_other_way_is_found() -> None:
    assert Trial(charge_w_max=1_800).commanded(5_000).does(-1_800, s=FOUND_S + 2).proven == {0}
    assert Trial(charge_w_max=1_800).commanded(5_000).does(-800, s=300).proven == set()


@pytest.mark.fault("F21")
def test_wrong_way_only_the_guilty() -> None:
    trial = Trial(4).commanded(3_000, 3_000, 3_000, -3_000).does(3_000, -3_000, 2_900, -2_900, s=FOUND_S + 2)
    assert trial.proven == {1}


@pytest.mark.fault("F21")
@pytest.mark.parametrize("every_s", [5, 12, 30])
def test_wrong_way_device_that_is_polled_slowly_is_judged_by_its_readings(every_s: int) -> None:
    trial = Trial(every_s=every_s).commanded(3_000).does(-3_000, s=FOUND_S - 1)
    assert trial.proven == set()
    assert trial.does(-3_000, s=2 * every_s + 2).proven == {0}


@pytest.mark.fault("F21")
def test_wrong_way_two_readings_are_no_proof_however_far_apart_they_are() -> None:
    trial = Trial(every_s=120).commanded(3_000).does(-3_000, s=355)
    assert (trial.conduct.strikes[0], trial.proven) == (2, set())
    assert trial.does(-3_000, s=10).proven == {0}


@pytest.mark.fault("F21")
def test_wrong_way_one_reading_is_judged_once_however_often_it_is_looked_at() -> None:
    trial = Trial(every_s=300).commanded(3_000).does(-3_000, s=599)
    assert (trial.conduct.strikes[0], trial.proven) == (1, set())


# -- not before the product's own time ------------------------------------------------------------------------


@pytest.mark.parametrize("own_w", [1_349, 4_000, -4_000])
@pytest.mark.parametrize("zero_s", [0, 3, 10])
@pytest.mark.parametrize("dead_s", [0, 4, 30])
def test_wrong_way_dead_time_and_a_pass_through_0_w_are_no_proof(own_w: float, zero_s: int, dead_s: int) -> None:
    for setpoint_w in (3_000, -3_000):
        trial = Trial(battery_w=own_w).commanded(setpoint_w).does(own_w, s=dead_s).does(0, s=zero_s)
        for part in range(0, 25):
            trial.does(setpoint_w * part / 25, s=1)
        assert trial.does(setpoint_w, s=100).proven == set()


@pytest.mark.parametrize("settle_s", [0, 30, 120])
def test_wrong_way_each_product_has_its_own_time(settle_s: int) -> None:
    trial = Trial(settle_s=settle_s).commanded(3_000).does(-3_000, s=COMMAND_LATENCY_S + settle_s + SUSTAINED_S)
    assert trial.proven == set()
    assert trial.does(-3_000, s=2).proven == {0}


def test_wrong_way_new_setpoint_starts_the_time_anew() -> None:
    trial = Trial().commanded(3_000).does(-3_000, s=FOUND_S - 5)
    trial.commanded(4_000).does(-3_000, s=FOUND_S)
    assert trial.proven == set()
    assert trial.does(-3_000, s=2).proven == {0}


def test_wrong_way_setpoint_that_turns_is_not_judged_by_the_one_before() -> None:
    trial = Trial(load_w=0)
    for setpoint_w in (3_000, -3_000, 4_000, -1_000, 5_000, -5_000):
        before_w = trial.snapshot.live.battery_w[0]
        trial.commanded(setpoint_w).does(before_w, s=30).does(0, s=5).does(setpoint_w, s=10)
    assert trial.proven == set()


def test_wrong_way_one_reading_that_is_right_or_near_nothing_ends_the_row() -> None:
    for battery_w in (3_000, 0, -1_000):
        trial = Trial().commanded(3_000).does(-3_000, s=FOUND_S - 2).does(battery_w, s=1)
        assert trial.does(-3_000, s=SUSTAINED_S).proven == set()
        assert trial.does(-3_000, s=2).proven == {0}


@pytest.mark.parametrize(
    ("column", "away", "back"),
    [("mode", Mode.SELF_CONSUMPTION, Mode.REMOTE), ("online", 0, 1), ("grid", Grid.ISLAND, Grid.ON), ("faults", 4, 0)],
)
def test_wrong_way_device_that_was_lost_begins_anew(column: str, away: int, back: int) -> None:
    trial = Trial().commanded(3_000).does(3_000, s=60)
    live = trial.snapshot.live
    live.column(column)[:] = away
    trial.does(-3_000, s=300)
    live.column(column)[:] = back
    trial.does(-3_000, s=FOUND_S).does(3_000, s=10)
    assert trial.proven == set()
    assert trial.does(-3_000, s=SUSTAINED_S + 1).proven == {0}


def test_wrong_way_taken_anew_begins_anew() -> None:
    trial = Trial().commanded(3_000).does(-3_000, s=FOUND_S - 2)
    trial.snapshot.control.authority[:] = Authority.DEVICE
    trial.does(-3_000, s=3)
    assert trial.commanded(3_000).does(-3_000, s=FOUND_S).does(3_000, s=10).proven == set()


def test_wrong_way_device_that_was_not_reached_is_unresponsive_and_not_wrong() -> None:
    trial = Trial(battery_w=-3_000, pv_w=0).commanded(3_000).does(3_000, s=60)
    assert trial.commanded(-3_000, acked=False).does(3_000, s=300).proven == set()
    # the command arrives after all: its time to settle begins then
    trial.snapshot.control.cmd_applied[:] = trial.snapshot.control.cmd_sent
    assert trial.does(3_000, s=COMMAND_LATENCY_S + SETTLE_S).does(-3_000, s=100).proven == set()


@pytest.mark.fault("F21")
def test_wrong_way_refresh_that_is_not_answered_yet_changes_nothing() -> None:
    trial = Trial().commanded(3_000)
    for _ in range(6):
        trial.does(-3_000, s=16).commanded(3_000, acked=False).does(-3_000, s=3)
        trial.snapshot.control.cmd_applied[:] = trial.snapshot.control.cmd_sent
    assert trial.proven == {0}


# -- not what something else may have done --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "setpoint_w"),
    [
        ({}, 900),  # less than a fifth of the rating
        ({"soc_pct": 22}, 3_000),  # at its reserve, the BMS may do as it likes
        ({"soc_pct": 98}, -3_000),
        ({"faults": 1}, 3_000),
    ],
)
def test_wrong_way_small_or_limited_setpoints_are_not_judged(columns: dict[str, Any], setpoint_w: float) -> None:
    assert Trial(**columns).commanded(setpoint_w).does(-setpoint_w, s=300).proven == set()


def test_wrong_way_past_the_limit_of_the_bms_is_not_judged_and_at_it_is() -> None:
    trial = Trial()
    trial.snapshot.live.discharge_w_max[:] = 2_900
    trial.commanded(3_000).does(-3_000, s=300)
    assert trial.proven == set()
    trial.snapshot.live.discharge_w_max[:] = 3_000
    assert trial.does(-3_000, s=SUSTAINED_S + 1).proven == {0}


def test_wrong_way_small_part_of_the_setpoint_on_the_other_side_is_not_judged() -> None:
    assert Trial().commanded(3_000).does(-1_400, s=300).proven == set()
    assert Trial().commanded(3_000).does(-1_600, s=FOUND_S + 2).proven == {0}


@pytest.mark.parametrize("battery_w", [2_400, 500, -3_000])
def test_wrong_way_under_a_hold_the_home_may_do_what_it_likes(battery_w: float) -> None:
    trial = Trial(load_w=500 if battery_w > 0 else 0, pv_w=3_000 * (battery_w < 0))
    assert trial.commanded(0).does(battery_w, s=300).proven == set()
    # left to charge from PV, kept from discharging
    trial.snapshot.control.idle[:] = True
    assert trial.commanded(0).does(battery_w, s=300).proven == set()


@pytest.mark.parametrize("mode", [Mode.REMOTE, Mode.UNKNOWN])
def test_wrong_way_home_that_charges_from_its_pv_surplus_is_not_judged(mode: Mode) -> None:
    trial = Trial(pv_w=4_500, load_w=500).commanded(3_000)
    trial.snapshot.live.mode[:] = mode
    for charged_w in (4_000, 3_000, 1_600):
        assert trial.does(-charged_w, s=200).proven == set()
    # more than the surplus comes from the grid
    trial.snapshot.live.load_w[:] = 2_500
    assert trial.does(-3_000, s=SUSTAINED_S + 1).proven == {0}


@pytest.mark.parametrize("mode", [Mode.REMOTE, Mode.UNKNOWN])
def test_wrong_way_home_that_covers_its_load_is_not_judged(mode: Mode) -> None:
    trial = Trial(load_w=2_500).commanded(-3_000)
    trial.snapshot.live.mode[:] = mode
    assert trial.does(2_500, s=300).proven == set()
    trial.snapshot.live.load_w[:] = 9_000
    assert trial.does(5_000, s=300).proven == set()
    # what the home does not need goes to the grid
    trial.snapshot.live.load_w[:] = 500
    assert trial.does(3_000, s=SUSTAINED_S + 1).proven == {0}


def test_wrong_way_battery_that_takes_what_the_other_of_the_home_gives_is_not_judged() -> None:
    trial = Trial(2, site=[0, 0], load_w=300, pv_w=0).commanded(3_000, 3_000)
    assert trial.does(3_000, -2_700, s=300).proven == set()
    assert trial.does(-3_000, -3_000, s=SUSTAINED_S + 1).proven == {0, 1}


def test_wrong_way_home_without_a_meter_is_judged_where_the_device_tells_who_steers_it() -> None:
    unknown: dict[str, Any] = {"load_w": np.nan, "pv_w": np.nan}
    told = Trial(**unknown).commanded(3_000).does(-3_000, s=FOUND_S + 2)
    assert told.proven == {0}
    untold = Trial(**unknown).commanded(3_000)
    untold.snapshot.live.mode[:] = Mode.UNKNOWN
    assert untold.does(-3_000, s=300).proven == set()


@pytest.mark.fault("F21")
def test_wrong_way_power_that_is_read_with_the_wrong_sign_makes_up_no_surplus() -> None:
    # it discharges 3 kW into a load of 500 W and says that it charges; the load is worked out from that
    trial = Trial(load_w=-5_500, pv_w=0).commanded(3_000)
    assert trial.does(-3_000, s=FOUND_S + 2).proven == {0}


# -- products ------------------------------------------------------------------------------------------------


class Answers:
    """Homes of product 0 that have answered, some of them wrongly; homes of product 1 have all answered wrongly."""

    def __init__(self, *, right: int, wrong: int, others: int = 0, **columns: Any) -> None:
        n = right + wrong + others
        self.snapshot = fleet_of(n, **({"product": np.repeat([0, 1], [right + wrong, others])} | columns))
        self.conduct = Conduct(n)
        self.conduct.verdict[:] = -1
        self.conduct.verdict[wrong : wrong + right] = 1
        self.conduct.verdict_s[:] = NOW.mono_ms // 1000

    def condemned(self, *, after_s: int = 0) -> list[int]:
        now = Now(utc_ms=NOW.utc_ms, mono_ms=NOW.mono_ms + 1000 * after_s)
        return [int(number) for number in wrong_products(self.conduct, self.snapshot, now)]


@pytest.mark.fault("F21")
def test_wrong_products_many_homes_condemn_theirs_and_no_other() -> None:
    assert Answers(right=0, wrong=HOMES_MIN, others=HOMES_MIN - 1).condemned() == [0]
    assert Answers(right=HOMES_MIN, wrong=HOMES_MIN).condemned() == [0]


def test_wrong_products_few_homes_are_only_few() -> None:
    assert Answers(right=0, wrong=HOMES_MIN - 1).condemned() == []


def test_wrong_products_many_homes_among_more_that_go_the_right_way_are_wired_wrongly() -> None:
    assert Answers(right=HOMES_MIN + 1, wrong=HOMES_MIN).condemned() == []
    assert Answers(right=10_000, wrong=200).condemned() == []


def test_wrong_products_batteries_of_one_home_count_once() -> None:
    answers = Answers(right=0, wrong=2 * HOMES_MIN - 2, site=np.arange(2 * HOMES_MIN - 2) // 2)
    assert answers.condemned() == []
    apart = Answers(right=0, wrong=HOMES_MIN, site=-1)
    assert apart.condemned() == [0]


def test_wrong_products_verdict_grows_old() -> None:
    answers = Answers(right=0, wrong=HOMES_MIN)
    assert answers.condemned(after_s=VERDICT_S) == [0]
    assert answers.condemned(after_s=VERDICT_S + 1) == []


def test_wrong_products_home_that_somebody_vouches_for_says_nothing() -> None:
    answers = Answers(right=0, wrong=HOMES_MIN)
    answers.conduct.clear(np.array([3]))
    assert answers.condemned() == []


@pytest.mark.fault("F21")
def test_wrong_products_only_homes_that_were_asked_much_have_answered() -> None:
    n = 3 * HOMES_MIN
    wrong, right, little = np.arange(n) < HOMES_MIN, np.arange(n) >= 2 * HOMES_MIN, np.arange(n) >= HOMES_MIN
    little &= ~right
    trial = Trial(n, product=0).commanded(*np.where(little, 500, 3_000))
    trial.does(*np.where(wrong, -3_000, np.where(little, 500, 3_000)), s=FOUND_S + 2)
    assert trial.proven == set(range(HOMES_MIN))
    assert wrong_products(trial.conduct, trial.snapshot, trial.now).tolist() == [0]

"""Setpoints: ramps bounded, leases spread and renewed, narrowing at once, hands off where hands must be off."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.commands import CommandOp
from gateway.domain.control.allocation import Ask, allocate
from gateway.domain.control.compliance import obeyed, overridden
from gateway.domain.control.leases import leases_s, release_at
from gateway.domain.control.planning import Cause, Plan, PlanParams, plan
from gateway.domain.control.ramp import Governor, RampBudget, Trim, TrimParams, trimmed
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits.envelope import envelope
from gateway.domain.limits.types import LimitParams
from gateway.domain.types import NEVER_MS, Grid, Ints, Mode, Now
from tests.builders.fleets import NOW, fleet_of

LIMITS = LimitParams(site_margin_w=0, resume_pct=0)


def planned(
    snapshot: Snapshot,
    *,
    wanted_w: Any = 0,
    members: Any = True,
    release: Any = False,
    unresponsive: Any = False,
    now: Now = NOW,
    params: PlanParams | None = None,
    until_ms: Ints | None = None,
) -> Plan:
    n = snapshot.n
    return plan(
        snapshot,
        envelope(snapshot, now, LIMITS),
        now,
        params or PlanParams(),
        wanted_w=np.broadcast_to(np.asarray(wanted_w, dtype=np.int64), n).copy(),
        members=np.broadcast_to(np.asarray(members, dtype=np.bool_), n).copy(),
        release=np.broadcast_to(np.asarray(release, dtype=np.bool_), n).copy(),
        unresponsive=np.broadcast_to(np.asarray(unresponsive, dtype=np.bool_), n).copy(),
        until_ms=until_ms,
    )


def commands(found: Plan) -> dict[int, tuple[CommandOp, int, Cause]]:
    rows = zip(found.slots.tolist(), found.op.tolist(), found.setpoint_w.tolist(), found.cause.tolist(), strict=True)
    return {slot: (CommandOp(op), setpoint_w, Cause(cause)) for slot, op, setpoint_w, cause in rows}


# governor and trim


def test_governor_limits_the_step_both_ways() -> None:
    governor = Governor(w_per_s=100)
    assert governor.step(5000, 1000, 1.0) == 1100
    assert governor.step(-5000, 1000, 2.0) == 800
    assert governor.step(1050, 1000, 1.0) == 1050


def test_governor_late_tick_does_not_earn_a_larger_step() -> None:
    assert Governor(w_per_s=100).step(1e6, 0, 3600) == 500
    assert Governor(w_per_s=100).step(1e6, 0, -5) == 0


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(0, 10), st.floats(1, 1e5))
def test_governor_any_input_moves_towards_the_goal_within_its_bound(
    desired_w: float, commanded_w: float, dt_s: float, w_per_s: float
) -> None:
    after_w = Governor(w_per_s=w_per_s).step(desired_w, commanded_w, dt_s)
    assert abs(after_w - commanded_w) <= w_per_s * 5 + 1e-6
    assert min(desired_w, commanded_w) - 1e-6 <= after_w <= max(desired_w, commanded_w) + 1e-6


def trim_by(trim: Trim, delivered_w: float, *, target_w: float = 100_000, unserved_w: float = 0) -> float:
    return trimmed(
        trim, target_w=target_w, delivered_w=delivered_w, dt_s=1, unserved_w=unserved_w, params=TrimParams()
    ).offset_w


def test_trim_steady_loss_is_corrected_away() -> None:
    trim, delivered_w = Trim(), 0.0
    for _ in range(300):
        delivered_w = (100_000 + trim.offset_w) * 0.97
        trim = replace(trim, offset_w=trim_by(trim, delivered_w))
    assert delivered_w == pytest.approx(100_000, rel=1e-3)


def test_trim_never_exceeds_its_part_of_the_target() -> None:
    trim = Trim()
    for _ in range(1000):
        trim = replace(trim, offset_w=trim_by(trim, 80_000))
    assert trim.offset_w == 5000


def test_trim_does_not_wind_up_while_the_envelope_is_used_up() -> None:
    assert trim_by(Trim(), 95_000, unserved_w=5000) == 0
    assert trim_by(Trim(offset_w=1000), 105_000, unserved_w=5000) < 1000
    assert trim_by(Trim(), -95_000, target_w=-100_000, unserved_w=-5000) == 0


@pytest.mark.parametrize("delivered_w", [np.nan, 20_000, 200_000])
def test_trim_is_not_driven_by_unknown_power_or_by_ramps(delivered_w: float) -> None:
    assert trim_by(Trim(offset_w=100), delivered_w) == 100


# response


# owners


def test_overridden_device_that_obeyed_and_left_remote_mode_is_an_owners_choice() -> None:
    snapshot = fleet_of(2)
    seen = obeyed(np.zeros(0, dtype=np.bool_), snapshot)
    assert seen.tolist() == [True, True]
    snapshot.live.mode[1] = Mode.SELF_CONSUMPTION
    snapshot.live.cmd[1] = 0
    seen = obeyed(seen, snapshot)
    assert overridden(snapshot, NOW, seen).tolist() == [False, True]


def test_overridden_device_that_never_obeyed_has_not_been_taken_back() -> None:
    never = np.zeros(1, dtype=np.bool_)
    assert not overridden(fleet_of(1, mode=Mode.SELF_CONSUMPTION, cmd=0), NOW, never).any()


@pytest.mark.parametrize(
    "columns",
    [
        {"lease_end_mono_ms": NOW.mono_ms + 9000},
        {"faults": 1},
        {"grid": Grid.ISLAND},
        {"mode": Mode.UNKNOWN},
        {"cmd_sent": 8},
        {"authority": Authority.RELEASING},
    ],
)
def test_overridden_is_not_claimed_where_something_else_explains_it(columns: dict[str, Any]) -> None:
    snapshot = fleet_of(1, **{"mode": Mode.BACKUP, **columns})
    assert not overridden(snapshot, NOW, np.ones(1, dtype=np.bool_)).any()


def test_obeyed_is_forgotten_when_the_device_was_away_or_was_never_ours() -> None:
    yes = np.ones(1, dtype=np.bool_)
    assert not obeyed(yes, fleet_of(1, online=0)).any()
    assert not obeyed(yes, fleet_of(1, authority=Authority.DEVICE)).any()
    assert not obeyed(~yes, fleet_of(1, mode=Mode.SELF_CONSUMPTION)).any()
    assert not obeyed(~yes, fleet_of(1, cmd=6)).any()
    assert obeyed(yes, fleet_of(1, mode=Mode.SELF_CONSUMPTION)).all()


@given(
    st.dictionaries(st.integers(0, 20), st.one_of(st.just(math.inf), st.floats(0, 1e6)), max_size=8),
    st.lists(st.tuples(st.integers(0, 20), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), max_size=12,
             unique_by=lambda step: step[0]),
)  # fmt: skip
def test_ramp_budget_is_never_exceeded_and_moves_nobody_past_the_goal(
    ahead_w: dict[int, float], steps: list[tuple[int, float, float]]
) -> None:
    budget, moved_w = RampBudget(1_000.0, 1.0, ahead_w), 0.0
    for index, desired_w, commanded_w in steps:
        after_w = budget.step(index, desired_w, commanded_w)
        assert min(desired_w, commanded_w) <= after_w <= max(desired_w, commanded_w)
        moved_w += abs(after_w - commanded_w)
    assert moved_w <= 1_000 * (1 + 1e-9) + 1e-6


def test_ramp_budget_small_moves_are_made_and_large_ones_share_the_rest() -> None:
    budget = RampBudget(1_000.0, 1.0, {1: 100.0, 2: 5_000.0, 3: math.inf})
    assert [budget.step(i, 5_000.0, 0.0) for i in (2, 3)] == [450, 450]
    assert budget.step(1, 100.0, 0.0) == 100


def test_ramp_budget_what_one_leaves_is_there_for_those_after_it() -> None:
    budget = RampBudget(1_000.0, 1.0, {1: math.inf, 2: math.inf})
    assert (budget.step(1, 200.0, 0.0), budget.step(2, 5_000.0, 0.0)) == (200, 800)
    # one that stood still, and is the first to move
    budget = RampBudget(1_000.0, 1.0, {1: 0.0, 2: 300.0})
    assert (budget.step(1, -5_000.0, 0.0), budget.step(2, 300.0, 0.0)) == (-700, 300)


# leases


def test_leases_given_together_end_spread_between_60_and_100_percent() -> None:
    snapshot = fleet_of(10_000, authority=Authority.DEVICE, lease_s=120)
    ends = leases_s(snapshot, NOW, np.arange(10_000), np.full(10_000, 3000))
    assert ends.min() == 72
    assert ends.max() == 120
    assert np.bincount(ends).max() <= 10_000 / 49 + 1


def test_leases_given_one_by_one_end_where_least_power_ends() -> None:
    snapshot = fleet_of(60, setpoint_w=2000, lease_end_mono_ms=NOW.mono_ms + 80_000)
    for slot in range(59):
        (lease_s,) = leases_s(snapshot, NOW, np.array([slot]), np.array([2000]))
        snapshot.control.lease_end_mono_ms[slot] = NOW.mono_ms + 1000 * lease_s
    ends = (snapshot.control.lease_end_mono_ms - NOW.mono_ms) // 1000
    assert np.bincount(ends).max() <= 2
    assert (ends.min(), ends.max()) == (60, 100)


def test_leases_of_products_that_differ_keep_to_their_own_length() -> None:
    snapshot = fleet_of(3, lease_s=[60, 0.5, 900])
    ends = leases_s(snapshot, NOW, np.arange(3), np.array([2000, 0, -1000]))
    assert 36 <= ends[0] <= 60
    assert ends[1] == 1
    assert 540 <= ends[2] <= 900


def test_leases_end_where_the_device_is_handed_back_and_no_shorter_than_its_timer_takes() -> None:
    snapshot = fleet_of(5, lease_s=120, lease_step_s=[1, 1, 60, 120, 1])
    until_ms = NOW.mono_ms + np.array([40_700, -5_000, 40_000, 40_000, 500_000])
    ends = leases_s(snapshot, NOW, np.arange(5), np.full(5, 2_000), until_ms)
    assert ends[:3].tolist() == [40, 1, 60]
    assert 72 <= ends[3:].min() <= ends[3:].max() <= 120


def test_plan_lease_that_ends_with_its_event_is_not_renewed_and_one_that_does_not_is() -> None:
    snapshot = fleet_of(3, setpoint_w=1_000, before_w=1_000, lease_s=120)
    snapshot.control.lease_end_mono_ms[:] = NOW.mono_ms + 15_000
    until_ms = NOW.mono_ms + np.array([15_000, 17_000, 40_000])
    assert list(commands(planned(snapshot, wanted_w=1_000, until_ms=until_ms))) == [2]
    changed = planned(snapshot, wanted_w=2_000, until_ms=until_ms)
    assert sorted(zip(changed.slots.tolist(), changed.lease_s.tolist(), strict=True)) == [(0, 15), (1, 17), (2, 40)]


def test_plan_narrowing_of_what_nobody_has_any_more_keeps_the_lease_it_has() -> None:
    snapshot = fleet_of(1, setpoint_w=1500, before_w=1500, export_allowed=False, load_w=1000)
    snapshot.control.lease_end_mono_ms[:] = NOW.mono_ms + 10_000
    assert planned(snapshot, members=False).lease_s.tolist() == [10]
    assert planned(snapshot, wanted_w=1_000).lease_s.min() >= 72


def test_release_is_spread_evenly_from_the_end_on() -> None:
    due = release_at(np.arange(1000), np.full(1000, 2_000.0), 5_000_000, 60)
    assert due.min() >= 5_000_000
    assert due.max() < 5_060_000
    assert np.histogram(due, bins=12)[0].max() <= 85


def test_release_gives_each_battery_the_time_that_its_power_takes() -> None:
    power_w = np.array([11_400.0, 500.0, 11_400.0, -2_000.0, 9_500.0, 0.0, 11_400.0, 5_000.0])
    due = release_at(np.arange(8), power_w, 0, 20)
    order = np.argsort(due)
    per_s = (np.abs(power_w) + 100).sum() / 20
    gaps_s = np.diff(due[order]) / 1000
    weight_w = np.abs(power_w[order]) + 100
    assert gaps_s == pytest.approx((weight_w[:-1] + weight_w[1:]) / 2 / per_s, abs=0.002)


def test_release_of_a_home_is_one_whatever_its_batteries_do() -> None:
    homes = np.array([7, 3, 7, 3, 9])
    due = release_at(homes, np.array([5_000.0, 0.0, 300.0, 4_000.0, 2_000.0]), 1_000, 30)
    assert due[0] == due[2]
    assert due[1] == due[3]
    assert len(set(due.tolist())) == 3
    assert release_at(homes[:0], np.zeros(0), 1_000, 30).tolist() == []


# plan


def test_plan_new_member_is_taken_with_its_setpoint_and_lease() -> None:
    snapshot = fleet_of(1, authority=Authority.DEVICE, mode=Mode.SELF_CONSUMPTION, cmd=0, lease_end_mono_ms=NEVER_MS)
    found = planned(snapshot, wanted_w=1500)
    assert commands(found) == {0: (CommandOp.SETPOINT, 1500, Cause.CHANGE)}
    assert 60 <= found.lease_s[0] <= 100


def test_plan_member_given_nothing_is_held() -> None:
    snapshot = fleet_of(1, authority=Authority.DEVICE, mode=Mode.SELF_CONSUMPTION, cmd=0, lease_end_mono_ms=NEVER_MS)
    assert commands(planned(snapshot)) == {0: (CommandOp.HOLD, 0, Cause.CHANGE)}


def test_plan_small_change_waits_and_large_change_is_written() -> None:
    snapshot = fleet_of(3, setpoint_w=2000, before_w=2000)
    params = PlanParams(sum_band_part=1)
    found = planned(snapshot, wanted_w=[2050, 2051, 1949], params=params)
    assert sorted(commands(found)) == [1, 2]


def test_plan_to_and_from_zero_is_written_whatever_the_dead_band() -> None:
    snapshot = fleet_of(2, setpoint_w=[0, 20], before_w=0)
    params = PlanParams(sum_band_part=1)
    assert commands(planned(snapshot, wanted_w=[20, 0], params=params)) == {
        0: (CommandOp.SETPOINT, 20, Cause.CHANGE),
        1: (CommandOp.HOLD, 0, Cause.CHANGE),
    }


def test_plan_many_small_changes_are_written_until_the_sum_is_right() -> None:
    snapshot = fleet_of(100, setpoint_w=2000, before_w=2000)
    found = planned(snapshot, wanted_w=2040)
    off_w = (100 - len(found)) * 40
    assert 0 < len(found) < 100
    assert off_w <= 0.002 * 100 * 2040


def test_plan_lease_more_than_half_over_is_renewed_and_not_before() -> None:
    snapshot = fleet_of(2, setpoint_w=2000, before_w=2000)
    snapshot.control.lease_end_mono_ms[:] = NOW.mono_ms + np.array([40_001, 40_000])
    assert commands(planned(snapshot, wanted_w=2000)) == {1: (CommandOp.SETPOINT, 2000, Cause.REFRESH)}


def test_plan_leases_given_together_are_not_renewed_together() -> None:
    snapshot = fleet_of(1000, setpoint_w=2000, before_w=2000)
    snapshot.control.lease_end_mono_ms[:] = NOW.mono_ms + 1000 * leases_s(
        snapshot, NOW, np.arange(1000), snapshot.control.setpoint_w
    )
    snapshot.control.sent_mono_ms[:] = NOW.mono_ms
    counts = []
    for s in range(1, 61):
        now = Now(utc_ms=NOW.utc_ms + 1000 * s, mono_ms=NOW.mono_ms + 1000 * s)
        found = planned(snapshot, wanted_w=2000, now=now)
        snapshot.control.lease_end_mono_ms[found.slots] = now.mono_ms + found.lease_s * 1000
        counts.append(len(found))
    assert max(counts) <= 60


def test_plan_narrowing_is_written_at_once_even_inside_the_dead_band() -> None:
    snapshot = fleet_of(1, setpoint_w=1030, before_w=1030, export_allowed=False, load_w=1000)
    assert commands(planned(snapshot, wanted_w=1000)) == {0: (CommandOp.SETPOINT, 1000, Cause.NARROW)}


def test_plan_device_waiting_for_release_is_narrowed_but_not_renewed() -> None:
    snapshot = fleet_of(2, setpoint_w=1500, before_w=1500, export_allowed=False, load_w=[1000, 2000])
    snapshot.control.lease_end_mono_ms[:] = NOW.mono_ms + 10_000
    found = planned(snapshot, members=False)
    assert commands(found) == {0: (CommandOp.SETPOINT, 1000, Cause.NARROW)}


def test_plan_fault_is_held_once_and_not_taken_again() -> None:
    snapshot = fleet_of(2, setpoint_w=[1500, 0], before_w=0, faults=1, lease_end_mono_ms=NOW.mono_ms + 10_000)
    assert commands(planned(snapshot)) == {0: (CommandOp.HOLD, 0, Cause.NARROW)}


@pytest.mark.parametrize(
    "columns",
    [
        {"seen_mono_ms": NOW.mono_ms - 121_000},
        {"grid": Grid.ISLAND},
        {"online": 0},
        {"authority": Authority.OWNER},
        {"registered": False},
    ],
)
def test_plan_device_that_must_not_be_touched_is_not_written(columns: dict[str, Any]) -> None:
    snapshot = fleet_of(1, **{"setpoint_w": 2000, "lease_end_mono_ms": NOW.mono_ms + 1000, **columns})
    assert len(planned(snapshot)) == 0


def test_plan_release_goes_to_devices_under_control_only() -> None:
    snapshot = fleet_of(
        4,
        setpoint_w=2000,
        before_w=2000,
        authority=[Authority.CONTROLLED, Authority.DEVICE, Authority.OWNER, Authority.RELEASING],
    )
    found = planned(snapshot, members=False, release=True)
    assert commands(found) == {0: (CommandOp.RELEASE, 0, Cause.RELEASE)}
    assert found.lease_s.tolist() == [0]


def test_plan_release_reaches_a_stale_device_but_not_an_islanded_one() -> None:
    snapshot = fleet_of(2, seen_mono_ms=NEVER_MS, grid=[Grid.ON, Grid.ISLAND])
    assert sorted(commands(planned(snapshot, members=False, release=True))) == [0]


@pytest.mark.parametrize("mode", [Mode.REMOTE, Mode.UNKNOWN])
def test_plan_release_without_effect_is_repeated_after_a_while(mode: Mode) -> None:
    sent_mono_ms = NOW.mono_ms - np.array([14_000, 15_000])
    snapshot = fleet_of(2, authority=Authority.RELEASING, mode=mode, cmd_sent=8, sent_mono_ms=sent_mono_ms)
    assert sorted(commands(planned(snapshot, members=False, release=True))) == [1]


def test_plan_member_of_the_next_event_is_not_released() -> None:
    snapshot = fleet_of(1, setpoint_w=2000, before_w=2000)
    assert len(planned(snapshot, wanted_w=2000, release=True)) == 0


def test_plan_command_that_was_not_answered_is_repeated_after_a_while() -> None:
    snapshot = fleet_of(
        2, setpoint_w=2000, before_w=2000, cmd_sent=8, sent_mono_ms=NOW.mono_ms - np.array([14_000, 15_000])
    )
    assert commands(planned(snapshot, wanted_w=2000)) == {1: (CommandOp.SETPOINT, 2000, Cause.RETRY)}


def test_plan_device_that_lost_its_command_is_told_again() -> None:
    snapshot = fleet_of(1, setpoint_w=2000, before_w=2000, mode=Mode.SELF_CONSUMPTION, cmd=0)
    assert commands(planned(snapshot, wanted_w=2000)) == {0: (CommandOp.SETPOINT, 2000, Cause.RETRY)}


def test_plan_unresponsive_device_is_rewritten_at_refresh_only() -> None:
    snapshot = fleet_of(2, setpoint_w=2000, before_w=2000)
    snapshot.control.lease_end_mono_ms[1] = NOW.mono_ms + 20_000
    assert sorted(commands(planned(snapshot, wanted_w=3000, unresponsive=True))) == [1]


def test_plan_most_urgent_comes_first() -> None:
    snapshot = fleet_of(6, setpoint_w=2000, before_w=2000)
    snapshot.control.lease_end_mono_ms[:3] = NOW.mono_ms + np.array([5000, 40_000, 30_000])
    snapshot.live.faults[3] = 1
    wanted_w = np.array([2000, 2000, 2000, 0, 3000, 2000])
    found = planned(snapshot, wanted_w=wanted_w, members=[1, 1, 1, 1, 1, 0], release=[0, 0, 0, 0, 0, 1])
    assert [(slot, cause) for slot, (_, _, cause) in commands(found).items()] == [
        (3, Cause.NARROW),
        (5, Cause.RELEASE),
        (0, Cause.EXPIRING),
        (4, Cause.CHANGE),
        (1, Cause.REFRESH),
        (2, Cause.REFRESH),
    ]


def test_plan_setpoint_past_the_envelope_is_left_out_and_counted() -> None:
    found = planned(fleet_of(2), wanted_w=[5001, 5000])
    assert sorted(commands(found)) == [1]
    assert found.outside == 1


def test_plan_no_devices_plans_nothing() -> None:
    assert len(planned(fleet_of(0))) == 0


column = st.fixed_dictionaries(
    {
        "authority": st.sampled_from(list(Authority)),
        "mode": st.sampled_from(list(Mode)),
        "grid": st.sampled_from(list(Grid)),
        "online": st.sampled_from([-1, 0, 1]),
        "faults": st.sampled_from([0, 0, 1]),
        "soc_pct": st.one_of(st.just(np.nan), st.floats(0, 100)),
        "setpoint_w": st.integers(-5000, 5000),
        "load_w": st.one_of(st.just(np.nan), st.floats(0, 6000)),
        "export_allowed": st.booleans(),
        "seen_mono_ms": st.integers(NOW.mono_ms - 200_000, NOW.mono_ms),
        "lease_end_mono_ms": st.integers(NOW.mono_ms - 10_000, NOW.mono_ms + 100_000),
        "wanted": st.integers(-6000, 6000),
        "member": st.booleans(),
        "release": st.booleans(),
    }
)


@given(st.lists(column, min_size=1, max_size=10))
def test_plan_any_state_writes_only_inside_the_envelope_and_once_per_device(rows: list[dict[str, Any]]) -> None:
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    wanted_w, member, release = columns.pop("wanted"), columns.pop("member"), columns.pop("release")
    snapshot = fleet_of(len(rows), **columns)
    allowed = envelope(snapshot, NOW, LIMITS)
    found = planned(snapshot, wanted_w=wanted_w, members=member, release=release)
    assert len(set(found.slots.tolist())) == len(found)
    for slot, (op, setpoint_w, _) in commands(found).items():
        assert snapshot.control.authority[slot] != Authority.OWNER
        assert snapshot.live.grid[slot] != Grid.ISLAND
        assert (op is CommandOp.SETPOINT) == (setpoint_w != 0)
        if op is not CommandOp.RELEASE:
            assert allowed.controllable[slot]
            assert -allowed.charge_w[slot] <= setpoint_w <= allowed.discharge_w[slot]
            assert member[slot] or allowed.must_narrow[slot]


class Loop:
    """The tick as the daemon runs it, over batteries that obey at once and report every second."""

    def __init__(self, n: int, target_w: float) -> None:
        rng = np.random.default_rng(11)
        self.target_w = target_w
        self.snapshot = fleet_of(
            n,
            authority=Authority.DEVICE,
            mode=Mode.SELF_CONSUMPTION,
            cmd=0,
            cmd_sent=0,
            cmd_applied=0,
            lease_end_mono_ms=NEVER_MS,
            changed_mono_ms=NEVER_MS,
            sent_mono_ms=NEVER_MS,
            soc_pct=rng.uniform(25, 95, n),
            load_w=0,
            grid_w=0,
        )
        self.governor = Governor(w_per_s=target_w / 20)
        self.commanded_w = 0.0
        self.now = NOW
        self.written = 0

    @property
    def power_w(self) -> float:
        return float(self.snapshot.live.battery_w.sum())

    def pass_second(self, *, gateway: bool = True) -> None:
        live, control, plate = self.snapshot.live, self.snapshot.control, self.snapshot.nameplate
        self.now = Now(utc_ms=self.now.utc_ms + 1000, mono_ms=self.now.mono_ms + 1000)
        over = control.lease_end_mono_ms <= self.now.mono_ms
        live.battery_w[:] = np.where(over, 0, control.setpoint_w)
        live.mode[:] = np.where(over, Mode.SELF_CONSUMPTION, Mode.REMOTE)
        live.soc_pct -= live.battery_w / 3600 / plate.capacity_wh * 100
        live.seen_mono_ms[:] = self.now.mono_ms
        if gateway:
            self.tick()

    def tick(self) -> None:
        snapshot, control = self.snapshot, self.snapshot.control
        everyone = np.ones(snapshot.n, dtype=np.bool_)
        allowed = envelope(snapshot, self.now, LIMITS)
        self.commanded_w = self.governor.step(self.target_w, self.commanded_w, 1.0)
        ask = Ask(target_w=self.commanded_w, mask=everyone, horizon_s=900, seconds_to_end=3600)
        wanted = allocate(ask, allowed, snapshot)
        found = plan(
            snapshot, allowed, self.now, PlanParams(), wanted_w=wanted.setpoint_w, members=everyone, release=~everyone
        )
        slots = found.slots
        changed = slots[control.setpoint_w[slots] != found.setpoint_w]
        control.changed_mono_ms[changed] = self.now.mono_ms
        control.before_w[slots] = control.setpoint_w[slots]
        control.setpoint_w[slots] = found.setpoint_w
        control.lease_end_mono_ms[slots] = self.now.mono_ms + found.lease_s * 1000
        control.authority[slots] = Authority.CONTROLLED
        control.sent_mono_ms[slots] = self.now.mono_ms
        control.cmd_sent[slots] += 1
        control.cmd_applied[slots] = control.cmd_sent[slots]
        snapshot.live.cmd[slots] = control.cmd_sent[slots]
        self.written += len(found)


def test_loop_target_is_ramped_met_and_kept_within_the_reserve() -> None:
    loop = Loop(300, 300_000)
    trace = []
    for _ in range(600):
        loop.pass_second()
        trace.append(loop.power_w)
    assert np.abs(np.diff(trace)).max() <= 300_000 / 20 + 1
    assert np.abs(np.array(trace[25:]) / 300_000 - 1).max() < 0.005
    assert loop.snapshot.live.soc_pct.min() >= 20
    assert loop.written / 300 / (600 / 3600) < 400


def test_loop_gateway_dies_leaves_no_step_and_no_lease() -> None:
    loop = Loop(300, 300_000)
    for _ in range(100):
        loop.pass_second()
    trace = [loop.power_w]
    for _ in range(100):
        loop.pass_second(gateway=False)
        trace.append(loop.power_w)
    assert np.abs(np.diff(trace)).max() <= 0.05 * 300_000
    assert trace[-1] == 0

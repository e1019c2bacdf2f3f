"""Limits: each rule stops the bad value and lets the good one through; the reserve survives every lease."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.fleet.columns import Authority
from gateway.domain.limits.envelope import envelope
from gateway.domain.limits.types import Envelope, LimitParams, Reason, check, reason_names
from gateway.domain.types import NEVER_MS, Grid, Mode
from tests.builders.fleets import NOW, fleet_of, permuted

EXACT = LimitParams(site_margin_w=0, resume_pct=0)
LONG_AGO = NOW.mono_ms - 121_000


def limits(n: int = 1, /, *, params: LimitParams = EXACT, **columns: Any) -> Envelope:
    return envelope(fleet_of(n, **columns), NOW, params)


def out(found: Envelope) -> tuple[float, Reason]:
    return round(float(found.discharge_w[0]), 3), Reason(int(found.reasons_discharge[0]))


def into(found: Envelope) -> tuple[float, Reason]:
    return round(float(found.charge_w[0]), 3), Reason(int(found.reasons_charge[0]))


def test_limits_healthy_device_may_use_its_ratings() -> None:
    found = limits(discharge_w_max=[5000], charge_w_max=4000)
    assert out(found) == (5000, Reason.RATING)
    assert into(found)[0] == 4000
    assert found.controllable.all()
    assert not found.must_narrow.any()


def bms(discharge_w: float, charge_w: float) -> Envelope:
    snapshot = fleet_of(1)
    snapshot.live.discharge_w_max[:] = discharge_w
    snapshot.live.charge_w_max[:] = charge_w
    return envelope(snapshot, NOW, EXACT)


def test_limits_bms_reports_less_than_rating_wins() -> None:
    assert out(bms(1200, 300)) == (1200, Reason.BMS)
    assert into(bms(1200, 300)) == (300, Reason.BMS)


@pytest.mark.parametrize("reported_w", [9000, np.nan])
def test_limits_bms_reports_more_or_nothing_leaves_the_rating(reported_w: float) -> None:
    assert out(bms(reported_w, reported_w)) == (5000, Reason.RATING)


def test_limits_bms_reports_nonsense_below_zero_stops() -> None:
    assert out(bms(-50, 0))[0] == 0


def test_limits_inverter_shared_with_pv_leaves_what_pv_does_not_use() -> None:
    assert out(limits(inverter_w_max=6000, pv_w=4500)) == (1500, Reason.INVERTER_PV)
    assert out(limits(inverter_w_max=6000, pv_w=500)) == (5000, Reason.RATING)
    assert out(limits(pv_w=4500)) == (5000, Reason.RATING)


def test_limits_inverter_shared_and_pv_unknown_allows_nothing_new_and_cuts_nothing() -> None:
    found = limits(inverter_w_max=6000, pv_w=np.nan, setpoint_w=3000, before_w=3000)
    assert out(found) == (0, Reason.INVERTER_PV)
    assert not found.controllable[0]
    assert not found.must_narrow[0]
    assert limits(inverter_w_max=6000, pv_w=np.nan).controllable[0]


@pytest.mark.parametrize(("soc_pct", "owner_pct", "device_pct"), [(25, 20, np.nan), (25, 10, 20), (24, 20, 20)])
def test_limits_at_or_below_reserve_plus_uncertainty_forbids_discharge(
    soc_pct: float, owner_pct: float, device_pct: float
) -> None:
    found = limits(soc_pct=soc_pct, owner_reserve_pct=owner_pct, reserve_pct=device_pct, soc_uncertainty_pct=5)
    assert out(found)[0] == 0
    assert Reason.RESERVE in out(found)[1]
    assert into(found)[0] == 5000
    assert found.floor_pct[0] == 25


def test_limits_well_above_reserve_allows_discharge() -> None:
    found = limits(soc_pct=45, soc_uncertainty_pct=5, efficiency_discharge=0.9)
    assert out(found)[0] == 5000
    assert found.deliverable_wh[0] == pytest.approx(1800)


def test_limits_full_reserve_never_discharges_even_when_full() -> None:
    found = limits(soc_pct=100, owner_reserve_pct=100, soc_uncertainty_pct=5)
    assert out(found)[0] == 0
    assert found.floor_pct[0] == 100


def test_limits_held_back_at_reserve_comes_back_only_with_energy_in_hand() -> None:
    params = LimitParams(resume_pct=1)
    assert out(limits(params=params, soc_pct=20.5, setpoint_w=0))[0] == 0
    assert out(limits(params=params, soc_pct=20.5, setpoint_w=100, before_w=100))[0] > 0
    assert out(limits(params=params, soc_pct=21.5, setpoint_w=0))[0] > 0


def test_limits_full_battery_takes_no_charge() -> None:
    assert into(limits(soc_pct=100)) == (0, Reason.SOC_CEILING)
    assert into(limits(soc_pct=90))[0] == 5000


def test_limits_uncertainty_narrows_a_lower_ceiling_but_never_one_of_100() -> None:
    assert limits(soc_pct=80, soc_max_pct=90, soc_uncertainty_pct=5).absorbable_wh[0] == pytest.approx(500)
    assert limits(soc_pct=80, soc_uncertainty_pct=5).absorbable_wh[0] == pytest.approx(2000)


def test_limits_look_ahead_is_the_formula_of_the_lease() -> None:
    found = limits(
        soc_pct=21, seen_mono_ms=NOW.mono_ms - 10_000, battery_w=800, setpoint_w=1000, before_w=1500, standby_w=40
    )
    drained_ws = (1500 + 40) * (10 + 5)
    assert out(found)[0] == pytest.approx((3600 * 100 - drained_ws) / 100 - 40)
    assert out(found)[1] is Reason.LOOKAHEAD
    assert found.sustain_discharge_w[0] == 5000


def test_limits_look_ahead_counts_the_most_that_was_told_since_the_sample_either_way() -> None:
    told: dict[str, Any] = {"setpoint_w": 1000, "before_w": 1500, "battery_w": 800}
    told |= {"ran_high_w": 3000, "ran_low_w": -2500}
    found = limits(soc_pct=21, seen_mono_ms=NOW.mono_ms - 10_000, **told)
    assert out(found)[0] == pytest.approx((3600 * 100 - 3000 * (10 + 5)) / 100)
    found = limits(soc_pct=99, seen_mono_ms=NOW.mono_ms - 10_000, **told)
    assert into(found)[0] == pytest.approx((3600 * 100 - 2500 * (10 + 5)) / 100)


def test_limits_look_ahead_upwards_is_the_same_with_what_can_be_absorbed() -> None:
    found = limits(soc_pct=99, battery_w=-800, setpoint_w=-2000, before_w=-1500, efficiency_charge=0.8)
    assert into(found)[0] == pytest.approx((3600 * 125 - 2000 * 5) / 100)
    assert into(found)[1] is Reason.LOOKAHEAD


@pytest.mark.parametrize(
    "free", [{"mode": Mode.SELF_CONSUMPTION}, {"authority": Authority.DEVICE}, {"battery_w": np.nan}]
)
def test_limits_look_ahead_before_we_held_the_device_counts_its_rating(free: dict[str, Any]) -> None:
    found = limits(soc_pct=21, **{"battery_w": 100, **free})
    assert out(found)[0] == pytest.approx((3600 * 100 - 5000 * 5) / 100)


@pytest.mark.fault("F25")
def test_limits_stale_reading_is_not_written_and_not_cut() -> None:
    found = limits(seen_mono_ms=LONG_AGO, setpoint_w=3000)
    assert Reason.STALE in out(found)[1]
    assert out(found)[0] == into(found)[0] == 0
    assert not found.controllable[0]
    assert not found.must_narrow[0]
    assert limits(seen_mono_ms=LONG_AGO + 2000).controllable[0]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"seen_mono_ms": NEVER_MS}, Reason.STALE),
        ({"soc_pct": np.nan}, Reason.STALE),
        ({"online": 0}, Reason.OFFLINE),
        ({"grid": Grid.ISLAND}, Reason.ISLANDED),
        ({"registered": False}, Reason.UNENROLLED),
        ({"moved_wh": 301}, Reason.STUCK),
    ],
)
def test_limits_unreachable_or_unknown_device_is_left_alone(columns: dict[str, Any], reason: Reason) -> None:
    found = limits(setpoint_w=2000, **columns)
    assert reason in out(found)[1]
    assert reason in into(found)[1]
    assert out(found)[0] == into(found)[0] == 0
    assert not found.controllable[0]
    assert not found.must_narrow[0]


@pytest.mark.parametrize(
    "columns", [{"moved_wh": 299}, {"moved_wh": 301, "soc_step_pct": 2}, {"moved_wh": 900, "soc_pct": 100}]
)
def test_limits_energy_moved_within_a_few_steps_is_not_stuck(columns: dict[str, Any]) -> None:
    assert limits(**columns).controllable[0]


@pytest.mark.fault("F25")
@pytest.mark.parametrize(("moved_wh", "steerable"), [(301, True), (599, True), (601, False)])
def test_limits_full_battery_that_gives_may_have_been_as_unsure_as_its_product(moved_wh: int, steerable: bool) -> None:
    found = limits(moved_wh=moved_wh, soc_pct=100, soc_uncertainty_pct=5.0, battery_w=2_000)
    assert bool(found.controllable[0]) is steerable


def test_limits_fault_forbids_and_narrows_at_once() -> None:
    found = limits(faults=4, setpoint_w=2000)
    assert Reason.FAULT in out(found)[1]
    assert out(found)[0] == into(found)[0] == 0
    assert found.controllable[0]
    assert found.must_narrow[0]


@pytest.mark.parametrize(
    ("temp_c", "discharge_w", "charge_w"),
    [(-1, 5000, 0), (2.5, 5000, 2500), (20, 5000, 5000), (50, 2500, 2500), (55, 0, 0), (np.nan, 5000, 5000)],
)
def test_limits_temperature_derates_what_has_no_limits_of_its_own(
    temp_c: float, discharge_w: float, charge_w: float
) -> None:
    found = limits(temp_c=temp_c)
    assert (out(found)[0], into(found)[0]) == (discharge_w, charge_w)


def test_limits_temperature_with_bms_limits_leaves_them_but_never_charges_below_zero() -> None:
    for temp_c, charge_w in ((3, 4000), (50, 4000), (-1, 0)):
        snapshot = fleet_of(1, temp_c=temp_c)
        snapshot.live.charge_w_max[:] = snapshot.live.discharge_w_max[:] = 4000
        found = envelope(snapshot, NOW, EXACT)
        assert (out(found)[0], into(found)[0]) == (4000, charge_w)


def test_limits_export_not_allowed_covers_the_home_only() -> None:
    assert out(limits(export_allowed=False, load_w=1800, pv_w=500)) == (1300, Reason.EXPORT)
    assert out(limits(export_allowed=False, load_w=1800, pv_w=2500))[0] == 0
    assert out(limits(export_allowed=False, load_w=8000)) == (5000, Reason.RATING)
    assert out(limits(export_allowed=True, load_w=0)) == (5000, Reason.RATING)


def test_limits_export_margin_is_kept_free() -> None:
    assert out(limits(params=LimitParams(site_margin_w=100), export_allowed=False, load_w=1800))[0] == 1700


def test_limits_load_unknown_is_taken_from_meter_and_battery() -> None:
    found = limits(export_allowed=False, load_w=np.nan, battery_w=700, grid_w=400)
    assert out(found) == (1100, Reason.EXPORT)


def test_limits_load_and_meter_unknown_allows_nothing_new_and_cuts_nothing() -> None:
    unknown: dict[str, Any] = {"export_allowed": False, "load_w": np.nan, "grid_w": np.nan}
    assert out(limits(**unknown))[0] == 0
    assert limits(**unknown).controllable[0]
    running = limits(setpoint_w=1000, **unknown)
    assert not running.controllable[0]
    assert not running.must_narrow[0]


def test_limits_load_falls_narrows_a_home_without_export_at_once() -> None:
    assert limits(export_allowed=False, load_w=900, setpoint_w=1000, before_w=1000).must_narrow[0]
    assert not limits(export_allowed=False, load_w=1100, setpoint_w=1000, before_w=1000).must_narrow[0]


def test_limits_grid_charge_not_allowed_takes_pv_surplus_only() -> None:
    assert into(limits(grid_charge_allowed=False, load_w=500, pv_w=3000)) == (2500, Reason.GRID_CHARGE)
    assert into(limits(grid_charge_allowed=False, load_w=500, pv_w=0))[0] == 0
    assert into(limits(grid_charge_allowed=True))[0] == 5000


def test_limits_site_limits_count_the_load_of_the_home() -> None:
    found = limits(site_import_w_max=4000, site_export_w_max=2000, load_w=1000)
    assert out(found) == (3000, Reason.SITE_EXPORT)
    assert into(found) == (3000, Reason.SITE_IMPORT)


def test_limits_site_limit_unknown_is_not_allowed() -> None:
    found = limits(site_import_w_max=np.nan, site_export_w_max=np.nan, load_w=1000)
    assert (out(found)[0], into(found)[0]) == (1000, 0)


def test_limits_two_batteries_share_the_room_of_their_home_so_that_they_last_equally_long() -> None:
    # 4 and 2 kWh above the reserve
    found = limits(2, site=0, export_allowed=False, load_w=1500, soc_pct=[60, 40], discharge_w_max=[4000, 2000])
    assert found.discharge_w.tolist() == [pytest.approx(1000), pytest.approx(500)]
    # the one that cannot give its part leaves the rest to the other
    found = limits(2, site=0, export_allowed=False, load_w=1500, soc_pct=[60, 40], discharge_w_max=[600, 2000])
    assert found.discharge_w.tolist() == [pytest.approx(600), pytest.approx(900)]


def test_limits_battery_that_will_not_be_written_keeps_its_part_of_the_room() -> None:
    # the second one has gone silent under a lease of 1.2 kW
    found = limits(
        2, site=0, export_allowed=False, load_w=1500, soc_pct=[60, 21], setpoint_w=[0, 1200], battery_w=[0, 1200],
        online=[1, 0],
    )  # fmt: skip
    assert found.controllable.tolist() == [True, False]
    assert found.discharge_w[0] == pytest.approx(300)


def test_limits_battery_that_has_nothing_leaves_the_room_to_the_other() -> None:
    found = limits(2, site=0, export_allowed=False, load_w=1500, soc_pct=[10, 60])
    assert found.discharge_w.tolist() == [0, pytest.approx(1500)]


def test_limits_shared_home_uses_the_worst_load_any_battery_reports() -> None:
    found = limits(2, site=0, export_allowed=False, site_import_w_max=3000, load_w=[1000, 1600])
    assert found.discharge_w.sum() == pytest.approx(1000)
    assert found.charge_w.sum() == pytest.approx(1400)


def test_limits_strictest_permission_of_a_home_holds_for_all_its_batteries() -> None:
    found = limits(2, site=0, export_allowed=[True, False], load_w=1000)
    assert found.discharge_w.sum() == pytest.approx(1000)


def test_limits_grid_back_waits_with_grid_charge_but_may_take_pv() -> None:
    back = NOW.mono_ms - 290_000
    assert into(limits(reconnected_mono_ms=back)) == (0, Reason.RECONNECTING)
    assert into(limits(reconnected_mono_ms=back, pv_w=2000))[0] == 1500
    assert into(limits(reconnected_mono_ms=NOW.mono_ms - 901_000))[0] == 5000


def test_limits_grid_back_waits_differ_between_devices() -> None:
    waiting = [
        int((envelope(fleet_of(200, reconnected_mono_ms=NOW.mono_ms - 1000 * s), NOW, EXACT).charge_w == 0).sum())
        for s in (299, 450, 600, 750, 901)
    ]
    assert waiting[0] == 200
    assert waiting[-1] == 0
    assert all(40 <= before - after <= 60 for before, after in pairwise(waiting))


@pytest.mark.fault("F24")
def test_limits_reserve_raised_under_a_running_lease_narrows_within_the_tick() -> None:
    running: dict[str, Any] = {"soc_pct": 40, "setpoint_w": 3000, "before_w": 3000, "battery_w": 3000}
    assert not limits(owner_reserve_pct=20, **running).must_narrow[0]
    assert limits(owner_reserve_pct=39.5, **running).must_narrow[0]
    assert limits(reserve_pct=45, **running).must_narrow[0]


def test_limits_setpoint_that_was_proven_is_not_narrowed_by_look_ahead_alone() -> None:
    # 100 Wh left, 80 s of lease: 3 kW is fine to its end though it would not be given for a whole lease again
    found = limits(soc_pct=21, setpoint_w=3000, before_w=3000, battery_w=3000, lease_end_mono_ms=NOW.mono_ms + 80_000)
    assert out(found)[0] == pytest.approx(3450)
    later = limits(soc_pct=20.4, setpoint_w=3000, before_w=3000, battery_w=3000, lease_end_mono_ms=NOW.mono_ms + 40_000)
    assert out(later)[0] < 3000
    assert not later.must_narrow[0]


def test_limits_check_is_paired_with_the_envelope() -> None:
    found = limits(3, discharge_w_max=[1000, 1000, 1000], charge_w_max=500, online=[1, 1, 0])
    slots = np.array([0, 1, 2], dtype=np.int32)
    assert check(np.array([1000, 1001, 0]), slots, found).tolist() == [True, False, False]
    assert check(np.array([-500, -501, 0]), slots, found).tolist() == [True, False, False]


def test_limits_reason_names_are_words() -> None:
    assert reason_names(int(Reason.RESERVE | Reason.BMS)) == ["bms", "reserve"]


def test_limits_no_devices_gives_empty_columns() -> None:
    assert len(limits(0).discharge_w) == 0


def test_limits_large_fleet_equals_each_home_alone() -> None:
    n = 20_000
    rng = np.random.default_rng(5)
    site = rng.integers(-1, n // 2, n)
    site[[0, n // 2, n - 1]] = 3
    snapshot = fleet_of(
        n,
        site=site,
        export_allowed=rng.random(n) < 0.5,
        site_import_w_max=rng.choice([3000.0, np.inf, np.nan], n),
        load_w=rng.choice([800.0, 2500.0, np.nan], n),
        soc_pct=rng.uniform(10, 100, n),
    )
    whole = envelope(snapshot, NOW, EXACT)
    for home in (3, *site[[7, 70, 700, n - 3]]):
        rows = np.flatnonzero(site == home)[: 1 if home < 0 else None]
        part = permuted(snapshot, rows) if home >= 0 else None
        if part is None:
            continue
        alone = envelope(
            type(part)(n=len(rows), nameplate=part.nameplate, live=part.live, control=part.control), NOW, EXACT
        )
        for name in ("discharge_w", "charge_w", "reasons_discharge", "controllable"):
            assert np.array_equal(getattr(whole, name)[rows], getattr(alone, name)), name


percent = st.floats(0, 100)
watts = st.floats(0, 8000)


@given(
    soc_pct=percent,
    reserve_pct=st.floats(0, 60),
    error_pct=st.floats(-5, 5),
    age_s=st.floats(0, 119),
    measured_w=st.floats(-5000, 5000),
    setpoint_w=st.integers(-5000, 5000),
    before_w=st.integers(-5000, 5000),
    efficiency=st.floats(0.7, 1.0),
    standby_w=st.floats(0, 60),
    capacity_wh=st.floats(1000, 30_000),
    lease_s=st.floats(30, 900),
)
def test_limits_lease_run_to_its_end_keeps_the_true_charge_above_the_reserve(
    soc_pct: float,
    reserve_pct: float,
    error_pct: float,
    age_s: float,
    measured_w: float,
    setpoint_w: int,
    before_w: int,
    efficiency: float,
    standby_w: float,
    capacity_wh: float,
    lease_s: float,
) -> None:
    found = limits(
        soc_pct=soc_pct,
        owner_reserve_pct=reserve_pct,
        soc_uncertainty_pct=5,
        seen_mono_ms=NOW.mono_ms - round(age_s * 1000),
        battery_w=measured_w,
        setpoint_w=setpoint_w,
        before_w=before_w,
        efficiency_discharge=efficiency,
        efficiency_charge=efficiency,
        standby_w=standby_w,
        capacity_wh=capacity_wh,
        lease_s=lease_s,
    )
    allowed_w = np.floor(found.discharge_w[0])
    if allowed_w > 0:
        # the cells, as they may truly be: worst drain since the sample, then the whole lease at the allowed power
        drained_ws = (max(measured_w, setpoint_w, before_w, 0) / efficiency + standby_w) * (round(age_s, 3) + 5)
        leased_ws = (allowed_w / efficiency + standby_w) * lease_s
        true_soc_pct = soc_pct + error_pct - (drained_ws + leased_ws) / 3600 / capacity_wh * 100
        assert true_soc_pct >= reserve_pct - 1e-6
    taken_w = np.floor(found.charge_w[0])
    if taken_w > 0:
        gained_ws = max(-measured_w, -setpoint_w, -before_w, 0) * efficiency * (round(age_s, 3) + 5)
        filled_pct = soc_pct + (gained_ws + taken_w * efficiency * lease_s) / 3600 / capacity_wh * 100
        assert filled_pct <= 100 + 1e-6


unsure = st.one_of(st.just(np.nan), st.floats(-10_000, 10_000))


@given(
    st.lists(
        st.tuples(
            st.integers(-1, 3),
            unsure,
            unsure,
            unsure,
            unsure,
            st.one_of(st.just(np.nan), percent),
            st.booleans(),
            st.booleans(),
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 3),
)
def test_limits_any_reading_stays_inside_ratings_and_homes_inside_their_meter(
    rows: list[tuple[int, float, float, float, float, float, bool, bool]], age: int
) -> None:
    site, pv_w, load_w, grid_w, bms_w, soc_pct, export, charge = map(np.array, zip(*rows, strict=True))
    n = len(rows)
    snapshot = fleet_of(
        n,
        site=site,
        pv_w=pv_w,
        load_w=load_w,
        grid_w=grid_w,
        soc_pct=soc_pct,
        export_allowed=export,
        grid_charge_allowed=charge,
        seen_mono_ms=NOW.mono_ms - age * 50_000,
    )
    snapshot.live.discharge_w_max[:] = bms_w
    bms_w = snapshot.live.discharge_w_max  # as it is kept: in single precision
    found = envelope(snapshot, NOW, EXACT)
    assert ((found.discharge_w >= 0) & (found.discharge_w <= 5000)).all()
    assert ((found.charge_w >= 0) & (found.charge_w <= 5000)).all()
    assert (found.discharge_w <= found.sustain_discharge_w).all()
    assert (found.discharge_w[bms_w >= 0] <= bms_w[bms_w >= 0]).all()
    assert (found.reasons_discharge > 0).all()
    for home in set(site[site >= 0].tolist()):
        inside = site == home
        known = (load_w - pv_w)[inside & np.isfinite(load_w - pv_w)]
        if len(known) and not export[inside].all():
            assert found.discharge_w[inside].sum() <= max(known.min(), 0) + 0.01  # PV is single precision
        if len(known) and not charge[inside].all():
            assert found.charge_w[inside].sum() <= max(-known.max(), 0) + 0.01
    if age == 3:
        assert not found.controllable.any()


def test_look_ahead_inexact_timer_counts_the_longest_it_may_run() -> None:
    """A product whose timer may overrun by a lease gets half the power a product with an exact one gets."""
    exact, inexact = fleet_of(1, soc_pct=20.5, lease_s=100), fleet_of(1, soc_pct=20.5, lease_s=100)
    inexact.nameplate.overrun_s[:] = 100
    allowed = [float(envelope(s, NOW, EXACT).discharge_w[0]) for s in (exact, inexact)]
    standby_w = float(exact.nameplate.standby_w[0])
    assert 0 < allowed[1] < allowed[0] < 5000
    assert allowed[1] + standby_w == pytest.approx((allowed[0] + standby_w) / 2, rel=1e-3)

"""The physics: energy is conserved, limits hold, the meter balances, the estimate stays near the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.battery import Batteries, Mode
from simulators.homes import make_homes
from tests.builders.homes import homes


def remote(batteries: Batteries, setpoint_w: float) -> Batteries:
    batteries.mode[:] = Mode.REMOTE
    batteries.setpoint_w[:] = setpoint_w
    return batteries


def balance_w(batteries: Batteries) -> np.ndarray:
    fleet = batteries.homes
    battery_w = np.bincount(fleet.site_index, weights=batteries.battery_w, minlength=fleet.site_count)
    return np.asarray(batteries.site_load_w - batteries.site_pv_w - battery_w - batteries.site_grid_w)


steps = st.lists(
    st.tuples(
        st.sampled_from([Mode.SELF_CONSUMPTION, Mode.REMOTE, Mode.BACKUP]),
        st.floats(-15_000, 15_000),
        st.sampled_from([0.1, 1.0, 30.0, 600.0]),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


@given(seed=st.integers(0, 1_000), moves=steps)
def test_batteries_any_history_conserve_energy_within_bounds(
    seed: int, moves: list[tuple[Mode, float, float, bool]]
) -> None:
    fleet = make_homes(6, seed)
    batteries = Batteries(fleet, guard=False)
    before_wh = batteries.energy_wh.copy()
    charged_wh, discharged_wh = batteries.charged_wh.copy(), batteries.discharged_wh.copy()
    for mode, setpoint_w, dt_s, island in moves:
        batteries.mode[:] = mode
        batteries.setpoint_w[:] = setpoint_w
        batteries.islanded[fleet.site_index == 0] = island
        batteries.step(dt_s)
        assert np.all((batteries.energy_wh >= 0) & (batteries.energy_wh <= fleet.capacity_wh))
        assert np.abs(balance_w(batteries)).max() < 1e-6
        off_pct = np.abs(batteries.reported_soc_pct() - batteries.true_soc_pct)
        assert np.all(off_pct <= fleet.soc_uncertainty_pct + 1e-9)
        assert np.all(batteries.battery_w <= fleet.discharge_w_max)
        assert np.all(batteries.battery_w >= -fleet.charge_w_max)
    in_wh = (batteries.charged_wh - charged_wh) * fleet.efficiency_charge
    out_wh = (batteries.discharged_wh - discharged_wh) / fleet.efficiency_discharge
    np.testing.assert_allclose(batteries.energy_wh - before_wh, in_wh - out_wh - batteries.standby_wh, atol=1e-3)


def test_batteries_same_seed_run_identically() -> None:
    runs = [Batteries(make_homes(20, 3)) for _ in range(2)]
    for batteries in runs:
        for _ in range(50):
            batteries.step(1.0)
    np.testing.assert_array_equal(runs[0].battery_w, runs[1].battery_w)


def test_charge_limit_near_full_tapers_to_nothing() -> None:
    batteries = remote(Batteries(homes(soc_start_pct=85.0), guard=False), -50_000)
    rated_w = batteries.homes.charge_w_max[0]
    assert batteries.charge_limit_w()[0] == rated_w
    limits_w = []
    for _ in range(20_000):
        batteries.step(1.0)
        limits_w.append(batteries.charge_limit_w()[0])
        if batteries.full[0]:
            break
    assert batteries.full[0]
    assert limits_w[-1] == 0
    assert 0 < limits_w[-2] < 0.1 * rated_w
    assert batteries.reported_soc_pct()[0] == 100


def test_discharge_limit_near_empty_tapers_to_nothing() -> None:
    batteries = remote(Batteries(homes(soc_start_pct=10.0), guard=False), 50_000)
    rated_w = batteries.homes.discharge_w_max[0]
    assert batteries.discharge_limit_w()[0] == pytest.approx(rated_w)
    for _ in range(20_000):
        batteries.step(1.0)
        if batteries.empty[0]:
            break
    assert batteries.discharge_limit_w()[0] == 0
    batteries.step(1.0)
    assert batteries.battery_w[0] == 0


def test_charge_below_freezing_is_not_taken() -> None:
    batteries = remote(Batteries(homes(ambient_c=-10.0), guard=False), -3_000)
    for _ in range(30):
        batteries.step(1.0)
    assert batteries.charge_limit_w()[0] == 0
    assert batteries.battery_w[0] == 0


def test_charge_above_freezing_is_taken() -> None:
    batteries = remote(Batteries(homes(ambient_c=15.0), guard=False), -3_000)
    for _ in range(30):
        batteries.step(1.0)
    assert batteries.battery_w[0] == pytest.approx(-3_000, rel=0.01)


def test_response_to_setpoint_is_first_order_within_the_slew() -> None:
    fleet = homes(response_s=1.0, slew_w_per_s=1_000.0)
    batteries = Batteries(fleet, guard=False)
    batteries.battery_w[:] = 0.0
    remote(batteries, 3_000)
    powers_w = [0.0]
    for _ in range(150):
        batteries.step(0.1)
        powers_w.append(batteries.battery_w[0])
    assert np.diff(powers_w).max() <= 100 + 1e-6
    assert np.all(np.diff(powers_w) >= 0)
    assert powers_w[-1] == pytest.approx(3_000, rel=0.01)


def test_self_consumption_above_reserve_covers_the_home() -> None:
    batteries = Batteries(homes(reserve_pct=20.0))
    for _ in range(60):
        batteries.step(1.0)
    assert batteries.battery_w[0] > 0
    assert batteries.grid_w[0] == pytest.approx(0, abs=0.1 * batteries.load_w[0] + 5)


def test_self_consumption_at_reserve_does_not_discharge() -> None:
    batteries = Batteries(homes(reserve_pct=70.0))
    for _ in range(60):
        batteries.step(1.0)
    assert batteries.battery_w[0] == 0


@pytest.mark.parametrize(("guard", "discharges"), [(True, False), (False, True)])
def test_remote_below_reserve_obeys_only_without_guard(guard: bool, discharges: bool) -> None:
    batteries = remote(Batteries(homes(reserve_pct=70.0), guard=guard), 2_000)
    for _ in range(30):
        batteries.step(1.0)
    assert bool(batteries.battery_w[0] > 1_000) is discharges


def test_island_covers_the_load_without_grid() -> None:
    batteries = remote(Batteries(homes(reserve_pct=90.0), guard=True), -3_000)
    batteries.islanded[:] = True
    for _ in range(60):
        batteries.step(1.0)
        assert batteries.grid_w[0] == 0
        assert batteries.battery_w[0] == pytest.approx(batteries.load_w[0])
    assert batteries.battery_w[0] > 100


def test_island_empty_battery_sheds_the_load() -> None:
    batteries = Batteries(homes(soc_start_pct=0.0))
    batteries.islanded[:] = True
    batteries.step(1.0)
    assert (batteries.load_w[0], batteries.grid_w[0], batteries.battery_w[0]) == (0, 0, 0)


def test_island_two_batteries_share_the_load() -> None:
    batteries = Batteries(homes(2, site_index=np.array([0, 0]), load_base_w=np.array([3_000.0]), pv_peak_w=np.zeros(1)))
    batteries.islanded[:] = True
    batteries.step(1.0)
    assert np.all(batteries.battery_w > 0)
    assert batteries.battery_w.sum() == pytest.approx(batteries.site_load_w[0])


def test_estimate_drifts_within_its_bound_and_is_right_after_a_full_charge() -> None:
    batteries = Batteries(homes(8, soc_uncertainty_pct=3.0, soc_start_pct=50.0), guard=False)
    bound_pct = 3.0 - batteries.homes.soc_step_pct / 2
    drifted_pct = np.zeros(8)
    for cycle in range(20):
        remote(batteries, 4_000 if cycle % 2 else -4_000)
        for _ in range(30):
            batteries.step(60.0)
            batteries.energy_wh = np.clip(batteries.energy_wh, 0, 0.97 * batteries.homes.capacity_wh)
            assert np.all(np.abs(batteries.error_pct) <= bound_pct)
        drifted_pct = np.maximum(drifted_pct, np.abs(batteries.error_pct))
    assert np.all(drifted_pct > 0.5)
    remote(batteries, -4_000)
    for _ in range(2_000):
        batteries.step(60.0)
        if batteries.full.all():
            break
        batteries.error_pct = np.where(batteries.full, batteries.error_pct, drifted_pct.clip(0, 2))
    assert batteries.full.all()
    assert np.all(np.abs(batteries.error_pct) < 0.5)


def test_inverter_shared_with_pv_leaves_the_battery_the_rest() -> None:
    fleet = homes(inverter_w_max=5_000.0, pv_peak_w=9_000.0, discharge_w_max=5_000.0, slew_w_per_s=1e6)
    batteries = remote(Batteries(fleet, time_s=13 * 3_600.0, guard=False), 5_000)
    for _ in range(60):
        batteries.step(1.0)
        assert batteries.battery_w[0] + batteries.pv_w[0] <= 5_000 + 1e-6
    assert batteries.pv_w[0] > 1_000


def test_counters_count_in_the_products_steps() -> None:
    batteries = remote(Batteries(homes(2, counter_step_wh=np.array([10.0, np.nan])), guard=False), 3_000)
    start_wh = batteries.discharge_counter_wh()[0]
    for _ in range(600):
        batteries.step(1.0)
    counter_wh = batteries.discharge_counter_wh()
    assert counter_wh[0] % 10 == 0
    assert 0 <= batteries.discharged_wh[0] - counter_wh[0] < 10
    assert counter_wh[0] > start_wh
    assert np.isnan(counter_wh[1])


def test_available_discharge_is_held_by_energy_and_export() -> None:
    fleet = homes(
        3,
        export_allowed=np.array([True, True, False]),
        discharge_w_max=5_000.0,
        capacity_wh=10_000.0,
        soc_start_pct=np.array([80.0, 21.0, 80.0]),
    )
    batteries = Batteries(fleet)
    available_w = batteries.available_discharge_w(20.0, 3_600.0)
    assert available_w[0] == pytest.approx(5_000)
    assert 0 < available_w[1] < 110
    assert available_w[2] == pytest.approx(batteries.load_w[2])
    assert batteries.available_discharge_w(30.0)[1] == 0

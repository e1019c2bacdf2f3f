"""Allocation: exact sums, never past the envelope, whole watts, no favourites, longest time-to-go first."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from gateway.domain.control.allocation import Allocation, Ask, Shortfall, allocate
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits.envelope import envelope
from gateway.domain.limits.types import Envelope, LimitParams
from tests.builders.fleets import NOW, fleet_of


def offer(
    n: int, /, *, site: ArrayLike | None = None, plate: dict[str, ArrayLike] | None = None, **columns: ArrayLike
) -> tuple[Snapshot, Envelope]:
    """Devices with the given envelope; `sustain_*` follow the envelope unless stated; `plate` other columns."""
    snapshot = fleet_of(n, site=np.arange(n) if site is None else site, **(plate or {}))
    names = {"discharge_w", "charge_w", "sustain_discharge_w", "sustain_charge_w", "deliverable_wh", "absorbable_wh"}
    given: dict[str, Any] = {
        name: np.broadcast_to(np.asarray(value, dtype=np.float64), n).copy() for name, value in columns.items()
    }
    assert given.keys() <= names
    for way in ("discharge_w", "charge_w"):
        if way in given:
            given.setdefault(f"sustain_{way}", given[way])
    return snapshot, replace(envelope(snapshot, NOW, LimitParams()), **given)


def split(
    target_w: float | None,
    found: tuple[Snapshot, Envelope],
    *,
    mask: ArrayLike = True,
    horizon_s: float = 600,
    to_end_s: float = 3600,
    charge: bool = False,
    taken_w: Any = None,
    feeder_w: Any = None,
) -> Allocation:
    snapshot, allowed = found
    chosen = np.broadcast_to(np.asarray(mask, dtype=np.bool_), snapshot.n)
    ask = Ask(
        target_w=target_w, mask=chosen, horizon_s=horizon_s, seconds_to_end=to_end_s, charge=charge, taken_w=taken_w,
        feeder_w=feeder_w,
    )  # fmt: skip
    return allocate(ask, allowed, snapshot)


def test_allocate_equal_devices_get_equal_power() -> None:
    found = split(6000, offer(3, discharge_w=5000, deliverable_wh=8000))
    assert found.setpoint_w.tolist() == [2000, 2000, 2000]
    assert (found.allocated_w, found.unserved_w, found.reason) == (6000, 0, Shortfall.NONE)


def test_allocate_longest_time_to_go_delivers_first() -> None:
    found = split(3000, offer(3, discharge_w=3000, deliverable_wh=[9000, 6000, 3000]), horizon_s=60)
    assert found.setpoint_w.tolist() == [3000, 0, 0]


def test_allocate_wider_horizon_spreads_the_work() -> None:
    found = split(3000, offer(2, discharge_w=3000, deliverable_wh=[6000, 5000]), horizon_s=7200)
    assert found.setpoint_w.tolist() == [1750, 1250]


def test_allocate_charge_is_negative_and_goes_to_the_emptiest() -> None:
    found = split(-3000, offer(2, charge_w=3000, absorbable_wh=[1000, 9000]), horizon_s=60)
    assert found.setpoint_w.tolist() == [0, -3000]
    assert (found.allocated_w, found.unserved_w) == (-3000, 0)


def test_allocate_more_than_there_is_gives_everything_and_says_so() -> None:
    found = split(9000, offer(2, discharge_w=[2500.9, 3000], deliverable_wh=5000))
    assert found.setpoint_w.tolist() == [2500, 3000]
    assert (found.allocated_w, found.unserved_w, found.reason) == (5500, 3500, Shortfall.LIMITS)


def test_allocate_charge_shortfall_keeps_the_sign_of_the_target() -> None:
    found = split(-9000, offer(1, charge_w=2000, absorbable_wh=5000))
    assert (found.allocated_w, found.unserved_w) == (-2000, -7000)


def test_allocate_nobody_to_ask_is_its_own_reason() -> None:
    found = split(1000, offer(2, discharge_w=3000, deliverable_wh=5000), mask=False)
    assert (found.allocated_w, found.unserved_w, found.reason) == (0, 1000, Shortfall.NO_MEMBERS)


def test_allocate_zero_gives_nobody_anything() -> None:
    found = split(0, offer(2, discharge_w=3000, deliverable_wh=5000))
    assert found.setpoint_w.tolist() == [0, 0]
    assert found.reason is Shortfall.NONE


def test_allocate_masked_and_uncontrollable_devices_get_nothing() -> None:
    snapshot, allowed = offer(3, discharge_w=3000, deliverable_wh=5000)
    allowed = replace(allowed, controllable=np.array([True, False, True]))
    assert split(9000, (snapshot, allowed), mask=[True, True, False]).setpoint_w.tolist() == [3000, 0, 0]


def test_allocate_look_ahead_cap_is_filled_by_others() -> None:
    found = split(
        4000, offer(2, discharge_w=[500, 5000], sustain_discharge_w=5000, deliverable_wh=[9000, 1000]), horizon_s=60
    )
    assert found.setpoint_w.tolist() == [500, 3500]


def test_allocate_home_gives_all_it_may_for_as_long_as_its_batteries_can() -> None:
    # 6 kW may go out of the home; 0.5 kWh behind 5 kW and 10 kWh behind 5 kW: the small one gives 1 kW for half an hour
    energy_wh = np.array([500.0, 10_000.0])
    snapshot = fleet_of(
        2, site=0, load_w=0, grid_w=0, site_export_w_max=6_000, capacity_wh=[1_000, 20_000], owner_reserve_pct=0,
        standby_w=0, command_latency_s=0, lease_s=1,
    )  # fmt: skip
    given_w = []
    for _ in range(40):
        snapshot.live.soc_low_pct[:] = energy_wh / np.array([1_000.0, 20_000.0]) * 100
        allowed = envelope(snapshot, NOW, LimitParams(site_margin_w=0, resume_pct=0))
        found = split(6_000, (snapshot, allowed), horizon_s=60)
        energy_wh = np.maximum(energy_wh - found.setpoint_w / 60, 0.0)
        given_w.append(int(found.setpoint_w.sum()))
    assert min(given_w[:29]) >= 5_998  # shares of a room are whole W
    assert given_w[-1] == 5_000


def test_allocate_within_a_home_the_fuller_battery_goes_first() -> None:
    found = split(1000, offer(2, site=0, discharge_w=1000, deliverable_wh=[1000, 5000]), horizon_s=60)
    assert found.setpoint_w.tolist() == [0, 1000]


def test_allocate_the_most_for_the_whole_event_levels_energy_over_time() -> None:
    found = split(None, offer(3, discharge_w=3000, deliverable_wh=[2000, 1000, 9000]), to_end_s=7200)
    assert found.setpoint_w.tolist() == [1000, 500, 3000]
    assert (found.allocated_w, found.unserved_w, found.reason) == (4500, 0, Shortfall.NONE)


def test_allocate_the_most_in_charge_direction_is_negative() -> None:
    found = split(None, offer(1, charge_w=3000, absorbable_wh=1000), to_end_s=3600, charge=True)
    assert found.setpoint_w.tolist() == [-1000]


def test_allocate_the_most_at_the_very_end_stays_inside_the_envelope() -> None:
    found = split(None, offer(1, discharge_w=3000, deliverable_wh=1000), to_end_s=0)
    assert found.setpoint_w.tolist() == [3000]


def test_allocate_no_devices_at_all_says_so() -> None:
    assert split(100, offer(0)).reason is Shortfall.NO_MEMBERS


def test_allocate_large_mixed_fleet_meets_every_target_to_the_watt() -> None:
    rng = np.random.default_rng(3)
    n = 20_000
    found = offer(
        n,
        site=rng.integers(0, n // 2, n),
        discharge_w=rng.uniform(0, 5000, n),
        deliverable_wh=rng.uniform(1, 13_000, n),
    )
    most_w = int(np.floor(found[1].discharge_w).sum())
    for target_w in (1, 12_345, most_w // 3, most_w - 1, most_w):
        assert split(target_w, found).setpoint_w.sum() == target_w


def test_allocate_small_move_of_the_target_moves_no_setpoint_far() -> None:
    rng = np.random.default_rng(4)
    found = offer(500, discharge_w=5000, deliverable_wh=rng.uniform(500, 13_000, 500))
    one, other = split(900_000, found, horizon_s=900), split(909_000, found, horizon_s=900)
    moved = np.abs(other.setpoint_w - one.setpoint_w)
    assert moved.sum() <= 9000 + 500
    assert moved.max() <= 250


device = st.tuples(st.integers(-1, 4), st.floats(0, 6000), st.floats(1, 1.5), st.floats(0.001, 15_000), st.booleans())


@given(st.lists(device, min_size=1, max_size=12), st.floats(-60_000, 60_000), st.floats(1, 7200))
def test_allocate_any_fleet_is_exact_inside_and_independent_of_order(
    devices: list[tuple[int, float, float, float, bool]], target_w: float, horizon_s: float
) -> None:
    site, cap_w, above, energy_wh, member = map(np.array, zip(*devices, strict=True))
    n = len(devices)
    ways = {"discharge_w": cap_w, "sustain_discharge_w": cap_w * above, "deliverable_wh": energy_wh}
    ways |= {"charge_w": cap_w, "sustain_charge_w": cap_w * above, "absorbable_wh": energy_wh}
    found = split(target_w, offer(n, site=site, **ways), mask=member, horizon_s=horizon_s)
    most_w = int(np.floor(cap_w)[member & (cap_w >= 1)].sum())
    sign = -1 if target_w < 0 else 1
    assert found.setpoint_w.sum() == sign * min(round(abs(target_w)), most_w) == found.allocated_w
    assert found.allocated_w + found.unserved_w == sign * round(abs(target_w))
    assert (found.setpoint_w * sign >= 0).all()
    assert (np.abs(found.setpoint_w) <= cap_w).all()
    assert not found.setpoint_w[~member].any()
    order = np.random.default_rng(n).permutation(n)
    again = split(
        target_w,
        offer(n, site=site[order], **{k: v[order] for k, v in ways.items()}),
        mask=member[order],
        horizon_s=horizon_s,
    )
    assert (np.abs(again.setpoint_w - found.setpoint_w[order]) <= 1).all()
    assert again.allocated_w == found.allocated_w


def served_wh(power_w: np.ndarray, energy_wh: np.ndarray, trace_w: np.ndarray, step_s: float) -> float:
    """Energy served of a trace of targets by constant-limit devices under the policy."""
    energy, total = energy_wh.copy(), 0.0
    for target_w in trace_w:
        now_w = np.minimum(power_w, energy * 3600 / step_s)
        found = split(
            float(target_w),
            offer(len(energy), discharge_w=now_w, sustain_discharge_w=power_w, deliverable_wh=energy),
            horizon_s=step_s,
        )
        energy = energy - found.setpoint_w * step_s / 3600
        total += found.allocated_w * step_s / 3600
    return total


@pytest.mark.parametrize("seed", range(5))
def test_allocate_trace_at_the_edge_of_the_feasible_is_served(seed: int) -> None:
    # any trace the fleet itself could produce is feasible by construction; the policy must serve it as well
    rng = np.random.default_rng(seed)
    n, steps, step_s = 30, 12, 300.0
    power_w = rng.uniform(1000, 5000, n).round()
    energy_wh = power_w * rng.uniform(0.1, 1.0, n)
    left, trace_w = energy_wh.copy(), np.zeros(steps)
    for k in range(steps):
        used_w = np.floor(np.minimum(power_w, left * 3600 / step_s) * rng.uniform(0, 1, n))
        left -= used_w * step_s / 3600
        trace_w[k] = used_w.sum()
    asked_wh = trace_w.sum() * step_s / 3600
    assert served_wh(power_w, energy_wh, trace_w, step_s) >= 0.999 * asked_wh

"""Products with a minimum and steps, feeders with a ceiling, batteries that serve two events."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.control.allocation import Shortfall
from tests.domain.control.test_allocation import offer, split


def with_minima(n: int, least_w: Any, *, step_w: Any = 1, on_w: Any = 0, **columns: Any) -> Any:
    plate = {"setpoint_w_min": least_w, "setpoint_step_w": step_w, "setpoint_w": on_w, "before_w": on_w}
    return offer(n, plate=plate, **columns)


def test_allocate_request_below_the_sum_of_the_minima_switches_units_off() -> None:
    # equal shares would be 100 W each; ten units with a minimum of 500 W cannot carry that
    found = split(1000, with_minima(10, 500, discharge_w=3000, deliverable_wh=8000))
    assert all(w == 0 or w >= 500 for w in found.setpoint_w.tolist())
    assert (found.allocated_w, found.unserved_w, found.reason) == (1000, 0, Shortfall.NONE)


def test_allocate_less_than_any_minimum_is_not_served_and_never_overshot() -> None:
    found = split(300, with_minima(10, 500, discharge_w=3000, deliverable_wh=8000))
    assert not found.setpoint_w.any()
    assert (found.allocated_w, found.unserved_w, found.reason) == (0, 300, Shortfall.MINIMA)


def test_allocate_units_without_a_minimum_carry_what_is_left() -> None:
    found = split(1300, with_minima(3, [500, 500, 0], discharge_w=[3000, 3000, 400], deliverable_wh=[8000, 8000, 100]))
    assert found.allocated_w == 1300
    assert all(w == 0 or w >= 500 for w in found.setpoint_w[:2].tolist())


def test_allocate_longest_lasting_units_are_switched_on() -> None:
    found = split(600, with_minima(4, 500, discharge_w=3000, deliverable_wh=[2000, 9000, 4000, 3000]), horizon_s=9000)
    assert found.setpoint_w.tolist() == [0, 600, 0, 0]


def test_allocate_unit_that_runs_is_kept_while_it_has_any_share() -> None:
    energies = [8000, 8200]
    off = split(700, with_minima(2, 500, discharge_w=3000, deliverable_wh=energies), horizon_s=9000)
    assert off.setpoint_w.tolist() == [0, 700]
    on = split(1100, with_minima(2, 500, on_w=[600, 0], discharge_w=3000, deliverable_wh=energies), horizon_s=9000)
    assert on.setpoint_w.sum() == 1100
    assert (on.setpoint_w >= 500).all()
    kept = split(700, with_minima(2, 500, on_w=[600, 0], discharge_w=3000, deliverable_wh=energies), horizon_s=9000)
    assert kept.setpoint_w.tolist() == [700, 0]


def test_allocate_units_near_their_minimum_are_not_switched_back_and_forth() -> None:
    rng = np.random.default_rng(2)
    n, switches = 40, 0
    energy_wh = rng.uniform(3000, 9000, n)
    on_w = np.zeros(n, dtype=np.int64)
    for k in range(300):
        target_w = 9_000 + 400 * np.sin(k / 7)
        found = split(
            target_w, with_minima(n, 500, on_w=on_w, discharge_w=3000, deliverable_wh=energy_wh), horizon_s=900
        )
        assert found.unserved_w == 0
        switches += int(((found.setpoint_w > 0) != (on_w > 0)).sum())
        on_w = found.setpoint_w
        energy_wh = energy_wh - on_w / 3600
    # each of those that serve comes on once; little more happens in five minutes
    assert switches <= 60


def test_allocate_charge_knows_minima_too() -> None:
    found = split(-800, with_minima(4, 500, charge_w=3000, absorbable_wh=5000))
    assert sorted(found.setpoint_w.tolist()) == [-800, 0, 0, 0]
    assert found.unserved_w == 0


def test_allocate_steps_are_cut_and_filled_up_by_those_that_take_any_watt() -> None:
    found = split(
        3333,
        with_minima(3, 0, step_w=[100, 100, 1], discharge_w=2000, deliverable_wh=5000),
    )
    assert found.allocated_w == 3333
    assert [w % 100 for w in found.setpoint_w[:2].tolist()] == [0, 0]


def test_allocate_steps_alone_leave_less_than_a_step_of_each_unserved() -> None:
    found = split(3333, with_minima(3, 0, step_w=100, discharge_w=2000, deliverable_wh=5000))
    assert all(w % 100 == 0 for w in found.setpoint_w.tolist())
    assert 0 <= found.unserved_w < 300
    assert found.reason is Shortfall.MINIMA


def test_allocate_the_most_that_can_be_sustained_counts_minima() -> None:
    found = split(None, with_minima(4, 500, discharge_w=3000, deliverable_wh=[400, 400, 400, 4000]), to_end_s=3600)
    assert found.setpoint_w[3] >= 3000
    assert all(w == 0 or w >= 500 for w in found.setpoint_w.tolist())
    assert found.allocated_w <= 3000 + 1200


unit = st.tuples(st.floats(0, 6000), st.floats(0, 900), st.sampled_from([1, 1, 10, 100]), st.floats(0.01, 15_000),
                 st.booleans(), st.integers(-1, 3))  # fmt: skip


@given(st.lists(unit, min_size=1, max_size=12), st.floats(-40_000, 40_000), st.floats(1, 7200))
def test_allocate_any_fleet_with_minima_never_overshoots_and_never_breaks_a_minimum(
    units: list[tuple[float, float, int, float, bool, int]], target_w: float, horizon_s: float
) -> None:
    cap_w, least_w, step_w, energy_wh, on, site = map(np.array, zip(*units, strict=True))
    sign = -1 if target_w < 0 else 1
    found = split(
        target_w,
        with_minima(
            len(units), least_w, step_w=step_w, on_w=sign * on * np.floor(cap_w).astype(int), site=site,
            discharge_w=cap_w, deliverable_wh=energy_wh, charge_w=cap_w, absorbable_wh=energy_wh,
        ),
        horizon_s=horizon_s,
    )  # fmt: skip
    share_w = sign * found.setpoint_w
    assert (share_w >= 0).all()
    assert (share_w <= np.floor(cap_w)).all()
    assert ((share_w == 0) | (share_w >= np.floor(least_w))).all()
    assert (share_w % step_w == 0).all()
    assert share_w.sum() <= round(abs(target_w))
    assert found.allocated_w + found.unserved_w == sign * round(abs(target_w))
    assert (found.unserved_w == 0) == (found.reason is Shortfall.NONE)
    # what is left is less than the smallest unit that is off could have carried
    off = (share_w == 0) & (np.floor(cap_w) >= np.maximum(np.ceil(least_w), 1)) & (step_w <= cap_w)
    if (least_w <= 1).all() and (step_w == 1).all():
        assert abs(found.unserved_w) == max(0, round(abs(target_w)) - int(np.floor(cap_w)[cap_w >= 1].sum()))
    elif off.any():
        smallest_w = float(np.maximum(np.ceil(least_w), step_w)[off].min())
        assert abs(found.unserved_w) < smallest_w + step_w.sum() + least_w.max()


# -- feeders ----------------------------------------------------------------------------------------------------


def test_allocate_feeder_at_its_ceiling_leaves_the_rest_to_others() -> None:
    found = split(
        9000,
        offer(4, plate={"feeder": [0, 0, 1, 1]}, discharge_w=4000, deliverable_wh=[9000, 9000, 5000, 5000]),
        feeder_w=np.array([3000.0, np.inf]),
    )
    assert found.setpoint_w[:2].sum() == 3000
    assert found.setpoint_w[2:].sum() == 6000
    assert found.reason is Shortfall.NONE


def test_allocate_feeders_that_all_are_full_say_so() -> None:
    found = split(
        9000,
        offer(2, plate={"feeder": [0, 1]}, discharge_w=4000, deliverable_wh=9000),
        feeder_w=np.array([1000.0, 2000.0]),
    )
    assert found.setpoint_w.tolist() == [1000, 2000]
    assert (found.unserved_w, found.reason) == (6000, Shortfall.FEEDERS)


def test_allocate_device_without_a_feeder_is_bound_by_none() -> None:
    found = split(
        5000, offer(2, plate={"feeder": [0, -1]}, discharge_w=4000, deliverable_wh=9000), feeder_w=np.array([0.0])
    )
    assert found.setpoint_w.tolist() == [0, 4000]


@given(
    st.lists(
        st.tuples(st.floats(0, 6000), st.floats(0.01, 15_000), st.integers(-1, 3), st.integers(0, 5)),
        min_size=1,
        max_size=16,
    ),
    st.lists(st.floats(0, 12_000), min_size=4, max_size=4),
    st.floats(0, 60_000),
    st.floats(1, 7200),
)
def test_allocate_any_feeders_are_kept_and_the_sum_is_the_most_they_allow(
    rows: list[tuple[float, float, int, int]], feeder_w: list[float], target_w: float, horizon_s: float
) -> None:
    cap_w, energy_wh, feeder, home = map(np.array, zip(*rows, strict=True))
    # a home hangs on one feeder
    feeder = feeder[[int(np.flatnonzero(home == h)[0]) for h in home]]
    found = split(
        target_w,
        offer(len(rows), site=home, plate={"feeder": feeder}, discharge_w=cap_w, deliverable_wh=energy_wh),
        horizon_s=horizon_s,
        feeder_w=np.array(feeder_w),
    )
    carried = np.array([found.setpoint_w[feeder == f].sum() for f in range(4)])
    assert (carried <= np.array(feeder_w) + 1).all()
    usable_w = np.where(cap_w >= 1, np.floor(cap_w), 0)
    most_w = usable_w[feeder < 0].sum() + sum(np.floor(min(usable_w[feeder == f].sum(), feeder_w[f])) for f in range(4))
    assert found.allocated_w == min(round(target_w), int(most_w))


# -- two events on one battery ----------------------------------------------------------------------------------


def test_allocate_what_is_taken_already_is_not_given_again() -> None:
    found = split(
        3000, offer(2, discharge_w=4000, deliverable_wh=[9000, 1000]), taken_w=np.array([3500, 0]), horizon_s=60
    )
    assert found.setpoint_w.tolist() == [500, 2500]


def test_allocate_feeder_counts_what_is_taken_already() -> None:
    found = split(
        3000,
        offer(2, plate={"feeder": [0, 0]}, discharge_w=4000, deliverable_wh=9000),
        taken_w=np.array([3500, 0]),
        feeder_w=np.array([5000.0]),
    )
    assert found.setpoint_w.sum() == 1500


@pytest.mark.parametrize("taken_w", [0, 2000, 4000])
def test_allocate_cap_bounds_what_is_taken_and_what_is_given_together(taken_w: int) -> None:
    found = split(9000, offer(1, discharge_w=4000, deliverable_wh=9000), taken_w=np.array([taken_w]))
    assert found.setpoint_w[0] == 4000 - taken_w

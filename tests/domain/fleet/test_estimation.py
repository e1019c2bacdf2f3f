"""What a run of readings tells: jumps, stuck values, wear, the worst load."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.fleet.columns import LiveColumns, Nameplate
from gateway.domain.fleet.estimation import STRETCH_MS, observe
from gateway.domain.fleet.reserve import SUSTAINED_S as CONFIRMED_S
from gateway.domain.readings import LiveBatch
from gateway.domain.types import NEVER_MS, Grid, Mode, Now, Unclear

CAPACITY_WH = 10_000.0
SUSTAINED_S = round(CONFIRMED_S)


class One:
    """One battery of 5 kW and 10 kWh that reports when told to; `late_s` after it happened."""

    def __init__(self, **plate: Any) -> None:
        self.live, self.plate = LiveColumns(1), Nameplate(1)
        values = {"discharge_w_max": 5000.0, "charge_w_max": 5000.0, "capacity_wh": CAPACITY_WH} | plate
        for name, value in values.items():
            self.plate.column(name)[:] = value
        self.now = Now(utc_ms=1_800_000_000_000, mono_ms=50_000_000)
        self.dropped = 0

    def says(self, *, after_s: float = 1.0, late_s: float = 0.0, fresh: bool = True, **values: Any) -> "One":
        ms = round(after_s * 1000)
        self.now = Now(utc_ms=self.now.utc_ms + ms, mono_ms=self.now.mono_ms + ms)
        numbers: dict[str, float] = {
            "battery_w": 0.0, "soc_pct": 60.0, "soc_step_pct": 1.0, "temp_c": 20.0, "discharge_w_max": 5000.0,
            "charge_w_max": 5000.0, "reserve_pct": 20.0, "pv_w": 0.0, "load_w": 500.0, "grid_w": 500.0,
            "grid_l1_w": np.nan, "grid_l2_w": np.nan, "grid_l3_w": np.nan,
        }  # fmt: skip
        small = {"mode": Mode.REMOTE, "grid": Grid.ON, "locked": 0, "opt_out": 0}
        whole = {"faults": 0, "cmd": 0}
        unclear = values.pop("unclear", None)
        columns: dict[str, Any] = {name: np.array([values.pop(name, value)]) for name, value in numbers.items()}
        columns |= {name: np.array([values.pop(name, v)], dtype=np.int8) for name, v in small.items()}
        columns |= {name: np.array([values.pop(name, v)], dtype=np.int64) for name, v in whole.items()}
        assert not values, values
        batch = LiveBatch(
            slots=np.zeros(1, dtype=np.int32), fresh=np.array([fresh]),
            device_t_ms=np.array([self.now.utc_ms - round(late_s * 1000)]),
            unclear=None if unclear is None else np.array([unclear], dtype=np.int16), **columns,
        )  # fmt: skip
        self.dropped += observe(self.live, self.plate, batch, self.now)
        return self

    def believed(self) -> tuple[float, float]:
        return round(float(self.live.soc_low_pct[0]), 2), round(float(self.live.soc_high_pct[0]), 2)


def test_observe_reading_keeps_the_age_it_has() -> None:
    one = One().says(late_s=7)
    assert one.live.seen_mono_ms[0] == one.now.mono_ms - 7_000
    assert One().says(late_s=-30).live.seen_mono_ms[0] == 50_001_000


@pytest.mark.fault("F13")
def test_observe_reading_older_than_the_newest_updates_nothing() -> None:
    one = One().says(soc_pct=50).says(late_s=5, soc_pct=70)
    assert one.live.soc_pct[0] == 50
    assert one.says(late_s=0.5, soc_pct=50.5).live.soc_pct[0] == 50.5


def test_observe_reading_of_unknown_age_updates_nothing() -> None:
    assert One().says(fresh=False).live.seen_mono_ms[0] == NEVER_MS


def test_observe_reading_after_the_clock_was_set_back_is_still_the_newest() -> None:
    one = One().says()
    one.live.seen_mono_ms[:] += 3 * 3600 * 1000
    assert one.says(soc_pct=40).live.soc_pct[0] == 40


# -- what is not understood --------------------------------------------------------------------------------------


def test_observe_unclear_word_leaves_the_last_one_that_was_understood() -> None:
    one = One().says(grid=Grid.ISLAND, opt_out=1, faults=4)
    one.says(unclear=Unclear.GRID | Unclear.OPT_OUT | Unclear.FAULTS | Unclear.TEMP_C, temp_c=np.nan)
    live = one.live
    assert (live.grid[0], live.opt_out[0], live.faults[0], live.mode[0]) == (Grid.ISLAND, 1, 4, Mode.REMOTE)
    assert live.unclear[0] == Unclear.GRID | Unclear.OPT_OUT | Unclear.FAULTS | Unclear.TEMP_C
    assert np.isnan(live.temp_c[0])
    one.says()
    # an owner's no ends later, once it is gone for a while
    assert (live.grid[0], live.opt_out[0], live.faults[0], live.unclear[0]) == (Grid.ON, 1, 0, 0)
    # the end of an island is seen across what was not understood
    assert live.reconnected_mono_ms[0] == one.now.mono_ms


def test_observe_unclear_reading_that_does_not_count_changes_nothing() -> None:
    one = One().says(unclear=Unclear.GRID).says(fresh=False)
    assert one.live.unclear[0] == Unclear.GRID
    assert one.says(late_s=30).live.unclear[0] == Unclear.GRID
    assert One().says().says(fresh=False, unclear=Unclear.GRID).live.unclear[0] == 0


# -- F30: jumps -------------------------------------------------------------------------------------------------


@pytest.mark.fault("F30")
def test_observe_soc_that_falls_at_once_counts_for_discharge_only() -> None:
    one = One().says(soc_pct=80).says(soc_pct=3)
    assert one.believed() == (3, 80)
    # the next two readings agree: it is true
    assert one.says(soc_pct=3).believed() == (3, 80)
    assert one.says(soc_pct=3).believed() == (3, 3)


@pytest.mark.fault("F30")
def test_observe_soc_that_rises_at_once_counts_for_charging_only() -> None:
    one = One().says(soc_pct=40).says(soc_pct=90)
    assert one.believed() == (40, 90)
    assert one.says(soc_pct=90).says(soc_pct=90).believed() == (90, 90)


@pytest.mark.fault("F30")
def test_observe_single_torn_value_narrows_and_passes() -> None:
    one = One().says(soc_pct=80).says(soc_pct=3).says(soc_pct=80)
    assert one.believed() == (3, 80)
    assert one.says(soc_pct=80).says(soc_pct=80).believed() == (80, 80)


@pytest.mark.fault("F30")
def test_observe_readings_without_a_soc_neither_hide_a_jump_nor_confirm_it() -> None:
    one = One().says(soc_pct=30).says(soc_pct=np.nan)
    assert one.believed() == (30, 30)
    assert one.says(soc_pct=90).believed() == (30, 90)
    for _ in range(5):
        one.says(soc_pct=np.nan)
    assert (one.believed(), one.live.soc_doubt[0]) == ((30, 90), 2)
    assert one.says(soc_pct=90).says(soc_pct=90).believed() == (90, 90)


def test_observe_value_that_stays_behind_readings_without_one_is_stuck_all_the_same() -> None:
    one = One()
    for _ in range(10):
        one.says(after_s=60, battery_w=4_000.0).says(after_s=60, battery_w=4_000.0, soc_pct=np.nan)
    assert one.live.moved_wh[0] > 1_000


def test_observe_value_that_keeps_jumping_never_counts() -> None:
    one = One().says(soc_pct=80)
    for soc_pct in (3, 80, 3, 80, 3, 80):
        one.says(soc_pct=soc_pct)
        assert one.believed() == (3, 80)


def test_observe_change_that_the_energy_explains_is_no_jump() -> None:
    one = One().says(soc_pct=60, battery_w=5000)
    assert one.says(after_s=30, soc_pct=59, battery_w=5000).believed() == (59, 59)
    assert one.says(after_s=30, soc_pct=57, battery_w=5000).believed() == (57, 57)


def test_observe_change_within_the_resolution_is_no_jump() -> None:
    assert One().says(soc_pct=60, soc_step_pct=5).says(soc_pct=65, soc_step_pct=5).believed() == (65, 65)


def test_observe_change_over_a_gap_may_be_what_the_rating_allows() -> None:
    one = One().says(soc_pct=60)
    # an hour away: 5 kWh of 10 may have moved
    assert one.says(after_s=3600, soc_pct=20).believed() == (20, 20)
    assert one.says(after_s=90, soc_pct=60).believed() == (20, 60)


def test_observe_while_in_doubt_bounds_move_with_the_energy() -> None:
    one = One().says(soc_pct=40, battery_w=4000).says(soc_pct=90, battery_w=4000)
    one.says(after_s=30, soc_pct=90, battery_w=4000)
    low, high = one.believed()
    assert low == pytest.approx(40 - 100 * 4000 * 31 / 3600 / CAPACITY_WH, abs=0.02)
    assert high == 90


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-5000, 5000), st.floats(0.5, 300)), min_size=2, max_size=12))
def test_observe_bounds_always_contain_the_reported_soc(rows: list[tuple[float, float, float]]) -> None:
    one = One()
    for soc_pct, battery_w, after_s in rows:
        one.says(after_s=after_s, soc_pct=soc_pct, battery_w=battery_w)
        low, high = float(one.live.soc_low_pct[0]), float(one.live.soc_high_pct[0])
        assert low <= soc_pct + 1e-3
        assert high >= soc_pct - 1e-3
    for _ in range(2):
        one.says(after_s=0.5, soc_pct=soc_pct, battery_w=0)
    one.says(after_s=0.5, soc_pct=soc_pct, battery_w=0)
    assert one.believed() == (round(soc_pct, 2), round(soc_pct, 2)) or abs(one.believed()[0] - soc_pct) < 0.01


@pytest.mark.fault("F30")
def test_observe_power_no_battery_of_this_size_has_is_none() -> None:
    one = One().says(battery_w=50_000)
    assert np.isnan(one.live.battery_w[0])
    assert one.dropped == 1
    assert one.says(battery_w=6_000).live.battery_w[0] == 6_000
    assert one.dropped == 1


# -- F25: stuck -------------------------------------------------------------------------------------------------


@pytest.mark.fault("F25")
def test_observe_energy_that_no_soc_shows_adds_up_until_it_moves() -> None:
    one = One().says(battery_w=3600)
    for _ in range(10):
        one.says(after_s=10, battery_w=3600)
    assert one.live.moved_wh[0] == pytest.approx(100)
    assert one.says(after_s=10, battery_w=3600, soc_pct=59).live.moved_wh[0] == 0


def test_observe_trickle_is_not_counted_as_movement() -> None:
    one = One().says(battery_w=90).says(after_s=3600, battery_w=90)
    assert one.live.moved_wh[0] == 0


@pytest.mark.fault("F25")
def test_observe_what_a_full_battery_takes_is_not_counted_and_what_it_gives_then_is() -> None:
    one = One().says(battery_w=-1_500, soc_pct=99).says(after_s=60, battery_w=-1_500, soc_pct=100)
    for _ in range(60):
        one.says(after_s=60, battery_w=-1_500, soc_pct=100)
    assert one.live.moved_wh[0] == 0
    one.says(after_s=60, battery_w=3_600, soc_pct=100)
    assert one.says(after_s=100, battery_w=3_600, soc_pct=100).live.moved_wh[0] == pytest.approx(100)


# -- what owners and people on the spot have said ----------------------------------------------------------------


def no(name: str) -> dict[str, Any]:
    return {name: 1}


@pytest.mark.parametrize("name", ["opt_out", "locked"])
def test_observe_owners_no_counts_at_once_and_ends_once_it_is_sustained(name: str) -> None:
    one = One().says(**no(name))
    assert one.live.column(name)[0] != 0
    for _ in range(SUSTAINED_S // 10):
        assert one.live.column(name)[0] != 0
        one.says(after_s=10)
    assert one.live.column(name)[0] == 0
    assert one.says(after_s=10, **no(name)).live.column(name)[0] != 0


@pytest.mark.parametrize("name", ["opt_out", "locked"])
def test_observe_owners_no_that_is_said_now_and_then_never_ends(name: str) -> None:
    one = One().says(**no(name))
    for _ in range(20):
        one.says(after_s=100).says(after_s=100).says(after_s=50, **no(name))
        assert one.live.column(name)[0] != 0


@pytest.mark.parametrize("name", ["opt_out", "locked"])
def test_observe_owners_no_of_a_device_that_was_away_does_not_end_with_its_first_reading(name: str) -> None:
    one = One().says(**no(name)).says(after_s=86_400)
    assert one.live.column(name)[0] != 0
    assert One().says().live.column(name)[0] == 0


# -- wear -------------------------------------------------------------------------------------------------------


def test_observe_throughput_counts_from_the_last_full_charge() -> None:
    one = One().says(battery_w=3600)
    assert np.isnan(one.says(after_s=100, battery_w=3600).live.since_full_wh[0])
    for _ in range(3):
        one.says(soc_pct=100, battery_w=-50)
    assert one.live.since_full_wh[0] == 0
    one.says(battery_w=3600, soc_pct=99)
    one.says(after_s=100, battery_w=-3600, soc_pct=98)
    one.says(after_s=100, soc_pct=99)
    assert one.live.since_full_wh[0] == pytest.approx(200, abs=1)


def test_observe_full_while_it_discharges_is_not_a_full_charge() -> None:
    one = One().says(soc_pct=100, battery_w=500).says(soc_pct=100, battery_w=500)
    assert np.isnan(one.live.since_full_wh[0])


def test_observe_one_odd_reading_of_full_is_not_a_full_charge() -> None:
    one = One().says(soc_pct=60, battery_w=-3600)
    one.live.since_full_wh[:] = 90_000
    one.says(soc_pct=100, battery_w=-3600).says(soc_pct=60).says(soc_pct=60).says(soc_pct=60)
    assert one.live.since_full_wh[0] > 90_000
    first = One().says(soc_pct=100).says(soc_pct=60)
    assert np.isnan(first.live.since_full_wh[0])


def test_observe_battery_that_charges_up_to_full_is_full_with_its_second_reading() -> None:
    one = One().says(soc_pct=99, battery_w=-3600)
    one.live.since_full_wh[:] = 90_000
    one.says(after_s=30, soc_pct=100, battery_w=-500)
    assert one.live.since_full_wh[0] > 90_000
    assert one.says(after_s=30, soc_pct=100, battery_w=0).live.since_full_wh[0] == 0


def test_observe_cycles_of_the_day_fill_with_discharge_and_leak_with_time() -> None:
    one = One(cycles_per_day_max=1).says(battery_w=3600)
    one.says(after_s=100, battery_w=0)
    assert one.live.cycled_wh[0] == pytest.approx(100 - CAPACITY_WH * 100 / 86_400, abs=0.5)
    one.says(after_s=3600, battery_w=0)
    assert one.live.cycled_wh[0] == 0
    charging = One(cycles_per_day_max=1).says(battery_w=-3600).says(after_s=100)
    assert charging.live.cycled_wh[0] == 0


def test_observe_product_without_a_bound_on_cycles_counts_none() -> None:
    assert One().says(battery_w=3600).says(after_s=1000).live.cycled_wh[0] == 0


# -- the worst load ---------------------------------------------------------------------------------------------


def worst(one: One) -> tuple[float, float]:
    live = one.live
    lows = (live.net_low_w[0], live.net_low_1_w[0], live.net_low_2_w[0])
    highs = (live.net_high_w[0], live.net_high_1_w[0], live.net_high_2_w[0])
    return float(np.nanmin(lows)), float(np.nanmax(highs))


def test_observe_worst_load_is_kept_for_a_quarter_of_an_hour_and_then_let_go() -> None:
    one = One().says(load_w=500)
    one.says(load_w=6000, pv_w=0)
    one.says(load_w=300, pv_w=2000)
    assert worst(one) == (-1700, 6000)
    for _ in range(15):
        one.says(after_s=60, load_w=1000)
    assert worst(one) == (-1700, 6000)
    for _ in range(9):
        one.says(after_s=60, load_w=1000)
    assert worst(one) == (1000, 1000)


def test_observe_worst_load_after_a_long_silence_is_not_lost_too_early() -> None:
    one = One().says(load_w=6000)
    one.says(after_s=STRETCH_MS / 1000 * 5, load_w=800)
    # the stretches follow what was said, not the clock: older is kept longer, which narrows
    assert worst(one) == (800, 6000)


def test_observe_load_unknown_is_what_meter_and_battery_say() -> None:
    assert worst(One().says(load_w=np.nan, grid_w=1200, battery_w=300)) == (1500, 1500)


def test_observe_phases_are_the_fullest_and_the_emptiest() -> None:
    one = One().says(grid_l1_w=900, grid_l2_w=-400, grid_l3_w=100)
    assert (one.live.phase_w_max[0], one.live.phase_w_min[0]) == (900, -400)
    one.says(grid_l1_w=700)
    assert (one.live.phase_w_max[0], one.live.phase_w_min[0]) == (700, 700)
    one.says()
    assert np.isnan(one.live.phase_w_max[0])


def test_observe_grid_that_comes_back_is_remembered() -> None:
    one = One().says(grid=Grid.ISLAND)
    assert one.live.reconnected_mono_ms[0] == NEVER_MS
    assert one.says().live.reconnected_mono_ms[0] == one.now.mono_ms


@pytest.mark.parametrize("battery_w", [21.0, -21.0])
def test_throughput_of_many_small_steps_is_that_of_an_exact_sum(battery_w: float) -> None:
    one = One().says(battery_w=battery_w, soc_pct=50)
    one.live.since_full_wh[:] = one.live.unfilled_wh[:] = 40_000.0
    for _ in range(3_600):
        one.says(battery_w=battery_w, soc_pct=50)
    assert one.live.since_full_wh[0] - 40_000 == pytest.approx(21, rel=1e-5)
    assert one.live.unfilled_wh[0] - 40_000 == pytest.approx(21, rel=1e-5)


def test_bounds_of_a_charge_that_is_not_reported_move_with_every_small_step() -> None:
    one = One().says(battery_w=21.0, soc_pct=60)
    for _ in range(3_600):
        one.says(battery_w=21.0, soc_pct=np.nan)
    assert 60 - one.live.soc_low_pct[0] == pytest.approx(100 * 21 / CAPACITY_WH, rel=1e-5)

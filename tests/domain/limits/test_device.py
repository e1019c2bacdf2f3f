"""Limits of the device, its owner, its programs, its warranty: each stops the bad and lets the good through."""

from typing import Any

import numpy as np
import pytest

from gateway.domain.fleet.columns import ExclusionReason
from gateway.domain.limits.envelope import envelope
from gateway.domain.limits.types import Envelope, LimitParams, Reason, unclear_reason
from gateway.domain.types import Unclear
from tests.builders.fleets import NOW, fleet_of

EXACT = LimitParams(site_margin_w=0, resume_pct=0)


def limits(n: int = 1, /, *, params: LimitParams = EXACT, **columns: Any) -> Envelope:
    return envelope(fleet_of(n, **columns), NOW, params)


def out(found: Envelope) -> tuple[float, Reason]:
    return round(float(found.discharge_w[0]), 3), Reason(int(found.reasons_discharge[0]))


def into(found: Envelope) -> tuple[float, Reason]:
    return round(float(found.charge_w[0]), 3), Reason(int(found.reasons_charge[0]))


# -- who keeps a device out -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"locked": 1}, Reason.LOCKED),
        ({"exclusions": ExclusionReason.QUARANTINED}, Reason.QUARANTINED),
        ({"exclusions": ExclusionReason.FROZEN}, Reason.FROZEN),
    ],
)
def test_limits_locked_quarantined_or_frozen_device_is_not_written_at_all(
    columns: dict[str, Any], reason: Reason
) -> None:
    found = limits(setpoint_w=2000, **columns)
    assert out(found) == (0, reason)
    assert into(found) == (0, reason)
    assert not found.controllable[0]
    assert not found.must_narrow[0]


WORDS = (Unclear.MODE, Unclear.GRID, Unclear.LOCKED, Unclear.OPT_OUT, Unclear.FAULTS, Unclear.MESSAGE)


@pytest.mark.parametrize("word", WORDS)
def test_limits_device_with_a_word_that_is_not_understood_is_not_written_at_all(word: Unclear) -> None:
    found = limits(setpoint_w=2000, unclear=word)
    assert out(found) == into(found) == (0, unclear_reason(word))
    assert not found.controllable[0]
    assert not found.must_narrow[0]
    assert limits(setpoint_w=2000, unclear=0).controllable[0]


@pytest.mark.parametrize(
    ("number", "columns", "outwards", "inwards"),
    [
        (Unclear.RESERVE_PCT, {}, True, False),
        (Unclear.DISCHARGE_W_MAX, {}, True, False),
        (Unclear.CHARGE_W_MAX, {}, False, True),
        (Unclear.TEMP_C, {}, True, True),
        (Unclear.GRID_PHASES, {"site_phase_w_max": 9000, "phase_w_max": 0, "phase_w_min": 0}, True, True),
        (Unclear.GRID_PHASES, {}, False, False),
    ],
)
def test_limits_number_that_is_not_understood_stops_what_rests_on_it(
    number: Unclear, columns: dict[str, Any], outwards: bool, inwards: bool
) -> None:
    for setpoint_w, stopped in ((2000, outwards), (-2000, inwards)):
        found = limits(unclear=number, setpoint_w=setpoint_w, **columns)
        assert (unclear_reason(number) in out(found)[1], unclear_reason(number) in into(found)[1]) == (
            outwards,
            inwards,
        )
        assert (out(found)[0] > 0, into(found)[0] > 0) == (not outwards, not inwards)
        # what runs that way is neither renewed nor cut: its lease was sized for that
        assert (bool(found.controllable[0]), bool(found.must_narrow[0])) == (not stopped, False)


def test_limits_unclear_temperature_leaves_discharge_to_a_bms_that_says_its_limit() -> None:
    snapshot = fleet_of(1, unclear=Unclear.TEMP_C)
    snapshot.live.discharge_w_max[:] = 3000
    found = envelope(snapshot, NOW, EXACT)
    assert (found.discharge_w[0], found.charge_w[0]) == (3000, 0)


def test_limits_owner_who_opted_out_gets_no_power_but_may_still_be_handed_back() -> None:
    found = limits(setpoint_w=2000, exclusions=ExclusionReason.OPTED_OUT)
    assert (out(found), into(found)) == ((0, Reason.OPTED_OUT), (0, Reason.OPTED_OUT))
    assert found.controllable[0]
    assert found.must_narrow[0]


def test_limits_storm_keeps_energy_but_takes_more() -> None:
    found = limits(exclusions=ExclusionReason.STORM)
    assert out(found) == (0, Reason.STORM)
    assert into(found)[0] == 5000
    assert out(limits(exclusions=0))[0] == 5000


@pytest.mark.parametrize(("refused", "allowed"), [(1, (0, 5000)), (-1, (5000, 0)), (0, (5000, 5000))])
def test_limits_direction_the_device_refused_rests_for_a_while(refused: int, allowed: tuple[int, int]) -> None:
    found = limits(refused=refused, refused_mono_ms=NOW.mono_ms - 119_000)
    assert [out(found)[0], into(found)[0]] == list(allowed)
    later = limits(refused=refused, refused_mono_ms=NOW.mono_ms - 120_000)
    assert [out(later)[0], into(later)[0]] == [5000, 5000]


# -- reserves and floors ----------------------------------------------------------------------------------------


def test_limits_program_reserve_above_the_owners_holds_and_says_so() -> None:
    found = limits(soc_pct=40, owner_reserve_pct=20, program_reserve_pct=45)
    assert out(found)[0] == 0
    assert Reason.PROGRAM_RESERVE in out(found)[1]
    assert out(limits(soc_pct=60, owner_reserve_pct=20, program_reserve_pct=45))[0] == 5000


def test_limits_program_reserve_below_the_owners_never_lowers_it() -> None:
    found = limits(soc_pct=25, owner_reserve_pct=30, program_reserve_pct=10)
    assert out(found)[0] == 0
    assert Reason.PROGRAM_RESERVE not in out(found)[1]
    assert found.floor_pct[0] == 30


def test_limits_product_that_refuses_at_low_soc_is_not_asked() -> None:
    found = limits(soc_pct=12, owner_reserve_pct=0, soc_min_pct=15, soc_uncertainty_pct=5)
    assert out(found)[0] == 0
    assert Reason.DEVICE_FLOOR in out(found)[1]
    # its own judgement of its own SoC knows no uncertainty
    assert found.floor_pct[0] == 15
    assert out(limits(soc_pct=30, owner_reserve_pct=0, soc_min_pct=15, soc_uncertainty_pct=5))[0] > 0


def test_limits_product_charged_to_less_than_full_stops_there() -> None:
    assert into(limits(soc_pct=91, soc_max_pct=90)) == (0, Reason.SOC_CEILING)
    assert into(limits(soc_pct=50, soc_max_pct=90))[0] == 5000


# -- what the SoC may be wrong by -------------------------------------------------------------------------------


def test_limits_uncertainty_is_the_most_while_drift_or_last_full_charge_is_unknown() -> None:
    unknown: list[dict[str, Any]] = [{}, {"drift_pct_per_cycle": 1}, {"since_full_wh": 0}]
    for columns in unknown:
        assert limits(soc_uncertainty_pct=5, **columns).floor_pct[0] == 25


def test_limits_uncertainty_after_a_full_charge_grows_from_the_resolution_to_the_most() -> None:
    floors = [
        float(limits(soc_uncertainty_pct=5, drift_pct_per_cycle=1, since_full_wh=wh, soc_step_pct=1).floor_pct[0])
        for wh in (0, 20_000, 60_000, 200_000)
    ]
    assert floors == [21, 22, 24, 25]


def test_limits_soc_in_doubt_counts_as_the_worse_either_way() -> None:
    found = limits(soc_pct=80, soc_low_pct=21, soc_high_pct=99, soc_doubt=2)
    assert found.deliverable_wh[0] == pytest.approx(100)
    assert found.absorbable_wh[0] == pytest.approx(100)
    assert Reason.SOC_DOUBT in out(found)[1]


# -- no chatter at a bound --------------------------------------------------------------------------------------


def test_limits_held_back_at_the_ceiling_charges_again_only_with_room_in_hand() -> None:
    params = LimitParams(resume_pct=1)
    assert into(limits(params=params, soc_pct=99.5, setpoint_w=0))[0] == 0
    assert into(limits(params=params, soc_pct=99.5, setpoint_w=-100, before_w=-100))[0] > 0
    assert into(limits(params=params, soc_pct=98.5, setpoint_w=0))[0] > 0


def test_limits_too_cold_to_charge_warms_up_a_little_before_it_charges_again() -> None:
    assert into(limits(temp_c=0.5, setpoint_w=0))[0] == 0
    assert into(limits(temp_c=0.5, setpoint_w=-100, before_w=-100))[0] > 0
    assert into(limits(temp_c=1.5, setpoint_w=0))[0] > 0


def test_limits_setpoint_a_little_past_a_moving_limit_is_left_until_it_is_due() -> None:
    running: dict[str, Any] = {"export_allowed": False, "setpoint_w": 1000, "before_w": 1000, "battery_w": 1000}
    assert not limits(load_w=980, **running).must_narrow[0]
    assert limits(load_w=970, **running).must_narrow[0]


def test_limits_setpoint_past_a_limit_of_nothing_is_narrowed_however_small() -> None:
    running: dict[str, Any] = {"export_allowed": False, "setpoint_w": 20, "before_w": 20, "battery_w": 20}
    assert limits(load_w=0, **running).must_narrow[0]


# -- warranty ---------------------------------------------------------------------------------------------------


def test_limits_cycles_of_the_day_used_up_stop_discharging_until_some_are_free_again() -> None:
    plenty = limits(cycles_per_day_max=1, cycled_wh=9_000, capacity_wh=10_000)
    assert out(plenty)[0] == 5000
    used = limits(cycles_per_day_max=1, cycled_wh=10_000, capacity_wh=10_000, setpoint_w=3000, before_w=3000)
    assert out(used) == (0, Reason.WEAR)
    assert into(used)[0] > 0
    resting = limits(cycles_per_day_max=1, cycled_wh=9_600, capacity_wh=10_000)
    assert out(resting)[0] == 0
    running = limits(cycles_per_day_max=1, cycled_wh=9_600, capacity_wh=10_000, setpoint_w=3000, before_w=3000)
    assert out(running)[0] == 5000


def test_limits_product_without_a_warranty_on_cycles_has_none() -> None:
    assert out(limits(cycled_wh=1e9))[0] == 5000


# -- the home's connection --------------------------------------------------------------------------------------


def test_limits_home_without_fuse_protection_is_not_charged_from_the_grid() -> None:
    found = limits(fuse_protected=False)
    assert into(found) == (0, Reason.FUSE)
    assert out(found)[0] == 5000
    # what PV gives goes through no main fuse
    assert into(limits(fuse_protected=False, pv_w=3000, load_w=500))[0] == 2500
    assert into(limits(fuse_protected=True))[0] == 5000


def test_limits_program_that_does_not_pay_for_export_covers_the_home_only() -> None:
    assert out(limits(pays_export=False, load_w=1800)) == (1800, Reason.COMPENSATION)
    assert out(limits(pays_export=True, load_w=1800)) == (5000, Reason.RATING)


def test_limits_worst_load_of_late_counts_beside_that_of_now() -> None:
    of_late: dict[str, Any] = {"net_low_w": 900, "net_low_1_w": 700, "net_low_2_w": 1500}
    assert out(limits(export_allowed=False, load_w=2000, **of_late)) == (700, Reason.EXPORT)
    assert out(limits(export_allowed=False, load_w=400, **of_late))[0] == 400
    high: dict[str, Any] = {"net_high_w": 2500, "net_high_1_w": 3500, "net_high_2_w": np.nan}
    assert into(limits(site_import_w_max=6000, load_w=2000, **high)) == (2500, Reason.SITE_IMPORT)
    assert into(limits(site_import_w_max=6000, load_w=4000, **high))[0] == 2000


def test_limits_worst_load_of_late_is_nothing_without_a_reading_of_now() -> None:
    found = limits(export_allowed=False, load_w=np.nan, grid_w=np.nan, net_low_w=3000, net_high_w=3000)
    assert out(found)[0] == 0


def test_limits_meter_stands_in_for_the_load_with_its_worst_of_late() -> None:
    found = limits(export_allowed=False, load_w=np.nan, battery_w=700, grid_w=400, net_low_w=600)
    assert out(found)[0] == 600


def test_limits_fullest_phase_bounds_both_directions() -> None:
    phases: dict[str, Any] = {"site_phase_w_max": 5000, "phase_w_max": 4200, "phase_w_min": -3000}
    assert into(limits(phases=1, **phases))[0] == 800
    assert into(limits(phases=3, **phases))[0] == 2400
    assert out(limits(phases=1, **phases))[0] == 2000
    # what the battery does already is part of what the phase carries
    assert into(limits(phases=1, battery_w=-1000, setpoint_w=-1000, before_w=-1000, **phases))[0] == 1800


def test_limits_phase_counts_the_worst_load_of_late() -> None:
    phases: dict[str, Any] = {"site_phase_w_max": 5000, "phase_w_max": 2000, "phase_w_min": 0, "load_w": 500}
    assert into(limits(**phases))[0] == 3000
    assert into(limits(net_high_w=1500, **phases))[0] == 2000


def test_limits_phase_limit_without_a_reading_of_the_phases_allows_nothing_new_and_cuts_nothing() -> None:
    found = limits(site_phase_w_max=5000)
    assert (out(found)[0], into(found)[0]) == (0, 0)
    assert found.controllable[0]
    running = limits(site_phase_w_max=5000, setpoint_w=2000, before_w=2000)
    assert not running.controllable[0]
    assert not running.must_narrow[0]


def test_limits_two_batteries_share_what_a_phase_still_takes() -> None:
    found = limits(2, site=0, site_phase_w_max=5000, phase_w_max=2000, phase_w_min=0)
    assert found.charge_w.tolist() == [pytest.approx(1500), pytest.approx(1500)]

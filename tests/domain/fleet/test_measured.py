"""Whose power is measured, and what the others are taken to do: as they were read last, until their lease is over."""

from typing import Any

import numpy as np
import pytest

from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.fleet.measured import Power, keep_parts, measured, power_of
from gateway.domain.types import NEVER_MS, Bools, Mode, Now
from tests.builders.fleets import NOW, fleet_of

NOTHING_SEEN = np.zeros(0, dtype=np.int64)


def at(s: float) -> Now:
    return Now(utc_ms=NOW.utc_ms + round(1000 * s), mono_ms=NOW.mono_ms + round(1000 * s))


def known(snapshot: Snapshot, now: Now) -> list[bool]:
    found: list[bool] = measured(snapshot.live, snapshot.nameplate, now)[0].tolist()
    return found


def overdue(snapshot: Snapshot, now: Now) -> list[bool]:
    found: list[bool] = measured(snapshot.live, snapshot.nameplate, now)[1].tolist()
    return found


def alone(power: Power) -> list[float]:
    return [round(value, 1) for value in power.each_w.tolist()]


def everybody(n: int) -> Bools:
    return np.ones(n, dtype=np.bool_)


def test_measured_reading_counts_for_half_a_minute_and_no_longer() -> None:
    snapshot = fleet_of(3, battery_w=[1_000, np.nan, 1_000], seen_mono_ms=[NOW.mono_ms, NOW.mono_ms, NEVER_MS])
    assert known(snapshot, NOW) == [True, False, False]
    assert known(snapshot, at(30)) == [True, False, False]
    assert known(snapshot, at(30.1)) == [False, False, False]


def test_measured_reading_is_overdue_after_five_declared_periods_and_fifteen_seconds() -> None:
    snapshot = fleet_of(4)
    # the device's own word comes before its profile's
    snapshot.nameplate.report_s[:] = [1, 5, 1, 60]
    snapshot.live.report_s[:] = [np.nan, np.nan, 10, 1]
    assert overdue(snapshot, at(15)) == [False, False, False, False]
    assert known(snapshot, at(15.1)) == [False, True, True, False]
    assert overdue(snapshot, at(25)) == [True, False, False, True]
    assert overdue(snapshot, at(25.1)) == [True, True, False, True]
    assert overdue(snapshot, at(50.1)) == [True, True, True, True]


def test_measured_product_that_is_read_slowly_is_so_after_each_reading_and_overdue_once_several_are_missing() -> None:
    snapshot = fleet_of(1)
    snapshot.nameplate.report_s[:] = 60
    assert (known(snapshot, at(15)), overdue(snapshot, at(15))) == ([True], [False])
    assert (known(snapshot, at(16)), overdue(snapshot, at(300))) == ([False], [False])
    assert overdue(snapshot, at(301)) == [True]


def test_power_device_that_settled_goes_on_as_it_was_read_until_its_lease_is_over() -> None:
    snapshot = fleet_of(2, setpoint_w=2_000, before_w=2_000, battery_w=[1_900, 0])
    snapshot.control.lease_end_mono_ms[:] = NOW.mono_ms + 90_000
    now = at(60)
    found = power_of(snapshot, now, NOTHING_SEEN)
    assert alone(found) == [1_900, 0]
    assert (found.measured_w(everybody(2)), found.assumed_w(everybody(2))) == (0, 1_900)
    assert alone(power_of(snapshot, at(90), NOTHING_SEEN)) == [0, 0]


def test_power_device_that_was_told_something_else_does_the_part_of_it_that_it_did_before() -> None:
    snapshot = fleet_of(4, setpoint_w=2_000, before_w=2_000, battery_w=[1_900, 0, 2_000, 2_000])
    keep_parts(snapshot.control, snapshot, measured(snapshot.live, snapshot.nameplate, NOW)[0])
    snapshot.control.setpoint_w[:] = [3_000, 3_000, -1_000, 3_000]
    snapshot.control.changed_mono_ms[:] = NOW.mono_ms + 1_000
    snapshot.live.battery_w[3] = np.nan
    assert alone(power_of(snapshot, at(60), NOTHING_SEEN)) == [2_850, 0, -1_000, 3_000]


def test_power_part_of_a_setpoint_that_nobody_has_measured_is_taken_for_all_of_it() -> None:
    snapshot = fleet_of(1, setpoint_w=2_000, changed_mono_ms=NOW.mono_ms, battery_w=300)
    keep_parts(snapshot.control, snapshot, measured(snapshot.live, snapshot.nameplate, NOW)[0])
    assert alone(power_of(snapshot, at(60), NOTHING_SEEN)) == [2_000]


@pytest.mark.parametrize(
    "columns",
    [
        {"changed_mono_ms": NOW.mono_ms - 9_000},  # still on its way
        {"setpoint_w": 150, "battery_w": 40},  # too little to measure a part of
        {"idle": True},
        {"authority": Authority.DEVICE},
        {"seen_mono_ms": NOW.mono_ms - 31_000},  # not heard
        {"battery_w": np.nan},
    ],
)
def test_part_is_learnt_only_from_a_reading_that_shows_what_becomes_of_a_setpoint(columns: dict[str, Any]) -> None:
    snapshot = fleet_of(1, **({"setpoint_w": 2_000, "battery_w": 1_000} | columns))
    keep_parts(snapshot.control, snapshot, measured(snapshot.live, snapshot.nameplate, NOW)[0])
    assert np.isnan(snapshot.control.done_part[0])


def test_part_is_learnt_anew_with_each_reading_and_within_bounds() -> None:
    snapshot = fleet_of(3, setpoint_w=[2_000, 2_000, -2_000], battery_w=[1_800, 9_000, 500])
    keep_parts(snapshot.control, snapshot, measured(snapshot.live, snapshot.nameplate, NOW)[0])
    assert snapshot.control.done_part.tolist() == pytest.approx([0.9, 1.25, 0])
    snapshot.live.battery_w[:] = [1_700, 2_000, -2_000]
    keep_parts(snapshot.control, snapshot, measured(snapshot.live, snapshot.nameplate, NOW)[0])
    assert snapshot.control.done_part.tolist() == pytest.approx([0.85, 1, 1])


def test_power_device_in_a_mode_of_its_own_goes_on_with_that_for_a_while_and_one_that_was_let_go_does_not() -> None:
    snapshot = fleet_of(
        3, authority=[Authority.DEVICE, Authority.DEVICE, Authority.RELEASING],
        mode=[Mode.SELF_CONSUMPTION, Mode.REMOTE, Mode.REMOTE],
        battery_w=[-700, 3_000, 3_000], setpoint_w=[0, 0, 3_000],
    )  # fmt: skip
    assert alone(power_of(snapshot, at(60), NOTHING_SEEN)) == [-700, 0, 0]
    assert alone(power_of(snapshot, at(121), NOTHING_SEEN)) == [0, 0, 0]


def test_power_unmeasured_part_is_by_what_is_steered_and_not_by_heads() -> None:
    snapshot = fleet_of(4, setpoint_w=[3_000, -1_000, 0, 0], authority=[1, 1, 1, Authority.DEVICE])
    snapshot.live.seen_mono_ms[[0, 2, 3]] = NOW.mono_ms - 40_000
    found = power_of(snapshot, NOW, NOTHING_SEEN)
    assert found.unmeasured(everybody(4)) == (1, 0.75)
    assert found.unmeasured(np.array([False, True, True, True])) == (0, 0)
    assert found.unmeasured(~everybody(4)) == (0, 0)


def test_power_is_heard_for_as_long_as_new_readings_stand_for() -> None:
    snapshot = fleet_of(2, setpoint_w=2_000, battery_w=2_000)
    before_ms = snapshot.live.seen_mono_ms.copy()
    # what is read for the first time stands for no longer than what comes after a gap
    assert power_of(snapshot, NOW, NOTHING_SEEN).heard(everybody(2)) == 5
    assert power_of(snapshot, at(1), before_ms).heard(everybody(2)) == 0
    snapshot.live.seen_mono_ms[0] += 1_000
    assert power_of(snapshot, at(1), before_ms).heard(everybody(2)) == pytest.approx(0.5)
    # one that is read every four seconds counts for four; a gap is no long time
    snapshot.live.seen_mono_ms[:] = before_ms + np.array([4_000, 20_000])
    assert power_of(snapshot, at(20), before_ms).heard(everybody(2)) == pytest.approx((4 + 5) / 2)
    assert power_of(snapshot, at(20), before_ms).heard(~everybody(2)) == 0


def test_power_reading_without_power_is_not_heard() -> None:
    snapshot = fleet_of(1, setpoint_w=2_000, battery_w=np.nan)
    before_ms = snapshot.live.seen_mono_ms.copy()
    snapshot.live.seen_mono_ms[:] += 1_000
    assert power_of(snapshot, at(1), before_ms).heard(everybody(1)) == 0

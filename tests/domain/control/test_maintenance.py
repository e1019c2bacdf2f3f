"""Which batteries are charged without an event: after one up to their reserve, and full where that is overdue."""

import numpy as np
import pytest

from gateway.domain.control.maintenance import filling, inside, recovering
from gateway.domain.types import Now, Slots
from tests.builders.fleets import NOW, fleet_of

NOBODY: Slots = np.zeros(0, dtype=np.int32)


def slots(*found: int) -> Slots:
    return np.array(found, dtype=np.int32)


def test_recovering_devices_below_their_reserve_after_an_event_only() -> None:
    fleet = fleet_of(4, soc_pct=[15, 15, 25, 15], reserve_pct=20.0)
    assert recovering(fleet, [slots(0, 2), slots(3)], NOBODY).tolist() == [0, 3]


def test_recovering_goes_on_until_a_device_is_clear_of_its_reserve() -> None:
    fleet = fleet_of(2, soc_pct=22, soc_uncertainty_pct=5, reserve_pct=20.0)
    assert recovering(fleet, [slots(0, 1)], NOBODY).tolist() == []
    assert recovering(fleet, [slots(0, 1)], slots(1)).tolist() == [1]


@pytest.mark.parametrize("why", ["grid_charge_allowed", "fuse_protected", "registered", "steerable"])
def test_recovering_and_filling_leave_out_who_may_not_charge(why: str) -> None:
    fleet = fleet_of(2, soc_pct=15, since_full_wh=1e9, **{why: [False, True]})
    assert recovering(fleet, [slots(0, 1)], NOBODY).tolist() == [1]
    assert filling(fleet, NOW, 10).tolist() == [1]


def test_filling_counts_cycles_since_the_last_full_charge_or_the_first_reading() -> None:
    wh = 2 * 10 * 10_000
    fleet = fleet_of(
        4, since_full_wh=[wh, wh - 1, np.nan, np.nan], unfilled_wh=[0, 0, wh, wh - 1],
    )  # fmt: skip
    assert filling(fleet, NOW, 10).tolist() == [0, 2]


def test_filling_leaves_out_who_is_not_heard() -> None:
    fleet = fleet_of(2, since_full_wh=1e9, seen_mono_ms=NOW.mono_ms - np.array([301_000, 299_000]))
    assert filling(fleet, NOW, 10).tolist() == [1]


@pytest.mark.parametrize(
    ("hours", "hour", "found"),
    [((0, 24), 5, True), ((2, 5), 2, True), ((2, 5), 5, False), ((22, 4), 23, True), ((22, 4), 3, True),
     ((22, 4), 4, False)],
)  # fmt: skip
def test_hours_may_go_over_midnight(hours: tuple[int, int], hour: int, found: bool) -> None:
    assert inside(hours, Now(utc_ms=hour * 3_600_000 + 1, mono_ms=0)) is found

"""What holds for each device besides its event: exclusions begin at once for one home, in turn for a whole group."""

from collections.abc import Sequence

import numpy as np

from gateway.domain.control.conditions import conditions
from gateway.domain.events.arbitration import claim
from gateway.domain.fleet.columns import ExclusionReason
from gateway.domain.fleet.fleet import Snapshot
from tests.builders.fleets import fleet_of

OUT, STORM, MOVING = ExclusionReason.OPTED_OUT, ExclusionReason.STORM, ExclusionReason.MOVING


def exclusions(fleet: Snapshot, asked: Sequence[int], step_w: float = 1_000.0) -> list[int]:
    nobody = claim([], [], fleet.n, {})
    found = conditions([], nobody, fleet, np.array(asked, dtype=np.uint8), np.zeros(fleet.n, dtype=np.float32), step_w)
    found.apply(fleet.control)
    return [int(bits) for bits in fleet.control.exclusions]


def test_exclusion_of_one_home_counts_at_once_whatever_its_power() -> None:
    assert exclusions(fleet_of(2, setpoint_w=5_000), [0, OUT]) == [0, OUT]


def test_exclusions_of_a_group_under_control_begin_in_turn() -> None:
    fleet, asked = fleet_of(4, setpoint_w=500), [STORM] * 4
    assert exclusions(fleet, asked) == [STORM, STORM, 0, 0]
    fleet.control.setpoint_w[:2] = 0
    assert exclusions(fleet, asked) == [STORM] * 4


def test_exclusions_of_a_group_without_power_begin_together() -> None:
    assert exclusions(fleet_of(4, setpoint_w=0), [OUT] * 4) == [OUT] * 4


def test_exclusion_by_an_import_or_a_quarantine_waits_for_no_turn() -> None:
    assert exclusions(fleet_of(4, setpoint_w=5_000), [MOVING] * 4) == [MOVING] * 4


def test_exclusion_that_is_over_ends() -> None:
    fleet = fleet_of(2, exclusions=OUT)
    assert exclusions(fleet, [0, OUT]) == [0, OUT]


def test_device_that_serves_no_event_has_its_exports_paid_for_as_far_as_limits_go() -> None:
    fleet = fleet_of(2, pays_export=False)
    exclusions(fleet, [0, 0])
    assert fleet.control.pays_export.tolist() == [True, True]
    assert fleet.control.takes_backup.tolist() == [False, False]

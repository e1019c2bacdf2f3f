"""Devices found under control at a start: ours by their first reading, or not any more."""

import numpy as np

from gateway.domain.control.adoption import adopt, adopted
from gateway.domain.fleet.columns import Authority
from gateway.domain.types import Mode
from tests.builders.fleets import NOW, fleet_of

BEGAN_MS = NOW.mono_ms - 10_000
ALL = np.ones(4, dtype=np.bool_)


def test_adoption_goes_by_readings_since_the_start() -> None:
    fleet = fleet_of(
        4, mode=[Mode.REMOTE, Mode.SELF_CONSUMPTION, Mode.UNKNOWN, Mode.REMOTE],
        seen_mono_ms=[NOW.mono_ms, NOW.mono_ms, NOW.mono_ms, BEGAN_MS - 1],
    )  # fmt: skip
    found = adopted(fleet, ALL, BEGAN_MS)
    assert (found.ours.tolist(), found.gone.tolist()) == ([0, 2], [1])
    assert found.waiting.tolist() == [False, False, False, True]


def test_adoption_of_what_was_written_or_handed_back_since_needs_no_reading() -> None:
    fleet = fleet_of(4, authority=[Authority.CONTROLLED, Authority.RELEASING, Authority.DEVICE, Authority.OWNER])
    found = adopted(fleet, ALL, BEGAN_MS)
    assert (found.ours.tolist(), found.gone.tolist()) == ([0], [])
    assert not found.waiting.any()


def test_adopted_device_runs_what_it_does_and_has_confirmed_only_ids_that_were_given_out() -> None:
    fleet = fleet_of(2, battery_w=[1_234.6, -500.4], cmd=[40, 1 << 60], cmd_sent=0, cmd_applied=0)
    adopt(fleet.control, fleet, np.arange(2), NOW, newest_cmd=500)
    control = fleet.control
    assert control.setpoint_w.tolist() == control.before_w.tolist() == [1_235, -500]
    assert control.cmd_sent.tolist() == control.cmd_applied.tolist() == [40, 0]
    assert (control.lease_end_mono_ms < NOW.mono_ms + 1000 * fleet.nameplate.lease_s).all()

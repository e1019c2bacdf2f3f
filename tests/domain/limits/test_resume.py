"""A device stopped at its floor or ceiling comes back by energy or by rest, and not by a rebound of its SoC."""

import numpy as np
import pytest

from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits.envelope import envelope
from gateway.domain.limits.resume import note_stops
from gateway.domain.limits.types import LimitParams
from gateway.domain.types import NEVER_MS, Now
from tests.builders.fleets import NOW, fleet_of

PARAMS = LimitParams()
FLOOR_PCT, CEILING_PCT = 20.0, 90.0


def tick(snapshot: Snapshot, s: int, *, soc_pct: float, setpoint_w: int = 0, battery_w: float = 0.0) -> bool:
    """A tick `s` seconds on; returns whether the device may give (or take, above half) anything."""
    now = Now(utc_ms=NOW.utc_ms + 1000 * s, mono_ms=NOW.mono_ms + 1000 * s)
    for name in ("soc_pct", "soc_low_pct", "soc_high_pct"):
        snapshot.live.column(name)[:] = soc_pct
    snapshot.live.seen_mono_ms[:] = now.mono_ms
    snapshot.live.battery_w[:] = battery_w
    snapshot.control.setpoint_w[:] = setpoint_w
    snapshot.control.lease_end_mono_ms[:] = now.mono_ms + 80_000
    allowed = envelope(snapshot, now, PARAMS)
    note_stops(snapshot.control, snapshot, allowed, now, PARAMS)
    allowed = envelope(snapshot, now, PARAMS)
    return bool((allowed.charge_w if soc_pct > 50 else allowed.discharge_w)[0] > 0)


def stopped(*, charging: bool) -> tuple[Snapshot, float, int]:
    """A device that has just reached a bound: with that bound, and the way back (+1: its SoC rises)."""
    snapshot = fleet_of(1, soc_max_pct=CEILING_PCT)
    bound_pct, sign = (CEILING_PCT, -1) if charging else (FLOOR_PCT, 1)
    assert tick(snapshot, 0, soc_pct=bound_pct + 8 * sign, setpoint_w=2_000 * sign, battery_w=2_000 * sign)
    assert not tick(snapshot, 10, soc_pct=bound_pct, setpoint_w=2_000 * sign, battery_w=2_000 * sign)
    return snapshot, bound_pct, sign


@pytest.mark.parametrize("charging", [False, True])
def test_resume_rebound_of_the_soc_lets_a_stopped_device_do_nothing(charging: bool) -> None:
    snapshot, bound_pct, sign = stopped(charging=charging)
    assert not tick(snapshot, 20, soc_pct=bound_pct + 3 * sign)
    assert not tick(snapshot, 900, soc_pct=bound_pct + 4.5 * sign)


@pytest.mark.parametrize("charging", [False, True])
def test_resume_device_comes_back_with_energy_in_hand_at_once(charging: bool) -> None:
    snapshot, bound_pct, sign = stopped(charging=charging)
    assert tick(snapshot, 20, soc_pct=bound_pct + 5 * sign)
    assert snapshot.control.floor_mono_ms[0] == snapshot.control.ceiling_mono_ms[0] == NEVER_MS


@pytest.mark.parametrize("charging", [False, True])
def test_resume_device_comes_back_after_its_rest_if_anything_is_left(charging: bool) -> None:
    snapshot, bound_pct, sign = stopped(charging=charging)
    assert not tick(snapshot, 909, soc_pct=bound_pct + 2 * sign)
    assert tick(snapshot, 911, soc_pct=bound_pct + 2 * sign)
    snapshot, bound_pct, sign = stopped(charging=charging)
    assert not tick(snapshot, 911, soc_pct=bound_pct + 0.5 * sign)


def test_resume_load_by_itself_is_no_rest() -> None:
    snapshot, bound_pct, _ = stopped(charging=False)
    assert not tick(snapshot, 600, soc_pct=bound_pct + 2, battery_w=700)
    assert not tick(snapshot, 911, soc_pct=bound_pct + 2)
    assert tick(snapshot, 1_501, soc_pct=bound_pct + 2)


def test_resume_device_that_was_never_stopped_is_used_down_to_its_floor() -> None:
    snapshot = fleet_of(1)
    assert tick(snapshot, 0, soc_pct=FLOOR_PCT + 2)
    assert np.all(snapshot.control.floor_mono_ms == NEVER_MS)

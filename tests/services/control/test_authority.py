"""Whose reserve holds, and how a device's own is raised to it."""

import numpy as np
import pytest

from gateway.domain.control.authority import reserves_due, unguaranteed
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.device import Device
from gateway.domain.fleet.fleet import Fleet, ProductFacts
from gateway.domain.fleet.reserve import SUSTAINED_S
from gateway.domain.journal.changes import Change, ControlEnded, ReserveChanged
from gateway.domain.readings import LiveBatch
from gateway.domain.types import DeviceId, Mode, Now
from gateway.services.control.authority import DeviceAuthority
from gateway.services.settings import ControlSettings

FACTS = ProductFacts(
    lease_s=120, command_latency_s=5, timed=True, efficiency_discharge=0.95, efficiency_charge=0.95, standby_w=30,
    soc_uncertainty_pct=5,
)  # fmt: skip


def reading(fleet: Fleet, now: Now, *, reserve_pct: float) -> None:
    """A fresh live reading of the only device."""
    one = np.zeros(1, dtype=np.int32)

    def column(value: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([value], dtype=np.float64)

    fleet.observe_live(
        LiveBatch(
            slots=one, fresh=np.ones(1, dtype=np.bool_), device_t_ms=np.array([now.utc_ms]),
            battery_w=column(0), soc_pct=column(60), soc_step_pct=column(1), temp_c=column(20),
            discharge_w_max=column(5000), charge_w_max=column(5000), reserve_pct=column(reserve_pct),
            pv_w=column(0), load_w=column(500), grid_w=column(500),
            grid_l1_w=column(np.nan), grid_l2_w=column(np.nan), grid_l3_w=column(np.nan),
            locked=np.zeros(1, dtype=np.int8), opt_out=np.zeros(1, dtype=np.int8),
            mode=np.ones(1, dtype=np.int8), grid=np.ones(1, dtype=np.int8),
            faults=np.zeros(1, dtype=np.int64), cmd=np.zeros(1, dtype=np.int64),
        ),
        now,
    )  # fmt: skip


def later(now: Now, s: int) -> Now:
    return Now(utc_ms=now.utc_ms + 1_000 * s, mono_ms=now.mono_ms + 1_000 * s)


def going_on(fleet: Fleet, authority: DeviceAuthority, now: Now, *, reserve_pct: float) -> tuple[list[Change], Now]:
    """The same reading every 10 s until it counts as confirmed; what is to be remembered, and the time by then."""
    changes: list[Change] = []
    for _ in range(round(SUSTAINED_S) // 10 + 1):
        now = later(now, 10)
        reading(fleet, now, reserve_pct=reserve_pct)
        changes += authority.update(now)
    return changes, now


@pytest.fixture
def fleet() -> Fleet:
    made = Fleet()
    made.register(
        Device(
            id=DeviceId("home-1"), profile="p", site="s", capacity_wh=10_000, discharge_w_max=5_000, charge_w_max=5_000,
            reserve_pct=30, export_allowed=True, grid_charge_allowed=True,
        ),
        FACTS,
    )  # fmt: skip
    return made


def test_authority_first_report_below_the_registered_reserve_is_no_choice(fleet: Fleet) -> None:
    authority, now = DeviceAuthority(ControlSettings(), fleet=fleet), Now(utc_ms=10**12, mono_ms=10**6)
    authority.adopt([], now)
    reading(fleet, now, reserve_pct=10)
    assert authority.update(now) == []
    assert fleet.nameplate.owner_reserve_pct[0] == 30


def test_authority_changed_report_is_the_owners_new_choice_both_ways(fleet: Fleet) -> None:
    authority, now = DeviceAuthority(ControlSettings(), fleet=fleet), Now(utc_ms=10**12, mono_ms=10**6)
    authority.adopt([], now)
    reading(fleet, now, reserve_pct=30)
    authority.update(now)

    def choice(pct: float) -> list[Change]:
        return [ReserveChanged(devices=(DeviceId("home-1"),), reserve_pct=(pct,), source="device")]

    now = later(now, 10)
    reading(fleet, now, reserve_pct=55)
    assert authority.update(now) == choice(55)
    assert fleet.nameplate.owner_reserve_pct[0] == 55
    assert authority.update(now) == []
    changes, now = going_on(fleet, authority, now, reserve_pct=20)
    assert changes == choice(20)
    assert fleet.nameplate.owner_reserve_pct[0] == 20
    assert going_on(fleet, authority, now, reserve_pct=20)[0] == []


def test_authority_reserve_that_we_wrote_is_not_the_owners_choice(fleet: Fleet) -> None:
    authority, now = DeviceAuthority(ControlSettings(), fleet=fleet), Now(utc_ms=10**12, mono_ms=10**6)
    authority.adopt([], now)
    reading(fleet, now, reserve_pct=10)
    authority.update(now)
    fleet.control.written_reserve_pct[0] = 30
    reading(fleet, now, reserve_pct=30)
    assert authority.update(now) == []


@pytest.mark.parametrize(("written", "kept", "chosen"), [(33, 30, 28), (90, 80, 85.5), (90, 80, 15)])
def test_authority_device_that_rounds_or_caps_our_value_has_not_chosen_another(
    fleet: Fleet, written: float, kept: float, chosen: float
) -> None:
    authority, now = DeviceAuthority(ControlSettings(), fleet=fleet), Now(utc_ms=10**12, mono_ms=10**6)
    fleet.nameplate.owner_reserve_pct[0] = written
    authority.adopt([], now)
    reading(fleet, now, reserve_pct=10)
    authority.update(now)
    fleet.control.written_reserve_pct[0] = written
    changes, now = going_on(fleet, authority, now, reserve_pct=kept)
    assert changes == []
    assert fleet.nameplate.owner_reserve_pct[0] == written
    assert unguaranteed(fleet.snapshot()).tolist() == [True]
    lowered = chosen < kept
    changes, now = going_on(fleet, authority, now, reserve_pct=chosen)
    assert len(changes) == lowered
    assert fleet.nameplate.owner_reserve_pct[0] == (chosen if lowered else written)


def test_authority_device_that_reports_no_reserve_guarantees_none_and_is_not_written(fleet: Fleet) -> None:
    authority, now = DeviceAuthority(ControlSettings(), fleet=fleet), Now(utc_ms=10**12, mono_ms=10**6)
    authority.adopt([], now)
    reading(fleet, now, reserve_pct=np.nan)
    authority.update(now)
    assert unguaranteed(fleet.snapshot()).tolist() == [True]
    assert reserves_due(fleet.snapshot(), np.ones(1, dtype=np.bool_)).tolist() == [False]


def test_authority_adopted_device_with_an_id_never_given_out_has_confirmed_nothing(fleet: Fleet) -> None:
    start = Now(utc_ms=10**12, mono_ms=10**6)
    authority, later = (
        DeviceAuthority(ControlSettings(), fleet=fleet),
        Now(utc_ms=10**12 + 1_000, mono_ms=10**6 + 1_000),
    )
    authority.adopt([DeviceId("home-1")], start, newest_cmd=500)
    reading(fleet, later, reserve_pct=30)
    fleet.live.mode[0], fleet.live.cmd[0] = Mode.REMOTE, 1 << 60
    authority.update(later)
    assert (fleet.control.authority[0], fleet.control.cmd_applied[0]) == (Authority.CONTROLLED, 0)


def test_authority_low_reserve_is_raised_once_and_only_before_control(fleet: Fleet) -> None:
    authority, now = DeviceAuthority(ControlSettings(), fleet=fleet), Now(utc_ms=10**12, mono_ms=10**6)
    authority.adopt([], now)
    reading(fleet, now, reserve_pct=10)
    authority.update(now)
    taking = np.ones(1, dtype=np.bool_)
    assert reserves_due(fleet.snapshot(), taking).tolist() == [True]
    assert reserves_due(fleet.snapshot(), ~taking).tolist() == [False]
    fleet.control.authority[0] = Authority.CONTROLLED
    assert reserves_due(fleet.snapshot(), taking).tolist() == [False]
    fleet.control.authority[0] = Authority.DEVICE
    fleet.control.written_reserve_pct[0] = 30
    assert reserves_due(fleet.snapshot(), taking).tolist() == [False]
    assert unguaranteed(fleet.snapshot()).tolist() == [True]
    reading(fleet, now, reserve_pct=30)
    assert unguaranteed(fleet.snapshot()).tolist() == [False]


def test_authority_device_from_before_a_restart_is_adopted_by_a_reading_of_its_own_time_only(fleet: Fleet) -> None:
    before, start = Now(utc_ms=10**12, mono_ms=10**6), Now(utc_ms=10**12 + 3_000, mono_ms=10**6 + 3_000)
    reading(fleet, before, reserve_pct=30)
    authority = DeviceAuthority(ControlSettings(), fleet=fleet)
    authority.adopt([DeviceId("home-1")], start)
    authority.update(start)
    assert not authority.heard()
    assert fleet.control.authority[0] == Authority.CONTROLLED
    after = Now(utc_ms=start.utc_ms + 1_000, mono_ms=start.mono_ms + 1_000)
    reading(fleet, after, reserve_pct=30)
    assert authority.heard()
    # It is back in the maker's own mode by then: nothing to adopt, and the journal hears of it.
    assert authority.update(after) == [ControlEnded(devices=(DeviceId("home-1"),), reason="released")]
    assert fleet.control.authority[0] == Authority.DEVICE

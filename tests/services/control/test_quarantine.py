"""Who is quarantined for doing the opposite of its commands, judged on simulated homes: not those that are slow,
pass through 0 W or act late; those that really run the wrong way, and a product that does so in many homes."""

from typing import Any

import numpy as np
import pytest

from gateway.domain.events.request import Target, Want, power
from simulators.battery import Batteries, Mode
from simulators.homes import Homes
from tests.builders.homes import homes, late
from tests.scenes.street import SETTINGS, Street

FOUND_S = 105
"""Delivery (5 s), settling (30 s) and 60 s of the wrong direction, the ramp of the event (5 s) and a few ticks."""


def through_zero(dip_s: float) -> type[Batteries]:
    """Batteries that go to 0 W for `dip_s` when they are taken over, and follow every later setpoint at once."""

    class Dip(Batteries):
        def __init__(self, *args: Any, **other: Any) -> None:
            super().__init__(*args, **other)
            self._own = np.ones(len(self.homes), dtype=np.bool_)
            self._since_s = np.full(len(self.homes), -np.inf)

        def step(self, dt_s: float) -> None:
            remote, told_w = self.mode == Mode.REMOTE, self.setpoint_w
            self._since_s[remote & self._own] = self.time_s
            self._own = ~remote
            self.setpoint_w = np.where(self.time_s - self._since_s < dip_s, 0.0, told_w)
            super().step(dt_s)
            self.setpoint_w = told_w

    return Dip


def inverted(*indices: int) -> type[Batteries]:
    """Batteries of which some do the opposite of their commands."""

    class Inverted(Batteries):
        def step(self, dt_s: float) -> None:
            told_w = self.setpoint_w
            self.setpoint_w = told_w.copy()
            self.setpoint_w[list(indices)] *= -1
            super().step(dt_s)
            self.setpoint_w = told_w

    return Inverted


def fleet(n: int = 20, **columns: Any) -> Homes:
    """Homes that draw much, and whose batteries are at it when an event begins."""
    own = {"load_base_w": np.full(n, 1_200.0), "capacity_wh": 20_000.0, "response_s": 2.0, "slew_w_per_s": 5_000.0}
    rated = {"discharge_w_max": 5_000.0, "charge_w_max": 5_000.0, "reserve_pct": 20.0}
    may = {"grid_charge_allowed": np.ones(n, dtype=np.bool_), "site_import_w_max": np.inf}
    return homes(n, **(own | rated | may | {"sites": tuple(f"site-{i}" for i in range(n))} | columns))


def each(power_w: float) -> Target:
    """The same power for every home."""
    return Target(want=Want.DEVICE_POWER, power_w=power_w)


async def told(street: Street, *targets: tuple[int, float]) -> Street:
    """Set the fleet to each power from its second on, and on for two minutes after the last."""
    await street.go(3)
    start_ms, passed_s = street.time.now().utc_ms, 0
    for revision, (at_s, target_w) in enumerate(targets, 1):
        await street.go(at_s - passed_s)
        passed_s = at_s
        await street.submit(
            s=3_600, target=power(target_w), revision=revision, start_ms=start_ms, end_ms=start_ms + 3_600_000
        )
    return await street.go(120)


@pytest.mark.parametrize(("dip_s", "response_s"), [(3, 1.0), (3, 2.0), (4, 2.0), (8, 2.0)])
async def test_quarantine_home_that_passes_through_0_w_at_take_over_is_not_judged(
    dip_s: int, response_s: float
) -> None:
    street = await told(Street(fleet(response_s=response_s), physics=through_zero(dip_s)), (0, 60_000))
    assert street.control.quarantine.quarantined == {}
    assert street.devices.batteries.battery_w.sum() == pytest.approx(60_000, rel=0.02)


@pytest.mark.parametrize("dead_s", [2, 3, 4])
@pytest.mark.parametrize("targets", [((0, 80_000), (4, 10_000)), ((0, 60_000), (30, -60_000), (34, 60_000))])
async def test_quarantine_home_with_dead_time_is_not_judged_by_the_setpoint_before(
    dead_s: int, targets: tuple[tuple[int, float], ...]
) -> None:
    street = await told(Street(fleet(response_s=1.0), physics=late(dead_s)), *targets)
    assert street.control.quarantine.quarantined == {}
    assert street.devices.batteries.battery_w.sum() == pytest.approx(targets[-1][1], rel=0.02)


@pytest.mark.parametrize(("dead_s", "response_s"), [(0, 10.0), (20, 2.0), (30, 1.0), (10, 7.0)])
@pytest.mark.parametrize("targets", [((0, 60_000), (60, -60_000)), ((0, -60_000), (45, 60_000), (60, -60_000))])
async def test_quarantine_home_that_takes_20_to_30_s_to_settle_is_not_judged(
    dead_s: int, response_s: float, targets: tuple[tuple[int, float], ...]
) -> None:
    street = await told(Street(fleet(response_s=response_s), physics=late(dead_s)), *targets)
    assert street.control.quarantine.quarantined == {}
    assert street.devices.batteries.battery_w.sum() == pytest.approx(-60_000, rel=0.05)


async def test_control_fleet_that_acts_late_and_is_read_seldom_is_no_reason_to_make_up_for_it() -> None:
    street = Street(fleet(), settings=SETTINGS.model_copy(update={"fleet_w_per_s": 2_000.0}), physics=late(10))
    live = street.devices.live
    street.devices.live = lambda now_ms: [m for m in live(now_ms) if (now_ms // 1_000 + m.index) % 5 == 0]  # type: ignore[method-assign]
    await street.go(10)
    await street.submit(s=3_600, target=power(60_000))
    total_w = []
    for _ in range(240):
        await street.go(1)
        total_w.append(float(street.devices.batteries.battery_w.sum()))
    assert max(total_w) < 1.055 * 60_000
    assert total_w[60:] == pytest.approx([60_000] * 180, rel=0.05)


@pytest.mark.fault("F21")
@pytest.mark.parametrize("power_w", [5_000, 3_000, -4_500, -5_000])
async def test_quarantine_home_that_runs_the_wrong_way_is_found_and_no_other(power_w: float) -> None:
    street = Street(fleet(), physics=inverted(3))
    await street.go(3)
    await street.submit(s=3_600, target=each(power_w))
    await street.go(FOUND_S)
    assert street.control.quarantine.quarantined == {street.homes.ids[3]: "wrong_sign"}
    await street.go(130)
    assert street.devices.batteries.mode[3] != Mode.REMOTE
    others_w = np.delete(street.devices.batteries.battery_w, 3)
    assert others_w == pytest.approx(np.full(19, power_w), rel=0.02)


@pytest.mark.fault("F21")
async def test_quarantine_home_that_runs_the_wrong_way_for_a_group_s_power_is_found_and_made_up_for() -> None:
    street = await told(Street(fleet(), physics=inverted(3)), (0, 60_000))
    await street.go(60)
    assert street.control.quarantine.quarantined == {street.homes.ids[3]: "wrong_sign"}
    await street.go(60)
    assert np.delete(street.devices.batteries.battery_w, 3).sum() == pytest.approx(60_000, rel=0.05)


@pytest.mark.fault("F21")
async def test_quarantine_few_homes_of_a_product_that_run_the_wrong_way_stop_themselves_only() -> None:
    wrong = (1, 4, 6, 9, 12, 14, 15, 17, 18)
    street = Street(fleet(), physics=inverted(*wrong))
    await street.go(3)
    await street.submit(s=3_600, target=each(2_500))
    await street.go(FOUND_S + 60)
    assert sorted(street.control.quarantine.quarantined) == sorted(street.homes.ids[i] for i in wrong)
    assert np.delete(street.devices.batteries.battery_w, wrong) == pytest.approx(np.full(11, 2_500), rel=0.02)


@pytest.mark.fault("F21")
@pytest.mark.parametrize("power_w", [3_000, -4_500])
async def test_quarantine_product_that_runs_the_wrong_way_in_many_homes_is_quarantined(power_w: float) -> None:
    street = Street(fleet(), physics=inverted(*range(2, 20)))
    await street.go(3)
    await street.submit(s=3_600, target=each(power_w))
    await street.go(FOUND_S)
    assert street.control.quarantine.quarantined["product:reference-mqtt"] == "wrong_sign"
    await street.go(150)
    assert not street.remote.any()

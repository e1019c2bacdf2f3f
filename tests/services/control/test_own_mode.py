"""No event leaves a home worse than its maker's own mode would: where a setpoint would have to stay below the load, the
home follows its load, and what it gives is its share."""

from typing import Any

import numpy as np
import pytest

from gateway.domain.commands import CommandOp
from gateway.domain.events.request import Compensation, Target, Want, power
from gateway.domain.types import Mode
from simulators.homes import Homes
from tests.builders.homes import homes
from tests.scenes.street import SETTINGS, Street
from tests.scenes.world import World, homes_of

N = 12
MOST = Target(want=Want.DEVICE_POWER, power_w=5_000.0)


def no_export(*, export: bool = False) -> Homes:
    """Homes of different loads that their batteries cover by themselves."""
    return homes(
        N, capacity_wh=10_000.0, discharge_w_max=5_000.0, charge_w_max=5_000.0, soc_start_pct=80.0,
        export_allowed=np.full(N, export), site_export_w_max=np.inf if export else 0.0,
    )  # fmt: skip


async def imported_w(street: Street, s: int) -> float:
    """Mean of what the homes draw from the grid."""
    total_w = 0.0
    for _ in range(s):
        await street.go(1)
        total_w += float(np.maximum(street.devices.batteries.grid_w, 0.0).sum())
    return total_w / s


@pytest.mark.parametrize(
    ("target", "export", "other"),
    [
        (power(8_000.0), False, {}),
        (power(None), False, {}),
        (MOST, False, {}),
        (Target(want=Want.DEVICE_POWER, power_w=300.0), False, {}),
        (Target(want=Want.FOLLOW_LOAD, power_w=0.0), False, {}),
        (power(8_000.0), True, {"compensation": Compensation.SITE_LOAD}),
    ],
)
async def test_own_mode_no_discharge_event_raises_the_import_of_a_home(
    target: Target, export: bool, other: dict[str, Any]
) -> None:
    street = Street(no_export(export=export))
    await street.go(120)
    await street.submit("e", s=1_200, target=target, **other)
    await street.go(30)
    assert await imported_w(street, 120) <= 50
    batteries, entry = street.devices.batteries, street.dispatcher.entry("e")
    assert entry is not None
    told = street.queries.progress(entry)
    assert told is not None
    assert float(batteries.battery_w.sum()) == pytest.approx(float(batteries.load_w.sum()), rel=0.01)
    # what the batteries report leaves out their standby
    assert told.delivered_w == pytest.approx(float(batteries.battery_w.sum()), rel=0.06)
    assert street.problems == []


async def test_own_mode_home_that_an_event_before_had_under_control_is_let_go_to_follow_its_load() -> None:
    street = Street(no_export(), settings=SETTINGS)
    await street.go(120)
    await street.submit("idle", s=120, target=Target(want=Want.IDLE))
    await street.submit("e", in_s=120, s=1_200, target=power(8_000.0))
    await street.go(119)
    assert street.remote.all()
    await street.go(91)
    assert not street.remote.any()
    assert await imported_w(street, 60) <= 50


def world_of(count: int = 4, **other: object) -> World:
    world = World(homes_of(count, export_allowed=False, site_export_w_max=0.0, **other))
    world.homes.own_w[:] = 500
    world.homes.battery_w[:] = 500
    return world


async def test_own_mode_gives_a_share_that_is_delivered_and_asks_for_no_command() -> None:
    world = world_of()
    await world.go(10)
    await world.submit(s=1_200, target_w=1_500)
    await world.go(120)
    assert world.ops() == []
    assert (world.progress().delivered_w, world.progress().unserved_w) == (2_000, 0)
    row = world.rows()["home-00"]
    assert (row["status"], row["failure"], row["asked_w"]) == ("delivering", None, 500)
    assert row["delivered_wh"] == pytest.approx(500 * 118 / 3600, rel=0.02)
    assert row["shortfall_wh"] == 0


async def test_own_mode_that_gives_less_than_a_setpoint_would_is_ended() -> None:
    world = world_of()
    world.homes.own_w[:2] = 0
    world.homes.battery_w[:2] = 0
    world.homes.mode[2] = Mode.OTHER
    await world.go(10)
    await world.submit(s=1_200, target_w=None)
    await world.go(60)
    # the smallest load of late, less the margin at the meter
    assert world.homes.battery_w.tolist() == [450, 450, 450, 500]
    assert CommandOp.SETPOINT not in world.ops(3)


async def test_own_mode_that_did_not_serve_when_it_was_tried_is_not_tried_again_soon() -> None:
    world = world_of(1)
    world.homes.own_w[:] = 0
    world.homes.battery_w[:] = 0
    await world.go(10)
    await world.submit(s=3_600, target_w=None)
    await world.go(60)
    world.homes.load_w[:] = 1_500  # a setpoint stays at the smallest load of late
    await world.go(400)
    assert world.ops().count(CommandOp.RELEASE) == 1
    assert world.homes.battery_w[0] == 450


async def test_own_mode_no_charge_event_lowers_what_a_home_charges_from_its_own_pv() -> None:
    world = World(homes_of(4, grid_charge_allowed=False))
    world.homes.load_w[:] = -2_000  # surplus of PV
    world.homes.own_w[:] = -2_000
    world.homes.battery_w[:] = -2_000
    await world.go(10)
    world.homes.load_w[:] = -3_000
    world.homes.own_w[:] = -3_000
    world.homes.battery_w[:] = -3_000
    await world.go(10)
    await world.submit(s=1_200, target_w=-10_000)
    await world.go(60)
    assert world.homes.battery_w.tolist() == [-3_000] * 4
    assert world.progress().delivered_w == -12_000


async def test_own_mode_power_is_credited_to_one_event_only() -> None:
    world = world_of()
    await world.go(10)
    await world.submit("first", s=1_200, target_w=1_500, priority=1)
    await world.submit("second", s=1_200, target_w=1_500, priority=2)
    await world.go(60)
    entries = [world.dispatcher.entry(name) for name in ("first", "second")]
    credits = [world.queries.credit(entry) for entry in entries if entry is not None]
    assert [credit.own_w for credit in credits if credit is not None] == [1_500, 500]


async def test_own_mode_exporting_homes_are_told_what_the_event_asks_for() -> None:
    world = World(homes_of(4))
    world.homes.own_w[:] = 500
    world.homes.battery_w[:] = 500
    await world.go(10)
    await world.submit(s=1_200, target_w=8_000)
    await world.go(60)
    assert world.homes.battery_w.sum() == pytest.approx(8_000, rel=0.02)


async def test_own_mode_of_a_battery_ends_when_the_other_one_of_its_home_exports() -> None:
    pair = homes(
        2, site_index=np.zeros(2, dtype=np.int64), sites=("home", "home"), load_base_w=np.full(1, 500.0),
        pv_peak_w=np.zeros(1), capacity_wh=10_000.0, discharge_w_max=5_000.0, charge_w_max=5_000.0,
        soc_start_pct=np.array([80.0, 60.0]), site_export_w_max=6_000.0,
    )  # fmt: skip
    street = Street(pair)
    await street.go(120)
    await street.submit("before", s=30, target=Target(want=Want.IDLE), priority=1)
    await street.submit("load", s=1_200, target=MOST, compensation=Compensation.SITE_LOAD, priority=2)
    await street.go(40)
    assert not street.devices.steered.any(), "both are let go: they cover the load by themselves"
    await street.submit("exports", s=1_200, target=power(None), priority=3)
    await street.go(25)
    assert street.devices.batteries.battery_w.min() > 0, "neither charges from the other"
    assert street.devices.batteries.battery_w.sum() > 6_000

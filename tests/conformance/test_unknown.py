"""A product that answers 0 for what it does not know: unknown in telemetry, and nothing is steered by it."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from gateway.domain.commands import CommandOp, CommandResult, WriteOutcome
from gateway.domain.types import Mode
from simulators.faces.sonnen_v2 import SonnenV2
from tests.conformance.rig import CODECS, bench

REFUSED = (WriteOutcome.REFUSED, CommandResult.REFUSED)


def without_meter(face: Any) -> None:
    face.meter_online = False


def without_grid(face: Any) -> None:
    face.grid_known = False


def without_battery(face: Any) -> None:
    face.battery_known = False


@pytest.mark.parametrize(
    ("name", "change", "unknown"),
    [
        ("huawei-luna2000", without_meter, ("grid_w", "load_w")),
        ("victron-gx-modbus", without_grid, ("grid_w", "load_w")),
        ("victron-gx-modbus", without_battery, ("battery_w", "soc_pct")),
    ],
)
async def test_what_the_product_does_not_know_is_unknown_until_it_knows(
    name: str, change: Callable[[Any], None], unknown: tuple[str, ...]
) -> None:
    async with bench(name) as rig:
        row = await rig.fresh()
        assert [reading for reading in unknown if math.isnan(row[reading])] == []
        change(rig.face)
        row = await rig.fresh()
        assert [reading for reading in unknown if not math.isnan(row[reading])] == []


@pytest.mark.parametrize("change", [without_grid, without_battery])
async def test_grid_setpoint_is_not_written_while_grid_or_battery_is_unknown(change: Callable[[Any], None]) -> None:
    async with bench("victron-gx-modbus", change=change) as rig:
        await rig.fresh()
        before = rig.writes_on_wire()
        assert await rig.power(1_500) == REFUSED
        assert rig.writes_on_wire() == before


async def test_grid_setpoint_that_is_over_leaves_the_product_in_its_own_mode() -> None:
    async with bench("victron-gx-modbus") as rig:
        assert (await rig.fresh())["mode"] == Mode.SELF_CONSUMPTION
        assert await rig.power(1_500) == rig.done
        assert (await rig.fresh())["mode"] == Mode.REMOTE
        rig.face.reboot()
        await rig.back()
        assert (await rig.fresh())["mode"] == Mode.SELF_CONSUMPTION


async def test_owner_mode_that_nobody_listed_is_met_again_steered_and_restored() -> None:
    """The maker sets mode 11 with its wall box."""
    made = CODECS["sonnen-v2"], lambda plant: SonnenV2(plant, mode="11")
    async with bench("sonnen-v2", product=made) as rig:
        assert (await rig.fresh())["mode"] == Mode.OTHER
        assert await rig.power(1_500) == rig.done
        await rig.expect_w(1_500)
        assert await rig.tell(CommandOp.RELEASE) == rig.done
        assert rig.face.settings()["operating_mode"] == 11
        rig.face.reboot()
        await rig.back()
        assert (await rig.fresh())["mode"] == Mode.OTHER

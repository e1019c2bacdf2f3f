"""Homes with more than one battery behind one device: what is read, steered and reported is the whole."""

from typing import Any

import pytest

from tests.conformance.rig import CODECS, Rig, bench


def with_second(face: Any) -> None:
    face.second_part = 0.4


def with_stack(face: Any) -> None:
    face.units = 3


WHOLE = [("goodwe-et", with_second), ("huawei-luna2000", with_second), ("hoymiles-ms-a2", with_stack)]


async def told(rig: Rig) -> None:
    """The newest reading is the whole of all batteries."""
    rig.frozen = True
    await rig.fresh()
    row = await rig.fresh()
    assert row["battery_w"] == pytest.approx(rig.plant.battery_w, abs=10)
    assert row["soc_pct"] == pytest.approx(rig.plant.soc_pct, abs=1.0)
    rig.frozen = False


@pytest.mark.parametrize(("name", "change"), WHOLE)
async def test_more_than_one_battery_is_read_and_steered_as_one(name: str, change: Any) -> None:
    async with bench(name, change=change, time_s=0.0, load_base_w=2_000.0) as rig:
        await rig.settle()
        assert rig.plant.battery_w > 500
        await told(rig)
        for setpoint_w in (1_500, -1_200):
            assert await rig.power(setpoint_w) == rig.done
            await rig.expect_w(setpoint_w)
            await told(rig)


async def test_one_battery_alone_is_no_pair() -> None:
    """Registers of a second battery that are refused halve nothing."""
    async with bench("goodwe-et", soc_start_pct=60.0) as rig:
        await rig.settle()
        assert rig.session.product_variant.variant == ""
        await told(rig)


def test_profiles_of_products_with_a_second_battery_say_how_it_counts() -> None:
    assert {overlay.name for overlay in CODECS["goodwe-et"].document.overlays} == {"two-batteries"}
    assert {overlay.name for overlay in CODECS["hoymiles-ms-a2"].document.overlays} == {"stack"}

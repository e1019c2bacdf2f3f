"""An owner's settings: each that a product takes is given back exactly, else the home is not steered and says why."""

from functools import partial

import pytest

from gateway.domain.types import Mode
from simulators.faces.hoymiles_ms_a2 import MODES as MODES_OF_HOYMILES
from simulators.faces.modbus import ModbusRefused
from simulators.faces.sonnen_v2 import SonnenV2
from tests.conformance.rig import CODECS, STEERED, Rig, bench
from tests.conformance.test_control import REFUSED, released

VALUES_MAX = 12
MODES = [
    (name, point)
    for name in STEERED
    for point in CODECS[name].document.control.saves  # type: ignore[union-attr]
    if (made := CODECS[name].document.points[point]).address is not None and made.range is not None and made.unit == ""
]
"""Saved registers that hold one of a few words."""


def held(rig: Rig, point: str) -> int:
    made, section = rig.codec.document.points[point], rig.codec.document.modbus
    assert section is not None
    return int(rig.face.read(section.units["main"], made.function, made.address, 1)[0])  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "point"), MODES)
async def test_every_mode_that_the_product_takes_is_given_back_exactly(name: str, point: str) -> None:
    async with bench(name) as rig:
        made, section = rig.codec.document.points[point], rig.codec.document.modbus
        assert made.range is not None
        assert section is not None
        found = 0
        for mode in range(int(made.range[0]), min(int(made.range[1]), VALUES_MAX) + 1):
            try:
                rig.face.write(section.units["main"], 16, made.address, [mode])  # type: ignore[attr-defined]
            except ModbusRefused:
                continue
            found += 1
            await rig.fresh()
            assert await rig.power(1200) == rig.done, mode
            await rig.expect_w(1200)
            await released(rig)
            await rig.go(made.readback_s or 0)
            assert held(rig, point) == mode
        assert found > 1


async def test_solaredge_in_time_of_use_with_remote_control_is_steered_and_given_back() -> None:
    async with bench("solaredge-storedge") as rig:
        rig.face.write(1, 6, 0xE004, [5])  # type: ignore[attr-defined]
        await rig.fresh()
        before = rig.face.settings()
        assert await rig.power(-1500) == rig.done
        await rig.expect_w(-1500)
        await released(rig)
        assert rig.face.settings() == before
        assert held(rig, "control_mode") == 5


async def test_foreign_mode_keeps_the_home_from_being_steered_and_shows_why() -> None:
    async with bench("sungrow-sh") as rig:
        rig.face.write(1, 6, 13049, [4])  # type: ignore[attr-defined]
        await rig.fresh()
        assert rig.session.not_done == {"setpoint": "ems_mode is 4, expected one of 0, 2"}
        assert await rig.power(1500) == REFUSED
        assert rig.links.writes == []


async def test_victron_under_external_control_over_modbus_is_not_steered_and_says_why() -> None:
    async with bench("victron-gx-modbus") as rig:
        rig.face.write(100, 6, 2902, [3])  # type: ignore[attr-defined]
        await _not_steered_under_external_control(rig)


async def test_victron_under_external_control_over_mqtt_is_not_steered_until_it_is_in_its_own_mode() -> None:
    async with bench("victron-gx-mqtt") as rig:
        ess = rig.face.ess  # type: ignore[attr-defined]
        ess.stored.mode = 3
        await _not_steered_under_external_control(rig)
        for mode in (1, 2):
            ess.stored.mode = mode
            await rig.until(lambda: rig.heard.live[-1]["mode"] == Mode.SELF_CONSUMPTION, "its own mode again")
            assert await rig.power(1500) == rig.done
            await rig.expect_w(1500)
            await released(rig)


async def _not_steered_under_external_control(rig: Rig) -> None:
    await rig.until(lambda: rig.heard.live[-1]["mode"] == Mode.OTHER, "external control in a reading")
    assert rig.session.not_done == {"setpoint": "ess_mode is 3, expected one of 1, 2"}
    assert await rig.power(1500) == REFUSED
    assert rig.links.writes == []


@pytest.mark.parametrize("mode", ["2", "6", "10"])
async def test_every_mode_of_a_sonnen_is_given_back_exactly(mode: str) -> None:
    async with bench("sonnen-v2", product=(CODECS["sonnen-v2"], partial(SonnenV2, mode=mode))) as rig:
        assert await rig.power(1200) == rig.done
        await rig.expect_w(1200)
        await released(rig)
        assert rig.face.settings()["operating_mode"] == float(mode)


@pytest.mark.parametrize("mode", [mode for mode in MODES_OF_HOYMILES if mode != "mqtt_ctrl"])
async def test_every_mode_of_a_hoymiles_is_given_back_exactly(mode: str) -> None:
    async with bench("hoymiles-ms-a2") as rig:
        rig.face.set_mode(mode)  # type: ignore[attr-defined]
        await rig.until(lambda: rig.session.values.get("ems_mode") == mode, "the mode in a report", ceiling_s=900)
        before = rig.face.settings()
        assert await rig.power(1200) == rig.done
        await rig.expect_w(1200)
        await released(rig)
        assert rig.face.settings() == before

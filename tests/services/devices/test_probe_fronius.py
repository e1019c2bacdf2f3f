"""Fronius inverters with other numbers of modules than a GEN24: what is read is what their owners reported."""

from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.types import DeviceId
from gateway.links.modbus.link import ModbusLinks
from gateway.profiles.loader import load_profiles
from gateway.services.devices.probe import Probe, probe
from simulators.faces.fronius_gen24 import FroniusGen24
from tests.scenes.modbus_rig import Device, Served
from tests.scenes.register_faces import make_plant

CODEC = load_profiles(Path(__file__).parents[3] / "device_profiles")["fronius-gen24"]


async def probed(product: str, watts: tuple[int, ...]) -> Probe:
    """What is made of an inverter whose modules show these powers, in W."""
    face = FroniusGen24(make_plant(), product=product, mppts=len(watts) - 2)
    face.read(1, 3, 40_000, 2)
    model = next(model for model in face.inverter.models if model.number == 160)
    model.set(DCW_SF=0)
    for i, power_w in enumerate(watts):
        model.put(f"DCW.{i}", power_w)
    device = Device(units=())
    device.images = {unit: dict(found.registers.words) for unit, found in face.maps.items()}
    assert CODEC.product is not None
    links = ModbusLinks(ManualClock())
    async with Served(device) as served:
        connection = DeviceConnection(url=f"modbus://127.0.0.1:{served.port}")
        try:
            return await probe(CODEC, CODEC.product, links, connection, device=DeviceId("home"), secret="")
        finally:
            await links.close()


@pytest.mark.parametrize(
    ("product", "watts", "variant", "battery_w", "pv_w"),
    [
        ("Symo GEN24 10.0", (1_000, 500, 0, 4_000), "", 4_000, 1_500),
        ("Symo GEN24 10.0", (1_000, 500, 2_000, 0), "", -2_000, 1_500),
        ("Verto 25.0 Plus", (0, 0, 0, 0, 4_000), "three-pv-inputs", 4_000, 0),
        ("Verto 25.0 Plus", (1_000, 500, 3_000, 2_000, 0), "three-pv-inputs", -2_000, 4_500),
        ("Verto 30.0 Plus", (1_000, 500, 3_000, 700, 2_000, 0), "four-pv-inputs", -2_000, 5_200),
        ("Verto 30.0 Plus", (1_000, 500, 3_000, 700, 0, 1_500), "four-pv-inputs", 1_500, 5_200),
    ],
)
async def test_battery_is_in_the_last_two_modules_and_pv_in_the_others(
    product: str, watts: tuple[int, ...], variant: str, battery_w: float, pv_w: float
) -> None:
    found = await probed(product, watts)
    assert (found.problems, found.variant) == ([], variant)
    assert (found.readings["battery_w"], found.readings["pv_w"]) == (battery_w, pv_w)


async def test_verto_without_a_battery_is_not_read_as_one_with_it() -> None:
    found = await probed("Verto 30.0", (1_000, 500, 3_000, 2_000))
    assert len(found.problems) == 1
    assert found.problems[0].startswith("model is 'Verto 30.0' and modules is 4, expected ")

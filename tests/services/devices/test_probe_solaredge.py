"""Chains of SolarEdge homes as their owners published them: which meter is read, and what is not a SolarEdge."""

import struct
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import NotThisProduct
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.types import DeviceId
from gateway.links.modbus.link import ModbusLinks
from gateway.profiles.loader import load_profiles
from gateway.services.devices.probe import Probe, probe
from simulators.faces.solaredge_storedge import SolarEdgeStorEdge
from tests.scenes.modbus_rig import Device, Served
from tests.scenes.register_faces import make_plant

CODEC = load_profiles(Path(__file__).parents[3] / "device_profiles")["solaredge-storedge"]
ABSENT = 0x8000
PRODUCTION, GRID = ("Production", 5_200), ("Export+Import", -700)


def text(value: str, count: int) -> list[int]:
    return list(struct.unpack(f">{count}H", value.encode().ljust(2 * count, b"\0")))


def common(product: str, option: str, serial: str) -> list[int]:
    words = [*text("SolarEdge", 16), *text(product, 16), *text(option, 8), *text("0004.0018.0231", 8)]
    return [1, 65, *words, *text(serial, 16), 1]


def inverter(number: int, watts: int) -> list[int]:
    if number > 110:
        words = [0] * 60
        words[20:22] = struct.unpack(">HH", struct.pack(">f", watts))
        words[46] = 4
    else:
        words = [0] * 50
        words[12], words[13], words[36] = watts, 0, 4
    return [number, len(words), *words]


def meter(number: int, watts: int) -> list[int]:
    words = [ABSENT] * 105
    words[16], words[20] = watts & 0xFFFF, 0
    return [number, 105, *words]


def home(*meters: tuple[str, int], inverter_id: int = 103, meter_id: int = 203, batteries: int = 1) -> Device:
    """An inverter that gives 4,500 W, its meters (option text and W, + = out) and batteries that rest."""
    words = [0x5375, 0x6E53, *common("SE10K-RWS48", "", "7F123456"), *inverter(inverter_id, 4_500)]
    for i, (option, watts) in enumerate(meters):
        words += [*common("SE-MTR-3Y-400V-A", option, f"60{i}"), *meter(meter_id, watts)]
    image = {40_000 + i: word for i, word in enumerate([*words, 0xFFFF, 0])}
    face = SolarEdgeStorEdge(make_plant(pv_peak_w=0.0), batteries=batteries)
    face.read(1, 3, 0xE100, 2)
    return Device(image | dict(face.registers.words))


async def probed(device: Device, **parameters: str) -> Probe:
    assert CODEC.product is not None
    links = ModbusLinks(ManualClock())
    async with Served(device) as served:
        connection = DeviceConnection(url=f"modbus://127.0.0.1:{served.port}", parameters=tuple(parameters.items()))
        try:
            return await probe(CODEC, CODEC.product, links, connection, device=DeviceId("home"), secret="")
        finally:
            await links.close()


async def test_grid_is_the_meter_that_says_export_and_import_and_not_the_first_one() -> None:
    found = await probed(home(PRODUCTION, GRID))
    assert found.readings["grid_w"] == 700
    assert found.readings["load_w"] == 5_200
    assert found.models["meter"].said == "model 203 at 40362 (2 of 2, SE-MTR-3Y-400V-A, Export+Import, serial 601)"


@pytest.mark.parametrize("given", ["2", "601"])
async def test_registration_chooses_the_meter(given: str) -> None:
    found = await probed(home(GRID, ("Export+Import", -300)), meter=given)
    assert found.readings["grid_w"] == 300


async def test_two_meters_that_say_the_same_leave_the_grid_unknown_and_it_is_said_why() -> None:
    found = await probed(home(GRID, ("Export+Import", -300)))
    assert found.readings["grid_w"] is None
    assert found.readings["soc_pct"] is not None
    assert found.notice == "SunSpec model meter: 2 say 'Export+Import'; register which one"


@pytest.mark.parametrize("meter_id", [201, 202, 203, 204])
@pytest.mark.parametrize(
    ("inverter_id", "variant"), [(101, ""), (102, ""), (103, ""), (111, "floats"), (113, "floats")]
)
async def test_inverter_and_meter_of_any_number_of_phases_are_read(
    inverter_id: int, variant: str, meter_id: int
) -> None:
    found = await probed(home(GRID, inverter_id=inverter_id, meter_id=meter_id))
    assert (found.problems, found.variant) == ([], variant)
    assert (found.readings["grid_w"], found.readings["load_w"]) == (700, 5_200)
    assert found.readings["faults"] == 0


async def test_another_inverter_model_is_not_this_product() -> None:
    with pytest.raises(NotThisProduct) as refused:
        await probed(home(GRID, inverter_id=104))
    assert str(refused.value) == "SunSpec models one of 101, 102, 103, 111, 112, 113 are missing"


def put_f32(device: Device, at: int, value: float) -> None:
    high, low = struct.unpack(">HH", struct.pack(">f", value))
    device.images[1] |= {at: low, at + 1: high}


async def test_power_of_all_batteries_is_added_and_their_charge_weighed_by_what_they_hold() -> None:
    device = home(GRID, batteries=3)
    for base, watts, wh, soc in ((0xE100, 3_000, 9_000, 80), (0xE200, -500, 3_000, 20), (0xE400, 250, 3_000, 50)):
        put_f32(device, base + 0x74, watts)
        put_f32(device, base + 0x7E, wh)
        put_f32(device, base + 0x84, soc)
    found = await probed(device)
    assert found.variant == "second-battery+third-battery"
    assert (found.readings["battery_w"], found.readings["soc_pct"]) == (-2_750, 62)
    assert found.readings["pv_w"] == 4_500 + 2_750


async def test_inverter_of_floats_with_two_batteries_is_read_as_both() -> None:
    found = await probed(home(GRID, inverter_id=113, batteries=2))
    assert found.variant == "second-battery+floats"
    assert (found.readings["battery_w"], found.readings["load_w"]) == (0, 5_200)


@pytest.mark.parametrize("at", [0x74, 0x84, 0x7E])
async def test_second_battery_that_does_not_say_leaves_the_whole_unknown(at: int) -> None:
    device = home(GRID, batteries=2)
    device.images[1] |= {0xE200 + at: 0xFFFF, 0xE200 + at + 1: 0xFF7F}
    found = await probed(device)
    assert found.variant == "second-battery"
    assert found.readings["battery_w" if at == 0x74 else "soc_pct"] is None


@pytest.mark.parametrize("rated_wh", [0.0, -3.4028234663852886e38])
async def test_registers_of_a_battery_that_has_no_rating_are_no_battery(rated_wh: float) -> None:
    device = home(GRID, batteries=2)
    put_f32(device, 0xE242, rated_wh)
    put_f32(device, 0xE274, 5_000.0)
    found = await probed(device)
    assert (found.variant, found.readings["battery_w"]) == ("", 0)

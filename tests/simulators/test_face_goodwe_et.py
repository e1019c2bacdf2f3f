"""The simulated GoodWe ET, read and steered by the independent client library `goodwe` over TCP."""

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import goodwe
import pytest
from pymodbus.exceptions import ModbusException

import simulators.faces.goodwe_et as product
from simulators.faces.goodwe_et import GoodweEt
from simulators.faces.plant import Connection, Face, Trouble
from tests.scenes.register_faces import NOON_S, Peer, controlled, go, make_plant, peer_of


@pytest.fixture
async def face() -> AsyncIterator[GoodweEt]:
    inverter = GoodweEt(make_plant())
    yield inverter
    await inverter.stop()


@pytest.fixture
async def peer(face: GoodweEt) -> AsyncIterator[Peer]:
    async with peer_of(await face.start(), 247) as client:
        yield client


async def library(connection: Connection) -> goodwe.ET:
    """The library speaks TCP on any port but its UDP one when the family is named."""
    inverter = goodwe.ET("127.0.0.1", urlsplit(connection.url).port, timeout=5, retries=0)
    inverter.set_keep_alive(False)
    await inverter.read_device_info()
    return inverter


def test_face_goodwe_fits_the_protocol(face: GoodweEt) -> None:
    inverter: Face = face
    assert inverter.profile == "goodwe-et"
    assert not inverter.controlled


@pytest.mark.parametrize("time_s", [NOON_S, 64_800.0])
async def test_face_goodwe_library_reads_the_truth(time_s: float) -> None:
    face = GoodweEt(make_plant(pv_peak_w=6_000.0, time_s=time_s))
    go(face, 60)
    plant = face.plant
    inverter = await library(await face.start())
    assert (inverter.model_name, inverter.serial_number) == ("GW5K-ET", face.serial)
    assert inverter.rated_power == 5_000
    data = await inverter.read_runtime_data()
    assert data["ppv"] == round(plant.pv_w)
    assert data["pbattery1"] == round(plant.battery_w)
    assert data["battery_mode_label"] == ("Charge" if plant.battery_w < 0 else "Discharge")
    assert data["active_power"] == data["meter_active_power_total"] == round(-plant.grid_w)
    assert data["active_power_total"] == round(-plant.grid_w)
    assert data["load_ptotal"] == round(plant.load_w)
    assert data["house_consumption"] == pytest.approx(plant.load_w, abs=2)
    assert data["battery_soc"] == plant.soc_pct
    assert data["battery_temperature"] == pytest.approx(plant.temp_c, abs=0.06)
    assert data["temperature"] == pytest.approx(plant.temp_c + 10, abs=0.06)
    assert data["battery_discharge_limit"] == round(plant.discharge_limit_w / product.PACK_V)
    assert data["work_mode_label"] == "Normal (On-Grid)"
    assert data["error_codes"] == 0
    assert data["e_total"] == pytest.approx(plant.pv_wh / 1000, abs=0.051)
    assert data["e_bat_charge_total"] == pytest.approx(plant.charged_wh / 1000, abs=0.051)
    assert data["e_bat_discharge_total"] == pytest.approx(plant.discharged_wh / 1000, abs=0.051)
    assert data["meter_e_total_exp"] == pytest.approx(plant.exported_wh / 1000, abs=0.001)
    assert data["meter_e_total_imp"] == pytest.approx(plant.imported_wh / 1000, abs=0.001)
    await face.stop()


async def test_face_goodwe_library_steers_and_releases(face: GoodweEt) -> None:
    inverter = await library(await face.start())
    before = face.settings()
    go(face, 10)
    soc_pct, import_w = float(face.plant.batteries.true_soc_pct[0]), face.plant.grid_w
    await inverter.set_ems_mode(goodwe.EMSMode.DISCHARGE_BATTERY, 3_000)
    go(face, 30)
    assert controlled(face)
    assert face.plant.battery_w == pytest.approx(3_000, abs=20)
    assert face.plant.grid_w < import_w
    assert face.plant.batteries.true_soc_pct[0] < soc_pct
    await inverter.set_ems_mode(goodwe.EMSMode.CHARGE_BATTERY, 2_000)
    go(face, 30)
    assert face.plant.battery_w == pytest.approx(-2_000, abs=20)
    assert await inverter.get_ems_mode() is goodwe.EMSMode.CHARGE_BATTERY
    await inverter.set_ems_mode(goodwe.EMSMode.BATTERY_STANDBY)
    go(face, 30)
    assert face.plant.battery_w == pytest.approx(0, abs=5)
    await inverter.set_operation_mode(goodwe.OperationMode.GENERAL)  # writes EMS mode 1, power 0 in one request
    assert not controlled(face)
    assert face.settings() == before


async def test_face_goodwe_library_sets_the_reserve(face: GoodweEt) -> None:
    inverter = await library(await face.start())
    assert await inverter.get_ongrid_battery_dod() == 80
    await inverter.set_ongrid_battery_dod(65)
    assert face.plant.reserve_pct == 35
    assert face.settings()["minimum_soc"] == 35


async def test_face_goodwe_each_ems_mode_has_its_own_point_of_control() -> None:
    face = GoodweEt(make_plant(pv_peak_w=4_000.0, time_s=NOON_S))
    async with peer_of(await face.start(), 247) as peer:
        plant = face.plant
        for mode, x_w in ((product.BUY, 1_500), (product.SELL, 500)):
            assert await peer.put(47511, mode, x_w) == 0
            go(face, 30)
            assert plant.grid_w == pytest.approx(x_w if mode == product.BUY else -x_w, abs=150)
        assert await peer.put(47511, product.CHARGE_PV, 300) == 0
        go(face, 30)
        assert plant.battery_w == pytest.approx(-plant.pv_w - 300, abs=100)
        assert await peer.put(47511, product.CONSERVE, 0) == 0
        go(face, 30)
        assert plant.battery_w == pytest.approx(-plant.pv_w, abs=100)
        assert await peer.put(47511, product.EXPORT_AC, 4_500) == 0
        go(face, 30)
        assert plant.battery_w + plant.pv_w == pytest.approx(4_500, abs=100)
    await face.stop()


async def test_face_goodwe_silent_controller_is_followed_for_ever(face: GoodweEt, peer: Peer) -> None:
    await peer.set(47511, product.DISCHARGE)
    await peer.put(47512, 1_000)
    go(face, 3_600, dt_s=5)
    assert controlled(face)
    assert face.plant.battery_w == pytest.approx(1_000, abs=20)
    face.reboot()
    go(face, 30)
    assert controlled(face)
    assert face.plant.battery_w == pytest.approx(1_000, abs=20)


async def test_face_goodwe_reserve_holds_only_in_its_own_mode() -> None:
    face = GoodweEt(make_plant(soc_start_pct=21.0, reserve_pct=30.0))
    async with peer_of(await face.start(), 247) as peer:
        go(face, 20)
        assert face.plant.battery_w <= 0
        await peer.put(47511, product.DISCHARGE, 2_000)
        go(face, 20)
        assert face.plant.battery_w > 1_500
    await face.stop()


async def test_face_goodwe_export_limit_bounds_discharge(face: GoodweEt, peer: Peer) -> None:
    assert await peer.put(47509, 1, 0) == 0
    assert await peer.put(47511, product.DISCHARGE, 4_000) == 0
    go(face, 60)
    assert face.plant.grid_w == pytest.approx(0, abs=60)


async def test_face_goodwe_refuses_what_does_not_exist(face: GoodweEt, peer: Peer) -> None:
    assert await peer.words(35264) == [-2]  # no second battery
    assert await peer.words(37007, fc=4) == [-1]
    assert await peer.words(37007, unit=1) == [-11]
    assert await peer.set(35182, 5) == -2
    assert await peer.set(47511, 0) == -3
    assert await peer.set(47511, 13) == -3
    assert await peer.set(47511, product.OFF_GRID) == -3
    assert await peer.put(47511, product.DISCHARGE, 10_001) == -3
    assert not controlled(face)
    assert await peer.set(45356, 101) == -3
    assert await peer.number(35111) == 0xFFFF
    assert await peer.number(35113, "u32") == 0xFFFFFFFF


async def test_face_goodwe_counters_start_anew_after_a_reset(face: GoodweEt, peer: Peer) -> None:
    go(face, 30)
    assert await peer.number(35206, "u32") == round(face.plant.charged_wh / 100) > 0
    face.plant.reset_counters()
    assert await peer.number(35206, "u32") == 0


async def test_face_goodwe_overwrite_returns_to_auto(face: GoodweEt, peer: Peer) -> None:
    await peer.put(47511, product.CHARGE, 1_000)
    face.overwrite()
    assert not controlled(face)
    assert await peer.words(47511, 2) == [1, 0]


async def test_face_goodwe_reboot_after_writes_takes_effect_unanswered(face: GoodweEt, peer: Peer) -> None:
    face.reboot_after_writes(1)
    with pytest.raises(ModbusException):
        await peer.set(47511, product.CHARGE)
    assert controlled(face)


@pytest.mark.parametrize("trouble", [Trouble.SILENT, Trouble.DISCONNECT, Trouble.GARBAGE])
async def test_face_goodwe_trouble_gives_no_answer(face: GoodweEt, trouble: Trouble) -> None:
    face.trouble = trouble
    async with peer_of(await face.start(), 247, timeout_s=0.2) as peer:
        with pytest.raises(ModbusException):
            await peer.words(37007)


async def test_face_goodwe_busy_and_refusing_say_so(face: GoodweEt, peer: Peer) -> None:
    face.trouble = Trouble.BUSY
    assert await peer.words(37007) == [-6]
    face.trouble = Trouble.REFUSE
    assert await peer.set(47511, product.CHARGE) == -3
    assert not controlled(face)

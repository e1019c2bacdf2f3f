"""The simulated SUN2000 with LUNA2000, read and steered by the independent client library `huawei-solar`."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import huawei_solar.modbus
import pytest
from huawei_solar import AsyncHuaweiSolar, HuaweiSUN2000Bridge, PermissionDenied, WriteException
from huawei_solar import register_names as rn
from huawei_solar import register_values as rv
from pymodbus.exceptions import ModbusException

from simulators.faces.huawei_luna2000 import HuaweiLuna2000
from simulators.faces.plant import Connection, Face, Trouble
from tests.scenes.register_faces import NOON_S, Peer, controlled, go, make_plant, peer_of


@pytest.fixture
async def face() -> AsyncIterator[HuaweiLuna2000]:
    product = HuaweiLuna2000(make_plant(), rest_s=0.0, fc16_only=False)
    yield product
    await product.stop()


@pytest.fixture
async def peer(face: HuaweiLuna2000) -> AsyncIterator[Peer]:
    async with peer_of(await face.start(), 1) as client:
        yield client


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library rests 1.5 s after connecting, and its event belongs to the loop that used it first."""
    monkeypatch.setattr(huawei_solar.modbus, "WAIT_ON_CONNECT", 0)
    monkeypatch.setattr(huawei_solar.modbus.ModbusConnectionMixin, "connected_event", asyncio.Event())


async def library_bridge(connection: Connection) -> HuaweiSUN2000Bridge:
    port = urlsplit(connection.url).port
    assert port is not None
    client = await AsyncHuaweiSolar.create("127.0.0.1", port, slave_id=1, timeout=2)
    return await HuaweiSUN2000Bridge.create(client, 1, (await client.get(rn.MODEL_NAME)).value, None)


async def force(peer: Peer, power_w: int, *, minutes: int = 2) -> None:
    """+ = discharge; the order in which published clients write."""
    assert await peer.put32(47249 if power_w >= 0 else 47247, abs(power_w)) == 0
    assert await peer.put(47083, minutes) == 0
    assert await peer.put(47246, 0) == 0
    assert await peer.put(47100, 2 if power_w >= 0 else 1) == 0


def test_face_huawei_fits_the_protocol(face: HuaweiLuna2000) -> None:
    product: Face = face
    assert product.profile == "huawei-luna2000"


@pytest.mark.usefixtures("quick")
async def test_face_huawei_library_reads_the_truth() -> None:
    face = HuaweiLuna2000(make_plant(pv_peak_w=6_000.0, time_s=NOON_S), rest_s=0.0)
    go(face, 60)
    plant = face.plant
    bridge = await library_bridge(await face.start())
    assert bridge.model_name == "SUN2000-5KTL-L1"
    assert bridge.serial_number == face.serial
    assert bridge.battery_type is rv.StorageProductModel.HUAWEI_LUNA2000
    assert bridge.power_meter_online
    names = [
        rn.RATED_POWER,
        rn.INPUT_POWER,
        rn.ACTIVE_POWER,
        rn.DEVICE_STATUS,
        rn.STORAGE_UNIT_1_BATTERY_TEMPERATURE,
        rn.STORAGE_MAXIMUM_CHARGE_POWER,
        rn.STORAGE_MAXIMUM_DISCHARGE_POWER,
        rn.POWER_METER_ACTIVE_POWER,
        rn.GRID_EXPORTED_ENERGY,
        rn.GRID_ACCUMULATED_ENERGY,
        rn.STORAGE_RATED_CAPACITY,
        rn.STORAGE_STATE_OF_CAPACITY,
        rn.STORAGE_RUNNING_STATUS,
        rn.STORAGE_CHARGE_DISCHARGE_POWER,
        rn.STORAGE_TOTAL_CHARGE,
        rn.STORAGE_TOTAL_DISCHARGE,
        rn.STORAGE_WORKING_MODE_SETTINGS,
        rn.STORAGE_DISCHARGING_CUTOFF_CAPACITY,
    ]
    told = {name: result.value for name, result in (await bridge.batch_update(names)).items()}
    await bridge.stop()
    assert plant.battery_w < -100
    assert told[rn.STORAGE_CHARGE_DISCHARGE_POWER] == round(-plant.battery_w)
    assert told[rn.INPUT_POWER] == round(plant.pv_w)
    assert told[rn.ACTIVE_POWER] == round(plant.pv_w + plant.battery_w)
    assert told[rn.POWER_METER_ACTIVE_POWER] == round(-plant.grid_w)
    assert told[rn.GRID_EXPORTED_ENERGY] == pytest.approx(plant.exported_wh / 1000, abs=0.006)
    assert told[rn.GRID_ACCUMULATED_ENERGY] == pytest.approx(plant.imported_wh / 1000, abs=0.006)
    assert told[rn.STORAGE_STATE_OF_CAPACITY] == pytest.approx(plant.soc_pct, abs=0.1)
    assert told[rn.STORAGE_RATED_CAPACITY] == 10_000
    assert told[rn.STORAGE_MAXIMUM_CHARGE_POWER] == told[rn.STORAGE_MAXIMUM_DISCHARGE_POWER] == 5_000
    assert told[rn.STORAGE_TOTAL_CHARGE] == pytest.approx(plant.charged_wh / 1000, abs=0.006)
    assert told[rn.STORAGE_TOTAL_DISCHARGE] == pytest.approx(plant.discharged_wh / 1000, abs=0.006)
    assert told[rn.STORAGE_UNIT_1_BATTERY_TEMPERATURE] == pytest.approx(plant.temp_c, abs=0.06)
    assert told[rn.STORAGE_WORKING_MODE_SETTINGS] is rv.StorageWorkingModesC.MAXIMISE_SELF_CONSUMPTION
    assert told[rn.STORAGE_DISCHARGING_CUTOFF_CAPACITY] == 20
    assert told[rn.STORAGE_RUNNING_STATUS] is rv.StorageStatus.RUNNING
    assert told[rn.DEVICE_STATUS] == "On-grid"
    assert face.spacing_violations == 0
    await face.stop()


@pytest.mark.usefixtures("quick")
async def test_face_huawei_library_steers_and_is_refused(face: HuaweiLuna2000) -> None:
    bridge = await library_bridge(await face.start())
    assert await bridge.has_write_permission()
    before = face.settings()
    await bridge.set(rn.STORAGE_FORCIBLE_DISCHARGE_POWER, 3_000)
    await bridge.set(rn.STORAGE_FORCED_CHARGING_AND_DISCHARGING_PERIOD, 2)
    await bridge.set(rn.STORAGE_FORCIBLE_CHARGE_DISCHARGE_WRITE, rv.StorageForcibleChargeDischarge.DISCHARGE)
    go(face, 30)
    assert face.plant.battery_w == pytest.approx(3_000, abs=20)
    with pytest.raises(WriteException):
        await bridge.set(rn.STORAGE_FORCIBLE_CHARGE_POWER, 5_001)
    with pytest.raises(WriteException):
        await bridge.set(rn.STORAGE_MAXIMUM_DISCHARGING_POWER, 9_000)
    await bridge.set(rn.STORAGE_FORCIBLE_CHARGE_DISCHARGE_WRITE, rv.StorageForcibleChargeDischarge.STOP)
    assert not controlled(face)
    assert face.settings() == before
    await bridge.stop()


@pytest.mark.usefixtures("quick")
async def test_face_huawei_without_login_denies_permission() -> None:
    face = HuaweiLuna2000(make_plant(), rest_s=0.0, fc16_only=False, installer_only=True)
    bridge = await library_bridge(await face.start())
    assert not await bridge.has_write_permission()
    with pytest.raises(PermissionDenied):
        await bridge.set(rn.STORAGE_FORCIBLE_DISCHARGE_POWER, 1_000)
    await bridge.stop()
    await face.stop()


async def test_face_huawei_second_client_is_turned_away(face: HuaweiLuna2000, peer: Peer) -> None:
    assert await peer.number(37760) == round(face.plant.soc_pct * 10)
    async with peer_of(Connection(url=f"modbus://127.0.0.1:{face_port(face)}"), 1, timeout_s=0.3) as second:
        with pytest.raises(ModbusException):
            await second.words(37760)
    assert face.server.refused_clients == 1


def face_port(face: HuaweiLuna2000) -> int:
    server = face.server._server
    assert server is not None
    return int(server.sockets[0].getsockname()[1])


async def test_face_huawei_charge_from_the_grid_needs_permission(face: HuaweiLuna2000, peer: Peer) -> None:
    await force(peer, -2_000)
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(0, abs=20)  # no sun
    await peer.put(47087, 1)
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(-2_000, abs=20)
    assert face.settings()["47087"] == 1


async def test_face_huawei_silent_controller_ends_with_the_minutes(face: HuaweiLuna2000, peer: Peer) -> None:
    go(face, 45)
    await force(peer, 3_000, minutes=2)
    go(face, 110)
    assert await peer.put(47100, 2) == 0  # restarts the two minutes
    go(face, 119)
    assert controlled(face)
    go(face, 61)
    assert not controlled(face)
    assert await peer.number(47100) == 0
    assert await peer.number(47083) == 2
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(face.plant.load_w, rel=0.2)


async def test_face_huawei_firmware_that_does_not_restart_ends_early() -> None:
    face = HuaweiLuna2000(make_plant(), rest_s=0.0, repeat_restarts=False)
    async with peer_of(await face.start(), 1) as peer:
        await force(peer, 3_000, minutes=2)
        go(face, 100)
        await peer.put(47100, 2)
        go(face, 30)
        assert not controlled(face)
    await face.stop()


async def test_face_huawei_new_power_counts_from_the_next_start(face: HuaweiLuna2000, peer: Peer) -> None:
    await force(peer, 3_000)
    await peer.put32(47249, 1_000)
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(3_000, abs=20)
    await peer.put(47100, 2)
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(1_000, abs=20)


async def test_face_huawei_target_soc_ends_the_command(face: HuaweiLuna2000, peer: Peer) -> None:
    await peer.put32(47249, 5_000)
    await peer.put(47101, round(face.plant.soc_pct * 10) - 30)
    await peer.put(47246, 1)
    await peer.put(47100, 2)
    go(face, 20)
    assert controlled(face)
    go(face, 400)
    assert not controlled(face)


async def test_face_huawei_hold_is_a_stored_limit(face: HuaweiLuna2000, peer: Peer) -> None:
    before = face.settings()
    assert await peer.put32(47077, 0) == 0
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(0, abs=10)
    assert controlled(face)
    face.reboot()
    assert controlled(face)
    assert face.settings() != before


async def test_face_huawei_refuses(face: HuaweiLuna2000, peer: Peer) -> None:
    assert await peer.put(47083, 1441) == -4
    assert await peer.put(47100, 3) == -4
    assert await peer.put(47082, 201) == -4
    assert await peer.set(47077, 0) == -3  # half of a 32-bit value
    assert await peer.set(37760, 1) == -2
    assert await peer.words(37000, 65) == [-3]
    assert await peer.words(37080, 32) == [-2]  # begins in nothing
    assert await peer.words(37760, fc=4) == [-1]
    assert len(await peer.words(37758, 26)) == 26  # across small gaps


async def test_face_huawei_some_firmware_takes_settings_by_function_16_only() -> None:
    face = HuaweiLuna2000(make_plant(), rest_s=0.0)
    async with peer_of(await face.start(), 1) as peer:
        assert await peer.set(47086, 2) == -1
        assert await peer.put(47086, 2) == 0
    await face.stop()


async def test_face_huawei_requests_in_haste_are_counted() -> None:
    face = HuaweiLuna2000(make_plant(), rest_s=0.0, spacing_s=60.0)
    async with peer_of(await face.start(), 1) as peer:
        await peer.words(37760)
        await peer.words(37760)
        assert face.spacing_violations == 1
    await face.stop()


async def test_face_huawei_meter_away_reads_as_0_and_says_so(face: HuaweiLuna2000, peer: Peer) -> None:
    face.meter_online = False
    assert await peer.number(37100) == 0
    assert await peer.number(37113, "i32") == 0


async def test_face_huawei_reserve_holds_only_in_its_own_mode() -> None:
    face = HuaweiLuna2000(make_plant(soc_start_pct=21.0, reserve_pct=30.0), rest_s=0.0)
    async with peer_of(await face.start(), 1) as peer:
        go(face, 20)
        assert face.plant.battery_w <= 0
        await force(peer, 2_000)
        go(face, 20)
        assert face.plant.battery_w > 1_500
        await peer.put(47100, 0)
        assert await peer.put(47082, 150) == 0
        assert face.plant.reserve_pct == 15
    await face.stop()


async def test_face_huawei_reboot_keeps_the_command_and_overwrite_ends_it(face: HuaweiLuna2000, peer: Peer) -> None:
    await force(peer, 3_000, minutes=1)
    face.reboot()
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(3_000, abs=20)
    face.overwrite()
    assert not controlled(face)


async def test_face_huawei_reboot_after_writes_takes_effect_unanswered(face: HuaweiLuna2000) -> None:
    async with peer_of(await face.start(), 1, timeout_s=0.5) as peer:
        face.reboot_after_writes(1)
        with pytest.raises(ModbusException):
            await peer.put(47082, 150)
    assert face.settings()["47082"] == 150


async def test_face_huawei_busy_says_so(face: HuaweiLuna2000, peer: Peer) -> None:
    face.trouble = Trouble.BUSY
    assert await peer.words(37760) == [-6]

"""The simulated Sigenergy plant, by plain Modbus calls: no client library of its own is published."""

from collections.abc import AsyncIterator

import pytest
from pymodbus.exceptions import ModbusException

from simulators.faces.plant import Face, Trouble
from simulators.faces.sigenergy_plant import SigenergyPlant
from tests.scenes.register_faces import NOON_S, Peer, controlled, go, make_plant, peer_of


@pytest.fixture
async def face() -> AsyncIterator[SigenergyPlant]:
    product = SigenergyPlant(make_plant())
    yield product
    await product.stop()


@pytest.fixture
async def peer(face: SigenergyPlant) -> AsyncIterator[Peer]:
    async with peer_of(await face.start(), 247) as client:
        yield client


def test_face_sigenergy_fits_the_protocol(face: SigenergyPlant) -> None:
    product: Face = face
    assert product.profile == "sigenergy-plant"


async def test_face_sigenergy_read_tells_the_truth() -> None:
    face = SigenergyPlant(make_plant(pv_peak_w=6_000.0, time_s=NOON_S))
    connection = await face.start()
    go(face, 60)
    plant = face.plant
    async with peer_of(connection, connection.units["plant"]) as peer:
        assert plant.battery_w < -100
        assert await peer.number(30037, "i32", fc=4) == round(-plant.battery_w)
        assert await peer.number(30005, "i32", fc=4) == round(plant.grid_w)
        assert await peer.number(30035, "i32", fc=4) == round(plant.pv_w)
        assert await peer.number(30031, "i32", fc=4) == round(plant.pv_w + plant.battery_w)
        assert await peer.number(30014, fc=4) == round(plant.soc_pct * 10)
        assert await peer.number(30047, "u32", fc=4) == round(plant.charge_limit_w)
        assert await peer.number(30068, "u32", fc=4) == 5_000
        assert await peer.number(30083, "u32", fc=4) == 1_000
        assert await peer.number(30200, "u64", fc=4) == round(plant.charged_wh / 10)
        assert await peer.number(30204, "u64", fc=4) == round(plant.discharged_wh / 10)
        assert await peer.number(30216, "u64", fc=4) == round(plant.imported_wh / 10)
        assert await peer.number(30286, "i16", fc=4) == round(plant.temp_c * 10)
        assert await peer.number(30003, fc=4) == 0
        inverter = connection.units["inverter"]
        assert (await peer.text(30500, 15, fc=4, unit=inverter)).startswith("SigenStor")
        assert await peer.text(30515, 10, fc=4, unit=inverter) == connection.parameters["serial"]
        assert await peer.number(30599, "i32", fc=4, unit=inverter) == round(-plant.battery_w)
        assert await peer.words(30037, fc=3) == [-2]
        assert await peer.words(40000) == [-2]  # write-only
        assert await peer.words(40029, unit=9) == [-11]
    await face.stop()


@pytest.mark.parametrize(("mode", "limit", "sign"), [(3, 40032, -1), (4, 40032, -1), (6, 40034, 1)])
async def test_face_sigenergy_mode_and_limit_move_the_battery(
    face: SigenergyPlant, peer: Peer, mode: int, limit: int, sign: int
) -> None:
    before = face.settings()
    await peer.set(40029, 1)
    await peer.put32(limit, 2_500)
    await peer.set(40031, mode)
    go(face, 20)
    assert await peer.number(30003, fc=4) == 7
    assert face.plant.battery_w == pytest.approx(sign * 2_500, abs=20)
    await peer.set(40029, 0)
    assert not controlled(face)
    assert face.settings() != before  # the limit now binds the owner
    await peer.put32(limit, 5_000)
    assert face.settings() == before


async def test_face_sigenergy_pcs_target_is_ac_power_in_watts_or_percent() -> None:
    face = SigenergyPlant(make_plant(pv_peak_w=6_000.0, time_s=NOON_S))
    async with peer_of(await face.start(), 247) as peer:
        go(face, 5)
        assert await peer.put32(40001, 1_000) == 0
        go(face, 20)
        assert face.plant.battery_w + face.plant.pv_w != pytest.approx(1_000, abs=100)  # not in remote mode
        await peer.set(40031, 0)
        await peer.set(40029, 1)
        go(face, 20)
        assert face.plant.battery_w + face.plant.pv_w == pytest.approx(1_000, abs=100)
        await peer.set(40005, -1_000)
        go(face, 20)
        assert face.plant.battery_w + face.plant.pv_w == pytest.approx(-500, abs=100)
    await face.stop()


async def test_face_sigenergy_standby_holds_and_limits_bind_every_mode(face: SigenergyPlant, peer: Peer) -> None:
    await peer.set(40029, 1)
    await peer.set(40031, 1)
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(0, abs=5)
    await peer.set(40029, 0)
    await peer.put32(40034, 200)
    go(face, 20)
    assert face.plant.load_w > 300
    assert face.plant.battery_w == pytest.approx(200, abs=5)


async def test_face_sigenergy_silent_controller_stays_for_ever(face: SigenergyPlant, peer: Peer) -> None:
    await peer.set(40029, 1)
    await peer.set(40031, 6)
    face.reboot()
    go(face, 600, dt_s=5)
    assert controlled(face)
    assert face.plant.battery_w > 4_000
    face.overwrite()
    assert not controlled(face)


async def test_face_sigenergy_broadcast_is_carried_out_unanswered(face: SigenergyPlant) -> None:
    async with peer_of(await face.start(), 0, timeout_s=0.2) as peer:
        await peer.client.write_register(40029, 1, device_id=0, no_response_expected=True)
        assert await peer.number(40029, unit=247) == 1


async def test_face_sigenergy_refuses(face: SigenergyPlant, peer: Peer) -> None:
    assert await peer.put(40000, 0) == -1  # function 6 only
    assert await peer.set(40031, 7) == -3
    assert await peer.set(40032, 1) == -3  # half of a 32-bit value
    assert await peer.set(40048, 1_001) == -3
    assert await peer.set(30003, 1) == -2
    assert await peer.set(40029, 1, unit=1) == -2
    assert await peer.set(40000, 0) == 0
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(0, abs=5)
    assert await peer.number(30051, fc=4) == 3


async def test_face_sigenergy_requests_in_haste_are_counted(face: SigenergyPlant, peer: Peer) -> None:
    await peer.words(30003, fc=4)
    await peer.words(30003, fc=4)
    assert face.spacing_violations == 1


async def test_face_sigenergy_reserve_holds_only_in_its_own_mode() -> None:
    face = SigenergyPlant(make_plant(soc_start_pct=21.0, reserve_pct=30.0))
    async with peer_of(await face.start(), 247) as peer:
        assert await peer.number(40046) == 300
        go(face, 20)
        assert face.plant.battery_w <= 0
        await peer.set(40029, 1)
        await peer.set(40031, 6)
        go(face, 20)
        assert face.plant.battery_w > 1_500
        assert await peer.set(40046, 150) == 0
        assert face.plant.reserve_pct == 15
    await face.stop()


async def test_face_sigenergy_reboot_after_writes_takes_effect_unanswered(face: SigenergyPlant) -> None:
    async with peer_of(await face.start(), 247, timeout_s=0.5) as peer:
        face.reboot_after_writes(1)
        with pytest.raises(ModbusException):
            await peer.set(40029, 1)
    assert controlled(face)


async def test_face_sigenergy_busy_says_so(face: SigenergyPlant, peer: Peer) -> None:
    face.trouble = Trouble.BUSY
    assert await peer.words(30003, fc=4) == [-6]

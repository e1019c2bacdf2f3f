"""The simulated Victron GX, by plain Modbus calls: the published client library speaks MQTT only."""

from collections.abc import AsyncIterator

import pytest
from pymodbus.exceptions import ModbusException

from simulators.faces.plant import Face, Trouble
from simulators.faces.victron_gx_modbus import VictronGxModbus
from tests.scenes.register_faces import NOON_S, Peer, controlled, go, make_plant, peer_of


@pytest.fixture
async def face() -> AsyncIterator[VictronGxModbus]:
    product = VictronGxModbus(make_plant())
    yield product
    await product.stop()


@pytest.fixture
async def peer(face: VictronGxModbus) -> AsyncIterator[Peer]:
    async with peer_of(await face.start(), 100) as client:
        yield client


def test_face_victron_fits_the_protocol(face: VictronGxModbus) -> None:
    product: Face = face
    assert product.profile == "victron-gx-modbus"


async def test_face_victron_read_tells_the_truth() -> None:
    face = VictronGxModbus(make_plant(pv_peak_w=6_000.0, time_s=NOON_S))
    connection = await face.start()
    go(face, 60)
    plant, units = face.plant, connection.units
    async with peer_of(connection, 100) as peer:
        assert plant.battery_w < -100
        assert await peer.text(800, 6) == connection.parameters["portal"]
        assert await peer.text(800, 6, fc=4, unit=0) == connection.parameters["portal"]
        assert await peer.number(842, "i16") == round(-plant.battery_w)
        assert await peer.number(843) == round(plant.soc_pct)
        assert sum([await peer.number(at) for at in (811, 812, 813)]) == round(plant.pv_w)
        assert sum([await peer.number(at) for at in (817, 818, 819)]) == round(plant.load_w)
        assert sum([await peer.number(at, "i16") for at in (820, 821, 822)]) == round(plant.grid_w)
        assert sum([await peer.number(at, "i32") for at in (908, 910, 912)]) == round(plant.grid_w)
        battery, grid = units["battery"], units["grid"]
        assert await peer.number(256, "i32", unit=battery) == round(-plant.battery_w)
        assert await peer.number(262, "i16", unit=battery) == round(plant.temp_c * 10)
        assert await peer.number(266, unit=battery) == round(plant.soc_pct * 10)
        assert await peer.number(301, unit=battery) == round(plant.discharged_wh / 100)
        assert await peer.number(302, unit=battery) == round(plant.charged_wh / 100)
        assert await peer.number(307, unit=battery) == round(plant.charge_limit_w / 51.2 * 10)
        assert await peer.number(2634, "u32", unit=grid) == round(plant.imported_wh / 10)
        assert await peer.number(2636, "u32", unit=grid) == round(plant.exported_wh / 10)
        assert await peer.number(33, unit=units["vebus"]) == 3
        assert await peer.words(842, unit=5) == [-10]
        assert await peer.words(9000) == [-2]
        assert await peer.number(2716, "u32") == 0
    await face.stop()


@pytest.mark.parametrize("battery_w", [3_000, -2_000, 0])
async def test_face_victron_grid_setpoint_steers_the_battery(face: VictronGxModbus, peer: Peer, battery_w: int) -> None:
    before = face.settings()
    go(face, 5)
    for _ in range(5):
        assert await peer.put32(2716, round(face.plant.home_w()) - battery_w) == 0
        go(face, 5)
    assert controlled(face)
    assert face.plant.battery_w == pytest.approx(battery_w, abs=150)
    assert face.settings() == before


async def test_face_victron_setpoint_is_held_at_the_meter_while_the_load_moves(
    face: VictronGxModbus, peer: Peer
) -> None:
    powers_w = []
    for _ in range(60):
        await peer.put32(2716, -1_000)
        go(face, 30)
        powers_w.append(face.plant.battery_w)
        assert face.plant.grid_w == pytest.approx(-1_000, abs=300) or face.plant.battery_w > 4_900
    assert max(powers_w) - min(powers_w) > 100


async def test_face_victron_silent_controller_returns_to_the_stored_setpoint(face: VictronGxModbus, peer: Peer) -> None:
    await peer.put32(2716, -3_000)
    go(face, 55)
    assert await peer.put32(2716, -3_000) == 0
    go(face, 55)
    assert controlled(face)
    go(face, 10)
    assert not controlled(face)
    assert await peer.number(2716, "u32") == 0
    go(face, 30)
    assert face.plant.grid_w == pytest.approx(50, abs=150)


async def test_face_victron_stored_setpoint_stays_for_ever(face: VictronGxModbus, peer: Peer) -> None:
    assert await peer.set(2700, -1_500) == 0
    face.reboot()
    go(face, 600, dt_s=1)
    assert face.settings()["setpoint"] == -1_500
    assert not controlled(face)
    assert face.plant.grid_w == pytest.approx(-1_500, abs=300)


async def test_face_victron_limits_bind_the_setpoint(face: VictronGxModbus, peer: Peer) -> None:
    await peer.put32(2716, -4_000)
    await peer.set(2704, 120)  # in 10 W
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(1_200, abs=20)
    assert await peer.number(2720, "i32") == 1_200
    await peer.put32(2720, -1)
    assert await peer.number(2704, "i16") == -1
    await peer.set(2702, 10)  # below 50 % = no discharge
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(0, abs=20)
    await peer.set(2702, 100)
    await peer.put32(2722, 500)
    await peer.put32(2716, -4_000)
    go(face, 20)
    assert face.plant.grid_w == pytest.approx(-500, abs=150)
    await peer.put32(2716, 9_000)
    await peer.set(2705, 20)
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(-20 * 51.2, abs=20)


async def test_face_victron_external_mode_falls_to_passthru(face: VictronGxModbus, peer: Peer) -> None:
    vebus = 227
    await peer.set(37, -2_000, unit=vebus)
    go(face, 10)
    assert face.plant.battery_w != pytest.approx(2_000, abs=100)  # the product overwrites it in its own modes
    await peer.set(2902, 3)
    await peer.set(37, -2_000, unit=vebus)
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(2_000, abs=20)
    assert await peer.number(31, unit=vebus) == 252
    go(face, 60)
    assert face.plant.battery_w == pytest.approx(0, abs=20)
    assert await peer.number(31, unit=vebus) == 8
    assert controlled(face)
    face.overwrite()
    assert not controlled(face)


async def test_face_victron_refuses(face: VictronGxModbus, peer: Peer) -> None:
    assert await peer.set(2716, 0) == -3  # half of a 32-bit value
    assert await peer.set(2900, 9) == -3
    assert await peer.set(2901, 1_001) == -3
    assert await peer.set(2902, 0) == -3
    assert await peer.set(842, 1) == -2
    assert await peer.set(2709, 1) == -2
    assert await peer.set(258, 1, unit=225) == -2
    assert await peer.set(2700, 1, unit=5) == -10
    assert face.settings() == VictronGxModbus(make_plant()).settings()


async def test_face_victron_minimum_soc_holds_only_without_override() -> None:
    face = VictronGxModbus(make_plant(soc_start_pct=21.0, reserve_pct=30.0))
    async with peer_of(await face.start(), 100) as peer:
        assert await peer.number(2901) == 300
        go(face, 20)
        assert face.plant.battery_w <= 0
        await peer.put32(2716, -2_000)
        go(face, 20)
        assert face.plant.battery_w > 1_500
        assert await peer.set(2901, 150) == 0
        assert face.plant.reserve_pct == 15
    await face.stop()


async def test_face_victron_reboot_forgets_the_volatile_setpoint(face: VictronGxModbus, peer: Peer) -> None:
    await peer.put32(2716, -3_000)
    face.reboot()
    assert not controlled(face)


async def test_face_victron_reboot_after_writes_takes_effect_unanswered(face: VictronGxModbus) -> None:
    async with peer_of(await face.start(), 100, timeout_s=0.5) as peer:
        face.reboot_after_writes(1)
        with pytest.raises(ModbusException):
            await peer.set(2901, 400)
    assert face.settings()["2901"] == 400


async def test_face_victron_busy_says_so(face: VictronGxModbus, peer: Peer) -> None:
    face.trouble = Trouble.BUSY
    assert await peer.words(842) == [-6]

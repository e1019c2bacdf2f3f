"""The simulated FoxESS H3, by plain Modbus calls: no client library of its own is published."""

from collections.abc import AsyncIterator

import pytest
from pymodbus.exceptions import ModbusException

from simulators.faces.foxess_h3 import FoxessH3
from simulators.faces.plant import Face, Trouble
from tests.scenes.register_faces import NOON_S, Peer, controlled, go, make_plant, peer_of


@pytest.fixture
async def face() -> AsyncIterator[FoxessH3]:
    product = FoxessH3(make_plant())
    yield product
    await product.stop()


@pytest.fixture
async def peer(face: FoxessH3) -> AsyncIterator[Peer]:
    async with peer_of(await face.start(), 247) as client:
        yield client


async def begin(peer: Peer, power_w: int, *, timeout_s: int = 60, fallback: int = 1) -> None:
    assert await peer.set(41000, fallback) == 0
    assert await peer.set(44001, timeout_s) == 0
    assert await peer.set(44000, 1) == 0
    assert await peer.put32(44002, power_w) == 0


def test_face_foxess_h3_fits_the_protocol(face: FoxessH3) -> None:
    product: Face = face
    assert product.profile == "foxess-h3"
    assert not product.controlled


@pytest.mark.parametrize(
    ("rated_w", "model"),
    [(3_300.0, "H3-5.0-E"), (5_000.0, "H3-5.0-E"), (9_600.0, "H3-9.9-E"), (11_500.0, "H3-12.0-E"), (2e4, "H3-12.0-E")],
)
def test_face_foxess_h3_names_a_size_that_is_made(rated_w: float, model: str) -> None:
    assert FoxessH3(make_plant(discharge_w_max=rated_w)).model == model


async def test_face_foxess_h3_read_tells_the_truth() -> None:
    face = FoxessH3(make_plant(pv_peak_w=6_000.0, time_s=NOON_S))
    connection = await face.start()
    assert connection.units == {"inverter": 247}
    go(face, 30)
    plant = face.plant
    async with peer_of(connection, 247) as peer:
        model = "".join(map(chr, await peer.words(30000, 16)))
        assert model.strip() == "H3-5.0-E"
        assert model.startswith(" ")
        assert await peer.number(31002) + await peer.number(31005) == pytest.approx(plant.pv_w, abs=1)
        meter_w = sum([await peer.number(at, "i16") for at in (31026, 31027, 31028)])
        assert meter_w == pytest.approx(-plant.grid_w, abs=1)
        assert sum([await peer.number(at, "i16") for at in (31029, 31030, 31031)]) == round(plant.load_w)
        assert await peer.number(31036, "i16") == round(plant.battery_w)
        assert await peer.number(31036, "i16") < 0  # PV is being stored
        assert await peer.number(31037, "i16") == pytest.approx(plant.temp_c * 10, abs=1)
        assert await peer.number(31038) == plant.soc_pct
        assert await peer.number(32003, "u32") == round(plant.charged_wh / 100)
        assert await peer.number(32006, "u32") == round(plant.discharged_wh / 100)
        assert await peer.number(32012, "u32") == round(plant.imported_wh / 100)
        assert len(await peer.words(31000, 42)) == 42
        assert await peer.words(31036, fc=4) == [-1]
        assert await peer.words(39000) == [-2]
        plant.reset_counters()
        assert await peer.number(32003, "u32") == 0
    await face.stop()


async def test_face_foxess_h3_setpoint_moves_the_battery_and_release_restores(face: FoxessH3, peer: Peer) -> None:
    before = face.settings()
    go(face, 10)
    soc_pct, import_w = float(face.plant.batteries.true_soc_pct[0]), face.plant.grid_w
    await begin(peer, 3_000)
    go(face, 30)
    assert controlled(face)
    assert face.plant.battery_w == pytest.approx(3_000, abs=20)
    assert face.plant.grid_w < import_w
    assert face.plant.batteries.true_soc_pct[0] < soc_pct
    await peer.put32(44002, -2_000)
    go(face, 30)
    assert face.plant.battery_w == pytest.approx(-2_000, abs=20)
    await peer.set(44000, 0)
    await peer.set(41000, 0)
    assert not controlled(face)
    assert face.settings() == before


async def test_face_foxess_h3_setpoint_with_pv_is_ac_power() -> None:
    face = FoxessH3(make_plant(pv_peak_w=6_000.0, time_s=NOON_S))
    async with peer_of(await face.start(), 247) as peer:
        go(face, 5)
        await begin(peer, 1_000)
        go(face, 30)
        assert face.plant.battery_w + face.plant.pv_w == pytest.approx(1_000, abs=100)
    await face.stop()


async def test_face_foxess_h3_silent_controller_ends_in_the_work_mode(face: FoxessH3, peer: Peer) -> None:
    await begin(peer, 3_000, timeout_s=60)
    go(face, 50)
    assert await peer.put32(44002, 3_000) == 0  # the same value again restarts the timer
    go(face, 55)
    assert controlled(face)
    go(face, 10)
    assert not controlled(face)
    assert await peer.number(44000) == 0
    assert await peer.number(41000) == 1  # the fallback stays until someone puts it back
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(face.plant.load_w, rel=0.2)


async def test_face_foxess_h3_refuses_and_respects(face: FoxessH3, peer: Peer) -> None:
    assert await peer.put(44000, 1, 60) == -2  # enable and time-out must not be combined
    assert not controlled(face)
    assert await peer.set(41000, 9) == -3
    assert await peer.set(41009, 5) == -3
    assert await peer.set(31036, 1) == -2
    assert await peer.set(41011, 35) == 0
    assert face.plant.reserve_pct == 35
    assert await peer.set(44000, 1, unit=1) == -11


async def test_face_foxess_h3_reserve_holds_only_in_its_own_mode() -> None:
    face = FoxessH3(make_plant(soc_start_pct=21.0, reserve_pct=30.0))
    async with peer_of(await face.start(), 247) as peer:
        go(face, 20)
        assert face.plant.battery_w <= 0
        await begin(peer, 2_000)
        go(face, 20)
        assert face.plant.battery_w > 1_500
        await peer.set(44000, 0)
        go(face, 20)
        assert face.plant.battery_w <= 1
    await face.stop()


async def test_face_foxess_h3_reboot_forgets_remote_control_only(face: FoxessH3, peer: Peer) -> None:
    await begin(peer, 3_000, fallback=2)
    face.reboot()
    assert not controlled(face)
    assert face.active_power_w == 0
    assert face.settings()["work_mode"] == 2


async def test_face_foxess_h3_reboot_after_writes_takes_effect_unanswered(face: FoxessH3, peer: Peer) -> None:
    face.reboot_after_writes(2)
    assert await peer.set(41000, 1) == 0
    with pytest.raises(ModbusException):
        await peer.set(41011, 40)
    assert face.settings() == {"work_mode": 1, "min_soc": 20, "max_soc": 100, "min_soc_on_grid": 40}


async def test_face_foxess_h3_overwrite_returns_to_self_use(face: FoxessH3, peer: Peer) -> None:
    await begin(peer, 3_000)
    face.overwrite()
    assert not controlled(face)
    assert await peer.number(41000) == 0


@pytest.mark.parametrize("trouble", [Trouble.SILENT, Trouble.DISCONNECT, Trouble.GARBAGE])
async def test_face_foxess_h3_trouble_gives_no_answer(face: FoxessH3, trouble: Trouble) -> None:
    face.trouble = trouble
    async with peer_of(await face.start(), 247, timeout_s=0.2) as peer:
        with pytest.raises(ModbusException):
            await peer.words(31036)


async def test_face_foxess_h3_busy_and_refusing_say_so(face: FoxessH3, peer: Peer) -> None:
    face.trouble = Trouble.BUSY
    assert await peer.words(31036) == [-6]
    face.trouble = Trouble.REFUSE
    assert await peer.set(41011, 40) == -3
    assert face.settings()["min_soc_on_grid"] == 20

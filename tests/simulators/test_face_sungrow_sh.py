"""The simulated Sungrow SH, by plain Modbus calls: no client library of its own is published that controls it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from pymodbus.exceptions import ModbusException

import simulators.faces.sungrow_sh as product
from simulators.faces.plant import Face, Trouble
from simulators.faces.sungrow_sh import SungrowSh
from tests.scenes.register_faces import NOON_S, Peer, controlled, go, make_plant, peer_of


@pytest.fixture
async def face() -> AsyncIterator[SungrowSh]:
    inverter = SungrowSh(make_plant(), stale_s=0.0)
    yield inverter
    await inverter.stop()


@pytest.fixture
async def peer(face: SungrowSh) -> AsyncIterator[Peer]:
    async with peer_of(await face.start(), 1) as client:
        yield client


@dataclass
class Inputs:
    """Input registers; 32 bits are least significant word first."""

    peer: Peer

    async def u16(self, address: int) -> int:
        return await self.peer.number(address, fc=4)

    async def i16(self, address: int) -> int:
        return await self.peer.number(address, "i16", fc=4)

    async def u32(self, address: int) -> int:
        low, high = await self.peer.words(address, 2, fc=4)
        return high << 16 | low

    async def i32(self, address: int) -> int:
        value = await self.u32(address)
        return value - (1 << 32) if value >> 31 else value


async def command(peer: Peer, power_w: int, *, mode: int) -> None:
    """+ = discharge; the order in which published clients write."""
    assert await peer.set(13049, mode) == 0
    if mode == product.EXTERNAL:
        assert await peer.set(13079, 20) == 0
    kind = product.DISCHARGE if power_w > 0 else product.CHARGE if power_w < 0 else product.STOP
    assert await peer.set(13050, kind) == 0
    assert await peer.set(13051, abs(power_w)) == 0


def test_face_sungrow_fits_the_protocol(face: SungrowSh) -> None:
    inverter: Face = face
    assert inverter.profile == "sungrow-sh"
    assert not inverter.controlled


@pytest.mark.parametrize("time_s", [NOON_S, 64_800.0])
async def test_face_sungrow_read_tells_the_truth(time_s: float) -> None:
    face = SungrowSh(make_plant(pv_peak_w=6_000.0, time_s=time_s))
    connection = await face.start()
    go(face, 60)
    plant = face.plant
    async with peer_of(connection, 1) as peer:
        inputs = Inputs(peer)
        assert await peer.text(4989, 10, fc=4) == face.serial
        assert await inputs.u16(4999) == 0x0E03
        assert await inputs.u16(5000) == await inputs.u16(5627) == 50
        assert await inputs.u32(5016) == round(plant.pv_w)
        assert await inputs.i32(5213) == await inputs.i16(13021) == round(plant.battery_w)
        assert (await inputs.u16(13000) >> 1 & 0b11) == (1 if plant.battery_w < 0 else 2)
        assert await inputs.i16(5630) == round(plant.battery_w / product.PACK_V * 10)
        assert await inputs.u16(5638) * 10 == plant.capacity_wh
        assert await inputs.u16(5635) == round(plant.discharge_limit_w / product.PACK_V)
        assert await inputs.i32(13007) == round(plant.load_w)
        assert await inputs.i32(13009) == round(-plant.grid_w)
        assert await inputs.i32(13033) == round(plant.pv_w + plant.battery_w)
        assert await inputs.u16(13022) == plant.soc_pct * 10
        assert await inputs.i16(13024) == pytest.approx(plant.temp_c * 10, abs=1)
        assert await inputs.u32(13002) == round(plant.pv_wh / 100)
        assert await inputs.u32(13026) == round(plant.discharged_wh / 100)
        assert await inputs.u32(13040) == round(plant.charged_wh / 100)
        assert await inputs.u32(13036) == round(plant.imported_wh / 100)
        assert await inputs.u32(13045) == round(plant.exported_wh / 100)
        assert await inputs.i32(5600) == 0x7FFFFFFF  # no meter of its own
        plant.reset_counters()
        assert await inputs.u32(13040) == 0
    await face.stop()


async def test_face_sungrow_older_firmware_reports_magnitudes() -> None:
    face = SungrowSh(make_plant(pv_peak_w=6_000.0, time_s=NOON_S), legacy=True, meter=True)
    async with peer_of(await face.start(), 1) as peer:
        go(face, 60)
        inputs = Inputs(peer)
        assert face.plant.battery_w < 0
        assert await inputs.i16(13021) == round(-face.plant.battery_w)
        assert await inputs.i16(13020) > 0
        assert await inputs.u16(13000) & 0b10
        assert await peer.words(5213, 2, fc=4) == [-2]
        assert await inputs.i32(5600) == round(face.plant.grid_w)
    await face.stop()


@pytest.mark.parametrize("mode", [product.FORCED, product.EXTERNAL])
async def test_face_sungrow_command_moves_the_battery_and_release_restores(
    face: SungrowSh, peer: Peer, mode: int
) -> None:
    before = face.settings()
    go(face, 10)
    soc_pct, import_w = float(face.plant.batteries.true_soc_pct[0]), face.plant.grid_w
    await command(peer, 3_000, mode=mode)
    go(face, 15)
    assert controlled(face)
    assert await Inputs(peer).u16(12999) == (0x0800 if mode == product.FORCED else 0x4000)
    assert face.plant.battery_w == pytest.approx(3_000, abs=20)
    assert face.plant.grid_w < import_w
    assert face.plant.batteries.true_soc_pct[0] < soc_pct
    await command(peer, -2_000, mode=mode)
    go(face, 15)
    assert face.plant.battery_w == pytest.approx(-2_000, abs=20)
    await command(peer, 0, mode=mode)
    go(face, 15)
    assert face.plant.battery_w == pytest.approx(0, abs=5)
    await peer.set(13050, product.STOP)
    await peer.set(13049, product.SELF_CONSUMPTION)
    assert not controlled(face)
    assert face.settings() == before


async def test_face_sungrow_forced_mode_is_followed_for_ever(face: SungrowSh, peer: Peer) -> None:
    await command(peer, 1_000, mode=product.FORCED)
    go(face, 3_600, dt_s=5)
    face.reboot()
    go(face, 20)
    assert controlled(face)
    assert face.plant.battery_w == pytest.approx(1_000, abs=20)


async def test_face_sungrow_heartbeat_counts_down_to_self_consumption(face: SungrowSh, peer: Peer) -> None:
    await command(peer, 3_000, mode=product.EXTERNAL)
    go(face, 15)
    assert await peer.number(13079) == 5
    assert await peer.set(13079, 20) == 0
    go(face, 19)
    assert controlled(face)
    await peer.set(13051, 2_500)  # a setpoint is no heartbeat
    go(face, 2)
    assert not controlled(face)
    assert await peer.number(13049) == 0
    assert await peer.number(13079) == 0
    assert await peer.words(13050, 2) == [product.DISCHARGE, 2_500]
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(face.plant.load_w, rel=0.2)


async def test_face_sungrow_external_mode_without_heartbeat_ends_soon(face: SungrowSh, peer: Peer) -> None:
    await peer.set(13049, product.EXTERNAL)
    go(face, 25)
    assert controlled(face)
    go(face, 10)
    assert not controlled(face)


async def test_face_sungrow_reserve_holds_only_in_its_own_mode() -> None:
    face = SungrowSh(make_plant(soc_start_pct=21.0, reserve_pct=30.0), stale_s=0.0)
    async with peer_of(await face.start(), 1) as peer:
        go(face, 20)
        assert face.plant.battery_w <= 0
        await command(peer, 2_000, mode=product.FORCED)
        go(face, 20)
        assert face.plant.battery_w > 1_500
        await peer.set(13049, 0)
        assert await peer.set(13099, 10) == 0
        assert face.plant.reserve_pct == 10
        assert await peer.set(13058, 150) == 0
        assert face.plant.reserve_pct == 15
    await face.stop()


async def test_face_sungrow_limits_hold_in_every_mode(face: SungrowSh, peer: Peer) -> None:
    assert await peer.set(33047, 1) == 0
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(10, abs=5)
    await command(peer, 3_000, mode=product.FORCED)
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(10, abs=5)
    await peer.set(33047, 500)
    await peer.set(13073, 0)
    await peer.set(13086, product.ON)
    go(face, 60)
    assert face.plant.grid_w == pytest.approx(0, abs=60)


async def test_face_sungrow_read_back_is_stale_for_a_while() -> None:
    face = SungrowSh(make_plant(), stale_s=60.0)
    async with peer_of(await face.start(), 1) as peer:
        await peer.set(13049, product.FORCED)
        assert controlled(face)
        assert await peer.number(13049) == 0
        face.reboot()
    await face.stop()


async def test_face_sungrow_refuses_what_does_not_exist(face: SungrowSh, peer: Peer) -> None:
    for address, value in ((13049, 1), (13050, 1), (13051, 5_001), (13058, 501), (33047, 0), (13079, 1_001)):
        assert await peer.set(address, value) == -4
    assert await peer.set(13022, 1) == -2
    assert await peer.words(13022) == [-2]
    assert await peer.words(13049, fc=4) == [0]  # an input register of another meaning
    assert await peer.words(13100, fc=4) == [-2]
    assert await peer.words(13022, fc=4, unit=2) == [-11]
    assert not controlled(face)


async def test_face_sungrow_hasty_requests_are_counted() -> None:
    face = SungrowSh(make_plant(), spacing_s=60.0)
    async with peer_of(await face.start(), 1) as peer:
        await peer.number(13022, fc=4)
        assert face.spacing_violations == 0
        await peer.number(13022, fc=4)
        assert face.spacing_violations == 1
    await face.stop()


async def test_face_sungrow_overwrite_returns_to_self_consumption(face: SungrowSh, peer: Peer) -> None:
    await command(peer, 3_000, mode=product.FORCED)
    face.overwrite()
    assert not controlled(face)
    assert await peer.words(13049, 2) == [0, product.STOP]


async def test_face_sungrow_reboot_after_writes_takes_effect_unanswered(face: SungrowSh, peer: Peer) -> None:
    face.reboot_after_writes(1)
    with pytest.raises(ModbusException):
        await peer.set(13049, product.EXTERNAL)
    assert controlled(face)
    go(face, 31)
    assert not controlled(face)


@pytest.mark.parametrize("trouble", [Trouble.SILENT, Trouble.DISCONNECT, Trouble.GARBAGE])
async def test_face_sungrow_trouble_gives_no_answer(face: SungrowSh, trouble: Trouble) -> None:
    face.trouble = trouble
    async with peer_of(await face.start(), 1, timeout_s=0.2) as peer:
        with pytest.raises(ModbusException):
            await peer.words(13022, fc=4)


async def test_face_sungrow_busy_and_refusing_say_so(face: SungrowSh, peer: Peer) -> None:
    face.trouble = Trouble.BUSY
    assert await peer.words(13022, fc=4) == [-4]
    face.trouble = Trouble.REFUSE
    assert await peer.set(13049, product.FORCED) == -4
    assert not controlled(face)

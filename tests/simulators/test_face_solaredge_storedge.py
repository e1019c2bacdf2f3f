"""The SolarEdge StorEdge face: SunSpec asked by pysunspec2, the rest by plain Modbus as the maker's table says."""

import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymodbus.client import AsyncModbusTcpClient

from simulators.faces.plant import Trouble
from simulators.faces.solaredge_storedge import SolarEdgeStorEdge
from tests.scenes import register_faces
from tests.scenes.faces import Bench, Peer, home
from tests.scenes.register_faces import NOON_S, controlled, peer_of


def face(plant: Any, **settings: Any) -> SolarEdgeStorEdge:
    return SolarEdgeStorEdge(plant, **({"reopen_s": 0.0} | settings))


@pytest.fixture
async def bench() -> AsyncIterator[Bench[SolarEdgeStorEdge]]:
    batteries, plant = home(pv_peak_w=6_000.0, soc_start_pct=50.0, time_s=NOON_S)
    async with Bench(batteries, face(plant)) as running:
        yield running


@pytest.fixture
async def storage(bench: Bench[SolarEdgeStorEdge]) -> AsyncIterator["Storage"]:
    async with peer_of(bench.connection, 1) as peer:
        yield Storage(peer)


class Storage:
    """The proprietary block: least significant word first."""

    def __init__(self, peer: register_faces.Peer) -> None:
        self.peer = peer

    async def f32(self, address: int) -> float:
        low, high = await self.peer.words(address, 2)
        return float(struct.unpack(">f", struct.pack(">HH", high, low))[0])

    async def whole(self, address: int, count: int) -> int:
        words = await self.peer.words(address, count)
        return sum(word << 16 * i for i, word in enumerate(words))

    async def put_f32(self, address: int, value: float) -> int:
        high, low = struct.unpack(">HH", struct.pack(">f", value))
        return await self.peer.put(address, low, high)

    async def put_u32(self, address: int, value: int) -> int:
        return await self.peer.put(address, value & 0xFFFF, value >> 16)

    async def remote(self, mode: int, limit_w: float, *, timeout_s: int = 60, default: int = 7) -> None:
        """The maker's procedure: once the mode, then time-out, limit and command."""
        for address, value in ((0xE004, 4), (0xE005, 1), (0xE00A, default)):
            assert await self.peer.set(address, value) == 0
        assert await self.put_u32(0xE00B, timeout_s) == 0
        assert await self.put_f32(0xE010 if mode == 4 else 0xE00E, limit_w) == 0
        assert await self.peer.set(0xE00D, mode) == 0


async def test_solaredge_storedge_scan_finds_inverter_and_meter(bench: Bench[SolarEdgeStorEdge]) -> None:
    bench.go(120)
    peer = await Peer.scan(bench, 1)
    models = [(model.model_id, model.model_addr) for model in peer.device.model_list]
    assert models == [(1, 40_002), (103, 40_069), (1, 40_121), (203, 40_188)]
    plant = bench.plant
    assert (peer.text(1, "Mn"), peer.text(1, "SN")) == ("SolarEdge", plant.id)
    assert peer.text(1, "Opt", at=1) == "Export+Import"
    assert plant.pv_w > 500
    assert peer.value(103, "W") == pytest.approx(plant.pv_w + plant.battery_w, abs=1)
    assert peer.value(103, "TmpCab") == pytest.approx(plant.temp_c, abs=0.01)
    assert peer.value(203, "W") == pytest.approx(-plant.grid_w, abs=1)
    assert peer.counter(203, "TotWhImp") == pytest.approx(plant.imported_wh, abs=1)
    assert peer.counter(203, "TotWhExp") == pytest.approx(plant.exported_wh, abs=1)


async def test_solaredge_storedge_factors_are_0_while_it_sleeps_and_finer_with_little_power() -> None:
    batteries, plant = home(time_s=0.0, soc_start_pct=20.0, reserve_pct=20.0)
    async with Bench(batteries, face(plant)) as bench, peer_of(bench.connection, 1) as peer:
        storage = Storage(peer)
        for setpoint_w, factor in ((0, 0), (100, -2), (3_000, -1), (5_000, 0)):
            await storage.remote(4, setpoint_w)
            bench.go(30)
            assert plant.battery_w == pytest.approx(setpoint_w, abs=1)
            power, found = await peer.words(40_083, 2)
            assert (found, _signed(found)) == (factor & 0xFFFF, factor)
            assert power * 10.0**factor == pytest.approx(plant.battery_w, abs=1)
            meter = await peer.words(40_206, 5)
            assert _signed(meter[0]) * 10.0 ** _signed(meter[4]) == pytest.approx(-plant.grid_w, abs=1)
            assert abs(_signed(meter[0])) > 3_000 or _signed(meter[4]) == -2


def _signed(word: int) -> int:
    return word - 0x10000 if word & 0x8000 else word


async def test_solaredge_storedge_meter_asleep_says_nothing_and_wakes_as_it_was(
    bench: Bench[SolarEdgeStorEdge],
) -> None:
    bench.go(30)
    peer = await Peer.scan(bench, 1)
    assert peer.value(203, "W") == pytest.approx(-bench.plant.grid_w, abs=1)
    bench.face.meter_asleep = True
    peer = await Peer.scan(bench, 1)
    assert [model.model_id for model in peer.device.model_list] == [1, 103, 1, 203]
    points = peer.device.models[203][0].points
    assert {points[name].value for name in ("W", "W_SF", "A", "PhV", "Hz_SF", "TotWhImp")} <= {None, 0}
    assert points["W"].value is None
    bench.face.meter_asleep = False
    peer = await Peer.scan(bench, 1)
    assert peer.value(203, "W") == pytest.approx(-bench.plant.grid_w, abs=1)
    assert peer.value(203, "PhV") == 230


async def test_solaredge_storedge_battery_block_equals_the_plant(
    bench: Bench[SolarEdgeStorEdge], storage: Storage
) -> None:
    await storage.remote(3, 2_000)
    bench.go(30)
    plant = bench.plant
    assert plant.battery_w == pytest.approx(-2_000, abs=1)
    assert await storage.f32(0xE174) == pytest.approx(2_000, abs=1)
    assert await storage.f32(0xE142) == 10_000
    assert (await storage.f32(0xE144), await storage.f32(0xE146)) == (5_000, 5_000)
    assert await storage.f32(0xE184) == plant.soc_pct
    assert await storage.f32(0xE16C) == pytest.approx(plant.temp_c, abs=0.01)
    assert await storage.whole(0xE176, 4) == round(plant.discharged_wh)
    assert await storage.whole(0xE17A, 4) == round(plant.charged_wh)
    assert await storage.whole(0xE186, 2) == 3
    assert await storage.peer.text(0xE100, 16) == "SolarEdge"
    assert len(await storage.peer.words(0xE140, 0x4C)) == 0x4C


@pytest.mark.parametrize(
    ("mode", "limit_w", "expected_w"), [(3, 2_000, -2_000), (4, 1_500, 1_500), (4, 0, 0), (0, 100, 0)]
)
async def test_solaredge_storedge_command_moves_the_battery(
    bench: Bench[SolarEdgeStorEdge], storage: Storage, mode: int, limit_w: float, expected_w: float
) -> None:
    await storage.remote(mode, limit_w)
    bench.go(30)
    assert controlled(bench.face)
    assert bench.plant.battery_w == pytest.approx(expected_w, abs=1)


async def test_solaredge_storedge_pv_modes_never_discharge(bench: Bench[SolarEdgeStorEdge], storage: Storage) -> None:
    bench.go(1)
    for mode, expected_w in (
        (1, min(bench.plant.home_w(), 0.0)),
        (2, -bench.plant.pv_w),
    ):
        await storage.remote(mode, 5_000)
        bench.go(30)
        assert bench.plant.battery_w == pytest.approx(expected_w, rel=0.2)


async def test_solaredge_storedge_ac_charge_policy_off_charges_from_pv_only() -> None:
    batteries, plant = home()
    async with Bench(batteries, face(plant)) as bench, peer_of(bench.connection, 1) as peer:
        storage = Storage(peer)
        await storage.remote(3, 2_000)
        await peer.set(0xE005, 0)
        bench.go(30)
        assert plant.battery_w == pytest.approx(0, abs=1)


@pytest.mark.parametrize("default", [1, 7])
async def test_solaredge_storedge_timeout_falls_to_the_default_mode(default: int) -> None:
    batteries, plant = home()
    async with Bench(batteries, face(plant)) as bench, peer_of(bench.connection, 1) as peer:
        storage = Storage(peer)
        await storage.remote(4, 3_000, timeout_s=60, default=default)
        bench.go(50)
        await storage.put_f32(0xE010, 3_000)
        bench.go(59)
        assert controlled(bench.face)
        bench.go(2)
        assert not controlled(bench.face)
        assert await peer.words(0xE00D) == [default]
        bench.go(30)
        assert plant.battery_w == pytest.approx(plant.home_w() if default == 7 else 0, abs=20)


async def test_solaredge_storedge_command_reads_back_late(bench: Bench[SolarEdgeStorEdge], storage: Storage) -> None:
    await storage.remote(4, 1_000)
    assert await storage.peer.words(0xE00D) == [7]
    bench.go(3)
    assert await storage.peer.words(0xE00D) == [4]


async def test_solaredge_storedge_mirror_is_the_same_block(bench: Bench[SolarEdgeStorEdge], storage: Storage) -> None:
    assert await storage.peer.set(0xF704, 4) == 0
    assert await storage.put_u32(0xF70B, 77) == 0
    assert await storage.peer.words(0xE004, 14) == await storage.peer.words(0xF704, 14)
    assert bench.face.settings()["CommandTimeout"] == 77


async def test_solaredge_storedge_one_request_carries_the_whole_command(
    bench: Bench[SolarEdgeStorEdge], storage: Storage
) -> None:
    await storage.remote(4, 1_000)
    high, low = struct.unpack(">HH", struct.pack(">f", 2_500.0))
    assert await storage.peer.put(0xE00B, 60, 0, 4, low, high, low, high) == 0
    bench.go(30)
    assert bench.plant.battery_w == pytest.approx(2_500, abs=1)


async def test_solaredge_storedge_without_advanced_control_nothing_moves() -> None:
    batteries, plant = home()
    installed = face(plant, advanced_power_control=False)
    async with Bench(batteries, installed) as bench, peer_of(bench.connection, 1) as peer:
        storage = Storage(peer)
        await storage.remote(4, 3_000)
        bench.go(30)
        assert not controlled(bench.face)
        assert plant.battery_w == pytest.approx(plant.home_w(), abs=20)
        assert (await storage.put_u32(0xF142, 1), await storage.put_u32(0xF104, 4)) == (0, 0)
        assert await peer.set(0xF100, 1) == 0
        assert await peer.set(0xE00D, 4) == -6
        bench.go(7)
        assert await peer.set(0xE00D, 4) == 0
        bench.go(30)
        assert plant.battery_w == pytest.approx(3_000, abs=1)


async def test_solaredge_storedge_reboot_before_commit_loses_it() -> None:
    batteries, plant = home()
    async with Bench(batteries, face(plant, advanced_power_control=False)) as bench:
        async with peer_of(bench.connection, 1) as peer:
            await Storage(peer).put_u32(0xF142, 1)
        bench.face.reboot()
        assert bench.face.settings()["AdvancedPwrControlEn"] == 0


async def test_solaredge_storedge_out_of_range_refused(bench: Bench[SolarEdgeStorEdge], storage: Storage) -> None:
    assert await storage.peer.set(0xE004, 6) == -3
    assert await storage.peer.set(0xE00D, 6) == -3
    assert await storage.put_u32(0xE00B, 86_401) == -3
    assert await storage.put_f32(0xE00E, -1) == -3
    assert await storage.peer.set(0xE00E, 1) == -2
    assert await storage.put_f32(0xE174, 1) == -2
    assert await storage.peer.words(0xE014) == [-2]


async def test_solaredge_storedge_without_meter_meter_modes_refused() -> None:
    batteries, plant = home()
    async with Bench(batteries, face(plant, has_meter=False)) as bench, peer_of(bench.connection, 1) as peer:
        assert [await peer.set(0xE00D, mode) for mode in (5, 7)] == [-3, -3]


async def test_solaredge_storedge_backup_reserve_needs_the_hardware() -> None:
    batteries, plant = home()
    for capable, code, reserve_pct in ((True, 0, 44), (False, -3, 44)):
        installed = face(plant, backup_capable=capable)
        async with Bench(batteries, installed) as bench, peer_of(bench.connection, 1) as peer:
            storage = Storage(peer)
            assert await storage.put_f32(0xE008, 44 if capable else 55) == code
            assert plant.reserve_pct == reserve_pct
            assert (await storage.f32(0xE008) == 44) is capable


async def test_solaredge_storedge_asleep_battery_shows_the_sentinel(
    bench: Bench[SolarEdgeStorEdge], storage: Storage
) -> None:
    bench.face.battery_asleep = True
    assert await storage.peer.words(0xE174, 2) == [0xFFFF, 0xFF7F]


async def test_solaredge_storedge_release_restores_the_settings(
    bench: Bench[SolarEdgeStorEdge], storage: Storage
) -> None:
    before = bench.face.settings()
    await storage.remote(4, 1_000)
    bench.go(10)
    for address, value in ((0xE00D, 7), (0xE004, 1), (0xE005, 0), (0xE00A, 1)):
        await storage.peer.set(address, value)
    await storage.put_u32(0xE00B, 3_600)
    await storage.put_f32(0xE010, 5_000)
    bench.go(1)
    assert (bench.face.settings(), controlled(bench.face)) == (before, False)


async def test_solaredge_storedge_reboot_keeps_the_command(bench: Bench[SolarEdgeStorEdge], storage: Storage) -> None:
    await storage.remote(4, 1_000, timeout_s=60)
    bench.go(50)
    bench.face.reboot()
    bench.go(50)
    assert controlled(bench.face)
    bench.go(11)
    assert not controlled(bench.face)


async def test_solaredge_storedge_reboot_mid_sequence_leaves_no_half_command(
    bench: Bench[SolarEdgeStorEdge], storage: Storage
) -> None:
    bench.face.reboot_after_writes(5)
    with pytest.raises(Exception, match=r"odbus|onnect"):
        await storage.remote(3, 5_000)
    bench.go(30)
    assert not controlled(bench.face)


async def test_solaredge_storedge_overwrite_ends_control(bench: Bench[SolarEdgeStorEdge], storage: Storage) -> None:
    await storage.remote(4, 1_000)
    bench.face.overwrite()
    bench.go(1)
    assert not controlled(bench.face)
    assert not bench.plant.remote


async def test_solaredge_storedge_second_client_is_turned_away(
    bench: Bench[SolarEdgeStorEdge], storage: Storage
) -> None:
    assert await storage.peer.words(0xE004) == [1]
    second = AsyncModbusTcpClient("127.0.0.1", port=bench.port, timeout=2, retries=0, reconnect_delay=0)
    await second.connect()
    with pytest.raises(Exception, match=r"odbus|onnect"):
        await second.read_holding_registers(0xE004, count=1, device_id=1)
    second.close()
    assert bench.face.server.refused_clients == 1
    assert await storage.peer.words(0xE004) == [1]


async def test_solaredge_storedge_soon_after_a_client_none_is_taken() -> None:
    batteries, plant = home()
    async with Bench(batteries, face(plant, reopen_s=3_600.0)) as bench:
        async with peer_of(bench.connection, 1) as peer:
            assert await peer.words(0xE004) == [1]
            bench.face.server.drop_all()
        async with peer_of(bench.connection, 1) as peer:
            with pytest.raises(Exception, match=r"odbus|onnect"):
                await peer.words(0xE004)


async def test_solaredge_storedge_trouble_busy_is_an_exception(
    bench: Bench[SolarEdgeStorEdge], storage: Storage
) -> None:
    bench.face.trouble = Trouble.BUSY
    assert await storage.peer.words(0xE004) == [-6]
    assert await storage.peer.set(0xE004, 4) == -6


@pytest.mark.parametrize(("batteries", "at"), [(2, (0xE100, 0xE200)), (3, (0xE100, 0xE200, 0xE400))])
async def test_solaredge_storedge_batteries_together_are_the_plant(batteries: int, at: tuple[int, ...]) -> None:
    simulated, plant = home(soc_start_pct=50.0, load_base_w=2_000.0)
    async with Bench(simulated, face(plant, batteries=batteries)) as bench, peer_of(bench.connection, 1) as peer:
        bench.go(600)
        storage = Storage(peer)
        powers = [await storage.f32(base + 0x74) for base in at]
        energies = [await storage.f32(base + 0x80) for base in at]
        assert abs(plant.battery_w) > 500
        assert sum(powers) == pytest.approx(-plant.battery_w, abs=0.1)
        assert sum(energies) == pytest.approx(plant.capacity_wh * plant.soc_pct / 100, rel=1e-4)
        assert len({await storage.f32(base + 0x84) for base in at}) == batteries
        assert sum([await storage.whole(base + 0x76, 4) for base in at]) == pytest.approx(plant.discharged_wh, abs=2)
        assert await peer.words(0xE442 if batteries == 2 else 0xE300, 2) == [-2]

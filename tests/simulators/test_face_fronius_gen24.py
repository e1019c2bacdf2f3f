"""The Fronius GEN24 face, asked by pysunspec2."""

import math
from collections.abc import AsyncIterator

import pytest

from simulators.faces.fronius_gen24 import FroniusGen24
from simulators.faces.plant import Trouble
from tests.scenes.faces import Bench, Peer, home
from tests.scenes.register_faces import NOON_S, controlled


@pytest.fixture
async def bench() -> AsyncIterator[Bench[FroniusGen24]]:
    batteries, plant = home()
    async with Bench(batteries, FroniusGen24(plant)) as running:
        yield running


async def command(peer: Peer, percent: float, *, timer_s: int = 60) -> None:
    """Both limits at one power, + = discharge; the limits and the timer before the mode."""
    await peer.write(124, OutWRte=percent, InWRte=-percent, InOutWRte_RvrtTms=timer_s, ChaGriSet=1)
    await peer.write(124, StorCtl_Mod=3)


async def test_fronius_gen24_scan_finds_the_chain_and_the_meter(bench: Bench[FroniusGen24]) -> None:
    peer = await Peer.scan(bench, 1)
    assert {model.model_id: model.model_addr for model in peer.device.model_list} == {
        1: 40_002,
        103: 40_069,
        120: 40_121,
        121: 40_149,
        122: 40_181,
        123: 40_227,
        160: 40_253,
        124: 40_343,
    }
    assert (peer.text(1, "Mn"), peer.text(1, "SN")) == ("Fronius", bench.plant.id)
    meter = await Peer.scan(bench, bench.connection.units["meter"])
    assert [model.model_id for model in meter.device.model_list] == [1, 203]


@pytest.mark.parametrize("percent", [-40, 0, 60])
async def test_fronius_gen24_telemetry_equals_the_plant(percent: float) -> None:
    batteries, plant = home(pv_peak_w=6_000.0, soc_start_pct=50.0, time_s=NOON_S)
    async with Bench(batteries, FroniusGen24(plant)) as bench:
        peer, meter = await Peer.scan(bench, 1), await Peer.scan(bench, 200)
        await command(peer, percent)
        bench.go(30)
        await peer.read(103, 124, 160)
        await meter.read(203)
        modules = [group.points for group in peer.device.models[160][0].groups["module"]]
        watts = [module["DCW"].cvalue for module in modules]
        assert plant.pv_w > 500
        assert watts[3] - watts[2] == pytest.approx(plant.battery_w, abs=1)
        assert plant.battery_w == pytest.approx(percent * 50, abs=2)
        assert watts[0] + watts[1] == pytest.approx(plant.pv_w, abs=1)
        assert modules[2]["DCWH"].cvalue == pytest.approx(plant.charged_wh, abs=1)
        assert modules[3]["DCWH"].cvalue == pytest.approx(plant.discharged_wh, abs=1)
        assert peer.value(103, "W") == pytest.approx(plant.pv_w + plant.battery_w, abs=1)
        assert peer.value(103, "TmpCab") == pytest.approx(plant.temp_c, abs=0.06)
        assert peer.value(124, "ChaState") == pytest.approx(plant.soc_pct, abs=0.01)
        assert peer.value(124, "MinRsvPct") == plant.reserve_pct
        assert meter.value(203, "W") == pytest.approx(plant.grid_w, abs=1)
        assert meter.counter(203, "TotWhImp") == pytest.approx(plant.imported_wh, abs=1)
        assert meter.counter(203, "TotWhExp") == pytest.approx(plant.exported_wh, abs=1)


@pytest.mark.parametrize(("percent", "factor"), [(0, -2), (0.5, -2), (20, -1), (-20, -1), (80, 0)])
async def test_fronius_gen24_power_factor_of_the_modules_moves_with_the_largest(percent: float, factor: int) -> None:
    batteries, plant = home(discharge_w_max=10_000.0, charge_w_max=10_000.0)
    async with Bench(batteries, FroniusGen24(plant)) as bench:
        peer = await Peer.scan(bench, 1)
        await command(peer, percent)
        bench.go(30)
        await peer.read(160)
        modules = [group.points for group in peer.device.models[160][0].groups["module"]]
        assert peer.value(160, "DCW_SF") == factor
        battery_w = modules[3]["DCW"].cvalue - modules[2]["DCW"].cvalue
        assert battery_w == pytest.approx(plant.battery_w, abs=0.6 * 10.0**factor)
        assert plant.battery_w == pytest.approx(percent * 100, abs=5)


async def test_fronius_gen24_sister_with_three_inputs_has_the_battery_in_the_last_two_modules() -> None:
    batteries, plant = home(pv_peak_w=6_000.0, soc_start_pct=50.0, time_s=NOON_S)
    async with Bench(batteries, FroniusGen24(plant, mppts=3, product="Verto 25.0 Plus")) as bench:
        peer = await Peer.scan(bench, 1)
        await command(peer, -40)
        bench.go(30)
        await peer.read(160)
        modules = [group.points for group in peer.device.models[160][0].groups["module"]]
        assert peer.value(160, "N") == len(modules) == 5
        watts = [module["DCW"].cvalue for module in modules]
        assert sum(watts[:3]) == pytest.approx(plant.pv_w, abs=1)
        assert min(watts[:3]) > 0
        assert watts[4] - watts[3] == pytest.approx(plant.battery_w, abs=1)


async def test_fronius_gen24_ratings(bench: Bench[FroniusGen24]) -> None:
    peer = await Peer.scan(bench, 1)
    assert peer.value(120, "DERTyp") == 82
    assert peer.value(120, "WHRtg") == 10_000
    assert (peer.value(120, "MaxChaRte"), peer.value(120, "MaxDisChaRte")) == (5_000, 5_000)
    assert peer.value(124, "WChaMax") == 5_000


async def test_fronius_gen24_negative_discharge_limit_charges_at_least(bench: Bench[FroniusGen24]) -> None:
    peer = await Peer.scan(bench, 1)
    await peer.write(124, OutWRte=-50, ChaGriSet=1)
    await peer.write(124, StorCtl_Mod=2)
    bench.go(30)
    assert bench.plant.battery_w <= -2_490


async def test_fronius_gen24_hold_blocks_discharge(bench: Bench[FroniusGen24]) -> None:
    bench.go(30)
    assert bench.plant.battery_w > 100
    peer = await Peer.scan(bench, 1)
    await peer.write(124, OutWRte=0)
    await peer.write(124, StorCtl_Mod=2)
    bench.go(30)
    assert bench.plant.battery_w <= 1


@pytest.mark.parametrize(("setting", "permitted"), [(0, True), (1, False)])
async def test_fronius_gen24_grid_charge_forbidden_charges_from_pv_only(setting: int, permitted: bool) -> None:
    batteries, plant = home()
    async with Bench(batteries, FroniusGen24(plant, grid_charge_permitted=permitted)) as bench:
        peer = await Peer.scan(bench, 1)
        await peer.write(124, OutWRte=-50, ChaGriSet=setting)
        await peer.write(124, StorCtl_Mod=2)
        bench.go(30)
        assert controlled(bench.face)
        assert plant.battery_w == pytest.approx(0, abs=1)


async def test_fronius_gen24_timer_runs_out_limits_are_off(bench: Bench[FroniusGen24]) -> None:
    peer = await Peer.scan(bench, 1)
    await command(peer, 80, timer_s=60)
    bench.go(40)
    await peer.write(124, OutWRte=80, InWRte=-80)
    bench.go(59)
    assert controlled(bench.face)
    bench.go(2)
    assert not controlled(bench.face)
    await peer.read(124)
    assert (peer.value(124, "StorCtl_Mod"), peer.value(124, "OutWRte"), peer.value(124, "InWRte")) == (0, 100, 100)
    assert peer.value(124, "InOutWRte_RvrtTms") == 60


async def test_fronius_gen24_stale_timer_of_another_controller_ends_control() -> None:
    batteries, plant = home()
    async with Bench(batteries, FroniusGen24(plant, revert_s=300)) as bench:
        peer = await Peer.scan(bench, 1)
        assert peer.value(124, "InOutWRte_RvrtTms") == 300
        await peer.write(124, OutWRte=0)
        await peer.write(124, StorCtl_Mod=2)
        bench.go(302)
        assert not controlled(bench.face)


async def test_fronius_gen24_timer_zero_never_reverts(bench: Bench[FroniusGen24]) -> None:
    peer = await Peer.scan(bench, 1)
    await command(peer, 0, timer_s=0)
    bench.go(36_000, dt_s=60)
    assert controlled(bench.face)


@pytest.mark.parametrize(
    ("points", "code"),
    [
        ({"OutWRte": 100.01}, 3),
        ({"InWRte": -101}, 3),
        ({"InOutWRte_RvrtTms": 28_801}, 3),
        ({"InOutWRte_WinTms": 301}, 3),
        ({"StorCtl_Mod": 4}, 3),
        ({"ChaState": 50}, 2),
        ({"WChaMax": 9_000}, 2),
    ],
)
async def test_fronius_gen24_out_of_range_refused(
    bench: Bench[FroniusGen24], points: dict[str, float], code: int
) -> None:
    peer = await Peer.scan(bench, 1)
    assert await peer.refused(124, **points) == code


async def test_fronius_gen24_release_leaves_timer_and_grid_charge(bench: Bench[FroniusGen24]) -> None:
    before = bench.face.settings()
    peer = await Peer.scan(bench, 1)
    await command(peer, -50)
    bench.go(5)
    await peer.write(124, StorCtl_Mod=0, OutWRte=100, InWRte=100)
    bench.go(1)
    assert not controlled(bench.face)
    changed = {key for key, value in bench.face.settings().items() if value != before[key]}
    assert changed == {"124.InOutWRte_RvrtTms", "124.ChaGriSet"}
    await peer.write(124, InOutWRte_RvrtTms=0, ChaGriSet=0)
    assert bench.face.settings() == before


async def test_fronius_gen24_reserve_is_written(bench: Bench[FroniusGen24]) -> None:
    peer = await Peer.scan(bench, 1)
    await peer.write(124, MinRsvPct=55)
    await peer.read(124)
    assert (bench.plant.reserve_pct, peer.value(124, "MinRsvPct")) == (55, 55)


async def test_fronius_gen24_firmware_without_reserve_ignores_it() -> None:
    batteries, plant = home()
    async with Bench(batteries, FroniusGen24(plant, reserve_works=False)) as bench:
        before_pct = plant.reserve_pct
        peer = await Peer.scan(bench, 1)
        await peer.write(124, MinRsvPct=55)
        await peer.read(124)
        assert math.isnan(peer.value(124, "MinRsvPct"))
        assert plant.reserve_pct == before_pct


async def test_fronius_gen24_reboot_keeps_mode_and_limits(bench: Bench[FroniusGen24]) -> None:
    peer = await Peer.scan(bench, 1)
    await command(peer, 40, timer_s=60)
    bench.go(50)
    bench.face.reboot()
    bench.go(30)
    assert controlled(bench.face)
    assert bench.plant.battery_w == pytest.approx(2_000, abs=1)
    bench.go(31)
    assert not controlled(bench.face)


async def test_fronius_gen24_reboot_between_writes_leaves_the_own_mode(bench: Bench[FroniusGen24]) -> None:
    peer = await Peer.scan(bench, 1)
    bench.face.reboot_after_writes(1)
    with pytest.raises(Exception, match=r"timeout|error"):
        await command(peer, 40)
    assert not controlled(bench.face)


async def test_fronius_gen24_forced_discharge_passes_the_reserve() -> None:
    batteries, plant = home(soc_start_pct=25.0, reserve_pct=30.0)
    async with Bench(batteries, FroniusGen24(plant)) as bench:
        bench.go(30)
        assert plant.battery_w <= 0
        await command(await Peer.scan(bench, 1), 50)
        bench.go(30)
        assert plant.battery_w == pytest.approx(2_500, abs=1)


async def test_fronius_gen24_overwrite_ends_control(bench: Bench[FroniusGen24]) -> None:
    peer = await Peer.scan(bench, 1)
    await command(peer, 40)
    bench.face.overwrite()
    bench.go(1)
    assert not controlled(bench.face)


async def test_fronius_gen24_trouble_refuse_keeps_telemetry(bench: Bench[FroniusGen24]) -> None:
    bench.face.trouble = Trouble.REFUSE
    peer = await Peer.scan(bench, 1)
    assert await peer.refused(124, StorCtl_Mod=1) == 3

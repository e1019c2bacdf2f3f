"""The SunSpec DER face, asked by pysunspec2."""

from collections.abc import AsyncIterator

import pytest
from sunspec2.modbus.client import SunSpecModbusClientError

from simulators.faces.plant import Trouble
from simulators.faces.sunspec_der import SunSpecDer
from tests.scenes.faces import Bench, Peer, home


@pytest.fixture
async def bench() -> AsyncIterator[Bench[SunSpecDer]]:
    batteries, plant = home(capacity_wh=10_000.0, discharge_w_max=5_000.0, charge_w_max=5_000.0)
    face = SunSpecDer(plant)
    async with Bench(batteries, face) as running:
        yield running


async def scanned(bench: Bench[SunSpecDer]) -> Peer:
    return await Peer.scan(bench, 1)


async def command(peer: Peer, watts: float, *, timer_s: int = 60) -> None:
    """The dispatch of the standard: mode, fallback, timer, setpoint, enable."""
    await peer.write(704, WSetMod=1, WSetEnaRvrt=0, WSetRvrtTms=timer_s)
    await peer.write(704, WSet=watts)
    await peer.write(704, WSetEna=1)


async def test_sunspec_der_scan_finds_every_model_without_error(bench: Bench[SunSpecDer]) -> None:
    peer = await scanned(bench)
    assert [model.model_id for model in peer.device.model_list] == [1, 701, 702, 703, 704, 713, 714, 715]
    assert [model.error_info for model in peer.device.model_list] == [""] * 8
    assert peer.text(1, "Mn") == "Example Storage"
    assert peer.text(1, "SN") == bench.plant.id


async def test_sunspec_der_telemetry_equals_the_plant(bench: Bench[SunSpecDer]) -> None:
    peer = await scanned(bench)
    await command(peer, -2_000)
    bench.go(20)
    bench.face.alarms = 4
    await peer.read(701, 702, 713, 714)
    plant = bench.plant
    assert plant.battery_w < -1_900
    assert peer.value(701, "W") == pytest.approx(plant.battery_w, abs=0.6)
    assert peer.value(701, "TmpCab") == pytest.approx(plant.temp_c, abs=0.06)
    assert peer.value(701, "TotWhInj") == pytest.approx(plant.discharged_wh, abs=0.6)
    assert peer.value(701, "TotWhAbs") == pytest.approx(plant.charged_wh, abs=0.6)
    assert peer.value(702, "WDisChaRteMaxRtg") == 5_000
    assert peer.value(713, "WHRtg") == 10_000
    assert peer.value(713, "SoC") == pytest.approx(plant.soc_pct, abs=0.06)
    port = peer.device.models[714][0].groups["Prt"][0].points
    assert port["DCW"].cvalue == pytest.approx(plant.battery_w, abs=0.6)
    assert port["PrtTyp"].value == 1
    assert (peer.value(701, "Alrm"), peer.value(713, "Sta")) == (4, 2)


@pytest.mark.parametrize("watts", [-3_000, -12.3, 0, 2_500, 5_000])
async def test_sunspec_der_setpoint_moves_the_battery(bench: Bench[SunSpecDer], watts: float) -> None:
    peer = await scanned(bench)
    await command(peer, watts)
    bench.go(30)
    assert bench.face.controlled
    assert bench.plant.battery_w == pytest.approx(watts, abs=1)


async def test_sunspec_der_percent_mode_counts_of_wmax(bench: Bench[SunSpecDer]) -> None:
    peer = await scanned(bench)
    await peer.write(704, WSetMod=0, WSetPct=-40)
    await peer.write(704, WSetEna=1)
    bench.go(30)
    assert bench.plant.battery_w == pytest.approx(-2_000, abs=1)


async def test_sunspec_der_timer_runs_out_falls_back(bench: Bench[SunSpecDer]) -> None:
    peer = await scanned(bench)
    await command(peer, -2_000, timer_s=60)
    bench.go(59)
    await peer.read(704)
    assert (bench.face.controlled, peer.value(704, "WSetRvrtRem")) == (True, 1)
    bench.go(2)
    assert not bench.face.controlled
    bench.go(30)
    assert bench.plant.battery_w == pytest.approx(bench.plant.home_w(), abs=20)


async def test_sunspec_der_only_timer_or_enable_refresh(bench: Bench[SunSpecDer]) -> None:
    peer = await scanned(bench)
    await command(peer, 1_000, timer_s=60)
    bench.go(40)
    await peer.write(704, WSetEna=1)
    bench.go(40)
    assert bench.face.controlled
    await peer.write(704, WSetRvrtTms=60)
    bench.go(40)
    assert bench.face.controlled
    await peer.write(704, WSet=1_000)
    bench.go(21)
    assert not bench.face.controlled


async def test_sunspec_der_timer_zero_never_reverts(bench: Bench[SunSpecDer]) -> None:
    peer = await scanned(bench)
    await command(peer, 0, timer_s=0)
    bench.go(4_000, dt_s=10)
    assert bench.face.controlled


async def test_sunspec_der_fallback_setpoint_takes_over(bench: Bench[SunSpecDer]) -> None:
    peer = await scanned(bench)
    await peer.write(704, WSetMod=1, WSetRvrt=-500, WSetEnaRvrt=1, WSetRvrtTms=30)
    await peer.write(704, WSet=2_000)
    await peer.write(704, WSetEna=1)
    bench.go(60)
    assert bench.plant.battery_w == pytest.approx(-500, abs=1)


@pytest.mark.parametrize(
    ("model", "points"),
    [(704, {"WSet": 5_001}), (704, {"WSet": -5_001}), (704, {"WSetEna": 2}), (702, {"WDisChaRteMax": 6_000})],
)
async def test_sunspec_der_out_of_range_refused(bench: Bench[SunSpecDer], model: int, points: dict[str, float]) -> None:
    peer = await scanned(bench)
    assert await peer.refused(model, **points) == 3


async def test_sunspec_der_read_only_point_refused(bench: Bench[SunSpecDer]) -> None:
    peer = await scanned(bench)
    assert await peer.refused(713, SoC=50) == 2


async def test_sunspec_der_local_control_refuses_setpoints(bench: Bench[SunSpecDer]) -> None:
    bench.face.local_control = True
    peer = await scanned(bench)
    assert peer.value(715, "LocRemCtl") == 1
    assert await peer.refused(704, WSetEna=1) == 3


async def test_sunspec_der_release_restores_the_settings(bench: Bench[SunSpecDer]) -> None:
    before = bench.face.settings()
    peer = await scanned(bench)
    await command(peer, 2_000)
    bench.go(10)
    assert bench.face.settings() != before
    await peer.write(704, WSetEna=0)
    await peer.write(704, WSetMod=0, WSetRvrtTms=0)
    bench.go(1)
    assert (bench.face.settings(), bench.face.controlled) == (before, False)


async def test_sunspec_der_reboot_forgets_the_setpoint_keeps_the_timer(bench: Bench[SunSpecDer]) -> None:
    peer = await scanned(bench)
    bench.face.reboot_after_writes(3)
    with pytest.raises(Exception, match=r"timeout|error"):
        await command(peer, 2_000, timer_s=77)
    assert not bench.face.controlled
    peer = await scanned(bench)
    assert (peer.value(704, "WSetRvrtTms"), peer.value(704, "WSetEna")) == (77, 0)


async def test_sunspec_der_overwrite_ends_control(bench: Bench[SunSpecDer]) -> None:
    peer = await scanned(bench)
    await command(peer, 2_000)
    bench.face.overwrite()
    bench.go(1)
    assert not bench.face.controlled
    assert not bench.plant.remote


async def test_sunspec_der_heartbeat_stands_still_ends_control() -> None:
    batteries, plant = home()
    async with Bench(batteries, SunSpecDer(plant, heartbeat_s=10)) as bench:
        peer = await scanned(bench)
        await command(peer, 500, timer_s=0)
        await peer.write(715, ControllerHb=1)
        bench.go(9)
        assert bench.face.controlled
        bench.go(2)
        assert not bench.face.controlled


@pytest.mark.parametrize("trouble", [Trouble.BUSY, Trouble.DISCONNECT, Trouble.GARBAGE])
async def test_sunspec_der_trouble_is_no_answer(bench: Bench[SunSpecDer], trouble: Trouble) -> None:
    bench.face.trouble = trouble
    with pytest.raises(SunSpecModbusClientError, match="base addresses"):
        await Peer.scan(bench, 1, timeout_s=0.3)


async def test_sunspec_der_unknown_unit_refused(bench: Bench[SunSpecDer]) -> None:
    with pytest.raises(SunSpecModbusClientError, match="exception 11"):
        await Peer.scan(bench, 7)

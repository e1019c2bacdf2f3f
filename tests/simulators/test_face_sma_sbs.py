"""The SMA Sunny Boy Storage face, by plain Modbus from the maker's register list: no client library steers one."""

from collections.abc import AsyncIterator

import pytest

from simulators.faces.plant import Trouble
from simulators.faces.sma_sbs import CHARGE, DEFAULT, DISCHARGE, GROUP, KEEP, SmaSbs
from tests.scenes.faces import Bench, home
from tests.scenes.register_faces import Peer, controlled, peer_of

MAX_W = 5_000
HOLD = (DEFAULT, 0, MAX_W, 0, 0, 0)
RELEASE = (DEFAULT, 0, MAX_W, 0, MAX_W, 0)


def charge(watts: int) -> tuple[int, ...]:
    return CHARGE, watts, watts, 0, 0, 0


def discharge(watts: int) -> tuple[int, ...]:
    return DISCHARGE, 0, 0, watts, watts, 0


@pytest.fixture
async def bench() -> AsyncIterator[Bench[SmaSbs]]:
    batteries, plant = home()
    async with Bench(batteries, SmaSbs(plant)) as running:
        yield running


@pytest.fixture
async def peer(bench: Bench[SmaSbs]) -> AsyncIterator[Peer]:
    async with peer_of(bench.connection, 3) as client:
        yield client


async def put_group(peer: Peer, group: tuple[int, ...]) -> None:
    for address, value in zip(GROUP, group, strict=True):
        assert await peer.put32(address, value) == 0


async def test_sma_sbs_unit_is_found_through_unit_one(bench: Bench[SmaSbs], peer: Peer) -> None:
    words = await peer.words(42_109, 4, unit=1)
    assert words[3] == bench.connection.units["inverter"]
    assert words[0] << 16 | words[1] == await peer.number(30_057, "u32")
    assert await peer.number(30_051, "u32") == 8007
    assert await peer.number(30_053, "u32") == 9358
    assert await peer.words(30_775, 2, unit=9) == [-11]


@pytest.mark.parametrize("group", [charge(2_000), discharge(3_000), HOLD])
async def test_sma_sbs_telemetry_equals_the_plant(bench: Bench[SmaSbs], peer: Peer, group: tuple[int, ...]) -> None:
    await put_group(peer, group)
    bench.go(30)
    plant = bench.plant
    assert await peer.number(30_775, "i32") == round(plant.battery_w)
    charging_w, discharging_w = await peer.number(31_393, "u32"), await peer.number(31_395, "u32")
    assert discharging_w - charging_w == round(plant.battery_w)
    draw_w, feed_w = await peer.number(30_865, "u32"), await peer.number(30_867, "u32")
    assert draw_w - feed_w == round(plant.grid_w)
    assert await peer.number(30_845, "u32") == round(plant.soc_pct)
    assert await peer.number(30_849, "i32") == round(plant.temp_c * 10)
    assert await peer.number(31_397, "u64") == round(plant.charged_wh)
    assert await peer.number(31_401, "u64") == round(plant.discharged_wh)
    assert await peer.number(40_187, "u32") == 10_000
    assert await peer.number(30_955, "u32") in (2291, 2292, 2293)


@pytest.mark.parametrize(
    ("group", "expected_w"), [(charge(2_000), -2_000), (charge(MAX_W), -5_000), (discharge(1_500), 1_500), (HOLD, 0)]
)
async def test_sma_sbs_group_moves_the_battery(
    bench: Bench[SmaSbs], peer: Peer, group: tuple[int, ...], expected_w: float
) -> None:
    await put_group(peer, group)
    bench.go(30)
    assert controlled(bench.face)
    assert bench.plant.battery_w == pytest.approx(expected_w, abs=1)


async def test_sma_sbs_grid_setpoint_shifts_the_meter(bench: Bench[SmaSbs], peer: Peer) -> None:
    await put_group(peer, (DEFAULT, 0, MAX_W, 0, MAX_W, 1_000))
    bench.go(30)
    assert bench.plant.grid_w == pytest.approx(1_000, abs=30)


async def test_sma_sbs_incomplete_group_has_no_effect(bench: Bench[SmaSbs], peer: Peer) -> None:
    await put_group(peer, discharge(1_000))
    bench.go(10)
    for address, value in list(zip(GROUP, discharge(4_000), strict=True))[:5]:
        await peer.put32(address, value)
    bench.go(10)
    assert bench.plant.battery_w == pytest.approx(1_000, abs=1)
    bench.go(61)
    await peer.put32(GROUP[5], 0)
    bench.go(10)
    assert not controlled(bench.face)


async def test_sma_sbs_limits_in_one_request_complete_the_group(bench: Bench[SmaSbs], peer: Peer) -> None:
    await peer.put32(40_236, DISCHARGE)
    assert await peer.put(40_793, 0, 0, 0, 0, 0, 2_000, 0, 2_000, 0, 0) == 0
    bench.go(30)
    assert bench.plant.battery_w == pytest.approx(2_000, abs=1)


async def test_sma_sbs_group_ends_unless_sent_again(bench: Bench[SmaSbs], peer: Peer) -> None:
    await put_group(peer, charge(1_000))
    bench.go(40)
    await put_group(peer, charge(1_000))
    bench.go(59)
    assert controlled(bench.face)
    bench.go(2)
    assert not controlled(bench.face)
    bench.go(30)
    assert bench.plant.battery_w == pytest.approx(bench.plant.home_w(), abs=20)


async def test_sma_sbs_installer_fallback_keep_never_ends() -> None:
    batteries, plant = home()
    async with Bench(batteries, SmaSbs(plant, fallback=KEEP)) as bench, peer_of(bench.connection, 3) as peer:
        await put_group(peer, HOLD)
        bench.go(3_600, dt_s=10)
        assert controlled(bench.face)
        await put_group(peer, RELEASE)
        bench.go(1)
        assert not controlled(bench.face)


async def test_sma_sbs_write_only_registers_refuse_reading(peer: Peer) -> None:
    for address in (*GROUP, 40_149, 40_151):
        assert await peer.words(address, 2) == [-2]


async def test_sma_sbs_out_of_range_refused(bench: Bench[SmaSbs], peer: Peer) -> None:
    assert await peer.put32(40_236, 2_291) == -3
    assert await peer.put32(40_795, MAX_W + 1) == -3
    assert await peer.set(40_236, 1) == -2
    assert await peer.put32(40_149, -1_000) == -2
    assert await peer.put32(41_193, 1) == -3
    assert bench.face.flash_writes == 0


async def test_sma_sbs_release_restores_without_touching_flash(bench: Bench[SmaSbs], peer: Peer) -> None:
    before = bench.face.settings()
    await put_group(peer, discharge(2_000))
    bench.go(10)
    await put_group(peer, RELEASE)
    bench.go(1)
    assert (bench.face.settings(), controlled(bench.face)) == (before, False)
    assert not bench.plant.remote
    assert bench.face.flash_writes == 0


async def test_sma_sbs_parameter_write_wears_flash(bench: Bench[SmaSbs], peer: Peer) -> None:
    assert await peer.put32(41_195, 120) == 0
    bench.face.reboot()
    assert bench.face.settings()["41195"] == 120
    assert bench.face.flash_writes == 1


async def test_sma_sbs_reboot_in_the_group_forgets_all_of_it(bench: Bench[SmaSbs], peer: Peer) -> None:
    await put_group(peer, discharge(2_000))
    bench.face.reboot_after_writes(3)
    with pytest.raises(Exception, match=r"odbus|onnect"):
        await put_group(peer, discharge(3_000))
    bench.go(1)
    assert not controlled(bench.face)
    async with peer_of(bench.connection, 3) as again:
        for address in GROUP[3:]:
            await again.put32(address, 0)
    assert not controlled(bench.face)


async def test_sma_sbs_overwrite_ends_control(bench: Bench[SmaSbs], peer: Peer) -> None:
    await put_group(peer, discharge(2_000))
    bench.face.overwrite()
    bench.go(1)
    assert not controlled(bench.face)


async def test_sma_sbs_asleep_values_are_not_a_number(bench: Bench[SmaSbs], peer: Peer) -> None:
    bench.face.asleep = True
    assert await peer.words(31_393, 2) == [0xFFFF, 0xFFFF]
    assert await peer.words(30_849, 2) == [0x8000, 0]
    assert await peer.words(30_955, 2) == [0x00FF, 0xFFFD]


async def test_sma_sbs_trouble_refuse_answers_writes_with_an_exception(bench: Bench[SmaSbs], peer: Peer) -> None:
    bench.face.trouble = Trouble.REFUSE
    assert await peer.put32(40_236, DEFAULT) == -3
    assert await peer.number(30_845, "u32") == round(bench.plant.soc_pct)

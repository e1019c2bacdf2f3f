"""Every product that can be steered: which way power flows, how far, what is refused, and what is left behind."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.domain.commands import CommandOp, CommandResult, WriteOutcome
from gateway.domain.fleet.columns import Authority
from gateway.domain.types import Mode
from gateway.profiles.language.control import Step
from gateway.profiles.language.points import Point
from tests.conformance.rig import CODECS, MIDNIGHT_S, PRODUCTS, STEERED, Rig, bench

REFUSED = (WriteOutcome.REFUSED, CommandResult.REFUSED)
RESERVED = [name for name in PRODUCTS if (c := CODECS[name].document.control) is not None and c.reserve]
EXPERIMENTAL = [name for name in STEERED if CODECS[name].facts.experimental]
POWERS = ("setpoint_w", "magnitude_w", "grid_target_w", "inverter_target_w")
BEYOND_EVERY_TYPE_W = 5e9


@pytest_asyncio.fixture(params=STEERED)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with bench(request.param) as found:
        yield found


@pytest_asyncio.fixture(params=STEERED)
async def night_rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """At night the only source and sink besides the battery is the grid."""
    async with bench(request.param, time_s=MIDNIGHT_S) as found:
        yield found


async def released(rig: Rig) -> None:
    """Release, and let what ends by itself end."""
    assert await rig.tell(CommandOp.RELEASE) == rig.done
    if rig.sequences.stop_only:
        await rig.go(rig.unlocked_s)


async def test_discharge_setpoint_lowers_soc_and_import(night_rig: Rig) -> None:
    rig = night_rig
    soc_pct, import_w = rig.batteries.true_soc_pct[0], rig.plant.load_w
    assert await rig.power(1500) == rig.done
    await rig.expect_w(1500)
    assert rig.plant.grid_w < import_w - 1000
    await rig.go(20)
    assert rig.batteries.true_soc_pct[0] < soc_pct
    row = await rig.fresh()
    assert row["battery_w"] == pytest.approx(1500, abs=80)
    if rig.reads_mode:
        assert row["mode"] == Mode.REMOTE


async def test_charge_setpoint_raises_soc_and_import(night_rig: Rig) -> None:
    rig = night_rig
    soc_pct, import_w = rig.batteries.true_soc_pct[0], rig.plant.load_w
    assert await rig.power(-1200) == rig.done
    await rig.expect_w(-1200)
    assert rig.plant.grid_w > import_w + 1000
    await rig.go(20)
    assert rig.batteries.true_soc_pct[0] > soc_pct
    row = await rig.fresh()
    assert row["battery_w"] == pytest.approx(-1200, abs=80)
    if rig.reads_mode:
        assert row["mode"] == Mode.REMOTE


async def test_setpoints_one_after_the_other_each_replace_the_one_before(rig: Rig) -> None:
    for setpoint_w in (1500, -1200, 800, 0, -3000, 2500):
        assert await rig.power(setpoint_w) == rig.done, setpoint_w
        await rig.expect_w(setpoint_w)


async def test_hold_from_own_mode_stops_the_battery_and_stays_ours(rig: Rig) -> None:
    await rig.settle()
    assert abs(rig.plant.battery_w) > 200
    await rig.fresh()
    assert await rig.tell(CommandOp.HOLD) == rig.done
    await rig.expect_w(0)
    assert rig.controlled()
    row = await rig.fresh()
    assert row["mode"] == Mode.REMOTE


@pytest.mark.parametrize("name", [name for name in STEERED if CODECS[name].facts.blocks])
async def test_block_stops_discharging_and_leaves_charging_from_pv(name: str) -> None:
    async with bench(name, time_s=MIDNIGHT_S) as rig:
        await rig.settle()
        assert rig.plant.battery_w > 200
        assert await rig.tell(CommandOp.BLOCK) == rig.done
        await rig.expect_w(0)
        assert (await rig.fresh())["mode"] == Mode.REMOTE
        await released(rig)
        await rig.settle()
        assert rig.plant.battery_w > 200
    async with bench(name, load_base_w=200.0, pv_peak_w=6_000.0) as rig:
        assert await rig.tell(CommandOp.BLOCK) == rig.done
        await rig.settle()
        assert rig.plant.home_w() < -500
        assert rig.plant.battery_w < -500


async def test_setpoint_of_the_rating_is_reached_both_ways(night_rig: Rig) -> None:
    rig = night_rig
    for rating_w in (rig.plant.discharge_w_max, -rig.plant.charge_w_max):
        assert await rig.power(rating_w) == rig.done
        await rig.expect_w(rating_w, tolerance_w=100)
        await rig.fresh()


async def test_setpoint_between_steps_is_cut_towards_zero(rig: Rig) -> None:
    control = rig.sequences
    for asked_w in (1500.7, -1200.7):
        assert await rig.power(asked_w) == rig.done
        await rig.expect_w(asked_w)
        if control.domain.startswith("battery"):
            assert abs(rig.plant.setpoint_w) <= abs(asked_w)


async def test_setpoint_below_the_smallest_is_a_hold(rig: Rig) -> None:
    least_w = max(rig.sequences.setpoint_w_min, rig.sequences.step_w)
    assert await rig.power(0.4 * least_w) == rig.done
    await rig.expect_w(0)
    assert rig.controlled()


def _range_of(points: dict[str, Point], steps: tuple[Step, ...]) -> float:
    """The largest number the profile lets a power point take, in its own unit; a type has an end too."""
    parts = [part for step in steps for part in (step.together or (step,)) if part.source in POWERS]
    limits = [limit[1] for part in parts if (limit := points[part.write or ""].range) is not None]
    return min(limits, default=BEYOND_EVERY_TYPE_W)


@pytest.mark.parametrize("sign", [1, -1], ids=["discharge", "charge"])
async def test_setpoint_outside_the_profile_is_refused_before_the_wire(rig: Rig, sign: int) -> None:
    control, points = rig.sequences, rig.codec.document.points
    steps = control.discharge if sign > 0 else control.charge
    percent = any(part.percent_of for step in steps for part in (step.together or (step,)))
    most = _range_of(points, steps)
    beyond_w = sign * (1.5 * most * rig.plant.discharge_w_max / 100 if percent else 1.5 * most)
    settings, on_wire, asked = rig.face.settings(), rig.writes_on_wire(), len(rig.links.writes)
    assert rig.sessions is not None
    requests = rig.sessions.control_stats.requests
    assert await rig.power(beyond_w) == REFUSED
    assert rig.sessions.control_stats.requests == requests
    assert len(rig.links.writes) == asked
    assert rig.writes_on_wire() == on_wire
    assert not rig.controlled()
    assert rig.face.settings() == settings
    assert rig.prior == {}


async def test_setpoint_outside_the_profile_leaves_the_one_in_force(rig: Rig) -> None:
    assert await rig.power(1500) == rig.done
    on_wire = rig.writes_on_wire()
    delivery, result = await rig.power(BEYOND_EVERY_TYPE_W)
    assert (delivery, result) == REFUSED
    assert rig.writes_on_wire() == on_wire
    await rig.expect_w(1500)


async def test_release_restores_the_settings_and_forgets_them(rig: Rig) -> None:
    before = rig.face.settings()
    for setpoint_w in (1500, -1200):
        assert await rig.power(setpoint_w) == rig.done
        await rig.settle()
        await rig.fresh()
    assert rig.controlled()
    assert rig.saved <= set(rig.sequences.saves)
    await released(rig)
    assert rig.face.settings() == before
    assert not rig.controlled()
    assert rig.prior == {}
    await rig.settle()
    row = await rig.fresh()
    if rig.reads_mode:
        await rig.until(lambda: rig.in_own_mode(rig.heard.live[-1]["mode"]), "its own mode")
    assert row["cmd"] == 0


async def test_release_twice_is_harmless(rig: Rig) -> None:
    before = rig.face.settings()
    assert await rig.power(1500) == rig.done
    await released(rig)
    await released(rig)
    assert rig.face.settings() == before
    assert not rig.controlled()
    assert rig.prior == {}


async def test_release_of_what_was_never_taken_is_harmless(rig: Rig) -> None:
    before = rig.face.settings()
    await released(rig)
    assert rig.face.settings() == before
    assert not rig.controlled()


async def test_episode_after_a_release_works_like_the_first(rig: Rig) -> None:
    before = rig.face.settings()
    for setpoint_w in (1500, -1200):
        assert await rig.power(setpoint_w) == rig.done
        await rig.expect_w(setpoint_w)
        await released(rig)
        assert rig.face.settings() == before
        await rig.settle()
        await rig.fresh()


async def test_refresh_of_a_setpoint_writes_stored_points_once(rig: Rig) -> None:
    stored = [name for name, point in rig.codec.document.points.items() if point.storage == "stored"]
    for _ in range(4):
        assert await rig.power(1500) == rig.done
        await rig.fresh()
    written = rig.links.points()
    assert {name: written.count(name) for name in stored if written.count(name) > 1} == {}
    assert written.count(written[-1]) >= 1


async def test_refresh_goes_out_again_where_a_device_counts_down(rig: Rig) -> None:
    """A refresh must never be dropped as a duplicate: the device's timer would run out."""
    assert await rig.power(1500) == rig.done
    await rig.go(rig.codec.facts.lease_s * 0.6)
    await rig.fresh()
    assert await rig.power(1500) == rig.done
    await rig.go(rig.codec.facts.lease_s * 0.6)
    assert rig.controlled()
    await rig.expect_w(1500)


@pytest.mark.parametrize("name", RESERVED)
async def test_reserve_reaches_the_product_and_its_reading(name: str) -> None:
    async with bench(name) as rig:
        wanted = _reserve_it_takes(rig)
        assert await rig.tell(CommandOp.RESERVE, reserve_pct=wanted) == rig.done
        await rig.go(1)
        assert rig.plant.reserve_pct == pytest.approx(wanted, abs=0.5)
        await rig.until(lambda: abs(rig.heard.live[-1]["reserve_pct"] - wanted) < 0.5, "the reserve in a reading")
        asked = len(rig.links.writes)
        assert await rig.tell(CommandOp.RESERVE, reserve_pct=wanted) == rig.done
        assert len(rig.links.writes) == asked, "a stored value is written once"


def _reserve_it_takes(rig: Rig) -> float:
    """35 %, or less where the product does not go so far; another one than the face begins with."""
    points = [rig.codec.document.points[name] for step in rig.sequences.reserve for name in step.touched()]
    return min(35.0, *(point.accepts[1] - 5.0 for point in points if point.accepts is not None), 35.0)


@pytest.mark.parametrize("name", RESERVED)
async def test_reserve_outside_the_profile_is_refused_before_the_wire(name: str) -> None:
    async with bench(name) as rig:
        on_wire = rig.writes_on_wire()
        assert await rig.tell(CommandOp.RESERVE, reserve_pct=150.0) == REFUSED
        assert rig.writes_on_wire() == on_wire
        assert rig.plant.reserve_pct == pytest.approx(20, abs=0.5)


@pytest.mark.parametrize("name", [name for name in PRODUCTS if name not in STEERED])
async def test_product_without_setpoints_refuses_them(name: str) -> None:
    async with bench(name) as rig:
        assert not rig.fleet.nameplate.steerable[0]
        before = rig.face.settings()
        for op in (CommandOp.SETPOINT, CommandOp.HOLD):
            assert await rig.tell(op, 1000) == REFUSED
        assert rig.face.settings() == before
        assert rig.links.writes == []


@pytest.mark.parametrize("name", STEERED)
async def test_event_steers_the_product_and_its_end_releases_it(name: str) -> None:
    async with bench(name) as rig:
        before = rig.face.settings()
        await rig.dispatch(2000, s=3600)
        await rig.tick_until(lambda: abs(rig.plant.battery_w - 2000) < 150, "the power of the event")
        assert rig.authority is Authority.CONTROLLED
        await rig.cancel("event")
        await rig.tick_until(
            lambda: rig.authority is Authority.RELEASING or rig.authority is Authority.DEVICE, "the release"
        )
        if rig.sequences.stop_only:
            await rig.go(rig.unlocked_s)
        await rig.tick_until(lambda: not rig.controlled(), "its own mode")
        await rig.until(lambda: rig.face.settings() == before, "the settings as before")


@pytest.mark.parametrize("name", EXPERIMENTAL)
async def test_experimental_product_without_consent_is_never_steered(name: str) -> None:
    async with bench(name, experimental=False) as rig:
        assert not rig.fleet.nameplate.steerable[0]
        await rig.dispatch(2000, s=3600)
        for _ in range(5):
            await rig.tick()
            await rig.fresh()
        assert rig.links.writes == []
        assert rig.writes_on_wire() == 0
        assert rig.authority is Authority.DEVICE
        assert not rig.controlled()

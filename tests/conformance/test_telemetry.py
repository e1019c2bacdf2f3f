"""Every product: what its points decode to is what is true of the simulated home, in every situation."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from gateway.domain.types import Grid, Mode
from gateway.profiles.compile import compile_profile
from gateway.profiles.language.quantities import COUNTERS
from tests.conformance.rig import CODECS, MIDNIGHT_S, NOON_S, PRODUCTS, STEERED, Rig, bench

# A reading is a difference or a sum of values that are rounded one by one.
POWER_W = 4.0
# name: (time of day, the home, sign of the battery's power)
SITUATIONS: dict[str, tuple[float, dict[str, Any], int]] = {
    "discharging-at-night": (MIDNIGHT_S, {"load_base_w": 3_000.0}, 1),
    "charging-by-day": (NOON_S, {"load_base_w": 200.0, "pv_peak_w": 6_000.0}, -1),
    "discharging-by-day": (NOON_S, {"load_base_w": 12_000.0, "pv_peak_w": 3_000.0}, 1),
    "idle-at-night": (
        MIDNIGHT_S,
        {"soc_start_pct": 30.0, "reserve_pct": 50.0, "grid_charge_allowed": False},
        0,
    ),
}
# Points that show nothing while the product is in its own mode, and why.
SILENT_POINTS = {
    ("foxess-h1", "remote_timeout"): "0 until it is written for the first time, which is no time-out",
    ("foxess-h3", "remote_timeout"): "0 until it is written for the first time, which is no time-out",
    ("goodwe-et", "soc2"): "there is no second battery",
    ("hoymiles-ms-a2", "ems_mode"): "published every five minutes only",
    ("solaredge-storedge", "rated_2"): "there is one battery",
    ("solaredge-storedge", "rated_3"): "there is one battery",
    ("victron-gx-modbus", "grid_setpoint"): "nothing is set",
}
TRUTHS = ("battery_w", "soc_pct", "grid_w", "pv_w", "load_w", "temp_c", "reserve_pct")


def truth(rig: Rig) -> dict[str, float]:
    return {name: float(getattr(rig.plant, name)) for name in TRUTHS}


def tolerance(rig: Rig, name: str) -> float:
    """Half a step of the product's number, at least that of a power shown in whole watts per phase or string."""
    points = rig.codec.document.points
    steps = [points[point].scale for point in rig.codec.document.readings[name].points()]
    least = {"soc_pct": 0.5, "reserve_pct": 0.5, "temp_c": 0.05}.get(name, POWER_W)
    return max(least, 0.5 * max(steps, default=0.0)) + 0.01


def agrees(rig: Rig, name: str, shown: float, expected: float) -> bool:
    return abs(shown - expected) <= tolerance(rig, name)


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("name", PRODUCTS)
async def test_readings_in_own_mode_are_the_truth(name: str, situation: str) -> None:
    time_s, home, sign = SITUATIONS[situation]
    async with bench(name, time_s=time_s, **home) as rig:
        await rig.settle(s=30)
        rig.frozen = True
        # Slow points and what is published by itself come within this.
        await rig.fresh()
        expected = truth(rig)
        known = [name for name in TRUTHS if name in rig.codec.document.readings]

        def wrong() -> list[str]:
            row = rig.heard.live[-1]
            return [f"{n}: {row[n]}, truly {expected[n]}" for n in known if not agrees(rig, n, row[n], expected[n])]

        try:
            await rig.until(lambda: not wrong(), "the truth")
        except AssertionError:
            raise AssertionError(f"{name}: {wrong()}") from None
        power_w = expected["battery_w"]
        assert power_w * sign > 100 if sign else abs(power_w) < 10, power_w
        row = rig.heard.live[-1]
        assert row["faults"] == 0
        assert row["grid"] != Grid.ISLAND
        assert row["mode"] in (Mode.SELF_CONSUMPTION, Mode.UNKNOWN)
        assert (row["mode"] == Mode.UNKNOWN) == (not rig.reads_mode)


@pytest.mark.parametrize("name", PRODUCTS)
async def test_points_each_have_a_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # a product of its own: what other tests have made of this one is counted there
    monkeypatch.setitem(CODECS, name, compile_profile(CODECS[name].document))
    async with bench(name, pv_peak_w=4_000.0) as rig:
        program = rig.session.product_variant
        expected = {n for n in program.reads if (name, n) not in SILENT_POINTS}

        def empty() -> set[str]:
            return {n for n in expected if rig.session.values.get(n) is None}

        try:
            await rig.until(lambda: not empty(), "every point")
        except AssertionError:
            raise AssertionError(f"{name}: no value of {sorted(empty())}") from None
        assert program.counts.malformed == 0
        if not any(product == name for product, _ in SILENT_POINTS):
            assert program.counts.implausible == 0


def test_silent_points_are_points_of_products() -> None:
    assert all(point in CODECS[name].document.points for name, point in SILENT_POINTS)


@pytest.mark.parametrize("name", PRODUCTS)
async def test_island_is_seen_where_the_product_tells_it(name: str) -> None:
    async with bench(name) as rig:
        if "grid" not in rig.codec.document.readings:
            assert rig.heard.live[-1]["grid"] == Grid.UNKNOWN
            return
        rig.batteries.islanded[:] = True
        await rig.go(3)
        await rig.until(lambda: rig.heard.live[-1]["grid"] == Grid.ISLAND, "the island")
        rig.batteries.islanded[:] = False
        await rig.go(3)
        await rig.until(lambda: rig.heard.live[-1]["grid"] == Grid.ON, "the grid")


@pytest.mark.parametrize("name", PRODUCTS)
async def test_energy_samples_agree_with_what_flowed(name: str) -> None:
    """Lifetime counters grow by what flowed, and integrated power amounts to it."""
    async with bench(name, time_s=MIDNIGHT_S, load_base_w=3_000.0, capacity_wh=40_000.0) as rig:
        has_counters = "discharge_counter_wh" in rig.codec.document.readings
        await rig.until(lambda: bool(rig.heard.energy), "a sample")
        if has_counters:
            await _counters_grow(rig)
        else:
            await _integrals_add_up(rig)


async def _sample(rig: Rig) -> dict[str, float]:
    """An energy sample whose values were read after now."""
    count = len(rig.heard.energy)
    await rig.until(lambda: len(rig.heard.energy) >= count + 2, "a sample")
    return rig.heard.energy[-1]


async def _counters_grow(rig: Rig) -> None:
    step_wh = max(
        rig.codec.document.points[point].scale
        for name in COUNTERS
        for point in rig.codec.document.readings[name].points()
    )
    rig.frozen = True
    first, begin_wh = await _sample(rig), rig.plant.discharged_wh
    rig.frozen = False
    rig.leap(3600)
    rig.frozen = True
    last, end_wh = await _sample(rig), rig.plant.discharged_wh
    grown_wh = last["discharge_counter_wh"] - first["discharge_counter_wh"]
    flowed_wh = end_wh - begin_wh
    assert flowed_wh > 1_000
    assert grown_wh == pytest.approx(flowed_wh, rel=0.02, abs=2 * step_wh)
    assert last["charge_counter_wh"] == pytest.approx(rig.plant.charged_wh, abs=2 * step_wh)
    assert not math.isnan(last["discharge_wh"]), "integrated beside the counter, for the coarse ones"


async def _integrals_add_up(rig: Rig) -> None:
    await rig.settle()
    count = len(rig.heard.energy)
    await rig.until(
        lambda: len(rig.heard.energy) >= count + 6, "samples", ceiling_s=8 * rig.codec.document.polling.energy_s
    )
    rows = rig.heard.energy[count + 1 :]
    begin_ms, end_ms = rows[0]["t_ms"] - rows[0]["span_ms"], rows[-1]["t_ms"]
    await rig.until(lambda: rig.history[-1][0] >= end_ms, "what flowed until the last sample")
    # times of day and spans are cut to whole ms by themselves
    spans_ms = sum(row["span_ms"] for row in rows)
    assert spans_ms == pytest.approx(end_ms - begin_ms, abs=2 + len(rows)), "samples without a gap"
    flowed_wh = rig.true_wh(end_ms)[1] - rig.true_wh(begin_ms)[1]
    integrated_wh = sum(row["discharge_wh"] for row in rows)
    assert flowed_wh > 1
    assert integrated_wh == pytest.approx(flowed_wh, rel=0.01)
    assert all(math.isnan(row["discharge_counter_wh"]) for row in rows)


@pytest.mark.fault("F31")
@pytest.mark.parametrize("name", [n for n in PRODUCTS if "discharge_counter_wh" in CODECS[n].document.readings])
async def test_counter_reset_comes_through_as_a_drop(name: str) -> None:
    async with bench(name, time_s=MIDNIGHT_S, load_base_w=3_000.0) as rig:
        before = await _sample(rig)
        rig.plant.reset_counters()
        rig.leap(600)
        after = await _sample(rig)
        assert after["charge_counter_wh"] < before["charge_counter_wh"] or math.isnan(after["charge_counter_wh"])
        assert after["discharge_counter_wh"] < before["discharge_counter_wh"]


@pytest.mark.parametrize("name", STEERED)
async def test_readings_under_control_are_the_truth(name: str) -> None:
    async with bench(name, time_s=MIDNIGHT_S) as rig:
        for setpoint_w in (1500, -1200, 0):
            await rig.power(setpoint_w)
            await rig.expect_w(setpoint_w)
            rig.frozen = True
            await rig.until(_shows(rig, truth(rig)), f"the truth at {setpoint_w} W")
            rig.frozen = False


def _shows(rig: Rig, expected: dict[str, float]) -> Callable[[], bool]:
    names = [name for name in ("battery_w", "grid_w", "load_w") if name in rig.codec.document.readings]
    return lambda: all(agrees(rig, name, rig.heard.live[-1][name], expected[name]) for name in names)

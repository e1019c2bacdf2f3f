"""Products that come in several builds: each is read and steered as it is built."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from gateway.domain.commands import CommandOp
from simulators.faces.fronius_gen24 import FroniusGen24
from simulators.faces.plant import Face, Plant
from simulators.faces.solaredge_storedge import SolarEdgeStorEdge
from tests.conformance.rig import CODECS, Rig, bench
from tests.conformance.test_telemetry import SITUATIONS, TRUTHS, agrees, truth

# Every battery counts whole watt-hours.
COUNTER_WH = 3.0
Build = Callable[[Plant], Face]
SOLAREDGE = "solaredge-storedge"
FRONIUS = "fronius-gen24"
BUILDS: dict[str, tuple[str, Build]] = {
    "one phase, meter of one": (SOLAREDGE, partial(SolarEdgeStorEdge, inverter_model=101, meter_model=201)),
    "one phase, meter of three": (SOLAREDGE, partial(SolarEdgeStorEdge, inverter_model=101)),
    "split phase": (SOLAREDGE, partial(SolarEdgeStorEdge, inverter_model=102, meter_model=202)),
    "meter of the PV first": (SOLAREDGE, partial(SolarEdgeStorEdge, production_meter=True)),
    "two batteries": (SOLAREDGE, partial(SolarEdgeStorEdge, batteries=2)),
    "three batteries": (SOLAREDGE, partial(SolarEdgeStorEdge, batteries=3)),
    "Primo": (FRONIUS, partial(FroniusGen24, product="Primo GEN24 6.0 Plus", inverter_model=101, meter_model=201)),
    "Verto with three inputs": (FRONIUS, partial(FroniusGen24, product="Verto 25.0 Plus", mppts=3)),
    "Verto with four inputs": (FRONIUS, partial(FroniusGen24, product="Verto 30.0 Plus", mppts=4)),
}


def wrong(rig: Rig, expected: dict[str, float]) -> list[str]:
    row, known = rig.heard.live[-1], rig.codec.document.readings
    return [
        f"{name}: {row[name]}, truly {expected[name]}"
        for name in TRUTHS
        if name in known and not agrees(rig, name, row[name], expected[name])
    ]


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("build", BUILDS)
async def test_build_is_read_as_it_is(build: str, situation: str) -> None:
    name, made = BUILDS[build]
    time_s, home, _ = SITUATIONS[situation]
    async with bench(name, product=(CODECS[name], made), time_s=time_s, **home) as rig:
        await rig.settle(s=30)
        rig.frozen = True
        await rig.fresh()
        expected = truth(rig)
        try:
            await rig.until(lambda: not wrong(rig, expected), "the truth")
        except AssertionError:
            raise AssertionError(f"{build}: {wrong(rig, expected)}") from None
        await rig.go(rig.codec.document.polling.energy_s + 5)
        counted = rig.session.product_variant.canonical(rig.session.values)
        assert counted.get("charge_counter_wh") == pytest.approx(rig.plant.charged_wh, abs=COUNTER_WH)
        assert counted.get("discharge_counter_wh") == pytest.approx(rig.plant.discharged_wh, abs=COUNTER_WH)


@pytest.mark.parametrize("setpoint_w", [1_500.0, -1_500.0, 0.0])
@pytest.mark.parametrize("build", BUILDS)
async def test_build_takes_setpoints_and_is_given_back_as_it_was(build: str, setpoint_w: float) -> None:
    name, made = BUILDS[build]
    home: dict[str, Any] = {"load_base_w": 400.0, "pv_peak_w": 3_000.0}
    async with bench(name, product=(CODECS[name], made), **home) as rig:
        before = rig.face.settings()
        assert await rig.power(setpoint_w) == rig.done
        await rig.expect_w(setpoint_w)
        assert abs((await rig.fresh())["battery_w"] - setpoint_w) <= 60.0
        await rig.tell(CommandOp.RELEASE)
        await rig.settle()
        assert not rig.controlled()
        assert rig.face.settings() == before

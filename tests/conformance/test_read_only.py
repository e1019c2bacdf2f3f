"""Models that are told apart by what they say of themselves: each is steered by its own registers, or not at all."""

import pytest

from gateway.domain.commands import CommandOp, CommandResult, WriteOutcome
from gateway.domain.types import DeviceId
from gateway.services.devices.probe import probe
from gateway.services.devices.session_state import SessionPhase
from simulators.faces.foxess_h1 import FoxessH1
from simulators.faces.foxess_h3_smart import FoxessH3Smart
from tests.conformance.rig import CODECS, Rig, bench

REFUSED = (WriteOutcome.REFUSED, CommandResult.REFUSED)


def as_g2(face: FoxessH1) -> None:
    face.model = "H1-5.0-E-G2"


def as_m(face: FoxessH3Smart) -> None:
    face.model = "H3-12.0-M"


async def why_not(rig: Rig) -> list[str]:
    """Why the device cannot be controlled, by a probe."""
    product = rig.codec.product
    assert product is not None
    device = DeviceId("probed")
    found = await probe(rig.codec, product, rig.links.inner, rig.connection, device=device, secret="")
    assert found.problems == []
    return found.unmet


async def test_setpoint_of_an_h1_is_one_register_and_no_reactive_power() -> None:
    async with bench("foxess-h1", pv_peak_w=0.0) as rig:
        assert await rig.power(3_000) == rig.done
        await rig.expect_w(3_000)
        assert isinstance(rig.face, FoxessH1)
        assert (rig.face.active_power_w, rig.face.reactive_w) == (3_000, 0)
        assert await why_not(rig) == []
        assert await rig.tell(CommandOp.RELEASE) == rig.done


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("foxess-h1", as_g2, "the second generation keeps PV elsewhere"),
        ("foxess-h3-smart", as_m, "with remote power at 0 W these models curtail PV"),
    ],
)
async def test_model_that_is_not_known_well_enough_is_read_and_never_written(
    name: str, change: object, reason: str
) -> None:
    async with bench(name, change=change) as rig:  # type: ignore[arg-type]
        await rig.settle()
        assert abs(rig.plant.battery_w) > 200
        assert (await rig.fresh())["battery_w"] == pytest.approx(rig.plant.battery_w, abs=100)
        assert await rig.power(3_000) == REFUSED
        assert await rig.tell(CommandOp.RELEASE) in (REFUSED, (WriteOutcome.NOT_SENT, CommandResult.NONE))
        assert rig.writes_on_wire() == 0
        (said,) = await why_not(rig)
        assert said.startswith(f"read-only: {reason}")


@pytest.mark.parametrize("face", ["foxess-h1", "foxess-h3-smart"])
async def test_model_with_another_register_map_is_never_written_as_an_h3(face: str) -> None:
    async with bench("foxess-h3", face=face, wait=False) as rig:
        await rig.until(lambda: rig.session.state is SessionPhase.QUARANTINED, "quarantine")
        assert await rig.power(3_000) != rig.done
        assert rig.writes_on_wire() == 0


def test_models_of_one_maker_each_have_a_profile() -> None:
    assert {"foxess-h1", "foxess-h3", "foxess-h3-smart"} <= set(CODECS)

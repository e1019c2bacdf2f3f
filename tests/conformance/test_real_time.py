"""What ships: the loop, sockets and clocks of the machine, and every product once, side by side.

Everything that depends on time is tested on virtual time; here each product goes through one plain scene, and nothing
is bounded more tightly than a machine that does something else meanwhile allows.
"""

import asyncio
from functools import partial

import pytest
import uvloop

from gateway.domain.commands import CommandOp, WriteOutcome
from tests.conformance.rig import PRODUCTS, STEERED, Rig, bench
from tests.conformance.together import together

pytestmark = pytest.mark.real_time


async def test_products_on_real_sockets_are_read_steered_both_ways_and_released() -> None:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
    await together({name: partial(_scene, name) for name in PRODUCTS})


async def _scene(name: str) -> None:
    async with bench(name) as rig:
        row = await rig.fresh()
        assert row["soc_pct"] == pytest.approx(rig.plant.soc_pct, abs=1.01)
        if name in STEERED:
            await _steered(rig)


async def _steered(rig: Rig) -> None:
    before = rig.face.settings()
    for setpoint_w in (1500.0, -1200.0):
        assert await rig.power(setpoint_w) == rig.done
        await rig.until(lambda w=setpoint_w: abs(rig.plant.battery_w - w) < 100, f"{setpoint_w:.0f} W")  # type: ignore[misc]
        assert rig.controlled()
    assert (await rig.tell(CommandOp.RELEASE))[0] is WriteOutcome.ACCEPTED
    written = rig.writes_on_wire()
    if not rig.sequences.stop_only:
        await rig.until(lambda: not rig.controlled() and rig.face.settings() == before, "its own mode and settings")
    await rig.fresh()
    await rig.fresh()
    assert rig.writes_on_wire() == written
    assert rig.prior == {}

"""Control goes by a clock that follows no step while anything runs, settlement by the wall clock, always."""

import asyncio
from pathlib import Path

import pytest

from gateway.app.daemon import gateway
from gateway.clock import SteadyClock, SystemClock
from gateway.config.loader import load_settings
from gateway.domain.readings import ReadingBatch
from gateway.domain.types import Now
from gateway.links.mqtt.messages import MqttLink
from tests.builders.energy_batches import T0, batch, row
from tests.builders.fakes import FACTS, home
from tests.config.test_settings import write

PROFILES = Path(__file__).parents[2] / "device_profiles"
STEP_MS = 20 * 60_000
MINUTE_MS = 60_000


class SetClock(SystemClock):
    """The machine's clock, which somebody sets right."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_ms = 0

    def now(self) -> Now:
        now = super().now()
        return Now(utc_ms=now.utc_ms + self.ahead_ms, mono_ms=now.mono_ms)


@pytest.mark.parametrize("step_ms", [STEP_MS, -STEP_MS])
@pytest.mark.parametrize("taken_back", [False, True])
async def test_device_times_that_are_right_count_while_control_does_not_follow_a_step(
    tmp_path: Path, step_ms: int, taken_back: bool
) -> None:
    machine = SetClock()
    steady = SteadyClock(machine)
    settings = load_settings(write(tmp_path, http={"port": 0}, profiles_dir=str(PROFILES)))
    async with gateway(settings, clock=steady) as running:
        link = next(part for part in running.parts if isinstance(part, MqttLink))
        slot = running.fleet.register(home("a"), FACTS)
        machine.ahead_ms += step_ms
        steady.observe(idle=False)
        if taken_back:
            machine.ahead_ms -= step_ms
        assert abs(steady.now().utc_ms + machine.ahead_ms - machine.now().utc_ms) < MINUTE_MS
        said_ms = machine.now().utc_ms - 1_000
        link.emit(ReadingBatch(energy=batch([row(slot=slot, t=(said_ms - T0) / 1000, span=10, charge_wh=7.0)])))

        async def count(name: str) -> float:
            text = (await running.parts.metrics().text()).decode()
            return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} ")))

        async with asyncio.timeout(20):
            while not await count("gateway_settlement_rows_total"):
                await asyncio.sleep(0.02)
        assert await count("gateway_time_replaced_total") == 0

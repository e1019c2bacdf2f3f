"""A fleet that is dispatched meter by meter a minute before the start: each home has its first command when the event
begins, its own power within the ramp, and what the next slot says after that. How fast that is says
`python -m tests.bench signal`."""

import json
from pathlib import Path

import pytest

from gateway.domain.commands import CommandOp, CommandResult
from gateway.services.settings import ControlSettings
from tests.scenes.world import World, homes_of
from tests.signals.leap.bodies import HOUR, T0, body, slot
from tests.signals.leap.rig import Meters, signal_at

pytestmark = pytest.mark.real_time

HOMES, SLOTS = 300, 4
RAMP = 0.05
"""Of the dispatched power a second."""
CAPACITY_WH = 10_000
DEAD_BAND_W = 30
"""So near to it a setpoint stays as it is."""
QUARTER = HOUR // 4


def kw(home: int, number: int) -> float:
    """What a meter is to give in a slot."""
    return 0.5 + (home * 7 + number * 3) % 30 / 10


def drained(world: World) -> None:
    """A second of discharge."""
    world.homes.soc_pct -= world.homes.battery_w / 3600 / CAPACITY_WH * 100


async def test_each_of_many_meters_has_its_first_command_at_the_start_and_its_own_power_within_the_ramp(
    tmp_path: Path,
) -> None:
    first_w = [kw(home, 0) * 1000 for home in range(HOMES)]
    settings = ControlSettings(fleet_w_per_s=sum(first_w) * RAMP, release_spread_s=10.0, write_deadline_s=5.0)
    world = World(homes_of(HOMES), settings=settings)
    world.clock.advance(s=(T0 - world.clock.now().utc_ms) / 1000)
    told = body({
        f"m{home}": [
            slot(f"e{home}-{number}", hours=(1 + number / 4, 1 + (number + 1) / 4), energy_kw=kw(home, number))
            for number in range(SLOTS)
        ]
        for home in range(HOMES)
    })  # fmt: skip
    async with signal_at(tmp_path, homes=HOMES, world=world, meters=Meters(HOMES)) as rig:
        world.clock.advance(s=3600 - 60)
        await world.go(2)
        await rig.post(told)
        for _ in range(3):
            # a late copy changes nothing
            await rig.come(json.dumps(told).encode())
        await rig.signal.caught_up()
        assert [len(request.group.ids) for request, _ in rig.asked] == [HOMES]
        await world.go(57)
        assert world.homes.writes == []
        first_s: dict[int, int] = {}
        for second in range(round(1 / RAMP) + 5):
            await world.go(1)
            for home, op, *_ in world.homes.writes:
                assert op is CommandOp.SETPOINT
                first_s.setdefault(home, second)
        assert sorted(first_s) == list(range(HOMES))
        assert max(first_s.values()) <= 10
        assert world.control.stats.results[CommandResult.APPLIED] >= HOMES
        steps_w = max(b - a for a, b in zip(world.trace, world.trace[1:], strict=False))
        assert steps_w <= sum(first_w) * RAMP * 1.01
        assert world.homes.battery_w.tolist() == pytest.approx(first_w, abs=DEAD_BAND_W)
        await world.go(QUARTER // 1000, each=lambda: drained(world))
        then_w = [kw(home, 1) * 1000 for home in range(HOMES)]
        assert world.homes.battery_w.tolist() == pytest.approx(then_w, abs=DEAD_BAND_W)

"""Devices' answers come in any order: before, between or after the broker's acknowledgements, late, twice, or all at
once after a reconnect. A refusal is kept, and an old answer says nothing of a newer command."""

from dataclasses import replace

import numpy as np
import pytest

from gateway.domain.commands import CommandOp, CommandResult
from gateway.domain.readings import AckBatch
from tests.scenes.halts import Halts, Place
from tests.scenes.world import World, homes_of


class Answers:
    """What the homes answer, `late_s` after they did, each `times`; `away` keeps them until it ends."""

    def __init__(self, world: World, *, late_s: int = 0, times: int = 1) -> None:
        self._world, self._late_s, self._times = world, late_s, times
        self._waiting: list[tuple[int, AckBatch]] = []
        self.away = False
        world.homes.on_acks = lambda batch: self._waiting.append((world.clock.mono + late_s * 1000, batch))

    def come(self) -> None:
        due = [one for one in self._waiting if one[0] <= self._world.clock.mono and not self.away]
        for one in due:
            self._waiting.remove(one)
            for _ in range(self._times):
                self._world.control.observe_acks(one[1])


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("late_s", [0, 1, 3])
async def test_refusal_that_comes_late_or_twice_bars_the_direction_though_the_event_is_revised_every_second(
    late_s: int, times: int
) -> None:
    world = World(homes_of(2))
    world.homes.refusing.add(0)
    answers = Answers(world, late_s=late_s, times=times)
    await world.go(2, each=answers.come)
    event = world.event(s=600, target_w=4_000)
    for revision in range(1, 61):
        target_w = 3_000 + 2_000 * (revision % 2)
        revised = world.event(s=600, target_w=target_w)
        await world.dispatcher.submit(
            replace(revised, revision=revision, start_ms=event.start_ms, end_ms=event.end_ms)
        )  # fmt: skip
        await world.go(1, each=answers.come)
    row = world.rows()["home-00"]
    assert (row["status"], row["failure"]) == ("failed", "refused")
    asked = world.ops(0).count(CommandOp.SETPOINT)
    await world.go(60, each=answers.come)
    assert world.ops(0).count(CommandOp.SETPOINT) == asked


@pytest.mark.parametrize("place", [Place.WRITES, Place.WRITES_HALF, Place.WRITES_ALL])
async def test_old_answers_that_come_while_a_batch_is_written_say_nothing_of_its_commands(place: Place) -> None:
    world = World(homes_of(2))
    answers = Answers(world)
    await world.go(2, each=answers.come)
    await world.submit(s=600, target_w=4_000)
    answers.away = True
    await world.go(10, each=answers.come)
    cmd = int(world.fleet.control.cmd_sent[0])
    refused = np.array([int(CommandResult.REFUSED)], dtype=np.int8)
    old = AckBatch(slots=np.zeros(1, dtype=np.int32), cmd=np.array([cmd]), result=refused)
    world.homes.on_acks = lambda batch: None

    async def reconnects() -> None:
        world.control.observe_acks(old)

    halts = Halts(world, place, reconnects)
    await world.submit("more", s=600, target_w=8_000, priority=1)
    await world.go(1)
    assert halts.reached
    assert int(world.fleet.control.cmd_sent[0]) > cmd
    assert CommandResult(int(world.fleet.control.result[0])) is CommandResult.NONE
    assert int(world.fleet.control.refused[0]) == 0

"""Stops a tick where it awaits: at the release plan, at a reserve, at the writes. The test acts there, once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields
from enum import Enum

import numpy as np

from gateway.domain.commands import CommandBatch, CommandOp, WriteOutcome, WriteReport
from gateway.domain.journal.changes import Change, ControlTaken
from tests.scenes.world import World


class Place(Enum):
    """Where a tick stands: before and after the release plan is durable, before and after reserves are raised, and
    when no device, the first half of them, or every device has heard its command."""

    PLAN = "the release plan is on its way to the journal"
    PLAN_DURABLE = "the release plan is durable"
    RESERVE = "reserves are on their way"
    RESERVE_RAISED = "reserves are raised"
    WRITES = "commands are on their way"
    WRITES_HALF = "half of the commands have arrived"
    WRITES_ALL = "all commands have arrived"


class Killed(BaseException):
    """The process is gone; what it would have done next is not done."""


class Halts:
    """The journal and the link of a world, with a stop at one place, made once. `reached`: it was made."""

    def __init__(self, world: World, place: Place, then: Callable[[], Awaitable[None]]) -> None:
        self._place = place
        self._then = then
        self._commit, self._write = world.journal.commit, world.homes.write
        self.reached = False
        self.untold: WriteOutcome | None = None
        world.journal.commit = self.commit  # type: ignore[method-assign]
        world.homes.write = self.write  # type: ignore[method-assign]

    def again(self, place: Place, then: Callable[[], Awaitable[None]]) -> None:
        """Another stop, instead of one that was not reached."""
        self._place, self._then, self.reached = place, then, False

    async def commit(self, changes: Sequence[Change]) -> None:
        plan = any(isinstance(change, ControlTaken) for change in changes)
        await self._at(Place.PLAN, when=plan)
        await self._commit(changes)
        await self._at(Place.PLAN_DURABLE, when=plan)

    async def write(self, batch: CommandBatch, *, deadline_mono_ms: int) -> WriteReport:
        reserve = bool((batch.op == CommandOp.RESERVE).all())
        await self._at(Place.RESERVE if reserve else Place.WRITES)
        half = len(batch) // 2
        parts = []
        for rows in (slice(0, half), slice(half, None)):
            part = CommandBatch(**{f.name: getattr(batch, f.name)[rows] for f in fields(CommandBatch)})
            parts.append((await self._write(part, deadline_mono_ms=deadline_mono_ms)).delivery)
            if not reserve and rows.start == 0:
                await self._at(Place.WRITES_HALF)
        await self._at(Place.RESERVE_RAISED if reserve else Place.WRITES_ALL)
        return WriteReport(delivery=np.concatenate(parts))

    async def _at(self, place: Place, *, when: bool = True) -> None:
        if when and place is self._place and not self.reached:
            self.reached = True
            await asyncio.sleep(0)
            await self._then()


def kill() -> Callable[[], Awaitable[None]]:
    """The process dies at the stop."""

    async def die() -> None:
        raise Killed

    return die

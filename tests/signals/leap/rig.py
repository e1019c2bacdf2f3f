"""The signal over a directory and a book of events, with the real process that reads bodies."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from gateway.clock import ManualClock
from gateway.domain.events.book import Answer
from gateway.domain.events.lifecycle import BookEntry
from gateway.domain.events.request import EventRequest
from gateway.domain.types import DeviceId
from gateway.signals.leap.door import LeapAdmission
from gateway.signals.leap.requests import SOURCE, Batteries
from gateway.signals.leap.settings import LeapSignalSettings
from gateway.signals.leap.signal import LeapSignal
from gateway.signals.leap.submission import Submission
from tests.scenes.world import World, homes_of
from tests.signals.leap.bodies import T0, uid

SECRET = "shared-secret-0123456789"
PROGRAMS = {"CEC-DSGS": "dsgs-option3", "CCA": "ra-leap"}


@dataclass(slots=True)
class Meters:
    """One battery behind each meter `m0`, `m1`, ..., in the order of the homes; `lost` have none."""

    count: int
    lost: set[str] = field(default_factory=set)
    version: tuple[int, int] = (1, 1)

    def batteries(self, meters: Sequence[str], _at_ms: int) -> list[Batteries]:
        known = {uid(f"m{i}"): f"home-{i:02d}" for i in range(self.count) if f"m{i}" not in self.lost}
        return [[(DeviceId(known[meter]), 5_000.0)] if meter in known else [] for meter in meters]


def settings(**other: Any) -> LeapSignalSettings:
    return LeapSignalSettings.model_validate({"secret": SecretStr(SECRET), "read_timeout_s": 30} | other)


@dataclass(slots=True)
class Rig:
    """A signal that runs. `asked`: what was submitted, with its answer."""

    directory: Path
    world: World
    meters: Meters
    signal: LeapSignal
    submission: Submission
    asked: list[tuple[EventRequest, Answer]]

    @property
    def clock(self) -> ManualClock:
        return self.world.clock

    def known(self, name: str) -> BookEntry | None:
        return self.world.dispatcher.entry(name)

    async def post(self, told: object, level: str = "meter") -> None:
        """A webhook comes, and is read."""
        await self.come(told, level)
        await self.signal.caught_up()

    async def come(self, told: object, level: str = "meter") -> None:
        raw = told if isinstance(told, bytes) else json.dumps(told).encode()

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(raw), 65_536):
                yield raw[at : at + 65_536]

        assert await self.signal.door.receive(level, pieces(), len(raw)) is LeapAdmission.KEPT

    async def search(self, *items: Mapping[str, Any], asked_ms: int | None = None, level: str = "meter") -> None:
        """A page of search says this, and is read."""
        asked = self.clock.now().utc_ms if asked_ms is None else asked_ms
        await self.signal.keep_page(f"{level}_search", asked, json.dumps({"results": list(items)}).encode())
        await self.signal.caught_up()

    def files(self, folder: str) -> list[str]:
        return sorted(path.name for path in (self.directory / folder).iterdir())

    def metric(self, name: str, **labels: str) -> float:
        return sum(
            s.value for s in self.signal.samples() if s.name == name and labels.items() <= dict(s.labels).items()
        )


@asynccontextmanager
async def signal_at(
    directory: Path, *, homes: int = 4, world: World | None = None, meters: Meters | None = None,
    **other: Any,
) -> AsyncIterator[Rig]:  # fmt: skip
    world = world or World(homes_of(homes))
    world.clock.advance(s=(T0 - world.clock.now().utc_ms) / 1000 if world.clock.now().utc_ms < T0 else 0)
    asked: list[tuple[EventRequest, Answer]] = []
    found = meters or Meters(homes)

    async def submit(request: EventRequest) -> Answer:
        answer = await world.dispatcher.submit(request)
        asked.append((request, answer))
        return answer

    def known(name: str) -> BookEntry | None:
        entry = world.dispatcher.entry(name)
        return entry if entry is not None and entry.request.source == SOURCE else None

    submission = Submission(submit=submit, known=known, meters=found, program_of=PROGRAMS, per_device=False)
    signal = LeapSignal(settings(**other), submission, directory=directory, clock=world.clock)
    async with signal, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(signal.run(), name="leap")
        await signal.caught_up()
        try:
            yield Rig(directory, world, found, signal, submission, asked)
        finally:
            running.cancel()

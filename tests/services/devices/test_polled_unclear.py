"""A polled device that answers what cannot be read, or reports something about its safety that is not understood, is
excluded at once; its energy goes on."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from gateway.domain.errors import LinkDown, ProtocolViolation
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.readings import ReadingBatch
from gateway.domain.types import unclear_names
from gateway.ports.links import NO_MODELS, PointTarget
from gateway.profiles.compile import compile_profile
from gateway.profiles.compiled.points import Read
from gateway.profiles.compiled.sequences import Request
from gateway.profiles.language.product import Polling
from gateway.profiles.loader import parse_profile
from gateway.services.devices.polled import PolledDevices
from gateway.services.runtime.supervisor import Supervisor
from tests.builders.fakes import MemoryJournal, home
from tests.builders.profiles import HTTP, changed
from tests.profiles.compiled.test_points_unclear import GOOD, with_safety
from tests.scenes.waiting import service, until
from tests.virtual.clock import loop_clock

PROFILE = "sample-http"


@dataclass
class Wire:
    """The link of one device and all that is shared: says what it is told to say."""

    says: dict[str, Read] = field(default_factory=lambda: dict(GOOD))
    trouble: Exception | None = None
    heard_mono_ms: int | None = None
    notice: str | None = None
    models = NO_MODELS

    def link(self, target: PointTarget) -> "Wire":
        return self

    async def open(self) -> None:
        """Nothing to open."""

    async def read(self, points: Sequence[str]) -> dict[str, Read]:
        if self.trouble is not None:
            raise self.trouble
        return {name: ({"kind": "battery"} | self.says).get(name, 20.0) for name in points}

    async def write(self, request: Request) -> None:
        """Nothing is written here."""

    async def close(self) -> None:
        """Nothing to close."""


class Rig:
    """Sessions of one device over such a link."""

    def __init__(self) -> None:
        document = parse_profile(changed(HTTP, with_safety), name="sample.yaml")
        polling = Polling.model_construct(live_s=0.02, energy_s=0.04, slow_s=0.04)
        codec = compile_profile(document.model_copy(update={"polling": polling}))
        self.clock, self.wire, self.fleet = loop_clock(), Wire(), Fleet()
        self.fleet.register(
            home("a", profile=PROFILE, connection=DeviceConnection(url="http://127.0.0.1:1")), codec.facts
        )
        self.sessions = PolledDevices(
            fleet=self.fleet, codecs=[codec], links={"http": self.wire}, journal=MemoryJournal(), clock=self.clock,
            rng=random.Random(1), supervisor=Supervisor(rng=random.Random(1), clock=self.clock),
            wall=self.clock, secret_of=lambda _: "", boot=1, prior={},
        )  # fmt: skip
        self.sessions.emit = self.emit
        self.energy = 0

    def emit(self, batch: ReadingBatch) -> None:
        if batch.live is not None:
            self.fleet.observe_live(batch.live, self.clock.now())
        if batch.unclear is not None:
            self.fleet.observe_unclear(batch.unclear)
        self.energy += batch.energy is not None

    @property
    def unclear(self) -> list[str]:
        return unclear_names(int(self.fleet.live.unclear[0]))

    def polls(self, more: int = 3) -> "Polls":
        return Polls(self, self.sessions.stats.polls + more)


@dataclass
class Polls:
    """Whether so many polls have been answered and their readings have arrived."""

    rig: Rig
    count: int

    def __call__(self) -> bool:
        return self.rig.sessions.stats.polls >= self.count


async def test_session_answer_that_cannot_be_read_excludes_at_once_and_until_the_next_one() -> None:
    rig = Rig()
    async with service(rig.sessions.run):
        await until(rig.polls())
        assert rig.unclear == []
        rig.wire.trouble = ProtocolViolation("the body is no JSON")
        await until(lambda: rig.unclear == ["message"])
        rig.wire.trouble = None
        await until(lambda: rig.unclear == [])


async def test_session_answer_that_did_not_come_excludes_no_device_by_itself() -> None:
    rig = Rig()
    async with service(rig.sessions.run):
        await until(rig.polls())
        rig.wire.trouble = LinkDown("no answer")
        failures = rig.sessions.stats.poll_failures
        await until(lambda: rig.sessions.stats.poll_failures > failures + 1)
        assert rig.unclear == []


@pytest.mark.parametrize(
    ("name", "raw", "member"), [("grid_state", "off", "grid"), ("lock", "true", "locked"), ("word", 0.5, "faults")]
)
async def test_session_word_that_is_not_understood_bars_and_energy_goes_on(name: str, raw: Read, member: str) -> None:
    rig = Rig()
    async with service(rig.sessions.run):
        await until(rig.polls())
        rig.wire.says[name] = raw
        await until(lambda: rig.unclear == [member])
        before = rig.energy
        await until(lambda: rig.energy > before + 1)
        assert rig.fleet.live.soc_pct[0] == 50.0
        rig.wire.says[name] = GOOD[name]
        await until(lambda: rig.unclear == [])

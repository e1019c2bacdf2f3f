"""A session and what answers: what only resembles the registered product is never written, and the reason is shown."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.api.models import SessionState
from gateway.api.views.fleet import FleetView
from gateway.clock import ManualClock
from gateway.domain.commands import CommandOp, WriteOutcome
from gateway.domain.errors import LinkDown
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.types import DeviceId
from gateway.links.modbus.link import ModbusLinks
from gateway.links.mqtt.clocks import DeviceClocks
from gateway.ports.links import PointTarget
from gateway.profiles.loader import load_profiles
from gateway.services.control.reach import ReachWatch
from gateway.services.devices import session as session_module
from gateway.services.devices.device_control import Command, DeviceControlStats
from gateway.services.devices.registry import DeviceRegistry
from gateway.services.devices.session import DeviceSession
from gateway.services.devices.session_state import Hearer, SessionPhase, SessionStats
from simulators.faces.foxess_h3 import FoxessH3
from simulators.faces.fronius_gen24 import FroniusGen24
from simulators.faces.plant import Face
from simulators.faces.solaredge_storedge import SolarEdgeStorEdge
from tests.builders.fakes import FACTS, MemoryJournal, home, message_product
from tests.scenes.register_faces import make_plant
from tests.scenes.waiting import until
from tests.virtual.clock import loop_clock

CODECS = load_profiles(Path(__file__).parents[3] / "device_profiles")


class Heard:
    """What the session told."""

    def __init__(self) -> None:
        self.lives = 0
        self.trusted: list[bool] = []

    def hearer(self) -> Hearer:
        return Hearer(
            live=self._live,
            energy=lambda *_: None,
            answer=lambda *_: None,
            online=lambda *_: None,
            unread=lambda *_: None,
            trusted=lambda _, trusted: self.trusted.append(trusted),
        )

    def _live(self, *_: object) -> None:
        self.lives += 1


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "BACKOFF_BASE_S", 0.1)


@asynccontextmanager
async def session_with(profile: str, face: Face) -> AsyncIterator[tuple[DeviceSession, Heard]]:
    """A running session of `profile` whose device is `face`."""
    given = await face.start()
    codec, clock, heard = CODECS[profile], loop_clock(), Heard()
    assert codec.product is not None
    target = PointTarget(
        device=DeviceId("home"), connection=DeviceConnection(url=given.url), secret="", document=codec.document,
        points=codec.product.base.points,
    )  # fmt: skip
    links = ModbusLinks(clock)
    session = DeviceSession(
        0, target, codec.product, links=links, secret_of=str, journal=MemoryJournal(), clock=clock,
        rng=random.Random(1), hearer=heard.hearer(), prior={}, stats=SessionStats(), control_stats=DeviceControlStats(),
    )  # fmt: skip
    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(session.run(), name="session")
            try:
                yield session, heard
            finally:
                running.cancel()
    finally:
        await links.close()
        await face.stop()


def written(face: FoxessH3 | FroniusGen24) -> int:
    return sum(function in (6, 16) for _, function, *_ in face.server.requests)


def setpoint(w: float) -> Command:
    return Command(
        op=CommandOp.SETPOINT, setpoint_w=w, lease_s=60, reserve_pct=float("nan"), cmd=1, valid_until_ms=1 << 60
    )


def told_by_rest(session: DeviceSession) -> SessionState | None:
    fleet, journal = Fleet(), MemoryJournal()
    fleet.register(home("home"), FACTS)
    inventory = DeviceRegistry(clock=ManualClock(), fleet=fleet, journal=journal, codecs={"p": message_product()})
    inventory.load([home("home")])
    link = cast("Any", SimpleNamespace(clocks=DeviceClocks()))
    view = FleetView(
        fleet=fleet, inventory=inventory, link=link, clock=ManualClock(), reach=ReachWatch(fleet), sessions={0: session}
    )
    state = view.one("home")
    return state.session if state is not None else None


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [getattr(r, "error", "") for r in caplog.records if r.levelno == logging.ERROR and hasattr(r, "device")]


async def test_session_model_that_only_begins_like_the_product_is_not_written_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    face = FoxessH3(make_plant(), model="H1-5.0-E")
    async with session_with("foxess-h3", face) as (session, heard):
        await until(lambda: len(heard.trusted) >= 3)
        assert session.state is SessionPhase.QUARANTINED
        assert session.why is not None
        assert "'H1-5.0-E', expected one of 'H3-5.0-E'" in session.why
        assert await session.command(setpoint(1000)) is WriteOutcome.NOT_SENT
        assert (heard.trusted.count(True), heard.lives, written(face)) == (0, 0, 0)
        assert refusals(caplog) == [session.why]
        assert told_by_rest(session) == SessionState(state="quarantined", why=session.why, variant="")


async def test_session_command_that_is_not_carried_out_is_told_with_its_reason_by_rest() -> None:
    async with session_with("foxess-h3", FoxessH3(make_plant())) as (session, _):
        await until(lambda: session.state is SessionPhase.READY)
        assert await session.command(setpoint(1_000_000)) is WriteOutcome.REFUSED
        state = told_by_rest(session)
        assert state is not None
        assert state.not_done.keys() == {"setpoint"}
        assert state.not_done["setpoint"].startswith("remote_power: ")


async def test_session_refused_device_that_is_lost_and_found_is_told_of_only_when_its_reason_changes(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = FoxessH3(make_plant(), model="H1-5.0-E")
    async with session_with("foxess-h3", face) as (session, heard):
        await until(lambda: bool(heard.trusted))
        opened, down = ModbusLinks.link, asyncio.Event()

        def lost(links: ModbusLinks, target: PointTarget) -> object:
            down.set()
            raise LinkDown("nobody answers")

        monkeypatch.setattr(ModbusLinks, "link", lost)
        await until(down.is_set)
        monkeypatch.setattr(ModbusLinks, "link", opened)
        seen = len(heard.trusted)
        await until(lambda: len(heard.trusted) > seen)
        assert len(refusals(caplog)) == 1
        face.model = "H3-Pro-20.0"
        await until(lambda: "H3-Pro-20.0" in (session.why or ""))
        assert len(refusals(caplog)) == 2


@pytest.mark.parametrize("mppts", [1, 5])
async def test_session_fronius_with_a_number_of_modules_that_nobody_knows_is_not_written_and_told(mppts: int) -> None:
    face = FroniusGen24(make_plant(), mppts=mppts)
    async with session_with("fronius-gen24", face) as (session, heard):
        await until(lambda: len(heard.trusted) >= 2)
        assert session.state is SessionPhase.QUARANTINED
        length = 8 + 20 * (mppts + 2)
        assert session.why == (
            f"SunSpec model 160 is {length} words long ({mppts + 2} blocks), "
            "expected 88 or 108 or 128 (4 or 5 or 6 blocks)"
        )
        assert await session.command(setpoint(1000)) is WriteOutcome.NOT_SENT
        assert (heard.trusted.count(True), heard.lives, written(face)) == (0, 0, 0)


@pytest.mark.parametrize(("product", "mppts"), [("Symo GEN24 10.0", 3), ("Symo GEN24 10.0", 4), ("Verto 30.0", 2)])
async def test_session_fronius_with_the_modules_of_another_build_is_not_written_and_told(
    product: str, mppts: int
) -> None:
    face = FroniusGen24(make_plant(), product=product, mppts=mppts)
    async with session_with("fronius-gen24", face) as (session, heard):
        await until(lambda: len(heard.trusted) >= 2)
        assert session.state is SessionPhase.QUARANTINED
        assert (session.why or "").startswith(f"model is {product!r} and modules is {mppts + 2}, expected model a text")
        assert await session.command(setpoint(1000)) is WriteOutcome.NOT_SENT
        assert (heard.trusted.count(True), heard.lives, written(face)) == (0, 0, 0)


async def test_session_fronius_whose_length_and_number_of_modules_disagree_is_told() -> None:
    face = FroniusGen24(make_plant())
    next(model for model in face.inverter.models if model.number == 160).set(N=3)
    async with session_with("fronius-gen24", face) as (session, _):
        await until(lambda: session.state is SessionPhase.QUARANTINED)
        assert session.why == "SunSpec model 160 has 4 blocks by its length and says 3"


@pytest.mark.parametrize(("profile", "face"), [("foxess-h3", FoxessH3), ("fronius-gen24", FroniusGen24)])
async def test_session_the_product_itself_becomes_ready(
    profile: str, face: type[FoxessH3] | type[FroniusGen24]
) -> None:
    async with session_with(profile, face(make_plant())) as (session, heard):
        await until(lambda: session.state is SessionPhase.READY)
        await until(lambda: heard.lives > 0)
        assert (session.why, heard.trusted) == (None, [True])


async def test_session_refused_device_becomes_ready_once_it_says_what_it_is() -> None:
    face = FoxessH3(make_plant(), model="H1-5.0-E")
    async with session_with("foxess-h3", face) as (session, _):
        await until(lambda: session.state is SessionPhase.QUARANTINED)
        face.model = "H3-6.0-E"
        await until(lambda: session.state is SessionPhase.READY)


async def test_session_says_which_of_several_meters_it_reads_and_rest_tells_it() -> None:
    face = SolarEdgeStorEdge(make_plant(), production_meter=True)
    async with session_with("solaredge-storedge", face) as (session, heard):
        await until(lambda: heard.lives > 0)
        told = told_by_rest(session)
        assert told is not None
        assert told.models["meter"].startswith("model 203 at 40362 (2 of 2, SE-MTR-3Y-400V-A, Export+Import, serial ")
        assert told.notice is None

"""Secrets of devices: read at every connect, so that one that could not be read, or was changed, needs no restart."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from gateway.domain.errors import InvalidInput, PeerRefused
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.types import DeviceId
from gateway.ports.links import PointTarget
from gateway.profiles.compile import compile_profile
from gateway.profiles.loader import parse_profile
from gateway.services.devices.session_state import SessionPhase
from tests.scenes.waiting import service, until
from tests.services.devices.test_polled import OLD, POLLED, Bench, Home
from tests.virtual.clock import loop_clock

REFERENCE = "file:/run/credentials/devices/a"
UNREADABLE = "secret: /run/credentials/devices/a cannot be read: No such file"


class Safe:
    """Where secrets lie: `text` None = it cannot be read."""

    def __init__(self, text: str | None) -> None:
        self.text = text
        self.reads: list[str] = []

    def __call__(self, reference: str) -> str:
        self.reads.append(reference)
        if self.text is None:
            raise InvalidInput([UNREADABLE])
        return self.text


class Locked(Home):
    """A battery that opens for one secret; `tried` is what it was opened with."""

    def __init__(self, opens_for: str) -> None:
        super().__init__()
        self.opens_for = opens_for
        self.secret = ""
        self.tried: list[str] = []

    async def open(self) -> None:
        self.tried.append(self.secret)
        if self.secret != self.opens_for:
            raise PeerRefused("login refused (HTTP 401)")
        await super().open()


@dataclass
class SecretBench(Bench):
    """One device with a secret."""

    def link(self, target: PointTarget) -> Home:
        found = super().link(target)
        if isinstance(found, Locked):
            found.secret = target.secret
        return found


@asynccontextmanager
async def bench(safe: Safe, home: Home) -> AsyncIterator[SecretBench]:
    made = SecretBench(secret_of=safe)
    made.homes[OLD] = home
    await made.register()
    made.fleet.connections[0] = replace(made.fleet.connections[0], secret=REFERENCE)
    async with service(made.sessions.run):
        yield made


def why(made: Bench) -> str:
    session = made.sessions.sessions.get(0)
    return "" if session is None or session.why is None else session.why


async def test_secret_that_could_not_be_read_once_is_read_again_and_the_device_is_served() -> None:
    safe = Safe(None)
    async with bench(safe, Locked("s3cret")) as b:
        await until(lambda: len(safe.reads) >= 3)
        assert b.sessions.sessions[0].state is SessionPhase.DOWN
        safe.text = "s3cret"
        await b.ready()
        assert set(safe.reads) == {REFERENCE}


async def test_secret_that_cannot_be_read_is_named_by_device_until_it_can(caplog: pytest.LogCaptureFixture) -> None:
    safe = Safe(None)
    async with bench(safe, Locked("s3cret")) as b:
        await until(lambda: len(safe.reads) >= 3)
        assert why(b) == UNREADABLE
        assert b.sessions.warnings() == ["secrets of 1 devices cannot be read, first of a"]
        assert metric(b) == 1
        lines = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert [(r.message, r.__dict__["device"]) for r in lines] == [("a device's secret cannot be read", "a")]
        safe.text = "s3cret"
        await b.ready()
        assert (b.sessions.warnings(), metric(b), why(b)) == ([], 0, "")


async def test_secret_is_tried_with_growing_pauses() -> None:
    safe = Safe(None)
    async with bench(safe, Locked("s3cret")):
        await until(lambda: len(safe.reads) >= 4)
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        await until(lambda: len(safe.reads) >= 5)
        # half of 16 s: 2, 4 and 8 went before
        assert loop.time() - begun_s >= 7.9


async def test_secret_that_was_changed_is_read_anew_after_a_refused_login() -> None:
    safe, home = Safe("old"), Locked("old")
    async with bench(safe, home) as b:
        await b.ready()
        home.opens_for, home.down = "new", True
        await until(lambda: b.sessions.sessions[0].state is SessionPhase.DOWN)
        home.down = False
        await until(lambda: home.tried.count("old") >= 3)
        assert why(b) == "login refused (HTTP 401)"
        safe.text = "new"
        await b.ready()
        assert home.tried[-1] == "new"


async def test_secret_is_not_read_while_the_connection_lasts() -> None:
    safe = Safe("s3cret")
    async with bench(safe, Locked("s3cret")) as b:
        await b.ready()
        reads, lives = len(safe.reads), b.lives()
        await until(lambda: b.lives() > lives + 3)
        assert len(safe.reads) == reads


async def test_device_without_a_secret_asks_for_none() -> None:
    safe, home = Safe(None), Locked("")
    async with bench(safe, home) as b:
        b.fleet.connections[0] = replace(b.fleet.connections[0], secret="")
        await b.ready()
        assert b.sessions.warnings() == []


def test_target_does_not_show_its_secret() -> None:
    document = compile_profile(parse_profile(POLLED, name="made-up.yaml")).document
    target = PointTarget(
        device=DeviceId("a"), connection=DeviceConnection(url=OLD), secret="hush", document=document, points={}
    )
    assert "hush" not in repr(target)


async def test_devices_that_are_lost_together_are_a_few_lines_and_a_number(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    homes = {f"modbus://10.1.0.{i}": Home() for i in range(1, 51)}
    b = Bench(homes=dict(homes), clock=loop_clock())
    monkeypatch.setattr("gateway.services.devices.polled.MATCH_S", 1.0)
    for i, url in enumerate(homes):
        await b.register(f"d{i:02}", address=url)
    async with service(b.sessions.run):
        await until(lambda: sum(s.state is SessionPhase.READY for s in b.sessions.sessions.values()) == 50)
        await asyncio.sleep(70)
        caplog.clear()
        for home in homes.values():
            home.down = True
        await asyncio.sleep(70)
    lost = [r for r in caplog.records if r.message == "a device was lost"]
    assert len(lost) == 20
    summed = [r.__dict__["devices"] for r in caplog.records if r.message == "more devices than are logged one by one"]
    assert summed == [{"lost": 30}]


async def test_device_that_stays_away_is_one_line_and_one_more_when_it_was_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    home = Home()
    async with bench(Safe("x"), home) as b:
        await b.ready()
        for lost in (1, 2):
            home.down = True
            # many attempts to reach it
            await asyncio.sleep(600)
            assert len([r for r in caplog.records if r.message == "a device was lost"]) == lost
            home.down = False
            await b.ready()


def metric(made: Bench) -> float:
    return next(s.value for s in made.sessions.samples() if s.name == "gateway_sessions_without_secret")

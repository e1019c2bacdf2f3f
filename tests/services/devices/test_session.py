"""One polled device's session: what it makes of commands that come while it waits, and of what it has read when."""

import asyncio
import contextlib
import random
from collections.abc import Mapping, Sequence

import pytest

from gateway.clock import ManualClock
from gateway.domain.commands import CommandOp, CommandResult, WriteOutcome
from gateway.domain.errors import InvariantBroken, LinkDown, NotThisProduct, PeerBusy, PeerRefused
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.types import DeviceId, Now
from gateway.ports.links import NO_MODELS, PointLink, PointTarget
from gateway.profiles.compile import compile_profile
from gateway.profiles.compiled.points import Raw
from gateway.profiles.compiled.sequences import Request
from gateway.profiles.compiled.variant import CanonicalReading
from gateway.profiles.loader import parse_profile
from gateway.services.control.authority import DeviceAuthority
from gateway.services.devices import session_state
from gateway.services.devices.device_control import Command, DeviceControlStats
from gateway.services.devices.polled import live_batch
from gateway.services.devices.session import DeviceSession
from gateway.services.devices.session_state import Hearer, SessionPhase, SessionStats
from gateway.services.settings import ControlSettings
from tests.builders.fakes import FACTS, MemoryJournal, home
from tests.scenes.waiting import turns

PROFILE = """
language: 1
profile: made-up
maker: Made
product: Up
evidence: {tag: documented, source: this test}
transport: modbus
facts:
  {command_latency_s: 5, efficiency_discharge: 0.95, efficiency_charge: 0.95, standby_w: 30, soc_uncertainty_pct: 5}
modbus: {units: {main: 1}}
polling: {live_s: 600}
identity: {rules: [{point: model_code, equals: [7]}]}
points:
  model_code: {register: 1, type: u16, poll: once}
  battery: {register: 2, type: i16, unit: W}
  soc: {register: 3, type: u16, unit: "%"}
  backup: {register: 4, type: u16, unit: "%", poll: slow}
  power: {register: 12, type: i16, unit: W, sign: charge_positive, range: [-3000, 3000], access: rw, storage: volatile}
readings:
  battery_w: {point: battery, sign: discharge_positive, measured_at: battery_ac, range: [-5000, 5000]}
  soc_pct: {point: soc, range: [0, 100]}
  reserve_pct: {point: backup, range: [0, 100]}
control:
  domain: battery_ac
  discharge: &power
    - {write: power, from: setpoint_w}
  charge: *power
  hold: *power
  release: [{write: power, value: 0}]
  interval_s_min: 600
watchdog: {kind: implicit, lease_s: 60, reverts_within_s: 66, falls_back_to: self_consumption}
"""


class Device:
    """A link whose registers hold what is written; `told` is what was, in order. `trouble` is raised at every attempt
    to connect, which `attempts` counts."""

    heard_mono_ms: int | None = None
    notice: str | None = None
    models = NO_MODELS

    def __init__(self) -> None:
        self.registers = {"model_code": 7, "battery": 0, "soc": 60, "backup": 20, "power": 0}
        self.told: list[int] = []
        self.trouble: Exception | None = None
        self.attempts = 0

    async def open(self) -> None:
        self.attempts += 1
        if self.trouble is not None:
            raise self.trouble.with_traceback(None)

    async def close(self) -> None: ...

    async def read(self, points: Sequence[str]) -> dict[str, Raw]:
        return {name: (self.registers[name] & 0xFFFF,) for name in points}

    async def write(self, request: Request) -> None:
        for write in request.writes:
            assert isinstance(write.raw, tuple)
            self.registers[write.point] = write.raw[0]
            self.told.append(write.raw[0] if write.raw[0] < 0x8000 else write.raw[0] - 0x10000)


class Links:
    """Gives the one device to whoever asks."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def link(self, target: PointTarget) -> PointLink:
        del target
        return self.device

    async def close(self) -> None: ...


class Bench:
    """A session of a device that is connected; time is moved by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.device = Device()
        self.lives: list[CanonicalReading] = []
        self.answers: list[tuple[int, CommandResult]] = []
        self.stats = SessionStats()
        self.cmd = 0
        product = compile_profile(parse_profile(PROFILE, name="made-up.yaml")).product
        assert product is not None
        self.product = product

        def live(_slot: int, reading: CanonicalReading, _now: Now, _cmd: int) -> None:
            self.lives.append(reading)

        hearer = Hearer(
            live=live, energy=lambda *_: None, answer=lambda _, cmd, result: self.answers.append((cmd, result)),
            online=lambda *_: None, unread=lambda *_: None, trusted=lambda *_: None,
        )  # fmt: skip
        prior: dict[DeviceId, Mapping[str, float | str | bool]] = {}
        target = PointTarget(
            device=DeviceId("home"), connection=DeviceConnection(url=""), secret="", document=product.document,
            points=product.base.points,
        )  # fmt: skip
        self.session = DeviceSession(
            0, target, product, links=Links(self.device), secret_of=str, journal=MemoryJournal(), clock=self.clock,
            rng=random.Random(1), hearer=hearer, prior=prior, stats=self.stats, control_stats=DeviceControlStats(),
        )  # fmt: skip

    async def connected(self) -> "Bench":
        await self.session._connect()
        assert self.session.state is SessionPhase.READY
        return self

    def tell(self, op: CommandOp, setpoint_w: float = 0.0) -> asyncio.Future[WriteOutcome]:
        self.cmd += 1
        return self.session.command(
            Command(
                op=op, setpoint_w=setpoint_w, lease_s=60, reserve_pct=float("nan"), cmd=self.cmd,
                valid_until_ms=self.clock.utc + 20_000,
            )
        )  # fmt: skip


async def test_session_release_takes_the_place_of_a_setpoint_that_waits_for_its_time() -> None:
    bench = await Bench().connected()
    async with asyncio.TaskGroup() as tasks:
        obeying = tasks.create_task(bench.session._obey(), name="obey")
        first = bench.tell(CommandOp.SETPOINT, 1_000)
        await turns()
        waiting = bench.tell(CommandOp.SETPOINT, 2_000)
        await turns()
        assert (first.result(), waiting.done()) == (WriteOutcome.ACCEPTED, False)
        release = bench.tell(CommandOp.RELEASE)
        await turns()
        assert (waiting.result(), release.result()) == (WriteOutcome.NOT_SENT, WriteOutcome.ACCEPTED)
        obeying.cancel()
    assert bench.device.told == [-1_000, 0]
    assert bench.stats.superseded == 1
    assert [cmd for cmd, _ in bench.answers] == [1, 3]


async def test_session_says_once_and_shows_why_a_command_was_not_carried_out(caplog: pytest.LogCaptureFixture) -> None:
    bench = await Bench().connected()
    async with asyncio.TaskGroup() as tasks:
        obeying = tasks.create_task(bench.session._obey(), name="obey")
        for _ in range(3):
            bench.tell(CommandOp.SETPOINT, 4_000)
            await turns()
            bench.clock.advance(s=600)
        beyond = "power: -4000 is outside -3000 to 3000"
        assert bench.session.not_done == {"setpoint": beyond}
        bench.tell(CommandOp.RESERVE)
        await turns()
        assert bench.session.not_done == {"setpoint": beyond, "reserve": "the product has no reserve"}
        bench.clock.advance(s=600)
        bench.tell(CommandOp.SETPOINT, 2_000)
        await turns()
        assert bench.session.not_done == {"reserve": "the product has no reserve"}
        obeying.cancel()
    assert [result for _, result in bench.answers].count(CommandResult.REFUSED) == 4
    assert [line.message for line in caplog.records].count("a command was not carried out") == 2


async def test_session_newest_setpoint_is_written_once_its_time_has_come() -> None:
    bench = await Bench().connected()
    async with asyncio.TaskGroup() as tasks:
        obeying = tasks.create_task(bench.session._obey(), name="obey")
        bench.tell(CommandOp.SETPOINT, 1_000)
        await turns()
        bench.tell(CommandOp.SETPOINT, 2_000)
        await turns()
        bench.clock.advance(s=600)
        newest = bench.tell(CommandOp.SETPOINT, 3_000)
        await turns()
        assert newest.result() is WriteOutcome.ACCEPTED
        obeying.cancel()
    assert bench.device.told == [-1_000, -3_000]


async def test_session_reserve_is_told_anew_only_when_its_point_was_read() -> None:
    bench = await Bench().connected()
    variant = bench.session.product_variant
    live, slow = list(variant.groups["live"]), list(variant.groups["slow"])
    # Everything was read at the connect; then the reserve has its turn once in a while, and is said with every reading.
    for names in (live, live, [*live, *slow], live):
        await bench.session._read(names, bench.clock.now())
    assert [reading.reserve_again for reading in bench.lives] == [False, True, False, True]
    assert [reading.get("reserve_pct") for reading in bench.lives] == [20] * 4
    batch = live_batch([(0, reading, bench.clock.now(), 0) for reading in bench.lives])
    assert batch.reserve_again is not None
    assert batch.reserve_again.tolist() == [False, True, False, True]


async def test_session_reserve_that_was_misread_once_lowers_nobodys_while_its_reading_is_repeated() -> None:
    bench = await Bench().connected()
    fleet = Fleet()
    fleet.register(home("home"), FACTS)
    authority = DeviceAuthority(ControlSettings(), fleet=fleet)
    authority.adopt([], bench.clock.now())
    variant = bench.session.product_variant
    live, slow = list(variant.groups["live"]), list(variant.groups["slow"])

    async def poll(s: int, *, backup: int) -> float:
        """A slow poll, and live ones every 5 s after it; the reserve afterwards."""
        bench.device.registers["backup"] = backup
        for second in range(0, s, 5):
            await bench.session._read([*live, *slow] if second == 0 else live, bench.clock.now())
            fleet.observe_live(live_batch([(0, bench.lives[-1], bench.clock.now(), 0)]), bench.clock.now())
            authority.update(bench.clock.now())
            bench.clock.advance(s=5)
        return float(fleet.nameplate.owner_reserve_pct[0])

    assert await poll(300, backup=20) == 20
    # A torn register, said again with every reading for a quarter of an hour.
    assert await poll(900, backup=0) == 20
    assert await poll(300, backup=20) == 20
    # An owner's choice, read three times.
    assert await poll(300, backup=10) == 20
    assert await poll(300, backup=10) == 20
    assert await poll(300, backup=10) == 10


async def attempts(trouble: Exception, *, within_s: float = 600) -> int:
    """How often a session tries to connect to a device in trouble."""
    bench = Bench()
    bench.device.trouble = trouble
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await bench.session.run()
    return bench.device.attempts


async def test_session_that_is_refused_tries_again_less_often_than_one_that_finds_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_state, "BACKOFF_CAP_S", 5.0)
    away, refused = await attempts(LinkDown("away")), await attempts(PeerRefused("no"))
    assert 600 / 5 <= away <= 600 / 2
    assert 600 / 40 <= refused <= 600 / 20 + 5
    assert await attempts(NotThisProduct("another")) == refused


async def test_session_that_is_busy_waits_as_long_as_the_device_asks() -> None:
    assert await attempts(PeerBusy("later", after_s=200)) <= 4


@pytest.mark.parametrize("bug", [InvariantBroken("a bug"), KeyError("a bug")])
async def test_session_with_a_bug_ends_and_leaves_the_rest_to_its_supervisor(bug: Exception) -> None:
    bench = Bench()
    bench.device.trouble = bug
    with pytest.raises(ExceptionGroup) as caught:
        await bench.session.run()
    assert caught.value.exceptions == (bug,)
    assert bench.device.attempts == 1
    assert bench.session.state is SessionPhase.DOWN

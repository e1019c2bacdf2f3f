"""Sessions of polled devices follow the registry: a device that is registered elsewhere, or as another product, is
read and written as what it is now, and no other device is."""

import asyncio
import itertools
import json
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

import numpy as np
import pytest

from gateway.clock import Clock, ManualClock, SystemClock
from gateway.domain.commands import CommandBatch, CommandOp, WriteOutcome
from gateway.domain.errors import LinkDown
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import Setting
from gateway.domain.readings import ReadingBatch
from gateway.domain.types import DeviceId
from gateway.links.mqtt.messages import MqttLink, MqttLinkSettings
from gateway.ports.links import PointTarget
from gateway.profiles.compile import Codec, compile_profile
from gateway.profiles.compiled.points import Raw
from gateway.profiles.loader import parse_profile
from gateway.services.devices import polled as sessions_module
from gateway.services.devices.command_router import CommandRouter
from gateway.services.devices.import_rows import parse_rows
from gateway.services.devices.polled import PolledDevices
from gateway.services.devices.registry import DeviceRegistry, Imported
from gateway.services.devices.session_state import SessionPhase
from gateway.services.devices.waiting_energy import WaitingEnergy
from gateway.services.runtime.supervisor import Supervisor
from gateway.transports.mqtt.settings import MqttSettings
from tests.builders.fakes import FACTS, MemoryJournal, home, message_product
from tests.scenes.street import Wire
from tests.scenes.waiting import service, turns, until
from tests.services.devices.test_device_control import PROFILE, Device
from tests.virtual.clock import loop_clock

POLLED = PROFILE.replace("domain: battery_ac", "domain: battery_ac\n  settle_s: 0").replace(
    "modbus: {units", "polling: {live_s: 0.5, energy_s: 1, slow_s: 300}\nmodbus: {units"
)
OLD_MODEL = """
overlays:
  - {name: old, when: [{point: allowed, equals: [8]}], read_only: nobody knows its registers}
"""
OLD, NEW = "modbus://10.0.0.1", "modbus://10.0.0.2"
NEVER_S = 3600.0


class Prompt(random.Random):
    """No spread over time: what may begin, begins."""

    def uniform(self, a: float, b: float) -> float:
        return a


class Home(Device):
    """A battery at an address; `down` refuses connections, `faulty` makes the session itself fail."""

    down = False
    faulty = False
    reads = 0

    async def open(self) -> None:
        if self.faulty:
            raise KeyError("a bug")
        if self.down:
            raise LinkDown("gone")

    async def read(self, points: Sequence[str]) -> dict[str, Raw]:
        self.reads += 1
        if self.faulty:
            raise KeyError("a bug")
        if self.down:
            raise LinkDown("gone")
        return await super().read(points)


@dataclass
class Bench:
    """Sessions over made-up batteries by address, and the registry that they are registered by."""

    homes: dict[str, Home] = field(default_factory=lambda: {url: Home() for url in (OLD, NEW, "modbus://10.0.0.3")})
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    prior: dict[DeviceId, Mapping[str, Setting]] = field(default_factory=dict)
    fleet: Fleet = field(default_factory=Fleet)
    clock: Clock = field(default_factory=SystemClock)
    wall: Clock | None = None
    heard: list[ReadingBatch] = field(default_factory=list)
    cmd: int = 0
    secret_of: Callable[[str], str] = lambda _: ""
    inventory: DeviceRegistry = field(init=False)
    sessions: PolledDevices = field(init=False)
    supervisor: Supervisor = field(init=False)

    def __post_init__(self) -> None:
        polled, spoken = compile_profile(parse_profile(POLLED + OLD_MODEL, name="made-up.yaml")), message_product()
        other = compile_profile(parse_profile(POLLED.replace("made-up", "other"), name="other.yaml"))
        codecs: dict[str, Codec] = {codec.name: codec for codec in (polled, other, spoken)}
        self.inventory = DeviceRegistry(
            clock=self.clock, fleet=self.fleet, journal=self.journal, codecs=codecs, saved=self.prior
        )
        for name in codecs:
            self.fleet.profiles.index(name)
        self.supervisor = Supervisor(rng=Prompt(), clock=self.clock)
        self.sessions = PolledDevices(
            fleet=self.fleet, codecs=[polled, other], links={"modbus": self}, journal=self.journal, clock=self.clock,
            wall=self.wall or self.clock, rng=Prompt(), supervisor=self.supervisor, secret_of=self.secret_of, boot=1,
            prior=self.prior,
        )  # fmt: skip
        self.sessions.emit = self.heard.append

    def link(self, target: PointTarget) -> Home:
        return self.homes[target.connection.url]

    async def close(self) -> None:
        """Nothing is shared."""

    async def register(self, device: str = "a", /, **cells: object) -> Imported:
        row = {"id": device, "profile": "made-up", "site": "s", "capacity_wh": 10_000, "discharge_w_max": 5_000,
               "charge_w_max": 5_000, "reserve_pct": 20, "address": OLD}  # fmt: skip
        text = json.dumps({k: v for k, v in (row | cells).items() if v is not None})
        inventory = self.inventory
        return await inventory.register_rows(
            parse_rows(text, form="jsonl", profiles=inventory.profiles, places=inventory.places)
        )

    async def ready(self, slot: int = 0) -> None:
        sessions = self.sessions.sessions
        await until(lambda: slot in sessions and sessions[slot].state is SessionPhase.READY, "a session that is ready")

    async def tell(self, op: CommandOp, setpoint_w: int = 0) -> WriteOutcome:
        self.cmd += 1
        batch = CommandBatch(
            slots=np.zeros(1, dtype=np.int32), op=np.array([int(op)], dtype=np.int8),
            setpoint_w=np.array([setpoint_w]), lease_s=np.array([60]), reserve_pct=np.array([np.nan]),
            cmd=np.array([self.cmd]), valid_until_ms=np.array([self.clock.now().utc_ms + 60_000]),
        )  # fmt: skip
        report = await self.sessions.write(batch, deadline_mono_ms=self.clock.mono_ms() + 60_000)
        return WriteOutcome(int(report.delivery[0]))

    def lives(self) -> int:
        return sum(batch.live is not None for batch in self.heard)


@asynccontextmanager
async def bench(monkeypatch: pytest.MonkeyPatch, *, match_s: float, clock: Clock | None = None) -> AsyncIterator[Bench]:
    """A registered device, its session ready; afterwards the sessions compare themselves with the registry."""
    monkeypatch.setattr(sessions_module, "FLUSH_S", 0.0)
    monkeypatch.setattr(sessions_module, "MATCH_S", match_s)
    made = Bench(clock=clock or SystemClock())
    await made.register()
    async with service(made.sessions.run):
        await made.ready()
        await until(lambda: made.lives() > 0, "a reading")
        yield made


async def test_battery_under_control_is_handed_back_where_it_was_before_its_row_may_move(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(monkeypatch, match_s=0.005) as b:
        old, new = b.homes[OLD], b.homes[NEW]
        new.registers["mode"] = 9
        assert await b.tell(CommandOp.SETPOINT, 2_000) is WriteOutcome.ACCEPTED
        await until(lambda: old.registers["enable"] == 1, "the setpoint at the old address")
        done = await b.register(address=NEW)
        assert (done.departing, done.bad) == (1, [])
        assert await b.inventory.depart() == []
        assert "still without the settings it had before" in b.inventory.waits_for(DeviceId("a"))
        await b.tell(CommandOp.RELEASE)
        await until(lambda: not b.prior, "the settings restored")
        assert (old.registers["enable"], old.registers["mode"], old.registers["limit"]) == (0, 1, 2500)
        assert await b.inventory.depart() == ["a"]
        await until(lambda: new.reads > 0, "the new address asked")
        await b.ready()
        written = len(old.told)
        assert await b.tell(CommandOp.RELEASE) is WriteOutcome.ACCEPTED
        await until(lambda: "enable=0" in new.told, "the release at the new address")
        assert (new.registers["mode"], len(old.told)) == (9, written)


def energies(heard: Sequence[ReadingBatch]) -> list[tuple[int, int, float]]:
    """Begin and end (UTC ms) and discharged energy (Wh) of every energy sample, in order."""
    return [
        (int(t_ms - span_ms), int(t_ms), float(wh))
        for batch in heard
        if (energy := batch.energy) is not None
        for t_ms, span_ms, wh in zip(energy.t_ms, energy.span_ms, energy.discharge_wh, strict=True)
    ]


async def test_energy_is_told_by_the_wall_clock_whatever_control_goes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = ManualClock(utc_ms=loop_clock().now().utc_ms + 20 * 60_000, mono_ms=loop_clock().mono_ms())
    monkeypatch.setattr(sessions_module, "FLUSH_S", 0.0)
    b = Bench(clock=loop_clock(), wall=wall)
    await b.register()
    async with service(b.sessions.run):
        await b.ready()
        await until(lambda: len(energies(b.heard)) >= 2, "samples")
    off_ms = [end - b.clock.now().utc_ms for _, end, _ in energies(b.heard)]
    assert all(15 * 60_000 < ms < 21 * 60_000 for ms in off_ms)


async def test_energy_waits_for_as_long_as_anybody_pauses_telemetry_and_none_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(monkeypatch, match_s=NEVER_S, clock=loop_clock()) as b:
        await until(lambda: len(energies(b.heard)) >= 2, "samples before")
        before = len(energies(b.heard))
        for on in (True, True, False):
            b.sessions.pause_telemetry(on)
        reads = b.homes[OLD].reads
        await until(lambda: b.homes[OLD].reads >= reads + 30, "polling goes on")
        assert len(energies(b.heard)) == before
        b.sessions.pause_telemetry(False)
        await until(lambda: len(energies(b.heard)) > before + 8, "the samples that waited")
        told = energies(b.heard)
        assert all(end == begin for (_, end, _), (begin, _, _) in itertools.pairwise(told))
        assert b.sessions.stats.energy_gaps == 0


@pytest.mark.parametrize("disk", [False, True])
async def test_energy_of_polled_devices_is_whole_over_fan_outs_to_others(
    monkeypatch: pytest.MonkeyPatch, disk: bool
) -> None:
    async with bench(monkeypatch, match_s=NEVER_S, clock=loop_clock()) as b:
        n, fleet = 600, b.fleet
        for i in range(n):
            fleet.register(home(f"home-{i}"), FACTS)
        with patch("gateway.links.mqtt.messages.MqttConnection", Wire):
            broker = MqttSettings(url="mqtt://127.0.0.1:1", client_id="t")
            link = MqttLink(MqttLinkSettings(broker=broker), codecs=[message_product()], fleet=fleet, clock=b.clock)
        router = CommandRouter(fleet, link, [(b.sessions.profiles, b.sessions)])
        if disk:
            b.sessions.pause_telemetry(True)
            link.pause_telemetry(True)
        for fan_out in range(5):
            batch = CommandBatch(
                slots=np.arange(n + 1, dtype=np.int32), op=np.full(n + 1, int(CommandOp.SETPOINT), dtype=np.int8),
                setpoint_w=np.full(n + 1, 1_000), lease_s=np.full(n + 1, 60), reserve_pct=np.full(n + 1, np.nan),
                cmd=np.arange(1, n + 2) + fan_out * n, valid_until_ms=np.full(n + 1, b.clock.now().utc_ms + 60_000),
            )  # fmt: skip
            report = await router.write(batch, deadline_mono_ms=b.clock.mono_ms() + 60_000)
            assert set(report.delivery.tolist()) == {int(WriteOutcome.ACCEPTED)}
            reads = b.homes[OLD].reads
            await until(lambda: b.homes[OLD].reads > reads + 4, "polling goes on")  # noqa: B023
        assert disk != bool(energies(b.heard)), "a fan-out neither begins nor ends a pause of polled energy"
        if disk:
            b.sessions.pause_telemetry(False)
        await until(lambda: len(energies(b.heard)) >= 8, "samples of all the while")
        told = energies(b.heard)
        assert all(end == begin for (_, end, _), (begin, _, _) in itertools.pairwise(told))


async def test_energy_beyond_the_room_is_joined_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "WaitingEnergy", lambda: WaitingEnergy(most=4))
    async with bench(monkeypatch, match_s=NEVER_S, clock=loop_clock()) as b:
        b.sessions.pause_telemetry(True)
        reads = b.homes[OLD].reads
        await until(lambda: b.homes[OLD].reads >= reads + 60, "polling goes on")
        b.sessions.pause_telemetry(False)
        await until(lambda: bool(energies(b.heard)), "the samples that waited")
        told = energies(b.heard)
        assert len(told) <= 8
        assert all(end == begin for (_, end, _), (begin, _, _) in itertools.pairwise(told))
        assert told[-1][1] - told[0][0] >= 25_000


@pytest.mark.parametrize("cells", [{"address": NEW}, {"profile": "other"}, {"profile": "p", "address": None}])
async def test_command_after_a_move_never_goes_to_the_battery_of_before(
    monkeypatch: pytest.MonkeyPatch, cells: dict[str, object]
) -> None:
    async with bench(monkeypatch, match_s=NEVER_S) as b:
        assert (await b.register(**cells)).registered == 1
        assert await b.tell(CommandOp.SETPOINT, 2_000) is WriteOutcome.NOT_SENT
        await turns()
        assert b.homes[OLD].told == []


async def test_readings_after_a_move_are_none_of_the_battery_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch, match_s=NEVER_S) as b:
        reads = b.homes[OLD].reads
        await b.register(address=NEW)
        heard = len(b.heard)
        await until(lambda: b.homes[OLD].reads > reads + 1, "the old session polling on")
        assert len(b.heard) == heard
        (shown,) = [s.value for s in b.sessions.samples() if s.name == "gateway_session_outdated"]
        assert shown > 0


async def test_session_of_a_device_that_became_another_product_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(monkeypatch, match_s=0.005) as b:
        assert (await b.register(profile="p", address=None)).registered == 1
        await until(lambda: b.sessions.sessions == {}, "the session's end")
        reads, heard = b.homes[OLD].reads, len(b.heard)
        b.homes[OLD].down = True
        await until(lambda: not [t for t in asyncio.all_tasks() if t.get_name().startswith("poll-")], "its task's end")
        b.homes[OLD].down = False
        await turns()
        assert (b.homes[OLD].reads, len(b.heard)) == (reads, heard)
        # And back again.
        assert (await b.register()).registered == 1
        await b.ready()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_session_that_fails_is_told_beside_those_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch, match_s=0.005) as b:
        for url, name in ((NEW, "b"), ("modbus://10.0.0.3", "c")):
            b.homes[url].faulty = True
            await b.register(name, address=url)
        health = b.supervisor.health["device-session"]
        await until(lambda: len(health.down) == 2, "two sessions in trouble")
        assert health.failing == "ExceptionGroup and 1 more"
        assert b.sessions.sessions[0].state is SessionPhase.READY
        # Another session that begins says nothing of those that do not run.
        b.homes[OLD].down = True
        await b.register("d", address="modbus://10.0.0.3", profile="other", units={"main": 2})
        await until(lambda: health.restarts >= 3, "a session that was begun anew")
        assert health.failing is not None
        states = {b.sessions.sessions[slot].state for slot in (1, 2)}
        assert SessionPhase.READY not in states
        b.homes[NEW].faulty = False
        await b.ready(1)


async def test_command_to_a_session_that_has_failed_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch, match_s=NEVER_S) as b:
        b.homes[OLD].faulty = True
        await until(lambda: bool(b.supervisor.health["device-session"].down), "a session that has failed")
        assert b.sessions.sessions[0].state is SessionPhase.DOWN
        assert await b.tell(CommandOp.SETPOINT, 2_000) is WriteOutcome.NOT_SENT
        b.homes[OLD].faulty = False
        await b.ready()
        assert await b.tell(CommandOp.SETPOINT, 2_000) is WriteOutcome.ACCEPTED


async def test_device_that_is_not_what_it_is_registered_as_is_untrusted_until_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(monkeypatch, match_s=0.005) as b:
        assert list(b.sessions.untrusted()) == []
        home = b.homes[NEW]
        home.registers["model_code"] = 9
        await b.register("b", address=NEW)
        await until(lambda: bool(list(b.sessions.untrusted())), "a device that is not trusted")
        (found,) = b.sessions.untrusted()
        assert (found.name, found.reason, found.detail) == ("b", "wrong_identity", b.sessions.sessions[1].why)
        assert "model_code" in found.detail
        assert found.since_ms is not None
        assert "once it answers" in found.lifted_by
        # a device that is lost meanwhile is no more trusted than before
        home.down = True
        await until(lambda: b.sessions.sessions[1].state is SessionPhase.DOWN, "lost")
        assert list(b.sessions.untrusted()) == [found]
        home.registers["model_code"], home.down = 7, False
        await b.ready(1)
        assert list(b.sessions.untrusted()) == []


async def test_model_that_is_read_only_gets_no_setpoint_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch, match_s=0.005) as b:
        assert (b.fleet.nameplate.steerable[0], b.fleet.read_only) == (True, {})
        b.homes[NEW].registers["allowed"] = 8
        await b.register("b", address=NEW)
        await b.ready(1)
        assert not b.fleet.nameplate.steerable[1]
        assert b.fleet.read_only == {1: "nobody knows its registers"}
        # an import that changes nothing about it does not make it one that is written
        await b.register("b", address=NEW, tags=["x"])
        assert not b.fleet.nameplate.steerable[1]
        # at another address it is another battery
        await b.register("b", address="modbus://10.0.0.3")
        await until(lambda: bool(b.fleet.nameplate.steerable[1]), "a device that is written")
        assert b.fleet.read_only == {}


async def test_reading_that_waited_for_others_when_its_device_moved_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch, match_s=NEVER_S, clock=loop_clock()) as b:
        monkeypatch.setattr(sessions_module, "FLUSH_S", 0.3)
        reads, heard = b.homes[OLD].reads, len(b.heard)
        await until(lambda: b.homes[OLD].reads > reads, "a reading that waits to be emitted")
        await turns()
        assert (await b.register(address=NEW)).bad == []
        await until(lambda: b.homes[OLD].reads > reads + 1, "the old session polling on")
        assert not [batch for batch in b.heard[heard:] if batch.live is not None or batch.energy is not None]


@pytest.mark.parametrize("cells", [{"address": NEW}, {"profile": "other"}])
async def test_device_that_moved_and_came_back_at_once_is_met_anew(
    monkeypatch: pytest.MonkeyPatch, cells: dict[str, object]
) -> None:
    async with bench(monkeypatch, match_s=0.3, clock=loop_clock()) as b:
        before = b.sessions.sessions[0]
        await b.register(**cells)
        await b.register()
        await until(lambda: b.sessions.sessions[0] is not before, "another session")
        await b.ready()


async def test_import_does_not_make_a_device_of_wrong_identity_one_that_may_be_controlled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(monkeypatch, match_s=0.005) as b:
        b.homes[NEW].registers["model_code"] = 9
        await b.register("b", address=NEW)
        await until(lambda: bool(list(b.sessions.untrusted())), "a device that is not trusted")
        b.homes[NEW].down = True
        await b.register("b", address=NEW, tags=["x"])
        assert not b.fleet.nameplate.steerable[1]
        # at another address it is another battery
        await b.register("b", address="modbus://10.0.0.3")
        assert b.fleet.nameplate.steerable[1]

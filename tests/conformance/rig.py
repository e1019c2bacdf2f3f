"""One product end to end: its simulator on a real socket, its profile and a session, and time that runs fast.

Simulated time runs `SPEED` times faster than the machine's. What the profile asks the gateway to wait for (pacing,
settling, read-back, polling) is divided by the same factor; what is told to the device (leases) is not.
"""

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.clock import SystemClock
from gateway.domain.fleet import Fleet
from gateway.domain.model import (
    AckBatch,
    CommandOp,
    CommandResult,
    Connection,
    Delivery,
    EnergyBatch,
    LiveBatch,
    ReadingBatch,
)
from gateway.links.http import HttpLinks
from gateway.links.modbus import ModbusLinks
from gateway.links.mqtt_points import MqttPointLinks
from gateway.ports import PointLinks
from gateway.profiles.codec import Codec, compile_profile
from gateway.profiles.control_schema import Control, Step
from gateway.profiles.loader import load_profiles
from gateway.profiles.schema import Overlay, Polling, ProfileDocument
from gateway.services.session import Session, State
from gateway.services.sessions import FLUSH_S, Sessions
from gateway.services.steering import Command
from gateway.services.supervisor import Supervisor
from gateway.transports.mqtt.settings import MqttSettings
from simulators.battery import Batteries
from simulators.faces.catalogue import FACES, make_face
from simulators.faces.plant import Connection as FaceConnection
from simulators.faces.plant import Face, Plant
from tests.brokers import BrokerProcess, standin_process
from tests.fakes import MemoryJournal, home
from tests.simulators.fleets import homes

SPEED = 20.0
STEP_S = 0.01
CEILING_S = 20.0
PROFILES = Path(__file__).parents[2] / "device_profiles"
CODECS = load_profiles(PROFILES)
PRODUCTS = sorted(name for name, codec in CODECS.items() if codec.product is not None)
STEERED = [name for name in PRODUCTS if CODECS[name].facts.steerable]
NOON_S = 12 * 3600.0


def quick(document: ProfileDocument, speed: float = SPEED) -> ProfileDocument:
    """The profile with every pause of the gateway's own divided by `speed`."""
    points = {
        name: point.model_copy(
            update={"readback_s": point.readback_s / speed if point.readback_s else point.readback_s}
        )
        for name, point in document.points.items()
    }
    changed: dict[str, Any] = {
        "points": points,
        "polling": Polling.model_construct(
            live_s=document.polling.live_s / speed, energy_s=document.polling.energy_s / speed, slow_s=60 / speed
        ),
        "control": _quick_control(document.control, speed),
        "overlays": tuple(_quick_overlay(overlay, speed) for overlay in document.overlays),
    }
    if document.modbus is not None:
        changed["modbus"] = document.modbus.model_copy(
            update={"rest_s": 0.0, "spacing_s": 0.0, "timeout_s": 0.5, "busy_wait_s": 0.02}
        )
    if document.http is not None:
        changed["http"] = document.http.model_copy(
            update={"timeout_s": 0.5, "spacing_s": 0.0, "cool_down_s": 0.2, "breaker_s": 0.2}
        )
    if document.mqtt is not None:
        keepalive = document.mqtt.keepalive
        changed["mqtt"] = document.mqtt.model_copy(
            update={
                "quiet_s": document.mqtt.quiet_s / speed,
                "keepalive": keepalive.model_copy(update={"every_s": keepalive.every_s / speed}) if keepalive else None,
            }
        )
    return document.model_copy(update=changed)


def _quick_control(control: Control | None, speed: float) -> Control | None:
    if control is None:
        return None

    def steps(before: tuple[Step, ...]) -> tuple[Step, ...]:
        return tuple(s.model_copy(update={"wait_s": s.wait_s / speed}) if s.wait_s else s for s in before)

    changed: dict[str, Any] = {
        name: steps(getattr(control, name)) for name in ("begin", "discharge", "charge", "hold", "release", "reserve")
    }
    changed |= {"settle_s": control.settle_s / speed, "interval_s_min": control.interval_s_min / speed}
    changed["follow_s"] = control.follow_s / speed if control.follow_s else None
    if control.heartbeat is not None:
        changed["heartbeat"] = control.heartbeat.model_copy(update={"every_s": control.heartbeat.every_s / speed})
    return control.model_copy(update=changed)


def _quick_overlay(overlay: Overlay, speed: float) -> Overlay:
    return overlay.model_copy(update={"control": _quick_control(overlay.control, speed)})


@dataclass(slots=True)
class Heard:
    """What a session has emitted: the newest live row, every energy row, answers by command."""

    live: list[dict[str, float]] = field(default_factory=list)
    energy: list[dict[str, float]] = field(default_factory=list)
    answers: dict[int, CommandResult] = field(default_factory=dict)

    def take(self, batch: ReadingBatch, fleet: Fleet, clock: SystemClock) -> None:
        if batch.live is not None:
            fleet.take_live(batch.live, clock.now())
            self.live += _rows(batch.live)
        if batch.energy is not None:
            self.energy += _rows(batch.energy)
        if batch.acks is not None:
            self._answers(batch.acks)

    def _answers(self, acks: AckBatch) -> None:
        for cmd, result in zip(acks.cmd.tolist(), acks.result.tolist(), strict=True):
            self.answers[cmd] = CommandResult(result)


def _rows(batch: LiveBatch | EnergyBatch) -> list[dict[str, float]]:
    names = type(batch).__dataclass_fields__
    return [{name: float(getattr(batch, name)[i]) for name in names} for i in range(len(batch.slots))]


class Rig:
    """A product on the bench. `world` runs in the background from `start` to `stop`."""

    def __init__(
        self, codec: Codec, face: Face, batteries: Batteries, links: PointLinks, *, journal: MemoryJournal
    ) -> None:
        self.codec = codec
        self.face = face
        self.plant = face.plant
        self.batteries = batteries
        self.journal = journal
        self.clock = SystemClock()
        self.heard = Heard()
        self.paused = False
        self.simulated_s = 0.0
        self._links = links
        self._connection = FaceConnection(url="")
        self._tasks: list[asyncio.Task[None]] = []
        self._cmd = 0
        self.fleet = Fleet()
        self.sessions: Sessions | None = None

    @property
    def control(self) -> Control:
        found = self.codec.document.control
        assert found is not None
        return found

    @property
    def session(self) -> Session:
        assert self.sessions is not None
        return self.sessions.sessions[0]

    async def listen(self) -> None:
        self._connection = await self.face.start()

    def attach(self, group: asyncio.TaskGroup, *, experimental: bool = True) -> None:
        """A gateway that finds the journal and nothing else: what a start after SIGKILL finds."""
        remembered = self.journal.load()
        self._cmd = remembered.epoch << 32
        self.fleet = Fleet()
        connection = Connection(
            url=self._connection.url,
            parameters=tuple(self._connection.parameters.items()),
            username=self._connection.username,
            secret="env:IGNORED" if self._connection.token else "",
        )
        device = home(
            "bench", profile=self.codec.name, connection=connection, experimental=experimental,
            capacity_wh=self.plant.capacity_wh,
        )  # fmt: skip
        self.fleet.profiles.index(self.codec.name)
        self.fleet.enroll(device, self.codec.facts)
        self.sessions = Sessions(
            fleet=self.fleet, codecs=[self.codec], links={self.codec.document.transport: self._links},
            journal=self.journal, clock=self.clock, rng=random.Random(1),
            supervisor=Supervisor(rng=random.Random(2), clock=self.clock),
            secret_of=lambda _: self._connection.token, boot=remembered.epoch, prior=dict(remembered.prior),
        )  # fmt: skip
        heard = self.heard = Heard()
        fleet = self.fleet
        self._tasks.append(
            group.create_task(self.sessions.run(lambda b: heard.take(b, fleet, self.clock)), name="sessions")
        )

    async def detach(self) -> None:
        """The gateway dies: nothing is released, nothing is said."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def world(self) -> None:
        """Time of the simulated home."""
        while True:
            await asyncio.sleep(STEP_S)
            if not self.paused:
                self.go(STEP_S * SPEED, dt_s=STEP_S * SPEED)

    def go(self, s: float, *, dt_s: float = 1.0) -> None:
        """Let simulated time pass at once."""
        for _ in range(max(1, round(s / dt_s))):
            self.face.step(dt_s)
            self.batteries.step(dt_s)
        self.simulated_s += s

    async def until(self, holds: Callable[[], bool], what: str, *, ceiling_s: float = CEILING_S) -> None:
        """Wait until something is so."""
        try:
            async with asyncio.timeout(ceiling_s):
                while not holds():
                    await asyncio.sleep(STEP_S)
        except TimeoutError:
            why = self.session.why if self.sessions and self.sessions.sessions else "no session"
            raise AssertionError(f"{self.codec.name}: never: {what} (session: {why})") from None

    async def ready(self) -> None:
        await self.until(lambda: bool(self.sessions and self.sessions.sessions), "a session")
        await self.until(lambda: self.session.state is State.READY and bool(self.heard.live), "ready and heard")

    async def fresh(self) -> dict[str, float]:
        """A reading that was asked for after now."""
        begin = self.clock.now().utc_ms
        await self.until(lambda: bool(self.heard.live) and self.heard.live[-1]["device_t_ms"] > begin, "a new reading")
        return self.heard.live[-1]

    async def tell(
        self, op: CommandOp, setpoint_w: float = 0.0, *, lease_s: float | None = None, reserve_pct: float = float("nan")
    ) -> tuple[Delivery, CommandResult]:
        """Give a command and wait for its way and its answer (NONE if there is none)."""
        assert self.sessions is not None
        self._cmd += 1
        lease = self.codec.facts.lease_s if lease_s is None else lease_s
        command = Command(
            op=op, setpoint_w=setpoint_w, lease_s=lease, reserve_pct=reserve_pct, cmd=self._cmd,
            valid_until_ms=self.clock.now().utc_ms + 20_000,
        )  # fmt: skip
        async with asyncio.timeout(CEILING_S):
            delivery = await self.session.command(command)
        if delivery is Delivery.ACCEPTED:
            await self.until(lambda: self._cmd in self.heard.answers, "an answer")
        # Answers and readings are flushed a moment after they came.
        await asyncio.sleep(2 * FLUSH_S)
        return delivery, self.heard.answers.get(self._cmd, CommandResult.NONE)

    async def steady_w(self, setpoint_w: float, *, tolerance_w: float = 150.0, s: float = 25.0) -> None:
        """Wait until the battery gives `setpoint_w`, within a time that is short for every product."""
        end_s = self.simulated_s + s
        await self.until(
            lambda: abs(self.plant.battery_w - setpoint_w) <= tolerance_w or self.simulated_s > end_s,
            "the power to settle",
        )
        assert abs(self.plant.battery_w - setpoint_w) <= tolerance_w, (
            f"{self.plant.battery_w:.0f} W, wanted {setpoint_w} W"
        )


@asynccontextmanager
async def bench(name: str, *, experimental: bool = True, time_s: float = NOON_S, **columns: Any) -> AsyncIterator[Rig]:
    """A product with its session running and heard. `columns` change the home."""
    async with _broker(name) as broker:
        values: dict[str, Any] = {
            "capacity_wh": 10_000.0, "discharge_w_max": 5_000.0, "charge_w_max": 5_000.0, "soc_start_pct": 60.0,
            "ambient_c": 20.0, "reserve_pct": 20.0, "export_allowed": True, "grid_charge_allowed": True,
            "response_s": 1.0, "slew_w_per_s": 5_000.0,
        }  # fmt: skip
        batteries = Batteries(homes(1, **(values | columns)), guard=False, time_s=time_s)
        face = make_face(name, Plant(batteries, 0), broker=("127.0.0.1", broker.port) if broker else None, quick=True)
        document = quick(CODECS[name].document)
        clock = SystemClock()
        links = _links(document, clock, broker)
        rig = Rig(compile_profile(document), face, batteries, links, journal=MemoryJournal())
        await rig.listen()
        try:
            async with asyncio.TaskGroup() as group:
                world = group.create_task(rig.world(), name="world")
                shared = group.create_task(links.run(), name="links") if isinstance(links, MqttPointLinks) else None
                rig.attach(group, experimental=experimental)
                try:
                    await rig.ready()
                    yield rig
                finally:
                    await rig.detach()
                    world.cancel()
                    if shared is not None:
                        shared.cancel()
        finally:
            await links.close()
            await face.stop()


def _links(document: ProfileDocument, clock: SystemClock, broker: BrokerProcess | None) -> PointLinks:
    if document.modbus is not None:
        return ModbusLinks(clock)
    if document.http is not None:
        return HttpLinks(clock)
    fleet = MqttSettings(url=broker.url, client_id="gateway") if broker else None
    return MqttPointLinks(clock, fleet)


@asynccontextmanager
async def _broker(name: str) -> AsyncIterator[BrokerProcess | None]:
    section = CODECS[name].document.mqtt
    if section is None or section.broker != "fleet":
        yield None
        return
    with tempfile.TemporaryDirectory() as directory:
        async with standin_process(Path(directory)) as broker:
            yield broker


__all__ = ["CODECS", "FACES", "PRODUCTS", "STEERED", "Rig", "bench", "quick"]

"""One product end to end: its simulator, its profile as it ships and a session, each with its own pauses.

On virtual time (tests/virtual) an hour takes no longer than what happens in it, so nothing is cut short. The home, the
product and the gateway live through the same seconds. On a real loop the same rig takes the time it says.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gateway.domain.commands import CommandOp, CommandResult, WriteOutcome
from gateway.domain.events.request import EventKind, EventRequest, TargetGroup, power
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.readings import AckBatch, EnergyBatch, LiveBatch, ReadingBatch
from gateway.domain.types import EventId, Mode, Now
from gateway.links.http.link import HttpLinks
from gateway.links.modbus.link import ModbusLinks
from gateway.links.mqtt import point_link
from gateway.links.mqtt.points import MqttPointLinks
from gateway.ports.links import PointLinks
from gateway.profiles.compile import Codec
from gateway.profiles.language.control import Control as Sequences
from gateway.profiles.language.control import Watchdog
from gateway.profiles.language.product import ProfileDocument
from gateway.profiles.loader import load_profiles
from gateway.services.control.loop import ControlLoop
from gateway.services.devices import polled as sessions_module
from gateway.services.devices.device_control import Command
from gateway.services.devices.polled import PolledDevices
from gateway.services.devices.session import DeviceSession
from gateway.services.devices.session_state import SessionPhase
from gateway.services.events.intake import Dispatcher
from gateway.services.runtime.supervisor import Supervisor
from gateway.services.settings import ControlSettings
from gateway.transports.mqtt.settings import MqttSettings
from simulators.battery import Batteries
from simulators.broker import Broker
from simulators.faces.catalogue import FACES, make_face
from simulators.faces.plant import Connection as FaceConnection
from simulators.faces.plant import Face, Plant, Trouble
from tests.builders.fakes import MemoryJournal, home
from tests.builders.homes import homes
from tests.conformance.recording import RecordingLinks
from tests.virtual.clock import loop_clock
from tests.virtual.loop import VirtualLoop

# The home's physics and the product's own timers move in such steps.
STEP_S = 1.0
LOOK_S = 0.25
STEPS_MAX = 60
# Longer than polls that fail, the longest pause between attempts and a slow answer together.
CEILING_S = 160.0
SETTLED_S = 12.0
PROFILES = Path(__file__).parents[2] / "device_profiles"
CODECS = load_profiles(PROFILES)
PRODUCTS = sorted(name for name, codec in CODECS.items() if codec.product is not None)
STEERED = [name for name in PRODUCTS if CODECS[name].facts.steerable]
NOON_S = 12 * 3600.0
MIDNIGHT_S = 24 * 3600.0
CONTROL = ControlSettings(fleet_w_per_s=100_000.0, release_spread_s=0.0)


@dataclass(slots=True)
class Heard:
    """What a session has emitted: live rows, energy rows, answers by command."""

    live: list[dict[str, float]] = field(default_factory=list)
    energy: list[dict[str, float]] = field(default_factory=list)
    answers: dict[int, CommandResult] = field(default_factory=dict)

    def take(self, batch: ReadingBatch, fleet: Fleet, now: Now) -> None:
        if batch.live is not None:
            fleet.observe_live(batch.live, now)
            self.live += _rows(batch.live)
        if batch.unclear is not None:
            fleet.observe_unclear(batch.unclear)
        if batch.energy is not None:
            self.energy += _rows(batch.energy)
        if batch.acks is not None:
            self._answers(batch.acks)

    def _answers(self, acks: AckBatch) -> None:
        for cmd, result in zip(acks.cmd.tolist(), acks.result.tolist(), strict=True):
            self.answers[cmd] = CommandResult(result)


def _rows(batch: LiveBatch | EnergyBatch) -> list[dict[str, float]]:
    names = [name for name in type(batch).__dataclass_fields__ if getattr(batch, name) is not None]
    return [{name: float(getattr(batch, name)[i]) for name in names} for i in range(len(batch.slots))]


class Station:
    """The gateway's side of one device: a fleet of one, a session, a journal that outlives it, a control loop whose
    ticks the test makes."""

    def __init__(self, codec: Codec, links: PointLinks, group: asyncio.TaskGroup, *, device: str = "bench") -> None:
        self.codec = codec
        self.links = RecordingLinks(links)
        self.journal = MemoryJournal()
        self.clock = loop_clock()
        self.heard = Heard()
        self.fleet = Fleet()
        self.sessions: PolledDevices | None = None
        self.loop: ControlLoop | None = None
        self.desk: Dispatcher | None = None
        self.connection = DeviceConnection(url="")
        self.secret = ""
        self.capacity_wh = 10_000.0
        self._device = device
        self._group = group
        self._tasks: list[asyncio.Task[None]] = []
        self._cmd = 0

    @property
    def sequences(self) -> Sequences:
        found = self.codec.document.control
        assert found is not None
        return found

    @property
    def watchdog(self) -> Watchdog:
        found = self.codec.document.watchdog
        assert found is not None
        return found

    @property
    def done(self) -> tuple[WriteOutcome, CommandResult]:
        """What is known of a command that was carried out: a product that is reached through a broker and shows
        nothing of what it was told leaves it open."""
        points, control = self.codec.document.points, self.sequences
        written = [points[name] for step in control.discharge or control.reserve for name in step.touched()]
        shown = any(point.readable and point.readback_s is not None for point in written)
        silent = self.codec.document.mqtt is not None and not shown
        return WriteOutcome.ACCEPTED, CommandResult.NONE if silent else CommandResult.APPLIED

    @property
    def session(self) -> DeviceSession:
        assert self.sessions is not None
        return self.sessions.sessions[0]

    @property
    def has_session(self) -> bool:
        return self.sessions is not None and bool(self.sessions.sessions)

    def attach(self, *, experimental: bool = True) -> None:
        """A gateway that finds the journal and nothing else: what a start after SIGKILL finds."""
        remembered = self.journal.load()
        # The control loop counts from the same epoch: what the test gives by itself is newer.
        self._cmd = (remembered.epoch << 32) + (1 << 30)
        fleet = self.fleet = Fleet()
        device = home(
            self._device, profile=self.codec.name, connection=self.connection, experimental=experimental,
            capacity_wh=self.capacity_wh,
        )  # fmt: skip
        fleet.profiles.index(self.codec.name)
        fleet.register(device, self.codec.facts)
        sessions = self.sessions = PolledDevices(
            fleet=fleet, codecs=[self.codec], links={self.codec.document.transport: self.links},
            journal=self.journal, clock=self.clock, rng=random.Random(1),
            supervisor=Supervisor(rng=random.Random(2), clock=self.clock),
            wall=self.clock, secret_of=lambda _: self.secret, boot=remembered.epoch, prior=dict(remembered.prior),
        )  # fmt: skip
        desk = self.desk = Dispatcher(CONTROL, fleet=fleet, journal=self.journal, clock=self.clock)
        desk.load(remembered)
        loop = self.loop = ControlLoop(
            CONTROL, fleet=fleet, dispatcher=desk, link=sessions, clock=self.clock,
            epoch=remembered.epoch,
        )  # fmt: skip
        loop.load(remembered)
        heard = self.heard = Heard()

        def emit(batch: ReadingBatch) -> None:
            heard.take(batch, fleet, self.clock.now())
            if batch.acks is not None:
                loop.observe_acks(batch.acks)

        sessions.emit = emit
        self._tasks.append(self._group.create_task(sessions.run(), name="sessions"))

    async def detach(self) -> None:
        """The gateway dies: nothing is released, nothing is said."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def until(self, holds: Callable[[], bool], what: str, *, ceiling_s: float = CEILING_S) -> None:
        """Wait until something is so."""
        try:
            async with asyncio.timeout(ceiling_s):
                while not holds():
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            why = self.session.why if self.has_session else "no session"
            raise AssertionError(f"{self.codec.name}: never: {what} (session: {why})") from None

    async def ready(self, *, ceiling_s: float = CEILING_S) -> None:
        await self.until(lambda: self.has_session, "a session")
        await self.until(
            lambda: self.session.state is SessionPhase.READY and bool(self.heard.live), "ready", ceiling_s=ceiling_s
        )

    async def fresh(self, *, ceiling_s: float = CEILING_S) -> dict[str, float]:
        """A reading that was asked for after now."""
        begin = self.clock.now().utc_ms
        await self.until(
            lambda: bool(self.heard.live) and self.heard.live[-1]["device_t_ms"] > begin, "a reading",
            ceiling_s=ceiling_s,
        )  # fmt: skip
        return self.heard.live[-1]

    async def tell(
        self, op: CommandOp, setpoint_w: float = 0.0, *, lease_s: float | None = None, reserve_pct: float = math.nan
    ) -> tuple[WriteOutcome, CommandResult]:
        """Give a command and wait for what is known of its way, and of its answer (NONE if there is none)."""
        self._cmd += 1
        lease = self.codec.facts.lease_s if lease_s is None else lease_s
        command = Command(
            op=op, setpoint_w=setpoint_w, lease_s=lease, reserve_pct=reserve_pct, cmd=self._cmd,
            valid_until_ms=self.clock.now().utc_ms + 60_000,
        )  # fmt: skip
        async with asyncio.timeout(CEILING_S):
            delivery = await self.session.command(command)
        # Answers and readings are flushed a moment after they came.
        await asyncio.sleep(2 * sessions_module.FLUSH_S)
        return delivery, self.heard.answers.get(self._cmd, CommandResult.NONE)

    async def power(self, setpoint_w: float) -> tuple[WriteOutcome, CommandResult]:
        """A setpoint, or a hold for 0."""
        return await self.tell(CommandOp.SETPOINT if setpoint_w else CommandOp.HOLD, setpoint_w)

    # -- by the control loop ---------------------------------------------------------------------------------

    async def dispatch(self, target_w: float, *, s: float, name: str = "event") -> None:
        """An event for the device, from now on."""
        assert self.desk is not None
        now_ms = self.clock.now().utc_ms
        event = EventRequest(
            id=EventId(name), revision=1, kind=EventKind.REAL, program="test", group=TargetGroup(all=True),
            start_ms=now_ms, end_ms=now_ms + round(1000 * s), target=power(target_w), priority=100,
        )  # fmt: skip
        answer = await self.desk.submit(event)
        assert answer.outcome.value == "accepted", answer

    async def tick(self) -> None:
        """One tick of the control loop."""
        assert self.loop is not None
        await self.loop.tick()

    async def cancel(self, event: str) -> None:
        assert self.desk is not None
        await self.desk.cancel(event)

    async def tick_until(self, holds: Callable[[], bool], what: str) -> None:
        """Tick the control loop until something is so."""
        assert self.loop is not None
        async with asyncio.timeout(CEILING_S):
            while not holds():
                await self.loop.tick()
                await asyncio.sleep(STEP_S)
        assert holds(), what

    @property
    def authority(self) -> Authority:
        return Authority(int(self.fleet.control.authority[0]))

    @property
    def prior(self) -> dict[str, Any]:
        """Settings that the journal remembers to be restored; the serial number beside them says whose they are."""
        identity = self.codec.document.identity
        serial = None if identity is None else identity.serial
        kept = self.journal.load().prior
        return {name: {k: v for k, v in saved.items() if k != serial} for name, saved in kept.items()}

    @property
    def saved(self) -> set[str]:
        """Names of the settings that the journal remembers, without the serial number that says whose they are."""
        identity = self.codec.document.identity
        assert identity is not None
        return set(self.prior.get("bench", {})) - {identity.serial or ""}


class Rig(Station):
    """A product on the bench, its home and its time.

    `world` runs in the background. `frozen`: the product goes on (it polls, publishes, counts its timers), the physics
    of the home stand still.
    """

    def __init__(
        self,
        codec: Codec,
        links: PointLinks,
        group: asyncio.TaskGroup,
        *,
        face: Face,
        batteries: Batteries,
        device: str,
    ) -> None:
        super().__init__(codec, links, group, device=device)
        self.face = face
        self.plant = face.plant
        self.batteries = batteries
        self.capacity_wh = face.plant.capacity_wh
        self.frozen = False
        self.history: deque[tuple[int, float, float]] = deque(maxlen=20_000)
        self._face_connection = FaceConnection(url="")

    async def listen(self) -> None:
        given = self._face_connection = await self.face.start()
        self.secret = given.token
        self.connection = DeviceConnection(
            url=given.url,
            parameters=tuple(given.parameters.items()),
            username=given.username,
            secret="env:IGNORED" if given.token else "",
        )

    async def world(self) -> None:
        """Time of the simulated home."""
        loop = asyncio.get_running_loop()
        before_s = loop.time()
        while True:
            await asyncio.sleep(STEP_S)
            now_s = loop.time()
            passed_s, before_s = now_s - before_s, now_s
            self.leap(passed_s)

    async def go(self, s: float) -> None:
        """Let time pass."""
        await asyncio.sleep(s)

    def leap(self, s: float, *, dt_s: float = STEP_S) -> None:
        """Let time pass at once for home and product alone, in steps of `dt_s`, larger ones where it is much."""
        steps = max(1, math.ceil(s / max(dt_s, s / STEPS_MAX)))
        for _ in range(steps):
            self.face.step(s / steps)
            if not self.frozen:
                self.batteries.step(s / steps)
        self.history.append((self.clock.now().utc_ms, self.plant.charged_wh, self.plant.discharged_wh))

    async def back(self) -> None:
        """After a trouble or a reboot: the session is ready again and has a reading from after that. A simulated
        product with a broker inside is up only when its own client is, which takes a keepalive."""
        await self.until(lambda: bool(getattr(self.face, "alive", True)), "the product to be up")
        await self.until(lambda: self.session.state is SessionPhase.READY, "ready again", ceiling_s=self.again_s)
        row = await self.fresh()
        while math.isnan(row["battery_w"]):
            row = await self.fresh()

    async def settle(self, *, s: float = SETTLED_S) -> None:
        """Let the battery reach what it was told."""
        await self.go(s)

    def true_wh(self, utc_ms: float) -> tuple[float, float]:
        """Energy charged and discharged at a moment of the past."""
        times, charged, discharged = (np.array(column) for column in zip(*self.history, strict=True))
        return float(np.interp(utc_ms, times, charged)), float(np.interp(utc_ms, times, discharged))

    async def expect_w(self, setpoint_w: float, *, tolerance_w: float = 60.0) -> None:
        """After it has settled: whether the battery gives `setpoint_w`. Where the gateway closes a loop over load and
        PV, that loop needs a moment."""
        await self.settle()
        if self.sequences.follow_s is not None:
            await self.until(
                lambda: abs(self.plant.battery_w - setpoint_w) <= tolerance_w, f"{setpoint_w:.0f} W", ceiling_s=60.0
            )
        found = self.plant.battery_w
        assert abs(found - setpoint_w) <= tolerance_w, f"{self.codec.name}: {found:.0f} W, wanted {setpoint_w:.0f} W"

    def writes_on_wire(self) -> int:
        """Requests to change something that reached the product, by its own log."""
        server = getattr(self.face, "server", None)
        if server is None:
            return int(getattr(self.face, "writes_heard"))  # noqa: B009 - not every face has it
        if self.codec.document.http is not None:
            return sum(1 for method, path in server.requests if method in ("POST", "PUT") and "login" not in path)
        return sum(1 for _, function, *_ in server.requests if function in (6, 16))

    def controlled(self) -> bool:
        """Whether the product is in a mode that an outside controller set."""
        return self.face.controlled

    @property
    def timeout_s(self) -> float:
        """How long the gateway waits for an answer."""
        section = self.codec.document.modbus or self.codec.document.http
        return section.timeout_s if section is not None else point_link.WRITE_S_MAX

    @property
    def again_s(self) -> float:
        """Within this a device that was lost is tried again, and with success if it is well."""
        http = self.codec.document.http
        return CEILING_S + (http.cool_down_s if http is not None else 0.0)

    @property
    def reads_mode(self) -> bool:
        """Whether the product says who steers it."""
        return "mode" in self.codec.document.readings

    def in_own_mode(self, mode: float) -> bool:
        """Whether a reading's mode is the one that the profile says it falls back to."""
        back = self.watchdog.falls_back_to
        return mode not in (Mode.REMOTE, Mode.UNKNOWN) if back == "stays" else mode == Mode[back.upper()]

    @property
    def unlocked_s(self) -> float:
        """Long enough for control to have ended where the product ends it."""
        return (self.watchdog.reverts_within_s or 0.0) + 1.0


@asynccontextmanager
async def bench(
    name: str,
    *,
    face: str | None = None,
    beside: Rig | None = None,
    experimental: bool = True,
    wait: bool = True,
    time_s: float = NOON_S,
    change: Callable[[Face], None] | None = None,
    product: tuple[Codec, Callable[[Plant], Face]] | None = None,
    **columns: Any,
) -> AsyncIterator[Rig]:
    """A product with its session running and heard. `face`: another product answers there; `beside`: shares the links
    of another rig; `wait` = False: as soon as the session has begun; `change` prepares the face; `product`: one that
    is in no directory; `columns` change the home."""
    values: dict[str, Any] = {
        "capacity_wh": 10_000.0, "discharge_w_max": 5_000.0, "charge_w_max": 5_000.0, "soc_start_pct": 60.0,
        "ambient_c": 20.0, "reserve_pct": 20.0, "export_allowed": True, "grid_charge_allowed": True,
        "response_s": 1.0, "slew_w_per_s": 5_000.0,
    }  # fmt: skip
    async with AsyncExitStack() as stack:
        codec = product[0] if product is not None else CODECS[name]
        answering = codec if face is None else CODECS[face]
        broker = await stack.enter_async_context(_broker(answering)) if beside is None else None
        at = broker or beside_broker(beside)
        index = 0 if beside is None else 1
        batteries = Batteries(homes(index + 1, **(values | columns)), guard=False, time_s=time_s)
        plant = Plant(batteries, index)
        made = product[1](plant) if product is not None else _face(face or name, plant, at)
        if change is not None:
            change(made)
        links: PointLinks = links_for(codec.document, broker) if beside is None else beside.links.inner
        if beside is None:
            stack.push_async_callback(links.close)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        device = "bench" if beside is None else "beside"
        rig = Rig(codec, links, group, face=made, batteries=batteries, device=device)
        await rig.listen()
        stack.push_async_callback(made.stop)
        tasks = [group.create_task(rig.world(), name="world")]
        if beside is None and isinstance(links, MqttPointLinks):
            tasks.append(group.create_task(links.run(), name="links"))
        rig.attach(experimental=experimental)
        try:
            if wait:
                await rig.ready()
            else:
                await rig.until(lambda: rig.has_session, "a session")
            yield rig
        finally:
            await rig.detach()
            for task in tasks:
                task.cancel()


def _face(name: str, plant: Plant, broker: tuple[str, int] | None) -> Face:
    """A broker of its own is a process where there is one, and time that jumps has no place for processes."""
    jumps = isinstance(asyncio.get_running_loop(), VirtualLoop)
    return make_face(name, plant, broker=broker, own_broker="standin" if jumps else "auto")


def beside_broker(rig: Rig | None) -> tuple[str, int] | None:
    """The broker that the product of another rig is a client of."""
    found = getattr(rig.face, "_broker", None) if rig is not None else None
    return found if isinstance(found, tuple) else None


def links_for(document: ProfileDocument, broker: tuple[str, int] | None) -> PointLinks:
    clock = loop_clock()
    if document.modbus is not None:
        return ModbusLinks(clock)
    if document.http is not None:
        return HttpLinks(clock)
    fleet = MqttSettings(url=f"mqtt://{broker[0]}:{broker[1]}", client_id="gateway") if broker else None
    return MqttPointLinks(clock, fleet)


@asynccontextmanager
async def _broker(codec: Codec) -> AsyncIterator[tuple[str, int] | None]:
    """Our own broker, for products that are clients of it."""
    section = codec.document.mqtt
    if section is None or section.broker != "fleet":
        yield None
        return
    async with Broker() as broker:
        yield "127.0.0.1", broker.port


__all__ = ["CODECS", "FACES", "PRODUCTS", "STEERED", "Rig", "Station", "Trouble", "bench"]

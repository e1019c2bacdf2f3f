"""The gateway from the link's messages to a receiver, as the composition root puts it together, without control.

`Process` is one run on a state directory; `Plant` is what outlives it: the devices, their broker, the receiver, the
clock of the machine, and the directory. A kill copies the directory as it is at that moment; the next process opens the
copy, and what the one before still writes is nobody's.
"""

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import patch

import mqtt5

from gateway.api.views.dispatch import DispatchView
from gateway.app.control import ControlParts
from gateway.app.parts import RunningParts
from gateway.app.recording import raw_messages, recording, recovered
from gateway.app.telemetry import Upstream
from gateway.clock import SteadyClock
from gateway.config.settings import Settings
from gateway.domain.fleet.device import Device, DeviceConnection
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.completeness import SinkDay
from gateway.domain.intervals.engine import Engine
from gateway.domain.types import DeviceId, Now
from gateway.links.mqtt.messages import MqttLink
from gateway.profiles.compile import Codec
from gateway.services.control.loop import ControlLoop
from gateway.services.devices.departures import Departures
from gateway.services.devices.registry import DeviceRegistry
from gateway.services.events.intake import Dispatcher
from gateway.services.runtime.clock_guard import ClockGuard
from gateway.services.telemetry.completeness import DAY_MS
from gateway.services.telemetry.raw import RawMessages
from gateway.storage.interval_log.query import Found
from gateway.storage.journal.event_store import SqliteEventStore
from gateway.storage.journal.journal import SqliteJournal
from gateway.storage.spool.spool import Spool
from gateway.transports.mqtt.connection import OnMessages
from tests.builders.fakes import home
from tests.builders.profiles import MODBUS, compiled
from tests.scenes.last_writes import LastWrites
from tests.scenes.meters import PREFIXES, RATED_W, STEP_MS, STEP_S, Message, Meter
from tests.scenes.street import PROFILE
from tests.virtual.clock import VirtualClock
from tests.virtual.loop import VirtualLoop

LENGTH_S, GRACE_S = 60, 5
LATENCY_S = 0.3
READ_MAX = 8
BATCH_ROWS = 3
"""So few that a receiver is soon far behind."""
TURNS_MAX = 4_000
SINK = "receiver"
PLUG = DeviceId("plug")
"""A device that the gateway would connect to: it has an address, and nothing is read from it here."""


@cache
def products() -> dict[str, Codec]:
    """Two products that speak the reference protocol on topics of their own, and one with addresses."""
    text = PROFILE.read_text(encoding="utf-8")
    out = {}
    for name, prefix in PREFIXES.items():
        mine = text.replace(PREFIXES["reference-mqtt"], prefix).replace("profile: reference-mqtt", f"profile: {name}")
        out[name] = compiled(mine)
    plug = compiled(MODBUS)
    return out | {plug.name: plug}


class MachineClock:
    """The clock of the gateway's machine: true time and `step_ms`."""

    boot = "virtual"

    def __init__(self) -> None:
        self.true = VirtualClock()
        self.step_ms = 0

    def now(self) -> Now:
        now = self.true.now()
        return Now(utc_ms=now.utc_ms + self.step_ms, mono_ms=now.mono_ms)

    def mono_ms(self) -> int:
        return self.true.mono_ms()

    def cpu_ns(self) -> int:
        return self.true.cpu_ns()


@dataclass(eq=False, slots=True)
class Published:
    """One publication; a broker keeps it until it is acknowledged. `read`: whether it could be read when it was
    delivered last."""

    message: Message
    read: bool = False


class Line:
    """Stands for the connection of one process to the devices' broker, which sends what is not acknowledged again on
    every new connection."""

    connected = True

    def __init__(self, plant: "Plant", on_messages: OnMessages) -> None:
        self._plant = plant
        self._on_messages = on_messages
        self._generation = 0
        self._number = 0
        self._under_way: dict[int, Published] = {}
        self._waiting: list[Published] = []
        self._reading = True
        self.up = False

    def begin(self) -> None:
        """A new connection."""
        self.up = True
        self._generation += 1
        self._under_way.clear()
        self._waiting = list(self._plant.unacknowledged)
        self._read()

    def deliver(self, published: Iterable[Published]) -> None:
        """What devices send now."""
        self._waiting += published
        self._read()

    def _read(self) -> None:
        while self._waiting and self._reading and self.up:
            read_max = self._plant.read_max
            some, self._waiting = self._waiting[:read_max], self._waiting[read_max:]
            packets, numbers = [], []
            for published in some:
                self._number = self._number % 65_535 + 1
                self._under_way[self._number] = published
                published.read = self._plant.reads(published.message)
                packets.append(mqtt5.PublishPacket(published.message.topic, published.message.payload))
                numbers.append(self._number)
            self._on_messages(self._generation, packets, numbers)

    def acknowledge(self, generation: int, packet_ids: Sequence[int]) -> None:
        if generation != self._generation or not self.up:
            return
        for number in packet_ids:
            published = self._under_way.pop(number)
            published.message.acknowledged = True
            published.message.readable |= published.read
            self._plant.unacknowledged.remove(published)

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._read()

    def drop(self) -> None:
        """Somebody begins anew."""
        self.begin()


@dataclass(kw_only=True)
class Process:
    """What the composition root made."""

    registry: DeviceRegistry
    store: SqliteEventStore
    upstream: Upstream
    engine: Engine
    raw: RawMessages
    line: Line
    spool: Spool


@dataclass(eq=False)
class Plant:
    """`registered`: which product each device is registered as; `installed`: the profiles that the next start finds;
    `running`: an event runs, so that control follows no step of the clock; `codecs`: all products there are."""

    directory: Path
    receiver: LastWrites
    meters: list[Meter]
    clock: MachineClock = field(default_factory=MachineClock)
    codecs: dict[str, Codec] = field(default_factory=products)
    length_s: int = LENGTH_S
    read_max: int = READ_MAX
    registered: dict[str, str] = field(default_factory=dict)
    installed: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)
    unacknowledged: list[Published] = field(default_factory=list)
    running: bool = False
    problems: list[str] = field(default_factory=list)
    starts: int = 0

    def __post_init__(self) -> None:
        self.installed = self.installed or set(self.codecs)
        self._life = AsyncExitStack()
        self._step_ms = self.clock.true.now().utc_ms

    @property
    def state(self) -> Path:
        """The state directory of the process that runs."""
        return self.directory / f"state-{self.starts}"

    def reads(self, message: Message) -> bool:
        """Whether the gateway can read a message: it is whole, and its device registered as the product whose topic it
        uses, which is installed."""
        product = self.registered.get(message.device)
        return message.whole and product in self.found and message.topic.startswith(PREFIXES[str(product)])

    # -- processes -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start a process on the state directory."""
        self.found = set(self.installed)
        self.receiver.alive = self.starts
        self._life = AsyncExitStack()
        self.process = await self._life.enter_async_context(process(self))
        self.process.line.begin()

    async def stop(self) -> None:
        """An orderly stop."""
        self.process.line.up = False
        self.process.spool.gate.set()
        await self._life.aclose()

    async def restart(self) -> None:
        """An orderly stop and a start."""
        await self.stop()
        await self.start()

    async def kill(self, jobs: int) -> None:
        """SIGKILL once so many jobs of threads were done, or all are; then a start on what is left."""
        await self._until_jobs(jobs)
        spool = self.process.spool
        _wait_durable(spool)
        self.process.line.up = False
        self.receiver.alive = -1
        left = self.state
        shutil.copytree(left, self.directory / f"state-{self.starts + 1}")
        spool.gate.set()
        await self._life.aclose()
        self.starts += 1
        shutil.rmtree(left)
        await self.start()

    async def _until_jobs(self, jobs: int) -> None:
        loop = cast("VirtualLoop", asyncio.get_running_loop())
        until = loop.jobs_run + jobs
        for _ in range(TURNS_MAX):
            if loop.jobs_run >= until:
                return
            await asyncio.sleep(0)

    # -- what devices do -------------------------------------------------------------------------------------

    async def go(self, s: int) -> None:
        """Let `s` seconds pass in which every device counts and sends."""
        for _ in range(s // STEP_S):
            self._step_ms += STEP_MS
            await asyncio.sleep((self._step_ms - self.clock.true.now().utc_ms) / 1000)
            self.publish([message for meter in self.meters for message in meter.step(self._step_ms)])
            await asyncio.sleep(LATENCY_S)

    def publish(self, messages: Iterable[Message]) -> None:
        """Hand messages to the broker."""
        published = [Published(message) for message in messages]
        self.unacknowledged += published
        self.process.line.deliver(published)

    # -- what operators do -----------------------------------------------------------------------------------

    async def register(self, meter: Meter, product: str) -> None:
        """Import a device; its firmware speaks as that product from now on."""
        if product not in self.found:
            return
        await self.process.registry.register([device(meter.name, product)])
        self.registered[meter.name] = product
        meter.product = product

    async def remove(self, meter: Meter) -> None:
        if self.registered.pop(meter.name, None) is not None:
            await self.process.registry.remove([DeviceId(meter.name)])

    async def place(self, number: int | None) -> None:
        """Give the device with an address another one; None removes it."""
        if number is not None:
            connection = DeviceConnection(url=f"modbus://10.0.0.{number}")
            await self.process.registry.register([home(PLUG, profile="sample-modbus", connection=connection)])
        elif PLUG in self.process.registry.devices:
            await self.process.registry.remove([PLUG])

    async def resend(self) -> None:
        """Send everything of these hours once more."""
        upstream = self.process.upstream
        await upstream.resend.mark(SINK, [one.record for one in await self.newest()])
        for delivery in upstream.deliveries:
            delivery.resend()

    # -- what is asked of it ---------------------------------------------------------------------------------

    def day_ms(self) -> int:
        """The UTC day of the history."""
        return self._step_ms // DAY_MS * DAY_MS

    def names(self) -> list[DeviceId]:
        """Every device that sends."""
        return [DeviceId(meter.name) for meter in self.meters]

    async def newest(self) -> list[Found]:
        """The newest record of every interval in the log."""
        day_ms = self.day_ms()
        day = await self.process.upstream.queries.day(day_ms, day_ms + DAY_MS, self.names())
        return [one for device in sorted(day.newest) for one in day.newest[device].values()]

    async def completeness(self) -> dict[str, SinkDay]:
        """What the ledger says of the receiver, by device."""
        asked = self.process.upstream.telemetry(self.process.engine).completeness
        return {day.device: day.sinks[SINK] async for day in asked.day(self.day_ms(), self.names())}


def _wait_durable(spool: Spool) -> None:
    """Its thread does on the machine's time what takes none here."""
    while spool.gate.is_set() and spool.last_record > spool.durable_record:
        time.sleep(0.0002)


def device(name: str, product: str) -> Device:
    """A home of the street."""
    return home(name, profile=product, charge_w_max=RATED_W, discharge_w_max=RATED_W)


def settings_of(plant: Plant) -> Settings:
    """One receiver if it has an address, short intervals, no platform."""
    receiver = {"kind": "http", "name": SINK, "url": f"{plant.receiver.url}/{plant.starts}/intervals"}
    return Settings.model_validate(
        {
            "state_dir": plant.state,
            "profiles_dir": plant.state,
            "devices": {"mqtt": {"broker": {"url": "mqtt://127.0.0.1:1", "client_id": "gateway"}}},
            "sinks": [receiver] if plant.receiver.url else [],
            "intervals": {"length_s": plant.length_s, "grace_s": GRACE_S},
        }
    )


@asynccontextmanager
async def process(plant: Plant) -> AsyncIterator[Process]:
    """Everything between the link and the receiver, in the order of the daemon; it ends in the order of its stop."""
    settings = settings_of(plant)
    settings.state_dir.mkdir(exist_ok=True)
    clock, fleet = SteadyClock(plant.clock), Fleet()
    codecs = {name: codec for name, codec in plant.codecs.items() if name in plant.found}
    async with AsyncExitStack() as stack:
        parts = RunningParts(stack)
        journal = await parts.start(SqliteJournal(settings.state_dir / "journal.sqlite", clock=clock))
        remembered = journal.load()
        store = await parts.start(SqliteEventStore(journal.path))
        registry = DeviceRegistry(clock=clock, fleet=fleet, journal=journal, codecs=codecs)
        registry.load(
            remembered.devices, remembered.controlled, departures=remembered.departures, removed=remembered.removed
        )
        await parts.start(Departures(registry, clock))
        lines: dict[str, Line] = {}

        def line(_settings: object, *, name: str, on_messages: OnMessages, **_: object) -> Line:
            lines[name] = Line(plant, on_messages)
            return lines[name]

        with patch("gateway.links.mqtt.messages.MqttConnection", line):
            spoken = [codec for codec in codecs.values() if codec.product is None]
            link = MqttLink(settings.devices.mqtt, codecs=spoken, fleet=fleet, clock=clock)
        dispatcher = Dispatcher(settings.control, fleet=fleet, journal=journal, clock=clock)
        control = ControlLoop(
            settings.control, fleet=fleet, dispatcher=dispatcher, link=link, clock=clock, epoch=remembered.epoch
        )
        dispatch = ControlParts(
            clock=clock, dispatcher=dispatcher, control=control, view=cast("DispatchView", None), platform=None
        )
        await parts.start(ClockGuard(clock, idle=lambda: not plant.running))
        seeded = SimpleNamespace(Random=partial(random.Random, 1))
        with patch("gateway.app.telemetry.random", seeded), patch("gateway.sinks.http.BATCH_ROWS", BATCH_ROWS):
            upstream = await Upstream.started(settings, fleet=fleet, clock=clock.wall, platform=None, parts=parts)
        found = recovered(settings, upstream, dispatch, fleet, remembered.replaced)
        raw = await raw_messages(
            settings, link=link, fleet=fleet, registry=registry, journal=journal, clock=clock, parts=parts
        )
        ingest, engine = await recording(
            settings, found, upstream=upstream, dispatch=dispatch, fleet=fleet, clock=clock, raw=raw, reader=link.raw,
            parts=parts,
        )  # fmt: skip
        link.emit = ingest.emitter(link, sender=link)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        stack.push_async_callback(_cancelled, [group.create_task(p.run(), name=p.service) for p in parts if p.service])
        yield Process(
            registry=registry, store=store, upstream=upstream, engine=engine, raw=raw, line=lines["telemetry"],
            spool=next(part for part in parts if isinstance(part, Spool)),
        )  # fmt: skip


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()

"""Composition root: settings become an object graph, started and stopped in order.

Start: lock, journal, profiles, inventory, interval log, recovery, spool, control, REST, links. Stop: signals, control,
links, last checkpoint, spool, log. Nothing here decides; it only connects.
"""

import asyncio
import fcntl
import gc
import logging
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import uvloop
from aiohttp import web

from gateway.api.samples import (
    connection_samples,
    delivery_samples,
    link_samples,
    supervisor_samples,
    transport_samples,
)
from gateway.api.server import Parts, make_app
from gateway.api.views import EventView, FleetView
from gateway.clock import Clock, SystemClock, utc_struct
from gateway.config import Settings, resolve_secret
from gateway.domain.energy import Rules
from gateway.domain.errors import GatewayError, InvalidInput
from gateway.domain.fleet import Fleet
from gateway.domain.model import Connection, DeviceId
from gateway.links.http import HttpLinks
from gateway.links.modbus import ModbusLinks
from gateway.links.mqtt import MqttLink
from gateway.links.mqtt_points import MqttPointLinks
from gateway.ports import JournalState, PointLinks
from gateway.profiles.codec import Codec
from gateway.profiles.loader import load_profiles
from gateway.profiles.summary import summary
from gateway.services.checkpoint import Checkpointer, restore_columns
from gateway.services.control import Control
from gateway.services.control_metrics import control_samples, fleet_samples
from gateway.services.delivery import Delivery
from gateway.services.ingest import Ingest
from gateway.services.inventory import Inventory, Parsed, parse_rows
from gateway.services.observe import LoopLag, registry, set_up_logging
from gateway.services.probe import Probe, probe
from gateway.services.router import Router
from gateway.services.sessions import Sessions
from gateway.services.supervisor import Supervisor
from gateway.signals.platform import PlatformSignal
from gateway.sinks.http import HttpSink
from gateway.sinks.mqtt import MqttSink
from gateway.storage.checkpoint import Checkpoints
from gateway.storage.intervals import IntervalLog
from gateway.storage.journal import SqliteJournal
from gateway.storage.recorder import Recorder
from gateway.storage.recovery import recover
from gateway.transports.mqtt.connection import Connection as MqttConnection
from gateway.transports.mqtt.settings import MqttSettings

log = logging.getLogger(__name__)

RETAIN_PERIOD_S = 3600.0
STOP_GRACE_S = 10.0


def run_daemon(settings: Settings, *, release_on_stop: bool) -> None:
    """Run until SIGTERM or SIGINT. Raises GatewayError when it cannot start."""
    os.umask(0o077)
    set_up_logging(form=settings.log.format, level=settings.log.level, converter=utc_struct)
    uvloop.run(_run(settings, release_on_stop=release_on_stop))


async def _run(settings: Settings, *, release_on_stop: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with gateway(settings, clock=SystemClock()) as running:
        # What the start has made lives as long as the process; collections that go through it would stop the loop.
        gc.collect()
        gc.freeze()
        log.info("gateway is running", extra={"version": version("battery-fleet-gateway"), "devices": running.fleet.n})
        await stop.wait()
        log.info("gateway is stopping", extra={"release": release_on_stop})
        await running.wind_down(release=release_on_stop)


class Gateway:
    """The running object graph."""

    def __init__(self, *, fleet: Fleet, control: Control, supervisor: Supervisor) -> None:
        self.fleet = fleet
        self.control = control
        self.supervisor = supervisor

    async def wind_down(self, *, release: bool) -> None:
        """Hand devices back as configured before the links go: see `Control.shut_down`."""
        await self.control.shut_down(release=release)


@asynccontextmanager
async def gateway(settings: Settings, *, clock: Clock) -> AsyncIterator[Gateway]:
    """Start everything, give the running gateway, stop everything."""
    async with AsyncExitStack() as stack:
        stack.enter_context(locked(settings.state_dir))
        graph = await _build(settings, clock, stack)
        yield graph


def _tell(codecs: Mapping[str, Codec]) -> None:
    """Which profiles the daemon runs with, and that they are the ones somebody checked."""
    for codec in codecs.values():
        told = summary(codec)
        shown = {"profile": told.profile, "sha256": told.digest, "evidence": told.evidence, "control": told.control}
        log.info("profile loaded", extra=shown)


def _enroll(inventory: Inventory, remembered: JournalState) -> None:
    orphans = inventory.restore(remembered.devices)
    if orphans:
        log.error("devices whose profile is not installed", extra={"count": len(orphans), "first": orphans[0]})


class Transports:
    """The links of polled devices, by the name profiles use. `fleet_broker` is ours, for products that come to it."""

    def __init__(self, clock: Clock, fleet_broker: MqttSettings | None) -> None:
        self.topics = MqttPointLinks(clock, fleet_broker)
        self._modbus, self._http = ModbusLinks(clock), HttpLinks(clock)
        self.links: dict[str, PointLinks] = {"modbus": self._modbus, "http": self._http, "mqtt": self.topics}
        self.stats: dict[str, object] = {
            "modbus": self._modbus.stats, "http": self._http.stats, "topics": self.topics.stats,
        }  # fmt: skip

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve what is shared for as long as the block runs."""
        async with asyncio.TaskGroup() as group:
            shared = group.create_task(self.topics.run(), name="topics")
            try:
                yield
            finally:
                shared.cancel()
                for link in self.links.values():
                    await link.close()


async def _build(settings: Settings, clock: Clock, stack: AsyncExitStack) -> Gateway:
    codecs = load_profiles(settings.profiles_dir)
    _tell(codecs)
    fleet = Fleet()
    journal = SqliteJournal(settings.state_dir / "journal.sqlite", clock=clock)
    stack.callback(journal.close)
    remembered = journal.load()
    inventory = Inventory(fleet=fleet, journal=journal, codecs=codecs)
    _enroll(inventory, remembered)
    supervisor = Supervisor(rng=random.Random(), clock=clock)
    spoken = [codec for codec in codecs.values() if codec.product is None]
    link = MqttLink(settings.devices.mqtt, codecs=spoken, fleet=fleet, clock=clock)
    transports = Transports(clock, settings.devices.mqtt.broker)
    sessions = Sessions(
        fleet=fleet, codecs=codecs.values(), links=transports.links, journal=journal, clock=clock, rng=random.Random(),
        supervisor=supervisor, secret_of=settings.devices.secret, boot=remembered.epoch, prior=dict(remembered.prior),
    )  # fmt: skip
    router = Router(fleet, link, [(sessions.profiles, sessions)])
    interval_log = await stack.enter_async_context(IntervalLog(settings.state_dir / "intervals", clock=clock))
    control = Control(settings.control, fleet=fleet, journal=journal, link=router, clock=clock, epoch=remembered.epoch)
    platform = PlatformSignal(settings.platform, clock=clock) if settings.platform is not None else None
    deliveries = _deliveries(settings, interval_log, platform.connection if platform else None, clock, stack)

    def wake() -> None:
        for delivery in deliveries:
            delivery.wake()

    rules = Rules(length_s=settings.intervals.length_s, grace_s=round(settings.intervals.grace_s))
    checkpoints = Checkpoints(settings.state_dir)
    recovered = recover(
        checkpoints=checkpoints,
        spool=settings.state_dir / "spool",
        rules=rules,
        ids=fleet.ids,
        logged_record=interval_log.position,
    )
    if recovered.checkpoint is not None:
        restore_columns(fleet, recovered.checkpoint, clock.now())
    log.info("state recovered", extra=asdict(recovered.stats) | {"epoch": remembered.epoch, "devices": fleet.n})
    control.restore(remembered)
    recorder = Recorder(recovered.engine, ids=fleet.ids, unlogged=recovered.unlogged)
    ingest = Ingest(
        fleet=fleet, recorder=recorder, log_=interval_log, clock=clock, on_acks=control.take_acks, on_logged=wake
    )
    spool = recorder.open_spool(
        settings.state_dir / "spool",
        first_record=recovered.next_record,
        corrupt=recovered.corrupt,
        on_durable=ingest.durable,
    )
    await stack.enter_async_context(spool)
    recorder.begin(rules, clock.now())
    checkpointer = Checkpointer(recorder=recorder, checkpoints=checkpoints, fleet=fleet, clock=clock)
    stack.push_async_callback(checkpointer.write)

    lag = LoopLag(clock)
    connections = {"control": link.control, "telemetry": link.telemetry}
    if platform is not None:
        connections["platform"] = platform.connection
    metrics = registry(
        [
            ingest.samples,
            lambda: fleet_samples(fleet, clock),
            lambda: control_samples(control),
            checkpointer.samples,
            lambda: link_samples(link),
            sessions.samples,
            lambda: transport_samples(transports.stats),
            lambda: connection_samples(connections),
            lambda: delivery_samples(deliveries, clock),
            lambda: supervisor_samples(supervisor),
        ],
        [lag.histogram, *control.histograms],
    )

    def readiness() -> list[str]:
        reasons = [f"MQTT {name}: not connected" for name, c in connections.items() if not c.connected]
        reasons += ingest.reasons() + control.reasons()
        reasons += [f"sink {d.sink.name}: {d.stats.failing}" for d in deliveries if d.stats.failing]
        return reasons + [f"service {n}: {h.failing}" for n, h in supervisor.health.items() if h.failing]

    parts = Parts(
        dispatcher=control,
        events=EventView(fleet=fleet, control=control, clock=clock),
        devices=FleetView(fleet=fleet, inventory=inventory, link=link, clock=clock, sessions=sessions.sessions),
        inventory=inventory,
        registry=metrics,
        readiness=readiness,
        token=settings.http.token,
    )
    await _serve(settings, parts, stack)

    services: dict[str, Callable[[], Any]] = {
        "link-mqtt": lambda: link.run(ingest.emitter(link)),
        "link-topics": transports.topics.run,
        "sessions": lambda: sessions.run(ingest.emitter(sessions)),
        "ingest": ingest.run,
        "control": control.run,
        "checkpoint": checkpointer.run,
        "loop-lag": lag.run,
        "retention": lambda: _retain(interval_log, settings, deliveries),
    }
    services |= {f"delivery-{d.sink.name}": d.run for d in deliveries}
    if platform is not None:
        services["platform"] = lambda: platform.run(control.submit)
    await stack.enter_async_context(_running(supervisor, services))
    return Gateway(fleet=fleet, control=control, supervisor=supervisor)


@asynccontextmanager
async def _running(supervisor: Supervisor, services: Mapping[str, Callable[[], Any]]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(supervisor.keep(name, service), name=name) for name, service in services.items()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _serve(settings: Settings, parts: Parts, stack: AsyncExitStack) -> None:
    runner = web.AppRunner(make_app(parts), access_log=None, shutdown_timeout=STOP_GRACE_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, settings.http.host, settings.http.port).start()
    except OSError as error:
        raise GatewayError(f"http: cannot listen on {settings.http.host}:{settings.http.port}: {error}") from error


def _deliveries(
    settings: Settings,
    interval_log: IntervalLog,
    connection: MqttConnection | None,
    clock: Clock,
    stack: AsyncExitStack,
) -> list[Delivery]:
    out: list[Delivery] = []
    for sink_settings in settings.sinks:
        sink: HttpSink | MqttSink
        if sink_settings.kind == "http":
            sink = HttpSink(sink_settings)
            stack.push_async_callback(sink.close)
        elif connection is not None:
            sink = MqttSink(sink_settings, connection=connection, clock=clock)
        else:
            continue
        out.append(Delivery(sink, log_=interval_log, clock=clock, rng=random.Random()))
    return out


async def _retain(interval_log: IntervalLog, settings: Settings, deliveries: list[Delivery]) -> None:
    while True:
        await interval_log.retain(settings.intervals.keep_days, [d.sink.name for d in deliveries])
        await asyncio.sleep(RETAIN_PERIOD_S)


async def probe_device(
    codec: Codec, address: str, *, units: Mapping[str, str], parameters: Mapping[str, str], username: str, secret: str
) -> Probe:
    """Read one device without a daemon. Raises InvalidInput for what cannot be asked, and what links raise."""
    product, document = codec.product, codec.document
    if product is None:
        raise InvalidInput([f"{codec.name}: devices of this profile connect to the gateway; there is nothing to ask"])
    bad = [f"--unit {name}={number}: not a unit id" for name, number in units.items() if not number.isdecimal()]
    if bad:
        raise InvalidInput(bad)
    fleet_broker = MqttSettings(url=address, client_id="gateway-probe") if document.mqtt is not None else None
    transports = Transports(SystemClock(), fleet_broker)
    connection = Connection(
        url="" if document.mqtt is not None and document.mqtt.broker == "fleet" else address,
        units=tuple((name, int(number)) for name, number in units.items()),
        parameters=tuple(parameters.items()),
        username=username,
    )
    device = DeviceId(parameters.get("device", "probe"))
    token = resolve_secret(secret) if secret else ""
    failure: GatewayError | None = None
    async with transports.running():
        try:
            found = await probe(
                codec, product, transports.links[document.transport], connection, device=device, secret=token
            )
        except GatewayError as error:
            # A task group would wrap it.
            failure = error
    if failure is not None:
        raise failure
    return found


@contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """One process per state directory. Raises GatewayError when another one has it."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (state_dir / "lock").open("w", encoding="ascii")
    except OSError as error:
        raise GatewayError(f"state_dir {state_dir}: {error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise GatewayError(f"state_dir {state_dir}: another gateway is using it") from error
        yield


def import_offline(settings: Settings, text: str, *, form: str) -> dict[str, Any]:
    """Import devices while no daemon runs; the report has the shape of the REST answer."""
    kind: Literal["csv", "jsonl"] = "csv" if form == "csv" else "jsonl"
    codecs = load_profiles(settings.profiles_dir)

    async def commit() -> tuple[Parsed, int]:
        journal = SqliteJournal(settings.state_dir / "journal.sqlite", clock=SystemClock())
        try:
            inventory = Inventory(fleet=Fleet(), journal=journal, codecs=codecs)
            inventory.restore(journal.load().devices)
            parsed = parse_rows(text, form=kind, profiles=codecs, places=inventory.places)
            return parsed, await inventory.enroll(parsed.devices)
        finally:
            journal.close()

    os.umask(0o077)
    with locked(settings.state_dir):
        parsed, enrolled = asyncio.run(commit())
    return {
        "rows": len(parsed.devices) + len(parsed.bad),
        "enrolled": enrolled,
        "rejected": [asdict(row) for row in parsed.bad],
        "rejected_total": len(parsed.bad),
        "notes": [asdict(note) for note in parsed.notes],
    }

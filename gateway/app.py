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
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import uvloop
from aiohttp import web

from gateway.api.models import openapi
from gateway.api.server import Parts, make_app
from gateway.api.views import EventView, FleetView
from gateway.clock import Clock, SystemClock, utc_struct
from gateway.config import Settings
from gateway.domain.energy import Rules
from gateway.domain.errors import GatewayError
from gateway.domain.fleet import Fleet
from gateway.links.mqtt import MqttLink
from gateway.profiles.asyncapi import asyncapi
from gateway.profiles.codec import Codec
from gateway.profiles.loader import load_profiles
from gateway.services.checkpoint import Checkpointer, restore_columns
from gateway.services.control import Control
from gateway.services.control_metrics import control_samples, fleet_samples
from gateway.services.delivery import Delivery
from gateway.services.ingest import Ingest
from gateway.services.inventory import Inventory, parse_rows
from gateway.services.observe import LoopLag, Sample, registry, set_up_logging
from gateway.services.supervisor import Supervisor
from gateway.signals.body import EventBody
from gateway.signals.platform import ANSWER_TOPIC, DISPATCH_TOPIC, PlatformSignal
from gateway.sinks.http import HttpSink
from gateway.sinks.mqtt import INTERVAL_TOPIC, MqttSink
from gateway.storage.checkpoint import Checkpoints
from gateway.storage.intervals import IntervalLog
from gateway.storage.journal import SqliteJournal
from gateway.storage.recorder import Recorder
from gateway.storage.recovery import recover
from gateway.transports.mqtt.connection import Connection

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


async def _build(settings: Settings, clock: Clock, stack: AsyncExitStack) -> Gateway:
    codecs = load_profiles(settings.profiles_dir)
    fleet = Fleet()
    journal = SqliteJournal(settings.state_dir / "journal.sqlite", clock=clock)
    stack.callback(journal.close)
    remembered = journal.load()
    inventory = Inventory(fleet=fleet, journal=journal, facts={name: c.facts for name, c in codecs.items()})
    orphans = inventory.restore(remembered.devices)
    if orphans:
        log.error("devices whose profile is not installed", extra={"count": len(orphans), "first": orphans[0]})

    link = MqttLink(settings.devices.mqtt, codecs=list(codecs.values()), fleet=fleet, clock=clock)
    interval_log = await stack.enter_async_context(IntervalLog(settings.state_dir / "intervals", clock=clock))
    control = Control(settings.control, fleet=fleet, journal=journal, link=link, clock=clock, epoch=remembered.epoch)
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
    supervisor = Supervisor(rng=random.Random())
    metrics = registry(
        [
            ingest.samples,
            lambda: fleet_samples(fleet, clock),
            lambda: control_samples(control),
            checkpointer.samples,
            lambda: _link_samples(link),
            lambda: _connection_samples(connections),
            lambda: _delivery_samples(deliveries, clock),
            lambda: _supervisor_samples(supervisor),
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
        devices=FleetView(fleet=fleet, inventory=inventory, link=link, clock=clock),
        inventory=inventory,
        registry=metrics,
        readiness=readiness,
        token=settings.http.token,
    )
    await _serve(settings, parts, stack)

    services: dict[str, Callable[[], Any]] = {
        "link-mqtt": lambda: link.run(ingest.emitter(link)),
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
    settings: Settings, interval_log: IntervalLog, connection: Connection | None, clock: Clock, stack: AsyncExitStack
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
    parsed = parse_rows(text, form=kind, profiles=codecs)

    async def commit() -> int:
        journal = SqliteJournal(settings.state_dir / "journal.sqlite", clock=SystemClock())
        try:
            facts = {name: codec.facts for name, codec in codecs.items()}
            inventory = Inventory(fleet=Fleet(), journal=journal, facts=facts)
            inventory.restore(journal.load().devices)
            return await inventory.enroll(parsed.devices)
        finally:
            journal.close()

    os.umask(0o077)
    with locked(settings.state_dir):
        enrolled = asyncio.run(commit())
    return {
        "rows": len(parsed.devices) + len(parsed.bad),
        "enrolled": enrolled,
        "rejected": [asdict(row) for row in parsed.bad],
        "rejected_total": len(parsed.bad),
    }


def documents(profiles_dir: Path) -> dict[str, dict[str, Any]]:
    """The OpenAPI and AsyncAPI documents by file name."""
    codecs: Iterable[Codec] = load_profiles(profiles_dir).values()
    interval = {
        "type": "object",
        "required": ["device", "start", "length_s", "revision"],
        "properties": {
            "device": {"type": "string"},
            "start": {"type": "string", "format": "date-time"},
            "length_s": {"type": "integer"},
            "revision": {"type": "integer"},
            "charge_wh": {"type": ["number", "null"]},
            "discharge_wh": {"type": ["number", "null"]},
            "coverage_pct": {"type": "number"},
            "samples": {"type": "integer"},
            "soc_end_pct": {"type": ["number", "null"]},
            "source": {"enum": ["none", "counter", "energy"]},
            "battery_w_mean": {"type": ["number", "null"]},
            "battery_w_min": {"type": ["number", "null"]},
            "battery_w_max": {"type": ["number", "null"]},
        },
    }
    platform = {
        "platform.dispatch": {
            "address": DISPATCH_TOPIC, "action": "receive", "summary": "A dispatch event, here only.",
            "payload": EventBody.model_json_schema(),
        },
        "platform.answers": {
            "address": ANSWER_TOPIC, "action": "send", "summary": "The decision on an event.",
            "payload": {"type": "object", "required": ["outcome"], "properties": {
                "id": {"type": "string"}, "revision": {"type": "integer"},
                "outcome": {"enum": ["accepted", "duplicate", "superseded", "rejected"]},
                "reason": {"type": ["string", "null"]}}},
        },
        "platform.intervals": {
            "address": INTERVAL_TOPIC, "action": "send", "payload": interval,
            "summary": "One interval record; identity is (device, start, revision).",
        },
    }  # fmt: skip
    return {
        "openapi.json": openapi(version("battery-fleet-gateway")),
        "asyncapi.json": asyncapi(codecs, platform),
    }


# -- metrics of parts that count but do not tell -----------------------------------------------------------------


def _link_samples(link: MqttLink) -> Iterable[Sample]:
    stats = link.stats
    for kind, count in stats.messages.items():
        yield Sample(
            name="gateway_messages", help="Messages decoded.", value=count, kind="counter", labels=(("kind", kind),)
        )
    for reason, count in stats.rejects.items():
        yield Sample(
            name="gateway_decode_rejects",
            help="Messages refused.",
            value=count,
            kind="counter",
            labels=(("reason", reason),),
        )
    for name, text, value in (
        ("gateway_unenrolled_messages", "Messages of devices that are not enrolled.", stats.unenrolled),
        ("gateway_live_stale", "Live readings of unknown age.", stats.stale_live),
        ("gateway_implausible_points", "Points made unknown.", link.implausible),
    ):
        yield Sample(name=name, help=text, value=value, kind="counter")
    yield Sample(
        name="gateway_unenrolled_devices", help="Devices seen that are not enrolled.", value=len(link.unenrolled)
    )


def _connection_samples(connections: Mapping[str, Connection]) -> Iterable[Sample]:
    for name, connection in connections.items():
        stats, label = connection.stats, (("connection", name),)
        up = 1.0 if connection.connected else 0.0
        yield Sample(name="gateway_mqtt_connected", help="1 while connected.", value=up, labels=label)
        yield Sample(
            name="gateway_mqtt_receive_maximum", help="The broker's.", value=stats.broker_receive_max, labels=label
        )
        for metric, text, value in (
            ("gateway_mqtt_connects", "Connections made.", stats.connects),
            ("gateway_mqtt_received_bytes", "Bytes received.", stats.rx_bytes),
            (
                "gateway_mqtt_stale_acknowledgements",
                "Acknowledgements of an old connection, dropped.",
                stats.acks_stale,
            ),
        ):
            yield Sample(name=metric, help=text, value=value, kind="counter", labels=label)
        for reason, count in stats.lost.items():
            yield Sample(
                name="gateway_mqtt_losses", help="Connections lost or refused.", value=count, kind="counter",
                labels=(*label, ("reason", reason)),
            )  # fmt: skip
        for outcome, count in stats.published.items():
            yield Sample(
                name="gateway_mqtt_published", help="Messages published, by outcome.", value=count, kind="counter",
                labels=(*label, ("outcome", outcome.value)),
            )  # fmt: skip


def _delivery_samples(deliveries: Iterable[Delivery], clock: Clock) -> Iterable[Sample]:
    now_ms = clock.now().utc_ms
    for delivery in deliveries:
        stats, label = delivery.stats, (("sink", delivery.sink.name),)
        for metric, text, value in (
            ("gateway_sink_accepted", "Interval records accepted.", stats.accepted),
            ("gateway_sink_rejected", "Interval records refused for good.", stats.rejected),
            ("gateway_sink_retries", "Batches kept for later.", stats.kept),
        ):
            yield Sample(name=metric, help=text, value=value, kind="counter", labels=label)
        age_s = 0.0 if stats.oldest_ms is None else max(0.0, (now_ms - stats.oldest_ms) / 1000)
        yield Sample(
            name="gateway_sink_backlog_records", help="Records not accepted yet.", value=stats.backlog, labels=label
        )
        yield Sample(
            name="gateway_sink_oldest_seconds", help="Age of the oldest record not accepted.", value=age_s, labels=label
        )


def _supervisor_samples(supervisor: Supervisor) -> Iterable[Sample]:
    for name, health in supervisor.health.items():
        yield Sample(
            name="gateway_service_restarts", help="Services that failed and were started again.",
            value=health.restarts, kind="counter", labels=(("service", name),),
        )  # fmt: skip

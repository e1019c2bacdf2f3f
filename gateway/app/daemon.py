"""Composition root: settings become an object graph, started and stopped in order.

Start: lock, journal, profiles, inventory, interval log, recovery, spool, control, REST, links. Stop: signals, control,
links, last checkpoint, spool, log. Nothing here decides; it only connects.
"""

import asyncio
import ctypes
import gc
import logging
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import uvloop

from gateway import __version__, former_names
from gateway.api.app import Parts, QuietPeers
from gateway.api.views.fleet import FleetView
from gateway.app.control import ControlParts, control_parts
from gateway.app.last_runs import LastRuns, noted_run
from gateway.app.offline import Transports, locked
from gateway.app.readiness import ReadinessWatch, broken_connections, broken_services
from gateway.app.recording import Recording
from gateway.app.telemetry import Upstream
from gateway.app.web import front_door, serve
from gateway.clock import SteadyClock, SystemClock, utc_struct
from gateway.config.settings import Settings
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.journal.stored import JournalState
from gateway.links.mqtt.messages import MqttLink
from gateway.observability.logs import set_up_logging
from gateway.observability.metrics import registry
from gateway.profiles.compile import Codec
from gateway.profiles.loader import load_profiles
from gateway.profiles.summary import summary
from gateway.services.checkpointing import load_columns, load_records
from gateway.services.control.loop import ControlLoop
from gateway.services.control.metrics import fleet_samples
from gateway.services.devices.command_router import CommandRouter
from gateway.services.devices.polled import PolledDevices
from gateway.services.devices.registry import DeviceRegistry
from gateway.services.devices.unheard import Unheard
from gateway.services.runtime.loop_lag import LoopLag
from gateway.services.runtime.supervisor import ESSENTIAL, Supervisor
from gateway.signals.platform import PlatformSignal
from gateway.storage.checkpoint import Checkpoints
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.journal.event_store import SqliteEventStore
from gateway.storage.journal.journal import SqliteJournal
from gateway.storage.recovery import Recovered, recover

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

EXIT_BROKEN = 70
"""The exit code of a run that ends because an essential part is broken (EX_SOFTWARE)."""

KEPT_BYTES, BLOCK_BYTES = 512 << 20, 32 << 20


def keep_memory() -> None:
    """Keep freed memory for the next tick. glibc gives large blocks back at once, and every temporary column of a large
    fleet would fault its pages in anew, which costs more than the arithmetic. Without effect on other libraries."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, BLOCK_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def run_daemon(settings: Settings, *, release_on_stop: bool) -> None:
    """Run until SIGTERM or SIGINT. Raises GatewayError when it cannot start. A run that is broken ends the process with
    `EXIT_BROKEN`."""
    os.umask(0o077)
    keep_memory()
    set_up_logging(form=settings.log.format, level=settings.log.level, converter=utc_struct)
    uvloop.run(_run(settings, release_on_stop=release_on_stop))


async def _run(settings: Settings, *, release_on_stop: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with gateway(settings, clock=SteadyClock(SystemClock())) as running:
        # What the start has made lives as long as the process; collections that go through it would stop the loop.
        gc.collect()
        gc.freeze()
        log.info("gateway is running", extra={"version": __version__, "devices": running.fleet.n})
        why = await _over(running, stop, release=release_on_stop)
        if why:
            # No ordinary stop, which could take long and rests on what is broken: leases run on.
            try:
                await running.last_runs.note_end(why, running.control.pending)
            finally:
                os._exit(EXIT_BROKEN)


async def _over(running: "Gateway", stop: asyncio.Event, *, release: bool) -> str:
    """Wait for a stop as asked for, and wind down: ""; or until an essential part is broken: why."""

    async def stopped() -> str:
        await stop.wait()
        log.info("gateway is stopping", extra={"release": release})
        await running.wind_down(release=release)
        return ""

    async with asyncio.TaskGroup() as group:
        ways = [
            group.create_task(running.supervisor.ended(), name="broken"), group.create_task(stopped(), name="stopped"),
        ]  # fmt: skip
        done, left = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        return done.pop().result()


class Gateway:
    """The running object graph."""

    def __init__(
        self, *, fleet: Fleet, control: ControlLoop, supervisor: Supervisor, readiness: ReadinessWatch,
        last_runs: LastRuns,
    ) -> None:  # fmt: skip
        self.fleet = fleet
        self.control = control
        self.supervisor = supervisor
        self.readiness = readiness
        self.last_runs = last_runs

    async def wind_down(self, *, release: bool) -> None:
        """Hand devices back as configured before the links go: see `ControlLoop.shut_down`."""
        self.readiness.stopping = True
        await self.control.shut_down(release=release)


@asynccontextmanager
async def gateway(settings: Settings, *, clock: SteadyClock) -> AsyncIterator[Gateway]:
    """Start everything, yield the running gateway, stop everything."""
    async with AsyncExitStack() as stack:
        stack.enter_context(locked(settings.state_dir))
        last_runs = stack.enter_context(noted_run(settings.state_dir))
        graph = await _build(settings, clock, stack, last_runs)
        yield graph


def log_inputs(settings: Settings, codecs: Mapping[str, Codec]) -> None:
    """Log which profiles the daemon runs with, by the hash that `gateway profiles check` prints, and every former key
    in the configuration or a profile."""
    for warning in settings.former:
        log.warning("configuration uses a former key", extra={"key": warning})
    for codec in codecs.values():
        told = summary(codec)
        shown = {"profile": told.profile, "sha256": told.digest, "evidence": told.evidence, "control": told.control}
        log.info("profile loaded", extra=shown)
        for warning in codec.former:
            log.warning("profile uses a former key", extra={"key": warning})


def _register(inventory: DeviceRegistry, remembered: JournalState) -> None:
    orphans = inventory.load(remembered.devices, remembered.controlled)
    if orphans:
        log.error("devices whose profile is not installed", extra={"count": len(orphans), "first": orphans[0]})


async def _build(settings: Settings, clock: SteadyClock, stack: AsyncExitStack, last_runs: LastRuns) -> Gateway:
    codecs = load_profiles(settings.profiles_dir)
    log_inputs(settings, codecs)
    fleet = Fleet()
    journal = SqliteJournal(settings.state_dir / "journal.sqlite", clock=clock)
    stack.callback(journal.close)
    remembered = journal.load()
    store = SqliteEventStore(journal.path)
    stack.callback(store.close)
    prior = dict(remembered.prior)
    inventory = DeviceRegistry(fleet=fleet, journal=journal, codecs=codecs, saved=prior.keys())
    _register(inventory, remembered)
    # What only releases goes on as long as it can.
    supervisor = Supervisor(
        rng=random.Random(), clock=clock, essential=frozenset() if last_runs.release_only else ESSENTIAL
    )
    spoken = [codec for codec in codecs.values() if codec.product is None]
    link = MqttLink(settings.devices.mqtt, codecs=spoken, fleet=fleet, clock=clock)
    transports = Transports(clock, settings.devices.mqtt.broker)
    sessions = PolledDevices(
        fleet=fleet, codecs=codecs.values(), links=transports.links, journal=journal, clock=clock, rng=random.Random(),
        supervisor=supervisor, secret_of=settings.devices.secret, boot=remembered.epoch, prior=prior,
    )  # fmt: skip
    router = CommandRouter(fleet, link, [(sessions.profiles, sessions)])
    dispatch = control_parts(
        settings, remembered, fleet=fleet, journal=journal, store=store, link=router, clock=clock,
        cause_of=link.cause_of, skew=link.skew, misidentified=sessions.untrusted, release_only=last_runs.release_only,
    )  # fmt: skip
    dispatcher, control = dispatch.dispatcher, dispatch.control
    platform = PlatformSignal(settings.platform, clock=clock) if settings.platform is not None else None
    upstream = await Upstream.opened(settings, fleet=fleet, clock=clock, platform=platform, stack=stack)

    rules = IntervalRules(length_s=settings.intervals.length_s, grace_s=round(settings.intervals.grace_s))
    checkpoints = Checkpoints(settings.state_dir)
    recover_all = partial(_recovered, settings, rules, checkpoints, upstream.log, dispatch, fleet)
    # What is stored must not keep a start from releasing devices.
    recovered = supervisor.attempt("recovery", recover_all) if last_runs.release_only else recover_all()
    control.load(remembered)
    recording = await Recording.opened(
        settings, rules, recovered, checkpoints, fleet=fleet, clock=clock, control=control, upstream=upstream,
        stack=stack,
    )  # fmt: skip
    stack.push_async_callback(control.pending.close)

    lag, peers, door = LoopLag(clock), QuietPeers(), front_door()
    connections = {"control": link.control, "telemetry": link.telemetry}
    if platform is not None:
        connections["platform"] = platform.connection
    readiness = _readiness(Unheard(fleet, clock), sessions, link, supervisor, last_runs)
    readiness.add("mqtt", reasons=broken_connections(connections))
    readiness.add("telemetry", reasons=recording.reasons, warnings=recording.warnings)
    readiness.add("control", reasons=dispatch.reasons, warnings=dispatch.warnings)
    readiness.add("upstream", warnings=upstream.warnings)
    metrics = registry(
        [
            *(() if platform is None else (platform.samples,)),
            journal.samples,
            recording.samples,
            upstream.samples,
            lambda: fleet_samples(fleet, clock),
            dispatch.samples,
            link.samples,
            sessions.samples,
            transports.samples,
            *(partial(connection.samples, name) for name, connection in connections.items()),
            supervisor.samples,
            peers.samples,
            door.samples,
            readiness.samples,
            last_runs.samples,
        ],
        [lag.histogram, *control.histograms],
    )

    parts = Parts(
        dispatcher=dispatcher,
        events=dispatch.view,
        trust=control.trust,
        clock=clock,
        devices=FleetView(
            fleet=fleet, inventory=inventory, link=link, clock=clock, reach=control.reach, sessions=sessions.sessions
        ),
        history=upstream.history,
        audit=store,
        telemetry=upstream.telemetry(recording.engine),
        leap=upstream.leap(),
        inventory=inventory,
        registry=metrics,
        readiness=readiness.now,
        token=settings.http.token,
        peers=peers,
    )
    await serve(settings, parts, door, stack)

    services: dict[str, Callable[[], Any]] = {
        "link-mqtt": lambda: link.run(recording.emitter(link, sender=link)),
        "link-topics": transports.topics.run,
        "sessions": lambda: sessions.run(recording.emitter(sessions)),
        "control": control.run,
        "put-away": control.pending.run,
        "loop-lag": lag.run,
        former_names.SERVICES["clock_guard"]: dispatch.clock_guard.run,
        "readiness": readiness.run,
    }
    services |= recording.services()
    services |= upstream.services()
    if platform is not None:
        services["platform"] = lambda: platform.run(dispatcher.submit)
        services["reports"] = lambda: dispatch.report(platform)
    await stack.enter_async_context(_running(supervisor, services))
    return Gateway(fleet=fleet, control=control, supervisor=supervisor, readiness=readiness, last_runs=last_runs)


def _readiness(
    unheard: Unheard, sessions: PolledDevices, link: MqttLink, supervisor: Supervisor, last_runs: LastRuns
) -> ReadinessWatch:
    """What is told of the devices and of what runs; other parts are added."""
    watch = ReadinessWatch()
    watch.add("release-only", reasons=last_runs.reasons)
    watch.add(
        "devices",
        reasons=unheard.reasons,
        warnings=lambda: unheard.warnings() + sessions.warnings() + link.warnings(),
    )
    watch.add(
        "services",
        reasons=broken_services(supervisor.health, spare=False),
        warnings=broken_services(supervisor.health, spare=True),
    )
    return watch


def _recovered(
    settings: Settings,
    rules: IntervalRules,
    checkpoints: Checkpoints,
    interval_log: IntervalLog,
    dispatch: ControlParts,
    fleet: Fleet,
) -> Recovered:
    """Readings, records and accumulators as they were."""
    recovered = recover(
        checkpoints=checkpoints, spool=settings.state_dir / "spool", rules=rules, ids=fleet.ids,
        logged_record=interval_log.position,
    )  # fmt: skip
    if recovered.checkpoint is not None:
        load_columns(fleet, recovered.checkpoint, dispatch.clock)
        load_records(dispatch.control.records, recovered.checkpoint, dispatch.dispatcher.entries(), fleet)
    log.info("state recovered", extra=asdict(recovered.stats) | {"devices": fleet.n})
    return recovered


@asynccontextmanager
async def _running(supervisor: Supervisor, services: Mapping[str, Callable[[], Any]]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(supervisor.keep(name, service), name=name) for name, service in services.items()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

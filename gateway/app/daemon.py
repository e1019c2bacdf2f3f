"""Composition root: settings become an object graph, started and stopped in order.

Start: lock, profiles, journal, inventory, links, control, platform, interval log, sinks, recovery, spool, REST; then
every service runs. Stop: control hands devices back as configured, every service ends, and the parts close from the
last to the first: REST, what is owed to the journal, last checkpoint, spool, sinks, interval log, journal, lock.
Nothing here decides; it only connects. What a part does, counts and says is the part's own (`observability/parts`):
the root knows a list of them.
"""

import asyncio
import ctypes
import gc
import logging
import os
import random
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from types import MappingProxyType

import uvloop

from gateway import __version__
from gateway.api.access.refusals import Refusals
from gateway.api.app import Parts, QuietPeers
from gateway.api.views.explained import ExplainedView
from gateway.api.views.fleet import FleetView
from gateway.api.views.participation import ParticipationView
from gateway.api.views.programs import ProgramView
from gateway.api.views.rates import RateView
from gateway.app.access import Access
from gateway.app.cases import cases
from gateway.app.control import control_parts
from gateway.app.last_runs import LastRuns, noted_run
from gateway.app.leap import aggregator
from gateway.app.money import money
from gateway.app.offline import Transports, locked
from gateway.app.parts import RunningParts
from gateway.app.programs import enrollments
from gateway.app.readiness import ReadinessWatch
from gateway.app.recording import raw_messages, recording, recovered
from gateway.app.service_manager import ServiceManager
from gateway.app.telemetry import Upstream
from gateway.app.web import doorway, front_door, serve
from gateway.app.webhooks import webhooks
from gateway.clock import SteadyClock, SystemClock, utc_struct
from gateway.config.settings import Settings
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.stored import JournalState
from gateway.links.mqtt.messages import MqttLink
from gateway.observability.logs import set_up_logging
from gateway.profiles.compile import Codec
from gateway.profiles.loader import load_profiles
from gateway.profiles.summary import summary
from gateway.programs.loader import LoadedProgram, load_programs
from gateway.services.control.loop import ControlLoop
from gateway.services.devices.command_router import CommandRouter
from gateway.services.devices.departures import Departures
from gateway.services.devices.polled import PolledDevices
from gateway.services.devices.registry import DeviceRegistry
from gateway.services.devices.unheard import Unheard
from gateway.services.programs.eligibility import Eligibility
from gateway.services.programs.forecasts import ProgramForecasts
from gateway.services.programs.participation import ProgramParticipation
from gateway.services.programs.performance import PerformanceReader
from gateway.services.programs.terms import every_program, moved_terms, program_terms
from gateway.services.runtime.loop_lag import LoopLag
from gateway.services.runtime.supervisor import Supervisor
from gateway.storage.broker_sessions import BrokerSessions
from gateway.storage.journal.event_store import SqliteEventStore
from gateway.storage.journal.journal import SqliteJournal
from gateway.storage.replay import ReplayStore

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
    clock = SteadyClock(SystemClock())
    manager = ServiceManager(os.environ, pid=os.getpid(), clock=clock)
    async with gateway(settings, clock=clock) as running:
        # What the start has made lives as long as the process; collections that go through it would stop the loop.
        gc.collect()
        gc.freeze()
        log.info("gateway is running", extra={"version": __version__, "devices": len(running.fleet.slot_of)})
        running.control.on_tick = manager.beat
        manager.ready()
        why = await _over(running, stop, manager, release=release_on_stop)
        if why:
            # No ordinary stop, which could take long and rests on what is broken: leases run on.
            try:
                await running.last_runs.note_end(why, running.control.pending)
            finally:
                os._exit(EXIT_BROKEN)


async def _over(running: "Gateway", stop: asyncio.Event, manager: ServiceManager, *, release: bool) -> str:
    """Wait for a stop as asked for, and wind down: ""; or until an essential part is broken: why."""

    async def stopped() -> str:
        await stop.wait()
        log.info("gateway is stopping", extra={"release": release})
        manager.stopping()
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
        last_runs: LastRuns, parts: RunningParts,
    ) -> None:  # fmt: skip
        self.fleet = fleet
        self.control = control
        self.supervisor = supervisor
        self.readiness = readiness
        self.last_runs = last_runs
        self.parts = parts

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
        parts = RunningParts(stack)
        running = await _build(settings, clock, parts, last_runs)
        await stack.enter_async_context(parts.running(running.supervisor))
        yield running


def log_inputs(
    settings: Settings, codecs: Mapping[str, Codec], programs: Mapping[str, LoadedProgram] = MappingProxyType({})
) -> None:
    """Log which profiles and programs the daemon runs with, by the hash that `gateway profiles list` and `programs
    list` print, and every former key in the configuration or a profile."""
    for warning in (*settings.former, *moved_terms(settings.programs)):
        log.warning("configuration uses a former key", extra={"key": warning})
    for codec in codecs.values():
        told = summary(codec)
        shown = {"profile": told.profile, "sha256": told.digest, "evidence": told.evidence, "control": told.control}
        log.info("profile loaded", extra=shown)
        for warning in codec.former:
            log.warning("profile uses a former key", extra={"key": warning})
        for warning in codec.doubts:
            log.warning("profile may have a mistake", extra={"detail": warning})
    for name, loaded in programs.items():
        log.info("program loaded", extra={"program": name, "sha256": loaded.digest})


def _register(inventory: DeviceRegistry, remembered: JournalState) -> None:
    orphans = inventory.load(
        remembered.devices, remembered.controlled, departures=remembered.departures, removed=remembered.removed
    )
    if orphans:
        log.error("devices whose profile is not installed", extra={"count": len(orphans), "first": orphans[0]})


async def _build(settings: Settings, clock: SteadyClock, parts: RunningParts, last_runs: LastRuns) -> Gateway:
    readiness = await parts.start(ReadinessWatch(parts))
    await parts.start(last_runs)
    codecs = load_profiles(settings.profiles_dir)
    programs = {} if settings.programs_dir is None else load_programs(settings.programs_dir)
    log_inputs(settings, codecs, programs)
    fleet = Fleet()
    journal = await parts.start(SqliteJournal(settings.state_dir / "journal.sqlite", clock=clock))
    remembered = journal.load()
    store = await parts.start(SqliteEventStore(journal.path))
    replays = await parts.start(ReplayStore(settings.state_dir))
    files = {name: one.terms for name, one in programs.items()}
    terms = program_terms(settings.programs, files)
    enrolled = await enrollments(settings, terms, programs, journal=journal, audit=store, clock=clock, parts=parts)
    participation = await parts.start(
        ProgramParticipation(enrolled.book, fleet=fleet, programs=every_program(settings.programs, files))
    )
    prior = dict(remembered.prior)
    inventory = DeviceRegistry(clock=clock, fleet=fleet, journal=journal, codecs=codecs, saved=prior)
    _register(inventory, remembered)
    await money(settings, clock, parts)
    await parts.start(Unheard(fleet, clock))
    await parts.start(Departures(inventory, clock))
    # What only releases goes on as long as it can.
    supervisor = await parts.start(Supervisor(rng=random.Random(), clock=clock, may_end=not last_runs.release_only))

    spoken = [codec for codec in codecs.values() if codec.product is None]
    link = await parts.start(MqttLink(settings.devices.mqtt, codecs=spoken, fleet=fleet, clock=clock))
    await parts.start(link.control)
    await parts.start(link.telemetry)
    transports = Transports(clock, settings.devices.mqtt.broker)
    for transport in transports.parts:
        await parts.start(transport)
    sessions = PolledDevices(
        fleet=fleet, codecs=codecs.values(), links=transports.links, journal=journal, clock=clock, rng=random.Random(),
        supervisor=supervisor, wall=clock.wall, secret_of=settings.devices.secret, boot=remembered.epoch, prior=prior,
    )  # fmt: skip
    await parts.start(sessions)

    router = CommandRouter(fleet, link, [(sessions.profiles, sessions)])
    dispatch = await control_parts(
        settings, remembered, fleet=fleet, journal=journal, store=store, link=router, clock=clock,
        cause_of=link.cause_of, skew=link.skew, misidentified=sessions.untrusted, parts=parts,
        release_only=last_runs.release_only, programs={name: one.program for name, one in programs.items()},
        participation=participation, refused=replays.window("platform"),
    )  # fmt: skip
    control = dispatch.control
    ours = [link.control, link.telemetry, *(() if dispatch.platform is None else (dispatch.platform.connection,))]
    (await parts.start(BrokerSessions(settings.state_dir, ours, clock))).load()
    upstream = await Upstream.started(settings, fleet=fleet, clock=clock.wall, platform=dispatch.platform, parts=parts)
    recover_all = partial(recovered, settings, upstream, dispatch, fleet, remembered.replaced)
    # What is stored must not keep a start from releasing devices.
    found = supervisor.attempt("recovery", recover_all) if last_runs.release_only else recover_all()
    control.load(remembered)
    raw = await raw_messages(
        settings, link=link, fleet=fleet, registry=inventory, journal=journal, clock=clock, parts=parts
    )
    ingest, engine = await recording(
        settings, found, upstream=upstream, dispatch=dispatch, fleet=fleet, clock=clock, raw=raw, reader=link.raw,
        parts=parts,
    )  # fmt: skip
    link.emit, sessions.emit = ingest.emitter(link, sender=link), ingest.emitter(sessions)

    await parts.start(LoopLag(clock))
    access = await parts.start(Access(settings.http))
    hooks = await webhooks(
        settings, submit=dispatch.dispatcher.submit, view=dispatch.view, replays=replays, clock=clock, parts=parts
    )
    if unheard_of := access.unheard_of(settings.sources.keys() - {peer.name for peer in hooks.peers}):
        log.warning("bounds of sources that no caller is", extra={"sources": unheard_of})
    refusals = await parts.start(Refusals(clock))
    peers, door = await parts.start(QuietPeers()), await parts.start(front_door(refusals))
    asked = Parts(
        dispatcher=dispatch.dispatcher,
        events=dispatch.view,
        trust=control.trust,
        clock=clock,
        devices=FleetView(
            fleet=fleet,
            inventory=inventory,
            link=link,
            clock=clock,
            reach=control.reach,
            sessions=sessions.sessions,
            excluded_by=dispatch.view.excluded.of,
        ),
        history=upstream.history,
        audit=store,
        past=store,
        telemetry=upstream.telemetry(engine),
        leap=upstream.leap,
        leap_dispatch=(
            leap := await aggregator(
                settings,
                dispatcher=dispatch.dispatcher,
                enrolled=enrolled,
                participation=participation,
                fleet=fleet,
                programs=programs,
                terms=terms,
                journal=journal,
                clock=clock.wall,
                parts=parts,
            )
        ).dispatch,
        leap_enrollments=leap.enrollments,
        nominations=leap.nominations,
        sign_ups=leap.sign_ups,
        inventory=inventory,
        raw=raw,
        programs=ProgramView(
            dispatcher=dispatch.dispatcher, clock=clock, envelope=lambda: control.newest.envelope, programs=programs
        ),
        performance=PerformanceReader(settings.state_dir),
        enrollments=enrolled,
        rates=RateView(
            enrollments=enrolled, clock=clock, programs={name: one.program for name, one in programs.items()}
        ),
        participation=ParticipationView(
            fleet=fleet,
            dispatcher=dispatch.dispatcher,
            participation=participation,
            envelope=lambda: control.newest.envelope,
            clock=clock,
            due_data=enrolled.due_data,
        ),
        eligibility=Eligibility(
            fleet=fleet,
            participation=participation,
            terms=terms,
            history=upstream.history,
            clock=clock.wall,
            days=settings.intervals.keep_days,
        ),
        webhooks=hooks,
        outbox=leap.outbox,
        forecasts=ProgramForecasts(
            fleet=fleet,
            participation=participation,
            deliveries=store,
            envelope=lambda: control.newest.envelope,
            clock=clock,
        ),
        explained=ExplainedView(fleet=fleet, history=upstream.history, deliveries=store, clock=clock),
        cases=await cases(settings, clock=clock, journal=journal, parts=parts),
        registry=parts.metrics(),
        readiness=readiness.now,
        door=doorway(access, clock, settings.http.host, refusals),
        peers=peers,
    )
    await serve(settings, asked, door, access)
    return Gateway(
        fleet=fleet, control=control, supervisor=supervisor, readiness=readiness, last_runs=last_runs, parts=parts
    )

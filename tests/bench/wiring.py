"""The gateway's telemetry path as the composition root wires it, around a bench's own broker and fleet."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gateway.clock import Clock, SystemClock
from gateway.domain.commands import CommandBatch, WriteOutcome, WriteReport
from gateway.domain.events.request import EventKind, EventRequest, TargetGroup, power
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.device import Device
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.journal.changes import Change, EventDelivered, EventsArchived
from gateway.domain.journal.stored import JournalState, StoredEvent
from gateway.domain.readings import AckBatch, LiveBatch
from gateway.domain.types import DeviceId, EventId, Grid, Mode, Now
from gateway.links.mqtt.messages import MqttLink, MqttLinkSettings
from gateway.ports.journal import Journal
from gateway.ports.links import CommandTarget
from gateway.profiles.compile import Codec
from gateway.profiles.loader import load_profiles
from gateway.services.control.loop import ControlLoop
from gateway.services.events.intake import Dispatcher
from gateway.services.settings import ControlSettings, FeederSettings, ProgramSettings
from gateway.services.telemetry.ingest import Ingest
from gateway.services.telemetry.log_writer import IntervalSink, LogWriter
from gateway.services.telemetry.recorder import Recorder
from gateway.services.telemetry.repair import Repairs
from gateway.storage.recovery import Unlogged
from gateway.transports.mqtt.settings import MqttSettings
from tests.bench.blaster import DEVICE
from tests.builders.fakes import NothingLogged, NothingRaw

PROFILES = Path(__file__).parents[2] / "device_profiles"
RESERVE_PCT = 20


class CountingLog:
    """Counts what would go to the interval log; benches of the log itself use the real one."""

    def __init__(self) -> None:
        self.rows = 0

    async def append(self, entries: Sequence[Unlogged]) -> int:
        added = sum(len(entry.records) for entry in entries)
        self.rows += added
        return added


@dataclass(slots=True)
class Wired:
    """The parts a bench looks at."""

    fleet: Fleet
    link: MqttLink
    ingest: Ingest
    recorder: Recorder
    log: CountingLog
    clock: SystemClock


def reference() -> Codec:
    return load_profiles(PROFILES)["reference-mqtt"]


def enroll(fleet: Fleet, devices: int, codec: Codec) -> None:
    """Devices named as the blaster names them; every limit that can stand on a home stands: at the meter, per phase,
    the inverter shared with PV, drift of the SoC, cycles. A tenth share their home with another."""
    facts = replace(codec.facts, drift_pct_per_cycle=0.5, cycles_per_day_max=2.0)
    for i in range(devices):
        device = Device(
            id=DeviceId(DEVICE.format(i)),
            profile=codec.name,
            site=f"site-{i - (i % 20 == 1)}",
            feeder=f"feeder-{i // 50}",
            capacity_wh=13_500,
            discharge_w_max=5_000,
            charge_w_max=5_000,
            reserve_pct=RESERVE_PCT,
            export_allowed=True,
            grid_charge_allowed=True,
            fuse_protected=True,
            inverter_w_max=6_000,
            site_import_w_max=12_000,
            site_export_w_max=12_000,
            site_phase_w_max=9_000,
        )
        fleet.register(device, facts)


def make_fleet(devices: int, codec: Codec) -> Fleet:
    fleet = Fleet()
    enroll(fleet, devices, codec)
    return fleet


class NoAnswers:
    """Hears no answers to commands."""

    def observe_acks(self, batch: AckBatch) -> None: ...


def recording(
    fleet: Fleet, ingest: Ingest, recorder: Recorder, log: IntervalSink, clock: Clock
) -> list[tuple[str, Callable[[], Coroutine[object, object, None]]]]:
    """The services of the telemetry path by name."""
    repair = Repairs(recorder, records=NothingLogged(), fleet=fleet, clock=clock)
    log_writer = LogWriter(recorder, log)
    return [
        ("ingest", ingest.run), ("recorder", recorder.run), ("log-writer", log_writer.run), ("repair", repair.run)
    ]  # fmt: skip


@asynccontextmanager
async def wired(port: int, devices: int) -> AsyncIterator[Wired]:
    """A running telemetry path against the broker on `port`, with its spool on the real file system."""
    clock = SystemClock()
    codec = reference()
    fleet = make_fleet(devices, codec)
    settings = MqttLinkSettings(broker=MqttSettings(url=f"mqtt://127.0.0.1:{port}", client_id="bench"))
    link = MqttLink(settings, codecs=[codec], fleet=fleet, clock=clock)
    rules = IntervalRules(length_s=300)
    engine = Engine(rules)
    recorder = Recorder(engine, ids=fleet.ids, clock=clock)
    log = CountingLog()
    ingest = Ingest(
        fleet=fleet, recorder=recorder, clock=clock, wall=clock, answers=NoAnswers(), lengths={}, raw=NothingRaw()
    )
    parts = recording(fleet, ingest, recorder, log, clock)
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=Path.cwd()) as directory:
        async with recorder.open_spool(Path(directory) / "spool", first_record=1):
            recorder.begin(rules, clock.now())
            link.emit = ingest.emitter(link, sender=link)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(link.run(), name="link"),
                    *(group.create_task(run(), name=name) for name, run in parts),
                ]
                try:
                    yield Wired(fleet=fleet, link=link, ingest=ingest, recorder=recorder, log=log, clock=clock)
                finally:
                    for task in tasks:
                        task.cancel()


# -- control ---------------------------------------------------------------------------------------------------


STEEP = ControlSettings(
    fleet_w_per_s=1e12, ceiling_mw=10_000, write_deadline_s=30, feeders=FeederSettings(ceiling_kw=200),
)  # fmt: skip
PROGRAMS = {"bench": ProgramSettings(ceiling_mw=9_000)}
"""Nothing holds a setpoint back, so that every device changes at once, though every ceiling is looked at."""


def readings(fleet: Fleet, now: Now) -> LiveBatch:
    """A fresh reading of every device that does as it was told. SoC differs, within what one event spreads over."""
    n, control = fleet.n, fleet.control
    ours = control.authority[:n] == Authority.CONTROLLED
    return LiveBatch(
        slots=np.arange(n, dtype=np.int32),
        fresh=np.ones(n, dtype=np.bool_),
        device_t_ms=np.full(n, now.utc_ms),
        battery_w=control.setpoint_w[:n].astype(np.float64),
        soc_pct=85 + np.arange(n) % 50 / 10,
        soc_step_pct=np.full(n, 0.1),
        temp_c=25 + (np.arange(n) % 23).astype(np.float64),
        discharge_w_max=np.full(n, 5_000.0),
        charge_w_max=np.full(n, 5_000.0),
        reserve_pct=np.full(n, float(RESERVE_PCT)),
        pv_w=np.full(n, 200.0),
        load_w=np.full(n, 700.0),
        grid_w=500 - control.setpoint_w[:n].astype(np.float64),
        grid_l1_w=500 - control.setpoint_w[:n].astype(np.float64),
        grid_l2_w=np.zeros(n),
        grid_l3_w=np.zeros(n),
        mode=np.where(ours, Mode.REMOTE, Mode.SELF_CONSUMPTION).astype(np.int8),
        grid=np.full(n, Grid.ON, dtype=np.int8),
        locked=np.zeros(n, dtype=np.int8),
        opt_out=np.zeros(n, dtype=np.int8),
        faults=np.zeros(n, dtype=np.int64),
        cmd=np.where(ours, control.cmd_sent[:n], 0),
    )


def event(revision: int, target_w: float, now: Now) -> EventRequest:
    """The whole fleet for an hour."""
    return EventRequest(
        id=EventId("bench"),
        revision=revision,
        kind=EventKind.REAL,
        program="bench",
        group=TargetGroup(all=True),
        start_ms=now.utc_ms - 1_000,
        end_ms=now.utc_ms + 3_600_000,
        target=power(target_w),
        priority=5,
    )


class CountingLink:
    """A link without I/O: counts commands and says that all arrived."""

    def __init__(self) -> None:
        self.written = 0

    async def write(self, batch: CommandBatch, *, deadline_mono_ms: int) -> WriteReport:
        self.written += len(batch)
        return WriteReport(delivery=np.full(len(batch), WriteOutcome.ACCEPTED, dtype=np.int8))


class NoJournal:
    """Remembers nothing."""

    def load(self) -> JournalState:
        return JournalState(epoch=1, devices=(), events=(), controlled={}, stopped=False, prior={})

    def sequence(self) -> int:
        return 1

    async def commit(self, changes: Sequence[Change]) -> None: ...

    async def put_away(self, changes: Sequence[EventDelivered | EventsArchived]) -> None: ...

    async def known(self, event_id: str) -> list[StoredEvent]:
        return []


class TimedJournal:
    """Passes on to the real journal and notes how long each commit took."""

    def __init__(self, inner: Journal) -> None:
        self._inner = inner
        self.commits: list[tuple[float, float]] = []

    def load(self) -> JournalState:
        return self._inner.load()

    def sequence(self) -> int:
        return self._inner.sequence()

    async def put_away(self, changes: Sequence[EventDelivered | EventsArchived]) -> None:
        await self._inner.put_away(changes)

    async def commit(self, changes: Sequence[Change]) -> None:
        began = time.perf_counter()
        await self._inner.commit(changes)
        self.commits.append((began, time.perf_counter()))

    async def known(self, event_id: str) -> list[StoredEvent]:
        return await self._inner.known(event_id)


@dataclass(slots=True)
class Steered:
    """What takes events and what carries them out."""

    dispatcher: Dispatcher
    control: ControlLoop


def steered(fleet: Fleet, link: CommandTarget, journal: Journal, clock: Clock) -> Steered:
    """Control over `fleet`, as the composition root makes it."""
    epoch = journal.load().epoch
    dispatcher = Dispatcher(STEEP, fleet=fleet, journal=journal, clock=clock, programs=PROGRAMS)
    control = ControlLoop(STEEP, fleet=fleet, dispatcher=dispatcher, link=link, clock=clock, epoch=epoch)
    return Steered(dispatcher=dispatcher, control=control)

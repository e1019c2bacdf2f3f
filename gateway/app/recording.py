"""The part of the graph from the links to the interval log: what a start recovers, ingest, recorder, checkpoints.

Everything about settlement runs on the wall clock: here, and in `telemetry`.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from gateway.app.control import ControlParts
from gateway.app.parts import RunningParts
from gateway.app.telemetry import Upstream
from gateway.clock import SteadyClock
from gateway.config.settings import Settings
from gateway.domain.errors import StorageError
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.types import DeviceId
from gateway.links.mqtt.messages import MqttLink
from gateway.ports.journal import Journal
from gateway.ports.links import RawReader
from gateway.services.checkpointing import Checkpointer, load_columns, load_records
from gateway.services.devices.registry import DeviceRegistry
from gateway.services.settings import interval_lengths
from gateway.services.telemetry.ingest import Ingest
from gateway.services.telemetry.interval_config import unheard
from gateway.services.telemetry.live_only import LiveOnly
from gateway.services.telemetry.log_writer import LogWriter
from gateway.services.telemetry.raw import RawMessages
from gateway.services.telemetry.raw_replay import RawReplay
from gateway.services.telemetry.recorder import Recorder
from gateway.services.telemetry.repair import Repairs
from gateway.storage.checkpoint import Checkpoints
from gateway.storage.disk_budget import raw_budget_bytes, spool_budget_bytes
from gateway.storage.raw_messages import RawStore
from gateway.storage.recovery import Recovered, recover

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredState:
    """What an earlier run left: readings, records and accumulators."""

    checkpoints: Checkpoints
    recovered: Recovered


def recovered(
    settings: Settings, upstream: Upstream, dispatch: ControlParts, fleet: Fleet, replaced: Mapping[DeviceId, int]
) -> RecoveredState:
    """Load readings, records and accumulators as they were. `replaced`: since when (UTC ms) another battery answers."""
    checkpoints = Checkpoints(settings.state_dir)
    found = recover(
        checkpoints=checkpoints, spool=settings.state_dir / "spool", rules=_rules(settings), ids=fleet.ids,
        logged_record=upstream.log.position,
    )  # fmt: skip
    if found.checkpoint is not None:
        load_columns(fleet, found.checkpoint, dispatch.clock)
        load_records(dispatch.control.records, found.checkpoint, dispatch.dispatcher.entries(), fleet)
    fleet.renewed |= unheard(replaced, fleet, found.engine)
    log.info("state recovered", extra=asdict(found.stats) | {"devices": len(fleet.slot_of)})
    return RecoveredState(checkpoints=checkpoints, recovered=found)


async def recording(
    settings: Settings,
    found: RecoveredState | None,
    *,
    upstream: Upstream,
    dispatch: ControlParts,
    fleet: Fleet,
    clock: SteadyClock,
    raw: RawMessages,
    reader: RawReader,
    parts: RunningParts,
) -> tuple[Ingest | LiveOnly, Engine]:
    """Open the spool, and record what was found and what comes in from here on; None = what is stored cannot be read,
    so files are left as they are and only live readings are taken. At the end what is owed to the journal is written
    first, then the last checkpoint, then the spool closes."""
    lengths = interval_lengths(settings.programs)
    if found is None:
        engine = Engine(_rules(settings))
        recorder = Recorder(engine, ids=fleet.ids, clock=clock.wall)
        ingest = _ingest(fleet, recorder, clock, dispatch, lengths, raw)
        live_only = await parts.start(LiveOnly(ingest))
        await parts.start(dispatch.control.pending)
        return live_only, engine
    recorder = Recorder(found.recovered.engine, ids=fleet.ids, clock=clock.wall, unlogged=found.recovered.unlogged)
    directory = settings.state_dir / "spool"
    spool = recorder.open_spool(
        directory, first_record=found.recovered.next_record, corrupt=found.recovered.corrupt,
        max_bytes=spool_budget_bytes(directory),
    )  # fmt: skip
    await parts.start(spool)
    recorder.begin(_rules(settings), clock.wall.now())
    await parts.start(recorder)
    await parts.start(LogWriter(recorder, upstream.log, readers=[d.news for d in upstream.deliveries]))
    ingest = await parts.start(_ingest(fleet, recorder, clock, dispatch, lengths, raw))
    await parts.start(RawReplay(raw, reader=reader, recorder=ingest))
    await parts.start(Repairs(recorder, records=upstream.queries, fleet=fleet, clock=clock.wall))
    await parts.start(
        Checkpointer(
            recorder=recorder, checkpoints=found.checkpoints, fleet=fleet, records=dispatch.control.records,
            clock=clock, recovered=found.recovered.stats,
        )
    )  # fmt: skip
    await parts.start(dispatch.control.pending)
    return ingest, recorder.engine


def _ingest(
    fleet: Fleet,
    recorder: Recorder,
    clock: SteadyClock,
    dispatch: ControlParts,
    lengths: Mapping[str, int],
    raw: RawMessages,
) -> Ingest:
    """The way in: live state by control's clock, settlement data by the wall's."""
    return Ingest(
        fleet=fleet, recorder=recorder, clock=clock, wall=clock.wall, answers=dispatch.control, lengths=lengths,
        raw=raw,
    )  # fmt: skip


async def raw_messages(
    settings: Settings, *, link: MqttLink, fleet: Fleet, registry: DeviceRegistry, journal: Journal, clock: SteadyClock,
    parts: RunningParts,
) -> RawMessages:  # fmt: skip
    """What is kept raw, with what an earlier run kept: what comes after that waits behind it."""
    store = await parts.start(RawStore(settings.state_dir))
    kept = RawMessages(
        store, reader=link.raw, clock=clock.wall, journal=journal, registered=fleet.slot_of,
        orphans=registry.devices.orphans, most_bytes=raw_budget_bytes(settings.state_dir),
    )  # fmt: skip
    try:
        await kept.load()
    except StorageError as error:
        # nothing is acknowledged that is not kept; the rest goes on
        log.error("raw messages cannot be read", extra={"error": str(error)})
    return await parts.start(kept)


def _rules(settings: Settings) -> IntervalRules:
    return IntervalRules(length_s=settings.intervals.length_s, grace_s=round(settings.intervals.grace_s))

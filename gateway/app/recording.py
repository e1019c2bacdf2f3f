"""The part of the graph from the links to the interval log: ingest, recorder, log writer, repair, checkpoints."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from gateway.app.telemetry import Upstream
from gateway.clock import SteadyClock
from gateway.config.settings import Settings
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.readings import ReadingBatch
from gateway.observability.metrics import Sample
from gateway.ports.links import Emit, TelemetrySender, TelemetrySource
from gateway.services.checkpointing import Checkpointer
from gateway.services.control.loop import ControlLoop
from gateway.services.settings import interval_lengths
from gateway.services.telemetry.ingest import Ingest
from gateway.services.telemetry.log_writer import LogWriter
from gateway.services.telemetry.metrics import recovery_samples
from gateway.services.telemetry.recorder import Recorder
from gateway.services.telemetry.repair import Repairs
from gateway.storage.checkpoint import Checkpoints
from gateway.storage.disk_budget import spool_budget_bytes
from gateway.storage.recovery import Recovered


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What records telemetry, and what the start found. Where that could not be read (`recovered` is None) energy is
    neither counted nor acknowledged, so that brokers and devices keep it, and files are left as they are; live readings
    are taken all the same."""

    ingest: Ingest
    recorder: Recorder
    engine: Engine
    log_writer: LogWriter
    repair: Repairs
    checkpoints: Checkpoints
    checkpointer: Checkpointer
    recovered: Recovered | None

    @classmethod
    async def opened(
        cls,
        settings: Settings,
        rules: IntervalRules,
        recovered: Recovered | None,
        checkpoints: Checkpoints,
        *,
        fleet: Fleet,
        clock: SteadyClock,
        control: ControlLoop,
        upstream: Upstream,
        stack: AsyncExitStack,
    ) -> "Recording":
        """Open the spool, and record by `rules` from here on."""
        engine = Engine(rules) if recovered is None else recovered.engine
        unlogged = () if recovered is None else recovered.unlogged
        recorder = Recorder(engine, ids=fleet.ids, clock=clock, unlogged=unlogged)
        checkpointer = Checkpointer(
            recorder=recorder, checkpoints=checkpoints, fleet=fleet, records=control.records, clock=clock
        )
        if recovered is not None:
            directory = settings.state_dir / "spool"
            spool = recorder.open_spool(
                directory, first_record=recovered.next_record, corrupt=recovered.corrupt,
                max_bytes=spool_budget_bytes(directory),
            )  # fmt: skip
            await stack.enter_async_context(spool)
            recorder.begin(rules, clock.now())
            stack.push_async_callback(checkpointer.write)
        lengths = interval_lengths(settings.programs)
        return cls(
            ingest=Ingest(fleet=fleet, recorder=recorder, clock=clock, answers=control, lengths=lengths),
            recorder=recorder,
            engine=engine,
            log_writer=LogWriter(recorder, upstream.log, readers=[d.news for d in upstream.deliveries]),
            repair=Repairs(recorder, records=upstream.queries, fleet=fleet, clock=clock),
            checkpoints=checkpoints,
            checkpointer=checkpointer,
            recovered=recovered,
        )

    def emitter(self, source: TelemetrySource, sender: TelemetrySender | None = None) -> Emit:
        """The callback of one source of readings."""
        emit = self.ingest.emitter(source, sender=sender)

        def without_energy(batch: ReadingBatch) -> None:
            emit(replace(batch, energy=None, token=None))

        return without_energy if self.recovered is None else emit

    def services(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Services that run as long as the gateway does, by name."""
        if self.recovered is None:
            return {}
        return {
            "ingest": self.ingest.run, "recorder": self.recorder.run, "log-writer": self.log_writer.run,
            "repair": self.repair.run, "checkpoint": self.checkpointer.run,
        }  # fmt: skip

    def samples(self) -> Iterator[Sample]:
        if self.recovered is None:
            return
        for part in (self.ingest, self.recorder, self.log_writer, self.repair, self.checkpointer):
            yield from part.samples()
        yield from recovery_samples(self.recovered.stats, self.checkpoints.stats.corrupt)

    def reasons(self) -> list[str]:
        """Why telemetry is not ready."""
        if self.recovered is None:
            return ["telemetry: what was stored cannot be read; no energy is taken"]
        return self.recorder.reasons() + self.log_writer.reasons() + self.ingest.reasons()

    def warnings(self) -> list[str]:
        """What waits; meanwhile it is stored."""
        return [] if self.recovered is None else self.repair.warnings()

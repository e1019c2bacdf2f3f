"""The part of the graph from the links to the interval log: ingest, recorder, log writer, repair."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from gateway.app.telemetry import Upstream
from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.types import IntervalRules
from gateway.observability.metrics import Sample
from gateway.services.settings import interval_lengths
from gateway.services.telemetry.ingest import CommandAnswers, Ingest
from gateway.services.telemetry.log_writer import LogWriter
from gateway.services.telemetry.metrics import recovery_samples
from gateway.services.telemetry.recorder import Recorder
from gateway.services.telemetry.repair import Repairs
from gateway.storage.checkpoint import Checkpoints
from gateway.storage.disk_budget import spool_budget_bytes
from gateway.storage.recovery import Recovered, RecoveryStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What records telemetry, and what the start found."""

    ingest: Ingest
    recorder: Recorder
    log_writer: LogWriter
    repair: Repairs
    checkpoints: Checkpoints
    recovered: RecoveryStats

    @classmethod
    async def opened(
        cls,
        settings: Settings,
        recovered: Recovered,
        rules: IntervalRules,
        *,
        checkpoints: Checkpoints,
        upstream: Upstream,
        fleet: Fleet,
        answers: CommandAnswers,
        clock: Clock,
        stack: AsyncExitStack,
    ) -> "Recording":
        """Open the spool, and record by `rules` from here on."""
        recorder = Recorder(recovered.engine, ids=fleet.ids, clock=clock, unlogged=recovered.unlogged)
        directory = settings.state_dir / "spool"
        spool = recorder.open_spool(
            directory, first_record=recovered.next_record, corrupt=recovered.corrupt,
            max_bytes=spool_budget_bytes(directory),
        )  # fmt: skip
        await stack.enter_async_context(spool)
        recorder.begin(rules, clock.now())
        return cls(
            ingest=Ingest(
                fleet=fleet,
                recorder=recorder,
                clock=clock,
                answers=answers,
                lengths=interval_lengths(settings.programs),
            ),
            recorder=recorder,
            log_writer=LogWriter(recorder, upstream.log, readers=[d.news for d in upstream.deliveries]),
            repair=Repairs(recorder, records=upstream.queries, fleet=fleet, clock=clock),
            checkpoints=checkpoints,
            recovered=recovered.stats,
        )

    def services(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Services that run as long as the gateway does, by name."""
        return {
            "ingest": self.ingest.run, "recorder": self.recorder.run, "log-writer": self.log_writer.run,
            "repair": self.repair.run,
        }  # fmt: skip

    def samples(self) -> Iterator[Sample]:
        for part in (self.ingest, self.recorder, self.log_writer, self.repair):
            yield from part.samples()
        yield from recovery_samples(self.recovered, self.checkpoints.stats.corrupt)

    def reasons(self) -> list[str]:
        """Why telemetry is not ready."""
        return self.recorder.reasons() + self.log_writer.reasons() + self.ingest.reasons()

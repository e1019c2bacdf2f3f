"""The telemetry path on a real spool, with an interval log in memory: links emit, acknowledgements come out."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from gateway.clock import ManualClock
from gateway.domain.errors import StorageError
from gateway.domain.fleet.fleet import Fleet, ProductFacts
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.readings import AckBatch, AckToken, ReadingBatch
from gateway.observability.metrics import Sample
from gateway.ports.links import Emit
from gateway.services.telemetry.ingest import Ingest
from gateway.services.telemetry.log_writer import LogWriter
from gateway.services.telemetry.recorder import Recorder
from gateway.services.telemetry.repair import Repairs
from gateway.storage.recovery import Unlogged
from tests.builders.energy_batches import T0, batch, row
from tests.builders.fakes import FACTS, FakeLink, NothingLogged, NothingRaw, home
from tests.scenes.waiting import service, until

RULES = IntervalRules(length_s=60, grace_s=5)


class MemoryLog:
    """Takes closes; `failing` refuses them."""

    def __init__(self) -> None:
        self.records: list[int] = []
        self.closes = 0
        self.failing = False

    async def append(self, entries: Sequence[Unlogged]) -> int:
        if self.failing:
            raise StorageError("interval log: disk full")
        self.records += [entry.record for entry in entries]
        self.closes += sum(len(entry.records) for entry in entries)
        return len(entries)


class Told:
    """What control hears of devices' answers."""

    def __init__(self) -> None:
        self.acks: list[AckBatch] = []

    def observe_acks(self, batch: AckBatch) -> None:
        self.acks.append(batch)


class Rig:
    """The telemetry path on a real spool."""

    def __init__(
        self, fleet: Fleet, ingest: Ingest, recorder: Recorder, log: MemoryLog, told: Told, clock: ManualClock
    ) -> None:
        self.fleet = fleet
        self.ingest = ingest
        self.recorder = recorder
        self.spool = recorder.spool
        self.log = log
        self.log_writer = LogWriter(recorder, log)
        self.repair = Repairs(recorder, records=NothingLogged(), fleet=fleet, clock=clock)
        self.clock = clock
        self.acks = told.acks

    @property
    def parts(self) -> tuple[Ingest, Recorder, LogWriter, Repairs]:
        return self.ingest, self.recorder, self.log_writer, self.repair

    def samples(self) -> Iterable[Sample]:
        return (sample for part in self.parts for sample in part.samples())

    def reasons(self) -> list[str]:
        return self.recorder.reasons() + self.log_writer.reasons() + self.ingest.reasons()

    def linked(self) -> tuple[FakeLink, Emit]:
        link = FakeLink()
        return link, self.ingest.emitter(link, sender=link)


@asynccontextmanager
async def rig(
    directory: Path, *, queue_bytes: int = 1 << 20, running: bool = True, rules: IntervalRules = RULES,
    facts: ProductFacts = FACTS,
) -> AsyncIterator[Rig]:  # fmt: skip
    fleet, clock, told = Fleet(), ManualClock(utc_ms=T0), Told()
    for name in ("a", "b", "c"):
        fleet.register(home(name), facts)
    recorder = Recorder(Engine(rules), ids=fleet.ids, clock=clock)
    spool = recorder.open_spool(directory / "spool", first_record=1, queue_bytes=queue_bytes)
    ingest = Ingest(fleet=fleet, recorder=recorder, clock=clock, wall=clock, answers=told, lengths={}, raw=NothingRaw())
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(spool)
        stack.callback(spool.gate.set)
        made = Rig(fleet, ingest, recorder, MemoryLog(), told, clock)
        recorder.begin(rules, clock.now())
        await until(lambda: spool.durable_record == spool.last_record)
        if running:
            for part in made.parts:
                await stack.enter_async_context(service(part.run))
        yield made


def token(*ids: int, generation: int = 1) -> AckToken:
    return AckToken(generation=generation, packet_ids=list(ids))


def say(emit: Emit, seq: int, *, slots: Sequence[int] = (0,), t: float = 10) -> None:
    """One read of the link: a message of each device, then the token."""
    rows = [row(slot=s, seq=seq, t=t, charge_wh=1.0) for s in slots]
    emit(ReadingBatch(energy=batch(rows)))
    emit(ReadingBatch(token=token(seq)))

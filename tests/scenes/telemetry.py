"""The telemetry path on a real spool, with an interval log in memory: links emit, acknowledgements come out."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from gateway.clock import ManualClock
from gateway.domain.errors import StorageError
from gateway.domain.fleet.fleet import Fleet, ProductFacts
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.readings import AckBatch, AckToken, ReadingBatch
from gateway.ports.links import Emit
from gateway.services.telemetry.ingest import Ingest
from gateway.services.telemetry.recorder import Recorder
from gateway.storage.recovery import Unlogged
from gateway.storage.spool.spool import Spool
from tests.builders.energy_batches import T0, batch, row
from tests.builders.fakes import FACTS, FakeLink, home, nothing_logged
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


class Rig:
    """Ingest on a real spool."""

    def __init__(self, ingest: Ingest, recorder: Recorder, spool: Spool, log: MemoryLog, clock: ManualClock) -> None:
        self.ingest = ingest
        self.recorder = recorder
        self.spool = spool
        self.log = log
        self.clock = clock
        self.acks: list[AckBatch] = []
        self.logged = 0

    def linked(self) -> tuple[FakeLink, Emit]:
        link = FakeLink()
        return link, self.ingest.emitter(link)


@asynccontextmanager
async def rig(
    directory: Path, *, queue_bytes: int = 1 << 20, running: bool = True, rules: IntervalRules = RULES,
    facts: ProductFacts = FACTS,
) -> AsyncIterator[Rig]:  # fmt: skip
    fleet, clock, log = Fleet(), ManualClock(utc_ms=T0), MemoryLog()
    for name in ("a", "b", "c"):
        fleet.register(home(name), facts)
    recorder = Recorder(Engine(rules), ids=fleet.ids)
    acks: list[AckBatch] = []
    logged: list[int] = []
    ingest = Ingest(
        fleet=fleet,
        recorder=recorder,
        log_=log,
        clock=clock,
        on_acks=acks.append,
        on_logged=lambda: logged.append(1),
        newest=nothing_logged,
        lengths={},
    )
    spool = recorder.open_spool(directory / "spool", first_record=1, on_durable=ingest.durable, queue_bytes=queue_bytes)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(spool)
        stack.callback(spool.gate.set)
        made = Rig(ingest, recorder, spool, log, clock)
        made.acks = acks
        recorder.begin(rules, clock.now())
        await until(lambda: spool.durable_record == spool.last_record)
        if running:
            await stack.enter_async_context(service(ingest.run))
        yield made


def token(*ids: int, generation: int = 1) -> AckToken:
    return AckToken(generation=generation, packet_ids=list(ids))


def say(emit: Emit, seq: int, *, slots: Sequence[int] = (0,), t: float = 10) -> None:
    """One read of the link: a message of each device, then the token."""
    rows = [row(slot=s, seq=seq, t=t, charge_wh=1.0) for s in slots]
    emit(ReadingBatch(energy=batch(rows)))
    emit(ReadingBatch(token=token(seq)))

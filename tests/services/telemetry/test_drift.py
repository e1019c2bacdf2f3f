"""A coarse counter and what was integrated beside it, from telemetry to the log and back, over a restart."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.record import Quality
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.readings import AckToken, ReadingBatch
from gateway.services.telemetry import recorder as recorder_module
from gateway.services.telemetry import repair as repair_module
from gateway.services.telemetry.ingest import Ingest
from gateway.services.telemetry.log_writer import LogWriter
from gateway.services.telemetry.recorder import Recorder
from gateway.services.telemetry.repair import Repairs
from gateway.storage.checkpoint import Checkpoints
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.interval_log.positions import START
from gateway.storage.interval_log.query import IntervalQueries
from gateway.storage.recovery import recover
from tests.builders.energy_batches import T0, batch, row
from tests.builders.fakes import FACTS, FakeLink, NothingRaw, home
from tests.scenes.telemetry import Told
from tests.scenes.waiting import service, until

RULES = IntervalRules(length_s=3600, grace_s=5)
MIDNIGHT_S = 86_400 - T0 // 1000 % 86_400


@dataclass
class Life:
    """One life of the telemetry path."""

    ingest: Ingest
    recorder: Recorder
    log: IntervalLog
    clock: ManualClock
    link: FakeLink

    async def says(self, hour: int) -> None:
        """100 Wh integrated over the hour before, of which the counter tells 125."""
        self.clock.utc = T0 + 1000 * (MIDNIGHT_S + 3600 * hour)
        told = row(
            seq=hour + 1, t=MIDNIGHT_S + 3600 * hour, span=3600, charge_wh=100.0, discharge_wh=0.0,
            charge_counter_wh=125.0 * hour, discharge_counter_wh=0.0,
        )  # fmt: skip
        before, emit = self.ingest.stats.rows, self.ingest.emitter(self.link, sender=self.link)
        emit(ReadingBatch(energy=batch([told])))
        emit(ReadingBatch(token=AckToken(generation=1, packet_ids=[hour + 1])))
        spool = self.recorder.spool
        await until(lambda: self.ingest.stats.rows > before and spool.durable_record == spool.last_record)


@asynccontextmanager
async def life(directory: Path, clock: ManualClock) -> AsyncIterator[Life]:
    fleet = Fleet()
    fleet.register(home("a"), replace(FACTS, counter_step_wh=100.0))
    async with (
        IntervalLog(directory / "log", clock=clock) as log,
        IntervalQueries(log.files_from, log.check) as queries,
    ):
        found = recover(
            checkpoints=Checkpoints(directory / "checkpoints"), spool=directory / "spool", rules=RULES, ids=fleet.ids,
            logged_record=log.position,
        )  # fmt: skip
        assert found.stats.mismatches == 0

        recorder = Recorder(found.engine, ids=fleet.ids, clock=clock, unlogged=found.unlogged)
        ingest = Ingest(
            fleet=fleet, recorder=recorder, clock=clock, wall=clock, answers=Told(), lengths={}, raw=NothingRaw()
        )
        log_writer, repair = LogWriter(recorder, log), Repairs(recorder, records=queries, fleet=fleet, clock=clock)
        async with recorder.open_spool(directory / "spool", first_record=found.next_record):
            recorder.begin(RULES, clock.now())
            async with service(ingest.run), service(recorder.run), service(log_writer.run), service(repair.run):
                yield Life(ingest, recorder, log, clock, FakeLink())


@pytest.mark.fault("F13")
@pytest.mark.parametrize("restart_at", [None, 24, 26])
async def test_day_off_its_counter_is_in_the_log_as_the_counter_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restart_at: int | None
) -> None:
    monkeypatch.setattr(repair_module, "PERIOD_S", 0.02)
    monkeypatch.setattr(recorder_module, "CLOSE_PERIOD_S", 0.02)
    clock = ManualClock(utc_ms=T0 + 1000 * MIDNIGHT_S)
    hours = list(range(27))
    cut = len(hours) if restart_at is None else restart_at
    for part in (hours[:cut], hours[cut:]):
        async with life(tmp_path, clock) as one:
            for hour in part:
                await one.says(hour)
            if hour == hours[-1]:
                clock.utc += 10_000
                await until(lambda: one.recorder.engine.totals.repairs >= 24 and not one.recorder.engine.to_repair)
                await until(lambda: one.recorder.logged_record() == one.recorder.spool.last_record)
                records, _ = await one.log.read(START, 1_000)
                stats = one.log.stats
    newest = {record.start_ms: record for record in records}
    day = [newest[T0 + 1000 * (MIDNIGHT_S + 3600 * hour)] for hour in range(24)]
    assert [record.charge_wh for record in day] == [125.0] * 24
    assert {record.revision for record in day} == {2}
    assert {record.quality for record in day} == {Quality.DRIFT}
    assert (stats.conflicting, stats.repeated, len(records)) == (0, 0, 24 + len(newest))

"""Late data waits for the interval log: while it cannot be read it is kept, and said."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.domain.errors import StorageError
from gateway.domain.intervals.record import IntervalRecord
from gateway.services.telemetry.repair import Repairs
from gateway.storage.interval_log.merge import Place
from tests.builders.energy_batches import batch, row
from tests.scenes.telemetry import rig
from tests.scenes.waiting import service, until


class Shelf:
    """A log without records that can be out of reach."""

    def __init__(self) -> None:
        self.failing = True

    async def find(self, places: Sequence[Place]) -> tuple[list[IntervalRecord], list[Place]]:
        if self.failing:
            raise StorageError("out of reach")
        return [], []


async def test_repair_waits_for_a_log_that_cannot_be_read_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig(tmp_path, running=False) as r:
        shelf = Shelf()
        repair = Repairs(r.recorder, records=shelf, fleet=r.fleet, clock=r.clock)
        span = {"span": 10.0, "charge_wh": 1.5}
        r.clock.advance(s=200)
        for seq, t in ((1, 20), (3, 70), (4, 130), (5, 190), (2, 40)):
            r.recorder.ingest(batch([row(seq=seq, t=t, **span)]), r.clock.now())
        r.clock.advance(s=60)
        async with service(r.log_writer.run), service(repair.run):
            await until(lambda: repair.failures >= 2)
            assert repair.warnings() == ["late data waits for the interval log: out of reach"]
            assert {sample.name: sample.value for sample in repair.samples()} == {
                "gateway_interval_repair_failures": repair.failures, "gateway_interval_repairs_waiting": 1,
            }  # fmt: skip
            shelf.failing = False
            await until(lambda: r.recorder.engine.totals.repairs == 1)
            assert (repair.warnings(), r.recorder.engine.to_repair) == ([], 0)
    told = [record for record in caplog.records if record.message == "late data waits for the interval log"]
    assert len(told) == 1

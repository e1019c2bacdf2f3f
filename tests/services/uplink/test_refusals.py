"""What a receiver refuses is one line per reason and one when it is over, with counts and without customers' data."""

import logging
import random

import pytest

from gateway.clock import ManualClock
from gateway.ports.sinks import Accept, Keep, Reject, SinkResult
from gateway.services.uplink import delivery as module
from gateway.services.uplink.delivery import SinkDelivery
from tests.builders.fakes import ScriptedSink
from tests.builders.interval_logs import MemoryReader, record
from tests.scenes.waiting import service, until

REFUSED = "receiver refused interval records; they are parked"
OVER = "receiver refuses no more interval records"


class Road:
    """A sink of one row a batch, and the clock that its refusals are counted by."""

    def __init__(self, script: list[SinkResult], rows: int) -> None:
        self.clock = ManualClock()
        self.sink = ScriptedSink("picky", script=script)
        self.sink.batch_rows = 1
        self.log = MemoryReader([record(i) for i in range(rows)])
        self.delivery = SinkDelivery(
            self.sink, log_=self.log, finder=self.log, clock=self.clock, rng=random.Random(1), rate=1e9
        )

    async def go(self) -> None:
        async with service(self.delivery.run):
            await until(self.log.idle.is_set)

    async def more(self, rows: int) -> None:
        self.log.idle.clear()
        self.log.rows += [record(len(self.log.rows) + i) for i in range(rows)]
        await self.go()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_BASE_S", 0.001)
    monkeypatch.setattr(module, "RETRY_CAP_S", 0.01)


def lines(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, object]]:
    return [r.__dict__ for r in caplog.records if r.message == message]


async def test_refusals_are_one_line_per_reason_with_the_receiver_s_word(caplog: pytest.LogCaptureFixture) -> None:
    script: list[SinkResult] = [
        Reject(refused={0: "unknown_meter" if i % 3 else "too_late"}) if i % 2 else Accept() for i in range(200)
    ]
    road = Road(script, 200)
    await road.go()
    found = lines(caplog, REFUSED)
    assert [(line["sink"], line["reason"], line["count"]) for line in found] == [
        ("picky", "unknown_meter", 1), ("picky", "too_late", 1),
    ]  # fmt: skip
    assert road.delivery.stats.refused == {"unknown_meter": 67, "too_late": 33}
    assert lines(caplog, OVER) == []


async def test_refusals_that_are_over_are_summed_up_once_and_begin_anew(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    road = Road([Reject(refused={0: "late"})] * 5, 5)
    await road.go()
    road.clock.advance(s=61)
    await road.more(3)
    assert [(line["sink"], line["reasons"]) for line in lines(caplog, OVER)] == [("picky", {"late": 5})]
    road.sink.script = [Reject(refused={0: "late"})]
    await road.more(1)
    assert len(lines(caplog, REFUSED)) == 2


async def test_refusals_name_no_customer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await Road([Reject(refused={0: "late"}), Keep(reason="http_400", whole=True)], 3).go()
    for line in caplog.records:
        # what the line says, without the times and numbers that logging adds
        told = {key: value for key, value in line.__dict__.items() if key not in logging.makeLogRecord({}).__dict__}
        said = f"{line.message} {told}"
        assert "IntervalRecord" not in said
        assert "charge_wh" not in said
        assert "55.0" not in said
    assert lines(caplog, REFUSED)[0]["device"] == "home-0"


async def test_receiver_that_fails_in_two_ways_by_turns_is_one_line_for_each(caplog: pytest.LogCaptureFixture) -> None:
    script: list[SinkResult] = [Keep(reason="timeout" if i % 2 else "http_500") for i in range(40)]
    await Road(script, 1).go()
    found = lines(caplog, "receiver does not accept interval records")
    assert [line["reason"] for line in found] == ["http_500", "timeout"]

"""A record is parked because the receiver refuses it and accepts others, never because the receiver is ill."""

import asyncio
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.domain.intervals.record import IntervalRecord
from gateway.ports.sinks import Accept, IntervalBatch, Keep, SinkResult, Stop
from gateway.services.uplink.delivery import SinkDelivery
from gateway.storage.interval_log.positions import RESEND
from tests.builders.fakes import ScriptedSink
from tests.builders.interval_logs import MemoryReader, record
from tests.scenes.waiting import service
from tests.virtual.loop import VirtualLoop


async def until(condition: Callable[[], bool]) -> None:
    """Until `condition` holds, within a day: a receiver that is ill is left alone for a minute at a time."""
    async with asyncio.timeout(86_400):
        while not condition():
            await asyncio.sleep(0.1)


class Receiver:
    """Refuses batches with a bad record as a whole, and every batch while it is ill."""

    def __init__(self, *bad: int, batch_rows: int = 16, reason: str = "http_400") -> None:
        self.bad = {record(number).start_ms for number in bad}
        self.ill: SinkResult | None = None
        self.reason = reason
        self.held: list[IntervalRecord] = []
        self.sink = ScriptedSink(judge=self.judge, batch_rows=batch_rows)

    def judge(self, batch: IntervalBatch) -> SinkResult:
        if self.ill is not None:
            return self.ill
        if any(row.start_ms in self.bad for row in batch.rows):
            return Keep(reason=self.reason, whole=True)
        self.held += batch.rows
        return Accept()

    def has(self, *numbers: int) -> bool:
        return {record(number) for number in numbers} <= set(self.held)


def make(receiver: Receiver, log: MemoryReader) -> SinkDelivery:
    return SinkDelivery(receiver.sink, log_=log, finder=log, clock=ManualClock(), rng=random.Random(1), rate=1e9)


def key(number: int) -> tuple[int, str, int]:
    return record(number).start_ms, record(number).device, 1


@pytest.mark.parametrize("reason", ["http_400", "http_413", "http_422"])
async def test_receiver_that_falls_ill_and_refuses_everything_has_nothing_parked_and_gets_all_once_it_is_well(
    reason: str,
) -> None:
    receiver, log = Receiver(), MemoryReader([record(i) for i in range(10)])
    delivery = make(receiver, log)
    async with service(delivery.run):
        await until(log.idle.is_set)
        receiver.ill = Keep(reason=reason, whole=True)
        log.rows += [record(i) for i in range(10, 60)]
        delivery.news.set()
        await asyncio.sleep(86_400)
        assert (log.parked, log.state.live.row) == ({}, 10)
        assert delivery.warnings() == [f"sink scripted: {reason}"]
        asked = len(receiver.sink.got)
        await asyncio.sleep(3_600)
        assert len(receiver.sink.got) - asked <= 3 * 3_600 / 6
        receiver.ill = None
        await until(lambda: log.state.live.row == 60)
    assert receiver.has(*range(60))
    assert (log.parked, delivery.stats.accepted, delivery.warnings()) == ({}, 60, [])


async def test_ill_receiver_shows_in_the_metrics() -> None:
    receiver, log = Receiver(), MemoryReader([record(0)])
    delivery = make(receiver, log)

    def failing() -> list[float]:
        return [one.value for one in delivery.samples() if one.name == "gateway_sink_failing"]

    receiver.ill = Keep(reason="http_400", whole=True)
    async with service(delivery.run):
        await until(lambda: bool(delivery.warnings()))
        assert failing() == [1.0]
        receiver.ill = None
        await until(lambda: bool(log.saved))
        assert failing() == [0.0]


@pytest.mark.parametrize("bad", [0, 7, 63])
async def test_bad_record_wherever_it_stands_is_parked_within_bounded_work_and_the_others_are_accepted(
    bad: int,
) -> None:
    receiver, log = Receiver(bad, batch_rows=64), MemoryReader([record(i) for i in range(64)])
    async with service(make(receiver, log).run):
        await until(lambda: log.state.live.row == 64)
    assert log.parked == {key(bad): "http_400"}
    assert receiver.has(*(i for i in range(64) if i != bad))
    # halves down to one record and up again, a witness and the suspect once more
    assert len(receiver.sink.got) <= 4 * 7


async def test_bad_record_that_is_the_newest_is_parked_after_the_last_accepted_one_was_accepted_again() -> None:
    receiver, log = Receiver(3), MemoryReader([record(i) for i in range(3)])
    delivery = make(receiver, log)
    async with service(delivery.run):
        await until(log.idle.is_set)
        log.rows.append(record(3))
        delivery.news.set()
        await until(lambda: log.state.live.row == 4)
    assert [list(batch.rows) for batch in receiver.sink.got[1:]] == [[record(3)], [record(2)], [record(3)]]
    assert log.parked == {key(3): "http_400"}
    assert delivery.stats.accepted == 3


async def test_bad_record_after_a_restart_is_told_by_a_record_that_follows_it() -> None:
    receiver, log = Receiver(3), MemoryReader([record(i) for i in range(3)])
    async with service(make(receiver, log).run):
        await until(log.idle.is_set)
    log.rows += [record(3)]
    again = make(receiver, log)
    async with service(again.run):
        await asyncio.sleep(3_600)
        assert log.parked == {}
        log.rows += [record(4)]
        await until(lambda: log.state.live.row == 5)
    assert log.parked == {key(3): "http_400"}
    assert receiver.has(0, 1, 2, 4)


async def test_record_that_is_accepted_at_the_second_try_is_not_parked() -> None:
    whole = Keep(reason="http_400", whole=True)
    sink, log = ScriptedSink(script=[Accept(), whole, Accept(), Accept()], batch_rows=1), MemoryReader([record(0)])
    delivery = SinkDelivery(sink, log_=log, finder=log, clock=ManualClock(), rng=random.Random(1), rate=1e9)
    async with service(delivery.run):
        await until(log.idle.is_set)
        log.rows.append(record(1))
        delivery.news.set()
        await until(lambda: log.state.live.row == 2)
    assert (log.parked, delivery.stats.accepted) == ({}, 2)


async def test_witness_that_meets_a_refused_key_stops_the_sink_and_parks_nothing() -> None:
    whole, stop = Keep(reason="http_400", whole=True), Stop(reason="http_401")
    sink, log = ScriptedSink(script=[Accept(), whole, stop], batch_rows=1), MemoryReader([record(0)])
    delivery = SinkDelivery(sink, log_=log, finder=log, clock=ManualClock(), rng=random.Random(1), rate=1e9)
    async with service(delivery.run):
        await until(log.idle.is_set)
        log.rows.append(record(1))
        delivery.news.set()
        await until(lambda: delivery.stats.stopped)
    assert (log.parked, log.state.live.row) == ({}, 1)


async def test_records_that_are_sent_again_to_an_ill_receiver_keep_waiting() -> None:
    receiver, log = Receiver(), MemoryReader([record(i) for i in range(3)])
    delivery = make(receiver, log)
    async with service(delivery.run):
        await until(log.idle.is_set)
        receiver.ill = Keep(reason="http_400", whole=True)
        log.parked = {key(1): RESEND}
        delivery.resend()
        await asyncio.sleep(3_600)
        assert log.parked == {key(1): RESEND}
        receiver.ill = None
        await until(lambda: not log.parked)
    assert receiver.held.count(record(1)) == 2


@given(
    bad=st.sets(st.integers(0, 39), max_size=12),
    batch_rows=st.integers(1, 20),
    ill_after=st.lists(st.integers(1, 60), max_size=3),
)
def test_exactly_the_bad_records_are_parked_whenever_the_receiver_is_ill(
    bad: set[int], batch_rows: int, ill_after: list[int]
) -> None:
    async def scene() -> None:
        receiver, log = Receiver(*bad, batch_rows=batch_rows), MemoryReader([record(i) for i in range(40)])
        # a good record at the end: a receiver that never accepts anything is not told from an ill one
        log.rows.append(record(40))
        spells = dict.fromkeys(ill_after)
        receiver.sink.on_batch = lambda: spell() if len(receiver.sink.got) in spells else None

        def spell() -> None:
            receiver.ill = Keep(reason="http_400", whole=True)
            asyncio.get_running_loop().call_later(600, well)

        def well() -> None:
            receiver.ill = None

        async with service(make(receiver, log).run):
            await until(lambda: log.state.live.row == 41 and not log.state.backfill)
        assert set(log.parked) == {key(number) for number in bad}
        assert receiver.has(*(number for number in range(41) if number not in bad))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scene())

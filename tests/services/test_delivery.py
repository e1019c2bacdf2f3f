"""Delivery: the cursor moves when the receiver has it, and only then; nothing is skipped, what repeats is the same."""

import asyncio
import random

import pytest

from gateway.clock import ManualClock
from gateway.ports import Accept, Keep, Reject, SinkResult
from gateway.services import delivery as module
from gateway.services.delivery import Delivery, batch_id
from tests.fakes import ScriptedSink
from tests.services.intervals import MemoryReader, record
from tests.services.waiting import service, turns, until


def make(sink: ScriptedSink, log: MemoryReader) -> Delivery:
    return Delivery(sink, log_=log, clock=ManualClock(), rng=random.Random(1))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_BASE_S", 0.001)
    monkeypatch.setattr(module, "RETRY_CAP_S", 0.01)


async def test_delivery_accepted_moves_the_cursor_and_waits_for_news() -> None:
    sink, log = ScriptedSink(), MemoryReader([record(i) for i in range(3)])
    delivery = make(sink, log)
    async with service(delivery.run):
        await until(log.idle.is_set)
        assert (log.saved, len(sink.got)) == ([3], 1)
        log.rows.append(record(3))
        await turns(50)
        assert len(sink.got) == 1
        delivery.wake()
        await until(lambda: log.saved == [3, 4])
    assert sink.rows == [record(i) for i in range(4)]
    assert (delivery.stats.accepted, delivery.stats.backlog, delivery.stats.failing) == (4, 0, None)


async def test_delivery_kept_repeats_the_same_batch_until_it_is_taken() -> None:
    script: list[SinkResult] = [Keep(reason="http_503"), Keep(reason="http_503"), Keep(reason="timeout"), Accept()]
    sink, log = ScriptedSink(script=script), MemoryReader([record(1), record(2)])
    delivery = make(sink, log)
    seen: list[str | None] = []
    sink.on_batch = lambda: seen.append(delivery.stats.failing)
    async with service(delivery.run):
        await until(log.idle.is_set)
    assert len({found.id for found in sink.got}) == 1
    assert len(sink.got) == 4
    assert seen == [None, "http_503", "http_503", "timeout"]
    assert (log.saved, delivery.stats.kept, delivery.stats.failing) == ([2], 3, None)


async def test_delivery_kept_with_a_time_is_not_tried_before(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    real = asyncio.sleep

    async def sleep(s: float) -> None:
        waits.append(s)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    sink, log = ScriptedSink(script=[Keep(reason="http_429", after_s=7.0)]), MemoryReader([record(1)])
    async with service(make(sink, log).run):
        await asyncio.wait_for(log.idle.wait(), 30)
    assert waits[0] == 7.0


async def test_delivery_rejected_rows_are_counted_and_passed() -> None:
    sink, log = (
        ScriptedSink(script=[Reject(refused={1: "refused_by_receiver"})]),
        MemoryReader([record(i) for i in range(3)]),
    )
    delivery = make(sink, log)
    async with service(delivery.run):
        await until(log.idle.is_set)
    assert (log.saved, delivery.stats.accepted, delivery.stats.rejected) == ([3], 2, 1)


async def test_delivery_rows_that_a_sink_does_not_want_are_passed_over() -> None:
    sink, log = ScriptedSink(wanted=lambda r: r.start_ms % 600_000 == 0), MemoryReader([record(i) for i in range(4)])
    delivery = make(sink, log)
    async with service(delivery.run):
        await until(log.idle.is_set)
        assert sink.rows == [record(0), record(2)]
        log.rows.append(record(5))
        delivery.wake()
        await until(lambda: log.saved[-1] == 5)
    assert (len(sink.got), delivery.stats.accepted) == (1, 2)


async def test_delivery_crash_between_answer_and_cursor_repeats_one_batch_with_the_same_id() -> None:
    sink, log = ScriptedSink(), MemoryReader([record(i) for i in range(5)])

    class Crash(Exception):
        pass

    async def crash(name: str, cursor: object) -> None:
        raise Crash

    with pytest.raises(ExceptionGroup) as caught:
        log.save_cursor = crash  # type: ignore[method-assign]
        async with service(make(sink, log).run):
            await until(log.idle.is_set)
    assert caught.group_contains(Crash)
    del log.save_cursor
    async with service(make(sink, log).run):
        await until(log.idle.is_set)
    assert len(sink.got) == 2
    assert sink.got[0].id == sink.got[1].id
    assert list(sink.got[0].rows) == list(sink.got[1].rows)
    assert log.saved == [5]


async def test_delivery_large_backlog_goes_in_bounded_batches_in_order() -> None:
    rows = [record(i) for i in range(2_005)]
    sink, log = ScriptedSink(), MemoryReader(rows)
    delivery = make(sink, log)
    backlogs: list[int] = []
    sink.on_batch = lambda: backlogs.append(delivery.stats.backlog)
    async with service(delivery.run):
        await until(log.idle.is_set)
    assert [len(found.rows) for found in sink.got] == [sink.batch_rows, sink.batch_rows, 5]
    assert sink.rows == rows
    assert backlogs == [len(rows), len(rows) - sink.batch_rows, 5]


def test_batch_id_is_the_contents_own() -> None:
    rows = [record(1), record(2)]
    assert batch_id(rows) == batch_id(list(rows))
    assert batch_id(rows) != batch_id(rows[::-1])
    assert batch_id(rows) != batch_id([record(1), record(2, revision=2)])

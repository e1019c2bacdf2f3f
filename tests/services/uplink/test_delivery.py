"""Delivery: the cursor moves when the receiver has it, and only then; nothing is skipped, what repeats is the same."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import StorageError
from gateway.domain.intervals.columns import IntervalColumns, columns_of_objects
from gateway.domain.intervals.record import IntervalRecord
from gateway.ports.sinks import Accept, IntervalBatch, Keep, Reject, SinkResult, Stop
from gateway.services.uplink import delivery as module
from gateway.services.uplink.delivery import SinkDelivery, batch_id
from gateway.storage.interval_log.outcomes import Places
from gateway.storage.interval_log.positions import RESEND, Cursor
from gateway.storage.interval_log.rows import Identity
from tests.builders.fakes import ScriptedSink
from tests.builders.interval_logs import MemoryReader, record
from tests.scenes.waiting import service, turns, until


def make(sink: ScriptedSink, log: MemoryReader) -> SinkDelivery:
    return SinkDelivery(sink, log_=log, finder=log, clock=ManualClock(), rng=random.Random(1), rate=1e9)


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
        delivery.news.set()
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


async def test_delivery_kept_with_a_time_is_not_tried_before() -> None:
    at_s: list[float] = []
    sink, log = ScriptedSink(script=[Keep(reason="http_429", after_s=7.0)]), MemoryReader([record(1)])
    sink.on_batch = lambda: at_s.append(asyncio.get_running_loop().time())
    async with service(make(sink, log).run):
        await asyncio.wait_for(log.idle.wait(), 30)
    assert at_s[1] - at_s[0] == pytest.approx(7.0, abs=0.01)


async def test_delivery_stopped_sink_is_told_once_and_left_alone_until_somebody_asks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop = Stop(reason="http_400", detail="schema is required")
    sink, log = ScriptedSink(script=[stop, stop]), MemoryReader([record(i) for i in range(40)])
    delivery = make(sink, log)
    async with service(delivery.run):
        await until(lambda: delivery.stats.stopped)
        await asyncio.sleep(30 * 86_400)
        assert (len(sink.got), log.saved, log.parked) == (1, [], {})
        assert (delivery.stats.failing, delivery.stats.detail) == ("http_400", "schema is required")
        assert delivery.warnings() == [f"sink {sink.name}: http_400 (stopped: somebody must act)"]
        delivery.retry()
        await until(lambda: len(sink.got) == 2)
        delivery.retry()
        await until(log.idle.is_set)
    assert [len(batch.rows) for batch in sink.got] == [40, 40, 40]
    assert (delivery.stats.stopped, delivery.stats.failing, delivery.stats.detail) == (False, None, "")
    assert delivery.warnings() == []
    errors = [entry for entry in caplog.records if entry.levelname == "ERROR"]
    assert [entry.__dict__["detail"] for entry in errors] == ["schema is required"]


async def test_delivery_backlog_of_a_sink_that_is_stopped_or_waits_long_grows_with_the_log() -> None:
    """Formerly the metric stood still for as long as the sink did."""
    for kept in (Stop(reason="http_400"), Keep(reason="http_503", after_s=3600.0)):
        sink, log = ScriptedSink(script=[kept]), MemoryReader([record(1)])
        delivery = make(sink, log)
        async with service(delivery.run):
            await until(lambda d=delivery: d.stats.failing is not None)  # type: ignore[misc]
            log.rows += [record(i) for i in range(2, 40)]
            await asyncio.sleep(130)
            assert (len(sink.got), delivery.stats.backlog) == (1, 39)
            delivery.retry()
            await until(log.idle.is_set)
            assert delivery.stats.backlog == 0


async def test_delivery_sink_that_is_refused_goes_on_by_itself_once_that_is_mended_at_the_other_end() -> None:
    refused = Stop(reason="http_403", retry_s=3600.0)
    sink, log = ScriptedSink(script=[refused] * 5), MemoryReader([record(1)])
    delivery = make(sink, log)
    began_s = asyncio.get_running_loop().time()
    async with service(delivery.run):
        await log.idle.wait()
    assert asyncio.get_running_loop().time() - began_s == pytest.approx(5 * 3600, abs=60)
    assert (len(sink.got), delivery.stats.accepted) == (6, 1)


async def test_delivery_batch_is_settled_once_its_end_is_saved_and_not_before() -> None:
    sink, log = ScriptedSink(script=[Keep(reason="timeout")]), MemoryReader([record(1)])
    delivery = make(sink, log)
    async with service(delivery.run):
        await until(log.idle.is_set)
    assert (len(sink.got), sink.settled_ids, log.saved) == (2, [sink.got[0].id], [1])
    broken, lost = ScriptedSink(), MemoryReader([record(1)])

    async def fails(*_: object) -> None:
        raise StorageError("full")

    lost.save_position = fails  # type: ignore[method-assign, assignment]
    async with service(make(broken, lost).run):
        await until(lambda: len(broken.got) >= 3)
    assert broken.settled_ids == []


async def test_delivery_rejected_rows_are_counted_and_passed() -> None:
    sink, log = (
        ScriptedSink(script=[Reject(refused={1: "refused_by_receiver"})]),
        MemoryReader([record(i) for i in range(3)]),
    )
    delivery = make(sink, log)
    async with service(delivery.run):
        await until(log.idle.is_set)
    assert (log.saved, delivery.stats.accepted, delivery.stats.rejected) == ([3], 2, 1)
    assert log.parked == {(record(1).start_ms, "home-1", 1): "refused_by_receiver"}
    assert delivery.stats.refused == {"refused_by_receiver": 1}


async def test_delivery_rows_that_a_sink_does_not_want_are_passed_over() -> None:
    sink, log = (
        ScriptedSink(wanted=lambda device: device in ("home-0", "home-2")),
        MemoryReader([record(i) for i in range(4)]),
    )
    delivery = make(sink, log)
    async with service(delivery.run):
        await until(log.idle.is_set)
        assert sink.rows == [record(0), record(2)]
        log.rows.append(record(5))
        delivery.news.set()
        await until(lambda: log.saved[-1] == 5)
    assert (len(sink.got), delivery.stats.accepted) == (1, 2)


async def test_delivery_crash_between_answer_and_cursor_repeats_one_batch_with_the_same_id() -> None:
    sink, log = ScriptedSink(), MemoryReader([record(i) for i in range(5)])

    class Crash(Exception):
        pass

    async def crash(*_: object) -> None:
        raise Crash

    with pytest.raises(ExceptionGroup) as caught:
        log.save_position = crash  # type: ignore[method-assign,assignment]
        async with service(make(sink, log).run):
            await until(log.idle.is_set)
    assert caught.group_contains(Crash)
    del log.save_position
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
    assert batch_id(columns_of_objects(rows)) == batch_id(columns_of_objects(list(rows)))
    assert batch_id(columns_of_objects(rows)) != batch_id(columns_of_objects(rows[::-1]))
    assert batch_id(columns_of_objects(rows)) != batch_id(columns_of_objects([record(1), record(2, revision=2)]))


@pytest.mark.fault("F7")
async def test_delivery_far_behind_goes_on_with_what_is_new_and_catches_up_oldest_first() -> None:
    """Also over a restart in between."""
    sink, log = ScriptedSink(batch_rows=10), MemoryReader([record(i) for i in range(1_000)])
    delivery = make(sink, log)
    sink.on_batch = lambda: log.rows.append(record(1_000 + len(sink.got))) if len(sink.got) in (3, 60) else None
    stop_at = asyncio.Event()
    async with service(delivery.run):
        await until(lambda: len(sink.got) >= 50)
        stop_at.set()
    assert delivery.position.live.row == len(log.rows)
    again = make(sink, log)
    async with service(again.run):
        await until(lambda: not again.position.backfill and again.position.live.row == len(log.rows))
    given = [row.start_ms for row in sink.rows]
    assert set(given) == {row.start_ms for row in log.rows}
    assert given.index(log.rows[1_000].start_ms) < 45
    old = [ms for ms in dict.fromkeys(given) if ms < record(1_000).start_ms]
    assert old == sorted(old)
    assert again.stats.backlog == 0


@pytest.mark.fault("F8")
async def test_delivery_batch_that_cannot_be_taken_is_halved_until_the_poison_is_found() -> None:
    poison = record(37)

    def judge(batch: IntervalBatch) -> SinkResult:
        return Keep(reason="http_400", whole=True) if poison in batch.rows else Accept()

    sink, log = ScriptedSink(batch_rows=64, judge=judge), MemoryReader([record(i) for i in range(200)])
    delivery = make(sink, log)
    async with service(delivery.run):
        await until(lambda: bool(log.saved) and log.saved[-1] == 200)
    assert log.parked == {(poison.start_ms, poison.device, 1): "http_400"}
    taken = [row for batch in sink.got if poison not in batch.rows for row in batch.rows]
    assert list(dict.fromkeys(taken)) == [record(i) for i in range(200) if i != 37]
    assert (delivery.stats.accepted, delivery.stats.rejected) == (199, 1)


async def test_delivery_receiver_that_never_took_anything_is_not_taken_for_poisoned() -> None:
    """A wrong address answers 400 to everything; nothing may be parked for that."""
    sink = ScriptedSink(batch_rows=4, judge=lambda _: Keep(reason="http_400", whole=True))
    log = MemoryReader([record(i) for i in range(8)])
    async with service(make(sink, log).run):
        await until(lambda: len(sink.got) > 20)
    assert (log.parked, log.saved) == ({}, [])


async def test_delivery_what_is_marked_is_sent_once_more_and_may_be_refused_again() -> None:
    sink, log = ScriptedSink(), MemoryReader([record(i) for i in range(5)])
    delivery = make(sink, log)
    async with service(delivery.run):
        await until(log.idle.is_set)
        gone: Identity = (5, "gone", 1)
        log.parked = {(record(i).start_ms, record(i).device, 1): RESEND for i in (1, 3)} | {gone: RESEND}
        sink.script = [Reject(refused={1: "still_bad"})]
        delivery.resend()
        await until(lambda: RESEND not in log.parked.values())
    assert list(sink.got[-1].rows) == [record(1), record(3)]
    assert log.parked == {(record(3).start_ms, record(3).device, 1): "still_bad"}
    assert (delivery.stats.resent, log.state.live.row) == (3, 5)


@pytest.mark.fault("F7")
async def test_delivery_drains_no_faster_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    real = asyncio.sleep

    async def sleep(s: float) -> None:
        waits.append(s)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    sink, log = ScriptedSink(batch_rows=50), MemoryReader([record(i) for i in range(200)])
    delivery = SinkDelivery(sink, log_=log, finder=log, clock=ManualClock(), rng=random.Random(1), rate=20.0)
    async with service(delivery.run):
        await asyncio.wait_for(log.idle.wait(), 30)
    assert [wait for wait in waits if wait > 0] == [2.5] * 4


async def test_delivery_waits_for_a_log_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_RETRY_S", 0.001)
    sink, log = ScriptedSink(), MemoryReader([record(i) for i in range(5)])
    real, failed = log.read_columns, 0

    async def read(cursor: Cursor, limit: int, until: Cursor | None = None) -> tuple[IntervalColumns, Places, Cursor]:
        nonlocal failed
        if failed < 3:
            failed += 1
            raise StorageError("disk I/O error")
        return await real(cursor, limit, until)

    log.read_columns = read  # type: ignore[method-assign]
    async with service(make(sink, log).run):
        await until(log.idle.is_set)
    assert (failed, sink.rows) == (3, [record(i) for i in range(5)])


async def test_delivery_what_is_marked_while_it_looks_is_sent_too() -> None:
    sink, log = ScriptedSink(), MemoryReader([record(i) for i in range(3)])
    delivery = make(sink, log)
    real, asked = log.again, 0

    async def again(name: str, limit: int) -> tuple[Sequence[IntervalRecord], Sequence[Identity]]:
        nonlocal asked
        asked += 1
        found = await real(name, limit)
        if asked == 1:
            log.parked = {(record(1).start_ms, record(1).device, 1): RESEND}
            delivery.resend()
        return found

    log.again = again  # type: ignore[method-assign]
    async with service(delivery.run):
        await until(lambda: asked > 1 and not log.parked)
    assert list(sink.got[-1].rows) == [record(1)]

"""Telemetry in: nothing is acknowledged before it is durable, order holds, and a slow disk holds the senders back."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.domain.errors import StorageError
from gateway.domain.readings import AckBatch, AckToken, ReadingBatch, StatusBatch
from gateway.domain.types import DeviceId
from gateway.services.telemetry import repair
from gateway.services.telemetry.interval_config import IntervalConfigs, unheard
from gateway.services.telemetry.recorder import Recorded
from gateway.storage.recovery import Unlogged
from tests.builders.energy_batches import batch, row
from tests.builders.fakes import FACTS, FakeLink, home
from tests.scenes.telemetry import RULES, rig, say, token
from tests.scenes.waiting import service, turns, until


class Gone(FakeLink):
    """A link that cannot acknowledge while it is `gone`."""

    gone = True

    def acknowledge(self, token: AckToken) -> None:
        if self.gone:
            raise StorageError("gone")
        super().acknowledge(token)


async def test_ingest_with_commits_blocked_no_acknowledgement_leaves(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        link, emit = r.linked()
        r.spool.gate.clear()
        for seq in range(1, 6):
            say(emit, seq)
            await until(lambda seq=seq: r.ingest.stats.rows == seq)  # type: ignore[misc]
        await turns(200)
        assert link.acknowledged == []
        assert r.recorder.engine.totals.new == 5
        assert r.spool.durable_record < r.spool.last_record
        r.spool.gate.set()
        await until(lambda: len(link.acknowledged) == 5)
        assert [found.packet_ids for found in link.acknowledged] == [[1], [2], [3], [4], [5]]
        assert r.spool.durable_record == r.spool.last_record


async def test_ingest_duplicate_is_acknowledged_but_counted_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        link, emit = r.linked()
        say(emit, 1)
        say(emit, 1)
        await until(lambda: len(link.acknowledged) == 2)
        assert (r.recorder.engine.totals.new, r.recorder.engine.totals.duplicates) == (1, 1)


async def test_ingest_acknowledges_each_link_with_its_own_tokens_in_order(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        (left, emit_left), (right, emit_right) = r.linked(), r.linked()
        r.spool.gate.clear()
        for seq in (1, 2, 3):
            say(emit_left, seq, slots=(0,))
            say(emit_right, seq + 100, slots=(1,))
        r.spool.gate.set()
        await until(lambda: len(left.acknowledged) == len(right.acknowledged) == 3)
        assert [t.packet_ids for t in left.acknowledged] == [[1], [2], [3]]
        assert [t.packet_ids for t in right.acknowledged] == [[101], [102], [103]]


async def test_ingest_token_without_rows_waits_for_what_came_before_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        link, emit = r.linked()
        r.spool.gate.clear()
        say(emit, 1)
        await until(lambda: r.ingest.stats.rows == 1)
        # Every message of this read was refused: it carries nothing, and is still behind the first.
        emit(ReadingBatch(token=token(2)))
        await turns(200)
        assert link.acknowledged == []
        r.spool.gate.set()
        await until(lambda: [t.packet_ids for t in link.acknowledged] == [[1], [2]])
        emit(ReadingBatch(token=token(3)))
        await until(lambda: link.acknowledged[-1].packet_ids == [3])


async def test_ingest_tokens_keep_their_generation(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        link, emit = r.linked()
        emit(ReadingBatch(energy=batch([row(seq=1)])))
        emit(ReadingBatch(token=token(1, generation=7)))
        emit(ReadingBatch(energy=batch([row(seq=2)])))
        emit(ReadingBatch(token=token(1, generation=8)))
        await until(lambda: len(link.acknowledged) == 2)
        assert [t.generation for t in link.acknowledged] == [7, 8]


async def test_ingest_energy_of_a_device_that_is_removed_before_it_is_recorded_counts(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        link, emit = r.linked()
        emit(ReadingBatch(energy=batch([row(slot=0, seq=1, t=0, span=120, charge_wh=150.0)])))
        emit(ReadingBatch(token=token(1)))
        r.fleet.unregister(home("a").id)
        await until(lambda: len(link.acknowledged) == 1)
        assert (r.recorder.engine.totals.new, r.recorder.engine.totals.jumps) == (1, 0)


async def test_ingest_full_queue_holds_the_telemetry_back_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    async with rig(tmp_path, queue_bytes=2_000) as r:
        link, emit = r.linked()
        r.spool.gate.clear()
        seq = 0
        while not link.holds and seq < 1_000:
            seq += 1
            say(emit, seq)
            await until(lambda: r.ingest.stats.rows == seq or bool(link.holds))  # noqa: B023
        assert link.holds == [True]
        assert r.reasons()[-1] == "telemetry is paused until the disk has caught up"
        say(emit, seq + 1)
        await turns(200)
        taken = r.ingest.stats.rows
        assert taken <= seq
        assert link.acknowledged == []
        r.spool.gate.set()
        await until(lambda: r.ingest.stats.rows == seq + 1)
        await until(lambda: link.holds == [True, False])
        await until(lambda: len(link.acknowledged) == seq + 1)
        assert [t.packet_ids[0] for t in link.acknowledged] == list(range(1, seq + 2))
        assert (r.ingest.stats.pauses, r.reasons()) == (1, [])


async def test_ingest_closes_go_to_the_log_only_when_durable(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        _, emit = r.linked()
        r.clock.advance(s=10)
        say(emit, 1, t=10)
        await until(lambda: r.ingest.stats.rows == 1)
        r.spool.gate.clear()
        r.clock.advance(s=60)
        say(emit, 2, t=65)
        await until(lambda: r.recorder.engine.totals.records == 1)
        await turns(200)
        assert r.log.closes == 0
        r.spool.gate.set()
        await until(lambda: r.log.closes == 1)


async def test_ingest_log_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        link, emit = r.linked()
        r.log.failing = True
        r.clock.advance(s=65)
        say(emit, 1, t=10)
        say(emit, 2, t=65)
        await until(lambda: r.reasons() == ["interval log: interval log: disk full"])
        await until(lambda: len(link.acknowledged) == 2)
        r.log.failing = False
        await until(lambda: r.log.closes == 1)
        await until(lambda: r.reasons() == [])
        assert r.log_writer.failures >= 1


async def test_ingest_interval_without_further_samples_is_closed_by_time(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        _, emit = r.linked()
        say(emit, 1, slots=(0, 1, 2), t=10)
        await until(lambda: r.ingest.stats.rows == 3)
        r.clock.advance(s=60 + 6)
        await until(lambda: r.log.closes == 3)


async def test_ingest_fault_while_taking_acknowledges_nothing_and_has_the_links_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StorageError("the spool's queue is full")

    async with rig(tmp_path, running=False) as r:
        link, emit = r.linked()
        with pytest.raises(ExceptionGroup) as caught:
            async with service(r.ingest.run):
                r.spool.gate.clear()
                say(emit, 1)
                await until(lambda: r.ingest.stats.rows == 1)
                with monkeypatch.context() as patch:
                    patch.setattr(r.recorder, "ingest", refuse)
                    say(emit, 2)
                    await until(lambda: link.starts == 1)
        assert caught.group_contains(StorageError, match="queue is full")
        r.spool.gate.set()
        await until(lambda: r.spool.durable_record == r.spool.last_record)
        assert link.acknowledged == []
        # The sender sends both again, on a new connection: the first was counted, and is acknowledged as a duplicate.
        async with service(r.ingest.run):
            say(emit, 1)
            say(emit, 2)
            await until(lambda: [t.packet_ids for t in link.acknowledged] == [[1], [2]])
        assert (r.recorder.engine.totals.new, r.recorder.engine.totals.duplicates) == (2, 1)


async def test_ingest_sender_that_cannot_be_acknowledged_is_heard_anew(tmp_path: Path) -> None:
    """Nothing that was received and not acknowledged is forgotten: it comes again on a new connection."""
    async with rig(tmp_path, running=False) as r:
        link, (other, emit_other) = Gone(), r.linked()
        emit = r.ingest.emitter(link, sender=link)
        with pytest.raises(ExceptionGroup) as caught:
            async with service(r.ingest.run):
                say(emit, 1)
                say(emit_other, 1, slots=(1,))
                await until(lambda: link.starts == other.starts == 1)
        assert caught.group_contains(StorageError, match="gone")
        assert other.acknowledged == []
        link.gone = False
        async with service(r.ingest.run):
            say(emit, 1)
            say(emit_other, 1, slots=(1,))
            await until(lambda: len(link.acknowledged) == len(other.acknowledged) == 1)
        assert (r.recorder.engine.totals.new, r.recorder.engine.totals.duplicates) == (2, 2)


async def test_ingest_rows_that_a_fault_drops_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a batch that were recorded before it are not among them."""
    day_s = 86_400

    async with rig(tmp_path, running=False) as r:
        emit, whole = r.ingest.emitter(FakeLink()), r.recorder.ingest

        def second_fails(*args: Any) -> Recorded:
            if r.ingest.stats.rows:
                raise StorageError("gone")
            return whole(*args)

        monkeypatch.setattr(r.recorder, "ingest", second_fails)
        long = [row(seq=1 + i, t=-10 * i, span=day_s, charge_wh=1440.0) for i in range(5)]
        with pytest.raises(ExceptionGroup):
            async with service(r.ingest.run):
                emit(ReadingBatch(energy=batch(long)))
                await until(lambda: r.ingest.stats.dropped > 0)
        (shown,) = [sample.value for sample in r.samples() if sample.name == "gateway_settlement_dropped"]
        assert (r.ingest.stats.rows, shown) == (1, 4)


async def test_ingest_source_without_a_sender_is_recorded_too(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.ingest.emitter(FakeLink())(ReadingBatch(energy=batch([row(seq=1)])))
        await until(lambda: r.recorder.engine.totals.new == 1)


async def test_ingest_spans_of_a_day_are_steps_between_which_others_run_and_acknowledged_after_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day_s, rows = 86_400, 12
    async with rig(tmp_path) as r:
        link, emit = r.linked()
        order: list[str] = []
        whole = r.recorder.ingest

        def noted(*args: Any) -> Recorded:
            order.append("step")
            asyncio.get_running_loop().call_soon(order.append, "other")
            assert link.acknowledged == []
            return whole(*args)

        monkeypatch.setattr(r.recorder, "ingest", noted)
        long = [row(seq=1 + i, t=-10 * i, span=day_s, charge_wh=1440.0) for i in range(rows)]
        emit(ReadingBatch(energy=batch(long)))
        emit(ReadingBatch(token=token(1)))
        await until(lambda: bool(link.acknowledged))
        assert order[:4] == ["step", "other", "step", "other"]
        assert (order.count("step"), r.ingest.stats.rows) == (rows, rows)
        assert len(link.acknowledged) == 1


async def test_ingest_waits_while_a_checkpoint_is_copied_and_goes_on_after_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        link, emit = r.linked()
        async with r.recorder.step():
            say(emit, 1)
            await turns(200)
            assert (r.ingest.stats.rows, link.acknowledged) == (0, [])
        await until(lambda: bool(link.acknowledged))
        assert r.ingest.stats.rows == 1


async def test_ingest_steps_wait_for_room_within_a_batch(tmp_path: Path) -> None:
    """A batch of wide rows does not fill the spool's queue past its bound, whatever it becomes."""
    async with rig(tmp_path, queue_bytes=2_000) as r:
        link, emit = r.linked()
        r.spool.gate.clear()
        emit(ReadingBatch(energy=batch([row(seq=1 + i, t=10 + i, span=86_400, charge_wh=1440.0) for i in range(12)])))
        emit(ReadingBatch(token=token(1)))
        await until(lambda: link.holds == [True])
        await turns(200)
        assert 0 < r.ingest.stats.rows < 12
        r.spool.gate.set()
        await until(lambda: len(link.acknowledged) == 1)
        assert r.recorder.engine.totals.new == 12


async def test_ingest_end_of_long_silences_is_worked_on_until_none_waits(tmp_path: Path) -> None:
    """Slices of late data make no record; the closer goes on all the same."""
    async with rig(tmp_path, running=False) as r:
        engine, counters = r.recorder.engine, {"charge_counter_wh": 0.0, "discharge_counter_wh": 0.0}
        r.recorder.ingest(batch([row(slot=s, seq=1, t=10, **counters) for s in range(3)]), r.clock.now())
        back = 40 * 3600
        for i in range(3):
            r.clock.advance(s=back if not i else 60)
            after = [
                row(slot=s, seq=2 + i, t=back + 60 * i, charge_counter_wh=500.0, discharge_counter_wh=500.0)
                for s in range(3)
            ]
            r.recorder.ingest(batch(after), r.clock.now())
        while r.recorder.close_due(r.clock.now()):
            pass
        r.clock.advance(s=RULES.gap_hold_s)
        calls = 0
        while r.recorder.close_due(r.clock.now()):
            calls += 1
        assert calls > 3 * 2 * 40 * 60 / RULES.close_slice
        assert len(engine.late) > 3 * 2_300
        assert not engine.pending(r.clock.now())


async def test_ingest_repairs_follow_one_another_as_fast_as_the_log_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are small, so that none holds the loop; none waits for the next look at what is due either."""
    monkeypatch.setattr(repair, "ROWS", 4)
    async with rig(tmp_path) as r:
        append = r.log.append

        async def slow(entries: Sequence[Unlogged]) -> int:
            await asyncio.sleep(0.2)
            return await append(entries)

        monkeypatch.setattr(r.log, "append", slow)
        r.clock.advance(s=5_700)
        r.recorder.ingest(batch([row(seq=60 + i, t=5_400 + 60 * i, charge_wh=1.0) for i in range(4)]), r.clock.now())
        r.recorder.ingest(batch([row(seq=i, t=10 + 60 * i, charge_wh=1.0) for i in range(59)]), r.clock.now())
        assert r.recorder.engine.to_repair == 59
        r.clock.advance(s=60)
        began_s = asyncio.get_running_loop().time()
        await until(lambda: not r.recorder.engine.to_repair)
        assert asyncio.get_running_loop().time() - began_s < 60 / 4 * 0.5 + 3 * repair.PERIOD_S


async def test_ingest_presence_and_answers_go_their_own_way(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        _, emit = r.linked()
        emit(ReadingBatch(status=StatusBatch(slots=np.array([1], dtype=np.int32), online=np.array([False]))))
        acks = AckBatch(slots=np.array([2], dtype=np.int32), cmd=np.array([9]), result=np.array([1], dtype=np.int8))
        emit(ReadingBatch(acks=acks))
        assert r.fleet.live.online[:3].tolist() == [-1, 0, -1]
        assert r.acks == [acks]


@pytest.mark.parametrize("counts", [True, False])
async def test_device_where_another_battery_answers_has_the_energy_of_that_one(tmp_path: Path, counts: bool) -> None:
    """Neither what the counter of the one before said, nor that it had one."""
    async with rig(tmp_path) as r:
        link, emit = r.linked()
        for seq in (1, 2):
            told = row(seq=seq, t=10 * seq, charge_counter_wh=1_000.0 + seq, discharge_counter_wh=0.0)
            emit(ReadingBatch(energy=batch([told]), token=token(seq)))
        await until(lambda: len(link.acknowledged) == 2)
        before_wh = r.recorder.engine.cur.charge_wh[0]
        r.fleet.register(home("a"), FACTS)
        r.fleet.renewed.add(0)
        for seq, wh in ((3, 1_004.0), (4, 1_006.0)):
            own = {"charge_counter_wh": wh, "discharge_counter_wh": 0.0} if counts else {"charge_wh": 2.0}
            emit(ReadingBatch(energy=batch([row(seq=seq, t=10 * seq, **own)]), token=token(seq)))
        await until(lambda: len(link.acknowledged) == 4)
        engine = r.recorder.engine
        assert engine.cur.charge_wh[0] - before_wh == (2.0 if counts else 4.0)
        assert (engine.totals.spans_beside_counter, engine.totals.counter_resets, r.fleet.renewed) == (0, 0, set())


async def test_battery_that_has_told_no_energy_since_it_answers_is_another_one_after_a_restart(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        link, emit = r.linked()
        emit(ReadingBatch(energy=batch([row(seq=1, t=10, charge_wh=1.0)]), token=token(1)))
        await until(lambda: bool(link.acknowledged))
        newest_ms = int(r.recorder.engine.newest.t_ms[0])
        device, unknown = DeviceId(r.fleet.ids[0]), DeviceId("unknown")
        for since_ms, slots in ((newest_ms + 1, {0}), (newest_ms, set())):
            assert unheard({device: since_ms, unknown: since_ms}, r.fleet, r.recorder.engine) == slots


async def test_terms_wait_for_room_and_are_agreed_on_then(tmp_path: Path) -> None:
    async with rig(tmp_path, queue_bytes=2_000, running=False) as r:
        slot = r.fleet.register(home("d", tags=("daily",)), FACTS)
        terms = IntervalConfigs(fleet=r.fleet, recorder=r.recorder, clock=r.clock, lengths={"daily": 300})
        r.spool.gate.clear()
        while r.recorder.room:
            r.recorder.ingest(batch([row(seq=1)]), r.clock.now())
        full = r.spool.last_record
        await terms.update()
        assert r.spool.last_record == full
        r.spool.gate.set()
        await until(lambda: r.spool.durable_record == full)
        await terms.update()
        assert r.spool.last_record == full + 1
        assert r.recorder.engine.config.length_ms[slot] == 300_000


@pytest.mark.parametrize("name", ["gateway_settlement_rows", "gateway_duplicates", "gateway_spool_failing"])
async def test_ingest_metrics_are_there(tmp_path: Path, name: str) -> None:
    async with rig(tmp_path) as r:
        assert name in {sample.name for sample in r.samples()}

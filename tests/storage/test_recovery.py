"""Recovery = checkpoint + replay: to the bit, after a cut anywhere."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.domain.errors import InvariantBroken, StorageError
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.config import AgreedConfig
from gateway.domain.intervals.records import NO_RECORDS, IntervalRecords
from gateway.domain.intervals.types import IntervalRules
from gateway.services.telemetry import recorder as recorder_module
from gateway.services.telemetry.repair import Repairs
from gateway.storage import checkpoint as checkpoint_module
from gateway.storage.checkpoint import Checkpoints
from gateway.storage.spool.records import names_payload
from gateway.storage.spool.spool import Scan, segments
from tests.builders.energy_batches import T0, at, batch, row
from tests.builders.fakes import NothingLogged
from tests.scenes.recorder_histories import DEVICES, State, content, restarted, session, settle, state_of, step

few = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def fresh(tmp_path: Path, seed: int) -> Path:
    directory = tmp_path / str(seed)
    shutil.rmtree(directory, ignore_errors=True)
    return directory


def terms(slots: list[int]) -> AgreedConfig:
    n = len(slots)
    return AgreedConfig(
        slots=np.array(slots, dtype=np.int32), length_s=np.full(n, 300), counter_step_wh=np.full(n, 1.0),
        rated_w=np.full(n, 5000.0),
    )  # fmt: skip


async def live(
    directory: Path, seed: int, steps: int, *, segment_bytes: int, devices: int = DEVICES
) -> tuple[dict[int, tuple[State, list[str]]], list[tuple[int, list[str], bytes]]]:
    """Run a random history with checkpoints, from `devices` devices on; returns the state after each record, and all
    closes."""
    rng = np.random.default_rng(seed)
    ids = [f"bat-{i}" for i in range(devices)]
    states: dict[int, tuple[State, list[str]]] = {}
    made: list[IntervalRecords] = []
    async with session(directory, ids, segment_bytes=segment_bytes) as (recorder, checkpoints):
        for index in range(steps):
            step(recorder, rng, ids, 300 + index, made)
            states[recorder.spool.last_record] = (state_of(recorder.engine), list(ids))
            if rng.random() < 0.15:
                await recorder.checkpoint(checkpoints, at(index), {})
                states[recorder.spool.last_record] = (state_of(recorder.engine), list(ids))
        await settle(recorder)
        await asyncio.sleep(0)
        closes = [content(found) for found in recorder.unlogged(10**9)]
    return states, closes


@few
@given(
    seed=st.integers(0, 2**32),
    cut=st.floats(0, 1),
    segment_bytes=st.sampled_from([1, 5_000, 1 << 20]),
    devices=st.sampled_from([0, 1, DEVICES]),
)
def test_recover_spool_cut_at_any_byte_is_the_state_of_then(
    tmp_path: Path, seed: int, cut: float, segment_bytes: int, devices: int
) -> None:
    directory = fresh(tmp_path, seed)
    states, closes = asyncio.run(live(directory, seed, 20, segment_bytes=segment_bytes, devices=devices))
    last = segments(directory / "spool")[-1]
    checkpoint = Checkpoints(directory / "checkpoints").load()
    with last.open("r+b") as file:
        file.truncate(round(last.stat().st_size * cut))
    scan = Scan(directory / "spool")
    spooled = max((record.number for record in scan), default=0)
    found = restarted(directory, [])
    reached = max(found.next_record - 1, checkpoint.header.record if checkpoint else 0)
    known = [record for record in states if record <= reached]
    if not known:
        return
    state, ids = states[max(known)]
    found = restarted(directory, ids)
    assert state_of(found.engine) == state
    assert found.stats.mismatches == 0
    assert [content(f) for f in found.unlogged] == [c for c in closes if c[0] <= spooled]


@pytest.mark.fault("F38")
@few
@given(seed=st.integers(0, 2**32), where=st.floats(0, 1), bit=st.integers(0, 7))
def test_recover_flipped_bit_loses_no_other_record(tmp_path: Path, seed: int, where: float, bit: int) -> None:
    directory = fresh(tmp_path, seed)
    _, closes = asyncio.run(live(directory, seed, 12, segment_bytes=8_000))
    paths = segments(directory / "spool")
    path = paths[int(where * (len(paths) - 1))]
    data = bytearray(path.read_bytes())
    data[int(where * (len(data) - 1))] ^= 1 << bit
    path.write_bytes(data)
    found = restarted(directory, [f"bat-{i}" for i in range(30)])
    again = [content(f) for f in found.unlogged]
    lost = [c for c in closes if c not in again]
    assert len(lost) <= 1 or found.stats.nameless
    assert [c for c in closes if c in again] == again


async def test_checkpoint_of_a_full_spool_frees_it_with_the_next_one_although_nothing_arrives(tmp_path: Path) -> None:
    """What an earlier checkpoint needs is freed by the second later one, and no telemetry is taken meanwhile."""
    ids = ["a"]
    async with session(tmp_path, ids, segment_bytes=2_000, max_bytes=20_000) as (recorder, checkpoints):
        await recorder.checkpoint(checkpoints, at(1), {})
        seq = 0

        def room() -> bool:
            return recorder.room

        while room():
            seq += 1
            recorder.ingest(batch([row(seq=seq, t=10 + seq)]), at(10 + seq))
            await recorder.spool.wait_durable(recorder.spool.last_record)
        for i in range(2):
            assert not room()
            while found := recorder.unlogged():
                recorder.logged(found[-1].record)
            await recorder.checkpoint(checkpoints, at(1_000 + i), {})
        assert room()
    again = restarted(tmp_path, ids)
    assert (again.engine.totals.new, again.stats.mismatches, again.stats.unreadable) == (0, 0, 0)


async def test_checkpoint_copied_in_parts_is_the_state_of_its_record_whatever_wants_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "COPY_BYTES", 1)
    ids = ["a"]
    async with session(tmp_path, ids) as (recorder, checkpoints):
        recorder.ingest(batch([row(seq=1, charge_counter_wh=1.0)]), at(10))
        then = state_of(recorder.engine)
        copying = asyncio.create_task(recorder.checkpoint(checkpoints, at(20), {}))
        await asyncio.sleep(0)
        now = batch([row(seq=2, t=20, charge_counter_wh=5.0)])
        with pytest.raises(InvariantBroken):
            recorder.ingest(now, at(20))
        assert state_of(recorder.engine) == then
        async with recorder.step():
            recorder.ingest(now, at(20))
        await copying
        await settle(recorder)
        newest = state_of(recorder.engine)
    kept = checkpoints.load()
    assert kept is not None
    assert state_of(kept.engine()) == then
    found = restarted(tmp_path, ids)
    assert (state_of(found.engine), found.stats.mismatches) == (newest, 0)


async def test_recorder_writes_the_names_of_the_fleet_anew_only_where_there_are_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    whole = names_payload

    def counted(first: int, ids: Sequence[str]) -> list[bytes]:
        made.append(len(ids))
        return whole(first, ids)

    monkeypatch.setattr(recorder_module, "names_payload", counted)
    ids = ["a", "b"]
    async with session(tmp_path, ids, segment_bytes=1) as (recorder, _):
        for seq in range(1, 4):
            recorder.ingest(batch([row(seq=seq, t=10 * seq)]), at(10 * seq))
        assert made == [2]
        ids.append("c")
        for seq in range(4, 7):
            recorder.ingest(batch([row(slot=2, seq=seq, t=10 * seq)]), at(10 * seq))
        assert made[1:] == [1, 3]
        await settle(recorder)
    found = restarted(tmp_path, ids)
    assert (found.engine.totals.new, found.stats.nameless, found.stats.mismatches) == (6, 0, 0)


def test_recover_nothing_there_starts_empty(tmp_path: Path) -> None:
    found = restarted(tmp_path, ["a", "b"])
    assert (found.next_record, found.unlogged, found.engine.n, found.checkpoint) == (1, [], 2, None)


async def test_recover_several_lives_with_devices_in_another_order_goes_on(tmp_path: Path) -> None:
    ids = ["a", "b"]
    async with session(tmp_path, ids) as (recorder, _):
        rows = [row(slot=slot, seq=1, t=10, charge_counter_wh=100 * slot) for slot in (0, 1)]
        recorder.ingest(batch(rows), at(10))
    ids = ["c", "b", "a"]
    async with session(tmp_path, ids) as (recorder, _):
        rows = [row(slot=slot, seq=2, t=20, charge_counter_wh=w) for slot, w in ((2, 1), (1, 102))]
        taken = recorder.ingest(batch([*rows, row(slot=1, seq=1, t=10, charge_counter_wh=100)]), at(20)).taken
        assert (taken.counts.new, taken.counts.duplicates) == (2, 1)
    ids = ["a", "b", "c", "d"]
    async with session(tmp_path, ids) as (recorder, checkpoints):
        await recorder.checkpoint(checkpoints, at(30), {})
    async with session(tmp_path, ids) as (recorder, _):
        assert recorder.close_due(at(90)) == 2
        await settle(recorder)
        (found,) = recorder.unlogged()
        assert [ids[slot] for slot in found.records.slots] == ["a", "b"]
        assert found.records.charge_wh.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("segment_bytes", [1, 1 << 20])
@pytest.mark.parametrize("checkpointed", [False, True])
async def test_recover_devices_imported_into_a_gateway_without_any_keep_their_energy(
    tmp_path: Path, segment_bytes: int, checkpointed: bool
) -> None:
    """Imports come in turn while the gateway runs, the first of them into a fleet of nobody."""
    ids: list[str] = []
    async with session(tmp_path, ids, segment_bytes=segment_bytes) as (recorder, checkpoints):
        for count, name in enumerate(("a", "b", "c"), start=1):
            ids.append(name)
            for seq in (count, count + 1):
                rows = [row(slot=s, seq=seq, t=10 * seq, charge_counter_wh=10 * s + seq) for s in range(count)]
                recorder.ingest(batch(rows), at(10 * seq))
            if checkpointed:
                await recorder.checkpoint(checkpoints, at(10 * count), {"live.soc_pct": np.arange(float(count))})
        state = state_of(recorder.engine)
    found = restarted(tmp_path, ids)
    assert state_of(found.engine) == state
    assert found.stats.nameless == 0
    assert found.engine.charge.wh[:3].tolist() == [4.0, 14.0, 24.0]
    if checkpointed:
        assert found.checkpoint is not None
        assert found.checkpoint.header.ids == ["a", "b", "c"]


async def test_recorder_names_that_a_full_queue_refused_are_written_before_the_first_row(tmp_path: Path) -> None:
    ids = ["a"]
    async with session(tmp_path, ids, queue_bytes=1_000) as (recorder, checkpoints):
        await settle(recorder)
        recorder.spool.gate.clear()
        recorder.ingest(batch([row(seq=seq, t=10 * seq, charge_counter_wh=seq) for seq in range(1, 31)]), at(300))
        ids.append("b")
        with pytest.raises(StorageError):
            await recorder.checkpoint(checkpoints, at(301), {})
        recorder.spool.gate.set()
        await settle(recorder)
        recorder.ingest(batch([row(slot=1, seq=1, charge_counter_wh=7)]), at(302))
        state = state_of(recorder.engine)
    found = restarted(tmp_path, ids)
    assert (state_of(found.engine), found.stats.nameless) == (state, 0)


async def test_recorder_terms_without_room_change_nothing(tmp_path: Path) -> None:
    """What the engine goes by and the spool does not have would be another fleet after the next start."""
    ids = ["a"]
    async with session(tmp_path, ids, queue_bytes=600) as (recorder, _):
        recorder.spool.gate.clear()
        while recorder.spool.room:
            recorder.ingest(batch([row(seq=1, charge_counter_wh=1)]), at(10))
        state = state_of(recorder.engine)
        with pytest.raises(StorageError):
            recorder.agree(terms([0]), at(11))
        assert state_of(recorder.engine) == state
        recorder.spool.gate.set()
        await settle(recorder)
        recorder.agree(terms([0]), at(12))
        state = state_of(recorder.engine)
    assert state_of(restarted(tmp_path, ids).engine) == state


async def test_recover_devices_that_nothing_names_are_counted(tmp_path: Path) -> None:
    """A spool that lost its names says so, and gives nobody what may be another's."""
    ids = ["a"]
    async with session(tmp_path, ids) as (recorder, checkpoints):
        recorder.ingest(batch([row(slot=s, seq=1, charge_counter_wh=1) for s in (0, 1)]), at(10))
        await recorder.checkpoint(checkpoints, at(11), {})
        recorder.ingest(batch([row(slot=2, seq=1, charge_counter_wh=1)]), at(12))
    found = restarted(tmp_path, ["a", "b", "c"])
    assert found.stats.nameless == 2
    assert found.engine.seen.high[:3].tolist() == [1, 0, 0]


def truncate_newest(directory: Path) -> None:
    newest = max(directory.glob("*.checkpoint"))
    newest.write_bytes(newest.read_bytes()[:-1])


async def test_recover_damaged_newest_checkpoint_uses_the_one_before(tmp_path: Path) -> None:
    ids = ["a"]
    async with session(tmp_path, ids, segment_bytes=1) as (recorder, checkpoints):
        for seq in range(1, 5):
            recorder.ingest(batch([row(seq=seq, t=10 * seq, charge_counter_wh=seq)]), at(10 * seq))
            await recorder.checkpoint(checkpoints, at(seq), {"live.soc_pct": np.array([float(seq)])})
        state = state_of(recorder.engine)
    truncate_newest(tmp_path / "checkpoints")
    found = restarted(tmp_path, ids)
    assert state_of(found.engine) == state
    assert found.checkpoint is not None
    assert found.checkpoint.columns["live.soc_pct"].tolist() == [3.0]
    assert found.stats.replayed > 0


async def test_recover_other_interval_length_closes_the_old_ones_durably(tmp_path: Path) -> None:
    ids = ["a"]
    async with session(tmp_path, ids) as (recorder, _):
        recorder.ingest(batch([row(seq=s, t=10 * s, charge_counter_wh=s) for s in (1, 2)]), at(20))
    async with session(tmp_path, ids, rules=IntervalRules(length_s=120)) as (recorder, _):
        await settle(recorder)
        (found,) = recorder.unlogged()
        assert (found.records.length_s.tolist(), found.records.charge_wh.tolist()) == ([60], [1.0])
        state = state_of(recorder.engine)
    assert state_of(restarted(tmp_path, ids).engine) == state


async def test_recorder_checkpoint_drops_segments_only_when_logged_and_twice_checkpointed(tmp_path: Path) -> None:
    ids = ["a"]
    async with session(tmp_path, ids, segment_bytes=1) as (recorder, checkpoints):
        for seq in range(1, 9):
            recorder.ingest(batch([row(seq=seq, t=60 * seq, charge_counter_wh=seq)]), at(60 * seq))
            await recorder.checkpoint(checkpoints, at(60 * seq), {})
        assert recorder.spool.stats.dropped_segments == 1
        first_close = recorder.unlogged()[0].record
        assert recorder.logged_record() == first_close - 1
        recorder.logged(recorder.unlogged()[-1].record)
        assert recorder.unlogged() == []
        await recorder.checkpoint(checkpoints, at(1000), {})
        (left,) = segments(tmp_path / "spool")
        assert int(left.stem) <= checkpoints.oldest_record + 1
        state = state_of(recorder.engine)
    assert state_of(restarted(tmp_path, ids).engine) == state


async def test_recorder_closes_reach_the_log_only_once_durable(tmp_path: Path) -> None:
    ids = ["a"]
    async with session(tmp_path, ids) as (recorder, _):
        await settle(recorder)
        recorder.spool.gate.clear()
        recorder.ingest(batch([row(seq=s, t=60 * s, charge_counter_wh=s) for s in (1, 2)]), at(120))
        assert recorder.unlogged() == []
        recorder.spool.gate.set()
        await settle(recorder)
        assert len(recorder.unlogged()) == 1


async def test_recorder_late_data_is_repaired_while_more_of_it_comes_all_the_time(tmp_path: Path) -> None:
    """The log is always a little behind the spool; what it has all of is not kept waiting for the rest."""
    async with session(tmp_path, ["a", "b"]) as (recorder, _):
        repair = Repairs(recorder, records=NothingLogged(), fleet=Fleet(), clock=ManualClock(utc_ms=T0))
        newest = [row(seq=seq, t=60 * seq, span=10, charge_wh=1.0) for seq in (999, 1_000)]
        recorder.ingest(batch(newest), at(60_000))
        repaired: list[int] = []
        for seq in range(1, 41):
            now = at(60_000 + 60 * seq)
            late = row(boot=2, seq=seq, t=120 * seq + 30_000, span=10, charge_wh=1.0)
            recorder.ingest(batch([late, row(slot=1, seq=seq, t=60_000 + 60 * seq, span=60, charge_wh=1.0)]), now)
            await settle(recorder)
            behind = recorder.unlogged()[:-1]
            if behind:
                recorder.logged(behind[-1].record)
            slots, starts = repair.due(now)
            repaired += starts.tolist()
            if len(slots):
                repair.revise(slots, starts, NO_RECORDS, now)
                # the log has to have what was made before anything is made from it
                assert not len(repair.due(at(200_000))[0])
        assert repaired == [T0 + 1000 * (120 * seq + 30_000 - 60) for seq in range(1, 40)]


@pytest.mark.deep
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), segment_bytes=st.sampled_from([1, 20_000]))
def test_recover_long_history_is_the_state_of_then(tmp_path: Path, seed: int, segment_bytes: int) -> None:
    directory = fresh(tmp_path, seed)
    states, _ = asyncio.run(live(directory, seed, 120, segment_bytes=segment_bytes))
    state, ids = states[max(states)]
    assert state_of(restarted(directory, ids).engine) == state
    shutil.rmtree(directory)

"""The engine's work comes in slices: whole fleets' silences, spans of a day, a clock that went back."""

import numpy as np
import pytest

from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.slices import steps
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.readings import EnergyBatch
from tests.builders.energy_batches import EVER_MS, T0, at
from tests.domain.intervals.test_engine_model import Log

SLICE = 400
HOUR_S = 3_600
FORMER_SLICE = 20_000


def everybody(
    n: int, *, seq: int, t: float, wh: float = np.nan, span_s: float = 10, moved_wh: float = np.nan
) -> EnergyBatch:
    """One row of each of `n` devices."""

    def same(value: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.full(n, value, dtype=np.float64)

    return EnergyBatch(
        slots=np.arange(n, dtype=np.int32), boot=np.ones(n, dtype=np.int64), seq=np.full(n, seq),
        t_ms=np.full(n, T0 + round(t * 1000)), span_ms=np.full(n, round(span_s * 1000)),
        charge_counter_wh=same(wh), discharge_counter_wh=same(2 * wh), charge_wh=same(moved_wh),
        discharge_wh=same(moved_wh), battery_w=same(np.nan), soc_pct=same(50.0), grid_w=same(np.nan), pv_w=same(np.nan),
        load_w=same(np.nan),
    )  # fmt: skip


class Work(Log):
    """The log, and the work of each of the engine's calls: records made and late data added."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        self.calls: list[int] = []

    def ingest(self, batch: EnergyBatch, t: float) -> None:
        late = len(self.engine.late)
        records = self.engine.ingest(batch, at(t), np.full(len(batch), 5000.0)).records
        self.note(records)
        self.calls.append(len(records) + len(self.engine.late) - late)

    def close(self, t: float) -> None:
        """Call the engine until it has nothing left to do."""
        now = at(t)
        while True:
            pending, late = self.engine.pending(now), len(self.engine.late)
            records = self.engine.close_due(now)
            self.note(records)
            self.calls.append(len(records) + len(self.engine.late) - late)
            if not (pending or len(records)):
                return

    def repair_all(self, t: float) -> None:
        while len(self.engine.repairs_due(at(t), 1, EVER_MS)[0]):
            self.repair(self.engine, at(t))

    def energy(self) -> dict[tuple[int, int], tuple[float, float]]:
        return {
            key: (float(records.charge_wh[i]), float(records.discharge_wh[i]))
            for key, (records, i) in self.newest.items()
        }

    def totals(self) -> tuple[float, float]:
        charge, discharge = np.nansum(np.array(list(self.energy().values())), axis=0)
        return float(charge), float(discharge)


def silent(n: int, hours: float, *, rows_after: int, close_slice: int, length_s: int = 300) -> Work:
    """A fleet that was silent for hours and is back; nothing of its silence has been shared by time yet."""
    engine = Engine(IntervalRules(length_s=length_s, close_slice=close_slice))
    log = Work(engine)
    log.ingest(everybody(n, seq=1, t=10, wh=0), 10)
    log.close(900)
    back = hours * HOUR_S
    for i in range(rows_after):
        t = back + 300 * i
        log.ingest(everybody(n, seq=2 + i, t=t, wh=1000), t)
    log.calls.clear()
    return log


@pytest.mark.parametrize("rows_after", [1, 3])
def test_engine_silences_of_a_whole_fleet_are_shared_a_slice_at_a_time_and_keep_their_energy(rows_after: int) -> None:
    """With one row after the silence its intervals become the newest, with three they are late."""
    n, hours = 100, 8
    log = silent(n, hours, rows_after=rows_after, close_slice=SLICE)
    log.close(hours * HOUR_S + 2_000)
    log.repair_all(hours * HOUR_S + 4_000)
    log.close(hours * HOUR_S + 4_000)
    assert len(log.calls) > n * hours * 12 / SLICE
    # a slice of gaps may push the two newest intervals of its devices out as well
    assert max(log.calls) <= 2 * SLICE
    assert log.totals() == pytest.approx((n * 1000.0, n * 2000.0))


def test_engine_silence_of_one_device_over_more_than_a_slice_is_shared_in_parts_as_in_one() -> None:
    found = []
    for close_slice in (50, FORMER_SLICE):
        log = silent(2, 30, rows_after=1, close_slice=close_slice)
        log.close(30 * HOUR_S + 2_000)
        found.append(log.energy())
        if close_slice == 50:
            assert max(log.calls) <= 2 * 50
    in_parts, in_one = found
    assert in_parts.keys() == in_one.keys()
    for key, energy in in_one.items():
        assert in_parts[key] == pytest.approx(energy, nan_ok=True)


def test_engine_records_of_the_last_release_are_replayed_with_its_whole_slices() -> None:
    """A spool that it wrote has the rules it worked by; with those everything is one step, as it was then."""
    log = silent(100, 8, rows_after=1, close_slice=FORMER_SLICE)
    log.close(8 * HOUR_S + 2_000)
    assert max(log.calls) > 100 * 8 * 12 - 400


def test_engine_late_data_near_its_bound_leaves_silences_waiting_until_it_is_repaired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.domain.intervals.slices.LATE_FOR_GAPS", 1_000)
    log = silent(100, 8, rows_after=3, close_slice=SLICE)
    log.close(8 * HOUR_S + 2_000)
    assert len(log.engine.late) <= 1_000 + SLICE
    assert not log.engine.pending(at(8 * HOUR_S + 2_000))
    t = 8 * HOUR_S + 3_000
    for _ in range(50):
        log.repair_all(t)
        log.close(t)
        t += 100
    assert log.totals() == pytest.approx((100_000.0, 200_000.0))


def test_engine_clock_that_went_back_closes_a_slice_of_devices_at_a_time() -> None:
    n = 1_000
    engine = Engine(IntervalRules(length_s=300, close_slice=SLICE))
    log = Work(engine)
    log.ingest(everybody(n, seq=1, t=HOUR_S + 10, wh=0), HOUR_S + 10)
    log.close(0)
    assert sum(log.calls) == 0, "nobody has said yet that it was right to"
    log.ingest(everybody(n, seq=2, t=5, wh=0), 5)
    log.calls.clear()
    log.close(5)
    assert (max(log.calls), sum(log.calls)) == (SLICE, n)


def test_steps_common_batch_is_one_step() -> None:
    engine = Engine(IntervalRules(length_s=300))
    engine.ingest(everybody(2_000, seq=1, t=10, wh=0), at(10))
    batch = everybody(2_000, seq=2, t=20, wh=0)
    assert steps(engine, batch, at(20)) == [batch]


def test_steps_spans_of_a_day_are_ingested_few_at_a_time_and_all_of_them_count() -> None:
    engine, n = Engine(IntervalRules(length_s=300, close_slice=SLICE)), 200
    batch = everybody(n, seq=1, t=24 * HOUR_S, span_s=24 * HOUR_S, moved_wh=288.0)
    parts = steps(engine, batch, at(24 * HOUR_S))
    assert np.concatenate([part.slots for part in parts]).tolist() == list(range(n))
    assert max(len(part) for part in parts) == 1
    log = Work(engine)
    for part in parts:
        log.ingest(part, 24 * HOUR_S)
    assert max(log.calls) <= 288
    log.close(25 * HOUR_S)
    assert log.totals() == pytest.approx((n * 288.0, n * 288.0))


def test_steps_second_silence_within_the_wait_for_the_first_shares_that_a_few_devices_at_a_time() -> None:
    """A new gap ends the wait of the one before: its intervals are made at once, in the step of the row."""
    n = 200
    log = silent(n, 8, rows_after=1, close_slice=SLICE)
    back = 8 * HOUR_S + 700
    again = everybody(n, seq=9, t=back, wh=2000)
    parts = steps(log.engine, again, at(back))
    assert len(parts) > n * 96 * 2 / SLICE / 2
    for part in parts:
        log.ingest(part, back)
    assert max(log.calls) <= 2 * SLICE


def test_steps_live_rows_behind_a_waiting_silence_are_one_step() -> None:
    log = silent(300, 8, rows_after=1, close_slice=SLICE)
    t = 8 * HOUR_S + 10
    assert len(steps(log.engine, everybody(300, seq=3, t=t, wh=1000), at(t))) == 1


def test_steps_more_rows_than_a_slice_are_several_steps() -> None:
    engine = Engine(IntervalRules(length_s=300, close_slice=SLICE))
    parts = steps(engine, everybody(1_000, seq=1, t=10, wh=0), at(10))
    assert [len(part) for part in parts] == [400, 400, 200]

"""The interval engine, situation by situation. Intervals are 60 s long and `T0` is on an edge."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gateway.domain.errors import InvariantBroken
from gateway.domain.intervals.config import AgreedConfig
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.late import DAMAGED
from gateway.domain.intervals.record import EnergySource, Quality
from gateway.domain.intervals.records import NO_RECORDS, RECORD_COLUMNS, IntervalRecords
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.types import NEVER_MS
from tests.builders.energy_batches import EVER_MS, T0, at, batch, row

LENGTH_S = 60


def engine(**rules: float) -> Engine:
    return Engine(IntervalRules(length_s=LENGTH_S, **rules))  # type: ignore[arg-type]


def ingest(
    e: Engine, *rows: dict[str, float], now: float | None = None, rated_w: float | None = None
) -> IntervalRecords:
    made = batch(rows)
    moment = at(now) if now is not None else at((int(made.t_ms.max()) - T0) / 1000)
    return e.ingest(made, moment, None if rated_w is None else np.full(len(made), rated_w)).records


def content(records: IntervalRecords) -> list[tuple[Any, ...]]:
    """(slot, interval number, revision, charge, discharge, coverage, samples)"""
    return list(
        zip(
            records.slots.tolist(),
            ((records.start_ms - T0) // (LENGTH_S * 1000)).tolist(),
            records.revision.tolist(),
            records.charge_wh.tolist(),
            records.discharge_wh.tolist(),
            records.coverage_pct.tolist(),
            records.samples.tolist(),
            strict=True,
        )
    )


def both(wh: float) -> dict[str, float]:
    return {"charge_counter_wh": wh, "discharge_counter_wh": 2 * wh}


def test_engine_counter_segment_over_an_edge_is_shared_by_time() -> None:
    e = engine()
    ingest(e, row(seq=1, t=50, **both(10)))
    records = ingest(e, row(seq=2, t=90, **both(50)))
    assert content(records) == [(0, 0, 1, 10.0, 20.0, pytest.approx(100 * 10 / 60), 1)]
    assert records.source.tolist() == [EnergySource.COUNTER]
    assert content(ingest(e, row(seq=3, t=120, **both(50)))) == [(0, 1, 1, 30.0, 60.0, 100.0, 2)]


def test_engine_sample_on_the_edge_completes_its_interval_and_closes_it() -> None:
    e = engine()
    assert not len(ingest(e, row(seq=1, t=30, **both(0))))
    assert content(ingest(e, row(seq=2, t=60, **both(3)))) == [(0, 0, 1, 3.0, 6.0, 50.0, 2)]


@pytest.mark.fault("F31")
def test_engine_counter_going_down_is_a_gap() -> None:
    e = engine()
    ingest(e, row(seq=1, t=10, **both(1000)), row(seq=2, t=20, **both(1001)))
    ingest(e, row(boot=2, seq=1, t=30, **both(0)), row(boot=2, seq=2, t=40, **both(2)))
    assert content(ingest(e, row(boot=2, seq=3, t=60, **both(2)))) == [
        (0, 0, 1, 3.0, 6.0, pytest.approx(100 * 40 / 60), 5)
    ]
    assert e.totals.counter_resets == 2


def test_engine_jump_beyond_the_rating_is_rejected_and_the_next_difference_counts() -> None:
    e = engine(counter_step_wh=1.0)
    ingest(e, row(seq=1, t=10, charge_counter_wh=0), rated_w=3600)
    ingest(e, row(seq=2, t=20, charge_counter_wh=13.1), row(seq=3, t=30, charge_counter_wh=20), rated_w=3600)
    records = ingest(e, row(seq=4, t=60, charge_counter_wh=50), rated_w=3600)
    assert records.charge_wh.tolist() == [pytest.approx(36.9)]
    assert np.isnan(records.discharge_wh).all()
    assert (e.totals.jumps, e.totals.jump_wh) == (1, 13.1)


def test_engine_gap_longer_than_an_interval_has_no_energy_at_first() -> None:
    e = engine()
    ingest(e, row(seq=1, t=10, **both(0)))
    records = ingest(e, row(seq=2, t=71, **both(7)))
    assert content(records)[0][1:3] == (0, 1)
    assert np.isnan(records.charge_wh[0])
    assert records.coverage_pct.tolist() == [0.0]
    assert records.quality.tolist() == [Quality.GAP]
    assert (e.totals.counter_gaps, e.totals.spread_wh) == (2, 0.0)
    assert content(ingest(e, row(seq=3, t=120, **both(8)))) == [(0, 1, 1, 1.0, 2.0, pytest.approx(100 * 49 / 60), 2)]


def test_engine_counter_sample_out_of_order_counts_as_sample_only() -> None:
    e = engine()
    ingest(e, row(seq=1, t=10, **both(0)))
    ingest(e, row(seq=3, t=30, **both(5)))
    ingest(e, row(seq=2, t=20, **both(4)))
    assert content(ingest(e, row(seq=4, t=60, **both(6)))) == [(0, 0, 1, 6.0, 12.0, pytest.approx(100 * 50 / 60), 4)]


def test_engine_spans_add_once_in_any_order_and_split_over_the_edge() -> None:
    e = engine()
    rows = [row(seq=i + 1, t=20 * (i + 1), span=20, charge_wh=2, discharge_wh=0.0) for i in range(3)]
    late, *others = rows
    ingest(e, *others[:1])
    ingest(e, late, late)
    records = ingest(e, others[1], row(seq=4, t=90, span=30, charge_wh=3, discharge_wh=9))
    assert content(records) == [(0, 0, 1, 6.0, 0.0, 100.0, 3)]
    assert records.source.tolist() == [EnergySource.INTEGRATED]
    split = ingest(e, row(seq=5, t=130, span=40, charge_wh=4, discharge_wh=8))
    assert content(split) == [(0, 1, 1, 6.0, 15.0, 100.0, 1)]


def test_engine_span_longer_than_an_interval_is_shared_by_time() -> None:
    e = engine()
    records = ingest(e, row(seq=1, t=60, span=60, charge_wh=1, discharge_wh=0), row(seq=2, t=180, span=120, charge_wh=6,
                  discharge_wh=2))  # fmt: skip
    assert content(records) == [
        (0, 0, 1, 1.0, 0.0, 100.0, 1),
        (0, 1, 1, 3.0, 1.0, 100.0, 0),
        (0, 2, 1, 3.0, 1.0, 100.0, 1),
    ]
    assert records.quality.tolist() == [0, Quality.SPREAD, Quality.SPREAD]


def test_engine_overlapping_spans_cap_the_coverage() -> None:
    e = engine()
    ingest(e, *(row(seq=i, t=50 + i, span=50, charge_wh=1, discharge_wh=0) for i in range(1, 5)))
    assert ingest(e, row(seq=9, t=60, span=6, charge_wh=1, discharge_wh=0)).coverage_pct.tolist() == [100.0]


def test_engine_device_that_had_a_counter_does_not_fall_back_to_spans() -> None:
    e = engine()
    ingest(e, row(seq=1, t=10, charge_counter_wh=0, charge_wh=1, discharge_wh=1))
    ingest(e, row(seq=2, t=20, charge_wh=5, discharge_wh=5))
    records = ingest(e, row(seq=3, t=60, charge_counter_wh=2, charge_wh=1, discharge_wh=1))
    assert content(records) == [(0, 0, 1, 2.0, 7.0, pytest.approx(100 * 30 / 60), 3)]
    assert records.source.tolist() == [EnergySource.INTEGRATED]
    assert e.totals.spans_beside_counter == 1


def test_engine_timer_closes_at_edge_plus_grace_and_not_before() -> None:
    e = engine()
    ingest(e, row(seq=1, t=50, **both(0)))
    assert not len(e.close_due(at(89.999)))
    assert [c[:3] for c in content(e.close_due(at(90)))] == [(0, 0, 1)]
    assert not len(e.close_due(at(1000)))


def test_engine_timer_on_backlog_waits_a_grace_after_it_arrived() -> None:
    e = engine()
    ingest(e, row(seq=1, t=50, **both(0)), now=5000)
    assert not len(e.close_due(at(5029)))
    assert len(e.close_due(at(5030))) == 1


def test_engine_timer_closes_in_slices() -> None:
    e = engine(close_slice=2)
    ingest(e, *(row(slot=slot, t=50, **both(0)) for slot in range(5)))
    assert [len(e.close_due(at(90))) for _ in range(4)] == [2, 2, 1, 0]


def test_engine_late_row_makes_a_full_revision_with_the_next_close() -> None:
    e = engine()
    span = {"span": 10, "charge_wh": 1.0, "discharge_wh": 0.0}
    ingest(e, row(seq=1, t=60, **span))
    ingest(e, row(seq=3, t=70, **span))
    assert not len(ingest(e, row(seq=2, t=20, **span)))
    records = ingest(e, row(seq=4, t=120, **span))
    assert [(c[1], c[2], c[3], c[6]) for c in content(records)] == [(0, 2, 2.0, 2), (1, 1, 2.0, 2)]


def test_engine_late_row_makes_a_revision_after_a_grace_without_another_close() -> None:
    e = engine()
    span = {"span": 10, "charge_wh": 1.0, "discharge_wh": 0.0}
    ingest(e, row(seq=1, t=60, **span))
    ingest(e, row(seq=2, t=20, **span), now=100)
    assert not len(e.close_due(at(129)))
    assert [(c[1], c[2], c[3]) for c in content(e.close_due(at(130)))] == [(0, 2, 2.0)]


@pytest.mark.fault("F13")
def test_engine_row_older_than_two_intervals_waits_for_its_record_and_makes_a_revision() -> None:
    e = engine()
    span = {"span": 10, "charge_wh": 1.5, "discharge_wh": 0.0}
    first = ingest(e, row(seq=1, t=20, soc_pct=40, battery_w=-540, **span), row(seq=3, t=70, **span))
    ingest(e, row(seq=4, t=130, **span), row(seq=5, t=190, **span))
    taken = e.ingest(batch([row(seq=2, t=40, soc_pct=41, battery_w=-60, **span)]), at(200), None)
    assert (taken.counts.late_rows, taken.counts.late_wh) == (1, 1.5)
    assert not len(e.close_due(at(215)))
    assert not len(e.repairs_due(at(229), 2_000, EVER_MS)[0])
    slots, starts = e.repairs_due(at(230), 2_000, EVER_MS)
    assert (slots.tolist(), starts.tolist()) == ([0], [T0])
    records = e.repair(slots, starts, first)
    assert content(records) == [(0, 0, 2, 3.0, 0.0, pytest.approx(100 * 20 / 60), 2)]
    assert records.battery_w_mean.tolist() == [pytest.approx(-300)]
    assert (records.soc_start_pct.tolist(), records.soc_end_pct.tolist()) == ([40.0], [40.0])
    assert records.quality.tolist() == [Quality.LATE | Quality.GAP]
    assert not len(e.repairs_due(at(1000), 2_000, EVER_MS)[0])


@pytest.mark.fault("F13")
def test_engine_interval_that_was_never_recorded_begins_with_its_late_data() -> None:
    e = engine()
    span = {"span": 60, "charge_wh": 1.0, "discharge_wh": 0.0}
    ingest(e, row(seq=1, t=60, **span), row(seq=9, t=540, **span), row(seq=10, t=600, **span))
    ingest(e, row(seq=4, t=240, **span), now=600)
    assert content(e.repair(*e.repairs_due(at(700), 2_000, EVER_MS), NO_RECORDS)) == [(0, 3, 1, 1.0, 0.0, 100.0, 1)]


@pytest.mark.fault("F13")
def test_engine_stored_samples_place_the_energy_of_a_gap() -> None:
    e = engine()
    records = ingest(e, row(seq=1, t=60, **both(0)), row(seq=2, t=120, **both(6)))
    assert records.charge_wh.tolist()[1:] == [6.0]
    ingest(e, row(seq=9, t=540, **both(48)))
    found = content(ingest(e, *(row(seq=i, t=60 * i, **both(10 * (i - 1))) for i in (3, 4)), now=545))
    found += content(e.close_due(at(575)))
    assert [c[1:6] for c in found] == [(2, 1, 14.0, 28.0, 100.0), (3, 1, 10.0, 20.0, 100.0)]
    assert not len(e.close_due(at(1144)))
    spread = e.close_due(at(1145))
    assert [(c[1], c[3], c[5]) for c in content(spread)] == [(n, pytest.approx(3.6), 100.0) for n in (4, 5, 6)]
    assert set(spread.quality.tolist()) == {Quality.SPREAD}
    assert [c[1:4] for c in content(e.close_due(at(1300)))] == [(7, 1, pytest.approx(3.6)), (8, 2, pytest.approx(3.6))]
    assert (e.totals.spread_wh, e.totals.unattributed_wh) == pytest.approx((54.0, 0.0))


def test_engine_gap_longer_than_two_days_is_not_spread_and_counted() -> None:
    e = engine()
    ingest(e, row(seq=1, t=60, **both(0)))
    ingest(e, row(seq=2, t=60 + 50 * 3600, **both(1000)))
    assert (e.totals.unattributed_wh, e.totals.spread_wh) == (3000.0, 0.0)
    assert not len(e.close_due(at(60 + 51 * 3600)).charge_wh[1:])


@pytest.mark.fault("F31")
def test_engine_counter_that_rolls_over_goes_on() -> None:
    e = engine()
    ingest(e, row(seq=1, t=10, charge_counter_wh=65_530), row(seq=2, t=20, charge_counter_wh=4), rated_w=3600)
    records = ingest(e, row(seq=3, t=60, charge_counter_wh=14), rated_w=3600)
    assert records.charge_wh.tolist() == [20.0]
    assert (e.totals.rollovers, e.totals.counter_resets) == (1, 0)


@pytest.mark.fault("F31")
def test_engine_counter_reset_far_from_its_end_is_no_rollover() -> None:
    e = engine()
    ingest(e, row(seq=1, t=10, charge_counter_wh=60_000), row(seq=2, t=20, charge_counter_wh=4), rated_w=3600)
    records = ingest(e, row(seq=3, t=60, charge_counter_wh=14), rated_w=3600)
    assert records.charge_wh.tolist() == [10.0]
    assert (e.totals.rollovers, e.totals.counter_resets) == (0, 1)
    assert records.quality.tolist() == [Quality.RESET | Quality.GAP]


def coarse(step_wh: float, *, rated_w: float = 6000.0, length_s: int = LENGTH_S) -> Engine:
    e = engine()
    e.agree(agreed(step_wh, rated_w=rated_w, length_s=length_s))
    return e


def agreed(step_wh: float = 1.0, *, rated_w: float = 6000.0, length_s: int = LENGTH_S) -> AgreedConfig:
    return AgreedConfig(
        slots=np.zeros(1, dtype=np.int32), length_s=np.array([length_s]), counter_step_wh=np.array([step_wh]),
        rated_w=np.array([rated_w]),
    )  # fmt: skip


@pytest.mark.parametrize(("step_wh", "source"), [(1.0, EnergySource.COUNTER), (1.1, EnergySource.INTEGRATED)])
def test_engine_counter_is_used_up_to_a_step_of_one_percent_of_an_interval(step_wh: float, source: int) -> None:
    """6 kW for a minute are 100 Wh."""
    e = coarse(step_wh)
    ingest(e, row(seq=1, t=1, **both(0)))
    records = ingest(e, row(seq=2, t=60, span=59, charge_wh=8.0, discharge_wh=9.0, **both(10)))
    assert records.source.tolist() == [source]
    expected = (10.0, 20.0) if source == EnergySource.COUNTER else (8.0, 9.0)
    assert (records.charge_wh[0], records.discharge_wh[0]) == expected


def test_engine_mean_power_stands_in_for_energy_that_is_not_reported() -> None:
    e = engine()
    records = ingest(e, row(seq=1, t=30, span=30, battery_w=-120), row(seq=2, t=60, span=30, battery_w=240))
    assert content(records) == [(0, 0, 1, 1.0, 2.0, 100.0, 2)]
    assert records.source.tolist() == [EnergySource.INTEGRATED]


def test_engine_coarse_counter_fills_a_gap() -> None:
    e = coarse(100.0)
    span = {"span": 60, "charge_wh": 50.0, "discharge_wh": 0.0}
    ingest(e, row(seq=1, t=60, charge_counter_wh=1000, discharge_counter_wh=0, **span))
    ingest(e, row(seq=6, t=360, charge_counter_wh=1300, discharge_counter_wh=0, **span))
    found = e.close_due(at(1000))
    assert [(c[1], c[3]) for c in content(found)] == [(1, 62.5), (2, 62.5), (3, 62.5)]
    assert found.quality.tolist() == [Quality.SPREAD] * 3


@pytest.mark.parametrize(("counted", "drifted"), [(2400.0, 0), (2600.0, 0), (3100.0, 1)])
def test_engine_integration_is_compared_with_a_coarse_counter_once_a_day(counted: float, drifted: int) -> None:
    e = coarse(100.0)
    day = 86_400 - T0 // 1000 % 86_400
    for i in range(26):
        t = day + 3600 * i - 1000
        made = {"charge_wh": 100.0 / 60, "discharge_wh": 0.0, "discharge_counter_wh": 0.0}
        ingest(e, *(
            row(boot=i, seq=k + 1, t=t + 60 * k, span=60, charge_counter_wh=(counted / 24) * (i + k / 60), **made)
            for k in range(60)
        ))  # fmt: skip
    assert (e.totals.days_compared, e.totals.days_drifted) == (4, drifted)


MIDNIGHT_S = 86_400 - T0 // 1000 % 86_400


def hour(i: float, counted: float) -> dict[str, float]:
    """100 Wh of charge in the hour before, as its span tells, and the counter after it; from midnight on."""
    return row(
        seq=int(i) + 1, t=MIDNIGHT_S + 3600 * i, span=3600, charge_wh=100.0, discharge_wh=0.0,
        charge_counter_wh=counted, discharge_counter_wh=0.0,
    )  # fmt: skip


def joined(*records: IntervalRecords) -> IntervalRecords:
    """The newest of each interval."""
    log = IntervalRecords(**{n: np.concatenate([getattr(c, n) for c in records]) for n in RECORD_COLUMNS})
    _, newest = np.unique(log.start_ms[::-1], return_index=True)
    return log.rows(len(log) - 1 - newest)


def test_engine_days_are_compared_one_by_one_however_many_a_batch_brings() -> None:
    hours = [hour(i, 125.0 * (i + 3)) | {"seq": i + 4} for i in range(-3, 40)]
    singly, at_once, halved = coarse(100.0, length_s=3600), coarse(100.0, length_s=3600), coarse(100.0, length_s=3600)
    for one in hours:
        ingest(singly, one)
    ingest(at_once, *hours)
    ingest(halved, *hours[:20])
    ingest(halved, *hours[20:])
    for engine in (singly, at_once, halved):
        assert (engine.totals.days_compared, engine.totals.days_drifted, engine.totals.drift_wh) == (4, 1, 600.0)
    for name, column in singly.drift.columns().items():
        if name != "ready_ms":
            assert column.tolist() == at_once.drift.columns()[name].tolist() == halved.drift.columns()[name].tolist()


def test_engine_day_is_scaled_to_its_coarse_counter_once_the_log_has_all_of_it() -> None:
    e = coarse(100.0, length_s=3600)
    log = joined(*(ingest(e, hour(i, 125.0 * i)) for i in range(25)))
    assert (e.totals.days_compared, e.totals.days_drifted, e.totals.drift_wh, e.to_repair) == (2, 1, 600.0, 1)
    assert not len(e.repairs_due(at(MIDNIGHT_S + 90_000), 2_000, EVER_MS)[0])
    log = joined(log, *(ingest(e, hour(i, 125.0 * i)) for i in (25, 26)))
    assert not len(e.repairs_due(at(MIDNIGHT_S + 26 * 3600), 10, EVER_MS)[0])
    slots, starts = e.repairs_due(at(MIDNIGHT_S + 26 * 3600 + 60), 10, EVER_MS)
    assert starts.tolist() == [T0 + 1000 * (MIDNIGHT_S + 3600 * i) for i in range(10)]
    some = e.repair(slots, starts, log)
    slots, starts = e.repairs_due(at(MIDNIGHT_S + 26 * 3600 + 60), 2_000, EVER_MS)
    scaled = joined(some, e.repair(slots, starts, log))
    assert scaled.charge_wh.tolist() == [125.0] * 24
    assert scaled.discharge_wh.tolist() == [0.0] * 24
    assert scaled.revision.tolist() == [2] * 24
    assert scaled.quality.tolist() == [Quality.DRIFT] * 24
    assert scaled.source.tolist() == [EnergySource.INTEGRATED] * 24
    assert e.to_repair == 0


def test_engine_day_with_a_gap_is_scaled_after_its_energy_was_shared() -> None:
    e = coarse(100.0, length_s=3600)
    told_hours = (*range(20), 24, 25, 26)
    log = joined(*(ingest(e, hour(i, 125.0 * i)) for i in told_hours))
    assert not len(e.repairs_due(at(MIDNIGHT_S + 27 * 3600), 2_000, EVER_MS)[0])
    log = joined(log, e.close_due(at(MIDNIGHT_S + 27 * 3600)))
    later = at(MIDNIGHT_S + 28 * 3600)
    scaled = joined(log, e.repair(*e.repairs_due(later, 2_000, EVER_MS), log))
    day = scaled.rows(
        (scaled.start_ms >= T0 + 1000 * MIDNIGHT_S) & (scaled.start_ms < T0 + 1000 * (MIDNIGHT_S + 86_400))
    )
    assert len(day) == 24
    assert day.charge_wh.sum() == pytest.approx(24 * 125.0)
    assert e.to_repair == 0


def test_engine_samples_stored_in_a_gap_are_not_integrated_twice() -> None:
    e = coarse(100.0, length_s=3600)
    for i in (*range(12), 20, *range(13, 20), *range(21, 25)):
        ingest(e, hour(i, 100.0 * i), now=MIDNIGHT_S + 3600 * max(i, 20 if i > 12 else i))
    assert (e.totals.days_compared, e.totals.days_drifted, e.totals.counter_gaps) == (2, 0, 2)


def test_engine_day_that_is_off_by_more_than_twice_is_left_as_it_was() -> None:
    e = coarse(100.0, length_s=3600)
    records = joined(*(ingest(e, hour(i, 210.0 * i)) for i in range(28)))
    assert (e.totals.days_drifted, e.to_repair) == (1, 0)
    assert [bool(q & Quality.DRIFT) for q in records.quality.tolist()] == [i == 24 for i in range(len(records))]


def counted_hours(*, over: dict[int, float]) -> list[float]:
    """A counter by the hour that tells 100 Wh in each, other than in some."""
    return list(itertools.accumulate(over.get(i, 0.0 if i == 0 else 100.0) for i in range(27)))


@pytest.mark.fault("F31")
@pytest.mark.parametrize("over", [{12: 2_100.0}, {4: -300.0}], ids=["jump", "reset"])
def test_engine_day_is_compared_anew_from_where_its_counter_broke(over: dict[int, float]) -> None:
    """What was left out on purpose does not come back with the day."""
    e = coarse(100.0, length_s=3600, rated_w=600)
    for i, counted in enumerate(counted_hours(over=over)):
        ingest(e, hour(i, counted), rated_w=600)
    assert e.totals.jumps + e.totals.counter_resets == 1
    assert (e.totals.days_drifted, e.to_repair) == (0, 0)


def test_engine_step_of_a_coarse_counter_is_no_jump_and_its_day_is_scaled() -> None:
    """A register of whole kilowatt hours moves by more than the battery could since the sample before."""
    e = coarse(1_000.0, length_s=3600)
    for i in range(27 * 12):
        counted = 1_000.0 * (i * 125 // 1_000)
        told_ = {"charge_wh": 100.0, "charge_counter_wh": counted, "discharge_counter_wh": 0.0, "discharge_wh": 0.0}
        ingest(e, row(seq=i + 1, t=MIDNIGHT_S + 300 * i, span=300, **told_), rated_w=6_000)
    assert (e.totals.jumps, e.totals.days_drifted, e.to_repair) == (0, 1, 1)


def test_engine_gap_energy_beyond_what_is_placed_does_not_come_back_with_the_day() -> None:
    e = coarse(100.0, length_s=3600)
    for i in (*range(13), 64, *range(65, 100)):
        ingest(e, hour(i, 100.0 * i))
    assert e.totals.unattributed_wh == 5_100.0
    assert (e.totals.days_drifted, e.to_repair) == (0, 0)


@pytest.mark.parametrize("by_power", [False, True])
def test_engine_span_of_several_intervals_is_integrated_once(by_power: bool) -> None:
    e = coarse(100.0, length_s=3600)
    told_ = {"charge_wh": np.nan, "battery_w": -100.0} if by_power else {}
    for i in (*range(11), 14, *range(15, 27)):
        long = {"span_ms": 4 * 3_600_000, "charge_wh": 400.0} if i == 14 else {}
        ingest(e, hour(i, 100.0 * i) | long | told_)
    assert (e.totals.days_compared, e.totals.days_drifted, e.to_repair) == (2, 0, 0)


def test_engine_gap_of_a_device_that_reports_power_has_its_own_span_once() -> None:
    e = coarse(100.0, length_s=3600)
    power = {"charge_wh": np.nan, "discharge_wh": np.nan, "battery_w": -1_000.0}
    log = joined(*(ingest(e, hour(i, 1_000.0 * i) | power) for i in (*range(11), 15, 16, 17)))
    log = joined(log, e.close_due(at(MIDNIGHT_S + 18 * 3600)))
    log = joined(log, e.repair(*e.repairs_due(at(MIDNIGHT_S + 19 * 3600), 100, EVER_MS), log))
    assert log.charge_wh[log.start_ms >= T0 + 1000 * MIDNIGHT_S].tolist() == [1_000.0] * 17


def test_engine_energy_that_comes_after_the_comparison_is_added() -> None:
    """Samples of five minutes; half an hour over midnight comes newest first."""
    e = coarse(100.0, length_s=3600)
    samples = [
        row(seq=i, t=MIDNIGHT_S + 300 * i, span=300, charge_wh=100.0, discharge_wh=0.0, charge_counter_wh=100.0 * i,
            discharge_counter_wh=0.0)
        for i in range(1, 350)
    ]  # fmt: skip
    log = joined(*(ingest(e, *part) for part in (samples[:283], samples[289:290])))
    assert e.to_repair == 1
    log = joined(log, *(ingest(e, *part) for part in (samples[283:289], samples[290:])))
    scaled = joined(log, e.repair(*e.repairs_due(at(MIDNIGHT_S + 30 * 3600), 100, EVER_MS), log))
    whole = scaled.charge_wh[(scaled.start_ms - T0) // 1000 >= MIDNIGHT_S][:28]
    assert whole.tolist() == pytest.approx([1_200.0] * 28)


def test_engine_day_of_another_length_is_not_scaled() -> None:
    e = coarse(100.0, length_s=3600)
    for i in range(13):
        ingest(e, hour(i, 125.0 * i))
    e.agree(agreed(100.0, length_s=900))
    for i in range(13, 27):
        ingest(e, hour(i, 125.0 * i) | {"span_ms": 900_000})
    e.close_due(at(MIDNIGHT_S + 28 * 3600))
    _, starts = e.repairs_due(at(MIDNIGHT_S + 29 * 3600), 2_000, EVER_MS)
    assert starts.min(initial=T0 + 1000 * (MIDNIGHT_S + 13 * 3600)) >= T0 + 1000 * (MIDNIGHT_S + 12 * 3600)


def test_engine_clock_that_went_back_repairs_nothing_before_the_log_is_known() -> None:
    e = engine()
    span = {"span": 10, "charge_wh": 1.0}
    ingest(e, row(seq=1, t=590, **span), row(seq=2, t=650, **span))
    ingest(e, row(seq=3, t=100, **span), now=655)
    assert len(e.late) == 1
    assert not len(e.repairs_due(at(600), 100, NEVER_MS)[0])
    assert len(e.repairs_due(at(600), 100, T0)[0]) == 1


@pytest.mark.fault("F38")
def test_engine_damaged_record_is_not_revised() -> None:
    e = engine()
    span = {"span": 10, "charge_wh": 1.0, "discharge_wh": 0.0}
    log = joined(ingest(e, *(row(seq=i, t=60 * i, **span) for i in range(1, 6))))
    ingest(e, row(seq=9, t=30, **span), row(seq=10, t=90, **span), now=300)
    base = log.rows(log.start_ms == T0)
    slots, starts = e.repairs_due(at(400), 100, EVER_MS)
    records = e.repair(slots, starts, replace(base, revision=np.array([DAMAGED], dtype=np.int32)))
    assert content(records) == [(0, 1, 1, 1.0, 0.0, pytest.approx(100 / 6), 1)]
    assert (e.totals.lost_rows, e.totals.lost_wh, e.to_repair) == (1, 1.0, 0)


@pytest.mark.parametrize("by_power", [False, True])
def test_engine_stored_rows_of_a_coarse_gap_are_counted_once(by_power: bool) -> None:
    """The register shows what comes later already: its step is more than a span."""
    e = coarse(1_000.0, length_s=300)
    told_ = {"battery_w": -1_000.0} if by_power else {"charge_wh": 1_000.0 / 60}

    def minute(i: int) -> dict[str, float]:
        shown = -(-i * 1_000 // 60_000) * 1_000.0
        return row(boot=1 + (i > 180), seq=i, t=60 * i, span=60, charge_counter_wh=shown, **told_)

    log = joined(*(ingest(e, minute(i), now=60 * i) for i in (*range(1, 61), 181)))
    for first in range(61, 181, 20):
        log = joined(log, ingest(e, *(minute(i) for i in range(first, first + 20)), now=60 * 182))
    log = joined(log, *(ingest(e, minute(i), now=60 * i) for i in range(182, 211)))
    log = joined(log, e.close_due(at(60 * 230)))
    log = joined(log, e.repair(*e.repairs_due(at(60 * 240), 100, EVER_MS), log))
    assert np.nansum(log.charge_wh) == pytest.approx(210 * 1_000 / 60, abs=1_000 / 60)
    assert e.to_repair == 0


@pytest.mark.fault("F11")
def test_engine_day_that_a_clock_ahead_has_ended_is_forgotten() -> None:
    e = coarse(100.0, length_s=3600)
    for i in range(13):
        ingest(e, hour(i, 125.0 * i))
    ingest(e, hour(13, 125.0 * 13) | {"t_ms": 0}, now=MIDNIGHT_S + 36 * 3600)
    assert e.to_repair == 1
    while len(e.close_due(at(MIDNIGHT_S + 14 * 3600))):
        pass
    assert e.to_repair == 0


def test_engine_state_without_columns_of_days_loads_without_days() -> None:
    e = engine()
    columns = {name: column for name, column in e.columns().items() if name != "days.counted_wh"}
    again = engine()
    again.load(columns | {"days.factor": np.ones(0)})
    assert again.to_repair == 0


def test_engine_loaded_state_is_the_same_to_the_sign_of_zero() -> None:
    e = engine()
    ingest(e, row(seq=1, t=10, battery_w=-0.0, grid_w=-0.0))
    columns = {name: column.copy() for name, column in e.columns().items()}
    again = engine()
    again.load(columns)
    assert {name: column.tobytes() for name, column in again.columns().items()} == {
        name: column.tobytes() for name, column in columns.items()
    }
    again.renumber(np.array([0]))
    assert again.columns()["cur.power_wms"].tobytes() == columns["cur.power_wms"].tobytes()


def test_engine_days_that_wait_go_with_their_device() -> None:
    e = coarse(100.0, length_s=3600)
    for i in range(25):
        ingest(e, hour(i, 125.0 * i))
    e.renumber(np.array([-1, 0]))
    assert e.drift.days.slots.tolist() == [1]
    e.renumber(np.array([-1]))
    assert e.to_repair == 0


def test_engine_soc_at_the_edges_is_that_of_the_nearest_sample() -> None:
    e = engine()
    ingest(e, row(seq=1, t=10, soc_pct=40), row(seq=2, t=58, soc_pct=44))
    records = ingest(e, row(seq=3, t=75, soc_pct=45), row(seq=4, t=110, soc_pct=47), row(seq=5, t=121, soc_pct=48))
    assert records.soc_start_pct.tolist() == [40.0, 44.0]
    assert records.soc_end_pct.tolist() == [44.0, 47.0]


def test_engine_site_powers_are_means_over_the_time_they_are_known() -> None:
    e = engine()
    ingest(e, row(seq=1, t=20, span=20, grid_w=300, pv_w=100))
    records = ingest(e, row(seq=2, t=60, span=10, grid_w=-300))
    assert records.grid_w_mean.tolist() == [pytest.approx(100)]
    assert records.pv_w_mean.tolist() == [100.0]
    assert np.isnan(records.load_w_mean).all()


@pytest.mark.fault("F30")
def test_engine_power_beyond_the_rating_is_unknown() -> None:
    e = engine()
    ingest(e, row(seq=1, t=30, span=30, battery_w=50_000), rated_w=5000)
    records = ingest(e, row(seq=2, t=60, span=30, battery_w=4000), rated_w=5000)
    assert (records.battery_w_max.tolist(), records.battery_w_mean.tolist()) == ([4000.0], [4000.0])
    assert records.quality.tolist() == [Quality.JUMP | Quality.GAP]
    assert e.totals.power_refused == 1


@pytest.mark.fault("F29")
def test_engine_counter_and_power_that_disagree_are_marked() -> None:
    e = engine()
    ingest(e, row(seq=1, t=0, **both(0)))
    agreeing = ingest(e, row(seq=2, t=60, span=60, battery_w=600, **both(10)))
    disagreeing = ingest(e, row(seq=3, t=120, span=60, battery_w=600, **both(110)))
    assert agreeing.quality.tolist() == [0]
    assert disagreeing.quality.tolist() == [Quality.DISAGREES]


def test_engine_length_is_each_devices_own() -> None:
    e = engine()
    e.agree(agreed(length_s=180))
    rows = [
        row(slot=slot, seq=i, t=30 * i, span=30, charge_wh=1, discharge_wh=0) for slot in (0, 1) for i in range(1, 7)
    ]
    assert [c[:4] for c in content(ingest(e, *rows))] == [
        (0, 0, 1, 6.0),
        (1, 0, 1, 2.0),
        (1, 1, 1, 2.0),
        (1, 2, 1, 2.0),
    ]


def test_engine_new_config_closes_open_intervals_of_that_device_only() -> None:
    e = engine()
    rows = [row(slot=slot, seq=1, t=30, span=30, charge_wh=1, discharge_wh=0) for slot in (0, 1)]
    ingest(e, *rows)
    records = e.agree(agreed(length_s=180))
    assert content(records) == [(0, 0, 1, 1.0, 0.0, 50.0, 1)]
    assert records.quality.tolist() == [Quality.CUT | Quality.GAP]
    assert records.length_s.tolist() == [LENGTH_S]
    taken = e.ingest(batch([row(slot=0, seq=2, t=200, span=30, charge_wh=3, discharge_wh=0)]), at(200), None)
    assert taken.counts.lost_rows == 0
    assert [c[:3] for c in content(e.close_due(at(400)))] == [(0, 3, 1), (1, 0, 1)]


@pytest.mark.fault("F12")
@pytest.mark.parametrize("offset_s", [-7 * 3600, -8 * 3600, -420, -1800])
def test_engine_clock_that_is_always_off_by_the_same_is_corrected(offset_s: int) -> None:
    """Local time, daylight saving, skew: after six samples the times are corrected, until the clock is right again."""
    e = engine()
    records: list[tuple[Any, ...]] = []
    for i in range(1, 20):
        records += content(ingest(e, row(seq=i, t=10 * i + offset_s, charge_wh=1, discharge_wh=0), now=10 * i))
    records += content(e.close_due(at(1000)))
    assert e.totals.time_corrected == 14
    assert sum(c[6] for c in records if c[1] >= 0) == 14
    ingest(e, row(seq=30, t=300, charge_wh=1, discharge_wh=0), now=300)
    assert e.totals.time_corrected == 14


@pytest.mark.fault("F12")
def test_engine_backlog_is_old_but_its_time_is_used() -> None:
    e = engine()
    rows = [row(seq=i, t=10 * i, charge_wh=1, discharge_wh=0) for i in range(1, 61)]
    for i, part in enumerate(np.array_split(np.arange(60), 12)):
        ingest(e, *(rows[k] for k in part), now=4000 + 5 * i)
    assert e.totals.time_replaced == 0


@pytest.mark.fault("F11")
@pytest.mark.parametrize("seconds", [3 * 3600, 2 * 86_400])
def test_engine_gateway_clock_that_jumps_makes_no_interval_twice(seconds: int) -> None:
    """Back and forth: what is closed stays a partition of time, identities are given once."""
    e = engine()
    given: dict[tuple[int, int], int] = {}
    log = NO_RECORDS
    for i in range(1, 200):
        shift = -seconds if 60 < i < 90 else seconds if 120 < i < 150 else 0
        rows = [row(seq=i, t=10 * i, charge_counter_wh=i, discharge_counter_wh=0)]
        now = at(10 * i + shift)
        steps = [e.close_due(now), ingest(e, *rows, now=10 * i + shift)]
        slots, starts = e.repairs_due(now, 2_000, EVER_MS)
        bases = [i for i, start in enumerate(log.start_ms.tolist()) if start in starts]
        steps.append(e.repair(slots, starts, log.rows(np.array(bases, dtype=np.int64))))
        log = IntervalRecords(**{n: np.concatenate([getattr(c, n) for c in (log, *steps)]) for n in RECORD_COLUMNS})
        _, newest = np.unique(log.start_ms[::-1], return_index=True)
        log = log.rows(len(log) - 1 - newest)
        for records in steps:
            for start, revision, length in zip(records.start_ms, records.revision, records.length_s, strict=True):
                assert start % (length * 1000) == 0
                assert revision == given.get((0, int(start)), 0) + 1
                given[(0, int(start))] = int(revision)
                assert records.charge_wh.min() >= 0 or np.isnan(records.charge_wh).any()
    assert (e.cur.start_ms[0], e.discharge.wh[0]) == (T0 + 1_980_000, 0.0)
    assert e.totals.counter_resets + e.totals.jumps == 0


def test_engine_interval_that_was_skipped_closes_when_its_row_comes() -> None:
    e = engine()
    span = {"span": 10, "charge_wh": 1.0, "discharge_wh": 0.0}
    ingest(e, row(seq=1, t=20, **span))
    ingest(e, row(seq=3, t=200, **span))
    records = ingest(e, row(seq=2, t=100, **span))
    assert [(c[1], c[2]) for c in content(records)] == [(1, 1)]


def test_engine_backlog_of_several_intervals_closes_each_once_in_order() -> None:
    e = engine()
    rows = [row(seq=i, t=10 * i, **both(i)) for i in range(1, 31)]
    records = ingest(e, *rows, now=900)
    assert [(c[1], c[2], c[6]) for c in content(records)] == [(i, 1, 6) for i in range(5)]
    assert records.charge_wh.tolist() == [5.0, 6.0, 6.0, 6.0, 6.0]
    assert records.coverage_pct[1:].tolist() == [100.0] * 4


@pytest.mark.fault("F12")
def test_engine_implausible_device_time_is_replaced_and_counted() -> None:
    e = engine()
    taken = e.ingest(batch([row(seq=1, t=-T0 / 1000, **both(0)), row(seq=2, t=99_999, **both(0))]), at(30), None)
    assert taken.counts.time_replaced == 2
    assert [c[1] for c in content(e.close_due(at(90)))] == [0]


def test_engine_first_interval_and_gap_make_no_empty_records() -> None:
    e = engine()
    ingest(e, row(slot=3, seq=1, t=500, **both(0)))
    records = e.close_due(at(1000))
    assert [c[:3] for c in content(records)] == [(3, 8, 1)]
    assert np.isnan(records.charge_wh).all()
    assert not len(e.close_due(at(100_000)))


def test_engine_power_and_soc_are_those_of_the_interval() -> None:
    e = engine()
    ingest(
        e, row(seq=1, t=20, span=20, battery_w=100, soc_pct=40), row(seq=2, t=30, span=10, battery_w=-200, soc_pct=41)
    )
    ingest(e, row(seq=3, t=40))
    ingest(e, row(seq=4, t=25, span=10, soc_pct=99))
    records = ingest(e, row(seq=5, t=70, battery_w=7, soc_pct=50))
    assert records.battery_w_mean.tolist() == [0.0]
    assert (records.battery_w_min.tolist(), records.battery_w_max.tolist()) == ([-200.0], [100.0])
    assert records.soc_end_pct.tolist() == [41.0]


def test_engine_negative_numbers_are_malformed_and_not_counted_as_samples() -> None:
    taken = engine().ingest(batch([row(seq=-1, **both(0)), row(boot=-1), row(seq=1)]), at(10), None)
    assert (taken.counts.malformed, taken.new.tolist()) == (2, [False, False, True])


def test_engine_new_length_closes_open_intervals_and_never_overlaps() -> None:
    e = engine()
    ingest(e, row(seq=1, t=10, **both(0)), row(seq=2, t=20, **both(1)))
    assert content(e.relength(IntervalRules(length_s=90)))[0][:4] == (0, 0, 1, 1.0)
    records = ingest(
        e, row(seq=3, t=80, **both(2)), row(seq=4, t=100, **both(4)), row(seq=5, t=180, **both(8)), now=200
    )
    assert records.start_ms.tolist() == [T0 + 90_000]
    assert records.charge_wh.tolist() == [pytest.approx(5.0)]
    assert (e.totals.late_rows, e.totals.lost_rows) == (0, 1)


def test_engine_length_that_does_not_divide_a_day_is_refused() -> None:
    with pytest.raises(InvariantBroken):
        Engine(IntervalRules(length_s=7))
    assert Engine(IntervalRules(length_s=900)).rules.length_ms == 900_000


def test_engine_renumbered_devices_keep_their_state() -> None:
    e = engine()
    ingest(e, row(slot=0, t=10, **both(0)), row(slot=1, t=10, **both(100)))
    e.renumber(np.array([1, -1, 0]))
    records = ingest(
        e,
        row(slot=0, seq=2, t=60, **both(101)),
        row(slot=1, seq=1, t=60, **both(5)),
        row(slot=2, seq=1, t=60, **both(9)),
    )
    assert [(c[0], c[6]) for c in content(records)] == [(0, 2), (1, 1)]
    assert records.charge_wh[0] == 1.0
    assert e.totals.duplicates == 1

"""The interval engine, situation by situation. Intervals are 60 s long and `T0` is on an edge."""

from typing import Any

import numpy as np
import pytest

from gateway.domain.energy import Rules
from gateway.domain.errors import InvariantBroken
from gateway.domain.intervals import Closes, Engine
from gateway.domain.model import EnergySource
from tests.energy_batches import T0, at, batch, row

LENGTH_S = 60


def engine(**rules: float) -> Engine:
    return Engine(Rules(length_s=LENGTH_S, **rules))  # type: ignore[arg-type]


def take(e: Engine, *rows: dict[str, float], now: float | None = None, rated_w: float | None = None) -> Closes:
    made = batch(rows)
    moment = at(now) if now is not None else at((int(made.t_ms.max()) - T0) / 1000)
    return e.take(made, moment, None if rated_w is None else np.full(len(made), rated_w)).closes


def told(closes: Closes) -> list[tuple[Any, ...]]:
    """(slot, interval number, revision, charge, discharge, coverage, samples)"""
    return list(
        zip(
            closes.slots.tolist(),
            ((closes.start_ms - T0) // (LENGTH_S * 1000)).tolist(),
            closes.revision.tolist(),
            closes.charge_wh.tolist(),
            closes.discharge_wh.tolist(),
            closes.coverage_pct.tolist(),
            closes.samples.tolist(),
            strict=True,
        )
    )


def both(wh: float) -> dict[str, float]:
    return {"charge_counter_wh": wh, "discharge_counter_wh": 2 * wh}


def test_engine_counter_segment_over_an_edge_is_shared_by_time() -> None:
    e = engine()
    take(e, row(seq=1, t=50, **both(10)))
    closes = take(e, row(seq=2, t=90, **both(50)))
    assert told(closes) == [(0, 0, 1, 10.0, 20.0, pytest.approx(100 * 10 / 60), 1)]
    assert closes.source.tolist() == [EnergySource.COUNTER]
    assert told(take(e, row(seq=3, t=120, **both(50)))) == [(0, 1, 1, 30.0, 60.0, 100.0, 2)]


def test_engine_sample_on_the_edge_completes_its_interval_and_closes_it() -> None:
    e = engine()
    assert not len(take(e, row(seq=1, t=30, **both(0))))
    assert told(take(e, row(seq=2, t=60, **both(3)))) == [(0, 0, 1, 3.0, 6.0, 50.0, 2)]


def test_engine_counter_going_down_is_a_gap_f31() -> None:
    e = engine()
    take(e, row(seq=1, t=10, **both(1000)), row(seq=2, t=20, **both(1001)))
    take(e, row(boot=2, seq=1, t=30, **both(0)), row(boot=2, seq=2, t=40, **both(2)))
    assert told(take(e, row(boot=2, seq=3, t=60, **both(2)))) == [(0, 0, 1, 3.0, 6.0, pytest.approx(100 * 40 / 60), 5)]
    assert e.totals.counter_resets == 2


def test_engine_jump_beyond_the_rating_is_rejected_and_the_next_difference_counts() -> None:
    e = engine(counter_step_wh=1.0)
    take(e, row(seq=1, t=10, charge_counter_wh=0), rated_w=3600)
    take(e, row(seq=2, t=20, charge_counter_wh=13.1), row(seq=3, t=30, charge_counter_wh=20), rated_w=3600)
    closes = take(e, row(seq=4, t=60, charge_counter_wh=50), rated_w=3600)
    assert closes.charge_wh.tolist() == [pytest.approx(36.9)]
    assert np.isnan(closes.discharge_wh).all()
    assert (e.totals.jumps, e.totals.jump_wh) == (1, 13.1)


def test_engine_silence_longer_than_an_interval_attributes_nothing_and_counts_it() -> None:
    e = engine()
    take(e, row(seq=1, t=10, **both(0)))
    closes = take(e, row(seq=2, t=71, **both(7)))
    assert told(closes)[0][1:3] == (0, 1)
    assert np.isnan(closes.charge_wh[0])
    assert closes.coverage_pct.tolist() == [0.0]
    assert (e.totals.silent_segments, e.totals.unattributed_wh) == (2, 21.0)
    assert told(take(e, row(seq=3, t=120, **both(8)))) == [(0, 1, 1, 1.0, 2.0, pytest.approx(100 * 49 / 60), 2)]


def test_engine_counter_sample_out_of_order_counts_as_sample_only() -> None:
    e = engine()
    take(e, row(seq=1, t=10, **both(0)))
    take(e, row(seq=3, t=30, **both(5)))
    take(e, row(seq=2, t=20, **both(4)))
    assert told(take(e, row(seq=4, t=60, **both(6)))) == [(0, 0, 1, 6.0, 12.0, pytest.approx(100 * 50 / 60), 4)]


def test_engine_spans_add_once_in_any_order_and_split_over_the_edge() -> None:
    e = engine()
    rows = [row(seq=i + 1, t=20 * (i + 1), span=20, charge_wh=2, discharge_wh=0.0) for i in range(3)]
    late, *others = rows
    take(e, *others[:1])
    take(e, late, late)
    closes = take(e, others[1], row(seq=4, t=90, span=30, charge_wh=3, discharge_wh=9))
    assert told(closes) == [(0, 0, 1, 6.0, 0.0, 100.0, 3)]
    assert closes.source.tolist() == [EnergySource.ENERGY]
    split = take(e, row(seq=5, t=130, span=40, charge_wh=4, discharge_wh=8))
    assert told(split) == [(0, 1, 1, 6.0, 15.0, 100.0, 1)]


def test_engine_overlapping_spans_cap_the_coverage() -> None:
    e = engine()
    take(e, *(row(seq=i, t=50 + i, span=50, charge_wh=1, discharge_wh=0) for i in range(1, 5)))
    assert take(e, row(seq=9, t=60, span=6, charge_wh=1, discharge_wh=0)).coverage_pct.tolist() == [100.0]


def test_engine_device_that_had_a_counter_does_not_fall_back_to_spans() -> None:
    e = engine()
    take(e, row(seq=1, t=10, charge_counter_wh=0, charge_wh=1, discharge_wh=1))
    take(e, row(seq=2, t=20, charge_wh=5, discharge_wh=5))
    closes = take(e, row(seq=3, t=60, charge_counter_wh=2, charge_wh=1, discharge_wh=1))
    assert told(closes) == [(0, 0, 1, 2.0, 7.0, pytest.approx(100 * 30 / 60), 3)]
    assert closes.source.tolist() == [EnergySource.COUNTER]
    assert e.totals.spans_beside_counter == 1


def test_engine_timer_closes_at_edge_plus_grace_and_not_before() -> None:
    e = engine()
    take(e, row(seq=1, t=50, **both(0)))
    assert not len(e.close_due(at(89.999)))
    assert [c[:3] for c in told(e.close_due(at(90)))] == [(0, 0, 1)]
    assert not len(e.close_due(at(1000)))


def test_engine_timer_on_backlog_waits_a_grace_after_it_arrived() -> None:
    e = engine()
    take(e, row(seq=1, t=50, **both(0)), now=5000)
    assert not len(e.close_due(at(5029)))
    assert len(e.close_due(at(5030))) == 1


def test_engine_timer_closes_in_slices() -> None:
    e = engine(close_slice=2)
    take(e, *(row(slot=slot, t=50, **both(0)) for slot in range(5)))
    assert [len(e.close_due(at(90))) for _ in range(4)] == [2, 2, 1, 0]


def test_engine_late_row_makes_a_full_revision_with_the_next_close() -> None:
    e = engine()
    span = {"span": 10, "charge_wh": 1.0, "discharge_wh": 0.0}
    take(e, row(seq=1, t=60, **span))
    take(e, row(seq=3, t=70, **span))
    assert not len(take(e, row(seq=2, t=20, **span)))
    closes = take(e, row(seq=4, t=120, **span))
    assert [(c[1], c[2], c[3], c[6]) for c in told(closes)] == [(0, 2, 2.0, 2), (1, 1, 2.0, 2)]


def test_engine_late_row_makes_a_revision_after_a_grace_without_another_close() -> None:
    e = engine()
    span = {"span": 10, "charge_wh": 1.0, "discharge_wh": 0.0}
    take(e, row(seq=1, t=60, **span))
    take(e, row(seq=2, t=20, **span), now=100)
    assert not len(e.close_due(at(129)))
    assert [(c[1], c[2], c[3]) for c in told(e.close_due(at(130)))] == [(0, 2, 2.0)]


def test_engine_row_older_than_two_intervals_is_counted_late() -> None:
    e = engine()
    span = {"span": 10, "charge_wh": 1.5, "discharge_wh": 0.0}
    take(e, row(seq=2, t=70, **span), row(seq=3, t=130, **span), row(seq=4, t=190, **span))
    taken = e.take(batch([row(seq=1, t=20, **span)]), at(200), None)
    assert (taken.counts.late_rows, taken.counts.late_wh) == (1, 1.5)
    assert not len(e.close_due(at(215)))


def test_engine_interval_that_was_skipped_closes_when_its_row_comes() -> None:
    e = engine()
    span = {"span": 10, "charge_wh": 1.0, "discharge_wh": 0.0}
    take(e, row(seq=1, t=20, **span))
    take(e, row(seq=3, t=200, **span))
    closes = take(e, row(seq=2, t=100, **span))
    assert [(c[1], c[2]) for c in told(closes)] == [(1, 1)]


def test_engine_backlog_of_several_intervals_closes_each_once_in_order() -> None:
    e = engine()
    rows = [row(seq=i, t=10 * i, **both(i)) for i in range(1, 31)]
    closes = take(e, *rows, now=900)
    assert [(c[1], c[2], c[6]) for c in told(closes)] == [(i, 1, 6) for i in range(5)]
    assert closes.charge_wh.tolist() == [5.0, 6.0, 6.0, 6.0, 6.0]
    assert closes.coverage_pct[1:].tolist() == [100.0] * 4


def test_engine_implausible_device_time_is_replaced_and_counted_f12() -> None:
    e = engine()
    taken = e.take(batch([row(seq=1, t=-T0 / 1000, **both(0)), row(seq=2, t=99_999, **both(0))]), at(30), None)
    assert taken.counts.time_replaced == 2
    assert [c[1] for c in told(e.close_due(at(90)))] == [0]


def test_engine_first_interval_and_silence_make_no_empty_records() -> None:
    e = engine()
    take(e, row(slot=3, seq=1, t=500, **both(0)))
    closes = e.close_due(at(1000))
    assert [c[:3] for c in told(closes)] == [(3, 8, 1)]
    assert np.isnan(closes.charge_wh).all()
    assert not len(e.close_due(at(100_000)))


def test_engine_power_and_soc_are_those_of_the_interval() -> None:
    e = engine()
    take(e, row(seq=1, t=20, span=20, battery_w=100, soc_pct=40), row(seq=2, t=30, span=10, battery_w=-200, soc_pct=41))
    take(e, row(seq=3, t=40))
    take(e, row(seq=4, t=25, span=10, soc_pct=99))
    closes = take(e, row(seq=5, t=70, battery_w=7, soc_pct=50))
    assert closes.battery_w_mean.tolist() == [0.0]
    assert (closes.battery_w_min.tolist(), closes.battery_w_max.tolist()) == ([-200.0], [100.0])
    assert closes.soc_end_pct.tolist() == [41.0]


def test_engine_negative_numbers_are_malformed_and_not_counted_as_samples() -> None:
    taken = engine().take(batch([row(seq=-1, **both(0)), row(boot=-1), row(seq=1)]), at(10), None)
    assert (taken.counts.malformed, taken.new.tolist()) == (2, [False, False, True])


def test_engine_new_length_closes_what_is_open_and_never_overlaps() -> None:
    e = engine()
    take(e, row(seq=1, t=10, **both(0)), row(seq=2, t=20, **both(1)))
    assert told(e.relength(Rules(length_s=90)))[0][:4] == (0, 0, 1, 1.0)
    closes = take(e, row(seq=3, t=80, **both(2)), row(seq=4, t=100, **both(4)), row(seq=5, t=180, **both(8)), now=200)
    assert closes.start_ms.tolist() == [T0 + 90_000]
    assert closes.charge_wh.tolist() == [pytest.approx(5.0)]
    assert e.totals.late_rows == 1


def test_engine_length_that_does_not_divide_a_day_is_refused() -> None:
    with pytest.raises(InvariantBroken):
        Engine(Rules(length_s=7))
    assert Engine(Rules(length_s=900)).rules.length_ms == 900_000


def test_engine_renumbered_devices_keep_their_state() -> None:
    e = engine()
    take(e, row(slot=0, t=10, **both(0)), row(slot=1, t=10, **both(100)))
    e.renumber(np.array([1, -1, 0]))
    closes = take(
        e,
        row(slot=0, seq=2, t=60, **both(101)),
        row(slot=1, seq=1, t=60, **both(5)),
        row(slot=2, seq=1, t=60, **both(9)),
    )
    assert [(c[0], c[6]) for c in told(closes)] == [(0, 2), (1, 1)]
    assert closes.charge_wh[0] == 1.0
    assert e.totals.duplicates == 1

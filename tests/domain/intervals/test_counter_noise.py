"""Noise of a counter is not energy: a movement is believed once the next reading stands on it. Intervals are 60 s."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.intervals.config import AgreedConfig
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.record import Quality
from gateway.domain.intervals.records import NO_RECORDS, RECORD_COLUMNS, IntervalRecords
from gateway.domain.intervals.types import IntervalRules
from tests.builders.energy_batches import EVER_MS, T0, at, batch, row
from tests.depth import deep

RATED_W = 6000.0
LENGTH_S = 60
NAMES = ("charge", "discharge")


class Street:
    """One device whose counter says what the test lists, one reading every 10 s."""

    def __init__(self, *, length_s: int = LENGTH_S, step_wh: float = 1.0, rated_w: float = RATED_W) -> None:
        self.rules, self.rated_w, self.seq, self.now = IntervalRules(length_s=length_s), rated_w, 0, 0.0
        self.engine = Engine(self.rules)
        agreed = AgreedConfig(
            slots=np.zeros(1, dtype=np.int32), length_s=np.array([length_s]), counter_step_wh=np.array([step_wh]),
            rated_w=np.array([RATED_W]),
        )  # fmt: skip
        self.engine.agree(agreed)
        self.newest: dict[int, tuple[float, float, int, float]] = {}
        self.revisions: dict[int, int] = {}
        self.rows: dict[int, IntervalRecords] = {}

    def note(self, records: IntervalRecords) -> None:
        for i, start in enumerate(((records.start_ms - T0) // 1000).tolist()):
            self.newest[start] = (
                float(np.nan_to_num(records.charge_wh[i])), float(np.nan_to_num(records.discharge_wh[i])),
                int(records.quality[i]), float(records.coverage_pct[i]),
            )  # fmt: skip
            assert int(records.revision[i]) == self.revisions.get(start, 0) + 1
            self.revisions[start] = int(records.revision[i])
            self.rows[start] = records.rows(np.array([i]))

    def sample(self, *readings: tuple[float, float], boot: int = 1) -> None:
        """One batch of (time in s, counter in Wh); both directions have the same counter."""
        rows = []
        for t, wh in readings:
            self.seq += 1
            rows.append(row(seq=self.seq, boot=boot, t=t, charge_counter_wh=wh, discharge_counter_wh=wh))
        self.now = max(self.now, *(t for t, _ in readings))
        self.note(self.engine.ingest(batch(rows), at(self.now), np.full(len(rows), self.rated_w)).records)

    def counts(self, *wh: float, batch_of: int = 1) -> None:
        """Readings every 10 s from 0 s on."""
        readings = [(10.0 * i, v) for i, v in enumerate(wh)]
        for i in range(0, len(readings), batch_of):
            self.sample(*readings[i : i + batch_of])

    def restart(self) -> None:
        columns = {name: column.copy() for name, column in self.engine.columns().items()}
        self.engine = Engine(self.rules)
        self.engine.load(columns)

    def end(self) -> None:
        for later in (700, 2_000, 4_000):
            self.note(self.engine.close_due(at(self.now + later)))
        slots, starts = self.engine.repairs_due(at(self.now + 5_000), 1_000, EVER_MS)
        bases = [self.rows[start] for start in ((starts - T0) // 1000).tolist() if start in self.rows]
        columns = {name: np.concatenate([getattr(each, name) for each in bases]) for name in RECORD_COLUMNS if bases}
        self.note(self.engine.repair(slots, starts, IntervalRecords(**columns) if bases else NO_RECORDS))

    def energy(self) -> float:
        """Energy of the newest revisions (Wh), the same in both directions."""
        self.end()
        both = [sum(each[i] for each in self.newest.values()) for i in (0, 1)]
        assert both[0] == pytest.approx(both[1])
        return both[0]

    def marked(self) -> set[int]:
        """Starts of intervals with a mark other than that of the first one's missing start."""
        return {start for start, each in self.newest.items() if each[2] & ~Quality.GAP}


def steady(n: int) -> list[float]:
    return [50_000.0] * n


@pytest.mark.parametrize("batch_of", [1, 2, 3, 30])
@pytest.mark.parametrize("off", [-50_000.0, -110.0, -7.0, 110.0, 500.0, 90_000.0])
@pytest.mark.parametrize("rated_w", [RATED_W, float("nan")])
def test_one_reading_that_is_off_books_nothing(batch_of: int, off: float, rated_w: float) -> None:
    street = Street(rated_w=rated_w)
    street.counts(*steady(8), 50_000 + off, *steady(12), batch_of=batch_of)
    assert street.energy() == pytest.approx(0.0, abs=1e-9)
    assert street.newest[60][3] == 100.0
    assert street.marked() == {60}
    assert street.engine.totals.counter_resets == 0


@pytest.mark.parametrize("batch_of", [1, 2, 3, 30])
@pytest.mark.parametrize("off", [-110.0, -7.0, 40.0, 110.0, 90_000.0])
def test_energy_flows_on_under_a_reading_that_is_off(batch_of: int, off: float) -> None:
    street = Street()
    truth = [50_000.0 + 5 * i for i in range(19)]
    street.counts(*(v + off * (i == 8) for i, v in enumerate(truth)), batch_of=batch_of)
    assert street.energy() == pytest.approx(90.0)
    assert [street.newest[start][0] for start in (0, 60, 120)] == pytest.approx([30.0] * 3)


@pytest.mark.parametrize("batch_of", [1, 7, 400])
def test_dither_of_a_step_books_nothing_over_time(batch_of: int) -> None:
    street = Street()
    street.counts(*(50_000.0 + i % 2 for i in range(360)), batch_of=batch_of)
    assert street.energy() <= 1.0
    assert not street.marked()


def test_rise_is_booked_at_once_and_taken_back_in_the_next_revision() -> None:
    street = Street()
    street.counts(*steady(6), 50_110.0)
    assert street.newest[0][0] == 110.0
    street.sample((70, 50_000.0))
    street.end()
    assert street.newest[0][0] == pytest.approx(0.0, abs=1e-9)
    assert (street.revisions[0], street.newest[0][2]) == (2, Quality.JUMP)


def test_rise_in_an_interval_that_is_long_closed_is_taken_back_by_a_repair() -> None:
    street = Street()
    street.counts(*steady(6), 50_110.0)
    street.note(street.engine.close_due(at(100)))
    street.seq += 1
    rows = [row(seq=street.seq + i, t=t, battery_w=0.0) for i, t in enumerate((65, 125, 185, 245))]
    street.note(street.engine.ingest(batch(rows), at(245), np.full(4, RATED_W)).records)
    street.seq += 4
    street.sample((305, 50_000.0))
    street.end()
    assert [street.newest[start][0] for start in (0, 60)] == pytest.approx([0.0, 0.0], abs=1e-9)
    assert street.newest[0][2] & Quality.LATE


@pytest.mark.parametrize("batch_of", [1, 2, 30])
def test_fall_that_the_next_reading_stands_on_is_a_reset_where_it_fell(batch_of: int) -> None:
    street = Street()
    street.counts(*(50_000.0 + 5 * i for i in range(6)), *(5.0 * i for i in range(13)), batch_of=batch_of)
    assert street.energy() == pytest.approx(25.0 + 60.0)
    assert street.engine.totals.counter_resets == 2
    assert street.marked() == {0}
    assert street.newest[0][2] == Quality.RESET | Quality.GAP
    assert street.newest[60][3] == 100.0


@pytest.mark.parametrize("batch_of", [1, 2, 30])
def test_counter_that_falls_with_every_reading_books_nothing(batch_of: int) -> None:
    street = Street()
    street.counts(*(50_000.0 - 5 * i for i in range(20)), batch_of=batch_of)
    assert street.energy() == 0.0


def test_rise_that_stands_is_energy() -> None:
    street = Street()
    street.counts(*steady(4), *([50_013.0] * 9))
    assert street.energy() == 13.0
    assert not street.marked()


def test_fall_into_the_last_rise_at_a_new_boot_takes_nothing_back() -> None:
    """A device saves its counter now and then, and begins anew from what it has saved."""
    street = Street()
    street.counts(50_000.0, 50_010.0)
    for i in range(2, 12):
        street.sample((10.0 * i, 50_003.0 + 10 * (i - 2) * (i > 2)), boot=2)
    assert street.energy() == pytest.approx(10.0 + 90.0 - 7.0, abs=10.0)
    assert street.energy() >= 10.0


@pytest.mark.parametrize("off", [-110.0, 110.0, 90_000.0])
@pytest.mark.parametrize("restart_after", [7, 8, 9])
def test_what_is_held_survives_a_restart_from_its_columns(off: float, restart_after: int) -> None:
    street = Street()
    for i in range(19):
        street.sample((10.0 * i, 50_000.0 + off * (i == 8)))
        if i == restart_after:
            street.restart()
    assert street.energy() == pytest.approx(0.0, abs=1e-9)


def test_stored_state_without_what_is_held_is_read_as_nothing_held() -> None:
    street = Street()
    street.counts(*steady(3))
    columns = {
        name: column.copy()
        for name, column in street.engine.columns().items()
        if name.split(".")[-1] not in ("before_ms", "before_wh", "held")
    }
    street.engine = Engine(street.rules)
    street.engine.load(columns)
    street.sample((30, 49_990.0))
    street.sample((40, 49_995.0))
    assert street.engine.totals.counter_resets == 2
    assert street.energy() == 5.0


@pytest.mark.parametrize("off", [-110.0, 110.0])
@pytest.mark.parametrize("waits", [True, False])
def test_reading_that_ends_a_gap_and_is_off_books_nothing(off: float, waits: bool) -> None:
    street = Street()
    street.sample((0, 50_000.0), (10, 50_000.0))
    street.sample((400, 50_000.0 + off))
    if not waits:
        street.note(street.engine.close_due(at(1_100)))
    street.sample((410, 50_000.0))
    street.sample((420, 50_000.0))
    assert street.energy() == pytest.approx(0.0, abs=1e-6)
    assert all(each[3] == 100.0 for start, each in street.newest.items() if 0 <= start < 420)


def test_stored_samples_of_a_gap_stay_where_its_end_was_too_high() -> None:
    street = Street()
    street.sample((0, 50_000.0))
    street.sample((400, 50_110.0))
    street.sample((200, 50_012.0))
    street.sample((410, 50_020.0))
    assert street.energy() == pytest.approx(20.0)


def test_what_is_held_moves_with_its_device_and_is_not_left_to_the_next_one() -> None:
    street = Street()
    street.counts(*steady(6), 0.0)
    street.engine.renumber(np.array([-1, 0]))
    rows = [row(slot=0, seq=1, t=70, charge_counter_wh=9.0), row(slot=1, seq=8, t=70, charge_counter_wh=50_000.0)]
    street.engine.ingest(batch(rows), at(70), np.full(2, RATED_W))
    assert (street.engine.totals.outliers, street.engine.totals.counter_resets) == (1, 0)


def test_clock_that_goes_back_keeps_what_is_held() -> None:
    street = Street()
    street.counts(*steady(60), 0.0)
    street.now = 100.0
    while len(records := street.engine.close_due(at(100))):
        street.note(records)
    street.sample((110, 50_000.0))
    street.sample((120, 50_000.0))
    assert street.energy() == pytest.approx(0.0, abs=1e-9)


@settings(max_examples=deep(2_000, else_=150))
@given(data=st.data(), step=st.sampled_from([1, 10]), per_batch=st.integers(1, 12), restarts=st.booleans())
def test_newest_revisions_have_the_energy_of_the_truth_to_a_step(
    data: st.DataObject, step: int, per_batch: int, restarts: bool
) -> None:
    """Readings that are off stand alone; all may dither by a step. No interval has more than the battery gave."""
    n = 60
    most = 13
    truth = np.cumsum(data.draw(st.lists(st.integers(0, most), min_size=n, max_size=n))).tolist()
    readings = [50_000 * step + v // step * step for v in truth]
    dither = data.draw(st.lists(st.sampled_from([0, 0, 0, 1]), min_size=n, max_size=n))
    offs = data.draw(st.lists(st.sampled_from([-110, -40, 0, 0, 40, 110, 3_000]), min_size=14, max_size=14))
    wrong = {4 * i + 2: off * step for i, off in enumerate(offs)}
    told = [(10.0 * i, float(r + step * dither[i] + wrong.get(i, 0))) for i, r in enumerate(readings)]
    street = Street(step_wh=float(step), length_s=60 if step == 1 else 3_600)
    for i in range(0, n, per_batch):
        street.sample(*told[i : i + per_batch])
        if restarts:
            street.restart()
    assert abs(street.energy() - (readings[-1] - readings[0])) <= step + 1e-6
    bound = most * street.rules.length_s / 10 + 2 * step
    assert all(each[0] <= bound for each in street.newest.values() if not each[2] & Quality.JUMP)
    assert not street.marked() or any(offs)


@pytest.mark.parametrize("off", [-3_000.0, -1_000.0, 1_000.0, 3_000.0])
def test_day_ends_with_a_reading_of_a_coarse_counter_that_stands(off: float) -> None:
    """100 Wh an hour by spans and by the counter, whose reading at midnight is off."""
    e = Engine(IntervalRules(length_s=3_600))
    e.agree(AgreedConfig(
        slots=np.zeros(1, dtype=np.int32), length_s=np.array([3_600]), counter_step_wh=np.array([100.0]),
        rated_w=np.array([RATED_W]),
    ))  # fmt: skip
    midnight = 86_400 - T0 // 1000 % 86_400
    for i in range(60):
        wh = 50_000.0 + 100 * i + off * (i == 24)
        made = row(
            seq=i + 1, t=midnight + 3_600 * i, span=3_600, charge_wh=100.0, discharge_wh=0.0,
            charge_counter_wh=wh, discharge_counter_wh=0.0,
        )  # fmt: skip
        e.ingest(batch([made]), at(midnight + 3_600 * i), np.array([RATED_W]))
    assert (e.totals.days_compared, e.totals.counter_resets) == (4, 0)
    assert not len(e.repair(*e.repairs_due(at(midnight + 3_600 * 70), 100, EVER_MS), NO_RECORDS))
    assert not e.to_repair

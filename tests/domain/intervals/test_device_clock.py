"""Devices whose clock is wrong: where their energy is booked, and what marks it. One sample every 10 s."""

from collections.abc import Callable, Iterable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.record import Quality
from gateway.domain.intervals.records import NO_RECORDS, RECORD_COLUMNS, IntervalRecords
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.types import Bools
from tests.builders.energy_batches import EVER_MS, T0, at, batch, row

PERIOD_S = 10
FROM_S = 2_700
POWER_W = 5_000.0
SAMPLE_WH = POWER_W * PERIOD_S / 3_600
BEGINS_S, ENDS_S = 3_600, 4_500
EVENT_WH = POWER_W * (ENDS_S - BEGINS_S) / 3_600
LEARNT = 6

Skew = Callable[[float], float]


def joined(parts: Iterable[IntervalRecords]) -> IntervalRecords:
    all_parts = (NO_RECORDS, *parts)
    return IntervalRecords(**{n: np.concatenate([getattr(part, n) for part in all_parts]) for n in RECORD_COLUMNS})


class Site:
    """Devices that discharge at full power from `BEGINS_S` to `ENDS_S`, and what was recorded of them."""

    def __init__(self, *, length_s: int = 300, devices: int = 1, counter: bool = True) -> None:
        self.engine = Engine(IntervalRules(length_s=length_s))
        self.newest: dict[tuple[int, int], tuple[IntervalRecords, int]] = {}
        self.devices, self.counter = devices, counter

    def report(self, i: int, t: float, device_s: list[float], received_s: float) -> None:
        wh = POWER_W / 3_600 * min(max(t - BEGINS_S, 0), ENDS_S - BEGINS_S)
        told: dict[str, float] = {"charge_wh": 0.0, "discharge_wh": SAMPLE_WH if BEGINS_S < t <= ENDS_S else 0.0}
        if self.counter:
            told = {"charge_counter_wh": 0.0, "discharge_counter_wh": 1_000 + wh}
        rows = [row(slot=slot, seq=i, t=said, span=PERIOD_S, **told) for slot, said in enumerate(device_s)]
        self.note(self.engine.ingest(batch(rows), at(received_s), np.full(len(rows), POWER_W)).records)

    def run(self, skew_s: Skew, *, until_s: int = 5_400, ours_s: Skew = lambda t: 0.0) -> None:
        for i, t in enumerate(range(FROM_S, until_s + 1, PERIOD_S), start=1):
            self.report(i, t, [t + skew_s(t)] * self.devices, t + ours_s(t) + 0.2)
        self.finish(until_s + 20_000)

    def finish(self, now_s: float) -> None:
        for k in range(5):
            self.note(self.engine.close_due(at(now_s + 1_000 * k)))
        self.mend(now_s + 9_000)

    def mend(self, now_s: float) -> None:
        slots, starts = self.engine.repairs_due(at(now_s), 1_000, EVER_MS)
        known = [key for key in zip(slots.tolist(), starts.tolist(), strict=True) if key in self.newest]
        bases = joined(self.newest[key][0].rows(np.array([self.newest[key][1]])) for key in known)
        self.note(self.engine.repair(slots, starts, bases))

    def note(self, records: IntervalRecords) -> None:
        for i, key in enumerate(zip(records.slots.tolist(), records.start_ms.tolist(), strict=True)):
            before = self.newest.get(key)
            assert int(records.revision[i]) == 1 + (0 if before is None else int(before[0].revision[before[1]]))
            self.newest[key] = (records, i)

    def wh(self, begins_s: float = -1e9, ends_s: float = 1e9, slot: int = 0) -> float:
        return float(
            sum(
                np.nan_to_num(records.discharge_wh[i])
                for (of, start), (records, i) in self.newest.items()
                if of == slot and begins_s <= (start - T0) / 1_000 < ends_s
            )
        )

    def marked(self, slot: int = 0) -> dict[int, bool]:
        """By the second at which an interval starts, whether `clock` marks it."""
        return {
            (start - T0) // 1_000: bool(records.quality[i] & Quality.CLOCK)
            for (of, start), (records, i) in sorted(self.newest.items())
            if of == slot
        }


@pytest.mark.parametrize("counter", [True, False])
@pytest.mark.parametrize("length_s", [300, 900])
@pytest.mark.parametrize("offset_s", [-280, -60, -10, 10, 60, 280, -3_600, 3_600, -25_200])
def test_event_of_a_clock_off_by_the_same_is_booked_in_its_time(offset_s: int, length_s: int, counter: bool) -> None:
    site = Site(length_s=length_s, counter=counter)
    site.run(lambda t: offset_s)
    assert site.wh(BEGINS_S, ENDS_S) == pytest.approx(EVENT_WH, rel=0.01)
    assert site.wh() == pytest.approx(EVENT_WH)
    assert all(marked for start, marked in site.marked().items() if BEGINS_S <= start < ENDS_S)


@pytest.mark.parametrize("offset_s", [0.0, -1.5, 1.5])
def test_clock_within_tolerance_is_used_as_it_is(offset_s: float) -> None:
    site = Site()
    site.run(lambda t: offset_s)
    assert site.engine.totals.time_corrected == site.engine.totals.time_doubted == 0
    assert not any(site.marked().values())


@pytest.mark.parametrize("offset_s", [-280, -60])
def test_clock_behind_is_marked_from_the_second_sample_and_corrected_from_the_sixth(offset_s: int) -> None:
    site = Site()
    for i in range(1, 9):
        site.report(i, PERIOD_S * i, [PERIOD_S * i + offset_s], PERIOD_S * i)
        totals = site.engine.totals
        assert totals.time_doubted == min(max(i - 1, 0), LEARNT - 2)
        assert totals.time_corrected == max(i - LEARNT + 1, 0)


@pytest.mark.parametrize("offset_s", [10, 280])
def test_clock_ahead_is_corrected_from_the_first_sample(offset_s: int) -> None:
    site = Site()
    site.report(1, 10, [10 + offset_s], 10)
    assert site.engine.totals.time_corrected == 1


@pytest.mark.parametrize("step_s", [-30, 30, -120, 120, -3_600, 3_600])
def test_clock_set_in_mid_event_loses_nothing_and_is_marked(step_s: int) -> None:
    site = Site()
    site.run(lambda t: step_s if t >= 4_000 else 0)
    assert site.wh() == pytest.approx(EVENT_WH)
    assert site.wh(BEGINS_S, ENDS_S) == pytest.approx(EVENT_WH, rel=0.01)
    assert all(site.marked()[start] for start in (3_900, 4_200))
    assert not site.marked()[3_300]


@pytest.mark.parametrize("wrong_s", [-280, 280, -3_600, 3_600])
def test_clock_that_is_set_right_again_is_used_as_it_is(wrong_s: int) -> None:
    site = Site()
    site.run(lambda t: wrong_s if t < 4_000 else 0)
    assert site.wh() == pytest.approx(EVENT_WH)
    assert site.wh(BEGINS_S, ENDS_S) == pytest.approx(EVENT_WH, rel=0.01)
    assert not any(marked for start, marked in site.marked().items() if start >= 4_200)


@pytest.mark.parametrize("ppm", [-1_000, -100, 100, 1_000])
def test_clock_that_drifts_is_followed(ppm: int) -> None:
    site = Site(length_s=900)
    site.run(lambda t: t * ppm / 1e6)
    assert site.wh(BEGINS_S, ENDS_S) == pytest.approx(EVENT_WH, rel=0.01)
    assert site.wh() == pytest.approx(EVENT_WH)


def test_backlog_is_neither_corrected_nor_marked() -> None:
    site = Site()
    for i in range(1, 601):
        received_s = PERIOD_S * i if i < 200 else max(5_000 + (i - 200) * 2, PERIOD_S * i)
        site.report(i, PERIOD_S * i, [PERIOD_S * i], received_s + 0.2)
    site.finish(20_000)
    assert site.engine.totals.time_corrected == site.engine.totals.time_doubted == 0
    assert site.wh(BEGINS_S, ENDS_S) == pytest.approx(EVENT_WH)


@pytest.mark.parametrize("offset_s", [-280, 280])
def test_backlog_of_a_clock_that_is_off_is_corrected_by_what_was_known_before(offset_s: int) -> None:
    site = Site()
    for i in range(1, 601):
        received_s = PERIOD_S * i if i < 200 else max(5_000 + (i - 200) * 2, PERIOD_S * i)
        site.report(i, PERIOD_S * i, [PERIOD_S * i + offset_s], received_s + 0.2)
    site.finish(20_000)
    assert site.wh(BEGINS_S, ENDS_S) == pytest.approx(EVENT_WH, rel=0.01)


@pytest.mark.parametrize("step_s", [-3_600, -1_200, -120, 120, 3_600])
def test_gateway_clock_that_is_set_corrects_no_fleet(step_s: int) -> None:
    """Those heard before most have moved are corrected for one sample at most."""
    site = Site(devices=20)
    site.run(lambda t: 0, until_s=5_800, ours_s=lambda t: step_s if 4_000 <= t < 5_000 else 0)
    assert site.engine.totals.time_corrected == 0
    for slot in range(site.devices):
        assert site.wh(slot=slot) == pytest.approx(EVENT_WH)
        assert site.wh(BEGINS_S, ENDS_S, slot) == pytest.approx(EVENT_WH, rel=0.01)
        assert site.marked(slot)[4_200]
        assert not site.marked(slot)[5_400]


@pytest.mark.parametrize("counter", [True, False])
@pytest.mark.parametrize("step_s", [-3_600, -1_200, 1_200])
def test_gateway_clock_that_is_set_cuts_no_interval_and_books_no_energy_elsewhere(step_s: int, counter: bool) -> None:
    site = Site(devices=20, counter=counter)
    for i, t in enumerate(range(FROM_S, 5_400, PERIOD_S), start=1):
        ours_s = t + (step_s if 4_000 <= t < 4_300 else 0)
        site.report(i, t, [t] * site.devices, ours_s)
        site.note(site.engine.close_due(at(ours_s)))
    site.finish(20_000)
    assert site.engine.totals.time_replaced == 0
    for slot in range(site.devices):
        assert site.wh(slot=slot) == pytest.approx(EVENT_WH)
        assert site.wh(BEGINS_S, ENDS_S, slot) == pytest.approx(EVENT_WH, rel=0.01)


@pytest.mark.parametrize("for_s", [10, 300, 5_000])
@pytest.mark.parametrize("step_s", [-30, -120, -240, -600, -1_200])
def test_gateway_clock_that_is_set_back_loses_no_energy_of_a_few_devices(step_s: int, for_s: int) -> None:
    """Too few to say that it is wrong."""
    site = Site(devices=1)
    for i, t in enumerate(range(FROM_S, 5_400, PERIOD_S), start=1):
        ours_s = t + (step_s if 4_000 <= t < 4_000 + for_s else 0)
        site.report(i, t, [t], ours_s + 0.2)
        site.note(site.engine.close_due(at(ours_s)))
        if i % 7 == 0:
            site.mend(ours_s)
    site.finish(20_000)
    assert site.wh() == pytest.approx(EVENT_WH)
    if step_s >= -240:
        assert site.wh(BEGINS_S, ENDS_S) == pytest.approx(EVENT_WH, rel=0.01)


def test_clock_that_goes_ahead_while_that_of_the_gateway_is_behind_loses_nothing() -> None:
    """One reading of it lies in the future, since most others say at that time that the gateway's clock is wrong."""
    site = Site(devices=6, length_s=60)
    for i, t in enumerate(range(FROM_S, 5_400, PERIOD_S), start=1):
        ours_s = t - (240 if 4_000 <= t < 4_010 else 0)
        for slot in range(6):
            said_s = t + (240 if slot == 0 and t >= 4_000 else 0)
            wh = POWER_W / 3_600 * min(max(t - BEGINS_S, 0), ENDS_S - BEGINS_S)
            told = row(slot=slot, seq=i, t=said_s, span=PERIOD_S, charge_counter_wh=0, discharge_counter_wh=wh)
            site.note(site.engine.ingest(batch([told]), at(ours_s + 0.2), np.full(1, POWER_W)).records)
        site.note(site.engine.close_due(at(ours_s)))
    site.finish(20_000)
    assert [site.wh(BEGINS_S, ENDS_S, slot) for slot in range(6)] == pytest.approx([EVENT_WH] * 6, rel=0.01)


def test_gateway_clock_that_goes_back_for_one_sample_of_one_device_loses_nothing() -> None:
    """Nobody else says that it is wrong."""
    site = Site(devices=1)
    for i, t in enumerate(range(FROM_S, 5_400, PERIOD_S), start=1):
        ours_s = t - 1_200 if 4_000 <= t < 4_000 + PERIOD_S else t
        site.report(i, t, [t], ours_s)
        site.note(site.engine.close_due(at(ours_s)))
        if i % 10 == 0:
            site.mend(ours_s)
    site.finish(20_000)
    assert site.wh() == pytest.approx(EVENT_WH)


def test_gateway_clock_that_is_set_back_corrects_nobody_not_even_whoever_is_heard_first() -> None:
    site = Site(devices=20)
    for i in range(1, 100):
        t = PERIOD_S * i
        for slot in range(site.devices):
            said = batch([row(slot=slot, seq=i, t=t, charge_counter_wh=0, discharge_counter_wh=i)])
            site.engine.ingest(said, at(t - 120 if i >= 50 else t))
    assert (site.engine.totals.time_corrected, site.engine.totals.time_replaced) == (0, 0)


def test_one_device_of_a_fleet_is_corrected_and_the_others_are_not() -> None:
    site = Site(devices=20)
    for i, t in enumerate(range(FROM_S, 5_400, PERIOD_S), start=1):
        site.report(i, t, [t - 280 if slot == 7 and t > 3_000 else t for slot in range(20)], t)
    site.finish(20_000)
    assert all(site.wh(BEGINS_S, ENDS_S, slot) == pytest.approx(EVENT_WH, rel=0.01) for slot in range(20))
    assert [slot for slot in range(20) if any(site.marked(slot).values())] == [7]


def test_corrections_go_on_after_a_checkpoint() -> None:
    def on(engine: Engine) -> IntervalRecords:
        made = [
            engine.ingest(
                batch([row(seq=i, t=10 * i - 200, charge_counter_wh=0, discharge_counter_wh=i)]), at(10 * i)
            ).records
            for i in range(9, 200)
        ]
        return joined(made)

    first = Engine(IntervalRules(length_s=60))
    for i in range(1, 9):
        first.ingest(batch([row(seq=i, t=10 * i - 200, charge_counter_wh=0, discharge_counter_wh=i)]), at(10 * i))
    second = Engine(IntervalRules(length_s=60))
    second.load({name: column.copy() for name, column in first.columns().items()})
    one, other = on(first), on(second)
    assert len(one) > 20
    assert one.start_ms.tolist() == other.start_ms.tolist()
    assert one.discharge_wh.tobytes() == other.discharge_wh.tobytes()


def test_clock_that_a_former_checkpoint_calls_wrong_is_corrected_at_once() -> None:
    first = Engine(IntervalRules(length_s=60))
    first.ingest(batch([row(seq=1, t=-25_190, charge_counter_wh=0, discharge_counter_wh=1)]), at(10))
    stored = {name: column.copy() for name, column in first.columns().items() if not name.startswith("clocks.")}
    former: dict[str, Bools | np.ndarray] = {"clocks.wrong": np.array([True]), "clocks.age_ms": np.array([25_200_000])}
    second = Engine(IntervalRules(length_s=60))
    second.load(stored | former)
    second.ingest(batch([row(seq=2, t=-25_180, charge_counter_wh=0, discharge_counter_wh=2)]), at(20))
    assert second.totals.time_corrected == 1
    assert second.totals.time_doubted == 0


@settings(deadline=None, max_examples=40)
@given(
    steps=st.lists(
        st.tuples(st.integers(2, 90), st.integers(-4_000_000, 4_000_000)), max_size=4, unique_by=lambda s: s[0]
    ),
    jitter_ms=st.lists(st.integers(0, 9_000), min_size=1, max_size=9),
    powers=st.lists(st.integers(0, 5_000), min_size=1, max_size=9),
    counter=st.booleans(),
)
def test_energy_is_conserved_whatever_the_clock_does(
    steps: list[tuple[int, int]], jitter_ms: list[int], powers: list[int], counter: bool
) -> None:
    """Against plain sums of what the device measured; its counter at the newest time that it told."""
    site, total, offset_ms = Site(length_s=60, counter=counter), Fraction(0), 0
    n, clock = 100, dict(steps)
    for i in range(1, n + 1):
        offset_ms = clock.get(i, offset_ms)
        wh = Fraction(powers[i % len(powers)] * PERIOD_S, 3_600) if i > 1 else Fraction(0)
        total += wh
        told: dict[str, float] = {"charge_wh": 0.0, "discharge_wh": float(wh)}
        if counter:
            told = {"charge_counter_wh": 0.0, "discharge_counter_wh": float(total)}
        received_s = PERIOD_S * i + jitter_ms[i % len(jitter_ms)] / 1_000
        said = batch([row(seq=i, t=PERIOD_S * i + offset_ms / 1_000, span=PERIOD_S, **told)])
        site.note(site.engine.ingest(said, at(received_s), None).records)
    settled = n - max((i for i, _ in steps), default=0) > 2 * LEARNT
    site.finish(PERIOD_S * n + 20_000)
    lost = site.engine.totals.lost_wh + site.engine.totals.unattributed_wh + site.engine.totals.jump_wh
    assert site.wh() <= float(total) + 1e-6
    if not counter or (settled and max(jitter_ms) <= 4_000):
        assert site.wh() + lost == pytest.approx(float(total))

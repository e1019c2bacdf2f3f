"""The interval engine against an exact, slow reference: plain Python, one device and row at a time, fractions."""

import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.energy import Rules
from gateway.domain.intervals import Closes, Engine
from gateway.domain.model import EnergyBatch, Now
from tests.energy_batches import T0, at, random_batch

RULES = Rules(length_s=60, counter_step_wh=10.0)
LENGTH = 60_000
RATED_W = 5000


@dataclass
class Sums:
    samples: int = 0
    wh: list[Fraction] = field(default_factory=lambda: [Fraction(0), Fraction(0)])
    ms: list[int] = field(default_factory=lambda: [0, 0])


@dataclass
class SlowDevice:
    """One device. Directions: 0 charge, 1 discharge."""

    seen: dict[int, set[int]] = field(default_factory=dict)
    base: list[tuple[int, Fraction] | None] = field(default_factory=lambda: [None, None])
    open: list[int] = field(default_factory=list)
    sums: dict[int, Sums] = field(default_factory=dict)
    late: int = 0

    def is_new(self, boot: int, seq: int) -> bool:
        if boot in self.seen:
            return max(self.seen[boot]) - seq < 64 and seq not in self.seen[boot]
        return len(self.seen) < 2 or boot > min(self.seen)

    def take(self, rows: list[tuple[int, int, int, int, list[float], list[float]]]) -> None:
        """Rows (boot, seq, t, span, counters, energies) of one batch."""
        fresh = {(r[0], r[1]): r for r in reversed(rows) if self.is_new(r[0], r[1])}
        for boot, seq in fresh:
            self.seen.setdefault(boot, set()).add(seq)
        self.seen = {boot: self.seen[boot] for boot in sorted(self.seen)[-2:]}
        ordered = sorted(fresh.values(), key=lambda r: (r[2], r[0], r[1]))
        floor = self.open[0] if len(self.open) == 2 else -math.inf
        flows = [self._flows(ordered, direction) for direction in (0, 1)]
        for row in ordered:
            start = (row[2] - 1) // LENGTH * LENGTH
            if start >= floor:
                self._at(start).samples += 1
            else:
                self.late += 1
        for direction in (0, 1):
            for since, until, wh in flows[direction]:
                start = since // LENGTH * LENGTH
                while start < until:
                    part = min(until, start + LENGTH) - max(since, start)
                    if start >= floor:
                        sums = self._at(start)
                        sums.wh[direction] += wh * Fraction(part, until - since)
                        sums.ms[direction] += part
                    start += LENGTH
        self.open = sorted(set(self.open) | {s for s in self.sums if not self.open or s >= floor})[-2:]

    def _at(self, start: int) -> Sums:
        return self.sums.setdefault(start, Sums())

    def _flows(
        self, rows: list[tuple[int, int, int, int, list[float], list[float]]], direction: int
    ) -> list[tuple[int, int, Fraction]]:
        out = []
        counters = [r for r in rows if math.isfinite(r[4][direction]) and r[4][direction] >= 0]
        newest_at = {r[2]: r for r in counters}
        for r in counters:
            base, t = self.base[direction], r[2]
            if newest_at[t] is not r or (base is not None and t <= base[0]):
                continue
            value = Fraction(r[4][direction])
            if base is not None:
                wh, ms = value - base[1], t - base[0]
                if 0 <= wh <= ceiling(ms) and ms <= LENGTH:
                    out.append((base[0], t, wh))
            self.base[direction] = (t, value)
        if self.base[direction] is None:
            for r in rows:
                energy, span = r[5][direction], r[3]
                if math.isfinite(energy) and 0 <= energy <= ceiling(span) and 0 < span <= LENGTH:
                    out.append((r[2] - span, r[2], Fraction(energy)))
        return out


def ceiling(ms: int) -> float:
    return RATED_W * ms * 1.2 / 3_600_000 + RULES.counter_step_wh


def rows_of(b: EnergyBatch, slot: int, now: Now) -> list[tuple[int, int, int, int, list[float], list[float]]]:
    out = []
    for i in np.flatnonzero(b.slots == slot).tolist():
        t = int(b.t_ms[i])
        if not now.utc_ms - RULES.past_ms <= t <= now.utc_ms + RULES.future_ms:
            t = now.utc_ms
        counters = [float(b.charge_counter_wh[i]), float(b.discharge_counter_wh[i])]
        energies = [float(b.charge_wh[i]), float(b.discharge_wh[i])]
        out.append((int(b.boot[i]), int(b.seq[i]), t, int(b.span_ms[i]), counters, energies))
    return out


@given(seed=st.integers(0, 2**32), batches=st.integers(1, 8), rows=st.integers(1, 40), spread=st.integers(1, 6))
def test_engine_random_history_agrees_with_the_exact_reference(seed: int, batches: int, rows: int, spread: int) -> None:
    rng = np.random.default_rng(seed)
    devices = 3
    engine = Engine(RULES)
    slow = [SlowDevice() for _ in range(devices)]
    newest: dict[tuple[int, int], tuple[int, float, float, float, int]] = {}

    def note(closes: Closes) -> None:
        for i in range(len(closes)):
            key = (int(closes.slots[i]), int(closes.start_ms[i]))
            revision = int(closes.revision[i])
            assert revision == newest.get(key, (0,))[0] + 1
            newest[key] = (
                revision,
                float(closes.charge_wh[i]),
                float(closes.discharge_wh[i]),
                float(closes.coverage_pct[i]),
                int(closes.samples[i]),
            )

    late = 0
    for index in range(batches):
        now = at(spread * 60 + index)
        b = random_batch(rng, rows, devices=devices, length_s=60, spread=spread)
        taken = engine.take(b, now, np.full(rows, float(RATED_W)))
        note(taken.closes)
        late += taken.counts.late_rows
        for slot in range(devices):
            slow[slot].take(rows_of(b, slot, now))
    note(engine.close_due(at(100_000)))
    assert not len(engine.close_due(at(200_000)))

    expected = {(slot, start): sums for slot in range(devices) for start, sums in slow[slot].sums.items()}
    assert late == sum(device.late for device in slow)
    assert newest.keys() == expected.keys()
    for key, sums in expected.items():
        _, charge, discharge, coverage, samples = newest[key]
        assert samples == sums.samples
        for told, direction in ((charge, 0), (discharge, 1)):
            if sums.ms[direction]:
                assert told == pytest.approx(float(sums.wh[direction]), rel=1e-9, abs=1e-9)
            else:
                assert math.isnan(told)
        known = [min(ms, LENGTH) for ms in sums.ms if ms]
        assert coverage == pytest.approx(100 * min(known, default=0) / LENGTH)


@given(seed=st.integers(0, 2**32))
def test_engine_counters_under_loss_and_disorder_lose_no_energy(seed: int) -> None:
    """20 % loss, repeats and disorder between batches: what the counter gained is in the intervals, all of it."""
    rng = np.random.default_rng(seed)
    n = 400
    t = T0 + np.arange(1, n + 1) * 7_000
    counter = np.cumsum(rng.random(n) * 5)
    kept = np.flatnonzero(rng.random(n) > 0.2)
    sent = np.sort(np.concatenate((kept, rng.choice(kept, 30))) + rng.integers(-4, 5, len(kept) + 30)).clip(0, n - 1)
    sent = np.unique(np.concatenate((sent, [0, n - 1])))
    order = sent[np.argsort(sent + rng.normal(0, 2, len(sent)))]
    engine = Engine(RULES)
    total: dict[int, float] = {}
    samples: dict[int, int] = {}
    for part in np.array_split(order, 40):
        b = EnergyBatch(
            slots=np.zeros(len(part), dtype=np.int32),
            boot=np.ones(len(part), dtype=np.int64),
            seq=part + 1,
            t_ms=t[part],
            span_ms=np.full(len(part), 7_000),
            charge_counter_wh=counter[part],
            discharge_counter_wh=np.zeros(len(part)),
            charge_wh=np.full(len(part), np.nan),
            discharge_wh=np.full(len(part), np.nan),
            battery_w=np.full(len(part), np.nan),
            soc_pct=np.full(len(part), np.nan),
        )
        closes = engine.take(b, Now(utc_ms=int(t[part].max()), mono_ms=0), np.full(len(part), 5000.0)).closes
        for start, wh, count in zip(closes.start_ms, closes.charge_wh, closes.samples, strict=True):
            total[int(start)], samples[int(start)] = float(np.nan_to_num(wh)), int(count)
    closes = engine.close_due(at(100_000))
    for start, wh, count in zip(closes.start_ms, closes.charge_wh, closes.samples, strict=True):
        total[int(start)], samples[int(start)] = float(np.nan_to_num(wh)), int(count)
    first_taken = counter[int(order[: len(np.array_split(order, 40)[0])].min())]
    assert sum(total.values()) + engine.totals.unattributed_wh == pytest.approx(counter[-1] - first_taken)
    assert sum(samples.values()) + engine.totals.late_rows == len(sent)

"""The interval engine: settlement samples in, closed clock-aligned energy intervals out.

State is columnar, indexed by slot: what has been received (duplicates), counter baselines, and the accumulators of
each device's two newest intervals. The engine reads no clock and keeps no order of its own: the same sequence of
batches and `now`s gives the same bits, which is what recovery by replay rests on. Intervals are half open in time,
but a sample that ends exactly on an edge belongs to the interval it completes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.accumulators import Int32s, Part, gather
from gateway.domain.columns import Table
from gateway.domain.duplicates import Seen, by_slot, second_last, sift, tails
from gateway.domain.energy import Baseline, Counts, Rows, Rules, flow
from gateway.domain.errors import invariant
from gateway.domain.model import NEVER_MS, Bools, EnergyBatch, EnergySource, Floats, Ints, Now, Slots, Small

DAY_S = 86_400


class Newest(Table):
    """`t_ms` of the newest sample of each device."""

    SPEC = {"t_ms": (np.int64, NEVER_MS)}
    t_ms: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Closes:
    """Records of intervals, by device and time. Energy in Wh on the AC side (NaN unknown), power in W (+ =
    discharge), `source` an `EnergySource`. Full content of the interval at that revision, never a difference."""

    slots: Slots
    start_ms: Ints
    length_s: Ints
    revision: Int32s
    charge_wh: Floats
    discharge_wh: Floats
    coverage_pct: Floats
    samples: Int32s
    soc_end_pct: Floats
    source: Small
    battery_w_mean: Floats
    battery_w_min: Floats
    battery_w_max: Floats

    def __len__(self) -> int:
        return len(self.slots)


CLOSE_COLUMNS: Mapping[str, str] = {
    "slots": "<i4",
    "start_ms": "<i8",
    "length_s": "<i8",
    "revision": "<i4",
    "charge_wh": "<f8",
    "discharge_wh": "<f8",
    "coverage_pct": "<f8",
    "samples": "<i4",
    "soc_end_pct": "<f8",
    "source": "<i1",
    "battery_w_mean": "<f8",
    "battery_w_min": "<f8",
    "battery_w_max": "<f8",
}

NO_CLOSES = Closes(**{name: np.zeros(0, dtype=dtype) for name, dtype in CLOSE_COLUMNS.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Outcome of one batch. `new` marks, in the batch's order, the rows that counted as samples."""

    new: Bools
    counts: Counts
    closes: Closes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """Devices that got a new interval, and what fell out of their newest two."""

    slots: Slots
    out_slots: Slots
    out: Part


class Engine:
    """Accumulates settlement samples of all devices into intervals; the one mutable copy, used from one thread."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        invariant(0 < self.rules.length_s <= DAY_S, "an interval is between a second and a day")
        invariant(DAY_S % self.rules.length_s == 0, "the interval length divides a day")
        self.n = 0
        self.not_before_ms = NEVER_MS
        self.totals = Counts()
        self.seen = Seen()
        self.charge = Baseline()
        self.discharge = Baseline()
        self.newest = Newest()
        self.cur = Part()
        self.prev = Part()

    def reserve(self, n: int) -> None:
        """Have room for slots below `n`."""
        if n > self.n:
            size = len(self.newest.t_ms)
            if n > size:
                # By a quarter where devices come one by one, exactly where a whole fleet comes at once.
                capacity = max(64, n, size + size // 4)
                for table in self._tables().values():
                    table.grow(capacity)
            self.n = n

    def take(self, batch: EnergyBatch, now: Now, rated_w: Floats | None = None) -> Taken:
        """Count every row once and return what it closes. `rated_w` per row (W, NaN unknown) bounds what a counter
        may gain. Rows of one batch may come in any order; a device may have several, over several intervals."""
        counts = Counts(rows=len(batch))
        if not len(batch):
            return Taken(new=np.zeros(0, dtype=np.bool_), counts=counts, closes=NO_CLOSES)
        self.reserve(int(batch.slots.max()) + 1)
        new = self._sift(batch, counts)
        closes = NO_CLOSES
        if counts.new:
            index, rows = self._rows(batch, np.flatnonzero(new), now, rated_w, counts)
            charge = flow(rows, batch.charge_counter_wh[index], batch.charge_wh[index], self.charge, self.rules, counts)
            discharge = flow(
                rows, batch.discharge_counter_wh[index], batch.discharge_wh[index], self.discharge, self.rules, counts
            )
            slots, groups = gather(
                rows, charge, discharge, batch.battery_w[index], batch.soc_pct[index], self.rules.length_ms
            )
            last = tails(rows.slots)
            touched = rows.slots[last]
            self.newest.t_ms[touched] = np.maximum(self.newest.t_ms[touched], rows.t_ms[last])
            opened = self._accumulate(slots, groups, now, counts)
            closes = self._close_passed(touched, opened, counts)
        self.totals.add(counts)
        return Taken(new=new, counts=counts, closes=closes)

    def close_due(self, now: Now) -> Closes:
        """Close what is past its edge and the grace, and revise what changed a grace ago; at most `close_slice`
        devices per call, so call again while it returns any."""
        parts = (self.prev, self.cur)
        due = [self._due(part, now.utc_ms) for part in parts]
        slots = np.flatnonzero(due[0] | due[1])[: self.rules.close_slice].astype(np.int32)
        if not len(slots):
            return NO_CLOSES
        counts = Counts()
        made = [self._record(part, slots[mask[slots]]) for part, mask in zip(parts, due, strict=True)]
        closes = self._closes(made, counts)
        self.totals.add(counts)
        return closes

    def honour(self, closes: Closes) -> None:
        """Raise revisions to those of records that are known to have been made, so that none is given twice."""
        for part in (self.cur, self.prev):
            held = closes.slots < self.n
            s, revision = closes.slots[held], closes.revision[held]
            same = part.start_ms[s] == closes.start_ms[held]
            np.maximum.at(part.revision, s[same], revision[same])

    def relength(self, rules: Rules) -> Closes:
        """Change the rules. With another length, what is open is closed as it stands, and intervals of the new
        length begin after the newest one of the old, so that no energy is recorded twice."""
        closes = NO_CLOSES
        if rules.length_s != self.rules.length_s:
            counts = Counts()
            everyone = np.arange(self.n, dtype=np.int32)
            made = [
                self._record(part, everyone[part.changed_ms[: self.n] != NEVER_MS]) for part in (self.prev, self.cur)
            ]
            closes = self._closes(made, counts)
            self.totals.add(counts)
            starts = self.cur.start_ms[: self.n]
            if np.any(starts != NEVER_MS):
                end = int(starts.max()) + self.rules.length_ms
                self.not_before_ms = -(-end // rules.length_ms) * rules.length_ms
            size = len(self.cur.start_ms)
            self.cur, self.prev = Part(size), Part(size)
        self.rules = rules
        return closes

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Views of the whole state by name, each `n` long; copy before the next change."""
        return {
            f"{name}.{column}": table.column(column)[: self.n]
            for name, table in self._tables().items()
            for column in table.SPEC
        }

    def restore(self, columns: Mapping[str, NDArray[np.generic]], not_before_ms: int = NEVER_MS) -> None:
        """Take over a state that `columns` gave; a column this version does not know of is left at its default."""
        invariant(self.n == 0, "only an empty engine is restored")
        self.not_before_ms = not_before_ms
        self.reserve(len(next(iter(columns.values()))) if columns else 0)
        for name, table in self._tables().items():
            for column in table.SPEC:
                stored = columns.get(f"{name}.{column}")
                if stored is not None:
                    table.column(column)[: self.n] = stored

    def renumber(self, old_slots: Ints) -> None:
        """Give devices new slots: `old_slots[new]` is where each was, -1 for one that was not there."""
        n = len(old_slots)
        known = old_slots >= 0
        for table in self._tables().values():
            for column, (dtype, fill) in table.SPEC.items():
                moved = np.full(n, fill, dtype=dtype)
                moved[known] = table.column(column)[old_slots[known]]
                setattr(table, column, moved)
        self.n = n

    def _tables(self) -> dict[str, Table]:
        return {
            "seen": self.seen,
            "charge": self.charge,
            "discharge": self.discharge,
            "newest": self.newest,
            "cur": self.cur,
            "prev": self.prev,
        }

    def _sift(self, batch: EnergyBatch, counts: Counts) -> Bools:
        legal = (batch.boot >= 0) & (batch.seq >= 0) & (batch.slots >= 0)
        if legal.all():
            sifted = sift(self.seen, batch.slots, batch.boot, batch.seq)
            new = sifted.new
        else:
            kept = np.flatnonzero(legal)
            sifted = sift(self.seen, batch.slots[kept], batch.boot[kept], batch.seq[kept])
            new = np.zeros(len(batch), dtype=np.bool_)
            new[kept] = sifted.new
            counts.malformed = len(batch) - len(kept)
        counts.new = int(np.count_nonzero(new))
        counts.duplicates, counts.too_old, counts.gaps = sifted.duplicates, sifted.too_old, sifted.gaps
        return new

    def _rows(
        self, batch: EnergyBatch, kept: Ints, now: Now, rated_w: Floats | None, counts: Counts
    ) -> tuple[Ints, Rows]:
        """The new rows by device and time, and where they stand in the batch."""
        index = kept[by_slot(batch.slots[kept])]
        slots = batch.slots[index]
        t = self._times(batch.t_ms[index], now, counts)
        if np.any((t[1:] <= t[:-1]) & (slots[1:] == slots[:-1])):
            order = np.lexsort((batch.seq[index], batch.boot[index], t, slots))
            index, slots, t = index[order], slots[order], t[order]
        rated = np.full(len(index), np.nan) if rated_w is None else rated_w[index]
        return index, Rows(slots=slots, t_ms=t, span_ms=batch.span_ms[index], rated_w=rated)

    def _times(self, t_ms: Ints, now: Now, counts: Counts) -> Ints:
        wrong = (t_ms < now.utc_ms - self.rules.past_ms) | (t_ms > now.utc_ms + self.rules.future_ms)
        if np.any(wrong):
            counts.time_replaced = int(np.count_nonzero(wrong))
            return np.where(wrong, now.utc_ms, t_ms)
        return t_ms

    def _accumulate(self, slots: Slots, groups: Part, now: Now, counts: Counts) -> _Opened | None:
        cur, prev = self.cur, self.prev
        late = groups.start_ms < np.maximum(prev.start_ms[slots], self.not_before_ms)
        if np.any(late):
            lost = groups.rows(late)
            counts.late_rows = int(lost.samples.sum())
            counts.late_wh = float(lost.charge_wh.sum() + lost.discharge_wh.sum())
            slots, groups = slots[~late], groups.rows(~late)
        at_cur = groups.start_ms == cur.start_ms[slots]
        if at_cur.all():
            cur.add(slots, groups, now.utc_ms)
            return None
        at_prev = groups.start_ms == prev.start_ms[slots]
        for part, mask in ((cur, at_cur), (prev, at_prev)):
            if np.any(mask):
                part.add(slots[mask], groups.rows(mask), now.utc_ms)
        opening = ~(at_cur | at_prev)
        return self._open(slots[opening], groups.rows(opening), now) if np.any(opening) else None

    def _open(self, slots: Slots, groups: Part, now: Now) -> _Opened:
        """Sort new intervals in with the kept ones; the newest two of each device stay."""
        cur, prev = self.cur, self.prev
        groups.changed_ms[:] = now.utc_ms
        touched = slots[tails(slots)]
        with_cur = touched[cur.start_ms[touched] != NEVER_MS]
        with_prev = touched[prev.start_ms[touched] != NEVER_MS]
        s = np.concatenate((with_prev, with_cur, slots))
        parts = Part.joined(prev.rows(with_prev), cur.rows(with_cur), groups)
        order = np.lexsort((parts.start_ms, s))
        s = s[order]
        last = tails(s)
        second = second_last(last)
        out = ~(last | second)
        cur.put(s[last], parts.rows(order[last]))
        prev.put(s[second], parts.rows(order[second]))
        return _Opened(slots=touched, out_slots=s[out], out=parts.rows(order[out]))

    def _close_passed(self, touched: Slots, opened: _Opened | None, counts: Counts) -> Closes:
        cur, prev = self.cur, self.prev
        passed = (cur.changed_ms[touched] != NEVER_MS) & (
            cur.start_ms[touched] + self.rules.length_ms <= self.newest.t_ms[touched]
        )
        closing = passed & (cur.revision[touched] == 0)
        revised = prev.changed_ms[touched] != NEVER_MS
        if opened is not None:
            closing[np.searchsorted(touched, opened.slots)] = True
        if not np.any(closing):
            return NO_CLOSES
        made = [self._record(prev, touched[revised & closing]), self._record(cur, touched[passed & closing])]
        if opened is not None and len(opened.out_slots):
            changed = opened.out.changed_ms != NEVER_MS
            out = opened.out.rows(changed)
            out.revision += 1
            made.append((opened.out_slots[changed], out))
        return self._closes(made, counts)

    def _due(self, part: Part, now_ms: int) -> Bools:
        changed = part.changed_ms[: self.n]
        age = now_ms - changed
        grace = self.rules.grace_ms
        over = part.start_ms[: self.n] + (self.rules.length_ms + grace) <= now_ms
        due: Bools = over & (changed != NEVER_MS) & ((age >= grace) | (age < 0))
        return due

    def _record(self, part: Part, slots: Slots) -> tuple[Slots, Part]:
        part.revision[slots] += 1
        part.changed_ms[slots] = NEVER_MS
        return slots, part.rows(slots)

    def _closes(self, made: list[tuple[Slots, Part]], counts: Counts) -> Closes:
        slots = np.concatenate([s for s, _ in made])
        if not len(slots):
            return NO_CLOSES
        rows = Part.joined(*(part for _, part in made))
        order = np.lexsort((rows.start_ms, slots))
        slots, rows = slots[order], rows.rows(order)
        counts.closes = len(slots)
        counts.revisions = int(np.count_nonzero(rows.revision > 1))
        charged, discharged = rows.charge_ms > 0, rows.discharge_ms > 0
        countered = (self.charge.t_ms[slots] != NEVER_MS) | (self.discharge.t_ms[slots] != NEVER_MS)
        length_ms = self.rules.length_ms
        covered = np.minimum(
            np.where(charged, np.minimum(rows.charge_ms, length_ms), length_ms),
            np.where(discharged, np.minimum(rows.discharge_ms, length_ms), length_ms),
        )
        source = np.where(countered, EnergySource.COUNTER, np.where(charged | discharged, EnergySource.ENERGY, 0))
        mean = np.where(rows.power_ms > 0, rows.power_wms / np.maximum(rows.power_ms, 1), np.nan)
        return Closes(
            slots=slots,
            start_ms=rows.start_ms,
            length_s=np.full(len(slots), self.rules.length_s, dtype=np.int64),
            revision=rows.revision,
            charge_wh=np.where(charged, rows.charge_wh, np.nan),
            discharge_wh=np.where(discharged, rows.discharge_wh, np.nan),
            coverage_pct=np.where(charged | discharged, 100.0 * covered / length_ms, 0.0),
            samples=rows.samples,
            soc_end_pct=rows.soc_pct,
            source=source.astype(np.int8),
            battery_w_mean=mean,
            battery_w_min=rows.power_w_min,
            battery_w_max=rows.power_w_max,
        )

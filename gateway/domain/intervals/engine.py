"""The interval engine: energy samples in, records of clock-aligned energy intervals out.

State is columnar, indexed by slot: what has been received (duplicates), counter states, and the accumulators of each
device's two newest intervals; samples of older intervals wait in `late`. The engine reads no clock and keeps no order
of its own: the same sequence of batches and `now`s gives the same bits, and recovery by replay rests on that. Intervals
are half open in time, but a sample that ends exactly on an edge belongs to the interval it completes.
"""

from dataclasses import dataclass

import numpy as np

from gateway.domain.errors import invariant
from gateway.domain.intervals.accumulators import Accumulators, gather, split, summed
from gateway.domain.intervals.config import AgreedConfig
from gateway.domain.intervals.drift import CHARGE, compare
from gateway.domain.intervals.duplicates import heads, second_last, tails
from gateway.domain.intervals.energy import flow
from gateway.domain.intervals.gaps import apportion
from gateway.domain.intervals.record import Quality
from gateway.domain.intervals.records import NO_RECORDS, IntervalRecords, records_of
from gateway.domain.intervals.samples import reported_powers, sample_rows, sifted
from gateway.domain.intervals.slices import gaps_due
from gateway.domain.intervals.state import DAY_S, EngineState
from gateway.domain.intervals.time_base import move_back, put_back
from gateway.domain.intervals.types import CounterState, IntervalRules, SampleCounts
from gateway.domain.readings import EnergyBatch
from gateway.domain.types import NEVER_MS, Bools, Floats, Ints, Now, Slots

SOON_MS = 3_600_000
"""A clock that went back by less: all intervals since then were recorded in turn, and are to be revised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """Outcome of one batch. `new` marks, in the batch's order, the rows that counted as samples."""

    new: Bools
    counts: SampleCounts
    records: IntervalRecords


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """Devices that got a new interval, and the intervals that are no longer among their newest two."""

    slots: Slots
    out_slots: Slots
    out: Accumulators


class Engine(EngineState):
    """Accumulates energy samples of all devices into intervals; mutable, used from one thread."""

    def ingest(self, batch: EnergyBatch, now: Now, rated_w: Floats | None = None) -> Ingested:
        """Count every row once and return the records of intervals that it records. `rated_w` per row (W, NaN unknown)
        bounds what a counter may gain. Rows may come in any order, several per device, over several intervals."""
        counts = SampleCounts(rows=len(batch))
        if not len(batch):
            return Ingested(new=np.zeros(0, dtype=np.bool_), counts=counts, records=NO_RECORDS)
        self.reserve(int(batch.slots.max()) + 1)
        boot, high = self.seen.boot[batch.slots], self.seen.high[batch.slots]
        new = sifted(self, batch, counts)
        records = NO_RECORDS
        if counts.new:
            index, rows = sample_rows(self, batch, np.flatnonzero(new), boot, now, rated_w, counts)
            powers = reported_powers(batch, index, rows, counts)
            power, rules, now_ms = powers.battery, self.rules, now.utc_ms
            newer = (batch.boot > boot) | ((batch.boot == boot) & (batch.seq > high))
            for state in (self.charge, self.discharge):
                move_back(state, self.clocks, rows, newer[index], now_ms, rules.skew_ms)
            directions = (
                (self.charge, batch.charge_counter_wh[index], batch.charge_wh[index], -power),
                (self.discharge, batch.discharge_counter_wh[index], batch.discharge_wh[index], power),
            )
            charge, discharge = (
                flow(rows, counter, span, into_w, state, rules, counts, now_ms)
                for state, counter, span, into_w in directions
            )
            if rows.any_coarse:
                for direction, (state, *_) in enumerate(directions):
                    found = charge if direction == CHARGE else discharge
                    self.drift.add_late(rows, found, direction)
                    self.drift.take_back(found, direction)
                    self.drift.add(compare(rows, found, direction, state, rules, counts))
            slots, groups = gather(rows, charge, discharge, powers, self.config.length_ms)
            last = tails(rows.slots)
            touched = rows.slots[last]
            self.newest.t_ms[touched] = np.maximum(self.newest.t_ms[touched], rows.t_ms[last])
            opened = self._accumulate(slots, groups, now, counts)
            records = self._close_passed(touched, opened, counts)
            self._end_days(now_ms)
        self.totals.add(counts)
        return Ingested(new=new, counts=counts, records=records)

    def pending(self, now: Now) -> bool:
        """Whether `close_due` would change the state even if it returns no record."""
        return bool(gaps_due(self, now.utc_ms)) or bool(len(self._ahead(now)))

    def close_due(self, now: Now) -> IntervalRecords:
        """Close intervals past their edge and grace, revise those that changed a grace ago, and share by time the gaps
        that waited long enough; at most `close_slice` devices and intervals of gaps per call, so call again while it
        returns any or `pending` says so."""
        counts = SampleCounts()
        ahead = self._come_back(now)
        opened = self._apportion_gaps(now, counts)
        tables = (self.prev, self.cur)
        due = [self._due(table, now.utc_ms) for table in tables]
        slots = np.flatnonzero(due[0] | due[1])[: self.rules.close_slice].astype(np.int32)
        made = ahead + [self._record(table, slots[mask[slots]]) for table, mask in zip(tables, due, strict=True)]
        if opened is not None:
            made.append(_fallen_out(opened))
        records = self._records(made, counts)
        self.totals.add(counts)
        return records

    @property
    def to_repair(self) -> int:
        """Number of older intervals with late data, and of days to be scaled to their counter."""
        return len(self.late) + len(self.drift)

    def repairs_due(self, now: Now, most: int, until_ms: int) -> tuple[Slots, Ints]:
        """Devices and starts of older intervals to be revised for data that arrived until `until_ms`."""

        def due(changed_ms: Ints) -> Bools:
            # A time in the future was set before the clock went back.
            grace_ms = self.rules.grace_ms
            ahead = (changed_ms > now.utc_ms + grace_ms) & (until_ms != NEVER_MS)
            found: Bools = ahead | (changed_ms <= min(until_ms, now.utc_ms - grace_ms))
            return found

        slots, start_ms = self.late.first(due, most)
        if len(self.drift):
            days = self.drift.days
            more = self.drift.first(due(days.ready_ms), most, self.config.length_ms)
            slots, start_ms = np.concatenate((slots, more[0])), np.concatenate((start_ms, more[1]))
            order = np.lexsort((start_ms, slots))
            order = order[heads(slots[order], start_ms[order])]
            slots, start_ms = slots[order], start_ms[order]
        return slots, start_ms

    def repair(self, slots: Slots, start_ms: Ints, bases: IntervalRecords) -> IntervalRecords:
        """Revise older intervals. `bases`: their newest records, where there are any."""
        inside = slots < self.n
        slots, start_ms = slots[inside], start_ms[inside]
        factors = self.drift.pop(slots, start_ms, self.config.length_ms)
        by_counter = self._counted(self.charge), self._counted(self.discharge)
        records, lost = self.late.repair(slots, start_ms, bases, self.config.length_ms, by_counter, factors)
        counts = SampleCounts(
            records=len(records), repairs=len(records), revisions=int(np.count_nonzero(records.revision > 1))
        )
        _count_lost(lost, counts)
        self.totals.add(counts)
        return records

    def raise_revisions(self, records: IntervalRecords) -> None:
        """Raise revisions to those of records that exist already, so that none is used twice."""
        for table in (self.cur, self.prev):
            known = records.slots < self.n
            s, revision = records.slots[known], records.revision[known]
            same = table.start_ms[s] == records.start_ms[known]
            np.maximum.at(table.revision, s[same], revision[same])

    def relength(self, rules: IntervalRules) -> IntervalRecords:
        """Change the rules. Devices whose intervals had the old rules' length get the new one."""
        before, self.rules = self.rules, rules
        if rules.length_s == before.length_s:
            return NO_RECORDS
        slots = np.flatnonzero(self.config.length_ms[: self.n] == before.length_ms).astype(np.int32)
        records = self._relength(slots, np.full(len(slots), rules.length_ms, dtype=np.int64))
        self.config.length_ms[self.n :] = rules.length_ms
        return records

    def agree(self, agreed: AgreedConfig) -> IntervalRecords:
        """Change the configuration of some devices. Where the length changes, open intervals close as they stand, and
        those of the new length begin after the newest of the old, so that no energy is recorded twice."""
        s = agreed.slots
        invariant(bool(np.all(DAY_S % agreed.length_s == 0)), "an interval length divides a day")
        self.reserve(int(s.max(initial=-1)) + 1)
        length_ms = agreed.length_s * 1000
        other = self.config.length_ms[s] != length_ms
        records = self._relength(s[other], length_ms[other])
        self.config.counter_step_wh[s] = agreed.counter_step_wh
        coarse = agreed.coarse
        # counters and integration are never mixed within an interval's history: a change starts the counter state anew
        changed = s[coarse != self.config.coarse[s]]
        self.config.coarse[s] = coarse
        self.any_coarse = bool(self.config.coarse.any())
        for state in (self.charge, self.discharge):
            state.t_ms[changed], state.since_ms[changed], state.day_ms[changed] = NEVER_MS, 0, 0
            state.before_ms[changed], state.held[changed] = 0, False
        return records

    def differs(self, agreed: AgreedConfig) -> Bools:
        """Which of these configurations differ from the present one."""
        self.reserve(int(agreed.slots.max(initial=-1)) + 1)
        config, s = self.config.view(self.n), agreed.slots
        step, known = agreed.counter_step_wh, config.counter_step_wh[s]
        other_step = (step != known) & ~(np.isnan(step) & np.isnan(known))
        other_length = config.length_ms[s] != agreed.length_s * 1000
        other: Bools = other_length | other_step | (config.coarse[s] != agreed.coarse)
        return other

    def _relength(self, slots: Slots, length_ms: Ints) -> IntervalRecords:
        if not len(slots):
            return NO_RECORDS
        counts = SampleCounts()
        records = self._records(self._cut(slots), counts)
        started = self.cur.start_ms[slots] != NEVER_MS
        s, length = slots[started], length_ms[started]
        end = self.cur.start_ms[s] + self.config.length_ms[s]
        self.config.not_before_ms[s] = -(-end // length) * length
        self.config.length_ms[slots] = length_ms
        self.drift.drop(slots)
        for state in (self.charge, self.discharge):
            state.day_ms[slots] = 0
        lost = self.late.drop(slots)
        _count_lost(lost, counts)
        self._clear(slots)
        self.totals.add(counts)
        return records

    def _cut(self, slots: Slots) -> list[tuple[Slots, Accumulators]]:
        """Records of open intervals, as they stand."""
        made = []
        for table in (self.prev, self.cur):
            open_ = slots[table.changed_ms[slots] != NEVER_MS]
            table.quality[open_] |= Quality.CUT
            made.append(self._record(table, open_))
        return made

    def _clear(self, slots: Slots) -> None:
        empty = Accumulators(len(slots))
        self.cur.put(slots, empty)
        self.prev.put(slots, empty)

    def _ahead(self, now: Now) -> Slots:
        """Devices whose newest sample lies in the future: the gateway's clock has gone back, and most do not say that
        this was wrong."""
        newest_ms = self.newest.t_ms[: self.n]
        ahead = np.flatnonzero(newest_ms > now.utc_ms + self.rules.future_ms).astype(np.int32)
        if len(ahead):
            self.clocks.overtake(newest_ms, now.utc_ms)
            if self.clocks.any_watched and self.clocks.most_moved(newest_ms):
                return np.zeros(0, dtype=np.int32)
        return ahead[: self.rules.close_slice] if self.rules.sliced else ahead

    def _come_back(self, now: Now) -> list[tuple[Slots, Accumulators]]:
        """After the clock went back: records from the future stay, what comes for them revises them, and counters go on
        from where they are."""
        slots = self._ahead(now)
        if not len(slots):
            return []
        made = self._cut(slots)
        length_ms, config = self.config.length_ms[slots], self.config
        newest, before = self.cur.start_ms[slots], self.prev.start_ms[slots]
        self._clear(slots)
        self.newest.t_ms[slots] = now.utc_ms
        edge = (now.utc_ms // length_ms + 1) * length_ms
        until = np.where(newest == NEVER_MS, 0, newest + length_ms)
        config.known_before_ms[slots] = edge
        # not long ago all of them were recorded in turn
        first = np.where(until - now.utc_ms <= SOON_MS, edge, np.where(before == NEVER_MS, newest, before))
        config.again_from_ms[slots], config.again_until_ms[slots] = first, until
        for state in (self.charge, self.discharge):
            put_back(state, slots, now.utc_ms)
            state.since_ms[slots] = np.minimum(state.since_ms[slots], now.utc_ms)
            state.day_ms[slots] = 0
        self.drift.drop(slots, after_ms=now.utc_ms)
        return made

    def _end_days(self, now_ms: int) -> None:
        """Mark days as ready once none of their intervals is among the newest two and no gap waits."""
        if len(self.drift):
            days = self.drift.days
            s = days.slots
            since = np.where(days.direction == CHARGE, self.charge.since_ms[s], self.discharge.since_ms[s])
            past = self.prev.start_ms[s] + self.config.length_ms[s] > days.to_ms
            self.drift.ready(past & (since <= 0), now_ms)

    def _accumulate(self, slots: Slots, groups: Accumulators, now: Now, counts: SampleCounts) -> _Opened | None:
        cur, prev = self.cur, self.prev
        floor = self.config.not_before_ms[slots]
        known = np.maximum(self.config.known_before_ms[slots], floor)
        late = groups.start_ms < np.maximum(prev.start_ms[slots], known)
        late |= self._again(slots, groups.start_ms)
        if late.any():
            lost = groups.start_ms < floor
            if lost.any():
                _count_lost(groups.rows(lost), counts)
            waits = late & ~lost
            self._set_late(slots[waits], groups.rows(waits), now, counts)
            slots, groups = slots[~late], groups.rows(~late)
        at_cur = groups.start_ms == cur.start_ms[slots]
        if at_cur.all():
            cur.add(slots, groups, now.utc_ms)
            return None
        at_prev = groups.start_ms == prev.start_ms[slots]
        for table, mask in ((cur, at_cur), (prev, at_prev)):
            if mask.any():
                table.add(slots[mask], groups.rows(mask), now.utc_ms)
        opening = ~(at_cur | at_prev)
        return self._open(slots[opening], groups.rows(opening), now) if opening.any() else None

    def _again(self, slots: Slots, start_ms: Ints) -> Bools:
        """Intervals that were recorded before the clock went back."""
        config = self.config
        found: Bools = (start_ms < config.again_until_ms[slots]) & (start_ms >= config.again_from_ms[slots])
        return found

    def _open(self, slots: Slots, groups: Accumulators, now: Now) -> _Opened:
        """Merge new intervals with the present two of each device; the newest two stay."""
        cur, prev = self.cur, self.prev
        groups.changed_ms[:] = now.utc_ms
        touched = slots[tails(slots)]
        with_cur = touched[cur.start_ms[touched] != NEVER_MS]
        with_prev = touched[prev.start_ms[touched] != NEVER_MS]
        s = np.concatenate((with_prev, with_cur, slots))
        rows = Accumulators.joined(prev.rows(with_prev), cur.rows(with_cur), groups)
        order = np.lexsort((rows.start_ms, s))
        s, rows = s[order], rows.rows(order)
        last = tails(s)
        second = second_last(last)
        self._carry_on(s, rows)
        out = ~(last | second)
        cur.put(s[last], rows.rows(last))
        prev.put(s[second], rows.rows(second))
        return _Opened(slots=touched, out_slots=s[out], out=rows.rows(out))

    def _set_late(self, slots: Slots, groups: Accumulators, now: Now, counts: SampleCounts) -> None:
        if len(slots):
            counts.late_rows += int(groups.samples.sum())
            counts.late_wh += _received_wh(groups)
            self.late.add(slots, groups, now.utc_ms)

    def _carry_on(self, slots: Slots, rows: Accumulators) -> None:
        """Like `_carry_soc`, within rows sorted by device and time."""
        length_ms = self.config.length_ms[slots[1:]]
        adjoining = (slots[1:] == slots[:-1]) & (rows.start_ms[:-1] + length_ms == rows.start_ms[1:])
        i = np.flatnonzero(adjoining & (rows.soc_t_ms[:-1] != NEVER_MS))
        rows.open_at(i + 1, rows.soc_t_ms[i], rows.soc_pct[i])

    def _carry_soc(self, slots: Slots) -> None:
        """The SoC at the end of an interval is that at the start of the next, unless a sample is nearer to the edge."""
        prev, cur = self.prev, self.cur
        adjoining = prev.start_ms[slots] + self.config.length_ms[slots] == cur.start_ms[slots]
        s = slots[adjoining & (prev.soc_t_ms[slots] != NEVER_MS)]
        cur.open_at(s, prev.soc_t_ms[s], prev.soc_pct[s])

    def _apportion_gaps(self, now: Now, counts: SampleCounts) -> _Opened | None:
        pieces = [
            split(apportion(due.state, due.slots, counts, due.until_ms), self.config.length_ms, due.direction)
            for due in gaps_due(self, now.utc_ms)
        ]
        if not pieces:
            return None
        slots = np.concatenate([s for s, _ in pieces])
        rows = Accumulators.joined(*(piece for _, piece in pieces))
        order = np.lexsort((rows.start_ms, slots))
        opened = self._accumulate(*summed(slots[order], rows.rows(order)), now, counts)
        self._end_days(now.utc_ms)
        return opened

    def _close_passed(self, touched: Slots, opened: _Opened | None, counts: SampleCounts) -> IntervalRecords:
        cur, prev = self.cur, self.prev
        passed = (cur.changed_ms[touched] != NEVER_MS) & (
            cur.start_ms[touched] + self.config.length_ms[touched] <= self.newest.t_ms[touched]
        )
        closing = passed & (cur.revision[touched] == 0)
        revised = prev.changed_ms[touched] != NEVER_MS
        if opened is not None:
            closing[np.searchsorted(touched, opened.slots)] = True
        if not closing.any():
            return NO_RECORDS
        made = [self._record(prev, touched[revised & closing]), self._record(cur, touched[passed & closing])]
        if opened is not None and len(opened.out_slots):
            made.append(_fallen_out(opened))
        return self._records(made, counts)

    def _due(self, table: Accumulators, now_ms: int) -> Bools:
        changed = table.changed_ms[: self.n]
        age = now_ms - changed
        grace = self.rules.grace_ms
        over = table.start_ms[: self.n] + (self.config.length_ms[: self.n] + grace) <= now_ms
        due: Bools = over & (changed != NEVER_MS) & ((age >= grace) | (age < 0))
        return due

    def _record(self, table: Accumulators, slots: Slots) -> tuple[Slots, Accumulators]:
        if table is self.cur:
            self._carry_soc(slots)
        table.revision[slots] += 1
        table.changed_ms[slots] = NEVER_MS
        return slots, table.rows(slots)

    def _records(self, made: list[tuple[Slots, Accumulators]], counts: SampleCounts) -> IntervalRecords:
        slots = np.concatenate([s for s, _ in made])
        if not len(slots):
            return NO_RECORDS
        rows = Accumulators.joined(*(sums for _, sums in made))
        order = np.lexsort((rows.start_ms, slots))
        slots, rows = slots[order], rows.rows(order)
        records = records_of(
            slots, rows, self.config.length_ms[slots],
            (self._counted(self.charge)[slots], self._counted(self.discharge)[slots]),
        )  # fmt: skip
        counts.records += len(slots)
        counts.revisions += int(np.count_nonzero(rows.revision > 1))
        return records

    def _counted(self, state: CounterState) -> Bools:
        """Devices whose energy in this direction comes from their counter."""
        counted: Bools = (state.t_ms[: self.n] != NEVER_MS) & ~self.config.coarse[: self.n]
        return counted


def _count_lost(lost: Accumulators, counts: SampleCounts) -> None:
    counts.lost_rows += int(lost.samples.sum())
    counts.lost_wh += _received_wh(lost)


def _received_wh(rows: Accumulators) -> float:
    """Energy of both directions, without what takes energy back."""
    return float(np.maximum(rows.charge_wh, 0.0).sum() + np.maximum(rows.discharge_wh, 0.0).sum())


def _fallen_out(opened: _Opened) -> tuple[Slots, Accumulators]:
    """Final records of intervals that are no longer among their device's newest two."""
    changed = opened.out.changed_ms != NEVER_MS
    out = opened.out.rows(changed)
    out.revision += 1
    return opened.out_slots[changed], out

"""Divides the engine's work into steps that are bounded: batches of rows, and gaps that are shared by time.

Most rows are one piece of work. A span longer than an interval is one per interval and direction, and so is a gap that
the row ends the wait for: after a silence of hours that is hundreds. The estimate is an upper bound; only a single row
may exceed the slice.
"""

from dataclasses import dataclass

import numpy as np

from gateway.domain.intervals.duplicates import by_slot, heads
from gateway.domain.intervals.state import EngineState
from gateway.domain.intervals.types import CounterState
from gateway.domain.readings import EnergyBatch
from gateway.domain.types import NEVER_MS, Bools, Ints, Now, Slots

EDGES = 2
"""A stretch touches up to this many intervals beyond its length in whole ones."""


LATE_FOR_GAPS = 200_000
"""Gaps wait while more intervals than this have late data: they would become late data themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GapsDue:
    """Gaps of one direction to be shared by time, those that last beyond `until_ms` up to there (None: all whole)."""

    direction: str
    state: CounterState
    slots: Slots
    until_ms: int | None


def gaps_due(engine: EngineState, now_ms: int) -> list[GapsDue]:
    """Gaps that have waited long enough and are shared in one step, both directions of a device together."""
    rules, states = engine.rules, {"charge": engine.charge, "discharge": engine.discharge}
    due = {name: _waited(engine, state, now_ms) for name, state in states.items()}
    until_ms = None
    if rules.sliced:
        slots = np.flatnonzero(due["charge"] | due["discharge"])[: rules.close_slice]
        if not len(slots) or len(engine.late) > LATE_FOR_GAPS:
            return []
        length_ms, intervals = engine.config.length_ms[slots], np.zeros(len(slots), dtype=np.int64)
        for name, state in states.items():
            pieces = (state.to_ms[slots] - 1) // length_ms - state.from_ms[slots] // length_ms + 1
            intervals += np.where(due[name][slots], np.maximum(pieces, 1), 0)
        fit = int(np.searchsorted(np.cumsum(intervals), rules.close_slice, side="right"))
        slots = slots[: max(fit, 1)]
        if not fit:
            # the gaps of one device alone are more than a slice
            first = min(int(state.from_ms[slots[0]]) for name, state in states.items() if due[name][slots[0]])
            length = int(length_ms[0])
            until_ms = (first // length + max(rules.close_slice // 2, 1)) * length
        due = {name: _only(mask, slots) for name, mask in due.items()}
    found = []
    for name, state in states.items():
        chosen = np.flatnonzero(due[name])[: rules.close_slice].astype(np.int32)
        if until_ms is not None:
            chosen = chosen[state.from_ms[chosen] < until_ms]
        if len(chosen):
            found.append(GapsDue(direction=name, state=state, slots=chosen, until_ms=until_ms))
    return found


def _waited(engine: EngineState, state: CounterState, now_ms: int) -> Bools:
    since = state.since_ms[: engine.n]
    age = now_ms - since
    due: Bools = (since > 0) & ((age >= engine.rules.gap_hold_s * 1000) | (age < 0))
    return due


def _only(mask: Bools, slots: Ints) -> Bools:
    out = np.zeros_like(mask)
    out[slots] = mask[slots]
    return out


def steps(state: EngineState, batch: EnergyBatch, now: Now) -> list[EnergyBatch]:
    """The same rows as batches to be ingested one after the other: each device's rows stay in their order."""
    n, most = len(batch), state.rules.close_slice
    if not n:
        return []
    state.reserve(int(batch.slots.max()) + 1)
    slots = np.maximum(batch.slots, 0)
    work = 1 + _of_spans(state, slots, batch.span_ms)
    gaps = _of_gaps(state, slots, batch.t_ms, now)
    if n <= most and int(work.sum()) + int(gaps.sum()) <= most:
        return [batch]
    if gaps.any():
        # a device's gap counts once, with the first of its rows, which are side by side
        order = by_slot(slots)
        batch, slots, work, gaps = _rows(batch, order), slots[order], work[order], gaps[order]
        first = np.flatnonzero(heads(slots))
        work[first] += np.maximum.reduceat(gaps, first)
    total = np.cumsum(work)
    out, at, done = [], 0, 0
    while at < n:
        end = max(int(np.searchsorted(total, done + most, side="right")), at + 1)
        out.append(_rows(batch, slice(at, end)))
        at, done = end, int(total[end - 1])
    return out


def _rows(batch: EnergyBatch, index: Ints | slice) -> EnergyBatch:
    return EnergyBatch(**{name: getattr(batch, name)[index] for name in EnergyBatch.__dataclass_fields__})


def _of_spans(state: EngineState, slots: Slots, span_ms: Ints) -> Ints:
    length_ms = state.config.length_ms[slots]
    long = (span_ms > length_ms) & (span_ms <= state.rules.past_ms)
    if not long.any():
        return np.zeros(len(slots), dtype=np.int64)
    pieces: Ints = np.where(long, 2 * (span_ms // length_ms + EDGES), 0)
    return pieces


def _of_gaps(state: EngineState, slots: Slots, t_ms: Ints, now: Now) -> Ints:
    """Intervals of gaps that each row may have shared by time, by itself."""
    out = np.zeros(len(slots), dtype=np.int64)
    length_ms, rules = state.config.length_ms[slots], state.rules
    # a device time that cannot be used gives way to that of receipt
    until_ms = np.minimum(np.maximum(t_ms, now.utc_ms), now.utc_ms + rules.future_ms)
    several: Bools | None = None
    for counter in (state.charge, state.discharge):
        # a reading that is not believed yet may be left out
        known_ms = np.where(counter.held[slots], counter.before_ms[slots], counter.t_ms[slots])
        opens = (known_ms != NEVER_MS) & (until_ms - known_ms > length_ms)
        waits = counter.since_ms[slots] > 0
        ends = waits & (opens | (t_ms <= counter.to_ms[slots])) if waits.any() else waits
        if ends.any():
            out += np.where(ends, _intervals(counter, slots, length_ms), 0)
        if opens.any():
            if several is None:
                several = np.bincount(slots)[slots] > 1
            # all gaps but a device's newest are shared at once
            lasted_ms = np.where(opens & several, np.minimum(until_ms - known_ms, rules.past_ms), 0)
            out += np.where(opens & several, lasted_ms // length_ms + EDGES, 0)
    return out


def _intervals(counter: CounterState, slots: Slots, length_ms: Ints) -> Ints:
    found: Ints = (counter.to_ms[slots] - counter.from_ms[slots]) // length_ms + EDGES
    return found

"""Makes a batch into samples: each counted once, by device and time, with what its powers and its clock are worth."""

import numpy as np

from gateway.domain.intervals.accumulators import Powers
from gateway.domain.intervals.device_clock import times
from gateway.domain.intervals.duplicates import by_slot, sift
from gateway.domain.intervals.record import Quality
from gateway.domain.intervals.state import EngineState
from gateway.domain.intervals.types import RATING_MARGIN, SampleCounts, SampleRows
from gateway.domain.readings import EnergyBatch
from gateway.domain.types import Bools, Floats, Ints, Now, Slots

RATING_W = 100.0
_CLOCK = np.int16(Quality.CLOCK)


def sifted(state: EngineState, batch: EnergyBatch, counts: SampleCounts) -> Bools:
    """The rows that were not counted before."""
    given_up = state.missing.given_up
    legal = (batch.boot >= 0) & (batch.seq >= 0) & (batch.slots >= 0)
    if legal.all():
        found = sift(state.seen, state.missing, batch.slots, batch.boot, batch.seq)
        new = found.new
    else:
        kept = np.flatnonzero(legal)
        found = sift(state.seen, state.missing, batch.slots[kept], batch.boot[kept], batch.seq[kept])
        new = np.zeros(len(batch), dtype=np.bool_)
        new[kept] = found.new
        counts.malformed = len(batch) - len(kept)
    counts.new = int(np.count_nonzero(new))
    counts.gaps_given_up = state.missing.given_up - given_up
    counts.duplicates, counts.too_old, counts.gaps = found.duplicates, found.too_old, found.gaps
    return new


def sample_rows(
    state: EngineState,
    batch: EnergyBatch,
    kept: Ints,
    boot: Ints,
    now: Now,
    rated_w: Floats | None,
    counts: SampleCounts,
) -> tuple[Ints, SampleRows]:
    """The new rows by device and time, and their positions in the batch. `boot` (by row of the batch) is the newest one
    that was known of the device before it."""
    index = kept[by_slot(batch.slots[kept])]
    slots = batch.slots[index]
    newest_ms = state.newest.t_ms[: state.n]
    t, marked = times(state.clocks, slots, batch.t_ms[index], newest_ms, now, state.rules, counts)
    if np.any((t[1:] <= t[:-1]) & (slots[1:] == slots[:-1])):
        order = np.lexsort((batch.seq[index], batch.boot[index], t, slots))
        index, slots, t, marked = index[order], slots[order], t[order], marked[order]
    rated = np.full(len(index), np.nan) if rated_w is None else rated_w[index]
    return index, SampleRows(
        slots=slots,
        t_ms=t,
        span_ms=batch.span_ms[index],
        rated_w=rated,
        length_ms=state.config.length_ms[slots],
        step_wh=state.config.counter_step_wh,
        coarse=state.config.coarse[slots],
        any_coarse=state.any_coarse and bool(state.config.coarse[slots].any()),
        rebooted=_rebooted(slots, batch.boot[index], boot[index]),
        quality=marked.astype(np.int16) * _CLOCK,
    )


def _rebooted(slots: Slots, boot: Ints, known: Ints) -> Bools:
    """Where a row is of a newer boot than the row before it and the `known` one of its device."""
    new = boot > known
    if new.any():
        new[1:] &= (slots[1:] != slots[:-1]) | (boot[1:] > boot[:-1])
    return new


def reported_powers(batch: EnergyBatch, index: Ints, rows: SampleRows, counts: SampleCounts) -> Powers:
    """The powers that the rows report; battery power beyond the rating becomes unknown."""
    battery = batch.battery_w[index]
    wild = np.abs(battery) > RATING_MARGIN * rows.rated_w + RATING_W
    if wild.any():
        counts.power_refused += int(np.count_nonzero(wild))
        rows.quality[wild] |= Quality.JUMP
        battery = np.where(wild, np.nan, battery)
    return Powers(
        battery=battery, grid=batch.grid_w[index], pv=batch.pv_w[index], load=batch.load_w[index],
        soc_pct=batch.soc_pct[index],
    )  # fmt: skip

"""Estimates from a run of readings what the newest one does not say: SoC jumps, a stuck SoC, drift since the last full
charge, wear, the worst load, and whether a reported reserve lasts.

`observe` folds a batch of readings into the columns. Energy between two readings is the earlier one's power times the
time between them; unknown power adds none.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gateway.domain.fleet import reserve
from gateway.domain.fleet.columns import LiveColumns, Nameplate
from gateway.domain.readings import LiveBatch
from gateway.domain.types import NEVER_MS, Bools, Floats, Grid, Ints, Now, Slots, Unclear

TRICKLE_PART = 0.02
"""Standby and balancing move energy that no SoC shows: power below this part of the rating is ignored."""

FULL_PCT = 99.5
IMPLAUSIBLE_X = 1.5
IMPLAUSIBLE_W = 500.0
"""No battery gives or takes this much more than its rating: such a power is unknown."""

CONFIRMED_BY = 2
"""Readings in a row that must agree with a jumped SoC before it may widen the envelope."""

JUMP_PCT = 1.0
JUMP_STEPS = 2.0
GAP_MS = 60_000
"""How much SoC may change beyond the energy moved; over a longer gap any power up to the rating may have run."""

STRETCH_MS = 450_000
"""Three stretches of 7.5 min each: the worst load is that of the last 15 to 22.5 min."""

AS_IT_COMES = (
    "soc_pct",
    "soc_step_pct",
    "temp_c",
    "discharge_w_max",
    "charge_w_max",
    "pv_w",
    "load_w",
    "grid_w",
    "mode",
    "grid",
    "faults",
    "cmd",
)


def observe(live: LiveColumns, plate: Nameplate, batch: LiveBatch, now: Now) -> int:
    """Fold readings in; a reading's age is counted from the device's own time where that lies in the past. Rows that
    are not `fresh`, or older than the newest reading, update nothing. Returns the number of implausible powers."""
    seen = now.mono_ms - np.maximum(now.utc_ms - batch.device_t_ms, 0)
    newest = batch.fresh & (seen >= np.minimum(live.seen_mono_ms[batch.slots], now.mono_ms))
    keep = slice(None) if newest.all() else newest
    slots, seen = batch.slots[keep], seen[keep]
    if not len(slots):
        return 0
    since = _Since(live, plate, slots, seen)
    battery_w = batch.battery_w[keep]
    implausible = np.abs(battery_w) > IMPLAUSIBLE_X * since.rated_w + IMPLAUSIBLE_W
    if implausible.any():
        battery_w = np.where(implausible, np.nan, battery_w)
    stands = _understood(live, batch, keep, slots)
    for name in AS_IT_COMES:
        live.column(name)[slots] = stands.get(name, getattr(batch, name)[keep])
    _reserve(live, plate, batch, keep, since, now.mono_ms - seen)
    _refusals(live, batch, keep, since, stands)
    live.battery_w[slots] = battery_w
    live.seen_mono_ms[slots] = seen
    live.online[slots] = 1
    phases = [getattr(batch, name)[keep] for name in ("grid_l1_w", "grid_l2_w", "grid_l3_w")]
    live.phase_w_max[slots] = np.fmax.reduce(phases)
    live.phase_w_min[slots] = np.fmin.reduce(phases)
    back = (since.grid == int(Grid.ISLAND)) & (live.grid[slots] == int(Grid.ON))
    live.reconnected_mono_ms[slots[back]] = now.mono_ms
    _stuck(live, slots, since)
    _bound_soc(live, slots, since)
    _wear(live, plate, slots, since)
    _worst_load(live, slots, seen)
    return int(np.count_nonzero(implausible))


WORDS = (
    ("mode", Unclear.MODE),
    ("grid", Unclear.GRID),
    ("locked", Unclear.LOCKED),
    ("opt_out", Unclear.OPT_OUT),
    ("faults", Unclear.FAULTS),
)


def _understood(
    live: LiveColumns, batch: LiveBatch, keep: Bools | slice, slots: Slots
) -> dict[str, NDArray[np.generic]]:
    """Note members that were not understood; words among them keep the last value understood."""
    if batch.unclear is None:
        if live.unclear[slots].any():
            live.unclear[slots] = 0
        return {}
    unclear = live.unclear[slots] = batch.unclear[keep]
    return {
        name: np.where(unclear & member, live.column(name)[slots], getattr(batch, name)[keep])
        for name, member in WORDS
        if (unclear & member).any()
    }


class _Since:
    """What was known of a batch's devices before it, and the AC energy moved since."""

    def __init__(self, live: LiveColumns, plate: Nameplate, slots: Slots, seen: Ints) -> None:
        self.soc_pct: Floats = live.soc_told_pct[slots].astype(np.float64)
        self.grid = live.grid[slots]
        self.battery_w = live.battery_w[slots]
        self.rated_w: Floats = np.maximum(plate.discharge_w_max[slots], plate.charge_w_max[slots])
        self.capacity_wh = plate.capacity_wh[slots]
        before = live.seen_mono_ms[slots]
        self.known: Bools = before != NEVER_MS
        self.gap_ms: Ints = np.where(self.known, np.maximum(seen - before, 0), 0)
        self.hours: Floats = self.gap_ms / 3_600_000
        self.out_wh: Floats = np.fmax(self.battery_w, 0.0) * self.hours
        self.into_wh: Floats = np.fmax(-self.battery_w, 0.0) * self.hours


def _reserve(
    live: LiveColumns, plate: Nameplate, batch: LiveBatch, keep: Bools | slice, since: _Since, age_ms: Ints
) -> None:
    """Store the reserve of the newest reading and count repetitions. A reading whose device time is no later than that
    of the one before is that same reading."""
    slots, reserve_pct = batch.slots[keep], batch.reserve_pct[keep]
    unknown = reserve.unknown(reserve_pct, batch.soc_pct[keep], plate.owner_reserve_pct[slots])
    reserve_pct = np.where(unknown, np.nan, reserve_pct)
    anew = (since.gap_ms > 0) | ~since.known
    anew &= age_ms <= 1000 * reserve.GAP_S_MAX
    if batch.reserve_again is not None:
        anew &= ~batch.reserve_again[keep]
    live.reserve_pct[slots] = reserve_pct
    reserve.observe(live, plate, slots, reserve_pct, anew, since.gap_ms / 1000)


def _refusals(
    live: LiveColumns, batch: LiveBatch, keep: Bools | slice, since: _Since, stands: Mapping[str, NDArray[np.generic]]
) -> None:
    """Opt-outs and locks: each counts at once and ends only after readings without it have lasted as long as those that
    confirm a lower reserve, since a restarting controller does not report it before it has its settings."""
    slots, gap_s = batch.slots[keep], np.minimum(since.gap_ms / 1000, reserve.GAP_S_MAX)
    for column, gone_s, reported in (
        (live.opt_out, live.opt_out_gone_s, stands.get("opt_out", batch.opt_out[keep]) != 0),
        (live.locked, live.lock_gone_s, stands.get("locked", batch.locked[keep]) != 0),
    ):
        before = column[slots] != 0
        if not (reported | before).any():
            continue
        without_s = gone_s[slots] + gap_s
        still = before & (without_s < reserve.SUSTAINED_S)
        column[slots] = reported | still
        gone_s[slots] = np.where(still, without_s, 0.0)
        # of several readings of a device in this batch, one that reports it wins
        column[slots[reported]] = 1
        gone_s[slots[reported]] = 0.0


def _stuck(live: LiveColumns, slots: Slots, since: _Since) -> None:
    """Add up energy moved while the SoC stays the same. What goes into a battery at 100 % shows in no SoC."""
    into_wh = since.into_wh * ~(since.soc_pct >= 100)
    moved_wh = since.out_wh + into_wh
    moved_wh = moved_wh * (np.abs(since.battery_w) > TRICKLE_PART * since.rated_w)
    soc_pct = live.soc_pct[slots]
    same = np.isnan(soc_pct) | (soc_pct.astype(np.float32) == since.soc_pct)
    live.moved_wh[slots] = np.where(same, live.moved_wh[slots] + moved_wh, 0.0)


def _bound_soc(live: LiveColumns, slots: Slots, since: _Since) -> None:
    """Bound the charge by `soc_low_pct` and `soc_high_pct`. A jump is a change that the energy moved does not explain:
    it narrows at once either way, and is accepted after `CONFIRMED_BY` more readings that agree with it. (Recalibration
    of LFP is real; so are torn values.) A reading without a SoC neither confirms nor contradicts it."""
    soc_pct = live.soc_pct[slots]
    known = ~np.isnan(soc_pct)
    rated_wh = since.rated_w * since.hours
    unsure = (since.gap_ms > GAP_MS) | np.isnan(since.battery_w)
    moved_wh = np.where(unsure, rated_wh, 1.5 * (since.out_wh + since.into_wh))
    step_pct = np.fmax(live.soc_step_pct[slots], 0.0)
    most_pct = JUMP_PCT + JUMP_STEPS * step_pct + 100 * moved_wh / since.capacity_wh
    jumped = np.abs(soc_pct - since.soc_pct) > most_pct
    doubt = np.where(jumped, CONFIRMED_BY, np.maximum(live.soc_doubt[slots] - known, 0))
    doubted = (doubt > 0) | ~known
    live.soc_doubt[slots] = doubt
    live.soc_told_pct[slots] = np.where(known, soc_pct, since.soc_pct)
    if not doubted.any():
        live.soc_low_pct[slots] = live.soc_high_pct[slots] = soc_pct
        return
    # the former bounds move with the energy
    low_pct = live.soc_low_pct[slots] - 100 * since.out_wh / since.capacity_wh
    high_pct = live.soc_high_pct[slots] + 100 * since.into_wh / since.capacity_wh
    live.soc_low_pct[slots] = np.where(doubted, np.fmin(low_pct, soc_pct), soc_pct)
    live.soc_high_pct[slots] = np.where(doubted, np.fmax(high_pct, soc_pct), soc_pct)


def _wear(live: LiveColumns, plate: Nameplate, slots: Slots, since: _Since) -> None:
    """Throughput since the last full charge, and the day's cycles as a bucket that leaks as the warranty allows. SoC
    uncertainty rests on the full charge, so a single reading of it, or one still in doubt, does not count."""
    full = (live.soc_low_pct[slots] >= FULL_PCT) & (since.soc_pct >= FULL_PCT) & ~(live.battery_w[slots] > 0)
    moved_wh = since.out_wh + since.into_wh
    live.since_full_wh[slots] = np.where(full, 0.0, live.since_full_wh[slots] + moved_wh)
    live.unfilled_wh[slots] = np.where(full, 0.0, live.unfilled_wh[slots] + moved_wh)
    budget_wh = plate.cycles_per_day_max[slots] * since.capacity_wh
    rows = np.flatnonzero(np.isfinite(budget_wh))
    if len(rows):
        level_wh = np.nan_to_num(live.cycled_wh[slots[rows]] + since.out_wh[rows])
        live.cycled_wh[slots[rows]] = np.maximum(level_wh - budget_wh[rows] * since.hours[rows] / 24, 0)


def _worst_load(live: LiveColumns, slots: Slots, seen: Ints) -> None:
    """Smallest and largest load less PV of each stretch of time. Where the load is not reported, it follows from meter
    and battery."""
    net_w = live.load_w[slots] - live.pv_w[slots]
    unknown = np.isnan(net_w)
    if unknown.any():
        net_w = np.where(unknown, live.grid_w[slots] + live.battery_w[slots], net_w).astype(np.float32)
    over = seen - live.net_since_mono_ms[slots] >= STRETCH_MS
    if over.any():
        moved = slots[over]
        for name in ("net_low", "net_high"):
            live.column(f"{name}_2_w")[moved] = live.column(f"{name}_1_w")[moved]
            live.column(f"{name}_1_w")[moved] = live.column(f"{name}_w")[moved]
            live.column(f"{name}_w")[moved] = np.nan
        live.net_since_mono_ms[moved] = seen[over]
    live.net_low_w[slots] = np.fmin(live.net_low_w[slots], net_w)
    live.net_high_w[slots] = np.fmax(live.net_high_w[slots], net_w)

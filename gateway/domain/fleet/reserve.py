"""Decides whose reserve applies. A reported reserve above the owner's is the owner's new choice at once; a lower one is
once it is confirmed.

A value is confirmed when `TIMES` readings over at least `SUSTAINED_S` report it and no other value comes between them.
A choice is a change from the value reported before, `reported_reserve_pct`: the first report is no choice, and neither
is a value between that and the one written to the device, which has rounded it or keeps no more.
A raise counts before it is confirmed, so it may have been an odd reading: `raised_from_pct` is then the reserve to
return to, if the device goes on reporting what it reported before.
"""

import numpy as np
from numpy.typing import NDArray

from gateway.domain.fleet.columns import ControlColumns, LiveColumns, Nameplate
from gateway.domain.types import Bools, Floats, Slots

STEP_PCT = 0.05
"""Reserves no further apart than this are equal."""

TIMES = 3
SUSTAINED_S = 300.0
"""A register that was torn, or read while it was written, is right at the next reading. A restarting controller reports
defaults until it has its settings and everything behind it answers again, which takes minutes."""

GAP_S_MAX = 120.0
"""Between two readings a device may have reported anything: at most this much of the gap counts. A reading that is
older than this when it arrives confirms nothing."""


def unknown(reserve_pct: Floats, soc_pct: Floats, owner_reserve_pct: Floats) -> Bools:
    """Reserves that look known but are not: a device that does not know its charge, or reports 0 for it, reports 0 for
    everything it has not read yet. Where the owner's reserve is 0 anyway, 0 counts."""
    result: Bools = np.isnan(reserve_pct) | ((reserve_pct == 0) & ~(soc_pct > 0) & (owner_reserve_pct > 0))
    return result


def observe(live: LiveColumns, plate: Nameplate, slots: Slots, reserve_pct: Floats, anew: Bools, gap_s: Floats) -> None:
    """Count repetitions of reported reserves, in the order of the reports (a slot may come several times). `anew`:
    whether it was read anew and is not old; `gap_s` since the reading before. Unknown reserves are ignored."""
    unchanged, known = _unchanged(live, plate, slots, reserve_pct), ~np.isnan(reserve_pct)
    rows = np.flatnonzero((known & ~unchanged) | (live.reserve_times[slots] > 0))
    if not len(rows):
        return
    at, unchanged, known = slots[rows], unchanged[rows], known[rows]
    times, before_pct = live.reserve_times[at], live.reserve_told_pct[at]
    pct, anew = np.where(known, reserve_pct[rows], before_pct), anew[rows] & known
    same = (times > 0) & (np.abs(pct - before_pct) <= STEP_PCT)
    for_s = np.where(same, live.reserve_told_s[at] + np.minimum(gap_s[rows], GAP_S_MAX), 0.0)
    # the last repetition needs a reading, not only time
    times = np.minimum(np.where(same, times, 0) + anew, np.where(for_s >= SUSTAINED_S, TIMES, TIMES - 1))
    live.reserve_told_pct[at] = pct
    live.reserve_told_s[at] = for_s
    live.reserve_times[at] = np.where(unchanged, 0, times)
    other = np.abs(pct - live.reserve_told_pct[at]) > STEP_PCT
    live.reserve_times[at[other]] = 0


def _unchanged(live: LiveColumns, plate: Nameplate, slots: Slots | slice, reserve_pct: Floats) -> Bools:
    """Reports that change nothing: the owner's reserve, as before."""
    same = np.abs(reserve_pct - plate.owner_reserve_pct[slots]) <= STEP_PCT
    same &= ~(np.abs(reserve_pct - live.reported_reserve_pct[slots]) > STEP_PCT)
    result: Bools = same & np.isnan(live.raised_from_pct[slots])
    return result


def choose(live: LiveColumns, plate: Nameplate, control: ControlColumns) -> tuple[NDArray[np.intp], Floats]:
    """Apply the owners' choices; returns the rows whose reserve changed and their new values. `live`, `plate` and
    `control` are columns of equal length."""
    same = (live.reserve_pct == live.reported_reserve_pct) & (live.reserve_pct == plate.owner_reserve_pct)
    if (np.isnan(live.reserve_pct) | (same & np.isnan(live.raised_from_pct))).all():
        return np.zeros(0, dtype=np.intp), np.zeros(0)
    reported = live.reserve_pct.astype(np.float64)
    unchanged = _unchanged(live, plate, slice(None), reported)
    first = unchanged & np.isnan(live.reported_reserve_pct)
    live.reported_reserve_pct[first] = reported[first]
    rows = np.flatnonzero(~np.isnan(reported) & ~unchanged)
    if not len(rows):
        return rows, reported[rows]
    reported = reported[rows]
    owner_pct, before_pct = plate.owner_reserve_pct[rows], live.reported_reserve_pct[rows]
    raised_from_pct, first = live.raised_from_pct[rows], np.isnan(before_pct)
    sure = _confirmed(live)[rows]
    higher, lower = reported > owner_pct + STEP_PCT, reported < owner_pct - STEP_PCT
    again = np.abs(reported - before_pct) <= STEP_PCT
    lowered = sure & lower & ~first & ~again & ~_ours(live, control)[rows]
    back = sure & lower & (first | again) & ~np.isnan(raised_from_pct)
    live.raised_from_pct[rows] = np.where(
        higher & np.isnan(raised_from_pct), owner_pct, np.where(sure & ~higher, np.nan, raised_from_pct)
    )
    live.reported_reserve_pct[rows] = np.where(sure & ~higher, reported, before_pct)
    pct = np.where(back, np.maximum(raised_from_pct, reported), reported)
    chosen = higher | lowered | back
    slots, pct = rows[chosen], pct[chosen]
    plate.owner_reserve_pct[slots] = pct
    control.written_reserve_pct[slots] = np.nan
    return slots, pct


def unsure(live: LiveColumns, plate: Nameplate, control: ControlColumns) -> Bools:
    """Devices whose owner may be lowering the reserve, not confirmed yet."""
    reported = live.reserve_pct
    lower = (reported < plate.owner_reserve_pct - STEP_PCT) & ~_confirmed(live)
    changed = (np.abs(reported - live.reported_reserve_pct) > STEP_PCT) & ~_ours(live, control)
    result: Bools = lower & (changed | ~np.isnan(live.raised_from_pct))
    return result


def begin_anew(live: LiveColumns) -> None:
    """Start unconfirmed reports over: what devices reported meanwhile is unknown."""
    live.reserve_times[np.flatnonzero(live.reserve_times)] = 0


def state(live: LiveColumns, slot: int, *, moved: bool) -> None:
    """Registration stated the reserve anew, so there is no other one to return to. With `moved` another battery may
    answer from now on, whose first report is no choice."""
    live.raised_from_pct[slot] = np.nan
    if moved:
        live.reported_reserve_pct[slot] = np.nan
    if moved and live.reserve_times[slot]:
        live.reserve_times[slot] = 0


def _confirmed(live: LiveColumns) -> Bools:
    """Devices that have reported the same for long enough, and report it now."""
    now = np.abs(live.reserve_pct - live.reserve_told_pct) <= STEP_PCT
    result: Bools = now & (live.reserve_times >= TIMES)
    return result


def _ours(live: LiveColumns, control: ControlColumns) -> Bools:
    """Reports of the value we wrote, or of what the device made of it."""
    reported, written = live.reserve_pct, control.written_reserve_pct
    result: Bools = np.abs(reported - written) <= STEP_PCT
    result |= (reported > live.reported_reserve_pct) & (reported < written)
    return result

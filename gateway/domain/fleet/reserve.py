"""Whose reserve holds. What a device reports as higher than its owner's is the owner's new choice at once; what it
reports as lower is once it has been confirmed.

Confirmed is one value that a run of readings tells, `TIMES` of them and over `SUSTAINED_S`, and nothing else between
them. A choice is a change from what the device reported before, `reported_reserve_pct`: what it reports first is none,
nor is what lies on the way to the value that was written to it, since it has rounded that or keeps no more.
A raise counts before it is confirmed, so it may have been an odd reading: `raised_from_pct` is then the reserve to come
back to, if the device goes on telling what it told before.
"""

import numpy as np
from numpy.typing import NDArray

from gateway.domain.fleet.columns import ControlColumns, LiveColumns, Nameplate
from gateway.domain.types import Bools, Floats, Slots

STEP_PCT = 0.05
"""Two reserves that are no further apart are the same."""

TIMES = 3
SUSTAINED_S = 300.0
"""A register that was torn, or read while it was written, is right again when it is read the next time. A controller
that restarts tells defaults until it has its settings and everything behind it answers again, which takes minutes."""

SILENCE_S = 120.0
"""A device may have told anything while it was not heard: no more of a silence counts, as a reading counts no longer
for its power either. A reading that is older when it comes confirms nothing."""


def unknown(reserve_pct: Floats, soc_pct: Floats, owner_reserve_pct: Floats) -> Bools:
    """Reserves that are not known though they look so: a device that does not know its charge, or tells 0 for that too,
    tells 0 of everything it has not read yet. Where the owner's is 0 anyway it is believed."""
    result: Bools = np.isnan(reserve_pct) | ((reserve_pct == 0) & ~(soc_pct > 0) & (owner_reserve_pct > 0))
    return result


def hear(live: LiveColumns, plate: Nameplate, slots: Slots, reserve_pct: Floats, told: Bools, gap_s: Floats) -> None:
    """Follow what devices tell of their reserve, in the order they told it (a slot may come several times). `told`:
    whether it was read anew and is not old; `gap_s` since the reading before. What is not known says nothing."""
    settled, known = _settled(live, plate, slots, reserve_pct), ~np.isnan(reserve_pct)
    rows = np.flatnonzero((known & ~settled) | (live.reserve_times[slots] > 0))
    if not len(rows):
        return
    at, settled, known = slots[rows], settled[rows], known[rows]
    times, before_pct = live.reserve_times[at], live.reserve_told_pct[at]
    pct, told = np.where(known, reserve_pct[rows], before_pct), told[rows] & known
    same = (times > 0) & (np.abs(pct - before_pct) <= STEP_PCT)
    for_s = np.where(same, live.reserve_told_s[at] + np.minimum(gap_s[rows], SILENCE_S), 0.0)
    # the last time is that of a reading, not of the time that has passed
    times = np.minimum(np.where(same, times, 0) + told, np.where(for_s >= SUSTAINED_S, TIMES, TIMES - 1))
    live.reserve_told_pct[at] = pct
    live.reserve_told_s[at] = for_s
    live.reserve_times[at] = np.where(settled, 0, times)
    other = np.abs(pct - live.reserve_told_pct[at]) > STEP_PCT
    live.reserve_times[at[other]] = 0


def _settled(live: LiveColumns, plate: Nameplate, slots: Slots | slice, reserve_pct: Floats) -> Bools:
    """Reports that say nothing new: the owner's reserve, as before."""
    same = np.abs(reserve_pct - plate.owner_reserve_pct[slots]) <= STEP_PCT
    same &= ~(np.abs(reserve_pct - live.reported_reserve_pct[slots]) > STEP_PCT)
    result: Bools = same & np.isnan(live.raised_from_pct[slots])
    return result


def choose(live: LiveColumns, plate: Nameplate, control: ControlColumns) -> tuple[NDArray[np.intp], Floats]:
    """Take over what owners have chosen by now; returns whose reserve is another one, and which. `live`, `plate` and
    `control` are columns of as many devices."""
    told = live.reserve_pct.astype(np.float64)
    settled = _settled(live, plate, slice(None), told)
    first = settled & np.isnan(live.reported_reserve_pct)
    live.reported_reserve_pct[first] = told[first]
    rows = np.flatnonzero(~np.isnan(told) & ~settled)
    if not len(rows):
        return rows, told[rows]
    told = told[rows]
    owner_pct, before_pct = plate.owner_reserve_pct[rows], live.reported_reserve_pct[rows]
    raised_from_pct, first = live.raised_from_pct[rows], np.isnan(before_pct)
    sure = _confirmed(live)[rows]
    higher, lower = told > owner_pct + STEP_PCT, told < owner_pct - STEP_PCT
    again = np.abs(told - before_pct) <= STEP_PCT
    lowered = sure & lower & ~first & ~again & ~_ours(live, control)[rows]
    back = sure & lower & (first | again) & ~np.isnan(raised_from_pct)
    live.raised_from_pct[rows] = np.where(
        higher & np.isnan(raised_from_pct), owner_pct, np.where(sure & ~higher, np.nan, raised_from_pct)
    )
    live.reported_reserve_pct[rows] = np.where(sure & ~higher, told, before_pct)
    pct = np.where(back, np.maximum(raised_from_pct, told), told)
    chosen = higher | lowered | back
    slots, pct = rows[chosen], pct[chosen]
    plate.owner_reserve_pct[slots] = pct
    control.written_reserve_pct[slots] = np.nan
    return slots, pct


def unsure(live: LiveColumns, plate: Nameplate, control: ControlColumns) -> Bools:
    """Devices whose owner may be lowering the reserve: it is not known yet."""
    told = live.reserve_pct
    lower = (told < plate.owner_reserve_pct - STEP_PCT) & ~_confirmed(live)
    changed = (np.abs(told - live.reported_reserve_pct) > STEP_PCT) & ~_ours(live, control)
    result: Bools = lower & (changed | ~np.isnan(live.raised_from_pct))
    return result


def begin_anew(live: LiveColumns) -> None:
    """What was not confirmed is to be told from the beginning: nobody knows what was told meanwhile."""
    live.reserve_times[np.flatnonzero(live.reserve_times)] = 0


def state(live: LiveColumns, slot: int, *, moved: bool) -> None:
    """A reserve was stated anew by enrolling the device: there is no other one to come back to. With `moved` another
    battery may answer from now on, whose first report is no choice."""
    live.raised_from_pct[slot] = np.nan
    if moved:
        live.reported_reserve_pct[slot] = np.nan
    if moved and live.reserve_times[slot]:
        live.reserve_times[slot] = 0


def _confirmed(live: LiveColumns) -> Bools:
    """Devices that tell the same long enough, and tell it now."""
    now = np.abs(live.reserve_pct - live.reserve_told_pct) <= STEP_PCT
    result: Bools = now & (live.reserve_times >= TIMES)
    return result


def _ours(live: LiveColumns, control: ControlColumns) -> Bools:
    """Reports of what we wrote, or of what the device made of it."""
    told, written = live.reserve_pct, control.written_reserve_pct
    result: Bools = np.abs(told - written) <= STEP_PCT
    result |= (told > live.reported_reserve_pct) & (told < written)
    return result

"""Who has each device: which leave control, which may be taken, written and handed back, and when. Reads columns only;
`free` alone writes them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.control.compliance import ratings_w
from gateway.domain.control.leases import NO_END_MS, release_at
from gateway.domain.control.marks import Marks
from gateway.domain.control.ramp import in_turn
from gateway.domain.fleet import reserve
from gateway.domain.fleet.columns import Authority, ControlColumns
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits.device import left_alone
from gateway.domain.types import NEVER_MS, Bools, Grid, Ints, Mode, Now

LEASE_MARGIN_MS = 2_000
GAP_MS = 12_000

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Over:
    """Devices that leave control by themselves: `rows`, and how many of those because their lease has `run_out`."""

    rows: Rows
    run_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HandBackParams:
    """Devices are handed back over `spread_s`, no faster than the fleet may ramp (`fleet_w_per_s`); those that go at
    once are at most `step_w` in a tick."""

    spread_s: float
    fleet_w_per_s: float
    step_w: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HandBacks:
    """Devices to `release` in this tick, and when each device is handed back (monotonic; NEVER_MS: it is not)."""

    release: Bools
    release_mono_ms: Ints


def over(snapshot: Snapshot, now: Now, *, command_valid_s: float) -> Over:
    """Devices whose lease has run out, or that have confirmed their release."""
    control, live, plate = snapshot.control, snapshot.live, snapshot.nameplate
    releasing = control.authority == int(Authority.RELEASING)
    late = (control.authority == int(Authority.CONTROLLED)) & (control.lease_end_mono_ms < now.mono_ms)
    rows = np.flatnonzero(releasing | late)
    if not len(rows):
        return Over(rows=rows, run_out=0)
    releasing = releasing[rows]
    slack_ms = LEASE_MARGIN_MS + (1000 * plate.overrun_s[rows]).astype(np.int64)
    ended = plate.timed[rows] & (control.lease_end_mono_ms[rows] + slack_ms < now.mono_ms)
    mode, sent_ms = live.mode[rows], control.sent_mono_ms[rows]
    # what was sent before may still be under way, for as long as it is valid, and take the device after all
    dead_ms = sent_ms + round(1000 * command_valid_s)
    elsewhere = (mode != int(Mode.REMOTE)) & (mode != int(Mode.UNKNOWN)) & (live.seen_mono_ms[rows] > dead_ms)
    confirmed = (control.cmd_applied[rows] >= control.cmd_sent[rows]) | elsewhere
    return Over(rows=rows[ended | (releasing & confirmed)], run_out=int(np.count_nonzero(ended & ~releasing)))


def undisturbed(obeying: Bools, before_ms: Ints, snapshot: Snapshot) -> Bools:
    """Devices that obeyed and have been heard without a gap since `before_ms`. A device that was away, islanded or
    faulty may have left remote control by itself, which is not its owner's choice."""
    n, live = len(obeying), snapshot.live
    gap = live.seen_mono_ms[:n] - before_ms[:n] > GAP_MS
    result: Bools = obeying & ~gap & (live.grid[:n] != int(Grid.ISLAND)) & (live.faults[:n] == 0)
    return result


def returned(snapshot: Snapshot, held_back: Collection[int]) -> list[int]:
    """Slots that their owners took back and that may be dispatched again: that is over."""
    taken_back = np.flatnonzero(snapshot.control.authority == int(Authority.OWNER)).tolist()
    return [slot for slot in taken_back if slot not in held_back]


def free(control: ControlColumns, slots: NDArray[np.integer]) -> None:
    """Nobody has these devices any more."""
    control.authority[slots] = Authority.DEVICE
    control.event[slots] = -1
    control.idle[slots] = False
    control.setpoint_w[slots] = 0
    control.before_w[slots] = 0
    control.ran_high_w[slots] = control.ran_low_w[slots] = 0
    control.lease_end_mono_ms[slots] = NEVER_MS
    control.release_mono_ms[slots] = NEVER_MS


# -- who may be taken, and written -----------------------------------------------------------------------------------


def unguaranteed(snapshot: Snapshot) -> Bools:
    """Devices not known to keep the owner's reserve by themselves: after a lease nothing else would."""
    plate = snapshot.nameplate
    kept = snapshot.live.reserve_pct >= plate.owner_reserve_pct - reserve.STEP_PCT
    result: Bools = ~kept & plate.registered
    return result


def reserves_due(snapshot: Snapshot, taking: Bools) -> Bools:
    """Devices whose reserve is raised to the owner's before they are controlled; each value is tried once. A reserve
    that the owner may be lowering just now is not overwritten."""
    live, control, plate = snapshot.live, snapshot.control, snapshot.nameplate
    new: Bools = taking & (control.authority == int(Authority.DEVICE))
    if not new.any():
        return new
    tried = np.abs(control.written_reserve_pct - plate.owner_reserve_pct) <= reserve.STEP_PCT
    new &= unguaranteed(snapshot) & np.isfinite(live.reserve_pct) & ~tried
    if new.any():
        new &= ~reserve.unsure(live, plate, control)
    return new


def unattended(snapshot: Snapshot, now: Now) -> Bools:
    """Devices without a timer whose lease was not renewed: they do not revert until they are released."""
    ended = snapshot.control.lease_end_mono_ms < now.mono_ms
    result: Bools = ~snapshot.nameplate.timed & ended & (snapshot.control.authority == int(Authority.CONTROLLED))
    return result


def barred(snapshot: Snapshot, marks: Marks, excluded: Bools) -> Bools:
    """Commands, by row, that may not go out any more: their devices were `excluded` since they were decided, or are to
    be left alone by what they say by now. Handing back goes on, but nothing is written to an island."""
    taken: Bools = np.zeros(snapshot.n, dtype=np.bool_)
    taken[marks.at] = marks.taken
    alone = excluded.copy()
    for where, _ in left_alone(snapshot, taken):
        alone |= where
    rows: Bools = alone[marks.at]
    if marks.released.any():
        rows = np.where(marks.released, snapshot.live.grid[marks.at] == int(Grid.ISLAND), rows)
    return rows


# -- who is handed back, and when ------------------------------------------------------------------------------------


def spread_s(control: ControlColumns, slots: NDArray[np.integer], params: HandBackParams) -> float:
    """How long handing `slots` back takes: as configured, and no faster than the fleet may ramp."""
    power_w = abs(float(control.setpoint_w[slots].sum()))
    return max(params.spread_s, power_w / params.fleet_w_per_s)


def turns(
    snapshot: Snapshot, taking: Bools, now: Now, at_once: Bools, until_ms: Ints | None, params: HandBackParams
) -> HandBacks:
    """Devices to hand back in this tick. Releases are spread, no faster than the fleet may ramp. Those in `at_once`
    (their owners want it) go at once, as many as make no step of the fleet. `until_ms` is what `hand_backs` said when
    the leases were given (shorter if devices were added)."""
    control = snapshot.control
    releasing = control.authority == int(Authority.RELEASING)
    ours = (control.authority == int(Authority.CONTROLLED)) & ~taking
    waiting = control.release_mono_ms != NEVER_MS
    if not (ours.any() or waiting.any()):
        return HandBacks(release=releasing & ~taking, release_mono_ms=control.release_mono_ms)
    release_mono_ms: Ints = np.where(taking, NEVER_MS, control.release_mono_ms)
    fresh = np.flatnonzero(ours & ~waiting)
    if len(fresh):
        turn_ms = _turns_ms(fresh, now.mono_ms, snapshot, params)
        if until_ms is not None:
            known = fresh < len(until_ms)
            # no lease runs beyond the turn that was its device's when it was given
            turn_ms[known] = np.minimum(turn_ms[known], until_ms[fresh[known]])
        release_mono_ms[fresh] = turn_ms
    due = (release_mono_ms != NEVER_MS) & (release_mono_ms <= now.mono_ms)
    wanting = at_once & ours
    if wanting.any():
        due = (due & ~wanting) | in_turn(wanting, control.setpoint_w.astype(np.float64), params.step_w)
    release: Bools = ~taking & (due | releasing)
    return HandBacks(release=release, release_mono_ms=release_mono_ms)


def hand_backs(
    ends: Sequence[tuple[Bools, int]], going_on: Bools, snapshot: Snapshot, params: HandBackParams
) -> Ints | None:
    """When each device is handed back (monotonic); None where none is soon. `ends`: devices whose event is over soon,
    and when; of those, the ones that are `going_on` have another event then, and are not handed back."""
    if not ends:
        return None
    until_ms: Ints = np.full(snapshot.n, NO_END_MS)
    last_ms: dict[int, Bools] = {}
    for mine, end_ms in ends:
        last_ms[end_ms] = last_ms[end_ms] | mine if end_ms in last_ms else mine
    for end_ms in sorted(last_ms):
        slots = np.flatnonzero(last_ms[end_ms] & ~going_on)
        until_ms[slots] = _turns_ms(slots, end_ms, snapshot, params)
    return until_ms


def _turns_ms(slots: Rows, end_ms: int, snapshot: Snapshot, params: HandBackParams) -> Ints:
    """When devices whose event is over at `end_ms` are handed back, as things stand (both monotonic)."""
    # The batteries of a home go together: one that is back would cover the load the other still feeds.
    site = snapshot.nameplate.site[slots]
    homes = np.where(site >= 0, site, snapshot.n + slots)
    # by rating, which does not change between the lease that ends then and the release
    return release_at(homes, ratings_w(snapshot)[slots], end_ms, spread_s(snapshot.control, slots, params))

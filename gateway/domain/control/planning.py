"""Plans the commands of one control tick from the setpoints that tracking wants.

A device is written when its setpoint changes beyond the dead band, when its lease is half over, and at once when it
must be narrowed; never when it must not be touched.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from gateway.domain.commands import CommandOp
from gateway.domain.control.leases import NO_END_MS, leases_s
from gateway.domain.control.reach import Reach
from gateway.domain.fleet.columns import Authority, ControlColumns
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits.types import Envelope, Reason, check
from gateway.domain.table import run
from gateway.domain.types import Bools, Grid, Ints, Mode, Now, Slots, Small

RENEWAL_MS_MIN = 2_000
"""A renewal that gains less is not worth a command."""

OUTLASTING_MS = 10_000
"""A lease that outlasts its device's turn by more than this, and a step of its timer, is cut: the end came nearer."""


class Cause(IntEnum):
    """Why a command is written; smaller is more urgent. `PROBE`: to find out whether a device can be told again."""

    NARROW = 0
    RELEASE = 1
    EXPIRING = 2
    CHANGE = 3
    RETRY = 4
    REFRESH = 5
    PROBE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanParams:
    """A setpoint is rewritten once it is off by `dead_band_w`; the sum of smaller differences stays within
    `sum_band_part` of the wanted sum. A lease is renewed once `refresh_left_part` of the product's is left (half of
    it has passed, on average), urgently at `expiring_left_part`; an unanswered command is repeated after `retry_s`.
    """

    dead_band_w: float = 50.0
    sum_band_part: float = 0.002
    refresh_left_part: float = 0.4
    expiring_left_part: float = 0.16
    retry_s: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Commands of one tick, at most one per device, most urgent first. `lease_s` 0 for a release. `outside` counts
    setpoints past the envelope, which are not written."""

    slots: Slots
    op: Small
    setpoint_w: Ints
    lease_s: Ints
    cause: Small
    outside: int

    def __len__(self) -> int:
        return len(self.slots)


def plan(
    snapshot: Snapshot,
    envelope: Envelope,
    now: Now,
    params: PlanParams,
    *,
    wanted_w: Ints,
    members: Bools,
    release: Bools,
    unresponsive: Bools | None = None,
    blocked: Bools | None = None,
    reach: Reach | None = None,
    until_ms: Ints | None = None,
) -> Plan:
    """What to write now.

    `members` belong to a running event and get `wanted_w` (0 = hold, or only kept from discharging where `blocked`);
    `release` are released; other devices keep their lease, narrowed if they must be. `unresponsive` devices are
    rewritten at refresh only. Devices out of `reach` (None: there are none) are only probed, each when it is due. No
    lease runs beyond `until_ms`, when the device is handed back (monotonic; None: never), and what is not a member's is
    not renewed. The paired check comes last: setpoints past the envelope are left out and counted.
    """
    control = snapshot.control
    writable = envelope.controllable & (control.authority != int(Authority.OWNER))
    faulty = (envelope.reasons_discharge & np.uint64(Reason.FAULT)) != 0
    narrow = envelope.must_narrow & writable
    active = members & writable & ~faulty
    rests = control.idle & False if blocked is None else blocked & active
    cause, off_w = _causes(snapshot, now, params, wanted_w, active, unresponsive, rests, until_ms)
    _fill_up(cause, off_w, wanted_w, active, unresponsive, params)
    cause[narrow] = Cause.NARROW
    cause[_release_due(snapshot, now, params, release & ~members)] = Cause.RELEASE
    if reach is not None and reach.unreachable.any():
        urgent = (cause == int(Cause.NARROW)) | (cause == int(Cause.RELEASE))
        cause[reach.unreachable & (active | (cause >= 0)) & ~urgent] = Cause.PROBE
        cause[np.where(urgent, reach.waiting_urgent, reach.waiting)] = -1

    slots = np.flatnonzero(cause >= 0)
    causes = cause[slots]
    if (causes[1:] < causes[:-1]).any():
        slots = slots[np.argsort(causes, kind="stable")]
    at = run(slots)
    releasing = cause[at] == int(Cause.RELEASE)
    setpoint_w = wanted_w[at].copy()
    kept = np.flatnonzero(~active[at])
    if len(kept):
        setpoint_w[kept] = _inside(control.setpoint_w[slots[kept]], envelope, slots[kept])
    setpoint_w *= ~releasing
    ends_ms = _ends_ms(until_ms, slots[kept], control)
    inside = check(setpoint_w, at, envelope) | releasing
    if not inside.all():
        slots, setpoint_w, releasing = slots[inside], setpoint_w[inside], releasing[inside]
        at = run(slots)
    op = np.full(len(slots), int(CommandOp.SETPOINT), dtype=np.int8)
    op[setpoint_w == 0] = CommandOp.HOLD
    op[rests[at]] = CommandOp.BLOCK
    op[releasing] = CommandOp.RELEASE
    return Plan(
        slots=slots.astype(np.int32),
        op=op,
        setpoint_w=setpoint_w,
        lease_s=leases_s(snapshot, now, slots, setpoint_w, ends_ms) * ~releasing,
        cause=cause[slots],
        outside=int(len(inside) - inside.sum()),
    )


def releases(snapshot: Snapshot, now: Now, params: PlanParams, release: Bools) -> Plan:
    """Only the releases that are due of those devices."""
    slots = np.flatnonzero(_release_due(snapshot, now, params, release)).astype(np.int32)
    zeros: Ints = np.zeros(len(slots), dtype=np.int64)
    return Plan(
        slots=slots,
        op=np.full(len(slots), int(CommandOp.RELEASE), dtype=np.int8),
        setpoint_w=zeros,
        lease_s=zeros,
        cause=np.full(len(slots), int(Cause.RELEASE), dtype=np.int8),
        outside=0,
    )


def _causes(
    snapshot: Snapshot,
    now: Now,
    params: PlanParams,
    wanted_w: Ints,
    active: Bools,
    unresponsive: Bools | None,
    rests: Bools,
    until_ms: Ints | None,
) -> tuple[Small, Ints]:
    """Cause per slot (-1 = nothing to write) and how far each device under control is off its wanted setpoint."""
    live, control = snapshot.live, snapshot.control
    cause = np.full(snapshot.n, -1, dtype=np.int8)
    controlled = control.authority == int(Authority.CONTROLLED)
    left_part = (control.lease_end_mono_ms - now.mono_ms) / (1000 * snapshot.nameplate.lease_s).astype(np.float64)
    renewable = active & controlled
    if until_ms is not None:
        # a lease that ends when its device is handed back is not renewed any more
        renewable &= control.lease_end_mono_ms + RENEWAL_MS_MIN < until_ms
        late_ms = OUTLASTING_MS + 1000 * snapshot.nameplate.lease_step_s.astype(np.int64)
        cause[active & controlled & (control.lease_end_mono_ms - late_ms > until_ms)] = Cause.REFRESH
    cause[renewable & (left_part <= params.refresh_left_part)] = Cause.REFRESH

    unanswered = active & controlled & (live.cmd < control.cmd_sent)
    if unanswered.any():
        waited = now.mono_ms - control.sent_mono_ms >= 1000 * params.retry_s
        unseen = (control.cmd_applied < control.cmd_sent) | (
            (live.mode != int(Mode.REMOTE))
            & (live.mode != int(Mode.UNKNOWN))
            & (live.seen_mono_ms - control.sent_mono_ms > 1000 * snapshot.nameplate.command_latency_s)
        )
        cause[unanswered & waited & unseen] = Cause.RETRY

    off_w = wanted_w - control.setpoint_w
    changed = (np.abs(off_w) > params.dead_band_w) | ((wanted_w == 0) != (control.setpoint_w == 0))
    changed |= rests != control.idle
    changed = changed if unresponsive is None else changed & ~unresponsive
    cause[active & (changed | ~controlled)] = Cause.CHANGE
    cause[renewable & (left_part <= params.expiring_left_part)] = Cause.EXPIRING
    return cause, off_w * controlled


def _ends_ms(until_ms: Ints | None, slots: NDArray[np.intp], control: ControlColumns) -> Ints | None:
    """The end of each lease at most. `slots` are only narrowed: they keep the lease they have."""
    if not len(slots):
        return until_ms
    ends_ms: Ints = np.full(len(control.lease_end_mono_ms), NO_END_MS) if until_ms is None else until_ms.copy()
    ends_ms[slots] = np.minimum(ends_ms[slots], control.lease_end_mono_ms[slots])
    return ends_ms


def _fill_up(
    cause: Small, off_w: Ints, wanted_w: Ints, active: Bools, unresponsive: Bools | None, params: PlanParams
) -> None:
    """Write the largest of many small differences until the sum of the rest is within its band."""
    quiet = active & (cause < 0)
    if unresponsive is not None:
        quiet &= ~unresponsive
    missing_w = int(off_w[quiet].sum())
    band_w = params.sum_band_part * abs(int(wanted_w[active].sum()))
    if abs(missing_w) <= band_w:
        return
    rows = np.flatnonzero(quiet & (off_w * np.sign(missing_w) > 0))
    rows = rows[np.argsort(-np.abs(off_w[rows]), kind="stable")]
    covered_w = np.cumsum(np.abs(off_w[rows]))
    cause[rows[: int(np.searchsorted(covered_w, abs(missing_w) - band_w)) + 1]] = Cause.CHANGE


def _release_due(snapshot: Snapshot, now: Now, params: PlanParams, release: Bools) -> Bools:
    """Devices to release now: those under control, and those whose release has had no effect for a while."""
    if not release.any():
        return release
    live, control = snapshot.live, snapshot.control
    ours = (live.mode == int(Mode.REMOTE)) | (live.mode == int(Mode.UNKNOWN))
    unheard = (control.authority == int(Authority.RELEASING)) & ours & (control.cmd_applied < control.cmd_sent)
    unheard &= now.mono_ms - control.sent_mono_ms >= 1000 * params.retry_s
    islanded = live.grid == int(Grid.ISLAND)
    due: Bools = release & ~islanded & ((control.authority == int(Authority.CONTROLLED)) | unheard)
    return due


def _inside(setpoint_w: Ints, envelope: Envelope, slots: NDArray[np.intp]) -> Ints:
    """The setpoint in force, cut to what is allowed now."""
    low_w = -np.floor(envelope.charge_w[slots]).astype(np.int64)
    high_w = np.floor(envelope.discharge_w[slots]).astype(np.int64)
    return np.minimum(np.maximum(setpoint_w, low_w), high_w)

"""When a device that has reached the floor of its charge may discharge again, and one at the ceiling charge again.

SoC reads lower under load than at rest, by some percent with time constants of minutes. A device that was stopped at
its floor would find itself above it a little later, and be stopped again, many times. It stays stopped until it is
`rest_pct` above the floor, or until it has been without load for `rest_s` and is above by `resume_pct`. The same, the
other way round, at the ceiling.
"""

import numpy as np

from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits.types import Envelope, LimitParams, Reason
from gateway.domain.types import NEVER_MS, Bools, Floats, Ints, Now

LOAD_PART = 0.02
"""Power below this part of the rating is no load: standby and balancing."""

AT_FLOOR = np.uint64(Reason.RESERVE | Reason.LOOKAHEAD)
AT_CEILING = np.uint64(Reason.SOC_CEILING | Reason.LOOKAHEAD)


def stopped(since_mono_ms: Ints, margin_pct: Floats, now: Now, params: LimitParams) -> Bools:
    """Devices that stay stopped: `since_mono_ms` their last load since they reached the bound (NEVER_MS: they have
    not), `margin_pct` how far the SoC is from it."""
    result: Bools = since_mono_ms != NEVER_MS
    if not result.any():
        return result
    rested = now.mono_ms - since_mono_ms >= 1000 * params.rest_s
    result &= ~((margin_pct >= params.rest_pct) | (rested & (margin_pct >= params.resume_pct)))
    return result


def note_stops(snapshot: Snapshot, allowed: Envelope, now: Now, params: LimitParams) -> None:
    """Note who has reached a bound under control, who still has load there, and who is free of it; once a tick."""
    live, control, plate = snapshot.live, snapshot.control, snapshot.nameplate
    running_w = control.setpoint_w * (control.authority == int(Authority.CONTROLLED))
    _note(
        control.floor_mono_ms, running_w, live.battery_w, plate.discharge_w_max, allowed.discharge_w,
        (allowed.reasons_discharge & AT_FLOOR) != 0, live.soc_low_pct - allowed.floor_pct, now, params,
    )  # fmt: skip
    _note(
        control.ceiling_mono_ms, -running_w, -live.battery_w, plate.charge_w_max, allowed.charge_w,
        (allowed.reasons_charge & AT_CEILING) != 0, allowed.ceiling_pct - live.soc_high_pct, now, params,
    )  # fmt: skip


def _note(
    since_mono_ms: Ints,
    running_w: Ints,
    battery_w: Floats,
    rated_w: Floats,
    allowed_w: Floats,
    bound: Bools,
    margin_pct: Floats,
    now: Now,
    params: LimitParams,
) -> None:
    reached = bound & (running_w > 0) & (allowed_w < 1)
    at = since_mono_ms != NEVER_MS
    if not (reached.any() or at.any()):
        return
    at |= reached
    loaded = at & ((running_w > 0) | (battery_w > LOAD_PART * rated_w))
    since_mono_ms[loaded] = now.mono_ms
    since_mono_ms[at & ~stopped(since_mono_ms, margin_pct, now, params)] = NEVER_MS

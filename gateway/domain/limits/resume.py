"""When a device that has reached the floor of its charge may discharge again, and one at the ceiling charge again.

SoC reads lower under load than at rest, by some percent with time constants of minutes. A device that was stopped at
its floor would find itself above it a little later, and be stopped again, many times. It stays stopped until it is
`rest_pct` above the floor, or until it has been without load for `rest_s` and is above by `resume_pct`. The same, the
other way round, at the ceiling.
"""

import numpy as np

from gateway.domain.fleet.columns import Authority, ControlColumns
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits.types import Envelope, LimitParams, Reason
from gateway.domain.table import Singles
from gateway.domain.types import NEVER_MS, Bools, Floats, Ints, Now

LOAD_PART = 0.02
"""Power below this part of the rating is no load: standby and balancing."""

AT_FLOOR = np.uint64(Reason.RESERVE | Reason.LOOKAHEAD)
AT_CEILING = np.uint64(Reason.SOC_CEILING | Reason.LOOKAHEAD)


def stopped(
    since_mono_ms: Ints, above_pct: Floats | Singles, below_pct: Floats | Singles, now: Now, params: LimitParams
) -> Bools:
    """Devices that stay stopped: `since_mono_ms` their last load since they reached the bound (NEVER_MS: they have
    not), `above_pct` less `below_pct` how far the SoC is from it."""
    result: Bools = since_mono_ms != NEVER_MS
    if not result.any():
        return result
    margin_pct = above_pct - below_pct
    rested = now.mono_ms - since_mono_ms >= 1000 * params.rest_s
    result &= ~((margin_pct >= params.rest_pct) | (rested & (margin_pct >= params.resume_pct)))
    return result


def note_stops(control: ControlColumns, snapshot: Snapshot, allowed: Envelope, now: Now, params: LimitParams) -> None:
    """Note in `control` who has reached a bound under control, who still has load there, and who is free of it; once a
    tick."""
    live, plate = snapshot.live, snapshot.nameplate
    for since_mono_ms, way, allowed_w, reasons, at_bound, rated_w, above_pct, below_pct in (
        (control.floor_mono_ms, 1, allowed.discharge_w, allowed.reasons_discharge, AT_FLOOR, plate.discharge_w_max,
         live.soc_low_pct, allowed.floor_pct),
        (control.ceiling_mono_ms, -1, allowed.charge_w, allowed.reasons_charge, AT_CEILING, plate.charge_w_max,
         allowed.ceiling_pct, live.soc_high_pct),
    ):  # fmt: skip
        none = allowed_w < 1
        at = since_mono_ms != NEVER_MS
        if not (none.any() or at.any()):
            continue
        runs = (control.setpoint_w * way > 0) & (control.authority == int(Authority.CONTROLLED))
        at |= none & runs & ((reasons & at_bound) != 0)
        since_mono_ms[at & (runs | (live.battery_w * way > LOAD_PART * rated_w))] = now.mono_ms
        since_mono_ms[at & ~stopped(since_mono_ms, above_pct, below_pct, now, params)] = NEVER_MS

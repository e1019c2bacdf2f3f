"""Device targets for events without a group power: power of each device, SoC by a time, power at each meter; and what
is left of the setpoints in force."""

import numpy as np

from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.events.request import Want
from gateway.domain.fleet.columns import Nameplate
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits.site import Homes
from gateway.domain.limits.types import Envelope
from gateway.domain.types import Bools, Floats, Ints, Now

ON_TIME_PART = 0.95
"""A SoC is reached a little early: the last of it is taken slowly."""

RESERVE_AND_PCT = 1.0
"""Without a SoC of its own, charging goes to this much above the floor."""


def device_target_w(event: ActiveEvent, snapshot: Snapshot, allowed: Envelope, mask: Bools, now: Now) -> Floats:
    """Target of each device in W (+ = discharge), before any limit; 0 outside `mask`."""
    target = event.target
    if target.want is Want.DEVICE_POWER:
        target_w = np.full(snapshot.n, target.power_w or 0.0) if event.each_w is None else event.each_w
    elif target.want is Want.BACKUP:
        target_w = -snapshot.nameplate.charge_w_max
    elif target.want is Want.CHARGE_TO:
        target_w = -_charge_w(event, snapshot, allowed, now)
    else:
        return _follow_w(target.power_w or 0.0, snapshot, allowed, mask)
    return np.where(mask, target_w, 0.0)


def _charge_w(event: ActiveEvent, snapshot: Snapshot, allowed: Envelope, now: Now) -> Floats:
    """Power that brings each device to its SoC just by the end."""
    plate, live = snapshot.nameplate, snapshot.live
    soc_pct = allowed.floor_pct + RESERVE_AND_PCT if event.target.soc_pct is None else event.target.soc_pct
    missing_wh = np.fmax(soc_pct - live.soc_high_pct, 0.0) * plate.capacity_wh / 100 / plate.efficiency_charge
    left_s = max(event.seconds_to_end(now) * ON_TIME_PART, 60.0)
    power_w: Floats = np.minimum(np.nan_to_num(missing_wh) * 3600 / left_s, plate.charge_w_max)
    return power_w


def _follow_w(grid_w: float, snapshot: Snapshot, allowed: Envelope, mask: Bools) -> Floats:
    """Power that brings the meter of each home to `grid_w` (+ = import): what the home draws without its batteries less
    that, split among the batteries in `mask` in proportion to their envelopes. Unknown load: the setpoint in force
    stays."""
    live, plate = snapshot.live, snapshot.nameplate
    homes = Homes(plate.site)
    net_w = np.subtract(live.load_w, live.pv_w, dtype=np.float64)
    battery_w = np.nan_to_num(live.battery_w)
    net_w = np.where(np.isnan(net_w), homes.total(battery_w) + live.grid_w, net_w)
    others_w = homes.total(np.where(mask, 0.0, battery_w))
    needed_w = net_w - grid_w - others_w
    able_w = np.where(mask, np.where(needed_w >= 0, allowed.discharge_w, allowed.charge_w), 0.0)
    total_w = homes.total(able_w)
    asked = np.maximum(homes.total(mask.astype(np.float64)), 1.0)
    part = np.where(total_w > 0, able_w / np.maximum(total_w, 1e-9), 1.0 / asked)
    target_w: Floats = np.where(mask, needed_w * part, 0.0)
    unknown = np.isnan(target_w)
    if unknown.any():
        target_w = np.where(unknown, snapshot.control.setpoint_w, target_w)
    return target_w


def kept_w(snapshot: Snapshot, allowed: Envelope) -> Ints:
    """The setpoints in force, cut to what is allowed now."""
    low_w = -np.floor(allowed.charge_w).astype(np.int64)
    high_w = np.floor(allowed.discharge_w).astype(np.int64)
    kept: Ints = np.minimum(np.maximum(snapshot.control.setpoint_w, low_w), high_w)
    return kept


def in_steps(given_w: Ints, plate: Nameplate) -> Ints:
    """Setpoints the products can carry: whole steps towards 0, and 0 below the minimum."""
    if not ((plate.setpoint_w_min > 1).any() or (plate.setpoint_step_w > 1).any()):
        return given_w
    size_w = np.floor(np.abs(given_w) / plate.setpoint_step_w) * plate.setpoint_step_w
    size_w[size_w < plate.setpoint_w_min] = 0
    return (np.sign(given_w) * size_w).astype(np.int64)

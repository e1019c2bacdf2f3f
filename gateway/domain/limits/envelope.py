"""Computes the envelope of every device: the only place that narrows power.

One vectorised pass over the fleet. Precedence, strongest first: device safety, grid connection, backup reserve and
owner's choices, program rules, warranty. A limit sets its reason bit where it narrowed. Unknown input never widens: a
stale or stuck device is not written at all, so that the running lease (sized for exactly this) runs out; a known
violation is narrowed at once.
"""

from dataclasses import fields

import numpy as np

from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits import device
from gateway.domain.limits.site import (
    Homes,
    MeterColumns,
    SiteHeadroom,
    crowded,
    headroom_alone,
    headroom_shared,
    permitted_w,
    phase_headroom,
    taken,
)
from gateway.domain.limits.types import Envelope, LimitParams, Reason, Side
from gateway.domain.types import Bools, Floats, Mode, Now


def envelope(snapshot: Snapshot, now: Now, params: LimitParams) -> Envelope:
    """Power that every device may be given for one lease from `now`.

    Pure and order-free: each row depends on its own device and on the devices of its own home.
    """
    plate, live, control = snapshot.nameplate, snapshot.live, snapshot.control
    age_s: Floats = np.maximum(now.mono_ms - live.seen_mono_ms, 0) * 0.001
    stale = age_s > params.reading_age_s_max
    out, into = Side(plate.discharge_w_max), Side(plate.charge_w_max)
    setpoint_w = control.setpoint_w.astype(np.float64)
    device.safety(out, into, plate, live, setpoint_w, params)
    not_writable = device.not_writable(out, into, snapshot, params, stale)
    charge = device.charge(out, into, snapshot, setpoint_w, now, params)
    device.choices(out, into, snapshot, setpoint_w, now, params)
    not_writable |= _home(out, into, snapshot, charge, setpoint_w, stale, not_writable, now, params)
    past = _past(setpoint_w, out.power_w, params) | _past(-setpoint_w, into.power_w, params)
    past |= _lease_too_long(snapshot, charge, age_s, setpoint_w, now)
    sustain_discharge_w, sustain_charge_w = out.power_w.copy(), into.power_w.copy()
    _look_ahead(out, into, snapshot, charge, age_s, setpoint_w, now)
    out.finish()
    into.finish()
    return Envelope(
        discharge_w=out.power_w,
        charge_w=into.power_w,
        sustain_discharge_w=sustain_discharge_w,
        sustain_charge_w=sustain_charge_w,
        deliverable_wh=charge.deliverable_wh,
        absorbable_wh=charge.absorbable_wh,
        floor_pct=charge.floor_pct,
        ceiling_pct=charge.ceiling_pct,
        age_s=age_s,
        controllable=~not_writable,
        must_narrow=past & ~not_writable & (control.authority == int(Authority.CONTROLLED)),
        reasons_discharge=out.reasons,
        reasons_charge=into.reasons,
    )


def _home(
    out: Side,
    into: Side,
    snapshot: Snapshot,
    charge: device.Charge,
    setpoint_w: Floats,
    stale: Bools,
    not_writable: Bools,
    now: Now,
    params: LimitParams,
) -> Bools:
    """Narrow to the headroom at the meter of each home. Returns devices that must not be written, since their direction
    rests on a missing reading: the setpoint is neither refreshed nor cut, and its lease runs out."""
    plate, control = snapshot.nameplate, snapshot.control
    back = device.reconnecting(snapshot.live, now, params)
    columns = _meter_columns(
        snapshot, charge, now, stale, not_writable, back, setpoint_w, out.power_w, into.power_w, params
    )
    headroom = headroom_alone(columns, params.site_margin_w)
    together = crowded(plate.site)
    if len(together):
        shared = headroom_shared(taken(columns, together), Homes(plate.site[together]), params.site_margin_w)
        for f in fields(SiteHeadroom):
            getattr(headroom, f.name)[together] = getattr(shared, f.name)
    export, may_charge, fused, pays = (
        plate.export_allowed,
        plate.grid_charge_allowed,
        plate.fuse_protected,
        control.pays_export,
    )
    out.narrow(
        headroom.out_w,
        (Reason.SITE_EXPORT, export & pays),
        (Reason.EXPORT, ~export),
        (Reason.COMPENSATION, export & ~pays),
    )
    into.narrow(
        headroom.into_w,
        (Reason.RECONNECTING, back),
        (Reason.SITE_IMPORT, may_charge & fused & ~back),
        (Reason.GRID_CHARGE, ~(may_charge | back)),
        (Reason.FUSE, may_charge & ~(fused | back)),
    )
    missing: Bools = ((out.unknown | headroom.unknown_out) & (setpoint_w > 0)) | (
        (into.unknown | headroom.unknown_into) & (setpoint_w < 0)
    )
    return missing


def _past(setpoint_w: Floats, allowed_w: Floats, params: LimitParams) -> Bools:
    """Setpoints in force past the limit; by more than the band where any power is allowed."""
    over_w = setpoint_w - allowed_w
    result: Bools = (over_w > params.narrow_band_w) | ((over_w > 0) & (allowed_w <= 0))
    return result


def _meter_columns(
    snapshot: Snapshot,
    charge: device.Charge,
    now: Now,
    stale: Bools,
    not_writable: Bools,
    reconnecting: Bools,
    setpoint_w: Floats,
    out_w: Floats,
    into_w: Floats,
    params: LimitParams,
) -> MeterColumns:
    plate, live, control = snapshot.nameplate, snapshot.live, snapshot.control
    net_w: Floats = live.load_w.astype(np.float64) - live.pv_w
    battery_w, grid_w = live.battery_w, live.grid_w.astype(np.float64)
    low_w = np.fmin(np.fmin(live.net_low_w, live.net_low_1_w), live.net_low_2_w).astype(np.float64)
    high_w = np.fmax(np.fmax(live.net_high_w, live.net_high_1_w), live.net_high_2_w).astype(np.float64)
    any_stale = bool(stale.any())
    if any_stale:
        net_w, battery_w, grid_w = (np.where(stale, np.nan, column) for column in (net_w, battery_w, grid_w))
    in_force = (control.authority == int(Authority.CONTROLLED)) & (control.lease_end_mono_ms > now.mono_ms)
    running_w = setpoint_w * in_force
    phase_out_w = phase_into_w = np.broadcast_to(np.float64(np.inf), len(out_w))
    if not np.isnan(plate.site_phase_w_max).all():
        swing_w = np.fmax(np.fmax(high_w - net_w, net_w - low_w), 0)
        worst_w, best_w = live.phase_w_max, live.phase_w_min
        if any_stale:
            worst_w, best_w = (np.where(stale, np.nan, column) for column in (worst_w, best_w))
        phase_out_w, phase_into_w = phase_headroom(
            plate.site_phase_w_max, plate.phases, worst_w, best_w, swing_w, params.site_margin_w
        )
    may_charge = plate.grid_charge_allowed & plate.fuse_protected & ~reconnecting
    return MeterColumns(
        export_w=permitted_w(plate.site_export_w_max, plate.export_allowed & control.pays_export),
        import_w=permitted_w(plate.site_import_w_max, may_charge),
        net_w=net_w,
        low_w=low_w,
        high_w=high_w,
        battery_w=battery_w,
        grid_w=grid_w,
        out_w=np.maximum(out_w, running_w),
        into_w=np.maximum(into_w, -running_w),
        out_wh=charge.deliverable_wh,
        into_wh=charge.absorbable_wh,
        fixed=not_writable,
        phase_out_w=phase_out_w,
        phase_into_w=phase_into_w,
    )


def _look_ahead(
    out: Side, into: Side, snapshot: Snapshot, charge: device.Charge, age_s: Floats, setpoint_w: Floats, now: Now
) -> None:
    """Allow only power that the energy above the floor (below the ceiling) sustains through a whole lease, after the
    most that may have flowed since the sample. While a device was not under our control, only its rating bounds that
    flow."""
    plate, live, control = snapshot.nameplate, snapshot.live, snapshot.control
    ours = (
        (live.mode == int(Mode.REMOTE))
        & (control.authority == int(Authority.CONTROLLED))
        & (control.lease_end_mono_ms >= now.mono_ms)
    )
    ours &= ~np.isnan(live.battery_w) & ~control.idle
    before_w = control.before_w.astype(np.float64)
    ran_high_w, ran_low_w = control.ran_high_w.astype(np.float64), control.ran_low_w.astype(np.float64)
    others = ~ours
    # in place: in a large fleet each new column costs more than the arithmetic
    drain_w = np.maximum(setpoint_w, before_w)
    np.maximum(drain_w, ran_high_w, out=drain_w)
    np.fmax(drain_w, live.battery_w, out=drain_w)
    np.fmax(plate.discharge_w_max * others, drain_w, out=drain_w)
    np.maximum(drain_w, 0, out=drain_w)
    lowest_w = np.minimum(setpoint_w, before_w)
    np.minimum(lowest_w, ran_low_w, out=lowest_w)
    gain_w = np.negative(np.fmin(lowest_w, live.battery_w, out=lowest_w), out=lowest_w)
    np.fmax(plate.charge_w_max * others, gain_w, out=gain_w)
    np.maximum(gain_w, 0, out=gain_w)
    since_s = age_s + plate.command_latency_s.astype(np.float64)
    standby_w = plate.standby_w.astype(np.float64)
    runs_s = (plate.lease_s + plate.overrun_s).astype(np.float64)
    drain_w += standby_w
    drain_w *= since_s
    left_w = 3600 * charge.deliverable_wh
    left_w -= drain_w
    left_w /= runs_s
    left_w -= standby_w
    out.narrow(np.maximum(left_w, 0, out=left_w), Reason.LOOKAHEAD)
    gain_w *= since_s
    headroom_w = 3600 * charge.absorbable_wh
    headroom_w -= gain_w
    headroom_w /= runs_s
    into.narrow(np.maximum(headroom_w, 0, out=headroom_w), Reason.LOOKAHEAD)


def _lease_too_long(snapshot: Snapshot, charge: device.Charge, age_s: Floats, setpoint_w: Floats, now: Now) -> Bools:
    """Setpoints in force that would pass the floor or the ceiling before their lease ends: the reserve was raised, or
    the SoC came out lower than it seemed when the lease was given."""
    plate = snapshot.nameplate
    left_s = (snapshot.control.lease_end_mono_ms - now.mono_ms) * 0.001
    runs_s = age_s + np.minimum(np.maximum(left_s, 0), plate.lease_s) + plate.overrun_s
    result: Bools = np.zeros(len(setpoint_w), dtype=np.bool_)
    if (gives := setpoint_w > 0).any():
        result |= gives & ((setpoint_w + plate.standby_w) * runs_s > 3600 * charge.deliverable_wh)
    if (takes := setpoint_w < 0).any():
        result |= takes & (-setpoint_w * runs_s > 3600 * charge.absorbable_wh)
    return result

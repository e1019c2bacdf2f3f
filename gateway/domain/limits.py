"""What every device may do now: the only place that narrows power.

One vectorised pass over the fleet. Precedence, strongest first: device safety, grid connection, backup reserve and
owner's choices, program rules, warranty. A limit leaves its bit where it narrowed. Unknown input never widens: what is
stale or stuck is not written at all, so that the running lease (sized for exactly this) runs out; what is known to be
wrong is narrowed at once.
"""

from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gateway.domain import device_limits as device
from gateway.domain.columns import Held
from gateway.domain.envelope import Envelope, LimitParams, Reason, Side
from gateway.domain.fleet import Snapshot
from gateway.domain.meter import (
    Homes,
    MeterColumns,
    Rooms,
    crowded,
    gathered,
    permitted_w,
    phase_rooms,
    rooms_alone,
    rooms_shared,
)
from gateway.domain.model import Bools, Floats, Ints, Mode, Now

PART_ROWS = 16_384


def envelope(snapshot: Snapshot, now: Now, params: LimitParams) -> Envelope:
    """Power every device may be given for one lease from `now`. Sources: design decisions 3 to 8.

    Pure and order-free: each row depends on its own device and on the devices of its own home. Worked in parts that a
    processor cache holds; temporaries over a whole large fleet cost more in page faults than the arithmetic.
    """
    n = snapshot.n
    edges = [*range(0, n, PART_ROWS), n] if n else [0, 0]
    drafts = [_draft(_rows(snapshot, slice(a, b)), np.arange(a, b), now, params) for a, b in pairwise(edges)]
    together = crowded(snapshot.nameplate.site)
    if len(together):
        columns = gathered([draft.meter for draft in drafts], together)
        rooms = rooms_shared(columns, Homes(snapshot.nameplate.site[together]), params.site_margin_w)
        for draft, (a, b) in zip(drafts, pairwise(edges), strict=True):
            first, last = np.searchsorted(together, (a, b))
            draft.share(together[first:last] - a, rooms, slice(int(first), int(last)))
    done = [_finish(draft, now, params) for draft in drafts]
    if len(done) == 1:
        return done[0]
    return Envelope(**{f.name: np.concatenate([getattr(part, f.name) for part in done]) for f in fields(Envelope)})


def _rows(snapshot: Snapshot, rows: slice) -> Snapshot:
    live = snapshot.live.part(rows)
    return Snapshot(
        n=len(live.soc_pct), nameplate=snapshot.nameplate.part(rows), live=live, control=snapshot.control.part(rows)
    )


@dataclass(slots=True, kw_only=True)
class _Draft:
    """A part of the fleet, narrowed by everything but the meter and the look-ahead."""

    snapshot: Snapshot
    out: Side
    into: Side
    blind: Bools
    age_s: Floats
    setpoint_w: Floats
    charge: device.Charge
    reconnecting: Bools
    meter: MeterColumns
    rooms: Rooms

    def share(self, rows: NDArray[np.intp], rooms: Rooms, part: slice) -> None:
        """Replace what was found for devices that do not stand alone behind their meter."""
        for f in fields(Rooms):
            getattr(self.rooms, f.name)[rows] = getattr(rooms, f.name)[part]


def _draft(snapshot: Snapshot, slots: Ints, now: Now, params: LimitParams) -> _Draft:
    plate, live, control = snapshot.nameplate, snapshot.live, snapshot.control
    age_s: Floats = np.maximum(now.mono_ms - live.seen_mono_ms, 0) * 0.001
    stale = age_s > params.reading_age_s_max
    out, into = Side(plate.discharge_w_max), Side(plate.charge_w_max)
    setpoint_w = control.setpoint_w.astype(np.float64)
    device.safety(out, into, plate, live, setpoint_w, params)
    blind = device.blind(out, into, snapshot, params, stale)
    charge = device.charge(out, into, snapshot, setpoint_w, params)
    device.choices(out, into, snapshot, setpoint_w, now, params)
    back = device.reconnecting(live, slots, now, params)
    meter = _meter_columns(snapshot, now, stale, back, out.power_w, into.power_w, params)
    return _Draft(
        snapshot=snapshot,
        out=out,
        into=into,
        blind=blind,
        age_s=age_s,
        setpoint_w=setpoint_w,
        charge=charge,
        reconnecting=back,
        meter=meter,
        rooms=rooms_alone(meter, params.site_margin_w),
    )


def _finish(draft: _Draft, now: Now, params: LimitParams) -> Envelope:
    plate, control = draft.snapshot.nameplate, draft.snapshot.control
    out, into, back, rooms = draft.out, draft.into, draft.reconnecting, draft.rooms
    export, charge = plate.export_allowed, plate.grid_charge_allowed
    fused, pays = plate.fuse_protected, control.pays_export
    out.narrow(
        rooms.out_w,
        (Reason.SITE_EXPORT, export & pays),
        (Reason.EXPORT, ~export),
        (Reason.COMPENSATION, export & ~pays),
    )
    into.narrow(
        rooms.into_w,
        (Reason.RECONNECTING, back),
        (Reason.SITE_IMPORT, charge & fused & ~back),
        (Reason.GRID_CHARGE, ~(charge | back)),
        (Reason.FUSE, charge & ~(fused | back)),
    )
    # a direction that rests on a missing reading is neither refreshed nor cut: its running lease runs out
    setpoint_w = draft.setpoint_w
    blind = draft.blind
    blind |= ((out.unknown | rooms.unknown_out) & (setpoint_w > 0)) | (
        (into.unknown | rooms.unknown_into) & (setpoint_w < 0)
    )
    past = _past(setpoint_w, out.power_w, params) | _past(-setpoint_w, into.power_w, params)
    past |= _lease_too_long(draft, now)
    sustain_discharge_w, sustain_charge_w = out.power_w.copy(), into.power_w.copy()
    _look_ahead(draft, now)
    out.finish()
    into.finish()
    return Envelope(
        discharge_w=out.power_w,
        charge_w=into.power_w,
        sustain_discharge_w=sustain_discharge_w,
        sustain_charge_w=sustain_charge_w,
        deliverable_wh=draft.charge.deliverable_wh,
        absorbable_wh=draft.charge.absorbable_wh,
        floor_pct=draft.charge.floor_pct,
        age_s=draft.age_s,
        controllable=~blind,
        must_narrow=past & ~blind & (control.held == Held.CONTROLLED),
        reasons_discharge=out.reasons,
        reasons_charge=into.reasons,
    )


def _past(setpoint_w: Floats, allowed_w: Floats, params: LimitParams) -> Bools:
    """Setpoints in force that are past what is allowed now, by more than the band where anything is allowed."""
    result: Bools = setpoint_w > allowed_w + params.narrow_band_w * (allowed_w > 0)
    return result


def _meter_columns(
    snapshot: Snapshot,
    now: Now,
    stale: Bools,
    reconnecting: Bools,
    out_w: Floats,
    into_w: Floats,
    params: LimitParams,
) -> MeterColumns:
    plate, live, control = snapshot.nameplate, snapshot.live, snapshot.control
    net_w: Floats = np.subtract(live.load_w, live.pv_w, dtype=np.float64)
    battery_w, grid_w = live.battery_w, live.grid_w.astype(np.float64)
    low_w = np.fmin(np.fmin(live.net_low_w, live.net_low_1_w), live.net_low_2_w)
    high_w = np.fmax(np.fmax(live.net_high_w, live.net_high_1_w), live.net_high_2_w)
    if stale.any():
        net_w, battery_w, grid_w = (np.where(stale, np.nan, column) for column in (net_w, battery_w, grid_w))
    in_force = (control.held == Held.CONTROLLED) & (control.lease_end_mono_ms > now.mono_ms)
    setpoint_w = control.setpoint_w.astype(np.float64) * in_force
    phase_out_w = phase_into_w = np.broadcast_to(np.float64(np.inf), len(out_w))
    if not np.isnan(plate.site_phase_w_max).all():
        swing_w = np.nan_to_num(np.fmax(np.fmax(high_w - net_w, net_w - low_w), 0))
        worst_w, best_w = (np.where(stale, np.nan, c) for c in (live.phase_w_max, live.phase_w_min))
        phase_out_w, phase_into_w = phase_rooms(
            plate.site_phase_w_max, plate.phases, worst_w, best_w, swing_w, params.site_margin_w
        )
    charge = plate.grid_charge_allowed & plate.fuse_protected & ~reconnecting
    return MeterColumns(
        export_w=permitted_w(plate.site_export_w_max, plate.export_allowed & control.pays_export),
        import_w=permitted_w(plate.site_import_w_max, charge),
        net_w=net_w,
        low_w=low_w,
        high_w=high_w,
        battery_w=battery_w,
        grid_w=grid_w,
        out_w=np.maximum(out_w, setpoint_w),
        into_w=np.maximum(into_w, -setpoint_w),
        phase_out_w=phase_out_w,
        phase_into_w=phase_into_w,
    )


def _look_ahead(draft: _Draft, now: Now) -> None:
    """Allow only what the energy above the floor (below the ceiling) carries through a whole lease, after the most
    that may have flowed since the sample. What a device did while it was not ours is bounded by its rating alone."""
    plate, live, control = draft.snapshot.nameplate, draft.snapshot.live, draft.snapshot.control
    ours = (live.mode == Mode.REMOTE) & (control.held == Held.CONTROLLED) & (control.lease_end_mono_ms >= now.mono_ms)
    ours &= ~np.isnan(live.battery_w) & ~control.idle
    before_w = control.before_w.astype(np.float64)
    highest_w = np.fmax(np.maximum(draft.setpoint_w, before_w), live.battery_w)
    lowest_w = np.fmin(np.minimum(draft.setpoint_w, before_w), live.battery_w)
    drain_w = np.maximum(np.fmax(plate.discharge_w_max * ~ours, highest_w), 0)
    gain_w = np.maximum(np.fmax(plate.charge_w_max * ~ours, -lowest_w), 0)
    since_s = draft.age_s + plate.delivery_s
    left_ws = 3600 * draft.charge.deliverable_wh - (drain_w + plate.standby_w) * since_s
    runs_s = plate.lease_s + plate.overrun_s
    draft.out.narrow(np.maximum(left_ws / runs_s - plate.standby_w, 0), Reason.LOOKAHEAD)
    room_ws = 3600 * draft.charge.absorbable_wh - gain_w * since_s
    draft.into.narrow(np.maximum(room_ws / runs_s, 0), Reason.LOOKAHEAD)


def _lease_too_long(draft: _Draft, now: Now) -> Bools:
    """Setpoints in force that would pass the floor or the ceiling before their lease ends: the reserve was raised, or
    the SoC came out lower than it seemed when the lease was given."""
    plate, setpoint_w = draft.snapshot.nameplate, draft.setpoint_w
    left_s = np.clip((draft.snapshot.control.lease_end_mono_ms - now.mono_ms) * 0.001, 0, plate.lease_s)
    runs_s = draft.age_s + left_s + plate.overrun_s
    empties = (setpoint_w > 0) & ((setpoint_w + plate.standby_w) * runs_s > 3600 * draft.charge.deliverable_wh)
    fills = (setpoint_w < 0) & (-setpoint_w * runs_s > 3600 * draft.charge.absorbable_wh)
    result: Bools = empties | fills
    return result

"""What every device may do now: the only place that narrows power.

One vectorised pass over the fleet. Precedence, strongest first: device safety, grid connection, backup reserve. A limit
leaves its bit where it narrowed. Unknown input never widens: what is stale or stuck is not written at all, so that the
running lease (sized for exactly this) runs out; what is known to be wrong is narrowed at once.
"""

from dataclasses import dataclass, fields
from enum import IntFlag
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.domain.fleet import Held, Live, Nameplate, Snapshot, Table
from gateway.domain.meter import Homes, MeterColumns, Rooms, crowded, gathered, permitted_w, rooms_alone, rooms_shared
from gateway.domain.model import NEVER_MS, Bools, Floats, Grid, Ints, Mode, Now

Bits = NDArray[np.uint32]
T = TypeVar("T", bound=Table)

PART_ROWS = 16_384


class Reason(IntFlag):
    """Named causes that narrow a device's power; `RATING` where nothing but the nameplate does."""

    RATING = 1 << 0
    BMS = 1 << 1
    INVERTER_PV = 1 << 2
    TEMPERATURE = 1 << 3
    FAULT = 1 << 4
    ISLANDED = 1 << 5
    RECONNECTING = 1 << 6
    EXPORT = 1 << 7
    GRID_CHARGE = 1 << 8
    SITE_EXPORT = 1 << 9
    SITE_IMPORT = 1 << 10
    SOC_CEILING = 1 << 11
    RESERVE = 1 << 12
    LOOKAHEAD = 1 << 13
    STALE = 1 << 14
    STUCK = 1 << 15
    OFFLINE = 1 << 16
    UNENROLLED = 1 << 17
    NOT_STEERABLE = 1 << 18


def reason_names(bits: int) -> list[str]:
    """Bits as lower-case names, in order."""
    return [str(reason.name).lower() for reason in Reason if bits & reason]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitParams:
    """Bounds that hold for the whole fleet.

    `site_margin_w` is kept free at every finite grid-connection limit; a device held back at its reserve discharges
    again `resume_pct` above it; `stuck_steps` resolution steps of energy moved without a change of SoC mean it is
    stuck (`soc_step_pct` where the product does not state its resolution).
    """

    reading_age_s_max: float = 120.0
    site_margin_w: float = 50.0
    resume_pct: float = 1.0
    stuck_steps: float = 3.0
    soc_step_pct: float = 1.0
    charge_temp_c_min: float = 0.0
    charge_temp_c_full: float = 5.0
    temp_c_full: float = 45.0
    temp_c_max: float = 55.0
    reconnect_s_min: float = 300.0
    reconnect_s_max: float = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Columns over all slots. Powers are magnitudes in W, energies AC in Wh.

    `discharge_w`, `charge_w`: allowed for a setpoint that lasts the product's whole lease from now. `sustain_*`: the
    same before look-ahead, 0 where the energy is used up. `controllable`: may be written at all. `must_narrow`: the
    setpoint in force is past an instantaneous limit, or its lease would run past the reserve or the ceiling.
    """

    discharge_w: Floats
    charge_w: Floats
    sustain_discharge_w: Floats
    sustain_charge_w: Floats
    deliverable_wh: Floats
    absorbable_wh: Floats
    floor_pct: Floats
    age_s: Floats
    controllable: Bools
    must_narrow: Bools
    reasons_discharge: Bits
    reasons_charge: Bits


class _Side:
    """Power allowed in one direction while it is narrowed, why, and where a reading it rests on is missing."""

    def __init__(self, rating_w: Floats) -> None:
        self.power_w = rating_w.copy()
        self.reasons: Bits = np.zeros(len(rating_w), dtype=np.uint32)
        self.unknown: Bools = np.zeros(len(rating_w), dtype=np.bool_)

    def narrow(self, limit_w: Floats, *reasons: Reason | tuple[Reason, Bools]) -> None:
        """Take the smaller of the two; a NaN limit is no limit. A reason may hold for some devices only."""
        below = limit_w < self.power_w
        np.fmin(self.power_w, limit_w, out=self.power_w)
        for reason in reasons:
            if isinstance(reason, tuple):
                self._mark(below & reason[1], reason[0])
            else:
                self._mark(below, reason)

    def forbid(self, where: Bools, reason: Reason) -> None:
        self.power_w *= ~where
        self._mark(where, reason)

    def _mark(self, where: Bools, reason: Reason) -> None:
        self.reasons |= where * np.uint32(reason)

    def finish(self) -> None:
        self._mark(self.reasons == 0, Reason.RATING)


def envelope(snapshot: Snapshot, now: Now, params: LimitParams) -> Envelope:
    """Power every device may be given for one lease from `now`. Sources: design decisions 3 to 8.

    Pure and order-free: each row depends on its own device and on the devices of its own home. Worked in parts that a
    processor cache holds; temporaries over a whole large fleet cost more in page faults than the arithmetic.
    """
    edges = [*range(0, snapshot.n, PART_ROWS), snapshot.n] if snapshot.n else [0, 0]
    drafts = [_draft(_rows(snapshot, slice(a, b)), np.arange(a, b), now, params) for a, b in pairwise(edges)]
    together = crowded(snapshot.nameplate.site)
    if len(together):
        columns = gathered([draft.meter for draft in drafts], together)
        rooms = rooms_shared(columns, Homes(snapshot.nameplate.site[together]), params.site_margin_w)
        for draft, (a, b) in zip(drafts, pairwise(edges), strict=True):
            first, last = np.searchsorted(together, (a, b))
            draft.share(together[first:last] - a, rooms, slice(int(first), int(last)))
    done = [_finish(draft, now) for draft in drafts]
    if len(done) == 1:
        return done[0]
    return Envelope(**{f.name: np.concatenate([getattr(part, f.name) for part in done]) for f in fields(Envelope)})


def _rows(snapshot: Snapshot, rows: slice) -> Snapshot:
    def part(table: T) -> T:
        out = object.__new__(type(table))
        for name in table.SPEC:
            setattr(out, name, table.column(name)[rows])
        return out

    return Snapshot(
        n=len(snapshot.live.soc_pct[rows]),
        nameplate=part(snapshot.nameplate),
        live=part(snapshot.live),
        control=part(snapshot.control),
    )


@dataclass(slots=True, kw_only=True)
class _Draft:
    """A part of the fleet, narrowed by everything but the meter and the look-ahead."""

    snapshot: Snapshot
    out: _Side
    into: _Side
    blind: Bools
    age_s: Floats
    floor_pct: Floats
    deliverable_wh: Floats
    absorbable_wh: Floats
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
    out, into = _Side(plate.discharge_w_max), _Side(plate.charge_w_max)
    _device_safety(out, into, plate, live, params)
    blind = _blind(out, into, snapshot, params, stale)

    floor_pct = _floor_pct(plate, live)
    ceiling_pct = np.where(plate.soc_max_pct < 100, plate.soc_max_pct - plate.soc_uncertainty_pct, 100.0)
    deliverable_wh = _above_wh(live.soc_pct - floor_pct, plate.capacity_wh) * plate.efficiency_discharge
    absorbable_wh = _above_wh(ceiling_pct - live.soc_pct, plate.capacity_wh) / plate.efficiency_charge
    # once held back at the reserve, a device comes back only with some energy in hand: no chatter at the bound
    resting = (control.setpoint_w <= 0) & (live.soc_pct < floor_pct + params.resume_pct)
    out.forbid(resting | (deliverable_wh <= 0), Reason.RESERVE)
    into.forbid(absorbable_wh <= 0, Reason.SOC_CEILING)

    reconnecting = _reconnecting(live, slots, now, params)
    meter = _meter_columns(snapshot, now, stale, reconnecting, out.power_w, into.power_w)
    return _Draft(
        snapshot=snapshot,
        out=out,
        into=into,
        blind=blind,
        age_s=age_s,
        floor_pct=floor_pct,
        deliverable_wh=deliverable_wh,
        absorbable_wh=absorbable_wh,
        reconnecting=reconnecting,
        meter=meter,
        rooms=rooms_alone(meter, params.site_margin_w),
    )


def _finish(draft: _Draft, now: Now) -> Envelope:
    plate, control = draft.snapshot.nameplate, draft.snapshot.control
    out, into, back, rooms = draft.out, draft.into, draft.reconnecting, draft.rooms
    export, grid_charge = plate.export_allowed, plate.grid_charge_allowed
    out.narrow(rooms.out_w, (Reason.SITE_EXPORT, export), (Reason.EXPORT, ~export))
    into.narrow(
        rooms.into_w,
        (Reason.RECONNECTING, back),
        (Reason.SITE_IMPORT, grid_charge & ~back),
        (Reason.GRID_CHARGE, ~(grid_charge | back)),
    )
    # a direction that rests on a missing reading is neither refreshed nor cut: its running lease runs out
    setpoint_w = control.setpoint_w.astype(np.float64)
    blind = draft.blind
    blind |= ((out.unknown | rooms.unknown_out) & (setpoint_w > 0)) | (
        (into.unknown | rooms.unknown_into) & (setpoint_w < 0)
    )
    past = (setpoint_w > out.power_w) | (-setpoint_w > into.power_w) | _lease_too_long(draft, setpoint_w, now)
    sustain_discharge_w, sustain_charge_w = out.power_w.copy(), into.power_w.copy()
    _look_ahead(draft, setpoint_w, now)
    out.finish()
    into.finish()
    return Envelope(
        discharge_w=out.power_w,
        charge_w=into.power_w,
        sustain_discharge_w=sustain_discharge_w,
        sustain_charge_w=sustain_charge_w,
        deliverable_wh=draft.deliverable_wh,
        absorbable_wh=draft.absorbable_wh,
        floor_pct=draft.floor_pct,
        age_s=draft.age_s,
        controllable=~blind,
        must_narrow=past & ~blind & (control.held == Held.CONTROLLED),
        reasons_discharge=out.reasons,
        reasons_charge=into.reasons,
    )


def check(setpoint_w: Ints, slots: NDArray[np.integer], allowed: Envelope) -> Bools:
    """Which setpoints may be written: the paired check just before the write. 0 W is always inside."""
    inside = (setpoint_w <= allowed.discharge_w[slots]) & (-setpoint_w <= allowed.charge_w[slots])
    result: Bools = inside & allowed.controllable[slots]
    return result


def spread(slots: NDArray[np.integer], salt: int) -> Floats:
    """A number in [0, 1) per slot, always the same, evenly spread over any run of slots; salts are independent."""
    step = (0.6180339887498949, 0.4142135623730951, 0.7320508075688772)[salt % 3]
    part: Floats = np.mod(slots * step + 0.37 * salt, 1.0)
    return part


def _above_wh(span_pct: Floats, capacity_wh: Floats) -> Floats:
    """Energy of a span of SoC; 0 where negative or unknown."""
    energy_wh: Floats = np.fmax(span_pct * capacity_wh / 100, 0.0)
    return energy_wh


def _floor_pct(plate: Nameplate, live: Live) -> Floats:
    """SoC below which nothing is discharged: the larger of the owner's reserve and the one the device holds, plus
    what the product's SoC may be wrong by, at most 100."""
    reserve_pct = np.fmax(plate.owner_reserve_pct, live.reserve_pct)
    return np.minimum(reserve_pct + plate.soc_uncertainty_pct, 100.0)


def _blind(out: _Side, into: _Side, snapshot: Snapshot, params: LimitParams, stale: Bools) -> Bools:
    """Forbid what cannot be dispatched at all; returns the devices that must not even be written."""
    plate, live = snapshot.nameplate, snapshot.live
    step_pct = np.where(live.soc_step_pct > 0, live.soc_step_pct, params.soc_step_pct)
    stuck = live.moved_wh > params.stuck_steps * step_pct * plate.capacity_wh / 100
    # a full battery that takes a trickle stays at 100 %
    stuck &= (live.soc_pct < 100) | (live.battery_w > 0)
    causes = (
        (stale | np.isnan(live.soc_pct), Reason.STALE),
        (stuck, Reason.STUCK),
        (live.online == 0, Reason.OFFLINE),
        (live.grid == Grid.ISLAND, Reason.ISLANDED),
        (~plate.enrolled, Reason.UNENROLLED),
        (~plate.steerable, Reason.NOT_STEERABLE),
    )
    blind = np.zeros(snapshot.n, dtype=np.bool_)
    for where, reason in (*causes, (live.faults != 0, Reason.FAULT)):
        if not where.any():
            continue
        out.forbid(where, reason)
        into.forbid(where, reason)
        if reason is not Reason.FAULT:
            blind |= where
    return blind


def _device_safety(out: _Side, into: _Side, plate: Nameplate, live: Live, params: LimitParams) -> None:
    out.narrow(np.maximum(live.discharge_w_max, 0), Reason.BMS)
    into.narrow(np.maximum(live.charge_w_max, 0), Reason.BMS)
    shared = np.isfinite(plate.inverter_w_max)
    if shared.any():
        pv_w = np.fmax(live.pv_w, 0)
        out.narrow(np.maximum(plate.inverter_w_max - pv_w, 0), Reason.INVERTER_PV)
        into.narrow(plate.inverter_w_max + pv_w, Reason.INVERTER_PV)
        unknown = shared & np.isnan(live.pv_w)
        if unknown.any():
            out.forbid(unknown, Reason.INVERTER_PV)
            out.unknown |= unknown
    temp_c = live.temp_c
    hot, cool = temp_c > params.temp_c_full, temp_c < params.charge_temp_c_full
    if not (hot.any() or cool.any()):
        return
    into.forbid(temp_c < params.charge_temp_c_min, Reason.TEMPERATURE)
    heat = np.clip((params.temp_c_max - temp_c) / (params.temp_c_max - params.temp_c_full), 0, 1)
    chill = (temp_c - params.charge_temp_c_min) / (params.charge_temp_c_full - params.charge_temp_c_min)
    mild = np.minimum(heat, np.clip(chill, 0, 1))
    for side, reported_w, rating_w, part in (
        (out, live.discharge_w_max, plate.discharge_w_max, heat),
        (into, live.charge_w_max, plate.charge_w_max, mild),
    ):
        silent = np.isnan(reported_w)
        if silent.any():
            side.narrow(np.where(silent, rating_w * part, np.inf), Reason.TEMPERATURE)


def _meter_columns(
    snapshot: Snapshot, now: Now, stale: Bools, reconnecting: Bools, out_w: Floats, into_w: Floats
) -> MeterColumns:
    plate, live, control = snapshot.nameplate, snapshot.live, snapshot.control
    net_w, battery_w, grid_w = live.load_w - live.pv_w, live.battery_w, live.grid_w
    if stale.any():
        net_w, battery_w, grid_w = (np.where(stale, np.nan, column) for column in (net_w, battery_w, grid_w))
    in_force = (control.held == Held.CONTROLLED) & (control.lease_end_mono_ms > now.mono_ms)
    setpoint_w = control.setpoint_w.astype(np.float64) * in_force
    return MeterColumns(
        export_w=permitted_w(plate.site_export_w_max, plate.export_allowed),
        import_w=permitted_w(plate.site_import_w_max, plate.grid_charge_allowed & ~reconnecting),
        net_w=net_w,
        battery_w=battery_w,
        grid_w=grid_w,
        out_w=np.maximum(out_w, setpoint_w),
        into_w=np.maximum(into_w, -setpoint_w),
    )


def _reconnecting(live: Live, slots: Ints, now: Now, params: LimitParams) -> Bools:
    """Devices whose grid came back a short while ago; how short differs from device to device."""
    back: Bools = live.reconnected_mono_ms != NEVER_MS
    if not back.any():
        return back
    wait_s = params.reconnect_s_min + (params.reconnect_s_max - params.reconnect_s_min) * spread(slots, 1)
    recent: Bools = back & ((now.mono_ms - live.reconnected_mono_ms) < 1000 * wait_s)
    return recent


def _look_ahead(draft: _Draft, setpoint_w: Floats, now: Now) -> None:
    """Allow only what the energy above the floor (below the ceiling) carries through a whole lease, after the most
    that may have flowed since the sample. What a device did while it was not ours is bounded by its rating alone."""
    plate, live, control = draft.snapshot.nameplate, draft.snapshot.live, draft.snapshot.control
    ours = (live.mode == Mode.REMOTE) & (control.held == Held.CONTROLLED) & (control.lease_end_mono_ms >= now.mono_ms)
    ours &= ~np.isnan(live.battery_w)
    before_w = control.before_w.astype(np.float64)
    highest_w = np.fmax(np.maximum(setpoint_w, before_w), live.battery_w)
    lowest_w = np.fmin(np.minimum(setpoint_w, before_w), live.battery_w)
    drain_w = np.maximum(np.fmax(plate.discharge_w_max * ~ours, highest_w), 0)
    gain_w = np.maximum(np.fmax(plate.charge_w_max * ~ours, -lowest_w), 0)
    since_s = draft.age_s + plate.delivery_s
    left_ws = 3600 * draft.deliverable_wh - (drain_w + plate.standby_w) * since_s
    runs_s = plate.lease_s + plate.overrun_s
    draft.out.narrow(np.maximum(left_ws / runs_s - plate.standby_w, 0), Reason.LOOKAHEAD)
    room_ws = 3600 * draft.absorbable_wh - gain_w * since_s
    draft.into.narrow(np.maximum(room_ws / runs_s, 0), Reason.LOOKAHEAD)


def _lease_too_long(draft: _Draft, setpoint_w: Floats, now: Now) -> Bools:
    """Setpoints in force that would pass the floor or the ceiling before their lease ends: the reserve was raised, or
    the SoC came out lower than it seemed when the lease was given."""
    plate = draft.snapshot.nameplate
    left_s = np.clip((draft.snapshot.control.lease_end_mono_ms - now.mono_ms) * 0.001, 0, plate.lease_s)
    runs_s = draft.age_s + left_s + plate.overrun_s
    empties = (setpoint_w > 0) & ((setpoint_w + plate.standby_w) * runs_s > 3600 * draft.deliverable_wh)
    fills = (setpoint_w < 0) & (-setpoint_w * runs_s > 3600 * draft.absorbable_wh)
    result: Bools = empties | fills
    return result

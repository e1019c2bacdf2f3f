"""What every device may do now: the only place that narrows power.

One vectorised pass over the fleet. Precedence, strongest first: device safety, grid connection, backup reserve. A limit
leaves its bit where it narrowed. Unknown input never widens: what is stale or stuck is not written at all, so that the
running lease (sized for exactly this) runs out; what is known to be wrong is narrowed at once.
"""

from dataclasses import dataclass
from enum import IntFlag
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.domain.fleet import Held, Live, Nameplate, Snapshot
from gateway.domain.model import NEVER_MS, Bools, Floats, Grid, Ints, Mode, Now

Bits = NDArray[np.uint32]

# never refreshed for so long: any age limit is exceeded, and no arithmetic overflows
_NEVER_S: Final = 1e9


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

    def narrow(self, limit_w: Floats, reason: Reason | Bits) -> None:
        """Take the smaller of the two; a NaN limit is no limit."""
        below = limit_w < self.power_w
        np.copyto(self.power_w, limit_w, where=below)
        self._mark(below, reason)

    def forbid(self, where: Bools, reason: Reason) -> None:
        self.power_w[where] = 0.0
        self._mark(where, reason)

    def _mark(self, where: Bools, reason: Reason | Bits) -> None:
        bits = np.uint32(reason) if isinstance(reason, Reason) else reason
        self.reasons |= where * bits


def envelope(snapshot: Snapshot, now: Now, params: LimitParams) -> Envelope:
    """Power every device may be given for one lease from `now`. Sources: design decisions 3 to 8.

    Pure and order-free: each row depends on its own device and on the devices of its own home.
    """
    plate, live, control = snapshot.nameplate, snapshot.live, snapshot.control
    age_s = _age_s(live.seen_mono_ms, now)
    fresh = age_s <= params.reading_age_s_max
    out, into = _Side(plate.discharge_w_max), _Side(plate.charge_w_max)
    _device_safety(out, into, plate, live, params)
    blind = _blind(out, into, snapshot, params, fresh)

    floor_pct = _floor_pct(plate, live)
    ceiling_pct = np.where(plate.soc_max_pct < 100, plate.soc_max_pct - plate.soc_uncertainty_pct, 100.0)
    deliverable_wh = _above_wh(live.soc_pct - floor_pct, plate.capacity_wh) * plate.efficiency_discharge
    absorbable_wh = _above_wh(ceiling_pct - live.soc_pct, plate.capacity_wh) / plate.efficiency_charge
    # once held back at the reserve, a device comes back only with some energy in hand: no chatter at the bound
    resting = (control.setpoint_w <= 0) & (live.soc_pct < floor_pct + params.resume_pct)
    out.forbid(resting | (deliverable_wh <= 0), Reason.RESERVE)
    into.forbid(absorbable_wh <= 0, Reason.SOC_CEILING)

    _grid_connection(out, into, snapshot, now, params, fresh)
    # a direction that rests on a missing reading is neither refreshed nor cut: its running lease runs out
    blind |= (out.unknown & (control.setpoint_w > 0)) | (into.unknown & (control.setpoint_w < 0))
    sustain_discharge_w, sustain_charge_w = out.power_w.copy(), into.power_w.copy()
    past = (control.setpoint_w > sustain_discharge_w) | (-control.setpoint_w > sustain_charge_w)
    past |= _lease_too_long(snapshot, now, age_s, deliverable_wh, absorbable_wh)
    _look_ahead(out, into, snapshot, now, age_s, deliverable_wh, absorbable_wh)
    for side in (out, into):
        side.reasons[side.reasons == 0] = Reason.RATING
    return Envelope(
        discharge_w=out.power_w,
        charge_w=into.power_w,
        sustain_discharge_w=sustain_discharge_w,
        sustain_charge_w=sustain_charge_w,
        deliverable_wh=deliverable_wh,
        absorbable_wh=absorbable_wh,
        floor_pct=floor_pct,
        age_s=age_s,
        controllable=~blind,
        must_narrow=past & ~blind & (control.held == Held.CONTROLLED),
        reasons_discharge=out.reasons,
        reasons_charge=into.reasons,
    )


def check(setpoint_w: Ints, slots: NDArray[np.int32], allowed: Envelope) -> Bools:
    """Which setpoints may be written: the paired check just before the write. 0 W is always inside."""
    inside = (setpoint_w <= allowed.discharge_w[slots]) & (-setpoint_w <= allowed.charge_w[slots])
    result: Bools = inside & allowed.controllable[slots]
    return result


def spread(slots: NDArray[np.integer], salt: int) -> Floats:
    """A number in [0, 1) per slot, always the same, evenly spread over any run of slots; salts are independent."""
    step = (0.6180339887498949, 0.4142135623730951, 0.7320508075688772)[salt % 3]
    part: Floats = np.mod(slots * step + 0.37 * salt, 1.0)
    return part


def _age_s(seen_mono_ms: Ints, now: Now) -> Floats:
    return np.where(seen_mono_ms == NEVER_MS, _NEVER_S, np.maximum(now.mono_ms - seen_mono_ms, 0) / 1000)


def _above_wh(span_pct: Floats, capacity_wh: Floats) -> Floats:
    """Energy of a span of SoC; 0 where negative or unknown."""
    energy_wh: Floats = np.fmax(span_pct * capacity_wh / 100, 0.0)
    return energy_wh


def _floor_pct(plate: Nameplate, live: Live) -> Floats:
    """SoC below which nothing is discharged: the larger of the owner's reserve and the one the device holds, plus
    what the product's SoC may be wrong by, at most 100."""
    reserve_pct = np.fmax(plate.owner_reserve_pct, live.reserve_pct)
    return np.minimum(reserve_pct + plate.soc_uncertainty_pct, 100.0)


def _blind(out: _Side, into: _Side, snapshot: Snapshot, params: LimitParams, fresh: Bools) -> Bools:
    """Forbid what cannot be dispatched at all; returns the devices that must not even be written."""
    plate, live = snapshot.nameplate, snapshot.live
    step_pct = np.where(live.soc_step_pct > 0, live.soc_step_pct, params.soc_step_pct)
    stuck = live.moved_wh > params.stuck_steps * step_pct * plate.capacity_wh / 100
    # a full battery that takes a trickle stays at 100 %
    stuck &= (live.soc_pct < 100) | (live.battery_w > 0)
    causes = (
        (~fresh | np.isnan(live.soc_pct), Reason.STALE),
        (stuck, Reason.STUCK),
        (live.online == 0, Reason.OFFLINE),
        (live.grid == Grid.ISLAND, Reason.ISLANDED),
        (~plate.enrolled, Reason.UNENROLLED),
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
        unknown = np.isnan(live.pv_w)
        pv_w = np.fmax(live.pv_w, 0)
        room_w = np.maximum(plate.inverter_w_max - pv_w, 0)
        room_w[shared & unknown] = 0
        out.narrow(room_w, Reason.INVERTER_PV)
        out.unknown |= shared & unknown
        into.narrow(plate.inverter_w_max + pv_w, Reason.INVERTER_PV)
    temp_c = live.temp_c
    hot, cool = temp_c > params.temp_c_full, temp_c < params.charge_temp_c_full
    if not (hot.any() or cool.any()):
        return
    into.forbid(temp_c < params.charge_temp_c_min, Reason.TEMPERATURE)
    heat = np.clip((params.temp_c_max - temp_c) / (params.temp_c_max - params.temp_c_full), 0, 1)
    chill = (temp_c - params.charge_temp_c_min) / (params.charge_temp_c_full - params.charge_temp_c_min)
    out.narrow(np.where(np.isnan(live.discharge_w_max), plate.discharge_w_max * heat, np.inf), Reason.TEMPERATURE)
    into.narrow(
        np.where(np.isnan(live.charge_w_max), plate.charge_w_max * np.minimum(heat, np.clip(chill, 0, 1)), np.inf),
        Reason.TEMPERATURE,
    )


class _Homes:
    """Devices behind one meter. A device without a site is a home of its own."""

    def __init__(self, site: NDArray[np.int32]) -> None:
        alone = site < 0
        self.index = np.where(alone, site.max(initial=0) + 1 + np.arange(len(site)), site) if alone.any() else site
        self.count = int(self.index.max(initial=0)) + 1
        self.single = len(site) == 0 or int(np.bincount(self.index).max()) <= 1

    def total(self, values: Floats) -> Floats:
        """Sum over the home, per device."""
        if self.single:
            return values
        sums: Floats = np.bincount(self.index, weights=values, minlength=self.count)[self.index]
        return sums

    def least(self, values: Floats) -> Floats:
        """Smallest known value of the home, per device; NaN where none is known."""
        if self.single:
            return values
        found = np.full(self.count, np.nan)
        np.fmin.at(found, self.index, values)
        result: Floats = found[self.index]
        return result

    def share(self, room_w: Floats, weight_w: Floats) -> Floats:
        """Split a home's room in proportion to `weight_w`; no home's shares add up to more than its room."""
        if self.single:
            return room_w
        total_w = self.total(weight_w)
        finite = np.isfinite(room_w) & (total_w > 0)
        return np.where(finite, np.where(finite, room_w, 0) * weight_w / np.maximum(total_w, 1e-9), room_w)


def _grid_connection(out: _Side, into: _Side, snapshot: Snapshot, now: Now, params: LimitParams, fresh: Bools) -> None:
    """Export and grid charge at the meter, shared by all devices of a home in proportion to what each could do."""
    plate, live, control = snapshot.nameplate, snapshot.live, snapshot.control
    back = _reconnecting(live, now, params)
    export_w = np.where(plate.export_allowed, np.fmax(plate.site_export_w_max, 0), 0.0)
    import_w = np.where(plate.grid_charge_allowed & ~back, np.fmax(plate.site_import_w_max, 0), 0.0)
    if not (np.isfinite(export_w).any() or np.isfinite(import_w).any()):
        return
    homes = _Homes(plate.site)
    least_w, most_w = _net_load_w(homes, live, fresh)
    running = (control.held == Held.CONTROLLED) & (control.lease_end_mono_ms > now.mono_ms)
    in_force_w = np.where(running, control.setpoint_w, 0.0)

    def room(limit_w: Floats, net_w: Floats) -> tuple[Floats, Bools]:
        limit_w = homes.least(limit_w)
        room_w = limit_w + net_w - params.site_margin_w
        unknown = np.isnan(room_w) & np.isfinite(limit_w)
        return np.where(np.isinf(limit_w), np.inf, np.fmax(room_w, 0)), unknown

    out_w, unknown = room(export_w, least_w)
    cause = np.where(plate.export_allowed, np.uint32(Reason.SITE_EXPORT), np.uint32(Reason.EXPORT))
    out.narrow(homes.share(out_w, np.maximum(out.power_w, in_force_w)), cause)
    out.unknown |= unknown
    into_w, unknown = room(import_w, -most_w)
    cause = np.where(plate.grid_charge_allowed, np.uint32(Reason.SITE_IMPORT), np.uint32(Reason.GRID_CHARGE))
    cause[back] = Reason.RECONNECTING
    into.narrow(homes.share(into_w, np.maximum(into.power_w, -in_force_w)), cause)
    into.unknown |= unknown


def _reconnecting(live: Live, now: Now, params: LimitParams) -> Bools:
    """Devices whose grid came back a short while ago; how short differs from device to device."""
    back: Bools = live.reconnected_mono_ms != NEVER_MS
    if not back.any():
        return back
    slots = np.arange(len(back))
    wait_s = params.reconnect_s_min + (params.reconnect_s_max - params.reconnect_s_min) * spread(slots, 1)
    recent: Bools = back & ((now.mono_ms - live.reconnected_mono_ms) < 1000 * wait_s)
    return recent


def _net_load_w(homes: _Homes, live: Live, fresh: Bools) -> tuple[Floats, Floats]:
    """Least and most the home may draw without its batteries (W, negative = PV surplus), NaN where unknown: the load
    less PV, or else what batteries and meter add up to."""
    by_load_w = np.where(fresh, live.load_w - live.pv_w, np.nan)
    battery_w = homes.total(np.where(fresh, live.battery_w, np.nan))
    by_meter_w = battery_w + np.where(fresh, live.grid_w, np.nan)
    least_w, most_w = homes.least(by_load_w), -homes.least(-by_load_w)
    known = ~np.isnan(least_w)
    return (
        np.where(known, least_w, homes.least(by_meter_w)),
        np.where(known, most_w, -homes.least(-by_meter_w)),
    )


def _look_ahead(
    out: _Side, into: _Side, snapshot: Snapshot, now: Now, age_s: Floats, deliverable_wh: Floats, absorbable_wh: Floats
) -> None:
    """Allow only what the energy above the floor (below the ceiling) carries through a whole lease, after the most
    that may have flowed since the sample. What a device did while it was not ours is bounded by its rating alone."""
    plate, live, control = snapshot.nameplate, snapshot.live, snapshot.control
    ours = (live.mode == Mode.REMOTE) & (control.held == Held.CONTROLLED) & (control.lease_end_mono_ms >= now.mono_ms)
    ours &= ~np.isnan(live.battery_w)
    highest_w = np.maximum(np.maximum(control.setpoint_w, control.before_w), live.battery_w)
    lowest_w = np.minimum(np.minimum(control.setpoint_w, control.before_w), live.battery_w)
    drain_w = np.maximum(np.where(ours, highest_w, np.fmax(plate.discharge_w_max, live.battery_w)), 0)
    gain_w = np.maximum(np.where(ours, -lowest_w, np.fmax(plate.charge_w_max, -live.battery_w)), 0)
    since_s = age_s + plate.delivery_s
    left_ws = 3600 * deliverable_wh - (drain_w + plate.standby_w) * since_s
    out.narrow(np.maximum(left_ws / plate.lease_s - plate.standby_w, 0), Reason.LOOKAHEAD)
    into.narrow(np.maximum((3600 * absorbable_wh - gain_w * since_s) / plate.lease_s, 0), Reason.LOOKAHEAD)


def _lease_too_long(
    snapshot: Snapshot, now: Now, age_s: Floats, deliverable_wh: Floats, absorbable_wh: Floats
) -> Bools:
    """Setpoints in force that would pass the floor or the ceiling before their lease ends: the reserve was raised, or
    the SoC came out lower than it seemed when the lease was given."""
    plate, control = snapshot.nameplate, snapshot.control
    runs_s = age_s + np.clip((control.lease_end_mono_ms - now.mono_ms) / 1000, 0, plate.lease_s)
    needs_ws = np.where(control.setpoint_w > 0, (control.setpoint_w + plate.standby_w) * runs_s, 0)
    fills_ws = np.where(control.setpoint_w < 0, -control.setpoint_w * runs_s, 0)
    return (needs_ws > 3600 * deliverable_wh) | (fills_ws > 3600 * absorbable_wh)

"""Limits of a device by itself: its safety, its charge, its owner's choices, its warranty.

Each rule narrows the directions it concerns and sets its reason bit; see `envelope` for their order.
"""

from dataclasses import dataclass

import numpy as np

from gateway.domain.fleet.columns import Authority, ExclusionReason, LiveColumns, Nameplate
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits.resume import stopped
from gateway.domain.limits.types import UNCLEAR, LimitParams, Reason, Side, spread, unclear_reason
from gateway.domain.types import NEVER_MS, Bools, Floats, Grid, Mode, Now, Unclear

NOT_TO_BE_WRITTEN = (
    Reason.STALE | Reason.STUCK | Reason.OFFLINE | Reason.ISLANDED | Reason.UNENROLLED | Reason.NOT_STEERABLE
    | Reason.LOCKED | Reason.QUARANTINED | Reason.FROZEN | Reason.MAKER_BACKUP | UNCLEAR
)  # fmt: skip
"""Reasons that forbid both directions and leave the device alone altogether."""

Causes = tuple[tuple[Bools, Reason], ...]
"""Devices and why they may not be dispatched."""


def safety(out: Side, into: Side, plate: Nameplate, live: LiveColumns, setpoint_w: Floats, params: LimitParams) -> None:
    out.narrow(np.maximum(live.discharge_w_max, 0), Reason.BMS)
    into.narrow(np.maximum(live.charge_w_max, 0), Reason.BMS)
    shared = np.isfinite(plate.inverter_w_max)
    if shared.any():
        pv_w = np.fmax(live.pv_w, 0).astype(np.float64)
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
    into.forbid(temp_c < params.charge_temp_c_min + params.resume_c * (setpoint_w >= 0), Reason.TEMPERATURE)
    if not (np.isnan(live.discharge_w_max) | np.isnan(live.charge_w_max)).any():
        return
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


def not_writable(out: Side, into: Side, snapshot: Snapshot, params: LimitParams, stale: Bools) -> Bools:
    """Forbid both directions where a device cannot be dispatched; returns the devices that must not be written."""
    plate, live, exclusions = snapshot.nameplate, snapshot.live, snapshot.control.exclusions
    step_pct = np.where(live.soc_step_pct > 0, live.soc_step_pct, params.soc_step_pct)
    tolerated_pct = params.stuck_steps * step_pct
    # a SoC that was wrong stands at 100 % until it is right again, a full battery that takes a trickle at all times
    full = live.soc_pct >= 100
    if full.any():
        tolerated_pct = np.where(full, np.fmax(tolerated_pct, plate.soc_uncertainty_pct + step_pct), tolerated_pct)
    stuck = live.moved_wh > tolerated_pct * plate.capacity_wh / 100
    stuck &= ~full | (live.battery_w > 0)
    free = snapshot.control.authority == int(Authority.DEVICE)
    causes: Causes = (
        (stale | np.isnan(live.soc_pct), Reason.STALE),
        (stuck, Reason.STUCK),
        (live.faults != 0, Reason.FAULT),
        *left_alone(snapshot, free),
    )
    excluded = exclusions & np.uint8(ExclusionReason.QUARANTINED | ExclusionReason.FROZEN | ExclusionReason.MOVING)
    if excluded.any():
        causes += (
            ((exclusions & np.uint8(ExclusionReason.QUARANTINED)) != 0, Reason.QUARANTINED),
            ((exclusions & np.uint8(ExclusionReason.FROZEN)) != 0, Reason.FROZEN),
            ((exclusions & np.uint8(ExclusionReason.MOVING)) != 0, Reason.UNENROLLED),
        )
    if live.unclear.any():
        _unclear(out, into, plate, live)
    not_writable = np.zeros(snapshot.n, dtype=np.bool_)
    for where, reason in causes:
        if not where.any():
            continue
        out.forbid(where, reason)
        into.forbid(where, reason)
        if reason in NOT_TO_BE_WRITTEN:
            not_writable |= where
    return not_writable


def left_alone(snapshot: Snapshot, free: Bools) -> Causes:
    """Devices that must not be written by what they are, or say of themselves: now, whatever a tick has decided before.
    `free`: devices that nobody has taken; those are left in their maker's backup or storm mode where no event may end
    that."""
    plate, live = snapshot.nameplate, snapshot.live
    in_backup: Bools = live.mode == int(Mode.BACKUP)
    if in_backup.any():
        in_backup &= free & ~snapshot.control.takes_backup
    causes: Causes = (
        (live.online == 0, Reason.OFFLINE),
        (live.grid == int(Grid.ISLAND), Reason.ISLANDED),
        (~plate.registered, Reason.UNENROLLED),
        (~plate.steerable, Reason.NOT_STEERABLE),
        (live.locked != 0, Reason.LOCKED),
        (in_backup, Reason.MAKER_BACKUP),
    )
    if live.unclear.any():
        words = [member for member in Unclear if unclear_reason(member) in UNCLEAR]
        causes += tuple(((live.unclear & member) != 0, unclear_reason(member)) for member in words)
    return causes


def _unclear(out: Side, into: Side, plate: Nameplate, live: LiveColumns) -> None:
    """Unclear numbers about safety: each forbids the directions that rest on it, and a setpoint that runs in such a
    direction is not renewed."""
    everywhere: Bools = np.ones(len(live.unclear), dtype=np.bool_)
    bounded = np.isfinite(plate.site_phase_w_max)
    for member, side, rests in (
        (Unclear.RESERVE_PCT, out, everywhere),
        (Unclear.DISCHARGE_W_MAX, out, everywhere),
        (Unclear.CHARGE_W_MAX, into, everywhere),
        (Unclear.TEMP_C, out, np.isnan(live.discharge_w_max)),
        (Unclear.TEMP_C, into, everywhere),
        (Unclear.GRID_PHASES, out, bounded),
        (Unclear.GRID_PHASES, into, bounded),
    ):
        where = ((live.unclear & member) != 0) & rests
        side.forbid(where, unclear_reason(member))
        side.unknown |= where


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """Floor and ceiling of a device's charge in percent, and the AC energy to each in Wh."""

    floor_pct: Floats
    ceiling_pct: Floats
    deliverable_wh: Floats
    absorbable_wh: Floats


def charge(out: Side, into: Side, snapshot: Snapshot, setpoint_w: Floats, now: Now, params: LimitParams) -> Charge:
    """Floor, ceiling and the energy left to each; forbid a direction without energy. A device stopped at a bound
    resumes only with some energy in hand, which avoids chatter."""
    plate, live, control = snapshot.nameplate, snapshot.live, snapshot.control
    unsure_pct = _uncertainty_pct(plate, live)
    floor_pct = _floor_pct(out, snapshot, unsure_pct)
    ceiling_pct: Floats = np.full(len(unsure_pct), 100.0)
    if (lower := plate.soc_max_pct < 100).any():
        ceiling_pct = np.where(lower, plate.soc_max_pct - unsure_pct, 100.0)
    low_pct, high_pct = live.soc_low_pct.astype(np.float64), live.soc_high_pct.astype(np.float64)
    above_wh = np.fmax((low_pct - floor_pct) * plate.capacity_wh / 100, 0.0)
    below_wh = np.fmax((ceiling_pct - high_pct) * plate.capacity_wh / 100, 0.0)
    resting = (setpoint_w <= 0) & (low_pct < floor_pct + params.resume_pct)
    resting |= stopped(control.floor_mono_ms, low_pct, floor_pct, now, params)
    out.forbid(resting | (above_wh <= 0), Reason.RESERVE)
    resting = (setpoint_w >= 0) & (high_pct > ceiling_pct - params.resume_pct)
    resting |= stopped(control.ceiling_mono_ms, ceiling_pct, high_pct, now, params)
    into.forbid(resting | (below_wh <= 0), Reason.SOC_CEILING)
    return Charge(
        floor_pct=floor_pct,
        ceiling_pct=ceiling_pct,
        deliverable_wh=above_wh * plate.efficiency_discharge,
        absorbable_wh=below_wh / plate.efficiency_charge,
    )


def _floor_pct(out: Side, snapshot: Snapshot, unsure_pct: Floats) -> Floats:
    """SoC below which nothing is discharged: the largest of the owner's reserve, the reported reserve, the programs'
    reserve and that of exclusions, plus the SoC uncertainty, at most 100; or the product's own minimum if that is
    higher. The minimum gets no uncertainty, since the product applies it to its own SoC."""
    plate, live, control = snapshot.nameplate, snapshot.live, snapshot.control
    reserve_pct = np.fmax(plate.owner_reserve_pct, live.reserve_pct)
    wanted_pct = reserve_pct
    if control.program_reserve_pct.any():
        wanted_pct = np.maximum(reserve_pct, control.program_reserve_pct)
    floor_pct: Floats = np.minimum(wanted_pct + unsure_pct, 100.0)
    if wanted_pct is not reserve_pct:
        out.mark((wanted_pct > reserve_pct) & (live.soc_low_pct <= floor_pct), Reason.PROGRAM_RESERVE)
    if control.raised_reserve_pct.any():
        raised = control.raised_reserve_pct > wanted_pct
        floor_pct = np.minimum(np.maximum(wanted_pct, control.raised_reserve_pct) + unsure_pct, 100.0)
        out.mark(raised & (live.soc_low_pct <= floor_pct), Reason.RAISED_RESERVE)
    if plate.soc_min_pct.any():
        out.mark((plate.soc_min_pct > floor_pct) & (live.soc_low_pct <= plate.soc_min_pct), Reason.DEVICE_FLOOR)
        floor_pct = np.maximum(floor_pct, plate.soc_min_pct)
    return floor_pct


def _uncertainty_pct(plate: Nameplate, live: LiveColumns) -> Floats:
    """SoC uncertainty: the product's maximum, or its resolution plus its drift since the last full charge where both
    are known."""
    most_pct: Floats = plate.soc_uncertainty_pct.astype(np.float64)
    if np.isnan(plate.drift_pct_per_cycle).all():
        return most_pct
    cycles = live.since_full_wh / (2 * plate.capacity_wh)
    drift_pct: Floats = np.fmax(live.soc_step_pct, 0) + plate.drift_pct_per_cycle * cycles
    unknown = np.isnan(live.soc_step_pct)
    if unknown.any():
        drift_pct[unknown] = np.nan
    return np.fmin(most_pct, drift_pct)


def choices(out: Side, into: Side, snapshot: Snapshot, setpoint_w: Floats, now: Now, params: LimitParams) -> None:
    """Apply SoC doubt, exclusions, refused directions and the warranty's cycles."""
    plate, live, control = snapshot.nameplate, snapshot.live, snapshot.control
    doubted = live.soc_doubt > 0
    if doubted.any():
        out.mark(doubted, Reason.SOC_DOUBT)
        into.mark(doubted, Reason.SOC_DOUBT)
    if control.exclusions.any():
        opted_out = (control.exclusions & np.uint8(ExclusionReason.OPTED_OUT)) != 0
        out.forbid(opted_out, Reason.OPTED_OUT)
        into.forbid(opted_out, Reason.OPTED_OUT)
        excluded = (control.exclusions & np.uint8(ExclusionReason.EXCLUDED)) != 0
        out.forbid(excluded, Reason.EXCLUDED)
        into.forbid(excluded, Reason.EXCLUDED)
        departing = (control.exclusions & np.uint8(ExclusionReason.DEPARTING)) != 0
        out.forbid(departing, Reason.DEPARTING)
        into.forbid(departing, Reason.DEPARTING)
        out.forbid((control.exclusions & np.uint8(ExclusionReason.STORM)) != 0, Reason.STORM)
    if control.refused.any():
        recent = now.mono_ms - control.refused_mono_ms < 1000 * params.refusal_s
        out.forbid(recent & (control.refused > 0), Reason.REFUSED)
        into.forbid(recent & (control.refused < 0), Reason.REFUSED)
    if live.cycled_wh.any():
        budget_wh = plate.cycles_per_day_max * plate.capacity_wh
        used_up = live.cycled_wh >= budget_wh * np.where(setpoint_w > 0, 1.0, 1.0 - params.resume_part)
        out.forbid(used_up & (live.cycled_wh > 0), Reason.WEAR)


def reconnecting(live: LiveColumns, now: Now, params: LimitParams) -> Bools:
    """Devices whose grid came back a short while ago; the wait is spread over devices."""
    back: Bools = live.reconnected_mono_ms != NEVER_MS
    if not back.any():
        return back
    wait_s = params.reconnect_s_min + (params.reconnect_s_max - params.reconnect_s_min) * spread(
        np.arange(len(back)), 1
    )
    recent: Bools = back & ((now.mono_ms - live.reconnected_mono_ms) < 1000 * wait_s)
    return recent

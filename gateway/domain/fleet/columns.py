"""The columns a fleet is made of: one numpy array per quantity, indexed by slot.

`Nameplate` does not change from tick to tick, `LiveColumns` holds what devices report (and what `estimation` derives
from a run of readings), `ControlColumns` the commands and what is known of them. NaN is unknown, `NEVER_MS` a time that
has not been. Columns whose name ends in `_mono_ms` are monotonic times; a checkpoint keeps them as UTC.

What runs in every tick compares a column with `int()` of a member of an enum: with the member itself numpy takes five
to ten times as long, since it makes both sides 64 bits wide.
"""

from enum import IntEnum, IntFlag

import numpy as np
from numpy.typing import NDArray

from gateway.domain.table import Singles, Table
from gateway.domain.types import NEVER_MS, Bools, Flags, Floats, Ints, Small


class Authority(IntEnum):
    """Who controls the device: `DEVICE` = the maker's own mode, `CONTROLLED` = under our lease, `RELEASING` = the
    release was sent and is not confirmed yet, `OWNER` = an owner or maker took it back in mid-event."""

    DEVICE = 0
    CONTROLLED = 1
    RELEASING = 2
    OWNER = 3


class ExclusionReason(IntFlag):
    """Why a device is excluded from dispatch, besides what it reports itself. `OPTED_OUT`: its owner opted out.
    `STORM`: energy is kept for an expected outage. `QUARANTINED`: it did the opposite of its setpoint. `FROZEN`: many
    of its product failed at once. `MOVING`: an import is about to register it at another place."""

    OPTED_OUT = 1
    STORM = 2
    QUARANTINED = 4
    FROZEN = 8
    MOVING = 16


SETTLE_S = 30.0
"""How long a battery's power may take to settle where its product says nothing: real ones take 20 to 30 s to pass
through 0 W, ramp and settle."""


class Nameplate(Table):
    """What does not change from tick to tick: ratings, permissions, the owner's reserve, the product's facts.

    `product` is the number of its maker, product and firmware within its profile (see `Fleet.products`).
    `inverter_w_max` inf = not shared with PV. Site limits: NaN = unknown = not allowed, inf = unlimited;
    `site_phase_w_max` per phase at the meter, NaN = none is known, `phases` those the battery feeds;
    `fuse_protected`: something in the home itself keeps its main fuse from being overloaded.
    `soc_min_pct` below which the product refuses to discharge, `soc_max_pct` to which it may be charged,
    `soc_uncertainty_pct` the most its SoC may be wrong by, `drift_pct_per_cycle` how fast it gets there after a full
    charge (NaN = not known: always the most), `cycles_per_day_max` the warranty's.
    `setpoint_w_min` and `setpoint_step_w`: what is less is a hold, what lies between is cut.
    `lease_s` the lease the product is given, `lease_step_s` what a shorter one is a multiple of (the whole lease where
    the device's own time is fixed), `overrun_s` how much longer an inexact timer may let it run,
    `command_latency_s` the longest a command may take to act, `settle_s` how much longer until its power stands,
    `timed` whether the device reverts by its own timer, `blocks` whether it can be kept from discharging and left to
    charge from PV, `steerable` whether it takes setpoints from us (the product can, the operator has not ruled it out,
    and the device is what it is registered as). `counter_step_wh` the step of its energy counters, `report_s` the
    period of its readings as the profile declares it, NaN = not declared.
    """

    SPEC = {
        "registered": (np.bool_, False),
        "discharge_w_max": (np.float64, 0.0),
        "charge_w_max": (np.float64, 0.0),
        "inverter_w_max": (np.float64, np.inf),
        "capacity_wh": (np.float64, np.nan),
        "efficiency_discharge": (np.float32, 0.95),
        "efficiency_charge": (np.float32, 0.95),
        "standby_w": (np.float32, 0.0),
        "soc_min_pct": (np.float32, 0.0),
        "soc_max_pct": (np.float32, 100.0),
        "soc_uncertainty_pct": (np.float32, 5.0),
        "drift_pct_per_cycle": (np.float32, np.nan),
        "cycles_per_day_max": (np.float32, np.inf),
        "owner_reserve_pct": (np.float64, 100.0),
        "export_allowed": (np.bool_, False),
        "grid_charge_allowed": (np.bool_, False),
        "fuse_protected": (np.bool_, False),
        "site_import_w_max": (np.float64, np.nan),
        "site_export_w_max": (np.float64, np.nan),
        "site_phase_w_max": (np.float32, np.nan),
        "phases": (np.int8, 1),
        "site": (np.int32, -1),
        "feeder": (np.int32, -1),
        "profile": (np.int32, -1),
        "product": (np.int32, -1),
        "setpoint_w_min": (np.float32, 0.0),
        "setpoint_step_w": (np.float32, 1.0),
        "lease_s": (np.float32, 120.0),
        "lease_step_s": (np.float32, 1.0),
        "overrun_s": (np.float32, 0.0),
        "command_latency_s": (np.float32, 5.0),
        "settle_s": (np.float32, SETTLE_S),
        "timed": (np.bool_, True),
        "blocks": (np.bool_, False),
        "steerable": (np.bool_, True),
        "counter_step_wh": (np.float32, np.nan),
        "report_s": (np.float32, np.nan),
    }
    registered: Bools
    discharge_w_max: Floats
    charge_w_max: Floats
    inverter_w_max: Floats
    capacity_wh: Floats
    efficiency_discharge: Singles
    efficiency_charge: Singles
    standby_w: Singles
    soc_min_pct: Singles
    soc_max_pct: Singles
    soc_uncertainty_pct: Singles
    drift_pct_per_cycle: Singles
    cycles_per_day_max: Singles
    owner_reserve_pct: Floats
    export_allowed: Bools
    grid_charge_allowed: Bools
    fuse_protected: Bools
    site_import_w_max: Floats
    site_export_w_max: Floats
    site_phase_w_max: Singles
    phases: Small
    site: NDArray[np.int32]
    feeder: NDArray[np.int32]
    profile: NDArray[np.int32]
    product: NDArray[np.int32]
    setpoint_w_min: Singles
    setpoint_step_w: Singles
    lease_s: Singles
    lease_step_s: Singles
    overrun_s: Singles
    command_latency_s: Singles
    settle_s: Singles
    timed: Bools
    blocks: Bools
    steerable: Bools
    counter_step_wh: Singles
    report_s: Singles


class LiveColumns(Table):
    """The newest reading of each device and what earlier ones add. `seen_mono_ms` is when a reading of known age
    arrived; `locked` = its maker or somebody on the spot forbids control, `opt_out` = its owner opted out; either stays
    until no reading has said so for a while: `lock_gone_s`, `opt_out_gone_s` is the time so far.

    `soc_told_pct` is the newest SoC of any reading. `soc_low_pct` and `soc_high_pct` bound the charge: both are the
    reported SoC unless that has jumped; then `soc_doubt` more readings must agree before it counts. `moved_wh` is the
    energy moved since the SoC last changed, `since_full_wh` since the last full charge (NaN = none was seen),
    `unfilled_wh` the same, counted from the first reading where no full charge was seen,
    `cycled_wh` what is used of the day's cycles (a bucket that leaks as fast as the warranty allows). `reserve_pct` is
    the reserve in the newest reading. `reserve_told_pct` was reported `reserve_times` times in a row, over
    `reserve_told_s`, while it is being confirmed (0 times: nothing is); `reported_reserve_pct` was reported before, and
    a change is measured from it; `raised_from_pct` is the owner's reserve before a raise that is not confirmed (NaN
    none): see `reserve`. `net_low*_w`, `net_high*_w`: smallest and largest load less PV of three stretches of time, the
    newest since `net_since_mono_ms`. `phase_w_max`, `phase_w_min`: the phase with the most import and the one with the
    most export. `reconnected_mono_ms` the end of the last islanding. `unclear`: `Unclear` bits of members in the newest
    reading that were not understood; `mode`, `grid`, `locked`, `opt_out` and `faults` then keep the last value
    understood. `report_s`: the period of its readings that the device itself states (NaN: it does not)."""

    SPEC = {
        "battery_w": (np.float64, np.nan),
        "soc_pct": (np.float64, np.nan),
        "soc_told_pct": (np.float32, np.nan),
        "soc_step_pct": (np.float32, np.nan),
        "soc_low_pct": (np.float32, np.nan),
        "soc_high_pct": (np.float32, np.nan),
        "soc_doubt": (np.int8, 0),
        "temp_c": (np.float32, np.nan),
        "discharge_w_max": (np.float32, np.nan),
        "charge_w_max": (np.float32, np.nan),
        "reserve_pct": (np.float32, np.nan),
        "reserve_told_pct": (np.float32, 0.0),
        "reserve_told_s": (np.float32, 0.0),
        "reserve_times": (np.int8, 0),
        "reported_reserve_pct": (np.float32, np.nan),
        "raised_from_pct": (np.float32, np.nan),
        "pv_w": (np.float32, np.nan),
        "load_w": (np.float32, np.nan),
        "grid_w": (np.float32, np.nan),
        "phase_w_max": (np.float32, np.nan),
        "phase_w_min": (np.float32, np.nan),
        "mode": (np.int8, 0),
        "grid": (np.int8, 0),
        "online": (np.int8, -1),
        "locked": (np.int8, 0),
        "opt_out": (np.int8, 0),
        "lock_gone_s": (np.float32, 0.0),
        "opt_out_gone_s": (np.float32, 0.0),
        "faults": (np.int64, 0),
        "unclear": (np.int16, 0),
        "cmd": (np.int64, 0),
        "seen_mono_ms": (np.int64, NEVER_MS),
        "reconnected_mono_ms": (np.int64, NEVER_MS),
        "moved_wh": (np.float32, 0.0),
        "since_full_wh": (np.float32, np.nan),
        "unfilled_wh": (np.float32, 0.0),
        "cycled_wh": (np.float32, 0.0),
        "net_low_w": (np.float32, np.nan),
        "net_low_1_w": (np.float32, np.nan),
        "net_low_2_w": (np.float32, np.nan),
        "net_high_w": (np.float32, np.nan),
        "net_high_1_w": (np.float32, np.nan),
        "net_high_2_w": (np.float32, np.nan),
        "net_since_mono_ms": (np.int64, NEVER_MS),
        "report_s": (np.float32, np.nan),
    }
    battery_w: Floats
    soc_pct: Floats
    soc_told_pct: Singles
    soc_step_pct: Singles
    soc_low_pct: Singles
    soc_high_pct: Singles
    soc_doubt: Small
    temp_c: Singles
    discharge_w_max: Singles
    charge_w_max: Singles
    reserve_pct: Singles
    reserve_told_pct: Singles
    reserve_told_s: Singles
    reserve_times: Small
    reported_reserve_pct: Singles
    raised_from_pct: Singles
    pv_w: Singles
    load_w: Singles
    grid_w: Singles
    phase_w_max: Singles
    phase_w_min: Singles
    mode: Small
    grid: Small
    online: Small
    locked: Small
    opt_out: Small
    lock_gone_s: Singles
    opt_out_gone_s: Singles
    faults: Ints
    unclear: Flags
    cmd: Ints
    seen_mono_ms: Ints
    reconnected_mono_ms: Ints
    moved_wh: Singles
    since_full_wh: Singles
    unfilled_wh: Singles
    cycled_wh: Singles
    net_low_w: Singles
    net_low_1_w: Singles
    net_low_2_w: Singles
    net_high_w: Singles
    net_high_1_w: Singles
    net_high_2_w: Singles
    net_since_mono_ms: Ints
    report_s: Singles


class ControlColumns(Table):
    """The last command to each device and what is known of it.

    `setpoint_w` is the setpoint in force by our knowledge (0 when DEVICE), `before_w` the one it replaced, `done_part`
    the part of a setpoint that the device did when it was last measured and had settled (NaN unknown); `ran_high_w` and
    `ran_low_w` the largest and smallest setpoint that may have been in force since the newest reading;
    `lease_end_mono_ms` when it reverts by itself; `event` the index of the event that controls the device (-1 none);
    `idle`: under control it is kept from discharging only.
    `cmd_applied` the last command the device confirmed; `refused_mono_ms` when it last refused one, `refused` in which
    direction (+1 discharge, -1 charge); `written_reserve_pct` the reserve we last wrote (NaN none). `exclusions` are
    `ExclusionReason` bits. `floor_mono_ms` and `ceiling_mono_ms`: the last load of a device that has reached that bound
    of its charge and is stopped there (NEVER_MS: it is not). `program_reserve_pct`, `pays_export` and `takes_backup`
    (it may be taken from its maker's backup mode) are those of the programs the device serves now.
    """

    SPEC = {
        "authority": (np.int8, int(Authority.DEVICE)),
        "exclusions": (np.uint8, 0),
        "idle": (np.bool_, False),
        "refused": (np.int8, 0),
        "pays_export": (np.bool_, True),
        "takes_backup": (np.bool_, False),
        "result": (np.int8, 0),
        "event": (np.int32, -1),
        "program_reserve_pct": (np.float32, 0.0),
        "written_reserve_pct": (np.float32, np.nan),
        "setpoint_w": (np.int64, 0),
        "before_w": (np.int64, 0),
        "done_part": (np.float32, np.nan),
        "ran_high_w": (np.float32, 0.0),
        "ran_low_w": (np.float32, 0.0),
        "cmd_sent": (np.int64, 0),
        "cmd_applied": (np.int64, 0),
        "sent_mono_ms": (np.int64, NEVER_MS),
        "changed_mono_ms": (np.int64, NEVER_MS),
        "lease_end_mono_ms": (np.int64, NEVER_MS),
        "release_mono_ms": (np.int64, NEVER_MS),
        "refused_mono_ms": (np.int64, NEVER_MS),
        "floor_mono_ms": (np.int64, NEVER_MS),
        "ceiling_mono_ms": (np.int64, NEVER_MS),
    }
    authority: Small
    exclusions: NDArray[np.uint8]
    idle: Bools
    refused: Small
    pays_export: Bools
    takes_backup: Bools
    result: Small
    event: NDArray[np.int32]
    program_reserve_pct: Singles
    written_reserve_pct: Singles
    setpoint_w: Ints
    before_w: Ints
    done_part: Singles
    ran_high_w: Singles
    ran_low_w: Singles
    cmd_sent: Ints
    cmd_applied: Ints
    sent_mono_ms: Ints
    changed_mono_ms: Ints
    lease_end_mono_ms: Ints
    release_mono_ms: Ints
    refused_mono_ms: Ints
    floor_mono_ms: Ints
    ceiling_mono_ms: Ints

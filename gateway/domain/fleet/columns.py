"""The columns a fleet is made of: one numpy array per quantity, indexed by slot.

`Nameplate` does not change from tick to tick, `LiveColumns` holds what devices report (and what `estimation` derives
from a run of readings), `ControlColumns` the commands and what is known of them. NaN is unknown, `NEVER_MS` a time that
has not been. Columns whose name ends in `_mono_ms` are monotonic times; a checkpoint keeps them as UTC. Each column is
declared once: its kind, the value of a new slot, and its meaning, which `docs/reference/fleet.md` is made of.

What runs in every tick compares a column with `int()` of a member of an enum: with the member itself numpy takes five
to ten times as long, since it makes both sides 64 bits wide.
"""

from enum import IntEnum, IntFlag

import numpy as np
from numpy.typing import NDArray

from gateway.domain.table import Singles, Table, column
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
    `STORM`: energy is kept for an expected outage. `EXCLUDED`: its territory is kept out of dispatch. `QUARANTINED`: it
    did the opposite of its setpoint. `FROZEN`: many of its product failed at once. `MOVING`: an import is about to
    register it at another place. `DEPARTING`: it is handed back, since it is to be registered at another place, or
    removed."""

    OPTED_OUT = 1
    STORM = 2
    QUARANTINED = 4
    FROZEN = 8
    MOVING = 16
    DEPARTING = 32
    EXCLUDED = 64


NOT_TAKEN = np.uint8(ExclusionReason.OPTED_OUT | ExclusionReason.DEPARTING | ExclusionReason.EXCLUDED)
"""Exclusions of devices that are handed back at once."""


SETTLE_S = 30.0
"""How long a battery's power may take to settle where its product says nothing: real ones take 20 to 30 s to pass
through 0 W, ramp and settle."""


class Nameplate(Table):
    """What does not change from tick to tick: ratings, permissions, the owner's reserve, the product's facts."""

    registered: Bools = column(False, "Whether the slot has a device.")
    discharge_w_max: Floats = column(0.0, "Rating.")
    charge_w_max: Floats = column(0.0, "Rating.")
    inverter_w_max: Floats = column(np.inf, "Rating of an inverter that it shares with PV; inf = it shares none.")
    capacity_wh: Floats = column(np.nan, "Usable energy.")
    efficiency_discharge: Singles = column(0.95, "AC energy out of energy stored.")
    efficiency_charge: Singles = column(0.95, "Energy stored out of AC energy.")
    standby_w: Singles = column(0.0, "What the device takes while it does nothing.")
    soc_min_pct: Singles = column(0.0, "Below it the product refuses to discharge.")
    soc_max_pct: Singles = column(100.0, "To it the device may be charged.")
    soc_uncertainty_pct: Singles = column(5.0, "The most its SoC may be wrong by.")
    drift_pct_per_cycle: Singles = column(
        np.nan, "How fast its SoC gets there after a full charge; NaN = not known: always the most."
    )
    cycles_per_day_max: Singles = column(np.inf, "The warranty's.")
    owner_reserve_pct: Floats = column(100.0, "The reserve that its owner chose.")
    export_allowed: Bools = column(False, "Whether it may discharge to the grid.")
    grid_charge_allowed: Bools = column(False, "Whether it may be charged from the grid.")
    fuse_protected: Bools = column(False, "Something in the home itself keeps its main fuse from being overloaded.")
    site_import_w_max: Floats = column(np.nan, "Limit of the site; NaN = unknown = not allowed, inf = unlimited.")
    site_export_w_max: Floats = column(np.nan, "Limit of the site; NaN = unknown = not allowed, inf = unlimited.")
    site_phase_w_max: Singles = column(np.nan, "The most that one phase of the meter may carry; NaN = none is known.")
    phases: Small = column(1, "How many phases the battery feeds.")
    site: NDArray[np.int32] = column(-1, "Number of its site.")
    meter: NDArray[np.int32] = column(-1, "Number of its meter; -1 = not known.")
    feeder: NDArray[np.int32] = column(-1, "Number of its feeder; -1 = none.")
    territory: NDArray[np.int32] = column(-1, "Number of where its home is (see `Fleet.territories`); -1 = not known.")
    profile: NDArray[np.int32] = column(-1, "Number of its profile.")
    product: NDArray[np.int32] = column(
        -1, "Number of its maker, product and firmware within its profile (see `Fleet.products`)."
    )
    setpoint_w_min: Singles = column(0.0, "A setpoint below it is a hold.")
    setpoint_step_w: Singles = column(1.0, "What lies between two steps is cut.")
    lease_s: Singles = column(120.0, "The lease that the product is given.")
    lease_step_s: Singles = column(
        1.0, "What a shorter lease is a multiple of: the whole lease where the device's own time is fixed."
    )
    overrun_s: Singles = column(0.0, "How much longer an inexact timer may let a lease run.")
    command_latency_s: Singles = column(5.0, "The longest that a command may take to act.")
    settle_s: Singles = column(SETTLE_S, "How much longer until its power stands.")
    timed: Bools = column(True, "Whether the device reverts by its own timer.")
    blocks: Bools = column(False, "Whether it can be kept from discharging and left to charge from PV.")
    steerable: Bools = column(
        True,
        "Whether it takes setpoints from us: its product can, its operator lets it, it is what it is registered as.",
    )
    counter_step_wh: Singles = column(np.nan, "Step of its energy counters; NaN = not declared.")
    report_s: Singles = column(np.nan, "Period of its readings as the profile declares it; NaN = not declared.")


class LiveColumns(Table):
    """The newest reading of each device and what earlier ones add."""

    battery_w: Floats = column(np.nan, "AC power of the battery, + = discharge.")
    soc_pct: Floats = column(np.nan, "State of charge.")
    soc_told_pct: Singles = column(np.nan, "The newest SoC of any reading.")
    soc_step_pct: Singles = column(np.nan, "Resolution of its SoC.")
    soc_low_pct: Floats = column(np.nan, "Lower bound of the charge: the reported SoC, unless that has jumped.")
    soc_high_pct: Floats = column(np.nan, "Upper bound of the charge: the reported SoC, unless that has jumped.")
    soc_doubt: Small = column(0, "How many more readings must agree before a jump of SoC counts.")
    temp_c: Singles = column(np.nan, "Temperature of the cells.")
    discharge_w_max: Singles = column(np.nan, "The most that it says it can discharge now.")
    charge_w_max: Singles = column(np.nan, "The most that it says it can be charged with now.")
    reserve_pct: Singles = column(np.nan, "The reserve in the newest reading.")
    reserve_told_pct: Singles = column(0.0, "The reserve that is being confirmed.")
    reserve_told_s: Singles = column(0.0, "For how long it has been reported.")
    reserve_times: Small = column(0, "How many times in a row it has been reported; 0 = nothing is being confirmed.")
    reported_reserve_pct: Singles = column(np.nan, "The reserve reported before; a change is measured from it.")
    raised_from_pct: Singles = column(
        np.nan, "The owner's reserve before a raise that is not confirmed; NaN = none: see `reserve`."
    )
    pv_w: Singles = column(np.nan, "AC power of PV.")
    load_w: Singles = column(np.nan, "Power of the home's load.")
    grid_w: Singles = column(np.nan, "Power at the meter, + = import.")
    phase_w_max: Singles = column(np.nan, "Power of the phase with the most import.")
    phase_w_min: Singles = column(np.nan, "Power of the phase with the most export.")
    mode: Small = column(0, "`Mode`: who controls the battery, as it reports.")
    grid: Small = column(0, "`Grid`: whether its home is connected to the grid, as it reports.")
    online: Small = column(-1, "Whether it is connected; -1 = unknown.")
    locked: Small = column(
        0, "Its maker or somebody on the spot forbids control; stays until no reading has said so for a while."
    )
    opt_out: Small = column(0, "Its owner opted out; stays until no reading has said so for a while.")
    lock_gone_s: Singles = column(0.0, "For how long no reading has said `locked`.")
    opt_out_gone_s: Singles = column(0.0, "For how long no reading has said `opt_out`.")
    faults: Ints = column(0, "Fault bits, as it reports.")
    unclear: Flags = column(
        0,
        "`Unclear` bits: members of the newest reading that were not understood; a word keeps its last value.",
    )
    cmd: Ints = column(0, "The newest command that its readings name.")
    seen_mono_ms: Ints = column(NEVER_MS, "When a reading of known age arrived.")
    reconnected_mono_ms: Ints = column(NEVER_MS, "End of the last islanding.")
    moved_wh: Floats = column(0.0, "Energy moved since the SoC last changed.")
    since_full_wh: Floats = column(np.nan, "Energy moved since the last full charge; NaN = none was seen.")
    unfilled_wh: Floats = column(0.0, "The same, counted from the first reading where no full charge was seen.")
    cycled_wh: Floats = column(
        0.0, "What is used of the day's cycles: a bucket that leaks as fast as the warranty allows."
    )
    net_low_w: Singles = column(np.nan, "Smallest load less PV of the newest stretch of time.")
    net_low_1_w: Singles = column(np.nan, "The same of the stretch before.")
    net_low_2_w: Singles = column(np.nan, "The same of the one before that.")
    net_high_w: Singles = column(np.nan, "Largest load less PV of the newest stretch of time.")
    net_high_1_w: Singles = column(np.nan, "The same of the stretch before.")
    net_high_2_w: Singles = column(np.nan, "The same of the one before that.")
    net_since_mono_ms: Ints = column(NEVER_MS, "Begin of the newest stretch.")
    report_s: Singles = column(np.nan, "Period of its readings that the device itself states; NaN = it states none.")


class ControlColumns(Table):
    """The last command to each device and what is known of it."""

    authority: Small = column(int(Authority.DEVICE), "`Authority`: who controls the device.")
    exclusions: NDArray[np.uint8] = column(0, "`ExclusionReason` bits.")
    idle: Bools = column(False, "Under control it is kept from discharging only.")
    refused: Small = column(0, "Direction of the last command that it refused: +1 discharge, -1 charge.")
    pays_export: Bools = column(True, "Whether a program that it serves now pays for export.")
    takes_backup: Bools = column(
        False, "Whether a program that it serves now may take it from its maker's backup mode."
    )
    result: Small = column(0, "`CommandResult`: its answer to the newest command.")
    event: NDArray[np.int32] = column(-1, "Index of the event that controls it; -1 = none.")
    program_reserve_pct: Singles = column(0.0, "The reserve of the programs that it serves now.")
    raised_reserve_pct: Singles = column(0.0, "The reserve to which exclusions of its territory raise it now.")
    written_reserve_pct: Singles = column(np.nan, "The reserve that we last wrote; NaN = none.")
    setpoint_w: Ints = column(
        0, "The setpoint in force by our knowledge, + = discharge; 0 where the device controls itself."
    )
    before_w: Ints = column(0, "The setpoint that this one replaced.")
    done_part: Singles = column(
        np.nan, "The part of a setpoint that it did when it was last measured and had settled; NaN = unknown."
    )
    ran_high_w: Singles = column(0.0, "The largest setpoint that may have been in force since the newest reading.")
    ran_low_w: Singles = column(0.0, "The smallest one.")
    cmd_sent: Ints = column(0, "The newest command sent.")
    cmd_applied: Ints = column(0, "The newest command that the device confirmed.")
    sent_mono_ms: Ints = column(NEVER_MS, "When the newest command was sent.")
    changed_mono_ms: Ints = column(NEVER_MS, "When its setpoint last changed.")
    lease_end_mono_ms: Ints = column(NEVER_MS, "When it reverts by itself.")
    release_mono_ms: Ints = column(NEVER_MS, "When it is to be released.")
    refused_mono_ms: Ints = column(NEVER_MS, "When it last refused a command.")
    floor_mono_ms: Ints = column(
        NEVER_MS, "The last load of a device that is stopped at the lower bound of its charge; never = it is not."
    )
    ceiling_mono_ms: Ints = column(
        NEVER_MS, "The last load of a device that is stopped at the upper bound of its charge; never = it is not."
    )

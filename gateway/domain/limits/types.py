"""Reasons that narrow a device's power, parameters of the fleet, and the envelope."""

from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from gateway.domain.types import Bools, Floats, Ints, Unclear

Bits = NDArray[np.uint64]


class Reason(IntFlag):
    """Named causes that narrow a device's power; `RATING` where only the nameplate does. `UNCLEAR_*`: the device sent
    that member, and it could not be understood. `MAKER_BACKUP`: the maker's own backup or storm mode keeps energy.
    `DEPARTING`: it leaves its place. `EXCLUDED`: its territory is kept out of dispatch. `RAISED_RESERVE`: an exclusion
    of its territory raises its reserve."""

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
    LOCKED = 1 << 19
    OPTED_OUT = 1 << 20
    STORM = 1 << 21
    QUARANTINED = 1 << 22
    FROZEN = 1 << 23
    PROGRAM_RESERVE = 1 << 24
    COMPENSATION = 1 << 25
    WEAR = 1 << 26
    FUSE = 1 << 27
    REFUSED = 1 << 28
    DEVICE_FLOOR = 1 << 29
    SOC_DOUBT = 1 << 30
    UNCLEAR_MODE = Unclear.MODE << 31
    UNCLEAR_GRID = Unclear.GRID << 31
    UNCLEAR_LOCKED = Unclear.LOCKED << 31
    UNCLEAR_OPT_OUT = Unclear.OPT_OUT << 31
    UNCLEAR_FAULTS = Unclear.FAULTS << 31
    UNCLEAR_RESERVE_PCT = Unclear.RESERVE_PCT << 31
    UNCLEAR_DISCHARGE_W_MAX = Unclear.DISCHARGE_W_MAX << 31
    UNCLEAR_CHARGE_W_MAX = Unclear.CHARGE_W_MAX << 31
    UNCLEAR_TEMP_C = Unclear.TEMP_C << 31
    UNCLEAR_GRID_PHASES = Unclear.GRID_PHASES << 31
    UNCLEAR_MESSAGE = Unclear.MESSAGE << 31
    MAKER_BACKUP = 1 << 42
    DEPARTING = 1 << 43
    EXCLUDED = 1 << 44
    RAISED_RESERVE = 1 << 45


def unclear_reason(members: Unclear) -> Reason:
    """The reasons for members that were not understood."""
    return Reason(members << 31)


UNCLEAR = unclear_reason(
    Unclear.MODE | Unclear.GRID | Unclear.LOCKED | Unclear.OPT_OUT | Unclear.FAULTS | Unclear.MESSAGE
)
"""Words that may have meant anything: a device with one of them not understood is not written at all."""


def reason_names(bits: int) -> list[str]:
    """Bits as lower-case names, in order."""
    return [str(reason.name).lower() for reason in Reason if bits & reason]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitParams:
    """Parameters for the whole fleet.

    `site_margin_w` is kept free at every finite grid-connection limit; a setpoint in force may be past a limit by
    `narrow_band_w` before it is rewritten for that. A device stopped at its reserve discharges again `resume_pct`
    above it, one at its ceiling charges again as far below it, one that was too cold `resume_c` above the bound, one
    whose cycles are used up once `resume_part` of the day's is free again. A device that has reached its floor or
    ceiling under control stays stopped until it is `rest_pct` away from it, or has rested for `rest_s` (see `resume`).
    `stuck_steps` resolution steps of energy moved without a change of SoC mean it is stuck (`soc_step_pct` where the
    product does not state its resolution). A direction that the device refused is not used again for `refusal_s`.
    """

    reading_age_s_max: float = 120.0
    site_margin_w: float = 50.0
    narrow_band_w: float = 25.0
    resume_pct: float = 1.0
    rest_pct: float = 5.0
    rest_s: float = 900.0
    resume_c: float = 1.0
    resume_part: float = 0.05
    stuck_steps: float = 3.0
    soc_step_pct: float = 1.0
    charge_temp_c_min: float = 0.0
    charge_temp_c_full: float = 5.0
    temp_c_full: float = 45.0
    temp_c_max: float = 55.0
    reconnect_s_min: float = 300.0
    reconnect_s_max: float = 900.0
    refusal_s: float = 120.0


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
    ceiling_pct: Floats
    age_s: Floats
    controllable: Bools
    must_narrow: Bools
    reasons_discharge: Bits
    reasons_charge: Bits


class Side:
    """Allowed power in one direction while it is narrowed, the reasons, and where a reading it rests on is missing."""

    def __init__(self, rating_w: Floats) -> None:
        self.power_w = rating_w.copy()
        self.reasons: Bits = np.zeros(len(rating_w), dtype=np.uint64)
        self.unknown: Bools = np.zeros(len(rating_w), dtype=np.bool_)

    def narrow(self, limit_w: Floats, *reasons: Reason | tuple[Reason, Bools]) -> None:
        """Take the smaller of the two; a NaN limit is no limit. A reason may hold for some devices only."""
        below = limit_w < self.power_w
        if not below.any():
            return
        np.fmin(self.power_w, limit_w, out=self.power_w)
        for reason in reasons:
            if isinstance(reason, tuple):
                self.mark(below & reason[1], reason[0])
            else:
                self.mark(below, reason)

    def forbid(self, where: Bools, reason: Reason) -> None:
        if where.any():
            self.power_w *= ~where
            self.reasons |= where * np.uint64(reason)

    def mark(self, where: Bools, reason: Reason) -> None:
        if where.any():
            self.reasons |= where * np.uint64(reason)

    def finish(self) -> None:
        self.mark(self.reasons == 0, Reason.RATING)


def check(setpoint_w: Ints, slots: NDArray[np.integer] | slice, allowed: Envelope) -> Bools:
    """Which setpoints may be written: the paired check just before the write. 0 W is always inside."""
    wanted_w = setpoint_w.astype(np.float64)
    inside = (wanted_w <= allowed.discharge_w[slots]) & (-wanted_w <= allowed.charge_w[slots])
    result: Bools = inside & allowed.controllable[slots]
    return result


def spread(slots: NDArray[np.integer], salt: int) -> Floats:
    """A constant number in [0, 1) per slot, evenly spread over any run of slots; salts are independent."""
    step = (0.6180339887498949, 0.4142135623730951, 0.7320508075688772, 0.2360679774997898)[salt % 4]
    part: Floats = np.mod(slots * step + 0.37 * salt, 1.0)
    return part

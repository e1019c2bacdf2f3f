"""Which batteries a program may have: by their nameplate, their telemetry, where they are, and what they are in."""

import math
from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from gateway.domain.types import Bools, Floats


class Unfit(IntFlag):
    """Why a program cannot have a battery. `POWER`: it gives less than it must; `DURATION`: it cannot give that for
    long enough, or how much energy it holds is not known; `TELEMETRY`: too little of its time is measured; `TERRITORY`:
    it is not where the program is; `EXCLUSIVE`: it is in another one that excludes this one; `TOO_LARGE`: it gives more
    than it may."""

    POWER = 1
    DURATION = 2
    TELEMETRY = 4
    TERRITORY = 8
    EXCLUSIVE = 16
    TOO_LARGE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What a program asks of a battery: `min_w` (W, AC) for `min_hours`, at most `max_w`, `completeness_pct` of the
    last days measured, and one of the tags `territories` (none: anywhere)."""

    min_w: float = 0.0
    max_w: float = math.inf
    min_hours: float = 0.0
    completeness_pct: float = 0.0
    territories: frozenset[str] = frozenset()

    def narrowed(self, other: "Requirements") -> "Requirements":
        """What both ask for; territories are those of `other` where it has any."""
        return Requirements(
            min_w=max(self.min_w, other.min_w), max_w=min(self.max_w, other.max_w),
            min_hours=max(self.min_hours, other.min_hours),
            completeness_pct=max(self.completeness_pct, other.completeness_pct),
            territories=other.territories or self.territories,
        )  # fmt: skip


def unfit(
    requirements: Requirements,
    *,
    power_w: Floats,
    capacity_wh: Floats,
    measured_pct: Floats,
    inside: Bools,
    excluded: Bools,
) -> NDArray[np.uint8]:
    """`Unfit` bits of each battery, 0 = eligible. `power_w`: the lower of inverter and battery; NaN = unknown, which
    never fulfils anything that is asked for. `inside`: it is in the territory; `excluded`: by another program."""
    out = np.zeros(len(power_w), dtype=np.uint8)
    out[~(power_w >= requirements.min_w)] |= np.uint8(Unfit.POWER)
    if requirements.max_w < math.inf:
        out[~(power_w <= requirements.max_w)] |= np.uint8(Unfit.TOO_LARGE)
    if requirements.min_hours > 0:
        enough = capacity_wh >= requirements.min_w * requirements.min_hours
        out[~enough] |= np.uint8(Unfit.DURATION)
    if requirements.completeness_pct > 0:
        out[~(measured_pct >= requirements.completeness_pct)] |= np.uint8(Unfit.TELEMETRY)
    if requirements.territories:
        out[~inside] |= np.uint8(Unfit.TERRITORY)
    out[excluded] |= np.uint8(Unfit.EXCLUSIVE)
    return out


def unfit_names(bits: int) -> list[str]:
    """Bits as lower-case names, in order."""
    return [str(why.name).lower() for why in Unfit if bits & why]

"""Interval length of each device, and whether its counters are fine enough for it."""

from dataclasses import dataclass

import numpy as np

from gateway.domain.table import Table
from gateway.domain.types import NEVER_MS, Bools, Floats, Ints, Slots

S_PER_HOUR = 3600
FINE_PART = 0.01


class Newest(Table):
    """`t_ms` of the newest sample of each device."""

    SPEC = {"t_ms": (np.int64, NEVER_MS)}
    t_ms: Ints


class IntervalConfig(Table):
    """Interval configuration of each device: `length_ms`; none begins before `not_before_ms` (before that the length
    was another), and those that begin before `known_before_ms` may have records already. `counter_step_wh`: step of its
    counters, NaN = unknown; `coarse`: the step is too large for its intervals."""

    SPEC = {
        "length_ms": (np.int64, 300_000),
        "not_before_ms": (np.int64, 0),
        "known_before_ms": (np.int64, 0),
        "counter_step_wh": (np.float64, np.nan),
        "coarse": (np.bool_, False),
    }
    length_ms: Ints
    not_before_ms: Ints
    known_before_ms: Ints
    counter_step_wh: Floats
    coarse: Bools


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreedConfig:
    """Configuration agreed for some devices: length in s (divides a day), counter step in Wh (NaN unknown) and rated
    power in W (NaN unknown), which decide whether a step is fine enough."""

    slots: Slots
    length_s: Ints
    counter_step_wh: Floats
    rated_w: Floats

    def rows(self, index: Ints) -> "AgreedConfig":
        return AgreedConfig(
            slots=self.slots[index],
            length_s=self.length_s[index],
            counter_step_wh=self.counter_step_wh[index],
            rated_w=self.rated_w[index],
        )

    @property
    def coarse(self) -> Bools:
        """Whether a step of the counter is more than a hundredth of an interval's energy at rated power."""
        fine_wh = FINE_PART * self.rated_w * (self.length_s / S_PER_HOUR)
        coarse: Bools = self.counter_step_wh > fine_wh
        return coarse

"""Interval length of each device, and whether its counters are fine enough for it."""

from dataclasses import dataclass

import numpy as np

from gateway.domain.table import Table, column
from gateway.domain.types import NEVER_MS, Bools, Floats, Ints, Slots

S_PER_HOUR = 3600
FINE_PART = 0.01


class Newest(Table):
    """`t_ms` of the newest sample of each device."""

    t_ms: Ints = column(NEVER_MS)


class IntervalConfig(Table):
    """Interval configuration of each device: `length_ms`; none begins before `not_before_ms` (before that the length
    was another). Those that begin before `known_before_ms`, or from `again_from_ms` until before `again_until_ms`, may
    have records already. `counter_step_wh`: step of its counters, NaN = unknown; `coarse`: the step is too large for
    its intervals."""

    length_ms: Ints = column(300_000)
    not_before_ms: Ints = column(0)
    known_before_ms: Ints = column(0)
    again_from_ms: Ints = column(0)
    again_until_ms: Ints = column(0)
    counter_step_wh: Floats = column(np.nan)
    coarse: Bools = column(False)


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

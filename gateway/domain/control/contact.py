"""Which devices are counted on: those whose readings come when they are due.

A device whose readings are overdue is lost: it may or may not go on, and nothing rests on it. It is counted on again
once its readings have come on time for a while; one that drops out every few seconds is not. Those that come back soon
after each other are counted on at once: else the first of them would take over what the others have, and hand it back.
"""

import numpy as np

from gateway.domain.fleet.measured import Power
from gateway.domain.table import Singles, Table, column
from gateway.domain.types import NEVER_MS, Bools, Ints, Now

BACK_S = 30.0
"""How long readings must have come on time before a lost device is counted on again."""

TOGETHER_S = 10.0
"""It waits for so long at most for others whose time comes."""


class Contact(Table):
    """What is known of each device's readings: `heard` since the start, `lost`, `overdue_mono_ms` when a reading was
    overdue last. `lost_w`: the size of the setpoint that it had when it was lost, as long as an event has it."""

    heard: Bools = column(False)
    lost: Bools = column(False)
    overdue_mono_ms: Ints = column(NEVER_MS)
    lost_w: Singles = column(0.0)

    def observe(self, power: Power, members: Bools, now: Now) -> Bools:
        """Observe a tick; returns the lost devices. `members`: those that an event has."""
        n = len(members)
        if len(self.lost) < n:
            self.grow(n)
        kept = self.view(n)
        kept.heard |= ~power.overdue
        if power.overdue.any():
            new = power.overdue & kept.heard & ~kept.lost
            kept.lost_w[new] = power.controlled_w[new]
            kept.lost |= new
            kept.overdue_mono_ms[power.overdue] = now.mono_ms
        if kept.lost.any():
            kept.lost &= ~_back(kept.lost, now.mono_ms - kept.overdue_mono_ms)
            kept.lost_w *= kept.lost & power.overdue & members
        return kept.lost

    def missing(self, power: Power, mask: Bools) -> tuple[int, float]:
        """How many devices of `mask` had power to give when they were lost, and their part of that of all."""
        if not self.lost.any():
            return 0, 0.0
        lost_w = np.where(mask, self.lost_w[: len(mask)], 0.0)
        if not lost_w.any():
            return 0, 0.0
        given_w = np.where(mask & (lost_w == 0), power.controlled_w, 0.0)
        return int(np.count_nonzero(lost_w)), float(lost_w.sum() / (lost_w.sum() + given_w.sum()))


def _back(lost: Bools, on_time_ms: Ints) -> Bools:
    """Which lost devices are counted on again. `on_time_ms`: for how long their readings have come on time."""
    due = lost & (on_time_ms >= 1000 * BACK_S)
    if due.any() and (lost & ~due & (on_time_ms >= 1000 * (BACK_S - TOGETHER_S))).any():
        due &= on_time_ms >= 1000 * (BACK_S + TOGETHER_S)
    return due

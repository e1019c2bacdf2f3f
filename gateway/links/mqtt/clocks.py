"""How far the clock of each device is from ours: the time that its newest live message says, less the time it came.

A device that is ahead refuses as expired what is still valid here, so it is told validity by its own clock. Only a time
in the future proves a wrong clock: one in the past may as well be a late reading, and stays as it is. Beyond a minute
the device's readings count no more, nor is it clear whose clock is wrong: nothing is corrected.
"""

import numpy as np

from gateway.domain.fleet.clock_skew import AHEAD_MS_MAX, ClockSkew, clock_skew
from gateway.domain.types import NEVER_MS, Bools, Floats, Ints, Now, Slots

OFF_MS = 5_000
AHEAD_MS_MIN = 2_000


class DeviceClocks:
    """By slot; NaN while a device has said no time."""

    def __init__(self) -> None:
        self._offset_ms: Floats = np.full(0, np.nan)
        self._told_mono_ms: Ints = np.full(0, NEVER_MS)

    def observe(self, slots: Slots, t_ms: Ints, now: Now) -> None:
        """Times that devices said in live messages that came just now."""
        known = t_ms != NEVER_MS
        slots, t_ms = slots[known], t_ms[known]
        if not len(slots):
            return
        missing = int(slots.max()) + 1 - len(self._offset_ms)
        if missing > 0:
            missing += len(self._offset_ms)
            self._offset_ms = np.concatenate((self._offset_ms, np.full(missing, np.nan)))
            self._told_mono_ms = np.concatenate((self._told_mono_ms, np.full(missing, NEVER_MS)))
        self._offset_ms[slots] = t_ms - now.utc_ms
        self._told_mono_ms[slots] = now.mono_ms

    def skew(self, speakers: Bools, registered: Bools, now: Now) -> ClockSkew:
        """How far the fleet is from our clock. `speakers`: by slot, whose product tells a time."""
        n = len(registered)
        offset_ms, told_mono_ms = np.full(n, np.nan), np.full(n, NEVER_MS)
        known = min(n, len(self._offset_ms))
        offset_ms[:known], told_mono_ms[:known] = self._offset_ms[:known], self._told_mono_ms[:known]
        return clock_skew(offset_ms, told_mono_ms, speakers, registered, now)

    def ahead_ms(self, slots: Slots) -> Ints:
        """What is added to a time so that it means the same to each device: 0 unless its clock is ahead by up to a
        minute."""
        offset_ms = np.full(len(slots), np.nan)
        known = slots < len(self._offset_ms)
        offset_ms[known] = self._offset_ms[slots[known]]
        ahead: Bools = (offset_ms >= AHEAD_MS_MIN) & (offset_ms <= AHEAD_MS_MAX)
        result: Ints = np.where(ahead, offset_ms, 0).astype(np.int64)
        return result

    def offset_s(self, slot: int) -> float | None:
        """Seconds that a device is ahead of us (negative: behind, or its readings come late); None = unknown."""
        offset_ms = float(self._offset_ms[slot]) if slot < len(self._offset_ms) else np.nan
        return None if np.isnan(offset_ms) else round(offset_ms / 1000, 1)

    def off(self) -> list[int]:
        """Slots of the devices whose clock is off."""
        return np.flatnonzero(np.abs(self._offset_ms) >= OFF_MS).tolist()


def clock_cause(offset_s: float | None) -> str | None:
    """What a clock that is off explains, in words; None = nothing."""
    if offset_s is None or abs(offset_s) * 1000 < OFF_MS:
        return None
    return f"clock off by {offset_s:+.0f} s"

"""How far the clock of each device is from ours: the time that its newest live message says, less the time it came; and
why that message does not count, where it does not.

A device that is ahead refuses as expired what is still valid here, so it is told validity by its own clock. Only a time
in the future proves a wrong clock: one in the past may as well be a late reading, and stays as it is. Beyond a minute
the device's readings count no more, nor is it clear whose clock is wrong: nothing is corrected.
"""

from collections.abc import Iterator
from enum import IntEnum

import numpy as np

from gateway.domain.fleet.clock_skew import AHEAD_MS_MAX, BEHIND_MS_MAX, ClockSkew, clock_skew
from gateway.domain.types import NEVER_MS, Bools, Floats, Ints, Now, Slots, Small
from gateway.observability.episodes import Episode
from gateway.observability.metrics import Sample, gauge, words

OFF_MS = 5_000
AHEAD_MS_MIN = 2_000


class Unheeded(IntEnum):
    """Why the newest live message of a device does not count. `NO_TIME`: it says none, so that nobody knows how old it
    is; `CLOCK_AHEAD`, `CLOCK_BEHIND`: its time is no time of now; `CLOCK_BACK`: it is earlier than the one before."""

    NO = 0
    NO_TIME = 1
    CLOCK_AHEAD = 2
    CLOCK_BEHIND = 3
    CLOCK_BACK = 4


CLOCKS_OFF = gauge("gateway_device_clocks_off", "Devices whose clock is off by 5 s or more.")
UNHEEDED = gauge(
    "gateway_unheeded_devices",
    "Devices whose newest live message does not count, since nobody knows how old it is.",
    cause=words(why for why in Unheeded if why),
)


class DeviceClocks:
    """By slot; NaN while a device has said no time."""

    def __init__(self) -> None:
        self._offset_ms: Floats = np.full(0, np.nan)
        self._told_mono_ms: Ints = np.full(0, NEVER_MS)
        self._newest_ms: Ints = np.full(0, NEVER_MS)
        self._unheeded: Small = np.zeros(0, dtype=np.int8)
        self._episode = Episode()

    def observe(self, slots: Slots, t_ms: Ints, now: Now) -> list[tuple[str, int]]:
        """Times that devices said in live messages that came just now. Returns causes that are new, each with a slot:
        worth a line."""
        if not len(slots):
            return []
        missing = int(slots.max()) + 1 - len(self._offset_ms)
        if missing > 0:
            missing += len(self._offset_ms)
            self._offset_ms = np.concatenate((self._offset_ms, np.full(missing, np.nan)))
            self._told_mono_ms = np.concatenate((self._told_mono_ms, np.full(missing, NEVER_MS)))
            self._newest_ms = np.concatenate((self._newest_ms, np.full(missing, NEVER_MS)))
            self._unheeded = np.concatenate((self._unheeded, np.zeros(missing, dtype=np.int8)))
        all_slots, known = slots, t_ms != NEVER_MS
        if not known.all():
            self._unheeded[slots[~known]] = Unheeded.NO_TIME
            slots, t_ms = slots[known], t_ms[known]
        self._offset_ms[slots] = t_ms - now.utc_ms
        self._told_mono_ms[slots] = now.mono_ms
        ahead_ms = t_ms - now.utc_ms
        behind, ahead = ahead_ms < -BEHIND_MS_MAX, ahead_ms > AHEAD_MS_MAX
        # a device that is ahead is heard at the time of receipt
        told_ms = np.minimum(t_ms, now.utc_ms)
        back = told_ms < np.minimum(self._newest_ms[slots], now.utc_ms)
        self._unheeded[slots] = np.select(
            [behind, ahead, back], [Unheeded.CLOCK_BEHIND, Unheeded.CLOCK_AHEAD, Unheeded.CLOCK_BACK], Unheeded.NO
        )
        counts = ~(behind | ahead | back)
        self._newest_ms[slots[counts]] = told_ms[counts]
        return [] if counts.all() and known.all() else self._news(all_slots, now)

    def unheeded(self, slot: int) -> str | None:
        """Why the newest live message of a device does not count; None = it does, or there was none."""
        why = int(self._unheeded[slot]) if slot < len(self._unheeded) else 0
        return Unheeded(why).name.lower() if why else None

    def counts(self) -> dict[str, int]:
        """How many devices are not heeded, by cause."""
        counts = np.bincount(self._unheeded, minlength=len(Unheeded)).tolist()
        return {why.name.lower(): counts[why] for why in Unheeded if why}

    def _news(self, slots: Slots, now: Now) -> list[tuple[str, int]]:
        self._episode.over(now.mono_ms)
        causes, first = np.unique(self._unheeded[slots], return_index=True)
        return [
            (Unheeded(cause).name.lower(), int(slots[at]))
            for cause, at in zip(causes.tolist(), first.tolist(), strict=True)
            if cause and self._episode.add(Unheeded(cause).name, 1, now.mono_ms)
        ]

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

    def samples(self) -> Iterator[Sample]:
        yield CLOCKS_OFF.sample(len(self.off()))
        yield from UNHEEDED.each(self.counts())


def clock_cause(offset_s: float | None, unheeded: str | None = None) -> str | None:
    """What a clock that is off, or is not told, explains, in words; None = nothing."""
    if unheeded == Unheeded.NO_TIME.name.lower():
        return "its live messages say no time"
    if offset_s is None or abs(offset_s) * 1000 < OFF_MS:
        return None
    return f"clock off by {offset_s:+.0f} s"

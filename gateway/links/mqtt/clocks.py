"""How far the clock of each device is from ours: the time that its newest live message says, less the time it came; and
why that message does not count, where it does not.

A device that is ahead refuses as expired what is still valid here, so it is told validity by its own clock. Only a time
in the future proves a wrong clock: one in the past may as well be a late reading, and stays as it is. Beyond a minute
the device's readings count no more, nor is it clear whose clock is wrong: nothing is corrected.

Readings that a queue kept say old times too, but not for long the same: a device that agreed with us before says
something of our clock only once it has been off by the same time for a while.
"""

import logging
from collections.abc import Iterator, Sequence
from enum import IntEnum

import numpy as np

from gateway.domain.fleet.clock_skew import AHEAD_MS_MAX, BEHIND_MS_MAX, ClockSkew, clock_skew
from gateway.domain.table import Table, column
from gateway.domain.types import NEVER_MS, Bools, Floats, Ints, Now, Slots, Small
from gateway.observability.episodes import Episode
from gateway.observability.metrics import Sample, gauge, words

log = logging.getLogger(__name__)

OFF_MS = 5_000
AHEAD_MS_MIN = 2_000
SAME_MS = 2_000
STEADY_MS = 5_000
"""A clock that is wrong stays off by the same time, give or take `SAME_MS`, for `STEADY_MS`."""


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


class _Columns(Table):
    """By slot: `offset_ms` what its newest message told less our time (NaN = it told none), `told_mono_ms` when;
    `steady_ms` the first of the offsets that are the same as the newest, `since_mono_ms` when that was; `agreed`:
    whether it ever told a time of now."""

    offset_ms: Floats = column(np.nan)
    told_mono_ms: Ints = column(NEVER_MS)
    newest_ms: Ints = column(NEVER_MS)
    unheeded: Small = column(0)
    steady_ms: Floats = column(np.nan)
    since_mono_ms: Ints = column(NEVER_MS)
    agreed: Bools = column(False)


class DeviceClocks:
    """What devices told of the time."""

    def __init__(self) -> None:
        self._of = _Columns()
        self._episode = Episode()
        self._ahead = Episode()

    def observe(self, slots: Slots, t_ms: Ints, now: Now) -> list[tuple[str, int]]:
        """Times that devices said in live messages that came just now. Returns causes that are new, each with a slot:
        worth a line."""
        if not len(slots):
            return []
        of = self._of
        if int(slots.max()) >= len(of.offset_ms):
            of.grow(2 * int(slots.max()) + 1)
        all_slots, known = slots, t_ms != NEVER_MS
        if not known.all():
            of.unheeded[slots[~known]] = Unheeded.NO_TIME
            slots, t_ms = slots[known], t_ms[known]
        ahead_ms = t_ms - now.utc_ms
        of.offset_ms[slots] = ahead_ms
        of.told_mono_ms[slots] = now.mono_ms
        moved = ~(np.abs(ahead_ms - of.steady_ms[slots]) <= SAME_MS)
        of.steady_ms[slots[moved]] = ahead_ms[moved]
        of.since_mono_ms[slots[moved]] = now.mono_ms
        behind, ahead = ahead_ms < -BEHIND_MS_MAX, ahead_ms > AHEAD_MS_MAX
        # a device that is ahead is heard at the time of receipt
        told_ms = np.minimum(t_ms, now.utc_ms)
        back = told_ms < np.minimum(of.newest_ms[slots], now.utc_ms)
        of.unheeded[slots] = np.select(
            [behind, ahead, back], [Unheeded.CLOCK_BEHIND, Unheeded.CLOCK_AHEAD, Unheeded.CLOCK_BACK], Unheeded.NO
        )
        counts = ~(behind | ahead | back)
        of.newest_ms[slots[counts]] = told_ms[counts]
        of.agreed[slots[counts]] = True
        return [] if counts.all() and known.all() else self._news(all_slots, now)

    def heed(self, slots: Slots, t_ms: Ints, now: Now, ids: Sequence[str]) -> None:
        """The same, and log what is new; `ids` by slot."""
        for cause, slot in self.observe(slots, t_ms, now):
            log.warning(
                "live messages do not count, nobody knows how old they are",
                extra={"reason": cause, "first": ids[slot], "offset_s": self.offset_s(slot)},
            )
        ahead = self._newly_ahead(slots, now)
        if ahead is not None:
            log.warning(
                "device clocks are ahead, their commands are told by them",
                extra={"first": ids[ahead], "offset_s": self.offset_s(ahead)},
            )

    def _newly_ahead(self, slots: Slots, now: Now) -> int | None:
        """The first of devices just observed whose clock is ahead by 5 s to a minute, where that is worth a line. Not
        those behind: late readings look the same."""
        offset_ms = self._of.offset_ms[slots]
        ahead = slots[(offset_ms >= OFF_MS) & (offset_ms <= AHEAD_MS_MAX)]
        if not len(ahead):
            return None
        self._ahead.over(now.mono_ms)
        return int(ahead[0]) if self._ahead.add("ahead", len(ahead), now.mono_ms) else None

    def unheeded(self, slot: int) -> str | None:
        """Why the newest live message of a device does not count; None = it does, or there was none."""
        why = int(self._of.unheeded[slot]) if slot < len(self._of.unheeded) else 0
        return Unheeded(why).name.lower() if why else None

    def counts(self) -> dict[str, int]:
        """How many devices are not heeded, by cause."""
        counts = np.bincount(self._of.unheeded, minlength=len(Unheeded)).tolist()
        return {why.name.lower(): counts[why] for why in Unheeded if why}

    def _news(self, slots: Slots, now: Now) -> list[tuple[str, int]]:
        self._episode.over(now.mono_ms)
        causes, first = np.unique(self._of.unheeded[slots], return_index=True)
        return [
            (Unheeded(cause).name.lower(), int(slots[at]))
            for cause, at in zip(causes.tolist(), first.tolist(), strict=True)
            if cause and self._episode.add(Unheeded(cause).name, 1, now.mono_ms)
        ]

    def skew(self, speakers: Bools, registered: Bools, now: Now) -> ClockSkew:
        """How far the fleet is from our clock. `speakers`: by slot, whose product tells a time."""
        n = len(registered)
        if len(self._of.offset_ms) < n:
            self._of.grow(n)
        of = self._of.view(n)
        queued = of.agreed & (of.offset_ms < -BEHIND_MS_MAX) & (of.told_mono_ms - of.since_mono_ms < STEADY_MS)
        told_mono_ms: Ints = np.where(queued, NEVER_MS, of.told_mono_ms)
        return clock_skew(of.offset_ms, told_mono_ms, speakers, registered, now)

    def ahead_ms(self, slots: Slots) -> Ints:
        """What is added to a time so that it means the same to each device: 0 unless its clock is ahead by up to a
        minute."""
        offset_ms = np.full(len(slots), np.nan)
        known = slots < len(self._of.offset_ms)
        offset_ms[known] = self._of.offset_ms[slots[known]]
        ahead: Bools = (offset_ms >= AHEAD_MS_MIN) & (offset_ms <= AHEAD_MS_MAX)
        result: Ints = np.where(ahead, offset_ms, 0).astype(np.int64)
        return result

    def offset_s(self, slot: int) -> float | None:
        """Seconds that a device is ahead of us (negative: behind, or its readings come late); None = unknown."""
        offset_ms = float(self._of.offset_ms[slot]) if slot < len(self._of.offset_ms) else np.nan
        return None if np.isnan(offset_ms) else round(offset_ms / 1000, 1)

    def off(self) -> list[int]:
        """Slots of the devices whose clock is off."""
        return np.flatnonzero(np.abs(self._of.offset_ms) >= OFF_MS).tolist()

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

"""How far the fleet's clocks are from ours, and whether ours can be believed.

A device that is off by itself has a wrong clock. If most of those that tell a time are off by more than a reading may
be late or early, ours is the one to doubt. A fleet of which no device tells a time, or only a few do, has no say: our
clock stands.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np

from gateway.domain.types import Bools, Floats, Ints, Now

BEHIND_MS_MAX = 120_000
AHEAD_MS_MAX = 60_000
"""How old the time of a reading may be, and how far ahead of ours: beyond it nobody knows how old the reading is."""

TOLD_MS = 120_000
"""How long what a device told counts."""

TOLD_SHARE = 0.1
"""The devices that tell a time speak for a fleet of which they are at least this part."""


class ClockTrust(Enum):
    """`UNSURE`: after a start no device has told a time yet. `CONTRADICTED`: most that tell one say another."""

    SURE = "sure"
    UNSURE = "unsure"
    CONTRADICTED = "contradicted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockSkew:
    """`offset_s`: median of the devices that told a time lately, + = they are ahead of us (None: none did).
    `speakers`: devices whose product tells a time, `telling` those that did lately, `apart` those of them that are too
    far off, out of `devices` registered ones."""

    offset_s: float | None = None
    devices: int = 0
    speakers: int = 0
    telling: int = 0
    apart: int = 0

    @property
    def heard(self) -> bool:
        """Whether enough devices have told a time to speak for the fleet."""
        return self.telling > 0 and self.telling >= TOLD_SHARE * self.devices

    @property
    def contradicted(self) -> bool:
        return self.heard and 2 * self.apart > self.telling

    def trust(self, *, starting: bool) -> ClockTrust:
        """`starting`: devices that tell a time may not have had the time to do so."""
        if self.contradicted:
            return ClockTrust.CONTRADICTED
        may_tell = self.speakers > 0 and self.speakers >= TOLD_SHARE * self.devices
        return ClockTrust.UNSURE if starting and may_tell and not self.heard else ClockTrust.SURE


def clock_skew(offset_ms: Floats, told_mono_ms: Ints, speakers: Bools, registered: Bools, now: Now) -> ClockSkew:
    """By slot: `offset_ms` what a device told less our time (NaN = it told none), `told_mono_ms` when; `speakers` whose
    product tells a time."""
    speakers = speakers & registered
    lately = speakers & ~np.isnan(offset_ms) & (now.mono_ms - told_mono_ms <= TOLD_MS)
    told_ms = offset_ms[lately]
    apart = (told_ms < -BEHIND_MS_MAX) | (told_ms > AHEAD_MS_MAX)
    return ClockSkew(
        offset_s=round(float(np.median(told_ms)) / 1000, 1) if len(told_ms) else None,
        devices=int(np.count_nonzero(registered)),
        speakers=int(np.count_nonzero(speakers)),
        telling=len(told_ms),
        apart=int(np.count_nonzero(apart)),
    )

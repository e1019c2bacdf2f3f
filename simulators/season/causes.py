"""Why batteries underperform, how strongly, and who looks as if and does not."""

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """Why a home gives less than it is told."""

    DEAD_COMMS = "dead comms"
    """Nothing is heard from some moment of each event to its end, and nothing is acknowledged."""
    POWER_DERATE = "power derate"
    CAPACITY_FADE = "capacity fade"
    """It holds less than is registered: SoC falls faster, and it is at its reserve early."""
    LATE = "late"
    SIGN_REVERSED = "sign reversed"
    """It charges when it is told to discharge."""
    METER_REVERSED = "meter reversed"
    """The battery does as it is told, and its own meter counts one, two or all three phases the other way round."""
    UNIT_OFF = "one of two units off"
    DOES_NOTHING = "acknowledges and does nothing"
    """It goes on in a mode of its own, which may give a little."""
    INTERMITTENT = "intermittent"
    """It stops and goes on, several times in an event."""
    WORSE_SINCE_UPDATE = "worse since an update"


class Spare(StrEnum):
    """Why a home that looks like it must not be named."""

    RESERVE = "owner's reserve at 80 %"
    OPT_OUTS = "opt-outs"
    SMALL = "small battery"
    HOT = "hot-day derating"
    LITTLE_SUN = "little sun before"
    GAPS = "gaps"
    NEW = "two weeks enrolled"


STRENGTHS: dict[Cause, tuple[float, float, float]] = {
    Cause.DEAD_COMMS: (0.5, 0.8, 1.0),  # part of an event that is not heard
    Cause.POWER_DERATE: (0.1, 0.2, 0.4),  # of the rating
    Cause.CAPACITY_FADE: (0.1, 0.2, 0.4),  # of the capacity
    Cause.LATE: (5.0, 10.0, 20.0),  # minutes
    Cause.SIGN_REVERSED: (0.3, 0.6, 1.0),  # of the command, the other way round
    Cause.METER_REVERSED: (1.0, 2.0, 3.0),  # phases of three
    Cause.UNIT_OFF: (0.25, 0.5, 0.67),  # of the home's rating
    Cause.DOES_NOTHING: (0.4, 0.15, 0.0),  # of the command, given all the same
    Cause.INTERMITTENT: (0.25, 0.5, 0.75),  # of the time, at rest
    Cause.WORSE_SINCE_UPDATE: (0.1, 0.2, 0.4),  # of the command
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """An underperformer: from event `since` on. `strength`: 0, 1 or 2 of its cause in `STRENGTHS`."""

    home: int
    cause: Cause
    strength: int
    since: int

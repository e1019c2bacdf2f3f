"""Types that every layer shares: ids, time, array types, operating mode and grid state of a device.

Power in W, + = discharge (grid power: + = import); energy in Wh on the AC side; SoC and reserve in percent of usable
capacity; time in UTC epoch milliseconds. NaN (columns) and None (scalars) mean unknown, never 0.
"""

import math
import re
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import NewType

import numpy as np
from numpy.typing import NDArray

DeviceId = NewType("DeviceId", str)

EventId = NewType("EventId", str)

Floats = NDArray[np.float64]

Ints = NDArray[np.int64]

Slots = NDArray[np.int32]

Small = NDArray[np.int8]
Texts = NDArray[np.object_]

Flags = NDArray[np.int16]

Bools = NDArray[np.bool_]

ID_PATTERN = r"^[A-Za-z0-9_.:-]{1,64}$"

_ID = re.compile(ID_PATTERN)

UNLIMITED = math.inf

NEVER_MS = -(1 << 62)


def is_device_id(text: str) -> bool:
    """Whether `text` may name a device: safe in topics, paths and logs."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """One instant: `utc_ms` for edges and events, `mono_ms` for ages, leases and deadlines."""

    utc_ms: int
    mono_ms: int


class Mode(IntEnum):
    """Who controls the battery, as the device reports it."""

    UNKNOWN = 0
    SELF_CONSUMPTION = 1
    REMOTE = 2
    BACKUP = 3
    OTHER = 4


class Grid(IntEnum):
    """Whether the home is connected to the grid."""

    UNKNOWN = 0
    ON = 1
    ISLAND = 2


class Unclear(IntFlag):
    """Members of a live reading that were sent and not understood; `GRID_PHASES` any of the three, `MESSAGE` the whole
    message. A missing member is not unclear."""

    MODE = 1
    GRID = 2
    LOCKED = 4
    OPT_OUT = 8
    FAULTS = 16
    RESERVE_PCT = 32
    DISCHARGE_W_MAX = 64
    CHARGE_W_MAX = 128
    TEMP_C = 256
    GRID_PHASES = 512
    MESSAGE = 1024


CLEAR = Unclear(0)


def unclear_names(bits: int) -> list[str]:
    """Bits as the names of members, in order."""
    return [str(member.name).lower() for member in Unclear if bits & member]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnclearBatch:
    """Devices with a present message that cannot be folded into their newest reading: an unreadable one, or one of
    unknown age with unclear members. `unclear` holds `Unclear` bits."""

    slots: Slots
    unclear: Flags

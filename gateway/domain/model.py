"""The words of the project as types: devices, readings, commands, intervals.

Power in W, + = discharge (grid power: + = import); energy in Wh on the AC side; SoC and reserve in percent of
usable capacity; time in UTC epoch milliseconds. NaN (columns) and None (scalars) mean unknown, never 0.
Batches are columns of equal length; `slots` index the fleet.
"""

import math
import re
from dataclasses import dataclass, field
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
    """Who steers the battery, as the device reports it."""

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
    """Members of a live reading that a device said and nobody understood; `GRID_PHASES` any of the three, `MESSAGE` the
    whole of it. A member that is not there is not unclear."""

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


class CommandOp(IntEnum):
    """What a device is told. `HOLD` is 0 W for a lease; `RELEASE` hands it back to the maker's own mode; `BLOCK` leaves
    it in that mode for a lease, but for discharging."""

    SETPOINT = 1
    HOLD = 2
    RELEASE = 3
    RESERVE = 4
    BLOCK = 5


class CommandResult(IntEnum):
    """The device's own answer to a command."""

    NONE = 0
    APPLIED = 1
    EXPIRED = 2
    OLDER = 3
    REFUSED = 4


class Delivery(IntEnum):
    """What is known of a command's way to the broker or device (not yet the device's answer)."""

    NOT_SENT = 0
    ACCEPTED = 1
    NO_SUBSCRIBER = 2
    REFUSED = 3
    UNKNOWN = 4


class EnergySource(IntEnum):
    """Where an interval's energy comes from: `COUNTER` = both directions from lifetime counters, `INTEGRATED` = at
    least one from the energy or mean power of spans. One source per direction and device, never mixed."""

    NONE = 0
    COUNTER = 1
    INTEGRATED = 2


class Quality(IntFlag):
    """What a reader should know of an interval. `GAP`: not all of it is covered. `CLOCK`: a device's time could not be
    used, the time of receipt stands for it. `RESET`, `JUMP`: a counter began anew or moved more than the battery could;
    that energy is left out. `SPREAD`: exact over a silence, shared by time within it. `LATE`: made again with data that
    came late. `DISAGREES`: counter and mean power tell different energies. `DRIFT`: integration was off its coarse
    counter that day and is scaled to it, or was off by so much that it is left as it was. `CUT`: closed early, because
    the rules changed."""

    GAP = 1
    CLOCK = 2
    RESET = 4
    JUMP = 8
    SPREAD = 16
    LATE = 32
    DISAGREES = 64
    DRIFT = 128
    CUT = 256


FINE = Quality(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How to reach a device that the gateway connects to. `url` scheme://host[:port]; `units` Modbus unit ids by the
    profile's names where they differ, `parameters` what an installer writes down (topic levels, serial), `secret` a
    reference (`env:NAME`, `file:/path`), never the secret itself; "" = none."""

    url: str
    units: tuple[tuple[str, int], ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    username: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One battery as enrolled: identity, ratings, permissions. `inverter_w_max` None = no inverter shared with PV.

    Site limits: None = unknown = not allowed; `math.inf` = unlimited. `site_phase_w_max` the most one phase of the
    meter may carry (None = no such limit is known), `phases` those the battery feeds. `fuse_protected`: a device in the
    home keeps its main fuse from being overloaded; without one it is not charged from the grid.
    `connection` None = the device comes to us.
    `experimental`: its operator lets control rest on facts of the profile that nobody has verified or documented.
    """

    id: DeviceId
    profile: str
    site: str
    feeder: str = ""
    tags: tuple[str, ...] = ()
    capacity_wh: float
    discharge_w_max: float
    charge_w_max: float
    inverter_w_max: float | None = None
    reserve_pct: float
    export_allowed: bool
    grid_charge_allowed: bool
    site_import_w_max: float | None = None
    site_export_w_max: float | None = None
    site_phase_w_max: float | None = None
    phases: int = 1
    fuse_protected: bool = False
    connection: Connection | None = None
    experimental: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveBatch:
    """Newest state of some devices for control. `fresh` False = age unknown (retained, backlog): never refreshes.
    `grid_l1_w` to `grid_l3_w` per phase at the meter; `locked` and `opt_out` 1 = yes, 0 = no or not said. `unclear`
    holds `Unclear` bits, None = everything that was said was understood. `reserve_again`: the reserve is the one that
    was read before, it was not asked for anew (None = of nobody)."""

    slots: Slots
    fresh: Bools
    device_t_ms: Ints
    battery_w: Floats
    soc_pct: Floats
    soc_step_pct: Floats
    temp_c: Floats
    discharge_w_max: Floats
    charge_w_max: Floats
    reserve_pct: Floats
    pv_w: Floats
    load_w: Floats
    grid_w: Floats
    grid_l1_w: Floats
    grid_l2_w: Floats
    grid_l3_w: Floats
    mode: Small
    grid: Small
    locked: Small
    opt_out: Small
    faults: Ints
    cmd: Ints
    reserve_again: Bools | None = None
    unclear: Flags | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnclearBatch:
    """Devices that said something of now that cannot be folded into their newest reading: a message nobody can read,
    or one of unknown age with members nobody understands. `unclear` holds `Unclear` bits."""

    slots: Slots
    unclear: Flags


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyBatch:
    """Settlement samples. `t_ms` is the end of a span of `span_ms`; counters are lifetime AC counters, `*_wh` the
    energy within the span of a product without (fine) counters, `*_w` mean power over it. Several rows may belong to
    one device."""

    slots: Slots
    boot: Ints
    seq: Ints
    t_ms: Ints
    span_ms: Ints
    charge_counter_wh: Floats
    discharge_counter_wh: Floats
    charge_wh: Floats
    discharge_wh: Floats
    battery_w: Floats
    soc_pct: Floats
    grid_w: Floats
    pv_w: Floats
    load_w: Floats

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusBatch:
    """Presence of devices as they or their last will tell it."""

    slots: Slots
    online: Bools


@dataclass(frozen=True, slots=True, kw_only=True)
class AckBatch:
    """Devices' answers to commands: `cmd` the command's id, `result` a `CommandResult`."""

    slots: Slots
    cmd: Ints
    result: Small


@dataclass(frozen=True, slots=True, kw_only=True)
class AckToken:
    """What a link needs to acknowledge the messages behind a batch; opaque to everyone else."""

    generation: int
    packet_ids: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingBatch:
    """What one bounded read of a link brought. `token` is acknowledged once everything in it is durable. `unclear` came
    after what `live` holds of the same device."""

    live: LiveBatch | None = None
    unclear: UnclearBatch | None = None
    energy: EnergyBatch | None = None
    status: StatusBatch | None = None
    acks: AckBatch | None = None
    token: AckToken | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandBatch:
    """Commands to write, at most one per device. Columns: `op` a `CommandOp`, `setpoint_w` whole W (+ = discharge),
    `lease_s`, `reserve_pct` (NaN unless RESERVE), `cmd` growing per device, `valid_until_ms` absolute UTC."""

    slots: Slots
    op: Small
    setpoint_w: Ints
    lease_s: Ints
    reserve_pct: Floats
    cmd: Ints
    valid_until_ms: Ints

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReport:
    """One `Delivery` per command, in the batch's order."""

    delivery: Small


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalRecord:
    """Energy of one device in one clock-aligned, half-open interval; identity is (device, start_ms, revision). SoC is
    that of the sample nearest to each edge; mean powers are over the time for which they are known. `hash` of all this
    as it was closed, in hexadecimal; "" = from before there were any."""

    device: DeviceId
    start_ms: int
    length_s: int
    revision: int
    charge_wh: float | None
    discharge_wh: float | None
    coverage_pct: float
    samples: int
    soc_start_pct: float | None = None
    soc_end_pct: float | None
    source: EnergySource
    battery_w_mean: float | None = None
    battery_w_min: float | None = None
    battery_w_max: float | None = None
    grid_w_mean: float | None = None
    pv_w_mean: float | None = None
    load_w_mean: float | None = None
    quality: Quality = FINE
    hash: str = field(default="", compare=False)

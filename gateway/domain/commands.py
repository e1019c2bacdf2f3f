"""Commands to devices and their outcomes. Batches are columns of equal length; `slots` index the fleet."""

from dataclasses import dataclass, fields
from enum import IntEnum

from gateway.domain.types import Bools, Floats, Ints, Slots, Small


class CommandOp(IntEnum):
    """Operation of a command. `HOLD` is 0 W for a lease; `RELEASE` returns the device to the maker's own mode; `BLOCK`
    leaves it in that mode for a lease, without discharging."""

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


class WriteOutcome(IntEnum):
    """How far a command got to the broker or device (not yet the device's answer)."""

    NOT_SENT = 0
    ACCEPTED = 1
    NO_SUBSCRIBER = 2
    REFUSED = 3
    UNKNOWN = 4


class Unreached(IntEnum):
    """Why a device cannot be told anything although it may report; `NONE` = it can. `NOT_DURABLE`: the journal does not
    take its release plan, without which no device comes under control."""

    NONE = 0
    NOT_SENT = 1
    NO_SUBSCRIBER = 2
    REFUSED = 3
    NOT_DURABLE = 4


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

    def some(self, rows: Bools) -> "CommandBatch":
        """Some of the commands; the batch itself where these are all."""
        if rows.all():
            return self
        return CommandBatch(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReport:
    """One `WriteOutcome` per command, in the batch's order."""

    delivery: Small

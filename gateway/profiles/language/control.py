"""Control: ordered writes for each command, their needs, and the watchdog that ends control."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from gateway.profiles.language.base import Name, StrictModel
from gateway.profiles.language.points import Match, Scalar

Quantity = Literal["setpoint_w", "magnitude_w", "grid_target_w", "inverter_target_w", "lease", "reserve_pct", "count"]


class Step(StrictModel):
    """One step of a sequence: a write, writes in one request, a restore, a wait.

    `write` a point: `value` (a constant), `null` (JSON null), or `from` a quantity of the command: `setpoint_w` (+ =
    discharge; the point's `sign` makes it the product's), `magnitude_w`, `grid_target_w` (the grid power, + = import,
    that gives the wanted battery power), `inverter_target_w` (+ = out: the setpoint plus the PV behind the same
    inverter), `lease` (in the point's `unit`, s or min, rounded up; the time left, rounded down, in writes
    repeated until the next command), `reserve_pct`, `count` (grows by one per heartbeat). `percent_of`: as percent of
    the value of that point. `times` multiplies. `instead_of_zero`: written where 0 would be, which the product takes
    for "nothing is set". `if_changed`: left out when the point is known to hold the value.
    `bits`: only these bits of the point are written, the others as the point holds them then (`value` and `restore`).
    `together`: one request, consecutive registers or members of one body. `restore`: the value saved before the first
    write; `or_value` where none was saved. `keep`: the value the point holds now (for requests that set all of their
    members).
    """

    write: Name | None = None
    value: Scalar | None = None
    null: bool = False
    source: Quantity | None = Field(default=None, alias="from")
    percent_of: Name | None = None
    times: float = 1.0
    instead_of_zero: float | None = None
    if_changed: bool = False
    bits: Annotated[int, Field(ge=1, le=0xFFFFFFFF)] | None = None
    together: tuple["Step", ...] = ()
    restore: Name | None = None
    keep: Name | None = None
    or_value: Scalar | None = None
    wait_s: Annotated[float, Field(gt=0, le=60)] | None = None

    def faults(self) -> Iterator[str]:
        names = (self.write, self.restore, self.keep)
        forms = (*(name is not None for name in names), bool(self.together), self.wait_s is not None)
        if sum(forms) != 1:
            yield "exactly one of write, together, restore, keep and wait_s"
        given = (self.value is not None, self.null, self.source is not None)
        if self.write is not None and sum(given) != 1:
            yield "a write has exactly one of value, null and from"
        if self.write is None and any(given):
            yield "value, null and from belong to write"
        if self.source is None and (self.percent_of, self.times, self.instead_of_zero) != (None, 1.0, None):
            yield "percent_of, times and instead_of_zero belong to from"
        if self.instead_of_zero == 0:
            yield "instead_of_zero: must not be 0"
        if self.bits is not None:
            yield from _bits_faults(self.bits, self.value if self.restore is None else self.or_value, self)
        if any(step.together or step.wait_s is not None for step in self.together):
            yield "together: write, restore and keep only"

    def held(self) -> list[str]:
        """Points of which this step writes a part, or what they hold."""
        own = [name for name in (self.write, self.restore) if name is not None and self.bits is not None]
        own += [self.keep] if self.keep is not None else []
        return own + [name for step in self.together for name in step.held()]

    def touched(self) -> list[str]:
        """Points this step writes."""
        own = [name for name in (self.write, self.restore, self.keep) if name is not None]
        return own + [name for step in self.together for name in step.touched()]


def _bits_faults(bits: int, value: Scalar | None, step: Step) -> Iterator[str]:
    """What makes no sense of a step's `bits`, of which it sets those of `value`."""
    if (step.write is None or value is None) and step.restore is None:
        yield "bits belong to write with a value, and to restore"
    if value is not None and (type(value) is not int or value & ~bits):
        yield f"bits: {value!r} has others than {bits:#x}"


class Heartbeat(StrictModel):
    """Writes that go on until the lease is over, apart from setpoints; they do not renew it."""

    every_s: Annotated[float, Field(gt=0, le=60)]
    steps: tuple[Step, ...] = Field(min_length=1)


class Control(StrictModel):
    """How the product is controlled.

    `domain`: where the setpoint acts. grid_connection = the meter, inverter_ac = behind PV: there the gateway closes
    the loop, and every `follow_s` the target is worked out anew from load and PV, which does not renew the lease.
    `needs`: what must hold before any write. `saves`: settings read and made durable before the first write of a
    control episode. `begin` once per episode, then `discharge`, `charge`, `hold` or `block` (no discharge, charging
    left to the product's own mode); each is repeated whole as refresh. `release` ends control (`stop_only`: by writing
    no more). `reserve` sets the backup reserve. `step_w`: setpoints are cut to whole steps towards 0; below
    `setpoint_w_min` it is a hold. `switch_first`: why values must be set after what switches control on. `apart`:
    points that must never share a request. `settle_s` before a write is read back: shorter than `follow_s`, else it
    would be written anew before it was read. (How long the battery's power takes is in `facts`.)"""

    domain: Literal["battery_ac", "battery_dc", "inverter_ac", "grid_connection"]
    needs: tuple[Match, ...] = ()
    saves: tuple[Name, ...] = ()
    begin: tuple[Step, ...] = ()
    discharge: tuple[Step, ...] = ()
    charge: tuple[Step, ...] = ()
    hold: tuple[Step, ...] = ()
    block: tuple[Step, ...] = ()
    release: tuple[Step, ...] = ()
    reserve: tuple[Step, ...] = ()
    heartbeat: Heartbeat | None = None
    follow_s: Annotated[float, Field(gt=0, le=60)] | None = None
    step_w: Annotated[float, Field(gt=0, le=1000)] = 1.0
    setpoint_w_min: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    switch_first: str = ""
    apart: tuple[tuple[Name, Name], ...] = ()
    settle_s: Annotated[float, Field(ge=0, le=30)] = 0.0
    interval_s_min: Annotated[float, Field(ge=0, le=600)] = 0.0

    def faults(self) -> Iterator[str]:
        power = (self.discharge, self.charge, self.hold)
        if any(power) and not all(power):
            yield "discharge, charge and hold: all three or none"
        if self.block and not self.hold:
            yield "block belongs to discharge, charge and hold"
        if any(power) and not self.release and not self.stop_only:
            yield "release: missing"
        if self.domain == "grid_connection" and self.discharge and self.follow_s is None:
            yield "follow_s: missing; a grid target follows load and PV"
        if self.follow_s is not None and self.settle_s >= self.follow_s:
            yield "settle_s: must be shorter than follow_s"
        if self.domain.startswith("battery") and self.follow_s is not None:
            yield "follow_s belongs to domains grid_connection and inverter_ac"
        if not any(power) and not self.reserve:
            yield "control that controls nothing: leave it out"

    stop_only: bool = Field(default=False, description="release = stop writing: the product reverts by itself")

    def sequences(self) -> dict[str, tuple[Step, ...]]:
        """Every sequence by name."""
        named = {
            "begin": self.begin, "discharge": self.discharge, "charge": self.charge, "hold": self.hold,
            "block": self.block, "release": self.release, "reserve": self.reserve,
        }  # fmt: skip
        return named | ({"heartbeat": self.heartbeat.steps} if self.heartbeat else {})


class Watchdog(StrictModel):
    """What ends control when it is not refreshed, and what the device falls back to.

    `in_command`: each command carries its lease. `device_timer`: `point` holds the time-out (0 means `zero_means`;
    `sticky` = what anybody wrote last stays, so it is written before every use). `countdown`: `point` counts down and
    is written anew. `implicit`: the device's own fixed time. `none`: nothing reverts; `lease_s` is then how long the
    device may go unattended, and the gateway's release plan ends control.
    `lease_s` is the longest lease the gateway gives; it refreshes before half of it. `reverts_within_s`: the longest
    the device may take after its last refresh, its timer's inexactness included; counted from the end of the lease
    where writes repeated within it restart a time that the gateway cannot set.
    """

    kind: Literal["in_command", "device_timer", "countdown", "implicit", "none"]
    lease_s: float = Field(gt=0, le=3600)
    falls_back_to: Literal["self_consumption", "backup", "other", "stays"]
    point: Name | None = None
    zero_means: Literal["never", "at_once"] | None = None
    sticky: bool = False
    reverts_within_s: float | None = Field(default=None, gt=0, le=7200)

    def faults(self) -> Iterator[str]:
        timer = self.kind in ("device_timer", "countdown")
        if timer != (self.point is not None):
            yield "point belongs to device_timer and countdown, and they need it"
        if (self.kind == "device_timer") != (self.zero_means is not None):
            yield "zero_means belongs to device_timer, and it needs it"
        if (self.kind == "none") != (self.falls_back_to == "stays"):
            yield "falls_back_to stays belongs to kind none"
        if self.kind in ("device_timer", "countdown", "implicit") and self.reverts_within_s is None:
            yield "reverts_within_s: missing"
        if self.reverts_within_s is not None and self.reverts_within_s < self.lease_s:
            yield "reverts_within_s: shorter than lease_s"

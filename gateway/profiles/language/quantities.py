"""The canonical quantities: name, column type, unit. Messages and readings of a profile map to these."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from gateway.domain.commands import CommandResult
from gateway.domain.types import CLEAR, NEVER_MS, Grid, Mode, Unclear


@dataclass(frozen=True, slots=True, kw_only=True)
class CanonicalQuantity:
    """A column: `dtype`, the value that means unknown, and for enumerations the member names. A `flag` is 1 or 0, a
    `word` a field of 64 bits. `unclear`: the bit of a quantity that stops control where it was sent and not understood;
    nothing (0) where unknown is safe by itself."""

    dtype: DTypeLike
    unknown: float | int | str
    unit: str = ""
    members: dict[str, int] | None = None
    required: bool = False
    power: str = ""
    flag: bool = False
    word: bool = False
    unclear: Unclear = CLEAR

    @property
    def excluding(self) -> bool:
        """Whether it is a word about safety: then null is not understood either and excludes the device. A number that
        is null is unknown."""
        return bool(self.unclear) and self.dtype is not np.float64


def _number(unit: str, *, power: str = "", unclear: Unclear = CLEAR) -> CanonicalQuantity:
    return CanonicalQuantity(dtype=np.float64, unknown=float("nan"), unit=unit, power=power, unclear=unclear)


def _text() -> CanonicalQuantity:
    return CanonicalQuantity(dtype=np.object_, unknown="")


def _flag(unclear: Unclear) -> CanonicalQuantity:
    return CanonicalQuantity(dtype=np.int8, unknown=0, flag=True, unclear=unclear)


def _integer(unit: str = "", *, unknown: int = 0, required: bool = False) -> CanonicalQuantity:
    return CanonicalQuantity(dtype=np.int64, unknown=unknown, unit=unit, required=required)


def _members(
    kind: type[Mode] | type[Grid] | type[CommandResult], *, required: bool = False, unclear: Unclear = CLEAR
) -> CanonicalQuantity:
    names = {member.name.lower(): int(member) for member in kind}
    return CanonicalQuantity(dtype=np.int8, unknown=0, members=names, required=required, unclear=unclear)


LIVE: dict[str, CanonicalQuantity] = {
    "device_t_ms": _integer("ms", unknown=NEVER_MS),
    "battery_w": _number("W", power="battery"),
    "soc_pct": _number("%"),
    "soc_step_pct": _number("%"),
    "temp_c": _number("degC", unclear=Unclear.TEMP_C),
    "discharge_w_max": _number("W", unclear=Unclear.DISCHARGE_W_MAX),
    "charge_w_max": _number("W", unclear=Unclear.CHARGE_W_MAX),
    "reserve_pct": _number("%", unclear=Unclear.RESERVE_PCT),
    "pv_w": _number("W"),
    "load_w": _number("W"),
    "grid_w": _number("W", power="grid"),
    "grid_l1_w": _number("W", power="grid", unclear=Unclear.GRID_PHASES),
    "grid_l2_w": _number("W", power="grid", unclear=Unclear.GRID_PHASES),
    "grid_l3_w": _number("W", power="grid", unclear=Unclear.GRID_PHASES),
    "mode": _members(Mode, unclear=Unclear.MODE),
    "grid": _members(Grid, unclear=Unclear.GRID),
    "locked": _flag(Unclear.LOCKED),
    "opt_out": _flag(Unclear.OPT_OUT),
    "faults": CanonicalQuantity(dtype=np.int64, unknown=0, word=True, unclear=Unclear.FAULTS),
    "cmd": _integer(),
}
ENERGY: dict[str, CanonicalQuantity] = {
    "boot": _integer(required=True),
    "seq": _integer(required=True),
    "t_ms": _integer("ms", required=True),
    "span_ms": _integer("ms"),
    "charge_counter_wh": _number("Wh"),
    "discharge_counter_wh": _number("Wh"),
    "charge_wh": _number("Wh"),
    "discharge_wh": _number("Wh"),
    "battery_w": _number("W", power="battery"),
    "soc_pct": _number("%"),
    "grid_w": _number("W", power="grid"),
    "pv_w": _number("W"),
    "load_w": _number("W"),
}
STATUS: dict[str, CanonicalQuantity] = {
    "online": CanonicalQuantity(dtype=np.bool_, unknown=False, required=True),
    "report_s": _number("s"),
    "maker": _text(),
    "product": _text(),
    "firmware": _text(),
}
ACK: dict[str, CanonicalQuantity] = {
    "cmd": _integer(required=True),
    "result": _members(CommandResult, required=True),
}
CATALOGUE: dict[str, dict[str, CanonicalQuantity]] = {"live": LIVE, "energy": ENERGY, "status": STATUS, "ack": ACK}

# What a product with values at addresses may read: live state, and lifetime counters for intervals.
COUNTERS = ("charge_counter_wh", "discharge_counter_wh")
READINGS: dict[str, CanonicalQuantity] = {
    **{name: canonical for name, canonical in LIVE.items() if name not in ("device_t_ms", "cmd")},
    **{name: ENERGY[name] for name in COUNTERS},
}

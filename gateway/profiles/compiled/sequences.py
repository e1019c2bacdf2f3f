"""Turns a sequence of a profile and the quantities of one command into requests and waits.

Everything is encoded before the first request goes out, so that an unwritable value stops the whole sequence, never
half of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.profiles.compiled.points import DecodeCounts, PointCodec, Raw, Unwritable, Value
from gateway.profiles.language.control import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantities:
    """Values of a command: powers in W (+ = discharge and out; `grid_target_w` + = import). `renews`: `lease_s` is
    a new lease, rounded up to the timer's unit; else the time left of one, rounded down."""

    setpoint_w: float = 0.0
    lease_s: float = 0.0
    renews: bool = True
    reserve_pct: float = math.nan
    grid_target_w: float = math.nan
    inverter_target_w: float = math.nan
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PointWrite:
    """One point of a request: `raw` goes out, `value` is the value that a read should then show, in the product's sign.
    `factor`: 10^scale factor used for `raw`. `bits`: only these are ours; None = all."""

    point: str
    raw: Raw
    value: Value
    factor: float = 1.0
    bits: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Writes that go out as one request. `expires_s`: how long a link that stores messages may keep it before
    discarding it; None = as the link decides."""

    writes: tuple[PointWrite, ...]
    expires_s: float | None = None

    def __str__(self) -> str:
        said = (f"{w.value:.10g}" if isinstance(w.value, float) else str(w.value) for w in self.writes)
        return ", ".join(f"{write.point} {value}" for write, value in zip(self.writes, said, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A pause the product needs."""

    s: float


Action = Request | Wait


class LeaseOver(Unwritable):
    """The time left of a lease is shorter than the product's timer can express."""


def actions(
    steps: Sequence[Step],
    quantities: Quantities,
    *,
    codecs: Mapping[str, PointCodec],
    values: Mapping[str, Value],
    saved: Mapping[str, Value],
) -> list[Action]:
    """The requests and waits of `steps`. `values` are the newest known of the device, `saved` those from before our
    first write. Raises Unwritable; nothing has been sent then."""
    out: list[Action] = []
    held: dict[str, PointWrite] = {}
    for step in steps:
        if step.wait_s is not None:
            out.append(Wait(s=step.wait_s))
            continue
        parts = step.together or (step,)
        writes = [
            write for part in parts if (write := _write(part, quantities, codecs, values, saved, held)) is not None
        ]
        held |= {write.point: write for write in writes}
        if writes and len(writes) < len(parts):
            raise Unwritable(
                f"{', '.join(step.touched())}: only some of them could be written, and they belong together"
            )
        # One request is sent whole or left out whole.
        known = (part.if_changed and shows(codecs[w.point], values, w) for part, w in zip(parts, writes, strict=False))
        if writes and not all(known):
            out.append(Request(writes=tuple(writes)))
    return out


def _write(
    step: Step,
    quantities: Quantities,
    codecs: Mapping[str, PointCodec],
    values: Mapping[str, Value],
    saved: Mapping[str, Value],
    held: Mapping[str, PointWrite],
) -> PointWrite | None:
    """What a step writes, None = nothing; `held` is what earlier ones have written."""
    name = step.write or step.restore or step.keep or ""
    codec = codecs[name]
    if step.keep is not None:
        value = values.get(name)
        if value is None:
            raise Unwritable(f"{name}: what it holds now is unknown")
        return _written(codec, value, codec.encode(_wire(codec, value), values, owners=True), values)
    if step.restore is not None:
        value = saved.get(name)
        if value is None:
            value = _plain(step.or_value)
        if value is None:
            return None
        if step.bits is not None:
            return _bits(codec, value, step.bits, values, held.get(name))
        return _written(codec, value, codec.encode(_wire(codec, value), values, owners=True), values)
    if step.source is None:
        value = None if step.null else _plain(step.value)
        if step.bits is not None:
            return _bits(codec, value, step.bits, values, held.get(name))
        raw = codec.encode(_wire(codec, value), values)
    else:
        canonical = _quantity(step, quantities, codec, values)
        raw = codec.encode(canonical, values)
        if step.instead_of_zero is not None and raw == _zero(codec, values):
            canonical = codec.flip * step.instead_of_zero
            raw = codec.encode(canonical, values)
        value = _wire(codec, canonical)
    return _written(codec, value, raw, values)


def _bits(
    codec: PointCodec, value: Value, bits: int, values: Mapping[str, Value], before: PointWrite | None
) -> PointWrite:
    """These bits of `value`, and the others as the point holds them, after `before` has been written."""
    now = before.value if before is not None else values.get(codec.name)
    if not isinstance(now, float) or not isinstance(value, float):
        raise Unwritable(f"{codec.name}: what it holds now is unknown")
    whole = float(joined_bits(now, value, bits))
    ours = bits if before is None else None if before.bits is None else before.bits | bits
    return PointWrite(point=codec.name, raw=codec.encode(whole, values, owners=True), value=whole, bits=ours)


def joined_bits(number: float, other: float, bits: int) -> int:
    """`number` with these bits of `other`."""
    return int(number) & ~bits | int(other) & bits


def with_bits_of(before: PointWrite | None, write: PointWrite) -> PointWrite:
    """A write that also stands for the bits of the one before it, which it wrote again."""
    if before is None or write.bits is None:
        return write
    return replace(write, bits=None if before.bits is None else before.bits | write.bits)


def owners_choice(saved: Value, now: Value, ours: PointWrite) -> Value:
    """What to restore where a point does not show what was written: what it shows; of bits, only those that differ."""
    if ours.bits is None or not (isinstance(saved, float) and isinstance(now, float) and isinstance(ours.value, float)):
        return now
    return float(joined_bits(saved, now, (int(now) ^ int(ours.value)) & ours.bits))


def _written(codec: PointCodec, value: Value, raw: Raw, values: Mapping[str, Value]) -> PointWrite:
    factor = codec.factor(values)
    if factor is None or codec.point.scale_factor is None:
        return PointWrite(point=codec.name, raw=raw, value=value)
    # The factor rounds the value: a read under another factor is compared with the value of the words.
    return PointWrite(point=codec.name, raw=raw, value=codec.decode(raw, values, DecodeCounts()), factor=factor)


def shows(codec: PointCodec, values: Mapping[str, Value], write: PointWrite) -> bool:
    """Whether the point is known to hold the written value. Under another scale factor the same number has other words,
    rounded to the step of the coarser factor, and the same words are another number."""
    value, factor = values.get(codec.name), codec.factor(values)
    if value is None or factor is None:
        return False
    if write.bits is not None and isinstance(value, float) and isinstance(write.value, float):
        return joined_bits(value, write.value, write.bits) == int(value)
    if factor != write.factor:
        if not isinstance(value, float) or not isinstance(write.value, float):
            return False
        return abs(value - write.value) < abs(codec.point.scale) * max(factor, write.factor)
    try:
        return codec.encode(_wire(codec, value), values, owners=True) == write.raw
    except Unwritable:
        return False


def _plain(value: str | float | bool | None) -> Value:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _wire(codec: PointCodec, value: Value) -> Value:
    """Constants and saved values are in the product's own sign; the codec flips its input."""
    return value * codec.flip if isinstance(value, float) else value


def _quantity(step: Step, given: Quantities, codec: PointCodec, values: Mapping[str, Value]) -> float:
    number = {
        "setpoint_w": given.setpoint_w,
        "magnitude_w": abs(given.setpoint_w),
        "grid_target_w": given.grid_target_w,
        "inverter_target_w": given.inverter_target_w,
        "lease": given.lease_s,
        "reserve_pct": given.reserve_pct,
        "count": float(given.count),
    }[step.source or "count"]
    if not math.isfinite(number):
        raise Unwritable(f"{codec.name}: {step.source} is unknown")
    if step.source == "lease":
        number = number / 60 if codec.point.unit == "min" else number
        number = math.ceil(number) if given.renews else math.floor(number)
    if step.percent_of is not None:
        whole = values.get(step.percent_of)
        if not isinstance(whole, float) or whole <= 0:
            raise Unwritable(f"{codec.name}: {step.percent_of}, whose percentage it is, is unknown")
        number = 100 * number / whole
    number *= step.times
    if step.source == "lease" and not given.renews and _no_time(codec, number, values):
        raise LeaseOver(f"{codec.name}: {given.lease_s:g} s are less than the timer takes")
    return number


def _no_time(codec: PointCodec, number: float, values: Mapping[str, Value]) -> bool:
    """Whether a timer cannot be given `number`, or would be given 0, which many take for "never"."""
    if number <= 0 or (codec.point.taken is not None and number < codec.point.taken[0]):
        return True
    return codec.encode(number, values) == _zero(codec, values)


def _zero(codec: PointCodec, values: Mapping[str, Value]) -> Raw | None:
    try:
        return codec.encode(0.0, values)
    except Unwritable:
        return None

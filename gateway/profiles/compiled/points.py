"""Converts raw values of a point (registers, JSON scalars) to plain numbers and texts, and back.

A raw value is a tuple of 16-bit words (registers), a JSON scalar, or one of the markers below. A value is a float,
a text, a bool, or None = unknown. Numbers that are not finite are unknown; nothing is clamped on the way in. On the way
out a number is rounded so that its value comes closer to 0, and refused if the type cannot hold it.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from gateway.domain.errors import GatewayError, Retry
from gateway.profiles.compiled.ranges import within
from gateway.profiles.language.base import FLIPPED
from gateway.profiles.language.points import REGISTERS, Point, PointType

Words = tuple[int, ...]
Value = float | str | bool | None
SCALE_FACTOR_MAX = 10
INTEGER_MAX = 1 << 64
EXACT_MAX = 1 << 53
"""Beyond it a float does not hold every whole number."""
LONG = (PointType.U64, PointType.I64, PointType.ACC64, PointType.INTEGER, PointType.NUMBER)
"""Types of numbers that may be beyond it."""
DECIMALS = 1e6
_FORMATS = {
    PointType.U16: ">H", PointType.I16: ">h", PointType.U32: ">I", PointType.I32: ">i", PointType.U64: ">Q",
    PointType.I64: ">q", PointType.F32: ">f", PointType.F64: ">d", PointType.ACC32: ">I", PointType.ACC64: ">Q",
}  # fmt: skip
# SunSpec "not implemented" by type, as unsigned bits; a counter says 0, a float NaN.
_UNIMPLEMENTED = {
    PointType.U16: (0xFFFF,), PointType.I16: (0x8000,), PointType.U32: (0xFFFFFFFF,), PointType.I32: (0x80000000,),
    PointType.U64: (0xFFFFFFFFFFFFFFFF,), PointType.I64: (0x8000000000000000,), PointType.ACC32: (0,),
    PointType.ACC64: (0,),
}  # fmt: skip


class Marker(Enum):
    """Raw facts without a value: `NULL` JSON null, `MISSING` no such member, `EMPTY` a payload of no bytes, `GARBLED`
    something else in place of a value: an object, an array, an unreadable payload."""

    NULL = "null"
    MISSING = "missing"
    EMPTY = "empty"
    GARBLED = "garbled"


Raw = Words | str | int | float | bool | Marker


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The newest raw value of a point is unreadable; `last` is the one before it."""

    last: Raw


Read = Raw | Unreadable


class Unwritable(GatewayError):
    """A value cannot be written to a point; the text names point and cause."""

    retry = Retry.AFTER_CHANGE


@dataclass(slots=True)
class DecodeCounts:
    """Counts of values made unknown, by cause."""

    sentinel: int = 0
    implausible: int = 0
    malformed: int = 0

    @property
    def not_understood(self) -> int:
        """Values that were present and invalid; a sentinel is a valid way to say that there is none."""
        return self.implausible + self.malformed


class WholeNumber(float):
    """A whole number beyond those that a float holds exactly: counts as the float, and keeps its bits."""

    __slots__ = ("exact",)

    def __new__(cls, exact: int) -> "WholeNumber":
        """The number `exact`."""
        made = super().__new__(cls, exact)
        made.exact = exact
        return made

    exact: int


class Values(dict[str, Value]):
    """Values read of one device, by point. `unclear`: points whose newest raw value was invalid (the value is unknown,
    or the one before it where the newest is unreadable); `null`: points that were null, where the profile does not say
    what null means."""

    __slots__ = ("null", "unclear")

    def __init__(self) -> None:
        super().__init__()
        self.unclear: set[str] = set()
        self.null: set[str] = set()

    def clear(self) -> None:
        super().clear()
        self.unclear.clear()
        self.null.clear()

    def note(self, name: str, *, unclear: bool, null: bool) -> None:
        """Note whether the newest raw value of a point was unclear or null."""
        for names, is_so in ((self.unclear, unclear), (self.null, null)):
            if is_so:
                names.add(name)
            else:
                names.discard(name)


class PointCodec:
    """One compiled point. `order` is the word order of the section, `unimplemented` whether SunSpec's rules hold."""

    def __init__(self, name: str, point: Point, *, order: str = "big", unimplemented: bool = False) -> None:
        self.name = name
        self.point = point
        self._swap = (point.word_order or order) == "little"
        self._format = _FORMATS.get(point.type, "")
        known = _UNIMPLEMENTED.get(point.type, ()) if unimplemented else ()
        counter = (0,) if point.type in (PointType.ACC32, PointType.ACC64) else ()
        # In registers a sentinel is compared by its bits, whatever its sign in the profile.
        bits = 16 * REGISTERS.get(point.type, 0)
        sentinels = (s + (1 << bits) if s < 0 and bits else s for s in point.sentinels)
        self._sentinels = frozenset((*sentinels, *known, *counter))
        self.flip = -1.0 if point.sign in FLIPPED else 1.0
        plain = point.scale == 1 and point.shift == 0 and point.scale_factor is None
        self._long = plain and point.type in LONG

    def decode(self, raw: Read | None, values: Mapping[str, Value], counts: DecodeCounts) -> Value:
        """The value of `raw` (None = not read); `values` holds the scale factors."""
        if isinstance(raw, Unreadable):
            self._malformed(counts)
            return self.decode(raw.last, values, counts)
        if raw is None:
            return None
        if raw is Marker.GARBLED:
            return self._malformed(counts)
        if isinstance(raw, Marker):
            rule = {Marker.NULL: self.point.null, Marker.MISSING: self.point.missing}.get(raw, "unknown")
            if rule == "off":
                return False
            return 0.0 if rule == "zero" else None
        if isinstance(raw, tuple):
            return self._from_words(raw, values, counts)
        return self._from_json(raw, values, counts)

    def _from_words(self, words: Words, values: Mapping[str, Value], counts: DecodeCounts) -> Value:
        if len(words) != self.point.register_count:
            counts.malformed += 1
            return None
        if self.point.type is PointType.TEXT:
            return register_text(words)
        data = struct.pack(f">{len(words)}H", *(reversed(words) if self._swap else words))
        if self._sentinels and int.from_bytes(data, "big") in self._sentinels:
            counts.sentinel += 1
            return None
        return self._scaled(struct.unpack(self._format, data)[0], values, counts)

    def _from_json(self, raw: str | float | bool, values: Mapping[str, Value], counts: DecodeCounts) -> Value:
        kind = self.point.type
        if kind is PointType.TEXT:
            return raw if isinstance(raw, str) else self._malformed(counts)
        if kind is PointType.BOOLEAN:
            return raw if isinstance(raw, bool) else self._malformed(counts)
        if isinstance(raw, str) and self.point.as_text:
            try:
                raw = float(raw)
            except ValueError:
                return self._malformed(counts)
        if isinstance(raw, bool) or not isinstance(raw, int | float):
            return self._malformed(counts)
        if abs(raw) > INTEGER_MAX if isinstance(raw, int) else not math.isfinite(raw):
            return self._malformed(counts)
        if raw in self._sentinels:
            counts.sentinel += 1
            return None
        return self._scaled(raw, values, counts)

    @staticmethod
    def _malformed(counts: DecodeCounts) -> None:
        counts.malformed += 1

    def _scaled(self, number: int | float, values: Mapping[str, Value], counts: DecodeCounts) -> Value:
        factor = self.factor(values)
        if factor is None or not math.isfinite(number):
            counts.sentinel += 1
            return None
        value = number * self.point.scale * factor + self.point.shift
        if self._long and isinstance(number, int) and abs(number) > EXACT_MAX:
            value = WholeNumber(number)
        limits = self.point.range or (-math.inf, math.inf)
        inside = within(value, *limits) if math.isfinite(value) else None
        counts.implausible += inside is None
        return inside

    def number(self, raw: Read | None) -> float | None:
        """What registers without a scale factor hold, be it plausible or not."""
        if not isinstance(raw, tuple) or not self._format or self.point.scale_factor is not None:
            return None
        data = struct.pack(f">{len(raw)}H", *(reversed(raw) if self._swap else raw))
        return float(struct.unpack(self._format, data)[0]) * self.point.scale + self.point.shift

    def factor(self, values: Mapping[str, Value]) -> float | None:
        """10^scale factor, 1 where it has none; None while it is unknown or absurd."""
        if self.point.scale_factor is None:
            return 1.0
        exponent = values.get(self.point.scale_factor)
        if not isinstance(exponent, float) or not abs(exponent) <= SCALE_FACTOR_MAX or exponent != int(exponent):
            return None
        return float(10.0 ** int(exponent))

    def encode(self, value: Value, values: Mapping[str, Value], *, owners: bool = False) -> Raw:
        """Encode `value` for the product; a signed power comes with + = discharge (grid: import) and leaves with the
        product's sign. `owners`: the product held it before, so it takes it. Raises Unwritable."""
        point = self.point
        if value is None or (value is False and point.null == "off"):
            return Marker.NULL
        if isinstance(value, str | bool):
            return self._text(value)
        number = value * self.flip
        taken = point.range if owners else point.taken
        if taken is not None and not taken[0] <= number <= taken[1]:
            raise Unwritable(f"{self.name}: {number:g} is outside {taken[0]:g} to {taken[1]:g}")
        factor = self.factor(values)
        if factor is None:
            raise Unwritable(f"{self.name}: its scale factor {point.scale_factor} is unknown")
        raw, zero = (number - point.shift) / (point.scale * factor), -point.shift / (point.scale * factor)
        if not math.isfinite(raw):
            raise Unwritable(f"{self.name}: {value!r} is no number")
        if point.type in REGISTERS:
            return self._to_words(raw, zero)
        if point.type is PointType.BOOLEAN or (point.type is PointType.TEXT and point.register_count):
            raise Unwritable(f"{self.name}: {value!r} is a number, and this is none")
        if point.type is PointType.NUMBER:
            return _whole(raw * DECIMALS, zero * DECIMALS) / DECIMALS
        return str(_whole(raw, zero)) if point.type is PointType.TEXT else _whole(raw, zero)

    def _text(self, value: str | bool) -> Raw:
        wanted = PointType.BOOLEAN if isinstance(value, bool) else PointType.TEXT
        if self.point.register_count and wanted is PointType.TEXT:
            raise Unwritable(f"{self.name}: texts in registers are not written")
        if self.point.type is not wanted:
            raise Unwritable(f"{self.name}: {value!r} is no {self.point.type.value}")
        return value

    def _to_words(self, raw: float, zero: float) -> Words:
        floating = self.point.type in (PointType.F32, PointType.F64)
        number = raw if floating else _whole(raw, zero)
        try:
            data = struct.pack(self._format, number)
            if self.point.type is PointType.F32:
                data = _not_beyond(data, raw, zero)
        except (struct.error, OverflowError) as error:
            raise Unwritable(f"{self.name}: {number} does not fit {self.point.type.value}") from error
        if int.from_bytes(data, "big") in self._sentinels and self.point.type not in (PointType.ACC32, PointType.ACC64):
            raise Unwritable(f"{self.name}: {number} means something else to the product")
        words = struct.unpack(f">{len(data) // 2}H", data)
        return tuple(reversed(words)) if self._swap else words


def register_text(words: Words) -> str:
    """Two characters a register up to the first NUL, or one in the low byte of each."""
    data = struct.pack(f">{len(words)}H", *words)
    single = not any(data[::2])
    return (data[1::2] if single else data).split(b"\0", 1)[0].decode("ascii", errors="replace").strip()


def _whole(raw: float, zero: float) -> int:
    """Round towards `zero`, the raw value of 0; a number within rounding error of a whole one counts as whole."""
    nearest = round(raw)
    if abs(raw - nearest) <= _blur(raw, zero):
        return nearest
    return math.floor(raw) if raw > zero else math.ceil(raw)


def _blur(raw: float, zero: float) -> float:
    """Rounding error that `raw` may carry."""
    return 1e-9 + 1e-14 * max(abs(raw), abs(zero))


def _not_beyond(data: bytes, raw: float, zero: float) -> bytes:
    """A float32 that is not farther from `zero` than `raw` is."""
    found = float(struct.unpack(">f", data)[0])
    if abs(found - zero) - abs(raw - zero) <= 1e-12 * max(abs(raw), abs(zero)):
        return data
    return struct.pack(">f", float(np.nextafter(np.float32(found), np.float32(zero))))


def decode_all(
    codecs: Sequence[PointCodec], raws: Mapping[str, Read], values: dict[str, Value], counts: DecodeCounts
) -> None:
    """Decode raw values into `values`; `codecs` are in order, scale factors first. A value whose scale factor was not
    read with it is unknown: the earlier factor may belong to another value. Of points that are not there, fallbacks
    come last."""
    absent: list[tuple[str, str]] = []
    for codec in codecs:
        if codec.name not in raws:
            continue
        factor = codec.point.scale_factor
        known = values if factor is None or factor in raws else {}
        raw, before = raws[codec.name], counts.not_understood
        value = values[codec.name] = codec.decode(raw, known, counts)
        if isinstance(values, Values):
            unclear = counts.not_understood > before
            values.note(codec.name, unclear=unclear, null=raw is Marker.NULL and value is None)
        if value is None and codec.point.fallback is not None and counts.not_understood == before:
            absent.append((codec.name, codec.point.fallback))
    for name, fallback in absent:
        fall_back(name, fallback, values)


def fall_back(name: str, fallback: str, values: dict[str, Value]) -> None:
    """Give a point that is not there what its fallback says."""
    values[name] = values.get(fallback)
    if isinstance(values, Values):
        values.note(name, unclear=fallback in values.unclear, null=fallback in values.null)

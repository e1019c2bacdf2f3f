"""Compiles messages into decoders (bytes -> columns) and commands into encoders (command -> topic and bytes).

The fast path is one msgspec struct per message with the profile's ranges as constraints. A payload that fails it is
read again point by point: an implausible or mistyped optional point becomes unknown and is counted, a missing or bad
required point or a wrong identity refuses the whole message. The codec rejects, it never clamps. A safety point
that is present and not understood is reported as unclear, since "unknown" would hide that the device sent something.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from gateway.domain.commands import CommandOp
from gateway.domain.errors import invariant
from gateway.domain.types import CLEAR, Unclear, is_device_id
from gateway.profiles.compiled.json_text import tolerant_json
from gateway.profiles.compiled.ranges import within
from gateway.profiles.language.base import FLIPPED, Sign
from gateway.profiles.language.messages import Member, MemberType, Message
from gateway.profiles.language.product import ProfileDocument
from gateway.profiles.language.quantities import CATALOGUE, CanonicalQuantity

Columns = dict[str, NDArray[Any]]
MAX_INTEGER = 2**53
MAX_TEXT = 64
WORD_BITS = 64
_FORM_OF = {
    CommandOp.SETPOINT: "setpoint",
    CommandOp.HOLD: "hold",
    CommandOp.RELEASE: "release",
    CommandOp.RESERVE: "reserve",
    CommandOp.BLOCK: "block",
}


class MessageRefused(msgspec.DecodeError):
    """A message that cannot be used at all; `reason` is one of a small, fixed set for metric labels."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class _Column:
    """How one point becomes one column: the struct attribute, and the conversion to canonical values."""

    name: str
    dtype: Any
    factor: float
    unknown: float | int | str
    members: dict[str, int] | None


def _factor(point: Member) -> float:
    return -point.scale if point.sign in FLIPPED else point.scale


def _raw_range(point: Member) -> tuple[float, float] | None:
    if point.range is None:
        return None
    factor = _factor(point)
    low, high = sorted((point.range[0] / factor, point.range[1] / factor))
    return low, high


def _annotation(point: Member, canonical: CanonicalQuantity) -> Any:
    bounds = _raw_range(point)
    if point.type is MemberType.NUMBER:
        kind: Any = float if bounds is None else Annotated[float, msgspec.Meta(ge=bounds[0], le=bounds[1])]
        return kind if point.required else kind | None
    if point.type is MemberType.INTEGER:
        low, high = bounds or (-MAX_INTEGER, MAX_INTEGER)
        return Annotated[int, msgspec.Meta(ge=int(max(low, -MAX_INTEGER)), le=int(min(high, MAX_INTEGER)))]
    if point.type is MemberType.BOOLEAN:
        return bool
    if point.type is MemberType.STRING:
        return Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
    if canonical.excluding and point.values:
        return Literal[tuple(point.values)]
    return str


def _read(payload: bytes) -> object:
    """A document as plain values. Raises MessageRefused: malformed."""
    try:
        found: object = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            found = tolerant_json(payload)
        except ValueError:
            raise MessageRefused("malformed") from None
    return found


def _quoted(key: str) -> bytes:
    return f'"{key}"'.encode()


def _once(decode: Callable[[bytes], Any], keys: Iterable[str]) -> Callable[[bytes], Any]:
    """`decode`, which refuses a payload that may name one of `keys` more than once: the last one would win."""
    quoted = tuple(map(_quoted, keys))

    def decoded(payload: bytes) -> Any:
        for key in quoted:
            if payload.count(key) > 1:
                raise msgspec.DecodeError("a member may be there twice")
        return decode(payload)

    return decoded if quoted else decode


def _integral(value: object) -> object:
    """Convert a whole number written with a decimal point to an integer."""
    if isinstance(value, float) and abs(value) <= MAX_INTEGER and value.is_integer():
        return int(value)
    return value


def _is_text(value: str) -> bool:
    """Whether all characters are whole: JSON may have halves of a surrogate pair, which no encoding has."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _word(value: object) -> int | None:
    """A field of 64 bits, bit 63 as the sign; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << WORD_BITS:
        return None
    return value - (1 << WORD_BITS) if value >> (WORD_BITS - 1) else value


class Decoder:
    """Decodes one message kind of one product. `implausible` counts points that were made unknown.

    `fast` is the bare struct decoder for hot paths, which compare `row.device` themselves and turn to `decode` when it
    raises.
    """

    def __init__(self, kind: str, message: Message) -> None:
        self.kind = kind
        self.implausible = 0
        catalogue = CATALOGUE[kind]
        self._message = message
        self._annotations: dict[str, Any] = {}
        # The identity is compared with the topic's, whose form was checked, so the struct need not check it again.
        fields: list[Any] = [("device", str)]
        rename = {"device": message.identity}
        for name, point in message.points.items():
            rename[name] = point.key
            annotation = self._annotations[name] = _annotation(point, catalogue[name])
            fields.append(
                (name, annotation) if point.required else (name, annotation, self._default(point, catalogue[name]))
            )
        self._struct: Any = msgspec.defstruct(f"{kind.title()}Message", fields, rename=rename, gc=False, kw_only=True)
        self._fields = self._struct.__struct_fields__
        self._safety = {
            point.key: catalogue[name].unclear for name, point in message.points.items() if catalogue[name].excluding
        }
        self.fast = _once(msgspec.json.Decoder(self._struct).decode, self._safety)
        self.columns = [
            _Column(
                name=name,
                dtype=canonical.dtype,
                factor=_factor(message.points[name]) if name in message.points else 1.0,
                unknown=canonical.unknown,
                members=self._members(message.points.get(name), canonical),
            )
            for name, canonical in catalogue.items()
        ]

    @staticmethod
    def _default(point: Member, canonical: CanonicalQuantity) -> Any:
        if point.type is MemberType.NUMBER:
            return None
        return "" if point.type is MemberType.ENUM else canonical.unknown

    @staticmethod
    def _members(point: Member | None, canonical: CanonicalQuantity) -> dict[str, int] | None:
        if canonical.members is None:
            return None
        if point is None or point.values is None:
            return {}
        return {raw: canonical.members[name] for raw, name in point.values.items()}

    def decode(self, payload: bytes, device: str) -> Any:
        """One message of `device` as a struct. Raises MessageRefused: malformed | schema | identity."""
        return self.reread(payload, device)[0]

    def reread(self, payload: bytes, device: str) -> tuple[Any, Unclear]:
        """One message of `device` as a struct, and its safety members that were not understood. Raises MessageRefused
        like `decode`."""
        unclear = CLEAR
        try:
            row: Any = self.fast(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            row, unclear = self._lenient(payload)
        if row.device != device:
            raise MessageRefused("identity")
        return row, unclear

    def _lenient(self, payload: bytes) -> tuple[Any, Unclear]:
        raw = _read(payload)
        if not isinstance(raw, dict) or not isinstance(raw.get(self._message.identity), str):
            raise MessageRefused("schema")
        values: dict[str, Any] = {"device": raw[self._message.identity]}
        unclear = self._contradicted(payload)
        for name, point in self._message.points.items():
            canonical, value = CATALOGUE[self.kind][name], raw.get(point.key)
            try:
                values[name] = self._converted(name, point, canonical, value)
            except msgspec.ValidationError:
                if point.required:
                    raise MessageRefused("schema") from None
                values[name] = self._default(point, canonical)
                self.implausible += value is not None
                if value is not None or (canonical.excluding and point.key in raw):
                    unclear |= canonical.unclear
        return self._struct(**values), unclear

    def _contradicted(self, payload: bytes) -> Unclear:
        """Words about safety that a message says several times, and not the same each time."""
        if not any(payload.count(_quoted(key)) > 1 for key in self._safety):
            return CLEAR
        try:
            pairs = json.loads(payload, object_pairs_hook=tuple)
        except (ValueError, RecursionError):
            raise MessageRefused("malformed") from None
        unclear, said = CLEAR, dict(pairs)
        for key, value in pairs:
            if key in self._safety and value != said[key]:
                unclear |= self._safety[key]
        return unclear

    def _converted(self, name: str, point: Member, canonical: CanonicalQuantity, value: object) -> Any:
        """One value as the struct has it. Raises msgspec.ValidationError."""
        if canonical.word:
            word = _word(value)
            if word is None:
                raise msgspec.ValidationError(f"Expected {WORD_BITS} bits")
            return word
        if isinstance(value, float) and not math.isfinite(value):
            raise msgspec.ValidationError("Expected a finite number")
        if isinstance(value, int) and abs(value) > 1 << WORD_BITS:
            raise msgspec.ValidationError("Expected a smaller number")
        if isinstance(value, str) and not _is_text(value):
            raise msgspec.ValidationError("Expected whole characters")
        bounds = _raw_range(point)
        if bounds is not None and isinstance(value, float):
            inside = within(value, *bounds)
            value = value if inside is None else inside
        return msgspec.convert(_integral(value) if point.type is MemberType.INTEGER else value, self._annotations[name])

    def to_columns(self, rows: Sequence[Any]) -> Columns:
        """Rows as canonical columns: scaled, signs canonical, enumerations as numbers, unknown as NaN or sentinel."""
        by_field = dict(zip(self._fields, zip(*map(astuple, rows), strict=True), strict=True)) if rows else {}
        out: Columns = {}
        for column in self.columns:
            values: Any = by_field.get(column.name)
            if values is None or (values[0] is None and values.count(None) == len(values)):
                # A point that the product does not have: no need to convert every None.
                out[column.name] = np.full(len(rows), column.unknown, dtype=column.dtype)
                continue
            if column.members is not None:
                find = column.members.get
                values = [find(value, 0) for value in values]
            array = np.array(values, dtype=column.dtype)
            if column.factor != 1.0:
                array = (array * column.factor).astype(column.dtype, copy=False)
            out[column.name] = array
        return out


class Route:
    """Topic <-> device id for one `{device}` topic: the only place where a topic is built or parsed."""

    def __init__(self, pattern: str) -> None:
        self.prefix, self.suffix = pattern.split("{device}")
        self.filter = f"{self.prefix}+{self.suffix}"
        self._match = re.compile(f"{re.escape(self.prefix)}([A-Za-z0-9_.:-]{{1,64}}){re.escape(self.suffix)}").fullmatch

    def topic(self, device: str) -> str:
        invariant(is_device_id(device), "a topic is built from a valid device id only")
        return f"{self.prefix}{device}{self.suffix}"

    def device(self, topic: str) -> str | None:
        """The device id in `topic`, or None if the topic is not of this route or the id is not well formed."""
        found = self._match(topic)
        return found.group(1) if found else None


class Encoder:
    """Writes commands of one product."""

    def __init__(self, document: ProfileDocument) -> None:
        commands = document.commands
        invariant(commands is not None, "only a product with commands gets an encoder")
        if commands is None:
            return
        self.route = Route(commands.topic)
        self._sign = -1 if commands.setpoint_sign is Sign.CHARGE_POSITIVE else 1
        self._encode = msgspec.json.Encoder().encode
        self._forms: dict[int, tuple[Any, Callable[[tuple[Any, ...]], tuple[Any, ...]]]] = {}
        for op, name in _FORM_OF.items():
            form = commands.forms.get(name)  # type: ignore[call-overload]
            if form is None:
                continue
            rename = {"device": commands.identity, "cmd": commands.id, "valid_until": commands.valid_until}
            fields: list[Any] = [("device", str), ("cmd", int), ("valid_until", int)]
            for argument, key in form.arguments.items():
                fields.append((argument, float if argument == "reserve_pct" else int))
                rename[argument] = key
            for i, (key, value) in enumerate(form.constants.items()):
                fields.append((f"constant_{i}", type(value), value))
                rename[f"constant_{i}"] = key
            struct = msgspec.defstruct(f"{name.title()}Command", fields, rename=rename, gc=False)
            self._forms[int(op)] = (struct, _picker(tuple(form.arguments)))

    def can(self, op: CommandOp) -> bool:
        return int(op) in self._forms

    def encode(
        self, op: int, device: str, cmd: int, valid_until_ms: int, *, setpoint_w: int, lease_s: int, reserve_pct: float
    ) -> bytes:
        """The payload of one command; `setpoint_w` + = discharge, `valid_until_ms` absolute UTC."""
        struct, pick = self._forms[op]
        return self._encode(struct(device, cmd, valid_until_ms, *pick((setpoint_w * self._sign, lease_s, reserve_pct))))


def _picker(arguments: tuple[str, ...]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Returns a function that picks a form's values, in its order, from (setpoint_w, lease_s, reserve_pct)."""
    places = [("setpoint_w", "lease_s", "reserve_pct").index(name) for name in arguments]
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple(values[i] for i in places)

"""Takes the fields of one event out of a body, each from its place, with its unit and its words."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from gateway.domain.types import ID_PATTERN
from gateway.signals.webhook.language import (
    UNITS_S,
    UNITS_W,
    DevicesField,
    EndField,
    EventDocument,
    FieldAt,
    FieldOrValue,
    FlagField,
    LengthField,
    StartField,
    TimeFormat,
    Words,
)
from gateway.signals.webhook.pointer import ABSENT, value_at
from gateway.signals.webhook.times import rfc3339

NAMED_MAX = 2_000
"""Devices that an event names one by one."""
VALUE_SHOWN = 64
MISSING = "missing"
_ID = re.compile(ID_PATTERN)

MOST = object()
"""A power that is as much as can be sustained."""


class _Unreadable(Exception):
    """A field is not as the file says."""

    def __init__(self, pointer: str, words: str) -> None:
        super().__init__(words)
        self.pointer = pointer
        self.words = words


class EventFields:
    """Takes the fields of one event, and collects what is wrong with them. `members`: what `EventBody` has; `origins`:
    the pointer that each came from."""

    def __init__(self, fields: EventDocument, event: Any) -> None:
        self._fields = fields
        self._event = event
        self.faults: list[tuple[str, str]] = []
        self.members: dict[str, Any] = {}
        self._origins: dict[str, str] = {}

    def take(self, read: Callable[[], Any], *, default: Any = None) -> Any:
        """What a field says; `default` where that is wrong."""
        try:
            return read()
        except _Unreadable as error:
            self.faults.append((error.pointer, error.words))
            return default

    def take_all(self) -> None:
        """Every field of an event but those of its name and its changes."""
        fields = self._fields
        readers: tuple[tuple[str, str | None, Callable[[], Any]], ...] = (
            ("start", fields.start.at, lambda: self._time(fields.start)),
            ("end", _place(fields.end), lambda: self._time(fields.end)),
            ("duration_s", _place(fields.duration), lambda: self._length(fields.duration)),
            ("direction", _place(fields.direction), self._direction),
            ("target_w", fields.power.at, self._power),
            ("kind", _place(fields.kind), self._kind),
            ("reserve_pct", _place(fields.reserve), self._reserve),
            ("prepare_s", _place(fields.prepare), lambda: self._length(fields.prepare)),
            ("precharge", _place(fields.precharge), lambda: self.flag(fields.precharge)),
            ("program", fields.program.at, self._program),
            ("group", fields.devices.at, self._devices),
        )
        for member, pointer, read in readers:
            value = self.take(read, default=ABSENT)
            if value is not None and value is not ABSENT:
                self.members[member] = None if value is MOST else value
            if pointer is not None:
                self._origins[member] = pointer
        if not self.members.get("prepare_s") or not self.members.get("precharge"):
            self.members.pop("precharge", None)

    def placed(self, problem: str) -> tuple[str, str]:
        """A problem of a member: the pointer that the member came from, if it came from one, and what is wrong."""
        name, colon, words = problem.partition(": ")
        pointer = self._origins.get(name.split(".", maxsplit=1)[0])
        return (pointer, words) if colon and pointer is not None else ("", problem)

    # -- one field each ----------------------------------------------------------------------------------------

    def name(self) -> str:
        pointer = self._fields.id.at
        found = self._needed(pointer)
        if isinstance(found, bool) or not isinstance(found, str | int):
            raise _Unreadable(pointer, f"an id is a text or a whole number, not {_shown(found)}")
        text = str(found)
        if _ID.fullmatch(text) is None:
            raise _Unreadable(pointer, f"{_shown(text)} is no id: 1 to 64 letters, digits and . _ : -")
        return text

    def revision(self) -> int | None:
        order = self._fields.order
        if order is None:
            return None
        found = self._needed(order.at)
        if order.order == "number":
            if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= 2**53:
                raise _Unreadable(order.at, f"a whole number from 0 is needed, not {_shown(found)}")
            return found
        moment = _moment(order.at, found, TimeFormat(order.order))
        return round(moment.timestamp() * 1000)

    def flag(self, field: FlagField | None) -> bool | None:
        if field is None or field.at is None:
            return None if field is None else field.value
        found = value_at(self._event, field.at)
        if found is ABSENT and field.absent is not None:
            return field.absent
        if _among(found, field.when_true):
            return True
        if _among(found, field.when_false):
            return False
        raise _Unreadable(field.at, _neither(found, (*field.when_true, *field.when_false)))

    def _time(self, field: StartField | EndField | None) -> str | None:
        if field is None:
            return None
        found = value_at(self._event, field.at)
        if found is ABSENT or found is None:
            if field.absent == "refused":
                raise _Unreadable(field.at, MISSING)
            return field.absent
        return _moment(field.at, found, field.time).isoformat()

    def _length(self, field: LengthField | None) -> float | None:
        if field is None:
            return None
        if field.at is None:
            return float(field.value or 0.0) * UNITS_S[field.unit]
        return _in_unit(field.at, self._number(field.at), UNITS_S[field.unit])

    def _number(self, pointer: str) -> float:
        return _number(pointer, self._needed(pointer))

    def _direction(self) -> str | None:
        field = self._fields.direction
        if field is None or field.at is None:
            return None if field is None else field.value
        found = self._needed(field.at)
        for way, meant in (("discharge", field.discharge), ("charge", field.charge)):
            if meant is not None and _among(found, meant):
                return way
        raise _Unreadable(field.at, _neither(found, (*(field.discharge or ()), *(field.charge or ()))))

    def _power(self) -> Any:
        """W, + = discharge; `MOST` where no number says how much."""
        field = self._fields.power
        found = value_at(self._event, field.at)
        if found is None or found is ABSENT:
            meant = field.if_null if found is None else field.absent
            if meant == "refused":
                raise _Unreadable(field.at, MISSING if found is ABSENT else "null is not a power here")
            if meant != "most":
                self.members["direction"] = meant.removeprefix("most_")
            return MOST
        if field.each is None:
            number = _number(field.at, found)
        else:
            number = _sum(field.at, [_number(pointer, one) for pointer, one in _each(field.at, found, field.each)])
        power_w = _in_unit(field.at, number, UNITS_W[field.unit])
        if field.positive == "unsigned" and power_w < 0:
            raise _Unreadable(field.at, f"{_shown(found)}: a power without a sign is needed")
        way = self.members.get("direction") if field.positive == "unsigned" else field.positive
        # no signed zero
        return (-power_w if way == "charge" else power_w) + 0.0

    def _kind(self) -> str | None:
        field = self._fields.kind
        if field is None or field.at is None:
            return None if field is None or field.value is None else field.value.value
        found = value_at(self._event, field.at)
        if found is ABSENT and field.absent is not None:
            return field.absent.value
        named = {"real": field.real, "capacity_test": field.capacity_test, "dry_run": field.dry_run}
        for kind, meant in named.items():
            if meant is not None and _among(found, meant):
                return kind
        raise _Unreadable(field.at, _neither(found, [word for meant in named.values() for word in meant or ()]))

    def _reserve(self) -> float | None:
        field = self._fields.reserve
        if field is None:
            return None
        scale = 100.0 if field.unit == "fraction" else 1.0
        if field.at is None:
            return float(field.value or 0.0) * scale
        if value_at(self._event, field.at) in (ABSENT, None):
            return float(field.absent) * scale
        return _in_unit(field.at, self._number(field.at), scale)

    def _program(self) -> str | None:
        field = self._fields.program
        if field.at is None:
            return field.value
        found, words = self._needed(field.at), field.words or {}
        if not isinstance(found, str) or found not in words:
            raise _Unreadable(field.at, _neither(found, tuple(words)))
        return words[found]

    def _devices(self) -> dict[str, Any]:
        field = self._fields.devices
        if field.at is None:
            return {"all": True} if field.all else {"tags": list(field.tags)}
        found = list(self._named(field, field.at))
        if not found:
            raise _Unreadable(field.at, "names no device")
        return {"ids" if field.named_by == "id" else "tags": found}

    def _named(self, field: DevicesField, at: str) -> Iterator[str]:
        found = self._needed(at)
        listed = [(at, found)] if field.each is None else _each(at, found, field.each)
        for pointer, one in listed:
            if isinstance(one, bool) or not isinstance(one, str | int) or one == "":
                raise _Unreadable(pointer, f"a name is a text or a whole number, not {_shown(one)}")
            yield f"{field.prefix}{one}"

    def _needed(self, pointer: str) -> Any:
        found = value_at(self._event, pointer)
        if found is ABSENT or found is None:
            raise _Unreadable(pointer, MISSING if found is ABSENT else "null, where a value is needed")
        return found


def _place(field: FieldAt | FieldOrValue | None) -> str | None:
    return None if field is None else field.at


def _each(at: str, found: Any, inside: str) -> list[tuple[str, Any]]:
    """A value inside every item of a list, each with its pointer."""
    if not isinstance(found, list):
        raise _Unreadable(at, f"a list is needed, not {_shown(found)}")
    if len(found) > NAMED_MAX:
        raise _Unreadable(at, f"more than {NAMED_MAX} items")
    values = [(f"{at}/{i}{inside}", value_at(one, inside)) for i, one in enumerate(found)]
    for pointer, value in values:
        if value is ABSENT:
            raise _Unreadable(pointer, MISSING)
    return values


def _number(pointer: str, found: Any) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise _Unreadable(pointer, f"a number is needed, not {_shown(found)}")
    return float(found)


def _in_unit(pointer: str, number: float, unit: float) -> float:
    """A number in our unit. One that has no place there is refused: written on, it would be null, which means the
    most."""
    if not math.isfinite(number * unit):
        raise _Unreadable(pointer, f"{_shown(number)} is too large")
    return number * unit


def _sum(pointer: str, numbers: Sequence[float]) -> float:
    try:
        return math.fsum(numbers)
    except OverflowError as error:
        raise _Unreadable(pointer, "the sum is too large") from error


def _moment(pointer: str, found: Any, form: TimeFormat) -> datetime:
    if form is TimeFormat.RFC3339:
        moment = rfc3339(found)
        if moment is None or moment.tzinfo is None:
            raise _Unreadable(pointer, f"{_shown(found)} is no time like 2030-06-01T17:00:00-07:00")
        return moment
    number = _number(pointer, found)
    try:
        return datetime.fromtimestamp(number if form is TimeFormat.EPOCH_S else number / 1000, tz=UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise _Unreadable(pointer, f"{_shown(found)} is no time in {form.value}") from error


def _among(found: Any, words: Words) -> bool:
    """Whether a value is one of these; true is not 1."""
    return any(type(found) is type(word) and found == word for word in words)


def _neither(found: Any, known: Sequence[Any]) -> str:
    if found is ABSENT:
        return MISSING
    return f"{_shown(found)} is none of {', '.join(map(_shown, known[:16]))}"


def _shown(found: Any) -> str:
    """A value from outside, short enough to tell."""
    if isinstance(found, dict | list):
        return "an object" if isinstance(found, dict) else "a list"
    text = orjson.dumps(found).decode()
    return text if len(text) <= VALUE_SHOWN else f"{text[:VALUE_SHOWN]}..."

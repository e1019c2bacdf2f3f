"""Points: what is on the wire and where. Readings: what it means in canonical quantities.

`value = raw * scale * 10^scale_factor + offset`, then the sign of a written power is made the product's. A raw value
that is a sentinel, or a value outside `range`, is unknown; nothing is clamped.
"""

import json
import math
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from gateway.profiles.language.base import (
    EvidenceTag,
    Key,
    ModelKey,
    ModelName,
    Name,
    Sign,
    Source,
    StrictModel,
    TopicPattern,
)

POINTER_PATTERN = r"^(/[^/]{1,64}){0,8}$"
Pointer = Annotated[str, StringConstraints(pattern=POINTER_PATTERN)]
PATH_PATTERN = r"^/[A-Za-z0-9_\-./{}?=&]*$"
HttpPath = Annotated[str, StringConstraints(pattern=PATH_PATTERN, max_length=200)]
CHOICE = re.compile(r"\[([^\[\]=]+)=([^\[\]]*)\]")
"""A segment of a pointer that chooses an element of a list: key and text."""
Scalar = str | int | float | bool


class PointType(StrEnum):
    """Kinds of raw value. `acc32`/`acc64`: counters whose 0 means not implemented (SunSpec)."""

    U16 = "u16"
    I16 = "i16"
    U32 = "u32"
    I32 = "i32"
    U64 = "u64"
    I64 = "i64"
    F32 = "f32"
    F64 = "f64"
    ACC32 = "acc32"
    ACC64 = "acc64"
    TEXT = "text"
    NUMBER = "number"
    INTEGER = "integer"
    BOOLEAN = "boolean"


REGISTERS = {
    PointType.U16: 1, PointType.I16: 1, PointType.U32: 2, PointType.I32: 2, PointType.U64: 4, PointType.I64: 4,
    PointType.F32: 2, PointType.F64: 4, PointType.ACC32: 2, PointType.ACC64: 4,
}  # fmt: skip
JSON_TYPES = (PointType.TEXT, PointType.NUMBER, PointType.INTEGER, PointType.BOOLEAN)


class WriteTo(StrictModel):
    """How a point is written where that is not where it is read.

    Modbus: `register`. HTTP: `method` and `path`, the value as member `key` of a JSON body (`constants` beside it) or,
    without a key, as the last segment of the path. MQTT: `topic`, the value as member `key` of a JSON object or,
    without a key, as the bare payload; never retained. `as_text`: numbers are written as JSON strings.
    """

    address: Annotated[int, Field(ge=0, le=65535)] | None = Field(default=None, alias="register")
    method: Literal["POST", "PUT"] | None = None
    path: HttpPath | None = None
    topic: TopicPattern | None = None
    key: Key | None = None
    constants: dict[Key, Scalar] = Field(default_factory=dict)
    as_text: bool = False
    qos: Literal[0, 1] = 1

    def faults(self) -> Iterator[str]:
        if sum(place is not None for place in (self.address, self.path, self.topic)) != 1:
            yield "exactly one of register (Modbus), path (HTTP) and topic (MQTT)"
        if self.address is not None and (self.key is not None or self.as_text):
            yield "key and as_text belong to path and topic"
        if (self.path is None) != (self.method is None):
            yield "method belongs to path, and path needs it"
        if self.constants and self.key is None:
            yield "constants stand beside a key"


class Point(StrictModel):
    """One value on the wire.

    Modbus: `register` (zero-based, as on the wire) or SunSpec `model` (its id, or a name of `modbus.sunspec.models`) +
    `offset` (in registers from the model's id word; `block` = the repeating block: 1 = the first, -1 = the last, or its
    name), `unit_id` a name of the `modbus.units` section,
    `function` 3 or 4, `write_function` 6 or 16 (default: 6 for one register, 16 for more), `words` of a text,
    `word_order` where it differs from the section's, `scale_factor` a point that holds a power of ten.
    HTTP: `path` of a GET, or with `ask` of a POST of that JSON body, and `pointer` into the JSON that comes. MQTT:
    `topic` and `pointer`. In a list a segment `[key=text]` of a pointer is the one element whose `key` is that text;
    where several are, nobody knows which is meant, and the value is not understood. `as_text`: a number inside a JSON
    string. `null`, `missing` (key or document member absent) and `empty` (a payload of no bytes) are different facts:
    each says what it means: `off` = nothing is set (the value is false, and false is written as null), `gone` = the
    device or service has left. `valid_when`, `invalid_when`: what other points must say for the value to mean anything;
    it is unknown unless all of the first hold, and unless one of the second is known not to.

    `fallback`: a point whose value this one has while it is not there itself; what is there and not understood has
    none.

    `range`: plausible values; `accepts`: those that the product takes, where they are fewer.
    `access` w = cannot be read back. `storage` of what is written: `stored` wears flash, so a day has at most
    `writes_per_day_max` writes of it. `readback_s`: reads show the old value for so long after a write; None = a
    read never proves a write.
    """

    address: Annotated[int, Field(ge=0, le=65535)] | None = Field(default=None, alias="register")
    model: ModelKey | None = None
    offset: Annotated[int, Field(ge=0, le=65535)] | None = None
    block: Annotated[int, Field(ge=-64, le=64)] | ModelName | None = None
    unit_id: Name = "main"
    function: Literal[3, 4] = 3
    write_function: Literal[6, 16] | None = None
    words: Annotated[int, Field(ge=1, le=64)] | None = None
    word_order: Literal["big", "little"] | None = None
    path: HttpPath | None = None
    ask: dict[Key, JsonValue] | None = None
    topic: TopicPattern | None = None
    pointer: Pointer = ""
    as_text: bool = False
    null: Literal["unknown", "zero", "off"] = "unknown"
    missing: Literal["unknown", "zero"] = "unknown"
    empty: Literal["unknown", "gone"] = "unknown"
    write: WriteTo | None = None

    type: PointType
    scale: float = 1.0
    shift: float = 0.0
    scale_factor: Name | None = None
    sentinels: tuple[int, ...] = ()
    range: tuple[float, float] | None = None
    accepts: tuple[float, float] | None = None
    valid_when: tuple["Match", ...] = ()
    invalid_when: tuple["Match", ...] = ()
    unit: str = ""
    sign: Sign | None = None
    fallback: Name | None = None

    access: Literal["r", "rw", "w"] = "r"
    storage: Literal["volatile", "stored", "unknown"] | None = None
    writes_per_day_max: Annotated[int, Field(ge=1, le=100_000)] | None = None
    readback_s: Annotated[float, Field(ge=0, le=60)] | None = 0.0
    poll: Literal["live", "energy", "slow", "once", "never"] = "live"
    evidence: EvidenceTag | None = None
    source: Source | None = None
    description: str = ""

    def faults(self) -> Iterator[str]:
        places = [self.address is not None, self.model is not None, self.path is not None, self.topic is not None]
        if sum(places) > 1 or (not any(places) and (self.access != "w" or self.write is None)):
            yield "exactly one place: register, model and offset, path, or topic"
        yield from self._model_faults()
        yield from self._document_faults()
        on_registers = self.address is not None or self.model is not None
        if on_registers and self.type not in REGISTERS and self.type is not PointType.TEXT:
            yield f"type: {self.type.value} is not made of registers"
        if not on_registers and self.type not in JSON_TYPES:
            yield f"type: {self.type.value} belongs to registers; here {', '.join(JSON_TYPES)}"
        if (self.words is not None) != (on_registers and self.type is PointType.TEXT):
            yield "words belongs to a text in registers, and such a text needs it"
        elsewhere = self.write is not None and self.write.address is not None
        if self.write is not None and (elsewhere != on_registers or self.access == "r"):
            yield "write: says where a point that is written goes, a register to a register"
        if not on_registers and (self.access == "r") != (self.write is None):
            yield "access and write: what is written says where"
        if self.access != "r" and self.storage is None:
            yield "storage: missing; say volatile, stored or unknown for what is written"
        if self.storage == "stored" and self.writes_per_day_max is None:
            yield "writes_per_day_max: missing; stored values wear the memory"
        if self.write_function == 6 and self.type in REGISTERS and REGISTERS[self.type] > 1:
            yield "write_function: 6 writes one register only"
        if self.scale == 0:
            yield "scale: 0 would erase the value"
        if self.fallback is not None and self.access != "r":
            yield "fallback: belongs to what is only read"
        yield from self._range_faults()

    def _range_faults(self) -> Iterator[str]:
        if self.range is not None and self.range[0] > self.range[1]:
            yield "range: the lower end comes first"
        if self.accepts is not None:
            low, high = self.range or (-math.inf, math.inf)
            if self.access == "r" or not low <= self.accepts[0] <= self.accepts[1] <= high:
                yield "accepts: of a point that is written, the lower end first, within range"

    def _model_faults(self) -> Iterator[str]:
        if (self.model is None) != (self.offset is None):
            yield "model and offset belong together"
        if self.block is not None and self.model is None:
            yield "block belongs to model and offset"
        if self.block == 0:
            yield "block: 1 is the first, -1 the last"

    def _document_faults(self) -> Iterator[str]:
        if self.ask is not None and self.path is None:
            yield "ask: belongs to path"
        for segment in self.pointer.split("/"):
            if segment.startswith("[") and not CHOICE.fullmatch(segment):
                yield f"pointer: {segment} chooses no element; write [key=text]"

    @property
    def register_count(self) -> int:
        """How many registers the point has; 0 if it is not made of registers."""
        return REGISTERS.get(self.type, self.words or 0)

    @property
    def taken(self) -> tuple[float, float] | None:
        """The values that the product takes; None = whatever its type holds."""
        return self.accepts or self.range

    @property
    def document(self) -> str:
        """What the HTTP document is called that the point is in: its path, with the body where one is sent."""
        path = self.path or ""
        return path if self.ask is None else f"POST {path} {json.dumps(self.ask, sort_keys=True)}"

    @property
    def readable(self) -> bool:
        return self.access != "w"

    @property
    def guards(self) -> tuple["Match", ...]:
        """What other points must say, or must not, for its value to mean anything."""
        return (*self.valid_when, *self.invalid_when)


_VERSION = re.compile(r"[A-Za-z]*[ ._-]?([0-9]{1,9}(?:[._-][0-9]{1,9})*)")


def version_of(text: str) -> tuple[int, ...] | None:
    """The numbers of a version in order, letters before them and zeros after them left out; None = it is none."""
    found = _VERSION.fullmatch(text.strip())
    if found is None:
        return None
    numbers = [int(number) for number in re.split(r"[._-]", found[1])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


class Term(StrictModel):
    """A point's share in a sum."""

    point: Name
    times: float = 1.0


class Share(StrictModel):
    """A point's share in a mean: it counts as much as the point `weight` says (the energy a battery holds)."""

    point: Name
    weight: Name


class Match(StrictModel):
    """A test of one point: its value is one of `equals` (numbers after scaling, texts as they are), `begins` with one
    of these texts or `contains` one, has all or any of these bits set, is a number `above` this one, or
    a text that is a version `from_version` on or `before_version`: number by number, so that 1.9 comes before 1.80."""

    point: Name
    equals: tuple[Scalar, ...] = ()
    begins: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()
    all_bits: Annotated[int, Field(ge=1)] | None = None
    any_bits: Annotated[int, Field(ge=1)] | None = None
    above: float | None = None
    from_version: str | None = None
    before_version: str | None = None

    def faults(self) -> Iterator[str]:
        texts = (bool(self.begins), bool(self.contains))
        bits = (self.all_bits is not None, self.any_bits is not None)
        versions = {"from_version": self.from_version, "before_version": self.before_version}
        given = [version is not None for version in versions.values()]
        if sum((bool(self.equals), *texts, *bits, self.above is not None, *given)) != 1:
            yield (
                "exactly one of equals, begins, contains, all_bits, any_bits, above, from_version and before_version"
            )
        for name, version in versions.items():
            if version is not None and version_of(version) is None:
                yield f"{name}: {version!r} is no version"


class Case(StrictModel):
    """One line of a decision: the first case whose matches all hold gives the value."""

    when: tuple[Match, ...] = Field(min_length=1)
    value: str


class Reading(StrictModel):
    """One canonical quantity, made of points: one `point`, a `sum`, a weighted `mean`, a `product` of two (volts and
    amperes), `cases` for an enumeration, or for faults and flags `any` of these matches (of faults the first is bit 0).

    `negative_when`: the point is a magnitude, and this match means the negative direction (before `sign`). `at_least`:
    what lies below is this much (a PV inverter's own use is no production). `measured_at` names the measurement point
    of a power. `range` is plausible canonical values; outside is unknown."""

    point: Name | None = None
    sum: tuple[Term, ...] = ()
    product: tuple[Name, Name] | None = None
    mean: tuple[Share, ...] = ()
    cases: tuple[Case, ...] = ()
    otherwise: str | None = None
    any: tuple[Match, ...] = Field(default=(), max_length=48)
    negative_when: Match | None = None
    at_least: float | None = None
    sign: Sign | None = None
    measured_at: (
        Literal["battery_ac", "battery_dc", "inverter_ac", "grid_connection", "pv_ac", "pv_dc", "load"] | None
    ) = None
    range: tuple[float, float] | None = None

    def faults(self) -> Iterator[str]:
        numbers = (self.point is not None, bool(self.sum), bool(self.mean), self.product is not None)
        if sum((*numbers, bool(self.cases), bool(self.any))) != 1:
            yield "exactly one of point, sum, mean, product, cases and any"
        if self.otherwise is not None and not self.cases:
            yield "otherwise belongs to cases"

    def points(self) -> list[str]:
        """Names of the points it is made of."""
        names = [*(self.product or ()), *([self.point] if self.point is not None else ())]
        names += [term.point for term in self.sum] + [match.point for match in self.any]
        names += [name for share in self.mean for name in (share.point, share.weight)]
        names += [match.point for case in self.cases for match in case.when]
        return names + ([self.negative_when.point] if self.negative_when else [])


class Identity(StrictModel):
    """What a device says it is. All `rules` must hold at every connect, and none of `excludes`: products that answer
    like this one and mean something else. `builds`: what the product's builds say together; one of these groups must
    hold whole. Else it is identified again now and then, and never used or written."""

    serial: Name | None = None
    maker: Name | None = None
    product: Name | None = None
    firmware: Name | None = None
    rules: tuple[Match, ...] = Field(min_length=1)
    excludes: tuple[Match, ...] = ()
    builds: tuple[Annotated[tuple[Match, ...], Field(min_length=1)], ...] = ()

    @property
    def matches(self) -> tuple[Match, ...]:
        """Everything that is tested."""
        return (*self.rules, *self.excludes, *(match for build in self.builds for match in build))

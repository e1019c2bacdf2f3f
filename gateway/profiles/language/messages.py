"""The message language: products whose firmware sends whole readings as JSON messages and takes JSON commands.

A message is a JSON object on a topic; its points map the product's keys to canonical names. Canonical units and
signs are those of `domain.types`: battery power + = discharge, grid power + = import, percent of usable capacity.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from gateway.profiles.language.base import Key, Sign, StrictModel, TopicPattern


class MemberType(StrEnum):
    """Kinds of value a point may hold on the wire."""

    NUMBER = "number"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    ENUM = "enum"
    STRING = "string"


class Member(StrictModel):
    """One canonical quantity in a message: `canonical = raw * scale`, then the sign is made canonical.

    `range` is plausible canonical values, ends included; what lies outside is unknown, never clamped.
    """

    key: Key
    type: MemberType = MemberType.NUMBER
    unit: str | None = None
    scale: float = 1.0
    sign: Sign | None = None
    range: tuple[float, float] | None = None
    values: dict[str, str] | None = None
    required: bool = False
    description: str = ""

    def faults(self) -> Iterator[str]:
        if (self.type is MemberType.ENUM) != (self.values is not None):
            yield "`values` belongs to type enum, and type enum needs it"
        if self.range is not None and self.range[0] > self.range[1]:
            yield "range: the lower end comes first"
        if self.scale == 0:
            yield "scale: 0 would erase the value"


class Message(StrictModel):
    """One kind of message from the device. `identity` is the key that must repeat the device id of the topic.
    `every_s`: how often the device sends it, s, where it does not say so itself."""

    topic: TopicPattern
    qos: Literal[0, 1]
    retain: bool = False
    identity: Key
    every_s: Annotated[float, Field(ge=0.5, le=600)] | None = None
    description: str = ""
    points: dict[str, Member]

    def faults(self) -> Iterator[str]:
        if self.topic.split("/").count("{device}") != 1 or self.topic.count("{") != 1:
            yield "topic: exactly one level must be {device}"


class CommandForm(StrictModel):
    """How one operation is written: constant members and the keys of the arguments it takes."""

    constants: dict[str, str | int | float | bool] = Field(default_factory=dict)
    arguments: dict[Literal["setpoint_w", "lease_s", "reserve_pct"], Key] = Field(default_factory=dict)
    description: str = ""


class Commands(StrictModel):
    """Commands to the device, as JSON on one topic. `identity`, `id` and `valid_until` are keys of every command."""

    topic: TopicPattern
    qos: Literal[1]
    identity: Key
    id: Key
    valid_until: Key
    setpoint_sign: Sign
    forms: dict[Literal["setpoint", "hold", "block", "release", "reserve"], CommandForm]

    def faults(self) -> Iterator[str]:
        if self.setpoint_sign not in (Sign.DISCHARGE_POSITIVE, Sign.CHARGE_POSITIVE):
            yield "setpoint_sign: say discharge_positive or charge_positive"
        for op in ("setpoint", "hold", "release"):
            if op not in self.forms:
                yield f"forms: {op} is missing"
        if "setpoint" in self.forms and "setpoint_w" not in self.forms["setpoint"].arguments:
            yield "forms.setpoint: the argument setpoint_w is missing"

"""What a profile may say: the device language as strict models. Data only: no templates, no expressions, no code.

A message is a JSON object on a topic; its points map the product's keys to canonical names. Canonical units and
signs are those of `domain/model`: battery power + = discharge, grid power + = import, percent of usable capacity.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Key = Annotated[str, StringConstraints(min_length=1, max_length=64)]
TopicPattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_\-./{}]+$", max_length=200)]


class Strict(BaseModel):
    """Unknown keys are faults; values are not coerced across kinds."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class PointType(StrEnum):
    """Kinds of value a point may hold on the wire."""

    NUMBER = "number"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    ENUM = "enum"


class Sign(StrEnum):
    """The product's sign of a power. Canonical are `discharge_positive` and `import_positive`."""

    DISCHARGE_POSITIVE = "discharge_positive"
    CHARGE_POSITIVE = "charge_positive"
    IMPORT_POSITIVE = "import_positive"
    EXPORT_POSITIVE = "export_positive"


class EvidenceTag(StrEnum):
    """How well a fact is known. Experimental facts never control a device unless its operator opts in."""

    VERIFIED = "verified"
    DOCUMENTED = "documented"
    EXPERIMENTAL = "experimental"


class Evidence(Strict):
    """Where a fact comes from."""

    tag: EvidenceTag
    source: str


class Point(Strict):
    """One canonical quantity in a message: `canonical = raw * scale`, then the sign is made canonical.

    `range` is plausible canonical values, ends included; what lies outside is unknown, never clamped.
    """

    key: Key
    type: PointType = PointType.NUMBER
    unit: str | None = None
    scale: float = 1.0
    sign: Sign | None = None
    range: tuple[float, float] | None = None
    values: dict[str, str] | None = None
    required: bool = False
    description: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> "Point":
        if (self.type is PointType.ENUM) != (self.values is not None):
            raise ValueError("`values` belongs to type enum, and type enum needs it")
        if self.range is not None and self.range[0] > self.range[1]:
            raise ValueError("range: the lower end comes first")
        if self.scale == 0:
            raise ValueError("scale: 0 would erase the value")
        return self


class Message(Strict):
    """One kind of message from the device. `identity` is the key that must repeat the device id of the topic."""

    topic: TopicPattern
    qos: Literal[0, 1]
    retain: bool = False
    identity: Key
    description: str = ""
    points: dict[str, Point]

    @model_validator(mode="after")
    def _one_device(self) -> "Message":
        if self.topic.split("/").count("{device}") != 1 or self.topic.count("{") != 1:
            raise ValueError("topic: exactly one level must be {device}")
        return self


class CommandForm(Strict):
    """How one operation is written: constant members and the keys of the arguments it takes."""

    constants: dict[str, str | int | float | bool] = Field(default_factory=dict)
    arguments: dict[Literal["setpoint_w", "lease_s", "reserve_pct"], Key] = Field(default_factory=dict)
    description: str = ""


class Commands(Strict):
    """Commands to the device, as JSON on one topic. `identity`, `id` and `valid_until` are keys of every command."""

    topic: TopicPattern
    qos: Literal[1]
    identity: Key
    id: Key
    valid_until: Key
    setpoint_sign: Sign
    forms: dict[Literal["setpoint", "hold", "release", "reserve"], CommandForm]

    @model_validator(mode="after")
    def _complete(self) -> "Commands":
        if self.setpoint_sign not in (Sign.DISCHARGE_POSITIVE, Sign.CHARGE_POSITIVE):
            raise ValueError("setpoint_sign: say discharge_positive or charge_positive")
        for op in ("setpoint", "hold", "release"):
            if op not in self.forms:
                raise ValueError(f"forms: {op} is missing")
        if "setpoint_w" not in self.forms["setpoint"].arguments:
            raise ValueError("forms.setpoint: the argument setpoint_w is missing")
        return self


class Watchdog(Strict):
    """What ends control when nobody refreshes it, and what the device falls back to."""

    kind: Literal["in_command", "none"]
    lease_s: float = Field(gt=0, le=600)
    falls_back_to: Literal["self_consumption", "backup", "other"]


class Facts(Strict):
    """Facts of every device of the product. `soc_uncertainty_pct`: resolution plus drift of the SoC estimate;
    `delivery_s`: the longest a command may take to act; efficiencies are one-way, AC side."""

    delivery_s: float = Field(gt=0, le=60)
    efficiency_discharge: float = Field(gt=0.5, le=1)
    efficiency_charge: float = Field(gt=0.5, le=1)
    standby_w: float = Field(ge=0, le=500)
    soc_uncertainty_pct: float = Field(ge=0, le=25)


class ProfileDocument(Strict):
    """One product. The file's name is `<profile>.yaml`."""

    language: Literal[1]
    profile: Name
    maker: str
    product: str
    evidence: Evidence
    transport: Literal["mqtt"]
    facts: Facts
    watchdog: Watchdog
    messages: dict[Literal["live", "energy", "status", "ack"], Message]
    commands: Commands | None = None

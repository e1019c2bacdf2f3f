"""One product: the document a profile file holds. Data only: no templates, no expressions, no code.

Two ways to speak. `messages` and `commands`: firmware that sends whole readings and takes whole commands over MQTT.
`points`, `readings` and `control`: values at addresses (Modbus registers, JSON over HTTP, MQTT topics).
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, ConfigDict, Field

from gateway import former_names
from gateway.domain.fleet.columns import SETTLE_S
from gateway.profiles.language.base import Evidence, Name, Reason, StrictModel
from gateway.profiles.language.control import Control, Watchdog
from gateway.profiles.language.messages import Commands, Message
from gateway.profiles.language.points import Identity, Match, Point, Reading
from gateway.profiles.language.transport import HttpSection, ModbusSection, MqttSection

COMMAND_LATENCY_S = AliasChoices("command_latency_s", former_names.PROFILE["facts", "command_latency_s"])


def _either_name(schema: dict[str, Any]) -> None:
    """Let editors take the former name too, marked as deprecated; exactly one of the two is required."""
    new, former = map(str, COMMAND_LATENCY_S.choices)
    properties = schema["properties"]
    properties[former] = {**properties[new], "deprecated": True, "description": f"former name of {new}"}
    schema["required"].remove(new)
    schema["oneOf"] = [{"required": [new]}, {"required": [former]}]


class Facts(StrictModel):
    """Facts of every device of the product. `command_latency_s`: the longest a command may take to act, `settle_s`: how
    much longer its power may take to stand at the setpoint, 0 W passed through and ramps included; efficiencies are
    one-way, AC side. `soc_uncertainty_pct`: the most the SoC may be wrong by; with `drift_pct_per_cycle` it is less
    after a full charge and grows from there. `soc_min_pct`: below it the product refuses to discharge, `soc_max_pct`:
    it is not charged beyond. `cycles_per_day_max`: what the warranty allows, full equivalents. `counter_step_wh`: step
    of the energy counters, where the scale of their registers does not say it."""

    model_config = ConfigDict(json_schema_extra=_either_name)

    command_latency_s: float = Field(gt=0, le=60, validation_alias=COMMAND_LATENCY_S)
    settle_s: float = Field(default=SETTLE_S, ge=0, le=300)
    efficiency_discharge: float = Field(gt=0.5, le=1)
    efficiency_charge: float = Field(gt=0.5, le=1)
    standby_w: float = Field(ge=0, le=500)
    soc_uncertainty_pct: float = Field(ge=0, le=25)
    drift_pct_per_cycle: float | None = Field(default=None, gt=0, le=10)
    soc_min_pct: float = Field(default=0, ge=0, le=50)
    soc_max_pct: float = Field(default=100, ge=50, le=100)
    cycles_per_day_max: float | None = Field(default=None, gt=0, le=10)
    counter_step_wh: float | None = Field(default=None, gt=0, le=10_000)


class Polling(StrictModel):
    """Periods of the poll groups, s. `energy` samples make intervals, `slow` points are read rarely."""

    live_s: Annotated[float, Field(ge=0.5, le=600)] = 5.0
    energy_s: Annotated[float, Field(ge=1, le=900)] = 30.0
    slow_s: Annotated[float, Field(ge=5, le=86_400)] = 300.0


class Overlay(StrictModel):
    """What differs on some firmware or model: taken when all of `when` hold after identification. Points, readings
    and sections given here replace those of the same name; of several overlays that hold, later ones replace what
    earlier ones gave. `read_only`: why nothing is written to it, whatever other overlays give."""

    name: Name
    when: tuple[Match, ...] = Field(min_length=1)
    points: dict[Name, Point] = Field(default_factory=dict)
    readings: dict[str, Reading] = Field(default_factory=dict)
    modbus: ModbusSection | None = None
    http: HttpSection | None = None
    control: Control | None = None
    watchdog: Watchdog | None = None
    read_only: Reason = ""

    def faults(self) -> Iterator[str]:
        if self.read_only and (self.control is not None or self.watchdog is not None):
            yield "read_only: excludes control and watchdog"


class ProfileDocument(StrictModel):
    """One product. The file's name is `<profile>.yaml`. `read_only`: why nothing is written to it."""

    language: Literal[1]
    profile: Name
    maker: str
    product: str
    notes: str = ""
    evidence: Evidence
    transport: Literal["mqtt", "modbus", "http"]
    facts: Facts
    watchdog: Watchdog | None = None
    messages: dict[Literal["live", "energy", "status", "ack"], Message] = Field(default_factory=dict)
    commands: Commands | None = None
    modbus: ModbusSection | None = None
    http: HttpSection | None = None
    mqtt: MqttSection | None = None
    polling: Polling = Polling()
    identity: Identity | None = None
    points: dict[Name, Point] = Field(default_factory=dict)
    readings: dict[str, Reading] = Field(default_factory=dict)
    control: Control | None = None
    overlays: tuple[Overlay, ...] = Field(default=(), max_length=8)
    read_only: Reason = ""

    def faults(self) -> Iterator[str]:
        if bool(self.messages) == bool(self.points):
            yield "exactly one of messages and points"
        if self.messages and self.transport != "mqtt":
            yield "transport: messages come over mqtt"
        sections = {"modbus": self.modbus, "http": self.http, "mqtt": self.mqtt}
        for name, section in sections.items():
            wanted = bool(self.points) and name == self.transport
            if (section is not None) != wanted:
                yield f"{name}: {'missing' if wanted else 'belongs to points over ' + name}"
        if self.points and (self.identity is None or not self.readings):
            yield "identity and readings: points need both"
        if not self.points and (self.readings or self.control or self.identity or self.overlays):
            yield "readings, control, identity and overlays belong to points"
        if self.read_only and (self.commands is not None or self.control is not None):
            yield "read_only: excludes commands and control"
        for i, overlay in enumerate(self.overlays):
            for name, own in (("modbus", overlay.modbus), ("http", overlay.http)):
                if own is not None and name != self.transport:
                    yield f"overlays.{i}.{name}: belongs to points over {name}"
        controlled = self.commands is not None or (self.control is not None and bool(self.control.discharge))
        if controlled != (self.watchdog is not None):
            yield "watchdog: " + ("missing" if controlled else "belongs to a product that is controlled")

    def under(self, overlay: Overlay | None) -> "ProfileDocument":
        """The document with the transport section that an overlay has, if it has one."""
        sections = {"modbus": overlay.modbus, "http": overlay.http} if overlay is not None else {}
        given = {name: section for name, section in sections.items() if section is not None}
        return self.model_copy(update=given) if given else self

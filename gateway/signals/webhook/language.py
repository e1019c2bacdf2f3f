"""One peer: the document a webhook file holds. Data only: no templates, no expressions, no code.

A field stands `at` a JSON pointer inside an event, or is a constant `value`. What a file does not say how to read is
refused when it comes, and never guessed.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from gateway.domain.access import NOBODYS_NAMES
from gateway.domain.errors import refuse
from gateway.domain.events.request import EventKind
from gateway.domain.types import ID_PATTERN
from gateway.signals.webhook.pointer import Pointer

PeerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Prose = Annotated[str, StringConstraints(min_length=3, max_length=2000)]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")]
SecretReference = Annotated[str, StringConstraints(pattern=r"^(env|file):.+$")]
Identifier = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
TagText = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Word = bool | int | float | Annotated[str, StringConstraints(max_length=128)]
"""A value that means something in a body."""

Words = Annotated[tuple[Annotated[Word, Field(union_mode="left_to_right")], ...], Field(min_length=1, max_length=32)]

UNITS_W = {"W": 1.0, "kW": 1e3, "MW": 1e6}
UNITS_S = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
BODY, TIMESTAMP = "{body}", "{timestamp}"
TOLERANCE_S_MAX = 3600


class WebhookModel(BaseModel):
    """Unknown keys are faults, kinds are not converted, and numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class PeerEvidence(StrEnum):
    """How well a file is known to describe its peer."""

    PUBLISHED = "published"
    UNVERIFIED = "unverified"


class TimeFormat(StrEnum):
    """How a moment is written."""

    RFC3339 = "rfc3339"
    EPOCH_S = "epoch_s"
    EPOCH_MS = "epoch_ms"


Time = Annotated[TimeFormat, Field(strict=False)]


class SignedTime(WebhookModel):
    """The header that says when a message was signed. It is taken for `tolerance_s` before and after."""

    header: HeaderName
    time: Time = TimeFormat.EPOCH_S
    tolerance_s: Annotated[int, Field(ge=1, le=TOLERANCE_S_MAX)] = 300


class HmacAuth(WebhookModel):
    """HMAC-SHA256 over `signed`: `{body}` is the raw body, `{timestamp}` the header as it came, other signs are
    themselves. `prefix` stands before the signature in its header. `former_secret` is taken too, while one replaces the
    other."""

    kind: Literal["hmac_sha256"]
    secret: SecretReference
    former_secret: SecretReference | None = None
    header: HeaderName
    encoding: Literal["hex", "base64"] = "hex"
    prefix: Annotated[str, StringConstraints(max_length=32)] = ""
    timestamp: SignedTime | None = None
    signed: Annotated[str, StringConstraints(max_length=128)] = BODY

    @model_validator(mode="after")
    def _covered(self) -> Self:
        faults = []
        if self.signed.count(BODY) != 1:
            faults.append("signed: {body} stands in it once")
        if self.signed.count(TIMESTAMP) != (self.timestamp is not None):
            faults.append(
                "signed: {timestamp} stands in it where there is a timestamp: what is not signed can be changed"
            )
        refuse(faults)
        return self


class BearerAuth(WebhookModel):
    """`Authorization: Bearer` with the secret. `former_secret` is taken too, while one replaces the other."""

    kind: Literal["bearer"]
    secret: SecretReference
    former_secret: SecretReference | None = None


class FieldAt(WebhookModel):
    """A value at a place."""

    at: Pointer


class FieldOrValue(WebhookModel):
    """A field at a place, or one value for all events."""

    at: Pointer | None = None

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if (self.at is None) == (getattr(self, "value", None) is None):
            raise ValueError("exactly one of at and value")
        return self


class OrderField(FieldAt):
    """What tells an event's changes apart: a number that grows with each, or the time each was issued at."""

    order: Annotated[Literal["number", "rfc3339", "epoch_s", "epoch_ms"], Field(alias="as")]


class StartField(FieldAt):
    """`absent`: what is meant where there is no start."""

    time: Time
    absent: Literal["refused", "now"] = "refused"


class EndField(FieldAt):
    """`absent`: what is meant where there is no end."""

    time: Time
    absent: Literal["refused", "open"] = "refused"


class LengthField(FieldOrValue):
    """A length of time."""

    value: Annotated[float, Field(ge=0)] | None = None
    unit: Literal["ms", "s", "min", "h"]


NoNumber = Literal["most_discharge", "most_charge", "most", "refused"]


class PowerField(FieldAt):
    """Power of all devices together, or the sum over `each` of a list. `positive`: which way a number above 0 goes;
    `unsigned`: the direction says it. `if_null`, `absent`: what no number means: the most that can be sustained, one
    way or (`most`) as the direction says."""

    each: Pointer | None = None
    unit: Literal["W", "kW", "MW"]
    positive: Literal["discharge", "charge", "unsigned"]
    if_null: NoNumber = "refused"
    absent: NoNumber = "refused"


class DirectionField(FieldOrValue):
    """The words for each way."""

    value: Literal["discharge", "charge"] | None = None
    discharge: Words | None = None
    charge: Words | None = None

    @model_validator(mode="after")
    def _worded(self) -> Self:
        if self.at is not None and self.discharge is None and self.charge is None:
            raise ValueError("discharge: the words for it, or for charge")
        return self


class FlagField(FieldOrValue):
    """The words for yes and no, and what is meant where there is none."""

    value: bool | None = None
    when_true: Words = (True,)
    when_false: Words = (False,)
    absent: bool | None = None


class KindField(FieldOrValue):
    """The words for each kind of event, and the kind where there is none. A dry run never actuates."""

    value: Annotated[EventKind, Field(strict=False)] | None = None
    real: Words | None = None
    capacity_test: Words | None = None
    dry_run: Words | None = None
    absent: Annotated[EventKind, Field(strict=False)] | None = None


class ReserveField(FieldOrValue):
    """What the program leaves in every battery."""

    value: Annotated[float, Field(ge=0, le=100)] | None = None
    unit: Literal["percent", "fraction"] = "percent"
    absent: Annotated[float, Field(ge=0, le=100)] = 0.0


class ProgramField(FieldOrValue):
    """A program of ours, or the peer's words for programs of ours."""

    value: Identifier | None = None
    words: Annotated[dict[str, Identifier], Field(max_length=256)] | None = None

    @model_validator(mode="after")
    def _mapped(self) -> Self:
        if self.at is not None and not self.words:
            raise ValueError("words: the peer's programs, each with ours")
        return self


class DevicesField(WebhookModel):
    """Which devices: all, those with a tag of `tags`, or those that a body names: one text or number at `at`, or `each`
    of a list there, `named_by` id or tag, behind `prefix`."""

    all: bool = False
    tags: Annotated[tuple[TagText, ...], Field(max_length=64)] = ()
    at: Pointer | None = None
    each: Pointer | None = None
    named_by: Literal["id", "tag"] = "tag"
    prefix: Annotated[str, StringConstraints(max_length=64)] = ""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.all, bool(self.tags), self.at is not None).count(True) != 1:
            raise ValueError("exactly one of all, tags and at")
        return self


class EventDocument(WebhookModel):
    """Where each field of an event stands. `active`: whether it holds; what is not active is cancelled. Without `order`
    messages count as they arrive, and a cancellation is final."""

    id: FieldAt
    active: FlagField | None = None
    order: OrderField | None = None
    start: StartField
    end: EndField | None = None
    duration: LengthField | None = None
    power: PowerField
    direction: DirectionField | None = None
    kind: KindField | None = None
    reserve: ReserveField | None = None
    precharge: FlagField | None = None
    prepare: LengthField | None = None
    program: ProgramField
    devices: DevicesField

    @model_validator(mode="after")
    def _whole(self) -> Self:
        faults = []
        if (self.end is None) == (self.duration is None):
            faults.append("end: exactly one of end and duration")
        if self.power.positive == "unsigned" and self.direction is None:
            faults.append("direction: power without a sign needs one")
        if self.power.positive != "unsigned" and self.direction is not None:
            faults.append("direction: the sign of the power says it")
        unsigned = ("most", "refused") if self.direction is not None else ("most_discharge", "most_charge", "refused")
        for key in ("if_null", "absent"):
            if getattr(self.power, key) not in unsigned:
                told = "told" if self.direction is not None else "not told"
                faults.append(f"power.{key}: one of {', '.join(unsigned)}: the direction is {told}")
        if self.precharge is not None and self.prepare is None:
            faults.append("prepare: how long before the start devices are charged")
        refuse(faults)
        return self


class Constants(WebhookModel):
    """What every event of the peer has."""

    priority: Annotated[int, Field(ge=1, le=1000)] = 100
    voluntary: bool = True
    compensation: Literal["up_to_site_load", "exports"] = "exports"
    takes_backup: bool = False
    start_spread_s: Annotated[float, Field(ge=0, le=900)] = 0.0


class WebhookDocument(WebhookModel):
    """One peer. `webhook`: its name, which is that of the file, and the source of its events. `events`: the list of
    events in a body; without it a body is one event."""

    webhook: PeerName
    title: Prose
    evidence: Annotated[PeerEvidence, Field(strict=False)]
    source: Prose
    notes: Prose | None = None
    auth: Annotated[HmacAuth | BearerAuth, Field(discriminator="kind")]
    requests_per_min: Annotated[int, Field(ge=1, le=100_000)] = 600
    events: Pointer | None = None
    event: EventDocument
    constants: Constants = Constants()

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.webhook in NOBODYS_NAMES:
            raise ValueError("webhook: the gateway uses this name itself")
        return self

"""A dispatch event as the platform writes it: the JSON body shared by REST and MQTT."""

import re
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from gateway.domain.dispatch import Answer
from gateway.domain.errors import InvalidInput
from gateway.domain.model import ID_PATTERN, DeviceId, EventId, EventKind, EventRequest, TargetGroup

MAX_BODY_BYTES = 1 << 20
MAX_GROUP_IDS = 200_000


def _rfc3339(value: object) -> object:
    """Only RFC 3339 text: a bare number or year would otherwise pass for a time."""
    if not (isinstance(value, str) and _RFC3339.match(value)):
        raise ValueError("a time is written in RFC 3339, like 2030-06-01T17:00:00-07:00")
    return value


_RFC3339 = re.compile(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d")
Moment = Annotated[AwareDatetime, BeforeValidator(_rfc3339)]
Identifier = Annotated[str, Field(pattern=ID_PATTERN)]


class GroupBody(BaseModel):
    """Who is addressed: everything, or the union of ids and tags."""

    model_config = ConfigDict(extra="forbid")

    all: bool = False
    ids: list[Identifier] = Field(default_factory=list, max_length=MAX_GROUP_IDS)
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(default_factory=list, max_length=256)

    @model_validator(mode="after")
    def _someone(self) -> "GroupBody":
        if not (self.all or self.ids or self.tags):
            raise ValueError("name devices: all, ids or tags")
        if self.all and (self.ids or self.tags):
            raise ValueError("all stands alone")
        return self


class EventBody(BaseModel):
    """A dispatch event. `target_w`: gross AC battery power of the group in W, + = discharge; null = the most that can
    be sustained to the end (`direction` says which way). `priority`: lower wins. A change carries a higher revision."""

    model_config = ConfigDict(extra="forbid", strict=False)

    id: Identifier
    revision: Annotated[int, Field(ge=0, le=2**53, strict=True)] = 0
    kind: EventKind = EventKind.REAL
    program: Annotated[str, Field(pattern=ID_PATTERN)]
    group: GroupBody
    start: Moment
    end: Moment
    target_w: Annotated[float, Field(allow_inf_nan=False, strict=True)] | None
    direction: Annotated[str, Field(pattern="^(discharge|charge)$")] = "discharge"
    priority: Annotated[int, Field(ge=1, le=1000, strict=True)] = 100
    cancelled: bool = False

    def request(self, *, source: str) -> EventRequest:
        """The event in the domain's words; the sign of `target_w` outranks `direction`."""
        return EventRequest(
            id=EventId(self.id),
            revision=self.revision,
            kind=self.kind,
            program=self.program,
            group=TargetGroup(
                all=self.group.all,
                ids=tuple(DeviceId(device) for device in self.group.ids),
                tags=tuple(self.group.tags),
            ),
            start_ms=round(self.start.timestamp() * 1000),
            end_ms=round(self.end.timestamp() * 1000),
            target_w=self.target_w,
            priority=self.priority,
            cancelled=self.cancelled,
            charge_when_max=self.direction == "charge",
            source=source,
        )


def parse_event(payload: bytes, *, source: str) -> EventRequest:
    """Read an event. Raises InvalidInput naming every fault and its place."""
    if len(payload) > MAX_BODY_BYTES:
        raise InvalidInput([f"(body): larger than {MAX_BODY_BYTES} bytes"])
    try:
        return EventBody.model_validate_json(payload).request(source=source)
    except ValidationError as error:
        places = [(".".join(str(p) for p in e["loc"]) or "(body)", e["msg"]) for e in error.errors()[:50]]
        raise InvalidInput([f"{place}: {message}" for place, message in places]) from error


def answer_body(answer: Answer) -> dict[str, Any]:
    """What the platform is told about its request."""
    return {
        "id": answer.id,
        "revision": answer.revision,
        "outcome": answer.outcome.value,
        "reason": answer.reason,
    }

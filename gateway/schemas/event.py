"""Parses a dispatch event as the platform writes it: the JSON body shared by REST and MQTT."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from gateway.domain.errors import InvalidInput
from gateway.domain.events.book import Answer
from gateway.domain.events.calendar import Daily
from gateway.domain.events.request import (
    OPEN_MS,
    Compensation,
    EventKind,
    EventRequest,
    Leg,
    Target,
    TargetGroup,
    Want,
)
from gateway.domain.events.scope import own_id
from gateway.domain.types import ID_PATTERN, DeviceId, EventId
from gateway.schemas.body import NAME_SHOWN, Body, read_json

MAX_BODY_BYTES = 1 << 20
MAX_GROUP_IDS = 200_000
MAX_LEGS = 1_000
MAX_OCCURRENCES = 400
NOW = "now"
OPEN: Literal["open"] = "open"
"""How the end of an event is written that goes on until further notice."""

NO_END = 'end: missing: a time or a duration_s, or "open" for until further notice'

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Weekday, ...] = get_args(Weekday)


def _rfc3339(value: object) -> object:
    """Accept only RFC 3339 text: a bare number or year would otherwise pass for a time."""
    if not (isinstance(value, str) and _RFC3339.match(value)):
        raise ValueError("a time is written in RFC 3339, like 2030-06-01T17:00:00-07:00")
    return value


def _zone(value: object) -> object:
    try:
        return ZoneInfo(str(value)).key
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{str(value)[:NAME_SHOWN]!r} is no time zone, like America/Los_Angeles") from error


_RFC3339 = re.compile(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d")
YEARS = range(2000, 2200)


def _in_range(value: datetime) -> datetime:
    """Refuse years that date arithmetic cannot handle (year 1 east of Greenwich)."""
    if value.year not in YEARS:
        raise ValueError(f"a year from {YEARS.start} to {YEARS.stop - 1}")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_rfc3339), AfterValidator(_in_range)]
_MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)


def _moment(value: object) -> datetime:
    try:
        return _MOMENT.validate_python(value)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


def _start(value: object) -> datetime | None:
    return None if value == NOW else _moment(value)


def _end(value: object) -> datetime | Literal["open"] | None:
    return OPEN if value == OPEN else None if value is None else _moment(value)


Start = Annotated[
    datetime | None,
    PlainValidator(_start),
    WithJsonSchema({"anyOf": [{"const": NOW}, {"type": "string", "format": "date-time"}]}),
]
"""A moment, or None for "now"."""

End = Annotated[
    datetime | Literal["open"] | None,
    PlainValidator(_end),
    WithJsonSchema({"anyOf": [{"const": OPEN}, {"type": "string", "format": "date-time"}, {"type": "null"}]}),
]
"""A moment, or that there is none until further notice."""

Identifier = Annotated[str, Field(pattern=ID_PATTERN)]
Watts = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, strict=True)]
Direction = Literal["discharge", "charge"]


class GroupBody(Body):
    """Who is addressed: everything, or the union of ids and tags."""

    all: StrictBool = False
    ids: list[Identifier] = Field(default_factory=list, max_length=MAX_GROUP_IDS)
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(default_factory=list, max_length=256)

    @model_validator(mode="after")
    def _someone(self) -> "GroupBody":
        if not (self.all or self.ids or self.tags):
            raise ValueError("name devices: all, ids or tags")
        if self.all and (self.ids or self.tags):
            raise ValueError("all stands alone")
        return self

    def group(self) -> TargetGroup:
        ids = tuple(DeviceId(device) for device in self.ids)
        return TargetGroup(all=self.all, ids=ids, tags=tuple(self.tags))


def _contradiction(power_w: float | None, direction: Direction) -> str | None:
    """What is wrong where a power and the direction that was sent with it do not go the same way."""
    if power_w is None or power_w == 0 or (power_w > 0) is (direction == "discharge"):
        return None
    return f"direction: {direction} contradicts {power_w:g} W (+ = discharge)"


class TargetBody(Body):
    """What is wanted. `power`: gross AC battery power of the group, W, + = discharge (null = the most that can be
    sustained, `direction` says which way; beside a power it agrees with its sign). `device_power`: of each device.
    `charge_to`: `soc_pct` of each device by the end. `follow_load`: `power_w` at the meter of each home, + = import.
    `idle`: no discharge. `self_consumption`: the maker's own mode. `backup`: charged as far as may be, and kept."""

    want: Want
    power_w: Watts | None = None
    soc_pct: Percent | None = None
    direction: Direction = "discharge"

    @model_validator(mode="after")
    def _fits(self) -> "TargetBody":
        if (self.want is Want.CHARGE_TO) != (self.soc_pct is not None):
            raise ValueError("soc_pct belongs to charge_to, and charge_to needs it")
        powered = self.want in (Want.POWER, Want.DEVICE_POWER, Want.FOLLOW_LOAD)
        if self.power_w is not None and not powered:
            raise ValueError(f"power_w does not belong to {self.want.value}")
        if self.power_w is None and self.want in (Want.DEVICE_POWER, Want.FOLLOW_LOAD):
            raise ValueError(f"power_w: {self.want.value} needs it")
        return self

    def contradiction(self) -> str | None:
        """What is wrong with the direction that was sent, if one was."""
        if "direction" not in self.model_fields_set:
            return None
        if self.want in (Want.POWER, Want.DEVICE_POWER):
            return _contradiction(self.power_w, self.direction)
        if self.direction == "charge" and self.want in (Want.CHARGE_TO, Want.BACKUP):
            return None
        return f"direction: {self.direction} does not belong to {self.want.value}"

    def target(self) -> Target:
        charge = self.want is Want.POWER and self.power_w is None and self.direction == "charge"
        return Target(want=self.want, power_w=self.power_w, soc_pct=self.soc_pct, charge_when_max=charge)


class WantedBody(Body):
    """One target: `target_w` (W of the group, null = the most), or `target` in full. A `direction` beside a power must
    agree with its sign."""

    target_w: Watts | None = None
    target: TargetBody | None = None
    direction: Direction = "discharge"

    @property
    def beside(self) -> list[str]:
        """What is wrong where `target` has something beside it that it says itself."""
        if self.target is None or not {"target_w", "direction"} & self.model_fields_set:
            return []
        return ["target: stands alone, without target_w and direction"]

    def contradiction(self) -> str | None:
        """What is wrong with the direction that was sent, if one was."""
        if self.target is not None:
            wrong = self.target.contradiction()
            return None if wrong is None else f"target.{wrong}"
        return _contradiction(self.target_w, self.direction) if "direction" in self.model_fields_set else None

    @property
    def says(self) -> bool:
        return self.target is not None or "target_w" in self.model_fields_set

    def wanted(self) -> Target:
        if self.target is not None:
            return self.target.target()
        charge = self.target_w is None and self.direction == "charge"
        return Target(want=Want.POWER, power_w=self.target_w, charge_when_max=charge)


class LegBody(WantedBody):
    """One target within an event, from `after_s` to `until_s` after its start; that of the last leg may be "open":
    until further notice."""

    after_s: Annotated[float, Field(ge=0, le=86_400, strict=True)]
    until_s: Annotated[float, Field(gt=0, le=86_400, strict=True)] | Literal["open"]

    @model_validator(mode="after")
    def _some(self) -> "LegBody":
        found = self.beside if self.says else ["target_w: missing"]
        if found:
            raise ValueError("\n".join(found))
        return self

    def leg(self) -> Leg:
        until_ms = round(self.until_s * 1000) if isinstance(self.until_s, float) else OPEN_MS
        return Leg(after_ms=round(self.after_s * 1000), until_ms=until_ms, target=self.wanted())


class RepeatBody(Body):
    """How an event repeats until its `end`, or until further notice where that is "open": every `every_s`, or at the
    same time of day in `timezone` on `weekdays`. By time of day, an occurrence of 24 h lasts to the same time of the
    next day, 23 or 25 h later where the clock changes, and a shorter one no longer than that."""

    every_s: Annotated[float, Field(ge=1, le=366 * 86_400, strict=True)] | None = None
    timezone: Annotated[str, BeforeValidator(_zone)] | None = None
    weekdays: list[Weekday] = Field(default_factory=lambda: list(DAYS), min_length=1)

    @model_validator(mode="after")
    def _one_way(self) -> "RepeatBody":
        if (self.every_s is None) == (self.timezone is None):
            raise ValueError("exactly one of every_s and timezone")
        return self


class EventBody(WantedBody):
    """A dispatch event. `start` may be "now" (that of the first receipt; refused 60 s after it was `sent`, or where its
    age is not known); `end`, or `duration_s` of it; an `end` "open" means until further notice. `target_w`: gross AC
    battery power of the group in W, + = discharge; null = the most that can be sustained to the end (`direction` says
    which way); `target` what else may be wanted; `legs` several of them. `repeat` needs `end` and, without legs,
    `duration_s` of an occurrence.

    `priority`: lower wins, then commitment over `voluntary`. A change carries a higher revision. `compensation`: how
    far the program pays, `nomination_w` its nomination. `reserve_pct`: what the program leaves in every battery.
    `start_spread_s`: members start within it. `prepare_s` before the start members keep their energy, and with
    `precharge` are charged where that is permitted. Devices in their maker's backup or storm mode are left alone unless
    `takes_backup`.
    """

    model_config = ConfigDict(extra="forbid", strict=False)

    id: Identifier
    revision: Annotated[int, Field(ge=0, le=2**53, strict=True)] = 0
    kind: EventKind = EventKind.REAL
    program: Annotated[str, Field(pattern=ID_PATTERN)]
    group: GroupBody
    start: Start
    sent: Moment | None = None
    end: End = None
    duration_s: Annotated[float, Field(gt=0, le=366 * 86_400, strict=True)] | None = None
    legs: list[LegBody] = Field(default_factory=list, max_length=MAX_LEGS)
    repeat: RepeatBody | None = None
    priority: Annotated[int, Field(ge=1, le=1000, strict=True)] = 100
    voluntary: StrictBool = True
    compensation: Compensation = Compensation.EXPORTS
    nomination_w: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | None = None
    reserve_pct: Percent = 0.0
    start_spread_s: Annotated[float, Field(ge=0, le=900, strict=True)] = 0.0
    prepare_s: Annotated[float, Field(ge=0, le=86_400, strict=True)] = 0.0
    precharge: StrictBool = False
    takes_backup: StrictBool = False
    cancelled: StrictBool = False

    @model_validator(mode="after")
    def _whole(self) -> "EventBody":
        problems = [
            ("target_w: missing", not (self.legs or self.says)),
            ("legs: target_w and target stand in the legs", bool(self.legs) and self.says),
            (NO_END, self.end is None and self.duration_s is None and not self.legs),
            (
                f"end: {OPEN if self.end == OPEN else 'a time'} and duration_s contradict each other: an event has one "
                "of them (both with repeat)",
                self.end is not None and self.duration_s is not None and not self.repeat,
            ),
            ("end: the legs say it", self.end is not None and bool(self.legs) and not self.repeat),
            ("duration_s: the legs say it", self.duration_s is not None and bool(self.legs)),
            ("end: an event that starts now has a duration_s", self.start is None and self.end not in (None, OPEN)),
            (
                'repeat: needs an end: a time, or "open" for until further notice',
                self.repeat is not None and self.end is None,
            ),
            ("repeat: by the time of day needs a start", self.start is None and self._by_day),
            ("legs: only the last one is open", any(leg.until_s == OPEN for leg in self.legs[:-1])),
            ("legs: what repeats has none that is open", self.repeat is not None and self._last_open),
            ("repeat: needs legs or a duration_s", self.repeat is not None and not (self.legs or self.duration_s)),
            ("nomination_w: missing", self.compensation is Compensation.NOMINATION and self.nomination_w is None),
            ("precharge: needs prepare_s", self.precharge and self.prepare_s == 0),
        ]
        found = self.beside + [text for text, wrong in problems if wrong]
        if not self.cancelled:
            # a cancellation is taken whatever it repeats of its event
            found += self._contradictions()
        if found:
            # alone this is no fault of the body: the book refuses the event
            found += ["end: not after start"] * self._ends_early
            raise ValueError("\n".join(found))
        return self

    @property
    def _ends_early(self) -> bool:
        return isinstance(self.start, datetime) and isinstance(self.end, datetime) and self.end <= self.start

    @property
    def _by_day(self) -> bool:
        return self.repeat is not None and self.repeat.timezone is not None

    @property
    def _last_open(self) -> bool:
        return bool(self.legs) and self.legs[-1].until_s == OPEN

    def _contradictions(self) -> list[str]:
        legs = [(f"legs.{i}.", leg.contradiction()) for i, leg in enumerate(self.legs)]
        found = [f"{place}{wrong}" for place, wrong in [("", self.contradiction()), *legs] if wrong is not None]
        if self.legs and "direction" in self.model_fields_set:
            found.append("direction: the legs say it")
        return found

    def request(self, *, source: str, received_ms: int | None = None) -> EventRequest:
        """The event in the domain's words. `received_ms`: when it came, if it cannot have waited on its way. Raises
        InvalidInput."""
        start_ms = 0 if self.start is None else _ms(self.start)
        legs = self._legs()
        length_ms = legs[-1].until_ms if legs else round((self.duration_s or 0) * 1000)
        daily = self._daily(start_ms, length_ms)
        open_ended = self.end == OPEN or self._last_open
        end_ms = OPEN_MS if open_ended else _ms(self.end) if isinstance(self.end, datetime) else start_ms + length_ms
        occurrences = () if daily is None or open_ended else _occurrences(daily, end_ms)
        if occurrences:
            start_ms, end_ms = occurrences[0][0], occurrences[-1][1]
        elif daily is not None:
            start_ms = daily.next_ms(start_ms - 1)
        return EventRequest(
            id=EventId(self.id),
            revision=self.revision,
            kind=self.kind,
            program=self.program,
            group=self.group.group(),
            start_ms=start_ms,
            end_ms=end_ms,
            target=legs[0].target if legs else self.wanted(),
            legs=legs,
            starts_ms=tuple(at_ms for at_ms, _ in occurrences),
            ends_ms=tuple(until_ms for _, until_ms in occurrences),
            every_ms=round(self.repeat.every_s * 1000) if self.repeat and self.repeat.every_s else None,
            daily=daily if open_ended else None,
            anchored=self.start is None,
            priority=self.priority,
            voluntary=self.voluntary,
            compensation=self.compensation,
            nomination_w=self.nomination_w,
            reserve_pct=self.reserve_pct,
            start_spread_s=self.start_spread_s,
            prepare_s=self.prepare_s,
            precharge=self.precharge,
            takes_backup=self.takes_backup,
            cancelled=self.cancelled,
            source=source,
            sent_ms=received_ms if self.sent is None else _ms(self.sent),
        )

    def _legs(self) -> tuple[Leg, ...]:
        if self.legs:
            return tuple(leg.leg() for leg in self.legs)
        if self.repeat is None or self.duration_s is None:
            return ()
        return (Leg(after_ms=0, until_ms=round(self.duration_s * 1000), target=self.wanted()),)

    def _daily(self, start_ms: int, length_ms: int) -> Daily | None:
        if self.repeat is None or self.repeat.timezone is None:
            return None
        weekdays = tuple(i for i, day in enumerate(DAYS) if day in self.repeat.weekdays)
        return Daily(zone=self.repeat.timezone, first_ms=start_ms, length_ms=length_ms, weekdays=weekdays)


def _occurrences(daily: Daily, end_ms: int) -> tuple[tuple[int, int], ...]:
    """Start and end of the occurrences up to the end of the event. Raises InvalidInput."""
    found: list[tuple[int, int]] = []
    for day in range(2 * MAX_OCCURRENCES):
        occurrence = daily.of_day(day)
        if occurrence is None:
            continue
        at_ms, until_ms = occurrence
        if min(until_ms, at_ms + daily.length_ms) > end_ms:
            break
        found.append((at_ms, min(until_ms, end_ms)))
    if not found or len(found) > MAX_OCCURRENCES:
        raise InvalidInput([f"repeat: 1 to {MAX_OCCURRENCES} occurrences are possible, not {len(found)}"])
    return tuple(found)


def _ms(moment: datetime) -> int:
    return round(moment.astimezone(UTC).timestamp() * 1000)


def parse_event(payload: bytes, *, source: str, received_ms: int | None = None) -> EventRequest:
    """Read an event. `received_ms`: when it came, if it cannot have waited on its way. Raises InvalidInput naming every
    fault and its place."""
    if len(payload) > MAX_BODY_BYTES:
        raise InvalidInput([f"(body): larger than {MAX_BODY_BYTES} bytes"])
    try:
        return read_json(EventBody, payload).request(source=source, received_ms=received_ms)
    except ArithmeticError as error:
        raise InvalidInput([f"(body): times that cannot be counted with: {error}"]) from error


def answer_body(answer: Answer) -> dict[str, Any]:
    """The answer to the platform's request, as JSON members."""
    return {
        "id": own_id(answer.id),
        "revision": answer.revision,
        "outcome": answer.outcome.value,
        "reason": answer.reason,
        "warnings": list(answer.warnings),
    }

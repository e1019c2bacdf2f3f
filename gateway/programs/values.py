"""Values of the program language: days, clock times, and a value with its evidence, source and effect."""

import re
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from gateway.domain.rules.rates import DateRange
from gateway.domain.rules.values import Certainty, Effect

V = TypeVar("V")

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|(24):(00)")
_MONTH_DAY = re.compile(r"[0-9]{2}-[0-9]{2}")
LEAP_YEAR = 2024

ProgramName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 &._-]{0,63}$")]
Prose = Annotated[str, StringConstraints(min_length=3, max_length=2000)]


def _not_empty(value: tuple[V, ...]) -> tuple[V, ...]:
    if not value:
        raise ValueError("at least one")
    return value


# a bound of the library's own would be told beside the faults of what is inside
NotEmpty = AfterValidator(_not_empty)


class ProgramModel(BaseModel):
    """Unknown keys are faults, and so are numbers that are not finite."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, str_strip_whitespace=True, allow_inf_nan=False, populate_by_name=True
    )


def _date(value: Any) -> Any:
    if isinstance(value, date) or (isinstance(value, str) and _DATE.fullmatch(value)):
        return value
    raise ValueError("a date is written 2026-05-01")


def _minutes(value: Any) -> int:
    found = _CLOCK.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a time of day is written "16:00", from "00:00" to "24:00"')
    hours, minutes = (part for part in found.groups() if part is not None)
    return int(hours) * 60 + int(minutes)


def _month_day(value: Any) -> tuple[int, int]:
    if not isinstance(value, str) or not _MONTH_DAY.fullmatch(value):
        raise ValueError("a day of every year is written 05-01")
    month, day = int(value[:2]), int(value[3:])
    try:
        date(LEAP_YEAR, month, day)
    except ValueError as error:
        raise ValueError(f"no year has a {value}") from error
    if (month, day) == (2, 29):
        raise ValueError("not every year has a 02-29")
    return month, day


def _clock_text(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _month_day_text(day: tuple[int, int]) -> str:
    return f"{day[0]:02d}-{day[1]:02d}"


def _decimal(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError("a number is needed")
    return str(value)


Day = Annotated[date, BeforeValidator(_date)]
ClockMinutes = Annotated[
    int,
    BeforeValidator(_minutes),
    PlainSerializer(_clock_text),
    WithJsonSchema({"type": "string", "pattern": f"^({_CLOCK.pattern})$"}),
]
MonthDay = Annotated[
    tuple[int, int],
    BeforeValidator(_month_day),
    PlainSerializer(_month_day_text),
    WithJsonSchema({"type": "string", "pattern": f"^{_MONTH_DAY.pattern}$"}),
]
Amount = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, max_digits=12, decimal_places=6)]


class DaySpan(ProgramModel):
    """From a day until another one, which is not inside; absent = without a bound."""

    first: Day | None = Field(default=None, alias="from")
    until: Day | None = None

    def dates(self) -> DateRange:
        return DateRange(first=self.first, until=self.until)


class Stated(ProgramModel, Generic[V]):
    """A value, how well it is known, and the name of the source (of `sources`) that says so."""

    value: V
    evidence: Certainty
    source: ProgramName


class Ruled(Stated[V], Generic[V]):
    """A value that binds a dispatch, and what breaking it does."""

    effect: Effect

"""One grid program: the document a program file holds. Data only: no templates, no expressions, no code."""

from enum import StrEnum
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema, model_validator

from gateway.domain.rules.counts import Per
from gateway.domain.rules.performance import (
    AdjustBy,
    BaselineMethod,
    BoundOf,
    BoundPer,
    Formula,
    Level,
    LikeDays,
    MeasurementPoint,
    TieBreak,
)
from gateway.domain.rules.preparation import KeepFrom
from gateway.domain.rules.rates import RateUnit, YearsBy
from gateway.domain.rules.stacking import PaidFor
from gateway.domain.rules.values import Certainty
from gateway.programs.values import (
    Amount,
    ClockMinutes,
    Day,
    DaySpan,
    MonthDay,
    NotEmpty,
    ProgramModel,
    ProgramName,
    Prose,
    Ruled,
    Stated,
    Word,
)

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WeekdayName = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
Hours = Annotated[float, Field(gt=0, le=10_000)]
KEEP_H_MAX = 24
Percent = Annotated[float, Field(ge=0, le=100)]


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"no time zone has the name {name!r}") from error
    return name


def _keep(value: Any) -> float | KeepFrom:
    if value == KeepFrom.NOTICE.value:
        return KeepFrom.NOTICE
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= KEEP_H_MAX:
        raise ValueError(f"hours before an event, more than 0 and at most {KEEP_H_MAX}, or notice")
    return float(value)


Zone = Annotated[str, AfterValidator(_zone)]
KeepHours = Annotated[
    float | KeepFrom,
    BeforeValidator(_keep),
    WithJsonSchema({"anyOf": [{"exclusiveMinimum": 0, "maximum": KEEP_H_MAX, "type": "number"}, {"const": "notice"}]}),
]


class Pricing(StrEnum):
    """`rates`: the rates stand in the file. `own`: whoever runs the program adds them in a copy. `none`: rules only,
    what the program pays is not worked out."""

    RATES = "rates"
    OWN = "own"
    NONE = "none"


class SeasonDates(ProgramModel):
    """A part of every year, both days inside; it may cross the end of the year."""

    name: ProgramName = "season"
    first: MonthDay = Field(alias="from")
    last: MonthDay = Field(alias="to")


class WeekdayRule(ProgramModel):
    """Days of the week, but for those of the set of holidays `but`."""

    days: Annotated[tuple[WeekdayName, ...], NotEmpty, Field(max_length=7)]
    but: ProgramName | None = None


class LocalWindow(ProgramModel):
    """From and until a local time of day; `until` not after `from` is of the next day. `season`: on days of that season
    alone."""

    first: ClockMinutes = Field(alias="from")
    until: ClockMinutes
    season: ProgramName | None = None


class Notice(ProgramModel):
    """An event is known `hours` before it begins, or `by` a local time `days_before`."""

    hours: Hours | None = None
    days_before: Annotated[int, Field(ge=0, le=31)] | None = None
    by: ClockMinutes | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "Notice":
        if (self.days_before is None) != (self.by is None) or (self.hours is None) == (self.by is None):
            raise ValueError("either hours, or days_before and by")
        return self


class LengthHours(ProgramModel):
    """The shortest and the longest event."""

    least: Hours | None = Field(default=None, alias="min")
    most: Hours | None = Field(default=None, alias="max")

    @model_validator(mode="after")
    def _in_order(self) -> "LengthHours":
        if self.least is None and self.most is None:
            raise ValueError("min, max or both")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError("min: more than max")
        return self


class CountMax(ProgramModel):
    """At most `most` within each day, month or season."""

    most: Annotated[float, Field(gt=0, le=100_000, alias="max")]
    per: Per


class DispatchRules(ProgramModel):
    """What binds a dispatch. A rule that is absent is one that the program does not have, or that nobody knows."""

    season: Ruled[Annotated[tuple[SeasonDates, ...], NotEmpty, Field(max_length=12)]] | None = None
    weekdays: Ruled[WeekdayRule] | None = None
    window: Ruled[Annotated[tuple[LocalWindow, ...], NotEmpty, Field(max_length=12)]] | None = None
    notice: Ruled[Notice] | None = None
    length_h: Ruled[LengthHours] | None = None
    events: Ruled[CountMax] | None = None
    hours: Ruled[CountMax] | None = None
    rest_h: Ruled[Hours] | None = None
    storm_lockout_h: Ruled[Hours] | None = None
    reserve_pct: Ruled[Percent] | None = None
    export: Ruled[bool] | None = None
    grid_charge: Ruled[bool] | None = None


class Measurement(ProgramModel):
    """What is measured where: the interval length, and the share of a period that must be there."""

    point: Stated[MeasurementPoint]
    interval_length_s: Stated[Literal[60, 300, 900, 1800, 3600]]
    coverage_min_pct: Stated[Percent] | None = None


class EligibilityTerms(ProgramModel):
    """What a battery needs to be in the program: its power by its nameplate, for how long, and how much of its last 30
    days is measured."""

    min_kw: Stated[Annotated[float, Field(gt=0, le=10_000)]] | None = None
    max_kw: Stated[Annotated[float, Field(gt=0, le=10_000)]] | None = None
    min_hours: Stated[Hours] | None = None
    completeness_pct: Stated[Percent] | None = None

    @model_validator(mode="after")
    def _possible(self) -> "EligibilityTerms":
        if self.min_kw is not None and self.max_kw is not None and self.max_kw.value < self.min_kw.value:
            raise ValueError("max_kw: less than min_kw")
        return self


DueDays = Annotated[int, Field(ge=0, le=366)]


class DataDue(ProgramModel):
    """The data of each day, month or season are due so many days after its last one, by a local time."""

    per: Literal["day", "month", "season"]
    days_after: DueDays
    by: ClockMinutes


class NominationDue(ProgramModel):
    """The nomination for each day, month or season is due so many days before its first one, by a local time, and is
    taken from so many days before on."""

    per: Literal["day", "month", "season"]
    opens_days_before: DueDays | None = None
    days_before: DueDays
    by: ClockMinutes

    @model_validator(mode="after")
    def _in_order(self) -> "NominationDue":
        if self.opens_days_before is not None and self.opens_days_before < self.days_before:
            raise ValueError("opens_days_before: it opens after it is due")
        return self


class ProgramDeadlines(ProgramModel):
    """What is due when."""

    data: Stated[DataDue] | None = None
    nomination: Stated[NominationDue] | None = None


class Preparation(ProgramModel):
    """What is done before a known event: energy is kept for so many hours, or from `rules.notice` on, charged from PV,
    charged from the grid (only where that is permitted, and never in the adjustment window of a baseline)."""

    keep_h: Stated[KeepHours] | None = None
    charge_from_pv: Stated[bool] | None = None
    charge_from_grid: Stated[bool] | None = None


class Stacking(ProgramModel):
    """A battery that other programs use too: what this one pays for, and what where another one pays for nothing but
    load in the same home; whether it pays no more than what was nominated; whether it yields to the events of others
    and to the preparation for them."""

    paid_for: Stated[PaidFor] | None = None
    beside_load: Stated[PaidFor] | None = None
    up_to_nomination: Stated[bool] | None = None
    yields: Stated[bool] | None = None


class Bound(ProgramModel):
    """A floor or a cap of performance: its value in kW or what it is taken from, of what it is, and over which time."""

    kw: Annotated[float, Field(ge=0)] | None = None
    of: BoundOf | None = None
    level: Level
    per: BoundPer

    @model_validator(mode="after")
    def _one_value(self) -> "Bound":
        if (self.kw is None) == (self.of is None):
            raise ValueError("either kw or of")
        return self


class HoursBefore(ProgramModel):
    """From so many hours before an event to fewer."""

    first: Annotated[float, Field(gt=0, le=48, alias="from_h")]
    last: Annotated[float, Field(ge=0, le=48, alias="until_h")] = 0.0

    @model_validator(mode="after")
    def _in_order(self) -> "HoursBefore":
        if self.last >= self.first:
            raise ValueError("until_h: not less than from_h")
        return self


class HourTypes(ProgramModel):
    """Types of official hours: those by which the program measures, and those by which it does not."""

    counted: Annotated[tuple[Word, ...], NotEmpty, Field(max_length=20)]
    uncounted: Annotated[tuple[Word, ...], Field(max_length=20)] = ()


class Performance(ProgramModel):
    """How performance is worked out: the names of a baseline and of a formula, their numbers, and where a floor and a
    cap apply; of a baseline from like days, which days those are, which of two equal ones is taken, how and by which
    hours before an event it is adjusted, and whether what a site exports counts; and which official hours count."""

    baseline: Stated[BaselineMethod]
    formula: Stated[Formula]
    parameters: dict[ProgramName, Stated[Amount]] = Field(default_factory=dict)
    floor: Stated[Bound] | None = None
    cap: Stated[Bound] | None = None
    adjustment_window: Stated[HoursBefore] | None = None
    like_days: Stated[LikeDays] | None = None
    ties: Stated[TieBreak] | None = None
    adjust_by: Stated[AdjustBy] | None = None
    exports_counted: Stated[bool] | None = None
    event_types: Stated[HourTypes] | None = None


class YearSpan(ProgramModel):
    """Years of taking part, from 1, both inside."""

    first: Annotated[int, Field(ge=1, le=99, alias="from")]
    last: Annotated[int, Field(ge=1, le=99, alias="to")]


class RateEntry(ProgramModel):
    """An amount of `currency` per unit, and whom and when it holds for; absent = for all. `events` and `enrolled` are
    days, `locked_years`: how long an enrollment keeps it."""

    name: ProgramName
    amount: Amount
    currency: Currency | None = None
    per: RateUnit
    evidence: Certainty
    source: ProgramName
    events: DaySpan = DaySpan()
    months: tuple[Annotated[int, Field(ge=1, le=12)], ...] = ()
    season: ProgramName | None = None
    enrolled: DaySpan = DaySpan()
    utilities: tuple[Word, ...] = ()
    duration_h: Annotated[int, Field(ge=1, le=24)] | None = None
    years: YearSpan | None = None
    locked_years: Annotated[int, Field(ge=1, le=30)] | None = None


class FactorEntry(ProgramModel):
    """What rates are multiplied by for events on some days: a bonus, a share of a budget."""

    name: ProgramName
    factor: Amount
    events: DaySpan
    evidence: Certainty
    source: ProgramName


class Penalty(ProgramModel):
    """What is taken for less than was promised, by its name."""

    kind: Literal["performance_adjustment", "bid_bands"]
    evidence: Certainty
    source: ProgramName


class Version(ProgramModel):
    """The rules of some days: from a day until another one, which is not inside; without `until`, until further
    notice."""

    version: ProgramName
    first: Day = Field(alias="from")
    until: Day | None = None
    evidence: Certainty
    source: ProgramName
    notes: Prose | None = None
    rules: DispatchRules = DispatchRules()
    eligibility: EligibilityTerms = EligibilityTerms()
    measurement: Measurement
    deadlines: ProgramDeadlines = ProgramDeadlines()
    preparation: Preparation = Preparation()
    stacking: Stacking = Stacking()
    performance: Performance
    participation_years: Stated[YearsBy] | None = None
    rates: tuple[RateEntry, ...] = Field(default=(), max_length=200)
    factors: tuple[FactorEntry, ...] = Field(default=(), max_length=50)
    penalties: tuple[Penalty, ...] = Field(default=(), max_length=20)

    def dates(self) -> DaySpan:
        return DaySpan(first=self.first, until=self.until)


class HolidaySet(ProgramModel):
    """Days without, as the program names them."""

    dates: Annotated[tuple[Day, ...], NotEmpty, Field(max_length=1000)]
    evidence: Certainty
    source: ProgramName


class ProgramDocument(ProgramModel):
    """One grid program. The file's name is `<program>.yaml`. `peer_ids`: what peers call it; `exclusive`: groups of
    which a battery is in one program only; `sources`: where its values are read, by name."""

    language: Literal[1]
    program: ProgramName
    title: Prose
    pricing: Pricing
    zone: Zone
    notes: Prose | None = None
    peer_ids: dict[ProgramName, tuple[Word, ...]] = Field(default_factory=dict)
    utilities: Stated[Annotated[tuple[Word, ...], NotEmpty, Field(max_length=100)]] | None = None
    exclusive: Stated[Annotated[tuple[ProgramName, ...], NotEmpty, Field(max_length=20)]] | None = None
    holidays: dict[ProgramName, HolidaySet] = Field(default_factory=dict)
    sources: dict[ProgramName, Prose]
    versions: Annotated[tuple[Version, ...], NotEmpty, Field(max_length=50)]

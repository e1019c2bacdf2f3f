"""A grid program: versions of its rules, each in force on some days."""

from dataclasses import dataclass, field
from datetime import date, timedelta

from gateway.domain.rules.calendar import (
    EVERY_DAY,
    ClockWindow,
    ProgramCalendar,
    Season,
    local_day,
    local_ms,
    midnight_ms,
)
from gateway.domain.rules.counts import Allowance
from gateway.domain.rules.performance import MeasurementRules, PerformanceRules
from gateway.domain.rules.preparation import UNPREPARED, KeepFrom, PreparationRules
from gateway.domain.rules.rates import DateRange, Rate, RateFactor, YearsBy
from gateway.domain.rules.stacking import ALONE, StackingTerms
from gateway.domain.rules.values import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchDays:
    """Weekdays (0 = Monday) on which a program dispatches, but for `holidays`."""

    weekdays: frozenset[int] = EVERY_DAY
    holidays: frozenset[date] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadNotice:
    """An event is known at least so long before it begins."""

    lead_s: float

    @property
    def lead_s_max(self) -> float:
        """The longest time before an event at which it becomes known, s."""
        return self.lead_s

    def by_ms(self, zone: str, start_ms: int) -> int:
        """The latest instant, UTC ms, at which an event that begins at `start_ms` becomes known."""
        return start_ms - round(self.lead_s * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockNotice:
    """An event is known by a local time of day (minutes after midnight) some days before it begins."""

    days_before: int
    by_min: int

    @property
    def lead_s_max(self) -> float:
        """The longest time before an event at which it becomes known, s: one at the end of a day of 25 hours."""
        return (self.days_before + 1) * 86_400 + 3_600 - self.by_min * 60

    def by_ms(self, zone: str, start_ms: int) -> int:
        """The latest instant, UTC ms, at which an event that begins at `start_ms` becomes known."""
        return local_ms(zone, local_day(zone, start_ms) - timedelta(days=self.days_before), self.by_min)


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthBounds:
    """The shortest and the longest event, s; None = without a bound."""

    least_s: float | None = None
    most_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramVersion:
    """The rules that are in force on `days`. None = the program has no such rule, or none is known.

    `rest_s` between the end of an event and the start of the next; `storm_lockout_s` before a storm, in which nothing
    is dispatched; `reserve_pct` stays in every battery; `export` and `grid_charge` say what the program permits;
    `preparation` is for what comes before an event, `stacking` for a battery that others use too.
    """

    program: str
    name: str
    zone: str
    days: DateRange
    season: Rule[tuple[Season, ...]] | None = None
    weekdays: Rule[DispatchDays] | None = None
    window: Rule[tuple[ClockWindow, ...]] | None = None
    notice: Rule[LeadNotice | ClockNotice] | None = None
    length: Rule[LengthBounds] | None = None
    events: Rule[Allowance] | None = None
    hours: Rule[Allowance] | None = None
    rest_s: Rule[float] | None = None
    storm_lockout_s: Rule[float] | None = None
    reserve_pct: Rule[float] | None = None
    export: Rule[bool] | None = None
    grid_charge: Rule[bool] | None = None
    preparation: PreparationRules = UNPREPARED
    stacking: StackingTerms = ALONE
    measurement: MeasurementRules | None = None
    performance: PerformanceRules | None = None
    rates: tuple[Rate, ...] = ()
    factors: tuple[RateFactor, ...] = ()
    years_by: YearsBy = YearsBy.ANNIVERSARY
    calendar: ProgramCalendar = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        days = DispatchDays() if self.weekdays is None else self.weekdays.value
        calendar = ProgramCalendar(
            zone=self.zone,
            seasons=() if self.season is None else self.season.value,
            weekdays=days.weekdays,
            holidays=days.holidays,
            windows=() if self.window is None else self.window.value,
        )
        object.__setattr__(self, "calendar", calendar)

    def kept_from_ms(self, start_ms: int) -> int:
        """From when energy is kept for an event that begins at `start_ms` (UTC); that itself = it is not."""
        keep = self.preparation.keep_s
        if keep is None:
            return start_ms
        if not isinstance(keep.value, KeepFrom):
            return start_ms - round(keep.value * 1000)
        return start_ms if self.notice is None else self.notice.value.by_ms(self.zone, start_ms)

    @property
    def kept_s_max(self) -> float:
        """The longest time for which energy is kept before an event, s."""
        keep = self.preparation.keep_s
        if keep is None:
            return 0.0
        if not isinstance(keep.value, KeepFrom):
            return keep.value
        return 0.0 if self.notice is None else self.notice.value.lead_s_max

    def from_ms(self) -> int | None:
        """The first instant at which it is in force, UTC ms; None = always was."""
        return None if self.days.first is None else midnight_ms(self.zone, self.days.first)

    def until_ms(self) -> int | None:
        """The instant at which it ends, UTC ms; None = until further notice."""
        return None if self.days.until is None else midnight_ms(self.zone, self.days.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridProgram:
    """A program as events name it; `versions` in the order of their days, none of which overlap."""

    id: str
    zone: str
    versions: tuple[ProgramVersion, ...]

    @property
    def kept_s_max(self) -> float:
        """The longest time for which energy is kept before an event, s."""
        return max((version.kept_s_max for version in self.versions), default=0.0)

    def version_on(self, day: date) -> ProgramVersion | None:
        """The version in force on a local day; None = there is none."""
        return next((version for version in self.versions if day in version.days), None)

    def version_at(self, utc_ms: int) -> ProgramVersion | None:
        """The version in force at an instant; None = there is none."""
        return self.version_on(local_day(self.zone, utc_ms))

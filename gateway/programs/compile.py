"""From the document of a program to the values that dispatch and money are judged by."""

from collections.abc import Callable
from typing import TypeVar

from gateway.domain.rules.calendar import ClockWindow, Season
from gateway.domain.rules.counts import Allowance
from gateway.domain.rules.preparation import AdjustmentWindow, KeepFrom, PreparationRules
from gateway.domain.rules.program import (
    ClockNotice,
    DispatchDays,
    GridProgram,
    LeadNotice,
    LengthBounds,
    ProgramVersion,
)
from gateway.domain.rules.rates import Rate, RateFactor, YearsBy
from gateway.domain.rules.stacking import PaidFor, StackingTerms
from gateway.domain.rules.values import Evident, Rule
from gateway.programs.language import (
    WEEKDAYS,
    CountMax,
    FactorEntry,
    HoursBefore,
    LengthHours,
    LocalWindow,
    Notice,
    ProgramDocument,
    RateEntry,
    SeasonDates,
    Stacking,
    Version,
    WeekdayRule,
)
from gateway.programs.performance import measurement_of, performance_of
from gateway.programs.values import Ruled, Stated, V

T = TypeVar("T")
HOUR_S = 3600.0


def compile_program(document: ProgramDocument) -> GridProgram:
    """The program of a document that has no faults."""
    return GridProgram(
        id=document.program,
        zone=document.zone,
        versions=tuple(_version(document, version) for version in document.versions),
    )


def season_of(dates: SeasonDates) -> Season:
    return Season(name=dates.name, first=dates.first, last=dates.last)


def rate_of(entry: RateEntry) -> Rate:
    """A rate that has a currency."""
    return Rate(
        name=entry.name,
        amount=entry.amount,
        currency=entry.currency or "",
        unit=entry.per,
        certainty=entry.evidence,
        source=entry.source,
        events=entry.events.dates(),
        months=frozenset(entry.months),
        season=entry.season or "",
        enrolled=entry.enrolled.dates(),
        utilities=frozenset(entry.utilities),
        duration_h=entry.duration_h,
        years=None if entry.years is None else (entry.years.first, entry.years.last),
    )


def _version(document: ProgramDocument, version: Version) -> ProgramVersion:
    rules = version.rules
    return ProgramVersion(
        program=document.program,
        name=version.version,
        zone=document.zone,
        days=version.dates().dates(),
        season=_rule(rules.season, lambda seasons: tuple(map(season_of, seasons))),
        weekdays=_rule(rules.weekdays, lambda days: _weekdays(document, days)),
        window=_rule(rules.window, lambda windows: tuple(map(_window, windows))),
        notice=_rule(rules.notice, _notice),
        length=_rule(rules.length_h, _length),
        events=_rule(rules.events, _allowance),
        hours=_rule(rules.hours, _allowance),
        rest_s=_rule(rules.rest_h, _seconds),
        storm_lockout_s=_rule(rules.storm_lockout_h, _seconds),
        reserve_pct=_rule(rules.reserve_pct, float),
        export=_rule(rules.export, bool),
        grid_charge=_rule(rules.grid_charge, bool),
        preparation=_preparation(version),
        stacking=_stacking(version.stacking),
        measurement=measurement_of(version.measurement),
        performance=performance_of(version.performance),
        rates=tuple(map(rate_of, version.rates)),
        factors=tuple(map(_factor, version.factors)),
        years_by=YearsBy.ANNIVERSARY if version.participation_years is None else version.participation_years.value,
    )


def _rule(ruled: Ruled[V] | None, value: Callable[[V], T]) -> Rule[T] | None:
    if ruled is None:
        return None
    return Rule(value=value(ruled.value), effect=ruled.effect, certainty=ruled.evidence, source=ruled.source)


def _preparation(version: Version) -> PreparationRules:
    preparation = version.preparation
    return PreparationRules(
        keep_s=_evident(preparation.keep_h, _kept),
        charge_from_pv=_evident(preparation.charge_from_pv, bool),
        charge_from_grid=_evident(preparation.charge_from_grid, bool),
        adjustment=_evident(version.performance.adjustment_window, _before),
    )


def _before(hours: HoursBefore) -> AdjustmentWindow:
    return AdjustmentWindow(from_s=_seconds(hours.first), until_s=_seconds(hours.last))


def _stacking(stacking: Stacking) -> StackingTerms:
    return StackingTerms(
        paid_for=PaidFor.BOTH if stacking.paid_for is None else stacking.paid_for.value,
        beside_load=None if stacking.beside_load is None else stacking.beside_load.value,
        up_to_nomination=stacking.up_to_nomination is not None and stacking.up_to_nomination.value,
        yields=stacking.yields is not None and stacking.yields.value,
    )


def _kept(keep: float | KeepFrom) -> float | KeepFrom:
    return keep if isinstance(keep, KeepFrom) else _seconds(keep)


def _evident(stated: Stated[V] | None, value: Callable[[V], T]) -> Evident[T] | None:
    if stated is None:
        return None
    return Evident(value=value(stated.value), certainty=stated.evidence, source=stated.source)


def _weekdays(document: ProgramDocument, rule: WeekdayRule) -> DispatchDays:
    holidays = () if rule.but is None else document.holidays[rule.but].dates
    return DispatchDays(weekdays=frozenset(map(WEEKDAYS.index, rule.days)), holidays=frozenset(holidays))


def _window(window: LocalWindow) -> ClockWindow:
    return ClockWindow(from_min=window.first, until_min=window.until, season=window.season or "")


def _notice(notice: Notice) -> LeadNotice | ClockNotice:
    if notice.by is not None and notice.days_before is not None:
        return ClockNotice(days_before=notice.days_before, by_min=notice.by)
    return LeadNotice(lead_s=_seconds(notice.hours or 0.0))


def _length(length: LengthHours) -> LengthBounds:
    return LengthBounds(
        least_s=None if length.least is None else _seconds(length.least),
        most_s=None if length.most is None else _seconds(length.most),
    )


def _allowance(count: CountMax) -> Allowance:
    return Allowance(most=count.most, per=count.per)


def _seconds(hours: float) -> float:
    return hours * HOUR_S


def _factor(entry: FactorEntry) -> RateFactor:
    return RateFactor(
        name=entry.name,
        factor=entry.factor,
        events=entry.events.dates(),
        certainty=entry.evidence,
        source=entry.source,
    )

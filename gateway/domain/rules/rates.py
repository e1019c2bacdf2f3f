"""Which rate a program pays: by the day of the event, the day of enrollment, utility, duration and year of taking part.

Money is `Decimal` with an ISO currency. A rate that depends on something that is not known is not chosen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any

from gateway.domain.rules.values import Certainty


class RateUnit(StrEnum):
    """What a rate is paid for."""

    KW_MONTH = "kw_month"
    KW_SEASON = "kw_season"
    KW_YEAR = "kw_year"
    KWH = "kwh"


class YearsBy(StrEnum):
    """How years of taking part are counted: from the day of enrollment, or by calendar years."""

    ANNIVERSARY = "anniversary"
    CALENDAR_YEAR = "calendar_year"


@dataclass(frozen=True, slots=True, kw_only=True)
class DateRange:
    """From a day until another one, which is not inside; None = without a bound."""

    first: date | None = None
    until: date | None = None

    def __contains__(self, day: date) -> bool:
        return (self.first is None or day >= self.first) and (self.until is None or day < self.until)

    def meets(self, other: "DateRange") -> bool:
        """Whether some day is inside both."""
        mine = self.first is None or other.until is None or self.first < other.until
        theirs = other.first is None or self.until is None or other.first < self.until
        return mine and theirs


ALWAYS = DateRange()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """An amount per unit, and whom and when it holds for. Empty = for all: `months` (1 to 12) of the event, `season`
    by its name, `utilities`; None = for all: `duration_h`, `years` of taking part (first and last, from 1)."""

    name: str
    amount: Decimal
    currency: str
    unit: RateUnit
    certainty: Certainty
    source: str
    events: DateRange = ALWAYS
    months: frozenset[int] = frozenset()
    season: str = ""
    enrolled: DateRange = ALWAYS
    utilities: frozenset[str] = frozenset()
    duration_h: int | None = None
    years: tuple[int, int] | None = None

    def rivals(self, other: "Rate") -> bool:
        """Whether both can hold for one battery and one event."""
        years = self.years is None or other.years is None or _overlap(self.years, other.years)
        return (
            self.unit is other.unit
            and self.events.meets(other.events)
            and self.enrolled.meets(other.enrolled)
            and _alike(self.months, other.months)
            and _alike(self.utilities, other.utilities)
            and (self.season == other.season or not self.season or not other.season)
            and (self.duration_h == other.duration_h or self.duration_h is None or other.duration_h is None)
            and years
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RateFactor:
    """What rates are multiplied by for events on some days: a bonus, a share of a budget."""

    name: str
    factor: Decimal
    events: DateRange
    certainty: Certainty
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCase:
    """One battery and one event, by local days. `enrolled`: the day of the enrollment that counts; None = unknown."""

    event: date
    season: str = ""
    enrolled: date | None = None
    utility: str | None = None
    duration_h: int | None = None
    years_by: YearsBy = YearsBy.ANNIVERSARY


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenRate:
    """The rate that holds; `amount` with every factor in it, not rounded."""

    rate: Rate
    factors: tuple[RateFactor, ...]
    amount: Decimal

    @property
    def certain(self) -> bool:
        """Whether all of it is verified."""
        return {self.rate.certainty, *(one.certainty for one in self.factors)} == {Certainty.VERIFIED}


@dataclass(frozen=True, slots=True, kw_only=True)
class NoRate:
    """No rate can be chosen, and why."""

    reason: str


def year_of_participation(enrolled: date, event: date, by: YearsBy) -> int:
    """The year of taking part that an event is in, from 1; 0 or less before the enrollment."""
    if by is YearsBy.CALENDAR_YEAR:
        return event.year - enrolled.year + 1
    return event.year - enrolled.year + ((event.month, event.day) >= (enrolled.month, enrolled.day))


def choose_rate(
    rates: Sequence[Rate], factors: Sequence[RateFactor], unit: RateUnit, case: RateCase
) -> ChosenRate | NoRate:
    """The one rate of `unit` that holds for a case, with the factors of the event's day."""
    dated = [rate for rate in rates if rate.unit is unit and _dated(rate, case)]
    held = [rate for rate in dated if not [*_unmet(rate, case)]]
    if len(held) == 1:
        applied = tuple(one for one in factors if case.event in one.events)
        amount = held[0].amount
        for one in applied:
            amount *= one.factor
        return ChosenRate(rate=held[0], factors=applied, amount=amount)
    if held:
        return NoRate(reason=f"several rates hold: {', '.join(rate.name for rate in held)}")
    near = [[*_unmet(rate, case)] for rate in dated]
    unknown = sorted({why for found in near if all(map(_is_unknown, found)) for why in found})
    return NoRate(reason=", ".join(unknown) or f"no rate per {unit.value} for an event on {case.event}")


def _dated(rate: Rate, case: RateCase) -> bool:
    in_month = not rate.months or case.event.month in rate.months
    return case.event in rate.events and in_month and rate.season in ("", case.season)


def _unmet(rate: Rate, case: RateCase) -> Iterator[str]:
    """What a rate asks for that a case does not have."""
    if rate.enrolled != ALWAYS or rate.years is not None:
        if case.enrolled is None:
            yield "the day of enrollment is unknown"
        elif case.enrolled not in rate.enrolled:
            yield "enrolled at another time"
        elif rate.years is not None:
            year = year_of_participation(case.enrolled, case.event, case.years_by)
            if not rate.years[0] <= year <= rate.years[1]:
                yield "another year of taking part"
    if rate.utilities and case.utility not in rate.utilities:
        yield "the utility is unknown" if case.utility is None else "another utility"
    if rate.duration_h is not None and case.duration_h != rate.duration_h:
        yield "the duration is unknown" if case.duration_h is None else "another duration"


def _is_unknown(why: str) -> bool:
    return why.endswith("unknown")


def _alike(one: frozenset[Any], other: frozenset[Any]) -> bool:
    return not one or not other or bool(one & other)


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]

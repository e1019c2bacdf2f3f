"""The official event calendar of a program: which hours of an area were called, by whom, and as what.

An hour whose type is not known stays so: it is neither counted nor left out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction

from gateway.domain.programs.local_hours import Month, local_hour, local_month, month_span
from gateway.domain.programs.prices import HourPrice, SeriesOrigin, by_start
from gateway.domain.programs.pricing import TableHour
from gateway.domain.rules.calendar import HOUR_MS, Span, midnight_ms, united
from gateway.domain.rules.performance import EventTypes
from gateway.domain.rules.program import GridProgram

DECIDED_BY_DAY = 20
"""By this day of a month its hours are known: the program's own test decides it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficialHour:
    """An hour that was called, by the start (UTC ms) of it; `event_type` None = not known yet."""

    start_ms: int
    event_type: str | None
    announced_by: str
    origin: SeriesOrigin


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarDiff:
    """Hours by their start (UTC ms): official ones of which nothing was dispatched to us, those of which only a part
    was, and hours with a dispatch that are not official."""

    never_dispatched: tuple[int, ...]
    partly_dispatched: tuple[int, ...]
    not_official: tuple[int, ...]

    @property
    def agrees(self) -> bool:
        return not (self.never_dispatched or self.partly_dispatched or self.not_official)


def calendar_diff(official: Iterable[OfficialHour], dispatched: Iterable[Span]) -> CalendarDiff:
    """Compare the official hours of a time with what was dispatched to us in it (UTC ms, half open)."""
    starts = sorted({hour.start_ms for hour in official})
    covered: dict[int, int] = {}
    for start_ms, end_ms in united(dispatched):
        for hour_ms in range(start_ms - start_ms % HOUR_MS, end_ms, HOUR_MS):
            part = min(end_ms, hour_ms + HOUR_MS) - max(start_ms, hour_ms)
            covered[hour_ms] = covered.get(hour_ms, 0) + part
    return CalendarDiff(
        never_dispatched=tuple(at for at in starts if at not in covered),
        partly_dispatched=tuple(at for at in starts if 0 < covered.get(at, 0) < HOUR_MS),
        not_official=tuple(sorted(set(covered) - set(starts))),
    )


def decided_by_ms(program: GridProgram, month: Month) -> int:
    """When a month's hours are known at the latest: local midnight before its 20th day, UTC ms."""
    return midnight_ms(program.zone, date(*month, DECIDED_BY_DAY))


def undecided_months(program: GridProgram, official: Iterable[OfficialHour], now_ms: int) -> list[Month]:
    """Months of the season under way that are past their 20th local day and have no official hour that counts.

    A program that names no types of hours has none of these, and neither has one without a season.
    """
    return [month for month in open_months(program, official, now_ms) if decided_by_ms(program, month) <= now_ms]


def open_months(program: GridProgram, official: Iterable[OfficialHour], now_ms: int) -> list[Month]:
    """The months of the season under way, up to this one, that have no official hour that counts."""
    version = program.version_at(now_ms)
    today = local_hour(program.zone, now_ms)[0]
    if version is None or version.season is None or version.performance is None:
        return []
    types, season = version.performance.event_types, version.calendar.season(today)
    if types is None or season is None:
        return []
    counted = {local_month(program.zone, hour.start_ms) for hour in official if _counts(types.value, hour)}
    first = max(season.began(today), version.days.first or date.min)
    found: list[Month] = []
    month = (first.year, first.month)
    while month <= (today.year, today.month):
        if month not in counted and _has_day(program, month):
            found.append(month)
        month = local_month(program.zone, month_span(program.zone, month)[1])
    return found


def table_hours(
    zone: str, official: Sequence[OfficialHour], prices: Iterable[HourPrice], net_kw: dict[int, Fraction]
) -> list[TableHour]:
    """Official hours with their prices and what a battery gave in them (kW by the start of the hour), to be priced.
    What is missing of either stays unknown."""
    known = by_start(prices)
    found = []
    for hour in sorted(official, key=lambda one: one.start_ms):
        day, hour_end = local_hour(zone, hour.start_ms)
        price = known.get(hour.start_ms)
        found.append(
            TableHour(
                day=day,
                hour_end=hour_end,
                start_ms=hour.start_ms,
                event_type=hour.event_type,
                price=None if price is None else price.price,
                net_kw=net_kw.get(hour.start_ms),
            )
        )
    return found


def _counts(types: EventTypes, hour: OfficialHour) -> bool:
    return hour.event_type is not None and types.counts(hour.event_type) is True


def _has_day(program: GridProgram, month: Month) -> bool:
    """Whether some day of a month is inside a season of the program."""
    day = date(*month, 1)
    while (day.year, day.month) == month:
        version = program.version_on(day)
        if version is not None and version.calendar.season(day) is not None:
            return True
        day += timedelta(days=1)
    return False

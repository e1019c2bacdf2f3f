"""How many events, and how many hours, a program has had in a season, a month or a day of its own calendar."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

from gateway.domain.rules.calendar import HOUR_MS, ProgramCalendar, Span, local_day, midnight_ms, united


class Per(StrEnum):
    """Within which of the program's local days something is counted; without seasons that is the year."""

    DAY = "day"
    MONTH = "month"
    SEASON = "season"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """At most `most` of something within each day, month or season."""

    most: float
    per: Per


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """Events, and hours of them, within one day, month or season."""

    events: int
    hours: float


def period(calendar: ProgramCalendar, utc_ms: int, per: Per) -> Span:
    """The day, month or season that an instant is in, UTC ms. Outside every season it is the year."""
    day = local_day(calendar.zone, utc_ms)
    if per is Per.DAY:
        first, after = day, day + timedelta(days=1)
    elif per is Per.MONTH:
        first = day.replace(day=1)
        after = (first + timedelta(days=31)).replace(day=1)
    elif (season := calendar.season(day)) is not None:
        first, after = season.began(day), season.over(day)
    else:
        first, after = date(day.year, 1, 1), date(day.year + 1, 1, 1)
    return midnight_ms(calendar.zone, first), midnight_ms(calendar.zone, after)


def used(events: Iterable[Span], within: Span) -> Used:
    """What `events` use of a period. Events that overlap or touch are one: a program that names its homes in several
    events of one evening has dispatched once. An event counts where it begins, its hours where they are."""
    spans = united(span for span in events if span[0] < within[1] and span[1] > within[0])
    hours = sum(min(end, within[1]) - max(start, within[0]) for start, end in spans) / HOUR_MS
    return Used(events=sum(within[0] <= start for start, _ in spans), hours=hours)

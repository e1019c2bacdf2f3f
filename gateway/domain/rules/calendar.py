"""Seasons, days and local-time windows of a program, as spans of UTC.

An instant is inside a window if a clock in the program's time zone shows a time of day within it: an hour that the
clock repeats counts twice, one that it leaves out not at all.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

Span = tuple[int, int]
"""Start and end in UTC ms, half open."""

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
DAY_MINUTES = 24 * 60
EVERY_DAY = frozenset(range(7))

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Season:
    """A part of every year, from `first` to `last` (month and day, both inside); it may cross the end of the year. 28
    February is the last day of that month, whatever the year."""

    name: str
    first: tuple[int, int]
    last: tuple[int, int]

    def covers(self, day: date) -> bool:
        """Whether `day` is inside."""
        at = (day.month, 28 if day.month == 2 else day.day) if day.day == 29 else (day.month, day.day)
        if self.first <= self.last:
            return self.first <= at <= self.last
        return at >= self.first or at <= self.last

    def began(self, day: date) -> date:
        """The first day of the season that `day` is inside of."""
        year = day.year if (day.month, day.day) >= self.first else day.year - 1
        return date(year, *self.first)

    def over(self, day: date) -> date:
        """The day after the last one of the season that `day` is inside of."""
        began = self.began(day)
        after = date(began.year + (self.first > self.last), *self.last) + timedelta(days=1)
        return after.replace(month=3, day=1) if (after.month, after.day) == (2, 29) else after


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockWindow:
    """From and until a time of day, minutes after local midnight; `until_min` not after `from_min` is of the next day,
    and the window belongs to the day on which it begins. `season`: of the days of that season alone."""

    from_min: int
    until_min: int
    season: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramCalendar:
    """When a program may dispatch. No seasons = all year, no windows = all day. `weekdays`: 0 = Monday; `holidays` are
    days without. `all_year`: seasons are known and bind nothing."""

    zone: str
    seasons: tuple[Season, ...] = ()
    weekdays: frozenset[int] = EVERY_DAY
    holidays: frozenset[date] = frozenset()
    windows: tuple[ClockWindow, ...] = ()
    all_year: bool = False

    def spans(self, from_ms: int, until_ms: int) -> list[Span]:
        """The spans inside `from_ms` to `until_ms`, ascending, those that touch as one."""
        if until_ms <= from_ms:
            return []
        first, last = local_day(self.zone, from_ms), local_day(self.zone, until_ms - 1)
        return [
            (max(start_ms, from_ms), min(end_ms, until_ms))
            for start_ms, end_ms in united(self._days(first - timedelta(days=1), last))
            if start_ms < until_ms and end_ms > from_ms
        ]

    def covers(self, span: Span) -> bool:
        """Whether all of `span` is inside."""
        return self.spans(*span) == [span]

    def season(self, day: date) -> Season | None:
        """The season of a local day; None outside."""
        return next((season for season in self.seasons if season.covers(day)), None)

    def without(self, *, seasons: bool = False, days: bool = False, windows: bool = False) -> "ProgramCalendar":
        """The same calendar without these rules."""
        kept = replace(self, all_year=True) if seasons else self
        kept = replace(kept, weekdays=EVERY_DAY, holidays=frozenset()) if days else kept
        return replace(kept, windows=()) if windows else kept

    def _days(self, first: date, last: date) -> Iterator[Span]:
        for n in range((last - first).days + 1):
            day = first + timedelta(days=n)
            if day.weekday() not in self.weekdays or day in self.holidays:
                continue
            season = self.season(day)
            if self.seasons and season is None and not self.all_year:
                continue
            for window in self.windows or (ClockWindow(from_min=0, until_min=DAY_MINUTES),):
                if not window.season or (season is not None and window.season == season.name):
                    yield from _of_day(self.zone, day, window)


def local_day(zone: str, utc_ms: int) -> date:
    """The date that a calendar in `zone` shows."""
    return (_EPOCH + timedelta(milliseconds=utc_ms)).astimezone(ZoneInfo(zone)).date()


def midnight_ms(zone: str, day: date) -> int:
    """The first instant of a local day, UTC ms."""
    return (datetime.combine(day, time(), ZoneInfo(zone)) - _EPOCH) // timedelta(milliseconds=1)


def local_ms(zone: str, day: date, minutes: int) -> int:
    """The instant (UTC ms) at which a clock shows a time of day, the first of two; of a time that it leaves out, as
    much later as it leaves out."""
    local = datetime.combine(day, time(), ZoneInfo(zone)) + timedelta(minutes=minutes)
    return (local - _EPOCH) // timedelta(milliseconds=1)


def _of_day(zone: str, day: date, window: ClockWindow) -> Iterator[Span]:
    if window.from_min < window.until_min:
        yield from _clock_spans(zone, day, window.from_min, window.until_min)
    else:
        yield from _clock_spans(zone, day, window.from_min, DAY_MINUTES)
        yield from _clock_spans(zone, day + timedelta(days=1), 0, window.until_min)


@lru_cache(maxsize=4096)
def _clock_spans(zone: str, day: date, from_min: int, until_min: int) -> Sequence[Span]:
    """The instants of a local day at which its clock shows from `from_min` to `until_min`."""
    found: list[Span] = []
    for start_ms, end_ms, offset_ms in _pieces(zone, day):
        # what a clock with this offset would show, as if it never changed
        zero_ms = (day - _EPOCH.date()).days * DAY_MS - offset_ms
        first_ms, last_ms = zero_ms + from_min * MINUTE_MS, zero_ms + until_min * MINUTE_MS
        if max(start_ms, first_ms) < min(end_ms, last_ms):
            found.append((max(start_ms, first_ms), min(end_ms, last_ms)))
    return united(found)


@lru_cache(maxsize=4096)
def _pieces(zone: str, day: date) -> Sequence[tuple[int, int, int]]:
    """The parts of a local day in which the clock runs evenly: start and end (UTC ms), and the offset from UTC (ms)."""
    start_ms, end_ms = midnight_ms(zone, day), midnight_ms(zone, day + timedelta(days=1))
    offset_ms = _offset_ms(zone, start_ms)
    if _offset_ms(zone, end_ms - 1) == offset_ms:
        # no clock is changed twice in a day
        return [(start_ms, end_ms, offset_ms)]
    edges = [start_ms]
    for hour_ms in range(start_ms, end_ms, HOUR_MS):
        until_ms = min(hour_ms + HOUR_MS, end_ms) - 1
        if _offset_ms(zone, hour_ms) != _offset_ms(zone, until_ms):
            minutes = range(hour_ms, until_ms + 1, MINUTE_MS)
            before = _offset_ms(zone, hour_ms)
            edges.append(minutes[bisect_right(minutes, False, key=lambda ms: _offset_ms(zone, ms) != before)])
        elif _offset_ms(zone, hour_ms) != _offset_ms(zone, hour_ms - 1) and hour_ms > start_ms:
            edges.append(hour_ms)
    ends = [*edges[1:], end_ms]
    return [(edge, end, _offset_ms(zone, edge)) for edge, end in zip(edges, ends, strict=True)]


def _offset_ms(zone: str, utc_ms: int) -> int:
    offset = (_EPOCH + timedelta(milliseconds=utc_ms)).astimezone(ZoneInfo(zone)).utcoffset()
    return (offset or timedelta()) // timedelta(milliseconds=1)


def united(spans: Iterable[Span]) -> list[Span]:
    """Spans that overlap or touch as one, ascending."""
    found: list[Span] = []
    for start_ms, end_ms in sorted(spans):
        if found and start_ms <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end_ms)
        else:
            found.append((start_ms, end_ms))
    return found

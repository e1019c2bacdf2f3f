"""Occurrences by the calendar: at the same time of day in a time zone, through the days on which its clock changes.

They are worked out where they are asked for and never listed: an event that repeats until further notice has no last.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

DAY_MS = 86_400_000
NEAR_DAYS = 9
"""An occurrence of a weekly event is at most so many days from any moment, whatever the clock does meanwhile."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Daily:
    """Occurrences of `length_ms` at the time of day of `first_ms` (UTC) in `zone`, from then on, on `weekdays` (0 =
    Monday). One of 24 h lasts to the same time of the next day, 23 or 25 h later where the clock changes, and a shorter
    one no longer than that. `first_ms` itself may be the second of two equal times; on other days such a time is the
    first of the two, and one that the clock leaves out is later by what it leaves out."""

    zone: str
    first_ms: int
    length_ms: int
    weekdays: tuple[int, ...] = tuple(range(7))

    def of_day(self, day: int) -> tuple[int, int] | None:
        """Start and end (UTC ms) of the occurrence `day` days after the first day; None on a weekday without one."""
        if (self._first() + timedelta(days=day)).weekday() not in self.weekdays:
            return None
        at_ms, next_ms = self._same_time_ms(day), self._same_time_ms(day + 1)
        if self.length_ms == DAY_MS:
            return at_ms, next_ms
        until_ms = at_ms + self.length_ms
        return at_ms, min(until_ms, next_ms) if self.length_ms < DAY_MS else until_ms

    def newest(self, utc_ms: int) -> tuple[int, int] | None:
        """Start and end of the newest occurrence at or before `utc_ms`; None before the first."""
        near = _near(self, (utc_ms - self.first_ms) // DAY_MS)
        at = bisect_right(near, utc_ms, key=_start_ms) - 1
        return near[at] if at >= 0 else None

    def next_ms(self, utc_ms: int) -> int:
        """Start of the first occurrence after `utc_ms`."""
        utc_ms = max(utc_ms, self.first_ms - 1)
        near = _near(self, (utc_ms - self.first_ms) // DAY_MS)
        return near[bisect_right(near, utc_ms, key=_start_ms)][0]

    def _first(self) -> datetime:
        return (_EPOCH + timedelta(milliseconds=self.first_ms)).astimezone(ZoneInfo(self.zone))

    def _same_time_ms(self, day: int) -> int:
        """The time of day of the first occurrence, `day` days later."""
        # a sum is the first of two equal times (PEP 495)
        return (
            self.first_ms if day == 0 else (self._first() + timedelta(days=day) - _EPOCH) // timedelta(milliseconds=1)
        )


@lru_cache(maxsize=4096)
def _near(daily: Daily, day: int) -> Sequence[tuple[int, int]]:
    days = range(max(0, day - NEAR_DAYS), max(0, day) + NEAR_DAYS + 1)
    return [found for one in days if (found := daily.of_day(one)) is not None]


def _start_ms(occurrence: tuple[int, int]) -> int:
    return occurrence[0]

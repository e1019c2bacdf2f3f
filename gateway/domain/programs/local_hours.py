"""Clock hours and months as a program's time zone shows them."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from gateway.domain.rules.calendar import HOUR_MS, local_day, midnight_ms

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Month = tuple[int, int]
"""Year and month."""


def hour_starts(zone: str, day: date, hour_end: int) -> list[int]:
    """The instants (UTC ms) at which the hour that ends at `hour_end` (1 to 24) of a local day begins: one, two where
    the clock repeats it, none where it leaves it out."""
    until_ms = midnight_ms(zone, day + timedelta(days=1))
    whole = range(midnight_ms(zone, day), until_ms, HOUR_MS)
    return [at_ms for at_ms in whole if local_hour(zone, at_ms) == (day, hour_end)]


def local_hour(zone: str, at_ms: int) -> tuple[date, int]:
    """The local day and the hour, by its end (1 to 24), that an instant is inside of."""
    local = (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(ZoneInfo(zone))
    return local.date(), local.hour + 1


def local_month(zone: str, at_ms: int) -> Month:
    """The local month that an instant is inside of."""
    day = local_day(zone, at_ms)
    return day.year, day.month


def month_span(zone: str, month: Month) -> tuple[int, int]:
    """Start and end of a local month, UTC ms."""
    year, number = month
    after = date(year + number // 12, number % 12 + 1, 1)
    return midnight_ms(zone, date(year, number, 1)), midnight_ms(zone, after)


def day_parts(zone: str, day: date, length_s: int) -> int:
    """How many intervals a local day has; of a quarter of an hour 92, 96 or 100."""
    return (midnight_ms(zone, day + timedelta(days=1)) - midnight_ms(zone, day)) // (length_s * 1000)

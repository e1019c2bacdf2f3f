"""Market-aware storage (DSGS option 3): a month's demonstrated capacity, weighted by the hours' prices.

    DC = sum(price * (kW - baseline)) / sum(price)        pay = max(0, DC) * rate

Over the hours of Capacity and Test Capacity events of the local month. An hour without data counts as 0 kW. The floor
is on the month. A price that is missing is anything between the lowest and the highest of the month, whatever the
hour's kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import product
from zoneinfo import ZoneInfo

from simulators.settlement import Exact

COUNTED = frozenset({"Capacity", "Test Capacity"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """One clock hour, named by its local day and the hour at which it ends (1 to 24). `net_kw`: mean discharge less
    charge, None = no data. `price`: per MWh, None = missing."""

    day: date
    hour_end: int
    event_type: str
    price: Exact | None
    net_kw: Exact | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """What a month comes to. `capacity_kw`: None where no price is known. `least_kw` and `most_kw`: what it is
    whatever the missing prices are."""

    capacity_kw: Exact | None
    least_kw: Exact | None
    most_kw: Exact | None
    hours: int

    def pay(self, rate: Exact) -> tuple[Exact, Exact] | None:
        """The least and the most that is paid for it; both the same where no price is missing."""
        if self.least_kw is None or self.most_kw is None:
            return None
        return max(Exact(0), self.least_kw) * rate, max(Exact(0), self.most_kw) * rate


def local_month(start: datetime, zone: str) -> tuple[int, int]:
    """Year and month of an hour that begins at `start`, where it happens."""
    local = start.astimezone(ZoneInfo(zone))
    return local.year, local.month


def hour_start(day: date, hour_end: int, zone: str) -> datetime:
    """When an hour begins, UTC: `hour_end` 17 is 16:00 to 17:00 local."""
    return datetime(day.year, day.month, day.day, hour_end - 1, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def month(hours: Sequence[Hour], baseline_kw: Exact) -> Month:
    """A month from its hours; hours of other kinds of events are passed over."""
    counted = [hour for hour in hours if hour.event_type in COUNTED]
    seen = [hour.price for hour in hours if hour.price is not None]
    known = [hour.price for hour in counted if hour.price is not None]
    if not seen:
        return Month(capacity_kw=None, least_kw=None, most_kw=None, hours=len(counted))
    missing = [hour for hour in counted if hour.price is None]
    if not missing:
        capacity = _weighted(counted, known, baseline_kw)
        return Month(capacity_kw=capacity, least_kw=capacity, most_kw=capacity, hours=len(counted))
    # a ratio of two linear functions is extreme at a corner
    found = [
        _weighted([*(hour for hour in counted if hour.price is not None), *missing], [*known, *corner], baseline_kw)
        for corner in product((min(seen), max(seen)), repeat=len(missing))
    ]
    sure = [one for one in found if one is not None]
    whole = len(sure) == len(found)
    return Month(
        capacity_kw=None,
        least_kw=min(sure) if whole else None,
        most_kw=max(sure) if whole else None,
        hours=len(counted),
    )


def _weighted(hours: Sequence[Hour], prices: Sequence[Exact], baseline_kw: Exact) -> Exact | None:
    weight = sum(prices, Exact(0))
    if weight <= 0:
        return None
    above = (
        price * ((hour.net_kw if hour.net_kw is not None else Exact(0)) - baseline_kw)
        for hour, price in zip(hours, prices, strict=True)
    )
    return sum(above, Exact(0)) / weight

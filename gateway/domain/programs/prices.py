"""Prices of local hours, by program and price area, with where they come from; and the area that a site is in."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesOrigin:
    """Where a value of a series comes from: `version` counts the imports of its program and area, from 1."""

    version: int
    source: str
    imported_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HourPrice:
    """The price per MWh of the hour that begins at `start_ms` (UTC)."""

    start_ms: int
    price: Decimal
    currency: str
    origin: SeriesOrigin


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteArea:
    """From `from_ms` (UTC) on a site is in a price area, until another row says otherwise; "" = in none."""

    site: str
    area: str
    from_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceGap:
    """An hour that is official in an area and has no price."""

    area: str
    start_ms: int


def area_at(rows: Iterable[SiteArea], site: str, at_ms: int) -> str | None:
    """The price area of a site at an instant; None = not known, or in none."""
    dated = [row for row in rows if row.site == site and row.from_ms <= at_ms]
    return max(dated, key=lambda row: row.from_ms).area or None if dated else None


def price_gaps(area: str, official: Iterable[int], prices: Sequence[HourPrice]) -> list[PriceGap]:
    """The official hours (their starts, UTC ms) that have no price, ascending."""
    known = {price.start_ms for price in prices}
    return [PriceGap(area=area, start_ms=start_ms) for start_ms in sorted(set(official)) if start_ms not in known]


def by_start(prices: Iterable[HourPrice]) -> Mapping[int, HourPrice]:
    """Prices by the start of their hour."""
    return {price.start_ms: price for price in prices}

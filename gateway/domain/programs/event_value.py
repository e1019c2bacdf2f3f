"""What homes delivered in an event, within the floors and caps of its program, and what that is worth for now.

Money is worked out at the level of the coarsest floor or cap: below it nobody is paid by the program. Homes of several
price areas are bounded and priced apart. A rate per kW and month (or season) is taken as if the event were the only one
of its period; one per kWh is the event's own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from fractions import Fraction

import numpy as np

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.bounds import LEVELS, PerformanceRow, added_up, bounded, coarsest
from gateway.domain.programs.delivered import Delivered
from gateway.domain.programs.local_hours import Month, local_hour
from gateway.domain.programs.metered import HOUR_MS
from gateway.domain.programs.pricing import (
    COMPUTED,
    PRICE_MISSING,
    TYPE_MISSING,
    PricedSite,
    PricedTable,
    TableHour,
    price_performance,
)
from gateway.domain.rules.performance import BoundPer, Cited, Formula, Level
from gateway.domain.rules.program import ProgramVersion
from gateway.domain.rules.values import Certainty
from gateway.domain.types import Bools, Ints

ZERO = Fraction(0)
INTERVALS, BASELINE, PRICE, EVENT_TYPE = "intervals missing", "baseline missing", "price missing", "event type missing"
UNPAID = "not worked out"
LATER = frozenset({BoundPer.EVENT, BoundPer.MONTH, BoundPer.SEASON})
"""Times over which a bound is applied where money is worked out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaHours:
    """What is known of a price area: type and price of hours by their start (UTC ms), None = not known, and all prices
    of a month."""

    types: Mapping[int, str | None]
    prices: Mapping[int, Decimal]
    of_month: Mapping[Month, Sequence[Decimal]]


UNKNOWN_AREA = AreaHours(types={}, prices={}, of_month={})


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidHome:
    """A home as money sees it. `area`: its price area, "" = not known."""

    name: str
    customer: str = ""
    area: str = ""
    nominal_kw: Fraction | None = None
    rate_class: str = ""
    enrolled: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventValue:
    """`status`: `computed`, `provisional (...)` with what is missing, or why there is no value; the value is from `low`
    to `high`, None = unknown. `per`: what the rate is for; anything but `kwh` is of a whole period."""

    status: str
    value: Decimal | None = None
    low: Decimal | None = None
    high: Decimal | None = None
    currency: str = ""
    per: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuedRow:
    """A home, a customer or all homes of an area together: kW of each hour within the bounds, and its value, None where
    the program pays on another level."""

    name: str
    customer: str
    kw: tuple[Fraction, ...]
    value: EventValue | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuedEvent:
    """`paid_at`: the level at which money is worked out. `customers` by name, "" = nobody's."""

    paid_at: Level
    homes: tuple[ValuedRow, ...]
    customers: tuple[ValuedRow, ...]
    program: ValuedRow


def valued(
    version: ProgramVersion,
    cited: Cited,
    found: Delivered,
    homes: Sequence[PaidHome],
    areas: Mapping[str, AreaHours],
    nomination_kw: Fraction | None,
    thin: Bools,
) -> ValuedEvent:
    """`homes` in the order of the rows of `found`; `nomination_kw` of all of them; `thin`: of which too little was
    measured. Raises InvalidInput where bounds cannot be applied."""
    level = coarsest(cited.rules)
    if cited.rules.formula.value is Formula.BID_BANDS:
        level = Level.AGGREGATION
    for name, one in (("cap", cited.rules.cap), ("floor", cited.rules.floor)):
        if one is not None and one.value.level is not level and one.value.per in LATER:
            cited.note(f"performance.{name}.level", Certainty.INFERRED, f"applied by the {level.value}")
    rows = _rows(found, homes, by_interval=_has(cited, BoundPer.INTERVAL))
    by_area: dict[str, list[int]] = {}
    for place, home in enumerate(homes):
        by_area.setdefault(home.area, []).append(place)
    lacking = _lacking(found, thin)
    of_homes: dict[int, ValuedRow] = {}
    customers: list[ValuedRow] = []
    whole: list[ValuedRow] = []
    for area, places in by_area.items():
        prices = areas.get(area, UNKNOWN_AREA)
        some = _Some(version=version, cited=cited, found=found, homes=homes, area=prices, lacking=lacking)
        kept = _bounded_hours([rows[place] for place in places], found, cited, level, nomination_kw)
        for place, row in zip(places, kept[Level.SITE], strict=True):
            value = some.value(row, [place]) if level is Level.SITE else None
            of_homes[place] = ValuedRow(name=row.name, customer=row.customer, kw=row.kw, value=value)
        members: dict[str, list[int]] = {}
        for place in places:
            members.setdefault(homes[place].customer, []).append(place)
        for row in kept[Level.CUSTOMER]:
            values = _of(of_homes, members[row.name])
            value = some.value(row, members[row.name]) if level is Level.CUSTOMER else _together(values)
            customers.append(ValuedRow(name=row.name, customer=row.name, kw=row.kw, value=value))
        (row,) = kept[Level.AGGREGATION]
        values = [one.value for one in customers[-len(members) :]]
        value = some.value(row, places) if level is Level.AGGREGATION else _together(values)
        whole.append(ValuedRow(name=area, customer="", kw=row.kw, value=value))
    return ValuedEvent(
        paid_at=level,
        homes=tuple(of_homes[place] for place in range(len(homes))),
        customers=_joined(customers),
        program=_joined([replace(one, name="", customer="") for one in whole])[0],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Some:
    """Homes of one area, and what prices them."""

    version: ProgramVersion
    cited: Cited
    found: Delivered
    homes: Sequence[PaidHome]
    area: AreaHours
    lacking: Sequence[frozenset[str]]

    def value(self, row: PerformanceRow, places: Sequence[int]) -> EventValue:
        first = self.homes[places[0]]
        site = PricedSite(
            nominal_kw=row.nominal_kw, nomination_kw=row.nomination_kw,
            rate_class=_same(self.homes[place].rate_class for place in places),
            enrolled=first.enrolled if len(places) == 1 else None,
        )  # fmt: skip
        there: Ints = np.any(self.found.given.known[list(places)], axis=0).astype(np.int64)
        known = self.found.intervals.by_hour(there) > 0
        hours = self._hours(known.tolist(), row.kw)
        lacking = frozenset().union(*(self.lacking[place] for place in places))
        try:
            priced = price_performance(self.version, self.cited, hours, row.kw, site, self.area.of_month)
        except InvalidInput as error:
            return EventValue(status=UNPAID, why="; ".join(error.problems))
        unfounded = [place for place in places if BASELINE in self.lacking[place]]
        found = _value(priced, lacking)
        if not unfounded:
            return found
        why = f"{len(unfounded)} of {len(places)} homes have no baseline: {self.found.baselines.why[unfounded[0]]}"
        if len(unfounded) == len(places):
            return replace(found, value=None, low=None, high=None, why=why)
        return replace(found, why=why)

    def _hours(self, known: Sequence[bool], kw: Sequence[Fraction]) -> list[TableHour]:
        intervals, found = self.found.intervals, []
        for place, start_ms in enumerate(intervals.hours_ms):
            day, hour_end = local_hour(self.version.zone, start_ms)
            found.append(
                TableHour(
                    day=day, hour_end=hour_end, start_ms=start_ms, event_type=self.area.types.get(start_ms),
                    price=self.area.prices.get(start_ms), net_kw=kw[place] if known[place] else None,
                    part=Fraction(int(intervals.hour_parts_ms[place]), HOUR_MS),
                )
            )  # fmt: skip
        return found


def _rows(found: Delivered, homes: Sequence[PaidHome], *, by_interval: bool) -> list[PerformanceRow]:
    hours = [] if by_interval else found.hour_kw()
    return [
        PerformanceRow(
            name=home.name, customer=home.customer, nominal_kw=home.nominal_kw,
            kw=found.interval_kw(place) if by_interval else hours[place],
            load_kw=found.interval_load_kw(place) if by_interval else None,
        )
        for place, home in enumerate(homes)
    ]  # fmt: skip


def _bounded_hours(
    rows: Sequence[PerformanceRow], found: Delivered, cited: Cited, coarse: Level, nomination_kw: Fraction | None
) -> Mapping[Level, list[PerformanceRow]]:
    """Rows of each level by the hour, within the bounds that apply per interval and per hour up to that level."""
    kept: dict[Level, list[PerformanceRow]] = {}
    for place, level in enumerate(LEVELS):
        levels = LEVELS[: place + 1]
        now = list(rows)
        if _has(cited, BoundPer.INTERVAL):
            now = _by_hour(_bounded(now, cited, BoundPer.INTERVAL, levels, nomination_kw), found)
        now = _bounded(now, cited, BoundPer.HOUR, levels, nomination_kw)
        kept[level] = [_nominated(row, nomination_kw, level, coarse) for row in added_up(now, level)]
    return kept


def _bounded(
    rows: Sequence[PerformanceRow], cited: Cited, per: BoundPer, levels: Sequence[Level], nomination_kw: Fraction | None
) -> list[PerformanceRow]:
    """The bounds of each level in turn; the nomination is that of all homes together."""
    now = list(rows)
    for level in levels:
        if level is Level.AGGREGATION and _at(cited, per, level):
            now = [replace(row, nomination_kw=nomination_kw) for row in added_up(now, level)]
        now = bounded(now, cited, per, (level,))
    return now


def _nominated(row: PerformanceRow, nomination_kw: Fraction | None, level: Level, coarse: Level) -> PerformanceRow:
    return replace(row, nomination_kw=nomination_kw) if level is coarse is Level.AGGREGATION else row


def _by_hour(rows: Sequence[PerformanceRow], found: Delivered) -> list[PerformanceRow]:
    intervals = found.intervals
    part, hour_of = Fraction(intervals.length_ms, HOUR_MS), intervals.hour_of.tolist()

    def hours(row: PerformanceRow) -> tuple[Fraction, ...]:
        sums = [ZERO] * len(intervals.hours_ms)
        for kw, hour in zip(row.kw, hour_of, strict=True):
            sums[hour] += kw * part
        return tuple(sums)

    return [replace(row, kw=hours(row), load_kw=None) for row in rows]


def _has(cited: Cited, per: BoundPer) -> bool:
    return any(_at(cited, per, level) for level in LEVELS)


def _at(cited: Cited, per: BoundPer, level: Level) -> bool:
    bounds = (cited.rules.cap, cited.rules.floor)
    return any(one is not None and one.value.per is per and one.value.level is level for one in bounds)


def _lacking(found: Delivered, thin: Bools) -> list[frozenset[str]]:
    """What each home's figures lack."""
    measured: list[bool] = (np.all(found.given.known, axis=1) & ~thin).tolist()
    founded: list[bool] = found.baselines.known.tolist()
    return [
        frozenset(([] if whole else [INTERVALS]) + ([] if based else [BASELINE]))
        for whole, based in zip(measured, founded, strict=True)
    ]


def _value(priced: PricedTable, lacking: frozenset[str]) -> EventValue:
    words = {PRICE_MISSING: PRICE, TYPE_MISSING: EVENT_TYPE}
    found = [one.status for one in priced.periods]
    missing = lacking | {words[status] for status in found if status in words}
    other = [status for status in found if status not in words and status != COMPUTED]
    why = "; ".join(one.why for one in priced.periods if one.why)
    return EventValue(
        status=other[0] if other else _provisional(missing), value=priced.total, low=priced.total_low,
        high=priced.total_high, currency=priced.currency, per=priced.unit.value, why=why,
    )  # fmt: skip


def _provisional(missing: Iterable[str]) -> str:
    words = [word for word in (PRICE, EVENT_TYPE, BASELINE, INTERVALS) if word in set(missing)]
    return f"provisional ({', '.join(words)})" if words else COMPUTED


def _of(found: Mapping[int, ValuedRow], places: Sequence[int]) -> list[EventValue | None]:
    return [found[place].value for place in places]


def _together(values: Sequence[EventValue | None]) -> EventValue | None:
    """The sum of values; None where none is worked out. What one lacks, the sum lacks, but for homes without a
    baseline: it is then of the others."""
    known = [one for one in values if one is not None]
    if not known:
        return None
    founded = [one for one in known if one.low is not None or BASELINE not in one.status]
    without = [one for one in known if one.low is None]
    if len({one.currency for one in known if one.currency}) > 1:
        return EventValue(status=UNPAID, why="homes are paid in several currencies")
    words = {word for one in known for word in one.status.removeprefix("provisional (").rstrip(")").split(", ")}
    named = [one for one in without if not one.status.startswith("provisional")]
    why = next((one.why for one in without if one.why), "")
    return EventValue(
        status=named[0].status if named else _provisional(words),
        value=_sum([one.value for one in founded]), low=_sum([one.low for one in founded]),
        high=_sum([one.high for one in founded]), currency=next((one.currency for one in known if one.currency), ""),
        per=known[0].per, why=f"{len(without)} of {len(known)} have no value: {why}" if without else "",
    )  # fmt: skip


def _sum(values: Sequence[Decimal | None]) -> Decimal | None:
    known = [value for value in values if value is not None]
    return sum(known, Decimal()) if known and len(known) == len(values) else None


def _joined(rows: Sequence[ValuedRow]) -> tuple[ValuedRow, ...]:
    """Rows of one name as one."""
    found: dict[str, list[ValuedRow]] = {}
    for row in rows:
        found.setdefault(row.name, []).append(row)
    return tuple(
        ValuedRow(
            name=name, customer=some[0].customer,
            kw=tuple(sum(column, ZERO) for column in zip(*(one.kw for one in some), strict=True)),
            value=_together([one.value for one in some]) if len(some) > 1 else some[0].value,
        )
        for name, some in found.items()
    )  # fmt: skip


def _same(words: Iterable[str]) -> str:
    found = set(words)
    return found.pop() if len(found) == 1 else ""

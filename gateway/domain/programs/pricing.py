"""Prices a table of local hours by the rules of a program: each hour, each month or season, what is paid and what that
rests on.

An hour without data counts as nothing given. An hour without a price, or without a type, makes the figure provisional:
it is bounded by what the month's lowest and highest price would make of it, and never filled in.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from fractions import Fraction

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.baseline import prescriptive_kw
from gateway.domain.programs.bounds import PerformanceRow, bounded
from gateway.domain.programs.exact import half_up
from gateway.domain.programs.local_hours import Month
from gateway.domain.programs.performance import (
    HOUR_MS,
    EventEnergy,
    FigureRange,
    WeightedHour,
    bands_of,
    best_two_hours,
    bid_payment,
    mean_event_power,
    weighted_mean,
)
from gateway.domain.programs.rate_class import of_class, rate_in_force
from gateway.domain.rules.performance import BaselineMethod, BoundPer, Cited, Doubt, Formula, PerformanceRules
from gateway.domain.rules.program import ProgramVersion
from gateway.domain.rules.rates import ChosenRate, NoRate, RateUnit

ZERO = Fraction(0)
UNPRICED = frozenset({Formula.CERTIFICATES, Formula.TARIFF})
PRICE_MISSING = "provisional (price missing)"
TYPE_MISSING = "provisional (event type missing)"
COMPUTED = "computed"
NO_RATE = "no rate"
NOTHING_COUNTED = "no hour counts"

_UNITS = {
    Formula.PRICE_WEIGHTED_CAPACITY: RateUnit.KW_MONTH,
    Formula.CAPACITY: RateUnit.KW_MONTH,
    Formula.BEST_TWO_HOURS: RateUnit.KW_MONTH,
    Formula.BID_BANDS: RateUnit.KW_MONTH,
    Formula.MEAN_EVENT_POWER: RateUnit.KW_SEASON,
    Formula.MEAN_WINDOW_POWER: RateUnit.KW_SEASON,
    Formula.ENERGY: RateUnit.KWH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableHour:
    """A local hour: the day on which it begins and the hour at which it ends (1 to 24). None = unknown; `net_kw` is
    discharge less charge, `load_kw` what the site draws without its battery. `part`: how much of the hour an event
    takes, which its mean power is over; what it gives is still said by the whole hour."""

    day: date
    hour_end: int
    start_ms: int
    event_type: str | None = None
    price: Decimal | None = None
    net_kw: Fraction | None = None
    load_kw: Fraction | None = None
    part: Fraction = Fraction(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedSite:
    """Whose hours they are. A `baseline_kw` that is given comes before one worked out from nominal power;
    `no_baseline`: the site qualifies for none. `rate_class`: a duration, a utility or the name of a rate."""

    nominal_kw: Fraction | None = None
    nomination_kw: Fraction | None = None
    baseline_kw: Fraction | None = None
    no_baseline: bool = False
    rate_class: str = ""
    enrolled: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedHour:
    """`counted`: None = not known, because the type is missing. `performance_kw`: net of the baseline and within the
    bounds of an hour."""

    hour: TableHour
    counted: bool | None
    performance_kw: Fraction
    least_weight: Fraction
    most_weight: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedPeriod:
    """A month, a season or a year. `quantity`: kW (kWh for a rate per kWh) before floor and cap of the period,
    `bounded` after; `pay_exact` is not rounded. None = unknown, or a range: then the money is from `pay_low` to
    `pay_high`."""

    name: str
    status: str
    why: str
    hours: tuple[PricedHour, ...]
    quantity: FigureRange | None
    bounded: FigureRange | None
    rate: ChosenRate | None
    pay_exact: Fraction | None
    pay: Decimal | None
    pay_low: Decimal | None
    pay_high: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedTable:
    """`total`: the sum of what each period pays, rounded there; None where one is not known. `baseline_kw` None = each
    hour has its own."""

    version: ProgramVersion
    unit: RateUnit
    baseline_kw: Fraction | None
    baseline_from: str
    hours: tuple[PricedHour, ...]
    periods: tuple[PricedPeriod, ...]
    total: Decimal | None
    total_low: Decimal | None
    total_high: Decimal | None
    currency: str
    rests_on_unverified: tuple[Doubt, ...]


def price_table(version: ProgramVersion, hours: Sequence[TableHour], site: PricedSite) -> PricedTable:
    """Price `hours` (ascending) of one site by a version of a program. Raises InvalidInput with everything that
    contradicts or is missing."""
    cited = cited_rules(version, [hour.day for hour in hours])
    baseline = _baseline(cited, site)
    counted = [_counted(cited, hour) for hour in hours]
    kws = _hour_bounded(cited, hours, baseline[0], site)
    return _table(version, cited, _weighed(cited, hours, counted, kws, {}), site, baseline)


def price_performance(
    version: ProgramVersion,
    cited: Cited,
    hours: Sequence[TableHour],
    performance_kw: Sequence[Fraction],
    site: PricedSite,
    prices: Mapping[Month, Sequence[Decimal]],
) -> PricedTable:
    """Price what was delivered in each of `hours`: net of its baseline, and within the bounds of intervals and hours.
    `prices`: what other prices are known of a month. Raises InvalidInput as `price_table` does."""
    counted = [_counted(cited, hour) for hour in hours]
    return _table(version, cited, _weighed(cited, hours, counted, performance_kw, prices), site, (None, "measured"))


def cited_rules(version: ProgramVersion, days: Iterable[date]) -> Cited:
    """The rules of a version, to be read for figures of some days. Raises InvalidInput where nothing is worked out by
    them, or on another day."""
    rules = version.performance
    if rules is None or rules.formula.value in UNPRICED:
        raise InvalidInput([f"{version.program}: what it pays is not worked out from hours"])
    outside = [str(day) for day in days if day not in version.days]
    if outside:
        raise InvalidInput([f"{outside[0]} is outside version {version.name} of {version.program}"])
    cited = Cited(rules)
    cited.read("performance.formula", rules.formula)
    return cited


def _table(
    version: ProgramVersion,
    cited: Cited,
    priced: Sequence[PricedHour],
    site: PricedSite,
    baseline: tuple[Fraction | None, str],
) -> PricedTable:
    unit = _unit(version, cited.rules.formula.value)
    periods = tuple(
        _period(version, cited, name, group, site, unit) for name, group in _by_period(version, priced, unit).items()
    )
    return PricedTable(
        version=version,
        unit=unit,
        baseline_kw=baseline[0],
        baseline_from=baseline[1],
        hours=tuple(priced),
        periods=periods,
        total=_sum(one.pay for one in periods),
        total_low=_sum(one.pay_low for one in periods),
        total_high=_sum(one.pay_high for one in periods),
        currency=next((one.rate.rate.currency for one in periods if one.rate is not None), ""),
        rests_on_unverified=cited.rests_on_unverified,
    )


def _unit(version: ProgramVersion, formula: Formula) -> RateUnit:
    if formula is Formula.ENERGY:
        return RateUnit.KWH
    units = {rate.unit for rate in version.rates} - {RateUnit.KWH}
    return units.pop() if len(units) == 1 else _UNITS[formula]


def _baseline(cited: Cited, site: PricedSite) -> tuple[Fraction, str]:
    method = cited.read("performance.baseline", cited.rules.baseline)
    if site.no_baseline and site.baseline_kw is not None:
        raise InvalidInput(["a baseline is given, and the site is said to have none"])
    if method is BaselineMethod.NONE:
        if site.baseline_kw is not None:
            raise InvalidInput(["the program has no baseline, and one is given"])
        return ZERO, "the program has none"
    if site.baseline_kw is not None:
        return site.baseline_kw, "given"
    if site.no_baseline:
        return ZERO, "the site has none"
    if method is not BaselineMethod.PRESCRIPTIVE:
        raise InvalidInput(
            [f"a baseline {method.value} needs meter data: give the baseline in kW, or say there is none"]
        )
    if site.nominal_kw is None:
        raise InvalidInput(
            ["the baseline is a share of nominal power: give that, the baseline in kW, or say there is none"]
        )
    ratio = cited.number("baseline-ratio")
    return prescriptive_kw(ratio, site.nominal_kw), "a share of nominal power"


def _counted(cited: Cited, hour: TableHour) -> bool | None:
    """None = the type is missing, and only one kind of figure can be bounded without it."""
    if cited.rules.event_types is None:
        return True
    types = cited.read("performance.event_types", cited.rules.event_types)
    place = f"{hour.day} hour {hour.hour_end}"
    if hour.event_type is None:
        if cited.rules.formula.value is not Formula.PRICE_WEIGHTED_CAPACITY:
            raise InvalidInput([f"{place}: the event type is missing"])
        return None
    found = types.counts(hour.event_type)
    if found is None:
        known = ", ".join(sorted(types.counted | types.uncounted))
        raise InvalidInput([f"{place}: {hour.event_type!r} is no event type of the program (it has {known})"])
    return found


def _hour_bounded(
    cited: Cited, hours: Sequence[TableHour], baseline_kw: Fraction, site: PricedSite
) -> tuple[Fraction, ...]:
    loads = [hour.load_kw for hour in hours if hour.load_kw is not None]
    row = PerformanceRow(
        name="the site",
        customer="",
        kw=tuple((hour.net_kw or ZERO) - baseline_kw for hour in hours),
        nomination_kw=site.nomination_kw,
        nominal_kw=site.nominal_kw,
        load_kw=tuple(loads) if len(loads) == len(hours) else None,
    )
    for per in (BoundPer.INTERVAL, BoundPer.HOUR):
        (row,) = bounded([row], cited, per)
    return row.kw


def _weighed(
    cited: Cited,
    hours: Sequence[TableHour],
    counted: Sequence[bool | None],
    kws: Sequence[Fraction],
    prices: Mapping[Month, Sequence[Decimal]],
) -> list[PricedHour]:
    return [
        PricedHour(hour=hour, counted=one, performance_kw=kw, least_weight=least, most_weight=most)
        for hour, one, kw, (least, most) in zip(
            hours, counted, kws, _weights(cited.rules, hours, counted, prices), strict=True
        )
    ]


def _weights(
    rules: PerformanceRules,
    hours: Sequence[TableHour],
    counted: Sequence[bool | None],
    prices: Mapping[Month, Sequence[Decimal]],
) -> list[tuple[Fraction, Fraction]]:
    """The least and the most that an hour may weigh: its price, or what prices of its month there are; 1 where hours
    are not weighted."""
    if rules.formula.value is not Formula.PRICE_WEIGHTED_CAPACITY:
        return [(Fraction(one is True), Fraction(one is True)) for one in counted]
    known = {month: [Fraction(price) for price in some] for month, some in prices.items()}
    for hour in hours:
        if hour.price is not None:
            known.setdefault((hour.day.year, hour.day.month), []).append(Fraction(hour.price))
    found = []
    for hour, one in zip(hours, counted, strict=True):
        if hour.price is not None:
            least = most = Fraction(hour.price)
        else:
            of_month = known.get((hour.day.year, hour.day.month), [ZERO])
            least, most = min(of_month), max(of_month)
        if one is None:
            least, most = min(least, ZERO), max(most, ZERO)
        found.append((least, most) if one is not False else (ZERO, ZERO))
    return found


def _by_period(
    version: ProgramVersion, hours: Iterable[PricedHour], unit: RateUnit
) -> Mapping[str, Sequence[PricedHour]]:
    found: dict[str, list[PricedHour]] = {}
    for one in hours:
        day = one.hour.day
        if unit is RateUnit.KW_YEAR:
            name = f"{day.year}"
        elif unit is RateUnit.KW_SEASON:
            season = version.calendar.season(day)
            if version.season is not None and season is None:
                raise InvalidInput([f"{day} is in no season of {version.program}"])
            name = f"{day.year}" if season is None else f"{season.name} {season.began(day).year}"
        else:
            name = f"{day:%Y-%m}"
        found.setdefault(name, []).append(one)
    return found


def _period(
    version: ProgramVersion, cited: Cited, name: str, hours: Sequence[PricedHour], site: PricedSite, unit: RateUnit
) -> PricedPeriod:
    asked = [one for one in hours if one.counted is not False]
    chosen = _rate(version, cited, hours, site, unit)
    rate = chosen if isinstance(chosen, ChosenRate) else None
    blank = PricedPeriod(
        name=name, status=COMPUTED, why="", hours=tuple(hours), quantity=None, bounded=None, rate=rate, pay_exact=None,
        pay=None, pay_low=None, pay_high=None,
    )  # fmt: skip
    if not asked:
        return replace(blank, status=NOTHING_COUNTED, why="no hour of it is of a type that counts")
    formula = cited.rules.formula.value
    quantity = _quantity(cited, formula, asked, site)
    status = _status(asked) if formula is Formula.PRICE_WEIGHTED_CAPACITY else COMPUTED
    if quantity is None:
        why = "no price of the month is known" if status != COMPUTED else _why_none(formula)
        return replace(blank, status=status if status != COMPUTED else NOTHING_COUNTED, why=why)
    kept = _of_period(cited, quantity, site)
    done = replace(blank, status=status, quantity=quantity, bounded=kept)
    if isinstance(chosen, NoRate):
        return replace(done, status=NO_RATE, why=chosen.reason)
    money = _money(cited, formula, kept, chosen, site)
    low, high = half_up(money.low), half_up(money.high)
    whole = money.low if status == COMPUTED else None
    return replace(done, pay_exact=whole, pay=None if whole is None else low, pay_low=low, pay_high=high)


def _status(asked: Sequence[PricedHour]) -> str:
    if any(one.hour.price is None for one in asked):
        return PRICE_MISSING
    return TYPE_MISSING if any(one.counted is None for one in asked) else COMPUTED


def _why_none(formula: Formula) -> str:
    return "no two dispatched hours are in a row" if formula is Formula.BEST_TWO_HOURS else "the weights sum to nothing"


def _rate(
    version: ProgramVersion, cited: Cited, hours: Sequence[PricedHour], site: PricedSite, unit: RateUnit
) -> ChosenRate | NoRate:
    rates, case = of_class(version.rates, site.rate_class)
    days = sorted({one.hour.day for one in hours})
    chosen = rate_in_force(version, rates, unit, days, replace(case, enrolled=site.enrolled))
    if isinstance(chosen, ChosenRate):
        cited.note(f"rates.{chosen.rate.name}", chosen.rate.certainty, chosen.rate.source)
        for factor in chosen.factors:
            cited.note(f"factors.{factor.name}", factor.certainty, factor.source)
    return chosen


def _quantity(cited: Cited, formula: Formula, asked: Sequence[PricedHour], site: PricedSite) -> FigureRange | None:
    """What the period gave before its own floor and cap, kW (kWh for energy)."""
    if formula is Formula.PRICE_WEIGHTED_CAPACITY:
        return weighted_mean(
            [WeightedHour(kw=one.performance_kw, least=one.least_weight, most=one.most_weight) for one in asked]
        )
    found: Fraction | None
    if formula is Formula.BEST_TWO_HOURS:
        found = best_two_hours([(one.hour.start_ms, one.performance_kw) for one in asked])
    elif formula is Formula.MEAN_EVENT_POWER:
        missed = cited.optional("missed-event-kw") or ZERO
        found = mean_event_power(_events(cited, asked, site), missed)
    elif formula is Formula.ENERGY:
        found = sum((one.kwh or ZERO for one in _events(cited, asked, site)), ZERO)
    else:
        found = sum((one.performance_kw for one in asked), ZERO) / sum((one.hour.part for one in asked), ZERO)
    return None if found is None else FigureRange(low=found, high=found)


def _events(cited: Cited, asked: Sequence[PricedHour], site: PricedSite) -> list[EventEnergy]:
    """Hours that touch are one event; its floor and cap apply to its mean power."""
    groups: list[list[PricedHour]] = []
    for one in asked:
        if groups and groups[-1][-1].hour.start_ms + HOUR_MS == one.hour.start_ms:
            groups[-1].append(one)
        else:
            groups.append([one])
    found = []
    for group in groups:
        length = sum((one.hour.part for one in group), ZERO)
        kw = _kept(cited, sum((one.performance_kw for one in group), ZERO) / length, site, BoundPer.EVENT)
        unmeasured = all(one.hour.net_kw is None for one in group)
        found.append(EventEnergy(kwh=None if unmeasured else kw * length, hours=length))
    return found


def _of_period(cited: Cited, quantity: FigureRange, site: PricedSite) -> FigureRange:
    def bound(kw: Fraction) -> Fraction:
        for per in (BoundPer.MONTH, BoundPer.SEASON):
            kw = _kept(cited, kw, site, per)
        return kw

    return FigureRange(low=bound(quantity.low), high=bound(quantity.high))


def _kept(cited: Cited, kw: Fraction, site: PricedSite, per: BoundPer) -> Fraction:
    row = PerformanceRow(
        name="the site", customer="", kw=(kw,), nomination_kw=site.nomination_kw, nominal_kw=site.nominal_kw
    )
    (row,) = bounded([row], cited, per)
    return row.kw[0]


def _money(cited: Cited, formula: Formula, kept: FigureRange, chosen: ChosenRate, site: PricedSite) -> FigureRange:
    price = Fraction(chosen.amount)
    pay: Callable[[Fraction], Fraction]
    if formula is Formula.BID_BANDS:
        if site.nomination_kw is None:
            raise InvalidInput(["the nomination is unknown, which is what was bid"])
        bid, bands = site.nomination_kw, bands_of(cited)

        def pay(kw: Fraction) -> Fraction:
            return bid_payment(bid, kw, price, bands)
    else:

        def pay(kw: Fraction) -> Fraction:
            return kw * price

    return FigureRange(low=pay(kept.low), high=pay(kept.high))


def _sum(values: Iterable[Decimal | None]) -> Decimal | None:
    known = list(values)
    return (
        None if not known or any(one is None for one in known) else sum((one or Decimal() for one in known), Decimal())
    )

"""Floors and caps of performance: of each site, of each customer, or of all together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from gateway.domain.errors import InvalidInput
from gateway.domain.rules.performance import BoundOf, BoundPer, Cited, Level, PerformanceBound, PerformanceRules

ZERO = Fraction(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceRow:
    """What a site, a customer or an aggregation delivered in each of some periods, kW, and what may bound that; None =
    unknown. `load_kw`: of each period."""

    name: str
    customer: str
    kw: tuple[Fraction, ...]
    nomination_kw: Fraction | None = None
    nominal_kw: Fraction | None = None
    load_kw: tuple[Fraction, ...] | None = None


LEVELS = (Level.SITE, Level.CUSTOMER, Level.AGGREGATION)
"""The finest first."""


def bounded(
    rows: Sequence[PerformanceRow], cited: Cited, per: BoundPer, levels: Sequence[Level] = LEVELS
) -> list[PerformanceRow]:
    """Rows after the floor and the cap that apply `per` such a time: at the finest level first, a cap before a floor;
    of `levels` alone. They come back added up to the level of the coarsest bound. Raises InvalidInput where a cap is
    unknown."""
    found = list(rows)
    both = (("cap", cited.rules.cap), ("floor", cited.rules.floor))
    stated = [(name, one) for name, one in both if one is not None and one.value.per is per]
    for level in levels:
        for name, evident in stated:
            if evident.value.level is level:
                bound = cited.read(f"performance.{name}", evident)
                found = [_bounded(row, bound, lower=name == "floor") for row in added_up(found, level)]
    return found


def coarsest(rules: PerformanceRules) -> Level:
    """The level at which a program's figures are added up at last: that of its coarsest bound."""
    stated = [one.value.level for one in (rules.cap, rules.floor) if one is not None]
    return max(stated, key=LEVELS.index, default=Level.SITE)


def added_up(rows: Sequence[PerformanceRow], level: Level) -> list[PerformanceRow]:
    """One row for each customer, or one for all of them."""
    if level is Level.SITE:
        return list(rows)
    groups: dict[str, list[PerformanceRow]] = {}
    for row in rows:
        groups.setdefault(row.customer if level is Level.CUSTOMER else "", []).append(row)
    return [_sum(name, group) for name, group in groups.items()]


def _sum(name: str, rows: Sequence[PerformanceRow]) -> PerformanceRow:
    loads = [row.load_kw for row in rows if row.load_kw is not None]
    return PerformanceRow(
        name=name,
        customer=name,
        kw=_columns([row.kw for row in rows]),
        nomination_kw=_known([row.nomination_kw for row in rows]),
        nominal_kw=_known([row.nominal_kw for row in rows]),
        load_kw=_columns(loads) if len(loads) == len(rows) else None,
    )


def _columns(rows: Sequence[Sequence[Fraction]]) -> tuple[Fraction, ...]:
    return tuple(sum(column, ZERO) for column in zip(*rows, strict=True))


def _known(values: Sequence[Fraction | None]) -> Fraction | None:
    known = [value for value in values if value is not None]
    return sum(known, ZERO) if len(known) == len(values) else None


def _bounded(row: PerformanceRow, bound: PerformanceBound, *, lower: bool) -> PerformanceRow:
    pick = max if lower else min
    limits = _limits(row, bound)
    return replace(row, kw=tuple(pick(kw, limit) for kw, limit in zip(row.kw, limits, strict=True)))


def _limits(row: PerformanceRow, bound: PerformanceBound) -> Sequence[Fraction]:
    if bound.of is BoundOf.SITE_LOAD:
        if row.load_kw is None:
            raise InvalidInput([f"{row.name}: the load of the site is unknown, which bounds its performance"])
        return [max(load, ZERO) for load in row.load_kw]
    taken = {None: bound.kw, BoundOf.NOMINATION: row.nomination_kw, BoundOf.NOMINAL_POWER: row.nominal_kw}[bound.of]
    if taken is None:
        words = "nomination" if bound.of is BoundOf.NOMINATION else "nominal power"
        raise InvalidInput([f"{row.name}: the {words} is unknown, which bounds its performance"])
    return [taken] * len(row.kw)

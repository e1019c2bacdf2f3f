"""A floor or a cap of each site is not one of all sites together."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.bounds import PerformanceRow, bounded
from gateway.domain.rules.performance import (
    BaselineMethod,
    BoundOf,
    BoundPer,
    Cited,
    Formula,
    Level,
    PerformanceBound,
    PerformanceRules,
)
from gateway.domain.rules.values import Certainty, Evident, T


def known(value: T) -> Evident[T]:
    return Evident(value=value, certainty=Certainty.VERIFIED, source="page")


RULES = PerformanceRules(baseline=known(BaselineMethod.NONE), formula=known(Formula.ENERGY))
HOMES = [
    PerformanceRow(name="a", customer="one", kw=(Fraction(4),)),
    PerformanceRow(name="b", customer="one", kw=(Fraction(-1),)),
]


def total(
    rows: list[PerformanceRow], *, floor: PerformanceBound | None = None, cap: PerformanceBound | None = None
) -> Fraction:
    rules = replace(
        RULES, floor=None if floor is None else known(floor), cap=None if cap is None else known(cap)
    )  # fmt: skip
    return sum((sum(row.kw, Fraction(0)) for row in bounded(rows, Cited(rules), BoundPer.MONTH)), Fraction(0))


def floor_at(level: Level, per: BoundPer = BoundPer.MONTH) -> PerformanceBound:
    return PerformanceBound(kw=Fraction(0), of=None, level=level, per=per)


def test_homes_at_four_and_minus_one_are_four_by_site_and_three_together() -> None:
    assert total(HOMES, floor=floor_at(Level.SITE)) == 4
    assert total(HOMES, floor=floor_at(Level.AGGREGATION)) == 3
    assert total(HOMES, floor=floor_at(Level.CUSTOMER)) == 3
    apart = [HOMES[0], replace(HOMES[1], customer="two")]
    assert total(apart, floor=floor_at(Level.CUSTOMER)) == 4


def test_a_bound_of_another_time_does_not_apply() -> None:
    assert total(HOMES, floor=floor_at(Level.SITE, BoundPer.INTERVAL)) == 3


def test_a_cap_by_nomination_differs_by_level() -> None:
    rows = [replace(row, nomination_kw=Fraction(2)) for row in (HOMES[0], replace(HOMES[1], kw=(Fraction(1),)))]
    by_site = PerformanceBound(kw=None, of=BoundOf.NOMINATION, level=Level.SITE, per=BoundPer.MONTH)
    assert total(rows, cap=by_site) == 3
    assert total(rows, cap=replace(by_site, level=Level.AGGREGATION)) == 4


def test_a_cap_of_each_site_comes_before_a_floor_of_all() -> None:
    rows = [replace(HOMES[0], kw=(Fraction(9),)), replace(HOMES[1], kw=(Fraction(-6),))]
    cap = PerformanceBound(kw=Fraction(5), of=None, level=Level.SITE, per=BoundPer.MONTH)
    assert total(rows, cap=cap, floor=floor_at(Level.AGGREGATION)) == 0


def test_a_cap_by_load_is_of_each_interval_and_an_export_is_no_load() -> None:
    row = replace(HOMES[0], kw=(Fraction(4), Fraction(4)), load_kw=(Fraction(3), Fraction(-1)))
    cap = PerformanceBound(kw=None, of=BoundOf.SITE_LOAD, level=Level.SITE, per=BoundPer.MONTH)
    assert total([row], cap=cap) == 3


@pytest.mark.parametrize("of", list(BoundOf))
def test_a_cap_that_is_unknown_is_no_missing_cap(of: BoundOf) -> None:
    cap = PerformanceBound(kw=None, of=of, level=Level.AGGREGATION, per=BoundPer.MONTH)
    known_once = [
        replace(HOMES[0], nomination_kw=Fraction(1), nominal_kw=Fraction(1), load_kw=(Fraction(1),)),
        HOMES[1],
    ]
    with pytest.raises(InvalidInput, match="is unknown, which bounds its performance"):
        total(known_once, cap=cap)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-100, 100)), min_size=1, max_size=12))
def test_a_floor_at_a_coarser_level_is_never_worth_more(homes: list[tuple[str, int]]) -> None:
    rows = [PerformanceRow(name=str(n), customer=who, kw=(Fraction(kw),)) for n, (who, kw) in enumerate(homes)]
    by_level = [total(rows, floor=floor_at(level)) for level in (Level.SITE, Level.CUSTOMER, Level.AGGREGATION)]
    assert by_level == sorted(by_level, reverse=True)

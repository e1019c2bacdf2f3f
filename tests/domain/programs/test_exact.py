"""Money is rounded once, half up; shares sum to what is shared."""

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.programs.exact import half_up, largest_remainder, shown


def test_half_a_cent_goes_up_and_not_to_where_a_float_would_take_it() -> None:
    assert half_up(Decimal("2.675")) == Decimal("2.68") != Decimal(str(round(2.675, 2)))
    assert half_up(Fraction(-5, 1000)) == Decimal("-0.01")
    assert half_up(Fraction(4999, 1_000_000)) == Decimal("0.00")
    assert half_up(Fraction(3, 2), 0) == Decimal(2)


def test_rounding_does_not_depend_on_the_precision_of_the_context() -> None:
    with localcontext() as context:
        context.prec = 3
        assert half_up(Fraction(12_345_678_905, 1000)) == Decimal("12345678.91")


def test_a_hundred_over_three_equal_shares() -> None:
    assert largest_remainder(Decimal("100.00"), [1, 1, 1]) == list(map(Decimal, ("33.34", "33.33", "33.33")))


def test_a_total_over_energies_gives_the_largest_remainders_what_is_left() -> None:
    found = largest_remainder(Decimal("57.13"), list(map(Decimal, ("12.5", "7.3", "0.2"))))
    assert found == list(map(Decimal, ("35.71", "20.85", "0.57")))


@given(
    cents=st.integers(-(10**9), 10**9),
    weights=st.lists(st.integers(0, 10**6), min_size=1, max_size=20).filter(any),
)
def test_shares_sum_to_what_is_shared_and_none_is_a_cent_off(cents: int, weights: list[int]) -> None:
    total = Decimal(cents).scaleb(-2)
    found = largest_remainder(total, weights)
    assert sum(found) == total
    for share, weight in zip(found, weights, strict=True):
        assert abs(Fraction(share) - Fraction(total) * weight / sum(weights)) < Fraction(1, 100)


@pytest.mark.parametrize(("total", "weights"), [("1.005", [1]), ("1.00", []), ("1.00", [0, 0]), ("1.00", [2, -1])])
def test_what_cannot_be_shared_is_an_error(total: str, weights: list[int]) -> None:
    with pytest.raises(ValueError, match=r"digits after the point|weights are 0 or more"):
        largest_remainder(Decimal(total), weights)


def test_unknown_is_shown_as_unknown_and_zero_as_zero() -> None:
    assert (shown(None), shown(Fraction(0)), shown(Fraction(1, 3)), shown(Fraction(-1, 8))) == (
        None, "0", "0.333333", "-0.125",
    )  # fmt: skip

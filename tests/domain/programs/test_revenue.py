"""What a month could have paid, what it paid, and what was missed."""

from dataclasses import replace
from fractions import Fraction

from gateway.domain.programs.revenue import CapacityMonth

MONTH = CapacityMonth(nominated_kw=Fraction(5), earned_kw=Fraction(5), price_per_kw=Fraction(10))


def test_a_month_that_earned_less_than_was_nominated() -> None:
    month = replace(
        MONTH,
        awarded_kwh=Fraction(20),
        earned_kwh=Fraction(15),
        price_per_kwh=Fraction("0.1"),
        performance_adjustment=Fraction(-3),
        payment_adjustment=Fraction(1),
    )
    assert (month.potential, month.actual, month.missed) == (Fraction(52), Fraction("49.5"), Fraction("2.5"))


def test_without_a_nomination_there_is_no_share() -> None:
    assert replace(MONTH, nominated_kw=Fraction(0)).share is None

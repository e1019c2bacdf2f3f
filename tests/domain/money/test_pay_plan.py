"""What a customer is paid by the terms that are agreed."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from gateway.domain.errors import InvalidInput
from gateway.domain.money.contract import Basis
from gateway.domain.money.pay_plan import Bonus, PayBase, PayPlanVersion, PlanInForce, bonus, pay, plan_on

NOTHING = PayPlanVersion(plan="p", name="1", currency="USD", base=Basis.NET)
WHOLE = PayBase(gross=Decimal("100.00"), net=Decimal("80.00"), kwh=Fraction(12), days=30, days_in_month=30)
HALF_MONTH = replace(WHOLE, days=15)


@pytest.mark.parametrize(
    ("terms", "base", "paid"),
    [
        ({}, WHOLE, "0.00"),
        ({"share": Fraction(1, 2)}, WHOLE, "40.00"),
        ({"share": Fraction(1, 2), "base": Basis.GROSS}, WHOLE, "50.00"),
        ({"fixed_per_month": Fraction(10)}, WHOLE, "10.00"),
        ({"fixed_per_month": Fraction(10)}, HALF_MONTH, "5.00"),
        ({"fixed_per_month": Fraction(10), "prorated": False}, HALF_MONTH, "10.00"),
        ({"fixed_per_month": Fraction(10), "prorated": False}, replace(WHOLE, days=0), "0.00"),
        ({"per_kwh": Fraction(25, 100)}, WHOLE, "3.00"),
        ({"per_kwh": Fraction(25, 100)}, replace(WHOLE, kwh=Fraction(-4)), "0.00"),
        ({"share": Fraction(1, 10), "minimum": Fraction(20)}, WHOLE, "20.00"),
        ({"share": Fraction(1, 10), "minimum": Fraction(20)}, HALF_MONTH, "10.00"),
        ({"share": Fraction(1, 2), "cap": Fraction(30)}, WHOLE, "30.00"),
        ({"share": Fraction(1, 2), "cap": Fraction(30)}, HALF_MONTH, "15.00"),
        ({"share": Fraction(1, 2), "fixed_per_month": Fraction(1), "per_kwh": Fraction(1, 4)}, WHOLE, "44.00"),
        ({"share": Fraction(1, 2)}, replace(WHOLE, net=Decimal("-80.00")), "0.00"),
        ({"share": Fraction(1, 3)}, replace(WHOLE, net=Decimal("100.00")), "33.33"),
        ({"fixed_per_month": Fraction("0.025")}, replace(WHOLE, days=6, days_in_month=30), "0.01"),
    ],
)  # fmt: skip
def test_a_month_pays_what_its_terms_say(terms: Mapping[str, Any], base: PayBase, paid: str) -> None:
    assert pay(replace(NOTHING, **terms), base) == Decimal(paid)


def test_pay_by_energy_without_energy_is_refused_and_other_pay_does_not_need_it() -> None:
    unknown = replace(WHOLE, kwh=None)
    assert pay(replace(NOTHING, share=Fraction(1, 2)), unknown) == Decimal("40.00")
    with pytest.raises(InvalidInput, match="pays by kWh, and what was given is not known"):
        pay(replace(NOTHING, per_kwh=Fraction(1)), unknown)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base": Basis.UNKNOWN}, "its base is gross or net"),
        ({"share": Fraction(11, 10)}, "a share of 1.1 is not from 0 to 1"),
        ({"fixed_per_month": Fraction(-1)}, "amounts are 0 or more"),
        ({"cap": Fraction(-1)}, "amounts are 0 or more"),
        ({"minimum": Fraction(2), "cap": Fraction(1)}, "its minimum is above its cap"),
    ],
)
def test_terms_that_cannot_be_are_refused(change: Mapping[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        replace(NOTHING, **change)


def test_a_customer_has_the_plan_of_the_day_and_never_two() -> None:
    first = PlanInForce(customer="c", terms=NOTHING, from_day=date(2025, 1, 1), until=date(2025, 7, 1))
    second = replace(first, terms=replace(NOTHING, name="2"), from_day=date(2025, 7, 1), until=None)
    assert plan_on([first, second], "c", date(2025, 6, 30)) is first
    assert plan_on([first, second], "c", date(2025, 7, 1)) is second
    assert plan_on([first, second], "d", date(2025, 7, 1)) is None
    with pytest.raises(InvalidInput, match="has two pay plans on 2025-07-01"):
        plan_on([replace(first, until=None), second], "c", date(2025, 7, 1))


@pytest.mark.parametrize(
    ("asked", "took_part", "paid"), [(10, 8, "50.00"), (10, 7, "0.00"), (0, 0, "50.00"), (1, 1, "50.00")]
)
def test_a_bonus_is_for_who_took_part_often_enough(asked: int, took_part: int, paid: str) -> None:
    agreed = Bonus(
        name="season", program="p", year=2025, currency="USD", amount=Fraction(50), least_share=Fraction(8, 10)
    )
    assert bonus(agreed, asked=asked, took_part=took_part) == Decimal(paid)

"""From what a program pays to what each customer is paid: to the cent, from the received amount."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import InvalidInput
from gateway.domain.money.contract import Basis, ContractVersion, contract_on, gross_and_net
from gateway.domain.money.pay_plan import PayPlanVersion
from gateway.domain.money.postings import LedgerStep
from gateway.domain.money.split import Claim, GetsNothing, SplitBy, SplitRule
from gateway.domain.money.waterfall import HomeShare, ReceivedAmount, amounts, waterfall

CONTRACT = ContractVersion(name="2025", from_day=date(2025, 1, 1), currency="USD", share=Fraction(20, 100))
HALF_OF_NET = PayPlanVersion(plan="half", name="1", currency="USD", base=Basis.NET, share=Fraction(1, 2))
HALF_OF_GROSS = replace(HALF_OF_NET, base=Basis.GROSS)
BY_KWH = SplitRule(name="by kWh", by=SplitBy.MEASURED_KWH)


def received(amount: str, basis: Basis = Basis.GROSS) -> ReceivedAmount:
    return ReceivedAmount(
        program="dsgs-option3",
        month=(2025, 7),
        amount=Decimal(amount),
        basis=basis,
        currency="USD",
        report="2025-07 V1",
    )


def claim(site: str, kwh: str | None = "1", *, against: frozenset[GetsNothing] = frozenset(), days: int = 31) -> Claim:
    measured = None if kwh is None else Fraction(kwh)
    return Claim(site=site, customer=f"c-{site}", measured_kwh=measured, days=days, against=against)


def shares(
    amount: ReceivedAmount, claims: list[Claim], terms: PayPlanVersion = HALF_OF_NET, rule: SplitRule = BY_KWH
) -> list[HomeShare]:
    return waterfall(amount, claims, rule, CONTRACT, {one.customer: terms for one in claims})


@pytest.mark.parametrize(
    ("terms", "pay", "margin"), [(HALF_OF_NET, "40.00", "40.00"), (HALF_OF_GROSS, "50.00", "30.00")]
)
def test_a_hundred_gross_with_a_fifth_for_the_aggregator_and_half_for_the_customer(
    terms: PayPlanVersion, pay: str, margin: str
) -> None:
    [home] = shares(received("100.00"), [claim("a")], terms)
    assert (home.gross, home.aggregator_share) == (Decimal("100.00"), Decimal("20.00"))
    assert (home.pay, home.margin, home.waits) == (Decimal(pay), Decimal(margin), Decimal("0.00"))


def test_an_amount_that_is_net_gives_the_same_homes_the_same_pay() -> None:
    [home] = shares(received("80.00", Basis.NET), [claim("a")])
    assert (home.gross, home.aggregator_share, home.net) == (Decimal("100.00"), Decimal("20.00"), Decimal("80.00"))
    assert home.pay == Decimal("40.00")


def test_from_an_amount_of_which_nobody_knows_what_it_is_nobody_is_paid() -> None:
    with pytest.raises(InvalidInput, match="gross or net is not known: nobody is paid"):
        shares(received("100.00", Basis.UNKNOWN), [claim("a")])


def test_a_sum_over_energies_is_split_to_the_cent() -> None:
    homes = shares(received("57.13"), [claim("a", "12.5"), claim("b", "7.3"), claim("c", "0.2")])
    assert [home.gross for home in homes] == list(map(Decimal, ("35.71", "20.85", "0.57")))


def test_the_received_amount_is_split_and_not_what_homes_measured() -> None:
    by_kw = SplitRule(name="by kW", by=SplitBy.DEMONSTRATED_KW)
    claims = [replace(claim(site), demonstrated_kw=Fraction(4)) for site in "ab"]
    homes = waterfall(received("10.00"), claims, by_kw, CONTRACT, {})
    assert sum(home.gross for home in homes) == Decimal("10.00")


@pytest.mark.parametrize("why", list(GetsNothing))
def test_who_has_no_part_by_the_rule_gets_nothing_and_says_why(why: GetsNothing) -> None:
    out = claim("b", None) if why is GetsNothing.NO_DATA else claim("b", "5", against=frozenset({why}))
    first, second = shares(received("10.00"), [claim("a"), out])
    assert (first.gross, second.gross) == (Decimal("10.00"), Decimal("0.00"))
    assert (first.nothing_because, second.nothing_because) == (None, why)


def test_who_opted_out_has_a_part_where_the_rule_lets_it() -> None:
    rule = replace(BY_KWH, nothing_for=frozenset({GetsNothing.INELIGIBLE}))
    homes = shares(received("10.00"), [claim("a"), claim("b", against=frozenset({GetsNothing.OPTED_OUT}))], rule=rule)
    assert [home.gross for home in homes] == [Decimal("5.00"), Decimal("5.00")]


def test_energy_taken_instead_of_given_counts_as_none() -> None:
    homes = shares(received("10.00"), [claim("a", "-3"), claim("b", "1")])
    assert [home.gross for home in homes] == [Decimal("0.00"), Decimal("10.00")]


def test_money_that_nobody_has_a_part_in_is_refused_and_nothing_of_nothing_is_nothing() -> None:
    with pytest.raises(InvalidInput, match="no home has a share"):
        shares(received("10.00"), [claim("a", None)])
    assert [home.gross for home in shares(received("0.00"), [claim("a", None)])] == [Decimal("0.00")]


def test_without_a_pay_plan_the_money_waits_and_is_no_margin() -> None:
    [home] = waterfall(received("100.00"), [claim("a")], BY_KWH, CONTRACT, {})
    assert (home.pay, home.margin, home.waits) == (Decimal("0.00"), Decimal("0.00"), Decimal("80.00"))
    assert home.not_paid == "customer 'c-a' has no pay plan"


def test_pay_by_energy_that_is_not_known_waits() -> None:
    terms = replace(HALF_OF_NET, share=Fraction(0), per_kwh=Fraction(1))
    _, home = shares(received("100.00"), [claim("a"), claim("b", None)], terms)
    assert home.waits == home.net
    assert "what was given is not known" in home.not_paid


def test_a_negative_month_is_split_and_pays_nobody_less_than_nothing() -> None:
    homes = shares(received("-10.01"), [claim("a"), claim("b")])
    assert sum(home.gross for home in homes) == Decimal("-10.01")
    assert [home.pay for home in homes] == [Decimal("0.00")] * 2
    assert sum(home.margin for home in homes) == Decimal("-8.01")


def test_a_home_sold_in_the_month_pays_each_customer_for_their_part() -> None:
    sold = [replace(claim("a", "3", days=10), customer="seller"), replace(claim("a", "1", days=21), customer="buyer")]
    homes = waterfall(received("100.00"), sold, BY_KWH, CONTRACT, {"seller": HALF_OF_NET, "buyer": HALF_OF_GROSS})
    assert [home.pay for home in homes] == [Decimal("30.00"), Decimal("12.50")]


def test_one_home_that_claims_twice_for_one_customer_is_refused() -> None:
    homes = shares(received("10.00"), [claim("a"), claim("a")])
    with pytest.raises(InvalidInput, match="site 'a' claims twice"):
        amounts(received("10.00"), homes)


@pytest.mark.parametrize("other", ["contract", "plan"])
def test_another_currency_is_refused_by_name(other: str) -> None:
    contract = replace(CONTRACT, currency="EUR") if other == "contract" else CONTRACT
    terms = replace(HALF_OF_NET, currency="EUR") if other == "plan" else HALF_OF_NET
    with pytest.raises(InvalidInput, match="is in EUR, and what was received for dsgs-option3 is in USD"):
        waterfall(received("10.00"), [claim("a")], BY_KWH, contract, {"c-a": terms})


def test_a_contract_with_all_three_charges_adds_them_up_from_both_sides() -> None:
    contract = replace(CONTRACT, fixed_per_month=Fraction(5), per_kw_month=Fraction(1, 2))
    from_gross = gross_and_net(Decimal("100.00"), Basis.GROSS, contract, kw=Fraction(10))
    assert (from_gross.share, from_gross.net) == (Decimal("30.00"), Decimal("70.00"))
    assert gross_and_net(Decimal("70.00"), Basis.NET, contract, kw=Fraction(10)) == from_gross


def test_the_version_of_a_contract_is_that_of_the_day_and_two_are_refused() -> None:
    later = replace(CONTRACT, name="2026", from_day=date(2026, 1, 1))
    ended = replace(CONTRACT, until=date(2026, 1, 1))
    assert contract_on([ended, later], date(2025, 12, 31)) is ended
    assert contract_on([ended, later], date(2026, 1, 1)) is later
    assert contract_on([later], date(2025, 12, 31)) is None
    with pytest.raises(InvalidInput, match="both in force on 2026-01-01"):
        contract_on([CONTRACT, later], date(2026, 1, 1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"share": Fraction(1)}, "is not from 0 to below 1"),
        ({"fixed_per_month": Fraction(-1)}, "0 or more"),
        ({"until": date(2025, 1, 1)}, "ends before it begins"),
    ],
)
def test_a_contract_that_cannot_be_is_refused(change: Mapping[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        replace(CONTRACT, **change)


@given(
    cents=st.integers(-(10**8), 10**8),
    energies=st.lists(st.integers(0, 10**6), min_size=1, max_size=30).filter(any),
    basis=st.sampled_from([Basis.GROSS, Basis.NET]),
    percent=st.integers(0, 99),
    part=st.integers(0, 100),
)
def test_steps_sum_to_what_was_received_in_every_home_and_in_all(
    cents: int, energies: list[int], basis: Basis, percent: int, part: int
) -> None:
    whole = replace(received("0.00", basis), amount=Decimal(cents).scaleb(-2))
    contract = replace(CONTRACT, share=Fraction(percent, 100))
    terms = replace(HALF_OF_NET, share=Fraction(part, 100))
    claims = [claim(str(n), str(wh)) for n, wh in enumerate(energies)]
    homes = waterfall(whole, claims, BY_KWH, contract, {one.customer: terms for one in claims})
    for home in homes:
        assert home.gross == home.aggregator_share + home.pay + home.margin + home.waits
        assert home.pay >= 0
    total = sum(home.gross if basis is Basis.GROSS else home.net for home in homes)
    assert total == whole.amount
    booked = amounts(whole, homes)
    steps = {step: sum(amount for about, amount in booked.items() if about.step is step) for step in LedgerStep}
    assert (
        steps[LedgerStep.GROSS]
        == steps[LedgerStep.AGGREGATOR_SHARE] + steps[LedgerStep.CUSTOMER_PAY] + steps[LedgerStep.MARGIN]
    )

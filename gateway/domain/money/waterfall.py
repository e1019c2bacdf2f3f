"""From what was received for a month of a program to each home's gross, the aggregator's share, the customer's pay and
the maker's margin."""

from calendar import monthrange
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction

from gateway.domain.errors import InvalidInput
from gateway.domain.money.contract import Basis, ContractVersion, gross_and_net
from gateway.domain.money.currency import zero
from gateway.domain.money.pay_plan import PayBase, PayPlanVersion, pay
from gateway.domain.money.postings import About, LedgerStep
from gateway.domain.money.split import Claim, GetsNothing, SplitRule, Weighted, split, weights
from gateway.domain.programs.local_hours import Month

ZERO = Fraction(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedAmount:
    """What an aggregator's report says a month of a program pays in one sum."""

    program: str
    month: Month
    amount: Decimal
    basis: Basis
    currency: str
    report: str

    @property
    def first_day(self) -> date:
        return date(*self.month, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeShare:
    """What a home's claim comes to; money, and gross = aggregator's share + pay + margin + `waits`. `waits` stays in
    accrued revenue, because of `not_paid`: why nobody can say yet what the customer is paid. `nothing_because`: why the
    home has no part in what was split; its plan may pay something all the same."""

    claim: Claim
    gross: Decimal
    aggregator_share: Decimal
    pay: Decimal
    margin: Decimal
    waits: Decimal
    plan: PayPlanVersion | None
    nothing_because: GetsNothing | None = None
    not_paid: str = ""

    @property
    def net(self) -> Decimal:
        return self.gross - self.aggregator_share


def waterfall(
    received: ReceivedAmount,
    claims: Sequence[Claim],
    rule: SplitRule,
    contract: ContractVersion,
    plans: Mapping[str, PayPlanVersion],
) -> list[HomeShare]:
    """The share of each claim. What was received is what is split, whatever the sum of the homes' own figures is; gross
    and the aggregator's share are each split to the minor unit, so that both sum to the totals. `plans`: by customer.
    Raises InvalidInput where currencies differ, where it is not known whether the amount is gross or net, or where
    nobody has a share."""
    _one_currency(received, contract, plans)
    nominated = sum((claim.nominated_kw or ZERO for claim in claims), ZERO)
    total = gross_and_net(received.amount, received.basis, contract, kw=nominated)
    shares = weights(claims, rule)
    gross = split(total.gross, shares, received.currency)
    kept = split(total.share, shares, received.currency)
    rows = zip(claims, shares, gross, kept, strict=True)
    return [
        _home(received, claim, share, before, taken, plans.get(claim.customer)) for claim, share, before, taken in rows
    ]


def amounts(received: ReceivedAmount, homes: Sequence[HomeShare]) -> dict[About, Decimal]:
    """What the books have to say of a waterfall: an amount for each step of each home; nothing where it is 0."""
    found: dict[About, Decimal] = {}
    for home in homes:
        steps = {
            LedgerStep.GROSS: home.gross,
            LedgerStep.AGGREGATOR_SHARE: home.aggregator_share,
            LedgerStep.CUSTOMER_PAY: home.pay,
            LedgerStep.MARGIN: home.margin,
        }
        for step, amount in steps.items():
            about = About(
                step=step,
                program=received.program,
                month=received.month,
                site=home.claim.site,
                customer=home.claim.customer,
                currency=received.currency,
            )
            if about in found:
                raise InvalidInput([f"site {about.site!r} claims twice for customer {about.customer!r}"])
            found[about] = amount
    return {about: amount for about, amount in found.items() if amount}


def _home(
    received: ReceivedAmount,
    claim: Claim,
    share: Weighted,
    gross: Decimal,
    kept: Decimal,
    terms: PayPlanVersion | None,
) -> HomeShare:
    net, nothing = gross - kept, zero(received.currency)
    base = PayBase(
        gross=gross, net=net, kwh=claim.measured_kwh, days=claim.days, days_in_month=monthrange(*received.month)[1]
    )
    paid, not_paid = nothing, ""
    if terms is None:
        not_paid = f"customer {claim.customer!r} has no pay plan"
    else:
        try:
            paid = pay(terms, base)
        except InvalidInput as error:
            not_paid = "; ".join(error.problems)
    return HomeShare(
        claim=claim,
        gross=gross,
        aggregator_share=kept,
        pay=paid,
        margin=nothing if not_paid else net - paid,
        waits=net if not_paid else nothing,
        plan=terms,
        nothing_because=share.nothing_because,
        not_paid=not_paid,
    )


def _one_currency(received: ReceivedAmount, contract: ContractVersion, plans: Mapping[str, PayPlanVersion]) -> None:
    others = {f"contract {contract.name!r}": contract.currency}
    others |= {f"pay plan {one.plan!r}": one.currency for one in plans.values()}
    problems = [
        f"{who} is in {currency}, and what was received for {received.program} is in {received.currency}"
        for who, currency in sorted(others.items())
        if currency != received.currency
    ]
    if problems:
        raise InvalidInput(problems)

"""What is agreed about money, by day: with aggregators, with customers, and by the maker's own policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction

from gateway.domain.errors import InvalidInput
from gateway.domain.money.contract import ContractVersion, contract_on
from gateway.domain.money.pay_plan import Bonus, PayPlanVersion
from gateway.domain.money.postings import ChartOfAccounts
from gateway.domain.money.split import SplitRule


@dataclass(frozen=True, slots=True, kw_only=True)
class PayPolicy:
    """What may be paid. `preliminary`: the share (0 to 1) of what is not final; 0 = final figures alone. What is below
    `least_payout` waits for a later run; `held_back`: share of each payout that is kept until it is released. A run is
    refused where a payee gets more than `payee_multiple` times the last period, a program's month waits where more than
    `unexplained` (share) of it is not explained. `write_off`: what a customer who left still owes is written off."""

    preliminary: Fraction = Fraction(0)
    least_payout: Decimal = Decimal(0)
    held_back: Fraction = Fraction(0)
    payee_multiple: Fraction | None = None
    unexplained: Fraction = Fraction(1, 100)
    write_off: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaxThreshold:
    """From a year on: payees who got this much in it are listed for tax reporting."""

    from_year: int
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class DatedSplit:
    """A rule to split by, from a day on until the next one."""

    from_day: date
    rule: SplitRule


@dataclass(frozen=True, slots=True, kw_only=True)
class DatedTerms:
    """A version of a pay plan, from a day on until the next one."""

    from_day: date
    terms: PayPlanVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreements:
    """Everything that is agreed: contracts and splits by program, versions of pay plans by plan, each ascending."""

    currency: str
    chart: ChartOfAccounts
    contracts: Mapping[str, Sequence[ContractVersion]]
    splits: Mapping[str, Sequence[DatedSplit]]
    plans: Mapping[str, Sequence[DatedTerms]]
    bonuses: Sequence[Bonus] = ()
    policy: PayPolicy = PayPolicy()
    tax: Sequence[TaxThreshold] = ()

    def contract(self, program: str, day: date) -> ContractVersion:
        """The contract of a program on a day. Raises InvalidInput without one."""
        found = contract_on(self.contracts.get(program, ()), day)
        if found is None:
            raise InvalidInput([f"no contract with an aggregator is in force for {program} on {day}"])
        return found

    def split(self, program: str, day: date) -> SplitRule:
        """How an amount of a program is split on a day. Raises InvalidInput where nothing says so."""
        found = [one.rule for one in self.splits.get(program, ()) if one.from_day <= day]
        if not found:
            raise InvalidInput([f"nothing says how an amount of {program} is split on {day}"])
        return found[-1]

    def terms(self, plan: str, day: date) -> PayPlanVersion:
        """The version of a pay plan on a day. Raises InvalidInput where there is none."""
        if plan not in self.plans:
            raise InvalidInput([f"there is no pay plan {plan!r}: {', '.join(sorted(self.plans)) or 'none at all'}"])
        found = [one.terms for one in self.plans[plan] if one.from_day <= day]
        if not found:
            raise InvalidInput([f"pay plan {plan!r} begins after {day}"])
        return found[-1]

    def tax_threshold(self, year: int) -> TaxThreshold | None:
        """The threshold of a year; None before the first."""
        found = [one for one in self.tax if one.from_year <= year]
        return found[-1] if found else None

"""Reads the file of agreements and reports every fault with file, line and path."""

from fractions import Fraction
from pathlib import Path

from pydantic import ValidationError

from gateway.domain.errors import InvalidInput
from gateway.domain.money.agreements import Agreements, DatedSplit, DatedTerms, PayPolicy, TaxThreshold
from gateway.domain.money.contract import ContractVersion
from gateway.domain.money.pay_plan import Bonus, PayPlanVersion
from gateway.domain.money.postings import ChartOfAccounts
from gateway.domain.money.split import SplitRule
from gateway.money.checks import faults_of
from gateway.money.language import AgreementsDocument, ContractDocument, PlanDocument
from gateway.yaml_lines import NotStrict, bounded, fault_at, fault_line, read_file, read_yaml


def load_agreements(path: Path) -> Agreements:
    """Read a file. Raises InvalidInput with every fault, up to a bound, as `file:line: path: what is wrong`."""
    return parse_agreements(read_file(path).decode("utf-8"), name=path.name)


def parse_agreements(text: str, *, name: str) -> Agreements:
    """Read agreements from YAML; `name` is the file's name in messages. Raises InvalidInput as above."""
    try:
        raw, place = read_yaml(text)
    except NotStrict as error:
        raise InvalidInput([fault_line(name, error.line, "(document)", str(error))]) from error
    try:
        document = AgreementsDocument.model_validate(raw)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        told = [fault_at(name, place, one["loc"], one["msg"].removeprefix("Value error, ")) for one in found]
        raise InvalidInput(bounded(name, told)) from error
    faults = [fault_at(name, place, loc, words) for loc, words in faults_of(document)]
    if faults:
        raise InvalidInput(bounded(name, faults))
    return _compiled(document)


def _compiled(document: AgreementsDocument) -> Agreements:
    currency, policy = document.currency, document.policy
    contracts: dict[str, list[ContractVersion]] = {}
    for contract in document.contracts:
        for program in contract.programs:
            contracts.setdefault(program, []).extend(_versions(contract, currency))
    splits: dict[str, list[DatedSplit]] = {}
    for split in sorted(document.splits, key=lambda one: one.first):
        rule = SplitRule(name=split.name, by=split.by, nothing_for=frozenset(split.nothing_for))
        splits.setdefault(split.program, []).append(DatedSplit(from_day=split.first, rule=rule))
    return Agreements(
        currency=currency,
        chart=ChartOfAccounts(codes=document.accounts),
        contracts={program: sorted(those, key=lambda one: one.from_day) for program, those in contracts.items()},
        splits=splits,
        plans={plan.name: _terms(plan, currency) for plan in document.pay_plans},
        bonuses=[
            Bonus(
                name=one.name, program=one.program, year=one.year, currency=currency, amount=Fraction(one.amount),
                least_share=_share(one.least_share_pct),
            )
            for one in document.bonuses
        ],
        policy=PayPolicy(
            preliminary=_share(policy.preliminary_pct),
            least_payout=policy.least_payout,
            held_back=_share(policy.held_back_pct),
            payee_multiple=None if policy.payee_multiple is None else Fraction(policy.payee_multiple),
            unexplained=_share(policy.unexplained_pct),
            write_off=policy.write_off_at_leaving,
        ),
        tax=sorted(
            (TaxThreshold(from_year=one.from_year, amount=one.amount) for one in document.tax_reporting),
            key=lambda one: one.from_year,
        ),
    )  # fmt: skip


def _versions(contract: ContractDocument, currency: str) -> list[ContractVersion]:
    return [
        ContractVersion(
            name=f"{contract.name} {one.version}",
            from_day=one.first,
            until=one.until,
            currency=currency,
            share=_share(one.share_pct),
            fixed_per_month=Fraction(one.fixed_per_month),
            per_kw_month=Fraction(one.per_kw_month),
        )
        for one in contract.versions
    ]


def _terms(plan: PlanDocument, currency: str) -> list[DatedTerms]:
    return [
        DatedTerms(
            from_day=one.first,
            terms=PayPlanVersion(
                plan=plan.name,
                name=one.version,
                currency=currency,
                base=one.base,
                share=_share(one.share_pct),
                fixed_per_month=Fraction(one.fixed_per_month),
                per_kwh=Fraction(one.per_kwh),
                minimum=None if one.minimum is None else Fraction(one.minimum),
                cap=None if one.cap is None else Fraction(one.cap),
                prorated=one.prorated,
            ),
        )
        for one in sorted(plan.versions, key=lambda one: one.first)
    ]


def _share(pct: object) -> Fraction:
    return Fraction(str(pct)) / 100

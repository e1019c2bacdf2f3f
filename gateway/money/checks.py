"""Faults of a file of agreements that its schema alone cannot see."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import TypeVar

from gateway.domain.errors import InvalidInput
from gateway.domain.money.currency import is_whole, places_of
from gateway.domain.money.postings import Account, ChartOfAccounts
from gateway.money.language import AgreementsDocument, ContractTerms
from gateway.yaml_lines import Loc

T = TypeVar("T")
Fault = tuple[Loc, str]


def faults_of(document: AgreementsDocument) -> Iterator[Fault]:
    """Each fault with its path."""
    try:
        places_of(document.currency)
    except InvalidInput as error:
        yield ("currency",), "; ".join(error.problems)
        return
    yield from _accounts(document)
    yield from _contracts(document)
    yield from _dated(document)
    yield from _amounts(document)


def _accounts(document: AgreementsDocument) -> Iterator[Fault]:
    try:
        ChartOfAccounts(codes=document.accounts)
    except InvalidInput as error:
        missing = [account for account in Account if account not in document.accounts]
        for words in error.problems:
            yield ("accounts",) if missing else ("accounts", next(iter(document.accounts))), words


def _contracts(document: AgreementsDocument) -> Iterator[Fault]:
    by_program: dict[str, list[tuple[Loc, ContractTerms]]] = {}
    for c, contract in enumerate(document.contracts):
        for v, version in enumerate(contract.versions):
            path: Loc = ("contracts", c, "versions", v)
            if version.until is not None and version.until <= version.first:
                yield (*path, "until"), "not after from"
            for program in contract.programs:
                others = by_program.setdefault(program, [])
                for there, other in others:
                    if _meet(version, other):
                        where = ".".join(map(str, there))
                        yield (*path, "from"), f"{program} has another contract on some of these days: {where}"
                others.append((path, version))
    yield from _twice(document.contracts, "contracts", lambda one: one.name, "another contract has this name")


def _dated(document: AgreementsDocument) -> Iterator[Fault]:
    yield from _twice(document.splits, "splits", lambda one: (one.program, one.first), "another begins on this day")
    yield from _twice(document.pay_plans, "pay_plans", lambda one: one.name, "another plan has this name")
    yield from _twice(document.bonuses, "bonuses", lambda one: (one.name, one.program, one.year), "stands twice")
    yield from _twice(document.tax_reporting, "tax_reporting", lambda one: one.from_year, "another is from this year")
    for p, plan in enumerate(document.pay_plans):
        starts: dict[date, int] = {}
        for v, terms in enumerate(plan.versions):
            path: Loc = ("pay_plans", p, "versions", v)
            if terms.first in starts:
                yield (*path, "from"), f"version {starts[terms.first]} of this plan begins on the same day"
            starts[terms.first] = v
            if terms.minimum is not None and terms.cap is not None and terms.minimum > terms.cap:
                yield (*path, "minimum"), "more than cap"


def _amounts(document: AgreementsDocument) -> Iterator[Fault]:
    """Amounts that are paid as they stand have no more digits than the currency."""
    paid: list[tuple[Loc, Decimal]] = [(("policy", "least_payout"), document.policy.least_payout)]
    paid += [(("bonuses", n, "amount"), one.amount) for n, one in enumerate(document.bonuses)]
    paid += [(("tax_reporting", n, "amount"), one.amount) for n, one in enumerate(document.tax_reporting)]
    for path, amount in paid:
        if not is_whole(amount, document.currency):
            yield path, f"{amount} has more digits than {document.currency} has"


def _meet(one: ContractTerms, other: ContractTerms) -> bool:
    return (one.until is None or other.first < one.until) and (other.until is None or one.first < other.until)


def _twice(those: Sequence[T], name: str, key: Callable[[T], object], words: str) -> Iterator[Fault]:
    seen: set[object] = set()
    for n, one in enumerate(those):
        if key(one) in seen:
            yield (name, n), words
        seen.add(key(one))

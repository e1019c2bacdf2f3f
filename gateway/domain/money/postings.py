"""The ledger: accounts, postings that sum to zero, and corrections that are postings of their own.

An amount on an account is positive as a debit. What a program pays goes to accrued revenue first; each later step takes
its part from there, so that accrued revenue is what nobody has been given yet and is zero when a waterfall is complete.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum

from gateway.domain.errors import InvalidInput
from gateway.domain.money.currency import is_whole, zero
from gateway.domain.programs.local_hours import Month


class Account(StrEnum):
    """The accounts of the ledger; a chart of accounts gives each the code of the finance system."""

    REVENUE = "accrued_revenue"
    RECEIVABLE = "receivable_from_aggregator"
    CASH = "cash_received"
    PAYABLE = "payable_to_customers"
    HELD_BACK = "held_back"
    MARGIN = "margin"
    ROUNDING = "rounding"


class LedgerStep(StrEnum):
    """What a posting does."""

    GROSS = "gross"
    AGGREGATOR_SHARE = "aggregator_share"
    CUSTOMER_PAY = "customer_pay"
    MARGIN = "margin"
    RECEIPT = "receipt"
    HOLD_BACK = "hold_back"
    RELEASE = "release"
    PAYMENT = "payment"
    RETURN = "return"
    WRITE_OFF = "write_off"


FROM_TO = {
    LedgerStep.GROSS: (Account.REVENUE, Account.RECEIVABLE),
    LedgerStep.AGGREGATOR_SHARE: (Account.RECEIVABLE, Account.REVENUE),
    LedgerStep.CUSTOMER_PAY: (Account.PAYABLE, Account.REVENUE),
    LedgerStep.MARGIN: (Account.MARGIN, Account.REVENUE),
    LedgerStep.RECEIPT: (Account.RECEIVABLE, Account.CASH),
    LedgerStep.HOLD_BACK: (Account.HELD_BACK, Account.PAYABLE),
    LedgerStep.RELEASE: (Account.PAYABLE, Account.HELD_BACK),
    LedgerStep.PAYMENT: (Account.CASH, Account.PAYABLE),
    LedgerStep.RETURN: (Account.PAYABLE, Account.CASH),
    LedgerStep.WRITE_OFF: (Account.MARGIN, Account.PAYABLE),
}
"""Which account each step credits, and which it debits, for an amount above 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What an amount is about: a step for a home and its customer in a month of a program. What of these does not apply
    is empty."""

    step: LedgerStep
    program: str
    month: Month
    site: str = ""
    customer: str = ""
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """An amount that went from one account to another; never changed. `effective_on`: the day it is about; `booked_in`:
    the month of the books; `rests_on`: versions of rules, contracts, plans and performance, or the report, that made
    it; `corrects`: numbers of the postings that it corrects."""

    about: About
    amount: Decimal
    effective_on: date
    booked_in: Month
    rests_on: tuple[str, ...]
    corrects: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not is_whole(self.amount, self.about.currency):
            raise InvalidInput([f"{self.amount} has more digits than {self.about.currency} has"])
        if not self.amount:
            raise InvalidInput(["a posting of nothing says nothing"])
        if not self.rests_on:
            raise InvalidInput(["a posting names what it rests on"])

    @property
    def lines(self) -> Mapping[Account, Decimal]:
        """What it adds to each account, + = debit. The sum is zero."""
        credited, debited = FROM_TO[self.about.step]
        return {debited: self.amount, credited: -self.amount}


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedPosting:
    """A posting with its number, and who booked it when (UTC)."""

    number: int
    posting: Posting
    booked_ms: int
    who: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """What the books say of one thing: the sum of its postings and their numbers."""

    amount: Decimal
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartOfAccounts:
    """The code of each account in the finance system."""

    codes: Mapping[Account, str]

    def __post_init__(self) -> None:
        missing = [account.value for account in Account if not self.codes.get(account)]
        double = [code for code in set(self.codes.values()) if list(self.codes.values()).count(code) > 1]
        if missing or double:
            problems = [f"the chart of accounts has no code for {name}" for name in missing]
            raise InvalidInput(problems + [f"code {code!r} is given to two accounts" for code in sorted(double)])


def to_book(
    target: Mapping[About, Decimal],
    booked: Mapping[About, Booked],
    *,
    effective_on: date,
    booked_in: Month,
    rests_on: tuple[str, ...],
) -> list[Posting]:
    """The postings that bring the books to `target`: what it says and is not booked, differences where something else
    is, and the reverse of what it does not name any more. Whatever the order of corrections and of runs, the books end
    at the last target; without a difference nothing is posted. A correction is booked in the month that is open and
    names what it corrects."""
    postings = []
    for about in sorted({*target, *booked}, key=_order):
        before = booked.get(about, Booked(amount=zero(about.currency)))
        difference = target.get(about, zero(about.currency)) - before.amount
        if difference:
            postings.append(
                Posting(
                    about=about,
                    amount=difference,
                    effective_on=effective_on,
                    booked_in=booked_in,
                    rests_on=rests_on,
                    corrects=before.numbers,
                )
            )
    return postings


def month_text(month: Month) -> str:
    """`YYYY-MM`."""
    return f"{month[0]:04d}-{month[1]:02d}"


def open_month(month: Month, closed: Iterable[Month]) -> Month:
    """The month of the books for something of `month`: itself while it is open, else the first open one after every
    closed month."""
    locked = set(closed)
    if month not in locked and not any(other > month for other in locked):
        return month
    year, number = max(locked)
    return (year + number // 12, number % 12 + 1)


def balances(postings: Iterable[Posting]) -> dict[str, dict[Account, Decimal]]:
    """By currency what stands on each account, + = debit; of each currency they sum to zero."""
    found: dict[str, dict[Account, Decimal]] = defaultdict(dict)
    for posting in postings:
        accounts = found[posting.about.currency]
        for account, amount in posting.lines.items():
            accounts[account] = accounts.get(account, zero(posting.about.currency)) + amount
    return dict(found)


def _order(about: About) -> tuple[Month, str, str, str, int, str]:
    return (about.month, about.program, about.site, about.customer, list(LedgerStep).index(about.step), about.currency)

"""What a customer is told of a period: what was earned in which month of which program, what was corrected, what was
paid, and what stands over. It is made from the books alone, so that all statements sum to them.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from gateway.domain.errors import InvalidInput
from gateway.domain.money.currency import zero
from gateway.domain.money.postings import Account, BookedPosting, LedgerStep
from gateway.domain.programs.local_hours import Month

_PERIOD = re.compile(r"(?P<year>[0-9]{4})(Q(?P<quarter>[1-4])|-(?P<month>0[1-9]|1[0-2]))?")
_EARNED = frozenset({LedgerStep.CUSTOMER_PAY})
_HELD = frozenset({LedgerStep.HOLD_BACK, LedgerStep.RELEASE})


@dataclass(frozen=True, slots=True, kw_only=True)
class BooksPeriod:
    """Months of the books, from `first` to `last`, both inside; `name` is `2026Q3`, `2026` or `2026-08`."""

    name: str
    first: Month
    last: Month

    def __contains__(self, month: Month) -> bool:
        return self.first <= month <= self.last


@dataclass(frozen=True, slots=True, kw_only=True)
class EarnedLine:
    """What a month of a program earned at a site, as it was first booked or as a correction of it; `postings` made
    it."""

    program: str
    month: Month
    site: str
    amount: Decimal
    corrects: bool
    rests_on: tuple[str, ...]
    postings: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerStatement:
    """A customer's period; money. opening + earned - held back - paid + written off = closing, which is what is owed
    to the customer at its end. `until_posting`: the last posting that was known. `restates`: number of the statement
    that this one takes the place of."""

    number: str
    customer: str
    period: BooksPeriod
    currency: str
    opening: Decimal
    lines: tuple[EarnedLine, ...]
    held_back: Decimal
    paid: Decimal
    written_off: Decimal
    until_posting: int
    restates: str = ""

    @property
    def earned(self) -> Decimal:
        return sum((line.amount for line in self.lines), zero(self.currency))

    @property
    def closing(self) -> Decimal:
        return self.opening + self.earned - self.held_back - self.paid + self.written_off

    def says_the_same(self, other: "CustomerStatement") -> bool:
        """Whether another statement of the period tells the customer the same."""
        mine, theirs = (
            (one.opening, one.lines, one.held_back, one.paid, one.written_off, one.currency) for one in (self, other)
        )
        return mine == theirs


def books_period(text: str) -> BooksPeriod:
    """A year, a quarter or a month. Raises InvalidInput for anything else."""
    found = _PERIOD.fullmatch(text)
    if found is None:
        raise InvalidInput([f"{text!r} is no period: 2026, 2026Q3 or 2026-08"])
    year = int(found["year"])
    if found["month"]:
        return BooksPeriod(name=text, first=(year, int(found["month"])), last=(year, int(found["month"])))
    if found["quarter"]:
        first = 3 * int(found["quarter"]) - 2
        return BooksPeriod(name=text, first=(year, first), last=(year, first + 2))
    return BooksPeriod(name=text, first=(year, 1), last=(year, 12))


def statement(
    postings: Sequence[BookedPosting],
    *,
    number: str,
    customer: str,
    period: BooksPeriod,
    currency: str,
    restates: str = "",
) -> CustomerStatement | None:
    """The statement of a customer's postings in a currency; None where there is nothing to tell: no posting in the
    period and nothing owed before it."""
    own = [
        one for one in postings
        if one.posting.about.customer == customer and one.posting.about.currency == currency
        and one.posting.booked_in <= period.last
    ]  # fmt: skip
    inside = [one for one in own if one.posting.booked_in in period]
    told = [one for one in inside if Account.PAYABLE in one.posting.lines]
    opening = -_payable((one for one in own if one.posting.booked_in < period.first), currency)
    if not told and not opening:
        return None
    return CustomerStatement(
        number=number,
        customer=customer,
        period=period,
        currency=currency,
        opening=opening,
        lines=_earned(inside),
        held_back=_payable((one for one in inside if one.posting.about.step in _HELD), currency),
        paid=_payable(
            (one for one in inside if one.posting.about.step in {LedgerStep.PAYMENT, LedgerStep.RETURN}), currency
        ),
        written_off=-_payable((one for one in inside if one.posting.about.step is LedgerStep.WRITE_OFF), currency),
        until_posting=max((one.number for one in own), default=0),
        restates=restates,
    )


def _payable(those: Iterable[BookedPosting], currency: str) -> Decimal:
    """What postings add to the account of what is owed to customers, + = debit: less is owed."""
    return sum((one.posting.lines.get(Account.PAYABLE, zero(currency)) for one in those), zero(currency))


def _earned(inside: Iterable[BookedPosting]) -> tuple[EarnedLine, ...]:
    lines: dict[tuple[Month, str, str, bool], list[BookedPosting]] = {}
    for one in inside:
        about = one.posting.about
        if about.step in _EARNED:
            lines.setdefault((about.month, about.program, about.site, bool(one.posting.corrects)), []).append(one)
    return tuple(
        EarnedLine(
            program=program,
            month=month,
            site=site,
            amount=sum((one.posting.amount for one in those), zero(those[0].posting.about.currency)),
            corrects=corrects,
            rests_on=tuple(dict.fromkeys(reason for one in those for reason in one.posting.rests_on)),
            postings=tuple(one.number for one in those),
        )
        for (month, program, site, corrects), those in sorted(lines.items())
    )

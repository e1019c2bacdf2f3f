"""Postings sum to zero, are never changed, and end at the last figures whatever the order of corrections."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import InvalidInput
from gateway.domain.money.postings import (
    About,
    Account,
    Booked,
    ChartOfAccounts,
    LedgerStep,
    Posting,
    balances,
    open_month,
    to_book,
)

JULY, AUGUST = (2025, 7), (2025, 8)
PAY = About(step=LedgerStep.CUSTOMER_PAY, program="p", month=JULY, site="s", customer="c", currency="USD")
GROSS = replace(PAY, step=LedgerStep.GROSS)


class Books:
    """Postings by number, as a store keeps them."""

    def __init__(self) -> None:
        self.postings: list[Posting] = []

    def bring_to(self, target: Mapping[About, Decimal], report: str = "V1") -> list[Posting]:
        new = to_book(target, self.booked(), effective_on=date(2025, 7, 31), booked_in=AUGUST, rests_on=(report,))
        self.postings += new
        return new

    def booked(self) -> dict[About, Booked]:
        found: dict[About, Booked] = {}
        for number, posting in enumerate(self.postings, 1):
            before = found.get(posting.about, Booked(amount=Decimal(0)))
            found[posting.about] = Booked(amount=before.amount + posting.amount, numbers=(*before.numbers, number))
        return found


def test_each_step_takes_its_part_from_accrued_revenue_until_nothing_is_left() -> None:
    books = Books()
    steps = {
        LedgerStep.GROSS: "100.00",
        LedgerStep.AGGREGATOR_SHARE: "20.00",
        LedgerStep.CUSTOMER_PAY: "40.00",
        LedgerStep.MARGIN: "40.00",
        LedgerStep.RECEIPT: "80.00",
        LedgerStep.HOLD_BACK: "4.00",
        LedgerStep.PAYMENT: "36.00",
    }
    books.bring_to({replace(PAY, step=step): Decimal(amount) for step, amount in steps.items()})
    stands = {account: amount for account, amount in balances(books.postings)["USD"].items() if amount}
    assert stands == {Account.MARGIN: -40, Account.CASH: 44, Account.HELD_BACK: -4}


def test_a_correction_is_a_posting_of_the_difference_that_names_what_it_corrects() -> None:
    books = Books()
    books.bring_to({PAY: Decimal("40.00"), GROSS: Decimal("100.00")})
    [corrected] = books.bring_to({PAY: Decimal("38.50"), GROSS: Decimal("100.00")}, "V2")
    assert (corrected.amount, corrected.rests_on) == (Decimal("-1.50"), ("V2",))
    assert [books.postings[number - 1].about for number in corrected.corrects] == [PAY]


def test_a_run_that_is_repeated_posts_nothing() -> None:
    books = Books()
    assert len(books.bring_to({PAY: Decimal("40.00")})) == 1
    assert books.bring_to({PAY: Decimal("40.00")}) == []


def test_what_a_later_report_does_not_name_is_taken_back() -> None:
    books = Books()
    books.bring_to({PAY: Decimal("40.00")})
    [reverse] = books.bring_to({}, "V2")
    assert (reverse.about, reverse.amount, reverse.corrects) == (PAY, Decimal("-40.00"), (1,))


@given(
    runs=st.lists(
        st.dictionaries(st.sampled_from([PAY, GROSS, replace(PAY, customer="d")]), st.integers(-999, 999)), max_size=12
    )
)
def test_any_order_of_corrections_and_runs_ends_at_the_last_figures_and_balances(runs: list[dict[About, int]]) -> None:
    books, last = Books(), dict[About, Decimal]()
    for run in runs:
        last = {about: Decimal(cents).scaleb(-2) for about, cents in run.items()}
        books.bring_to(last)
    stands = {about: one.amount for about, one in books.booked().items() if one.amount}
    assert stands == {about: amount for about, amount in last.items() if amount}
    assert all(not sum(accounts.values()) for accounts in balances(books.postings).values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"amount": Decimal("0.001")}, "more digits than USD has"),
        ({"amount": Decimal("NaN")}, "more digits than USD has"),
        ({"amount": Decimal("0.00")}, "says nothing"),
        ({"rests_on": ()}, "names what it rests on"),
        ({"about": replace(PAY, currency="XXX")}, "'XXX' is no currency"),
    ],
)
def test_a_posting_that_cannot_be_is_refused(change: Mapping[str, Any], words: str) -> None:
    fine = Posting(
        about=PAY, amount=Decimal("1.00"), effective_on=date(2025, 7, 31), booked_in=JULY, rests_on=("V1",)
    )  # fmt: skip
    with pytest.raises(InvalidInput, match=words):
        replace(fine, **change)


@pytest.mark.parametrize(
    ("month", "closed", "expected"),
    [
        (JULY, [], JULY),
        (JULY, [(2025, 6)], JULY),
        (JULY, [JULY], AUGUST),
        (JULY, [JULY, AUGUST], (2025, 9)),
        (JULY, [AUGUST], (2025, 9)),
        ((2025, 12), [(2025, 12)], (2026, 1)),
    ],
)
def test_what_is_about_a_closed_month_is_booked_in_the_open_one(
    month: tuple[int, int], closed: list[tuple[int, int]], expected: tuple[int, int]
) -> None:
    assert open_month(month, closed) == expected


def test_a_chart_of_accounts_gives_every_account_a_code_of_its_own() -> None:
    codes = {account: str(1000 + n) for n, account in enumerate(Account)}
    assert ChartOfAccounts(codes=codes).codes[Account.CASH] == "1002"
    with pytest.raises(InvalidInput, match="no code for cash_received"):
        ChartOfAccounts(codes={account: code for account, code in codes.items() if account is not Account.CASH})
    with pytest.raises(InvalidInput, match="'1000' is given to two accounts"):
        ChartOfAccounts(codes=codes | {Account.CASH: "1000"})

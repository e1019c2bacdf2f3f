"""Statements say what the books say: every one adds up, and all of them sum to the ledger."""

from dataclasses import replace
from datetime import date
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import InvalidInput
from gateway.domain.money.postings import About, Account, BookedPosting, LedgerStep, Posting, balances
from gateway.domain.money.statements import CustomerStatement, books_period, statement

Q3 = books_period("2026Q3")
JULY, AUGUST, OCTOBER = (2026, 7), (2026, 8), (2026, 10)


def posting(
    number: int,
    step: LedgerStep,
    amount: str,
    booked_in: tuple[int, int] = JULY,
    *,
    customer: str = "anna",
    month: tuple[int, int] = JULY,
    corrects: tuple[int, ...] = (),
) -> BookedPosting:
    about = About(step=step, program="p", month=month, site="s", customer=customer, currency="USD")
    made = Posting(
        about=about,
        amount=Decimal(amount),
        effective_on=date(*month, 28),
        booked_in=booked_in,
        rests_on=("V1", "plan half 1"),
        corrects=corrects,
    )
    return BookedPosting(number=number, posting=made, booked_ms=0, who="w")


def of(postings: list[BookedPosting], customer: str = "anna", period: str = "2026Q3") -> CustomerStatement | None:
    return statement(postings, number="n-1", customer=customer, period=books_period(period), currency="USD")


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2026", (2026, 1), (2026, 12)),
        ("2026Q1", (2026, 1), (2026, 3)),
        ("2026Q4", (2026, 10), (2026, 12)),
        ("2026-08", (2026, 8), (2026, 8)),
    ],
)
def test_a_period_is_a_year_a_quarter_or_a_month(text: str, first: tuple[int, int], last: tuple[int, int]) -> None:
    found = books_period(text)
    assert (found.first, found.last) == (first, last)


@pytest.mark.parametrize("text", ["", "2026Q5", "2026-13", "2026-00", "26Q1", "2026Q", "2026-8"])
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no period"):
        books_period(text)


def test_a_statement_tells_what_was_earned_corrected_paid_and_what_stands_over() -> None:
    found = of([
        posting(1, LedgerStep.CUSTOMER_PAY, "7.00", (2026, 6), month=(2026, 6)),
        posting(2, LedgerStep.GROSS, "100.00"),
        posting(3, LedgerStep.CUSTOMER_PAY, "40.00"),
        posting(4, LedgerStep.CUSTOMER_PAY, "-1.50", AUGUST, corrects=(3,)),
        posting(5, LedgerStep.HOLD_BACK, "2.00", AUGUST),
        posting(6, LedgerStep.PAYMENT, "30.00", AUGUST),
        posting(7, LedgerStep.CUSTOMER_PAY, "9.00", OCTOBER),
        posting(8, LedgerStep.CUSTOMER_PAY, "9.00", customer="ben"),
    ])  # fmt: skip
    assert found is not None
    assert [(line.amount, line.corrects, line.postings) for line in found.lines] == [
        (Decimal("40.00"), False, (3,)),
        (Decimal("-1.50"), True, (4,)),
    ]
    assert (found.opening, found.earned, found.held_back, found.paid) == tuple(
        map(Decimal, ("7.00", "38.50", "2.00", "30.00"))
    )
    assert (found.closing, found.until_posting) == (Decimal("13.50"), 6)


def test_a_returned_payment_is_owed_again_and_what_is_written_off_is_not() -> None:
    found = of([
        posting(1, LedgerStep.CUSTOMER_PAY, "10.00"),
        posting(2, LedgerStep.PAYMENT, "10.00"),
        posting(3, LedgerStep.RETURN, "10.00"),
    ])  # fmt: skip
    assert found is not None
    assert (found.paid, found.closing) == (Decimal("0.00"), Decimal("10.00"))
    written = of([posting(1, LedgerStep.CUSTOMER_PAY, "-4.00"), posting(2, LedgerStep.WRITE_OFF, "-4.00")])
    assert written is not None
    assert (written.written_off, written.closing) == (Decimal("4.00"), Decimal("0.00"))


def test_who_has_nothing_to_be_told_has_no_statement_and_who_is_owed_from_before_has() -> None:
    assert of([posting(1, LedgerStep.GROSS, "100.00")]) is None
    assert of([posting(1, LedgerStep.CUSTOMER_PAY, "5.00", OCTOBER)]) is None
    found = of([posting(1, LedgerStep.CUSTOMER_PAY, "5.00", (2026, 6))])
    assert found is not None
    assert (found.lines, found.closing) == ((), Decimal("5.00"))


def test_a_statement_that_says_the_same_needs_no_restatement() -> None:
    first = of([posting(1, LedgerStep.CUSTOMER_PAY, "5.00")])
    later = of([posting(1, LedgerStep.CUSTOMER_PAY, "5.00"), posting(2, LedgerStep.CUSTOMER_PAY, "1.00", AUGUST)])
    assert first is not None
    assert later is not None
    assert first.says_the_same(replace(first, number="n-2", restates="n-1"))
    assert not first.says_the_same(later)


STEPS = st.sampled_from([step for step in LedgerStep if step not in {LedgerStep.GROSS, LedgerStep.RECEIPT}])


@given(
    st.lists(
        st.tuples(
            STEPS, st.integers(-9999, 9999).filter(bool), st.integers(1, 12), st.sampled_from(["anna", "ben"])
        ),
        max_size=25,
    )
)  # fmt: skip
def test_statements_of_all_customers_close_at_what_the_ledger_owes(
    rows: list[tuple[LedgerStep, int, int, str]],
) -> None:
    postings = [
        posting(n, step, str(Decimal(cents).scaleb(-2)), (2026, month), customer=customer)
        for n, (step, cents, month, customer) in enumerate(rows, 1)
    ]
    whole = [of(postings, customer, "2026") for customer in ("anna", "ben")]
    owed = -balances(one.posting for one in postings).get("USD", {}).get(Account.PAYABLE, Decimal(0))
    assert sum(one.closing for one in whole if one is not None) == owed
    for customer in ("anna", "ben"):
        quarters = [of(postings, customer, f"2026Q{n}") for n in range(1, 5)]
        for before, after in pairwise(quarters):
            assert (Decimal(0) if before is None else before.closing) == (
                Decimal(0) if after is None else after.opening
            )

"""Books as files: they balance for a program by others, and are the same bytes every time."""

import csv
import io
import subprocess
import sys
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.domain.money.postings import About, Account, BookedPosting, ChartOfAccounts, LedgerStep, Posting
from gateway.money.exports import as_beancount, as_csv

CHART = ChartOfAccounts(codes={account: str(1000 + n) for n, account in enumerate(Account)})
ABOUT = About(step=LedgerStep.GROSS, program="p", month=(2025, 7), site="s", customer="c", currency="USD")
AMOUNTS = {
    LedgerStep.GROSS: "100.01",
    LedgerStep.AGGREGATOR_SHARE: "20.00",
    LedgerStep.CUSTOMER_PAY: "40.00",
    LedgerStep.MARGIN: "40.01",
    LedgerStep.RECEIPT: "80.01",
    LedgerStep.HOLD_BACK: "4.00",
    LedgerStep.RELEASE: "1.00",
    LedgerStep.PAYMENT: "36.00",
    LedgerStep.RETURN: "36.00",
    LedgerStep.WRITE_OFF: "-0.01",
}


def postings() -> list[BookedPosting]:
    found = []
    for number, (step, amount) in enumerate(AMOUNTS.items(), 1):
        posting = Posting(
            about=replace(ABOUT, step=step),
            amount=Decimal(amount),
            effective_on=date(2025, 7, 31),
            booked_in=(2025, 8),
            rests_on=("2025-07 V1", "plan half 1"),
            corrects=(number - 1,) if number > 1 else (),
        )
        found.append(BookedPosting(number=number, posting=posting, booked_ms=0, who="anna"))
    return found


def bean_check(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "beancount.scripts.check", str(path)], capture_output=True, text=True, check=False
    )  # fmt: skip


def test_beancount_balances_all_kinds_of_postings_without_tolerance(tmp_path: Path) -> None:
    path = tmp_path / "books.beancount"
    path.write_bytes(as_beancount(postings(), CHART))
    found = bean_check(path)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_a_cent_that_is_wrong_does_not_balance(tmp_path: Path) -> None:
    path = tmp_path / "books.beancount"
    path.write_bytes(as_beancount(postings(), CHART).replace(b"  -100.01 USD", b"  -100.00 USD"))
    found = bean_check(path)
    assert found.returncode
    assert "does not balance" in found.stdout + found.stderr


def test_names_with_quotes_and_lines_stay_texts(tmp_path: Path) -> None:
    odd = [replace(one, posting=replace(one.posting, rests_on=('a "b" \\ c\nd',))) for one in postings()]
    path = tmp_path / "books.beancount"
    path.write_bytes(as_beancount(odd, CHART))
    assert bean_check(path).returncode == 0


def test_csv_has_a_debit_and_a_credit_of_every_posting() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(postings(), CHART).decode())))
    assert len(rows) == 2 * len(AMOUNTS)
    assert sum(Decimal(row["debit"] or 0) - Decimal(row["credit"] or 0) for row in rows) == 0
    assert (rows[0]["account"], rows[0]["account_code"], rows[0]["debit"]) == (
        "receivable_from_aggregator",
        "1001",
        "100.01",
    )
    assert (rows[2]["corrects"], rows[2]["rests_on"]) == ("1", "2025-07 V1; plan half 1")


def test_the_same_postings_are_the_same_bytes() -> None:
    assert as_csv(postings(), CHART) == as_csv(postings(), CHART)
    assert as_beancount(postings(), CHART) == as_beancount(postings(), CHART)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x"])
def test_no_name_is_a_formula_in_a_spreadsheet(name: str) -> None:
    [odd] = [replace(postings()[0], posting=replace(postings()[0].posting, about=replace(ABOUT, customer=name)))]
    rows = list(csv.DictReader(io.StringIO(as_csv([odd], CHART).decode())))
    assert rows[0]["customer"] == f"'{name}"

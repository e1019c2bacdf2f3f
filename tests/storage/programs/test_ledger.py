"""The books: numbered, never changed, closed by month, exported once."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.domain.errors import CorruptState, InvalidInput
from gateway.domain.money.postings import About, Account, BookedPosting, LedgerStep, Posting
from gateway.storage.programs.ledger import NAME, Bookkeeper, Ledger

JULY, AUGUST = (2025, 7), (2025, 8)
GROSS = About(step=LedgerStep.GROSS, program="p", month=JULY, site="s", customer="c", currency="USD")
PAY = replace(GROSS, step=LedgerStep.CUSTOMER_PAY)
STEPS = (LedgerStep.GROSS, LedgerStep.CUSTOMER_PAY)
BY = Bookkeeper(who="anna", now_ms=1_756_000_000_000)
LAST = date(2025, 7, 31)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path)) as opened:
        yield opened


def bring(ledger: Ledger, target: dict[About, str], report: str = "V1") -> list[BookedPosting]:
    amounts = {about: Decimal(amount) for about, amount in target.items()}
    return ledger.bring_to("p", JULY, amounts, STEPS, effective_on=LAST, rests_on=(report,), by=BY)


def test_postings_come_back_as_they_were_booked_after_the_file_was_opened_again(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        booked = bring(ledger, {GROSS: "100.00", PAY: "40.00"})
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.postings() == booked
        assert ledger.posting(2) == booked[1]
        assert ledger.posting(3) is None
        assert ledger.postings(customer="another") == []
    assert [one.number for one in booked] == [1, 2]
    assert (booked[0].who, booked[0].posting.rests_on, booked[0].posting.booked_in) == ("anna", ("V1",), JULY)


def test_a_repeated_run_books_nothing_and_a_later_report_books_the_difference(ledger: Ledger) -> None:
    bring(ledger, {GROSS: "100.00", PAY: "40.00"})
    assert bring(ledger, {GROSS: "100.00", PAY: "40.00"}) == []
    [changed, gone] = bring(ledger, {GROSS: "99.99"}, "V2")
    assert (changed.posting.amount, changed.posting.corrects) == (Decimal("-0.01"), (1,))
    assert (gone.posting.amount, gone.posting.corrects) == (Decimal("-40.00"), (2,))
    assert ledger.sums("p", JULY, STEPS)[GROSS].amount == Decimal("99.99")
    assert ledger.sums("p", JULY, STEPS)[PAY].numbers == (2, 4)


def test_one_month_of_one_program_in_the_named_steps_is_all_that_a_run_corrects(ledger: Ledger) -> None:
    other = replace(GROSS, month=AUGUST)
    ledger.bring_to(
        "p", AUGUST, {other: Decimal("7.00")}, STEPS, effective_on=date(2025, 8, 31), rests_on=("V1",), by=BY
    )
    bring(ledger, {GROSS: "100.00"})
    assert ledger.sums("p", AUGUST, STEPS)[other].amount == Decimal("7.00")
    with pytest.raises(InvalidInput, match="the target is about more than gross, customer_pay of p in 2025-07"):
        bring(ledger, {other: "1.00"})


def test_a_correction_of_a_closed_month_is_booked_in_the_open_one_and_names_the_old(ledger: Ledger) -> None:
    bring(ledger, {GROSS: "100.00"})
    assert ledger.close_month(JULY, BY)
    assert not ledger.close_month(JULY, BY)
    [late] = bring(ledger, {GROSS: "90.00"}, "V2")
    assert (late.posting.booked_in, late.posting.effective_on, late.posting.corrects) == (AUGUST, LAST, (1,))
    assert ledger.balances(booked_in=JULY)["USD"][Account.RECEIVABLE] == Decimal("100.00")
    assert ledger.balances()["USD"][Account.RECEIVABLE] == Decimal("90.00")
    assert ledger.closed_months() == [JULY]


def test_nothing_is_booked_by_hand_in_a_closed_month_and_then_nothing_of_it_at_all(ledger: Ledger) -> None:
    ledger.close_month(JULY, BY)
    fine = Posting(about=GROSS, amount=Decimal("1.00"), effective_on=LAST, booked_in=AUGUST, rests_on=("x",))
    with pytest.raises(InvalidInput, match="2025-07 is closed"):
        ledger.book([fine, replace(fine, booked_in=JULY)], BY)
    assert ledger.postings() == []
    assert len(ledger.book([fine], BY)) == 1


@pytest.mark.parametrize("table", ["postings", "closed_months", "exports"])
def test_no_row_of_the_books_can_be_changed_or_removed(tmp_path: Path, table: str) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        bring(ledger, {GROSS: "100.00"})
        ledger.close_month(JULY, BY)
        ledger.next_export(BY)
    with closing(sqlite3.connect(tmp_path / NAME)) as db:
        for statement in (f"UPDATE {table} SET who = 'b'", f"DELETE FROM {table}"):  # noqa: S608 names of this test
            with pytest.raises(sqlite3.IntegrityError, match=f"{table} are never changed"):
                db.execute(statement)


def test_every_posting_is_in_one_export_and_an_export_always_has_the_same(ledger: Ledger) -> None:
    assert ledger.next_export(BY) is None
    bring(ledger, {GROSS: "100.00", PAY: "40.00"})
    first = ledger.next_export(BY)
    assert ledger.next_export(BY) is None
    bring(ledger, {GROSS: "100.00", PAY: "41.00"})
    second = ledger.next_export(BY)
    assert first is not None
    assert second is not None
    assert ledger.exports() == [first, second]
    assert [[one.number for one in ledger.export_postings(export)] for export in (first, second)] == [[1, 2], [3]]


def test_balances_of_every_currency_sum_to_zero(ledger: Ledger) -> None:
    bring(ledger, {GROSS: "100.00", PAY: "40.00", replace(GROSS, currency="JPY"): "15000"})
    stands = ledger.balances()
    assert {currency: sum(accounts.values()) for currency, accounts in stands.items()} == {"USD": 0, "JPY": 0}
    assert stands["JPY"][Account.RECEIVABLE] == Decimal(15000)
    assert stands["USD"][Account.REVENUE] == Decimal("-60.00")


def test_a_file_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / NAME)) as db:
        db.execute("PRAGMA user_version = 99")
    with closing(Ledger(tmp_path)) as ledger, pytest.raises(CorruptState, match="schema 99 is newer"):
        ledger.postings()


KILLED = """
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from gateway.domain.money.postings import About, LedgerStep
from gateway.storage.programs.ledger import Bookkeeper, Ledger

ledger = Ledger(Path(sys.argv[1]))
for n in range(1, 10_000):
    target = {
        About(step=step, program="p", month=(2025, 7), site=f"s{k}", customer="c", currency="USD"): Decimal(n)
        for step in (LedgerStep.GROSS, LedgerStep.CUSTOMER_PAY) for k in range(20)
    }
    ledger.bring_to("p", (2025, 7), target, list(LedgerStep), effective_on=date(2025, 7, 31), rests_on=(f"V{n}",),
                    by=Bookkeeper(who="a", now_ms=n))
    print(n, flush=True)
"""


def test_a_process_killed_while_it_books_leaves_whole_runs(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, env=os.environ)
    assert process.stdout is not None
    with process.stdout as told:
        answered = [int(told.readline()) for _ in range(5)][-1]
        process.send_signal(signal.SIGKILL)
        process.wait()
        answered = max([answered, *(int(line) for line in told.read().split())])
    with closing(Ledger(tmp_path)) as ledger:
        amounts = {one.amount for one in ledger.sums("p", JULY, STEPS).values()}
    assert len(amounts) == 1
    assert amounts.pop() in {answered, answered + 1}

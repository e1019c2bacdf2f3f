"""Postings as files for a finance system. The same postings and the same chart make the same bytes.

CSV has one row per line of a posting; a beancount file has one transaction per posting and balances by itself, without
tolerance.
"""

import csv
import io
from collections.abc import Iterable, Sequence

from gateway.domain.money.postings import Account, BookedPosting, ChartOfAccounts, month_text

COLUMNS = (
    "posting", "booked_in", "effective_on", "step", "program", "month", "site", "customer", "account", "account_code",
    "debit", "credit", "currency", "corrects", "rests_on",
)  # fmt: skip
BEANCOUNT = {
    Account.REVENUE: "Income:AccruedRevenue",
    Account.RECEIVABLE: "Assets:ReceivableFromAggregator",
    Account.CASH: "Assets:Cash",
    Account.PAYABLE: "Liabilities:PayableToCustomers",
    Account.HELD_BACK: "Liabilities:HeldBack",
    Account.MARGIN: "Income:Margin",
    Account.ROUNDING: "Expenses:Rounding",
}
_RISKY = ("=", "+", "-", "@", "\t", "\r")


def as_csv(postings: Iterable[BookedPosting], chart: ChartOfAccounts) -> bytes:
    """One row per line of a posting; amounts without a sign, in `debit` or in `credit`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in postings:
        posting, about = one.posting, one.posting.about
        for account, amount in posting.lines.items():
            debit, credit = (f"{amount:f}", "") if amount > 0 else ("", f"{-amount:f}")
            writer.writerow([
                one.number, month_text(posting.booked_in), posting.effective_on.isoformat(), about.step.value,
                _cell(about.program), month_text(about.month), _cell(about.site), _cell(about.customer), account.value,
                _cell(chart.codes[account]), debit, credit, about.currency, " ".join(map(str, posting.corrects)),
                _cell("; ".join(posting.rests_on)),
            ])  # fmt: skip
    return text.getvalue().encode()


def as_beancount(postings: Sequence[BookedPosting], chart: ChartOfAccounts) -> bytes:
    """A file that `bean-check` balances with a tolerance of zero. Transactions have the day that they are about."""
    lines = ['option "inferred_tolerance_default" "*:0"']
    lines += [
        f'option "operating_currency" "{one}"' for one in sorted({one.posting.about.currency for one in postings})
    ]
    opened = min((one.posting.effective_on.isoformat() for one in postings), default="2000-01-01")
    for account, name in BEANCOUNT.items():
        lines += [f"{opened} open {name}", f"  code: {_text(chart.codes[account])}"]
    for one in postings:
        posting, about = one.posting, one.posting.about
        what = f"{about.program} {month_text(about.month)} {about.step}"
        lines += ["", f"{posting.effective_on.isoformat()} * {_text(about.customer)} {_text(what)}"]
        lines += [f'  posting: "{one.number}"', f'  booked-in: "{month_text(posting.booked_in)}"']
        lines += [f"  site: {_text(about.site)}", f"  rests-on: {_text('; '.join(posting.rests_on))}"]
        if posting.corrects:
            lines.append(f'  corrects: "{" ".join(map(str, posting.corrects))}"')
        lines += [f"  {BEANCOUNT[account]}  {amount:f} {about.currency}" for account, amount in posting.lines.items()]
    return ("\n".join(lines) + "\n").encode()


def _text(text: str) -> str:
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_RISKY) else text

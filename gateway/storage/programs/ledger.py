"""Postings, in `ledger.sqlite` in the state directory.

`postings` (number, step, program, month, site, customer, currency, minor: amount in minor units, effective_on,
booked_in, rests_on, corrects: JSON lists, booked_ms, who), `closed_months` (month, closed_ms, who) and `exports`
(number, first, last: numbers of postings, made_ms, who). Triggers of the file let no row be changed or removed. Months
are `YYYY-MM`, days ISO 8601. A number is never given twice; those of one call are given in one transaction.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import msgspec

from gateway.domain.errors import InvalidInput
from gateway.domain.money.currency import places_of
from gateway.domain.money.postings import (
    FROM_TO,
    About,
    Account,
    Booked,
    BookedPosting,
    LedgerStep,
    Posting,
    month_text,
    open_month,
    to_book,
)
from gateway.domain.programs.exact import half_up
from gateway.domain.programs.local_hours import Month
from gateway.storage.sqlite_thread import SqliteThread, transaction

NAME = "ledger.sqlite"
VERSION = 1

_KEPT = ("postings", "closed_months", "exports")
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS postings (number INTEGER PRIMARY KEY AUTOINCREMENT, step TEXT NOT NULL, "
    "program TEXT NOT NULL, month TEXT NOT NULL, site TEXT NOT NULL, customer TEXT NOT NULL, currency TEXT NOT NULL, "
    "minor INTEGER NOT NULL CHECK (minor != 0), effective_on TEXT NOT NULL, booked_in TEXT NOT NULL, "
    "rests_on TEXT NOT NULL, corrects TEXT NOT NULL, booked_ms INTEGER NOT NULL, who TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS postings_about ON postings (program, month, step, site, customer, currency)",
    "CREATE INDEX IF NOT EXISTS postings_of_customer ON postings (customer, month, number)",
    "CREATE TABLE IF NOT EXISTS closed_months (month TEXT PRIMARY KEY, closed_ms INTEGER NOT NULL, who TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS exports (number INTEGER PRIMARY KEY AUTOINCREMENT, first INTEGER NOT NULL, "
    "last INTEGER NOT NULL, made_ms INTEGER NOT NULL, who TEXT NOT NULL)",
    *(
        f"CREATE TRIGGER IF NOT EXISTS {table}_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} are never changed'); END"
        for table in _KEPT
        for verb in ("UPDATE", "DELETE")
    ),
)
_COLUMNS = (
    "number, step, program, month, site, customer, currency, minor, effective_on, booked_in, rests_on, corrects, "
    "booked_ms, who"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookkeeper:
    """Who books, and when (UTC)."""

    who: str
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerExport:
    """An export: its number, and the first and last posting in it."""

    number: int
    first: int
    last: int
    made_ms: int


class Ledger:
    """Reads and writes the books in a state directory; blocks. Raises StorageError, CorruptState."""

    def __init__(self, state_dir: Path) -> None:
        self._file = SqliteThread(state_dir / NAME, name="ledger", schema=_SCHEMA, version=VERSION)

    def bring_to(
        self,
        program: str,
        month: Month,
        target: Mapping[About, Decimal],
        steps: Sequence[LedgerStep],
        *,
        effective_on: date,
        rests_on: tuple[str, ...],
        by: Bookkeeper,
    ) -> list[BookedPosting]:
        """Make the books of a program's month say `target` in these steps, by postings of what is missing; returns
        those. They are booked in the month itself, or, where that is closed, in the first one that is open. Raises
        InvalidInput where the target is about something else."""
        if any((about.program, about.month) != (program, month) or about.step not in steps for about in target):
            raise InvalidInput(
                [f"the target is about more than {', '.join(steps)} of {program} in {month_text(month)}"]
            )

        def work(db: sqlite3.Connection) -> list[BookedPosting]:
            with transaction(db):
                found = to_book(
                    target,
                    _booked(db, program, month, steps),
                    effective_on=effective_on,
                    booked_in=open_month(month, _closed(db)),
                    rests_on=rests_on,
                )
                return [_add(db, posting, by) for posting in found]

        return self._file.now(work)

    def book(self, postings: Sequence[Posting], by: Bookkeeper) -> list[BookedPosting]:
        """Add postings, all of them or none. Raises InvalidInput for one in a closed month."""

        def work(db: sqlite3.Connection) -> list[BookedPosting]:
            with transaction(db):
                closed = _closed(db)
                late = sorted({one.booked_in for one in postings if open_month(one.booked_in, closed) != one.booked_in})
                if late:
                    raise InvalidInput([f"{month_text(month)} is closed: nothing is booked in it" for month in late])
                return [_add(db, posting, by) for posting in postings]

        return self._file.now(work)

    def close_month(self, month: Month, by: Bookkeeper) -> bool:
        """Let nothing be booked in a month and those before any more; whether it was open."""

        def work(db: sqlite3.Connection) -> bool:
            with transaction(db):
                known = db.execute("SELECT 1 FROM closed_months WHERE month = ?", (month_text(month),)).fetchone()
                if known is None:
                    db.execute("INSERT INTO closed_months VALUES (?, ?, ?)", (month_text(month), by.now_ms, by.who))
                return known is None

        return self._file.now(work)

    def closed_months(self) -> list[Month]:
        """The months that are closed, ascending."""
        return self._file.now(_closed)

    def postings(
        self, *, after: int = 0, until: int | None = None, customer: str = "", limit: int = 1000
    ) -> list[BookedPosting]:
        """Postings by number, after one and up to another (None = the last), of one customer where one is named."""

        def work(db: sqlite3.Connection) -> list[BookedPosting]:
            found = db.execute(
                f"SELECT {_COLUMNS} FROM postings WHERE number > ?1 AND (?2 IS NULL OR number <= ?2) "  # noqa: S608 names of this module
                "AND (?3 = '' OR customer = ?3) ORDER BY number LIMIT ?4",
                (after, until, customer, limit),
            )
            return [_read(row) for row in found]

        return self._file.now(work)

    def posting(self, number: int) -> BookedPosting | None:
        """One posting; None where there is none of this number."""
        found = self.postings(after=number - 1, until=number)
        return found[0] if found else None

    def balances(self, *, booked_in: Month | None = None) -> dict[str, dict[Account, Decimal]]:
        """By currency what stands on each account, + = debit; up to the end of a month of the books where one is
        named."""

        def work(db: sqlite3.Connection) -> dict[str, dict[Account, Decimal]]:
            found: dict[str, dict[Account, Decimal]] = {}
            for currency, step, minor in db.execute(
                "SELECT currency, step, sum(minor) FROM postings WHERE ?1 IS NULL OR booked_in <= ?1 "
                "GROUP BY currency, step",
                (None if booked_in is None else month_text(booked_in),),
            ):
                accounts = found.setdefault(currency, {account: _money(0, currency) for account in Account})
                credited, debited = FROM_TO[LedgerStep(step)]
                accounts[debited] += _money(minor, currency)
                accounts[credited] -= _money(minor, currency)
            return found

        return self._file.now(work)

    def sums(self, program: str, month: Month, steps: Sequence[LedgerStep]) -> dict[About, Booked]:
        """What the books say of a program's month, and by which postings."""
        return self._file.now(lambda db: _booked(db, program, month, steps))

    def next_export(self, by: Bookkeeper) -> LedgerExport | None:
        """Take all postings that no export has yet for a new one, with the next number; None where there is none."""

        def work(db: sqlite3.Connection) -> LedgerExport | None:
            with transaction(db):
                done = int(db.execute("SELECT coalesce(max(last), 0) FROM exports").fetchone()[0])
                last = int(db.execute("SELECT coalesce(max(number), 0) FROM postings").fetchone()[0])
                if last == done:
                    return None
                number = db.execute(
                    "INSERT INTO exports (first, last, made_ms, who) VALUES (?, ?, ?, ?)",
                    (done + 1, last, by.now_ms, by.who),
                ).lastrowid
            return LedgerExport(number=number or 0, first=done + 1, last=last, made_ms=by.now_ms)

        return self._file.now(work)

    def exports(self) -> list[LedgerExport]:
        """All exports, ascending; the same number always has the same postings."""

        def work(db: sqlite3.Connection) -> list[LedgerExport]:
            return [
                LedgerExport(number=number, first=first, last=last, made_ms=made_ms)
                for number, first, last, made_ms in db.execute(
                    "SELECT number, first, last, made_ms FROM exports ORDER BY number"
                )
            ]

        return self._file.now(work)

    def export_postings(self, export: LedgerExport) -> Iterator[BookedPosting]:
        """The postings of an export, in slices."""
        after = export.first - 1
        while found := self.postings(after=after, until=export.last):
            yield from found
            after = found[-1].number

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _month(text: str) -> Month:
    return int(text[:4]), int(text[5:7])


def _closed(db: sqlite3.Connection) -> list[Month]:
    return [_month(text) for (text,) in db.execute("SELECT month FROM closed_months ORDER BY month")]


def _booked(db: sqlite3.Connection, program: str, month: Month, steps: Sequence[LedgerStep]) -> dict[About, Booked]:
    return {
        About(
            step=LedgerStep(step), program=program, month=month, site=site, customer=customer, currency=currency
        ): Booked(amount=_money(minor, currency), numbers=tuple(msgspec.json.decode(numbers)))
        for step, site, customer, currency, minor, numbers in db.execute(
            "SELECT step, site, customer, currency, sum(minor), json_group_array(number) FROM "
            "(SELECT * FROM postings WHERE program = ? AND month = ? AND step IN (SELECT value FROM json_each(?)) "
            "ORDER BY number) GROUP BY step, site, customer, currency",
            (program, month_text(month), msgspec.json.encode(list(steps)).decode()),
        )
    }  # fmt: skip


def _add(db: sqlite3.Connection, posting: Posting, by: Bookkeeper) -> BookedPosting:
    about = posting.about
    number = db.execute(
        f"INSERT INTO postings ({_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 names of this module
        (
            about.step, about.program, month_text(about.month), about.site, about.customer, about.currency,
            int(Fraction(posting.amount) * 10 ** places_of(about.currency)), posting.effective_on.isoformat(),
            month_text(posting.booked_in), msgspec.json.encode(posting.rests_on).decode(),
            msgspec.json.encode(posting.corrects).decode(), by.now_ms, by.who,
        ),
    ).lastrowid  # fmt: skip
    return BookedPosting(number=number or 0, posting=posting, booked_ms=by.now_ms, who=by.who)


def _read(row: tuple[int, str, str, str, str, str, str, int, str, str, str, str, int, str]) -> BookedPosting:
    number, step, program, month, site, customer, currency, minor = row[:8]
    effective_on, booked_in, rests_on, corrects, booked_ms, who = row[8:]
    about = About(
        step=LedgerStep(step), program=program, month=_month(month), site=site, customer=customer, currency=currency
    )  # fmt: skip
    posting = Posting(
        about=about,
        amount=_money(minor, currency),
        effective_on=date.fromisoformat(effective_on),
        booked_in=_month(booked_in),
        rests_on=tuple(msgspec.json.decode(rests_on)),
        corrects=tuple(msgspec.json.decode(corrects)),
    )
    return BookedPosting(number=number, posting=posting, booked_ms=booked_ms, who=who)


def _money(minor: int, currency: str) -> Decimal:
    places = places_of(currency)
    return half_up(Fraction(minor, 10**places), places)

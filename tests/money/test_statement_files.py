"""Statements as files: nothing in them comes from elsewhere or is taken for markup, and a manifest proves each one."""

import hashlib
import json
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser

from gateway.domain.money.statements import CustomerStatement, EarnedLine, books_period
from gateway.money.statement_files import as_html, as_json, manifest

LINE = EarnedLine(
    program="dsgs-option3",
    month=(2026, 7),
    site="home-1",
    amount=Decimal("40.00"),
    corrects=False,
    rests_on=("dsgs-option3 2026", "plan half 1"),
    postings=(3,),
)
STATEMENT = CustomerStatement(
    number="2026Q3-1",
    customer="anna",
    period=books_period("2026Q3"),
    currency="USD",
    opening=Decimal("7.00"),
    lines=(LINE, replace(LINE, amount=Decimal("-1.50"), corrects=True)),
    held_back=Decimal("2.00"),
    paid=Decimal("30.00"),
    written_off=Decimal("0.00"),
    until_posting=9,
)


class Seen(HTMLParser):
    """The tags and the words of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += [data.strip()] if data.strip() else []


def test_a_page_says_every_sum_and_needs_nothing_else() -> None:
    seen = Seen(as_html(STATEMENT))
    for amount in ("40.00", "-1.50", "38.50", "7.00", "-2.00", "-30.00", "13.50"):
        assert amount in seen.words
    assert "correction of an earlier amount" in seen.words
    assert not {tag for tag, _ in seen.tags} & {"script", "link", "img", "iframe"}
    assert not [value for _, attributes in seen.tags for name, value in attributes.items() if name in {"src", "href"}]


def test_names_are_words_and_never_markup() -> None:
    odd = replace(
        STATEMENT, customer="<script>alert(1)</script>", restates="<b>", lines=(replace(LINE, site="a&b<i>"),)
    )
    seen = Seen(as_html(odd))
    assert not {tag for tag, _ in seen.tags} & {"script", "b", "i"}
    assert "a&b<i>" in seen.words


def test_a_statement_without_a_line_says_so() -> None:
    assert b"Nothing was earned in this period." in as_html(replace(STATEMENT, lines=()))


def test_a_restatement_names_the_first() -> None:
    later = replace(STATEMENT, number="2026Q3-1-2", restates="2026Q3-1")
    assert b"takes the place of statement 2026Q3-1." in as_html(later)
    assert json.loads(as_json(later))["restates"] == "2026Q3-1"


def test_json_has_money_as_texts() -> None:
    told = json.loads(as_json(STATEMENT))
    assert (told["earned"], told["closing"], told["restates"]) == ("38.50", "13.50", None)
    assert [(line["amount"], line["correction"]) for line in told["lines"]] == [("40.00", False), ("-1.50", True)]


def test_a_manifest_has_the_hash_of_every_file_and_who_has_none() -> None:
    files = {"b.html": as_html(STATEMENT), "a.json": as_json(STATEMENT)}
    told = json.loads(manifest("2026Q3", files, totals={"USD": "38.50"}, without={"ben": "has no pay plan"}))
    assert told["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert (told["totals"], told["without"]) == ({"USD": "38.50"}, {"ben": "has no pay plan"})

"""Reading agreements about money: every fault is told with line and path, and the right version holds on a day."""

from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import InvalidInput
from gateway.domain.money.contract import Basis
from gateway.domain.money.postings import Account
from gateway.domain.money.split import GetsNothing, SplitBy
from gateway.money.loader import load_agreements, parse_agreements

EXAMPLE = Path(__file__).parents[2] / "config" / "money.example.yaml"
TEXT = EXAMPLE.read_text()


def faults(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        parse_agreements(text, name="m.yaml")
    return caught.value.problems


def line_of(words: str) -> int:
    return next(n for n, line in enumerate(TEXT.splitlines(), 1) if words in line)


def test_the_example_is_read_with_the_version_of_every_day() -> None:
    agreed = load_agreements(EXAMPLE)
    assert agreed.chart.codes[Account.CASH] == "1000"
    old, new = (agreed.contract("dsgs-option3", date(year, 6, 1)) for year in (2025, 2026))
    assert (old.share, new.share) == (Fraction(1, 5), Fraction(18, 100))
    assert (old.fixed_per_month, new.fixed_per_month) == (Fraction(0), Fraction(250))
    assert agreed.split("ra-leap", date(2025, 6, 1)).by is SplitBy.MEASURED_KWH
    assert GetsNothing.OPTED_OUT not in agreed.split("ra-leap", date(2025, 6, 1)).nothing_for
    first, second = (agreed.terms("assured", date(year, 12, 31)) for year in (2025, 2026))
    assert (first.base, first.share) == (Basis.GROSS, Fraction(3, 10))
    assert (first.per_kwh, second.per_kwh) == (Fraction(0), Fraction(1, 20))
    assert (agreed.policy.preliminary, agreed.policy.least_payout) == (Fraction(0), Decimal(10))
    assert [one.least_share for one in agreed.bonuses] == [Fraction(4, 5)]
    assert agreed.tax_threshold(2025) is None


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (
            ("contract", "dsgs-option3", date(2024, 12, 31)),
            "no contract with an aggregator is in force for dsgs",
        ),
        (("contract", "elsewhere", date(2025, 1, 1)), "no contract with an aggregator is in force for elsewhere"),
        (("split", "ra-leap", date(2024, 12, 31)), "nothing says how an amount of ra-leap is split"),
        (("terms", "half", date(2024, 12, 31)), "pay plan 'half' begins after 2024-12-31"),
        (("terms", "none", date(2025, 1, 1)), "there is no pay plan 'none': assured, half"),
    ],
)
def test_what_is_not_agreed_is_told_and_never_taken_as_nothing(ask: tuple[str, str, date], words: str) -> None:
    name, *arguments = ask
    with pytest.raises(InvalidInput, match=words):
        getattr(load_agreements(EXAMPLE), name)(*arguments)


@pytest.mark.parametrize(
    ("old", "new", "at", "words"),
    [
        ("currency: USD", "currency: XXX", "currency: USD", "currency: 'XXX' is no currency"),
        ('  rounding: "6990"', '  roundings: "6990"', "rounding:", "Input should be 'accrued_revenue'"),
        ('  rounding: "6990"\n', "", "accounts:", "accounts: the chart of accounts has no code for rounding"),
        ('rounding: "6990"', 'rounding: "4000"', "accrued_revenue:", "code '4000' is given to two accounts"),
        ("until: 2026-01-01", "until: 2026-01-02", '"2026", from', "from: dsgs-option3 has another contract"),
        ("until: 2026-01-01", "until: 2025-01-01", '"2025", from', "versions.0.until: not after from"),
        ("share_pct: 20}", "share_pct: 100}", '"2025", from', "share_pct: Input should be less than 100"),
        ("share_pct: 50", "share_pct: 150", "base: net", "share_pct: Input should be less than or equal to 100"),
        ("base: net", "base: unknown", "base: net", "base: Input should be"),
        ("minimum: 5, cap: 60}", "minimum: 61, cap: 60}", "cap: 60}", "versions.0.minimum: more than cap"),
        ('"2", from: 2026', '"2", from: 2025', '"2", from', "version 0 of this plan begins on the same day"),
        ("program: ra-leap, name", "program: dsgs-option3, name", "name: measured", "another begins on this day"),
        ("- name: assured", "- name: half", "- name: assured", "pay_plans.1: another plan has this name"),
        ("least_payout: 10", "least_payout: 10.005", "least_payout", "10.005 has more digits than USD has"),
        ("payee_multiple: 5", "payee_multiple: 0.5", "payee_multiple", "greater than or equal to 1"),
        ("fixed_per_month: 250", "fixed_per_month: -1", "fixed_per_month: 250", "greater than or equal to 0"),
        ("language: 1", "language: 2", "language: 1", "language: Input should be 1"),
        ("policy:", "surplus: 1\npolicy:", "policy:", "surplus: Extra inputs are not permitted"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_file_line_and_path(old: str, new: str, at: str, words: str) -> None:
    assert old in TEXT
    found = faults(TEXT.replace(old, new, 1))
    told = next((one for one in found if words in one), "")
    assert told, found
    assert told.startswith(f"m.yaml:{line_of(at)}: ")


def test_what_is_not_yaml_is_told_with_its_line() -> None:
    assert faults("language: 1\ncurrency: a: b\n")[0].startswith("m.yaml:2: (document): not YAML")
    assert faults("")[0].startswith("m.yaml:1: ")


def test_a_file_that_cannot_be_read_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"money.yaml:1: .*cannot be read"):
        load_agreements(tmp_path / "money.yaml")


@given(st.text(max_size=200))
def test_no_text_at_random_is_read_and_every_refusal_names_the_file(text: str) -> None:
    assert all(problem.startswith("m.yaml:") for problem in faults(text))

"""Differences between an aggregator's report and ours: each by its cause, and never one for another."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.money.reconciliation import (
    DifferenceCause,
    OwnFigure,
    Reconciled,
    ReportedRow,
    reconcile,
)

OURS = OwnFigure(
    meter="m", amount=Decimal("50.00"), kw=Fraction(5), price_per_kw=Fraction(10), coverage_pct=Fraction(100)
)  # fmt: skip
THEIRS = ReportedRow(
    meter="m", total=Decimal("50.00"), earned_kw=Fraction(5), price_per_kw=Fraction(10), coverage_pct=Fraction(100)
)  # fmt: skip


def causes(rows: Sequence[ReportedRow], own: Sequence[OwnFigure] = (OURS,), **more: Any) -> list[tuple[str, str, str]]:
    found = reconcile(rows, own, "USD", **more)
    adds_up(found)
    return [(one.meter, one.cause.value, f"{one.amount:f}") for one in found.differences]


def adds_up(found: Reconciled) -> None:
    assert sum(one.amount for one in found.differences) == found.theirs - found.ours


def test_the_same_figures_have_no_difference() -> None:
    assert causes([THEIRS]) == []


@pytest.mark.parametrize(
    ("row", "difference"),
    [
        ({"total": "51.00", "price_per_kw": Fraction("10.2")}, ("rate", "1.00")),
        ({"total": "47.00", "performance_adjustment": Decimal("-3.00")}, ("performance_adjustment", "-3.00")),
        ({"total": "52.00", "performance_adjustment": Decimal("2.00")}, ("performance_adjustment", "2.00")),
        ({"total": "52.00", "payment_adjustment": Decimal("2.00")}, ("payment_adjustment", "2.00")),
        ({"total": "39.00", "penalty": Decimal("11.00")}, ("penalty", "-11.00")),
        ({"total": "40.00", "earned_kw": Fraction(4), "coverage_pct": Fraction(80)}, ("coverage", "-10.00")),
        ({"total": "0.00", "earned_kw": Fraction(0), "missing_data": True}, ("coverage", "-50.00")),
        ({"total": "50.01"}, ("rounding", "0.01")),
        ({"total": "49.99"}, ("rounding", "-0.01")),
        ({"total": "50.02"}, ("unexplained", "0.02")),
        ({"total": "40.00", "earned_kw": Fraction(4)}, ("unexplained", "-10.00")),
        ({"total": "45.00", "earned_kw": None, "price_per_kw": None}, ("unexplained", "-5.00")),
    ],
)  # fmt: skip
def test_one_cause_is_named_with_its_amount(row: dict[str, Any], difference: tuple[str, str]) -> None:
    theirs = replace(THEIRS, **(row | {"total": Decimal(row["total"])}))
    assert causes([theirs]) == [("m", *difference)]


def test_hours_that_differ_explain_another_quantity_and_nothing_else() -> None:
    theirs = replace(THEIRS, total=Decimal("40.00"), earned_kw=Fraction(4))
    assert causes([theirs], other_hours="they count 18:00 and not 19:00") == [("m", "hours", "-10.00")]
    assert causes([replace(THEIRS, total=Decimal("45.00"))], other_hours="x") == [("m", "unexplained", "-5.00")]


def test_several_causes_on_one_meter_are_told_apart() -> None:
    theirs = replace(
        THEIRS,
        total=Decimal("37.81"),
        earned_kw=Fraction(4),
        price_per_kw=Fraction("10.2"),
        coverage_pct=Fraction(80),
        performance_adjustment=Decimal("-3.00"),
    )
    assert causes([theirs]) == [
        ("m", "performance_adjustment", "-3.00"),
        ("m", "rate", "0.80"),
        ("m", "coverage", "-10.00"),
        ("m", "rounding", "0.01"),
    ]


def test_a_row_that_stands_twice_is_a_duplicate_and_two_groups_of_a_meter_are_not() -> None:
    assert causes([THEIRS, THEIRS]) == [("m", "duplicate", "50.00")]
    halves = [
        replace(THEIRS, total=Decimal("25.00"), earned_kw=Fraction(5, 2), about=group) for group in ("g1", "g2")
    ]  # fmt: skip
    assert causes(halves) == []


def test_a_meter_that_lacks_and_one_that_nobody_here_knows() -> None:
    other = replace(OURS, meter="n")
    stranger = replace(THEIRS, meter="x", total=Decimal("7.00"))
    found = [("n", "missing_meter", "-50.00"), ("x", "unknown_meter", "7.00")]
    assert causes([THEIRS, stranger], [OURS, other]) == found


def test_a_row_that_a_later_version_withdraws_is_told_from_one_that_never_was() -> None:
    found = reconcile([], [OURS, replace(OURS, meter="n")], "USD", earlier={"m": Decimal("49.00")})
    assert [(one.meter, one.cause) for one in found.differences] == [
        ("m", DifferenceCause.WITHDRAWN),
        ("n", DifferenceCause.MISSING_METER),
    ]
    assert found.differences[0].words == "the version before had 49.00"


def test_a_fee_of_no_meter_is_a_fee() -> None:
    fee = ReportedRow(meter="", total=Decimal("-2.50"), about="platform fee")
    assert causes([THEIRS, fee]) == [("", "fee", "-2.50")]


def test_a_sum_that_is_not_the_sum_of_its_rows_is_rounding_up_to_a_cent_per_row_and_else_unexplained() -> None:
    assert causes([THEIRS], stated_total=Decimal("50.01")) == [("", "rounding", "0.01")]
    assert causes([THEIRS], stated_total=Decimal("48.00")) == [("", "unexplained", "-2.00")]


def test_two_unexplained_differences_that_cancel_each_other_still_block() -> None:
    other = replace(OURS, meter="n")
    rows = [replace(THEIRS, total=Decimal("55.00")), replace(THEIRS, meter="n", total=Decimal("45.00"))]
    found = reconcile(rows, [OURS, other], "USD")
    assert (found.theirs, found.ours, found.unexplained) == (Decimal(100), Decimal(100), Decimal("10.00"))
    assert found.blocks(Fraction(1, 100))
    assert not found.blocks(Fraction(10, 100))


def test_energy_has_its_own_price_and_quantity() -> None:
    ours = OwnFigure(meter="m", amount=Decimal("24.00"), kwh=Fraction(12), price_per_kwh=Fraction(2))
    theirs = ReportedRow(
        meter="m", total=Decimal("21.00"), earned_kwh=Fraction(14), price_per_kwh=Fraction(3, 2), missing_data=True
    )  # fmt: skip
    assert causes([theirs], [ours]) == [("m", "rate", "-7.00"), ("m", "coverage", "4.00")]


@given(
    rows=st.lists(
        st.builds(
            ReportedRow,
            meter=st.sampled_from(["m", "n", "x", ""]),
            total=st.integers(-10_000, 10_000).map(lambda cents: Decimal(cents).scaleb(-2)),
            earned_kw=st.none() | st.fractions(0, 10, max_denominator=8),
            price_per_kw=st.none() | st.fractions(0, 20, max_denominator=4),
            performance_adjustment=st.none() | st.integers(-500, 500).map(lambda cents: Decimal(cents).scaleb(-2)),
            penalty=st.none() | st.just(Decimal("1.00")),
            coverage_pct=st.none() | st.sampled_from([Fraction(80), Fraction(100)]),
        ),
        max_size=8,
    ),
    stated=st.none() | st.integers(-10_000, 10_000),
)
def test_differences_always_sum_to_theirs_less_ours(rows: list[ReportedRow], stated: int | None) -> None:
    total = None if stated is None else Decimal(stated).scaleb(-2)
    adds_up(reconcile(rows, [OURS, replace(OURS, meter="n")], "USD", stated_total=total))

"""Payment runs: who is paid, who waits and why, what stops a run, and the second person."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import InvalidInput
from gateway.domain.money.agreements import PayPolicy
from gateway.domain.money.payments import (
    DueAmount,
    LineState,
    PaymentLine,
    PaymentRun,
    RunLimits,
    RunState,
    WaitsFor,
    answered,
    draft_lines,
    moved,
    stops,
)

EVERYTHING = PayPolicy()
JULY = (2025, 7)
PAYEES = {"anna": "p-1", "ben": "p-2"}


def due(amount: str, customer: str = "anna", **changes: Any) -> DueAmount:
    made = DueAmount(customer=customer, program="p", month=JULY, amount=Decimal(amount), final=True)
    return replace(made, **changes)


def drafted(
    *amounts: DueAmount, policy: PayPolicy = EVERYTHING
) -> tuple[tuple[PaymentLine, ...], list[tuple[Decimal, WaitsFor]]]:
    lines, waiting = draft_lines(amounts, PAYEES, policy, "USD")
    return lines, [(one.amount, one.why) for one in waiting]


def test_a_customer_gets_one_line_for_all_that_is_due() -> None:
    lines, waiting = drafted(due("10.00"), due("5.50", month=(2025, 8)), due("1.00", "ben"))
    assert [(line.payee, line.paid) for line in lines] == [("p-1", Decimal("15.50")), ("p-2", Decimal("1.00"))]
    assert waiting == []


@pytest.mark.parametrize(
    ("amount", "policy", "paid", "waits"),
    [
        (due("10.00", final=False), {}, None, [("10.00", WaitsFor.FINAL)]),
        (due("10.00", final=False), {"preliminary": Fraction(1, 3)}, "3.33", [("6.67", WaitsFor.FINAL)]),
        (due("10.00", final=False), {"preliminary": Fraction(1)}, "10.00", []),
        (due("10.00", waits_for=frozenset({WaitsFor.VERIFIED})), {}, None, [("10.00", WaitsFor.VERIFIED)]),
        (due("10.00", waits_for=frozenset({WaitsFor.BASIS})), {}, None, [("10.00", WaitsFor.BASIS)]),
        (due("10.00", waits_for=frozenset({WaitsFor.EXPLAINED})), {}, None, [("10.00", WaitsFor.EXPLAINED)]),
        (due("10.00"), {"least_payout": Decimal("10.01")}, None, [("10.00", WaitsFor.LEAST_PAYOUT)]),
        (due("10.00"), {"least_payout": Decimal("10.00")}, "10.00", []),
        (due("-3.00"), {}, None, [("-3.00", WaitsFor.CARRIED)]),
        (due("10.00", "nobody"), {}, None, [("10.00", WaitsFor.PAYEE)]),
        (due("0.00"), {}, None, []),
    ],
)
def test_what_is_not_paid_waits_and_says_why(
    amount: DueAmount, policy: Mapping[str, Any], paid: str | None, waits: list[tuple[str, WaitsFor]]
) -> None:
    lines, waiting = drafted(amount, policy=PayPolicy(**policy))
    assert [line.paid for line in lines] == ([] if paid is None else [Decimal(paid)])
    assert waiting == [(Decimal(text), why) for text, why in waits]


def test_what_was_paid_too_much_is_taken_from_the_next_payout_and_never_debited() -> None:
    lines, waiting = drafted(due("10.00"), due("-4.00", month=(2025, 6), final=False))
    assert [line.paid for line in lines] == [Decimal("6.00")]
    assert waiting == []
    assert drafted(due("3.00"), due("-4.00", month=(2025, 6))) == ((), [(Decimal("-1.00"), WaitsFor.CARRIED)])


def test_a_part_that_is_held_back_is_rounded_once() -> None:
    [line] = drafted(due("10.05"), policy=PayPolicy(held_back=Fraction(1, 10)))[0]
    assert (line.owed, line.held_back, line.paid) == (Decimal("10.05"), Decimal("1.01"), Decimal("9.04"))


@pytest.mark.parametrize(
    ("limits", "policy", "words"),
    [
        ({}, {}, []),
        ({"received": Decimal("14.99")}, {}, ["the run pays 15.00 USD, and 14.99 of what was received is left"]),
        ({"approved": Decimal("14.99")}, {}, ["the run pays 15.00 USD, and 14.99 was approved"]),
        ({"last_period": {"p-1": Decimal("2.00")}}, {"payee_multiple": Fraction(5)}, []),
        (
            {"last_period": {"p-1": Decimal("1.99")}},
            {"payee_multiple": Fraction(5)},
            ["payee 'p-1' gets 10.00 USD, more than 5 times the 1.99 of the last period"],
        ),
    ],
)
def test_a_run_is_stopped_in_words(limits: Mapping[str, Any], policy: Mapping[str, Any], words: list[str]) -> None:
    lines = drafted(due("10.00"), due("5.00", "ben"))[0]
    held = replace(RunLimits(received=Decimal("15.00"), last_period={}), **limits)
    assert stops(lines, held, PayPolicy(**policy), "USD") == words


def test_a_payee_who_stands_twice_stops_a_run() -> None:
    lines, _ = draft_lines([due("10.00"), due("5.00", "ben")], PAYEES | {"ben": "p-1"}, EVERYTHING, "USD")
    limits = RunLimits(received=Decimal(100), last_period={})
    assert stops(lines, limits, EVERYTHING, "USD") == ["payee 'p-1' stands in more than one line: customers anna, ben"]


def run(state: RunState = RunState.DRAFT) -> PaymentRun:
    lines = drafted(due("10.00"), due("5.00", "ben"))[0]
    return PaymentRun(number=7, period="2025Q3", currency="USD", state=state, drafted_by="carla", lines=lines)


def test_a_run_goes_its_way_and_another_person_approves_it() -> None:
    checked = moved(run(), RunState.CHECKED, by="carla")
    with pytest.raises(InvalidInput, match="was drafted by carla: somebody else approves it"):
        moved(checked, RunState.APPROVED, by="carla")
    approved = moved(checked, RunState.APPROVED, by="dora")
    assert (approved.approved_by, approved.total) == ("dora", Decimal("15.00"))
    assert moved(approved, RunState.EXPORTED, by="carla").state is RunState.EXPORTED


@pytest.mark.parametrize(
    ("now", "then"),
    [
        (RunState.DRAFT, RunState.APPROVED),
        (RunState.DRAFT, RunState.EXPORTED),
        (RunState.CHECKED, RunState.EXPORTED),
        (RunState.APPROVED, RunState.APPROVED),
        (RunState.EXPORTED, RunState.DISCARDED),
        (RunState.DONE, RunState.EXPORTED),
        (RunState.DISCARDED, RunState.CHECKED),
    ],
)
def test_a_step_that_does_not_follow_is_refused(now: RunState, then: RunState) -> None:
    with pytest.raises(InvalidInput, match=f"run 7 is {now}: it cannot become {then}"):
        moved(run(now), then, by="dora")


def test_an_export_that_is_asked_for_again_is_the_same() -> None:
    assert moved(run(RunState.EXPORTED), RunState.EXPORTED, by="dora") == run(RunState.EXPORTED)


def test_a_run_is_done_when_the_bank_has_answered_every_line() -> None:
    half = answered(run(RunState.EXPORTED), {"p-1": (LineState.CONFIRMED, Decimal("10.00"), "")})
    assert (half.state, [line.state for line in half.lines]) == (
        RunState.EXPORTED,
        [LineState.CONFIRMED, LineState.OPEN],
    )
    whole = answered(half, {"p-2": (LineState.RETURNED, Decimal("5.00"), "account closed")})
    assert (whole.state, whole.lines[1].note) == (RunState.DONE, "account closed")
    late = answered(whole, {"p-1": (LineState.RETURNED, Decimal("10.00"), "returned later")})
    assert late.lines[0].state is LineState.RETURNED


@pytest.mark.parametrize(
    ("state", "answers", "words"),
    [
        (RunState.APPROVED, {}, "no bank can have an answer to it"),
        (RunState.EXPORTED, {"p-9": (LineState.CONFIRMED, Decimal(1), "")}, "is the file of another run"),
        (RunState.EXPORTED, {"p-1": (LineState.CONFIRMED, Decimal(9), "")}, "has 9 in the file, and run 7 pays 10.00"),
        (RunState.EXPORTED, {"p-1": (LineState.OPEN, Decimal("10.00"), "")}, "says confirmed or returned"),
    ],
)
def test_a_bank_file_that_does_not_fit_is_refused(
    state: RunState, answers: dict[str, tuple[LineState, Decimal, str]], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        answered(run(state), answers)


def test_a_returned_line_is_not_confirmed_afterwards() -> None:
    returned = answered(run(RunState.EXPORTED), {"p-1": (LineState.RETURNED, Decimal("10.00"), "")})
    with pytest.raises(InvalidInput, match="was returned before"):
        answered(returned, {"p-1": (LineState.CONFIRMED, Decimal("10.00"), "")})


@given(
    amounts=st.lists(
        st.tuples(st.sampled_from(["anna", "ben", "cid"]), st.integers(-5000, 5000), st.booleans()), max_size=15
    ),
    least=st.integers(0, 3000),
    held=st.integers(0, 100),
)
def test_what_is_paid_held_back_and_waits_sums_to_what_is_due_and_nobody_is_debited(
    amounts: list[tuple[str, int, bool]], least: int, held: int
) -> None:
    policy = PayPolicy(least_payout=Decimal(least).scaleb(-2), held_back=Fraction(held, 100))
    those = [due(str(Decimal(cents).scaleb(-2)), customer, final=final) for customer, cents, final in amounts]
    lines, waiting = draft_lines(those, PAYEES, policy, "USD")
    everything = sum(line.paid + line.held_back for line in lines) + sum(one.amount for one in waiting)
    assert everything == sum(one.amount for one in those)
    assert all(line.paid >= 0 and line.held_back >= 0 for line in lines)

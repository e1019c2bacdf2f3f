"""Payment runs: who is paid what, why others wait, what stops a run, and who may take it a step further.

A run is drafted, checked, approved by another person than its drafter, exported, and confirmed or returned line by
line. Nobody is debited: what is below zero is carried forward.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from gateway.domain.errors import InvalidInput
from gateway.domain.money.agreements import PayPolicy
from gateway.domain.money.currency import to_minor, zero


class WaitsFor(StrEnum):
    """Why an amount is not in a run."""

    FINAL = "final_figures"
    VERIFIED = "verified_rules"
    BASIS = "gross_or_net"
    EXPLAINED = "explained_difference"
    PAYEE = "payee"
    LEAST_PAYOUT = "least_payout"
    CARRIED = "carried_forward"


class RunState(StrEnum):
    """How far a run is."""

    DRAFT = "draft"
    CHECKED = "checked"
    APPROVED = "approved"
    EXPORTED = "exported"
    DONE = "done"
    DISCARDED = "discarded"


class LineState(StrEnum):
    """What became of a line of a run."""

    OPEN = "open"
    CONFIRMED = "confirmed"
    RETURNED = "returned"


NEXT = {
    RunState.DRAFT: {RunState.CHECKED, RunState.DISCARDED},
    RunState.CHECKED: {RunState.APPROVED, RunState.DISCARDED},
    RunState.APPROVED: {RunState.EXPORTED, RunState.DISCARDED},
    RunState.EXPORTED: {RunState.DONE},
    RunState.DONE: set[RunState](),
    RunState.DISCARDED: set[RunState](),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DueAmount:
    """What the books owe a customer of a program's month and was not paid yet; below 0 where too much was. `final`: the
    aggregator's figures are; `waits_for`: what else stands against paying it; `rests_on` says where it comes from."""

    customer: str
    program: str
    month: tuple[int, int]
    amount: Decimal
    final: bool
    waits_for: frozenset[WaitsFor] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentLine:
    """What one customer's payee gets: `owed` from all amounts, `held_back` of it, and what is paid."""

    customer: str
    payee: str
    owed: Decimal
    held_back: Decimal
    paid: Decimal
    state: LineState = LineState.OPEN
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingAmount:
    """What is not in a run, and why."""

    customer: str
    amount: Decimal
    why: WaitsFor
    program: str = ""
    month: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRun:
    """A run with its lines; `total` is what all of them pay."""

    number: int
    period: str
    currency: str
    state: RunState
    drafted_by: str
    approved_by: str = ""
    lines: tuple[PaymentLine, ...] = ()
    waiting: tuple[WaitingAmount, ...] = ()

    @property
    def total(self) -> Decimal:
        return sum((line.paid for line in self.lines), zero(self.currency))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """What a run is held against: what was received and not paid out yet, what somebody approved to be paid at most
    (None = nobody said), and what each payee got in the last period."""

    received: Decimal
    approved: Decimal | None = None
    last_period: Mapping[str, Decimal]


def draft_lines(
    due: Iterable[DueAmount], payees: Mapping[str, str], policy: PayPolicy, currency: str
) -> tuple[tuple[PaymentLine, ...], tuple[WaitingAmount, ...]]:
    """Lines by customer, and what waits. `payees`: by customer, the reference that the bank file names. A preliminary
    amount is paid by the share that the policy says. A negative one counts in full whatever it waits for: what was paid
    too much is never paid again."""
    by_customer: dict[str, list[DueAmount]] = defaultdict(list)
    for one in due:
        by_customer[one.customer].append(one)
    lines, waiting = list[PaymentLine](), list[WaitingAmount]()
    for customer, amounts in sorted(by_customer.items()):
        owed = zero(currency)
        for one in amounts:
            payable, why = _payable(one, policy, currency)
            owed += payable
            if why is not None and payable != one.amount:
                waiting.append(
                    WaitingAmount(
                        customer=customer, amount=one.amount - payable, why=why, program=one.program, month=one.month
                    )
                )
        why = _left_out(owed, policy, payees.get(customer, ""))
        if why is not None:
            waiting.append(WaitingAmount(customer=customer, amount=owed, why=why))
        elif owed:
            held = to_minor(Fraction(owed) * policy.held_back, currency)
            lines.append(
                PaymentLine(
                    customer=customer, payee=payees[customer], owed=owed, held_back=held, paid=owed - held
                )
            )  # fmt: skip
    return tuple(lines), tuple(waiting)


def stops(lines: Sequence[PaymentLine], limits: RunLimits, policy: PayPolicy, currency: str) -> list[str]:
    """Why a run may not go on, in words: more than was received or approved, a payee far above the last period, a
    payee who stands twice. Empty: nothing stops it."""
    total = sum((line.paid for line in lines), zero(currency))
    found = []
    if total > limits.received:
        found.append(f"the run pays {total} {currency}, and {limits.received} of what was received is left")
    if limits.approved is not None and total > limits.approved:
        found.append(f"the run pays {total} {currency}, and {limits.approved} was approved")
    twice = [payee for payee, count in Counter(line.payee for line in lines).items() if count > 1]
    for payee in sorted(twice):
        customers = ", ".join(line.customer for line in lines if line.payee == payee)
        found.append(f"payee {payee!r} stands in more than one line: customers {customers}")
    if policy.payee_multiple is not None:
        for line in lines:
            last = limits.last_period.get(line.payee, zero(currency))
            if last > 0 and line.paid > Fraction(last) * policy.payee_multiple:
                times = f"{float(policy.payee_multiple):g} times the {last} of the last period"
                found.append(f"payee {line.payee!r} gets {line.paid} {currency}, more than {times}")
    return found


def moved(run: PaymentRun, state: RunState, *, by: str) -> PaymentRun:
    """The run one step further. Raises InvalidInput for a step that does not follow, and for an approval by who drafted
    it. The same step again changes nothing, except an approval, which nobody gives twice."""
    if state is RunState.APPROVED and by == run.drafted_by:
        raise InvalidInput([f"run {run.number} was drafted by {by}: somebody else approves it"])
    if run.state is state and state is not RunState.APPROVED:
        return run
    if state not in NEXT[run.state]:
        raise InvalidInput([f"run {run.number} is {run.state}: it cannot become {state}"])
    if state is RunState.APPROVED:
        return replace(run, state=state, approved_by=by)
    return replace(run, state=state)


def answered(run: PaymentRun, answers: Mapping[str, tuple[LineState, Decimal, str]]) -> PaymentRun:
    """The run with what the bank says of its payees: what became of each, the amount, a note. When no line is open any
    more the run is done. Raises InvalidInput with every fault, and then nothing is taken: a run that was not exported,
    a payee of another run, an amount that was not paid, an answer that contradicts an earlier one."""
    problems = []
    if run.state not in {RunState.EXPORTED, RunState.DONE}:
        raise InvalidInput([f"run {run.number} is {run.state}: no bank can have an answer to it"])
    by_payee = {line.payee: line for line in run.lines}
    for payee, (state, amount, _) in sorted(answers.items()):
        line = by_payee.get(payee)
        if line is None:
            problems.append(f"payee {payee!r} is not in run {run.number}: is the file of another run?")
        elif amount != line.paid:
            problems.append(f"payee {payee!r} has {amount} in the file, and run {run.number} pays {line.paid}")
        elif state is LineState.OPEN:
            problems.append(f"payee {payee!r}: an answer says confirmed or returned")
        elif line.state is LineState.RETURNED and state is LineState.CONFIRMED:
            problems.append(f"payee {payee!r} was returned before: a returned line is paid in a later run")
    if problems:
        raise InvalidInput(problems)
    lines = tuple(_answered(line, answers) for line in run.lines)
    done = all(line.state is not LineState.OPEN for line in lines)
    return replace(run, lines=lines, state=RunState.DONE if done else run.state)


def _answered(line: PaymentLine, answers: Mapping[str, tuple[LineState, Decimal, str]]) -> PaymentLine:
    if line.payee not in answers:
        return line
    state, _, note = answers[line.payee]
    return replace(line, state=state, note=note)


def _payable(one: DueAmount, policy: PayPolicy, currency: str) -> tuple[Decimal, WaitsFor | None]:
    if one.amount <= 0:
        return one.amount, None
    against = next((why for why in WaitsFor if why in one.waits_for), None)
    if against is not None:
        return zero(currency), against
    if one.final:
        return one.amount, None
    return to_minor(Fraction(one.amount) * policy.preliminary, currency), WaitsFor.FINAL


def _left_out(owed: Decimal, policy: PayPolicy, reference: str) -> WaitsFor | None:
    if owed < 0:
        return WaitsFor.CARRIED
    if not owed:
        return None
    if owed < policy.least_payout:
        return WaitsFor.LEAST_PAYOUT
    return None if reference else WaitsFor.PAYEE

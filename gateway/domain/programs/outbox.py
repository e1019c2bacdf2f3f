"""What is to be changed at the aggregator: each change a row, shown before it is sent, and never many at once by
accident.

A row says what the peer has (`before`) and what it is to have (`after`), in words of our own. It is sent when somebody
says so and names how many go, where they are more than a few; what takes a home out of a program, or promises power,
needs the leave of a second person.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

ROWS_MAX = 50
SHARE_MAX = 0.02
"""Rows of one run, and the share of all meters, that may go without their number being named."""


class WriteKind(StrEnum):
    """What is changed: a meter that is created or changed, a time in which it sits out or takes part, its leaving, a
    nomination that is suggested, where dispatch is posted."""

    METER = "meter"
    IDLE = "idle"
    PARTICIPATE = "participate"
    DISENROLL = "disenroll"
    NOMINATION = "nomination"
    WEBHOOK = "webhook"


APPROVED_ONLY = frozenset({WriteKind.DISENROLL, WriteKind.NOMINATION})
"""Never sent without the leave of a person other than who proposed it."""


class WriteState(StrEnum):
    """How far a row is. `SENDING`: it was, or is, on its way, and whether it arrived is not known until the peer was
    asked. `WAITS`: the peer took it and works on it (a `job`), or it is still to be read back. `DIFFERS`: the peer took
    it, and has something else."""

    PROPOSED = "proposed"
    SENDING = "sending"
    WAITS = "waits"
    DONE = "done"
    DIFFERS = "differs"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


OPEN = (WriteState.PROPOSED, WriteState.SENDING, WriteState.WAITS)
"""Rows of which something is still to come."""

Content = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """One change. `subject`: the partner's reference of a meter, or the aggregator's id of one, or the level of a
    webhook; `before` None: the peer has nothing of it. Personal data never stands here: `after` names the customer by
    reference. Times are UTC ms."""

    number: int
    kind: WriteKind
    subject: str
    after: Content
    proposed_by: str
    proposed_ms: int
    before: Content | None = None
    state: WriteState = WriteState.PROPOSED
    approved_by: str = ""
    job: str = ""
    detail: str = ""

    @property
    def approved(self) -> bool:
        """Whether it may go as far as people are asked."""
        return self.kind not in APPROVED_ONLY or bool(self.approved_by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One member that a row changes."""

    member: str
    before: Any
    after: Any


def differences(before: Content | None, after: Content) -> list[Difference]:
    """What a change does, member by member; members that `after` does not name stay as they are."""
    had = {} if before is None else before
    return [
        Difference(member=member, before=had.get(member), after=value)
        for member, value in after.items()
        if member not in had or had[member] != value
    ]


def limit(meters: int) -> int:
    """How many rows may go in one run without their number being named: `ROWS_MAX` or `SHARE_MAX` of the meters,
    whichever is less, and one at least."""
    return max(1, min(ROWS_MAX, int(meters * SHARE_MAX)))


def brake(count: int, meters: int, confirmed: int | None) -> str | None:
    """Why so many rows do not go; None = they may. `confirmed`: how many somebody said they are."""
    if confirmed is not None and confirmed != count:
        return f"{confirmed} rows were confirmed, and {count} would go"
    if confirmed is None and count > limit(meters):
        return f"{count} rows would go, more than {limit(meters)} of {meters} meters: confirm {count}"
    return None


def may_approve(row: OutboxRow, by: str) -> str | None:
    """Why somebody may not give leave; None = they may."""
    if row.state is not WriteState.PROPOSED:
        return f"row {row.number} is {row.state.value}"
    if row.kind not in APPROVED_ONLY:
        return f"row {row.number}: {row.kind.value} needs no leave"
    if by == row.proposed_by:
        return f"row {row.number}: {by} proposed it; another person gives leave"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What a run would do: `go` is sent, `look` was on its way in an earlier run and is looked for first, `kept` waits
    for leave."""

    go: Sequence[OutboxRow] = field(default_factory=tuple)
    look: Sequence[OutboxRow] = field(default_factory=tuple)
    kept: Sequence[OutboxRow] = field(default_factory=tuple)


def plan(rows: Sequence[OutboxRow]) -> RunPlan:
    """What a run does with the open rows of one kind."""
    ready = [row for row in rows if row.state is WriteState.PROPOSED]
    return RunPlan(
        go=tuple(row for row in ready if row.approved),
        look=tuple(row for row in rows if row.state in (WriteState.SENDING, WriteState.WAITS)),
        kept=tuple(row for row in ready if not row.approved),
    )

"""Lifecycle of an event: its states, the steps between them as one table, its entry in the book."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from gateway.domain.events.request import EventKind, EventRequest, Running, Target
from gateway.domain.types import EventId, Now


class EventState(Enum):
    """Where an event stands. `RECEIVED` lasts until the decision; `SUPERSEDED`: it runs, and other events have all of
    its devices; `EXPIRED`: its time passed and it never ran here."""

    RECEIVED = "received"
    REJECTED = "rejected"
    SCHEDULED = "scheduled"
    ACTIVE = "active"
    SUPERSEDED = "superseded"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    # a member is one object; the hash that an Enum has by default is taken from its name, in Python
    __hash__ = object.__hash__


class LifecycleStep(Enum):
    """What changes an event's state. `PAUSE`: an occurrence is over and another one follows."""

    ACCEPT = "accept"
    REJECT = "reject"
    START = "start"
    PAUSE = "pause"
    LOSE = "lose"
    RESUME = "resume"
    END = "end"
    CANCEL = "cancel"
    REVISE = "revise"


_S = EventState

LIFE: Mapping[tuple[EventState, LifecycleStep], EventState] = {
    (_S.RECEIVED, LifecycleStep.ACCEPT): _S.SCHEDULED,
    (_S.RECEIVED, LifecycleStep.REJECT): _S.REJECTED,
    (_S.RECEIVED, LifecycleStep.CANCEL): _S.CANCELLED,
    (_S.REJECTED, LifecycleStep.ACCEPT): _S.SCHEDULED,
    (_S.REJECTED, LifecycleStep.CANCEL): _S.CANCELLED,
    (_S.SCHEDULED, LifecycleStep.START): _S.ACTIVE,
    (_S.SCHEDULED, LifecycleStep.END): _S.EXPIRED,
    (_S.SCHEDULED, LifecycleStep.CANCEL): _S.CANCELLED,
    (_S.SCHEDULED, LifecycleStep.REVISE): _S.SCHEDULED,
    (_S.ACTIVE, LifecycleStep.PAUSE): _S.SCHEDULED,
    (_S.ACTIVE, LifecycleStep.LOSE): _S.SUPERSEDED,
    (_S.ACTIVE, LifecycleStep.END): _S.COMPLETED,
    (_S.ACTIVE, LifecycleStep.CANCEL): _S.CANCELLED,
    (_S.ACTIVE, LifecycleStep.REVISE): _S.SCHEDULED,
    (_S.SUPERSEDED, LifecycleStep.RESUME): _S.ACTIVE,
    (_S.SUPERSEDED, LifecycleStep.PAUSE): _S.SCHEDULED,
    (_S.SUPERSEDED, LifecycleStep.END): _S.COMPLETED,
    (_S.SUPERSEDED, LifecycleStep.CANCEL): _S.CANCELLED,
    (_S.SUPERSEDED, LifecycleStep.REVISE): _S.SCHEDULED,
    (_S.COMPLETED, LifecycleStep.CANCEL): _S.CANCELLED,
    (_S.COMPLETED, LifecycleStep.REVISE): _S.SCHEDULED,
    (_S.EXPIRED, LifecycleStep.CANCEL): _S.CANCELLED,
    (_S.EXPIRED, LifecycleStep.REVISE): _S.SCHEDULED,
    (_S.CANCELLED, LifecycleStep.CANCEL): _S.CANCELLED,
    (_S.CANCELLED, LifecycleStep.REVISE): _S.SCHEDULED,
}
"""The next state by state and step. A step that is not listed leaves the state as it is; a revised event starts as
scheduled and its new times decide."""

RUNS = frozenset({EventState.ACTIVE, EventState.SUPERSEDED})
FINISHED = frozenset({EventState.COMPLETED, EventState.EXPIRED})
OVER = FINISHED | {EventState.CANCELLED}
"""What only a revision brings back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BookEntry:
    """The newest accepted revision of an event, or a request that was rejected (`reason`). `index` names the event in
    columns and is never reused (-1: rejected); `ran`: it has run here for some time; `held_by`: the operator who
    cancelled it here and has not lifted that."""

    index: int
    request: EventRequest
    state: EventState
    decided_ms: int
    ran: bool = False
    reason: str | None = None
    held_by: str | None = None


def place(entry: BookEntry) -> tuple[int, str]:
    """Where an event stands in lists: newest start first."""
    return -entry.request.start_ms, entry.request.id


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveEvent:
    """An event that has a target for its devices now. `preparing`: it has not begun, and `running` is what its members
    do before."""

    index: int
    request: EventRequest
    running: Running
    decided_ms: int = 0
    preparing: bool = False

    @property
    def actuates(self) -> bool:
        return self.request.kind is not EventKind.DRY_RUN

    @property
    def target(self) -> Target:
        return self.running.target

    def seconds_to_end(self, now: Now) -> float:
        """Time for which the target must be sustained, s, at least 0."""
        return max(0, self.running.sustained_until_ms - now.utc_ms) / 1000

    @property
    def rank(self) -> tuple[bool, int, bool, int, EventId]:
        """Sort key where two events want the same device: running before preparing, lower priority number, commitment
        before voluntary, later decision."""
        request = self.request
        return (self.preparing, request.priority, request.voluntary, -self.decided_ms, request.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """An event changed its state."""

    entry: BookEntry
    before: EventState

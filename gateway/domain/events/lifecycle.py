"""Lifecycle of an event: its states, the steps between them as one table, its entry in the book."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from gateway.domain.events.preparation import Keeping, kept_next
from gateway.domain.events.request import OPEN_MS, EventKind, EventRequest, Running, Target
from gateway.domain.rules.program import GridProgram
from gateway.domain.rules.stacking import ALONE, StackingTerms
from gateway.domain.types import EventId, Floats, Now

OPEN_HORIZON_S = 4 * 3600.0
"""For how long from each moment on the target of an event without an end is to be sustained: the four hours for which
capacity is rated, and the longest for which availability is reported. "The most" of such an event thus falls as the
batteries empty, and never empties them at once."""


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
    """An event that has a target for its devices now. `keeping`: it has not begun, and `running` is what its members
    do before; None = it runs. `terms`: those of its program for a battery that others use too.
    `each_w`: the power of each device by slot, W, where the target asks for one of each."""

    index: int
    request: EventRequest
    running: Running
    decided_ms: int = 0
    keeping: Keeping | None = None
    terms: StackingTerms = ALONE
    each_w: Floats | None = field(default=None, compare=False, repr=False)

    @property
    def preparing(self) -> bool:
        return self.keeping is not None

    @property
    def actuates(self) -> bool:
        return self.request.kind is not EventKind.DRY_RUN

    @property
    def target(self) -> Target:
        return self.running.target

    def seconds_to_end(self, now: Now) -> float:
        """Time for which the target must be sustained, s, at least 0."""
        if self.running.sustained_until_ms >= OPEN_MS:
            return OPEN_HORIZON_S
        return max(0, self.running.sustained_until_ms - now.utc_ms) / 1000

    @property
    def rank(self) -> tuple[bool, bool, int, bool, int, EventId]:
        """Sort key where two events want the same device: of a program that yields last, running before preparing,
        lower priority number, commitment before voluntary, later decision."""
        request = self.request
        return (self.terms.yields, self.preparing, request.priority, request.voluntary, -self.decided_ms, request.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """An event changed its state."""

    entry: BookEntry
    before: EventState


def moved_on(entry: BookEntry, now: Now, *, lost: bool | None = None) -> BookEntry:
    """The entry at `now`. `lost`: whether other events have all of its devices; None = unknown."""
    request, state, ran = entry.request, entry.state, entry.ran
    if state in OVER:
        # its times do not matter any more; a tombstone's were never checked
        return entry
    wanted = request.running(now.utc_ms) is not None

    def go(step: LifecycleStep) -> None:
        nonlocal state
        state = LIFE.get((state, step), state)

    if wanted:
        go(LifecycleStep.START)
        ran = ran or state in RUNS
        if lost is not None:
            go(LifecycleStep.LOSE if lost else LifecycleStep.RESUME)
    elif now.utc_ms >= request.end_ms:
        if ran and state is EventState.SCHEDULED:
            go(LifecycleStep.START)
        go(LifecycleStep.END)
    elif state in RUNS and now.utc_ms >= request.until_over_ms(now.utc_ms):
        go(LifecycleStep.PAUSE)
    return entry if state is entry.state and ran is entry.ran else replace(entry, state=state, ran=ran)


def wanting(entry: BookEntry, now: Now, program: GridProgram | None = None) -> ActiveEvent | None:
    """The event of an entry with its target at `now`, if it has one. `program`: the rules of its program, if any."""
    if entry.state in OVER:
        return None
    moved, request = moved_on(entry, now), entry.request
    running = request.running(now.utc_ms)
    keeping: Keeping | None = None
    if moved.state is EventState.SCHEDULED:
        keeping = kept_next(request, program, now.utc_ms)
        running = None if keeping is None else keeping.running(now.utc_ms)
    elif moved.state not in RUNS:
        return None
    elif now.utc_ms < request.start_ms:
        # the clock was set back in mid-event
        running = request.running(request.start_ms)
    if running is None:
        return None
    version = None if program is None else program.version_at(now.utc_ms)
    return ActiveEvent(
        index=entry.index, request=request, running=running, decided_ms=entry.decided_ms, keeping=keeping,
        terms=ALONE if version is None else version.stacking,
    )  # fmt: skip

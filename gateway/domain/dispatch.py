"""Dispatch events: what is asked, what was decided, what is active, and who belongs to whom.

A request is decided (pure), made durable by the caller, then applied. Identity is id + revision; the highest revision
wins, whatever the order of arrival; a cancellation is a revision like any other and stays as a tombstone.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, StrEnum

import numpy as np
from numpy.typing import NDArray

from gateway.domain.fleet import Fleet
from gateway.domain.model import EventId, EventKind, EventRequest, Now, Slots, TargetGroup


class Outcome(Enum):
    """What became of a request."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"


class Refusal(StrEnum):
    """Why a request was rejected; a bounded set, fit for labels."""

    CONFLICT = "conflict"
    END_BEFORE_START = "end_before_start"
    EXPIRED = "expired"
    TOO_LONG = "too_long"
    TOO_FAR_AHEAD = "too_far_ahead"
    TARGET_NOT_FINITE = "target_not_finite"
    OVER_CEILING = "over_ceiling"
    EMPTY_GROUP = "empty_group"
    STOPPED = "stopped"
    TOO_MANY_EVENTS = "too_many_events"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The decision on one request. `reason` is a `Refusal` where it was rejected; `decided_ms` UTC."""

    id: EventId
    revision: int
    outcome: Outcome
    reason: str | None = None
    decided_ms: int = 0


class EventState(Enum):
    """Where an accepted event stands."""

    SCHEDULED = "scheduled"
    ACTIVE = "active"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class Step(Enum):
    """What moves an event on."""

    START = "start"
    END = "end"
    CANCEL = "cancel"
    REVISE = "revise"


LIFE: Mapping[tuple[EventState, Step], EventState] = {
    (EventState.SCHEDULED, Step.START): EventState.ACTIVE,
    (EventState.SCHEDULED, Step.END): EventState.COMPLETED,
    (EventState.SCHEDULED, Step.CANCEL): EventState.CANCELLED,
    (EventState.SCHEDULED, Step.REVISE): EventState.SCHEDULED,
    (EventState.ACTIVE, Step.END): EventState.COMPLETED,
    (EventState.ACTIVE, Step.CANCEL): EventState.CANCELLED,
    (EventState.ACTIVE, Step.REVISE): EventState.SCHEDULED,
    (EventState.COMPLETED, Step.CANCEL): EventState.CANCELLED,
    (EventState.COMPLETED, Step.REVISE): EventState.SCHEDULED,
    (EventState.CANCELLED, Step.CANCEL): EventState.CANCELLED,
    (EventState.CANCELLED, Step.REVISE): EventState.SCHEDULED,
}
"""An event's life. A step that is not listed leaves the state as it is; a revision is weighed by its times anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BookParams:
    """Bounds of the book: `ceiling_w` on the magnitude of a target, `retention_s` an ended event is remembered."""

    ceiling_w: float = 100e6
    length_s_max: float = 24 * 3600.0
    ahead_s_max: float = 14 * 24 * 3600.0
    retention_s: float = 7 * 24 * 3600.0
    events_max: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class BookEntry:
    """The newest accepted revision of an event. `index` names the event in columns and is never reused."""

    index: int
    request: EventRequest
    state: EventState
    decided_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveEvent:
    """An event that runs now."""

    index: int
    request: EventRequest

    @property
    def actuates(self) -> bool:
        return self.request.kind is not EventKind.DRY_RUN

    def seconds_to_end(self, now: Now) -> float:
        """Time left in s, at least 0."""
        return max(0, self.request.end_ms - now.utc_ms) / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """An event came to another state."""

    entry: BookEntry
    before: EventState


class Book:
    """All events of this gateway, by id. Written by one submitter; bounded by `BookParams`."""

    def __init__(self, params: BookParams | None = None) -> None:
        self.params = params or BookParams()
        self.stopped = False
        self._entries: dict[EventId, BookEntry] = {}
        self._next_index = 0

    def __len__(self) -> int:
        return len(self._entries)

    def decide(self, request: EventRequest, now: Now) -> Answer:
        """Judge `request`; changes nothing. The same request at the same time gives the same answer."""
        known = self._entries.get(request.id)
        if known is not None and request.revision < known.request.revision:
            return _answer(request, Outcome.SUPERSEDED, now)
        if known is not None and request.revision == known.request.revision:
            if replace(request, source="") == replace(known.request, source=""):
                return _answer(request, Outcome.DUPLICATE, now)
            return _answer(request, Outcome.REJECTED, now, Refusal.CONFLICT)
        refusal = self._refusal(request, now)
        if refusal is None and known is None and self._living(now) >= self.params.events_max:
            refusal = Refusal.TOO_MANY_EVENTS
        if refusal is not None:
            return _answer(request, Outcome.REJECTED, now, refusal)
        return _answer(request, Outcome.ACCEPTED, now)

    def _refusal(self, request: EventRequest, now: Now) -> Refusal | None:
        if request.cancelled:
            return None
        params, target_w = self.params, request.target_w
        checks = (
            (self.stopped, Refusal.STOPPED),
            (not _names_someone(request.group), Refusal.EMPTY_GROUP),
            (target_w is not None and not math.isfinite(target_w), Refusal.TARGET_NOT_FINITE),
            (target_w is not None and abs(target_w) > params.ceiling_w, Refusal.OVER_CEILING),
            (request.end_ms <= request.start_ms, Refusal.END_BEFORE_START),
            (request.end_ms <= now.utc_ms, Refusal.EXPIRED),
            (request.end_ms - request.start_ms > params.length_s_max * 1000, Refusal.TOO_LONG),
            (request.start_ms - now.utc_ms > params.ahead_s_max * 1000, Refusal.TOO_FAR_AHEAD),
        )
        return next((refusal for applies, refusal in checks if applies), None)

    def apply(self, request: EventRequest, answer: Answer) -> None:
        """Take over an accepted request; any other answer, or an older revision, changes nothing."""
        if answer.outcome is not Outcome.ACCEPTED:
            return
        known = self._entries.get(request.id)
        if known is not None and request.revision <= known.request.revision:
            return
        if known is None:
            index, before = self._next_index, EventState.SCHEDULED
            self._next_index += 1
        else:
            index, before = known.index, known.state
        state = LIFE[before, Step.CANCEL if request.cancelled else Step.REVISE]
        self._entries[request.id] = BookEntry(index=index, request=request, state=state, decided_ms=answer.decided_ms)

    def restore(self, decided: Iterable[tuple[EventRequest, Answer]], *, stopped: bool) -> None:
        """Take over what was remembered from an earlier run."""
        self.stopped = stopped
        for request, answer in decided:
            self.apply(request, answer)

    def stop(self, *, active: bool) -> None:
        """While stopped nothing is active and new events are refused; cancellations are still taken."""
        self.stopped = active

    def advance(self, now: Now) -> list[Transition]:
        """Move every event on to where the time has brought it, forget those past retention; returns the edges."""
        edges: list[Transition] = []
        for entry in list(self._entries.values()):
            if self._forgettable(entry, now):
                del self._entries[entry.request.id]
                continue
            state = _state_at(entry, now)
            if state is not entry.state:
                moved = replace(entry, state=state)
                self._entries[entry.request.id] = moved
                edges.append(Transition(entry=moved, before=entry.state))
        return edges

    def active(self, now: Now) -> list[ActiveEvent]:
        """Events that run at `now`, dry runs included: lowest priority number first, then lowest id."""
        if self.stopped:
            return []
        running = [e for e in self._entries.values() if _state_at(e, now) is EventState.ACTIVE]
        running.sort(key=lambda entry: (entry.request.priority, entry.request.id))
        return [ActiveEvent(index=entry.index, request=entry.request) for entry in running]

    def entries(self, now: Now) -> list[BookEntry]:
        """Everything remembered, newest start first, with the state at `now`."""
        found = [replace(entry, state=_state_at(entry, now)) for entry in self._entries.values()]
        found.sort(key=lambda entry: (-entry.request.start_ms, entry.request.id))
        return found

    def entry(self, event_id: str, now: Now) -> BookEntry | None:
        """What is remembered of one event, with its state at `now`."""
        entry = self._entries.get(EventId(event_id))
        return None if entry is None else replace(entry, state=_state_at(entry, now))

    def _living(self, now: Now) -> int:
        return sum(not self._forgettable(entry, now) for entry in self._entries.values())

    def _forgettable(self, entry: BookEntry, now: Now) -> bool:
        # a tombstone's times are not checked: an end in the far future must not keep it for ever
        latest_ms = entry.decided_ms + (self.params.ahead_s_max + self.params.length_s_max) * 1000
        last_ms = max(min(entry.request.end_ms, latest_ms), entry.decided_ms)
        return now.utc_ms > last_ms + self.params.retention_s * 1000


def _answer(request: EventRequest, outcome: Outcome, now: Now, refusal: Refusal | None = None) -> Answer:
    return Answer(id=request.id, revision=request.revision, outcome=outcome, reason=refusal, decided_ms=now.utc_ms)


def _names_someone(group: TargetGroup) -> bool:
    return group.all or bool(group.ids) or bool(group.tags)


def _state_at(entry: BookEntry, now: Now) -> EventState:
    state = entry.state
    if now.utc_ms >= entry.request.end_ms:
        return LIFE.get((state, Step.END), state)
    if now.utc_ms >= entry.request.start_ms:
        return LIFE.get((state, Step.START), state)
    return state


def members(fleet: Fleet, group: TargetGroup) -> Slots:
    """Slots of the enrolled devices a group addresses, ascending; names nobody carries address nobody."""
    if group.all:
        return np.flatnonzero(fleet.nameplate.enrolled[: fleet.n]).astype(np.int32)
    chosen = np.zeros(fleet.n, dtype=np.bool_)
    named = [slot for slot in map(fleet.slot_of.get, group.ids) if slot is not None]
    chosen[named] = True
    for tag in group.tags:
        chosen[list(fleet.tags.get(tag, ()))] = True
    return np.flatnonzero(chosen & fleet.nameplate.enrolled[: fleet.n]).astype(np.int32)


def claim(events: Sequence[ActiveEvent], groups: Sequence[Slots], n: int) -> NDArray[np.int32]:
    """Which event holds each device: the index of the first of `events` (ordered as `Book.active` gives them) that
    has it among its `groups`, -1 for none. Dry runs hold nobody."""
    holder = np.full(n, -1, dtype=np.int32)
    for event, slots in zip(reversed(events), reversed(groups), strict=True):
        if event.actuates:
            holder[slots] = event.index
    return holder

"""The book of dispatch events: requests, decisions, states.

A request is scoped to its source, anchored and decided (pure), made durable by the caller, then applied. Identity is
source + id + revision; the highest revision wins, whatever the order of arrival; a cancellation is a revision like any
other and stays as a tombstone. `arbitration` assigns the devices.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from types import MappingProxyType

import numpy as np

from gateway.domain.events import checks
from gateway.domain.events.lifecycle import (
    FINISHED,
    LIFE,
    OVER,
    RUNS,
    ActiveEvent,
    BookEntry,
    EventState,
    LifecycleStep,
    Transition,
    moved_on,
    place,
    wanting,
)
from gateway.domain.events.request import EventRequest, TargetGroup
from gateway.domain.events.scope import own_id, qualified, unscoped
from gateway.domain.fleet.clock_skew import ClockTrust
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.rules.program import GridProgram
from gateway.domain.types import EventId, Now, Slots


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
    NEEDS_END = "needs_end"
    OPEN_END_NOT_ALLOWED = "open_end_not_allowed"
    TOO_FAR_AHEAD = "too_far_ahead"
    LEGS_OUT_OF_ORDER = "legs_out_of_order"
    OCCURRENCES_OVERLAP = "occurrences_overlap"
    TARGET_NOT_FINITE = "target_not_finite"
    OVER_CEILING = "over_ceiling"
    EMPTY_GROUP = "empty_group"
    STOPPED = "stopped"
    RELEASE_ONLY = "release_only"
    TOO_MANY_EVENTS = "too_many_events"
    CANCELLED_BY_OPERATOR = "cancelled_by_operator"
    NOW_TOO_OLD = "now_too_old"
    NOW_AGE_UNKNOWN = "now_age_unknown"
    CLOCK_CONTRADICTED = "clock_contradicted"
    OUTSIDE_SOURCE = "outside_source"
    TOO_OFTEN = "too_often"
    PROGRAM_RULES = "program_rules"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The decision on one request. `reason` is a `Refusal` where it was rejected, or is a duplicate of an event that an
    operator has cancelled since; `decided_ms` UTC; `warnings` in words, of the moment and not stored."""

    id: EventId
    revision: int
    outcome: Outcome
    reason: str | None = None
    decided_ms: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BookParams:
    """Bounds of the book: `ceiling_w` on the magnitude of a target, `program_w` and `source_w` the same by program and
    by source, `length_s_max` of an occurrence that has an end, `repeats_s_max` of all of them, `now_age_s_max` on the
    age of a request that says "now". Events of `ending` programs have an end. At most `events_max` events of a source
    are live, scheduled or running. Of those that are over, the book remembers the newest `finished_max` and the newest
    `tombstones_max` cancelled ones, for `retention_s`: the store has the others."""

    ceiling_w: float = 100e6
    program_w: Mapping[str, float] = field(default_factory=dict)
    source_w: Mapping[str, float] = field(default_factory=dict)
    ending: Set[str] = frozenset()
    length_s_max: float = 24 * 3600.0
    repeats_s_max: float = 400 * 24 * 3600.0
    ahead_s_max: float = 14 * 24 * 3600.0
    now_age_s_max: float = 60.0
    retention_s: float = 7 * 24 * 3600.0
    events_max: int = 1000
    finished_max: int = 200
    tombstones_max: int = 500
    rejected_max: int = 100


class Book:
    """All events of this gateway, by their id within it (see `scope`). Written by one submitter; bounded by
    `BookParams`. While the `clock` is unsure no event ends; while it is contradicted, none begins or has a target
    either, and what would begin one is refused. `programs`: the rules of those that have some here, by name."""

    def __init__(
        self, params: BookParams | None = None, programs: Mapping[str, GridProgram] = MappingProxyType({})
    ) -> None:
        self.params = params or BookParams()
        self.programs = programs
        self.stopped = False
        self.release_only = False
        self.clock = ClockTrust.SURE
        self._entries: dict[EventId, BookEntry] = {}
        self._rejected: OrderedDict[tuple[str, EventId], BookEntry] = OrderedDict()
        self._next_index = 0
        self._edges: list[Transition] = []
        self._forgotten: list[EventId] = []
        self._forget_ms = -math.inf  # nothing is to be forgotten before

    def __len__(self) -> int:
        return len(self._entries)

    def scoped(self, request: EventRequest) -> EventRequest:
        """The request under the id that its event has within the gateway. The id of an event never changes."""
        names = (request.id, qualified(request.source, request.id))
        known = [entry.request for name in names if (entry := self._entries.get(name)) is not None]
        mine = [one.id for one in known if one.source == request.source] + [one.id for one in known if unscoped(one)]
        free = names[1] if request.id in self._entries else names[0]
        return replace(request, id=mine[0] if mine else free)

    def anchor(self, request: EventRequest, now: Now) -> EventRequest:
        """Set the start of a request that says "now" to its first receipt; a repetition or revision keeps that start
        unless its length changes."""
        if not request.anchored:
            return request
        known = self._entries.get(request.id)
        start_ms = now.utc_ms
        if known is not None and known.request.anchored and known.request.length_ms == request.length_ms:
            start_ms = known.request.start_ms
        by_ms = start_ms - request.start_ms
        starts_ms, ends_ms = (tuple(ms + by_ms for ms in times) for times in (request.starts_ms, request.ends_ms))
        end_ms = request.end_ms if request.open_ended else request.end_ms + by_ms
        return replace(request, start_ms=start_ms, end_ms=end_ms, starts_ms=starts_ms, ends_ms=ends_ms)

    def decide(self, request: EventRequest, now: Now, barred: Callable[[], Refusal | None] = lambda: None) -> Answer:
        """Decide on a scoped and anchored request; changes nothing. The same request at the same time gives the same
        answer. `barred`: asked for what is new, why its source may not ask for it."""
        known = self._entries.get(request.id)
        if known is not None and known.request.source != request.source and not unscoped(known.request):
            return _answer(request, Outcome.REJECTED, now, Refusal.CONFLICT)
        if known is not None and request.revision < known.request.revision:
            return _answer(request, Outcome.SUPERSEDED, now)
        if known is not None and request.revision == known.request.revision and not request.cancels(known.request):
            if replace(request, source="") == replace(known.request, source=""):
                held = known.held_by is not None and not request.cancelled
                return _answer(request, Outcome.DUPLICATE, now, Refusal.CANCELLED_BY_OPERATOR if held else None)
            return _answer(request, Outcome.REJECTED, now, Refusal.CONFLICT)
        refusal = self._refusal(request, known, now) or barred() or self._untimely(request, known, now)
        if known is not None and known.held_by is not None and not request.cancelled:
            refusal = Refusal.CANCELLED_BY_OPERATOR
        if refusal is None and self._full(request, known):
            refusal = Refusal.TOO_MANY_EVENTS
        if refusal is not None:
            answer = _answer(request, Outcome.REJECTED, now, refusal)
            return replace(answer, warnings=self._over(request)) if refusal is Refusal.OVER_CEILING else answer
        return _answer(request, Outcome.ACCEPTED, now)

    def _ceiling_w(self, request: EventRequest) -> float:
        of_program = self.params.program_w.get(request.program, math.inf)
        return min(self.params.ceiling_w, of_program, self.params.source_w.get(request.source, math.inf))

    def _over(self, request: EventRequest) -> tuple[str, ...]:
        """Which ceiling a request is over, and by how much."""
        most_w = max(abs(target.power_w) for target in request.targets if target.power_w is not None)
        ceiling_w = self._ceiling_w(request)
        of_source = self.params.source_w.get(request.source) == ceiling_w
        whose = f"source {request.source}" if of_source else f"program {request.program}"
        whose = "every event" if ceiling_w == self.params.ceiling_w else whose
        return (f"the ceiling of {whose} is {ceiling_w:.0f} W; the event asks for {most_w:.0f} W",)

    def _untimely(self, request: EventRequest, known: BookEntry | None, now: Now) -> Refusal | None:
        """Why "now" is not now, for a request that would begin with its receipt."""
        if request.cancelled or not request.anchored:
            return None
        if known is not None and known.request.anchored and known.request.start_ms == request.start_ms:
            return None
        bound_ms = self.params.now_age_s_max * 1000
        age_ms = None if request.sent_ms is None else now.utc_ms - request.sent_ms
        if age_ms is None or age_ms < -bound_ms:
            # not known, or not by our clock
            return Refusal.NOW_AGE_UNKNOWN
        return Refusal.NOW_TOO_OLD if age_ms > bound_ms else None

    def _refusal(self, request: EventRequest, known: BookEntry | None, now: Now) -> Refusal | None:
        if request.cancelled:
            return None
        params = self.params
        ceiling_w = self._ceiling_w(request)
        powers = [target.power_w for target in request.targets if target.power_w is not None]
        found = (
            (self.release_only, Refusal.RELEASE_ONLY),
            (self.stopped, Refusal.STOPPED),
            (self.clock is ClockTrust.CONTRADICTED, Refusal.CLOCK_CONTRADICTED),
            (not checks.names_someone(request.group), Refusal.EMPTY_GROUP),
            (not all(map(math.isfinite, powers)), Refusal.TARGET_NOT_FINITE),
            (not checks.each_named(request), Refusal.TARGET_NOT_FINITE),
            (any(abs(power_w) > ceiling_w for power_w in powers), Refusal.OVER_CEILING),
            (request.end_ms <= request.start_ms or request.length_ms <= 0, Refusal.END_BEFORE_START),
            (not checks.in_order(request), Refusal.LEGS_OUT_OF_ORDER),
            (checks.overlap(request), Refusal.OCCURRENCES_OVERLAP),
            (request.end_ms <= now.utc_ms, Refusal.EXPIRED),
            (self._too_long(request, known, now), Refusal.TOO_LONG),
            (checks.needs_end(request), Refusal.NEEDS_END),
            (request.open_ended and request.program in params.ending, Refusal.OPEN_END_NOT_ALLOWED),
            (request.start_ms - now.utc_ms > params.ahead_s_max * 1000, Refusal.TOO_FAR_AHEAD),
        )
        return next((refusal for applies, refusal in found if applies), None)

    def _too_long(self, request: EventRequest, known: BookEntry | None, now: Now) -> bool:
        """Whether an occurrence, or all of them, last too long. What runs until further notice has no length. Where it
        is given an end, that may be as far from now as that of a new event."""
        one_ms, all_ms = self.params.length_s_max * 1000, self.params.repeats_s_max * 1000
        if request.legs and not request.endless and request.length_ms > one_ms:
            return True
        longest_ms = all_ms if request.repeats or request.starts_ms else one_ms
        began_ms = request.start_ms
        if known is not None and known.request.start_ms == began_ms:
            lasted_ms = known.request.end_ms - began_ms
            began_ms = max(began_ms, now.utc_ms) if lasted_ms > longest_ms else began_ms
        return not request.open_ended and request.end_ms - began_ms > longest_ms

    def apply(self, request: EventRequest, answer: Answer, state: EventState | None = None) -> None:
        """Apply a decided request; an older revision changes nothing. `state`: its last journalled state."""
        known = self._entries.get(request.id)
        if answer.outcome is Outcome.REJECTED and known is None:
            self._reject(request, answer)
        if answer.outcome is not Outcome.ACCEPTED:
            return
        if known is not None and not (request.revision > known.request.revision or request.cancels(known.request)):
            return
        self._rejected.pop((request.source, own_id(request.id)), None)
        held_by = None
        if known is None:
            index, before, ran = self._next_index, EventState.RECEIVED, False
            self._next_index += 1
        else:
            index, before, ran, held_by = known.index, known.state, known.ran, known.held_by
        accepted = LifecycleStep.ACCEPT if known is None else LifecycleStep.REVISE
        moved = LIFE[before, LifecycleStep.CANCEL if request.cancelled else accepted]
        entry = self._put(BookEntry(
            index=index, request=request, state=state or moved, decided_ms=answer.decided_ms, ran=ran or state in RUNS,
            held_by=held_by,
        ))  # fmt: skip
        if before in RUNS and entry.state is EventState.CANCELLED:
            self._edges.append(Transition(entry=entry, before=before))

    def withdraw(self, event_id: EventId, *, held_by: str | None) -> None:
        """Cancel an event here, whatever its source says; its revision stays. `held_by`: until this operator, or
        another, lifts it; None = until the next revision."""
        known = self._entries[event_id]
        state = LIFE.get((known.state, LifecycleStep.CANCEL), known.state)
        entry = self._put(replace(known, state=state, held_by=held_by or known.held_by))
        if known.state in RUNS:
            self._edges.append(Transition(entry=entry, before=known.state))

    def lift(self, event_id: EventId) -> None:
        """Let the source of an event that was withdrawn revise it again. It stays cancelled until then."""
        known = self._entries.get(event_id)
        if known is not None:
            self._put(replace(known, held_by=None))

    def _reject(self, request: EventRequest, answer: Answer) -> None:
        name = (request.source, own_id(request.id))
        shown = qualified(*name) if request.source else request.id
        self._rejected[name] = BookEntry(
            index=-1,
            request=replace(request, id=shown),
            state=LIFE[EventState.RECEIVED, LifecycleStep.REJECT],
            decided_ms=answer.decided_ms,
            reason=answer.reason,
        )
        self._rejected.move_to_end(name)
        while len(self._rejected) > self.params.rejected_max:
            self._rejected.popitem(last=False)

    def load(
        self,
        decided: Iterable[tuple[EventRequest, Answer]],
        *,
        stopped: bool,
        states: Mapping[EventId, tuple[int, EventState]] | None = None,
        withdrawn: Mapping[EventId, str] | None = None,
    ) -> None:
        """Load the decisions of earlier runs. `states`: the last journalled revision and state of events. `withdrawn`:
        those that operators cancelled, and who did."""
        self.stopped = stopped
        for request, answer in decided:
            revision, state = (states or {}).get(request.id, (-1, None))
            self.apply(request, answer, state if revision == request.revision else None)
        for event_id, by in (withdrawn or {}).items():
            if event_id in self._entries:
                self.withdraw(event_id, held_by=by)

    def knows(self, request: EventRequest) -> bool:
        """Whether the event of a request as its source sends it is remembered here; if not, the store may have it."""
        entry = self._entries.get(self.scoped(request).id)
        return entry is not None and entry.request.source == request.source

    def recall(self, request: EventRequest, decided_ms: int, state: EventState, *, held_by: str | None = None) -> None:
        """Remember an event again that was forgotten here and is in the store."""
        if request.id not in self._entries:
            index, self._next_index = self._next_index, self._next_index + 1
            self._put(BookEntry(index=index, request=request, state=state, decided_ms=decided_ms, held_by=held_by))

    def forgotten(self) -> list[EventId]:
        """The events that `advance` has forgotten since this was last asked: only the store has them now."""
        found, self._forgotten = self._forgotten, []
        return found

    def stop(self, *, active: bool) -> None:
        """While stopped nothing is active and new events are refused; cancellations are still accepted."""
        self.stopped = active

    def advance(self, now: Now, without: Iterable[int] = ()) -> list[Transition]:
        """Bring every event to its state at `now`, and forget what was over before for too long, or is one too many.
        Returns the transitions, including those of events that were cancelled while they ran. `without`: running events
        whose devices all belong to other events."""
        edges, self._edges = self._edges, []
        lost = frozenset(without)
        if self.clock is ClockTrust.SURE:
            self._forget(now, {edge.entry.request.id for edge in edges})
        for entry in list(self._entries.values()):
            if entry.state in OVER:
                continue
            moved = self._at(entry, now, lost=entry.index in lost)
            if moved is not entry:
                self._put(moved)
                if moved.state is not entry.state:
                    edges.append(Transition(entry=moved, before=entry.state))
        return edges

    def active(self, now: Now) -> list[ActiveEvent]:
        """Events that have a target at `now`, dry runs and preparations included, in the order of their rank; none
        while stopped, or while the clock is contradicted."""
        return [] if self.stopped or self.clock is ClockTrust.CONTRADICTED else self.wanting(now)

    def wanting(self, now: Now) -> list[ActiveEvent]:
        """The same, stopped or not."""
        wants = (wanting(one, now, self.programs.get(one.request.program)) for one in self._entries.values())
        found = [event for event in wants if event is not None]
        found.sort(key=lambda event: event.rank)
        return found

    def entries(self, now: Now) -> list[BookEntry]:
        """All known events, newest start first, with the state at `now`."""
        found = [self._at(entry, now) for entry in self._entries.values()] + list(self._rejected.values())
        found.sort(key=place)
        return found

    def by_index(self) -> dict[int, BookEntry]:
        """All accepted events by index, with their state at the last `advance`."""
        return {entry.index: entry for entry in self._entries.values()}

    def entry(self, event_id: str, now: Now) -> BookEntry | None:
        """One event, by its id within the gateway, with its state at `now`."""
        entry = self._entries.get(EventId(event_id))
        if entry is None:
            return next((one for one in self._rejected.values() if one.request.id == event_id), None)
        return self._at(entry, now)

    def find(self, event_id: str, now: Now) -> list[BookEntry]:
        """The events of every source that have this id, rejected ones included: as their sources call them, or as the
        gateway does."""
        entries = (*self._entries.values(), *self._rejected.values())
        named = [e for e in entries if event_id in (e.request.id, own_id(e.request.id))]
        return sorted((e if e.state is EventState.REJECTED else self._at(e, now) for e in named), key=place)

    def _at(self, entry: BookEntry, now: Now, *, lost: bool | None = None) -> BookEntry:
        """The entry at `now`, as far as the clock can be believed."""
        if self.clock is ClockTrust.CONTRADICTED:
            return entry
        moved = moved_on(entry, now, lost=lost)
        return entry if self.clock is ClockTrust.UNSURE and moved.state in OVER else moved

    def _full(self, request: EventRequest, known: BookEntry | None) -> bool:
        """Whether the request would make one more live event of its source than there may be."""
        if request.cancelled or (known is not None and known.state not in OVER):
            return False
        live = (e for e in self._entries.values() if e.state not in OVER and e.request.source == request.source)
        return sum(1 for _ in live) >= self.params.events_max

    def _put(self, entry: BookEntry) -> BookEntry:
        self._entries[entry.request.id] = entry
        if entry.state in OVER:
            self._forget_ms = -math.inf
        return entry

    def _forget(self, now: Now, fresh: Set[EventId]) -> None:
        """Forget events that are over: those past retention, and the oldest of too many; none that is `fresh`."""
        if now.utc_ms < self._forget_ms:
            return
        over = [e for e in self._entries.values() if e.state in OVER and e.request.id not in fresh]
        kept = [e for e in over if now.utc_ms < self._kept_until_ms(e)]
        gone = {e.request.id for e in over} - {e.request.id for e in kept}
        for states, most in ((FINISHED, self.params.finished_max), (OVER - FINISHED, self.params.tombstones_max)):
            alike = [e for e in kept if e.state in states]
            if len(alike) > most:
                alike.sort(key=lambda e: (min(e.request.end_ms, now.utc_ms), e.decided_ms, e.index))
                gone |= {e.request.id for e in alike[: len(alike) - most]}
        for name in gone:
            del self._entries[name]
        self._forgotten += sorted(gone)
        self._forget_ms = -math.inf if fresh else min(map(self._kept_until_ms, kept), default=math.inf)

    def _kept_until_ms(self, entry: BookEntry) -> float:
        """When retention of an event that is over ends, UTC."""
        # a tombstone's times are not checked: an end in the far future must not keep it for ever
        longest_s = self.params.length_s_max if entry.request.cancelled else self.params.repeats_s_max
        bounds_s = self.params.ahead_s_max + longest_s
        last_ms = max(min(entry.request.end_ms, entry.decided_ms + bounds_s * 1000), entry.decided_ms)
        return last_ms + self.params.retention_s * 1000 + 1


def _answer(request: EventRequest, outcome: Outcome, now: Now, refusal: Refusal | None = None) -> Answer:
    return Answer(id=request.id, revision=request.revision, outcome=outcome, reason=refusal, decided_ms=now.utc_ms)


def members(fleet: Fleet, group: TargetGroup) -> Slots:
    """Slots of the registered devices that a group addresses, ascending; unknown names address no device."""
    if group.all:
        return np.flatnonzero(fleet.nameplate.registered[: fleet.n]).astype(np.int32)
    named = [slot for slot in map(fleet.slot_of.get, group.ids) if slot is not None]
    parts = [np.array(named, dtype=np.int32)]
    parts += [np.fromiter(slots, np.int32, len(slots)) for tag in group.tags if (slots := fleet.tags.get(tag))]
    chosen = np.unique(np.concatenate(parts))
    return chosen[fleet.nameplate.registered[chosen]]

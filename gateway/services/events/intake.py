"""The one place that accepts events and exclusions.

What gives devices power, or gives them back to dispatch, is made durable, then applied, then answered. What takes power
away (an exclusion, a stop) is applied first; the answer says whether it is durable yet.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import numpy as np

from gateway.clock import Clock
from gateway.domain.events import advice
from gateway.domain.events.arbitration import Claims, claim
from gateway.domain.events.book import Answer, Book, BookParams, Outcome, Refusal, members
from gateway.domain.events.exclusions import Exclusion, Exclusions
from gateway.domain.events.lifecycle import RUNS, ActiveEvent, BookEntry, EventState, Transition
from gateway.domain.events.request import EventKind, EventRequest, TargetGroup
from gateway.domain.events.scope import own_id
from gateway.domain.fleet.clock_skew import ClockTrust
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import (
    AuditDoor,
    Change,
    EventDecided,
    EventMoved,
    EventsArchived,
    EventWithdrawn,
    StopAll,
    WithdrawalLifted,
)
from gateway.domain.journal.stored import JournalState, StoredEvent
from gateway.domain.rules.permission import Permission
from gateway.domain.types import EventId, Now, Slots
from gateway.observability.metrics import Sample
from gateway.observability.parts import Part
from gateway.ports.journal import Journal
from gateway.services.events.excluding import Excluding
from gateway.services.events.participation import Everybody, Participation
from gateway.services.events.program_rules import ProgramRules, told
from gateway.services.events.reached import Reached
from gateway.services.events.sources import SourceBounds
from gateway.services.events.taken_back import TakenBackDevices
from gateway.services.runtime.pending_changes import PendingChanges
from gateway.services.settings import ControlSettings, ProgramSettings, SourceSettings, ceilings_w

log = logging.getLogger(__name__)

NAMED_ON_LOOP = 5_000
"""Of a group that names more devices they are looked up beside the loop."""


class Dispatcher(Part):
    """The one submitter of events. `pending`: what has taken effect and is not durable yet; each tick writes it.
    `program_w`, `source_w`: the ceiling in W of each program and source that has one; `rules`: what programs allow;
    `taken_back`: what owners took back;
    `release_only`: no event runs in this run of the gateway, and none is accepted; cancellations are."""

    component = "control"

    def __init__(
        self,
        settings: ControlSettings,
        *,
        fleet: Fleet,
        journal: Journal,
        clock: Clock,
        programs: Mapping[str, ProgramSettings] = MappingProxyType({}),
        sources: Mapping[str, SourceSettings] = MappingProxyType({}),
        rules: ProgramRules | None = None,
        release_only: bool = False,
        participation: Participation | None = None,
    ) -> None:
        self._fleet = fleet
        self._participation = participation or Everybody()
        self._journal = journal
        self._clock = clock
        self.pending = PendingChanges(journal, deadline_s=settings.write_deadline_s)
        self.program_w, self.source_w = ceilings_w(programs), ceilings_w(sources)
        self._sources = SourceBounds(sources, fleet)
        self.rules = rules or ProgramRules(settings=programs)
        self._programs = frozenset((*programs, *self.rules.programs) if programs else ())
        self._book = Book(
            BookParams(
                ceiling_w=settings.ceiling_mw * 1e6,
                program_w=self.program_w,
                source_w=self.source_w,
                ending={name for name, program in programs.items() if not program.open_ended},
            ),
            self.rules.programs,
        )
        self._book.release_only = release_only
        self.taken_back = TakenBackDevices(fleet, self.entry, self.rules.programs)
        self._submitting = asyncio.Lock()
        self._doomed: set[EventId] = set()
        self._stop_requests = 0
        self._reached = Reached(fleet, self._sources)
        self.excluding = Excluding(
            fleet=fleet, pending=self.pending, clock=clock, participation=self._participation, members=self.members
        )
        self.outcomes: dict[str, int] = dict.fromkeys((outcome.value for outcome in Outcome), 0)

    def load(self, remembered: JournalState) -> None:
        """Load what was decided in earlier runs."""
        self._book.load(
            ((decided.request, decided.answer) for decided in remembered.events),
            stopped=remembered.stopped,
            states=remembered.states,
            withdrawn=remembered.withdrawn,
        )
        self.excluding.load(remembered.exclusions)
        self.taken_back.load(remembered)

    # -- decisions -------------------------------------------------------------------------------------------

    async def submit(self, request: EventRequest, *, by: str = "") -> Answer:
        """Anchor, decide, make durable, apply, answer. `by`: who sent it, if its source says. Raises StorageError; then
        nothing has changed."""
        async with self._submitting:
            await self._recall(request)
            now = self._clock.now()
            request = self._book.anchor(self._book.scoped(request), now)
            answer, said = self._decided(request, now)
            if answer.outcome is Outcome.ACCEPTED:
                await self._journal.commit([EventDecided(request=request, answer=answer, by=by)])
            self._book.apply(request, answer)
            if answer.outcome is Outcome.ACCEPTED:
                self.rules.note(request, said, now)
            self.outcomes[answer.outcome.value] += 1
            log.info(
                "event decided",
                extra={"event": request.id, "revision": request.revision, "outcome": answer.outcome.value,
                       "reason": answer.reason, "source": request.source, "by": by, "want": request.target.want.value,
                       "target_w": request.target.power_w, "cancelled": request.cancelled},
            )  # fmt: skip
            if answer.outcome is not Outcome.ACCEPTED:
                return answer
            if request.cancelled:
                return answer
            slots, unmatched = await self._looked_up(request.group)
            return replace(answer, warnings=self._warnings(request, said, slots, unmatched, now))

    def _decided(self, request: EventRequest, now: Now) -> tuple[Answer, Permission | None]:
        """The book's decision, and what the rules of the event's program say of one that the book accepts."""
        known = self._book.entry(request.id, now)
        answer = self._book.decide(request, now, partial(self._sources.refusal, request, known, now))
        if answer.outcome is not Outcome.ACCEPTED:
            return answer, None
        storms = self.rules.storms(request, self._fleet, self.exclusions)
        said = self.rules.decide(request, known, self.entries, storms, now)
        if said is not None and said.refused and request.kind is not EventKind.DRY_RUN:
            words = tuple(told(said))
            return replace(answer, outcome=Outcome.REJECTED, reason=Refusal.PROGRAM_RULES, warnings=words), said
        return answer, said

    async def _looked_up(self, group: TargetGroup) -> tuple[Slots, tuple[str, ...]]:
        """Slots that a group addresses, and what to say of whom it names in vain; found beside the loop if it names
        many."""

        def found() -> tuple[Slots, tuple[str, ...]]:
            return members(self._fleet, group), advice.unmatched(self._fleet, group)

        return await asyncio.to_thread(found) if len(group.ids) > NAMED_ON_LOOP else found()

    def _warnings(
        self, request: EventRequest, said: Permission | None, slots: Slots, unmatched: tuple[str, ...], now: Now
    ) -> tuple[str, ...]:
        """What the source of an event that was accepted should know."""
        found = (
            *(() if said is None else told(said)),
            *advice.unknown_program(request, self._programs),
            *unmatched,
            *self.excluding.warnings(request, slots),
            *advice.warnings(request, self._fleet.snapshot(), slots, now),
        )
        if found:
            log.warning("an event was accepted with warnings", extra={"event": request.id, "warnings": found})
        return found

    async def _recall(self, request: EventRequest) -> None:
        """Remember what the store alone knows of the events that have the request's id: revisions go on from there."""
        if not self._book.knows(request):
            self._remember(await self._journal.known(own_id(request.id)))
        if request.program in self.rules.programs and not request.cancelled:
            await self.rules.recall(self._clock.now())

    def _remember(self, found: Iterable[StoredEvent]) -> None:
        for stored in found:
            self._book.recall(stored.request, stored.decided_ms, stored.state, held_by=stored.held_by)

    async def cancel(self, event_id: str, *, by: str = "operator") -> Answer | None:
        """Cancel an event here until an operator lifts that, whatever its source says meanwhile; None if there is no
        such event. `event_id`: its id within the gateway. Raises StorageError; then nothing has changed."""
        async with self._submitting:
            entry = await self._stored(event_id)
            if entry is None:
                return None
            name = entry.request.id
            if entry.held_by is None:
                await self._journal.commit([EventWithdrawn(event=name, by=by, door=AuditDoor.REST)])
                await self._stored(name)
                self._book.withdraw(name, held_by=by)
                log.warning("event cancelled by an operator", extra={"event": event_id, "by": by})
            outcome = Outcome.ACCEPTED if entry.held_by is None else Outcome.DUPLICATE
            self.outcomes[outcome.value] += 1
            return Answer(id=name, revision=entry.request.revision, outcome=outcome)

    async def lift_cancel(self, event_id: str, *, by: str = "operator") -> bool:
        """Let the source of an event that an operator cancelled revise it again; returns whether one had. The event
        stays cancelled until its source sends a higher revision."""
        async with self._submitting:
            entry = await self._stored(event_id)
            if entry is None or entry.held_by is None:
                return False
            await self._journal.commit([WithdrawalLifted(event=entry.request.id, by=by, door=AuditDoor.REST)])
            self._book.lift(entry.request.id)
            log.warning("an operator's cancellation was lifted", extra={"event": event_id, "by": by})
            return True

    async def _stored(self, event_id: str) -> BookEntry | None:
        """An accepted event, remembered again where only the store had it."""
        entry = self._book.entry(event_id, self._clock.now())
        if entry is None:
            self._remember(await self._journal.known(event_id))
            entry = self._book.entry(event_id, self._clock.now())
        return None if entry is None or entry.state is EventState.REJECTED else entry

    async def stop_all(self, *, active: bool, by: str) -> bool:
        """Release everything, ramped, and refuse events until cleared; returns whether that is durable. Running events
        are cancelled for good. What is not durable yet is owed. Raises StorageError where a clearing is not durable:
        then dispatch stays stopped."""
        now = self._clock.now()
        first = active and not self._book.stopped
        if active:
            # Stopping does not wait for the disk; only the answer that it is durable does.
            self._stop_requests += 1
            self._book.stop(active=True)
        if first:
            self._doomed = self._wanting(now)
            log.warning("dispatch stopped", extra={"by": by})
        requested = self._stop_requests
        async with self._submitting:
            if first:
                # An event whose commit was under way runs by now.
                self._doomed |= self._wanting(now)
            doomed = [entry for name in sorted(self._doomed) if (entry := self._book.entry(name, now)) is not None]
            ended = [
                EventMoved(event=entry.request.id, revision=entry.request.revision, state=EventState.CANCELLED)
                for entry in doomed
            ]
            changes: list[Change] = [StopAll(active=active, by=by, door=AuditDoor.REST), *ended]
            durable = True
            if active:
                durable = await self.pending.keep(changes)
            else:
                await self.pending.commit(changes)
            # A stop requested while an earlier one is being cleared wins, whichever became durable first.
            cleared = not active and self._stop_requests == requested
            self._book.stop(active=not cleared)
            for entry in doomed:
                self._book.withdraw(entry.request.id, held_by=None)
            self._doomed = set()
        if cleared:
            log.warning("dispatch allowed again", extra={"by": by})
        return durable

    def _wanting(self, now: Now) -> set[EventId]:
        return {event.request.id for event in self._book.wanting(now)}

    @property
    def stopped(self) -> bool:
        return self._book.stopped

    async def exclude(self, exclusion: Exclusion) -> bool:
        """Exclude devices from dispatch, at once; the same id replaces. Returns whether that is durable yet. Raises
        InvalidInput."""
        return await self.excluding.exclude(exclusion)

    def missed(self, exclusion: Exclusion) -> tuple[str, ...]:
        """What whoever set an exclusion should know: which of the devices, tags and events, or of what it names of an
        area, are not there."""
        found = self.excluding.missed(exclusion)
        if exclusion.event is None or self.find(exclusion.event):
            return found
        return (*found, f"no event has the id {exclusion.event} now")

    async def lift(self, exclusion_id: str, *, by: str = "operator") -> bool:
        """End an exclusion once that is durable; returns whether there was one. Raises StorageError."""
        return await self.excluding.lift(exclusion_id, by=by)

    @property
    def clock_trust(self) -> ClockTrust:
        """Whether events may begin and end by the clock; set in every tick."""
        return self._book.clock

    @clock_trust.setter
    def clock_trust(self, trust: ClockTrust) -> None:
        self._book.clock = trust

    @property
    def exclusions(self) -> Exclusions:
        return self.excluding.exclusions

    # -- for the tick ----------------------------------------------------------------------------------------

    def observe(self, now: Now) -> None:
        """Note the time, before a tick asks anything: exclusions go on where the clock was set back."""
        self.excluding.observe(now)

    def advance(self, now: Now, without: Iterable[int]) -> tuple[list[Transition], list[Change]]:
        """Move events on; returns the edges, and what to journal of them and of exclusions that have ended."""
        edges = self._book.advance(now, without)
        changes: list[Change] = []
        for edge in edges:
            request = edge.entry.request
            changes.append(EventMoved(event=request.id, revision=request.revision, state=edge.entry.state))
            log.info(
                "event changed state",
                extra={"event": request.id, "from": edge.before.value, "to": edge.entry.state.value},
            )
        forgotten = self._book.forgotten()
        if forgotten:
            changes.append(EventsArchived(events=tuple(forgotten)))
        changes += self.excluding.ended(sure=self._book.clock is ClockTrust.SURE, now=now)
        return edges, [*changes, *self.taken_back.forget(now)]

    def active(self, now: Now, *, ahead: bool = False) -> list[ActiveEvent]:
        """The events that have a target at `now` and that their programs' rules let run. `ahead`: that is later."""
        found = self.rules.running(self._book.active(now), self.entries, now, ahead=ahead)
        return [replace(one, each_w=self._reached.each_w(one)) if one.target.each_w else one for one in found]

    def claims(self, events: Sequence[ActiveEvent], now: Now, own: Mapping[int, Slots]) -> Claims:
        """Which event gets which device now. `own`: the devices of events that are not in the book, by index."""
        index_of: dict[EventId, int] = {event.request.id: event.index for event in events}
        without = _joined(self._without(index_of, now), self.left_out(events, now))
        for event in events:
            near = self.rules.locked_out(event.request, self._fleet, self.exclusions, now)
            if near is not None:
                without[event.index] = np.union1d(without.get(event.index, near), near).astype(np.int32)
        groups = [
            own[event.index] if event.index in own else self.members(event.index, event.request) for event in events
        ]
        return claim(events, groups, self._fleet.n, without)

    def by_index(self) -> dict[int, BookEntry]:
        """Every event by its index, as it stood at the last `advance`."""
        return self._book.by_index()

    def opted_out(self, events: Sequence[ActiveEvent], now: Now) -> dict[int, Slots]:
        """Slots whose owners opted out of each event, or took them back from it, by the event's index."""
        return self._without({event.request.id: event.index for event in events}, now)

    def left_out(self, events: Sequence[ActiveEvent], now: Now) -> Mapping[int, Slots]:
        """Slots that take no part in the program of each event, by the event's index."""
        return self._participation.without(events, self.members, now)

    def _without(self, index_of: Mapping[EventId, int], now: Now) -> dict[int, Slots]:
        found = self.exclusions.without(self._fleet, index_of, now)
        return _joined(found, self.taken_back.apart(index_of))

    def members(self, index: int, request: EventRequest) -> Slots:
        """Slots that an event addresses."""
        return self._reached.members(index, request)

    def devices(self, entry: BookEntry) -> int:
        """How many registered devices an event addresses."""
        return self._reached.devices(entry)

    def forget(self, running: Iterable[int]) -> None:
        """Keep the cached members of these events only."""
        self._reached.forget(running)

    # -- queries ---------------------------------------------------------------------------------------------

    def open_ended(self) -> Sequence[BookEntry]:
        """Running events that go on until further notice, the longest first."""
        return [entry for entry in reversed(self.entries()) if entry.state in RUNS and entry.request.endless]

    def samples(self) -> Iterable[Sample]:
        return (*self.rules.samples(), *self._sources.samples())

    def warnings(self) -> list[str]:
        """Events that go on until further notice and may be forgotten, and what rules cannot count."""
        return [*self.rules.warnings(), *advice.forgotten(self.open_ended(), self._clock.now())]

    def entry(self, event_id: str) -> BookEntry | None:
        return self._book.entry(event_id, self._clock.now())

    def find(self, event_id: str) -> Sequence[BookEntry]:
        """The events of every source that have this id."""
        return self._book.find(event_id, self._clock.now())

    def entries(self) -> Sequence[BookEntry]:
        return self._book.entries(self._clock.now())


def _joined(some: Mapping[int, Slots], more: Mapping[int, Slots]) -> dict[int, Slots]:
    """The slots of both, by event."""
    found = dict(some)
    for index, slots in more.items():
        found[index] = np.union1d(found[index], slots).astype(np.int32) if index in found else slots
    return found

"""Events and holds: the one place where they are taken in. Durable first, then in force, then answered."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gateway.clock import Clock
from gateway.domain.errors import InvalidInput
from gateway.domain.events.arbitration import Claims, claim
from gateway.domain.events.book import Answer, Book, BookParams, Outcome, members
from gateway.domain.events.exclusions import EXCLUSIONS_MAX, Exclusion, Exclusions
from gateway.domain.events.lifecycle import ActiveEvent, BookEntry, EventState, Transition
from gateway.domain.events.request import EventRequest
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.types import EventId, Now, Slots
from gateway.ports.journal import (
    Change,
    EventDecided,
    EventMoved,
    ExclusionLifted,
    ExclusionSet,
    Journal,
    JournalState,
    StopAll,
)
from gateway.services.settings import ControlSettings

log = logging.getLogger(__name__)


class Dispatcher:
    """The one submitter of events."""

    def __init__(self, settings: ControlSettings, *, fleet: Fleet, journal: Journal, clock: Clock) -> None:
        self._fleet = fleet
        self._journal = journal
        self._clock = clock
        self._book = Book(
            BookParams(
                ceiling_w=settings.ceiling_mw * 1e6,
                program_w={name: program.ceiling_mw * 1e6 for name, program in settings.programs.items()},
            )
        )
        self._holds = Exclusions()
        self._submitting = asyncio.Lock()
        self._doomed: set[EventId] = set()
        self._stops_asked = 0
        self._members: dict[int, tuple[EventRequest, int, Slots]] = {}
        self.outcomes: dict[str, int] = dict.fromkeys((outcome.value for outcome in Outcome), 0)

    def load(self, remembered: JournalState) -> None:
        """Take over what was decided in earlier runs."""
        self._book.load(
            ((decided.request, decided.answer) for decided in remembered.events),
            stopped=remembered.stopped,
            states=remembered.states,
        )
        self._holds = Exclusions(remembered.exclusions)

    # -- taking in -------------------------------------------------------------------------------------------

    async def submit(self, request: EventRequest) -> Answer:
        """Anchor, decide, make durable, apply, answer. Raises StorageError; then nothing has changed."""
        async with self._submitting:
            now = self._clock.now()
            request = self._book.anchor(request, now)
            answer = self._book.decide(request, now)
            if answer.outcome is Outcome.ACCEPTED:
                await self._journal.commit([EventDecided(request=request, answer=answer)])
            self._book.apply(request, answer)
            self.outcomes[answer.outcome.value] += 1
            log.info(
                "event decided",
                extra={"event": request.id, "revision": request.revision, "outcome": answer.outcome.value,
                       "reason": answer.reason, "source": request.source, "want": request.target.want.value,
                       "target_w": request.target.power_w, "cancelled": request.cancelled},
            )  # fmt: skip
            return answer

    async def cancel(self, event_id: str) -> Answer | None:
        """Cancel by the next revision; None if there is no such event."""
        entry = self._book.entry(event_id, self._clock.now())
        if entry is None or entry.state is EventState.REJECTED:
            return None
        return await self.submit(_cancelled(entry))

    async def stop_all(self, *, active: bool, by: str) -> None:
        """Release everything, ramped, and refuse events until cleared. What was running is cancelled for good, in the
        same commit. Raises StorageError: then it is stopped all the same, and has to be asked for again."""
        now = self._clock.now()
        first = active and not self._book.stopped
        if active:
            # Stopping does not wait for a disk; only what is told to be durable does.
            self._stops_asked += 1
            self._book.stop(active=True)
        if first:
            self._doomed = self._wanting(now)
            log.warning("dispatch stopped", extra={"by": by})
        asked = self._stops_asked
        async with self._submitting:
            if first:
                # An event that was being made durable meanwhile runs by now.
                self._doomed |= self._wanting(now)
            requests = [_cancelled(entry) for name in sorted(self._doomed) if (entry := self._book.entry(name, now))]
            decided = [EventDecided(request=request, answer=self._book.decide(request, now)) for request in requests]
            await self._journal.commit([StopAll(active=active, by=by), *decided])
            # Who asks to stop while it is being cleared wants it stopped, whatever became durable first.
            cleared = not active and self._stops_asked == asked
            self._book.stop(active=not cleared)
            for decision in decided:
                self._book.apply(decision.request, decision.answer)
            self._doomed = set()
        if cleared:
            log.warning("dispatch allowed again", extra={"by": by})

    def _wanting(self, now: Now) -> set[EventId]:
        return {event.request.id for event in self._book.wanting(now)}

    @property
    def stopped(self) -> bool:
        return self._book.stopped

    async def hold(self, hold: Exclusion) -> None:
        """Keep devices out of dispatch; the same id again replaces. Raises InvalidInput and StorageError."""
        if len(self._holds) >= EXCLUSIONS_MAX and self._holds.get(hold.id) is None:
            raise InvalidInput([f"there are {EXCLUSIONS_MAX} holds already"])
        await self._journal.commit([ExclusionSet(exclusion=hold)])
        self._holds.set(hold)
        log.info("a hold was set", extra={"hold": hold.id, "reason": hold.reason, "by": hold.by, "event": hold.event})

    async def lift(self, hold_id: str) -> bool:
        """End a hold; whether there was one."""
        if self._holds.get(hold_id) is None:
            return False
        await self._journal.commit([ExclusionLifted(id=hold_id)])
        self._holds.lift(hold_id)
        log.info("a hold was lifted", extra={"hold": hold_id})
        return True

    @property
    def holds(self) -> Exclusions:
        return self._holds

    # -- for the tick ----------------------------------------------------------------------------------------

    def advance(self, now: Now, without: Iterable[int]) -> tuple[list[Transition], list[Change]]:
        """Move events on; the edges, and what the journal should remember of them and of holds that have ended."""
        edges = self._book.advance(now, without)
        changes: list[Change] = []
        for edge in edges:
            request = edge.entry.request
            changes.append(EventMoved(event=request.id, revision=request.revision, state=edge.entry.state))
            log.info(
                "event changed state",
                extra={"event": request.id, "from": edge.before.value, "to": edge.entry.state.value},
            )
        for hold_id in self._holds.over(now):
            self._holds.lift(hold_id)
            changes.append(ExclusionLifted(id=hold_id))
        return edges, changes

    def active(self, now: Now) -> list[ActiveEvent]:
        return self._book.active(now)

    def claims(self, events: Sequence[ActiveEvent], now: Now, own: Mapping[int, Slots]) -> Claims:
        """Who gets which device now. `own`: the devices of events that are not in the book, by index."""
        index_of: dict[EventId, int] = {event.request.id: event.index for event in events}
        without = self._holds.without(self._fleet, index_of, now)
        groups = [
            own[event.index] if event.index in own else self.members(event.index, event.request) for event in events
        ]
        return claim(events, groups, self._fleet.n, without)

    def by_index(self) -> dict[int, BookEntry]:
        """Every event by its index, as it stood at the last `advance`."""
        return self._book.by_index()

    def opted_out(self, event: ActiveEvent, now: Now) -> Slots | None:
        """Slots whose owners want no part in this event."""
        return self._holds.without(self._fleet, {event.request.id: event.index}, now).get(event.index)

    def members(self, index: int, request: EventRequest) -> Slots:
        """Slots an event addresses; looked up anew when the event or the fleet has changed."""
        known = self._members.get(index)
        if known is None or known[0] is not request or known[1] != self._fleet.version:
            known = self._members[index] = (request, self._fleet.version, members(self._fleet, request.group))
        return known[2]

    def forget(self, running: Iterable[int]) -> None:
        """Keep looked-up members of these events only."""
        keep = frozenset(running)
        for index in [index for index in self._members if index not in keep]:
            del self._members[index]

    # -- watching --------------------------------------------------------------------------------------------

    def entry(self, event_id: str) -> BookEntry | None:
        return self._book.entry(event_id, self._clock.now())

    def entries(self) -> Sequence[BookEntry]:
        return self._book.entries(self._clock.now())


def _cancelled(entry: BookEntry) -> EventRequest:
    """The revision that cancels an event."""
    return replace(entry.request, revision=entry.request.revision + 1, cancelled=True, source="rest")

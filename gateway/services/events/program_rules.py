"""Holds the rules of grid programs against events: when they are decided, and again while they run.

A program without rules here is asked nothing. What a program has dispatched before is read from the store once, and
noted from then on.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from gateway.domain.errors import CorruptState
from gateway.domain.events.book import members
from gateway.domain.events.calendar import DAY_MS
from gateway.domain.events.exclusions import EVER_MS, Exclusions
from gateway.domain.events.lifecycle import ActiveEvent, BookEntry, EventState
from gateway.domain.events.program_rules import judge, narrowed, used_spans, within
from gateway.domain.events.request import EventRequest
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.rules.calendar import Span, united
from gateway.domain.rules.permission import Permission, held_from_ms, permission_now
from gateway.domain.rules.program import GridProgram, ProgramVersion
from gateway.domain.rules.values import Asker, Effect
from gateway.domain.types import EventId, Now, Slots
from gateway.observability.metrics import Sample, counter, word, words
from gateway.ports.journal import EventStore
from gateway.services.settings import ProgramSettings

log = logging.getLogger(__name__)

Entries = Callable[[], Iterable[BookEntry]]
"""Asks the book what it has; only where that is needed."""

PAST_MS = 400 * DAY_MS
"""What a program dispatched longer ago counts in no season any more."""

AHEAD_MS = 400 * DAY_MS
PAGE = 200
USED_MS = 60_000
PERMISSIONS_MAX = 1_000

BROKEN = counter(
    "gateway_program_rules_broken",
    "Rules of programs that events broke when they were decided, by what that did.",
    program="the programs in programs_dir", effect=words(Effect),
)  # fmt: skip
HELD = counter(
    "gateway_program_rules_held",
    "Events that stopped in mid-run, or did not begin, because a rule of their program held them.",
    program="the programs in programs_dir",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SaidNow:
    """What the rules of a program say at `utc_ms` of its events from one asker; `until_ms`: when they end them."""

    utc_ms: int
    permission: Permission
    version: ProgramVersion | None
    until_ms: int | None


class ProgramRules:
    """`programs` by name; `settings` of those that the configuration names; `store` has the events that are over."""

    def __init__(
        self,
        programs: Mapping[str, GridProgram] = MappingProxyType({}),
        *,
        settings: Mapping[str, ProgramSettings] = MappingProxyType({}),
        store: EventStore | None = None,
    ) -> None:
        self.programs = programs
        self._settings = settings
        self._store = store
        self._past: dict[str, dict[EventId, list[Span]]] | None = None if store is not None and programs else {}
        self._damaged = ""
        self._prune_ms = 0
        self._permissions: dict[EventId, tuple[int, Permission]] = {}
        self._narrowed: dict[int, tuple[EventRequest, ProgramVersion, EventRequest]] = {}
        self._used: dict[str, tuple[int, Sequence[Span]]] = {}
        self._said: dict[tuple[str, Asker], _SaidNow] = {}
        self._held: dict[EventId, Permission] = {}
        self._broken: Counter[tuple[str, Effect]] = Counter()
        self._held_count: Counter[str] = Counter()

    def asker(self, request: EventRequest) -> Asker:
        """Whether an event comes from its program's own dispatcher."""
        settings = self._settings.get(request.program, ProgramSettings())
        return Asker.PROGRAM if request.source in settings.dispatchers else Asker.LOCAL

    def strict(self, request: EventRequest) -> bool:
        """Whether verified rules of the calendar bind the program's dispatcher too."""
        return self._settings.get(request.program, ProgramSettings()).refuse_outside_rules

    # -- when an event is decided --------------------------------------------------------------------------------

    async def recall(self, now: Now) -> None:
        """Read once what the programs dispatched before; where that is damaged, their counts begin now. Raises
        StorageError."""
        if self._past is not None or self._store is None:
            return
        try:
            past = await self._read(self._store, now)
        except CorruptState as error:
            log.error("what programs dispatched before is damaged; counts begin now", extra={"error": str(error)})
            past, self._damaged = {}, str(error)
        if self._past is None:
            # another question may have been faster, and something was noted since
            self._past = past

    async def _read(self, store: EventStore, now: Now) -> dict[str, dict[EventId, list[Span]]]:
        found: dict[str, dict[EventId, list[Span]]] = {}
        after: tuple[int, str] | None = None
        more = True
        while more:
            page, more = await store.events(after, PAGE)
            for stored in page:
                request = stored.request
                if request.program in self.programs:
                    entry = BookEntry(index=-1, request=request, state=stored.state, decided_ms=stored.decided_ms)
                    found.setdefault(request.program, {})[request.id] = _spans(entry, now)
            if not page or page[-1].request.start_ms < now.utc_ms - PAST_MS:
                break
            after = page[-1].request.start_ms, page[-1].request.id
        return found

    def decide(
        self, request: EventRequest, known: BookEntry | None, entries: Entries, storms: Sequence[Span], now: Now
    ) -> Permission | None:
        """What the rules say of an event that the book would accept; None = its program has no rules here. `known`: the
        revision before; `entries`: what the book has. Notice is that of the revision that gave the event its start."""
        program = self.programs.get(request.program)
        if program is None or request.cancelled:
            return None
        accepted = known is not None and known.state is not EventState.REJECTED
        same_start = accepted and known is not None and known.request.start_ms == request.start_ms
        found = judge(
            program, request, asker=self.asker(request),
            others=united(_but(request.id, self.used(request.program, entries(), now))), storms=storms,
            now_ms=now.utc_ms, told_ms=0 if same_start else now.utc_ms, strict=self.strict(request),
        )  # fmt: skip
        for breach in found.breaches:
            self._broken[request.program, breach.effect] += 1
        return found

    def note(self, request: EventRequest, found: Permission | None, now: Now) -> None:
        """Remember an event that was accepted, and what its program's rules said of it."""
        if request.program not in self.programs:
            return
        if found is not None:
            self._remember(request, found)
        self._used.pop(request.program, None)
        self._said.clear()
        if self._past is None:
            return
        state = EventState.CANCELLED if request.cancelled else EventState.SCHEDULED
        entry = BookEntry(index=-1, request=request, state=state, decided_ms=now.utc_ms)
        self._past.setdefault(request.program, {})[request.id] = _spans(entry, now)
        if now.utc_ms >= self._prune_ms:
            self._prune_ms, oldest_ms = now.utc_ms + DAY_MS, now.utc_ms - PAST_MS
            self._past = {
                program: {name: spans for name, spans in events.items() if spans and spans[-1][1] >= oldest_ms}
                for program, events in self._past.items()
            }

    def used(self, program: str, entries: Iterable[BookEntry], now: Now) -> Mapping[EventId, list[Span]]:
        """The time that the events of a program take and took: those of the book, which are noted as they are now, and
        those before."""
        here = {entry.request.id: _spans(entry, now) for entry in entries if entry.request.program == program}
        if self._past is None:
            return here
        noted = self._past.setdefault(program, {})
        noted.update(here)
        return noted

    def permission(self, entry: BookEntry, entries: Entries) -> Permission | None:
        """What the rules said of an accepted event when it was decided; worked out again where that is forgotten, from
        the events that began before it. None = its program has no rules here."""
        request = entry.request
        program = self.programs.get(request.program)
        if program is None or request.cancelled or entry.state is EventState.REJECTED:
            return None
        known = self._permissions.get(request.id)
        if known is not None and known[0] == request.revision:
            return known[1]
        decided = Now(utc_ms=entry.decided_ms, mono_ms=0)
        others = _but(request.id, self.used(request.program, entries(), decided))
        found = judge(
            program, request, asker=self.asker(request), others=[one for one in others if one[0] < request.start_ms],
            storms=(), now_ms=entry.decided_ms, told_ms=entry.decided_ms, strict=self.strict(request),
        )  # fmt: skip
        self._remember(request, found)
        return found

    def _remember(self, request: EventRequest, found: Permission) -> None:
        self._permissions.pop(request.id, None)
        self._permissions[request.id] = request.revision, found
        while len(self._permissions) > PERMISSIONS_MAX:
            del self._permissions[next(iter(self._permissions))]

    # -- while it runs -------------------------------------------------------------------------------------------

    def running(self, events: Sequence[ActiveEvent], entries: Entries, now: Now, *, ahead: bool) -> list[ActiveEvent]:
        """The events that may run at `now`, within what their programs permit. What is held is counted and logged when
        that begins, unless the question is of what lies `ahead`."""
        if not self.programs:
            return list(events)
        found: list[ActiveEvent] = []
        held: dict[EventId, Permission] = {}
        for event in events:
            program = self.programs.get(event.request.program)
            if program is None:
                found.append(event)
                continue
            said = self._now(program, event.request, entries, now, ahead=ahead)
            if said.permission.held and event.actuates and not event.preparing:
                held[event.request.id] = said.permission
            elif said.version is None:
                found.append(event)
            else:
                charge = said.version.grid_charge
                request = self._narrowed_request(event, said.version)
                found.append(within(event, request, said.until_ms, charges=charge is None or charge.value))
        if not ahead:
            self._note_held({event.request.id: event.request for event in events}, held)
        return found

    def storms(self, request: EventRequest, fleet: Fleet, exclusions: Exclusions) -> list[Span]:
        """When storms are expected for every device of an event, where its program locks out the time before them."""
        if self._lockout_ms(request, request.start_ms) is None:
            return []
        mine = members(fleet, request.group)
        return [
            (one.from_ms, EVER_MS if one.until_ms is None else one.until_ms)
            for one in exclusions.storms()
            if mine.size and np.isin(mine, exclusions.devices(fleet, one)).all()
        ]

    def locked_out(self, request: EventRequest, fleet: Fleet, exclusions: Exclusions, now: Now) -> Slots | None:
        """Devices that an event's program leaves alone because a storm is near; None = none."""
        lockout_ms = self._lockout_ms(request, now.utc_ms)
        near = () if lockout_ms is None else tuple(
            exclusions.devices(fleet, one)
            for one in exclusions.storms()
            if one.from_ms - lockout_ms <= now.utc_ms < one.from_ms
        )  # fmt: skip
        return np.unique(np.concatenate(near)).astype(np.int32) if near else None

    def _lockout_ms(self, request: EventRequest, utc_ms: int) -> int | None:
        program = self.programs.get(request.program)
        version = None if program is None else program.version_at(utc_ms)
        rule = None if version is None else version.storm_lockout_s
        return None if rule is None else round(rule.value * 1000)

    def _now(self, program: GridProgram, request: EventRequest, entries: Entries, now: Now, *, ahead: bool) -> _SaidNow:
        """What the rules say of the events of a program that run at `now`; the same for all from one asker."""
        key = program.id, self.asker(request)
        known = self._said.get(key)
        if known is None or known.utc_ms != now.utc_ms:
            used, strict = self._so_far(program.id, entries, now, ahead=ahead), self.strict(request)
            known = self._said[key] = _SaidNow(
                utc_ms=now.utc_ms,
                permission=permission_now(program, key[1], used, now.utc_ms, strict=strict),
                version=program.version_at(now.utc_ms),
                until_ms=held_from_ms(program, key[1], now.utc_ms, strict=strict),
            )
        return known

    def _so_far(self, program: str, entries: Entries, now: Now, *, ahead: bool) -> Sequence[Span]:
        """What the events of a program use, at most `USED_MS` old, or as last known for what lies `ahead`."""
        known = self._used.get(program)
        if known is None or not (ahead or 0 <= now.utc_ms - known[0] < USED_MS):
            spans = united(_but(None, self.used(program, entries(), now)))
            known = self._used[program] = now.utc_ms, spans
        return known[1]

    def _narrowed_request(self, event: ActiveEvent, version: ProgramVersion) -> EventRequest:
        """The same object for as long as the event and the version are the same: others compare by identity."""
        known = self._narrowed.get(event.index)
        if known is None or known[0] is not event.request or known[1] is not version:
            known = self._narrowed[event.index] = event.request, version, narrowed(event.request, version)
            while len(self._narrowed) > PERMISSIONS_MAX:
                del self._narrowed[next(iter(self._narrowed))]
        return known[2]

    def _note_held(self, requests: Mapping[EventId, EventRequest], held: Mapping[EventId, Permission]) -> None:
        for name, said in held.items():
            if name not in self._held:
                self._held_count[requests[name].program] += 1
                log.warning(
                    "an event does not run: a rule of its program holds it",
                    extra={"event": name, "program": requests[name].program, "rules": told(said)},
                )
        self._held = dict(held)

    def warnings(self) -> list[str]:
        """What is not counted."""
        why = self._damaged
        return [f"programs: events and hours are counted from this start on: {why}"] if why else []

    def samples(self) -> Iterable[Sample]:
        """Metrics, as of now."""
        for program in self.programs:
            for effect in Effect:
                yield BROKEN.sample(self._broken[program, effect], program=program, effect=word(effect))
            yield HELD.sample(self._held_count[program], program=program)


def told(found: Permission) -> list[str]:
    """Each rule that is broken, what that does and how well the rule is known, in words."""
    return [
        f"rule {one.rule} of {one.version} ({one.certainty.value}): {one.words}; effect: {one.effect.value}"
        for one in found.breaches
    ]


def _spans(entry: BookEntry, now: Now) -> list[Span]:
    """The time that an event takes, of that which may count."""
    return used_spans(entry, now.utc_ms - PAST_MS, now.utc_ms + AHEAD_MS)


def _but(event: EventId | None, used: Mapping[EventId, list[Span]]) -> list[Span]:
    return [span for name, spans in used.items() if name != event for span in spans]

"""Who is left out of events since their program's enrollment does not name them, or would be if it were enforced.

Under `enforce` nobody takes part without valid consent or against an owner's wish. Who is not active in our book does
not take part either, unless the program's own dispatcher names the device by its id: our book may be late, so it is
actuated, counted as a mismatch, and said, until the book says something newer than the event. Under `observe`
everybody takes part, and who would not is counted and listed. A program that nobody knows is observed too, and said;
there what is stated of somebody is kept: who sits out, and whose consent to it was withdrawn or has expired, is left
alone.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gateway.domain.events.lifecycle import ActiveEvent, BookEntry
from gateway.domain.events.request import EventRequest
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.programs.enrollment import TOUCHED_MAX, Codes, EnrollmentBook, LeftOut, Membership
from gateway.domain.programs.facts import EnrollmentStatus, SubjectKind
from gateway.domain.programs.timeline import NOTHING, Numbers
from gateway.domain.types import Bools, Now, Slots
from gateway.observability.metrics import Sample, gauge, words
from gateway.observability.parts import Part
from gateway.services.events.participation import MembersOf
from gateway.services.settings import ENFORCE, ProgramSettings

log = logging.getLogger(__name__)

PROGRAM = "programs of the configuration and programs_dir"
UNKNOWN_PROGRAM = "unknown"
KEPT = np.array([LeftOut.OPTED_OUT, LeftOut.CONSENT_WITHDRAWN, LeftOut.CONSENT_EXPIRED], dtype=np.uint8)
"""What is stated of somebody, and counts whatever the program is."""

WHY = [why for why in LeftOut if why is not LeftOut.NOT]
TOLD_MAX = 1_000
NAMES_MAX = 64
"""Events of which it is remembered whom they name."""

LEFT_OUT = gauge(
    "gateway_enrollment_left_out_devices",
    "Members of running events that enrollment leaves out (enforced) or would leave out (observed), by reason.",
    program=PROGRAM,
    enrollment=("observe", "enforce"),
    reason=words(WHY),
)
MISMATCHED = gauge(
    "gateway_enrollment_mismatch_devices",
    "Members of running events of enforced programs that the dispatcher names though their enrollment is not active.",
    program=PROGRAM,
)
UNKNOWN = gauge(
    "gateway_enrollment_unknown_devices",
    "Names in running events of enforced programs' dispatchers behind which there is no device.",
    program=PROGRAM,
)
UNKNOWN_PROGRAMS = gauge(
    "gateway_enrollment_unknown_program_events",
    "Running events whose program neither the configuration nor a file of programs_dir knows.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the devices stand in a program, by slot, while nothing changes: `LeftOut` codes, and who is mismatched."""

    book_version: int
    fleet_version: int
    membership: Membership
    left_out: Codes
    mismatched: Bools

    def holds(self, book: EnrollmentBook, fleet: Fleet, at_ms: int) -> bool:
        versions = (self.book_version, self.fleet_version) == (book.version, fleet.version)
        return versions and self.membership.from_ms <= at_ms < self.membership.until_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """What enrollment says of one event's members. `without`: who is left out, where that is enforced; `known`: whether
    anybody knows the program."""

    request: EventRequest
    known: bool
    standing: Standing
    without: Slots
    counts: Mapping[LeftOut, int]
    mismatched: int
    unknown: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """Whom an event names by id: the registered devices, ascending, and how many names have none."""

    request: EventRequest
    fleet_version: int
    slots: Slots
    unknown: int


@dataclass(slots=True)
class _Told:
    """What was logged of an event last."""

    mismatched: int = 0
    unknown: int = 0
    unknown_program: bool = False


@dataclass(slots=True)
class _Count:
    """Of a program's running events."""

    left_out: dict[LeftOut, int] = field(default_factory=lambda: dict.fromkeys(WHY, 0))
    mismatched: int = 0
    unknown: int = 0


class ProgramParticipation(Part):
    """Implements `gateway.services.events.participation.Participation`; others ask it too. `programs`: those that are
    known."""

    component = "programs"

    def __init__(self, book: EnrollmentBook, *, fleet: Fleet, programs: Mapping[str, ProgramSettings]) -> None:
        self._book = book
        self._fleet = fleet
        self._programs = programs
        self._standing: dict[str, Standing] = {}
        self._enrolled: dict[str, tuple[Standing, Slots]] = {}
        self._judged: dict[int, _Judged] = {}
        self._told: dict[str, _Told] = {}
        self._names: dict[str, _Named] = {}
        self._numbers: Numbers = np.zeros(0, dtype=np.int32)
        self._numbered = (-1, -1)

    def without(self, events: Sequence[ActiveEvent], members: MembersOf, now: Now) -> Mapping[int, Slots]:
        """Slots that each event must leave alone now, by its index."""
        judged: dict[int, _Judged] = {}
        for event in events:
            if event.index < 0:
                continue
            program = self._programs.get(event.request.program)
            standing = self.standing(event.request.program, now.utc_ms)
            known = self._judged.get(event.index)
            if known is None or known.request is not event.request or known.standing is not standing:
                known = self._judge(event, members(event.index, event.request), standing, program)
                self._log(event.request, known)
            judged[event.index] = known
        self._judged = judged
        return {index: one.without for index, one in judged.items() if len(one.without)}

    def enrolled(self, program: str, now: Now) -> Slots:
        """Slots that are enrolled in a program, whatever their status; the same array while nothing changes."""
        standing, registered = self.standing(program, now.utc_ms), self._fleet.nameplate.registered
        known = self._enrolled.get(program)
        if known is None or known[0] is not standing:
            slots = np.flatnonzero(standing.membership.status != EnrollmentStatus.NONE).astype(np.int32)
            known = self._enrolled[program] = standing, slots[registered[slots]]
        return known[1]

    def programs(self) -> Collection[str]:
        """The programs in which somebody may be enrolled: those of the configuration and of the book."""
        return {*self._programs, *self._book.programs()}

    def enrollment(self, program: str) -> str | None:
        """Whether a program's enrollment is observed or enforced; None: nobody knows the program."""
        settings = self._programs.get(program)
        return None if settings is None else settings.enrollment

    def standing(self, program: str, at_ms: int) -> Standing:
        """How every device stands in a program now."""
        known = self._standing.get(program)
        if known is not None and known.book_version != self._book.version:
            known = self._changed(program, known, at_ms)
        if known is None or not known.holds(self._book, self._fleet, at_ms):
            membership = self._book.membership(program, at_ms)
            of_slots = membership.take(self._by_slot())
            known = self._standing[program] = Standing(
                book_version=self._book.version, fleet_version=self._fleet.version, membership=of_slots,
                left_out=of_slots.left_out, mismatched=of_slots.mismatched,
            )  # fmt: skip
        return known

    def dispatched(self, program: str, entry: BookEntry | None, slots: Slots, at_ms: int) -> Bools:
        """Which of these devices would be dispatched for a program: by an event, or None: by one that names nobody."""
        settings = self._programs.get(program)
        if settings is not None and settings.enrollment != ENFORCE:
            return np.ones(len(slots), dtype=np.bool_)
        standing = self.standing(program, at_ms)
        if settings is None:
            return ~np.isin(standing.left_out[slots], KEPT)
        taken: Bools = standing.left_out[slots] == LeftOut.NOT
        if entry is not None:
            taken |= self._mismatched(entry.request, entry.decided_ms, slots, standing, settings)
        return taken

    @property
    def mismatched(self) -> int:
        """Homes that running events name and that are not active in our book."""
        return sum(one.mismatched for one in self._judged.values())

    def samples(self) -> Iterable[Sample]:
        counts = {name: _Count() for name in self._programs}
        unknown = 0
        for one in self._judged.values():
            if not one.known:
                unknown += 1
                continue
            count = counts[one.request.program]
            for why, number in one.counts.items():
                count.left_out[why] += number
            count.mismatched += one.mismatched
            count.unknown += one.unknown
        for name, count in counts.items():
            how = self._programs[name].enrollment
            yield from LEFT_OUT.each(count.left_out, program=name, enrollment=how)
            yield MISMATCHED.sample(count.mismatched, program=name)
            yield UNKNOWN.sample(count.unknown, program=name)
        yield UNKNOWN_PROGRAMS.sample(unknown)

    def warnings(self) -> list[str]:
        found = []
        for one in self._judged.values():
            event = f"event {one.request.id} of {one.request.program}"
            if not one.known:
                kept = f", {len(one.without)} homes are kept out" if len(one.without) else ""
                found.append(f"unknown program: {event}, which neither configuration nor programs_dir knows{kept}")
            if one.mismatched:
                found.append(f"enrollment mismatch: {event} names {one.mismatched} homes that are not active")
            if one.unknown:
                found.append(f"{event} names {one.unknown} devices that nobody knows")
        return found

    def _changed(self, program: str, known: Standing, at_ms: int) -> Standing | None:
        """What is known, with those worked out anew of whom the book says something else; None: everybody is."""
        of = known.membership
        if known.fleet_version != self._fleet.version or not of.from_ms <= at_ms < of.until_ms:
            return None
        changed = self._book.changed_since(known.book_version)
        if changed is None:
            return None
        found = self._book.membership(program, at_ms, changed)
        self._by_slot()
        slots = np.array(
            [self._fleet.slot_of.get(self._book.subject(number).id, NOTHING)
             if self._book.subject(number).kind is SubjectKind.DEVICE else NOTHING for number in changed.tolist()],
            dtype=np.int32,
        )  # fmt: skip
        here = slots >= 0
        membership = of.replaced(slots[here], found.take(np.flatnonzero(here).astype(np.int32)))
        left_out, mismatched = known.left_out.copy(), known.mismatched.copy()
        left_out[slots[here]], mismatched[slots[here]] = found.left_out[here], found.mismatched[here]
        self._standing[program] = Standing(
            book_version=self._book.version, fleet_version=known.fleet_version, membership=membership,
            left_out=left_out, mismatched=mismatched,
        )  # fmt: skip
        return self._standing[program]

    def _by_slot(self) -> Numbers:
        """The numbers of the devices, by slot."""
        subjects, version = now = (self._book.subjects, self._fleet.version)
        if now == self._numbered:
            return self._numbers
        before, of = self._numbered
        if of == version and subjects - before <= TOUCHED_MAX:
            for number in range(before, subjects):
                subject = self._book.subject(number)
                slot = self._fleet.slot_of.get(subject.id) if subject.kind is SubjectKind.DEVICE else None
                if slot is not None:
                    self._numbers[slot] = number
        else:
            self._numbers = self._book.numbers(self._fleet.ids[: self._fleet.n])
        self._numbered = now
        return self._numbers

    def _judge(self, event: ActiveEvent, slots: Slots, standing: Standing, program: ProgramSettings | None) -> _Judged:
        request, codes = event.request, standing.left_out[slots]
        if program is None:
            return _Judged(
                request=request, known=False, standing=standing, without=slots[np.isin(codes, KEPT)], counts={},
                mismatched=0, unknown=0,
            )  # fmt: skip
        mismatched = self._mismatched(request, event.decided_ms, slots, standing, program)
        left = (codes != LeftOut.NOT) & ~mismatched
        counts = np.bincount(codes[left], minlength=len(LeftOut))
        enforced = program.enrollment == ENFORCE
        return _Judged(
            request=request, known=True, standing=standing,
            without=slots[left] if enforced else np.zeros(0, dtype=np.int32),
            counts={why: int(counts[why]) for why in WHY if counts[why]},
            mismatched=int(mismatched.sum()) if enforced else 0,
            unknown=self._unknown(request, program) if enforced else 0,
        )  # fmt: skip

    def _mismatched(
        self, request: EventRequest, decided_ms: int, slots: Slots, standing: Standing, program: ProgramSettings
    ) -> Bools:
        """Who takes part although not active: named by the dispatcher after what our book says of them."""
        older = standing.membership.stated_ms[slots] < decided_ms
        return self._named(request, slots, program) & standing.mismatched[slots] & older

    def _named(self, request: EventRequest, slots: Slots, program: ProgramSettings) -> Bools:
        """Which of these devices the program's own dispatcher names, one by one."""
        if request.source not in program.dispatchers or not request.group.ids:
            return np.zeros(len(slots), dtype=np.bool_)
        found: Bools = np.isin(slots, self._names_of(request).slots)
        return found

    def _unknown(self, request: EventRequest, program: ProgramSettings) -> int:
        return self._names_of(request).unknown if request.source in program.dispatchers else 0

    def _names_of(self, request: EventRequest) -> _Named:
        """Looked up once for a request and a fleet: an event may name 100,000, and enrollments change meanwhile."""
        known = self._names.get(request.id)
        if known is None or known.request is not request or known.fleet_version != self._fleet.version:
            here = list(map(self._fleet.slot_of.get, request.group.ids))
            slots = np.unique(np.array([slot for slot in here if slot is not None], dtype=np.int32))
            known = self._names[request.id] = _Named(
                request=request, fleet_version=self._fleet.version, unknown=here.count(None),
                slots=slots[self._fleet.nameplate.registered[slots]],
            )  # fmt: skip
            while len(self._names) > NAMES_MAX:
                del self._names[next(iter(self._names))]
        return known

    def _log(self, request: EventRequest, judged: _Judged) -> None:
        told = self._told.setdefault(request.id, _Told())
        fields = {"event": request.id, "program": request.program}
        if not judged.known and not told.unknown_program:
            log.warning("an event names a program that nobody knows", extra=fields)
        if judged.mismatched > told.mismatched:
            log.warning("enrollment mismatch: named but not active", extra=fields | {"count": judged.mismatched})
        if judged.unknown > told.unknown:
            log.warning("an event names devices that nobody knows", extra=fields | {"count": judged.unknown})
        told.mismatched, told.unknown, told.unknown_program = judged.mismatched, judged.unknown, not judged.known
        while len(self._told) > TOLD_MAX:
            del self._told[next(iter(self._told))]

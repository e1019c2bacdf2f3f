"""Who will take part in a program's next event, who will not, and why."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.api.enrollment_models import DataDueState, NextEvent, ParticipationList, ParticipationState
from gateway.api.views.exclusions import EXCLUSIONS_NAMED
from gateway.clock import Clock
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.lifecycle import RUNS, BookEntry, EventState
from gateway.domain.events.request import Way
from gateway.domain.events.scope import own_id
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.limits.types import Envelope, reason_names
from gateway.domain.programs.due_data import DueData
from gateway.domain.programs.enrollment import ConsentState, LeftOut
from gateway.domain.programs.facts import EnrollmentStatus
from gateway.domain.types import Slots
from gateway.schemas.interval_rows import rfc3339
from gateway.services.events.intake import Dispatcher
from gateway.services.programs.participation import UNKNOWN_PROGRAM, ProgramParticipation

DATA_DUE_MAX = 12


def _nothing_due(_program: str) -> Sequence[DueData]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipationView:
    """`envelope`: what limits allowed in the newest tick, None before the first; `due_data`: what is missing for a
    program's data deadlines."""

    fleet: Fleet
    dispatcher: Dispatcher
    participation: ProgramParticipation
    envelope: Callable[[], Envelope | None]
    clock: Clock
    due_data: Callable[[str], Sequence[DueData]] = _nothing_due

    async def page(
        self, program: str, offset: int, limit: int
    ) -> tuple[ParticipationList, Iterator[ParticipationState]]:  # fmt: skip
        """A page of the members of the program's running or next event and of who is enrolled in it, in the order of
        slots, and counts of all of them."""
        now_ms = self.clock.now().utc_ms
        entry = self._next(program, now_ms)
        standing = self.participation.standing(program, now_ms)
        await asyncio.sleep(0)  # who is enrolled, and who is excluded, may each be worked out anew
        enrolled = np.flatnonzero(standing.membership.status != EnrollmentStatus.NONE).astype(np.int32)
        registered = self.fleet.nameplate.registered
        slots: Slots = enrolled[registered[enrolled]]
        if entry is not None:
            slots = np.union1d(slots, self.dispatcher.members(entry.index, entry.request)).astype(np.int32)
        codes = standing.left_out[slots]
        counts = np.bincount(codes, minlength=len(LeftOut))
        page = slots[offset : offset + limit]
        following = offset + len(page)
        head = ParticipationList(
            program=program,
            enrollment=self.participation.enrollment(program) or UNKNOWN_PROGRAM,
            event=None if entry is None else _event(entry),
            total=len(slots),
            left_out={why.name.lower(): int(counts[why]) for why in LeftOut if why is not LeftOut.NOT and counts[why]},
            excluded=self._excluded(entry, slots, now_ms),
            data_due=[_data_due(one) for one in self.due_data(program)[:DATA_DUE_MAX]],
            devices=[],
            next=following if following < len(slots) and len(page) else None,
        )
        return head, self._rows(program, entry, page, now_ms)

    def named(self, program: str) -> bool:
        """Whether an event names the program that runs or is to come."""
        return self._next(program, self.clock.now().utc_ms) is not None

    def _rows(
        self, program: str, entry: BookEntry | None, slots: Slots, now_ms: int
    ) -> Iterator[ParticipationState]:  # fmt: skip
        standing = self.participation.standing(program, now_ms)
        excluded_by = self._excluded_by(entry, slots, now_ms)
        dispatched = self.participation.dispatched(program, entry, slots, now_ms)
        envelope = self.envelope()
        into = _into(entry)
        for slot, taken in zip(slots.tolist(), dispatched.tolist(), strict=True):
            limits: list[str] = []
            able = True
            if envelope is not None and slot < len(envelope.discharge_w):
                most_w = envelope.charge_w[slot] if into else envelope.discharge_w[slot]
                bits = envelope.reasons_charge[slot] if into else envelope.reasons_discharge[slot]
                able = abs(float(most_w)) >= 1
                limits = [] if able else list(reason_names(int(bits)))
            why = LeftOut(int(standing.left_out[slot]))
            out = excluded_by.get(slot, [])
            yield ParticipationState(
                device=self.fleet.ids[slot],
                takes_part=taken and able and not (out if not into else [one for one in out if one.leaves_alone]),
                excluded_by=[one.id for one in out[:EXCLUSIONS_NAMED]],
                left_out=None if why is LeftOut.NOT else why.name.lower(),
                limits=limits,
                status=EnrollmentStatus(int(standing.membership.status[slot])).name.lower(),
                consent=ConsentState(int(standing.membership.consent[slot])).name.lower(),
            )

    def _excluding(self, entry: BookEntry | None, now_ms: int) -> list[Exclusion]:
        """The exclusions of territories that hold within the event's time, or now."""
        begin_ms, end_ms = now_ms, now_ms + 1
        if entry is not None:
            begin_ms = max(now_ms, entry.request.next_ms(now_ms) or now_ms) if entry.state not in RUNS else now_ms
            end_ms = max(begin_ms + 1, min(entry.request.end_ms, begin_ms + entry.request.length_ms))
        return self.dispatcher.exclusions.within(begin_ms, end_ms)

    def _excluded(self, entry: BookEntry | None, slots: Slots, now_ms: int) -> int:
        """How many of these devices do not take part since their territory is excluded."""
        some = [one for one in self._excluding(entry, now_ms) if one.leaves_alone or not _into(entry)]
        if not some:
            return 0
        out, _ = self.dispatcher.exclusions.among(self.fleet, some, slots)
        return int(np.count_nonzero(out))

    def _excluded_by(self, entry: BookEntry | None, slots: Slots, now_ms: int) -> dict[int, list[Exclusion]]:
        """The exclusions of territories, by the slots that they cover."""
        found: dict[int, list[Exclusion]] = {}
        for exclusion in self._excluding(entry, now_ms):
            for slot in slots[self.dispatcher.exclusions.covers(self.fleet, exclusion, slots)].tolist():
                found.setdefault(slot, []).append(exclusion)
        return found

    def _next(self, program: str, now_ms: int) -> BookEntry | None:
        """The event of the program that runs, or the one that begins next."""
        found = [
            (now_ms if entry.state in RUNS else entry.request.next_ms(now_ms) or now_ms, entry.request.id, entry)
            for entry in self.dispatcher.entries()
            if entry.request.program == program and (entry.state in RUNS or entry.state is EventState.SCHEDULED)
        ]
        return min(found)[2] if found else None


def _data_due(one: DueData) -> DataDueState:
    return DataDueState(
        delivery_period=one.period, at=rfc3339(one.due_ms), owed=one.owed, missing=one.missing, sites=one.sites,
        some=list(one.some), since=None if one.since_ms is None else rfc3339(one.since_ms), waiting_days=one.waiting,
    )  # fmt: skip


def _into(entry: BookEntry | None) -> bool:
    """Whether an event charges."""
    return entry is not None and entry.request.target.way is Way.INTO


def _event(entry: BookEntry) -> NextEvent:
    return NextEvent(
        id=own_id(entry.request.id), source=entry.request.source, state=entry.state.value,
        start=rfc3339(entry.request.start_ms),
    )  # fmt: skip

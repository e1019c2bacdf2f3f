"""What REST and the platform see of dispatch: events, delivery records, quarantine, availability."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from gateway import former_names
from gateway.api.models import EventList, Quarantine, QuarantineEntry
from gateway.api.views.exclusions import ExclusionView
from gateway.clock import Clock
from gateway.domain.commands import CommandResult
from gateway.domain.control.allocation import Shortfall
from gateway.domain.control.availability import HOURS
from gateway.domain.errors import InvalidInput
from gateway.domain.events.book import Refusal
from gateway.domain.events.delivery_records import Failure
from gateway.domain.events.lifecycle import RUNS, BookEntry, EventState, place
from gateway.domain.events.preparation import Keeping, keeping, stated
from gateway.domain.events.scope import own_id
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.stored import StoredEvent
from gateway.domain.limits.types import Reason, reason_names
from gateway.ports.journal import EventStore
from gateway.schemas.event import OPEN
from gateway.schemas.interval_rows import rfc3339
from gateway.schemas.reports import (
    AvailabilityBody,
    AvailabilityReport,
    BrokenRule,
    DeliveryBody,
    DeliveryReport,
    EventReport,
    EventStatus,
    OccurrenceBody,
    PreparationBody,
    PreparationRule,
    ReboundBody,
    Times,
)
from gateway.services.control.quarantine import Untrusted
from gateway.services.control.queries import ControlQueries
from gateway.services.events.delivery_records import Row, StatusReport, bodies
from gateway.services.events.intake import Dispatcher
from gateway.services.events.reports import PART

CauseOf = Callable[[str], str | None]
OCCURRENCES = 100
"""Occurrences that are named with an event; older ones are asked for by their start."""

DIGITS = 18
LIMITING = frozenset(reason_names(Reason.STORM | Reason.EXCLUDED | Reason.RAISED_RESERVE))


class DispatchView:
    """Reads from the services; decides nothing. `cause_of`: what is known of a device that would explain a failure;
    `misidentified`: devices that are not what they are registered as. `excluded` shows the exclusions."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        dispatcher: Dispatcher,
        queries: ControlQueries,
        store: EventStore,
        clock: Clock,
        cause_of: CauseOf = lambda _: None,
        misidentified: Callable[[], Iterable[Untrusted]] = tuple,
    ) -> None:
        self.excluded = ExclusionView(fleet=fleet, dispatcher=dispatcher, queries=queries, clock=clock)
        self._dispatcher = dispatcher
        self._queries = queries
        self._store = store
        self._clock = clock
        self._cause_of = cause_of
        self._misidentified = misidentified

    async def page(self, after: str | None, limit: int) -> EventList:
        """Events of a page, newest start first: what is live or has ended lately, and what the store has. `after`: the
        `next` of the page before. Raises InvalidInput and StorageError."""
        last = None if after is None else _place(after)
        # before the store is asked: an event that is archived meanwhile is in both, and not in neither
        remembered = self._dispatcher.entries()
        stored, more = await self._store.events(last, limit)
        here = [entry for entry in remembered if last is None or place(entry) > (-last[0], last[1])]
        known = {entry.request.id for entry in remembered}
        entries = sorted([*here, *(_past(one) for one in stored if one.request.id not in known)], key=place)
        if more:
            # the store has more: what stands behind its last one belongs to the next page
            end = place(_past(stored[-1]))
            entries = [entry for entry in entries if place(entry) <= end]
        rows = entries[:limit]
        found = EventList(events=[], stopped=self._dispatcher.stopped, next=None)
        for entry in rows:
            found.events.append(self._status(entry))
            await asyncio.sleep(0)
        if more or len(entries) > limit:
            start_ms, name = place(rows[-1]) if rows else place(_past(stored[-1]))
            found.next = f"{-start_ms}:{name}"
        return found

    async def find(self, event_id: str, source: str | None) -> list[BookEntry]:
        """The events that have this id, of every source unless one is named. Raises StorageError."""
        found = list(self._dispatcher.find(event_id))
        past = await self._store.known(event_id)
        known = {entry.request.id for entry in found}
        found += [_past(one) for one in past if one.request.id not in known]
        return [entry for entry in found if source in (None, entry.request.source)]

    async def one(
        self, entry: BookEntry, *, occurrence: str | None = None, before: str | None = None, offset: int, limit: int
    ) -> EventStatus:
        """An event with a page of delivery records: of `occurrence` (its start, as it is shown), else of now, else of
        the newest that is over; and with its newest occurrences that are over, or those `before` one. Raises
        StorageError."""
        event_id = entry.request.id
        status = self._status(entry)
        past = await self._store.occurrences(event_id, _ms(before), OCCURRENCES)
        status.occurrences = [
            OccurrenceBody(start=rfc3339(p.occurrence_ms), ended=rfc3339(p.ended_ms), devices=p.devices) for p in past
        ]
        status.occurrences_before = status.occurrences[0].start if len(past) == OCCURRENCES else None
        page = slice(offset, offset + limit)
        total, rows = 0, list[Row]()
        if occurrence is None and entry.index >= 0:
            slots = self._dispatcher.members(entry.index, entry.request)
            total, rows = self._queries.records.page(entry, slots, page)
        causes = [cause_of_row(row, self._cause_of) for row in rows]
        which, now = _ms(occurrence), entry.state in RUNS
        if not total and (occurrence is None or which is not None):
            stored = self._queries.on_its_way(event_id, which, page)
            if stored is None:
                stored = await self._store.records(event_id, which, page)
            total, rows = stored.total, bodies(event_id, stored.devices, stored.columns)
            # what is known now explains nothing of what was then
            causes, now = [None] * len(rows), False
        excluded_by = self.excluded.of(_limited(rows)) if now else {}
        status.members = [
            _delivery(row, cause, excluded_by.get(row["device"], [])) for row, cause in zip(rows, causes, strict=True)
        ]
        status.next = page.stop if page.stop < total else None
        return status

    def _status(self, entry: BookEntry) -> EventStatus:
        request = entry.request
        progress = self._queries.progress(entry) if entry.state in RUNS else None
        credit = self._queries.credit(entry) if progress else None
        now = request.running(self._clock.now().utc_ms)
        target = now.target if now is not None else request.target
        rebound = self._queries.maintenance.rebounds.get(request.id)
        said = self._dispatcher.rules.permission(entry, self._dispatcher.entries)
        return EventStatus(
            id=own_id(request.id),
            source=request.source,
            revision=request.revision,
            kind=request.kind.value,
            program=request.program,
            state=entry.state.value,
            reason=entry.reason if entry.held_by is None else Refusal.CANCELLED_BY_OPERATOR,
            start=rfc3339(request.start_ms),
            end=OPEN if request.open_ended else rfc3339(request.end_ms),
            priority=request.priority,
            voluntary=request.voluntary,
            want=target.want.value,
            target_w=request.target_w if progress is None else _watts(progress.target_w),
            commanded_w=_watts(progress.commanded_w) if progress else None,
            delivered_w=_watts(progress.delivered_w) if progress else None,
            assumed_w=_watts(progress.assumed_w) if progress else None,
            attributed_w=_watts(credit.own_w) if credit else None,
            attributed_unknown=credit.unknown if credit else None,
            shared_w=_watts(credit.shared_w) if credit else None,
            unserved_w=_watts(progress.unserved_w) if progress else None,
            shortfall=progress.reason.value if progress and progress.reason is not Shortfall.NONE else None,
            devices=0 if entry.state is EventState.REJECTED else self._dispatcher.devices(entry),
            unmeasured=progress.unmeasured if progress else None,
            excluded=self.excluded.members(entry) if progress else None,
            outside_known_rules=said is not None and said.outside_known_rules,
            broken_rules=[
                BrokenRule(
                    rule=one.rule,
                    version=one.version,
                    effect=one.effect.value,
                    evidence=one.certainty.value,
                    says=one.words,
                )
                for one in (() if said is None else said.breaches)
            ],
            preparation=self._preparation(entry),
            labels=list(request.labels),
            rebound=ReboundBody(
                power_w=round(rebound.power_w), peak_w=round(rebound.peak_w), energy_wh=round(rebound.energy_wh, 1)
            )
            if rebound is not None
            else None,
        )

    def _preparation(self, entry: BookEntry) -> PreparationBody | None:
        """What comes before the next occurrence of an event, or came before the one that runs."""
        if entry.state is not EventState.SCHEDULED and entry.state not in RUNS:
            return None
        request, utc_ms = entry.request, self._clock.now().utc_ms
        start_ms = request.occurrence_ms(utc_ms) if entry.state in RUNS else request.next_ms(utc_ms)
        program = self._dispatcher.rules.programs.get(request.program)
        kept = None if start_ms is None else keeping(request, program, start_ms)
        return None if kept is None else _kept(kept)

    # -- quarantine ------------------------------------------------------------------------------------------

    def quarantine(self) -> Quarantine:
        """What cannot be trusted, but for the entries."""
        watch = self._queries.quarantine
        return Quarantine(entries=[], quarantined=dict(sorted(watch.quarantined.items())), frozen=watch.frozen)

    def untrusted(self) -> Iterator[QuarantineEntry]:
        """Every device and product that cannot be trusted."""
        for found in (*self._queries.quarantine.untrusted(), *self._misidentified()):
            yield QuarantineEntry(
                name=found.name,
                reason=found.reason,
                since=None if found.since_ms is None else rfc3339(found.since_ms),
                lifted_by=found.lifted_by,
                detail=found.detail,
            )

    # -- availability ----------------------------------------------------------------------------------------

    def availability(self) -> Iterator[AvailabilityBody]:
        """What each group can sustain, as of the newest tick when it is first asked; nothing before that."""
        for found in self._queries.availability():
            yield AvailabilityBody(
                group=found.group,
                devices=found.devices,
                hours=[*HOURS],
                discharge_w=[*found.discharge_w],
                charge_w=[*found.charge_w],
            )

    # -- the platform ----------------------------------------------------------------------------------------

    def delivery_reports(self, report: StatusReport) -> dict[str, Any]:
        """Changed delivery records, as the body of a report to the platform."""
        excluded_by = self.excluded.of(_limited(report.rows))
        return DeliveryReport(
            event=own_id(report.event),
            source=report.source,
            revision=report.revision,
            occurrence=rfc3339(report.occurrence_ms),
            at=self._now(),
            devices=[
                _delivery(row, cause_of_row(row, self._cause_of), excluded_by.get(row["device"], []))
                for row in report.rows
            ],
        ).model_dump()

    def event_reports(self) -> list[dict[str, Any]]:
        """Running events, and those whose time is not over and that an operator cancelled; some in each report."""
        now_ms = self._clock.now().utc_ms
        found = [
            self._status(entry)
            for entry in self._dispatcher.entries()
            if entry.state in RUNS or (entry.held_by is not None and now_ms < entry.request.end_ms)
        ]
        return [
            EventReport(at=self._now(), events=found[i : i + PART]).model_dump(exclude_none=True)
            for i in range(0, len(found), PART)
        ]

    def availability_report(self) -> Iterator[dict[str, Any]]:
        """What each group can sustain, a part of the groups in each report; nothing before the first tick."""
        at, found = self._now(), self.availability()
        while part := list(islice(found, PART)):
            yield AvailabilityReport(at=at, groups=part).model_dump()

    def _now(self) -> str:
        return rfc3339(self._clock.now().utc_ms)


def _kept(kept: Keeping) -> PreparationBody:
    version = kept.version
    return PreparationBody(
        kept_from=rfc3339(kept.from_ms),
        kept_until=rfc3339(kept.start_ms),
        charges_from_pv=kept.from_pv,
        grid_charging=[(rfc3339(from_ms), rfc3339(until_ms)) for from_ms, until_ms in kept.charges],
        rules=[
            PreparationRule(
                rule=name,
                version="" if version is None else f"{version.program} {version.name}",
                evidence=found.certainty.value,
                source=found.source,
                says=words,
            )
            for name, found, words in stated(kept)
        ],
    )


def _past(stored: StoredEvent) -> BookEntry:
    """An event that the store alone knows; no column names it."""
    return BookEntry(
        index=-1, request=stored.request, state=stored.state, decided_ms=stored.decided_ms, held_by=stored.held_by
    )


def _place(after: str) -> tuple[int, str]:
    """Start and id of the last event of a page. Raises InvalidInput."""
    start_ms, colon, name = after.partition(":")
    if not (colon and start_ms.removeprefix("-").isdecimal() and len(start_ms) < DIGITS):
        raise InvalidInput(["after: what a page before has as next"])
    return int(start_ms), name


def _ms(moment: str | None) -> int | None:
    """A time as it is shown; None if it is none."""
    try:
        return None if moment is None else round(datetime.fromisoformat(moment).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def _watts(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def cause_of_row(row: Row, cause_of: CauseOf) -> str | None:
    """What lies behind a command that expired, or a device that is not heard."""
    explained = row["result"] == CommandResult.EXPIRED.name.lower() or row["failure"] == Failure.OFFLINE.name.lower()
    return cause_of(row["device"]) if explained else None


def _limited(rows: Iterable[Row]) -> list[str]:
    """The devices of records that an exclusion of a territory may limit."""
    return [row["device"] for row in rows if not LIMITING.isdisjoint(row["limits"])]


def _delivery(row: Row, cause: str | None, excluded_by: Sequence[str]) -> DeliveryBody:
    when = {name: None if ms is None else rfc3339(ms) for name, ms in row["times_ms"].items()}
    shown = {name: value for name, value in row.items() if name != "times_ms"}
    return DeliveryBody(
        **shown | {"failure": former_names.failure(row["failure"])}, cause=cause, excluded_by=list(excluded_by),
        times=Times(**when),
    )  # fmt: skip

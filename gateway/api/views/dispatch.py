"""What REST and the platform see of dispatch: events, delivery records, exclusions, quarantine, availability."""

from collections.abc import Callable
from typing import Any

from gateway import former_names
from gateway.api.models import (
    AvailabilityBody,
    AvailabilityList,
    AvailabilityReport,
    DeliveryBody,
    DeliveryReport,
    EventReport,
    EventStatus,
    ExclusionList,
    ExclusionState,
    OccurrenceBody,
    Quarantine,
    ReboundBody,
    Times,
)
from gateway.clock import Clock
from gateway.domain.commands import CommandResult
from gateway.domain.control.allocation import Shortfall
from gateway.domain.control.availability import HOURS
from gateway.domain.events.book import members
from gateway.domain.events.delivery_records import Failure
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.lifecycle import RUNS, BookEntry
from gateway.domain.events.scope import own_id
from gateway.domain.fleet.fleet import Fleet
from gateway.ports.journal import Journal
from gateway.schemas.interval_rows import rfc3339
from gateway.services.control.loop import ControlLoop
from gateway.services.events.delivery_records import Row, StatusReport, bodies
from gateway.services.events.intake import Dispatcher
from gateway.services.events.reports import PART

CauseOf = Callable[[str], str | None]


class DispatchView:
    """Reads from the services; decides nothing. `cause_of`: what is known of a device that would explain a failure."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        dispatcher: Dispatcher,
        control: ControlLoop,
        journal: Journal,
        clock: Clock,
        cause_of: CauseOf = lambda _: None,
    ) -> None:
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._control = control
        self._journal = journal
        self._clock = clock
        self._cause_of = cause_of

    def all(self) -> list[EventStatus]:
        return [self._status(entry) for entry in self._dispatcher.entries()]

    def find(self, event_id: str, source: str | None) -> list[BookEntry]:
        """The events that have this id, of every source unless one is named."""
        return [e for e in self._dispatcher.find(event_id) if source in (None, e.request.source)]

    async def one(self, entry: BookEntry, *, occurrence: str | None = None, offset: int, limit: int) -> EventStatus:
        """An event with a page of delivery records: of `occurrence` (its start, as it is shown), else of now, else of
        the newest that is over. Raises StorageError."""
        event_id = entry.request.id
        status = self._status(entry)
        past = await self._journal.delivered(event_id)
        status.occurrences = [
            OccurrenceBody(start=rfc3339(p.occurrence_ms), ended=rfc3339(p.ended_ms), devices=len(p.devices))
            for p in past
        ]
        page = slice(offset, offset + limit)
        total, rows = 0, list[Row]()
        if occurrence is None and entry.index >= 0:
            slots = self._dispatcher.members(entry.index, entry.request)
            total, rows = self._control.records.page(entry, slots, page)
        causes = [cause_of_row(row, self._cause_of) for row in rows]
        chosen = [p for p in past if occurrence in (None, rfc3339(p.occurrence_ms))]
        if not total and chosen:
            total = len(chosen[-1].devices)
            columns = {name: values[page] for name, values in chosen[-1].columns.items()}
            rows = bodies(event_id, chosen[-1].devices[page], columns)
            # what is known now explains nothing of what was then
            causes = [None] * len(rows)
        status.members = [_delivery(row, cause) for row, cause in zip(rows, causes, strict=True)]
        status.next = page.stop if page.stop < total else None
        return status

    def _status(self, entry: BookEntry) -> EventStatus:
        request = entry.request
        progress = self._control.progress(entry) if entry.state in RUNS else None
        now = request.running(self._clock.now().utc_ms)
        target = now.target if now is not None else request.target
        rebound = self._control.maintenance.rebounds.get(request.id)
        return EventStatus(
            id=own_id(request.id),
            source=request.source,
            revision=request.revision,
            kind=request.kind.value,
            program=request.program,
            state=entry.state.value,
            reason=entry.reason,
            start=rfc3339(request.start_ms),
            end=rfc3339(request.end_ms),
            priority=request.priority,
            voluntary=request.voluntary,
            want=target.want.value,
            target_w=request.target_w if progress is None else _watts(progress.target_w),
            commanded_w=_watts(progress.commanded_w) if progress else None,
            delivered_w=_watts(progress.delivered_w) if progress else None,
            assumed_w=_watts(progress.assumed_w) if progress else None,
            attributed_w=_watts(self._control.attributed_w(entry)) if progress else None,
            unserved_w=_watts(progress.unserved_w) if progress else None,
            shortfall=progress.reason.value if progress and progress.reason is not Shortfall.NONE else None,
            devices=len(self._dispatcher.members(entry.index, request)) if entry.index >= 0 else 0,
            unmeasured=progress.unmeasured if progress else None,
            rebound=ReboundBody(
                power_w=round(rebound.power_w), peak_w=round(rebound.peak_w), energy_wh=round(rebound.energy_wh, 1)
            )
            if rebound is not None
            else None,
        )

    # -- exclusions and quarantine ---------------------------------------------------------------------------

    def exclusions(self) -> ExclusionList:
        return ExclusionList(exclusions=[self.exclusion(one) for one in self._dispatcher.exclusions.all()])

    def exclusion(self, exclusion: Exclusion) -> ExclusionState:
        return ExclusionState(
            id=exclusion.id,
            reason=exclusion.reason,
            event=exclusion.event,
            since=rfc3339(exclusion.from_ms),
            until=None if exclusion.until_ms is None else rfc3339(exclusion.until_ms),
            by=exclusion.by,
            devices=len(members(self._fleet, exclusion.group)),
            active=exclusion.applies(self._clock.now()),
        )

    def quarantine(self) -> Quarantine:
        watch = self._control.quarantine
        return Quarantine(quarantined=dict(sorted(watch.quarantined.items())), frozen=watch.frozen)

    # -- availability ----------------------------------------------------------------------------------------

    def availability(self) -> AvailabilityList:
        return AvailabilityList(
            groups=[
                AvailabilityBody(
                    group=found.group,
                    devices=found.devices,
                    hours=[*HOURS],
                    discharge_w=[*found.discharge_w],
                    charge_w=[*found.charge_w],
                )
                for found in self._control.availability()
            ]
        )

    # -- the platform ----------------------------------------------------------------------------------------

    def delivery_reports(self, report: StatusReport) -> dict[str, Any]:
        """Changed delivery records, as the body of a report to the platform."""
        return DeliveryReport(
            event=own_id(report.event),
            source=report.source,
            revision=report.revision,
            occurrence=rfc3339(report.occurrence_ms),
            at=self._now(),
            devices=[_delivery(row, cause_of_row(row, self._cause_of)) for row in report.rows],
        ).model_dump()

    def event_reports(self) -> list[dict[str, Any]]:
        """Running events, a part of them in each report."""
        found = [self._status(entry) for entry in self._dispatcher.entries() if entry.state in RUNS]
        return [
            EventReport(at=self._now(), events=found[i : i + PART]).model_dump(exclude_none=True)
            for i in range(0, len(found), PART)
        ]

    def availability_report(self) -> list[dict[str, Any]]:
        """What each group can sustain, a part of the groups in each report; nothing before the first tick."""
        found = self.availability().groups
        return [
            AvailabilityReport(at=self._now(), groups=found[i : i + PART]).model_dump()
            for i in range(0, len(found), PART)
        ]

    def _now(self) -> str:
        return rfc3339(self._clock.now().utc_ms)


def _watts(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def cause_of_row(row: Row, cause_of: CauseOf) -> str | None:
    """What lies behind a command that expired, or a device that is not heard."""
    explained = row["result"] == CommandResult.EXPIRED.name.lower() or row["failure"] == Failure.OFFLINE.name.lower()
    return cause_of(row["device"]) if explained else None


def _delivery(row: Row, cause: str | None) -> DeliveryBody:
    when = {name: None if ms is None else rfc3339(ms) for name, ms in row["times_ms"].items()}
    shown = {name: value for name, value in row.items() if name != "times_ms"}
    return DeliveryBody(
        **shown | {"failure": former_names.failure(row["failure"])}, cause=cause, times=Times(**when)
    )  # fmt: skip

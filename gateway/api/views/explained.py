"""What a home did on a day, from its intervals, its delivery records and the events that they belong to."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np

from gateway.api.explained_models import BatteryDayBody, BatteryEventBody, HomeDayBody
from gateway.clock import Clock
from gateway.domain.errors import InvalidInput
from gateway.domain.events.delivery_records import Failure, Status
from gateway.domain.events.scope import own_id
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.journal.stored import DeliveredEvent, StoredEvent
from gateway.domain.limits.types import reason_names
from gateway.domain.programs.explained import BatteryDay, BatteryEvent, DayEnergy, explained
from gateway.domain.rules.calendar import local_day, midnight_ms
from gateway.ports.journal import DeliveryHistory
from gateway.schemas.interval_rows import rfc3339
from gateway.services.telemetry.history import History, Question

EVENTS_MAX = 100
BATTERIES_MAX = 16
INTERVALS_MAX = 25_000


class ExplainedView:
    """Reads from the services; decides nothing."""

    def __init__(self, *, fleet: Fleet, history: History, deliveries: DeliveryHistory, clock: Clock) -> None:
        self._fleet = fleet
        self._history = history
        self._deliveries = deliveries
        self._clock = clock

    async def of(self, home: str, on: date | None, zone: str) -> HomeDayBody | None:
        """The batteries of a home (a device, or a site with all of its) on a local day, None = yesterday; None where
        there is no such home. Raises InvalidInput, StorageError."""
        batteries = self._batteries(home)
        if not batteries:
            return None
        now_ms = self._clock.now().utc_ms
        day = on or local_day(zone, now_ms) - timedelta(days=1)
        try:
            span = midnight_ms(zone, day), midnight_ms(zone, day + timedelta(days=1))
        except OverflowError as error:
            raise InvalidInput(["on: out of the calendar's range"]) from error
        events = await self._events(batteries, *span)
        records = await self._intervals(batteries, *span)
        found = HomeDayBody(home=home, on=day.isoformat(), zone=zone, batteries=[])
        for name in batteries:
            found.batteries.append(
                self._battery(name, zone, day, events.get(name, []), records.get(name, []), span)
            )  # fmt: skip
        return found

    def _batteries(self, home: str) -> Sequence[str]:
        fleet = self._fleet
        if home in fleet.slot_of:
            return [home]
        # a site that nobody has named gets no number
        number = fleet.sites.texts.index(home) if home in fleet.sites.texts else -1
        if number < 0:
            return []
        slots = np.flatnonzero(fleet.nameplate.site[: fleet.n] == number)
        return [fleet.ids[slot] for slot in slots if fleet.ids[slot] in fleet.slot_of][:BATTERIES_MAX]

    async def _events(self, batteries: Sequence[str], from_ms: int, until_ms: int) -> dict[str, list[BatteryEvent]]:
        """Their events that are over and ran that day, in the order of their ends."""
        found: dict[str, list[BatteryEvent]] = {}
        for one in await self._deliveries.delivered_between(from_ms, until_ms, EVENTS_MAX):
            stored = await self._deliveries.records_of(one.event, one.occurrence_ms, batteries)
            if not stored.total:
                continue
            known = [event for event in await self._deliveries.known(one.event) if event.request.id == one.event]
            for row, name in enumerate(stored.devices):
                values = {column: values[row] for column, values in stored.columns.items()}
                found.setdefault(name, []).append(_event(one, known[0] if known else None, values))
        return found

    async def _intervals(
        self, batteries: Sequence[str], from_ms: int, until_ms: int
    ) -> dict[str, list[IntervalRecord]]:
        question = Question(from_ms=from_ms, to_ms=until_ms, devices=tuple(batteries))
        records, _ = await self._history.page(question, None, INTERVALS_MAX)
        found: dict[str, list[IntervalRecord]] = {}
        for record in records:
            found.setdefault(record.device, []).append(record)
        return found

    def _battery(
        self, name: str, zone: str, day: date, events: list[BatteryEvent], records: list[IntervalRecord],
        span: tuple[int, int],
    ) -> BatteryDayBody:  # fmt: skip
        reserve_pct = _known(self._fleet.nameplate.owner_reserve_pct[self._fleet.slot_of[name]])
        energy = _energy(records, *span)
        told = BatteryDay(
            battery=name, zone=zone, day=day, events=events, energy=energy, reserve_pct=reserve_pct
        )  # fmt: skip
        return BatteryDayBody(
            device=name, says=explained(told), events=[_body(one) for one in events], discharge_wh=energy.discharge_wh,
            charge_wh=energy.charge_wh, covered_pct=energy.covered_pct, soc_low_pct=energy.soc_low_pct,
            soc_high_pct=energy.soc_high_pct, reserve_pct=reserve_pct,
        )  # fmt: skip


def _energy(records: Sequence[IntervalRecord], from_ms: int, until_ms: int) -> DayEnergy:
    out = [one.discharge_wh for one in records if one.discharge_wh is not None]
    into = [one.charge_wh for one in records if one.charge_wh is not None]
    levels = [soc for one in records for soc in (one.soc_start_pct, one.soc_end_pct) if soc is not None]
    measured_s = sum(one.coverage_pct / 100 * one.length_s for one in records)
    return DayEnergy(
        discharge_wh=round(sum(out), 1) if out else None, charge_wh=round(sum(into), 1) if into else None,
        covered_pct=round(min(100.0, 100 * measured_s * 1000 / (until_ms - from_ms)), 1),
        soc_low_pct=min(levels, default=None), soc_high_pct=max(levels, default=None),
    )  # fmt: skip


def _event(one: DeliveredEvent, stored: StoredEvent | None, values: dict[str, Any]) -> BatteryEvent:
    request = None if stored is None else stored.request
    return BatteryEvent(
        event=own_id(one.event), source="" if request is None else request.source,
        program="" if request is None else request.program, kind="real" if request is None else request.kind.value,
        start_ms=one.occurrence_ms, ended_ms=one.ended_ms, status=Status(int(values["status"])),
        failure=Failure(int(values["failure"])), limits=tuple(reason_names(int(values["limits"]))),
        asked_wh=float(values["asked_wh"]), delivered_wh=float(values["delivered_wh"]),
        shortfall_wh=float(values["shortfall_wh"]), unmeasured_wh=float(values["unmeasured_wh"]),
        sent_ms=int(values["sent_ms"]), acknowledged_ms=int(values["acknowledged_ms"]),
        started_ms=int(values["started_ms"]),
    )  # fmt: skip


def _body(one: BatteryEvent) -> BatteryEventBody:
    return BatteryEventBody(
        event=one.event, source=one.source, program=one.program, start=rfc3339(one.start_ms),
        ended=rfc3339(one.ended_ms), status=one.status.name.lower(),
        failure=None if one.failure is Failure.NONE else one.failure.name.lower(), limits=list(one.limits),
        asked_wh=round(one.asked_wh, 1), delivered_wh=round(one.delivered_wh, 1),
        shortfall_wh=round(one.shortfall_wh, 1),
    )  # fmt: skip


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

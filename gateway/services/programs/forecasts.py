"""Forecasts of a program's next event and of a nomination period, from the delivery records of its past events."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.clock import Clock
from gateway.domain.events.delivery_records import Status
from gateway.domain.events.request import EventKind
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.stored import DeliveredEvent, StoredRecords
from gateway.domain.limits.types import Envelope, Reason
from gateway.domain.programs.forecast import (
    HOURS,
    ComingEvent,
    PastEvents,
    PowerForecast,
    able,
    forecast,
    forecast_period,
    home_parts,
)
from gateway.domain.programs.projection import recovery_h
from gateway.domain.types import Bools, Slots
from gateway.ports.journal import DeliveryHistory
from gateway.services.programs.participation import ProgramParticipation

LOOK_BACK_MS = 400 * 86_400_000
OCCURRENCES_MAX = 500
"""Occurrences of all programs that are looked through."""
EVENTS_MAX = 40
RECOVERY_HOURS = 48
UNMEASURED_PART = 0.5
"""A home of which more of its event was not measured counts as silent."""

_OUT = (Status.OPTED_OUT, Status.SUPERSEDED, Status.CANCELLED)
_AWAY = np.uint64(Reason.OFFLINE | Reason.STALE | Reason.STUCK | Reason.FAULT)
_EXCLUDED = np.uint64(
    Reason.EXCLUDED | Reason.OPTED_OUT | Reason.LOCKED | Reason.QUARANTINED | Reason.FROZEN | Reason.NOT_STEERABLE
    | Reason.DEPARTING | Reason.STORM | Reason.UNENROLLED
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramForecast:
    """`by_hours`: of the next event over each length; `period`: of a nomination period, with events as long as past
    ones were; `recovery_h` by length: hours until nine tenths are back at the least, by what batteries may charge (None
    = not within two days, or not known)."""

    by_hours: Sequence[PowerForecast]
    period: PowerForecast
    recovery_h: Sequence[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Homes:
    """The homes that a forecast is about: their slots, and who of them may take part and is reached."""

    slots: Slots
    enrolled: Bools
    reached: Bools


class ProgramForecasts:
    """Asks the records of events that are over, and who takes part now. `envelope`: of the newest tick, if any."""

    def __init__(
        self, *, fleet: Fleet, participation: ProgramParticipation, deliveries: DeliveryHistory,
        envelope: Callable[[], Envelope | None], clock: Clock,
    ) -> None:  # fmt: skip
        self._fleet = fleet
        self._participation = participation
        self._deliveries = deliveries
        self._envelope = envelope
        self._clock = clock

    async def of(self, program: str) -> ProgramForecast | None:
        """The forecast of a program; None where nobody knows it and it had no event. Raises StorageError."""
        now_ms = self._clock.now().utc_ms
        events = await self._events(program, now_ms)
        if not events and self._participation.enrollment(program) is None:
            return None
        stored = [await self._deliveries.records(one.event, one.occurrence_ms, slice(None)) for one in events]
        hours = np.array([(one.ended_ms - one.occurrence_ms) / 3_600_000 for one in events])
        rows = await asyncio.to_thread(self._rows, stored)
        homes = self._homes(program, rows, now_ms)
        past = await asyncio.to_thread(self._past, homes, stored, rows, hours)
        return await asyncio.to_thread(self._forecast, homes, past)

    async def _events(self, program: str, now_ms: int) -> list[DeliveredEvent]:
        """The newest occurrences of a program that are over, oldest first."""
        found = await self._deliveries.delivered_between(now_ms - LOOK_BACK_MS, now_ms, OCCURRENCES_MAX)
        mine: dict[str, bool] = {}
        for one in found:
            if one.event not in mine:
                known = [each.request for each in await self._deliveries.known(one.event)]
                mine[one.event] = any(
                    each.id == one.event and each.program == program and each.kind is not EventKind.DRY_RUN
                    for each in known
                )
        return [one for one in found if mine[one.event] and one.ended_ms > one.occurrence_ms][-EVENTS_MAX:]

    def _rows(self, stored: Sequence[StoredRecords]) -> list[Slots]:
        """The slot of each row of each event; -1 = the device is not registered any more."""
        slot_of = self._fleet.slot_of
        return [
            np.fromiter((slot_of.get(name, -1) for name in one.devices), dtype=np.int32, count=len(one.devices))
            for one in stored
        ]

    def _homes(self, program: str, rows: Sequence[Slots], now_ms: int) -> _Homes:
        """Who is enrolled now, or where enrollment is not enforced who was asked before."""
        n = self._fleet.n
        asked = np.zeros(n, dtype=np.bool_)
        for slots in rows:
            asked[slots[slots >= 0]] = True
        registered = self._fleet.nameplate.registered[:n]
        every = np.arange(n, dtype=np.int32)
        takes_part = self._participation.dispatched(program, None, every, now_ms)
        enrolled = np.zeros(n, dtype=np.bool_)
        enrolled[self._participation.enrolled(program, self._clock.now())] = True
        enrolled = (enrolled if enrolled.any() else asked) & takes_part & registered
        reached = np.ones(n, dtype=np.bool_)
        envelope = self._envelope()
        if envelope is not None:
            known = min(n, len(envelope.reasons_discharge))
            reasons = envelope.reasons_discharge[:known]
            reached[:known] = (reasons & _AWAY) == 0
            enrolled[:known] &= (reasons & _EXCLUDED) == 0
        slots = np.flatnonzero(enrolled | asked).astype(np.int32)
        return _Homes(slots=slots, enrolled=enrolled[slots], reached=reached[slots])

    def _past(
        self, homes: _Homes, stored: Sequence[StoredRecords], rows: Sequence[Slots], hours: np.ndarray
    ) -> PastEvents:
        """Past events of these homes. Who followed a command that was less than it is able to is taken to follow a
        larger one as well."""
        plate, slots = self._fleet.nameplate, homes.slots
        rating_w = np.nan_to_num(plate.discharge_w_max[slots].astype(np.float64))
        usable_wh = np.nan_to_num(
            plate.capacity_wh[slots] * (1 - np.clip(plate.owner_reserve_pct[slots], 0, 100) / 100)
        )  # fmt: skip
        place = np.full(self._fleet.n, -1, dtype=np.int64)
        place[slots] = np.arange(len(slots))
        asked = np.zeros((len(slots), len(stored)), dtype=np.bool_)
        given_wh = np.full((len(slots), len(stored)), np.nan)
        for event, (one, of) in enumerate(zip(stored, rows, strict=True)):
            asked_wh = one.columns["asked_wh"]
            counts = (of >= 0) & (asked_wh > 0) & ~np.isin(one.columns["status"], _OUT)
            at = place[of[counts]]
            able_wh = np.minimum(rating_w[at] * hours[event], usable_wh[at])
            asked[at, event] = True
            measured = one.columns["unmeasured_wh"][counts] < UNMEASURED_PART * asked_wh[counts]
            share = one.columns["delivered_wh"][counts] / asked_wh[counts]
            given_wh[at, event] = np.where(measured, np.clip(share, 0.0, 1.0) * able_wh, np.nan)
        return PastEvents(
            rating_w=rating_w, usable_wh=usable_wh, asked=asked, delivered_wh=given_wh, hours=hours,
            temperature_c=np.full(len(stored), np.nan),
        )  # fmt: skip

    def _forecast(self, homes: _Homes, past: PastEvents) -> ProgramForecast:
        coming = ComingEvent(enrolled=homes.enrolled, reached=homes.reached)
        parts = home_parts(past, homes.reached, 0.0) * homes.enrolled
        charge_w = np.nan_to_num(self._fleet.nameplate.charge_w_max[homes.slots].astype(np.float64))
        charge_wh = np.tile(charge_w[:, None], (1, RECOVERY_HOURS))
        return ProgramForecast(
            by_hours=forecast(past, coming),
            period=forecast_period(past, coming),
            recovery_h=[recovery_h(parts * able(past, hours) * hours, charge_wh) for hours in HOURS],
        )

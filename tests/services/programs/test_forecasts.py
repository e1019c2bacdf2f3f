"""Forecasts of a program rest on the delivery records of its past events, and on who takes part now."""

from dataclasses import replace

import numpy as np
import pytest

from gateway.domain.events.delivery_records import RecordRows, Status
from gateway.domain.events.lifecycle import EventState
from gateway.domain.events.request import EventKind
from gateway.domain.journal.changes import EventDelivered, EventMoved, EventsArchived
from gateway.domain.programs.enrollment import EnrollmentBook
from gateway.domain.types import DeviceId, EventId
from gateway.services.programs.forecasts import ProgramForecasts
from gateway.services.programs.participation import ProgramParticipation
from gateway.services.settings import ProgramSettings
from tests.scenes.world import World, homes_of
from tests.storage.journal.test_journal import event

HOMES = 40
DAY_MS = 86_400_000
PROGRAM = "evening"


class Past:
    """Homes with past events of a program, each of two hours."""

    def __init__(self) -> None:
        self.world = World(homes_of(HOMES))
        plate = self.world.fleet.nameplate
        self.rating_w = float(plate.discharge_w_max[0])
        self.usable_wh = float(plate.capacity_wh[0] * (1 - plate.owner_reserve_pct[0] / 100))
        self.forecasts = ProgramForecasts(
            fleet=self.world.fleet,
            participation=ProgramParticipation(
                EnrollmentBook(), fleet=self.world.fleet, programs={PROGRAM: ProgramSettings()}
            ),
            deliveries=self.world.journal,
            envelope=lambda: None,
            clock=self.world.clock,
        )

    async def happened(
        self, days_ago: int, *, part: float = 0.8, program: str = PROGRAM, kind: EventKind = EventKind.REAL,
        silent: int = 0, opted_out: int = 0,
    ) -> None:  # fmt: skip
        """An event: every home was asked for what it is able to, and gave a part of it."""
        names = [DeviceId(name) for name in self.world.fleet.ids]
        begin_ms = self.world.clock.now().utc_ms - days_ago * DAY_MS
        decided = event(self.world.clock, name=f"{program}-{kind.value}-{days_ago}")
        request = replace(
            decided.request, program=program, kind=kind, start_ms=begin_ms, end_ms=begin_ms + DAY_MS // 12
        )  # fmt: skip
        rows = RecordRows()
        rows.grow(len(names))
        columns = {each: getattr(rows, each)[: len(names)] for each in RecordRows.SPEC if each != "slot"}
        asked = min(self.rating_w * 2, self.usable_wh)
        columns["asked_wh"][:], columns["delivered_wh"][:] = asked, asked * part
        columns["status"][:] = int(Status.COMPLETED)
        columns["unmeasured_wh"][:silent] = asked
        columns["delivered_wh"][:silent] = 0.0
        columns["status"][HOMES - opted_out :] = int(Status.OPTED_OUT)
        await self.world.journal.commit([
            replace(decided, request=request),
            EventMoved(event=request.id, revision=0, state=EventState.COMPLETED),
            EventsArchived(events=(request.id,)),
            EventDelivered(
                event=EventId(request.id), occurrence_ms=begin_ms, ended_ms=begin_ms + DAY_MS // 12,
                devices=tuple(names), columns=columns,
            ),
        ])  # fmt: skip

    def able_kw(self) -> float:
        return HOMES * min(self.rating_w, self.usable_wh / 2) / 1000


async def test_a_forecast_rests_on_what_homes_gave_of_what_they_are_able_to() -> None:
    past = Past()
    for days in range(8, 0, -1):
        await past.happened(days)
    found = await past.forecasts.of(PROGRAM)
    assert found is not None
    two = found.by_hours[1]
    assert (two.hours, two.homes, two.events) == (2.0, HOMES, 8)
    assert two.kw == pytest.approx(0.8 * past.able_kw(), rel=0.05)
    assert found.period.kw == pytest.approx(two.kw)
    assert [one.kw for one in found.by_hours] == sorted((one.kw for one in found.by_hours), reverse=True)
    charge_kw = HOMES * float(past.world.fleet.nameplate.charge_w_max[0]) / 1000
    assert found.recovery_h[1] == pytest.approx(0.9 * 2 * two.kw / charge_kw, rel=0.02)


async def test_events_of_others_and_dry_runs_say_nothing() -> None:
    past = Past()
    for days in range(4, 0, -1):
        await past.happened(days)
        await past.happened(days, part=0.1, program="other")
        await past.happened(days, part=0.1, kind=EventKind.DRY_RUN)
    found = await past.forecasts.of(PROGRAM)
    assert found is not None
    assert found.period.events == 4
    assert found.by_hours[1].kw == pytest.approx(0.8 * past.able_kw(), rel=0.08)


async def test_who_was_silent_to_the_end_is_hardly_counted_on_and_who_opted_out_is_judged_by_the_others() -> None:
    past = Past()
    for days in range(8, 0, -1):
        await past.happened(days, silent=10 if days <= 4 else 0, opted_out=5)
    found = await past.forecasts.of(PROGRAM)
    assert found is not None
    assert found.by_hours[1].kw == pytest.approx(0.75 * 0.8 * past.able_kw(), rel=0.08)


async def test_a_known_program_without_events_has_a_forecast_and_an_unknown_one_has_none() -> None:
    past = Past()
    found = await past.forecasts.of(PROGRAM)
    assert found is not None
    assert (found.period.events, found.period.homes, found.period.kw) == (0, 0, 0.0)
    assert await past.forecasts.of("nobody") is None


async def test_homes_that_are_gone_from_the_registry_have_no_part() -> None:
    past = Past()
    await past.happened(1)
    kept = past.world.journal.kept[-1]
    assert isinstance(kept, EventDelivered)
    columns = {name: np.concatenate((column, column[:1])) for name, column in kept.columns.items()}
    past.world.journal.kept[-1] = replace(kept, devices=(*kept.devices, DeviceId("gone")), columns=columns)
    found = await past.forecasts.of(PROGRAM)
    assert found is not None
    assert found.period.homes == HOMES

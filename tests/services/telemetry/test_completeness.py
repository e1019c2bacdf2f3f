"""Completeness says of each record what its receivers did with it, whatever they want today."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gateway.clock import ManualClock
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.completeness import SinkDay
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.types import DeviceId
from gateway.ports.sinks import Reject
from gateway.services.telemetry.completeness import DAY_MS, Completeness
from gateway.services.uplink.delivery import SinkDelivery
from gateway.services.uplink.resend import Resend
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.interval_log.query import IntervalQueries
from tests.builders.energy_batches import T0
from tests.builders.fakes import ScriptedSink, nothing_damaged
from tests.scenes.waiting import service, turns, until
from tests.storage.interval_log.test_query import unlogged

DAY = T0 // DAY_MS * DAY_MS
HOMES = [DeviceId(f"bat-{i}") for i in range(3)]


@dataclass(kw_only=True)
class Street:
    """Homes, a receiver, and the log between them."""

    log: IntervalLog
    queries: IntervalQueries
    clock: ManualClock
    sink: ScriptedSink
    delivery: SinkDelivery = field(init=False)
    resend: Resend = field(init=False)

    def __post_init__(self) -> None:
        self.resend = Resend(self.log, self.queries, self.clock)
        self.delivery = SinkDelivery(
            self.sink, log_=self.log, finder=self.resend, clock=self.clock, rng=random.Random(1), rate=1e9
        )

    async def deliver(self) -> None:
        """Let the receiver have all that is due."""
        async with service(self.delivery.run):
            end = await self.log.end()
            await until(lambda: self.delivery.position.live == end and not self.delivery.position.backfill)
            self.delivery.resend()
            for _ in range(100):
                await turns(20)
                if not await self.log.ask(lambda all_: all_.parked(self.sink.name, 1, "resend")):
                    break

    async def ledger(self, *homes: DeviceId) -> list[SinkDay]:
        completeness = Completeness(
            queries=self.queries, log_=self.log, sinks=[self.sink], fleet=Fleet(), engine=Engine(IntervalRules()),
            clock=self.clock,
        )  # fmt: skip
        return [day.sinks[self.sink.name] async for day in completeness.day(DAY, homes)]


@asynccontextmanager
async def street(directory: Path, sink: ScriptedSink) -> AsyncIterator[Street]:
    clock = ManualClock(utc_ms=T0 + DAY_MS)
    async with (
        IntervalLog(directory, clock=clock) as log,
        IntervalQueries(log.files_from, nothing_damaged) as queries,
    ):
        yield Street(log=log, queries=queries, clock=clock, sink=sink)


def counts(day: SinkDay) -> tuple[int, int, int, int]:
    return day.sent, day.accepted, day.waiting, day.not_wanted


async def test_completeness_of_a_device_that_got_its_meter_later_says_not_wanted_until_it_is_sent_again(
    tmp_path: Path,
) -> None:
    meters: set[DeviceId] = {HOMES[0]}
    sink = ScriptedSink("leap", wanted=lambda device: device in meters)
    async with street(tmp_path, sink) as s:
        await s.log.append([unlogged(1, [(d, k, 1) for k in range(12) for d in (0, 1)])])
        await s.deliver()
        meters.add(HOMES[1])
        assert [counts(day) for day in await s.ledger(*HOMES[:2])] == [(12, 12, 0, 0), (0, 0, 0, 12)]
        rows, _ = await s.log.read((await s.log.position_of("none")).live, 100)
        await s.resend.mark("leap", [row for row in rows if row.device == HOMES[1]])
        assert [counts(day) for day in await s.ledger(HOMES[1])] == [(0, 0, 12, 0)]
        await s.deliver()
        assert len(sink.rows) == 24
        assert [counts(day) for day in await s.ledger(*HOMES[:2])] == [(12, 12, 0, 0)] * 2


async def test_completeness_of_a_device_that_lost_its_meter_still_says_accepted(tmp_path: Path) -> None:
    meters = set(HOMES)
    async with street(tmp_path, ScriptedSink("leap", wanted=lambda device: device in meters)) as s:
        await s.log.append([unlogged(1, [(0, k, 1) for k in range(12)])])
        await s.deliver()
        meters.clear()
        assert [counts(day) for day in await s.ledger(HOMES[0])] == [(12, 12, 0, 0)]


async def test_completeness_of_what_was_read_without_a_record_of_it_is_inferred_and_says_so(tmp_path: Path) -> None:
    async with street(tmp_path, ScriptedSink("leap")) as s:
        await s.log.append([unlogged(1, [(0, k, 1) for k in range(12)])])
        position = type(s.delivery.position)(live=await s.log.end())
        await s.log.save_position("leap", position)
        await s.log.append([unlogged(2, [(0, k, 1) for k in range(12, 20)])])
        await s.deliver()
        (day,) = await s.ledger(HOMES[0])
        assert (day.sent, day.accepted, day.inferred) == (20, 20, 12)


async def test_completeness_of_a_refused_record_names_the_reason_and_once_it_is_accepted_says_so(
    tmp_path: Path,
) -> None:
    async with street(tmp_path, ScriptedSink("leap", script=[Reject(refused={3: "mtr_0003"})])) as s:
        await s.log.append([unlogged(1, [(0, k, 1) for k in range(12)])])
        await s.deliver()
        (day,) = await s.ledger(HOMES[0])
        assert (day.sent, day.accepted, day.refused) == (12, 11, {"mtr_0003": 1})
        await s.resend.mark_parked("leap", DAY, DAY + DAY_MS)
        assert [counts(day) for day in await s.ledger(HOMES[0])] == [(11, 11, 1, 0)]
        await s.deliver()
        (day,) = await s.ledger(HOMES[0])
        assert (day.sent, day.accepted, day.refused) == (12, 12, {})


async def test_completeness_of_a_record_whose_reason_is_forgotten_does_not_say_accepted(tmp_path: Path) -> None:
    async with street(tmp_path, ScriptedSink("leap", script=[Reject(refused={3: "mtr_0003"})])) as s:
        await s.log.append([unlogged(1, [(0, k, 1) for k in range(12)])])
        await s.deliver()
        await s.log.ask(lambda all_: all_.forget_before(DAY + DAY_MS))
        (day,) = await s.ledger(HOMES[0])
        assert (day.accepted, day.refused) == (11, {"forgotten": 1})

"""Season market: a market that dispatches a small fleet every five minutes, for a season of 30,000 events.

Every event goes through the intake, the book, the control loop and the SQLite journal with its store of events that are
over, on virtual time: it is submitted before its period, runs, ends, and its delivery records are taken by a platform.
Here and there one is revised, cancelled by its source, or asked for by name when it is long over.

`rss_mib`: what the season adds to the resident set once the first 1,000 events have filled what is bounded.
`stretch_ms`: the longest that one pass of the event loop took, in CPU time of its thread, a tick included.
`growth_x`: CPU per event in the last tenth of the season over that in its second tenth; 1 = nothing gets slower. Passes
are watched in the first half of each tenth, and CPU is counted in the other: the watch spins while the disk works.
`lost`: events that were refused, or have no final record in the store. The limit is the disk: four commits an event.
"""

import asyncio
import gc
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gateway.clock import ManualClock, SteadyClock
from gateway.domain.events.book import Outcome
from gateway.domain.events.request import EventKind, EventRequest, TargetGroup, power
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.types import EventId
from gateway.services.control.loop import ControlLoop
from gateway.services.events.intake import Dispatcher
from gateway.services.settings import ControlSettings
from gateway.storage.journal.event_store import SqliteEventStore
from gateway.storage.journal.journal import SqliteJournal
from tests.bench.rig import aim, report, rss_kib
from tests.bench.stretch import watched
from tests.builders.fakes import FACTS, Homes, home

EVENTS, QUICK_EVENTS = 30_000, 300
DEVICES = 5
PERIOD_S = 300
TICKS_S = (1, 2, 147, 149)
"""From one tick to the next within a period; the last second of it is another one."""
HALVES = 20
"""Of tenths."""
FILLED = 1_000
REVISED_EVERY, WITHDRAWN_EVERY, ASKED_EVERY = 10, 25, 50


@dataclass(slots=True)
class Market:
    """A gateway core over a journal on disk, and the market that uses it."""

    directory: Path
    clock: ManualClock = field(default_factory=ManualClock)
    refused: int = 0
    unknown: int = 0
    told: int = 0
    fleet: Fleet = field(init=False)
    homes: Homes = field(init=False)
    journal: SqliteJournal = field(init=False)
    store: SqliteEventStore = field(init=False)
    dispatcher: Dispatcher = field(init=False)
    control: ControlLoop = field(init=False)

    def __post_init__(self) -> None:
        self.fleet = Fleet()
        for number in range(DEVICES):
            self.fleet.register(home(f"home-{number}"), FACTS)
        self.homes = Homes(self.fleet, self.clock)
        self.journal = SqliteJournal(self.directory / "journal.sqlite", clock=self.clock)
        self.store = SqliteEventStore(self.journal.path)
        remembered, steady, settings = self.journal.load(), SteadyClock(self.clock), ControlSettings()
        self.dispatcher = Dispatcher(settings, fleet=self.fleet, journal=self.journal, clock=steady)
        self.dispatcher.load(remembered)
        self.control = ControlLoop(
            settings, fleet=self.fleet, dispatcher=self.dispatcher, link=self.homes,
            clock=steady, epoch=remembered.epoch, publishing=True,
        )  # fmt: skip
        self.homes.on_acks = self.control.observe_acks

    async def submit(self, request: EventRequest) -> None:
        self.refused += (await self.dispatcher.submit(request)).outcome is not Outcome.ACCEPTED

    async def period(self, number: int) -> None:
        """One event from the request to the end of its period."""
        start_ms = self.clock.utc + 1_000
        request = EventRequest(
            id=EventId(f"market-{number:06d}"), revision=1, kind=EventKind.REAL, program="market", source="market",
            group=TargetGroup(all=True), start_ms=start_ms, end_ms=start_ms + 1_000 * (PERIOD_S - 1),
            target=power(1_000.0 * (number % 9 - 4)), priority=100,
        )  # fmt: skip
        await self.submit(request)
        for at, passed_s in enumerate(TICKS_S):
            self.clock.advance(s=passed_s)
            await self.tick()
            if at == 1 and number % REVISED_EVERY == 0:
                await self.submit(replace(request, revision=2, target=power(2_000.0)))
            if at == 2 and number % WITHDRAWN_EVERY == 0:
                await self.submit(replace(request, revision=3, cancelled=True))
        self.clock.advance(s=PERIOD_S - sum(TICKS_S))
        await self.tick()
        if number % ASKED_EVERY == ASKED_EVERY - 1:
            old = f"market-{number // 2:06d}"
            self.unknown += self.dispatcher.entry(old) is None and not await self.store.known(old)

    async def tick(self) -> None:
        # on virtual time nothing waits between two ticks: each has a pass of its own
        await asyncio.sleep(0)
        self.homes.report()
        await self.control.tick()
        await self.control.pending.put_away()
        while (found := self.control.records.changed(32)) is not None:
            self.told += len(found.rows)

    async def without_record(self, events: int) -> int:
        """Events that have no final record."""
        await self.tick()
        count = 0
        for number in range(events):
            stored = await self.store.records(EventId(f"market-{number:06d}"), None, slice(0, 1))
            count += stored.total != DEVICES
        return count

    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.directory.iterdir())


async def season(events: int, directory: Path) -> dict[str, Any]:
    market = Market(directory)
    cpu_s: list[float] = []
    began_kib = filled_kib = rss_kib()
    worst_s, began = 0.0, time.perf_counter()
    for half, (first, end) in enumerate(pairwise(events * part // HALVES for part in range(HALVES + 1))):
        if half % 2:
            began_s = time.process_time()
            for number in range(first, end):
                await market.period(number)
            cpu_s.append((time.process_time() - began_s) / max(end - first, 1))
        else:
            gc.collect()
            async with watched() as turns:
                await asyncio.sleep(0)
                turns.begin()
                for number in range(first, end):
                    await market.period(number)
            worst_s = max(worst_s, turns.worst_s)
        if first < min(FILLED, events // 2) <= end:
            gc.collect()
            filled_kib = rss_kib()
    seconds = time.perf_counter() - began
    gc.collect()
    ended_kib = rss_kib()
    missing = await market.without_record(events)
    market.store.close()
    market.journal.close()
    return {
        "n": events,
        "devices": DEVICES,
        "seconds": round(seconds, 1),
        "refused": market.refused,
        "without_record": missing,
        "unknown": market.unknown,
        "rows_told": market.told,
        "rss_start_mib": round(began_kib / 1024, 1),
        "rss_filled_mib": round(filled_kib / 1024, 1),
        "rss_end_mib": round(ended_kib / 1024, 1),
        "stretch_ms": round(1e3 * worst_s, 2),
        "cpu_ms_per_event": round(1e3 * sum(cpu_s) / len(cpu_s), 2),
        "growth_x": round(cpu_s[-1] / max(cpu_s[1], 1e-9), 3),
        "bytes_on_disk": market.size(),
        "bytes_per_event": round(market.size() / events),
    }


async def run(*, quick: bool, events: int | None = None) -> dict[str, Any]:
    count = events or (QUICK_EVENTS if quick else EVENTS)
    with TemporaryDirectory() as scratch:
        size = await season(count, Path(scratch))
    lost = size["refused"] + size["without_record"] + size["unknown"]
    return report(
        "season-market",
        sizes=[size],
        ratios={"growth_x": size["growth_x"]},
        aims={
            "lost": aim(lost, most=0),
            "rss_mib": aim(size["rss_end_mib"] - size["rss_filled_mib"], most=16.0),
            "stretch_ms": aim(size["stretch_ms"], most=10.0),
            "growth_x": aim(size["growth_x"], most=1.25),
        },
    )

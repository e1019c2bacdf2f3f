"""Season: the performance of a season's events, from the daily columns as they are stored to the money.

10,000 homes with a battery each, 35 events of 2 to 4 hours on weekdays from May to October, intervals of 5 minutes, a
10-in-10 baseline with same-day adjustment on the home's meter. Two processes share the homes; each reads every weekday
once, keeps as many as a baseline looks back, and settles the events in turn (`event_performance`, all levels).

`seconds` is from their start to the last figure, and `busy_seconds` the CPU time of the busier one, which is what it
takes on two cores that nobody else uses; `settle_x` our CPU per event over that of a straight script which has
the same arrays: numpy for energy, Decimal where money begins. It keeps a total per home, nothing by hour, customer or
reason, and says of nothing why. Both must agree on the energy of the program. The days of 500 homes are stored under
20 names each: what is read and settled is as much as of 10,000, making it would take longer than all the rest.
"""

import asyncio
import json
import os
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gateway.app.money_worker import NICE
from gateway.domain.events.delivery_records import Failure, Status
from gateway.domain.programs.day_builder import DayBuilder
from gateway.domain.programs.delivered import EnergyBefore, HomeEnergy
from gateway.domain.programs.event_performance import EventHomes, FigureLevel, PlayedEvent, event_performance
from gateway.domain.programs.event_value import PaidHome
from gateway.domain.programs.metered import EventIntervals, MeteredWh
from gateway.domain.programs.shortfalls import AskedOf
from gateway.domain.programs.site_day import DayFrame, SiteChannel, SiteDays
from gateway.domain.rules.calendar import HOUR_MS, local_ms
from gateway.domain.rules.performance import BaselineMethod, Formula, MeasurementPoint
from gateway.domain.rules.stacking import StackedClaim
from gateway.storage.programs.daily import DailyColumns
from tests.bench.columns import home_days
from tests.bench.rig import aim, report
from tests.builders.played_events import program

ZONE = "America/Los_Angeles"
FRAME = DayFrame(zone=ZONE, length_s=300)
FIRST, LAST = date(2026, 4, 13), date(2026, 10, 30)
SITES, EVENTS, DISTINCT, PROCESSES = 10_000, 35, 500, 2
LIKE_DAYS, LOOK_BACK = 10, 12
SECONDS_MOST, SETTLE_MOST = 60.0, 3.0
RATE = Decimal(2)
RULES = program(
    BaselineMethod.CAISO_PDR, Formula.ENERGY, amount=str(RATE),
    parameters={"days": "10", "highest": "10", "look-back-days": "45", "cap-low": "0.8", "cap-high": "1.2"},
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SeasonEvent:
    """An event on a local day: the hours that it begins and ends with."""

    day: date
    begins: int
    ends: int

    @property
    def intervals(self) -> EventIntervals:
        from_ms, until_ms = (local_ms(ZONE, self.day, hour * 60) for hour in (self.begins, self.ends))
        return EventIntervals(from_ms=from_ms, until_ms=until_ms, length_ms=FRAME.length_s * 1000)


def weekdays() -> list[date]:
    days = (FIRST + timedelta(days=n) for n in range((LAST - FIRST).days + 1))
    return [day for day in days if day.weekday() < 5]


def events_of(count: int) -> list[SeasonEvent]:
    rng = np.random.default_rng(35)
    days = sorted(rng.choice(np.arange(LOOK_BACK + 3, len(weekdays())), count, replace=False).tolist())
    lengths = rng.integers(2, 5, count).tolist()
    return [
        SeasonEvent(day=weekdays()[at], begins=17, ends=17 + length) for at, length in zip(days, lengths, strict=True)
    ]


def store_days(state_dir: Path, sites: int, days: Sequence[date]) -> None:
    """The days of `DISTINCT` homes under as many names as are asked for."""
    rng = np.random.default_rng(7)
    distinct = min(sites, DISTINCT)
    with DailyColumns(state_dir, write=True) as store:
        for day in days:
            page, stays = home_days(FRAME, day, distinct, rng, gaps=0.0)
            builder = DayBuilder(FRAME, day, stays)
            builder.add(page)
            store.put(builder.result(), 1)
        path = store.path
    with closing(sqlite3.connect(path)) as db:
        known = [row[0] for row in db.execute("SELECT id FROM sites ORDER BY name")]
        db.executemany(
            "INSERT INTO sites (name) VALUES (?)", [(f"home-{n:06d}",) for n in range(distinct, sites)]
        )  # fmt: skip
        named = [row[0] for row in db.execute("SELECT id FROM sites ORDER BY name")]
        twins = [(named[n], known[n % distinct]) for n in range(distinct, sites)]
        db.execute("CREATE TEMP TABLE twin (site INTEGER, like INTEGER)")
        db.executemany("INSERT INTO twin VALUES (?, ?)", twins)
        db.execute(
            "INSERT INTO site_days (frame, day, site, version, written_ms, body) "
            "SELECT frame, day, twin.site, version, written_ms, body FROM site_days "
            "JOIN twin ON twin.like = site_days.site ORDER BY day, twin.site"
        )
        db.commit()


class Half:
    """The homes of one process: reads days in turn, and settles the events on them."""

    def __init__(self, state_dir: Path, sites: Sequence[str], events: Sequence[SeasonEvent]) -> None:
        self._store = DailyColumns(state_dir)
        self._sites = sites
        self._events = {event.day: event for event in events}
        self._before: deque[SiteDays] = deque(maxlen=LOOK_BACK)
        self.read_s = self.settle_s = self.straight_s = 0.0
        self.wh = Fraction(0)
        self.straight_wh = 0.0
        self.cents = self.straight_cents = Decimal(0)
        self.intervals = 0

    def run(self) -> None:
        days = weekdays()
        last = max(self._events, default=FIRST)
        began = time.process_time()
        for today in self._store.days(FRAME, [day for day in days if day <= last], sites=self._sites):
            self.read_s += time.process_time() - began
            event = self._events.get(today.day)
            if event is not None:
                self._settle(event, today)
            else:
                self._before.append(today)
            began = time.process_time()
        self._store.__exit__()

    def _settle(self, event: SeasonEvent, today: SiteDays) -> None:
        began = time.process_time()
        homes = self._homes(event, today)
        intervals = event.intervals
        claim = StackedClaim(
            name="mine", rank=1, homes=np.ones(len(today.sites), dtype=np.bool_), from_ms=intervals.from_ms,
            until_ms=intervals.until_ms,
        )  # fmt: skip
        played = PlayedEvent(
            version=RULES, point=MeasurementPoint.SITE_CT, intervals=intervals, claim="mine", claims=[claim]
        )  # fmt: skip
        found = event_performance(played, homes, {})
        self.wh += sum((hour.delivered_kw or Fraction(0) for hour in found.whole.hours), Fraction(0)) * 1000
        value = None if found.whole.value is None else found.whole.value.value
        self.cents += value or Decimal(0)
        self.intervals += sum(one.wh.size for one in (homes.measured, homes.grid))
        assert len(found.figures[FigureLevel.SITE]) == len(today.sites)
        self.settle_s += time.process_time() - began
        began = time.process_time()
        self._straight(homes)
        self.straight_s += time.process_time() - began

    def _homes(self, event: SeasonEvent, today: SiteDays) -> EventHomes:
        begin = event.begins * HOUR_MS // (FRAME.length_s * 1000)
        end = event.ends * HOUR_MS // (FRAME.length_s * 1000)
        hour = HOUR_MS // (FRAME.length_s * 1000)
        like = list(self._before)[::-1]
        now, window = energy_of([today], begin, end), energy_of([today], begin - 4 * hour, begin - hour)
        before = EnergyBefore(
            event=energy_of(like, begin, end), window=energy_of(like, begin - 4 * hour, begin - hour),
            today=only_day(window), usable=np.ones((len(today.sites), len(like)), dtype=np.bool_),
        )  # fmt: skip
        n = len(today.sites)
        measured, grid = only_day(now).batteries, only_day(now).grid
        asked = AskedOf(
            asked_wh=np.full(n, 4_500.0 * (event.ends - event.begins)), limits=np.zeros(n, dtype=np.uint64),
            status=np.full(n, Status.COMPLETED, dtype=np.int8), failure=np.full(n, Failure.NONE, dtype=np.int8),
            started_ms=np.full(n, event.intervals.from_ms), status_ms=np.full(n, event.intervals.until_ms),
        )  # fmt: skip
        return EventHomes(
            batteries=tuple(f"battery-{site}" for site in today.sites), site_of=np.arange(n),
            homes=tuple(PaidHome(name=site, customer=f"customer-{site}") for site in today.sites),
            measured=measured, covered_pct=np.where(measured.known, 100.0, 0.0), grid=grid, asked=asked,
            nominal_w=np.full(n, 5_000.0), before=before,
        )  # fmt: skip

    def _straight(self, homes: EventHomes) -> None:
        """The same by hand."""
        before = homes.before
        assert before is not None
        usual = np.maximum(before.event.grid.wh[:, :LIKE_DAYS], 0).mean(axis=1)
        window = np.maximum(before.window.grid.wh[:, :LIKE_DAYS], 0).mean(axis=1).sum(axis=1)
        today = np.maximum(before.today.grid.wh, 0).sum(axis=1)
        ratio = np.clip(np.divide(today, window, out=np.ones(len(today)), where=window > 0), 0.8, 1.2)
        wh = (usual * ratio[:, np.newaxis] - np.maximum(homes.grid.wh, 0)).sum(axis=1)
        self.straight_wh += float(wh.sum())
        self.straight_cents += sum(
            ((Decimal(repr(one)) / 1000 * RATE).quantize(Decimal("0.01"), ROUND_HALF_UP) for one in wh.tolist()),
            Decimal(0),
        )


def energy_of(days: Sequence[SiteDays], begin: int, end: int) -> HomeEnergy:
    """Homes x days x intervals."""

    def net(plus: SiteChannel, minus: SiteChannel) -> MeteredWh:
        wh = np.stack([(d.energy_wh[plus] - d.energy_wh[minus])[:, begin:end] for d in days], axis=1)
        known = np.stack([(d.known[plus] & d.known[minus])[:, begin:end] for d in days], axis=1)
        return MeteredWh(wh=wh.astype(np.int64), known=known)

    return HomeEnergy(
        batteries=net(SiteChannel.DISCHARGE, SiteChannel.CHARGE), grid=net(SiteChannel.IMPORT, SiteChannel.EXPORT)
    )


def only_day(energy: HomeEnergy) -> HomeEnergy:
    """Homes x intervals of the only day."""
    return HomeEnergy(
        batteries=MeteredWh(wh=energy.batteries.wh[:, 0], known=energy.batteries.known[:, 0]),
        grid=MeteredWh(wh=energy.grid.wh[:, 0], known=energy.grid.known[:, 0]),
    )


def settle_half(state_dir: str, number: int, sites: int, events: int) -> None:
    """What each process does."""
    names = [f"home-{n:06d}" for n in range(number, sites, PROCESSES)]
    half = Half(Path(state_dir), names, events_of(events))
    half.run()
    told = {
        "read_s": half.read_s, "settle_s": half.settle_s, "straight_s": half.straight_s, "wh": float(half.wh),
        "straight_wh": half.straight_wh, "value": str(half.cents), "straight_value": str(half.straight_cents),
        "intervals": half.intervals,
    }  # fmt: skip
    print(json.dumps(told))


def settle_for_ever(state_dir: str, sites: int, events: int) -> None:
    """A report that runs until it is killed, at the priority of the process beside the daemon."""
    os.nice(NICE)
    print("runs", flush=True)
    while True:
        Half(Path(state_dir), [f"home-{n:06d}" for n in range(sites)], events_of(events)).run()


async def run(*, quick: bool, sites: int | None = None, events: int | None = None) -> dict[str, Any]:
    count, of = sites or (400 if quick else SITES), events or (3 if quick else EVENTS)
    last = max(event.day for event in events_of(of))
    days = [day for day in weekdays() if day <= last]
    with TemporaryDirectory() as directory:
        began = time.perf_counter()
        store_days(Path(directory), count, days)
        store_s = time.perf_counter() - began
        began = time.perf_counter()
        halves = await asyncio.gather(*(
            asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.bench.season", directory, str(number), str(count), str(of),
                stdout=asyncio.subprocess.PIPE,
            )
            for number in range(PROCESSES)
        ))  # fmt: skip
        told = [json.loads((await half.communicate())[0]) for half in halves]
        took_s = time.perf_counter() - began
    total = {name: sum(float(one[name]) for one in told) for name in told[0]}
    seconds = took_s - max(one["straight_s"] for one in told)
    busy = max(one["read_s"] + one["settle_s"] for one in told)
    off = abs(total["wh"] - total["straight_wh"]) / max(abs(total["straight_wh"]), 1.0)
    assert off < 1e-9, (total["wh"], total["straight_wh"])
    sizes = [
        {
            "n": count, "events": of, "days": len(days), "seconds": round(seconds, 2),
            "busy_seconds": round(busy, 2), "store_seconds": round(store_s, 1),
            **{name: round(value, 2) for name, value in total.items()},
            "settle_ms_per_event": round(total["settle_s"] / of * 1000, 1),
        }
    ]  # fmt: skip
    settle_x = total["settle_s"] / total["straight_s"]
    aims = {"seconds": aim(seconds, most=SECONDS_MOST), "settle_x": aim(settle_x, most=SETTLE_MOST)}
    return report("season", sizes=sizes, ratios={"settle_x": settle_x}, aims=aims)


if __name__ == "__main__":
    if sys.argv[1] == "for-ever":
        settle_for_ever(sys.argv[2], *map(int, sys.argv[3:5]))
    else:
        settle_half(sys.argv[1], *map(int, sys.argv[2:5]))

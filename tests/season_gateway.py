"""The gateway's side of a simulated season: `python -m tests.season_gateway DIRECTORY OPTIONS`.

`simulators.season.play` starts it, hands over the days of a street as files and announces each on standard input. The
first homes go through link, spool and interval log; the job of daily columns makes their days. The days of the others
are written as daily columns. What all of them are paid is worked out from the columns by the program's own file, and
underperformers are looked for in a planted street. Standard input ends after the last day; the answer is a file.
"""

import asyncio
import json
import logging
import sys
from collections import defaultdict
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from gateway.domain.programs.pricing import COMPUTED, PricedSite, TableHour, price_table
from gateway.domain.programs.site_day import DayFrame, SiteChannel, SiteDays
from gateway.programs.loader import LoadedProgram, load_program
from gateway.services.programs.daily_columns import DailyColumnsJob
from gateway.services.programs.frames import ProgramFrames
from gateway.services.runtime import clock_guard
from gateway.storage.programs.daily import DailyColumns
from simulators.season.by_readings import QUARTER_MS, QUARTERS
from simulators.season.handover import FOUND, HandedDay, handed_over
from simulators.season.official import Event, OfficialHour, events_of, official_hours
from simulators.season.planted import planted_street
from simulators.season.street import SeasonStreet, season_street
from tests.builders.site_days import site_days
from tests.domain.programs.test_planted import Tally
from tests.scenes.season import SeasonPlant
from tests.virtual.loop import VirtualLoop

PROGRAM = Path(__file__).parents[1] / "config" / "programs" / "dsgs-option3.yaml"
FRAME = DayFrame(zone="America/Los_Angeles", length_s=QUARTER_MS // 1000)
KEEP_DAYS = 400
STEPS_MAX = 10_000


async def heard(street: SeasonStreet, logged: int, work: Path, columns: "Columns") -> Path:
    """Hear the first homes day by day, as they are announced, and write the columns of each day; returns the state
    directory."""
    plant = SeasonPlant(street=street, homes=range(logged), directory=work)
    await plant.start()
    for line in sys.stdin:
        day = handed_over(work, int(line))
        await plant.day(day.received)
        columns.write(plant.plant.state, day)
    await plant.stop()
    return plant.plant.state


class Columns:
    """The daily columns of all: of the first homes by the job, from the log; of the others as they are handed over."""

    def __init__(self, street: SeasonStreet, logged: int, loaded: LoadedProgram) -> None:
        self._street = street
        self._logged = logged
        self._name = loaded.document.program
        self._frames = ProgramFrames(terms={self._name: loaded.terms})

    def write(self, state: Path, day: HandedDay) -> None:
        """As soon as late data of the day is waited for no more."""
        on = self._street.events[day.received.event].day
        now_ms = self._frames.limit_ms(self._name, on)
        job = DailyColumnsJob(state, frames=self._frames, programs=(self._name,), keep_days=KEEP_DAYS)
        for _ in range(STEPS_MAX):
            if not job.step(now_ms).more:
                break
        with DailyColumns(state, write=True) as store:
            store.put(_columns(self._street, self._logged, day), now_ms)


def _columns(street: SeasonStreet, logged: int, day: HandedDay) -> SiteDays:
    sites = street.homes.sites[logged:]
    wh = np.full((len(SiteChannel), len(sites), QUARTERS), -1, dtype=np.int64)
    wh[SiteChannel.CHARGE], wh[SiteChannel.DISCHARGE] = day.charge_wh, day.discharge_wh
    on = street.events[day.received.event].day
    return site_days(sites, frame=FRAME, day=on, wh=np.maximum(wh, 0), known=wh >= 0)


def net_kw(state: Path, street: SeasonStreet) -> dict[OfficialHour, list[Fraction | None]]:
    """What each home gave in each official hour, from the columns; None = nothing of it is known."""
    out: dict[OfficialHour, list[Fraction | None]] = {}
    number = {site: i for i, site in enumerate(street.homes.sites)}
    with DailyColumns(state) as store:
        for event in street.events:
            for hour in event.hours:
                out[hour] = [None] * len(street)
            for found in store.days(FRAME, [event.day]):
                for hour in event.hours:
                    _fill(out[hour], found, event, hour, number)
    return out


def _fill(kw: list[Fraction | None], found: SiteDays, event: Event, hour: OfficialHour, number: dict[str, int]) -> None:
    first = (hour.start_ms - event.midnight_ms) // QUARTER_MS
    quarters = slice(first, first + 4)
    known = found.known[SiteChannel.CHARGE, :, quarters] & found.known[SiteChannel.DISCHARGE, :, quarters]
    wh = found.energy_wh[SiteChannel.DISCHARGE, :, quarters] - found.energy_wh[SiteChannel.CHARGE, :, quarters]
    net_wh = np.where(known, wh, 0).sum(axis=1).tolist()
    told: list[bool] = np.asarray(known.any(axis=1)).tolist()
    for site, some, one_wh in zip(found.sites, told, net_wh, strict=True):
        if some:
            kw[number[site]] = Fraction(one_wh, 1000)


def paid(
    street: SeasonStreet, given: dict[OfficialHour, list[Fraction | None]], loaded: LoadedProgram
) -> dict[int, dict[str, str]]:
    """Pay by home and month, by the rules of the program's file."""
    version = loaded.program.version_on(street.events[0].day)
    assert version is not None
    table = {
        hour: TableHour(
            day=hour.day, hour_end=hour.hour_end, start_ms=hour.start_ms, event_type=hour.event_type, price=hour.price
        )
        for hour in given
    }
    out: dict[int, dict[str, str]] = defaultdict(dict)
    for home in range(len(street)):
        mine = [
            replace(row, net_kw=given[hour][home]) for hour, row in table.items() if street.enrolled(hour.day)[home]
        ]
        nominal_kw = Fraction(round(float(street.nominal_w[home]))) / 1000
        for period in price_table(version, mine, PricedSite(nominal_kw=nominal_kw)).periods:
            if period.status == COMPUTED:
                out[home][str(int(period.name.split("-")[1]))] = str(period.pay)
    return out


def main() -> None:
    # the machine's clock is moved from message to message, which is no news here
    logging.getLogger(clock_guard.__name__).setLevel(logging.CRITICAL)
    work, words = Path(sys.argv[1]), json.loads(sys.argv[2])
    events = events_of(official_hours())[: words["events"] or None]
    street = season_street(words["homes"], events, words["seed"])
    loaded = load_program(PROGRAM)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        state = runner.run(heard(street, words["logged"], work, Columns(street, words["logged"], loaded)))
    months = paid(street, net_kw(state, street), loaded)
    tally = Tally()
    tally.add(planted_street(words["seed"]))
    answer: dict[str, Any] = {
        "months": months,
        "found": tally.found,
        "planted": tally.planted,
        "disk_bytes": sum(path.stat().st_size for path in state.rglob("*") if path.is_file()),
    }
    (work / FOUND).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()

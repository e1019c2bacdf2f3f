"""A DSGS season at simulated homes: the public event hours and prices of 2025, day-ahead notice, the real control core
over firmware and physics (`street`), and what a clairvoyant could have got out of the same homes (`season_optimum`).

Time outside the event days and the day before is physics alone. Each stretch of days has a gateway of its own, which
knows nothing of the one before.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from copy import deepcopy
from csv import DictReader
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from datetime import time as clock_time
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np

from gateway.clock import ManualClock
from gateway.domain.events.request import power
from gateway.domain.rules.preparation import KeepFrom
from gateway.domain.rules.program import GridProgram
from gateway.domain.rules.values import Certainty, Evident
from gateway.profiles.compile import Codec
from gateway.programs.loader import load_program
from gateway.services.settings import ControlSettings, MaintenanceSettings
from simulators.battery import Batteries, Mode
from simulators.curves import DAY_S
from simulators.homes import Floats, Homes, make_homes
from simulators.weather import SeasonCurves
from tests.bench.season_optimum import Battery, Event, best_wh, between, capacity_kw
from tests.scenes.street import Street, reference

HOURS = Path(__file__).parents[1] / "programs" / "dsgs_2025_hours.csv"
PROGRAM = Path(__file__).parents[2] / "config" / "programs" / "dsgs-option3.yaml"
ZONE = ZoneInfo("America/Los_Angeles")
PAID = ("Capacity", "Test Capacity")
BASELINE_RATIO = 0.107899
"""Prescriptive baseline of residential 2-hour batteries (reported, not verified)."""
DURATION_H = 2.0
NOTICE_HOUR = 15
"""Local time of the notice, on the day before."""
FIRST_HOUR = 14
"""Local time of the day before at which a stretch begins."""

OWN_STEP_S = 60.0
"""Physics of batteries in their maker's mode."""
ORDINARY_S, KEEPING_S, EVENT_S, EDGE_S = 240.0, 40.0, 15.0, 2.0
"""From tick to tick: on ordinary time, while energy is kept (often enough to renew every lease in time), in an event,
and around the edges."""
EDGE_BEFORE_S, EDGE_AFTER_S, RELEASE_S = 10.0, 60.0, 120.0
QUARTER_H = 0.25
LOAD_X, CLEAR_H = 1.4, 6.5
"""Mean load of a home over its base, appliances included; hours of full sun that a clear summer day is worth."""
RAMP_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evening:
    """The event of one day: local date, the hour at which it begins, and of each of its hours whether it is paid and
    its price in $/MWh."""

    day: date
    hour: int
    paid: tuple[bool, ...]
    prices: tuple[float, ...]


def evenings(path: Path = HOURS) -> list[Evening]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(DictReader(file))
    found = []
    for day, group in groupby(rows, key=lambda row: row["date"]):
        hours = list(group)
        found.append(
            Evening(
                day=date.fromisoformat(day),
                hour=int(hours[0]["hour_end"]) - 1,
                paid=tuple(row["event_type"] in PAID for row in hours),
                prices=tuple(float(row["caiso_lmp_usd_per_mwh"]) for row in hours),
            )
        )
    return found


def dsgs(keep_h: float | None = None) -> GridProgram:
    """The program as its file says, but that energy is kept for `keep_h` before an event (None: that too)."""
    program = load_program(PROGRAM).program
    if keep_h is None:
        return program
    keep_s: Evident[float | KeepFrom] = Evident(value=keep_h * 3_600, certainty=Certainty.UNVERIFIED, source="bench")
    return replace(
        program,
        versions=tuple(
            replace(version, preparation=replace(version.preparation, keep_s=keep_s)) for version in program.versions
        ),
    )


def season_homes(n: int, seed: int = 1, *, unsure_pct: float = 5.0) -> Homes:
    """Homes with a battery and PV each. `unsure_pct`: what the product says of how sure its SoC is, and keeps."""
    homes = make_homes(n, seed)
    rng = np.random.default_rng([seed, 6])
    rated_w = homes.discharge_w_max
    coupled = rng.random(n) < 0.35
    load_base_w = rng.uniform(250, 900, n)
    export = rng.random(n) < 0.85
    return replace(
        homes,
        sites=tuple(f"site-{i:05d}" for i in range(n)),
        site_index=np.arange(n),
        # a clear summer day yields 0.9 to 1.6 times what the home uses
        pv_peak_w=(load_base_w * LOAD_X * 24 / CLEAR_H * rng.uniform(0.9, 1.6, n)).round(-2),
        load_base_w=load_base_w,
        inverter_w_max=np.where(coupled, rated_w * 1.2, np.inf),
        reserve_pct=rng.choice(np.arange(10, 31, 5), size=n).astype(np.float64),
        export_allowed=export,
        grid_charge_allowed=np.zeros(n, dtype=np.bool_),
        site_import_w_max=np.full(n, np.inf),
        site_export_w_max=np.where(export, np.inf, np.nan),
        soc_uncertainty_pct=np.full(n, unsure_pct),
        soc_step_pct=np.where(unsure_pct >= 2, np.where(rng.random(n) < 0.8, 1.0, 0.1), 0.1),
        ambient_c=rng.uniform(15, 28, n),
    )


class MeteredBatteries(Batteries):
    """Batteries in homes whose meters count what each buys, `bought_wh`. `alone`: the same ones as they would be if
    from some moment on nobody but their owners had them."""

    def __init__(self, homes: Homes, *, curves: SeasonCurves) -> None:
        super().__init__(homes, time_s=0.0, guard=False, curves=curves)
        self.bought_wh = np.zeros(len(homes))
        self.alone: MeteredBatteries | None = None

    def step(self, dt_s: float) -> None:
        super().step(dt_s)
        self.bought_wh += np.maximum(self.grid_w, 0.0) * dt_s / 3_600
        if self.alone is not None:
            self.alone.step(dt_s)

    def compare(self) -> None:
        """From now on there are others that are left alone."""
        self.alone = None
        alone = deepcopy(self)
        alone.mode[:], alone.blocked[:] = Mode.SELF_CONSUMPTION, False
        self.alone = alone


@dataclass
class SeasonStreet(Street):
    """A street whose product says how sure its SoC is."""

    def installed(self) -> dict[str, Codec]:
        codec = reference()
        facts = replace(codec.facts, soc_uncertainty_pct=float(self.homes.soc_uncertainty_pct.max()))
        return {codec.name: replace(codec, facts=facts)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Freedom:
    """What the optimum may do and know. `hours_alike`: prices differ from evening to evening alone. `obeys`: it serves
    a test that is not paid as one that is. `unsure`: beside the reserve it keeps what the product says its SoC may be
    wrong by. `since`: it is free from a moment before each event alone, the notice or the beginning of keeping, and
    begins with what the batteries really had then (None: it is free all season)."""

    hours_alike: bool = False
    obeys: bool = False
    unsure: bool = False
    since: Literal["notice", "keep"] | None = None


@dataclass
class Season:
    """`program`: what the events are of, and how long before them energy is kept. `given_wh`: by evening, what each
    battery has discharged less what it has charged, before its first hour and after each. `had_wh`: by evening and
    moment, the true energy of each battery then. `owed_wh`: what each home bought between notice and event beyond what
    it would have bought if its battery had gone on serving it alone."""

    homes: Homes
    events: Sequence[Evening]
    program: GridProgram = field(default_factory=dsgs)
    given_wh: dict[int, list[Floats]] = field(default_factory=lambda: defaultdict(list))
    had_wh: dict[tuple[int, str], Floats] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.first = self.events[0].day - timedelta(days=2)
        self._midnight_ms = round(datetime.combine(self.first, clock_time(), tzinfo=ZONE).timestamp() * 1000)
        days = (self.events[-1].day - self.first).days + 2
        homes = self.homes
        self.curves = SeasonCurves(
            load_base_w=homes.load_base_w, pv_peak_w=homes.pv_peak_w, seed=homes.seed, first=self.first, days=days
        )
        self.batteries = MeteredBatteries(homes, curves=self.curves)
        self.owed_wh = np.zeros(len(homes))
        self._start_wh = self.batteries.energy_wh.copy()

    def start_s(self, evening: Evening) -> float:
        """Seconds since the first midnight at which an event begins."""
        return (evening.day - self.first).days * DAY_S + evening.hour * 3_600.0

    def kept_s(self, evening: Evening) -> float:
        """How long before an event the program has energy kept."""
        start_ms = self._midnight_ms + round(1000 * self.start_s(evening))
        version = self.program.version_at(start_ms)
        return 0.0 if version is None else (start_ms - version.kept_from_ms(start_ms)) / 1000

    def end_s(self, evening: Evening) -> float:
        return self.start_s(evening) + len(evening.prices) * 3_600.0

    def _before(self, evening: Evening) -> tuple[tuple[Literal["notice", "keep"], float], ...]:
        """When an event is known, and from when on its energy is kept."""
        notice_s = ((evening.day - self.first).days - 1) * DAY_S + NOTICE_HOUR * 3_600.0
        keep_s = self.start_s(evening) - self.kept_s(evening)
        return ("notice", notice_s), ("keep", max(keep_s, notice_s + EDGE_S))

    # -- the run ---------------------------------------------------------------------------------------------

    async def run(self) -> "Season":
        numbered = list(enumerate(self.events))
        while numbered:
            count = 1
            while count < len(numbered) and (numbered[count][1].day - numbered[count - 1][1].day).days == 1:
                count += 1
            await self._stretch(numbered[:count])
            numbered = numbered[count:]
        return self

    async def _stretch(self, numbered: Sequence[tuple[int, Evening]]) -> None:
        batteries, homes = self.batteries, self.homes
        begin_s = ((numbered[0][1].day - self.first).days - 1) * DAY_S + FIRST_HOUR * 3_600.0
        while batteries.time_s < begin_s:
            batteries.step(min(OWN_STEP_S, begin_s - batteries.time_s))
        now_ms = self._midnight_ms + round(begin_s * 1000)
        settings = ControlSettings(
            fleet_w_per_s=float(homes.discharge_w_max.sum()) / RAMP_S, maintenance=MaintenanceSettings(recovery_s=0)
        )
        street = SeasonStreet(
            homes, settings=settings, physics=lambda *_args, **_other: batteries,
            clock=ManualClock(utc_ms=now_ms), now_ms=now_ms, rules={self.program.id: self.program},
        )  # fmt: skip
        for at_s, number, what in sorted(self._moments(numbered)):
            while (left_s := at_s - batteries.time_s) > 1e-6:
                tick_s, until_s = self._pace(batteries.time_s, [evening for _, evening in numbered])
                await street.go(min(left_s, until_s - batteries.time_s), tick_s=tick_s)
            evening = self.events[number]
            if what == "notice":
                start_s = self.start_s(evening)
                answer = await street.submit(
                    f"dsgs-{evening.day}", in_s=start_s - at_s, s=self.end_s(evening) - start_s,
                    target=power(None), program=self.program.id, kept_s=self.kept_s(evening),
                )  # fmt: skip
                if answer.reason is not None:
                    self.refused.append(answer.reason)
            if what.startswith("hour"):
                self.given_wh[number].append(batteries.discharged_wh - batteries.charged_wh)
            self._count(number, what)
            self.had_wh[number, what] = batteries.energy_wh.copy()
        self.problems += street.problems

    def _count(self, number: int, what: str) -> None:
        """What homes buy while an event is known and none runs, more than if their batteries were left alone."""
        batteries = self.batteries
        if what == "known":
            batteries.compare()
        elif what == "hour 0" and batteries.alone is not None:
            self.owed_wh += batteries.bought_wh - batteries.alone.bought_wh
            batteries.alone = None

    def _moments(self, numbered: Sequence[tuple[int, Evening]]) -> Iterator[tuple[float, int, str]]:
        for number, evening in numbered:
            for what, at_s in self._before(evening):
                yield at_s, number, what
            over_s = self.end_s(self.events[number - 1]) if number else 0.0
            yield max(over_s, dict(self._before(evening))["notice"]), number, "known"
            for hour in range(len(evening.prices) + 1):
                yield self.start_s(evening) + hour * 3_600.0, number, f"hour {hour}"
            yield self.end_s(evening) + RELEASE_S, number, "over"

    def _pace(self, now_s: float, events: Sequence[Evening]) -> tuple[float, float]:
        """From tick to tick, and until when so."""
        spans = []
        for evening in events:
            start_s, end_s, keep_s = self.start_s(evening), self.end_s(evening), dict(self._before(evening))["keep"]
            spans += [
                (keep_s, start_s, KEEPING_S), (start_s, end_s, EVENT_S),
                (keep_s - EDGE_BEFORE_S, keep_s + EDGE_AFTER_S, EDGE_S),
                (start_s - EDGE_BEFORE_S, start_s + EDGE_AFTER_S, EDGE_S),
                (end_s - EDGE_AFTER_S, end_s + RELEASE_S, EDGE_S),
            ]  # fmt: skip
        now = [tick_s for from_s, until_s, tick_s in spans if from_s <= now_s + 1e-6 < until_s]
        edges = [edge_s for from_s, until_s, _ in spans for edge_s in (from_s, until_s) if edge_s > now_s + 1e-6]
        return min(now, default=ORDINARY_S), min(edges, default=np.inf)

    # -- judged ----------------------------------------------------------------------------------------------

    @property
    def run_kw(self) -> list[list[Floats]]:
        """Mean net discharge of each battery in each hour of each evening."""
        return [
            [(after - before) / 1000 for before, after in pairwise(self.given_wh[number])]
            for number in range(len(self.events))
        ]

    def best_kw(self, freedom: Freedom) -> list[list[Floats]]:
        """The same of the optimum."""
        found = [[np.zeros(len(self.homes)) for _ in evening.prices] for evening in self.events]
        worth = self._worth(freedom)
        for home in range(len(self.homes)):
            battery = self._battery(home, freedom)
            events = [self._event(home, number, battery, worth[number], freedom) for number in range(len(self.events))]
            for number, steps_wh in enumerate(best_wh(battery, events, float(self._start_wh[home]))):
                for hour, given_wh in enumerate(steps_wh.reshape(len(self.events[number].prices), -1).sum(axis=1)):
                    found[number][hour][home] = given_wh / 1000
        return found

    def months(self, given_kw: list[list[Floats]], *, hours_alike: bool = False) -> dict[str, float]:
        """Demonstrated capacity of all homes by month, in kW."""
        homes = self.homes
        baseline_kw = BASELINE_RATIO * np.minimum(homes.discharge_w_max, homes.capacity_wh / DURATION_H) / 1000
        found: dict[str, float] = {}
        for month, numbers in groupby(range(len(self.events)), key=lambda number: self.events[number].day.month):
            hours = [
                (given_kw[number][hour], price)
                for number in numbers
                for hour, (paid, price) in enumerate(
                    zip(self.events[number].paid, self._prices(number, hours_alike), strict=True)
                )
                if paid
            ]
            prices = np.array([price for _, price in hours])
            each = np.array([kw for kw, _ in hours])
            found[f"{month:02d}"] = sum(
                capacity_kw(each[:, home], prices, float(baseline_kw[home])) for home in range(len(homes))
            )
        return found

    def _prices(self, number: int, hours_alike: bool) -> tuple[float, ...]:
        prices = self.events[number].prices
        return (sum(prices) / len(prices),) * len(prices) if hours_alike else prices

    def _worth(self, freedom: Freedom) -> list[tuple[float, ...]]:
        """What 1 kWh of each hour adds to the capacity of its month."""
        sums: dict[int, float] = {}
        for evening in self.events:
            paid = sum(price for price, counts in zip(evening.prices, evening.paid, strict=True) if counts)
            sums[evening.day.month] = sums.get(evening.day.month, 0.0) + paid
        return [
            tuple(
                price / sums[evening.day.month] if counts or freedom.obeys else 0.0
                for price, counts in zip(self._prices(number, freedom.hours_alike), evening.paid, strict=True)
            )
            for number, evening in enumerate(self.events)
        ]

    def _battery(self, home: int, freedom: Freedom) -> Battery:
        homes = self.homes
        floor_pct = homes.reserve_pct[home] + (homes.soc_uncertainty_pct[home] if freedom.unsure else 0.0)
        return Battery(
            capacity_wh=float(homes.capacity_wh[home]),
            floor_wh=float(homes.capacity_wh[home] * floor_pct / 100),
            efficiency_charge=float(homes.efficiency_charge[home]),
            efficiency_discharge=float(homes.efficiency_discharge[home]),
            standby_w=float(homes.standby_w[home]),
        )

    def _event(self, home: int, number: int, battery: Battery, worth: tuple[float, ...], freedom: Freedom) -> Event:
        evening = self.events[number]
        start_s, hours = self.start_s(evening), len(evening.prices)
        from_s, before_s = 0.0, self.end_s(self.events[number - 1]) if number else 0.0
        if freedom.since is not None:
            from_s = dict(self._before(evening))[freedom.since]
        # known before the event before is over: what that leaves
        fresh = from_s > before_s
        gain_wh, most_wh = between(
            self._meters(home, max(from_s, before_s), start_s).surplus_w, OWN_STEP_S / 3_600, battery
        )
        if fresh and freedom.since is not None:
            most_wh = min(most_wh, float(self.had_wh[number, freedom.since][home]) + gain_wh)
        within = self._meters(home, start_s, start_s + 3_600 * hours)
        steps = round(hours / QUARTER_H)
        return Event(
            room_w=within.room_w.reshape(steps, -1).mean(axis=1),
            surplus_w=within.surplus_w.reshape(steps, -1).mean(axis=1),
            weight=np.repeat(np.array(worth), round(1 / QUARTER_H)),
            step_h=QUARTER_H, gain_wh=gain_wh, most_wh=most_wh,
            fresh=fresh,
        )  # fmt: skip

    def _meters(self, home: int, from_s: float, until_s: float) -> "Meters":
        first, last = round(from_s / OWN_STEP_S), round(until_s / OWN_STEP_S)
        load_w, pv_w = self._weather
        return self._limits(home, load_w[first:last, home], pv_w[first:last, home])

    def _limits(self, home: int, load_w: Floats, pv_w: Floats) -> "Meters":
        homes = self.homes
        inverter_w = float(homes.inverter_w_max[home])
        pv_w = np.minimum(pv_w, inverter_w)
        room_w = np.minimum(float(homes.discharge_w_max[home]), inverter_w - pv_w)
        if not homes.export_allowed[home]:
            room_w = np.minimum(room_w, np.maximum(load_w - pv_w, 0.0))
        return Meters(
            room_w=room_w, surplus_w=np.clip(pv_w - load_w, 0.0, float(homes.charge_w_max[home])),
        )  # fmt: skip

    @cached_property
    def _weather(self) -> tuple[Floats, Floats]:
        """Load and available PV of each home in the middle of each step."""
        steps = round((self.start_s(self.events[-1]) + 6 * 3_600) / OWN_STEP_S)
        both = [self.curves.at((step + 0.5) * OWN_STEP_S) for step in range(steps)]
        return np.array([load_w for load_w, _ in both]), np.array([pv_w for _, pv_w in both])


@dataclass(frozen=True, slots=True, kw_only=True)
class Meters:
    room_w: Floats
    surplus_w: Floats

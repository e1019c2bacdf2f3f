"""The performance of one occurrence of an event: what each battery, home and customer and the whole program gave by the
hour, against what was asked, why the rest is missing, and what it is worth for now.

A figure that rests on a missing price, type, baseline or interval says so. Baselines are of homes; a battery has none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

import numpy as np

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.delivered import Delivered, EnergyBefore, HomeEnergy, delivered
from gateway.domain.programs.event_shares import EventShare, SharedEnergy, battery_parts, shared_energy
from gateway.domain.programs.event_value import (
    UNPAID,
    AreaHours,
    EventValue,
    PaidHome,
    ValuedEvent,
    ValuedRow,
    valued,
)
from gateway.domain.programs.metered import EventIntervals, MeteredWh
from gateway.domain.programs.pricing import cited_rules
from gateway.domain.programs.shortfalls import AskedOf, Short, Shortfalls, shortfalls
from gateway.domain.rules.calendar import local_day
from gateway.domain.rules.performance import BaselineMethod, Cited, Doubt, Level, MeasurementPoint
from gateway.domain.rules.program import ProgramVersion
from gateway.domain.rules.stacking import StackedClaim
from gateway.domain.types import Bools, Floats, Ints

W_PER_KW = 1000
COVERED_MIN_PCT = 90.0
"""An interval of which less is measured is missing in part: what it says may be less than there was."""


class FigureLevel(StrEnum):
    """Of what a figure is; the widest first."""

    PROGRAM = "program"
    CUSTOMER = "customer"
    SITE = "site"
    DEVICE = "device"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EventHomes:
    """Who is measured: batteries of which `site_of` names the home, and homes. `measured`: what each battery gave in
    whole intervals (+ = discharge) with the share of each interval that is covered (0 to 100); `grid`: the meters of
    homes (+ = import); `before`: what baselines need; `asked`: of each battery."""

    batteries: tuple[str, ...]
    site_of: Ints
    homes: tuple[PaidHome, ...]
    measured: MeteredWh
    covered_pct: Floats
    grid: MeteredWh
    asked: AskedOf
    nominal_w: Floats
    before: EnergyBefore | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlayedEvent:
    """An occurrence that is over. `claim`: the name of its own claim among `claims`; `awarded_w`: of each hour of it
    (None: none was asked for), `nominated_w`: of all its homes; `bounded_w`: by claim what its nomination bounds."""

    version: ProgramVersion
    point: MeasurementPoint
    intervals: EventIntervals
    claim: str
    claims: Sequence[StackedClaim]
    awarded_w: Sequence[Fraction] | None = None
    nominated_w: Fraction | None = None
    bounded_w: Mapping[str, float] = field(default_factory=dict)
    own_meter: bool = True
    """Whether the program's meter is read through the home's own one: then figures are estimates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HourFigure:
    """An hour by its start (UTC ms). `energy_wh`: what the program has of what the batteries gave, net; power over the
    event's part of the hour. `delivered_kw` against the baseline and within bounds, as power over the whole hour; None
    = not known."""

    start_ms: int
    part_s: int
    energy_wh: int
    delivered_kw: Fraction | None
    baseline_kw: Fraction | None
    covered_pct: float

    @property
    def power_w(self) -> Fraction:
        """Mean power."""
        return Fraction(self.energy_wh * 3600, self.part_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceFigure:
    """What one battery, home, customer or the program gave. Wh: `asked_wh` and `given_wh` are + in the direction that
    was asked and count all that the batteries gave, whosever it is; `reasons` sum to `short_wh`. `late_s` None: nothing
    started; of several batteries the latest. `why_no_baseline` "" = there is one, or none is asked for."""

    level: FigureLevel
    name: str
    within: str
    hours: tuple[HourFigure, ...]
    asked_wh: int
    given_wh: int
    short_wh: int
    reasons: Mapping[Short, int]
    late_s: float | None
    early_s: float
    covered_pct: float
    value: EventValue | None
    why_no_baseline: str = ""

    @property
    def energy_wh(self) -> int:
        """What the program has of what was given, net."""
        return sum(hour.energy_wh for hour in self.hours)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPerformance:
    """`figures` of each level, by name; `own_use_wh`: what was discharged and no program takes. `estimate`: a meter was
    read that is not the program's own."""

    program: str
    version: str
    point: MeasurementPoint
    estimate: bool
    paid_at: Level
    from_ms: int
    until_ms: int
    length_s: int
    awarded_w: Fraction | None
    nominated_w: Fraction | None
    own_use_wh: int
    unsure_homes: int
    figures: Mapping[FigureLevel, tuple[PerformanceFigure, ...]]
    rests_on_unverified: tuple[Doubt, ...]

    @property
    def whole(self) -> PerformanceFigure:
        """That of the program."""
        return self.figures[FigureLevel.PROGRAM][0]


def event_performance(event: PlayedEvent, homes: EventHomes, areas: Mapping[str, AreaHours]) -> EventPerformance:
    """What an event's homes gave. `areas`: what is known of the price areas that homes are in. Raises InvalidInput
    where the program says nothing of performance."""
    intervals, version = event.intervals, event.version
    first = local_day(version.zone, intervals.from_ms)
    cited = cited_rules(version, [first])
    _note_measurement(version, cited)
    at_home = HomeEnergy(batteries=homes.measured.added(homes.site_of, len(homes.homes)), grid=homes.grid)
    shared = shared_energy(at_home.batteries, at_home.load, event.claims, intervals, event.bounded_w)
    share = shared.shares[event.claim]
    nominal_w = homes.nominal_w
    found = delivered(cited, event.point, share.net, at_home, homes.before, nominal_w, intervals)
    valued_rows = _valued(event, cited, found, homes, areas)
    in_event = MeteredWh(wh=intervals.in_part(homes.measured.wh), known=homes.measured.known)
    figures = _Figures(
        intervals=intervals, homes=homes, found=found, share=share, valued=valued_rows,
        short=shortfalls(homes.asked, in_event, homes.covered_pct, intervals),
    )  # fmt: skip
    estimate = event.point is MeasurementPoint.UTILITY_METER and event.own_meter
    return EventPerformance(
        program=version.program, version=version.name, point=event.point, estimate=estimate,
        paid_at=valued_rows.paid_at, from_ms=intervals.from_ms, until_ms=intervals.until_ms,
        length_s=intervals.length_ms // 1000, awarded_w=_mean_w(event), nominated_w=event.nominated_w,
        own_use_wh=_own_use_wh(shared, event, intervals), unsure_homes=int((~share.sure).any(axis=1).sum()),
        figures=figures.all(), rests_on_unverified=cited.rests_on_unverified,
    )  # fmt: skip


def _note_measurement(version: ProgramVersion, cited: Cited) -> None:
    if version.measurement is not None:
        cited.read("measurement.point", version.measurement.point)
        cited.read("measurement.interval_length_s", version.measurement.length_s)
    window, method = version.preparation.adjustment, cited.rules.baseline.value
    if window is not None and method in (BaselineMethod.CAISO_PDR, BaselineMethod.SAME_DAY):
        cited.read("performance.adjustment_window", window)


def _valued(
    event: PlayedEvent, cited: Cited, found: Delivered, measured: EventHomes, areas: Mapping[str, AreaHours]
) -> ValuedEvent:
    homes = measured.homes
    nomination_kw = None if event.nominated_w is None else event.nominated_w / W_PER_KW
    try:
        return valued(event.version, cited, found, homes, areas, nomination_kw, _thin(measured))
    except InvalidInput as error:
        unpaid = EventValue(status=UNPAID, why="; ".join(error.problems))
        unbounded = found.hour_kw()
        rows = [
            ValuedRow(name=one.name, customer=one.customer, kw=kw, value=None)
            for one, kw in zip(homes, unbounded, strict=True)
        ]
        return ValuedEvent(
            paid_at=Level.AGGREGATION, homes=tuple(rows), customers=(),
            program=ValuedRow(name="", customer="", kw=_columns([row.kw for row in rows]), value=unpaid),
        )  # fmt: skip


def _thin(homes: EventHomes) -> Bools:
    """Homes of which too little of some interval was measured."""
    found = np.zeros(len(homes.homes), dtype=np.bool_)
    thin = np.any(homes.covered_pct < COVERED_MIN_PCT, axis=1)
    found[homes.site_of[(homes.site_of >= 0) & thin]] = True
    return found


def _own_use_wh(shared: SharedEnergy, event: PlayedEvent, intervals: EventIntervals) -> int:
    """Of the intervals that the event touches, what was discharged and is nobody's."""
    return int(np.maximum(shared.own_use_wh, 0).sum())


def _mean_w(event: PlayedEvent) -> Fraction | None:
    if event.awarded_w is None:
        return None
    parts = event.intervals.hour_parts_ms.tolist()
    energy = sum((watts * part for watts, part in zip(event.awarded_w, parts, strict=True)), Fraction(0))
    return energy / int(event.intervals.hour_parts_ms.sum())


def _columns(rows: Sequence[Sequence[Fraction]]) -> tuple[Fraction, ...]:
    return tuple(sum(column, Fraction(0)) for column in zip(*rows, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Figures:
    intervals: EventIntervals
    homes: EventHomes
    found: Delivered
    share: EventShare
    valued: ValuedEvent
    short: Shortfalls

    def all(self) -> Mapping[FigureLevel, tuple[PerformanceFigure, ...]]:
        homes, n = self.homes, len(self.homes.homes)
        each, site_of = np.arange(len(homes.batteries)), homes.site_of
        names = [home.name for home in homes.homes]
        customers = sorted({home.customer for home in homes.homes if home.customer})
        number = {name: place for place, name in enumerate(customers)}
        customer_of_home = np.array([number.get(home.customer, -1) for home in homes.homes], dtype=np.int64)
        customer_of = np.where(site_of >= 0, customer_of_home[site_of], -1) if n else site_of
        by_customer = {row.name: row for row in self.valued.customers}
        batteries = battery_parts(self.share, homes.measured, site_of, self.intervals)
        energy_wh = self.share.net.wh
        return {
            FigureLevel.PROGRAM: self._rows(
                FigureLevel.PROGRAM, [""], [""], np.zeros(n, dtype=np.int64), energy_wh,
                np.where(site_of >= 0, 0, -1), [self.valued.program],
            ),
            FigureLevel.CUSTOMER: self._rows(
                FigureLevel.CUSTOMER, customers, [""] * len(customers), customer_of_home, energy_wh, customer_of,
                [by_customer.get(name) for name in customers],
            ),
            FigureLevel.SITE: self._rows(
                FigureLevel.SITE, names, [home.customer for home in homes.homes], np.arange(n), energy_wh, site_of,
                self.valued.homes,
            ),
            FigureLevel.DEVICE: self._rows(
                FigureLevel.DEVICE, homes.batteries, [names[at] if at >= 0 else "" for at in site_of.tolist()], each,
                batteries.wh, each, [None] * len(each),
            ),
        }  # fmt: skip

    def _rows(
        self,
        level: FigureLevel,
        names: Sequence[str],
        within: Sequence[str],
        energy_of: Ints,
        energy_wh: Ints,
        battery_of: Ints,
        rows: Sequence[ValuedRow | None],
    ) -> tuple[PerformanceFigure, ...]:
        """`energy_of`: to which figure each row of `energy_wh` belongs, `battery_of` each battery; -1 = to none."""
        n, short = len(names), self.short

        def summed(values: Ints, row_of: Ints) -> Ints:
            out = np.zeros((n, *values.shape[1:]), dtype=values.dtype)
            np.add.at(out, row_of[row_of >= 0], values[row_of >= 0])
            return out

        hours_wh = self.intervals.by_hour(summed(energy_wh, energy_of)).tolist()
        asked, given, missing = (
            summed(one, battery_of).tolist() for one in (short.asked_wh, short.given_wh, short.short_wh)
        )
        reasons = {why: summed(wh, battery_of).tolist() for why, wh in short.reasons.items()}
        late, early = np.full(n, -1.0), np.zeros(n)
        mine = battery_of >= 0
        np.maximum.at(late, battery_of[mine], np.where(np.isnan(short.late_s), -1.0, short.late_s)[mine])
        np.maximum.at(early, battery_of[mine], short.early_s[mine])
        covered, covered_hours = self._covered(battery_of, n)
        baselines = self._baselines_kw(level, energy_of, n)
        whys = self._whys(level, energy_of, n)
        return tuple(
            PerformanceFigure(
                level=level, name=name, within=within[at],
                hours=self._hours(rows[at], hours_wh[at], baselines[at], covered_hours[at], known=not whys[at]),
                asked_wh=asked[at], given_wh=given[at], short_wh=missing[at],
                reasons={why: wh[at] for why, wh in reasons.items() if wh[at]},
                late_s=None if late[at] < 0 else float(late[at]), early_s=float(early[at]), covered_pct=covered[at],
                value=None if (row := rows[at]) is None else row.value, why_no_baseline=whys[at],
            )
            for at, name in enumerate(names)
        )  # fmt: skip

    def _hours(
        self,
        row: ValuedRow | None,
        energy_wh: Sequence[int],
        baseline_kw: Sequence[Fraction] | None,
        covered_pct: Sequence[float],
        *,
        known: bool,
    ) -> tuple[HourFigure, ...]:
        return tuple(
            HourFigure(
                start_ms=start_ms, part_s=int(self.intervals.hour_parts_ms[at]) // 1000, energy_wh=energy_wh[at],
                delivered_kw=None if row is None or not known else row.kw[at],
                baseline_kw=None if baseline_kw is None or not known else baseline_kw[at],
                covered_pct=covered_pct[at],
            )
            for at, start_ms in enumerate(self.intervals.hours_ms)
        )  # fmt: skip

    def _covered(self, battery_of: Ints, n: int) -> tuple[list[float], list[list[float]]]:
        """How much of the event, and of each hour, is measured, % of batteries and time."""
        time_ms = self.homes.covered_pct * self.intervals.part_ms
        first = np.searchsorted(self.intervals.hour_of, np.arange(len(self.intervals.hours_ms)))
        hours = np.zeros((n, len(first)))
        mine = battery_of >= 0
        np.add.at(hours, battery_of[mine], np.add.reduceat(time_ms, first, axis=1)[mine])
        count = np.maximum(np.bincount(battery_of[mine], minlength=n), 1)[:, np.newaxis]
        parts = self.intervals.hour_parts_ms
        whole = (hours.sum(axis=1) / (count[:, 0] * parts.sum())).tolist()
        return whole, (hours / (count * parts)).tolist()

    def _baselines_kw(self, level: FigureLevel, energy_of: Ints, n: int) -> list[Sequence[Fraction] | None]:
        """The baseline of homes, added up; a battery has none."""
        if level is FigureLevel.DEVICE:
            return [None] * n
        wh = self.found.hour_baselines_wh()
        if level is FigureLevel.SITE:
            return [[one / W_PER_KW for one in row] for row in wh]
        sums = [[Fraction(0)] * len(self.intervals.hours_ms) for _ in range(n)]
        for place, row in zip(energy_of.tolist(), wh, strict=True):
            if place >= 0:
                sums[place] = [one + more / W_PER_KW for one, more in zip(sums[place], row, strict=True)]
        return [*sums]

    def _whys(self, level: FigureLevel, energy_of: Ints, n: int) -> list[str]:
        """Why homes have no baseline; of several, where none has one."""
        if level is FigureLevel.DEVICE:
            return [""] * n
        why = self.found.baselines.why
        if level is FigureLevel.SITE:
            return [str(one) for one in why]
        known = np.zeros(n, dtype=np.bool_)
        told = np.full(n, "", dtype=object)
        mine = energy_of >= 0
        known[energy_of[mine & (why == "")]] = True
        told[energy_of[mine]] = why[mine]
        return [str(one) if not based else "" for one, based in zip(told, known, strict=True)]

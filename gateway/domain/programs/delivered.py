"""What homes delivered in an event by the rules of its program: measured where the program measures, against its
baseline, by interval and by hour.

+ = given to the home or the grid. At a battery that is what it discharged of its program's share, net of charging; at a
meter it is what the home drew less, an export being no more than drawing nothing unless exports count. An interval that
nobody measured gives nothing: a battery's baseline is still taken off it, a meter's is not.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.baseline import matching_of
from gateway.domain.programs.metered import HOUR_MS, EventIntervals, MeteredWh
from gateway.domain.programs.site_baselines import (
    LikeDayEnergy,
    SiteBaselines,
    hours_before,
    like_days_mean,
    no_baselines,
    prescriptive,
    unfounded,
)
from gateway.domain.rules.performance import BaselineMethod, BoundOf, Cited, MeasurementPoint
from gateway.domain.types import Bools, Floats

WH_PER_KWH = 1000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HomeEnergy:
    """Wh of homes: their batteries (+ = discharge), and the meter at the grid (+ = import)."""

    batteries: MeteredWh
    grid: MeteredWh

    @property
    def load(self) -> MeteredWh:
        """What the homes would have drawn without their batteries, net of PV."""
        return self.grid.plus(self.batteries)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EnergyBefore:
    """What a baseline is worked out from: like days in the event's intervals and in the adjustment window (homes x days
    x intervals, newest first), and the window of the event's own day. `usable`: homes x days."""

    event: HomeEnergy
    window: HomeEnergy
    today: HomeEnergy
    usable: Bools


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Delivered:
    """Homes x intervals. `given`: in the event's part of each; `baselines` of whole intervals, in the same direction.
    `load`: what bounds it where the program says so."""

    given: MeteredWh
    baselines: SiteBaselines
    load: MeteredWh
    intervals: EventIntervals
    subtracted: Bools
    """Where the baseline is taken off."""

    def baseline_wh(self, home: int, place: int) -> Fraction:
        """That of the event's part of an interval."""
        whole = Fraction(self.baselines.wh[home, place], self.baselines.over[home])
        return whole * int(self.intervals.part_ms[place]) / self.intervals.length_ms

    def interval_kw(self, home: int) -> tuple[Fraction, ...]:
        """What a home delivered in each interval, as power over the whole of it."""
        kwh_to_kw = Fraction(HOUR_MS, self.intervals.length_ms * WH_PER_KWH)
        given, off = self.given.wh[home].tolist(), self.subtracted[home].tolist()
        return tuple(
            (wh - self.baseline_wh(home, place) if off[place] else Fraction(wh)) * kwh_to_kw
            for place, wh in enumerate(given)
        )

    def interval_load_kw(self, home: int) -> tuple[Fraction, ...]:
        """What it would have drawn without its battery, of the event's part."""
        kwh_to_kw = Fraction(HOUR_MS, self.intervals.length_ms * WH_PER_KWH)
        return tuple(wh * kwh_to_kw for wh in self.intervals.in_part(self.load.wh[home : home + 1])[0].tolist())

    def hour_kw(self) -> list[tuple[Fraction, ...]]:
        """What each home delivered in each hour, as power over the whole of it."""
        given = self.intervals.by_hour(self.given.wh).tolist()
        return [
            tuple((wh - off) / WH_PER_KWH for wh, off in zip(row, offs, strict=True))
            for row, offs in zip(given, self.hour_baselines_wh(), strict=True)
        ]

    def hour_baselines_wh(self) -> list[tuple[Fraction, ...]]:
        """What is taken off each home's energy in each hour."""
        length_ms = self.intervals.length_ms
        off = self.intervals.by_hour(self.baselines.wh * self.subtracted * self.intervals.part_ms.astype(object))
        return [
            tuple(Fraction(wh, over * length_ms) for wh in row)
            for row, over in zip(off.tolist(), self.baselines.over.tolist(), strict=True)
        ]


def delivered(
    cited: Cited,
    point: MeasurementPoint,
    share: MeteredWh,
    now: HomeEnergy,
    before: EnergyBefore | None,
    nominal_w: Floats,
    intervals: EventIntervals,
) -> Delivered:
    """`share`: what of the batteries' energy is the program's, in the event's part of each interval. `before` None =
    nothing is known of earlier days."""
    method = cited.read("performance.baseline", cited.rules.baseline)
    counts = _exports_counted(cited, point, method)
    at_battery = point is MeasurementPoint.BATTERY_AC or method is BaselineMethod.GENERATOR_OUTPUT
    given = share
    if not at_battery:
        drawn = _counted(method, now, at_battery=False, exports_counted=counts)
        given = MeteredWh(wh=-intervals.in_part(drawn.wh), known=drawn.known)
    elif not counts:
        load_wh = intervals.in_part(np.maximum(now.load.wh, 0))
        known = share.known & now.load.known
        given = MeteredWh(wh=np.where(known, np.minimum(share.wh, load_wh), 0), known=known)
    if _bounded_by_load(cited):
        given = MeteredWh(wh=np.where(now.load.known, given.wh, 0), known=given.known & now.load.known)
    baselines = _baselines(
        cited, method, before, nominal_w, given.wh.shape, intervals, at_battery=at_battery, exports_counted=counts
    )
    founded = baselines.known[:, np.newaxis]
    return Delivered(
        # without a baseline nobody knows what was delivered: it counts for nothing until there is one
        given=MeteredWh(wh=np.where(founded, given.wh, 0), known=given.known),
        baselines=baselines,
        load=now.load,
        intervals=intervals,
        subtracted=(given.known | at_battery) & founded,
    )


def _bounded_by_load(cited: Cited) -> bool:
    bounds = (cited.rules.cap, cited.rules.floor)
    return any(one is not None and one.value.of is BoundOf.SITE_LOAD for one in bounds)


def _exports_counted(cited: Cited, point: MeasurementPoint, method: BaselineMethod) -> bool:
    """A program without a baseline at a meter pays for exports, one of a battery for all it gives."""
    at_meter = point is not MeasurementPoint.BATTERY_AC and method not in (
        BaselineMethod.NONE, BaselineMethod.PRESCRIPTIVE
    )  # fmt: skip
    if at_meter or method is BaselineMethod.GENERATOR_OUTPUT:
        return cited.or_else("performance.exports_counted", cited.rules.exports_counted, False)
    return True


def _counted(method: BaselineMethod, energy: HomeEnergy, *, at_battery: bool, exports_counted: bool) -> MeteredWh:
    """What a baseline is of: battery + = discharge, meter + = import."""
    if method is BaselineMethod.GENERATOR_OUTPUT and not exports_counted:
        known = energy.batteries.known & energy.load.known
        wh = np.minimum(energy.batteries.wh, np.maximum(energy.load.wh, 0))
        return MeteredWh(wh=np.where(known, wh, 0), known=known)
    if at_battery:
        return energy.batteries
    grid = energy.grid
    return grid if exports_counted else MeteredWh(wh=np.maximum(grid.wh, 0), known=grid.known)


def _baselines(
    cited: Cited,
    method: BaselineMethod,
    before: EnergyBefore | None,
    nominal_w: Floats,
    shape: tuple[int, ...],
    intervals: EventIntervals,
    *,
    at_battery: bool,
    exports_counted: bool,
) -> SiteBaselines:
    homes, count = shape
    if method is BaselineMethod.NONE:
        return no_baselines(homes, count)
    try:
        if method is BaselineMethod.PRESCRIPTIVE:
            return prescriptive(cited.number("baseline-ratio"), nominal_w, count, intervals.length_ms)
        if before is None:
            return unfounded(homes, count, "nothing is known of the days before")
        today = _counted(method, before.today, at_battery=at_battery, exports_counted=exports_counted)
        if method is BaselineMethod.SAME_DAY:
            found = hours_before(today, count)
        else:
            matching = matching_of(cited, adjusted=method is BaselineMethod.CAISO_PDR)
            energy = LikeDayEnergy(
                event=_counted(method, before.event, at_battery=at_battery, exports_counted=exports_counted),
                window=_counted(method, before.window, at_battery=at_battery, exports_counted=exports_counted),
                today=today,
                usable=before.usable,
            )
            found = like_days_mean(energy, matching)
    except InvalidInput as error:
        return unfounded(homes, count, "; ".join(error.problems))
    return found if at_battery else found.negative()

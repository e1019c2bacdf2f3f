"""Events that are over, in a few words: programs by hand, homes with a battery each, what their intervals measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from gateway.domain.events.delivery_records import Failure, Status
from gateway.domain.programs.delivered import EnergyBefore, HomeEnergy
from gateway.domain.programs.event_performance import EventHomes, EventPerformance, PlayedEvent, event_performance
from gateway.domain.programs.event_value import AreaHours, PaidHome
from gateway.domain.programs.metered import EventIntervals, MeteredWh
from gateway.domain.programs.shortfalls import AskedOf
from gateway.domain.rules.performance import (
    BaselineMethod,
    BoundOf,
    BoundPer,
    EventTypes,
    Formula,
    Level,
    MeasurementPoint,
    PerformanceBound,
    PerformanceRules,
)
from gateway.domain.rules.program import ProgramVersion
from gateway.domain.rules.rates import DateRange, Rate, RateUnit
from gateway.domain.rules.stacking import ALONE, StackedClaim, StackingTerms
from gateway.domain.rules.values import Certainty, Evident, T

QUARTER_MS, HOUR_MS = 900_000, 3_600_000
ZONE = "America/Los_Angeles"
SIX_PM_MS = int(datetime(2025, 5, 7, 1, tzinfo=UTC).timestamp() * 1000)
"""18:00 of 6 May 2025 in Los Angeles."""

TYPES = EventTypes(counted=frozenset({"Capacity"}), uncounted=frozenset({"Energy-Only"}))


def known(value: T) -> Evident[T]:
    return Evident(value=value, certainty=Certainty.VERIFIED, source="page")


def bound(
    level: Level, per: BoundPer, kw: int | None = 0, of: BoundOf | None = None
) -> Evident[PerformanceBound]:  # fmt: skip
    return known(PerformanceBound(kw=None if kw is None else Fraction(kw), of=of, level=level, per=per))


def program(
    baseline: BaselineMethod, formula: Formula, *, amount: str = "2", unit: RateUnit = RateUnit.KWH, **rules: Any
) -> ProgramVersion:
    """A program that pays `amount` dollars per `unit`; `parameters` are texts by name."""
    parameters = {name: known(Decimal(text)) for name, text in rules.pop("parameters", {}).items()}
    rate = Rate(
        name="rate", amount=Decimal(amount), currency="USD", unit=unit, certainty=Certainty.VERIFIED, source="page"
    )
    return ProgramVersion(
        program="p", name="one", zone=ZONE, days=DateRange(),
        performance=PerformanceRules(
            baseline=known(baseline), formula=known(formula), parameters=parameters, **rules
        ),
        rates=(rate,),
    )  # fmt: skip


HOME = PaidHome(name="", area="north", nominal_kw=Fraction(5))


@dataclass(frozen=True, kw_only=True)
class Played:
    """`battery_wh` and `grid_wh` of each home's intervals (None = unknown); every home has one battery, asked for
    `asked_wh`."""

    version: ProgramVersion
    battery_wh: Sequence[Sequence[float | None]]
    grid_wh: Sequence[Sequence[float | None]] | None = None
    point: MeasurementPoint = MeasurementPoint.BATTERY_AC
    from_ms: int = SIX_PM_MS
    until_ms: int = SIX_PM_MS + HOUR_MS
    length_ms: int = QUARTER_MS
    asked_wh: float = 0.0
    before: EnergyBefore | None = None
    others: Sequence[StackedClaim] = ()
    terms: StackingTerms = ALONE
    nominal_w: float = 5_000.0
    nominated_w: int | None = None
    areas: Mapping[str, AreaHours] = field(default_factory=dict)
    home: PaidHome = HOME
    customers: Sequence[str] = ()
    covered_pct: float = 100.0

    def performance(self) -> EventPerformance:
        n = len(self.battery_wh)
        intervals = EventIntervals(from_ms=self.from_ms, until_ms=self.until_ms, length_ms=self.length_ms)
        measured = metered(self.battery_wh)
        grid = MeteredWh.unknown(measured.wh.shape) if self.grid_wh is None else metered(self.grid_wh)
        claim = StackedClaim(
            name="mine", rank=4, homes=np.ones(n, dtype=np.bool_), from_ms=self.from_ms, until_ms=self.until_ms,
            terms=self.terms,
        )  # fmt: skip
        homes = EventHomes(
            batteries=tuple(f"battery-{at}" for at in range(n)), site_of=np.arange(n),
            homes=tuple(
                replace(self.home, name=f"home-{at}", customer=who)
                for at, who in enumerate(self.customers or [f"customer-{at}" for at in range(n)])
            ),
            measured=measured, covered_pct=np.where(measured.known, self.covered_pct, 0.0), grid=grid,
            asked=self._asked(n),
            nominal_w=np.full(n, self.nominal_w), before=self.before,
        )  # fmt: skip
        event = PlayedEvent(
            version=self.version, point=self.point, intervals=intervals, claim="mine", claims=[claim, *self.others],
            nominated_w=None if self.nominated_w is None else Fraction(self.nominated_w),
        )  # fmt: skip
        return event_performance(event, homes, self.areas)

    def _asked(self, n: int) -> AskedOf:
        return AskedOf(
            asked_wh=np.full(n, self.asked_wh), status=np.full(n, Status.COMPLETED, dtype=np.int8),
            failure=np.full(n, Failure.NONE, dtype=np.int8), limits=np.zeros(n, dtype=np.uint64),
            started_ms=np.full(n, self.from_ms), status_ms=np.full(n, self.until_ms),
        )  # fmt: skip


def metered(rows: Sequence[Any]) -> MeteredWh:
    """None = unknown."""
    return MeteredWh.of(np.array(rows, dtype=np.float64))


def even(kw: float, hours: int = 1) -> list[float]:
    """Quarters of hours of one power, Wh."""
    return [kw * 250] * 4 * hours


def priced(hours: Mapping[int, tuple[str | None, str | None]], month: Sequence[str] = ()) -> AreaHours:
    """Type and price of hours by their start; `month`: other prices of May 2025."""
    prices = {at: Decimal(price) for at, (_, price) in hours.items() if price is not None}
    return AreaHours(
        types={at: kind for at, (kind, _) in hours.items()}, prices=prices,
        of_month={(2025, 5): [*prices.values(), *map(Decimal, month)]},
    )  # fmt: skip


def days_before(
    event: Sequence[Sequence[Sequence[float | None]]],
    window: Sequence[Sequence[Sequence[float | None]]],
    today: Sequence[Sequence[float | None]],
    *,
    at_meter: bool = True,
    load_above: float = 0.0,
) -> EnergyBefore:
    """Homes x days x intervals, the newest day first; of the meter, or of the battery (whose home then draws
    `load_above` more than it gives)."""
    parts = []
    for rows in (event, window, today):
        found = metered(rows)
        other = MeteredWh(wh=np.where(found.known, int(load_above), 0), known=found.known)
        parts.append(HomeEnergy(batteries=other, grid=found) if at_meter else HomeEnergy(batteries=found, grid=other))
    return EnergyBefore(
        event=parts[0], window=parts[1], today=parts[2], usable=np.ones(parts[0].grid.wh.shape[:2], dtype=np.bool_)
    )

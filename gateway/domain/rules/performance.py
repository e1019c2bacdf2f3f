"""How a program works out performance, as data: the names of a baseline and of a formula, their numbers, floor and cap.

Every value keeps how well it is known; what reads them through `Cited` can say what a figure rests on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import TypeVar

from gateway.domain.errors import InvalidInput
from gateway.domain.rules.values import Certainty, Evident

T = TypeVar("T")


class BaselineMethod(StrEnum):
    """What a site is taken to have done without the event. `prescriptive`: a share of nominal power; `caiso-pdr`: like
    days with a same-day adjustment; `usual-discharge`: like days of the battery; `same-day`: the hours just before;
    `generator-output`: what the battery gives its home, less what it usually gives."""

    NONE = "none"
    PRESCRIPTIVE = "prescriptive"
    CAISO_PDR = "caiso-pdr"
    USUAL_DISCHARGE = "usual-discharge"
    SAME_DAY = "same-day"
    GENERATOR_OUTPUT = "generator-output"


class MeasurementPoint(StrEnum):
    """Where a program measures."""

    BATTERY_AC = "battery_ac"
    SITE_CT = "site_ct"
    UTILITY_METER = "utility_meter"


class Formula(StrEnum):
    """What performance over a period is. `certificates` and `tariff` are not worked out here."""

    PRICE_WEIGHTED_CAPACITY = "price_weighted_capacity"
    MEAN_EVENT_POWER = "mean_event_power"
    MEAN_WINDOW_POWER = "mean_window_power"
    ENERGY = "energy"
    CAPACITY = "capacity"
    BEST_TWO_HOURS = "best_two_hours"
    BID_BANDS = "bid_bands"
    CERTIFICATES = "certificates"
    TARIFF = "tariff"


class Level(StrEnum):
    """What is added up before a floor or a cap applies."""

    SITE = "site"
    AGGREGATION = "aggregation"
    CUSTOMER = "customer"


class BoundOf(StrEnum):
    """What a floor or a cap is taken from."""

    NOMINATION = "nomination"
    NOMINAL_POWER = "nominal_power"
    SITE_LOAD = "site_load"


class BoundPer(StrEnum):
    """Over which time a floor or a cap applies."""

    INTERVAL = "interval"
    HOUR = "hour"
    EVENT = "event"
    MONTH = "month"
    SEASON = "season"


class LikeDays(StrEnum):
    """Which days before an event are like its own: all, those that are workdays as it is (or are not, as it is not),
    or those of its weekday."""

    ALL = "all"
    WORKDAYS = "workdays"
    SAME_WEEKDAY = "same_weekday"


class TieBreak(StrEnum):
    """Which of two days that are alike is taken first."""

    EARLIER = "earlier"
    LATER = "later"


class AdjustBy(StrEnum):
    """How a baseline is adjusted by what was before the event: multiplied, or added to."""

    RATIO = "ratio"
    DIFFERENCE = "difference"


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceBound:
    """A floor or a cap: kW, or (where `kw` is None) what it is taken from; of what, and over which time."""

    kw: Fraction | None
    of: BoundOf | None
    level: Level
    per: BoundPer


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTypes:
    """The types of official hours by which a program measures, and those by which it does not."""

    counted: frozenset[str]
    uncounted: frozenset[str] = frozenset()

    def counts(self, name: str) -> bool | None:
        """Whether hours of a type count; None = the program has no such type."""
        found = name.strip().casefold()
        if found in {one.casefold() for one in self.counted}:
            return True
        return False if found in {one.casefold() for one in self.uncounted} else None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementRules:
    """Where a program measures, and by which interval."""

    point: Evident[MeasurementPoint]
    length_s: Evident[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceRules:
    """Those of one version of a program. None = the program does not say."""

    baseline: Evident[BaselineMethod]
    formula: Evident[Formula]
    parameters: Mapping[str, Evident[Decimal]] = field(default_factory=dict)
    floor: Evident[PerformanceBound] | None = None
    cap: Evident[PerformanceBound] | None = None
    like_days: Evident[LikeDays] | None = None
    ties: Evident[TieBreak] | None = None
    adjust_by: Evident[AdjustBy] | None = None
    exports_counted: Evident[bool] | None = None
    event_types: Evident[EventTypes] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A value that a figure rests on and that is not verified: where it stands, how well it is known, its source."""

    path: str
    certainty: Certainty
    source: str


class Cited:
    """Reads the rules of a version and remembers what was read."""

    def __init__(self, rules: PerformanceRules) -> None:
        self.rules = rules
        self._doubts: dict[str, Doubt] = {}

    def note(self, path: str, certainty: Certainty, source: str) -> None:
        """A figure rests on this too."""
        if certainty is not Certainty.VERIFIED:
            self._doubts[path] = Doubt(path=path, certainty=certainty, source=source)

    def read(self, path: str, value: Evident[T]) -> T:
        """A value of the rules."""
        self.note(path, value.certainty, value.source)
        return value.value

    def or_else(self, path: str, value: Evident[T] | None, default: T) -> T:
        """A value of the rules, or what is taken where the program does not say; nobody has verified that."""
        if value is not None:
            return self.read(path, value)
        self.note(path, Certainty.UNVERIFIED, "not stated by the program")
        return default

    def number(self, name: str) -> Fraction:
        """A parameter by its name. Raises InvalidInput where it is missing."""
        found = self.optional(name)
        if found is None:
            raise InvalidInput([f"performance.parameters.{name}: missing"])
        return found

    def optional(self, name: str) -> Fraction | None:
        """A parameter by its name; None = the program has none."""
        value = self.rules.parameters.get(name)
        return None if value is None else Fraction(self.read(f"performance.parameters.{name}", value))

    @property
    def rests_on_unverified(self) -> tuple[Doubt, ...]:
        """What was read and is not verified, by its place."""
        return tuple(self._doubts[path] for path in sorted(self._doubts))

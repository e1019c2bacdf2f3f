"""What a program says of who may be in it and of what is due when: its terms, by the days on which they hold."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

from gateway.domain.programs.eligibility import Requirements
from gateway.domain.rules.calendar import Season, local_day, local_ms, midnight_ms
from gateway.domain.rules.rates import DateRange
from gateway.domain.rules.values import Certainty

Per = Literal["day", "month", "season"]
DATA_DUE, NOMINATION_OPENS, NOMINATION_DUE = "data", "nomination opens", "nomination"
ANYBODY = Requirements()
LONGEST_D = 367
"""Days of the longest period, a season that is a whole year."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DueRule:
    """Something is due once for each day, month or season: `days` local days after its last one, or before its first
    one where `before`, by a local time of day (minutes after midnight)."""

    what: str
    per: Per
    days: int
    by_min: int
    certainty: Certainty
    before: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TermsVersion:
    """The terms on some days. `unverified`: names of values that rest on no text; `coverage_min_pct`: the share of an
    interval that is measured where it counts as complete; `interval_s`: the length of an interval; `point`: where it is
    measured; None and "" = not said."""

    name: str
    days: DateRange
    requirements: Requirements = ANYBODY
    unverified: frozenset[str] = frozenset()
    seasons: tuple[Season, ...] = ()
    due: tuple[DueRule, ...] = ()
    coverage_min_pct: float = 100.0
    interval_s: int | None = None
    point: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TermsPeriod:
    """A stretch of whole local days that something is due for; `until` is not inside."""

    name: str
    first: date
    until: date


@dataclass(frozen=True, slots=True, kw_only=True)
class TermsDue:
    """What is due at `at_ms` (UTC) for a period, which lasts from `from_ms` until `until_ms`."""

    what: str
    period: str
    from_ms: int
    until_ms: int
    at_ms: int
    certainty: Certainty
    coverage_min_pct: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramTerms:
    """A program's terms. A battery is in one program at most of those that share one of the groups `exclusive`.
    `versions` in the order of their days."""

    zone: str = "UTC"
    exclusive: frozenset[str] = frozenset()
    versions: tuple[TermsVersion, ...] = ()

    def on(self, utc_ms: int) -> TermsVersion:
        """The version of the local day of an instant; between versions and after the last one the one before, before
        all of them the first."""
        day, found = local_day(self.zone, utc_ms), TermsVersion(name="", days=DateRange())
        for version in reversed(self.versions):
            found = version
            if version.days.first is None or version.days.first <= day:
                break
        return found

    def narrowed(self, requirements: Requirements) -> "ProgramTerms":
        """The same, where every version asks for at least this too."""
        versions = self.versions or (TermsVersion(name="", days=DateRange()),)
        return replace(
            self,
            versions=tuple(
                replace(version, requirements=version.requirements.narrowed(requirements)) for version in versions
            ),
        )

    def due(self, from_ms: int, until_ms: int) -> Iterator[TermsDue]:
        """What is due from an instant until another one, in no order."""
        first, last = local_day(self.zone, from_ms), local_day(self.zone, until_ms)
        for version in self.versions:
            for rule in version.due:
                reach = timedelta(days=rule.days + LONGEST_D)
                for period in _periods(version, rule.per, first - reach, last + reach):
                    due = self._due(version, rule, period)
                    if from_ms <= due.at_ms < until_ms:
                        yield due

    def _due(self, version: TermsVersion, rule: DueRule, period: TermsPeriod) -> TermsDue:
        off = timedelta(days=rule.days)
        day = period.first - off if rule.before else period.until - timedelta(days=1) + off
        return TermsDue(
            what=rule.what, period=period.name, from_ms=midnight_ms(self.zone, period.first),
            until_ms=midnight_ms(self.zone, period.until), at_ms=local_ms(self.zone, day, rule.by_min),
            certainty=rule.certainty, coverage_min_pct=version.coverage_min_pct,
        )  # fmt: skip


def _periods(version: TermsVersion, per: Per, first: date, last: date) -> Iterator[TermsPeriod]:
    """The periods that lie within `first` and `last`, in which the version is in force and in season."""
    begun: date | None = None
    name = ""
    for n in range((last - first).days + 1):
        day = first + timedelta(days=n)
        now = _named(version, per, day)
        if now != name:
            if begun is not None and name:
                yield TermsPeriod(name=name, first=begun, until=day)
            begun, name = day, now


def _named(version: TermsVersion, per: Per, day: date) -> str:
    """The name of the period that a day belongs to; "" = it belongs to none."""
    if day not in version.days:
        return ""
    season = next((season for season in version.seasons if season.covers(day)), None)
    if version.seasons and season is None:
        return ""
    if per == "day":
        return day.isoformat()
    if per == "month":
        return f"{day:%Y-%m}"
    return str(day.year) if season is None else f"{season.name} {season.began(day).year}"

"""Which rate an enrollment is paid by on a day: by the version of the rules that is in force then, and by when it was
enrolled (its vintage)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from gateway.domain.programs.enrollment import in_force
from gateway.domain.programs.facts import Enrollment, EnrollmentStatus, RateLock
from gateway.domain.rules.calendar import local_day, local_ms
from gateway.domain.rules.program import GridProgram
from gateway.domain.rules.rates import (
    ChosenRate,
    NoRate,
    RateCase,
    RateUnit,
    choose_rate,
    year_of_participation,
)

NOON_MIN = 12 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidRate:
    """The rate per `unit` of an enrollment for an event on a day, or why there is none. `enrolled`: the local day that
    counts for it, `year` of taking part, from 1; None = unknown. `season` "": outside every season."""

    found: ChosenRate | NoRate
    period: str = ""
    enrolled: date | None = None
    year: int | None = None
    version: str = ""
    season: str = ""
    unit: RateUnit | None = None


def paid_rates(program: GridProgram, enrollments: Sequence[Enrollment], day: date) -> list[PaidRate]:
    """The rates of one subject for an event on a local day, one per unit that the program pays by; how the enrollment
    stands at noon counts. `enrollments`: all that is stated of the subject in this program."""
    noon_ms = local_ms(program.zone, day, NOON_MIN)
    stands, version = in_force(enrollments, noon_ms), program.version_on(day)
    if stands is None:
        return [PaidRate(found=NoRate(reason="not enrolled on that day"))]
    period = stands.period.name
    if stands.status is not EnrollmentStatus.ACTIVE:
        return [PaidRate(found=NoRate(reason=f"the enrollment is {stands.status.name.lower()}"), period=period)]
    if version is None:
        return [PaidRate(found=NoRate(reason="no version of the rules is in force"), period=period)]
    if not version.rates:
        return [PaidRate(found=NoRate(reason="the program has no rates"), period=period, version=version.name)]
    enrolled = _vintage(program.zone, stands, enrollments, noon_ms)
    season = version.calendar.season(day)
    case = RateCase(
        event=day, season="" if season is None else season.name, enrolled=enrolled, years_by=version.years_by
    )
    year = year_of_participation(enrolled, day, version.years_by)
    lock = _lock(stands, noon_ms)
    locked = {rate.name for rate in version.rates} & ({lock.key} if lock is not None else set())
    out = []
    for unit in sorted({rate.unit for rate in version.rates}):
        found = choose_rate(version.rates, version.factors, unit, case)
        if isinstance(found, ChosenRate) and locked and found.rate.name not in locked:
            found = NoRate(reason=f"it has locked {locked.pop()}, and by its dates {found.rate.name} holds")
        out.append(
            PaidRate(
                found=found, period=period, enrolled=enrolled, year=year, version=version.name, season=case.season,
                unit=unit,
            )
        )  # fmt: skip
    return out


def _lock(enrollment: Enrollment, at_ms: int) -> RateLock | None:
    """The locked rate of an enrollment, while it holds."""
    rate = enrollment.rate
    if rate is None or rate.locked_ms > at_ms or (rate.until_ms is not None and at_ms >= rate.until_ms):
        return None
    return rate


def _vintage(zone: str, stands: Enrollment, enrollments: Sequence[Enrollment], at_ms: int) -> date:
    """The day of enrollment that counts: that of the lock while it holds, else the first day of an active enrollment
    that was."""
    lock = _lock(stands, at_ms)
    if lock is not None:
        return local_day(zone, lock.locked_ms)
    active = [one for one in enrollments if one.status is EnrollmentStatus.ACTIVE]
    return local_day(zone, min(max(one.from_ms, one.period.from_ms) for one in active))

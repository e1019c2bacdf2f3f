"""Which rate an enrollment is paid by: by its vintage and the version in force, with how well that is known."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from gateway.domain.programs.facts import DeliveryPeriod, Enrollment, EnrollmentStatus, RateLock
from gateway.domain.programs.pay_rates import PaidRate, paid_rates
from gateway.domain.rules.rates import ChosenRate, NoRate
from gateway.programs.loader import load_programs
from tests.domain.programs.stated import device, enrolled

PROGRAMS = {
    name: loaded.program for name, loaded in load_programs(Path(__file__).parents[3] / "config" / "programs").items()
}
RI, CT, DSGS = (PROGRAMS[name] for name in ("connectedsolutions-ri", "ct-ess", "dsgs-option3"))
A = device("a")


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def since(day: str, *, status: EnrollmentStatus = EnrollmentStatus.ACTIVE, until: str = "2090-01-01") -> Enrollment:
    """Enrolled from noon in UTC on."""
    period = DeliveryPeriod(name="p", from_ms=ms(f"{day}T12:00"), until_ms=ms(f"{until}T12:00"))
    return enrolled(A, status, from_ms=period.from_ms, period=period)


def told(found: Sequence[PaidRate]) -> list[tuple[str, str, str | None]]:
    """Version, amount or reason, and evidence of each."""
    return [
        (one.version, f"{one.found.amount:f}", one.found.rate.certainty.value)
        if isinstance(one.found, ChosenRate)
        else (one.version, one.found.reason, None)
        for one in found
    ]


@pytest.mark.parametrize(("day", "amount"), [("2024-05-31", "400"), ("2024-06-01", "225")])
def test_vintage_of_a_home_in_rhode_island_decides_its_rate(day: str, amount: str) -> None:
    (found,) = paid_rates(RI, [since(day)], date(2026, 7, 31))
    assert told([found]) == [("2024", amount, "verified")]
    assert (found.enrolled, found.season) == (date.fromisoformat(day), "summer")


def test_day_of_enrollment_is_that_of_the_programs_zone() -> None:
    late = replace(since("2024-06-01"), from_ms=ms("2024-06-01T03:59"))
    late = replace(late, period=replace(late.period, from_ms=late.from_ms))
    assert told(paid_rates(RI, [late], date(2026, 7, 31))) == [("2024", "400", "verified")]


@pytest.mark.parametrize(
    ("enrolled_on", "event", "expected"),
    [
        ("2021-04-15", date(2026, 3, 31), ("passive-and-active", "25", "reported")),
        ("2021-03-15", date(2026, 3, 31), ("passive-and-active", "15", "reported")),
        ("2021-08-15", date(2026, 7, 31), ("active-only", "200", "unverified")),
        ("2021-07-15", date(2026, 7, 31), ("active-only", "115", "unverified")),
    ],
)
def test_year_of_taking_part_and_version_decide_the_rate_in_connecticut(
    enrolled_on: str, event: date, expected: tuple[str, str, str]
) -> None:
    (found,) = paid_rates(CT, [since(enrolled_on)], event)
    assert told([found]) == [expected]
    assert found.year == (5 if expected[1] in ("25", "200") else 6)


def test_home_that_is_not_active_on_the_day_is_paid_nothing_and_says_why() -> None:
    ended = since("2025-06-01", until="2026-06-01")
    pending = since("2026-06-01", status=EnrollmentStatus.PENDING)
    assert told(paid_rates(RI, [ended], date(2026, 7, 1))) == [("", "not enrolled on that day", None)]
    assert told(paid_rates(RI, [ended, pending], date(2026, 7, 1))) == [("", "the enrollment is pending", None)]
    # a period that follows keeps the vintage of the first
    follows = since("2026-06-01")
    (found,) = paid_rates(RI, [since("2024-05-31", until="2026-06-01"), follows], date(2026, 7, 1))
    assert (told([found])[0][1], found.enrolled) == ("400", date(2024, 5, 31))


def test_lock_decides_while_it_holds_and_is_told_where_it_contradicts_the_dates() -> None:
    def locked(key: str, on: str, until: str | None = None) -> Enrollment:
        lock = RateLock(key=key, locked_ms=ms(f"{on}T12:00"), until_ms=None if until is None else ms(f"{until}T12:00"))
        return replace(since("2025-01-01"), rate=lock)

    summer = date(2026, 7, 1)
    assert told(paid_rates(RI, [locked("v24", "2024-05-01")], summer)) == [("2024", "400", "verified")]
    assert told(paid_rates(RI, [locked("v24", "2024-05-01", "2026-06-30")], summer)) == [("2024", "225", "verified")]
    (found,) = paid_rates(RI, [locked("until-may-2024", "2025-01-01")], summer)
    assert found.found == NoRate(reason="it has locked until-may-2024, and by its dates since-june-2024 holds")


def test_rate_that_depends_on_what_is_not_known_is_not_chosen() -> None:
    assert told(paid_rates(DSGS, [since("2026-05-01")], date(2026, 7, 1))) == [
        ("2026", "the duration is unknown", None)
    ]
    assert told(paid_rates(DSGS, [since("2026-05-01")], date(2027, 7, 1))) == [
        ("", "no version of the rules is in force", None)
    ]
    assert told(paid_rates(RI, [since("2024-05-31")], date(2026, 12, 1))) == [
        ("2024", "no rate per kw_season for an event on 2026-12-01", None)
    ]

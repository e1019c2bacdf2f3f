"""What is due of a program, in its own local time, and when which terms hold."""

from dataclasses import replace
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from gateway.domain.programs.terms import DATA_DUE, NOMINATION_DUE, DueRule, Per, ProgramTerms, TermsVersion
from gateway.domain.rules.calendar import Season
from gateway.domain.rules.rates import DateRange
from gateway.domain.rules.values import Certainty

YEAR = tuple(round(datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1000) for year in (2026, 2027))
SUMMER = Season(name="summer", first=(5, 1), last=(10, 31))


def terms(
    per: Per, days: int, *, zone: str = "America/Los_Angeles", before: bool = False, season: bool = True
) -> ProgramTerms:
    what = NOMINATION_DUE if before else DATA_DUE
    rule = DueRule(what=what, per=per, days=days, by_min=17 * 60, certainty=Certainty.UNVERIFIED, before=before)
    version = TermsVersion(
        name="v", days=DateRange(first=date(2025, 1, 1)), seasons=(SUMMER,) if season else (), due=(rule,)
    )
    return ProgramTerms(zone=zone, versions=(version,))


def told(of: ProgramTerms, span: tuple[int, ...] = YEAR) -> list[tuple[str, str]]:
    found = sorted(of.due(*span), key=lambda due: due.at_ms)
    zone = ZoneInfo(of.zone)
    return [(due.period, datetime.fromtimestamp(due.at_ms / 1000, tz=zone).isoformat()) for due in found]


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "America/New_York", "Australia/Sydney", "Europe/Berlin"])
def test_the_data_of_each_month_of_the_season_are_due_at_a_local_time_after_it(zone: str) -> None:
    found = told(terms("month", 15, zone=zone))
    assert [period for period, _ in found] == [f"2026-{month:02d}" for month in range(5, 11)]
    assert [at[:16] for _, at in found] == [
        "2026-06-15T17:00", "2026-07-15T17:00", "2026-08-15T17:00", "2026-09-15T17:00", "2026-10-15T17:00",
        "2026-11-15T17:00",
    ]  # fmt: skip


def test_a_period_is_whole_local_days_over_a_change_of_the_clocks() -> None:
    [november] = [due for due in terms("month", 5, season=False).due(*YEAR) if due.period == "2026-11"]
    assert november.until_ms - november.from_ms == (30 * 24 + 1) * 3_600_000


def test_a_season_is_due_once_and_one_that_lasts_all_year_each_year() -> None:
    assert told(terms("season", 30)) == [("summer 2026", "2026-11-30T17:00:00-08:00")]
    assert told(terms("season", 30, season=False)) == [("2025", "2026-01-30T17:00:00-08:00")]


def test_a_nomination_is_due_before_the_first_day_of_its_month() -> None:
    found = told(terms("month", 60, before=True))
    assert found[0] == ("2026-05", "2026-03-02T17:00:00-08:00")
    assert len(found) == 6


def test_days_are_due_one_by_one_and_only_what_lies_within_the_question() -> None:
    of = terms("day", 2)
    day_ms = 86_400_000
    june = round(datetime(2026, 6, 10, tzinfo=ZoneInfo(of.zone)).timestamp() * 1000)
    assert [period for period, _ in told(of, (june, june + 2 * day_ms))] == ["2026-06-08", "2026-06-09"]


def test_a_version_that_is_over_leaves_what_is_due_after_its_end_and_nothing_later() -> None:
    of = terms("month", 15)
    over = replace(of.versions[0], days=DateRange(first=date(2025, 1, 1), until=date(2026, 7, 1)))
    assert [period for period, _ in told(replace(of, versions=(over,)))] == ["2026-05", "2026-06"]

"""What is missing by a program's data deadline: which intervals count, at which sites, and who says it."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from gateway.clock import ManualClock
from gateway.domain.journal.changes import AuditDoor
from gateway.domain.programs.due_data import DueData
from gateway.domain.programs.facts import DeliveryPeriod, Enrollment, EnrollmentStatus, Subject, SubjectKind
from gateway.domain.programs.site_day import SiteChannel, SiteQuality
from gateway.domain.programs.terms import DATA_DUE, DueRule, ProgramTerms, TermsVersion
from gateway.domain.rules.calendar import HOUR_MS, midnight_ms
from gateway.domain.rules.rates import DateRange
from gateway.domain.rules.values import Certainty
from gateway.services.programs.completeness import DataCompleteness
from gateway.services.programs.completeness_job import CompletenessJob
from gateway.services.programs.deadlines import of_programs
from gateway.services.programs.frames import ProgramFrames
from gateway.storage.programs.daily import DailyColumns
from gateway.storage.programs.due_file import CountedDue, read_due, write_due
from gateway.storage.programs.facts import SqliteFacts
from tests.builders.site_days import JULY, PACIFIC, placed, site_days

RULE = DueRule(what=DATA_DUE, per="month", days=10, by_min=17 * 60, certainty=Certainty.VERIFIED)
VERSION = TermsVersion(
    name="one", days=DateRange(), interval_s=900, point="battery_ac", due=(RULE,), coverage_min_pct=90.0
)
TERMS = ProgramTerms(zone=PACIFIC.zone, versions=(VERSION,))
NOW_MS = midnight_ms(PACIFIC.zone, date(2026, 7, 20))
DUE_MS = midnight_ms(PACIFIC.zone, date(2026, 8, 10)) + 17 * HOUR_MS


def job(state_dir: Path, version: TermsVersion = VERSION) -> CompletenessJob:
    terms = replace(TERMS, versions=(version,))
    return CompletenessJob(state_dir, frames=ProgramFrames(terms={"p": terms}), programs=["p"])


def counted(one: CompletenessJob, state_dir: Path, now_ms: int = NOW_MS) -> list[DueData]:
    for _ in range(50):
        if not one.step(now_ms).more:
            return [due for due in read_due(state_dir).due if due.due_ms == DUE_MS]
    raise AssertionError("it does not come to an end")


def gaps(*at: tuple[int, int]) -> np.ndarray:
    """All is known of two sites but the battery of a site in an interval."""
    known = np.ones((4, 2, 96), dtype=np.bool_)
    for site, interval in at:
        known[SiteChannel.CHARGE, site, interval] = False
    return known


def written(state_dir: Path, day: date = JULY, known: np.ndarray | bool = True) -> None:
    with DailyColumns(state_dir, write=True) as store:
        store.put(site_days(["a", "b"], day=day, known=known), 1)
        store.note_written(PACIFIC, day, 1)


def test_intervals_that_are_not_known_are_counted_with_their_sites_and_since_when(tmp_path: Path) -> None:
    written(tmp_path, known=gaps((1, 40), (1, 41), (0, 60)))
    written(tmp_path, day=JULY + timedelta(days=1), known=gaps((1, 3)))
    (due,) = counted(job(tmp_path), tmp_path)
    assert (due.program, due.period, due.owed, due.missing, due.sites, due.some) == (
        "p",
        "2026-07",
        384,
        4,
        2,
        ("b", "a"),
    )
    assert due.since_ms == PACIFIC.span(JULY)[0] + 10 * HOUR_MS
    # the 19th is over, and late data of it may still come
    assert due.waiting == 1


def test_an_interval_that_is_measured_too_little_is_missing_and_one_without_a_device_is_not(tmp_path: Path) -> None:
    days = site_days(["a", "b"])
    days.coverage_pct[0, :4] = (89, 90, 91, 0)
    days.quality[1, :7] = SiteQuality.ABSENT
    days.known[:, 1, :7] = False
    with DailyColumns(tmp_path, write=True) as store:
        store.put(days, 1)
        store.note_written(PACIFIC, JULY, 1)
    (due,) = counted(job(tmp_path), tmp_path)
    assert (due.owed, due.missing, due.some) == (2 * 96 - 7, 2, ("a",))


@pytest.mark.parametrize(("point", "missing"), [("battery_ac", 0), ("site_ct", 2), ("utility_meter", 0)])
def test_what_counts_is_what_the_program_measures(tmp_path: Path, point: str, missing: int) -> None:
    known = gaps()
    known[SiteChannel.IMPORT, 0, 5:7] = False
    written(tmp_path, known=known)
    (due,) = counted(job(tmp_path, replace(VERSION, point=point)), tmp_path)
    assert due.missing == missing
    assert due.owed == (0 if point == "utility_meter" else 192)


def test_late_data_that_fills_a_gap_is_seen_by_the_next_step(tmp_path: Path) -> None:
    written(tmp_path, known=gaps((0, 4)))
    one = job(tmp_path)
    assert counted(one, tmp_path)[0].missing == 1
    written(tmp_path)
    (due,) = counted(one, tmp_path)
    assert (due.missing, due.sites, due.since_ms) == (0, 0, None)


async def test_where_somebody_is_enrolled_the_sites_of_active_enrollments_alone_count(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=NOW_MS - 30 * 24 * HOUR_MS)
    await placed(tmp_path, [("bat-a", "a"), ("bat-b", "b")], clock)
    written(tmp_path, known=gaps((0, 4), (1, 5), (1, 6)))
    one = job(tmp_path)
    assert counted(one, tmp_path)[0].missing == 3
    store = SqliteFacts(tmp_path, clock=clock)
    store.load(lambda _: None)
    period = DeliveryPeriod(name="2026", from_ms=NOW_MS - 60 * 24 * HOUR_MS, until_ms=NOW_MS + 60 * 24 * HOUR_MS)
    facts = [
        Enrollment(
            subject=Subject(kind=SubjectKind.DEVICE, id=device), program="p", period=period, from_ms=period.from_ms,
            revision=store.revision(), status=status,
        )
        for device, status in (("bat-a", EnrollmentStatus.ACTIVE), ("bat-b", EnrollmentStatus.INELIGIBLE))
    ]  # fmt: skip
    await store.commit(facts, by="t", door=AuditDoor.REST)
    store.close()
    (due,) = counted(one, tmp_path)
    assert (due.owed, due.missing, due.some) == (96, 1, ("a",))


def test_a_program_whose_file_names_no_date_has_nothing_due(tmp_path: Path) -> None:
    written(tmp_path, known=gaps((0, 4)))
    assert counted(job(tmp_path, replace(VERSION, due=())), tmp_path) == []


async def test_the_next_deadlines_are_shown_and_those_that_have_passed_are_not(tmp_path: Path) -> None:
    def due(period: str, due_ms: int, missing: int) -> DueData:
        return DueData(
            program="p", period=period, from_ms=0, until_ms=1, due_ms=due_ms, owed=100, missing=missing, sites=2,
            some=("b", "a"), since_ms=7, waiting=0,
        )  # fmt: skip

    clock = ManualClock(utc_ms=NOW_MS)
    part = DataCompleteness(tmp_path, clock=clock)
    await part.read()
    assert (list(part.due()), list(part.samples()), part.warnings()) == ([], [], [])
    (tmp_path / "money").mkdir()
    rows = (due("2026-07", DUE_MS, 4), due("2026-06", NOW_MS + 1000, 9), due("2026-05", NOW_MS - 1, 5))
    write_due(tmp_path, CountedDue(at_ms=NOW_MS, due=rows))
    await part.read()
    assert {one.period for one in part.due()} == {"2026-06", "2026-07"}
    values = {sample.name.removeprefix("gateway_program_data_"): sample.value for sample in part.samples()}
    assert values == {
        "missing_intervals": 9, "owed_intervals": 100, "missing_sites": 2, "due_timestamp_seconds": NOW_MS / 1000 + 1,
    }  # fmt: skip
    clock.advance(s=2)
    assert {sample.value for sample in part.samples() if "missing_int" in sample.name} == {4}
    (tmp_path / "money" / "due_data.json").write_text("{")
    await part.read()
    assert "cannot be read" in part.warnings()[0]
    assert {one.period for one in part.due()} == {"2026-07"}


def test_a_data_deadline_says_what_is_missing_and_other_deadlines_do_not() -> None:
    nomination = replace(RULE, what="nomination", before=True)
    terms = {"p": replace(TERMS, versions=(replace(VERSION, due=(RULE, nomination)),))}
    row = DueData(
        program="p", period="2026-07", from_ms=0, until_ms=1, due_ms=DUE_MS, owed=384, missing=4, sites=2,
        some=("b", "a"), since_ms=7, waiting=0,
    )  # fmt: skip
    found = of_programs(terms, NOW_MS, DUE_MS + 1, [row])
    assert [(one.what, one.period, one.count, one.some, one.missing, one.since_ms) for one in found] == [
        ("nomination", "2026-08", 0, (), None, None), ("data", "2026-07", 2, ("b", "a"), 4, 7),
    ]  # fmt: skip

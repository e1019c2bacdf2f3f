"""What is due, day by day in the program's own time."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.domain.programs.facts import Deadline, EnrollmentStatus, Fact, RateLock
from gateway.programs.loader import load_programs
from gateway.services.programs.deadlines import Due, deadlines, of_programs
from tests.domain.programs.stated import DAY_MS, consented, device, enrolled, withdrawn
from tests.services.programs.stores import AUG_1, JULY_1

PROGRAMS = Path(__file__).parents[3] / "config" / "programs"

CALIFORNIA = "America/Los_Angeles"


def due(*facts: Fact, now_ms: int = JULY_1, days: int = 40, zone: str = CALIFORNIA) -> list[Due]:
    return deadlines(facts, now_ms, now_ms + days * DAY_MS, lambda _: zone)


def pending(name: str, at_ms: int, **other: object) -> Fact:
    fact = enrolled(device(name), EnrollmentStatus.PENDING)
    return replace(fact, deadlines=(Deadline(what="enrollment", at_ms=at_ms),), **other)  # type: ignore[arg-type]


def test_open_enrollments_of_a_day_are_one_deadline_with_what_they_lack() -> None:
    found = due(
        pending("home-2", AUG_1 + 3_600_000, reasons=("HAS_NOMINATIONS",)),
        pending("home-1", AUG_1, reasons=("HAS_NOMINATIONS", "NO_MISSING_FIELDS")),
        pending("home-3", AUG_1 - 1),
    )
    assert [(one.what, one.count, one.some, one.at_ms) for one in found] == [
        ("enrollment", 1, ("home-3",), AUG_1 - 1), ("enrollment", 2, ("home-1", "home-2"), AUG_1),
    ]  # fmt: skip
    assert found[1].lacking == {"HAS_NOMINATIONS": 2, "NO_MISSING_FIELDS": 1}
    assert found[1].local.isoformat() == "2026-08-01T00:00:00-07:00"


def test_a_day_is_one_of_the_programs_own_time() -> None:
    facts = [pending("home-1", AUG_1 - 1), pending("home-2", AUG_1)]
    assert [one.count for one in due(*facts, zone="UTC")] == [2]


@pytest.mark.parametrize("status", [EnrollmentStatus.ACTIVE, EnrollmentStatus.INELIGIBLE])
def test_what_is_settled_has_no_deadline_any_more(status: EnrollmentStatus) -> None:
    settled = replace(enrolled(device("home-1"), status, revision=5), deadlines=(Deadline(what="x", at_ms=AUG_1),))
    assert due(pending("home-1", AUG_1), settled) == []


def test_what_is_over_or_far_away_is_not_due() -> None:
    assert due(pending("home-1", JULY_1 - 1), pending("home-2", AUG_1), days=20) == []


def test_a_consent_that_ends_is_due_unless_another_one_goes_on_or_it_was_withdrawn() -> None:
    ends = consented("c-1", expires_ms=AUG_1)
    [found] = due(ends)
    assert (found.what, found.some, found.program) == ("consent expires", ("c-1",), "dsgs")
    assert due(ends, consented("c-1", given_ms=5, revision=9)) == []
    assert due(ends, withdrawn("c-1", 5)) == []
    later = consented("c-1", given_ms=5, expires_ms=AUG_1 + DAY_MS, revision=9)
    assert [one.at_ms for one in due(ends, later)] == [AUG_1 + DAY_MS]


def test_a_locked_rate_that_ends_is_due_by_its_key() -> None:
    locked = replace(enrolled(device("home-1")), rate=RateLock(key="ri-2024", locked_ms=0, until_ms=AUG_1))
    assert [(one.what, one.period) for one in due(locked)] == [("locked rate ends", "ri-2024")]


CONTRACT = """\
    deadlines:
      data: {value: {per: month, days_after: 15, by: "17:00"}, evidence: verified, source: contract}
      nomination:
        value: {per: month, opens_days_before: 75, days_before: 60, by: "17:00"}
        evidence: unverified
        source: contract
"""


def test_shipped_programs_name_no_deadline_that_no_text_says() -> None:
    shipped = {name: one.terms for name, one in load_programs(PROGRAMS).items()}
    assert of_programs(shipped, JULY_1, JULY_1 + 365 * DAY_MS) == []


def test_the_dates_of_a_contract_in_the_programs_file_are_told_and_whether_they_are_verified(tmp_path: Path) -> None:
    text = (PROGRAMS / "ra-leap.yaml").read_text()
    text = text.replace("sources:\n", "sources:\n  contract: The contract\n", 1)
    text = text.replace("    preparation:\n", f"{CONTRACT}    preparation:\n", 1)
    (tmp_path / "ra-leap.yaml").write_text(text)
    own = {name: one.terms for name, one in load_programs(tmp_path).items()}
    found = of_programs(own, JULY_1, JULY_1 + 30 * DAY_MS)
    assert [(due.what, due.period, due.local.isoformat(), due.unverified) for due in found] == [
        ("nomination", "2026-09", "2026-07-03T17:00:00-07:00", True),
        ("data", "2026-06", "2026-07-15T17:00:00-07:00", False),
        ("nomination opens", "2026-10", "2026-07-18T00:00:00-07:00", True),
    ]

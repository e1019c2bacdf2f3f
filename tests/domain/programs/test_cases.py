"""A home has one case of a cause; it opens again by itself, and closes when the home recovers."""

from dataclasses import replace

import pytest

from gateway.domain.programs.cases import (
    GATEWAY,
    RECOVERED,
    CaseState,
    Finding,
    HomeCase,
    after_findings,
    assigned,
    closed,
    finding,
    opened,
    snoozed,
    to_tell,
)
from gateway.domain.programs.underperformers import LikelyCause, Trend, underperformers
from tests.domain.programs.answering import given, street

FOUND = Finding(
    home="home-1", cause=LikelyCause.LATE, trend=Trend.LATE, since_ms=100, newest_ms=500, events=3, lost_wh=2_000,
    evidence={"late_s": 600.0},
)  # fmt: skip


def known(*cases: HomeCase) -> dict[tuple[str, LikelyCause], HomeCase]:
    return {case.key: case for case in cases}


def case_of(found: Finding = FOUND, now_ms: int = 600) -> HomeCase:
    (case,) = after_findings({}, [found], (), now_ms=now_ms)
    return replace(case, number=1)


def test_a_finding_opens_a_case_by_the_gateway() -> None:
    case = case_of()
    assert (case.opened_by, case.opened_ms, case.since_ms, case.lost_wh) == (GATEWAY, 600, 100, 2_000)
    assert case.state(600) is CaseState.OPEN


def test_the_same_finding_again_changes_nothing_and_more_of_it_only_the_evidence() -> None:
    case = case_of()
    assert after_findings(known(case), [FOUND], (), now_ms=700) == []
    (more,) = after_findings(known(case), [replace(FOUND, events=4, lost_wh=3_000)], (), now_ms=700)
    assert (more.number, more.events, more.lost_wh, more.revision) == (1, 4, 3_000, case.revision)


def test_another_cause_of_a_home_is_another_case() -> None:
    case = case_of()
    (other,) = after_findings(known(case), [FOUND, replace(FOUND, cause=LikelyCause.UNIT_OFF)], (), now_ms=700)
    assert (other.number, other.cause) == (0, LikelyCause.UNIT_OFF)


def test_a_closed_case_stays_closed_by_the_events_from_before_and_opens_again_by_a_later_one() -> None:
    case = closed(case_of(), because="cable", by="ann", now_ms=600)
    assert after_findings(known(case), [FOUND], (), now_ms=700) == []
    (again,) = after_findings(known(case), [replace(FOUND, newest_ms=650)], (), now_ms=700)
    assert (again.number, again.closed_ms, again.closed_because, again.reopened) == (1, None, "", 1)
    assert again.revision > case.revision


def test_a_case_of_a_home_that_recovered_is_closed_unless_a_person_opened_it() -> None:
    case = case_of()
    (after,) = after_findings(known(case), [], {"home-1"}, now_ms=700)
    assert (after.closed_by, after.closed_because, after.closed_ms) == (GATEWAY, RECOVERED, 700)
    assert after_findings(known(case), [FOUND], {"home-1"}, now_ms=700) == []
    by_hand = opened("home-1", LikelyCause.UNIT_OFF, by="ann", now_ms=0)
    assert after_findings(known(by_hand), [], {"home-1"}, now_ms=700) == []


def test_a_case_is_told_when_its_snooze_is_over() -> None:
    case = snoozed(case_of(), 1_000)
    assert (case.state(999), case.state(1_000)) == (CaseState.SNOOZED, CaseState.OPEN)
    assert (to_tell(case, 999), to_tell(case, 1_000)) == (False, True)
    assert not to_tell(replace(case, told=case.revision), 1_000)


@pytest.mark.parametrize("change", [lambda c: assigned(c, ""), lambda c: snoozed(c, None)])
def test_an_order_that_changes_nothing_makes_no_revision(change) -> None:  # type: ignore[no-untyped-def]
    case = case_of()
    assert change(case) is case


def test_closing_twice_keeps_the_first_reason() -> None:
    case = closed(case_of(), because="cable", by="ann", now_ms=600)
    assert closed(case, because="other", by="bob", now_ms=700) is case


def test_a_finding_has_the_times_of_its_events() -> None:
    seen = street()
    given(seen, 3, 0.7, since=2)
    (one,) = underperformers(seen)
    found = finding(one, [n * 1_000 for n in range(6)], [n * 1_000 + 500 for n in range(6)])
    assert (found.home, found.since_ms, found.newest_ms, found.events) == ("home-3", 2_000, 5_500, 4)
    assert found.evidence["level"] == pytest.approx(0.7, abs=0.02)

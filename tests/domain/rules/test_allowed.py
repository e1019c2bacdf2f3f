"""What a program's rules leave to be dispatched: when, and how much of what is counted."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.rules.allowed import allowances_left, allowed_spans
from gateway.domain.rules.calendar import HOUR_MS, ClockWindow, Span, local_ms, midnight_ms
from gateway.domain.rules.counts import Allowance, Per
from gateway.domain.rules.permission import Asked, permission
from gateway.domain.rules.program import GridProgram, LeadNotice, ProgramVersion
from gateway.domain.rules.rates import DateRange
from gateway.domain.rules.values import Asker, Certainty, Effect, Rule, T

ZONE = "America/New_York"
CHANGE = date(2026, 7, 6)
FIRST = date(2026, 7, 1)


def rule(value: T, effect: Effect = Effect.REFUSE) -> Rule[T]:
    return Rule(value=value, effect=effect, certainty=Certainty.VERIFIED, source="page")


def window(first: int, until: int) -> Rule[tuple[ClockWindow, ...]]:
    windows: tuple[ClockWindow, ...] = (ClockWindow(from_min=first * 60, until_min=until * 60),)
    return rule(windows)


def program(effect: Effect = Effect.REFUSE) -> GridProgram:
    """Evenings, two events and five hours a month; from 6 July afternoons, with two hours' notice."""
    evening = ProgramVersion(
        program="p", name="evenings", zone=ZONE, days=DateRange(first=date(2026, 1, 1), until=CHANGE),
        window=window(16, 20), events=rule(Allowance(most=2, per=Per.MONTH), effect),
        hours=rule(Allowance(most=5.0, per=Per.MONTH), effect),
    )  # fmt: skip
    afternoon = ProgramVersion(
        program="p", name="afternoons", zone=ZONE, days=DateRange(first=CHANGE), window=window(12, 16),
        notice=rule(LeadNotice(lead_s=7_200.0)),
    )  # fmt: skip
    return GridProgram(id="p", zone=ZONE, versions=(evening, afternoon))


def at(day: date, hour: int, hours: int) -> Span:
    start_ms = local_ms(ZONE, day, hour * 60)
    return start_ms, start_ms + hours * HOUR_MS


WEEK = midnight_ms(ZONE, FIRST), midnight_ms(ZONE, FIRST + timedelta(days=7))


def test_the_spans_of_a_week_are_those_of_the_versions_in_force() -> None:
    found = allowed_spans(program(), *WEEK, [])
    days = [FIRST + timedelta(days=n) for n in range(7)]
    assert [one.span for one in found] == [at(day, 16, 4) if day < CHANGE else at(day, 12, 4) for day in days]
    assert [one.version for one in found] == ["evenings"] * 5 + ["afternoons"] * 2
    assert [one.notice_by_ms for one in found[-2:]] == [one.span[0] - 2 * HOUR_MS for one in found[-2:]]
    assert found[0].notice_by_ms is None


def test_what_is_left_of_counts_is_told_by_month_and_version() -> None:
    left = allowances_left(program(), *WEEK, [at(FIRST, 16, 2)])
    assert [(one.rule, one.version, one.most, one.used, one.left) for one in left] == [
        ("events", "evenings", 2, 1, 1),
        ("hours", "evenings", 5.0, 2.0, 3.0),
    ]
    assert left[0].within == (midnight_ms(ZONE, date(2026, 7, 1)), midnight_ms(ZONE, date(2026, 8, 1)))


def test_nothing_is_allowed_in_a_month_of_which_everything_is_used_unless_that_only_warns() -> None:
    events = [at(FIRST, 16, 1), at(FIRST + timedelta(days=1), 16, 1)]
    for effect, versions in ((Effect.REFUSE, {"afternoons"}), (Effect.WARN, {"evenings", "afternoons"})):
        found = program(effect)
        left = allowances_left(found, *WEEK, events)
        spans = allowed_spans(found, *WEEK, left)
        # a month that is used up holds for the version that counts it
        assert {one.version for one in spans} == versions


@given(start=st.integers(-24, 9 * 24), hours=st.integers(1, 6))
def test_an_event_is_permitted_by_the_calendar_exactly_where_it_is_inside_an_allowed_span(
    start: int, hours: int
) -> None:
    found = program()
    span = WEEK[0] + start * HOUR_MS, WEEK[0] + (start + hours) * HOUR_MS
    spans = allowed_spans(found, span[0] - HOUR_MS, span[1] + HOUR_MS, [])
    inside = any(one.span[0] <= span[0] and span[1] <= one.span[1] for one in spans)
    said = permission(found, Asked(span=span, asker=Asker.LOCAL), span[0] - 3 * HOUR_MS)
    assert inside == ("window" not in [breach.rule for breach in said.breaches])

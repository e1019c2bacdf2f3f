"""An event as the rules of its program see it: its occurrences, the time it uses, what permissions leave of it."""

from dataclasses import replace
from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.events.calendar import DAY_MS, Daily
from gateway.domain.events.lifecycle import ActiveEvent, BookEntry, EventState
from gateway.domain.events.preparation import keeping
from gateway.domain.events.program_rules import asked, judge, narrowed, occurrences, used_spans, within
from gateway.domain.events.request import (
    OPEN_MS,
    Compensation,
    EventKind,
    EventRequest,
    Leg,
    Running,
    Target,
    TargetGroup,
    Want,
    power,
)
from gateway.domain.rules.calendar import ClockWindow, Span
from gateway.domain.rules.counts import Allowance, Per
from gateway.domain.rules.program import GridProgram, ProgramVersion
from gateway.domain.rules.rates import DateRange
from gateway.domain.rules.values import Asker, Certainty, Effect, Rule, T
from gateway.domain.types import EventId

START = 1_800_000_000_000 - 8 * 3_600_000
"""Midnight UTC of 15 January 2027."""

HOUR_MS = 3_600_000
REQUEST = EventRequest(
    id=EventId("e"), revision=1, kind=EventKind.REAL, program="p", group=TargetGroup(all=True),
    start_ms=START + 16 * HOUR_MS, end_ms=START + 18 * HOUR_MS, target=power(1_000.0), priority=1,
)  # fmt: skip
DAILY = replace(
    REQUEST,
    end_ms=OPEN_MS,
    legs=(Leg(after_ms=0, until_ms=2 * HOUR_MS, target=power(1_000.0)),),
    daily=Daily(zone="UTC", first_ms=REQUEST.start_ms, length_ms=2 * HOUR_MS),
)


def rule(value: T, effect: Effect = Effect.CLIP) -> Rule[T]:
    return Rule(value=value, effect=effect, certainty=Certainty.VERIFIED, source="page")


VERSION = ProgramVersion(program="p", name="1", zone="UTC", days=DateRange(first=date(2027, 1, 1)))


def entry(request: EventRequest, state: EventState, *, decided_ms: int = 0, ran: bool = False) -> BookEntry:
    return BookEntry(index=0, request=request, state=state, decided_ms=decided_ms, ran=ran)


def test_occurrences_are_those_that_are_not_over() -> None:
    assert list(occurrences(REQUEST, REQUEST.start_ms)) == [(REQUEST.start_ms, REQUEST.end_ms)]
    assert list(occurrences(REQUEST, REQUEST.end_ms)) == []
    found = occurrences(DAILY, DAILY.start_ms + 2 * HOUR_MS)
    assert [next(found)[0] for _ in range(3)] == [DAILY.start_ms + n * DAY_MS for n in (1, 2, 3)]


def test_an_event_takes_its_time_unless_it_is_a_dry_run_or_was_rejected_or_cancelled_before_it_began() -> None:
    whole = [(REQUEST.start_ms, REQUEST.end_ms)]
    cancelled = replace(REQUEST, revision=2, cancelled=True)
    half_ms = REQUEST.start_ms + HOUR_MS
    by_entry: tuple[tuple[BookEntry, list[Span]], ...] = (
        (entry(REQUEST, EventState.SCHEDULED), whole),
        (entry(REQUEST, EventState.COMPLETED), whole),
        (entry(REQUEST, EventState.REJECTED), []),
        (entry(replace(REQUEST, kind=EventKind.DRY_RUN), EventState.SCHEDULED), []),
        (entry(cancelled, EventState.CANCELLED, decided_ms=START), []),
        (entry(cancelled, EventState.CANCELLED, decided_ms=half_ms), [(REQUEST.start_ms, half_ms)]),
        (entry(REQUEST, EventState.CANCELLED), []),
        (entry(REQUEST, EventState.CANCELLED, ran=True), whole),
    )  # fmt: skip
    for one, spans in by_entry:
        assert used_spans(one, START, START + 30 * DAY_MS) == spans, one


@given(first=st.integers(0, 40), length=st.integers(1, 40))
def test_what_repeats_takes_each_of_its_occurrences(first: int, length: int) -> None:
    from_ms, until_ms = START + first * DAY_MS, START + (first + length) * DAY_MS
    found = used_spans(entry(DAILY, EventState.SCHEDULED), from_ms, until_ms)
    assert found == [(DAILY.start_ms + n * DAY_MS, DAILY.start_ms + n * DAY_MS + 2 * HOUR_MS)
                     for n in range(first, first + length)]  # fmt: skip


def test_an_event_that_repeats_is_judged_by_its_next_occurrences_with_those_before() -> None:
    version = replace(VERSION, events=rule(Allowance(most=3, per=Per.MONTH), Effect.REFUSE))
    found = judge(
        GridProgram(id="p", zone="UTC", versions=(version,)), DAILY, asker=Asker.LOCAL, others=(), storms=(),
        now_ms=START, told_ms=START, strict=False,
    )  # fmt: skip
    (breach,) = found.breaches
    assert breach.words == "3 events in a month; this is number 4"


def test_an_occurrence_without_an_end_is_judged_in_bounded_work() -> None:
    endless = replace(REQUEST, end_ms=OPEN_MS)
    windows: tuple[ClockWindow, ...] = (ClockWindow(from_min=960, until_min=1260),)
    version = replace(VERSION, window=rule(windows, Effect.REFUSE))
    found = judge(
        GridProgram(id="p", zone="UTC", versions=(version,)), endless, asker=Asker.LOCAL, others=(), storms=(),
        now_ms=START, told_ms=START, strict=False,
    )  # fmt: skip
    assert found.refused


def test_what_an_event_asks_of_permissions_is_what_its_targets_and_compensation_say() -> None:
    span = REQUEST.start_ms, REQUEST.end_ms
    charging = replace(REQUEST, target=Target(want=Want.CHARGE_TO, soc_pct=90.0))
    by_request = (
        (REQUEST, (False, False, True)),
        (replace(REQUEST, compensation=Compensation.SITE_LOAD), (False, False, False)),
        (replace(REQUEST, precharge=True, prepare_s=60.0), (False, True, True)),
        (charging, (True, False, False)),
    )
    for request, said in by_request:
        found = asked(request, span, asker=Asker.LOCAL)
        assert (found.charges, found.precharges, found.exports) == said


@given(st.floats(0, 100), st.floats(0, 100))
def test_the_reserve_is_the_larger_of_the_events_and_the_programs(events: float, programs: float) -> None:
    version = replace(VERSION, reserve_pct=rule(programs))
    assert narrowed(replace(REQUEST, reserve_pct=events), version).reserve_pct == max(events, programs)


def test_exports_and_charging_from_the_grid_are_left_out_where_they_are_not_permitted() -> None:
    request = replace(REQUEST, precharge=True, prepare_s=60.0, start_ms=60_000)
    assert narrowed(request, VERSION) is request
    found = narrowed(request, replace(VERSION, export=rule(False), grid_charge=rule(False)))
    assert found.compensation is Compensation.SITE_LOAD
    permitted = narrowed(request, replace(VERSION, export=rule(True), grid_charge=rule(True)))
    assert permitted is request
    kept = keeping(request, None, 60_000)
    fill = None if kept is None else kept.running(0)
    assert fill is not None
    event = ActiveEvent(index=0, request=request, running=fill, keeping=kept)
    assert within(event, found, 1, charges=False).target.want is Want.IDLE
    assert within(event, request, 1).target.want is Want.BACKUP


def test_energy_of_an_event_that_a_rule_ends_has_to_last_until_then() -> None:
    running = Running(target=power(None), since_ms=0, until_ms=100, sustained_until_ms=300)
    event = ActiveEvent(index=0, request=REQUEST, running=running)
    ends = [within(event, REQUEST, until_ms).running for until_ms in (50, 200, None)]
    assert [(one.until_ms, one.sustained_until_ms) for one in ends] == [(50, 50), (100, 200), (100, 300)]

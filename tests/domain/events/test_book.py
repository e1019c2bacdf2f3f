"""The dispatch book: one answer per request, one final state whatever the order, nothing that should not run."""

import math
from collections import Counter
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.domain.events.book import Answer, Book, BookParams, Outcome, Refusal, members
from gateway.domain.events.lifecycle import LIFE, OVER, ActiveEvent, BookEntry, EventState, LifecycleStep
from gateway.domain.events.request import EventKind, EventRequest, TargetGroup, power
from gateway.domain.events.scope import own_id
from gateway.domain.fleet.device import Device
from gateway.domain.fleet.fleet import Fleet, ProductFacts
from gateway.domain.types import DeviceId, EventId, Now
from tests.work import Work

T0 = 1_800_000_000_000
HOUR = 3_600_000


def at(ms: int) -> Now:
    return Now(utc_ms=T0 + ms, mono_ms=1_000_000 + ms)


START = at(0)


def request(name: str = "e1", revision: int = 0, /, **changes: Any) -> EventRequest:
    base = EventRequest(
        id=EventId(name),
        revision=revision,
        kind=EventKind.REAL,
        program="evening",
        group=TargetGroup(all=True),
        start_ms=T0 + HOUR,
        end_ms=T0 + 2 * HOUR,
        target=power(50_000.0),
        priority=100,
    )
    if "target_w" in changes:
        changes["target"] = power(changes.pop("target_w"))
    return replace(base, **changes)


def submit(book: Book, asked: EventRequest, now: Now) -> Answer:
    answer = book.decide(asked, now)
    book.apply(asked, answer)
    return answer


def outcome(book: Book, asked: EventRequest, now: Now = START) -> Outcome | str | None:
    answer = submit(book, asked, now)
    return answer.reason if answer.outcome is Outcome.REJECTED else answer.outcome


def active(asked: EventRequest, index: int = 0) -> ActiveEvent:
    """An event as it runs right after its start."""
    found = asked.running(asked.start_ms)
    assert found is not None
    return ActiveEvent(index=index, request=asked, running=found)


def running(book: Book, ms: int) -> list[str]:
    return [event.request.id for event in book.active(at(ms))]


def test_book_new_event_is_accepted_and_runs_from_start_to_end() -> None:
    book = Book()
    assert outcome(book, request()) is Outcome.ACCEPTED
    assert running(book, HOUR - 1) == []
    assert running(book, HOUR) == running(book, 2 * HOUR - 1) == ["e1"]
    assert running(book, 2 * HOUR) == []


def test_book_decide_changes_nothing() -> None:
    book = Book()
    assert book.decide(request(), at(0)) == book.decide(request(), at(0))
    assert len(book) == 0


def test_book_same_request_again_is_a_duplicate() -> None:
    book = Book()
    submit(book, request(), at(0))
    for _ in range(10):
        assert outcome(book, request()) is Outcome.DUPLICATE
    assert len(book) == 1


def test_book_request_of_another_source_that_was_not_scoped_changes_nothing() -> None:
    book = Book()
    submit(book, request(source="mqtt"), at(0))
    for other in (request(source="rest"), request("e1", 9, source="rest", cancelled=True)):
        assert outcome(book, other) == Refusal.CONFLICT
    assert running(book, HOUR) == ["e1"]


def scoped(book: Book, *asked: EventRequest) -> list[Outcome | str | None]:
    return [outcome(book, book.scoped(one)) for one in asked]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_book_sources_with_one_id_have_an_event_each_in_any_order(order: tuple[int, ...]) -> None:
    asked = [
        request("e1", 1, source="mqtt", target_w=1.0), request("e1", 2, source="mqtt", target_w=2.0),
        request("e1", 5, source="rest", target_w=5.0), request("e1", 6, source="rest", cancelled=True),
    ]  # fmt: skip
    book = Book()
    scoped(book, *(asked[i] for i in order))
    assert {e.request.source: (e.request.target_w, e.state.value) for e in book.find("e1", at(HOUR))} == {
        "mqtt": (2.0, "active"), "rest": (50_000.0, "cancelled"),
    }  # fmt: skip
    assert scoped(book, *asked) == [Outcome.SUPERSEDED, Outcome.DUPLICATE, Outcome.SUPERSEDED, Outcome.DUPLICATE]
    assert len({e.request.id for e in book.entries(at(0))}) == 2


def test_book_rejected_request_of_one_source_shadows_no_event_of_another() -> None:
    book = Book()
    assert scoped(book, request(source="mqtt"), request(source="rest", target_w=math.nan)) == [
        Outcome.ACCEPTED, Refusal.TARGET_NOT_FINITE,
    ]  # fmt: skip
    assert [(e.request.source, e.state.value) for e in book.find("e1", at(0))] == [
        ("mqtt", "scheduled"), ("rest", "rejected"),
    ]  # fmt: skip
    assert scoped(book, request("e1", 1, source="rest")) == [Outcome.ACCEPTED]
    assert [e.state.value for e in book.find("e1", at(0))] == ["scheduled", "scheduled"]


def test_book_cancellation_without_a_source_holds_for_the_first_that_speaks_of_the_event() -> None:
    book = Book()
    submit(book, request("e1", 2, source="", cancelled=True), at(0))
    late, higher, other = (request("e1", n, source=s) for n, s in ((1, "mqtt"), (3, "mqtt"), (1, "rest")))
    assert scoped(book, late, higher) == [Outcome.SUPERSEDED, Outcome.ACCEPTED]
    assert running(book, HOUR) == ["e1"]
    assert scoped(book, other) == [Outcome.ACCEPTED], "it was the platform's"
    assert running(book, HOUR) == ["e1", "rest~e1"]


def test_book_same_revision_with_other_content_is_a_conflict() -> None:
    book = Book()
    submit(book, request(), at(0))
    assert outcome(book, request(target_w=60_000.0)) == Refusal.CONFLICT
    assert book.entries(at(0))[0].request.target_w == 50_000


def test_cancellation_at_the_same_revision_wins_once_and_nothing_at_it_revives_the_event() -> None:
    book = Book()
    submit(book, request(), at(0))
    assert outcome(book, request(target_w=60_000.0, cancelled=True)) == Refusal.CONFLICT, "something else too"
    assert outcome(book, request(cancelled=True)) == Outcome.ACCEPTED
    assert running(book, HOUR) == []
    assert outcome(book, request(cancelled=True)) == Outcome.DUPLICATE
    assert outcome(book, request()) == Refusal.CONFLICT
    assert outcome(book, request(revision=2)) == Outcome.ACCEPTED
    assert running(book, HOUR) == ["e1"]


def test_book_higher_revision_replaces_and_lower_is_superseded() -> None:
    book = Book()
    submit(book, request("e1", 2, target_w=1000.0), at(0))
    assert outcome(book, request("e1", 1)) is Outcome.SUPERSEDED
    assert outcome(book, request("e1", 3, target_w=2000.0)) is Outcome.ACCEPTED
    (entry,) = book.entries(at(0))
    assert (entry.index, entry.request.target_w) == (0, 2000)


@pytest.mark.fault("F15")
@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_book_revisions_in_any_order_end_in_one_state(order: tuple[int, ...]) -> None:
    revisions = [request(), request("e1", 1, target_w=1.0), request("e1", 2, cancelled=True), request("e1", 3)]
    book = Book()
    for i in order:
        submit(book, revisions[i], at(0))
    assert book.entries(at(0))[0].request == revisions[3]
    assert running(book, HOUR) == ["e1"]


@pytest.mark.fault("F17")
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_book_cancel_before_during_or_after_create_never_runs(order: tuple[int, ...]) -> None:
    asked = [request(), request("e1", 1, target_w=1.0), request("e1", 2, cancelled=True)]
    book = Book()
    for i in order:
        submit(book, asked[i], at(0))
    assert running(book, HOUR) == []
    assert book.entries(at(0))[0].state is EventState.CANCELLED


def test_book_cancel_in_mid_event_ends_it_at_once() -> None:
    book = Book()
    submit(book, request(), at(0))
    book.advance(at(HOUR))
    submit(book, request("e1", 1, cancelled=True), at(HOUR + 5))
    assert running(book, HOUR + 5) == []


@pytest.mark.fault("F16")
def test_book_late_start_joins_and_after_the_end_never_runs() -> None:
    assert outcome(Book(), request(), at(HOUR + 1000)) is Outcome.ACCEPTED
    assert outcome(Book(), request(), at(2 * HOUR - 1)) is Outcome.ACCEPTED
    assert outcome(Book(), request(), at(2 * HOUR)) == Refusal.EXPIRED


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"end_ms": T0 + HOUR}, Refusal.END_BEFORE_START),
        ({"end_ms": T0 + 26 * HOUR}, Refusal.TOO_LONG),
        ({"start_ms": T0 + 14 * 24 * HOUR + 1, "end_ms": T0 + 14 * 24 * HOUR + 2}, Refusal.TOO_FAR_AHEAD),
        ({"target_w": math.nan}, Refusal.TARGET_NOT_FINITE),
        ({"target_w": -math.inf}, Refusal.TARGET_NOT_FINITE),
        ({"target_w": 100e6 + 1}, Refusal.OVER_CEILING),
        ({"target_w": -100e6 - 1}, Refusal.OVER_CEILING),
        ({"group": TargetGroup()}, Refusal.EMPTY_GROUP),
    ],
)
def test_book_absurd_request_is_rejected_with_its_reason(changes: dict[str, Any], refusal: Refusal) -> None:
    book = Book()
    assert outcome(book, request(**changes)) == refusal
    assert len(book) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"end_ms": T0 + 25 * HOUR},
        {"start_ms": T0 + 14 * 24 * HOUR, "end_ms": T0 + 14 * 24 * HOUR + 1},
        {"target_w": 100e6},
        {"target_w": None},
        {"target_w": 0.0},
        {"start_ms": T0 - HOUR},
        {"group": TargetGroup(tags=("north",))},
    ],
)
def test_book_request_at_the_very_bound_is_accepted(changes: dict[str, Any]) -> None:
    assert outcome(Book(), request(**changes)) is Outcome.ACCEPTED


def test_book_rejected_update_leaves_the_running_revision() -> None:
    book = Book()
    submit(book, request(), at(0))
    assert outcome(book, request("e1", 1, target_w=math.inf)) == Refusal.TARGET_NOT_FINITE
    assert running(book, HOUR) == ["e1"]


def test_book_stopped_runs_nothing_and_takes_only_cancellations() -> None:
    book = Book()
    submit(book, request(), at(0))
    book.stop(active=True)
    assert running(book, HOUR) == []
    assert outcome(book, request("e2")) == Refusal.STOPPED
    assert outcome(book, request("e1", 1, cancelled=True)) is Outcome.ACCEPTED
    book.stop(active=False)
    assert outcome(book, request("e2")) is Outcome.ACCEPTED


def test_book_full_rejects_new_events_but_not_news_of_known_ones() -> None:
    book = Book(BookParams(events_max=2))
    assert [outcome(book, request(name)) for name in ("a", "b", "c")] == [
        Outcome.ACCEPTED,
        Outcome.ACCEPTED,
        Refusal.TOO_MANY_EVENTS,
    ]
    assert outcome(book, request("a", 1, cancelled=True)) is Outcome.ACCEPTED


def test_book_full_of_events_of_one_source_has_room_for_those_of_another() -> None:
    book = Book(BookParams(events_max=2))
    for name in ("a", "b"):
        assert outcome(book, request(name, source="mqtt")) is Outcome.ACCEPTED
    assert outcome(book, request("c", source="mqtt")) == Refusal.TOO_MANY_EVENTS
    assert outcome(book, request("c", source="rest")) is Outcome.ACCEPTED


def test_book_ended_events_make_room_at_once_and_are_forgotten_after_retention() -> None:
    book = Book(BookParams(events_max=1, retention_s=3600))
    submit(book, request(), at(0))
    late = request("e2", start_ms=T0 + 5 * HOUR, end_ms=T0 + 6 * HOUR)
    assert outcome(book, late, at(2 * HOUR - 1)) == Refusal.TOO_MANY_EVENTS
    book.advance(at(2 * HOUR))
    assert outcome(book, late, at(2 * HOUR)) is Outcome.ACCEPTED
    assert outcome(book, request("e1", 1, end_ms=T0 + 9 * HOUR), at(2 * HOUR)) == Refusal.TOO_MANY_EVENTS
    book.advance(at(3 * HOUR))
    assert [entry.request.id for entry in book.entries(at(3 * HOUR))] == ["e2", "e1"]
    book.advance(at(3 * HOUR + 1))
    assert [entry.request.id for entry in book.entries(at(3 * HOUR))] == ["e2"]
    assert (book.forgotten(), book.forgotten()) == (["e1"], [])


def test_book_market_of_a_season_is_accepted_and_only_the_newest_are_remembered() -> None:
    book, step_ms = Book(), 300_000
    for i in range(30_000):
        now = at(i * step_ms)
        asked = request(f"e{i:05d}", start_ms=now.utc_ms, end_ms=now.utc_ms + step_ms)
        assert outcome(book, asked, now) is Outcome.ACCEPTED
        book.advance(now)
    assert running(book, 30_000 * step_ms - 1) == ["e29999"]
    live, just_over = 1, 1
    assert len(book) == book.params.finished_max + live + just_over
    assert book.forgotten() == [f"e{i:05d}" for i in range(30_000 - len(book))]


def test_book_events_that_are_over_are_not_looked_at_in_every_tick() -> None:
    def calls(over: int) -> int:
        book, work = Book(), Work()
        for i in range(over):
            submit(book, request(f"e{i}", start_ms=T0, end_ms=T0 + 1_000), at(0))
        submit(book, request("runs", start_ms=T0, end_ms=T0 + HOUR), at(0))
        for ms in (1_000, 1_001):
            book.advance(at(ms))
        with work.profiling():
            book.advance(at(2_000))
            assert [event.request.id for event in book.active(at(2_000))] == ["runs"]
        return work.now

    assert calls(200) - calls(100) <= 6 * 100


def test_book_cancellations_of_unknown_events_take_no_room_of_events() -> None:
    book = Book(BookParams(events_max=2, tombstones_max=3, finished_max=1))
    for i in range(10):
        submit(book, request(f"foreign{i}", cancelled=True), at(i))
        book.advance(at(i))
    assert [outcome(book, request(name), at(10)) for name in ("e1", "e2", "e3")] == [
        Outcome.ACCEPTED, Outcome.ACCEPTED, Refusal.TOO_MANY_EVENTS,
    ]  # fmt: skip
    book.advance(at(11))
    assert {e.request.id for e in book.by_index().values()} == {"e1", "e2", "foreign7", "foreign8", "foreign9"}
    for ms in (HOUR, 2 * HOUR, 2 * HOUR + 1):
        book.advance(at(ms))
    assert {e.request.id for e in book.by_index().values()} == {"e2", "foreign7", "foreign8", "foreign9"}


def test_book_event_that_is_cancelled_while_it_runs_is_remembered_until_its_end_was_told() -> None:
    book = Book(BookParams(tombstones_max=1))
    for name in ("a", "b", "c"):
        submit(book, request(name), at(0))
    book.advance(at(HOUR))
    for name in ("a", "b", "c"):
        submit(book, request(name, 1, cancelled=True), at(HOUR + 1))
    assert [edge.entry.request.id for edge in book.advance(at(HOUR + 2))] == ["a", "b", "c"]
    assert [e.state for e in book.by_index().values()] == [EventState.CANCELLED] * 3
    book.advance(at(HOUR + 3))
    assert (len(book), book.forgotten()) == (1, ["a", "b"])


def test_book_forgotten_event_that_is_recalled_keeps_its_revision_and_its_state() -> None:
    book = Book()
    book.recall(request("e1", 4, cancelled=True), T0, EventState.CANCELLED)
    assert outcome(book, request("e1", 3)) is Outcome.SUPERSEDED
    assert outcome(book, request("e1", 5)) is Outcome.ACCEPTED
    book.recall(request("e1", 4, cancelled=True), T0, EventState.CANCELLED)
    assert running(book, HOUR) == ["e1"]


def test_book_tombstone_with_an_end_far_away_is_forgotten() -> None:
    book = Book()
    submit(book, request(cancelled=True, end_ms=T0 + 10**15), at(0))
    book.advance(at(23 * 24 * HOUR))
    assert len(book) == 0


def test_book_active_orders_by_priority_then_id() -> None:
    book = Book()
    for name, priority in (("b", 5), ("a", 5), ("c", 1), ("d", 9)):
        submit(book, request(name, priority=priority), at(0))
    assert running(book, HOUR) == ["c", "a", "b", "d"]


def test_book_advance_reports_each_edge_once() -> None:
    book = Book()
    submit(book, request(), at(0))
    edges = [
        [(e.before, e.entry.state) for e in book.advance(at(ms))] for ms in (0, HOUR, HOUR + 1, 2 * HOUR, 3 * HOUR)
    ]
    assert edges == [
        [],
        [(EventState.SCHEDULED, EventState.ACTIVE)],
        [],
        [(EventState.ACTIVE, EventState.COMPLETED)],
        [],
    ]


def test_book_clock_stepped_back_does_not_unstart_or_revive() -> None:
    book = Book()
    submit(book, request(), at(0))
    book.advance(at(HOUR))
    assert running(book, HOUR - 60_000) == ["e1"]
    book.advance(at(2 * HOUR))
    assert running(book, HOUR + 1) == []


def test_book_restored_is_the_same_book() -> None:
    book = Book()
    decided = []
    for asked in (request(), request("e1", 1, target_w=7.0), request("e2", cancelled=True)):
        decided.append((asked, submit(book, asked, at(0))))
    again = Book()
    again.load(decided, stopped=True)
    assert again.stopped
    assert again.entries(at(0)) == book.entries(at(0))


def test_active_event_has_time_left_and_whether_it_actuates() -> None:
    event = active(request())
    assert event.seconds_to_end(at(HOUR)) == 3600
    assert event.seconds_to_end(at(3 * HOUR)) == 0
    assert event.actuates
    assert not active(request(kind=EventKind.DRY_RUN)).actuates


def test_life_has_no_way_back_from_an_end_but_a_revision() -> None:
    for (state, step), after in LIFE.items():
        if state in (EventState.COMPLETED, EventState.CANCELLED, EventState.EXPIRED):
            assert step is LifecycleStep.REVISE or after is EventState.CANCELLED


def test_life_reaches_every_state_from_receipt_and_leaves_every_one_by_a_cancellation() -> None:
    reached = {EventState.RECEIVED}
    for _ in EventState:
        reached |= {after for (state, _), after in LIFE.items() if state in reached}
    assert reached == set(EventState)
    assert all((state, LifecycleStep.CANCEL) in LIFE for state in EventState)


def state_of(book: Book, ms: int, name: str = "e1") -> str:
    entry = book.entry(name, at(ms))
    assert entry is not None
    return entry.state.value


def test_book_event_goes_through_its_life() -> None:
    book = Book()
    submit(book, request(), at(0))
    assert state_of(book, 0) == "scheduled"
    book.advance(at(HOUR))
    assert state_of(book, HOUR) == "active"
    edges = book.advance(at(2 * HOUR))
    assert [(edge.before.value, edge.entry.state.value) for edge in edges] == [("active", "completed")]


def test_book_event_whose_time_passed_unseen_has_expired_and_never_runs() -> None:
    book = Book()
    submit(book, request(), at(0))
    assert [edge.entry.state.value for edge in book.advance(at(3 * HOUR))] == ["expired"]
    assert running(book, HOUR + 1) == []


def test_book_restored_in_mid_event_completes_and_does_not_expire() -> None:
    book = Book()
    asked = request()
    answer = submit(book, asked, at(0))
    again = Book()
    again.load([(asked, answer)], stopped=False, states={asked.id: (0, EventState.ACTIVE)})
    again.advance(at(3 * HOUR))
    assert state_of(again, 3 * HOUR) == "completed"
    # what was remembered of an older revision says nothing of the newest
    newer = Book()
    newer.load([(asked, answer)], stopped=False, states={asked.id: (7, EventState.COMPLETED)})
    assert running(newer, HOUR) == ["e1"]


def test_book_event_without_a_device_is_superseded_until_it_has_one_again() -> None:
    book = Book()
    submit(book, request(), at(0))
    book.advance(at(HOUR), without=[0])
    assert state_of(book, HOUR) == "superseded"
    assert running(book, HOUR + 1) == ["e1"]
    book.advance(at(HOUR + 2000))
    assert state_of(book, HOUR + 2000) == "active"
    book.advance(at(HOUR + 3000), without=[0])
    book.advance(at(2 * HOUR), without=[0])
    assert state_of(book, 2 * HOUR) == "completed"


def test_book_rejected_request_is_remembered_with_its_reason_and_may_be_mended() -> None:
    book = Book()
    submit(book, request(target_w=math.nan), at(0))
    entry = book.entry("e1", at(0))
    assert entry is not None
    assert (entry.state, entry.reason, entry.index) == (EventState.REJECTED, Refusal.TARGET_NOT_FINITE, -1)
    assert len(book) == 0
    submit(book, request("e1", 1), at(0))
    assert state_of(book, 0) == "scheduled"


def test_book_remembers_only_so_many_rejections() -> None:
    book = Book(BookParams(rejected_max=3))
    for i in range(10):
        submit(book, request(f"e{i}", target_w=math.nan), at(0))
    assert [entry.request.id for entry in book.entries(at(0))] == ["e7", "e8", "e9"]


def test_book_ceiling_of_a_program_refuses_what_alone_is_beyond_it() -> None:
    book = Book(BookParams(program_w={"evening": 10_000}))
    assert outcome(book, request(target_w=10_001)) == Refusal.OVER_CEILING
    assert outcome(book, request(target_w=-10_000)) is Outcome.ACCEPTED
    assert outcome(book, request("other", program="morning")) is Outcome.ACCEPTED


def test_book_ceiling_of_a_source_refuses_what_alone_is_beyond_it_whatever_its_program() -> None:
    book = Book(BookParams(program_w={"evening": 20_000}, source_w={"desk": 10_000}))
    much = submit(book, request("a", source="desk", target_w=10_001), at(0))
    assert much.reason == Refusal.OVER_CEILING
    assert much.warnings == ("the ceiling of source desk is 10000 W; the event asks for 10001 W",)
    assert outcome(book, request("b", source="room", target_w=10_001)) is Outcome.ACCEPTED


def test_book_says_which_ceiling_an_event_is_over() -> None:
    book = Book(BookParams(ceiling_w=50_000, program_w={"evening": 10_000}))
    much = submit(book, request(target_w=-10_001), at(0))
    assert much.warnings == ("the ceiling of program evening is 10000 W; the event asks for 10001 W",)
    more = submit(book, request("other", program="morning", target_w=60_000), at(0))
    assert more.warnings == ("the ceiling of every event is 50000 W; the event asks for 60000 W",)


# -- who comes first ----------------------------------------------------------------------------------------------


def ranked(*asked: EventRequest) -> list[str]:
    book = Book()
    for i, one in enumerate(asked):
        submit(book, one, at(i * 1000))
    return running(book, HOUR)


def test_rank_lower_priority_number_comes_first() -> None:
    assert ranked(request("a", priority=5), request("b", priority=2)) == ["b", "a"]


def test_rank_commitment_comes_before_voluntary_of_the_same_priority() -> None:
    assert ranked(request("a"), request("b", voluntary=False)) == ["b", "a"]
    assert ranked(request("a", priority=1), request("b", voluntary=False)) == ["a", "b"]


def test_rank_later_revision_comes_first_among_equals() -> None:
    assert ranked(request("a"), request("b"), request("a", 1)) == ["a", "b"]
    assert ranked(request("a"), request("b")) == ["b", "a"]


# -- "now" --------------------------------------------------------------------------------------------------------


def from_now(name: str = "e1", revision: int = 0, /, **changes: Any) -> EventRequest:
    return request(name, revision, start_ms=0, end_ms=HOUR, anchored=True, **changes)


def take(book: Book, asked: EventRequest, ms: int) -> Outcome:
    anchored = book.anchor(replace(asked, sent_ms=T0 + ms), at(ms))
    return submit(book, anchored, at(ms)).outcome


def came(book: Book, asked: EventRequest, ms: int, *, sent_ms: int | None) -> Outcome | str | None:
    """A request that says "now" and comes at `ms`."""
    sent_ms = None if sent_ms is None else T0 + sent_ms
    return outcome(book, book.anchor(replace(asked, sent_ms=sent_ms), at(ms)), at(ms))


@pytest.mark.fault("F16")
@pytest.mark.parametrize(
    ("sent_ms", "found"),
    [
        (2 * HOUR, Outcome.ACCEPTED),
        (2 * HOUR - 60_000, Outcome.ACCEPTED),
        (2 * HOUR + 60_000, Outcome.ACCEPTED),
        (2 * HOUR - 60_001, Refusal.NOW_TOO_OLD),
        (0, Refusal.NOW_TOO_OLD),
        (2 * HOUR + 60_001, Refusal.NOW_AGE_UNKNOWN),
        (None, Refusal.NOW_AGE_UNKNOWN),
    ],
)
def test_book_now_counts_only_for_as_long_as_it_is_now(sent_ms: int | None, found: Outcome | Refusal) -> None:
    assert came(Book(), from_now(), 2 * HOUR, sent_ms=sent_ms) == found


def test_book_old_now_changes_nothing_that_runs_and_starts_nothing_anew() -> None:
    book = Book()
    assert came(book, from_now(), 0, sent_ms=0) is Outcome.ACCEPTED
    longer = replace(from_now("e1", 1), end_ms=2 * HOUR)
    assert came(book, longer, 120_000, sent_ms=1_000) == Refusal.NOW_TOO_OLD, "its start would be another"
    assert came(book, from_now("e1", 1, target_w=1.0), 120_000, sent_ms=1_000) is Outcome.ACCEPTED
    assert came(book, from_now("e1", 1, target_w=1.0), 120_000, sent_ms=None) is Outcome.DUPLICATE
    assert came(book, from_now("e1", 2, cancelled=True), 120_000, sent_ms=None) is Outcome.ACCEPTED
    assert outcome(book, request("e2", sent_ms=T0 - HOUR), at(0)) is Outcome.ACCEPTED, "it says when it begins"


def test_anchor_now_is_the_first_receipt_however_often_it_comes() -> None:
    book = Book()
    assert take(book, from_now(), 1000) is Outcome.ACCEPTED
    assert take(book, from_now(), 60_000) is Outcome.DUPLICATE
    entry = book.entry("e1", at(60_000))
    assert entry is not None
    assert (entry.request.start_ms, entry.request.end_ms) == (T0 + 1000, T0 + 1000 + HOUR)


def test_anchor_changed_event_keeps_its_start_unless_its_length_is_another() -> None:
    book = Book()
    take(book, from_now(), 1000)
    take(book, from_now("e1", 1, target_w=1.0), 60_000)
    assert book.entries(at(0))[0].request.start_ms == T0 + 1000
    longer = replace(from_now("e1", 2), end_ms=2 * HOUR)
    take(book, longer, 90_000)
    assert book.entries(at(0))[0].request.start_ms == T0 + 90_000


def test_anchor_event_with_a_time_is_left_as_it_is() -> None:
    assert Book().anchor(request(), at(5000)) == request()


# -- what prepares ------------------------------------------------------------------------------------------------


def test_book_members_prepare_before_the_start_and_rank_after_all_that_runs() -> None:
    book = Book()
    submit(book, request("soon", prepare_s=1800, priority=1), at(0))
    submit(book, request("runs", start_ms=T0, priority=900), at(0))
    assert running(book, HOUR // 2 - 1) == ["runs"]
    found = book.active(at(HOUR // 2))
    assert [(event.request.id, event.preparing, event.target.want.value) for event in found] == [
        ("runs", False, "power"),
        ("soon", True, "idle"),
    ]
    assert [event.preparing for event in book.active(at(HOUR))] == [False, False]


def test_book_members_that_may_are_filled_before_the_start() -> None:
    book = Book()
    submit(book, request(prepare_s=600, precharge=True), at(0))
    assert [event.target.want.value for event in book.active(at(HOUR - 1))] == ["backup"]


def test_book_cancelled_event_prepares_nobody() -> None:
    book = Book()
    submit(book, request(prepare_s=600), at(0))
    submit(book, request("e1", 1, prepare_s=600, cancelled=True), at(0))
    assert running(book, HOUR - 1) == []


def small_fleet() -> Fleet:
    facts = ProductFacts(
        lease_s=120,
        command_latency_s=5,
        timed=True,
        efficiency_discharge=0.95,
        efficiency_charge=0.95,
        standby_w=0,
        soc_uncertainty_pct=5,
    )
    fleet = Fleet()
    for name, tags in (("a", ("north",)), ("b", ("south",)), ("c", ("north", "pilot")), ("d", ())):
        fleet.register(
            Device(
                id=DeviceId(name),
                profile="p",
                site=name,
                tags=tags,
                capacity_wh=1e4,
                discharge_w_max=5e3,
                charge_w_max=5e3,
                reserve_pct=20,
                export_allowed=True,
                grid_charge_allowed=True,
            ),
            facts,
        )
    return fleet


@pytest.mark.parametrize(
    ("group", "slots"),
    [
        (TargetGroup(all=True), [0, 1, 2, 3]),
        (TargetGroup(ids=(DeviceId("d"), DeviceId("a"), DeviceId("nobody"))), [0, 3]),
        (TargetGroup(tags=("north", "none")), [0, 2]),
        (TargetGroup(ids=(DeviceId("b"),), tags=("pilot",)), [1, 2]),
        (TargetGroup(tags=("none",)), []),
    ],
)
def test_members_are_the_union_of_ids_and_tags(group: TargetGroup, slots: list[int]) -> None:
    assert members(small_fleet(), group).tolist() == slots


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 5), st.booleans()), max_size=12), st.randoms())
def test_book_any_order_of_distinct_revisions_ends_in_the_highest(
    rows: list[tuple[int, int, bool]], random: Any
) -> None:
    asked = [
        request(f"e{which}", revision, target_w=float(watts), cancelled=cancelled)
        for revision, (which, watts, cancelled) in enumerate(rows)
    ]
    shuffled = list(asked)
    random.shuffle(shuffled)
    book = Book()
    for one in shuffled:
        submit(book, one, at(0))
    newest = {one.id: one for one in asked}
    assert {entry.request.id: entry.request for entry in book.entries(at(0))} == newest


SOURCES = ("mqtt", "rest")
Key = tuple[str, str]
"""Source and the id that it uses."""


class BookModel(RuleBasedStateMachine):
    """Requests of two sources under the same ids, cancellations by them and by operators, stops, restarts and time in
    any order, against a dictionary of what should hold. What the book forgets is in a store, as it is for the
    dispatcher."""

    @initialize()
    def begin(self) -> None:
        self.params = BookParams(events_max=3, finished_max=2, tombstones_max=2, retention_s=7200)
        self.book = Book(self.params)
        self.ms = 0
        self.newest: dict[Key, EventRequest] = {}
        self.store: dict[str, BookEntry] = {}
        self.held: set[Key] = set()
        self.off: set[Key] = set()

    def recall(self, name: str) -> None:
        for stored in self.store.values():
            if own_id(stored.request.id) == name:
                self.book.recall(stored.request, stored.decided_ms, stored.state, held_by=stored.held_by)

    @rule(
        name=st.sampled_from("abc"),
        source=st.sampled_from(SOURCES),
        step=st.integers(-1, 2),
        start=st.integers(-2, 4),
        length=st.integers(0, 3),
        priority=st.integers(1, 3),
        cancelled=st.booleans(),
    )
    def ask(self, name: str, source: str, step: int, start: int, length: int, priority: int, cancelled: bool) -> None:
        known = self.newest.get((source, name))
        revision = 1 if known is None else max(0, known.revision + step)
        asked = request(
            name,
            revision,
            start_ms=T0 + self.ms + start * HOUR,
            end_ms=T0 + self.ms + (start + length) * HOUR,
            priority=priority,
            cancelled=cancelled,
            source=source,
        )
        if not self.book.knows(asked):
            self.recall(name)
        inside = self.book.scoped(asked)
        answer = submit(self.book, inside, at(self.ms))
        if known is None:
            assert answer.outcome in (Outcome.ACCEPTED, Outcome.REJECTED)
            assert answer.reason not in (Refusal.CONFLICT, Refusal.CANCELLED_BY_OPERATOR)
        elif revision < known.revision:
            assert answer.outcome is Outcome.SUPERSEDED
        elif revision == known.revision:
            cancels = asked == replace(known, cancelled=True)
            same = Outcome.DUPLICATE if asked == known else Outcome.ACCEPTED
            assert answer.outcome is same if asked == known or cancels else answer.reason == Refusal.CONFLICT
        elif (source, name) in self.held and not cancelled:
            assert answer.reason == Refusal.CANCELLED_BY_OPERATOR
        if answer.outcome is Outcome.ACCEPTED:
            assert cancelled or (
                asked.end_ms > T0 + self.ms and asked.end_ms > asked.start_ms and not self.book.stopped
            )
            self.newest[source, name] = asked
            self.store.pop(inside.id, None)
            if (source, name) not in self.held:
                self.off.discard((source, name))

    @rule(name=st.sampled_from("abc"), source=st.sampled_from(SOURCES), held=st.booleans())
    def withdraw(self, name: str, source: str, held: bool) -> None:
        if (source, name) not in self.newest:
            return
        self.recall(name)
        (entry,) = [e for e in self.book.find(name, at(self.ms)) if e.request.source == source and e.index >= 0]
        self.book.withdraw(entry.request.id, held_by="me" if held else None)
        self.off.add((source, name))
        if held:
            self.held.add((source, name))

    @rule(name=st.sampled_from("abc"), source=st.sampled_from(SOURCES))
    def lift(self, name: str, source: str) -> None:
        self.recall(name)
        for entry in self.book.find(name, at(self.ms)):
            if entry.request.source == source and entry.index >= 0:
                self.book.lift(entry.request.id)
                self.held.discard((source, name))

    @rule(minutes=st.integers(1, 90))
    def wait(self, minutes: int) -> None:
        self.ms += minutes * 60_000
        before = {entry.request.id: entry for entry in self.book.by_index().values()}
        self.book.advance(at(self.ms))
        self.store |= {name: before[name] for name in self.book.forgotten()}

    @rule(active=st.booleans())
    def stop(self, active: bool) -> None:
        self.book.stop(active=active)

    @rule()
    def restart(self) -> None:
        stopped, kept = self.book.stopped, self.book.by_index().values()
        decided = [
            (e.request, Answer(id=e.request.id, revision=e.request.revision, outcome=Outcome.ACCEPTED,
                               decided_ms=e.decided_ms)) for e in kept
        ]  # fmt: skip
        states = {e.request.id: (e.request.revision, e.state) for e in kept}
        withdrawn = {e.request.id: e.held_by for e in kept if e.held_by is not None}
        self.book = Book(self.params)
        self.book.load(decided, stopped=stopped, states=states, withdrawn=withdrawn)

    @invariant()
    def newest_revision_is_what_counts(self) -> None:
        known = self.store | {entry.request.id: entry for entry in self.book.by_index().values()}
        found = {
            (e.request.source, own_id(e.request.id)): replace(e.request, id=own_id(e.request.id))
            for e in known.values()
        }
        assert found == self.newest
        assert len(known) == len(self.newest), "no event under two names"
        held = {(e.request.source, own_id(e.request.id)) for e in known.values() if e.held_by is not None}
        assert held == self.held

    @invariant()
    def bounds_hold(self) -> None:
        live = Counter(e.request.source for e in self.book.by_index().values() if e.state not in OVER)
        assert max(live.values(), default=0) <= self.params.events_max, "of each source"

    @invariant()
    def active_is_what_should_run(self) -> None:
        now_ms = T0 + self.ms
        due = {
            key
            for key, r in self.newest.items()
            if not r.cancelled and key not in self.off and r.start_ms <= now_ms < r.end_ms
        }
        running = self.book.active(at(self.ms))
        assert {(e.request.source, own_id(e.request.id)) for e in running} == (set() if self.book.stopped else due)
        assert [e.rank for e in running] == sorted(e.rank for e in running)


TestBookModel = BookModel.TestCase

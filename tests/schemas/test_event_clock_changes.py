"""Events that repeat, on the days on which a clock changes: elapsed time against time of day, occurrences that span the
change, revisions in an hour that comes twice, bounded events against those until further notice."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.events.book import Answer, Book, Outcome
from gateway.domain.events.request import EventRequest
from gateway.domain.types import Now
from gateway.schemas.event import parse_event
from tests.schemas.test_event_calendar import HOUR, LONDON, LORD_HOWE, LOS_ANGELES, SYDNEY, ms, spans_h, watts

TROLL = "Antarctica/Troll"
MINUTE = 60_000


def event(start: str, end: str, repeat: dict[str, Any], wanted: dict[str, Any], revision: int = 0) -> EventRequest:
    body = {"id": "e", "revision": revision, "program": "p", "group": {"all": True}, "start": start, "end": end,
            "repeat": repeat}  # fmt: skip
    return parse_event(orjson.dumps(body | wanted), source="test")


def for_h(hours: float) -> dict[str, Any]:
    return {"duration_s": hours * 3_600, "target_w": 1_000}


def occurrences(request: EventRequest, until_ms: int) -> list[tuple[int, int]]:
    """Start and end of what begins before `until_ms`, as the event itself says them one after the other."""
    found: list[tuple[int, int]] = []
    at_ms = request.next_ms(request.start_ms - 1)
    while at_ms is not None and at_ms < until_ms:
        found.append((at_ms, request.until_over_ms(at_ms)))
        at_ms = request.next_ms(at_ms)
    return found


def submit(book: Book, request: EventRequest, at_ms: int) -> Answer:
    now = Now(utc_ms=at_ms, mono_ms=at_ms)
    answer = book.decide(request, now)
    book.apply(request, answer)
    book.advance(now)
    return answer


CHANGES = [
    (LOS_ANGELES, "2030-03-09T18:00:00-08:00", "2030-03-12T18:00:00-07:00", 23),
    (LOS_ANGELES, "2030-11-02T18:00:00-07:00", "2030-11-05T18:00:00-08:00", 25),
    (SYDNEY, "2030-10-05T18:00:00+10:00", "2030-10-08T18:00:00+11:00", 23),
    (SYDNEY, "2030-04-06T18:00:00+11:00", "2030-04-09T18:00:00+10:00", 25),
    (LORD_HOWE, "2030-10-05T18:00:00+10:30", "2030-10-08T18:00:00+11:00", 23.5),
    (LORD_HOWE, "2030-04-06T18:00:00+11:00", "2030-04-09T18:00:00+10:30", 24.5),
    (TROLL, "2030-03-30T18:00:00+00:00", "2030-04-02T18:00:00+02:00", 22),
    (TROLL, "2030-10-26T18:00:00+02:00", "2030-10-29T18:00:00+00:00", 26),
]


@pytest.mark.parametrize(("zone", "start", "end", "day_h"), CHANGES)
@pytest.mark.parametrize("open_ended", [False, True])
def test_elapsed_days_stay_24_hours_and_days_by_the_calendar_do_not(
    zone: str, start: str, end: str, day_h: float, open_ended: bool
) -> None:
    until = "open" if open_ended else end
    by_clock = occurrences(event(start, until, {"timezone": zone}, for_h(24)), ms(end))
    assert [(over - at) / HOUR for at, over in by_clock] == [day_h, 24, 24]
    assert by_clock[-1][1] == ms(end)
    elapsed = occurrences(event(start, until, {"every_s": 86_400}, for_h(24)), ms(start) + 72 * HOUR)
    assert [at for at, _ in elapsed] == [ms(start) + day * 24 * HOUR for day in range(3)]
    assert {over - at for at, over in elapsed[:2]} == {24 * HOUR}


@pytest.mark.parametrize(("zone", "start", "end", "day_h"), CHANGES)
def test_occurrence_that_spans_the_change_lasts_its_elapsed_time(zone: str, start: str, end: str, day_h: float) -> None:
    legs = {"legs": [{"after_s": 0, "until_s": 6 * 3_600, "target_w": 1_000},
                     {"after_s": 6 * 3_600, "until_s": 12 * 3_600, "target_w": -1_000}]}  # fmt: skip
    for until in (end, "open"):
        request = event(start, until, {"timezone": zone}, legs)
        (first, *_) = occurrences(request, ms(end))
        assert first == (ms(start), ms(start) + 12 * HOUR)
        told = [watts(request, ms(start) + minutes * MINUTE) for minutes in (0, 359, 360, 719, 720)]
        assert told == [1_000, 1_000, -1_000, -1_000, "nothing"]
        assert request.next_ms(ms(start)) == ms(start) + day_h * HOUR


@pytest.mark.parametrize(
    ("zone", "first", "second"),
    [
        (LOS_ANGELES, "2030-11-03T01:30:00-07:00", "2030-11-03T01:30:00-08:00"),
        (SYDNEY, "2030-04-07T02:30:00+11:00", "2030-04-07T02:30:00+10:00"),
        (LORD_HOWE, "2030-04-07T01:45:00+11:00", "2030-04-07T01:45:00+10:30"),
        (LONDON, "2030-10-27T01:30:00+01:00", "2030-10-27T01:30:00+00:00"),
    ],
)
@pytest.mark.parametrize("until", ["2031-01-10T00:00:00Z", "open"])
def test_revision_in_an_hour_that_comes_twice_changes_the_occurrence_that_runs_and_begins_none_anew(
    zone: str, first: str, second: str, until: str
) -> None:
    """Whichever of the two times the event began at, as it is sent or as the gateway shows it."""
    for began in (first, second):
        book = Book()
        asked = event(began, until, {"timezone": zone}, for_h(3))
        assert submit(book, asked, ms(began)).outcome is Outcome.ACCEPTED
        revised = event(began, until, {"timezone": zone}, for_h(3) | {"target_w": 500}, revision=1)
        at_ms = ms(second) + MINUTE
        assert submit(book, revised, at_ms).outcome is Outcome.ACCEPTED
        (running,) = book.active(Now(utc_ms=at_ms, mono_ms=at_ms))
        assert running.target.power_w == 500
        assert (running.running.since_ms, running.running.until_ms) == (ms(began), ms(began) + 3 * HOUR)
        assert submit(book, revised, at_ms + MINUTE).outcome is Outcome.DUPLICATE


@pytest.mark.parametrize("until", ["2030-11-10T00:00:00Z", "open"])
def test_end_given_in_an_hour_that_comes_twice_is_the_one_that_its_offset_says(until: str) -> None:
    book = Book()
    start, repeat = "2030-11-02T23:00:00-07:00", {"timezone": LOS_ANGELES}
    submit(book, event(start, until, repeat, for_h(2.25)), ms(start))
    for revision, end in ((1, "2030-11-03T01:15:00-08:00"), (2, "2030-11-03T01:15:00-07:00")):
        answer = submit(book, event(start, end, repeat, for_h(2.25), revision), ms("2030-11-03T01:00:00-07:00"))
        assert answer.outcome is Outcome.ACCEPTED
        assert book.active(Now(utc_ms=ms("2030-11-03T01:14:00-07:00"), mono_ms=0))
        assert not book.active(Now(utc_ms=ms("2030-11-03T01:16:00-07:00"), mono_ms=0))


@pytest.mark.parametrize(
    ("zone", "start", "spans"),
    [
        (LOS_ANGELES, "2030-03-09T02:30:00-08:00", [24, 23, 24]),
        (LONDON, "2030-03-30T01:30:00+00:00", [24, 23, 24]),
        (SYDNEY, "2030-10-05T02:30:00+10:00", [24, 23, 24]),
        (LORD_HOWE, "2030-10-05T02:15:00+10:30", [24, 23.5, 24]),
        (TROLL, "2030-03-30T02:00:00+00:00", [24, 22, 24]),
    ],
)
def test_whole_days_from_an_hour_that_spring_leaves_out_follow_each_other(
    zone: str, start: str, spans: list[float]
) -> None:
    request = event(start, "open", {"timezone": zone}, for_h(24))
    found = occurrences(request, ms(start) + 3 * 24 * HOUR - 3 * HOUR)
    assert [(over - at) / HOUR for at, over in found] == spans
    assert all(over == at for (_, over), (at, _) in pairwise(found)), "no minute is left out and none is there twice"


def test_last_leg_that_a_short_day_leaves_no_time_for_is_left_out_and_a_long_day_gives_it_more() -> None:
    legs = {"legs": [{"after_s": 0, "until_s": 23 * 3_600, "target_w": -500},
                     {"after_s": 23 * 3_600, "until_s": 24 * 3_600, "target_w": 1_000}]}  # fmt: skip
    for until in ("2030-12-31T00:00:00-08:00", "open"):
        request = event("2030-03-09T00:00:00-08:00", until, {"timezone": LOS_ANGELES}, legs)
        given_h = [
            sum(watts(request, at_ms) == 1_000 for at_ms in range(ms(f"{day}T00:00:00Z") + 8 * HOUR - 2 * HOUR,
                ms(f"{day}T00:00:00Z") + 8 * HOUR + 30 * HOUR, HOUR // 4)) / 4
            for day in ("2030-03-10", "2030-11-03")
        ]  # fmt: skip
        # from 22:00 of the day before to 06:00 of the day after: the end of the day before, and of the day itself
        assert given_h == [1, 3]


@given(
    zone=st.sampled_from([LOS_ANGELES, SYDNEY, LORD_HOWE, LONDON, TROLL, "Africa/Casablanca", "America/Sao_Paulo"]),
    start=st.integers(0, 366 * 24 * 4).map(lambda quarter: ms("2030-01-01T00:00:00Z") + quarter * HOUR // 4),
    hours=st.sampled_from([0.25, 3, 23, 23.5, 24]),
    days=st.lists(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1, unique=True),
)
def test_event_until_further_notice_has_the_occurrences_of_the_bounded_one(
    zone: str, start: int, hours: float, days: list[str]
) -> None:
    repeat = {"timezone": zone, "weekdays": days}
    began, end = (f"{_date(at)}Z" for at in (start, start + 390 * 24 * HOUR))
    bounded = event(began, end, repeat, for_h(hours))
    open_ended = event(began, "open", repeat, for_h(hours))
    assert open_ended.start_ms == bounded.start_ms
    listed = list(zip(bounded.starts_ms, bounded.ends_ms, strict=True))
    found = occurrences(open_ended, bounded.starts_ms[-1] + 1)
    assert found[:-1] == listed[:-1]
    assert found[-1][0] == listed[-1][0]
    assert spans_h(bounded)[:-1] == [(over - at) / HOUR for at, over in found[:-1]]


def _date(utc_ms: int) -> str:
    return datetime.fromtimestamp(utc_ms / 1000, UTC).replace(tzinfo=None).isoformat()

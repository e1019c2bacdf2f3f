"""Bodies of events that go on until further notice: said in so many words, never by leaving the end out."""

from typing import Any

import orjson
import pytest

from gateway.domain.errors import InvalidInput
from gateway.domain.events.book import Book, Outcome
from gateway.domain.events.request import OPEN_MS, EventRequest
from gateway.domain.types import Now
from gateway.schemas.event import parse_event

DAY_S = 86_400
LEG = {"after_s": 0, "until_s": 60, "target_w": 1_000}
DAILY = {"timezone": "America/Los_Angeles"}


def body(**members: Any) -> bytes:
    asked = {"id": "e", "program": "p", "group": {"all": True}, "start": "2030-03-01T17:00:00-08:00"} | members
    return orjson.dumps({name: value for name, value in asked.items() if value is not None})


def parsed(**members: Any) -> EventRequest:
    return parse_event(body(**members), source="test", received_ms=1)


def problems(**members: Any) -> list[str]:
    with pytest.raises(InvalidInput) as refused:
        parsed(**members)
    return list(refused.value.problems)


@pytest.mark.parametrize(
    "members",
    [
        {"target_w": 1_000, "end": "open"},
        {"target_w": 1_000, "end": "open", "start": "now"},
        {"legs": [LEG, LEG | {"after_s": 60, "until_s": "open"}]},
        {"target_w": 1_000, "end": "open", "duration_s": 60, "repeat": {"every_s": 600}},
        {"target_w": 1_000, "end": "open", "duration_s": 60, "repeat": {"every_s": 600}, "start": "now"},
        {"target_w": 1_000, "end": "open", "duration_s": 60, "repeat": DAILY},
        {"legs": [LEG], "end": "open", "repeat": DAILY},
    ],
)
def test_body_that_says_open_is_an_event_until_further_notice(members: dict[str, Any]) -> None:
    found = parsed(**members)
    assert found.end_ms == OPEN_MS
    book, now = Book(), Now(utc_ms=max(found.start_ms, 1), mono_ms=0)
    anchored = book.anchor(found, now)
    assert book.decide(anchored, now).outcome is Outcome.ACCEPTED
    assert anchored.end_ms == OPEN_MS
    assert anchored.running(anchored.start_ms) is not None


@pytest.mark.parametrize("members", [{"target_w": 1_000}, {"target_w": 1_000, "start": "now"}])
def test_body_without_an_end_is_refused_and_told_both_ways_to_say_it(members: dict[str, Any]) -> None:
    (problem,) = problems(**members)
    assert "duration_s" in problem
    assert '"open"' in problem


@pytest.mark.parametrize(
    ("members", "place"),
    [
        ({"target_w": 1, "end": "open", "duration_s": 60}, "end"),
        ({"target_w": 1, "end": "Open"}, "end"),
        ({"target_w": 1, "end": "until further notice"}, "end"),
        ({"target_w": 1, "end": 0}, "end"),
        ({"target_w": 1, "duration_s": 0}, "duration_s"),
        ({"target_w": 1, "end": "9999-01-01T00:00:00Z"}, "end"),
        ({"legs": [LEG, LEG | {"after_s": 60, "until_s": "open"}], "end": "open"}, "end"),
        ({"legs": [LEG | {"until_s": "open"}, LEG | {"after_s": 60, "until_s": 90}]}, "legs"),
        ({"legs": [LEG | {"until_s": "never"}]}, "legs"),
        ({"legs": [LEG | {"until_s": "open"}], "end": "open", "repeat": DAILY}, "legs"),
        ({"target_w": 1, "end": "open", "repeat": DAILY}, "repeat"),
        ({"target_w": 1, "duration_s": 60, "repeat": DAILY}, "repeat"),
        ({"target_w": 1, "end": "open", "duration_s": 60, "repeat": DAILY, "start": "now"}, "repeat"),
    ],
)
def test_body_that_says_open_and_something_else_is_refused_with_its_place(members: dict[str, Any], place: str) -> None:
    assert any(problem.startswith(place) for problem in problems(**members)), problems(**members)


def test_body_that_repeats_until_further_notice_lists_no_occurrence_and_knows_each() -> None:
    weekly = {"timezone": "America/Los_Angeles", "weekdays": ["mon"]}
    found = parsed(target_w=1, end="open", duration_s=DAY_S, repeat=weekly)
    assert found.starts_ms == ()
    # 2030-03-01 is a Friday; the clock changes on Sunday 10 March
    starts_ms = [found.start_ms]
    while len(starts_ms) < 60:
        next_ms = found.next_ms(starts_ms[-1])
        assert next_ms is not None
        starts_ms.append(next_ms)
    bounded = parsed(target_w=1, end="2031-04-30T17:00:00-07:00", duration_s=DAY_S, repeat=weekly)
    assert starts_ms == list(bounded.starts_ms[:60])
    assert [found.until_over_ms(ms) for ms in starts_ms] == list(bounded.ends_ms[:60])

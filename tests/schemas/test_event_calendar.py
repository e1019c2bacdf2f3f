"""Events that repeat by the calendar of a zone, through the days on which its clock changes."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import InvalidInput
from gateway.domain.events.book import Book, BookParams, Outcome, Refusal
from gateway.domain.events.request import EventRequest
from gateway.domain.types import Now
from gateway.schemas.event import parse_event

HOUR = 3_600_000
DAY = 24 * HOUR
LOS_ANGELES, SYDNEY, LORD_HOWE, LONDON, PHOENIX = (
    "America/Los_Angeles", "Australia/Sydney", "Australia/Lord_Howe", "Europe/London", "America/Phoenix",
)  # fmt: skip
ALL_DAY = {"legs": [{"after_s": 0, "until_s": 57_600, "target_w": -500},
                    {"after_s": 57_600, "until_s": 86_400, "target_w": 1_000}]}  # fmt: skip
HALF_HOUR = {"duration_s": 1_800, "target_w": 1_000}
ON_EVERY_DAY = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def asked(
    zone: str, start: str, end: str, wanted: dict[str, Any], weekdays: tuple[str, ...] = ON_EVERY_DAY
) -> EventRequest:
    body = {"id": "e", "program": "p", "group": {"all": True}, "start": start, "end": end,
            "repeat": {"timezone": zone, "weekdays": weekdays}} | wanted  # fmt: skip
    return parse_event(orjson.dumps(body), source="test")


def refusal(request: EventRequest, params: BookParams | None = None) -> str | None:
    answer = Book(params).decide(request, Now(utc_ms=request.start_ms - HOUR, mono_ms=0))
    assert (answer.outcome is Outcome.REJECTED) is (answer.reason is not None)
    return answer.reason


def spans_h(request: EventRequest) -> list[float]:
    """How long each occurrence lasts, h."""
    return [(request.until_over_ms(start_ms) - start_ms) / HOUR for start_ms in request.starts_ms]


def watts(request: EventRequest, utc_ms: int) -> float | str | None:
    found = request.running(utc_ms)
    return "nothing" if found is None else found.target.power_w


@pytest.mark.parametrize(
    ("zone", "start", "end", "next_start"),
    [
        (LOS_ANGELES, "2030-11-03T01:30:00-08:00", "2030-11-06T00:00:00-08:00", "2030-11-04T01:30:00-08:00"),
        (LOS_ANGELES, "2030-11-03T09:30:00Z", "2030-11-06T00:00:00-08:00", "2030-11-04T01:30:00-08:00"),
        (LOS_ANGELES, "2030-11-03T01:30:00-07:00", "2030-11-06T00:00:00-08:00", "2030-11-04T01:30:00-08:00"),
        (SYDNEY, "2030-04-07T02:30:00+10:00", "2030-04-10T00:00:00+10:00", "2030-04-08T02:30:00+10:00"),
        (LORD_HOWE, "2030-04-07T01:45:00+10:30", "2030-04-10T00:00:00+10:30", "2030-04-08T01:45:00+10:30"),
        (LONDON, "2030-10-27T01:30:00Z", "2030-10-30T00:00:00Z", "2030-10-28T01:30:00Z"),
        (PHOENIX, "2030-11-03T01:30:00-07:00", "2030-11-06T00:00:00-07:00", "2030-11-04T01:30:00-07:00"),
    ],
)
def test_repeat_that_starts_in_an_hour_that_comes_twice_begins_at_its_start(
    zone: str, start: str, end: str, next_start: str
) -> None:
    request = asked(zone, start, end, HALF_HOUR)
    assert (request.start_ms, *request.starts_ms[:2]) == (ms(start), ms(start), ms(next_start))


def test_repeat_whose_only_occurrence_is_in_the_second_of_two_hours_begins_at_its_start() -> None:
    request = asked(LOS_ANGELES, "2030-11-03T01:30:00-08:00", "2030-11-03T02:00:00-08:00", HALF_HOUR)
    assert request.starts_ms == (ms("2030-11-03T01:30:00-08:00"),)


def test_repeat_that_began_in_the_second_of_two_hours_waits_for_an_hour_that_spring_leaves_out() -> None:
    request = asked(LONDON, "2030-10-27T01:30:00Z", "2031-04-02T00:00:00Z", HALF_HOUR)
    starts = [datetime.fromtimestamp(at / 1000, UTC) for at in request.starts_ms]
    assert datetime(2031, 3, 30, 1, 30, tzinfo=UTC) in starts, "02:30 in summer time: an hour late, not early"


@pytest.mark.parametrize(
    ("zone", "start", "end", "spans"),
    [
        (LOS_ANGELES, "2030-03-08T00:00:00-08:00", "2030-03-12T00:00:00-07:00", [24, 24, 23, 24]),
        (LOS_ANGELES, "2030-11-01T00:00:00-07:00", "2030-11-05T00:00:00-08:00", [24, 24, 25, 24]),
        (SYDNEY, "2030-10-05T00:00:00+10:00", "2030-10-08T00:00:00+11:00", [24, 23, 24]),
        (SYDNEY, "2030-04-06T00:00:00+11:00", "2030-04-09T00:00:00+10:00", [24, 25, 24]),
        (LORD_HOWE, "2030-10-05T00:00:00+10:30", "2030-10-08T00:00:00+11:00", [24, 23.5, 24]),
        (LORD_HOWE, "2030-04-06T00:00:00+11:00", "2030-04-09T00:00:00+10:30", [24, 24.5, 24]),
        (LONDON, "2030-03-30T00:00:00Z", "2030-04-02T00:00:00+01:00", [24, 23, 24]),
        (LONDON, "2030-10-26T00:00:00+01:00", "2030-10-29T00:00:00Z", [24, 25, 24]),
        (PHOENIX, "2030-03-08T00:00:00-07:00", "2030-03-12T00:00:00-07:00", [24, 24, 24, 24]),
    ],
)
def test_repeat_of_whole_days_is_accepted_and_leaves_no_hour_out(
    zone: str, start: str, end: str, spans: list[float]
) -> None:
    request = asked(zone, start, end, ALL_DAY)
    assert refusal(request) is None
    assert spans_h(request) == spans
    assert (request.start_ms, request.end_ms) == (ms(start), ms(end))
    assert {watts(request, at) for at in range(ms(start), ms(end), HOUR // 2)} == {-500, 1_000}
    assert watts(request, ms(end)) == "nothing"


@pytest.mark.parametrize(
    ("start", "end", "span"),
    [
        ("2030-03-10T00:00:00-08:00", "2030-03-11T00:00:00-07:00", 23),
        ("2030-11-03T00:00:00-07:00", "2030-11-04T00:00:00-08:00", 25),
        ("2030-11-03T00:00:00-07:00", "2030-11-03T23:00:00-08:00", 24),
    ],
)
def test_repeat_of_one_whole_day_ends_with_that_day_or_with_the_event(start: str, end: str, span: float) -> None:
    request = asked(LOS_ANGELES, start, end, ALL_DAY)
    assert refusal(request) is None
    assert spans_h(request) == [span]
    assert request.end_ms == ms(end)


def test_repeat_of_whole_days_on_some_weekdays_ends_with_each_of_them() -> None:
    march = asked(LOS_ANGELES, "2030-03-03T00:00:00-08:00", "2030-03-18T00:00:00-07:00", ALL_DAY, ("sun",))
    november = asked(LOS_ANGELES, "2030-10-27T00:00:00-07:00", "2030-11-12T00:00:00-08:00", ALL_DAY, ("sun",))
    assert (spans_h(march), spans_h(november)) == ([24, 23, 24], [24, 25, 24])


def test_repeat_that_leaves_part_of_the_day_out_is_not_made_longer_and_is_cut_at_the_next() -> None:
    most = {"duration_s": 23.5 * 3_600, "target_w": 1_000}
    march = asked(LOS_ANGELES, "2030-03-09T00:00:00-08:00", "2030-03-12T00:00:00-07:00", most)
    november = asked(LOS_ANGELES, "2030-11-02T00:00:00-07:00", "2030-11-05T00:00:00-08:00", most)
    assert (refusal(march), refusal(november)) == (None, None)
    assert (spans_h(march), spans_h(november)) == ([23.5, 23, 23.5], [23.5, 23.5, 23.5])


def test_repeat_that_is_cut_says_when_its_leg_ends() -> None:
    request = asked(LOS_ANGELES, "2030-03-09T00:00:00-08:00", "2030-03-12T00:00:00-07:00", ALL_DAY)
    found = request.running(ms("2030-03-10T20:00:00-07:00"))
    assert found is not None
    assert found.until_ms == found.sustained_until_ms == ms("2030-03-11T00:00:00-07:00")


def test_repeat_on_the_long_day_lasts_as_one_target_to_its_end() -> None:
    request = asked(LOS_ANGELES, "2030-11-02T00:00:00-07:00", "2030-11-05T00:00:00-08:00", ALL_DAY)
    found = request.running(ms("2030-11-03T20:00:00-08:00"))
    assert found is not None
    assert found.until_ms == found.sustained_until_ms == ms("2030-11-04T00:00:00-08:00")


@pytest.mark.parametrize("month", ["03", "06"])
def test_repeat_longer_than_a_day_is_refused_whatever_the_clock_does(month: str) -> None:
    long = {"duration_s": 24.5 * 3_600, "target_w": 1_000}
    request = asked(LOS_ANGELES, f"2030-{month}-08T00:00:00-08:00", f"2030-{month}-13T00:00:00-08:00", long)
    assert refusal(request, BookParams(length_s_max=48 * 3_600)) == Refusal.OCCURRENCES_OVERLAP
    assert refusal(request) is not None


def test_repeat_that_does_not_fit_before_its_end_is_refused() -> None:
    with pytest.raises(InvalidInput, match="occurrences are possible, not 0"):
        asked(LOS_ANGELES, "2030-03-10T00:00:00-08:00", "2030-03-10T23:00:00-07:00", ALL_DAY)


@given(
    st.sampled_from([LOS_ANGELES, SYDNEY, LORD_HOWE, LONDON, PHOENIX, "America/Santiago", "Africa/Casablanca"]),
    st.integers(ms("2030-01-01T00:00:00Z") // 900_000, ms("2031-12-31T00:00:00Z") // 900_000),
    st.integers(1, 12),
    st.integers(1, 96),
)
def test_repeat_in_any_zone_holds_each_day_from_the_same_time_and_no_two_at_once(
    zone: str, start_quarters: int, days: int, length_quarters: int
) -> None:
    start_ms, length_ms = start_quarters * 900_000, length_quarters * 900_000
    first = datetime.fromtimestamp(start_ms / 1000, ZoneInfo(zone))
    last = first + timedelta(days=days)
    wanted = {"duration_s": length_ms / 1000, "target_w": 1_000}
    request = asked(zone, first.isoformat(), last.isoformat(), wanted)
    assert refusal(request) is None
    assert request.start_ms == request.starts_ms[0] == start_ms
    assert len(request.starts_ms) == days
    next_ms = [*request.starts_ms[1:], round(last.timestamp() * 1000)]
    for at_ms, following_ms in zip(request.starts_ms, next_ms, strict=True):
        local = datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone))
        skipped = local.utcoffset() != (local - timedelta(hours=3)).utcoffset()
        assert skipped or local.time() == first.time()
        until_ms = request.until_over_ms(at_ms)
        assert until_ms == (following_ms if length_ms == DAY else min(at_ms + length_ms, following_ms))
        assert watts(request, until_ms - 1) == 1_000
        assert watts(request, until_ms) == (
            "nothing" if until_ms < following_ms or until_ms == request.end_ms else 1_000
        )

"""Events that repeat by the calendar of a zone, through the days on which its clock changes."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from gateway.domain.events.request import EventRequest
from gateway.schemas.event import parse_event

LOS_ANGELES, SYDNEY, LORD_HOWE, LONDON, PHOENIX = (
    "America/Los_Angeles", "Australia/Sydney", "Australia/Lord_Howe", "Europe/London", "America/Phoenix",
)  # fmt: skip
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

"""The missing-interval search: what is missing, by which names it is asked, and what comes although it was not."""

from datetime import date
from typing import Any

import orjson
import pytest

from simulators.aggregator import AT_ONCE, NEVER, Mischief, OpenPoints, Schema, SearchNames, WindowRule
from simulators.clock import ManualClock
from tests.simulators.aggregator.asking import (
    DAY,
    JSON,
    METER,
    MISSING,
    NOON_MS,
    OTHER_METER,
    aggregator,
    asking,
    quarters,
)

WINDOW = ("missing_interval_window_start_date_time_utc", "missing_interval_window_end_date_time_utc")
EXAMPLE = ("start_date_time_utc", "end_date_time_utc")
DEADLINE = ("submission_deadline_window_start_date_time_utc", "submission_deadline_window_end_date_time_utc")


def at(clock: str, day: int = 20) -> str:
    return f"2026-11-{day:02}T{clock}:00.000Z"


def spans(found: Any) -> list[tuple[str, str]]:
    return [(entry["start_date_time_utc"], entry["end_date_time_utc"]) for entry in found["missing_intervals"]]


def window(start: str, end: str, names: tuple[str, str] = WINDOW) -> dict[str, str]:
    return {names[0]: start, names[1]: end}


async def test_missing_everything_since_the_first_day_up_to_now_in_pieces_of_a_day() -> None:
    async with asking(aggregator(meters={METER: date(2026, 11, 18)})) as (_, client):
        found = await client.missing()
        assert spans(found) == [
            (at("00:00", 18), at("00:00", 19)), (at("00:00", 19), at("00:00", 20)), (at("00:00"), at("12:00")),
        ]  # fmt: skip
        assert found["missing_intervals"][0] == {
            "meter_id": METER,
            "data_type": "LOAD_DATA",
            "start_date_time_utc": at("00:00", 18),
            "end_date_time_utc": at("00:00", 19),
            "submission_deadline_date_time_utc": at("00:00", 26),
            "status": "OPEN",
        }
        assert (await client.ask("POST", MISSING)).json() == found


async def test_missing_what_was_accepted_is_missing_no_more() -> None:
    async with asking(aggregator(pace=AT_ONCE)) as (_, client):
        await client.upload(quarters([0, 1, 5]))
        assert spans(await client.missing()) == [(at("00:30"), at("01:15")), (at("01:30"), at("12:00"))]


async def test_missing_quarter_that_runs_is_not_missed_before_it_is_over() -> None:
    clock = ManualClock(utc_ms=NOON_MS - 1)
    async with asking(aggregator(clock=clock)) as (_, client):
        assert spans(await client.missing()) == [(at("00:00"), at("11:45"))]
        clock.advance(0.001)
        assert spans(await client.missing()) == [(at("00:00"), at("12:00"))]


async def test_missing_in_a_file_that_waits_is_processing_and_asked_for_as_pending() -> None:
    async with asking(aggregator(pace=NEVER)) as (_, client):
        await client.upload(quarters([2, 3]))
        found = await client.missing()
        assert [entry["status"] for entry in found["missing_intervals"]] == ["OPEN", "PROCESSING", "OPEN"]
        assert spans(await client.missing(state="PENDING")) == [(at("00:30"), at("01:00"))]
        assert spans(await client.missing(state="OPEN")) == [(at("00:00"), at("00:30")), (at("01:00"), at("12:00"))]


async def test_missing_window_includes_its_start_and_excludes_its_end() -> None:
    async with asking(aggregator(pace=AT_ONCE)) as (_, client):
        await client.upload(quarters(range(4, 44)))
        first, last = (at("00:00"), at("01:00")), (at("11:00"), at("12:00"))
        assert spans(await client.missing(**window(at("01:00"), at("11:00")))) == []
        assert spans(await client.missing(**window(at("00:45"), at("11:00")))) == [first]
        assert spans(await client.missing(**window(at("01:00"), at("11:15")))) == [last]
        assert spans(await client.missing(**{WINDOW[0]: at("01:00")})) == [last]
        assert spans(await client.missing(**{WINDOW[1]: at("11:00")})) == [first]


@pytest.mark.parametrize(
    ("rule", "inside"),
    [
        (WindowRule.OVERLAP, [(at("00:00"), at("12:00"))]),
        (WindowRule.CLIPPED, [(at("06:00"), at("07:00"))]),
        (WindowRule.START, []),
    ],
)
async def test_missing_entry_longer_than_the_window_comes_as_the_rule_says(
    rule: WindowRule, inside: list[tuple[str, str]]
) -> None:
    async with asking(aggregator(points=OpenPoints(window=rule))) as (_, client):
        assert spans(await client.missing(**window(at("06:00"), at("07:00")))) == inside


async def test_missing_names_of_the_example_filter_nothing() -> None:
    async with asking() as (served, client):
        everything = await client.missing()
        unfiltered = await client.missing(**window(at("06:00", 1), at("07:00", 1), EXAMPLE))
        assert unfiltered == everything
        assert spans(unfiltered) == [(at("00:00"), at("12:00"))]
        assert sorted(served.requests[-1].unknown) == ["end_date_time_utc", "start_date_time_utc"]
        assert spans(await client.missing(**window(at("06:00", 1), at("07:00", 1)))) == []


async def test_missing_names_of_the_example_count_where_switched_on_and_the_schema_s_do_not() -> None:
    async with asking(aggregator(points=OpenPoints(search_names=SearchNames.EXAMPLE))) as (_, client):
        assert spans(await client.missing(**window(at("06:00", 1), at("07:00", 1), EXAMPLE))) == []
        assert spans(await client.missing(**window(at("06:00", 1), at("07:00", 1)))) == [(at("00:00"), at("12:00"))]
        bad = orjson.dumps(window("today", "now", EXAMPLE))
        assert (await client.ask("POST", MISSING, body=bad, headers=JSON)).status == 400


async def test_missing_outside_the_window_comes_where_switched_on() -> None:
    async with asking(aggregator(mischief=Mischief(outside_window=True))) as (_, client):
        asked = window(at("06:00", 1), at("07:00", 1))
        assert spans(await client.missing(**asked)) == [(at("00:00"), at("12:00"))]
        assert spans(await client.missing(meter_ids=[OTHER_METER], **asked)) == []


async def test_missing_deadline_window_includes_its_start_and_excludes_its_end() -> None:
    async with asking(aggregator(meters={METER: date(2026, 11, 19)})) as (_, client):
        asked = window(at("00:00", 27), at("00:00", 28), DEADLINE)
        assert spans(await client.missing(**asked)) == [(at("00:00", 19), at("00:00", 20))]


async def test_missing_meters_are_filtered_and_none_named_is_none_unless_read_otherwise() -> None:
    meters = {METER: DAY, OTHER_METER: DAY}
    async with asking(aggregator(meters=meters)) as (served, client):
        found = await client.missing(meter_ids=[OTHER_METER.upper()])
        assert [entry["meter_id"] for entry in found["missing_intervals"]] == [OTHER_METER]
        assert spans(await client.missing(meter_ids=[])) == []
        served.intervals.points.empty_meter_ids_are_all = True
        assert len(spans(await client.missing(meter_ids=[]))) == 2


async def test_missing_kinds_of_data_are_told_apart() -> None:
    async with asking(aggregator(schemas=(Schema.LOAD, Schema.PERFORMANCE))) as (_, client):
        found = (await client.missing())["missing_intervals"]
        assert [entry["data_type"] for entry in found] == ["LOAD_DATA", "PERFORMANCE_DATA"]


async def test_missing_pages_hold_what_is_asked_and_end_without_a_token() -> None:
    async with asking(aggregator(meters={METER: date(2026, 11, 16)}, pace=AT_ONCE)) as (_, client):
        page = await client.missing(page_size=2)
        await client.upload(quarters([-384 + 95]))  # the end of what the first page held, behind the reader
        rest, token = [], page["next_page_token"]
        while token is not None:
            more = await client.missing(page_size=2, page_token=token)
            rest += spans(more)
            token = more.get("next_page_token")
        assert [start for start, _ in spans(page) + rest] == [at("00:00", day) for day in range(16, 21)]
        refused = orjson.dumps({"page_token": page["next_page_token"], "state": "OPEN"})
        assert (await client.ask("POST", MISSING, body=refused, headers=JSON)).status == 400


async def test_missing_sparse_items_name_no_status_and_no_deadline() -> None:
    async with asking(aggregator(mischief=Mischief(sparse_missing=True))) as (_, client):
        (item,) = (await client.missing())["missing_intervals"]
        assert item.keys() == {"meter_id", "start_date_time_utc", "end_date_time_utc"}

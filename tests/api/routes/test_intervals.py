"""`GET /v1/intervals`: pages, streams, groups, and what is wrong with a question."""

import csv
import io
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.api.routes import intervals
from gateway.clock import ManualClock
from gateway.domain.errors import StorageError
from gateway.domain.intervals.columns import IntervalColumns
from gateway.schemas.interval_rows import rfc3339
from gateway.services.telemetry import history
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.interval_log.query import IntervalQueries
from gateway.storage.interval_log.rows import create_sql
from tests.api.test_app import Rig, rig
from tests.builders.energy_batches import T0
from tests.storage.interval_log.test_query import IDS, unlogged

HOUR = {"from": "2025-06-01T17:00:00Z", "to": "2025-06-01T18:00:00Z"}


def at(ms: int) -> str:
    return rfc3339(ms)


@asynccontextmanager
async def logged(directory: Path) -> AsyncIterator[Rig]:
    """Six devices of twelve intervals each, the second of each revised."""
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(directory, clock=clock) as log:
        await log.append([unlogged(1, [(d, k, 1) for k in range(12) for d in range(6)])])
        clock.advance(s=86_400)
        await log.append([unlogged(2, [(d, 1, 2) for d in range(6)])])
        async with rig(files=log.files_from) as r:
            yield r


def stretch(first: int = 0, last: int = 12, **more: str) -> dict[str, Any]:
    return {"from": at(T0 + first * 300_000), "to": at(T0 + last * 300_000), **more}


async def test_intervals_route_pages_give_each_interval_once_at_its_newest_revision(tmp_path: Path) -> None:
    async with logged(tmp_path) as r:
        found: list[dict[str, Any]] = []
        query = stretch(limit="7")
        while True:
            page = await r.ask("GET", "/v1/intervals", params=query)
            found += page["intervals"]
            if page["next"] is None:
                break
            query["after"] = page["next"]
    assert [(row["start"], row["device"]) for row in found] == [
        (at(T0 + k * 300_000), device) for k in range(12) for device in IDS
    ]
    assert [row["revision"] for row in found] == [1] * 6 + [2] * 6 + [1] * 60
    assert (found[0]["discharge_wh"], found[0]["charge_wh"]) == (None, 1.0)


async def test_intervals_route_devices_and_tags_add_up(tmp_path: Path) -> None:
    async with logged(tmp_path) as r:
        one = await r.ask("GET", "/v1/intervals", params=stretch(3, 5, device="bat-4"))
        assert [row["device"] for row in one["intervals"]] == ["bat-4"] * 2
        r.world.fleet.tags["coast"] = {r.world.fleet.slot_of["home-01"]}
        r.world.fleet.ids[r.world.fleet.slot_of["home-01"]] = r.world.fleet.ids[0].__class__("bat-1")
        both = await r.ask("GET", "/v1/intervals?" + "device=bat-4&device=bat-5&tag=coast", params=stretch(3, 4))
        assert [row["device"] for row in both["intervals"]] == ["bat-1", "bat-4", "bat-5"]


@pytest.mark.parametrize("form", ["csv", "ndjson"])
async def test_intervals_route_stream_is_the_whole_of_it(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "STREAM_ROWS", 5)
    async with logged(tmp_path) as r:
        page = await r.ask("GET", "/v1/intervals", params=stretch())
        text = await r.ask("GET", "/v1/intervals", params=stretch(format=form))
    if form == "ndjson":
        assert [json.loads(line) for line in text.splitlines()] == page["intervals"]
        return
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows == [
        {k: "|".join(v) if isinstance(v, list) else "" if v is None else str(v) for k, v in row.items()}
        for row in page["intervals"]
    ]


async def test_intervals_route_stream_of_nothing_has_its_head(tmp_path: Path) -> None:
    async with logged(tmp_path) as r:
        text = await r.ask("GET", "/v1/intervals", params=stretch(100, 101, format="csv"))
    assert text == ",".join(intervals.COLUMNS) + "\n"


async def test_intervals_route_stream_that_fails_half_way_does_not_end_as_if_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "STREAM_ROWS", 5)
    real = IntervalQueries.columns

    async def columns(self: Any, *how: Any) -> AsyncIterator[IntervalColumns]:
        asked = 0
        async for page in real(self, *how):
            asked += 1
            if asked == 3:
                raise StorageError("the disk is gone")
            yield page

    monkeypatch.setattr(IntervalQueries, "columns", columns)
    async with logged(tmp_path) as r:
        with pytest.raises(aiohttp.ClientError):
            await r.ask("GET", "/v1/intervals", params=stretch(format="csv"))


async def test_intervals_route_damaged_file_is_told(tmp_path: Path) -> None:
    async with logged(tmp_path) as r:
        r.files(T0)[0].write_bytes(b"not a database" * 1000)
        problem = await r.ask("GET", "/v1/intervals", params=stretch(format="csv"), status=503)
        assert "interval log" in problem["problems"][0]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ({}, "from"),
        ({"from": "2025-06-01", "to": "2025-06-02T00:00:00Z"}, "from"),
        ({"from": "2025-06-01T00:00:00", "to": "2025-06-02T00:00:00Z"}, "from"),
        ({**HOUR, "to": HOUR["from"]}, "to: must be later than from"),
        ({**HOUR, "limit": "0"}, "limit"),
        ({**HOUR, "limit": "10001"}, "limit"),
        ({**HOUR, "after": "x"}, "after"),
        ({**HOUR, "tag": "nobody"}, "tag: nobody"),
        ({**HOUR, "device": "a b"}, "device"),
        ({**HOUR, "format": "xml"}, "format"),
        ({**HOUR, "colour": "red"}, "colour"),
    ],
)
async def test_intervals_route_faults_are_named(tmp_path: Path, query: dict[str, str], problem: str) -> None:
    async with logged(tmp_path) as r:
        answer = await r.ask("GET", "/v1/intervals", params=query, status=400)
    assert any(problem in text for text in answer["problems"]), answer


def test_columns_are_those_of_the_log() -> None:
    with sqlite3.connect(":memory:") as connection:
        connection.executescript(create_sql(0))
        names = [row[1] for row in connection.execute("pragma table_info(interval)")]
    connection.close()
    assert {name.replace("start_ms", "start") for name in names} - {"id"} == set(intervals.COLUMNS)

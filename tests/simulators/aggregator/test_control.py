"""Misbehaviour of every service, and an aggregator that is moved from outside its process."""

import asyncio
import sys
from typing import Any

import aiohttp
import pytest

from simulators.aggregator import BARE_STRING, HTML_PAGE, TOO_MANY, Kind, answer, cut, slot, slow
from simulators.clock import ManualClock
from tests.simulators.aggregator.asking import METER, NOON_MS, aggregator, asking, receiving
from tests.simulators.aggregator.test_meters import asset, program

HOUR_MS = 3_600_000
ASKS: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "dispatch": ("GET", "/v2/dispatch/meter/webhook", None),
    "webhooks": ("GET", "/v1.1/webhooks", None),
    "meter jobs": ("GET", "/v1.1/jobs/meters", None),
    "meters": ("POST", "/v2/meters/search", {}),
    "nominations": ("POST", "/v2/meters/nominations/search", {}),
    "revenue": ("GET", "/v1.1/revenue/periodic/versions?period_start=2026-10&period_end=2026-10", None),
    "interval data": ("POST", "/v1.1/missing-interval-data/search", None),
}


@pytest.mark.parametrize("service", list(ASKS))
async def test_control_every_service_misbehaves_as_it_is_told_and_then_no_more(service: str) -> None:
    async with asking() as (served, client):
        usual = await client.send(*ASKS[service])
        cuts = [cut()] * (2 if ASKS[service][0] == "GET" else 1)  # aiohttp asks a cut GET once more by itself
        served.script_service(service, TOO_MANY, BARE_STRING, HTML_PAGE, answer(503), slow(0), *cuts)
        wrong = [await client.send(*ASKS[service]) for _ in range(5)]
        assert [one.status for one in wrong] == [429, 500, 200, 503, usual.status]
        assert isinstance(wrong[1].json(), str)
        assert wrong[2].headers["Content-Type"] == "text/html"
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await client.send(*ASKS[service])
        assert (await client.send(*ASKS[service])).body == usual.body
        with pytest.raises(ValueError, match="no service"):
            served.script_service("weather", cut())


async def test_control_platform_is_out_over_an_interval_and_sends_its_webhooks_after_it() -> None:
    clock = ManualClock(utc_ms=NOON_MS)
    async with asking(aggregator(clock=clock)) as (_, client), receiving() as receiver:
        await client.send("PUT", "/v2/dispatch/meter/webhook", {"url": receiver.url})
        await client.send("POST", "/_control/outage", {"start_ms": NOON_MS, "end_ms": NOON_MS + 60_000})
        event = {"kind": "meter", "target": METER, "slot": slot(Kind.METER, NOON_MS, NOON_MS + HOUR_MS), "push": {}}
        assert (await client.send("POST", "/_control/events", event)).json()["sent"] == 1
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await client.send("POST", "/v2/meters/search")
        assert (await client.send("POST", "/_control/deliver")).json() == {"posted": 0}
        clock.advance(60)
        assert (await client.send("GET", "/v1.1/webhooks")).status == 200
        assert (await client.send("POST", "/_control/deliver")).json() == {"posted": 1}
        (sent,) = (await client.send("GET", "/_control/deliveries")).json()
        assert (sent["state"], [one["status"] for one in sent["tries"]]) == ("taken", [200])
        seen = (await client.send("GET", "/_control/requests")).json()
        assert [(one["method"], one["status"]) for one in seen] == [("PUT", 200), ("POST", None), ("GET", 200)]


async def test_control_meters_changes_mishaps_and_mischief_come_over_http() -> None:
    async with asking() as (served, client):
        await client.send("POST", "/_control/meters", {"asset": asset(), "meter_id": METER})
        change = {"at_ms": NOON_MS, "meter_id": METER, "program": program("ACTIVE")}
        assert (await client.send("POST", "/_control/changes", change)).status == 200
        await client.send("POST", "/_control/mischief", {"extra_fields": True, "unknown_enums": True})
        found = (await client.send("GET", f"/v2/meters/{METER}/enrollments")).json()
        statuses = [one["enrollment_status"] for one in found["program_enrollment"]]
        assert (statuses[0], len(statuses)) == ("ACTIVE", 2)
        assert "field_of_a_later_version" in found
        mishap = {"service": "meters", "trouble": "answer", "status": 502, "body": "bad gateway", "times": 2}
        await client.send("POST", "/_control/mishaps", mishap)
        assert [(await client.send("POST", "/v2/meters/search")).status for _ in range(3)] == [502, 502, 200]
        assert (await client.send("POST", "/_control/mischief", {"no_such": True})).status == 400
        assert (await client.send("POST", "/_control/tell", {"event_type": "meter.created"})).json() == {"sent": 0}
        assert (await client.send("GET", "/_control/search")).json() == {"returned": {}, "withheld": {}}
        assert served.mischief.extra_fields


async def test_control_old_message_is_posted_again_and_changes_no_book() -> None:
    clock = ManualClock(utc_ms=NOON_MS)
    async with asking(aggregator(clock=clock)) as (served, client), receiving() as receiver:
        await client.send("PUT", "/v2/dispatch/meter/webhook", {"url": receiver.url})
        told = slot(Kind.METER, NOON_MS, NOON_MS + HOUR_MS, energy_kw=1.5)
        for changed, known in (({}, True), ({"energy_kw": 2.5}, True), ({}, False)):
            event = {"kind": "meter", "target": METER, "slot": told | changed}
            asked = {"events": [event], "push": {}, "known": known}
            assert (await client.send("POST", "/_control/batch", asked)).json() == {"sent": 1}
        assert (await client.send("POST", "/_control/deliver")).json() == {"posted": 3}
        (kept,) = served.dispatch_book.events.values()
        assert kept.slot["energy_kw"] == 2.5


async def test_control_clock_and_meters_of_intervals_are_moved_over_http() -> None:
    async with asking(aggregator(clock=ManualClock(utc_ms=NOON_MS))) as (served, client):
        told = await client.send("POST", "/_control/clock", {"skew_ms": -HOUR_MS})
        assert told.json() == {"utc_ms": NOON_MS - HOUR_MS}
        new = "8f14e45f-ceea-467f-a4f1-5d6b6f2a9c11"
        await client.send("POST", "/_control/interval_meters", {new.upper(): "2026-05-01"})
        assert new in served.intervals.meters
        assert (await client.send("GET", "/_control/accepted")).json() == []


async def test_control_last_page_has_a_null_token_or_none_as_switched() -> None:
    async with asking() as (served, client):
        window = {"start_date": "2026-11-20T00:00:00Z", "end_date": "2026-11-21T00:00:00Z"}
        asks = [("/v2/dispatch/group/search", window), ("/v2/meters/enrollments/search", {})]
        served.mischief.null_tokens = True
        for path, body in asks:
            assert (await client.send("POST", path, body)).json()["next_page_token"] is None
        served.mischief.null_tokens, served.mischief.absent_tokens = False, True
        for path, body in asks:
            assert "next_page_token" not in (await client.send("POST", path, body)).json()


async def test_control_process_serves_everything_and_posts_by_itself() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulators.aggregator", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()
        headers = {"Authorization": "Bearer a-key-of-staging"}
        async with aiohttp.ClientSession() as session:
            for method, path, body in ASKS.values():
                async with session.request(method, url + path, json=body, headers=headers) as reply:
                    assert reply.status in (200, 404)
                foreign = {"Authorization": "Bearer a-key-of-production"}
                async with session.request(method, url + path, json=body, headers=foreign) as reply:
                    assert reply.status == 403
    finally:
        process.terminate()
        await process.wait()

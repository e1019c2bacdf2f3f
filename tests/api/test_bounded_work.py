"""No route holds the loop for long, whatever the fleet: work between two awaits, counted at every one of them."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.domain.events.exclusions import AREAS_MAX, Exclusion
from gateway.domain.events.request import TargetGroup
from gateway.domain.types import DeviceId
from gateway.programs.loader import load_programs
from gateway.schemas.interval_rows import rfc3339
from gateway.services.telemetry import completeness
from gateway.services.telemetry.raw import KeptTopic
from gateway.storage.raw_messages import TopicTotals
from tests.api.routes.test_telemetry import DAY_MS, street
from tests.api.test_app import HEADER, Rig, body_of
from tests.builders.energy_batches import T0
from tests.builders.fakes import FACTS, ScriptedSink
from tests.builders.stored_performance import stored_event
from tests.services.programs.stores import BASE, CONSENT
from tests.services.programs.stores import table as rows_of
from tests.work import Work, counted

CALLS_MAX = 15_000
"""Calls of functions between two awaits: a few milliseconds of one slow core."""

DEVICES, TAGS, EXCLUSIONS, RAW_TOPICS = 1_500, 500, 1_500, 1_500
ROWS = 1_500
HELD = {"customer": "", "device": "", "held_since": "2026-01-01T00:00:00Z", "end_customer_name": "Somebody"}
HERE = "home-07"
PROGRAMS = load_programs(Path(__file__).parents[2] / "config" / "programs")

VOLTUS = {"Authorization": "Bearer secret-of-voltus-0123"}

Asked = tuple[str, dict[str, Any], int]


def csv(n: int, *, reserve: int = 20) -> bytes:
    return (HEADER + "".join(f"new-{i},p,s-{i},10000,5000,5000,{reserve}\n" for i in range(n))).encode()


def areas() -> bytes:
    """As many exclusions of territories as there may be."""
    rows = (f"a-{i},storm,{i:05},2027-02-01T00:00:00Z\n" for i in range(AREAS_MAX))
    return ("id,reason,postcode,until\n" + "".join(rows)).encode()


def homes(row: dict[str, str]) -> bytes:
    """A table with this row of every home, or customer, or both."""
    names = {"device": "home-{}", "customer": "c-{}"}
    rows = ({k: names[k].format(i) if k in names else v for k, v in row.items()} for i in range(ROWS))
    return rows_of(*rows).encode()


def dispatches(now_ms: int) -> dict[str, Any]:
    """A body with as many events as may be."""
    sites = [{"id": i, "commitment": 1.5} for i in range(20)]
    event = {"modification_number": 0, "authorized": True, "program": "demand-response", "sites": sites}
    span = {"start_time": rfc3339(now_ms + 3_600_000), "end_time": rfc3339(now_ms + 7_200_000)}
    return {"dispatches": [event | span | {"id": i} for i in range(64)]}


def requests(r: Rig) -> dict[tuple[str, str], list[Asked]]:
    """What is asked of every route, in this order: path, how, status."""
    storm = {"id": "storm", "reason": "storm", "group": {"all": True}}
    flood = {"id": "flood", "reason": "weather", "territory": {"postcodes": ["95404"], "programs": ["test"]},
             "until": rfc3339(r.world.clock.utc + 3_600_000)}  # fmt: skip
    table = {"headers": {"Content-Type": "text/csv"}}
    span = {"from": rfc3339(T0), "to": rfc3339(T0 + 3_600_000)}
    season = {"from": "2026-07-01T00:00:00Z", "to": "2026-09-01T00:00:00Z"}
    page = {"limit": "1000"}
    played = {"from": "2025-05-01T00:00:00Z", "to": "2025-09-01T00:00:00Z", "limit": "200"}
    day = rfc3339(DAY_MS)[:10]
    return {
        ("GET", "/v1/devices"): [("/v1/devices", {"params": page}, 200)],
        ("GET", "/v1/devices/{id}"): [(f"/v1/devices/{HERE}", {}, 200)],
        ("POST", "/v1/devices"): [
            ("/v1/devices", table | {"data": csv(600)}, 200), ("/v1/devices", table | {"data": csv(600)}, 200),
            ("/v1/devices", table | {"data": csv(600, reserve=30)}, 200),
        ],
        ("GET", "/v1/unregistered"): [("/v1/unregistered", {}, 200)],
        ("GET", "/v1/unenrolled"): [("/v1/unenrolled", {}, 200)],
        ("POST", "/v1/dispatch-events"): [("/v1/dispatch-events", {"json": body_of(r)}, 200)],
        ("GET", "/v1/dispatch-events"): [("/v1/dispatch-events", {}, 200)],
        ("GET", "/v1/dispatch-events/{id}"): [("/v1/dispatch-events/e", {"params": {"limit": "100"}}, 200)],
        ("DELETE", "/v1/dispatch-events/{id}"): [("/v1/dispatch-events/e", {}, 200)],
        ("DELETE", "/v1/dispatch-events/{id}/cancellation"): [("/v1/dispatch-events/e/cancellation", {}, 200)],
        ("POST", "/v1/dispatch/stop-all"): [
            ("/v1/dispatch/stop-all", {"json": {"active": True}}, 200),
            ("/v1/dispatch/stop-all", {"json": {"active": False}}, 200),
        ],
        ("POST", "/v1/exclusions"): [("/v1/exclusions", {"json": storm}, 200)],
        ("POST", "/v1/exclusions/preview"): [("/v1/exclusions/preview", {"json": flood}, 200)],
        ("POST", "/v1/exclusions/import"): [("/v1/exclusions/import", table | {"data": areas()}, 200)] * 2,
        ("GET", "/v1/exclusions"): [("/v1/exclusions", {}, 200)],
        ("DELETE", "/v1/exclusions/{id}"): [("/v1/exclusions/storm", {}, 200)],
        ("POST", "/v1/holds"): [("/v1/holds", {"json": storm}, 200)],
        ("GET", "/v1/holds"): [("/v1/holds", {}, 200)],
        ("DELETE", "/v1/holds/{id}"): [("/v1/holds/storm", {}, 200)],
        ("GET", "/v1/quarantine"): [("/v1/quarantine", {}, 200)],
        ("DELETE", "/v1/quarantine/{name}"): [("/v1/quarantine/nobody", {}, 404)],
        ("GET", "/v1/availability"): [("/v1/availability", {}, 200)],
        ("GET", "/v1/audit"): [("/v1/audit", {"params": {"limit": "100"}}, 200)],
        ("GET", "/v1/audit/chain"): [("/v1/audit/chain", {}, 200)],
        ("GET", "/v1/intervals"): [
            ("/v1/intervals", {"params": span | {"limit": "10000"}}, 200),
            ("/v1/intervals", {"params": span | {"format": "csv"}}, 200),
            ("/v1/intervals", {"params": span | {"format": "ndjson"}}, 200),
        ],
        ("GET", "/v1/completeness"): [("/v1/completeness", {"params": page | {"day": day}}, 200)],
        ("GET", "/v1/sinks"): [("/v1/sinks", {}, 200)],
        ("GET", "/v1/sinks/{name}/missing"): [("/v1/sinks/all/missing", {"params": span}, 404)],
        ("POST", "/v1/sinks/{name}/resend"): [("/v1/sinks/all/resend", {"json": span}, 200)],
        ("POST", "/v1/sinks/{name}/retry"): [("/v1/sinks/all/retry", {"json": {}}, 200)],
        ("GET", "/v1/departures"): [("/v1/departures", {"params": {"limit": "100"}}, 200)],
        ("DELETE", "/v1/departures/{id}"): [("/v1/departures/home-03", {"params": {"reason": "x"}}, 404)],
        ("GET", "/v1/devices/{id}/connections"): [("/v1/devices/home-03/connections", {}, 404)],
        ("DELETE", "/v1/devices/{id}"): [("/v1/devices/nobody", {}, 404)],
        ("GET", "/v1/raw-messages"): [("/v1/raw-messages", {"params": {"limit": "1000"}}, 200)],
        ("GET", "/v1/raw-messages/{name}"): [("/v1/raw-messages/old", {}, 404)],
        ("DELETE", "/v1/raw-messages/{name}"): [("/v1/raw-messages/old", {"params": {"reason": "x"}}, 404)],
        ("POST", "/v1/enrollments"): [("/v1/enrollments", table | {"data": homes(BASE)}, 200)] * 2,
        ("GET", "/v1/enrollments"): [("/v1/enrollments", {"params": page}, 200)],
        ("GET", "/v1/enrollments/{id}"): [("/v1/enrollments/home-7", {}, 200)],
        ("GET", "/v1/enrollments/{id}/rates"): [("/v1/enrollments/home-7/rates", {}, 200)],
        ("GET", "/v1/participation/{id}"): [("/v1/participation/dsgs", {"params": page}, 200)],
        ("GET", "/v1/eligibility/{id}"): [("/v1/eligibility/test", {"params": {"limit": "100"}}, 200)],
        ("GET", "/v1/enrollment-changes/{id}"): [("/v1/enrollment-changes/none", {}, 404)],
        ("GET", "/v1/deadlines"): [("/v1/deadlines", {"params": {"days": "400"}}, 200)],
        ("POST", "/v1/customers"): [("/v1/customers", table | {"data": homes(HELD)}, 200)],
        ("GET", "/v1/customers"): [("/v1/customers", {"params": page}, 200)],
        ("GET", "/v1/customers/{id}"): [("/v1/customers/c-7", {}, 200)],
        ("DELETE", "/v1/customers/{id}"): [("/v1/customers/c-7", {}, 200)],
        ("POST", "/v1/consents"): [("/v1/consents", table | {"data": homes(CONSENT)}, 200)],
        ("GET", "/v1/consents"): [("/v1/consents", {"params": page}, 200)],
        ("GET", "/v1/leap"): [("/v1/leap", {}, 200)],
        ("GET", "/v1/leap/dispatch"): [("/v1/leap/dispatch", {}, 200)],
        ("POST", "/v1/leap/catch-up"): [("/v1/leap/catch-up", {"json": {}}, 404)],
        ("GET", "/v1/leap/webhooks"): [("/v1/leap/webhooks", {}, 404)],
        ("POST", "/v1/leap/webhooks"): [("/v1/leap/webhooks", {"json": {"level": "meter"}}, 404)],
        ("POST", "/v1/signals/leap/meter"): [("/v1/signals/leap/meter", {"json": {}}, 404)],
        ("POST", "/v1/signals/leap/group"): [("/v1/signals/leap/group", {"json": {}}, 404)],
        ("GET", "/v1/programs"): [("/v1/programs", {}, 200)],
        ("GET", "/v1/programs/{id}"): [("/v1/programs/ct-ess", {}, 200)],
        ("GET", "/v1/programs/{id}/performance"): [("/v1/programs/p/performance", {"params": played}, 200)],
        ("GET", "/v1/events/{id}/performance"): [("/v1/events/e-0/performance", {"params": page}, 200)],
        ("GET", "/v1/programs/{id}/allowed"): [("/v1/programs/dsgs-option3/allowed", {"params": season}, 200)],
        ("GET", "/v1/leap/enrollments"): [("/v1/leap/enrollments", {}, 200)],
        ("POST", "/v1/leap/enrollments"): [("/v1/leap/enrollments", {"json": {}}, 409)],
        ("POST", "/v1/signals/leap/platform"): [("/v1/signals/leap/platform", {"json": {}}, 404)],
        ("GET", "/v1/leap/nominations"): [("/v1/leap/nominations", {"params": {"limit": "1000"}}, 200)],
        ("POST", "/v1/leap/nominations"): [("/v1/leap/nominations", {"json": {}}, 409)],
        ("POST", "/v1/leap/nominations/suggestions"): [
            (
                "/v1/leap/nominations/suggestions",
                {"json": {"program": "dsgs", "kw": 1, "start_date": "2035-01-01"}},
                409,
            )
        ],
        ("GET", "/v1/sign-ups"): [("/v1/sign-ups", {"params": page}, 200)],
        ("GET", "/v1/sign-ups/{id}"): [("/v1/sign-ups/c-7", {}, 200)],
        ("GET", "/v1/outbox"): [("/v1/outbox", {"params": page}, 200)],
        ("POST", "/v1/outbox"): [
            ("/v1/outbox", {"json": {"kind": "meter", "rows": [{"subject": "m-1", "after": {"a": 1}}] * ROWS}}, 400)
        ],
        ("POST", "/v1/outbox/approvals"): [("/v1/outbox/approvals", {"json": {"rows": [*range(ROWS)]}}, 403)],
        ("POST", "/v1/outbox/withdrawals"): [("/v1/outbox/withdrawals", {"json": {"rows": [*range(ROWS)]}}, 400)],
        ("POST", "/v1/outbox/runs"): [("/v1/outbox/runs", {"json": {"kind": "meter"}}, 200)],
        ("GET", "/v1/homes/{id}/explain"): [("/v1/homes/home-03/explain", {"params": {"on": "2026-11-01"}}, 200)],
        ("GET", "/v1/programs/{id}/forecast"): [("/v1/programs/test/forecast", {}, 200)],
        ("GET", "/v1/cases"): [("/v1/cases", {"params": page}, 200)],
        ("POST", "/v1/cases"): [("/v1/cases", {"json": {"home": "home-03", "cause": "late"}}, 200)],
        ("PATCH", "/v1/cases/{id}"): [("/v1/cases/7", {"json": {"assignee": "ann"}}, 404)],
        ("POST", "/v1/signals/webhook/{name}"): [
            (
                "/v1/signals/webhook/voltus",
                {"json": dispatches(r.world.clock.now().utc_ms), "headers": VOLTUS},
                200,
            ),
            ("/v1/signals/webhook/voltus", {"data": b"[" + b"{}," * 40_000 + b"{}]", "headers": VOLTUS}, 400),
        ],
        ("GET", "/v1/signals/webhook"): [("/v1/signals/webhook", {}, 200)],
        ("GET", "/v1/signals/webhook/{name}"): [("/v1/signals/webhook/voltus", {"params": {"limit": "100"}}, 200)],
        ("GET", "/metrics"): [("/metrics", {}, 200)],
        ("GET", "/healthz"): [("/healthz", {}, 200)],
        ("GET", "/readyz"): [("/readyz", {}, 200)],
    }  # fmt: skip


def routes(app: web.Application | None) -> set[tuple[str, str]]:
    assert app is not None
    return {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }


async def populate(r: Rig) -> None:
    """A tag of some devices each, an exclusion of each, and a tick."""
    world = r.world
    for i, device in enumerate(world.devices[3:]):
        world.fleet.register(replace(device, tags=(f"zone-{i % TAGS}",)), FACTS)
    for i in range(EXCLUSIONS):
        group = TargetGroup(ids=(DeviceId(world.fleet.ids[3 + i % DEVICES]),))
        world.dispatcher.exclusions.set(
            Exclusion(id=f"out-{i:04}", reason="opt_out", group=group, from_ms=0, until_ms=None)
        )
    assert r.raw is not None
    for i in range(RAW_TOPICS):
        r.raw.topics[f"old/{i}"] = KeptTopic(device=None, stored=TopicTotals(messages=1))
    await world.go(1)


async def test_every_route_works_a_bounded_stretch_between_two_awaits(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    for day in range(100):
        stored_event(state_dir, f"e-{day}", homes=2 if day else DEVICES, days=day)
    async with street(tmp_path, ScriptedSink("all"), more=DEVICES, programs=PROGRAMS, state_dir=state_dir) as s:
        r = s.rig
        asked = requests(r)
        await populate(r)
        assert set(asked) == routes(r.client.app)
        lengths, worst = {}, {}
        with counted() as work:
            for (method, route), some in asked.items():
                for path, how, status in some:
                    work.begin()
                    async with r.client.request(method, path, **how) as reply:
                        lengths[method, route] = len(await reply.read())
                        assert reply.status == status, (method, path)
                    if work.most > CALLS_MAX:
                        worst[f"{method} {route}"] = work.told()
        assert not worst
        # what is listed is all there
        for route, least in (("devices", 1_000 * 400), ("exclusions", EXCLUSIONS * 100), ("availability", TAGS * 50),
                             ("programs", len(PROGRAMS) * 100)):  # fmt: skip
            assert lengths["GET", f"/v1/{route}"] > least
        assert lengths["GET", "/v1/raw-messages"] > 1_000 * 100
        assert lengths["GET", "/v1/completeness"] > 300 * 200


async def test_completeness_of_many_devices_is_cut_to_what_a_page_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completeness, "PAGE_INTERVALS", 288 * 2)
    async with street(tmp_path, more=2) as s:
        day = {"day": rfc3339(DAY_MS)[:10], "limit": "4"}
        first = await s.rig.ask("GET", "/v1/completeness", params=day)
        assert ([one["device"] for one in first["devices"]], first["next"], first["total"]) == (
            ["bat-0", "bat-1"],
            2,
            5,
        )
        rest = await s.rig.ask("GET", "/v1/completeness", params=day | {"offset": "2"})
        assert ([one["device"] for one in rest["devices"]], rest["next"]) == (["bat-2", "home-03"], 4)


async def test_work_of_a_walk_is_counted_as_one_stretch_and_of_a_sliced_one_as_many() -> None:
    async def walk(n: int, *, every: int) -> None:
        for i in range(n):
            abs(i)
            if i % every == every - 1:
                await asyncio.sleep(0)

    async def longest(every: int) -> Work:
        with counted() as work:
            await asyncio.create_task(walk(CALLS_MAX + 1, every=every))
        return work

    assert (await longest(CALLS_MAX + 1)).most > CALLS_MAX
    assert (await longest(1_000)).most < 1_100

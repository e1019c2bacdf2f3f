"""Meters at the aggregator: jobs that create and update, reading, and participation by local dates."""

from typing import Any

import pytest

from simulators.aggregator import Aggregator, AssetFate, Change, Wait
from simulators.clock import ManualClock
from tests.simulators.aggregator.asking import CSV, METER, NOON_MS, OTHER_METER, Asker, aggregator, asking, receiving

JOBS = "/v1.1/jobs/meters"
BASE = "/v1.1/enrollment/meters"
ENROLLMENTS = "/v2/meters/enrollments/search"
GROUP = "2d1e7a3c-5d0f-4c11-9f5e-8f1d2c3b4a59"


def asset(reference: str = "home 1", **fields: Any) -> dict[str, Any]:
    return {
        "partner_reference": reference,
        "transmission_region": "CAISO",
        "customer_classification": "RESIDENTIAL",
        "load_types": ["BATTERY_STORAGE"],
        "meter_type": "DEVICE",
        "customer": {
            "street_1": "1 Main St",
            "postal_code": "94103",
            "city": "San Francisco",
            "state_or_province_code": "CA",
            "country_code": "US",
        },
        "device": {"device_type": "BATTERY", "battery_power_capacity_kw": 5.0},
    } | fields


def program(status: str, period: str = "CEC-DSGS_2026_NOV", **fields: Any) -> dict[str, Any]:
    return {
        "program_identifier": "CEC-DSGS",
        "delivery_period": period,
        "delivery_period_start_date_time": "2026-11-01T07:00:00.000Z",
        "delivery_period_end_date_time": "2026-12-01T08:00:00.000Z",
        "enrollment_status": status,
        "enrollment_deadlines": [],
    } | fields


ACTION = {
    "program_identifier": "CEC-DSGS",
    "delivery_period": "CEC-DSGS_2026_NOV",
    "enrollment_deadline_date_time": "2026-11-25T08:00:00.000Z",
    "action_type": "NO_MISSING_FIELDS",
    "action_description": "Field number_of_devices is missing",
    "action_code": "SERV_0005",
}


async def job_of(client: Asker, *assets: dict[str, Any], **query: str) -> Any:
    created = await client.send("POST", JOBS, {"assets": assets}, **query)
    assert created.status == 201
    path = f"{JOBS}/{created.json()['job_id']}"
    assert (await client.send("GET", path)).json()["status"] == "PROCESSING"
    return (await client.send("GET", path)).json()


def with_meters(served: Aggregator) -> None:
    served.meter_book.add(asset("home 1"), meter_id=METER)
    served.meter_book.add(asset("home 2", transmission_region="NYISO"), meter_id=OTHER_METER)


async def test_meters_job_creates_meters_once_it_was_waited_for() -> None:
    async with asking() as (_, client):
        job = await job_of(client, asset(), asset("home 2"), file_name="homes.json")
        assert (job["status"], job["assets_created_count"], job["file_name"]) == ("COMPLETED", 2, "homes.json")
        first = job["assets"][0]
        assert (first["status"], first["status_detail"]["name"]) == ("COMPLETED", "METER_CREATED")
        meter = (await client.send("GET", f"/v2/meters/{first['meter_id']}")).json()
        assert (meter["partner_reference"], meter["device"]) == ("home 1", asset()["device"])


async def test_meters_job_updates_only_where_that_is_asked_for() -> None:
    async with asking() as (served, client):
        with_meters(served)
        refused = await job_of(client, asset(device={"device_model": "new"}))
        assert (refused["status"], refused["assets"][0]["status"]) == ("FAILED", "DUPLICATE")
        assert "meter_id" not in refused["assets"][0]
        assert METER in refused["assets"][0]["status_detail"]["description"]
        job = await job_of(client, asset(device={"device_model": "new"}), update_existing="true")
        assert (job["status"], job["assets_updated_count"], job["assets_created_count"]) == ("COMPLETED", 1, 0)
        assert served.meter_book.meters[METER].asset["device"] == {"device_model": "new"}


async def test_meters_job_tells_each_asset_what_became_of_it() -> None:
    async with asking() as (served, client):
        served.meter_jobs.bad_rows_refuse_all = False
        served.meter_jobs.fates["lost home"] = AssetFate()
        job = await job_of(
            client, asset(), asset("lost home"), asset("twin"), asset("twin"), asset("odd", meter_type="BALLOON")
        )
        assert job["status"] == "COMPLETED_WITH_ERRORS"
        assert [one["status"] for one in job["assets"]] == [
            "COMPLETED", "FAILED", "MULTIPLE_PARTNER_REFERENCE", "MULTIPLE_PARTNER_REFERENCE", "FAILED",
        ]  # fmt: skip
        assert job["assets"][1]["status_detail"]["name"] == "ADDRESS_NOT_FOUND"
        assert job["assets"][2]["status_detail"] == {}
        assert "meter_type" in job["assets"][4]["status_detail"]["failed_fields"]


async def test_meters_job_with_a_bad_row_is_refused_whole_and_names_it() -> None:
    async with asking() as (served, client):
        refused = await client.send("POST", JOBS, {"assets": [asset(), asset("a/b")]})
        assert refused.status == 400
        (problem,) = refused.json()["details"]
        assert (problem["json_index"], problem["problem_field"]) == (1, "partner_reference")
        assert served.meter_jobs.jobs == []
        bodies: list[object] = [{}, {"assets": {}}, []]
        for body in bodies:
            assert (await client.send("POST", JOBS, body)).status == 400


async def test_meters_job_takes_csv_with_flattened_names() -> None:
    header = (
        "partner_reference,transmission_region,customer_classification,load_types.0,meter_type,customer.street_1,"
        "customer.postal_code,customer.city,customer.state_or_province_code,customer.country_code,"
        "device.battery_power_capacity_kw"
    )
    row = "{},CAISO,RESIDENTIAL,BATTERY_STORAGE,DEVICE,1 Main St,94103,San Francisco,CA,US,{}"
    async with asking() as (served, client):
        served.meter_jobs.pace = Wait(looks=0)
        body = "\n".join((header, row.format("home 1", "5.5"))).encode()
        created = await client.ask("POST", JOBS, body=body, headers=CSV)
        job = (await client.send("GET", f"{JOBS}/{created.json()['job_id']}")).json()
        assert job["status"] == "COMPLETED"
        (meter,) = served.meter_book.meters.values()
        assert meter.asset["device"] == {"battery_power_capacity_kw": 5.5}
        body = "\n".join((header, row.format("home 2", "5"), row.format("home 3", "much"))).encode()
        refused = await client.ask("POST", JOBS, body=body, headers=CSV)
        assert (refused.status, refused.json()["details"][0]["csv_row"]) == (400, 2)


async def test_meters_jobs_and_assets_are_listed_by_filter_and_page() -> None:
    async with asking() as (served, client):
        served.meter_jobs.pace = Wait(looks=0)
        for number in range(3):
            body = {"assets": [asset(f"home {number}"), asset("home 0")]}
            assert (await client.send("POST", JOBS, body, file_name=f"f{number}.json")).status == 201
        first = (await client.send("GET", JOBS, page_size="2")).json()
        assert [one["file_name"] for one in first["jobs"]] == ["f2.json", "f1.json"]
        second = (await client.send("GET", JOBS, page_size="2", page_token=first["next_page_token"])).json()
        assert [one["file_name"] for one in second["jobs"]] == ["f0.json"]
        assert "next_page_token" not in second
        found = (await client.send("GET", JOBS, filter="file_name:f0.json,f1.json")).json()["jobs"]
        assert len(found) == 2
        assert len((await client.send("GET", JOBS, search_query="F2", search_fields="file_name")).json()["jobs"]) == 1
        assert (await client.send("GET", JOBS, search_query="F2")).status == 400
        assets = (await client.send("GET", "/v1.1/provisional-assets", filter="partner_reference:home 1")).json()
        assert [one["data"] for one in assets["provisional_assets"]] == [asset("home 1")]
        assert (await client.send("GET", f"{JOBS}/{METER}")).status == 404


async def test_meters_single_creation_takes_a_token_of_the_onboarding_and_no_key() -> None:
    async with asking() as (served, client):
        served.meter_jobs.onboarding_tokens.add("token")
        served.meter_jobs.fates["lost home"] = AssetFate()
        refused = await client.send("POST", "/v1.1/meters", {"onboarding_token": "?", "provisional_asset": asset()})
        assert (refused.status, refused.json().keys()) == (400, {"errors"})
        made = await client.send("POST", "/v1.1/meters", {"onboarding_token": "token", "provisional_asset": asset()})
        assert (made.status, made.json()["status"]) == (200, "COMPLETED")
        failed = {"onboarding_token": "token", "provisional_asset": asset("lost home")}
        answer = await client.send("POST", "/v1.1/meters", failed)
        assert (answer.status, answer.json()["status"]) == (200, "FAILED")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, 2),
        ({"transmission_region": "NYISO"}, 1),
        ({"partner_references": ["home 2"]}, 1),
        ({"meter_ids": [METER]}, 1),
        ({"load_types": ["HVAC"]}, 0),
        ({"created_after_date_time": "2026-11-20T12:00:01Z"}, 0),
        ({"created_before_date_time": "2026-11-20T12:00:01Z"}, 2),
        ({"partner_action_required": True}, 0),
        ({"unknown": True}, 2),
    ],
)
async def test_meters_search_filters(asked: dict[str, Any], found: int) -> None:
    async with asking() as (served, client):
        with_meters(served)
        for path in ("/v2/meters/search", ENROLLMENTS):
            assert len((await client.send("POST", path, asked)).json()["meters"]) == found


async def test_meters_search_refuses_and_pages_as_the_contract_says() -> None:
    async with asking() as (served, client):
        with_meters(served)
        asks: list[object] = [{"page_size": 0}, {"page_size": 501}, {"partner_references": []}, {"meter_ids": ["x"]}]
        for bad in asks:
            refused = await client.send("POST", "/v2/meters/search", bad)
            assert (refused.status, refused.json()["status"]) == (400, 400)
        page = (await client.send("POST", ENROLLMENTS, {"page_size": 1})).json()
        asked = {"page_size": 1, "page_token": page["next_page_token"]}
        rest = (await client.send("POST", ENROLLMENTS, asked)).json()
        assert [one["meter_id"] for one in page["meters"] + rest["meters"]] == [METER, OTHER_METER]
        assert "next_page_token" not in rest
        served.mischief.offset_pages = True
        page = (await client.send("POST", ENROLLMENTS, {"page_size": 1})).json()
        served.meter_book.add(asset("home 0"), meter_id=GROUP.replace("2d", "00", 1))
        asked = {"page_size": 1, "page_token": page["next_page_token"]}
        assert (await client.send("POST", ENROLLMENTS, asked)).json()["meters"][0]["meter_id"] == METER


async def test_meters_errors_speak_as_the_examples_do() -> None:
    async with asking() as (_, client):
        bad = await client.send("GET", "/v2/meters/abcdef")
        assert bad.json() == {"title": "Meter id is not a UUID", "status": 400, "details": {"meter_id": "abcdef"}}
        missing = await client.send("GET", f"/v2/meters/{METER}/enrollments")
        assert missing.json() == {"title": "Meter not found", "status": 404, "details": {"meter_id": METER}}
        assert (await client.ask("GET", f"/v2/meters/{METER}", key=None)).json()["title"] == "Unauthorized"


async def test_meters_enrollment_moves_over_time_per_delivery_period_and_tells_so() -> None:
    clock = ManualClock(utc_ms=NOON_MS)
    async with asking(aggregator(clock=clock)) as (served, client), receiving() as receiver:
        types = ["meter.enrollment.global-status.updated", "meter.enrollment.required-actions.updated",
                 "meter.enrollment.group.updated"]  # fmt: skip
        await client.send("POST", "/v1.1/webhooks", {"receiver_url": receiver.url, "event_types": types})
        served.meter_book.offers = [program("PENDING"), program("PENDING", "CEC-DSGS_2026_DEC")]
        with_meters(served)
        grouped = program("ACTIVE", market_group_id=GROUP, market_group_name="north")
        served.meter_book.plan(NOON_MS + 1000, Change(meter_id=METER, actions={"partner": [ACTION]}))
        served.meter_book.plan(NOON_MS + 2000, Change(meter_id=METER, actions={}, global_status="ACTIVE"))
        served.meter_book.plan(NOON_MS + 3000, Change(meter_id=METER, program=grouped))

        async def enrollment() -> Any:
            return (await client.send("GET", f"/v2/meters/{METER}/enrollments")).json()

        assert (await enrollment())["required_actions"] == {}
        clock.advance(1)
        assert (await enrollment())["required_actions"] == {"partner": [ACTION]}
        asked = {"partner_action_required": True, "action_type": ["NO_MISSING_FIELDS"]}
        assert len((await client.send("POST", ENROLLMENTS, asked)).json()["meters"]) == 1
        clock.advance(2)
        found = await enrollment()
        assert (found["global_enrollment_status"], found["required_actions"]) == ("ACTIVE", {})
        assert {one["delivery_period"]: one["enrollment_status"] for one in found["program_enrollment"]} == {
            "CEC-DSGS_2026_NOV": "ACTIVE",
            "CEC-DSGS_2026_DEC": "PENDING",
        }
        assert await served.deliveries.run_due() == 4


async def idle_of(client: Asker, meter: str = METER) -> list[tuple[str, str]]:
    found = (await client.send("GET", f"{BASE}/{meter}/idle_periods")).json()["idle_periods"]
    return [(one["start_date"], one["end_date"]) for one in found]


def days(first: int, last: int) -> dict[str, str]:
    return {"start_date": f"2026-12-{first:02}", "end_date": f"2026-12-{last:02}"}


async def test_meters_idle_periods_are_local_days_and_show_as_preferences() -> None:
    async with asking() as (served, client):
        with_meters(served)
        path = f"{BASE}/{METER}/idle_periods"
        assert (await client.send("POST", path, [days(1, 5), days(8, 8)])).status == 200
        assert await idle_of(client) == [("2026-12-01", "2026-12-05"), ("2026-12-08", "2026-12-08")]
        found = (await client.send("GET", f"/v2/meters/{METER}/enrollments")).json()["participation_preferences"]
        assert [one["participation_preference"] for one in found] == [
            "PARTICIPATE", "IDLE", "PARTICIPATE", "IDLE", "PARTICIPATE",
        ]  # fmt: skip
        assert (found[1]["start_time"], found[1]["end_time"]) == (
            "2026-12-01T08:00:00.000Z", "2026-12-06T08:00:00.000Z",
        )  # fmt: skip
        assert (await client.send("POST", path, [days(20, 21), days(9, 8)])).status == 400
        assert len(await idle_of(client)) == 2


async def test_meters_idle_period_is_deleted_only_by_its_exact_days() -> None:
    async with asking() as (served, client):
        with_meters(served)
        path = f"{BASE}/{METER}/idle_periods"
        await client.send("POST", path, [days(1, 5), days(8, 8)])
        assert (await client.send("DELETE", path, [days(8, 8), days(1, 4)])).status == 404
        assert len(await idle_of(client)) == 2
        assert (await client.send("DELETE", path, [days(8, 8)])).status == 200
        assert await idle_of(client) == [("2026-12-01", "2026-12-05")]


async def test_meters_idle_in_bulk_drops_unknown_meters_and_refuses_repeated_ones() -> None:
    async with asking() as (served, client):
        with_meters(served)
        path = f"{BASE}/idle_periods"
        mine = {"meter_id": METER, "idle_periods": [days(1, 1)]}
        unknown = {"meter_id": GROUP, "idle_periods": [days(1, 1)]}
        assert (await client.send("POST", path, {"meter_idle_periods": [mine, mine]})).status == 400
        assert (await client.send("POST", path, {"meter_idle_periods": [unknown]})).status == 404
        assert (await client.send("POST", path, {"meter_idle_periods": [mine, unknown]})).status == 200
        listed = (await client.send("GET", path)).json()["meter_idle_periods"]
        assert listed == [mine]


async def test_meters_participate_overrides_and_disenroll_needs_a_later_day_and_a_reason() -> None:
    async with asking() as (served, client):
        with_meters(served)
        path = f"{BASE}/{METER}/disenrollment_requests"
        for bad in ({"date": "2026-11-20", "reason": "moved"}, {"date": "2026-12-03"}, {"reason": "moved"}):
            assert (await client.send("POST", path, bad)).status == 400
        assert (await client.send("POST", path, {"date": "2026-12-03", "reason": "moved"})).status == 200
        await client.send("POST", f"{BASE}/{METER}/idle_periods", [days(1, 10)])
        await client.send("POST", f"{BASE}/{METER}/participate", {"date": "2026-12-05"})
        found = (await client.send("GET", f"/v2/meters/{METER}/enrollments")).json()["participation_preferences"]
        assert [one["participation_preference"] for one in found] == ["PARTICIPATE", "IDLE", "PARTICIPATE"]
        assert len(served.meter_book.meters[METER].disenrollments) == 1
        many = {"disenrollment_requests": [{"meter_id": OTHER_METER, "date": "2026-12-03", "reason": "sold"}]}
        assert (await client.send("POST", f"{BASE}/disenrollment_requests", many)).status == 200
        assert len(served.meter_book.meters[OTHER_METER].disenrollments) == 1

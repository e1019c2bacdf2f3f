"""Who is let in, what is refused, how answers go wrong, and that an outage keeps the state."""

import asyncio
from typing import Any

import aiohttp
import orjson
import pytest

from simulators.aggregator import (
    EMPTY_ANSWER,
    HTML_PAGE,
    Access,
    Environment,
    Mischief,
    Mishap,
    OpenPoints,
    Operation,
    Permission,
    answer,
    cut,
    half,
    hang,
    stall,
)
from simulators.processes import free_port
from tests.simulators.aggregator.asking import (
    CSV,
    DAY,
    JSON,
    KEY,
    METER,
    MISSING,
    UPLOAD,
    UPLOADS,
    aggregator,
    asking,
    quarters,
)

CEILING_S = 60
NOBODYS_JOB = "77777777-5d0f-4c11-9f5e-8f1d2c3b4a59"
EVERYTHING = [
    ("POST", UPLOAD),
    ("GET", UPLOADS),
    ("GET", f"{UPLOADS}/{NOBODYS_JOB}"),
    ("GET", f"{UPLOADS}/file-preview/{NOBODYS_JOB}"),
    ("GET", f"{UPLOADS}/presigned-url/{NOBODYS_JOB}"),
    ("POST", MISSING),
]


@pytest.mark.parametrize(("method", "path"), EVERYTHING)
async def test_aggregator_key_decides_who_is_let_in(method: str, path: str) -> None:
    keys = {
        KEY: Access(),
        "of production": Access(environment=Environment.PRODUCTION),
        "without rights": Access(permissions=frozenset()),
    }
    async with asking(aggregator(keys=keys)) as (_, client):
        assert (await client.ask(method, path, key=None)).status == 401
        assert (await client.ask(method, path, key="unknown")).status == 401
        assert (await client.ask(method, path, key=None, headers={"Authorization": f"Basic {KEY}"})).status == 401
        assert (await client.ask(method, path, key="of production")).status == 403
        refused = await client.ask(method, path, key="without rights")
        assert (refused.status, refused.headers["Content-Type"]) == (403, "application/json")
        assert refused.json()["title"] == "You do not have the necessary permissions for this operation"
        assert (await client.ask(method, path)).status not in (401, 403)


async def test_aggregator_key_of_one_operation_opens_no_other() -> None:
    keys = {KEY: Access(permissions=frozenset({Permission.READ_UPLOADS}))}
    async with asking(aggregator(keys=keys)) as (_, client):
        assert (await client.ask("GET", UPLOADS)).status == 200
        assert (await client.ask("POST", MISSING)).status == 403


@pytest.mark.parametrize(
    "query", [[], [("schema", "LOAD_DATA")], [("schema", "")], [("schema", "load"), ("schema", "load")]]
)
async def test_aggregator_upload_without_a_right_schema_is_refused(query: list[tuple[str, str]]) -> None:
    async with asking() as (served, client):
        refused = await client.ask("POST", UPLOAD, query=query, body=quarters([0]), headers=CSV)
        assert refused.status == 400
        assert served.intervals.uploads == []


@pytest.mark.parametrize(
    "headers", [{}, JSON, {"Content-Type": "application/x-www-form-urlencoded"}, CSV | {"Content-Encoding": "gzip"}]
)
async def test_aggregator_upload_that_is_no_plain_csv_is_refused(headers: dict[str, str]) -> None:
    async with asking() as (served, client):
        query = [("schema", "load")]
        assert (await client.ask("POST", UPLOAD, query=query, body=quarters([0]), headers=headers)).status == 400
        assert served.intervals.uploads == []
        good = {"Content-Type": "text/csv; charset=utf-8"}
        assert (await client.ask("POST", UPLOAD, query=query, body=quarters([0]), headers=good)).status == 200


async def test_aggregator_upload_over_the_limit_is_refused_and_at_the_limit_taken() -> None:
    content = quarters([0])
    async with asking(aggregator(points=OpenPoints(upload_bytes_max=len(content)))) as (served, client):
        await client.upload(content)
        over = await client.ask("POST", UPLOAD, query=[("schema", "load")], body=content + b"\n", headers=CSV)
        assert (over.status, len(served.intervals.uploads)) == (400, 1)


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("page_size", "0", "1"),
        ("page_size", "501", "500"),
        ("page_size", "ten", "50"),
        ("status", "DONE", "FAILED"),
        ("from", "2026-11-20", "2026-11-20T00:00:00Z"),
        ("from", "2026-11-20T00:00:00", "2026-11-20T00:00:00+00:00"),
        ("to", "yesterday", "2026-11-20T00:00:00.123Z"),
        ("file_path", "x.csv", "/interval-data/x.csv"),
        ("file_path", "/interval-data/ä.csv", "/interval-data/a_b-c.1.csv"),
    ],
)
async def test_aggregator_list_bad_parameter_is_refused_and_a_good_one_taken(name: str, bad: str, good: str) -> None:
    async with asking() as (_, client):
        assert (await client.ask("GET", UPLOADS, query=[(name, bad)])).status == 400
        assert (await client.ask("GET", UPLOADS, query=[(name, good)])).status == 200


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ({"page_size": 0}, {"page_size": 1}),
        ({"page_size": 501}, {"page_size": 500}),
        ({"page_size": "50"}, {"page_size": 50}),
        ({"meter_ids": ["device-7"]}, {"meter_ids": [METER]}),
        ({"meter_ids": METER}, {"meter_ids": []}),
        ({"state": "PROCESSING"}, {"state": "PENDING"}),
        ({"page_token": None}, {}),
        (
            {"missing_interval_window_start_date_time_utc": "2026-11-20"},
            {"missing_interval_window_start_date_time_utc": "2026-11-20T00:00:00Z"},
        ),
    ],
)
async def test_aggregator_search_bad_field_is_refused_and_a_good_one_taken(
    bad: dict[str, Any], good: dict[str, Any]
) -> None:
    async with asking() as (_, client):
        assert (await client.ask("POST", MISSING, body=orjson.dumps(bad), headers=JSON)).status == 400
        assert (await client.ask("POST", MISSING, body=orjson.dumps(good), headers=JSON)).status == 200


@pytest.mark.parametrize(("body", "headers"), [(b"{", JSON), (b"[]", JSON), (b"{}", CSV), (b"{}", {})])
async def test_aggregator_search_body_that_is_no_json_object_is_refused(body: bytes, headers: dict[str, str]) -> None:
    async with asking() as (_, client):
        assert (await client.ask("POST", MISSING, body=body, headers=headers)).status == 400


@pytest.mark.parametrize("path", [f"{UPLOADS}/%s", f"{UPLOADS}/file-preview/%s", f"{UPLOADS}/presigned-url/%s"])
async def test_aggregator_job_that_is_no_uuid_is_refused_and_an_unknown_one_not_found(path: str) -> None:
    async with asking() as (_, client):
        assert (await client.ask("GET", path % "job-7")).status == 400
        assert (await client.ask("GET", path % NOBODYS_JOB)).status == 404


async def test_aggregator_what_it_does_not_offer_is_not_found_and_recorded() -> None:
    async with asking() as (served, client):
        assert (await client.ask("GET", "/v2/interval-data")).status == 404
        assert (await client.ask("DELETE", f"{UPLOADS}/{NOBODYS_JOB}")).status == 404
        assert (await client.ask("HEAD", UPLOADS)).status == 404
        assert [(seen.method, seen.operation) for seen in served.requests] == [
            ("GET", None), ("DELETE", None), ("HEAD", None),
        ]  # fmt: skip


async def test_aggregator_requests_are_recorded_without_the_key() -> None:
    async with asking() as (served, client):
        await client.upload(quarters([0]))
        await client.uploads(unheard="of")
        upload, listed = served.requests
        assert (upload.method, upload.path, upload.query) == ("POST", UPLOAD, [("schema", "load")])
        assert (upload.body, upload.status, upload.key_sent) == (quarters([0]), 200, True)
        assert not any(KEY in value for value in upload.headers.values())
        assert upload.headers["Content-Type"] == "text/csv"
        assert (listed.unknown, served.asked(Operation.UPLOADS)) == (["unheard"], [listed])


async def test_aggregator_script_is_used_up_in_order_by_its_own_operation() -> None:
    async with asking() as (served, client):
        served.script(
            Operation.UPLOADS, answer(503), None, answer(429, b"{}", Retry_After="7"), HTML_PAGE, EMPTY_ANSWER
        )
        assert (await client.ask("POST", MISSING)).status == 200
        answers = [await client.ask("GET", UPLOADS) for _ in range(6)]
        assert [got.status for got in answers] == [503, 200, 429, 200, 200, 200]
        assert answers[2].headers["Retry-After"] == "7"
        assert (answers[3].headers["Content-Type"], answers[4].body) == ("text/html", b"")
        assert (answers[5].json(), served.unused(Operation.UPLOADS)) == ({"uploads": []}, 0)


@pytest.mark.parametrize("done", [False, True])
async def test_aggregator_connection_cut_takes_the_file_only_where_it_says_so(done: bool) -> None:
    async with asking() as (served, client):
        served.script(Operation.UPLOAD, cut(done=done))
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.upload(quarters([0]))
        assert len(served.intervals.uploads) == done
        assert served.requests[0].status is None


async def test_aggregator_failure_may_hide_a_file_that_was_taken() -> None:
    async with asking() as (served, client):
        served.script(Operation.UPLOAD, answer(500, b"{}", done=True), answer(500, b"{}"))
        for _ in range(2):
            assert (await client.ask("POST", UPLOAD, query=[("schema", "load")], headers=CSV)).status == 500
        assert len(served.intervals.uploads) == 1


async def test_aggregator_answer_cut_in_the_middle_is_no_answer() -> None:
    async with asking() as (served, client):
        served.script(Operation.UPLOADS, half())
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.ask("GET", UPLOADS)
        assert (await client.ask("GET", UPLOADS)).status == 200


@pytest.mark.parametrize(("mishap", "taken"), [(hang(), 0), (hang(done=True), 1), (stall(), 1)])
async def test_aggregator_answer_that_hangs_ends_when_the_server_stops(mishap: Mishap, taken: int) -> None:
    async with asking() as (served, client), asyncio.TaskGroup() as tasks:

        async def wait() -> None:
            with pytest.raises(aiohttp.ClientError):
                await client.upload(quarters([0]))

        came = asyncio.Event()
        served.script(Operation.UPLOAD, mishap)
        served.on_request = lambda _: came.set()
        waiting = tasks.create_task(wait(), name="waits for an answer")
        async with asyncio.timeout(CEILING_S):
            await came.wait()
            await client.uploads()
            assert not waiting.done()
            await served.stop()
            await waiting
        assert len(served.intervals.uploads) == taken


async def test_aggregator_refusal_of_a_later_version_has_more_fields() -> None:
    async with asking(aggregator(mischief=Mischief(extra_fields=True))) as (_, client):
        refused = await client.ask("GET", UPLOADS, key=None)
        assert (refused.status, "field_of_a_later_version" in refused.json()) == (401, True)


async def test_aggregator_given_port_is_the_one_it_listens_on() -> None:
    port = free_port()
    async with asking(aggregator(port=port)) as (served, client):
        assert served.url == f"http://127.0.0.1:{port}"
        assert (await client.ask("GET", UPLOADS)).status == 200


async def test_aggregator_outage_refuses_connections_and_keeps_port_and_state() -> None:
    async with asking() as (served, client):
        url = served.url
        job_id = await client.upload(quarters([0]))
        async with served.outage():
            with pytest.raises(aiohttp.ClientConnectionError):
                await client.ask("GET", UPLOADS)
        assert served.url == url
        assert (await client.ended(job_id))["status"] == "COMPLETED"


async def test_aggregator_clock_of_its_own_decides_what_is_in_the_future() -> None:
    async with asking() as (served, client):
        served.clock.skew_ms = -900_001
        early = await client.ended(await client.upload(quarters([47])))
        served.clock.skew_ms = 0
        in_time = await client.ended(await client.upload(quarters([47])))
        assert (early["status"], in_time["status"]) == ("FAILED", "COMPLETED")
        assert early["uploaded_at_date_time"] == f"{DAY}T11:44:59.999Z"

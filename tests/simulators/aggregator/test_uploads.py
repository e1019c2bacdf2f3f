"""Jobs from the upload to their end, where the status is told and where not, and what becomes of the file."""

from typing import Any

import pytest

from simulators.aggregator import (
    AT_ONCE,
    FAILED_WITHOUT_ERRORS,
    FAILED_WITHOUT_LINE,
    NEVER,
    Fate,
    Mischief,
    OpenPoints,
    Pace,
    Rerun,
    Wait,
)
from simulators.clock import ManualClock
from tests.simulators.aggregator.asking import (
    CSV,
    DAY,
    METER,
    NOON_MS,
    OTHER_METER,
    UPLOAD,
    UPLOADS,
    aggregator,
    asking,
    line,
    quarters,
    start_ms,
    table,
)

BAD = table(line(0), line(1, meter_id="device-7"), line(2, energy_generated_kwh="-1", energy_net_kwh=""), line(3))
PATH = "/interval-data"


def status_of(listed: Any, job_id: str) -> str | None:
    return next((entry["status"] for entry in listed["uploads"] if entry["last_job_id"] == job_id), None)


async def test_uploads_job_goes_through_its_states_by_looks_at_the_list() -> None:
    async with asking() as (served, client):
        job_id = await client.upload(quarters([0]))
        assert [status_of(await client.uploads(), job_id) for _ in range(4)] == [
            "QUEUED", "PROCESSING", "COMPLETED", "COMPLETED",
        ]  # fmt: skip
        (version,) = served.intervals.accepted[METER, start_ms(0)]
        assert (version.job_id, version.at_ms, version.schema) == (job_id, NOON_MS, "load")
        assert version.row[2:7] == (0.25, 0.5, 0.25, True, "CA")


async def test_uploads_job_goes_through_its_states_by_time_without_a_look() -> None:
    clock = ManualClock(utc_ms=NOON_MS)
    pace = Pace(queued=Wait(looks=None, s=30), processing=Wait(looks=None, s=30))
    async with asking(aggregator(clock=clock, pace=pace)) as (served, client):
        job_id = await client.upload(quarters([0]))
        assert status_of(await client.uploads(), job_id) == "QUEUED"
        clock.advance(30)
        assert status_of(await client.uploads(), job_id) == "PROCESSING"
        clock.advance(29)
        assert status_of(await client.uploads(), job_id) == "PROCESSING"
        assert served.intervals.accepted == {}
        clock.advance(1)
        await client.missing()
        assert len(served.intervals.accepted) == 1


async def test_uploads_job_reply_has_no_status_and_no_errors_while_it_waits() -> None:
    async with asking(aggregator(pace=NEVER)) as (served, client):
        job_id = await client.upload(BAD)
        for _ in range(3):
            assert await client.job(job_id) == {"job_id": job_id, "errors": []}
        served.intervals.finish_all()
        ended = await client.job(job_id)
        assert ended.keys() == {"job_id", "errors", "error_summary", "error_csv_file_path"}
        good = await client.upload(quarters([0]))
        served.intervals.finish_all()
        assert await client.job(good) == {"job_id": good, "errors": [], "error_summary": []}


async def test_uploads_file_with_one_bad_line_fails_whole_and_names_the_lines() -> None:
    async with asking() as (served, client):
        job_id = await client.upload(BAD)
        entry = await client.ended(job_id)
        folder = f"{PATH}/failed/{job_id}.csv"
        assert entry == {
            "last_job_id": job_id,
            "uploaded_file_path": f"{PATH}/{job_id}.csv",
            "current_file_path": f"{folder}/{job_id}.csv",
            "uploaded_at_date_time": "2026-11-20T12:00:00.000Z",
            "status": "FAILED",
            "feedback_csv_file_path": f"{folder}/{job_id}.feedback",
            "error_csv_file_path": f"{folder}/{job_id}.errors.csv",
        }
        job = await client.job(job_id)
        assert [(e["line"], e["column"], e["code"]) for e in job["errors"]] == [
            (3, "meter_id", "MTR_0002"), (4, "energy_generated_kwh", "GEN_0003"),
        ]  # fmt: skip
        assert job["error_summary"] == [
            {"code": "MTR_0002", "count": 1, "column": "meter_id"},
            {"code": "GEN_0003", "count": 1, "column": "energy_generated_kwh"},
        ]
        assert served.intervals.accepted == {}
        written = served.intervals.memory.contents[job["error_csv_file_path"]].decode().splitlines()
        assert written[:2] == ["line,column,code,message", "3,meter_id,MTR_0002,meter 'device-7' is no UUID"]


async def test_uploads_good_file_moves_to_accepted_with_feedback_and_no_errors() -> None:
    async with asking() as (served, client):
        job_id = await client.upload(quarters([0, 1]))
        entry = await client.ended(job_id)
        folder = f"{PATH}/accepted/{job_id}.csv"
        assert (entry["current_file_path"], entry["feedback_csv_file_path"]) == (
            f"{folder}/{job_id}.csv", f"{folder}/{job_id}.feedback",
        )  # fmt: skip
        assert "error_csv_file_path" not in entry
        assert set(served.intervals.memory.contents) == {entry["current_file_path"], entry["feedback_csv_file_path"]}


async def test_uploads_failed_file_gives_its_good_rows_only_where_switched_on() -> None:
    async with asking(aggregator(points=OpenPoints(failed_takes_good_rows=True))) as (served, client):
        assert (await client.ended(await client.upload(BAD)))["status"] == "FAILED"
        assert list(served.intervals.accepted) == [(METER, start_ms(0)), (METER, start_ms(3))]


async def test_uploads_same_quarter_again_is_one_more_version() -> None:
    async with asking() as (served, client):
        first = await client.upload(quarters([0]))
        await client.ended(first)
        second = await client.upload(table(line(0, energy_net_kwh="0", energy_consumed_kwh="0.25")))
        await client.ended(second)
        versions = served.intervals.accepted[METER, start_ms(0)]
        assert [(v.job_id, v.row.consumed_kwh) for v in versions] == [(first, 0.5), (second, 0.25)]
        assert served.intervals.accepted_in_order == versions


@pytest.mark.parametrize(("header_is_line_1", "number"), [(True, 3), (False, 2)])
async def test_uploads_line_numbers_count_the_header_or_not(header_is_line_1: bool, number: int) -> None:
    async with asking(aggregator(points=OpenPoints(header_is_line_1=header_is_line_1))) as (_, client):
        job_id = await client.upload(table(line(0), line(1, region="ZZ")))
        await client.ended(job_id)
        assert [error["line"] for error in (await client.job(job_id))["errors"]] == [number]


async def test_uploads_failed_without_a_line_names_none_of_the_file() -> None:
    async with asking() as (served, client):
        served.next_files(FAILED_WITHOUT_LINE)
        job_id = await client.upload(quarters([0]))
        assert (await client.ended(job_id))["status"] == "FAILED"
        assert [(e["line"], "column" in e, e["code"]) for e in (await client.job(job_id))["errors"]] == [
            (0, False, "UNCATEGORISED")
        ]
        assert served.intervals.accepted == {}
        assert (await client.ended(await client.upload(quarters([0]))))["status"] == "COMPLETED"


async def test_uploads_failed_without_errors_is_told_by_the_list_alone() -> None:
    async with asking() as (served, client):
        served.next_files(FAILED_WITHOUT_ERRORS)
        job_id = await client.upload(quarters([0]))
        assert (await client.ended(job_id))["status"] == "FAILED"
        assert (await client.job(job_id))["errors"] == []
        assert served.intervals.accepted == {}


async def test_uploads_rerun_before_the_list_never_names_the_id_that_was_told() -> None:
    async with asking() as (served, client):
        served.next_files(Fate(rerun=Rerun.BEFORE))
        told = await client.upload(BAD)
        for _ in range(4):
            (entry,) = (await client.uploads())["uploads"]
            assert entry["last_job_id"] != told
            assert entry["uploaded_file_path"] == f"{PATH}/{told}.csv"
        assert entry["status"] == "FAILED"
        assert len((await client.job(told))["errors"]) == len((await client.job(entry["last_job_id"]))["errors"]) == 2


async def test_uploads_rerun_after_judges_anew_under_another_id() -> None:
    async with asking() as (served, client):
        served.next_files(Fate(rerun=Rerun.AFTER))
        told = await client.upload(quarters([0], meter=OTHER_METER))
        assert (await client.ended(told))["status"] == "FAILED"
        served.intervals.meters[OTHER_METER] = served.intervals.meters[METER]
        seen = [(await client.uploads())["uploads"][0] for _ in range(3)]
        assert [entry["status"] for entry in seen] == ["QUEUED", "PROCESSING", "COMPLETED"]
        assert {entry["last_job_id"] for entry in seen}.isdisjoint({told})
        assert [error["code"] for error in (await client.job(told))["errors"]] == ["MTR_0003"]
        assert list(served.intervals.accepted) == [(OTHER_METER, start_ms(0))]


async def test_uploads_preview_tells_the_status_of_one_id_and_the_first_lines() -> None:
    async with asking(aggregator(points=OpenPoints(preview_lines=2))) as (_, client):
        job_id = await client.upload(quarters([0, 1]))
        answers = [(await client.ask("GET", f"{UPLOADS}/file-preview/{job_id}")).json() for _ in range(3)]
        assert [preview["status"] for preview in answers] == ["QUEUED", "PROCESSING", "COMPLETED"]
        assert answers[2]["file_data"] == quarters([0]).decode().splitlines()
        assert (answers[2]["job_id"], answers[2]["is_limited"]) == (job_id, True)


async def test_uploads_presigned_url_redirects_to_the_file_until_it_moves() -> None:
    async with asking(aggregator(pace=NEVER)) as (served, client):
        job_id = await client.upload(quarters([0]))
        redirect = await client.ask("GET", f"{UPLOADS}/presigned-url/{job_id}")
        assert (redirect.status, redirect.body) == (302, b"")
        assert "Cache-Control" in redirect.headers
        location = redirect.headers["Location"]
        assert location.startswith(f"{served.url}/presigned/")
        fetched = await client.ask("GET", location, key=None)
        assert (fetched.status, fetched.body) == (200, quarters([0]))
        assert not served.requests[-1].key_sent
        served.intervals.finish_all()
        assert (await client.ask("GET", location, key=None)).status == 403


async def test_uploads_list_window_includes_both_ends() -> None:
    clock = ManualClock(utc_ms=NOON_MS)
    async with asking(aggregator(clock=clock)) as (_, client):
        jobs = []
        for _ in range(3):
            jobs.append(await client.upload(quarters([0])))
            clock.advance(1)
        window = {"from": "2026-11-20T12:00:00Z", "to": "2026-11-20T12:00:01Z"}
        assert [e["last_job_id"] for e in (await client.uploads(**window))["uploads"]] == [jobs[1], jobs[0]]
        assert await client.uploads(**{"from": "2026-11-20T12:00:02.001Z"}) == {"uploads": []}


async def test_uploads_list_filters_by_status_and_by_either_path() -> None:
    async with asking(aggregator(pace=AT_ONCE)) as (_, client):
        good, bad = await client.upload(quarters([0])), await client.upload(BAD)
        (failed,) = (await client.uploads(status="FAILED"))["uploads"]
        assert failed["last_job_id"] == bad
        for path in (f"{PATH}/{good}.csv", f"{PATH}/accepted/{good}.csv/{good}.csv"):
            assert [e["last_job_id"] for e in (await client.uploads(file_path=path))["uploads"]] == [good]
        assert (await client.uploads(status="QUEUED"))["uploads"] == []


async def test_uploads_list_pages_are_fifty_unless_asked() -> None:
    async with asking() as (_, client):
        jobs = [await client.upload(table()) for _ in range(51)]
        page = await client.uploads()
        rest = await client.uploads(page_token=page["next_page_token"])
        assert [e["last_job_id"] for e in page["uploads"] + rest["uploads"]] == jobs[::-1]
        assert (len(page["uploads"]), "next_page_token" in rest) == (50, False)


async def test_uploads_token_of_other_filters_or_of_nobody_is_refused() -> None:
    async with asking() as (_, client):
        for _ in range(2):
            await client.upload(table())
        token = (await client.uploads(page_size="1"))["next_page_token"]
        for query in ([("page_token", token), ("status", "QUEUED")], [("page_token", "1")], [("page_token", "")]):
            assert (await client.ask("GET", UPLOADS, query=query)).status == 400
        assert len((await client.uploads(page_token=token))["uploads"]) == 1


async def test_uploads_kinds_of_data_are_kept_apart() -> None:
    async with asking(aggregator(pace=AT_ONCE)) as (served, client):
        await client.upload(quarters([0]), schema="performance")
        (missing,) = (await client.missing())["missing_intervals"]
        assert (missing["data_type"], missing["start_date_time_utc"]) == ("LOAD_DATA", "2026-11-20T00:00:00.000Z")
        assert [v.schema for v in served.intervals.accepted[METER, start_ms(0)]] == ["performance"]


async def test_uploads_later_version_adds_fields_and_values_to_every_reply() -> None:
    mischief = Mischief(extra_fields=True, unknown_enums=True, null_tokens=True)
    async with asking(aggregator(mischief=mischief)) as (_, client):
        told = await client.ask("POST", UPLOAD, query=[("schema", "load")], body=BAD, headers=CSV)
        job_id = told.json()["job_id"]
        preview = (await client.ask("GET", f"{UPLOADS}/file-preview/{job_id}")).json()
        listed = [await client.uploads() for _ in range(3)][-1]
        replies = [told.json(), preview, listed, listed["uploads"][1], await client.job(job_id), await client.missing()]
        assert all("field_of_a_later_version" in reply for reply in replies)
        known = {"QUEUED", "PROCESSING", "COMPLETED", "FAILED"}
        assert preview["status"] not in known
        assert [entry["status"] in known for entry in listed["uploads"]] == [False, True]
        assert replies[4]["errors"][-1]["code"] == "NEW_0001"
        assert replies[5]["missing_intervals"][0]["data_type"] not in ("LOAD_DATA", "RUNTIME_DATA", "PERFORMANCE_DATA")
        assert (listed["next_page_token"], replies[5]["next_page_token"]) == (None, None)


async def test_uploads_older_error_items_have_texts_and_no_code() -> None:
    async with asking(aggregator(mischief=Mischief(old_error_items=True), pace=AT_ONCE)) as (_, client):
        job = await client.job(await client.upload(BAD))
        assert [item.keys() for item in job["errors"]] == [{"line", "column", "errors"}] * 2
        assert (job["errors"][0]["line"], job["errors"][0]["column"]) == (3, "meter_id")


async def test_uploads_week_of_two_hundred_homes_goes_through() -> None:
    meters = [f"{number:08x}-5d0f-4c11-9f5e-8f1d2c3b4a59" for number in range(200)]
    week = range(-672, 0)
    content = table(*(line(quarter, meter_id=meter) for meter in meters for quarter in week))
    async with asking(aggregator(meters=dict.fromkeys(meters, DAY), pace=AT_ONCE)) as (served, client):
        await client.upload(content)
        assert (await client.uploads())["uploads"][0]["status"] == "COMPLETED"
        assert len(served.intervals.accepted) == len(served.intervals.accepted_in_order) == 134_400
        missing = (await client.missing())["missing_intervals"]
        assert {entry["start_date_time_utc"] for entry in missing} == {f"{DAY}T00:00:00.000Z"}
        assert len(missing) == 200


async def test_uploads_reply_off_the_contract_is_the_fake_s_own_fault_and_does_not_go_out() -> None:
    async with asking() as (served, client):
        await client.upload(quarters([0]))
        served.intervals.uploads[0].jobs[0].job_id = "no uuid"
        assert (await client.ask("GET", UPLOADS)).status == 500
        (fault,) = served.faults
        assert "uploads.0.last_job_id" in fault
        served.faults.clear()

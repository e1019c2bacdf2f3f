"""The aggregator's answers, read with suspicion."""

import orjson

from gateway.sinks.leap.replies import (
    LineError,
    UploadEntry,
    errors_of,
    job_id_of,
    missing_of,
    preview_of,
    uploads_of,
)
from tests.builders.interval_logs import T0


def test_job_id_is_a_plain_name_or_none() -> None:
    assert job_id_of(b'{"job_id": "0b9f6c1e-0000-4000-8000-000000000001", "x": 1}') is not None
    for odd in (b"", b"[]", b"<html>", b"{}", b'{"job_id": null}', b'{"job_id": 7}', b'{"job_id": "../x"}'):
        assert job_id_of(odd) is None


def test_uploads_skip_what_cannot_be_read() -> None:
    good = {"last_job_id": "j", "status": "QUEUED", "novelty": []}
    page = uploads_of(orjson.dumps({"uploads": [good, 7, {"status": "FAILED"}, {"last_job_id": "k"}]}))
    assert page == ([UploadEntry(job_id="j", status="QUEUED")], None)
    assert uploads_of(b'{"uploads": [], "next_page_token": "t"}') == ([], "t")
    assert uploads_of(b'{"uploads": [], "next_page_token": null}') == ([], None)
    assert uploads_of(b'{"uploads": {}}') is None


def test_errors_are_read_in_both_shapes_and_what_is_only_counted_stands_there_too() -> None:
    def read(errors: str, summary: str = "[]") -> list[LineError] | None:
        return errors_of(f'{{"job_id": "j", "errors": {errors}, "error_summary": {summary}}}'.encode())

    assert read('[{"line": 2, "code": "MTR_0003", "message": "x"}]') == [LineError(line=2, code="MTR_0003")]
    assert read('[{"line": 12, "column": "meter_id", "errors": ["not known"]}]') == [LineError(line=12, code="")]
    assert read('[{"line": 2, "code": "UNCATEGORISED"}]') == [LineError(line=2, code="UNCATEGORISED")]
    assert read('[{"line": 2, "code": "BRAND_NEW"}]') == [LineError(line=2, code="")]
    assert LineError(line=2, code="").reason == "refused_by_receiver"
    for odd in ('{"line": true}', '{"line": "2"}', '{"line": null}', "{}", "7"):
        assert read(f"[{odd}]") == [LineError(line=None, code="")], odd
    nowhere = LineError(line=None, code="")
    assert read("[]", '[{"code": "MTR_0003", "count": 1}, {"count": true}, 7]') == [nowhere]
    assert read("null") == []
    assert errors_of(b'{"title": "Not found"}') is None


def test_preview_tells_how_a_job_stands_and_lines_of_its_file() -> None:
    found = preview_of(b'{"file_data": ["a,b\\r\\n", "1,2", 7], "status": "FAILED", "is_limited": false}')
    assert found is not None
    assert (found.status, list(found.lines), found.whole) == ("FAILED", ["a,b", "1,2"], True)
    limited = preview_of(b'{"file_data": ["a"]}')
    assert limited is not None
    assert not limited.whole
    assert preview_of(b"{}") is None


def test_missing_reply_skips_what_it_cannot_read_and_counts_it() -> None:
    good = {
        "meter_id": "M", "status": "OPEN", "start_date_time_utc": "2027-01-15T08:00:00Z",
        "end_date_time_utc": "2027-01-15T08:15:00Z", "novelty": {},
    }  # fmt: skip
    odd = [
        good | {"meter_id": None}, good | {"start_date_time_utc": "2027-01-15T08:00:00"},
        good | {"end_date_time_utc": "2027-01-15T08:00:00Z"}, 7,
    ]  # fmt: skip
    bare = {name: value for name, value in good.items() if name != "status"}
    page = missing_of(orjson.dumps({"missing_intervals": [good, bare, *odd], "next_page_token": ""}))
    assert page is not None
    found, unread, token = page
    assert ([(entry.meter_id, entry.start_ms, entry.data_type, entry.deadline_ms) for entry in found], unread) == (
        [("m", T0, "", None)] * 2,
        4,
    )
    assert token is None

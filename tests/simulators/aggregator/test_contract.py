"""The schemas hold what the contract says: neither less nor more."""

from typing import Any

import pytest

from simulators.aggregator import Body, OffContract, check
from tests.simulators.aggregator.asking import METER

AT = "2026-11-20T00:00:00Z"
UPLOAD: dict[str, Any] = {
    "last_job_id": METER,
    "uploaded_file_path": "/interval-data/x.csv",
    "current_file_path": "/interval-data/x.csv",
    "uploaded_at_date_time": AT,
    "status": "QUEUED",
}
ERROR: dict[str, Any] = {"line": 12, "column": "final", "code": "FNL_0002", "message": "no"}
MISSING: dict[str, Any] = {"missing_intervals": [{"data_type": "LOAD_DATA", "status": "PROCESSING"}]}
REQUEST = "missing_interval_window_start_date_time_utc"

RIGHT: list[tuple[Body, Any]] = [
    (Body.UPLOAD_QUERY, {"schema": "runtime"}),
    (Body.UPLOAD_REPLY, {"job_id": METER, "new": {}}),
    (Body.UPLOADS_QUERY, {"from": AT, "to": "2026-11-20T00:00:00.5+01:00", "status": "FAILED", "page_size": 500}),
    (Body.UPLOADS_REPLY, {"uploads": [UPLOAD], "next_page_token": None}),
    (Body.JOB_REPLY, {"job_id": METER, "errors": [ERROR], "error_summary": [{"code": "X", "count": 1}]}),
    (Body.OLD_JOB_REPLY, {"job_id": METER, "errors": [{"line": 1, "column": "final", "errors": ["no"]}]}),
    (Body.PREVIEW_REPLY, {}),
    (Body.MISSING_REQUEST, {"meter_ids": [], "start_date_time_utc": 7, "state": "PENDING"}),
    (Body.MISSING_REPLY, MISSING | {"next_page_token": "x"}),
    (Body.MISSING_REPLY, {"missing_intervals": [{}]}),
    (Body.INTERVALS_ERROR, {}),
    (Body.DISPATCH_ERROR, {"code": "NOT_FOUND", "message": "no"}),
    (Body.METERS_ERROR, {"title": "Meter id is not a UUID", "status": 400, "details": {"meter_id": "abcdef"}}),
    (Body.METERS_INTERNAL_ERROR, "An error happened whilst processing your request"),
    (Body.METER_JOBS_ERROR, {"details": [{"message": "no", "csv_row": 2, "problem_field": "x"}]}),
    (Body.REVENUE_ERROR, {"title": "no", "status": 400, "details": [{"message": "no", "description": "x"}]}),
    (Body.WEBHOOKS_ERROR, {}),
    (Body.CREATE_METER_ERROR, {"errors": [{"description": "no"}]}),
]
WRONG: list[tuple[Body, Any]] = [
    (Body.UPLOAD_QUERY, {}),
    (Body.UPLOAD_QUERY, {"schema": "LOAD_DATA"}),
    (Body.UPLOAD_REPLY, {"job_id": "7"}),
    (Body.UPLOADS_QUERY, {"page_size": 0}),
    (Body.UPLOADS_QUERY, {"file_path": "/x.csv"}),
    (Body.UPLOADS_QUERY, {"from": "2026-13-20T00:00:00Z"}),
    (Body.UPLOADS_REPLY, {}),
    (Body.UPLOADS_REPLY, {"uploads": [UPLOAD | {"status": "DONE"}]}),
    (Body.UPLOADS_REPLY, {"uploads": [UPLOAD] * 501}),
    (Body.JOB_REPLY, {"job_id": METER}),
    (Body.JOB_REPLY, {"job_id": METER, "errors": [{"line": 1, "column": "final", "errors": ["no"]}]}),
    (Body.JOB_REPLY, {"job_id": METER, "errors": [ERROR | {"line": 2**31}]}),
    (Body.PREVIEW_REPLY, {"status": None}),
    (Body.MISSING_REQUEST, {REQUEST: "2026-11-20"}),
    (Body.MISSING_REQUEST, {"state": "PROCESSING"}),
    (Body.MISSING_REQUEST, []),
    (Body.MISSING_REPLY, {"missing_intervals": [{"status": "PENDING"}]}),
    (Body.INTERVALS_ERROR, "no"),
    (Body.DISPATCH_ERROR, {"code": "GONE", "message": "no"}),
    (Body.METERS_ERROR, {"details": []}),
    (Body.METERS_INTERNAL_ERROR, {}),
    (Body.REVENUE_ERROR, {"title": "no", "status": 400, "details": [], "more": 1}),
    (Body.CREATE_METER_ERROR, {"errors": [{}]}),
]


@pytest.mark.parametrize(("body", "value"), RIGHT)
def test_contract_right_body_passes(body: Body, value: Any) -> None:
    check(body, value)


@pytest.mark.parametrize(("body", "value"), WRONG)
def test_contract_wrong_body_does_not(body: Body, value: Any) -> None:
    with pytest.raises(OffContract):
        check(body, value)


def test_contract_every_body_is_tried() -> None:
    assert {body for body, _ in RIGHT} == set(Body)


def test_contract_unknown_value_passes_only_where_enums_are_open() -> None:
    reply = {"uploads": [UPLOAD | {"status": "DONE"}]}
    check(Body.UPLOADS_REPLY, reply, open_enums=True)
    with pytest.raises(OffContract):
        check(Body.UPLOADS_REPLY, {"uploads": [UPLOAD | {"status": 7}]}, open_enums=True)

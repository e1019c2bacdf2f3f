"""JSON Schemas of the aggregator's interval-data service and of its error envelopes, as published and no narrower.

Requests and replies may carry fields that are not named here. A reply's enum is closed for the service and open for
its clients, so `check` takes either reading. `next_page_token` may be null although no field is declared so.
"""

import re
from datetime import date
from enum import StrEnum
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

JsonSchema = dict[str, Any]

RFC3339 = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII
)
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
SCHEMAS = ("load", "runtime", "performance")
DATA_TYPES = ("LOAD_DATA", "RUNTIME_DATA", "PERFORMANCE_DATA")
JOB_STATUSES = ("QUEUED", "PROCESSING", "COMPLETED", "FAILED")
PAGE_MAX = 500

TEXT: JsonSchema = {"type": "string"}
ID: JsonSchema = {"type": "string", "format": "uuid"}
DATE: JsonSchema = {"type": "string", "format": "date"}
BOOL: JsonSchema = {"type": "boolean"}
NUMBER: JsonSchema = {"type": "number"}
TIME: JsonSchema = {"type": "string", "format": "date-time"}
INT32: JsonSchema = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
COUNT: JsonSchema = {"type": "integer"}
TOKEN: JsonSchema = {"type": ["string", "null"]}
PAGE_SIZE: JsonSchema = {"type": "integer", "minimum": 1, "maximum": PAGE_MAX}
DETAILS: JsonSchema = {"type": "object"}


class Body(StrEnum):
    """What has a schema."""

    UPLOAD_QUERY = "upload query"
    UPLOAD_REPLY = "upload reply"
    UPLOADS_QUERY = "uploads query"
    UPLOADS_REPLY = "uploads reply"
    JOB_REPLY = "job reply"
    OLD_JOB_REPLY = "job reply of the older example"
    PREVIEW_REPLY = "preview reply"
    MISSING_REQUEST = "missing intervals request"
    MISSING_REPLY = "missing intervals reply"
    INTERVALS_ERROR = "error of interval data"
    DISPATCH_ERROR = "error of dispatch"
    METERS_ERROR = "error of meters, enrollments, nominations"
    METERS_INTERNAL_ERROR = "error 500 of meters, enrollments, nominations"
    METER_JOBS_ERROR = "error 400 of meter jobs"
    REVENUE_ERROR = "error of revenue"
    WEBHOOKS_ERROR = "error of webhooks"
    CREATE_METER_ERROR = "error 400 of single meter creation"


class OffContract(ValueError):
    """A body is not what its schema says."""


def check(body: Body, value: object, *, open_enums: bool = False) -> None:
    """OffContract with the first thing that is wrong, by its path."""
    for error in _validator(body, open_enums).iter_errors(value):
        path = ".".join(str(step) for step in error.absolute_path)
        raise OffContract(f"{body}: {path or 'body'}: {error.message}")


class Shape:
    """A named schema of a request or a reply."""

    def __init__(self, name: str, schema: JsonSchema) -> None:
        self.name = name
        self.schema = schema
        self.properties = frozenset(schema.get("properties", {}))
        self._closed = Draft202012Validator(schema, format_checker=FORMATS)
        self._open = Draft202012Validator(_opened(schema), format_checker=FORMATS)

    def check(self, value: object, *, open_enums: bool = False) -> None:
        """OffContract with the first thing that is wrong, by its path."""
        for error in (self._open if open_enums else self._closed).iter_errors(value):
            path = ".".join(str(step) for step in error.absolute_path)
            raise OffContract(f"{self.name}: {path or 'body'}: {error.message}")


def enum(*values: str) -> JsonSchema:
    """A closed enum; `open_enums` lets any string pass."""
    return {"type": "string", "enum": list(values)}


def record(required: str = "", /, **properties: JsonSchema) -> JsonSchema:
    """An object that may hold more than it names."""
    return {"type": "object", "required": required.split(), "properties": properties}


def array(items: JsonSchema, **bounds: object) -> JsonSchema:
    """A list."""
    return {"type": "array", "items": items, **bounds}


JOB_STATUS = enum(*JOB_STATUSES)
ERROR_ITEM = record("line code message", line=INT32, column=TEXT, code=TEXT, message=TEXT)
OLD_ERROR_ITEM = record("line errors", line=INT32, column=TEXT, errors=array(TEXT))
SUMMARY = array(record("code count", code=TEXT, count=COUNT, column=TEXT))
FILE_PATH: JsonSchema = {
    "type": "string", "minLength": 1, "maxLength": 1024, "pattern": r"^/interval-data/[A-Za-z0-9._/-]+$",
}  # fmt: skip
DISPATCH_CODES = enum(
    "BAD_REQUEST", "UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND", "METHOD_NOT_ALLOWED", "UNSUPPORTED_MEDIA_TYPE",
    "SERVICE_UNAVAILABLE", "INTERNAL_SERVER_ERROR",
)  # fmt: skip
DISPATCH_ERROR_CODES = enum(
    "LEAP_DISPATCH_INTERNAL_ERROR_001", "LEAP_DISPATCH_INTERNAL_ERROR_002", "DISPATCH_INVALID_INPUT",
    "DISPATCH_NO_ACCESS_TO_RESOURCE", "DISPATCH_UNAUTHORIZED", "DISPATCH_UNEXPECTED_ERROR",
)  # fmt: skip
JOB_DETAIL = record(message=TEXT, json_index=COUNT, csv_row=COUNT, problem_field=TEXT)
SUGGESTION = record(suggestions=array(record(field=TEXT, suggestion=TEXT)))


def _titled(details: JsonSchema) -> JsonSchema:
    return record(title={"type": "string", "minLength": 1, "maxLength": 2000}, status=COUNT, details=details)


_SCHEMAS: dict[Body, JsonSchema] = {
    Body.UPLOAD_QUERY: record("schema", schema=enum(*SCHEMAS)),
    Body.UPLOAD_REPLY: record("job_id", job_id=ID),
    Body.UPLOADS_QUERY: record(
        **{"from": TIME, "to": TIME, "file_path": FILE_PATH, "status": JOB_STATUS},
        page_size=PAGE_SIZE,
        page_token=TEXT,
    ),
    Body.UPLOADS_REPLY: record(
        "uploads",
        uploads=array(
            record(
                "last_job_id uploaded_file_path current_file_path uploaded_at_date_time status",
                last_job_id=ID,
                uploaded_file_path=TEXT,
                current_file_path=TEXT,
                uploaded_at_date_time=TIME,
                status=JOB_STATUS,
                feedback_csv_file_path=TEXT,
                error_csv_file_path=TEXT,
            ),
            maxItems=PAGE_MAX,
        ),
        next_page_token=TOKEN,
    ),
    Body.JOB_REPLY: record(
        "job_id errors", job_id=ID, errors=array(ERROR_ITEM), error_summary=SUMMARY, error_csv_file_path=TEXT
    ),
    Body.OLD_JOB_REPLY: record(
        "job_id errors", job_id=ID, errors=array(OLD_ERROR_ITEM), error_summary=SUMMARY, error_csv_file_path=TEXT
    ),
    Body.PREVIEW_REPLY: record(
        file_data=array(TEXT),
        job_id=ID,
        status=JOB_STATUS,
        created_at=TIME,
        updated_at=TIME,
        is_limited={"type": "boolean"},
    ),
    Body.MISSING_REQUEST: record(
        meter_ids=array(ID),
        state=enum("OPEN", "PENDING"),
        missing_interval_window_start_date_time_utc=TIME,
        missing_interval_window_end_date_time_utc=TIME,
        submission_deadline_window_start_date_time_utc=TIME,
        submission_deadline_window_end_date_time_utc=TIME,
        page_token=TEXT,
        page_size=PAGE_SIZE,
    ),
    Body.MISSING_REPLY: record(
        "missing_intervals",
        missing_intervals=array(
            record(
                meter_id=ID,
                data_type=enum(*DATA_TYPES),
                start_date_time_utc=TIME,
                end_date_time_utc=TIME,
                submission_deadline_date_time_utc=TIME,
                status=enum("OPEN", "PROCESSING"),
            ),
            maxItems=PAGE_MAX,
        ),
        next_page_token=TOKEN,
    ),
    Body.INTERVALS_ERROR: {"type": "object"},
    Body.DISPATCH_ERROR: record("code message", code=DISPATCH_CODES, message=TEXT, error_code=DISPATCH_ERROR_CODES),
    Body.METERS_ERROR: _titled(DETAILS),
    Body.METERS_INTERNAL_ERROR: TEXT,
    Body.METER_JOBS_ERROR: _titled({"anyOf": [DETAILS, array(JOB_DETAIL)]}),
    Body.REVENUE_ERROR: record(
        "title status details",
        title=TEXT,
        status=COUNT,
        details=array(record("message description", message=TEXT, description=TEXT)),
    )
    | {"additionalProperties": False},
    Body.WEBHOOKS_ERROR: record(error=TEXT, message=TEXT),
    Body.CREATE_METER_ERROR: record(
        "errors", errors=array(record("description", field=TEXT, description=TEXT, suggestions=array(SUGGESTION)))
    ),
}


def schema(body: Body, *, open_enums: bool = False) -> JsonSchema:
    """The schema of a body; with open enums any string is a value of them."""
    found = _SCHEMAS[body]
    return _opened(found) if open_enums else found


def properties(body: Body) -> frozenset[str]:
    """The fields that a body names at its top."""
    return frozenset(_SCHEMAS[body].get("properties", {}))


def _opened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _opened(item) for key, item in value.items() if key != "enum"}
    return [_opened(item) for item in value] if isinstance(value, list) else value


FORMATS = FormatChecker(formats=())


@FORMATS.checks("uuid")
def _is_uuid(value: object) -> bool:
    return not isinstance(value, str) or UUID.fullmatch(value) is not None


@FORMATS.checks("date")
def _is_date(value: object) -> bool:
    if not isinstance(value, str):
        return True
    try:
        return re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII) is not None and bool(date.fromisoformat(value))
    except ValueError:
        return False


@FORMATS.checks("date-time")
def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or RFC3339.fullmatch(value) is not None


@cache
def _validator(body: Body, open_enums: bool) -> Draft202012Validator:
    return Draft202012Validator(schema(body, open_enums=open_enums), format_checker=FORMATS)

"""What a later version of the service, or its older examples, put into a reply."""

import uuid
from typing import Any

from simulators.aggregator.contract import Body, JsonSchema, Shape
from simulators.aggregator.switches import Mischief

NEW_FIELD = "field_of_a_later_version"
NEW_VALUE: dict[str, Any] = {"nested": [1, None, "text"]}
NEW_STATUS = "STATUS_OF_A_LATER_VERSION"
NEW_CODE = "NEW_0001"


def spoiled(body: Body | Shape, reply: Any, mischief: Mischief) -> Any:
    """The reply with unknown values and fields, as far as they are switched on."""
    if body is Body.REVENUE_ERROR:
        return reply  # forbids what it does not name
    if isinstance(body, Shape) and isinstance(reply, dict) and "next_page_token" in body.properties:
        reply = _with_last_token(reply, mischief)
    if mischief.unknown_enums:
        reply = _enums_of_later(body.schema, reply) if isinstance(body, Shape) else _with_unknown_enums(body, reply)
    return _with_extra_fields(reply) if mischief.extra_fields else reply


def old_error_items(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Errors as the operation's older example has them: texts by line and column, no code."""
    texts: dict[tuple[int, str | None], list[str]] = {}
    for item in items:
        texts.setdefault((item["line"], item.get("column")), []).append(item["message"])
    return [
        {"line": line, "errors": errors} | ({"column": column} if column is not None else {})
        for (line, column), errors in texts.items()
    ]


def _with_unknown_enums(body: Body, reply: dict[str, Any]) -> dict[str, Any]:
    if body is Body.UPLOADS_REPLY:
        path = "/interval-data/later.csv"
        entry = {
            "last_job_id": str(uuid.uuid4()),
            "uploaded_file_path": path,
            "current_file_path": path,
            "uploaded_at_date_time": "2026-01-01T00:00:00.000Z",
            "status": NEW_STATUS,
        }
        return reply | {"uploads": [entry, *reply["uploads"]]}
    if body is Body.MISSING_REPLY:
        item = {
            "meter_id": str(uuid.uuid4()),
            "data_type": "DATA_OF_A_LATER_VERSION",
            "start_date_time_utc": "2026-01-01T00:00:00.000Z",
            "end_date_time_utc": "2026-01-01T00:15:00.000Z",
            "status": NEW_STATUS,
        }
        return reply | {"missing_intervals": [item, *reply["missing_intervals"]]}
    if body is Body.PREVIEW_REPLY and reply["status"] in ("QUEUED", "PROCESSING"):
        return reply | {"status": NEW_STATUS}
    if body is Body.JOB_REPLY and reply["errors"]:
        return reply | {"errors": [*reply["errors"], reply["errors"][-1] | {"code": NEW_CODE}]}
    return reply


def _with_last_token(reply: dict[str, Any], mischief: Mischief) -> dict[str, Any]:
    """The end of the pages as null or as nothing, where that is switched on."""
    if reply.get("next_page_token") is not None:
        return reply
    rest = {key: value for key, value in reply.items() if key != "next_page_token"}
    return rest | {"next_page_token": None} if mischief.null_tokens else rest if mischief.absent_tokens else reply


def _enums_of_later(schema: JsonSchema, value: Any) -> Any:
    """Every list of enum values with one more that is new, and the last item of a list once more with new values."""
    if isinstance(value, dict):
        named = schema.get("properties", {})
        return {key: _enums_of_later(named.get(key, {}), item) for key, item in value.items()}
    if not isinstance(value, list) or not value:
        return value
    items = schema.get("items", {})
    if "enum" in items:
        return [*value, NEW_STATUS]
    found = [_enums_of_later(items, item) for item in value]
    enums = {key for key, sub in items.get("properties", {}).items() if "enum" in sub}
    if not isinstance(found[-1], dict) or not enums & found[-1].keys():
        return found
    ids = {key for key, sub in items["properties"].items() if sub.get("format") == "uuid"}
    extra = {
        key: NEW_STATUS if key in enums else str(uuid.uuid4()) if key in ids else item
        for key, item in found[-1].items()
    }
    return [*found, extra]


def _with_extra_fields(value: Any) -> Any:
    if isinstance(value, dict):
        return {NEW_FIELD: NEW_VALUE} | {key: _with_extra_fields(item) for key, item in value.items()}
    return [_with_extra_fields(item) for item in value] if isinstance(value, list) else value

"""The OpenAPI document of the REST surface, made from the bodies."""

from typing import Any

from gateway.api.interval_models import CompletenessList, IntervalList, MissingList, ResendBody, ResendReport, SinkList
from gateway.api.models import (
    AnswerBody,
    AvailabilityList,
    DeviceList,
    DeviceState,
    EventList,
    EventStatus,
    HoldBody,
    HoldList,
    HoldState,
    ImportReport,
    Problem,
    Quarantine,
    Readiness,
    StopBody,
    Unenrolled,
)
from gateway.schemas.event import EventBody
from gateway.services.devices.import_rows import DeviceRow


def openapi(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the REST surface."""
    schemas: dict[str, Any] = {}
    for model in (
        Problem, AnswerBody, EventBody, EventStatus, EventList, StopBody, DeviceRow, DeviceState, DeviceList,
        ImportReport, Unenrolled, Readiness, HoldBody, HoldState, HoldList, Quarantine, AvailabilityList,
        IntervalList, CompletenessList, SinkList, ResendBody, ResendReport, MissingList,
    ):  # fmt: skip
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    return {
        "openapi": "3.1.0",
        "info": {"title": "Battery fleet gateway", "version": version},
        "security": [{"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": dict(sorted(schemas.items())),
        },
        "paths": _changing(_paths()),
    }


def _ref(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _answers(ok: str, *, status: str = "200", problems: tuple[str, ...] = ()) -> dict[str, Any]:
    texts = {
        "400": "not understood",
        "404": "not known",
        "409": "refused",
        "502": "a receiver could not be asked",
        "503": "not durable; try again",
    }
    out: dict[str, Any] = {status: {"description": "done", "content": _ref(ok)}}
    out |= {code: {"description": texts[code], "content": _ref("Problem")} for code in problems}
    out["401"] = {"description": "no or wrong token", "content": _ref("Problem")}
    out["403"] = {"description": "a door for others: loopback only, or our own pages", "content": _ref("Problem")}
    return out


def _changing(paths: dict[str, Any]) -> dict[str, Any]:
    """What changes something says what its body is, see `guard`."""
    for methods in paths.values():
        for method, operation in methods.items():
            if method != "get":
                operation["responses"]["415"] = {
                    "description": "the body is of another media type", "content": _ref("Problem")
                }  # fmt: skip
    return paths


def _parameter(name: str, where: str, kind: str) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": {"type": kind}}


def _many(name: str) -> dict[str, Any]:
    """A parameter that may be given several times."""
    return {"name": name, "in": "query", "schema": {"type": "array", "items": {"type": "string"}}}


def _intervals() -> dict[str, Any]:
    answers = _answers("IntervalList", problems=("400", "503"))
    text = {"schema": {"type": "string"}}
    answers["200"]["content"] |= {"text/csv": text, "application/x-ndjson": text}
    return answers


def _paths() -> dict[str, Any]:
    event_id = [_parameter("id", "path", "string")]
    return {
        "/v1/dispatch-events": {
            "post": {
                "summary": "Take, update or cancel a dispatch event; idempotent by id and revision",
                "requestBody": {"required": True, "content": _ref("EventBody")},
                "responses": _answers("AnswerBody", problems=("400", "503"))
                | {"409": {"description": "rejected, with the reason", "content": _ref("AnswerBody")}},
            },
            "get": {"summary": "List events", "responses": _answers("EventList")},
        },
        "/v1/dispatch-events/{id}": {
            "get": {
                "summary": "One event with the delivery records of its devices",
                "parameters": [
                    *event_id,
                    _parameter("occurrence", "query", "string"),
                    _parameter("offset", "query", "integer"),
                    _parameter("limit", "query", "integer"),
                ],
                "responses": _answers("EventStatus", problems=("400", "404", "503")),
            },
            "delete": {
                "summary": "Cancel an event",
                "parameters": event_id,
                "responses": _answers("AnswerBody", problems=("404", "503")),
            },
        },
        "/v1/dispatch/stop-all": {
            "post": {
                "summary": "Release everything, ramped, and refuse events until cleared (active false)",
                "requestBody": {"required": True, "content": _ref("StopBody")},
                "responses": _answers("StopBody", problems=("400", "503")),
            }
        },
        "/v1/holds": {
            "post": {
                "summary": "Keep devices out of dispatch: an owner's opt-out, a storm; the same id again replaces",
                "requestBody": {"required": True, "content": _ref("HoldBody")},
                "responses": _answers("HoldState", problems=("400", "503")),
            },
            "get": {"summary": "List holds", "responses": _answers("HoldList")},
        },
        "/v1/holds/{id}": {
            "delete": {
                "summary": "End a hold",
                "parameters": event_id,
                "responses": _answers("HoldList", problems=("404", "503")),
            }
        },
        "/v1/quarantine": {
            "get": {"summary": "Devices and products that are not written", "responses": _answers("Quarantine")}
        },
        "/v1/quarantine/{name}": {
            "delete": {
                "summary": "Trust a device or a product again",
                "parameters": [_parameter("name", "path", "string")],
                "responses": _answers("Quarantine", problems=("404", "503")),
            }
        },
        "/v1/availability": {
            "get": {"summary": "What each group can sustain for some hours", "responses": _answers("AvailabilityList")}
        },
        "/v1/intervals": {
            "get": {
                "summary": "Intervals by device, group and time: a page, or everything as CSV or NDJSON",
                "parameters": [
                    _parameter("from", "query", "string") | {"required": True},
                    _parameter("to", "query", "string") | {"required": True},
                    _many("device"),
                    _many("tag"),
                    _parameter("limit", "query", "integer"),
                    _parameter("after", "query", "string"),
                    _parameter("format", "query", "string") | {"schema": {"enum": ["json", "csv", "ndjson"]}},
                ],
                "responses": _intervals(),
            }
        },
        "/v1/completeness": {
            "get": {
                "summary": "The completeness ledger of a day: expected, stored, accepted by each sink, missing and why",
                "parameters": [
                    _parameter("day", "query", "string"),
                    _many("device"),
                    _many("tag"),
                    _parameter("offset", "query", "integer"),
                    _parameter("limit", "query", "integer"),
                    _parameter("incomplete", "query", "boolean"),
                ],
                "responses": _answers("CompletenessList", problems=("400", "503")),
            }
        },
        "/v1/sinks": {"get": {"summary": "List receivers of intervals", "responses": _answers("SinkList")}},
        "/v1/sinks/{name}/missing": {
            "get": {
                "summary": "What a receiver says it lacks of a stretch of time",
                "parameters": [
                    _parameter("name", "path", "string"),
                    _parameter("from", "query", "string") | {"required": True},
                    _parameter("to", "query", "string") | {"required": True},
                ],
                "responses": _answers("MissingList", problems=("400", "404", "502")),
            }
        },
        "/v1/sinks/{name}/resend": {
            "post": {
                "summary": "Have intervals sent to a receiver once more",
                "parameters": [_parameter("name", "path", "string")],
                "requestBody": {"required": True, "content": _ref("ResendBody")},
                "responses": _answers("ResendReport", problems=("400", "404", "502", "503")),
            }
        },
        "/v1/devices": {
            "get": {
                "summary": "List devices",
                "parameters": [_parameter("offset", "query", "integer"), _parameter("limit", "query", "integer")],
                "responses": _answers("DeviceList", problems=("400",)),
            },
            "post": {
                "summary": "Import devices: text/csv or application/x-ndjson, one row per device",
                "requestBody": {
                    "required": True,
                    "content": {
                        "text/csv": {"schema": {"type": "string"}},
                        "application/x-ndjson": {"schema": {"type": "string"}},
                    },
                },
                "responses": _answers("ImportReport", problems=("400", "503")),
            },
        },
        "/v1/devices/{id}": {
            "get": {
                "summary": "One device",
                "parameters": event_id,
                "responses": _answers("DeviceState", problems=("404",)),
            }
        },
        "/v1/unenrolled": {
            "get": {
                "summary": "Devices that send telemetry without being enrolled",
                "responses": _answers("Unenrolled"),
            }
        },
        "/readyz": {
            "get": {
                "summary": "Ready to dispatch and to store, or why not",
                "security": [],
                "responses": {
                    "200": {"description": "ready", "content": _ref("Readiness")},
                    "503": {"description": "not ready", "content": _ref("Readiness")},
                },
            }
        },
        "/healthz": {
            "get": {"summary": "The loop runs", "security": [], "responses": {"200": {"description": "alive"}}}
        },
        "/metrics": {
            "get": {"summary": "Prometheus metrics", "security": [], "responses": {"200": {"description": "metrics"}}}
        },
    }

"""The OpenAPI document of the REST interface, made from the bodies."""

from typing import Any

from gateway import former_names
from gateway.api.interval_models import (
    CompletenessList,
    IntervalList,
    LeapStatus,
    MissingList,
    ResendBody,
    ResendReport,
    RetryReport,
    SinkList,
)
from gateway.api.models import (
    AnswerBody,
    AuditList,
    AvailabilityList,
    DeviceList,
    DeviceState,
    EventList,
    EventStatus,
    ExclusionBody,
    ExclusionList,
    ExclusionState,
    ImportReport,
    Problem,
    Quarantine,
    Readiness,
    StopBody,
    StopState,
    UnregisteredList,
)
from gateway.schemas.event import EventBody
from gateway.services.devices.import_rows import DeviceRow


def openapi(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the REST interface."""
    schemas: dict[str, Any] = {}
    for model in (
        Problem, AnswerBody, EventBody, EventStatus, EventList, StopBody, StopState, DeviceRow, DeviceState, DeviceList,
        ImportReport, UnregisteredList, Readiness, ExclusionBody, ExclusionState, ExclusionList, Quarantine,
        AvailabilityList, AuditList, IntervalList, CompletenessList, SinkList, ResendBody, ResendReport, MissingList,
        RetryReport, LeapStatus,
    ):  # fmt: skip
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    paths = _changing(_paths())
    schemas |= {former: _formerly(schemas[name]) for name, former in former_names.SCHEMAS.items()}
    paths |= {former: _deprecated(name, paths[name]) for name, former in former_names.PATHS.items()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Battery fleet gateway", "version": version},
        "security": [{"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": dict(sorted(schemas.items())),
        },
        "paths": paths,
    }


def _ref(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _answers(ok: str, *, status: str = "200", problems: tuple[str, ...] = ()) -> dict[str, Any]:
    texts = {
        "400": "the request is not valid; `problems` lists every fault",
        "404": "no such thing",
        "409": "refused",
        "502": "the receiver did not answer the question; try again",
        "503": "the disk did not make it durable; try again",
    }
    out: dict[str, Any] = {status: {"description": "done", "content": _ref(ok)}}
    out |= {code: {"description": texts[code], "content": _ref("Problem")} for code in problems}
    out["401"] = {"description": "the bearer token is missing or wrong", "content": _ref("Problem")}
    out["403"] = {
        "description": "not served: only loopback without a token, and no pages of other origins",
        "content": _ref("Problem"),
    }
    return out


def _at_once(ok: str) -> dict[str, Any]:
    """The answer of what takes effect whatever the disk does."""
    return {"202": {"description": "in force, and not durable until the disk takes it", "content": _ref(ok)}}


def _formerly(part: Any) -> Any:
    """A part of the document in the former names of schemas and of members."""
    if isinstance(part, dict):
        return {former_names.MEMBERS.get(name, name): _formerly(value) for name, value in part.items()}
    if isinstance(part, list):
        return [_formerly(value) for value in part]
    if not isinstance(part, str):
        return part
    place, _, name = part.rpartition("/")
    if place == "#/components/schemas":
        return f"{place}/{former_names.SCHEMAS.get(name, name)}"
    return former_names.SCHEMAS.get(part, former_names.MEMBERS.get(part, part))


def _deprecated(path: str, methods: dict[str, Any]) -> dict[str, Any]:
    """The operations of a former path."""
    notice = {"deprecated": True, "description": f"Former path of {path}; the next release drops it."}
    return {method: _formerly(operation) | notice for method, operation in methods.items()}


def _changing(paths: dict[str, Any]) -> dict[str, Any]:
    """A request that changes something must name the media type of its body, see `guard`."""
    for methods in paths.values():
        for method, operation in methods.items():
            if method != "get":
                operation["responses"]["415"] = {
                    "description": "the body has another media type", "content": _ref("Problem")
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
    one_event = [*event_id, _parameter("source", "query", "string")]
    return {
        "/v1/dispatch-events": {
            "post": {
                "summary": "Submit, update or cancel a dispatch event; idempotent by id and revision",
                "requestBody": {"required": True, "content": _ref("EventBody")},
                "responses": _answers("AnswerBody", problems=("400", "503"))
                | {"409": {"description": "rejected, with the reason", "content": _ref("AnswerBody")}},
            },
            "get": {
                "summary": "A page of events, newest start first",
                "parameters": [_parameter("after", "query", "string"), _parameter("limit", "query", "integer")],
                "responses": _answers("EventList", problems=("400", "503")),
            },
        },
        "/v1/dispatch-events/{id}": {
            "get": {
                "summary": "One event with the delivery records of its devices",
                "parameters": [
                    *one_event,
                    _parameter("occurrence", "query", "string"),
                    _parameter("before", "query", "string"),
                    _parameter("offset", "query", "integer"),
                    _parameter("limit", "query", "integer"),
                ],
                "responses": _answers("EventStatus", problems=("400", "404", "409", "503")),
            },
            "delete": {
                "summary": "Cancel an event until this is lifted, whatever its source sends meanwhile",
                "parameters": [*one_event, _parameter("by", "query", "string")],
                "responses": _answers("AnswerBody", problems=("400", "404", "409", "503")),
            },
        },
        "/v1/dispatch-events/{id}/cancellation": {
            "delete": {
                "summary": "Let the source of a cancelled event revise it again; it stays cancelled until then",
                "parameters": [*one_event, _parameter("by", "query", "string")],
                "responses": _answers("EventStatus", problems=("400", "404", "409", "503")),
            },
        },
        "/v1/dispatch/stop-all": {
            "post": {
                "summary": "Stop dispatch: release everything, ramped, and refuse events until cleared (active false)",
                "requestBody": {"required": True, "content": _ref("StopBody")},
                "responses": _answers("StopState", problems=("400", "503")) | _at_once("StopState"),
            }
        },
        "/v1/exclusions": {
            "post": {
                "summary": "Keep devices out of dispatch (an owner's opt-out, a storm); the same id replaces",
                "requestBody": {"required": True, "content": _ref("ExclusionBody")},
                "responses": _answers("ExclusionState", problems=("400",)) | _at_once("ExclusionState"),
            },
            "get": {"summary": "List exclusions", "responses": _answers("ExclusionList")},
        },
        "/v1/exclusions/{id}": {
            "delete": {
                "summary": "End an exclusion",
                "parameters": [*event_id, _parameter("by", "query", "string")],
                "responses": _answers("ExclusionList", problems=("400", "404", "503")),
            }
        },
        "/v1/quarantine": {
            "get": {
                "summary": "Devices and products that get no setpoints because they cannot be trusted",
                "responses": _answers("Quarantine"),
            }
        },
        "/v1/quarantine/{name}": {
            "delete": {
                "summary": "Lift the quarantine or freeze of a device or a product",
                "parameters": [
                    _parameter("name", "path", "string"),
                    _parameter("by", "query", "string"),
                    _parameter("reason", "query", "string"),
                ],
                "responses": _answers("Quarantine", problems=("400", "404", "409", "503")),
            }
        },
        "/v1/availability": {
            "get": {
                "summary": "What each group can sustain, and for how many hours",
                "responses": _answers("AvailabilityList"),
            }
        },
        "/v1/audit": {
            "get": {
                "summary": "What was journalled, newest first: what, when, by whom and through which door",
                "parameters": [
                    _parameter("from", "query", "string"),
                    _parameter("until", "query", "string"),
                    _parameter("kind", "query", "string"),
                    _parameter("limit", "query", "integer"),
                    _parameter("after", "query", "string"),
                ],
                "responses": _answers("AuditList", problems=("400", "503")),
            }
        },
        "/v1/intervals": {
            "get": {
                "summary": "List intervals by device, group and time: a page, or everything as CSV or NDJSON",
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
                "summary": "Completeness of a day: intervals expected, stored, accepted by each sink, missing and why",
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
                "summary": "Ask a receiver what it lacks within a stretch of time",
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
                "summary": "Send intervals to a receiver again",
                "parameters": [_parameter("name", "path", "string")],
                "requestBody": {"required": True, "content": _ref("ResendBody")},
                "responses": _answers("ResendReport", problems=("400", "404", "502", "503")),
            }
        },
        "/v1/sinks/{name}/retry": {
            "post": {
                "summary": "Try a receiver again now that stopped or is waited for",
                "parameters": [_parameter("name", "path", "string")],
                "responses": _answers("RetryReport", problems=("404",)),
            }
        },
        "/v1/leap": {
            "get": {
                "summary": "Show how uploads to the aggregator stand; asks it what is missing",
                "responses": _answers("LeapStatus", problems=("503",)),
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
                "parameters": [_parameter("by", "query", "string")],
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
        "/v1/unregistered": {
            "get": {
                "summary": "List devices that send telemetry but are not registered",
                "responses": _answers("UnregisteredList"),
            }
        },
        "/readyz": {
            "get": {
                "summary": "Whether the gateway is ready to dispatch and to store, why not, and what is missing",
                "security": [],
                "responses": {
                    "200": {"description": "ready", "content": _ref("Readiness")},
                    "503": {"description": "not ready", "content": _ref("Readiness")},
                },
            }
        },
        "/healthz": {
            "get": {
                "summary": "Whether the event loop runs",
                "security": [],
                "responses": {"200": {"description": "alive"}},
            }
        },
        "/metrics": {
            "get": {"summary": "Prometheus metrics", "security": [], "responses": {"200": {"description": "metrics"}}}
        },
    }

"""Bodies of the REST answers; the OpenAPI document is made from them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.services.inventory import DeviceFields, DeviceRow
from gateway.signals.body import EventBody, GroupBody, Identifier, Moment


class Body(BaseModel):
    """Unknown members are a bug."""

    model_config = ConfigDict(extra="forbid")


class Problem(Body):
    """Why a request was refused: every fault with its place."""

    error: str
    problems: list[str] = []


class AnswerBody(Body):
    """The decision on an event."""

    id: str
    revision: int
    outcome: Literal["accepted", "duplicate", "superseded", "rejected"]
    reason: str | None = None


class Times(Body):
    """When a device came to what it is; null = never."""

    status: str | None
    sent: str | None
    acknowledged: str | None
    started: str | None
    ended: str | None


class DeliveryBody(Body):
    """The delivery record of one device within one event; `id` is the same from the grid's signal to the meter.

    `status`: scheduled | sent | acknowledged | started (measured) | delivering | completed | failed | opted_out |
    cancelled | superseded; `failure`: offline | fault | limit | refused | no_response | barred. `asked_w` what the
    event wanted, `allowed_w` what its limits left of it and `limits` which, `written_w` the newest setpoint, `result`
    the device's answer, `measured_w` what it does; energies since it began. Powers in W, + = discharge; null = unknown.
    """

    id: str
    device: str
    status: str
    failure: str | None
    asked_w: float | None
    allowed_w: float | None
    limits: list[str]
    written_w: float | None
    commands: int
    cmd: int | None
    result: str
    measured_w: float | None
    asked_wh: float | None
    delivered_wh: float | None
    shortfall_wh: float | None
    times: Times


class OccurrenceBody(Body):
    """An occurrence of an event that is over, and how many devices it has records of."""

    start: str
    ended: str
    devices: int


class ReboundBody(Body):
    """What an event's devices take back after it: power (+ = charging) now and at its peak, W; energy, Wh."""

    power_w: float
    peak_w: float
    energy_wh: float


class EventStatus(Body):
    """An event and what it delivers. `want`: power | device_power | charge_to | follow_load | idle | self_consumption |
    backup, that of now or of the first leg. `target_w` of now as far as ceilings and energy go, `delivered_w` measured
    gross AC battery power of the group, `attributed_w` what the event is credited with of it; `shortfall` why less than
    asked is given. `reason` of a rejection. Of one event alone: `members` are a page of its delivery records, those of
    now or of the newest occurrence unless another is asked for, `next` where the next page begins, `occurrences` those
    that are over."""

    id: str
    revision: int
    kind: str
    program: str
    state: str
    reason: str | None
    start: str
    end: str
    priority: int
    voluntary: bool
    want: str
    target_w: float | None
    commanded_w: float | None
    delivered_w: float | None
    attributed_w: float | None
    unserved_w: float | None
    shortfall: str | None
    devices: int
    rebound: ReboundBody | None = None
    members: list[DeliveryBody] | None = None
    next: int | None = None
    occurrences: list[OccurrenceBody] | None = None


class EventList(Body):
    """Events, newest start first."""

    events: list[EventStatus]
    stopped: bool


class StopBody(Body):
    """Whether dispatch is stopped; `by` names who asks."""

    active: bool
    by: str = "operator"


class HoldBody(Body):
    """Devices that are kept out of dispatch: `opt_out` by their owners (of one `event`, or of all), `storm` to keep
    their energy for an outage. `from` absent = from now on, `until` absent = until it is lifted."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    id: Identifier
    reason: Literal["opt_out", "storm"]
    group: GroupBody
    since: Moment | None = Field(default=None, alias="from")
    until: Moment | None = None
    event: Identifier | None = None
    by: Annotated[str, Field(max_length=64)] = "operator"

    @model_validator(mode="after")
    def _fits(self) -> "HoldBody":
        if self.event is not None and self.reason != "opt_out":
            raise ValueError("event: belongs to opt_out")
        if self.since is not None and self.until is not None and self.until <= self.since:
            raise ValueError("until: not after from")
        return self


class HoldState(Body):
    """A hold and whether it holds now."""

    id: str
    reason: str
    event: str | None
    since: str
    until: str | None
    by: str
    devices: int
    active: bool


class HoldList(Body):
    """Everything that is set."""

    holds: list[HoldState]


class Quarantine(Body):
    """Devices (or products, `product:<profile>`) that are not written since they cannot be trusted, and why; `frozen`
    products of which many devices were lost at once."""

    quarantined: dict[str, str]
    frozen: list[str]


class AvailabilityBody(Body):
    """A power-duration curve: W that the devices of a group can keep up for `hours`, from now on."""

    group: str
    devices: int
    hours: list[int]
    discharge_w: list[float]
    charge_w: list[float]


class AvailabilityList(Body):
    """The fleet and every tag."""

    groups: list[AvailabilityBody]


class DeliveryReport(Body):
    """Delivery records of an event's `occurrence` (its start) that have changed; `at` when it is told."""

    event: str
    revision: int
    occurrence: str
    at: str
    devices: list[DeliveryBody]


class EventReport(Body):
    """Events that run, as they are `at` that time; what is unknown is absent."""

    at: str
    events: list[EventStatus]


class AvailabilityReport(Body):
    """Power-duration curves by group, from `at` on."""

    at: str
    groups: list[AvailabilityBody]


class SessionState(Body):
    """The gateway's connection to a device that it asks: down | connecting | ready | quarantined (what answers is not
    what was enrolled, so nothing is written), why it is not ready, and the variant of the product that answers."""

    state: str
    why: str | None
    variant: str


class DeviceState(Body):
    """A device: its enrollment and, where known, its newest reading and what it may do now. `steerable`: it takes
    setpoints from us; the product can, its operator has not ruled it out, and it is what it is enrolled as."""

    device: DeviceFields
    steerable: bool | None
    online: bool | None
    reading_age_s: float | None
    soc_pct: float | None
    battery_w: float | None
    reserve_pct: float | None
    held: str
    setpoint_w: int | None
    session: SessionState | None = None


class DeviceList(Body):
    """A page of devices in order of enrollment; `next` is the offset of the next page, null at the end."""

    total: int
    next: int | None
    devices: list[DeviceState]


class BadRowBody(Body):
    """A row that was not imported."""

    line: int
    problem: str


class NoteBody(Body):
    """A row that was imported, and what should be known about it."""

    line: int
    note: str


class ImportReport(Body):
    """What an import did. `enrolled` counts devices that were new or changed."""

    rows: int
    enrolled: int
    rejected: list[BadRowBody]
    rejected_total: int
    notes: list[NoteBody]


class Unenrolled(Body):
    """Devices that send telemetry and are not enrolled; `seen` their last message."""

    devices: list[dict[str, str]]
    messages: int


class IntervalBody(Body):
    """An interval record; identity is (device, start, revision), and a higher revision replaces a lower one. Energy in
    Wh on the AC side, charge and discharge apart; power in W, + = discharge; null = unknown, never zero."""

    device: str
    start: str
    length_s: int
    revision: int
    charge_wh: float | None
    discharge_wh: float | None
    coverage_pct: float
    samples: int
    soc_end_pct: float | None
    source: Literal["none", "counter", "energy"]
    battery_w_mean: float | None
    battery_w_min: float | None
    battery_w_max: float | None


class IntervalList(Body):
    """A page of intervals by start and device, each at its newest revision; `next` goes on, null at the end."""

    intervals: list[IntervalBody]
    next: str | None


class Readiness(Body):
    """Whether the gateway does its job, and if not, why."""

    ready: bool
    reasons: list[str]


def openapi(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the REST surface."""
    schemas: dict[str, Any] = {}
    for model in (
        Problem, AnswerBody, EventBody, EventStatus, EventList, StopBody, DeviceRow, DeviceState, DeviceList,
        ImportReport, Unenrolled, Readiness, HoldBody, HoldState, HoldList, Quarantine, AvailabilityList,
        IntervalList,
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
        "paths": _paths(),
    }


def _ref(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _answers(ok: str, *, status: str = "200", problems: tuple[str, ...] = ()) -> dict[str, Any]:
    texts = {"400": "not understood", "404": "not known", "409": "refused", "503": "not durable; try again"}
    out: dict[str, Any] = {status: {"description": "done", "content": _ref(ok)}}
    out |= {code: {"description": texts[code], "content": _ref("Problem")} for code in problems}
    out["401"] = {"description": "no or wrong token", "content": _ref("Problem")}
    return out


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

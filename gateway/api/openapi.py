"""The OpenAPI document of the REST interface, made from the routes and their bodies."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from gateway import former_names
from gateway.api.models import Problem
from gateway.api.route import Number, RestRoute, Text
from gateway.api.routes.audit import AuditRoutes
from gateway.api.routes.cases import CaseRoutes
from gateway.api.routes.dispatch import DispatchRoutes
from gateway.api.routes.enrollments import EnrollmentRoutes
from gateway.api.routes.exclusions import ExclusionRoutes
from gateway.api.routes.explained import ExplainedRoutes
from gateway.api.routes.fleet import FleetRoutes
from gateway.api.routes.forecasts import ForecastRoutes
from gateway.api.routes.health import HealthRoutes
from gateway.api.routes.leap import LeapRoutes
from gateway.api.routes.leap_dispatch import LeapDispatchRoutes
from gateway.api.routes.leap_enrollments import LeapEnrollmentRoutes
from gateway.api.routes.leap_signal import LeapSignalRoutes
from gateway.api.routes.nominations import NominationRoutes
from gateway.api.routes.outbox import OutboxRoutes
from gateway.api.routes.performance import PerformanceRoutes
from gateway.api.routes.programs import ProgramRoutes
from gateway.api.routes.rates import RateRoutes
from gateway.api.routes.raw import RawRoutes
from gateway.api.routes.sign_ups import SignUpRoutes
from gateway.api.routes.telemetry import TelemetryRoutes
from gateway.api.routes.webhooks import WebhookRoutes

ROUTES: tuple[RestRoute, ...] = (
    *DispatchRoutes.ROUTES,
    *ExclusionRoutes.ROUTES,
    *AuditRoutes.ROUTES,
    *TelemetryRoutes.ROUTES,
    *LeapRoutes.ROUTES,
    *LeapDispatchRoutes.ROUTES,
    *LeapEnrollmentRoutes.ROUTES,
    *LeapSignalRoutes.ROUTES,
    *FleetRoutes.ROUTES,
    *RawRoutes.ROUTES,
    *ProgramRoutes.ROUTES,
    *PerformanceRoutes.ROUTES,
    *EnrollmentRoutes.ROUTES,
    *RateRoutes.ROUTES,
    *WebhookRoutes.ROUTES,
    *OutboxRoutes.ROUTES,
    *NominationRoutes.ROUTES,
    *SignUpRoutes.ROUTES,
    *CaseRoutes.ROUTES,
    *ExplainedRoutes.ROUTES,
    *ForecastRoutes.ROUTES,
    *HealthRoutes.ROUTES,
)

PARAMETER_WORDS = frozenset({
    "type", "enum", "format", "pattern", "items", "default", "minimum", "maximum", "minLength", "maxLength", "maxItems",
})  # fmt: skip
"""What the schema of a parameter says of it."""

WAYS = {
    "token": {"type": "http", "scheme": "bearer"},
    "jwt": {
        "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
        "description": "where `jwt` is configured: signed by its issuer, for its audience, with `exp`, `sub`, `scope`",
    },
    "certificate": {
        "type": "mutualTLS",
        "description": "where `http.tls.client_ca` is configured: a client certificate whose common name is a caller's",
    },
}  # fmt: skip
"""How a caller shows who it is; one of them is enough."""

TEXTS = {
    200: "done",
    202: "in force, and not durable until the disk takes it",
    400: "the request is not valid; `problems` lists every fault",
    401: "no caller: the bearer token is missing, wrong or expired, and no certificate names one",
    403: "not served: the caller lacks the scope, nobody but loopback without callers, no pages of other origins",
    404: "no such thing",
    409: "refused",
    413: "the body is too large",
    415: "the body has another media type",
    429: "too many requests of this caller; `Retry-After` says when to try again",
    502: "the receiver did not answer the question; try again",
    503: "the disk did not make it durable; try again",
}


def openapi(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the REST interface."""
    schemas: dict[str, Any] = {}
    models: list[type[BaseModel]] = [Problem, *(model for route in ROUTES for model in _models(route))]
    for model in models:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    schemas |= {former: _formerly(schemas[name]) for name, former in former_names.SCHEMAS.items()}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.operation.path, {})[route.operation.method.lower()] = _operation(route)
    paths |= {former: _deprecated(name, paths[name]) for name, former in former_names.PATHS.items()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Battery fleet gateway", "version": version},
        "security": [{name: []} for name in WAYS],
        "components": {
            "securitySchemes": WAYS,
            "schemas": dict(sorted(schemas.items())),
        },
        "paths": paths,
    }


def _models(route: RestRoute) -> Iterator[type[BaseModel]]:
    for model in (*route.answers.values(), route.body, route.rows):
        if isinstance(model, type):
            yield model


def _operation(route: RestRoute) -> dict[str, Any]:
    out: dict[str, Any] = {"summary": route.summary}
    if route.own_secret:
        out["security"] = []
        out["x-own-secret"] = True
    elif route.scope is None or route.open_here:
        out["security"] = []
    if route.scope is not None:
        out["x-scope"] = route.scope.value
    if parameters := [*_of_the_path(route.operation.path), *_of_the_query(route.query)]:
        out["parameters"] = parameters
    if route.body is not None:
        content = _ref(route.body) if isinstance(route.body, type) else _texts(route.body)
        out["requestBody"] = {"required": True, "content": content}
    return out | {"responses": _responses(route)}


def _responses(route: RestRoute) -> dict[str, Any]:
    """By status. A request that changes something must name the media type of its body, see `guard`."""
    asked = () if route.scope is None else (401, 403) if route.urgent else (401, 403, 429)
    refusals = [*route.problems, *asked]
    refusals += [] if route.operation.method == "GET" or route.own_secret else [415]
    out: dict[str, Any] = {}
    for status in dict.fromkeys((*route.answers, *refusals)):
        model = route.answers.get(status, Problem)
        answer: dict[str, Any] = {"description": route.texts.get(status, TEXTS[status])}
        if model is not None:
            answer["content"] = _ref(model) | (_texts(route.streams) if status in route.answers else {})
        out[str(status)] = answer
    return out


def _ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}


def _texts(kinds: tuple[str, ...]) -> dict[str, Any]:
    return {kind: {"schema": {"type": "string"}} for kind in kinds}


def _of_the_path(path: str) -> Iterator[dict[str, Any]]:
    for part in path.split("/"):
        if part.startswith("{"):
            yield {"name": part.strip("{}"), "in": "path", "required": True, "schema": {"type": "string"}}


def _of_the_query(query: type[BaseModel] | tuple[Text | Number, ...]) -> Iterator[dict[str, Any]]:
    if isinstance(query, tuple):
        for one in query:
            yield {"name": one.name, "in": "query", "required": False, "schema": one.schema}
        return
    schema = query.model_json_schema()
    for name, member in schema["properties"].items():
        kinds = [kind for kind in member.get("anyOf", [member]) if kind.get("type") != "null"]
        required = name in schema.get("required", ())
        yield {"name": name, "in": "query", "required": required, "schema": _bounds(kinds[0])}


def _bounds(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What a parameter may be; a list is one that may be given several times."""
    return {
        name: _bounds(value) if name == "items" else value for name, value in schema.items() if name in PARAMETER_WORDS
    }


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

"""What every service of the aggregator is made of: routes, requests that were let in, replies, an error envelope."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from simulators.aggregator.contract import Body, OffContract, Shape
from simulators.aggregator.permissions import Permission
from simulators.aggregator.refusal import Refused
from simulators.aggregator.switches import Operation

JSON = "application/json"
CSV = "text/csv"


@dataclass(slots=True, kw_only=True)
class Call:
    """A request that was let in. `ids` are the variable parts of its path; `unknown` is filled with what it asks in
    words that the service does not know."""

    query: list[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes
    ids: Mapping[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What goes out: a JSON body with its schema, or bytes."""

    status: int = 200
    json: Any = None
    body: Body | Shape | None = None
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Call], Reply | Awaitable[Reply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation of a service; without a permission it takes no key."""

    method: str
    path: str
    operation: Operation
    permission: Permission | None
    handler: Handler


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Routes below one error envelope."""

    name: str
    prefixes: tuple[str, ...]
    routes: tuple[Route, ...]
    envelope: Callable[[Refused], Reply]


def media_type(call: Call) -> str:
    """The type of the body, in lower case and without parameters."""
    return call.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def json_body(call: Call, shape: Shape, *, optional: bool = False) -> Any:
    """The body, checked; an absent one is an empty object where that is allowed."""
    if not call.body and optional:
        return {}
    if media_type(call) != JSON:
        raise Refused(415, "Content-Type must be application/json")
    try:
        value = orjson.loads(call.body)
    except orjson.JSONDecodeError:
        raise Refused(400, "body is not JSON") from None
    accepted(shape, value)
    if isinstance(value, dict):
        call.unknown += value.keys() - shape.properties
    return value


def query(call: Call, shape: Shape, *, lists: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The known parameters, checked; numbers and booleans by the type that the shape gives them."""
    values: dict[str, Any] = {}
    for name, text in call.query:
        if name not in shape.properties:
            call.unknown.append(name)
        elif name in lists:
            values.setdefault(name, []).append(text)
        elif name in values:
            raise Refused(400, f"{name} comes more than once")
        else:
            values[name] = _typed(text, shape.schema["properties"][name].get("type"))
    accepted(shape, values)
    return values


def accepted(shape: Shape, value: object) -> None:
    """Refused with 400 unless the value has the shape."""
    try:
        shape.check(value)
    except OffContract as error:
        raise Refused(400, str(error)) from None


def canonical(filters: object) -> str:
    """Equal for equal filters."""
    return orjson.dumps(filters, option=orjson.OPT_SORT_KEYS).decode()


def _typed(text: str, kind: object) -> object:
    if kind == "integer" and text.isascii() and text.isdigit():
        return int(text)
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    return text

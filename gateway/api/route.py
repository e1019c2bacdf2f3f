"""What a route is: an operation with what it takes, what it answers and who carries it out, declared in one place.

The server, the guard and the OpenAPI document read the same declarations.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from gateway import former_names
from gateway.domain.access import SOMEBODY_HERE, Caller, Scope
from gateway.domain.errors import InvalidInput
from gateway.schemas.operations import Operation

JSON = "application/json"
BY_MAX = 64


@dataclass(frozen=True, slots=True)
class Text:
    """A text of the query, of `least` to `most` characters where it is given."""

    name: str
    least: int = 0
    most: int | None = None

    @property
    def schema(self) -> dict[str, Any]:
        """It in JSON Schema."""
        bounds = {"minLength": self.least or None, "maxLength": self.most}
        return {"type": "string"} | {name: bound for name, bound in bounds.items() if bound is not None}

    def of(self, request: web.Request) -> str | None:
        """What the request says; None = nothing. Raises InvalidInput."""
        text = _once(request, self.name)
        if text is not None and self.most is not None and not self.least <= len(text) <= self.most:
            bounds = f"{self.least} to {self.most}" if self.least else f"at most {self.most}"
            raise InvalidInput([f"{self.name}: {bounds} characters"])
        return text


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number of the query, from 0 to `most`; `default` where it is not given."""

    name: str
    default: int
    most: int

    @property
    def schema(self) -> dict[str, Any]:
        """It in JSON Schema."""
        return {"type": "integer", "minimum": 0, "maximum": self.most, "default": self.default}

    def of(self, request: web.Request) -> int:
        """What the request says. Raises InvalidInput."""
        given = _once(request, self.name)
        text = str(self.default) if given is None else given
        if not text.isdecimal() or len(text) > len(str(self.most)) or int(text) > self.most:
            raise InvalidInput([f"{self.name}: a whole number from 0 to {self.most}"])
        return int(text)


def _once(request: web.Request, name: str) -> str | None:
    found = request.query.getall(name, ())
    if len(found) > 1:
        raise InvalidInput([f"{name}: stands twice"])
    return found[0] if found else None


BY = Text("by", least=1, most=BY_MAX)


CALLER = web.RequestKey("caller", Caller)
"""Who was recognised, in every request that is let in."""


def source(request: web.Request) -> str:
    """Whose events a request may send: those of the caller, if it has a name."""
    return request.get(CALLER, SOMEBODY_HERE).name or "rest"


def by(request: web.Request, said: str | None = None, *, nobody: str = "operator") -> str:
    """Who asks: the caller that was recognised, and whom the request says besides, made fit for a line of a terminal: a
    stop is not refused for a name. `nobody`: for neither. Raises InvalidInput."""
    name = request.get(CALLER, SOMEBODY_HERE).name
    person = (BY.of(request) if said is None else said) or ""
    person = "".join(each if each.isprintable() else "?" for each in person[:BY_MAX])
    if not name:
        return person or nobody
    return f"{name}: {person}" if person and person != name else name


@dataclass(frozen=True, slots=True, kw_only=True)
class RestRoute:
    """`query`: its parameters, one by one or as a model; `body`: a model that is sent as JSON, or the media types of a
    text whose rows are `rows`; `answers`: a model by status, None = a text; `problems`: statuses of refusals; `texts`:
    what a status means where the usual words do not say it; `streams`: other media types of the answer; `scope`: what
    a caller must have, None = anybody may ask; `open_here`: on a loopback address anybody may; `urgent`: it is taken
    however often its caller asked; `own_secret`: the service behind it proves who sends, and the guard asks nobody."""

    operation: Operation
    handler: Callable[[Any, web.Request], Awaitable[web.StreamResponse]]
    summary: str
    answers: Mapping[int, type[BaseModel] | None]
    query: type[BaseModel] | tuple[Text | Number, ...] = ()
    body: type[BaseModel] | tuple[str, ...] | None = None
    rows: type[BaseModel] | None = None
    problems: tuple[int, ...] = ()
    texts: Mapping[int, str] = field(default_factory=dict)
    streams: tuple[str, ...] = ()
    scope: Scope | None = Scope.READ
    open_here: bool = False
    urgent: bool = False
    own_secret: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """The media types that its body may have."""
        return self.body if isinstance(self.body, tuple) else (JSON,)


def asked_formerly(request: web.Request) -> bool:
    """Whether a request came by a former path."""
    resource = request.match_info.route.resource
    return resource is not None and resource.canonical in former_names.PATHS.values()

"""What every body on the wire has in common, and how one is read: strictly, with every fault and its place."""

import difflib
import json
from collections.abc import Iterable
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from gateway.domain.errors import InvalidInput

FAULTS_MAX = 50
UNKNOWN, _PREFIX = "extra_forbidden", "Value error, "
NAME_SHOWN, PROBLEM_SHOWN = 64, 2_000
"""Characters of a member's name, and of what is wrong with it, that an answer repeats: they come from outside."""


class Body(BaseModel):
    """A body; an unknown member is an error."""

    model_config = ConfigDict(extra="forbid")


B = TypeVar("B", bound=BaseModel)


def read_json(kind: type[B], payload: bytes) -> B:
    """A body of `kind`. Raises InvalidInput naming every fault and its place."""
    try:
        body = kind.model_validate_json(payload)
    except ValidationError as error:
        raise InvalidInput(_problems(kind, payload, error)) from error
    twice = members_twice(payload)
    if twice:
        raise InvalidInput([f"{name[:NAME_SHOWN]}: stands twice" for name in twice[:FAULTS_MAX]])
    return body


def _problems(kind: type[BaseModel], payload: bytes, error: ValidationError) -> list[str]:
    """The faults of a body, with those that its model sees only without the unknown members."""
    found = problems_of(error, kind)
    if error.error_count() <= FAULTS_MAX and any(fault["type"] == UNKNOWN for fault in error.errors()):
        try:
            kind.model_validate_json(payload, extra="ignore")
        except ValidationError as more:
            found += [problem for problem in problems_of(more, kind) if problem not in found]
    return found[:FAULTS_MAX]


def members_twice(document: bytes | str) -> list[str]:
    """Names that an object of a valid document has more than once: which of the values is meant, nobody knows."""
    found: dict[str, None] = {}

    def note(pairs: list[tuple[str, object]]) -> None:
        if len(dict(pairs)) < len(pairs):
            seen: set[str] = set()
            for name, _ in pairs:
                if name in seen:
                    found[name] = None
                seen.add(name)

    # no number is worked out: one of a million digits takes its time
    json.loads(document, object_pairs_hook=note, parse_int=str, parse_float=str)
    return list(found)


def problems_of(error: ValidationError, kind: type[BaseModel] | None = None) -> list[str]:
    """The faults of a body (of `kind`) with their places; a message that names its place itself has no prefix. A
    model's own check has a line for each fault."""
    found: list[str] = []
    for fault in error.errors()[:FAULTS_MAX]:
        place = ".".join(str(part)[:NAME_SHOWN] for part in fault["loc"])
        for message in _messages(fault, kind):
            found.append(f"{place}: {message}" if place else message if ": " in message else f"(body): {message}")
    return found[:FAULTS_MAX]


def _messages(fault: ErrorDetails, kind: type[BaseModel] | None) -> list[str]:
    if fault["type"] == UNKNOWN:
        *place, name = fault["loc"]
        return [unknown_key(str(name)[:NAME_SHOWN], () if kind is None else _members(kind, place))]
    text = fault["msg"].removeprefix(_PREFIX)[:PROBLEM_SHOWN]
    return text.splitlines() if text != fault["msg"] else [text]


def unknown_key(name: str, known: Iterable[str]) -> str:
    """What is wrong with a key that is none of the `known` ones."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown key; did you mean {near[0]}?" if near else "unknown key"


def _members(kind: type[BaseModel], place: Iterable[int | str]) -> list[str]:
    """The members that a body has at a place."""
    model: type[BaseModel] | None = kind
    for part in place:
        if isinstance(part, str) and model is not None:
            field = model.model_fields.get(part)
            model = None if field is None else _model_in(field.annotation)
    return [] if model is None else [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field, or each item of it, is."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)

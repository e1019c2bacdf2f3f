"""What every body on the wire has in common, and how one is read: strictly, with every fault and its place."""

import json
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.domain.errors import InvalidInput

FAULTS_MAX = 50
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
        raise InvalidInput(problems_of(error)) from error
    twice = members_twice(payload)
    if twice:
        raise InvalidInput([f"{name[:NAME_SHOWN]}: stands twice" for name in twice[:FAULTS_MAX]])
    return body


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


def problems_of(error: ValidationError) -> list[str]:
    """The faults of a body with their places; where a message names its place itself, without a prefix."""
    found: list[str] = []
    for fault in error.errors()[:FAULTS_MAX]:
        place = ".".join(str(part)[:NAME_SHOWN] for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")[:PROBLEM_SHOWN]
        found.append(f"{place}: {message}" if place else message if ": " in message else f"(body): {message}")
    return found

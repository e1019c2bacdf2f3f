"""Finds every fault of a document at once, also those that a model's own checks would only see without the others.

A model checks its fields against each other only where each field is right. So what has a fault is replaced, by its
default or by the example that its field declares, and the document is checked again until nothing new is found.
"""

import copy
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.schemas.body import unknown_key

Loc = tuple[int | str, ...]
ROUNDS_MAX = 8
KIND = "kind"
"""The key that says which of several models a mapping is."""
_NAMED = re.compile(r"([a-z0-9_]+(?:\.[a-z0-9_]+)*): (.*)", re.DOTALL)
_PREFIX = "Value error, "
_WORDS = {"missing": "required", "path_type": "not a path"}
Node = dict[str, Any]


def every_fault(model: type[BaseModel], document: object) -> list[tuple[Loc, str, str]]:
    """Each fault of a document that `model` refuses: its path, the kind of fault and what is wrong."""
    schema = model.model_json_schema()
    kinds: dict[tuple[Loc, str], str] = {}
    replaced: set[Loc] = set()
    document = copy.deepcopy(document)
    for _ in range(ROUNDS_MAX):
        refusals = [
            (_place(document, found["loc"], found["type"]), found["type"], found["msg"])
            for found in _refusals(model, document)
        ]
        for loc, kind, message in refusals:
            for at, words in _told(schema, document, loc, kind, message):
                if not any(at[: len(done)] == done for done in replaced):
                    kinds.setdefault((at, words), kind)
        new = {loc for loc, kind, _ in refusals if loc not in replaced and _replace(schema, document, loc, kind)}
        if not new:
            break
        replaced |= new
    return [(loc, kind, words) for (loc, words), kind in kinds.items()]


def _refusals(model: type[BaseModel], document: object) -> list[ErrorDetails]:
    try:
        model.model_validate(document)
    except ValidationError as error:
        return error.errors(include_url=False, include_context=False)
    return []


def _place(document: object, loc: Loc, kind: str) -> Loc:
    """The path of a fault in the document: a validator also names the choice it made where there are several."""
    here, found = document, []
    for number, part in enumerate(loc):
        value = inside(here, part)
        if value is not None or (isinstance(here, dict) and part in here):
            found.append(part)
            here = value
        elif kind == "missing" and number == len(loc) - 1:
            found.append(part)
    return tuple(found)


def inside(here: object, part: int | str) -> object:
    """The value under a key of a mapping or at a place in a list; None = there is none."""
    if isinstance(here, dict):
        return here.get(part)
    return here[part] if isinstance(here, list) and isinstance(part, int) and part < len(here) else None


def _told(schema: Node, document: object, loc: Loc, kind: str, message: str) -> Iterator[tuple[Loc, str]]:
    """Where a fault is and what it is, in our words. A model's own check gives several, each a line that begins with
    the key it means."""
    if kind == "extra_forbidden":
        yield loc, unknown_key(str(loc[-1]), _node(schema, document, loc[:-1]).get("properties", ()))
    elif kind == "union_tag_invalid":
        yield (*loc, KIND), f"not one of {message.partition('expected tags: ')[2]}"
    elif kind == "union_tag_not_found":
        yield (*loc, KIND), "required"
    elif kind in _WORDS:
        yield loc, _WORDS[kind]
    elif message.startswith(_PREFIX):
        for line in message.removeprefix(_PREFIX).splitlines():
            named = _NAMED.fullmatch(line)
            if named is not None and named[1].split(".")[0] in _node(schema, document, loc).get("properties", ()):
                keys = [int(part) if part.isdecimal() else part for part in named[1].split(".")]
                yield (*loc, *keys), named[2]
            else:
                yield loc, line
    else:
        yield loc, message


def _replace(schema: Node, document: object, loc: Loc, kind: str) -> bool:
    """Put something right where the fault is; whether that was possible."""
    if not loc:
        return False
    parent, key = document, loc[-1]
    for part in loc[:-1]:
        parent = inside(parent, part)
    required = _node(schema, document, loc[:-1]).get("required", ())
    if isinstance(parent, dict) and (kind == "extra_forbidden" or key not in required):
        parent.pop(key, None)
        return True
    example = _example(_node(schema, document, loc), loc)
    if example is None or not isinstance(parent, dict | list):
        return False
    parent[key] = example  # type: ignore[index]  # a key of a mapping, or a place in a list
    return True


def _example(node: Node, loc: Loc) -> object:
    """What may stand at a place. Texts in items of a list differ, since some of them must."""
    examples = node.get("examples")
    if not examples:
        return None
    item = next((part for part in reversed(loc) if isinstance(part, int)), None)
    if item is None:
        return copy.deepcopy(examples[0])
    if isinstance(examples[0], dict):
        return {key: f"{value}{item}" if key == "name" else value for key, value in copy.deepcopy(examples[0]).items()}
    return f"{examples[0]}{item}" if isinstance(examples[0], str) else examples[0]


def _node(schema: Node, document: object, loc: Loc) -> Node:
    """The part of the JSON Schema that describes the value at a path."""
    node, here = schema, document
    for part in loc:
        node = _chosen(schema, node, here)
        inner = node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part)
        inner = (
            inner or node.get("additionalProperties") or next(iter(node.get("patternProperties", {}).values()), None)
        )
        if not isinstance(inner, dict):
            return {}
        node, here = inner, inside(here, part)
    found = _chosen(schema, node, here)
    return found | {"examples": node["examples"]} if "examples" in node else found


def _chosen(schema: Node, node: Node, value: object) -> Node:
    """A node without references, and of alternatives the one that a value means."""
    while True:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        elif "discriminator" in node:
            kind = value.get(node["discriminator"]["propertyName"]) if isinstance(value, dict) else None
            reference = node["discriminator"]["mapping"].get(kind) if isinstance(kind, str) else None
            if reference is None:
                return {}
            node = {"$ref": reference}
        elif "anyOf" in node:
            node = next((one for one in node["anyOf"] if one.get("type") != "null"), {})
        else:
            return node

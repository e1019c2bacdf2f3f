"""Finds every fault of a profile's text at once, each with its path and in words of a profile's writer.

Rules between fields of a part are looked at only where each field is right, and rules between parts only where each
part is. So what is wrong is left out and the rest is looked at again; what then is missed only because it was left out
is not reported.
"""

import copy
import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from gateway import former_names
from gateway.profiles.checks.product import faults_of
from gateway.profiles.language.base import KEY_PATTERN, MODEL_NAME_PATTERN, NAME_PATTERN, TOPIC_PATTERN
from gateway.profiles.language.control import Control
from gateway.profiles.language.points import PATH_PATTERN, POINTER_PATTERN
from gateway.profiles.language.product import ProfileDocument
from gateway.yaml_lines import Loc

Found = tuple[Loc, str]
ROUNDS_MAX = 6
LISTED_MAX = 12
UNKNOWN, MISSING, RULE = "extra_forbidden", "missing", "value_error"
_LIST, _MAPPING, _NUMBER = "must be a list", "must be a mapping of keys to values", "must be a number"
_WHOLE, _FLAG = "must be a whole number", "must be true or false"
_WORDS = {
    MISSING: "required",
    "tuple_type": _LIST, "list_type": _LIST, "too_short": "must have at least {min_length}",
    "too_long": "must have at most {max_length}",
    "dict_type": _MAPPING, "model_type": _MAPPING, "model_attributes_type": _MAPPING,
    "string_type": "must be a text, in quotes", "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "int_type": _WHOLE, "int_parsing": _WHOLE, "int_from_float": _WHOLE, "int_parsing_size": _WHOLE,
    "float_type": _NUMBER, "float_parsing": _NUMBER, "finite_number": _NUMBER,
    "bool_type": _FLAG, "bool_parsing": _FLAG,
    "literal_error": "must be {expected}", "enum": "must be {expected}",
    "greater_than": "must be more than {gt}", "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}", "less_than_equal": "must be at most {le}",
}  # fmt: skip
_PATTERNS = {
    NAME_PATTERN: "must be 1 to 64 lower-case letters, digits, - and _, a letter or digit first",
    MODEL_NAME_PATTERN: "must be 1 to 64 lower-case letters, digits, - and _, a letter first",
    KEY_PATTERN: "must have no quotation marks, backslashes or control characters",
    TOPIC_PATTERN: "must be letters, digits, _, -, ., / and levels in {}",
    POINTER_PATTERN: "must be a JSON pointer of at most 8 segments, such as /battery/soc",
    PATH_PATTERN: "must begin with / and be letters, digits and _-./{}?=&",
}
_NAMED = re.compile(r"([a-z_]+)((?:\.[a-z0-9_]+)*): (.*)")
_SCALARS = {"a text": str, "a number": float, "true or false": bool}
_UNKNOWN = "unknown key"
_NAMED_PARTS = ("points", "readings")
_NAMES = (*_NAMED_PARTS, "control")
"""Sections whose parts have names of their own, by which others mean them."""
_IN_PARTS: tuple[type[BaseModel], ...] = (Control,)
"""Models whose right fields are looked at while others are wrong."""


def schema_faults(raw: object, error: ValidationError) -> tuple[list[Found], list[str]]:
    """Every fault of a document that the language refused with `error`: those of one part, by place, and those between
    parts that are right, as `path: what is wrong`."""
    found = dict.fromkeys(_told(raw, error))
    rest, mended = copy.deepcopy(raw), set[Loc]()
    for _ in range(ROUNDS_MAX):
        wrong = [(_place(rest, fault), fault) for fault in error.errors(include_url=False)]
        now = {loc for loc, fault in wrong if _mended(rest, loc, fault)}
        mended |= now
        if not now:
            break
        try:
            ProfileDocument.model_validate(rest)
        except ValidationError as more:
            error = more
            found |= dict.fromkeys(fault for fault in _told(rest, error) if not _follows(fault, mended))
        else:
            break
    wrong_parts = [loc for loc, words in found if not words.startswith(_UNKNOWN)]
    for loc in wrong_parts:
        section = rest.get(loc[0]) if isinstance(rest, dict) and loc and loc[0] in _NAMED_PARTS else None
        if isinstance(section, dict) and len(loc) > 1:
            section.pop(loc[1], None)
    return list(found), list(_between(_kept(ProfileDocument, rest), wrong_parts))


def words_of(fault: ErrorDetails, raw: object, loc: Loc) -> str:
    """What is wrong, and what is allowed."""
    kind, context = fault["type"], fault.get("ctx", {})
    former = former_names.refusal(loc, kind, former_names.PROFILE)
    if former is not None:
        return former
    if kind == UNKNOWN:
        return _unknown(str(loc[-1]), _keys_at(loc[:-1]))
    if kind == "string_pattern_mismatch":
        subject = "its name " if fault["loc"][-1] == "[key]" else ""
        return subject + _PATTERNS.get(context["pattern"], f"must match {context['pattern']}") + _shown(fault)
    words = _WORDS.get(kind, fault["msg"]).format(**context)
    if words == _LIST and not isinstance(fault["input"], dict | list | None):
        return f"{words}: [{fault['input']}]"
    return words if kind in (MISSING, "too_short", "too_long") else words + _shown(fault)


def _told(raw: object, error: ValidationError) -> Iterator[Found]:
    alternatives: dict[Loc, list[str]] = {}
    for fault in error.errors(include_url=False):
        loc = _place(raw, fault)
        if fault["type"] == RULE:
            keys = _keys_at(loc)
            for line in str(fault["ctx"]["error"]).splitlines():
                named = _NAMED.fullmatch(line)
                if named is not None and named[1] in keys:
                    inside = [int(key) if key.isdecimal() else key for key in named[2].split(".")[1:]]
                    yield (*loc, named[1], *inside), named[3]
                else:
                    yield loc, line
        elif fault["type"] == "too_short" and len(fault["input"]) >= fault["ctx"]["min_length"]:
            continue  # only its wrong items are missing
        elif _one_of_kinds(fault, loc):
            alternatives.setdefault(loc, []).append(_shown(fault))
        else:
            yield loc, words_of(fault, raw, loc)
    for loc, shown in alternatives.items():
        *kinds, last = _SCALARS
        yield loc, f"must be {', '.join(kinds)} or {last}{shown[0]}"


def _one_of_kinds(fault: ErrorDetails, loc: Loc) -> bool:
    """Whether the fault is that of one of several kinds of value that would be right."""
    return len(loc) < len(fault["loc"]) and fault["loc"][-1] in ("str", "int", "float", "bool")


def _place(raw: object, fault: ErrorDetails) -> Loc:
    """The path of a fault in the document, without the choices that the validator made."""
    here, loc, parts = raw, list[int | str](), fault["loc"]
    for number, part in enumerate(parts):
        if _has(here, part):
            loc.append(part)
            here = here[part]  # type: ignore[index]  # a key of a mapping, or a place in a list
        elif fault["type"] == MISSING and number == len(parts) - 1:
            loc.append(part)
    return tuple(loc)


def _has(here: object, part: int | str) -> bool:
    return part in here if isinstance(here, dict) else isinstance(here, list) and part in range(len(here))


def _mended(raw: object, loc: Loc, fault: ErrorDetails) -> bool:
    """Put a number, flag or list that could be right in place of a wrong one, else leave out the key; whether that was
    possible."""
    parent = raw
    for part in loc[:-1]:
        if not _has(parent, part):
            return False  # it went with a fault that holds it
        parent = parent[part]  # type: ignore[index]  # a key of a mapping, or a place in a list
    if not loc or fault["type"] in (MISSING, RULE) or not isinstance(parent, dict) or loc[-1] not in parent:
        return False
    right = _instead(fault)
    if right is None:
        del parent[loc[-1]]
    else:
        parent[loc[-1]] = right
    return True


def _instead(fault: ErrorDetails) -> object:
    """What could be right in place of a wrong value; None where nobody can tell."""
    context, given = fault.get("ctx", {}), fault["input"]
    beyond = {"gt": 1, "ge": 0, "lt": -1, "le": 0}
    words = _WORDS.get(fault["type"])
    for bound in beyond.keys() & context.keys():
        return context[bound] + beyond[bound]
    if words == _LIST:
        return None if isinstance(given, dict | None) else [given]
    return {_NUMBER: 1, _WHOLE: 1, _FLAG: False}.get(words or "")


def _follows(fault: Found, mended: Iterable[Loc]) -> bool:
    """Whether a fault may be there only because of what was done about others: it is where they were, or speaks of
    them."""
    loc, words = fault
    near = {str(place[-1]) for place in mended if place[: len(loc)] == loc or place[:-1] == loc[:-1]}
    return words == _WORDS[MISSING] or loc in mended or not near.isdisjoint(re.findall(r"\w+", words))


def _kept(model: type[BaseModel], raw: object) -> Any:
    """A document of the parts that are right. What is wrong has its default or is None."""
    given = raw if isinstance(raw, dict) else {}
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        value = given.get(field.alias or name, None)
        fields[name] = field.get_default(call_default_factory=True) if not field.is_required() else None
        if (field.alias or name) in given:
            kept = _right(field.annotation, value)
            fields[name] = fields[name] if kept is None else kept
    return model.model_construct(**fields)


def _right(kind: Any, value: object) -> Any:
    """A value as `kind`, or those of its parts that are right; None if it is wrong."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError:
        pass
    if isinstance(value, dict) and (model := next((m for m in _IN_PARTS if m in (kind, *get_args(kind))), None)):
        return _kept(model, value)
    inner = get_args(kind)
    if isinstance(value, dict) and len(inner) == 2 and getattr(kind, "__origin__", None) is dict:
        parts = {key: _right(inner[1], part) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part is not None}
    if isinstance(value, list) and inner[1:] == (...,):
        return tuple(part for part in (_right(inner[0], part) for part in value) if part is not None)
    return None


def _between(document: ProfileDocument, wrong: list[Loc]) -> Iterator[str]:
    """Faults between parts that are right, but none at a part that is wrong or about one."""
    if not document.points and not document.messages:
        return
    if document.transport not in ("mqtt", "modbus", "http"):
        meant = "modbus" if document.modbus is not None else "http" if document.http is not None else "mqtt"
        document = document.model_copy(update={"transport": meant})
    parts = {tuple(map(str, loc[:2])) for loc in wrong}
    named = {repr(loc[1]) for loc in wrong if len(loc) > 1} | {str(loc[0]) for loc in wrong if loc} - set(_NAMES)
    keys = {str(loc[1]) for loc in wrong if len(loc) == 2}
    for fault in faults_of(document):
        part = tuple(fault.partition(": ")[0].split(".")[:2])
        spoken = keys & set(re.findall(r"\w+", fault)[2:])
        if part not in parts and not spoken and not any(name in fault for name in named):
            yield fault


def _keys_at(loc: Loc) -> list[str]:
    """The keys that a mapping at a place may have."""
    kind: Any = ProfileDocument
    for part in loc:
        model = _model_in(kind)
        if isinstance(part, str) and model is not None and not _is_dict(kind):
            fields = {field.alias or name: field for name, field in model.model_fields.items()}
            kind = fields[part].rebuild_annotation() if part in fields else None
        else:
            kind = model
    model = None if _is_dict(kind) else _model_in(kind)
    return [] if model is None else [field.alias or name for name, field in model.model_fields.items()]


def _is_dict(kind: Any) -> bool:
    return getattr(kind, "__origin__", None) is dict


def _model_in(kind: Any) -> type[BaseModel] | None:
    """The model that a field, or each item of it, is."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    return next((found for part in get_args(kind) if (found := _model_in(part)) is not None), None)


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"{_UNKNOWN}; did you mean {near[0]}?"
    return f"{_UNKNOWN}; known are {', '.join(known)}" if len(known) <= LISTED_MAX else _UNKNOWN


def _shown(fault: ErrorDetails) -> str:
    found = fault["input"]
    return f" (found {found!r})" if isinstance(found, str | int | float) else ""

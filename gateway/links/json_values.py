"""JSON on the wire: reads values by pointer from documents, writes bodies and path segments.

Pointers are RFC 6901, and a segment `[key=text]` chooses an element of a list by what it says. A string that contains
JSON is parsed when the pointer goes on inside it.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

import orjson

from gateway.profiles.compiled.json_text import tolerant_json
from gateway.profiles.compiled.points import Marker, Raw, Unwritable
from gateway.profiles.language.points import CHOICE, Scalar, WriteTo

Json = object
INTEGRAL_MAX = 2.0**53


def parse_json(data: bytes) -> Json:
    """The document in `data`. A number that JSON lacks (NaN) makes only its own value unknown. Raises ValueError."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return tolerant_json(data)


def tokens_of(pointer: str) -> tuple[str, ...]:
    """The segments of a pointer; none = the whole document."""
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:])


def value_at(document: Json, tokens: Sequence[str]) -> Json:
    """The value at `tokens`; MISSING where the document has none, GARBLED where it has several. JSON null is None."""
    value = document
    for token in tokens:
        if isinstance(value, str):
            try:
                value = parse_json(value.encode())
            except ValueError:
                return Marker.MISSING
        if isinstance(value, dict):
            value = value.get(token, Marker.MISSING)
        elif isinstance(value, list) and token.isdecimal() and token.isascii() and int(token) < len(value):
            value = value[int(token)]
        elif isinstance(value, list) and (choice := CHOICE.fullmatch(token)) is not None:
            found = _chosen(value, *choice.groups())
            if len(found) != 1:
                return Marker.GARBLED if found else Marker.MISSING
            value = found[0]
        else:
            return Marker.MISSING
    return value


def _chosen(elements: list[Json], key: str, text: str) -> list[Json]:
    """The elements whose `key` is `text`, a number in its shortest form."""
    return [one for one in elements if isinstance(one, dict) and key in one and _said(one[key]) == text]


def _said(value: Json) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return value if isinstance(value, str) else str(_plain(value))


def raw_of(value: Json) -> Raw:
    """A leaf as a raw value; GARBLED for an object or an array."""
    if value is None:
        return Marker.NULL
    if isinstance(value, Marker | str | int | float):
        return value
    return Marker.GARBLED


def json_body(writes: Sequence[tuple[WriteTo, Raw]]) -> bytes | None:
    """The JSON object of writes that share a request, None if it has no members. Raises Unwritable."""
    members: dict[str, object] = {}
    for to, _ in writes:
        members.update(to.constants)
    for to, raw in writes:
        if to.key is None:
            if len(writes) > 1:
                raise Unwritable("a value without a key has a request of its own")
            return None
        members[to.key] = member_of(raw, as_text=to.as_text)
    return orjson.dumps(members)


def member_of(raw: Raw, *, as_text: bool) -> Scalar | None:
    """A raw value as a member of a JSON object. Raises Unwritable."""
    if raw is Marker.NULL:
        return None
    if isinstance(raw, tuple | Marker):
        raise Unwritable(f"{raw!r} is no JSON value")
    if isinstance(raw, bool | str):
        return raw
    number = _plain(raw)
    return str(number) if as_text else number


def text_of(raw: Raw) -> str:
    """A raw value as bare text (a path segment, a payload); NULL is `null`. Raises Unwritable."""
    value = member_of(raw, as_text=False)
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def segment_of(raw: Raw) -> str:
    """A raw value as one path segment. Raises Unwritable."""
    text = text_of(raw)
    if raw is Marker.NULL or text in ("", ".", ".."):
        raise Unwritable(f"{raw!r} is no path segment")
    return quote(text, safe="")


def _plain(number: int | float) -> int | float:
    """A whole number without its decimal point."""
    if isinstance(number, float) and number.is_integer() and abs(number) <= INTEGRAL_MAX:
        return int(number)
    return number


def has(document: Json, tokens: Sequence[str]) -> bool:
    """Whether a document has a value at `tokens`, null included."""
    return value_at(document, tokens) is not Marker.MISSING


def filled(fields: Mapping[str, str | bool], *, username: str, secret: str) -> bytes:
    """The body of a login: constants, and `$username` and `$secret` as registered for the device."""
    given = {"$username": username, "$secret": secret}
    return orjson.dumps({k: given.get(v, v) if isinstance(v, str) else v for k, v in fields.items()})

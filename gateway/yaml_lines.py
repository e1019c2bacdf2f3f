"""Reads strict YAML with line numbers: the part of YAML 1.2 that configuration and profiles need.

One document of mappings, sequences and plain values (null, true and false, numbers, texts). Keys are texts. A few
aliases are allowed; an aliased value counts as if it were written out. Refused: tags, merge keys, a repeated key, an
alias inside the value it refers to, depth and size beyond bounds. Only plain values are constructed; every fault comes
with its line (1 = first), and is told as `file:line: path: what is wrong`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from gateway.domain.errors import InvalidInput

BYTES_MAX = 1 << 18
FAULTS_MAX = 50
WORDS_MAX = 300
DEPTH_MAX = 24
SIZE_MAX = 50_000
ALIASES_MAX = 64
DIGITS_MAX = 40
Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = ("", "~", "null", "Null", "NULL")
_FLAGS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
Loc = tuple[int | str, ...]


class NotStrict(Exception):
    """The text is not YAML that this module reads; `line` says where."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


@dataclass(slots=True)
class Place:
    """Position of a value: its line (that of its key where it has one) and the places inside it; `size` values in all,
    nested `height` deep."""

    line: int
    inside: dict[int | str, "Place"] = field(default_factory=dict)
    size: int = 1
    height: int = 1

    def line_of(self, path: Loc) -> int:
        """The line at `path`, or of the last part of it that exists. Unknown parts (a validator's own words) are
        skipped."""
        here = self
        for part in path:
            here = here.inside.get(part, here.inside.get(str(part), here))
        return here.line


def read_yaml(text: str) -> tuple[Plain, Place]:
    """The data of `text` and the place of each value. Raises NotStrict."""
    if len(text) > BYTES_MAX or len(text.encode("utf-8", "replace")) > BYTES_MAX:
        raise NotStrict(1, f"larger than {BYTES_MAX} bytes")
    try:
        reader = _Reader(yaml.parse(text, Loader=Parser))
        return reader.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = f"{error.context or ''} {error.problem or ''}".strip()
        raise NotStrict(mark.line + 1 if mark else 1, f"not YAML: {words}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The parser also raises other errors, for impossible escapes and characters.
        raise NotStrict(1, f"not YAML: {' '.join(str(error).split())}") from error


def read_file(path: Path) -> bytes:
    """The UTF-8 text of a file, one byte more than is read at most. Raises InvalidInput."""
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_MAX + 1)
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InvalidInput([fault_line(path.name, line, "(document)", "not UTF-8")]) from error
    except OSError as error:
        raise InvalidInput([f"{path.name}:1: (document): cannot be read: {error}"]) from error
    return content


def fault_line(name: str, line: int, path: str, words: str) -> str:
    """What is wrong in a file, safe to print: one line, no control characters, bounded length."""
    return f"{name}:{line}: {_shown(path)}: {_shown(words)}"


def fault_at(name: str, place: Place, loc: Loc, words: str) -> str:
    """What is wrong at a path of a document that was read."""
    return fault_line(name, place.line_of(loc), ".".join(map(str, loc)) or "(document)", words)


def bounded(name: str, faults: Iterable[str]) -> list[str]:
    """The first faults of a file, and how many more there are."""
    listed = list(faults)
    more = len(listed) - FAULTS_MAX
    return listed if more <= 0 else [*listed[:FAULTS_MAX], f"{name}:1: (document): and {more} more"]


def _shown(text: str) -> str:
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return plain if len(plain) <= WORDS_MAX else f"{plain[:WORDS_MAX]}..."


class _Reader:
    """Builds values from the parser's events; the parser does not recurse, and recursion here is bounded."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events
        self._size = 0
        self._aliases = 0
        self._anchored: dict[str, tuple[Plain, Place]] = {}

    def document(self) -> tuple[Plain, Place]:
        value: Plain = None
        place = Place(1)
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise NotStrict(_line(event), "more than one document")
                value, place = self._value(next(self._events), 1)
        return value, place

    def _value(self, event: yaml.Event, depth: int) -> tuple[Plain, Place]:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, depth)
        self._count(event, 1, depth)
        place = Place(_line(event))
        value: Plain
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(place, depth)
        else:
            value = self._mapping(place, depth)
        place.size += sum(inside.size for inside in place.inside.values())
        place.height += max((inside.height for inside in place.inside.values()), default=0)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            if anchor in self._anchored:
                raise NotStrict(place.line, f"the anchor {anchor!r} stands twice")
            self._anchored[anchor] = value, place
        return value, place

    def _alias(self, event: yaml.AliasEvent, depth: int) -> tuple[Plain, Place]:
        found = self._anchored.get(event.anchor or "")
        if found is None:
            raise NotStrict(_line(event), f"nothing before it is anchored as {event.anchor!r}")
        self._aliases += 1
        if self._aliases > ALIASES_MAX:
            raise NotStrict(_line(event), f"more than {ALIASES_MAX} aliases")
        value, there = found
        self._count(event, there.size, depth + there.height - 1)
        return value, Place(_line(event), there.inside, there.size, there.height)

    def _sequence(self, place: Place, depth: int) -> list[Plain]:
        values: list[Plain] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            value, place.inside[len(values)] = self._value(event, depth + 1)
            values.append(value)
        return values

    def _mapping(self, place: Place, depth: int) -> dict[str, Plain]:
        values: dict[str, Plain] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            self._count(event, 1, depth + 1)
            if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None:
                raise NotStrict(_line(event), "a key is a plain text")
            key = str(event.value)
            if key in values:
                raise NotStrict(_line(event), f"the key {key!r} stands twice (first on line {place.inside[key].line})")
            values[key], inside = self._value(next(self._events), depth + 1)
            inside.line = _line(event)
            place.inside[key] = inside
        return values

    def _count(self, event: yaml.Event, size: int, depth: int) -> None:
        self._size += size
        if self._size > SIZE_MAX:
            raise NotStrict(_line(event), f"more than {SIZE_MAX} values")
        if depth > DEPTH_MAX:
            raise NotStrict(_line(event), f"nested deeper than {DEPTH_MAX}")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise NotStrict(_line(event), f"tags are not allowed (found {tag!r})")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _scalar(event: yaml.ScalarEvent) -> Plain:
    text = str(event.value)
    if not event.implicit[0]:
        return text
    if text in _NULL:
        return None
    if text in _FLAGS:
        return _FLAGS[text]
    if _NOT_FINITE.fullmatch(text):
        raise NotStrict(_line(event), f"{text} is no number here")
    if len(text) > DIGITS_MAX:
        return text
    if _INTEGER.fullmatch(text):
        return int(text, 16 if text.startswith("0x") else 10)
    return float(text) if _NUMBER.fullmatch(text) else text

"""Reads profiles from files and reports every fault with file, line and path."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from pydantic import ValidationError

from gateway import former_names
from gateway.domain.errors import InvalidInput
from gateway.profiles.checks.doubts import doubts_of
from gateway.profiles.checks.product import faults_of
from gateway.profiles.compile import Codec, compile_profile
from gateway.profiles.faults import schema_faults
from gateway.profiles.language.product import ProfileDocument
from gateway.yaml_lines import Loc, NotStrict, Place, bounded, fault_line, read_file, read_yaml

DIGEST_LENGTH = 12
WORD = re.compile(r"[\w-]+")


def parse_profile(text: str, *, name: str) -> ProfileDocument:
    """Read one profile from YAML; `name` is the file's name in messages. Raises InvalidInput with every fault, up to
    a bound, as `file:line: path: what is wrong`."""
    return _parse(text, name=name)[0]


def load_profile(path: Path) -> Codec:
    """Read and compile one file, which is named after its profile. Raises InvalidInput with every fault."""
    name, content = path.name, read_file(path)
    document, place, former = _parse(content.decode("utf-8"), name=name)
    if document.profile != path.stem:
        line = place.line_of(("profile",))
        raise InvalidInput([f"{name}:{line}: profile: says {document.profile!r}, the file is named {path.stem!r}"])
    return replace(
        compile_profile(document),
        digest=hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH],
        former=tuple(fault_line(name, place.line_of(loc), ".".join(loc), words) for loc, words in former),
        doubts=tuple(fault_line(name, *_split(doubt, place)) for doubt in doubts_of(document)),
    )


def load_profiles(directory: Path) -> dict[str, Codec]:
    """Compile every `*.yaml` in `directory`, by profile name. Raises InvalidInput with the faults of all files."""
    problems: list[str] = []
    codecs: dict[str, Codec] = {}
    for path in sorted(directory.glob("*.yaml")):
        try:
            codecs[path.stem] = load_profile(path)
        except InvalidInput as error:
            problems += error.problems
    if not codecs and not problems:
        problems.append(f"{directory}: no profiles (*.yaml) here")
    if problems:
        raise InvalidInput(problems)
    return codecs


def _parse(text: str, *, name: str) -> tuple[ProfileDocument, Place, list[tuple[tuple[str, ...], str]]]:
    """The document, the place of each value and the former keys that the text uses."""
    try:
        raw, place = read_yaml(text)
    except NotStrict as error:
        raise InvalidInput([fault_line(name, error.line, "(document)", str(error))]) from error
    try:
        document = ProfileDocument.model_validate(raw)
    except ValidationError as error:
        found, between = schema_faults(raw, error)
        told = [_at(name, place, loc, words) for loc, words in found]
        raise InvalidInput(bounded(name, [*told, *_told(name, place, between)])) from error
    faults = _told(name, place, faults_of(document))
    if faults:
        raise InvalidInput(bounded(name, faults))
    return document, place, list(former_names.used(raw, former_names.PROFILE))


def _at(name: str, place: Place, loc: Loc, words: str) -> str:
    return fault_line(name, place.line_of(loc), ".".join(map(str, loc)) or "(document)", words)


def _told(name: str, place: Place, faults: Iterable[str]) -> list[str]:
    return [fault_line(name, line, path, words) for line, path, words in (_split(fault, place) for fault in faults)]


def _split(fault: str, place: Place) -> tuple[int, str, str]:
    """Split a fault of the checks, `path: what is wrong` or `path.what is wrong`, into line, path and words. Of keys
    with dots in them, the longest existing one counts."""
    path, _, words = fault.partition(": ")
    parts = path.split(".")
    loc: Loc = ()
    here = place
    while parts:
        used = next((n for n in range(len(parts), 0, -1) if _key(here, parts[:n]) is not None), 0)
        key = _key(here, parts[:used])
        if key is None:
            break
        loc, here, parts = (*loc, key), here.inside[key], parts[used:]
    absent = list(takewhile(WORD.fullmatch, parts))
    said = ".".join(parts[len(absent) :])
    shown = ".".join([*map(str, loc), *absent]) or "(document)"
    return place.line_of(loc), shown, ": ".join(text for text in (said, words) if text)


def _key(place: Place, parts: list[str]) -> int | str | None:
    name = ".".join(parts)
    if name in place.inside:
        return name
    return int(name) if name.isdecimal() and int(name) in place.inside else None

"""Reads profiles from files and reports every fault with file and path."""

from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import ValidationError

from gateway.domain.errors import InvalidInput
from gateway.profiles.codec import Codec, compile_profile, faults_of
from gateway.profiles.schema import ProfileDocument

MAX_PROFILE_BYTES = 1 << 20


def parse_profile(text: str, *, name: str) -> ProfileDocument:
    """Read one profile from YAML; `name` stands for the file in messages. Raises InvalidInput with every fault."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidInput([f"{name}: not YAML: {' '.join(str(error).split())}"]) from error
    try:
        document = ProfileDocument.model_validate(raw)
    except ValidationError as error:
        raise InvalidInput([f"{name}: {_place(e['loc'])}: {e['msg']}" for e in error.errors()]) from error
    faults = [f"{name}: {fault}" for fault in faults_of(document)]
    if faults:
        raise InvalidInput(faults)
    return document


def load_profiles(directory: Path) -> dict[str, Codec]:
    """Compile every `*.yaml` in `directory`, by profile name. Raises InvalidInput with the faults of all files."""
    problems: list[str] = []
    codecs: dict[str, Codec] = {}
    for path, text in _texts(directory, problems):
        try:
            document = parse_profile(text, name=path.name)
        except InvalidInput as error:
            problems += error.problems
            continue
        if document.profile != path.stem:
            problems.append(f"{path.name}: profile: says {document.profile!r}, the file is named {path.stem!r}")
            continue
        codecs[document.profile] = compile_profile(document)
    if not codecs and not problems:
        problems.append(f"{directory}: no profiles (*.yaml) here")
    if problems:
        raise InvalidInput(problems)
    return codecs


def _texts(directory: Path, problems: list[str]) -> Iterator[tuple[Path, str]]:
    for path in sorted(directory.glob("*.yaml")):
        try:
            if path.stat().st_size > MAX_PROFILE_BYTES:
                problems.append(f"{path.name}: larger than {MAX_PROFILE_BYTES} bytes")
                continue
            yield path, path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{path.name}: cannot be read: {error}")


def _place(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc) or "(document)"

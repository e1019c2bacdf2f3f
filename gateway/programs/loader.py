"""Reads programs from files and reports every fault with file, line and path."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.terms import ProgramTerms
from gateway.domain.rules.program import GridProgram
from gateway.programs.checks import clashes, faults_of
from gateway.programs.compile import compile_program
from gateway.programs.language import ProgramDocument
from gateway.programs.terms import terms_of
from gateway.yaml_lines import NotStrict, Place, bounded, fault_at, fault_line, read_file, read_yaml

DIGEST_LENGTH = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedProgram:
    """A program file: the document, what it is compiled to, and the first digits of the file's SHA-256."""

    document: ProgramDocument
    program: GridProgram
    terms: ProgramTerms
    digest: str


def parse_program(text: str, *, name: str) -> ProgramDocument:
    """Read one program from YAML; `name` is the file's name in messages. Raises InvalidInput with every fault, up to
    a bound, as `file:line: path: what is wrong`."""
    return _parse(text, name=name)[0]


def load_program(path: Path) -> LoadedProgram:
    """Read and compile one file, which is named after its program. Raises InvalidInput with every fault."""
    return _load(path)[0]


def load_programs(directory: Path) -> dict[str, LoadedProgram]:
    """Compile every `*.yaml` in `directory`, by program name. Raises InvalidInput with the faults of all files."""
    problems: list[str] = []
    loaded: dict[str, tuple[LoadedProgram, Place]] = {}
    for path in sorted(directory.glob("*.yaml")):
        try:
            loaded[path.stem] = _load(path)
        except InvalidInput as error:
            problems += error.problems
    if not loaded and not problems:
        problems.append(f"{directory}: no programs (*.yaml) here")
    problems += _clashes(loaded)
    if problems:
        raise InvalidInput(problems)
    return {name: one for name, (one, _) in loaded.items()}


def _load(path: Path) -> tuple[LoadedProgram, Place]:
    name, content = path.name, read_file(path)
    document, place = _parse(content.decode("utf-8"), name=name)
    if document.program != path.stem:
        words = f"says {document.program!r}, the file is named {path.stem!r}"
        raise InvalidInput([fault_line(name, place.line_of(("program",)), "program", words)])
    digest = hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]
    loaded = LoadedProgram(
        document=document, program=compile_program(document), terms=terms_of(document), digest=digest
    )  # fmt: skip
    return loaded, place


def _clashes(loaded: Mapping[str, tuple[LoadedProgram, Place]]) -> Iterator[str]:
    for program, found in clashes(one.document for one, _ in loaded.values()):
        yield fault_at(f"{program}.yaml", loaded[program][1], *found)


def _parse(text: str, *, name: str) -> tuple[ProgramDocument, Place]:
    try:
        raw, place = read_yaml(text)
    except NotStrict as error:
        raise InvalidInput([fault_line(name, error.line, "(document)", str(error))]) from error
    try:
        document = ProgramDocument.model_validate(raw)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        told = (fault_at(name, place, one["loc"], one["msg"].removeprefix("Value error, ")) for one in found)
        raise InvalidInput(bounded(name, told)) from error
    faults = [fault_at(name, place, *found) for found in faults_of(document)]
    if faults:
        raise InvalidInput(bounded(name, faults))
    return document, place

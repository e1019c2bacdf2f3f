"""What a program says in short: who it is, its versions, and each value of a version with its evidence."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from gateway.domain.rules.values import Certainty
from gateway.programs.language import ProgramDocument, Version
from gateway.programs.loader import LoadedProgram


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramSummary:
    """`versions`: name and days of each; `values` of all versions, and how many of them are `unverified`."""

    program: str
    title: str
    pricing: str
    zone: str
    versions: tuple[str, ...]
    values: int
    unverified: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedValue:
    """A value of a version: where it stands, what it is, and how well it is known. `effect`: "" = it binds nobody."""

    path: str
    value: Any
    effect: str
    evidence: str
    source: str


def program_summary(loaded: LoadedProgram) -> ProgramSummary:
    """Summarise a program."""
    document = loaded.document
    values = [value for version in document.versions for value in stated(version)]
    return ProgramSummary(
        program=document.program,
        title=document.title,
        pricing=document.pricing.value,
        zone=document.zone,
        versions=tuple(days_of(version) for version in document.versions),
        values=len(values),
        unverified=sum(value.evidence == Certainty.UNVERIFIED for value in values),
        digest=loaded.digest,
    )


def days_of(version: Version) -> str:
    """Name and days of a version."""
    until = "further notice" if version.until is None else version.until
    return f"{version.version}: {version.first} until {until}"


def stated(version: Version) -> Iterator[StatedValue]:
    """Every value of a version that has evidence, in the order of the file."""
    return _stated(version, "", top=True)


def plain(document: ProgramDocument | Version) -> dict[str, Any]:
    """A document as it would be written in a file, without what is absent."""
    return document.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)


def _stated(value: object, path: str, *, top: bool = False) -> Iterator[StatedValue]:
    if isinstance(value, BaseModel):
        evidence = getattr(value, "evidence", None)
        if isinstance(evidence, Certainty) and not top:
            yield _entry(value, path, evidence)
            return
        for key, field in type(value).model_fields.items():
            name = field.alias or key
            yield from _stated(getattr(value, key), f"{path}.{name}" if path else name)
    elif isinstance(value, tuple):
        for item in value:
            yield from _stated(item, f"{path}.{getattr(item, 'name', None) or getattr(item, 'kind', '')}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _stated(item, f"{path}.{key}")


def _entry(value: BaseModel, path: str, evidence: Certainty) -> StatedValue:
    written = value.model_dump(
        mode="json",
        by_alias=True,
        exclude_none=True,
        exclude_defaults=True,
        exclude={"evidence", "source", "effect", "name"},
    )
    effect = getattr(value, "effect", None)
    return StatedValue(
        path=path,
        value=written.get("value", written),
        effect="" if effect is None else str(effect),
        evidence=evidence.value,
        source=str(getattr(value, "source", "")),
    )

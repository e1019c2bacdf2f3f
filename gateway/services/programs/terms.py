"""The terms of every program that is known: those of its file, narrowed by the configuration.

Time zone, exclusivity groups and eligibility stand in the program's file. The configuration may add groups and ask for
more; where it says something else it is refused. Of a program without a file it is all that is known.
"""

from collections.abc import Iterator, Mapping

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.eligibility import Requirements
from gateway.domain.programs.terms import ProgramTerms
from gateway.services.settings import TERMS, EligibilitySettings, ProgramSettings


def every_program(
    settings: Mapping[str, ProgramSettings], files: Mapping[str, ProgramTerms]
) -> dict[str, ProgramSettings]:
    """The settings of the programs that the configuration or a file knows."""
    return {name: ProgramSettings() for name in files} | dict(settings)


def program_terms(
    settings: Mapping[str, ProgramSettings], files: Mapping[str, ProgramTerms]
) -> dict[str, ProgramTerms]:
    """The terms of these programs. Raises InvalidInput where the configuration contradicts a file."""
    problems = [
        problem for name, terms in files.items() if name in settings
        for problem in _contradictions(name, settings[name], terms)
    ]  # fmt: skip
    if problems:
        raise InvalidInput(problems)
    return {name: _terms(one, files.get(name)) for name, one in every_program(settings, files).items()}


def moved_terms(settings: Mapping[str, ProgramSettings]) -> list[str]:
    """Warnings about what the configuration says and the next release reads in the program's file alone."""
    return [
        f"programs.{name}.{key}: the next release reads it in the program's file in programs_dir alone"
        for name, one in settings.items() for key in TERMS if key in one.model_fields_set
    ]  # fmt: skip


def _terms(settings: ProgramSettings, file: ProgramTerms | None) -> ProgramTerms:
    zone = settings.time_zone if file is None else file.zone
    exclusive = frozenset(settings.exclusive_groups) | (frozenset() if file is None else file.exclusive)
    terms = ProgramTerms(zone=zone, exclusive=exclusive, versions=() if file is None else file.versions)
    return terms.narrowed(_requirements(settings.eligibility))


def _requirements(asked: EligibilitySettings) -> Requirements:
    return Requirements(
        min_w=asked.min_kw * 1000, min_hours=asked.min_hours, completeness_pct=asked.completeness_pct,
        territories=frozenset(asked.territories),
    )  # fmt: skip


def _contradictions(name: str, settings: ProgramSettings, file: ProgramTerms) -> Iterator[str]:
    if "time_zone" in settings.model_fields_set and settings.time_zone != file.zone:
        yield f"programs.{name}.time_zone: {settings.time_zone}; the program's file says {file.zone}: keep that alone"
    asked, given = settings.eligibility, settings.eligibility.model_fields_set
    for version in file.versions:
        of = version.requirements
        for key, value, least in (
            ("min_kw", asked.min_kw, of.min_w / 1000), ("min_hours", asked.min_hours, of.min_hours),
            ("completeness_pct", asked.completeness_pct, of.completeness_pct),
        ):  # fmt: skip
            if key in given and value < least:
                yield (
                    f"programs.{name}.eligibility.{key}: {value:g}; the program's file asks for {least:g} in version "
                    f"{version.name}, and the configuration may only ask for more"
                )
        if "min_kw" in given and asked.min_kw * 1000 > of.max_w:
            yield f"programs.{name}.eligibility.min_kw: {asked.min_kw:g}; the program takes {of.max_w / 1000:g} at most"

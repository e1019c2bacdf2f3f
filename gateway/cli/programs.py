"""Commands about grid programs as data; none of them asks a daemon."""

from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.shared import DEFAULT_PROGRAMS, AsJson, fail, out, show
from gateway.domain.errors import InvalidInput
from gateway.programs.loader import LoadedProgram, load_program, load_programs
from gateway.programs.summary import days_of, plain, program_summary, stated

programs = typer.Typer(no_args_is_help=True, help="Rules of grid programs.")

Directory = Annotated[Path, typer.Option("--dir", help="folder of programs")]


@programs.command("list")
def programs_list(directory: Directory = DEFAULT_PROGRAMS, as_json: AsJson = False) -> None:
    """List the programs that have rules here."""
    told = [asdict(program_summary(one)) for one in _loaded(directory).values()]
    shown = ("program", "pricing", "zone", "values", "unverified", "digest")
    rows = [{name: row[name] for name in shown} | {"versions": "; ".join(row["versions"])} for row in told]
    show(told if as_json else rows, of="programs", as_json=as_json)


@programs.command("check")
def programs_check(
    paths: Annotated[list[Path] | None, typer.Argument(help="program files or folders")] = None,
    directory: Annotated[Path, typer.Option("--dir", help="folder to check when no path is given")] = DEFAULT_PROGRAMS,
    as_json: AsJson = False,
) -> None:
    """Check programs and print every fault with file, line and path."""
    problems: list[str] = []
    good: list[dict[str, Any]] = []
    for path in paths or [directory]:
        try:
            found = [*load_programs(path).values()] if path.is_dir() else [load_program(path)]
        except InvalidInput as error:
            problems += error.problems
        else:
            good += [asdict(program_summary(one)) for one in found]
    if as_json:
        out.print_json(data={"good": good, "problems": problems})
    else:
        for row in good:
            text = f"{row['program']}: valid, {len(row['versions'])} versions, {row['values']} values"
            out.print(f"{text}, {row['unverified']} unverified", markup=False, highlight=False)
    if problems:
        fail([] if as_json else problems, code=2)


@programs.command("show")
def programs_show(
    program: Annotated[str, typer.Argument(help="name of a program")],
    on: Annotated[str | None, typer.Option("--on", help="a local day, like 2026-07-07: the version in force")] = None,
    directory: Directory = DEFAULT_PROGRAMS,
    as_json: AsJson = False,
) -> None:
    """Show the rules of a program with effect, evidence and source; with --on only those in force on that day. Exits
    with 1 if none are."""
    found = _loaded(directory).get(program)
    if found is None:
        fail([f"{program}: no such program in {directory}"], code=2)
    document, versions = found.document, found.document.versions
    if on is not None:
        day = _day(on)
        versions = tuple(version for version in versions if day in version.dates().dates())
        if not versions:
            fail([f"{program}: no version is in force on {day}"], code=1)
    if as_json:
        out.print_json(data=plain(document) | {"versions": [plain(version) for version in versions]})
        return
    out.print(f"{program}: {document.title} (pricing: {document.pricing.value})", markup=False, highlight=False)
    for note in (document.notes, *(version.notes for version in versions)):
        if note is not None:
            out.print(note, markup=False, highlight=False)
    for version in versions:
        out.print(f"\n{days_of(version)} ({version.evidence.value}, {version.source})", markup=False, highlight=False)
        show([asdict(value) | {"value": _words(value.value)} for value in stated(version)], of="values")


def _loaded(directory: Path) -> dict[str, LoadedProgram]:
    try:
        return load_programs(directory)
    except InvalidInput as error:
        fail(error.problems, code=2)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        fail([f"--on: a day is written 2026-07-07, not {text!r}"], code=2)


def _words(value: Any) -> str:
    """A value in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_words(item)}" for name, item in value.items())
    if isinstance(value, list):
        return "; ".join(map(_words, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)

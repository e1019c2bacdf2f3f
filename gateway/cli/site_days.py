"""The command that exports days of sites; it reads the state directory beside a daemon that may run."""

from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.configuration import ConfigFile, settings_of
from gateway.cli.shared import AsJson, fail, out
from gateway.domain.errors import GatewayError
from gateway.programs.loader import load_programs
from gateway.services.programs.frames import ProgramFrames
from gateway.services.programs.terms import every_program, program_terms
from gateway.storage.programs.daily import DailyColumns
from gateway.storage.programs.daily_export import export_days

DAYS_MAX = 4_000


def programs_export(
    file: Annotated[Path, typer.Argument(help="JSON lines; .gz is compressed")],
    *,
    config: ConfigFile,
    first: Annotated[str, typer.Option("--from", help="first local day")],
    last: Annotated[str, typer.Option("--to", help="last local day")],
    program: Annotated[str | None, typer.Option("--program", help="as this program divides days; else all")] = None,
    after: Annotated[int, typer.Option("--after", min=0, help="the token that the export before printed")] = 0,
    as_json: AsJson = False,
) -> None:
    """Export days of sites: every version that was written after a token, with what it rests on. Prints the token that
    the next export goes on from. The state directory is exported apart from this, by `gateway state export`."""
    begin, end = _day(first, "--from"), _day(last, "--to")
    if not begin <= end < begin + timedelta(days=DAYS_MAX):
        fail([f"--to: not before --from, and at most {DAYS_MAX} days"], code=2)
    settings = settings_of(config)
    try:
        with DailyColumns(settings.state_dir) as store:
            frames = store.frames()
            if program is not None:
                loaded = {} if settings.programs_dir is None else load_programs(settings.programs_dir)
                files = {name: one.terms for name, one in loaded.items()}
                if program not in every_program(settings.programs, files):
                    fail([f"--program {program}: neither the configuration nor programs_dir knows it"], code=2)
                known = ProgramFrames(
                    terms=program_terms(settings.programs, files), settings=settings.programs,
                    length_s=settings.intervals.length_s,
                )  # fmt: skip
                wanted = {known.frame(program, begin + timedelta(days=n)) for n in range((end - begin).days + 1)}
                frames = [frame for frame in frames if frame in wanted]
            done = export_days(
                store, file, frames=frames, first=begin, until=end + timedelta(days=1), after=after
            )  # fmt: skip
    except GatewayError as error:
        fail([str(error)], code=1)
    if as_json:
        out.print_json(data={"file": str(file), "rows": done.rows, "token": done.token})
        return
    out.print(
        f"{file}: {done.rows} versions; the next export goes on with --after {done.token}",
        markup=False,
        highlight=False,
    )


def _day(text: str, option: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        fail([f"{option}: a day is written 2026-07-07, not {text!r}"], code=2)

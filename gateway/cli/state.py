"""Commands about the whole state directory: to an archive and back, while no daemon runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.app.offline import export_state, import_state
from gateway.cli.configuration import ConfigFile, settings_of
from gateway.cli.progress import progress
from gateway.cli.shared import AsJson, fail, out
from gateway.domain.errors import GatewayError, InvalidInput

state = typer.Typer(no_args_is_help=True, help="The whole state directory, for backups and moves.")


@state.command("export")
def state_export(
    config: ConfigFile,
    file: Annotated[Path, typer.Option("--out", help="the archive; it appears only when it is complete")],
    damaged: Annotated[
        bool, typer.Option("--damaged", help="include the files that were set aside as damaged")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the state directory to an archive. It contains customers' data: keep it as safe as the original."""
    settings = settings_of(config)
    with progress("writing the archive") as told_of:
        told = _done(lambda: export_state(settings, file, damaged=damaged, progress=told_of))
    _tell(told, f"{file}: {told['files']} files, {told['bytes']} bytes in {told['archive_bytes']}", as_json=as_json)


@state.command("import")
def state_import(
    config: ConfigFile,
    file: Annotated[Path, typer.Option("--in", help="the archive")],
    replace: Annotated[
        bool, typer.Option("--replace", help="if there is a state already, keep it as <state_dir>.before-<time>")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make an archive the state directory. The gateway that it came from must not run again."""
    settings = settings_of(config)
    with progress("unpacking the archive") as told_of:
        told = _done(lambda: import_state(settings, file, replace=replace, progress=told_of))
    text = f"{told['state_dir']}: {told['files']} files, {told['bytes']} bytes, as of {told['created']}"
    _tell(told, text + (f"; before: {told['before']}" if told["before"] else ""), as_json=as_json)


def _done(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except InvalidInput as error:
        fail(error.problems, code=2)
    except GatewayError as error:
        fail([str(error)], code=1)


def _tell(told: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        out.print_json(data=told)
    else:
        out.print(text, markup=False, highlight=False)

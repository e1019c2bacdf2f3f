"""Commands that need no running daemon, and the daemon itself."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.api.documents import documents
from gateway.app.daemon import run_daemon
from gateway.cli.shared import (
    DEFAULT_PROFILES,
    ConfigFile,
    fail,
    json_text,
    out,
    settings_of,
)
from gateway.config.settings import load_settings
from gateway.domain.errors import GatewayError, InvalidInput
from gateway.profiles.loader import load_profiles

daemon = typer.Typer()


@daemon.command()
def run(
    config: ConfigFile,
    release: Annotated[bool, typer.Option(help="on a stop, release every device, ramped, before leaving")] = False,
) -> None:
    """Run the gateway until SIGTERM or SIGINT."""
    settings = settings_of(config)
    try:
        run_daemon(settings, release_on_stop=release)
    except InvalidInput as error:
        fail(error.problems, code=2)
    except GatewayError as error:
        fail([str(error)], code=1)


@daemon.command()
def validate(config: ConfigFile) -> None:
    """Check a configuration and the profiles it names; every fault at once."""
    problems: list[str] = []
    try:
        settings = load_settings(config)
        load_profiles(settings.profiles_dir)
    except InvalidInput as error:
        problems = error.problems
    if problems:
        fail(problems, code=2)
    out.print(f"{config}: valid", markup=False, highlight=False)


@daemon.command()
def schema(
    directory: Annotated[Path, typer.Option(help="where the documents lie")] = Path("deploy/api"),
    profiles: Annotated[Path, typer.Option(help="directory of profiles")] = DEFAULT_PROFILES,
    check: Annotated[bool, typer.Option("--check", help="compare only; fail when out of date")] = False,
) -> None:
    """Write (or check) the OpenAPI and AsyncAPI documents and the profiles' JSON Schema."""
    stale: list[str] = []
    for name, document in documents(profiles).items():
        path = directory / name
        text = json_text(document)
        if check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(f"{path}: out of date; run `gateway schema`")
        else:
            directory.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale:
        fail(stale, code=1)

"""The daemon itself, and commands that check or generate files."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.api.documents import documents
from gateway.app.access import server_context
from gateway.app.daemon import EXIT_BROKEN, run_daemon
from gateway.app.last_runs import resume
from gateway.cli.configuration import ConfigFile, settings_of
from gateway.cli.shared import (
    DEFAULT_PROFILES,
    AsJson,
    fail,
    json_text,
    out,
    warn,
)
from gateway.config.json_schema import settings_schema
from gateway.config.loader import load_settings
from gateway.config.secrets import read_secret
from gateway.config.settings import Settings
from gateway.domain.errors import GatewayError, InvalidInput, InvariantBroken
from gateway.profiles.loader import load_profiles
from gateway.programs.loader import load_programs
from gateway.services.programs.terms import moved_terms, program_terms
from gateway.signals.webhook.loader import load_webhooks

daemon = typer.Typer()


@daemon.command()
def run(
    config: ConfigFile,
    release: Annotated[bool, typer.Option(help="release every device, ramped, before stopping")] = False,
) -> None:
    """Run the gateway until SIGTERM or SIGINT."""
    settings = settings_of(config)
    try:
        run_daemon(settings, release_on_stop=release)
    except InvalidInput as error:
        fail(error.problems, code=2)
    except InvariantBroken:
        # it is logged
        fail([], code=EXIT_BROKEN)
    except GatewayError as error:
        fail([str(error)], code=1)


@daemon.command("resume")
def leave_release_only(config: ConfigFile) -> None:
    """Let the next start run events again, after the gateway has come up release-only; then restart it."""
    settings = settings_of(config)
    try:
        resume(settings.state_dir)
    except GatewayError as error:
        fail([str(error)], code=1)
    out.print(f"{settings.state_dir}: the next start runs events again", markup=False, highlight=False)


@daemon.command()
def validate(config: ConfigFile, as_json: AsJson = False) -> None:
    """Check a configuration and the files that it names, and print every fault."""
    problems: list[str] = []
    warnings: list[str] = []
    try:
        settings = load_settings(config)
    except InvalidInput as error:
        problems = error.problems
    else:
        warnings += settings.former
        for check in (_profiles, _programs, _webhooks, _callers, _certificate):
            try:
                warnings += check(settings)
            except InvalidInput as error:
                problems += error.problems
    if as_json:
        out.print_json(data={"valid": not problems, "problems": problems, "warnings": warnings})
    if problems:
        fail([] if as_json else problems, code=2)
    if as_json:
        return
    warn(warnings)
    out.print(f"{config}: valid", markup=False, highlight=False)


def _profiles(settings: Settings) -> list[str]:
    """Warnings about the profiles. Raises InvalidInput; so do those below."""
    codecs = load_profiles(settings.profiles_dir)
    return [warning for codec in codecs.values() for warning in (*codec.former, *codec.doubts)]


def _programs(settings: Settings) -> list[str]:
    programs = {} if settings.programs_dir is None else load_programs(settings.programs_dir)
    program_terms(settings.programs, {name: one.terms for name, one in programs.items()})
    return moved_terms(settings.programs)


def _webhooks(settings: Settings) -> list[str]:
    if settings.webhooks_dir is not None:
        load_webhooks(settings.webhooks_dir, read_secret)
    return []


def _callers(settings: Settings) -> list[str]:
    # its library takes time to load
    from gateway.config.access import load_access

    if settings.http.access is not None:
        load_access(settings.http.access)
    return []


def _certificate(settings: Settings) -> list[str]:
    if settings.http.tls is not None:
        try:
            server_context(settings.http.tls)
        except OSError as error:
            raise InvalidInput([f"http.tls: {error}"]) from error
    return []


@daemon.command()
def schema(
    directory: Annotated[Path, typer.Option(help="directory of the documents")] = Path("deploy/api"),
    profiles: Annotated[Path, typer.Option(help="directory of profiles")] = DEFAULT_PROFILES,
    check: Annotated[bool, typer.Option("--check", help="compare only; fail when out of date")] = False,
) -> None:
    """Write (or check) the OpenAPI and AsyncAPI documents and the JSON Schemas of files."""
    stale: list[str] = []
    for name, document in (documents(profiles) | {"config.schema.json": settings_schema()}).items():
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

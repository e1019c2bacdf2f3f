"""Shared by commands that read the configuration; everything it rests on is imported with it."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.shared import fail
from gateway.config.loader import load_settings
from gateway.config.secrets import SecretsMissing
from gateway.config.settings import Settings
from gateway.domain.errors import InvalidInput

EXIT_LATER = 75
"""The same command may do later."""

ConfigFile = Annotated[Path, typer.Option("--config", help="configuration file")]


def settings_of(path: Path) -> Settings:
    """The configuration; exits with 2 if it has faults, with `EXIT_LATER` if only files of secrets cannot be read."""
    try:
        return load_settings(path)
    except SecretsMissing as error:
        fail(error.problems, code=EXIT_LATER)
    except InvalidInput as error:
        fail(error.problems, code=2)

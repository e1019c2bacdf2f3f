"""The command line as people type it: every command with its arguments, options and words."""

from collections.abc import Iterator
from typing import Any

import typer

from gateway.cli import cli
from gateway.cli.lazy import LazyGroup
from tests.golden import golden


def _told(command: Any, path: str) -> Iterator[str]:
    yield f"{path}: {' '.join((command.help or '').split())}"
    for parameter in command.params:
        names = " ".join((*parameter.opts, *parameter.secondary_opts))
        facts = [parameter.param_type_name]
        facts += [word for word in ("required", "multiple", "is_flag") if getattr(parameter, word, False)]
        default = getattr(parameter.default, "value", parameter.default)
        if default is not None and not parameter.required:
            facts.append(f"default {default!r}")
        if parameter.envvar:
            facts.append(f"from {parameter.envvar}")
        yield f"    {names} ({', '.join(facts)}): {getattr(parameter, 'help', None) or ''}".rstrip()
    for name in sorted(getattr(command, "commands", {})):
        found = command.named[name].load(name) if isinstance(command, LazyGroup) else command.commands[name]
        yield from _told(found, f"{path} {name}")


def test_commands_and_their_options_are_those_of_the_golden_file() -> None:
    golden("commands.txt", "\n".join(_told(typer.main.get_command(cli), "gateway")))

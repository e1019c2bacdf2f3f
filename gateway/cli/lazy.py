"""A group of commands whose modules are imported when a command of them is asked for, not before."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

Args = list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Where a command or a group is: `module`, and in it the variable `group`; `command`: one command of that group.
    `help`: its first line in the list of commands."""

    module: str
    group: str
    help: str
    command: str | None = None
    former: bool = False

    def listed(self, name: str) -> TyperCommand:
        """What the list of commands shows of it."""
        return TyperCommand(name, help=self.help, hidden=self.former, deprecated=self.former)

    def load(self, name: str) -> Any:
        """The command itself."""
        group = typer.main.get_group(getattr(import_module(self.module), self.group))
        found = group if self.command is None else group.commands[self.command]
        found.name = name
        if self.former:
            found.help, found.hidden, found.deprecated = self.help, True, True
        return found


class LazyGroup(TyperGroup):
    """The group that lists `named` and loads what is called."""

    named: Mapping[str, Named] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: place.listed(name) for name, place in self.named.items()}

    def parse_args(self, ctx: Any, args: Args) -> Args:
        if not args or args[0].startswith("-"):
            return super().parse_args(ctx, args)
        # none of the group's own options is given, and the library would import pydantic to read that
        ctx._protected_args, ctx.args = args[:1], args[1:]
        return args[1:]

    def resolve_command(self, ctx: Any, args: Args) -> tuple[str | None, Any, Args]:
        name, found, rest = super().resolve_command(ctx, args)
        return name, self.named[name].load(name) if name is not None else found, rest

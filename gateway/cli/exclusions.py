"""Commands about exclusions: owners' opt-outs and storms."""

from typing import Annotated

import typer

from gateway import former_names
from gateway.cli.shared import DEFAULT_URL, AsJson, Url, ask, out, read_body, show, user, warn_of
from gateway.schemas import operations as ops


def _group(*, former: bool) -> typer.Typer:
    """The commands, over the path that is, or over the former one."""
    show_all, put, end = (
        (former and operation.former) or operation
        for operation in (ops.LIST_EXCLUSIONS, ops.SET_EXCLUSION, ops.LIFT_EXCLUSION)
    )
    member = former_names.MEMBERS["exclusions"] if former else "exclusions"
    group = typer.Typer(no_args_is_help=True, help="Devices kept out of dispatch: opt-outs and storms.")

    @group.command("list")
    def exclusions_list(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
        """List exclusions."""
        page = ask(url, show_all)
        if as_json:
            out.print_json(data=page)
            return
        show(page[member], of="exclusions")

    @group.command("set")
    def exclusions_set(
        file: Annotated[str, typer.Argument(help="file with the exclusion as JSON; - reads standard input")],
        url: Url = DEFAULT_URL,
    ) -> None:
        """Keep devices out of dispatch; the same id replaces the exclusion."""
        answer = ask(url, put, f"by={user()}", body=read_body(file))
        out.print_json(data=answer)
        warn_of(answer)

    @group.command("lift")
    def exclusions_lift(exclusion: str, url: Url = DEFAULT_URL) -> None:
        """End an exclusion."""
        out.print_json(data=ask(url, end, f"by={user()}", id=exclusion))

    return group


exclusions = _group(former=False)
formerly = _group(former=True)

"""Commands about holds: owners' opt-outs and storms."""

from typing import Annotated

import typer

from gateway.cli.shared import DEFAULT_URL, AsJson, Url, ask, out, read_body, segment, show

holds = typer.Typer(no_args_is_help=True, help="Devices kept out of dispatch: opt-outs and storms.")


@holds.command("list")
def holds_list(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List holds."""
    page = ask(url, "GET", "/v1/holds")
    if as_json:
        out.print_json(data=page)
        return
    show(page["holds"], as_json=False)


@holds.command("set")
def holds_set(
    file: Annotated[str, typer.Argument(help="hold as JSON; - reads standard input")], url: Url = DEFAULT_URL
) -> None:
    """Keep devices out of dispatch; the same id again replaces."""
    out.print_json(data=ask(url, "POST", "/v1/holds", read_body(file), "application/json"))


@holds.command("lift")
def holds_lift(hold: str, url: Url = DEFAULT_URL) -> None:
    """End a hold."""
    out.print_json(data=ask(url, "DELETE", f"/v1/holds/{segment(hold)}"))

"""Commands about exclusions: owners' opt-outs and storms."""

from typing import Annotated

import typer

from gateway import former_names
from gateway.cli.shared import DEFAULT_URL, AsJson, Url, ask, out, read_body, segment, show, user, warn_if_not_durable


def _group(path: str, member: str) -> typer.Typer:
    """The commands over the REST path whose list is in `member`."""
    group = typer.Typer(no_args_is_help=True, help="Devices kept out of dispatch: opt-outs and storms.")

    @group.command("list")
    def exclusions_list(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
        """List exclusions."""
        page = ask(url, "GET", path)
        if as_json:
            out.print_json(data=page)
            return
        show(page[member], as_json=False)

    @group.command("set")
    def exclusions_set(
        file: Annotated[str, typer.Argument(help="file with the exclusion as JSON; - reads standard input")],
        url: Url = DEFAULT_URL,
    ) -> None:
        """Keep devices out of dispatch; the same id replaces the exclusion."""
        answer = ask(url, "POST", path, read_body(file), "application/json")
        out.print_json(data=answer)
        warn_if_not_durable(answer)

    @group.command("lift")
    def exclusions_lift(exclusion: str, url: Url = DEFAULT_URL) -> None:
        """End an exclusion."""
        out.print_json(data=ask(url, "DELETE", f"{path}/{segment(exclusion)}?by={user()}"))

    return group


exclusions = _group("/v1/exclusions", "exclusions")
formerly = _group(former_names.PATHS["/v1/exclusions"], former_names.MEMBERS["exclusions"])

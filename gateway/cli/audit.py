"""Commands about the audit trail."""

import json
from typing import Annotated
from urllib.parse import urlencode

import typer

from gateway.cli.shared import DEFAULT_URL, AsJson, Limit, Url, ask, fail, out, show
from gateway.schemas import operations as ops

audit = typer.Typer(no_args_is_help=True, help="What was changed, when, by whom and through which door.")

SHOWN = 120


@audit.command("verify")
def audit_verify(
    head: Annotated[str | None, typer.Option(help="a head printed before, which must still be in the trail")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Check that the trail is what was written, and print its head. Exit code 1: it is not."""
    found = ask(url, ops.VERIFY_AUDIT, "" if head is None else urlencode({"head": head}))
    if as_json:
        out.print_json(data=found)
    else:
        print(f"rows {found['rows']}, of a release before {found['unchained']}, head {found['head']}")
    if found["broken"] is not None:
        fail([f"broken at row {found['broken']['id']}: {found['broken']['why']}"], code=1)


@audit.command("list")
def audit_list(
    since: Annotated[str | None, typer.Option("--from", help="RFC 3339")] = None,
    until: Annotated[str | None, typer.Option(help="RFC 3339")] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="one kind of change, such as hold_set or stop_all; another word is refused with the list"),
    ] = None,
    after: Annotated[str | None, typer.Option(help="the `next` of the page before")] = None,
    limit: Limit = 100,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List a page of journalled changes, newest first."""
    asked = {"from": since, "until": until, "kind": kind, "after": after, "limit": limit}
    page = ask(url, ops.LIST_AUDIT, urlencode({name: value for name, value in asked.items() if value is not None}))
    if as_json:
        out.print_json(data=page)
        return
    show([entry | {"what": json.dumps(entry["what"])[:SHOWN]} for entry in page["entries"]], of="entries")
    if page["next"]:
        out.print(f"there are more: --after {page['next']}", highlight=False)

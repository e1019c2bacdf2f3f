"""Commands about receivers of interval records."""

import json
from typing import Annotated
from urllib.parse import urlencode

import typer

from gateway.cli.shared import DEFAULT_URL, AsJson, Url, ask, out, show
from gateway.schemas import operations as ops

sinks = typer.Typer(
    no_args_is_help=True, help="Receivers of interval records: their progress, what they refused, sending again."
)


@sinks.command("list")
def sinks_list(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List receivers: records they accepted, records that wait, records parked by reason."""
    show(ask(url, ops.LIST_SINKS)["sinks"], of="sinks", as_json=as_json)


@sinks.command("missing")
def sinks_missing(
    sink: str,
    since: Annotated[str, typer.Option("--from", help="RFC 3339")],
    to: Annotated[str, typer.Option("--to", help="RFC 3339")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Ask a receiver what it lacks (the aggregator can say)."""
    query = urlencode({"from": since, "to": to})
    show(ask(url, ops.LIST_MISSING, query, name=sink)["missing"], of="missing intervals", as_json=as_json)


@sinks.command("resend")
def sinks_resend(
    sink: str,
    since: Annotated[str, typer.Option("--from", help="begins at or after this time (RFC 3339)")],
    to: Annotated[str, typer.Option("--to", help="begins before this time (RFC 3339)")],
    device: Annotated[list[str] | None, typer.Option("--device", help="may be given several times")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="may be given several times")] = None,
    parked: Annotated[bool, typer.Option("--parked", help="only records that the receiver refused")] = False,
    missing: Annotated[bool, typer.Option("--missing", help="only records that the receiver says it lacks")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Send intervals to a receiver again, each with its newest revision."""
    body = {"from": since, "to": to, "devices": device or [], "tags": tag or [], "parked": parked}
    body["missing"] = missing
    out.print_json(data=ask(url, ops.RESEND, body=json.dumps(body).encode(), name=sink))


@sinks.command("retry")
def sinks_retry(sink: str, url: Url = DEFAULT_URL) -> None:
    """Let a receiver that stopped, or that is waited for, be tried again now."""
    out.print_json(data=ask(url, ops.RETRY, body=b"{}", name=sink))

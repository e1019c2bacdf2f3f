"""Commands about dispatch events."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.shared import (
    DEFAULT_URL,
    AsJson,
    Url,
    ask,
    fail,
    out,
    segment,
    show,
)

dispatch = typer.Typer(no_args_is_help=True, help="Dispatch events.")


@dispatch.command("send")
def dispatch_send(
    file: Annotated[str, typer.Argument(help="event as JSON; - reads standard input")], url: Url = DEFAULT_URL
) -> None:
    """Send an event (or a new revision of one)."""
    try:
        body = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        fail([f"{file}: cannot be read: {error}"], code=2)
    out.print_json(data=ask(url, "POST", "/v1/dispatch-events", body, "application/json"))


@dispatch.command("list")
def dispatch_list(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List events."""
    page = ask(url, "GET", "/v1/dispatch-events")
    if as_json:
        out.print_json(data=page)
        return
    if page["stopped"]:
        out.print("dispatch is stopped: `gateway dispatch stop-all --clear` allows it again", highlight=False)
    shown = (
        "id",
        "revision",
        "state",
        "start",
        "end",
        "target_w",
        "commanded_w",
        "delivered_w",
        "unserved_w",
        "devices",
    )
    show([{k: event[k] for k in shown} for event in page["events"]], as_json=False)


@dispatch.command("show")
def dispatch_show(event: str, url: Url = DEFAULT_URL) -> None:
    """Show one event with its devices."""
    out.print_json(data=ask(url, "GET", f"/v1/dispatch-events/{segment(event)}"))


@dispatch.command("cancel")
def dispatch_cancel(event: str, url: Url = DEFAULT_URL) -> None:
    """Cancel an event."""
    out.print_json(data=ask(url, "DELETE", f"/v1/dispatch-events/{segment(event)}"))


@dispatch.command("stop-all")
def dispatch_stop_all(
    url: Url = DEFAULT_URL, clear: Annotated[bool, typer.Option("--clear", help="allow dispatch again")] = False
) -> None:
    """Release everything, ramped, and refuse new events until cleared."""
    body = json.dumps({"active": not clear, "by": os.environ.get("USER", "operator")}).encode()
    out.print_json(data=ask(url, "POST", "/v1/dispatch/stop-all", body, "application/json"))

"""Commands about dispatch events."""

import json
import os
from typing import Annotated

import typer

from gateway.cli.shared import (
    DEFAULT_URL,
    AlwaysJson,
    AsJson,
    Limit,
    Offset,
    Url,
    ask,
    fail,
    out,
    read_body,
    segment,
    show,
    user,
    warn_of,
)
from gateway.schemas import operations as ops

OPEN = "open"
"""The `end` of an event that goes on until further notice; `schemas.event` would import pydantic."""

dispatch = typer.Typer(no_args_is_help=True, help="Dispatch events.")


@dispatch.command("send")
def dispatch_send(
    file: Annotated[str, typer.Argument(help="file with the event as JSON; - reads standard input")],
    url: Url = DEFAULT_URL,
    open_ended: Annotated[
        bool, typer.Option("--until-further-notice", help="the event has no end: it goes on until it is revised")
    ] = False,
) -> None:
    """Send an event (or a new revision of one)."""
    body = read_body(file)
    answer = ask(url, ops.SUBMIT_EVENT, f"by={user()}", body=_without_end(file, body) if open_ended else body)
    out.print_json(data=answer)
    warn_of(answer)


def _without_end(file: str, body: bytes) -> bytes:
    """The event of a file that has no end, with one that says so; exits with 2 if it has."""
    try:
        event = json.loads(body)
    except ValueError as error:
        fail([f"{file}: not JSON: {error}"], code=2)
    if not isinstance(event, dict):
        fail([f"{file}: not an event"], code=2)
    if event.get("end", OPEN) != OPEN:
        fail([f"{file}: end: {event['end']} contradicts --until-further-notice"], code=2)
    return json.dumps(event | {"end": OPEN}).encode()


@dispatch.command("list")
def dispatch_list(
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
    after: Annotated[str | None, typer.Option(help="the `next` of the page before")] = None,
    limit: Limit = 100,
) -> None:
    """List a page of events, newest start first."""
    query = f"limit={limit}" + (f"&after={segment(after)}" if after else "")
    page = ask(url, ops.LIST_EVENTS, query)
    if as_json:
        out.print_json(data=page)
        return
    if page["stopped"]:
        out.print("dispatch is stopped: `gateway dispatch stop-all --clear` allows it again", highlight=False)
    shown = (
        "id",
        "source",
        "revision",
        "state",
        "reason",
        "start",
        "end",
        "want",
        "target_w",
        "commanded_w",
        "delivered_w",
        "assumed_w",
        "attributed_w",
        "unserved_w",
        "shortfall",
        "devices",
    )
    show([{k: event.get(k) for k in shown} for event in page["events"]], of="events")
    if page.get("next"):
        out.print(f"there are more: --after {page['next']}", highlight=False)


Source = Annotated[str | None, typer.Option(help="whose event, where several sources have one of this id: rest, mqtt")]


@dispatch.command("show")
def dispatch_show(
    event: str,
    url: Url = DEFAULT_URL,
    offset: Offset = 0,
    limit: Limit = 100,
    occurrence: Annotated[
        str | None, typer.Option(help="start of an occurrence that is over, as the event shows it")
    ] = None,
    source: Source = None,
    _json: AlwaysJson = False,
) -> None:
    """Show one event with the delivery records of its devices."""
    query = f"offset={offset}&limit={limit}" + (f"&occurrence={segment(occurrence)}" if occurrence else "")
    query += f"&source={segment(source)}" if source else ""
    out.print_json(data=ask(url, ops.SHOW_EVENT, query, id=event))


@dispatch.command("cancel")
def dispatch_cancel(event: str, url: Url = DEFAULT_URL, source: Source = None) -> None:
    """Cancel an event, until `lift`, whatever its source sends meanwhile."""
    out.print_json(data=ask(url, ops.CANCEL_EVENT, _by(source), id=event))


@dispatch.command("lift")
def dispatch_lift(event: str, url: Url = DEFAULT_URL, source: Source = None) -> None:
    """Let the source of a cancelled event revise it again. The event stays cancelled until it does."""
    out.print_json(data=ask(url, ops.LIFT_CANCELLATION, _by(source), id=event))


def _by(source: str | None) -> str:
    """Who asks about whose event, as a query."""
    return f"by={user()}" + (f"&source={segment(source)}" if source else "")


@dispatch.command("availability")
def dispatch_availability(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show the power in kW that each group can sustain from now on, by hours."""
    page = ask(url, ops.SHOW_AVAILABILITY)
    if as_json:
        out.print_json(data=page)
        return
    rows = []
    for group in page["groups"]:
        row = {"group": group["group"], "devices": group["devices"]}
        for way in ("discharge", "charge"):
            for hours, watts in zip(group["hours"], group[f"{way}_w"], strict=True):
                row[f"{way} {hours} h"] = round(watts / 1000, 1)
        rows.append(row)
    show(rows, of="groups yet")


@dispatch.command("stop-all")
def dispatch_stop_all(
    url: Url = DEFAULT_URL, clear: Annotated[bool, typer.Option("--clear", help="allow dispatch again")] = False
) -> None:
    """Cancel running events, release every device, ramped, and refuse new events until cleared."""
    body = json.dumps({"active": not clear, "by": os.environ.get("USER", "operator")}).encode()
    answer = ask(url, ops.STOP_ALL, body=body)
    out.print_json(data=answer)
    warn_of(answer)

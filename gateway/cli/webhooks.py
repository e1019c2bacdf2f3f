"""Commands about webhook peers: their files, which are read here, and their messages, which the daemon has."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.shared import DEFAULT_URL, DEFAULT_WEBHOOKS, AsJson, Limit, Url, ask, fail, out, read_body, show
from gateway.clock import SystemClock
from gateway.config.secrets import read_secret
from gateway.domain.errors import InvalidInput
from gateway.schemas import operations as ops
from gateway.schemas.interval_rows import rfc3339
from gateway.signals.webhook.loader import WebhookPeer, load_webhook, load_webhooks
from gateway.signals.webhook.mapping import BadEvent, WebhookEvent, read_events

webhooks = typer.Typer(no_args_is_help=True, help="Peers that send events by webhook, and their messages.")

Directory = Annotated[Path, typer.Option("--dir", help="folder of webhook files")]


@webhooks.command("list")
def webhooks_list(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List the peers of the running daemon, and what became of their messages since its start."""
    rows = ask(url, ops.LIST_WEBHOOKS)["webhooks"]
    if not as_json:
        rows = [{k: v for k, v in row.items() if k != "messages"} | row["messages"] for row in rows]
    show(rows, of="webhooks", as_json=as_json)


@webhooks.command("messages")
def webhooks_messages(
    name: Annotated[str, typer.Argument(help="name of a peer")],
    url: Url = DEFAULT_URL,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Show the newest messages of a peer as they came, and why they were refused."""
    rows = ask(url, ops.SHOW_WEBHOOK, f"limit={min(limit, 100)}", name=name)["messages"]
    show(rows, of="messages", as_json=as_json)


@webhooks.command("check")
def webhooks_check(
    paths: Annotated[list[Path] | None, typer.Argument(help="webhook files or folders")] = None,
    directory: Annotated[Path, typer.Option("--dir", help="folder to check when no path is given")] = DEFAULT_WEBHOOKS,
    secrets: Annotated[bool, typer.Option("--secrets", help="check that the secrets can be read, too")] = False,
    as_json: AsJson = False,
) -> None:
    """Check webhook files and print every fault with file, line and path."""
    problems: list[str] = []
    good: list[dict[str, Any]] = []
    read = read_secret if secrets else None
    for path in paths or [directory]:
        try:
            found = [*load_webhooks(path, read).values()] if path.is_dir() else [load_webhook(path, read)]
        except InvalidInput as error:
            problems += error.problems
        else:
            good += [_summary(peer) for peer in found]
    if as_json:
        out.print_json(data={"good": good, "problems": problems})
    else:
        for row in good:
            text = f"{row['webhook']}: valid, {row['auth']}, {row['evidence']}"
            out.print(text, markup=False, highlight=False)
    if problems:
        fail([] if as_json else problems, code=2)


@webhooks.command("try")
def webhooks_try(
    name: Annotated[str, typer.Argument(help="name of a peer")],
    file: Annotated[str, typer.Argument(help="file with a body, - for standard input")],
    directory: Directory = DEFAULT_WEBHOOKS,
    as_json: AsJson = False,
) -> None:
    """Show what a body of a peer would become, without a daemon. Exits with 1 if an event is not understood."""
    try:
        peer = load_webhook(directory / f"{name}.yaml")
        found = read_events(peer.document, read_body(file), SystemClock().now().utc_ms)
    except InvalidInput as error:
        fail(error.problems, code=2)
    show([_tried(event) for event in found], of="events", as_json=as_json)
    bad = [problem for event in found if isinstance(event, BadEvent) for problem in event.problems]
    if bad:
        fail([] if as_json else bad, code=1)


def _summary(peer: WebhookPeer) -> dict[str, Any]:
    document = peer.document
    return {
        "webhook": document.webhook, "title": document.title, "auth": document.auth.kind,
        "evidence": document.evidence.value, "source": document.source,
    }  # fmt: skip


def _tried(event: WebhookEvent | BadEvent) -> dict[str, Any]:
    """An event in one row: W, + = discharge; null = the most that can be sustained."""
    if isinstance(event, BadEvent):
        return {"id": event.id or "", "cancelled": None, "problems": list(event.problems)}
    row: dict[str, Any] = {"id": event.id, "cancelled": event.cancelled, "revision": event.revision}
    request = event.request
    if request is None:
        return row | {"problems": []}
    group = {key: value for key, value in asdict(request.group).items() if value}
    start = "now" if request.anchored else rfc3339(request.start_ms)
    end = "open" if request.open_ended else rfc3339(request.end_ms)
    return row | {
        "kind": request.kind.value, "program": request.program, "start": start,
        "end": end, "target_w": request.target.power_w, "charge": request.target.charge_when_max,
        "reserve_pct": request.reserve_pct, "prepare_s": request.prepare_s, "precharge": request.precharge,
        "devices": group, "problems": [],
    }  # fmt: skip

"""Commands about changes at the aggregator: shown as differences, sent when somebody says so."""

import json
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from gateway.cli.shared import DEFAULT_URL, AsJson, Limit, Url, ask, fail, out, read_body, show, user
from gateway.schemas import operations as ops

outbox = typer.Typer(no_args_is_help=True, help="Changes at the aggregator: proposed, approved, sent, read back.")

Numbers = Annotated[list[int], typer.Argument(help="numbers of rows")]
Kind = Annotated[str, typer.Argument(help="meter, idle, participate, disenroll, nomination or webhook")]


@outbox.command("list")
def outbox_list(
    kind: Annotated[str | None, typer.Option(help="meter, idle, participate, disenroll, nomination or webhook")] = None,
    everything: Annotated[bool, typer.Option("--all", help="with what is done, refused or withdrawn")] = False,
    after: Annotated[int, typer.Option(min=0, help="the `next` of the page before")] = 0,
    limit: Limit = 100,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List open changes: what the aggregator has, and what it is to have."""
    query = {"unfinished": 0 if everything else 1, "after": after, "limit": limit} | ({"kind": kind} if kind else {})
    page = ask(url, ops.LIST_OUTBOX, urlencode(query))
    _print(page, page["entries"], as_json=as_json)


@outbox.command("propose")
def outbox_propose(
    kind: Kind,
    file: Annotated[str, typer.Argument(help="rows as JSON lines with subject and after; - reads standard input")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Propose changes; nothing is sent. What the aggregator has already is left out."""
    try:
        rows = [json.loads(line) for line in read_body(file).splitlines() if line.strip()]
    except ValueError as error:
        fail([f"{file}: not JSON lines: {error}"], code=2)
    body = json.dumps({"kind": kind, "rows": rows}).encode()
    answer = ask(url, ops.PROPOSE_CHANGES, f"by={user()}", body=body)
    _print(answer, answer["entries"], as_json=as_json)


@outbox.command("approve")
def outbox_approve(numbers: Numbers, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Give leave to rows that another person proposed; who asks is the caller of the token."""
    answer = ask(url, ops.APPROVE_CHANGES, body=json.dumps({"rows": numbers}).encode())
    _print(answer, answer["entries"], as_json=as_json)


@outbox.command("withdraw")
def outbox_withdraw(numbers: Numbers, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Take back rows that were not sent."""
    answer = ask(url, ops.WITHDRAW_CHANGES, f"by={user()}", body=json.dumps({"rows": numbers}).encode())
    _print(answer, answer["entries"], as_json=as_json)


@outbox.command("send")
def outbox_send(
    kind: Kind,
    really: Annotated[bool, typer.Option("--send", help="send; without it this only shows")] = False,
    confirm: Annotated[int | None, typer.Option(min=0, help="the exact number of rows that go")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show what would be sent, or send it. Exits with 1 if nothing was sent that was to be, or not all of it."""
    body = {"kind": kind, "dry_run": not really, "confirm": confirm}
    answer = ask(url, ops.SEND_CHANGES, f"by={user()}", body=json.dumps(body).encode())
    _print(answer, answer["entries"], as_json=as_json)
    if not as_json:
        done = "would go" if answer["dry_run"] else "to be sent"
        text = f"{answer['would_send']} rows {done}, {answer['waiting']} wait for leave"
        out.print(text, markup=False, highlight=False)
    why = [answer[name] for name in ("refusal", "error") if answer[name]]
    if why:
        fail([] if as_json else why, code=1)


def _print(answer: dict[str, Any], rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        out.print_json(data=answer)
        return
    show([_row(row) for row in rows], of="changes")


def _row(row: dict[str, Any]) -> dict[str, Any]:
    changes = "; ".join(f"{one['member']}: {one['before']} -> {one['after']}" for one in row["differences"])
    waits = " (waits for leave)" if row["needs_approval"] and row["state"] == "proposed" else ""
    return {
        "row": row["number"], "kind": row["kind"], "subject": row["subject"], "state": f"{row['state']}{waits}",
        "changes": f"new: {changes}" if row["is_new"] else changes, "detail": row["detail"],
    }  # fmt: skip

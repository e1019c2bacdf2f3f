"""Shared by every command: output, failures, requests to the daemon."""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from gateway.cli.client import Daemon, DaemonError
from gateway.schemas.operations import Operation

# A table that goes into a file or a pipe is not cut to the width of a screen.
out = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 1_000)
err = Console(stderr=True, soft_wrap=True)

Url = Annotated[str, typer.Option("--url", envvar="GATEWAY_URL", help="the daemon's address")]
Offset = Annotated[int, typer.Option(min=0)]

Limit = Annotated[int, typer.Option(min=1, max=1000)]
"""Of a page."""

AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
AlwaysJson = Annotated[bool, typer.Option("--json", help="print JSON, which this command always does")]
DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_PROFILES = Path("device_profiles")
DEFAULT_PROGRAMS = Path("config/programs")
DEFAULT_WEBHOOKS = Path("config/webhooks")


ROWS_SHOWN = 50


def tell_rejected(file: Path, report: dict[str, Any]) -> None:
    """Print the first bad rows of an import, each with its line and its fault, and count the rest."""
    for row in report["rejected"][:ROWS_SHOWN]:
        err.print(f"{file}:{row['line']}: {row['problem']}", markup=False, highlight=False)
    if report["rejected_total"] > ROWS_SHOWN:
        err.print(
            f"{file}: and {report['rejected_total'] - ROWS_SHOWN} more bad rows; --json has more of them",
            highlight=False,
        )


def fail(problems: list[str], *, code: int) -> NoReturn:
    """Print every problem and exit with `code`."""
    for problem in problems:
        err.print(problem, markup=False, highlight=False)
    raise typer.Exit(code)


def warn(warnings: Iterable[str]) -> None:
    """Print warnings; they do not change the exit code."""
    for warning in warnings:
        err.print(f"warning: {warning}", markup=False, highlight=False)


def daemon_at(url: str) -> Daemon:
    """The daemon at `url`, asked with the token of the environment. Warns where that goes in the open."""
    token = os.environ.get("GATEWAY_TOKEN")
    daemon = Daemon(url, token=token)
    if token and daemon.open_to_all:
        warn([f"the token goes over plain http to {url}; anybody on the way can read it"])
    return daemon


def ask(
    url: str,
    operation: Operation,
    query: str = "",
    *,
    body: bytes | None = None,
    kind: str | None = None,
    **parameters: str,
) -> Any:
    """The JSON answer of an operation. `parameters`: those of its path; a body is JSON unless `kind` says otherwise."""
    try:
        return daemon_at(url).ask(operation.method, operation.target(parameters, query), body=body, content_type=kind)
    except DaemonError as error:
        fail(error.problems, code=1)


def user() -> str:
    """Who asks, as one value of a query."""
    return segment(os.environ.get("USER") or "operator")


def warn_of(answer: Any) -> None:
    """The warnings of an answer; and say so where it is in force and a restart would forget it."""
    warn(answer.get("warnings") or ())
    if answer.get("durable") is False:
        warn(["it is in force and not durable yet: a restart would forget it until the disk takes it"])


def read_body(file: str) -> bytes:
    """A file, or standard input for `-`; exits with 2 if it cannot be read."""
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        fail([f"{file}: cannot be read: {error}"], code=2)


def write_new(file: Path, text: str) -> None:
    """Write a file that is not there yet; exits with 2 if it is, or cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as target:
            target.write(text)
    except FileExistsError:
        fail([f"{file}: is there already"], code=2)
    except OSError as error:
        fail([f"{file}: cannot be written: {error}"], code=2)


def json_text(document: object) -> str:
    """A document as it stands in a file."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def segment(name: str) -> str:
    """A text as one value of a query, whatever is in it."""
    return quote(name, safe="")


def show(rows: list[dict[str, Any]], *, of: str, as_json: bool = False) -> None:
    """Print rows as a table, or that there are none `of` what was asked for."""
    if as_json:
        out.print_json(data=rows)
        return
    if not rows:
        out.print(f"no {of}", highlight=False)
        return
    table = Table(box=None)
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    out.print(table)

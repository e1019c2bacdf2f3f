"""Commands about homes: cases of those that underperform, and what each did on a day."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from gateway.cli.shared import DEFAULT_URL, AsJson, Limit, Url, ask, out, show, user, write_new
from gateway.schemas import operations as ops

homes = typer.Typer(no_args_is_help=True, help="Homes that underperform, and what each did on a day.")

PAGE = 1_000
FORMULAS = ("=", "+", "-", "@", "\t", "\r")

Number = Annotated[str, typer.Argument(help="number of the case")]


@homes.command("cases")
def homes_cases(
    home: Annotated[str | None, typer.Option(help="of this home")] = None,
    cause: Annotated[str | None, typer.Option(help="of this cause, such as power-derate")] = None,
    everything: Annotated[bool, typer.Option("--all", help="with closed ones")] = False,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="write all of them to a new CSV file")] = None,
    after: Annotated[int, typer.Option(min=0, help="the `next` of the page before")] = 0,
    limit: Limit = 100,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List cases: one per home and cause."""
    query: dict[str, Any] = {"open": 0 if everything else 1, "after": after, "limit": limit}
    query |= {name: value for name, value in (("home", home), ("cause", cause)) if value is not None}
    if csv_file is not None:
        write_new(csv_file, _csv(_all(url, query | {"limit": PAGE})))
        return
    page = ask(url, ops.LIST_CASES, urlencode(query))
    if as_json:
        out.print_json(data=page)
        return
    show([_row(case) for case in page["entries"]], of="cases")


@homes.command("open")
def homes_open(
    home: Annotated[str, typer.Argument(help="the home")],
    cause: Annotated[str, typer.Argument(help="what seems to be the matter, such as unit-off")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Open a case by hand."""
    body = json.dumps({"home": home, "cause": cause}).encode()
    _print(ask(url, ops.OPEN_CASE, f"by={user()}", body=body), as_json=as_json)


@homes.command("assign")
def homes_assign(
    number: Number,
    assignee: Annotated[str, typer.Argument(help="who looks after it; empty = nobody")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Say who looks after a case."""
    _change(url, number, {"assignee": assignee}, as_json=as_json)


@homes.command("snooze")
def homes_snooze(
    number: Number,
    until: Annotated[str | None, typer.Option(help="RFC 3339; without it the case is put off no longer")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Put a case off: nobody is told of it until then."""
    _change(url, number, {"snooze_until": until}, as_json=as_json)


@homes.command("close")
def homes_close(
    number: Number,
    because: Annotated[str, typer.Option(help="why, in words")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Close a case; it opens again by itself if a later event shows the same."""
    _change(url, number, {"close": because}, as_json=as_json)


@homes.command("explain")
def homes_explain(
    home: Annotated[str, typer.Argument(help="a device, or a site with all of its devices")],
    on: Annotated[str, typer.Option(help="a local day, YYYY-MM-DD")],
    zone: Annotated[str, typer.Option(help="the time zone of that day")] = "UTC",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Say in words what a home's batteries did on a day: for which events, on whose order, what is missing and why."""
    answer = ask(url, ops.EXPLAIN_HOME, urlencode({"on": on, "zone": zone}), id=home)
    if as_json:
        out.print_json(data=answer)
        return
    for battery in answer["batteries"]:
        for sentence in battery["says"]:
            out.print(sentence, markup=False, highlight=False)


def _change(url: str, number: str, body: dict[str, Any], *, as_json: bool) -> None:
    case = ask(url, ops.CHANGE_CASE, f"by={user()}", body=json.dumps(body).encode(), id=number)
    _print(case, as_json=as_json)


def _print(case: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        out.print_json(data=case)
        return
    show([_row(case)], of="cases")


def _row(case: dict[str, Any]) -> dict[str, Any]:
    state = f"closed by {case['closed_by']}: {case['closed_because']}" if case["closed"] else case["state"]
    return {
        "case": case["case"], "home": case["home"], "cause": case["cause"], "trend": case["trend"],
        "since": case["since"], "events": case["events"], "lost kWh": f"{case['lost_wh'] / 1000:.1f}",
        "assignee": case["assignee"] or None, "state": state,
    }  # fmt: skip


def _all(url: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every case, page by page."""
    following: int | None = query["after"]
    while following is not None:
        page = ask(url, ops.LIST_CASES, urlencode(query | {"after": following}))
        yield from page["entries"]
        following = page["next"]


def _csv(cases: Iterator[dict[str, Any]]) -> str:
    """Cases as CSV; a text that a spreadsheet would work out is marked as one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = (
        "case", "revision", "state", "home", "cause", "trend", "opened_by", "opened", "since", "events", "lost_wh",
        "assignee", "snoozed_until", "closed_by", "closed", "closed_because", "reopened",
    )  # fmt: skip
    numbers = ("level", "energy", "short", "late_s", "acknowledged", "coverage", "unmeasured_wh")
    writer.writerow((*names, *numbers))
    for case in cases:
        evidence = case["evidence"]
        writer.writerow([_cell(case[name]) for name in names] + [_cell(evidence.get(name)) for name in numbers])
    return text.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULAS) else value

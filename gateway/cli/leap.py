"""Commands about the aggregator."""

from collections.abc import Iterable
from typing import Any

import typer

from gateway.cli.shared import DEFAULT_URL, AsJson, Url, ask, out
from gateway.schemas import operations as ops

leap = typer.Typer(no_args_is_help=True, help="The aggregator: what it has confirmed, and how uploads stand.")


@leap.callback()
def _leap() -> None:
    """The aggregator."""


@leap.command("status")
def leap_status(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show the last file, the last accepted row, what is missing and until when, what waits and why."""
    status = ask(url, ops.SHOW_LEAP)
    if as_json:
        out.print_json(data=status)
        return
    for line in _lines(status):
        out.print(line, markup=False, highlight=False)


def _lines(status: dict[str, Any]) -> Iterable[str]:
    yield f"{status['state']}: " + (
        f"not confirmed by the aggregator: {', '.join(status['unconfirmed'])}"
        if status["unconfirmed"]
        else "all points"
    )
    for point, value in status["confirmed"].items():
        yield f"  confirmed {point}: {value}"
    if not status["sinks"]:
        yield "no sink of kind leap_csv is configured"
    for sink in status["sinks"]:
        yield ""
        yield f"{sink['sink']} over {sink['transport']}, schema {sink['upload_schema']}, {sink['meters']} meters"
        if sink["meters_failing"]:
            yield f"  the newest file of meters is not in force: {sink['meters_failing']}"
        yield f"  last file          {_file(sink['last_file'])}"
        yield f"  on its way         {_file(sink['on_its_way'])}"
        row = sink["last_accepted"]
        yield "  last accepted row  " + (
            f"{row['start']} {row['device']} revision {row['revision']}" if row else "none"
        )
        yield from _missing(sink)
        oldest = f", the oldest begins {sink['oldest']}" if sink["oldest"] else ""
        yield f"  waits              {sink['backlog']} records{oldest}"
        if sink["failing"]:
            stopped = "STOPPED, somebody must act" if sink["stopped"] else "will be tried again"
            detail = f" ({sink['detail']})" if sink["detail"] else ""
            yield f"  why                {sink['failing']}{detail}: {stopped}"
        for reason, count in sink["waiting"].items():
            yield f"  waits              {count} rows: {reason}"
        for reason, count in sink["parked"].items():
            yield f"  parked             {count} records: {reason}"


def _file(file: dict[str, Any] | None) -> str:
    if file is None:
        return "none"
    job = f", job {file['job']}" if file["job"] else ""
    return f"{file['name']}, {file['rows']} rows, {file['status']} at {file['at']}{job}"


def _missing(sink: dict[str, Any]) -> Iterable[str]:
    missing = sink["missing"]
    if missing is None:
        yield f"  missing there      not known: {sink['missing_unknown']}"
        return
    if not missing["entries"]:
        yield "  missing there      nothing"
    else:
        who = missing["oldest_device"] or f"meter {missing['oldest_meter']}"
        yield f"  missing there      {missing['entries']} entries, the oldest of {who} from {missing['oldest']}"
    yield f"  next deadline      {missing['next_deadline'] or 'none told'}"
